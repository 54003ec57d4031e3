//! Bytes as actions on three nodes of the real core, with crashes that lose or keep any part of
//! what was not committed.

use por_core::testing::{Faults, Options, World};
use por_core::wire::MIN_FRAME;
use por_types::Yocto;

/// A line, and a way around its middle.
const PAIRS: [(usize, usize); 3] = [(0, 1), (1, 2), (0, 2)];
const PATHS: [&[usize]; 6] = [&[0, 1, 2], &[2, 1, 0], &[0, 1], &[2, 1], &[1, 0, 2], &[0, 2]];
const SIZES: [u64; 6] = [8, 300, 16 << 10, 17_000, 40_000, 90_000];

/// Bounds the time of one run.
const MAX_ACTIONS: usize = 64;
const MAX_REQUESTS: usize = 16;

struct Script<'a>(&'a [u8]);

impl Script<'_> {
    fn next(&mut self) -> Option<u8> {
        let (byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*byte)
    }

    fn pick(&mut self, n: usize) -> usize {
        usize::from(self.next().unwrap_or_default()) % n
    }
}

/// Two bytes of settings, then actions. At the end faults stop, and once the world is at rest its
/// independent audit must find nothing: one outcome per request, money conserved, books of both
/// ends equal, no honest peer blamed, nothing left over.
pub fn core(data: &[u8]) {
    let mut script = Script(data);
    let (Some(seed), Some(settings)) = (script.next(), script.next()) else { return };
    let mut world = World::new(options(u64::from(seed), settings), 3, &PAIRS);
    world.run(200);
    for _ in 0..MAX_ACTIONS {
        let Some(action) = script.next() else { break };
        act(&mut world, action, &mut script);
    }
    world.options.faults = Faults::default();
    world.crash_at = None;
    world.run(600_000);
    let report = world.audit();
    assert!(report.violations.is_empty(), "{:#?}", report.violations);
}

fn options(seed: u64, settings: u8) -> Options {
    let mut options = Options::new(seed);
    if seed & 128 != 0 {
        options.late_fee = Some(Yocto(3));
        options.slack_ms = 50;
    }
    if settings & 1 != 0 {
        options.limits.max_frame = MIN_FRAME;
        options.limits.max_inline = 1 << 10;
        options.limits.max_flush = 2;
    }
    if settings & 2 != 0 {
        options.commit_ms = 40;
    }
    if settings & 4 != 0 {
        options.delay_ms = 60;
    }
    if settings & 8 != 0 {
        // Room for a few of the larger requests only.
        options.bond = Yocto(500_000);
    }
    if settings & 16 != 0 {
        options.terms.max_requests = 3;
    }
    if settings & 64 != 0 {
        options.read_ms = 3_000;
    }
    if settings & 128 != 0 {
        options.lag_ms = 2_500;
    }
    options.early_flush = if settings & 32 != 0 { 900 } else { 100 };
    options
}

/// From here on an action is a stall.
const STALLS: u8 = 240;

fn act(world: &mut World, action: u8, script: &mut Script<'_>) {
    if action >= STALLS {
        let host = script.pick(3);
        return world.stall(host, u64::from(script.next().unwrap_or_default()) * 40);
    }
    match action % 12 {
        0..=3 => request(world, script),
        4 => world.run(script.next().unwrap_or_default().into()),
        5 => world.run(u64::from(script.next().unwrap_or_default()) * 40),
        6 => {
            for _ in 0..script.pick(64) {
                world.step();
            }
        }
        7 => {
            let host = script.pick(3);
            if world.hosts[host].node.is_some() {
                world.crash(host);
            }
        }
        8 => {
            let host = script.pick(3);
            let output = world.hosts[host].outputs + u64::from(script.next().unwrap_or_default());
            world.crash_at = Some((host, output));
        }
        9 => {
            let (a, b) = PAIRS[script.pick(PAIRS.len())];
            for link in world.links_between(a, b) {
                world.cut(link);
            }
        }
        10 => {
            let byte = script.next().unwrap_or_default();
            let level = |bits: u32, most: u32| u32::from(byte >> bits) % 4 * most / 3;
            let (crash, cut) = (level(0, 12), level(2, 15));
            world.options.faults = Faults { crash, cut, duplicate: level(4, 90), second: level(6, 600) };
        }
        _ => world.options.faults = Faults::default(),
    }
}

fn request(world: &mut World, script: &mut Script<'_>) {
    let path = PATHS[script.pick(PATHS.len())];
    let sizes = script.next().unwrap_or_default();
    let body = SIZES[usize::from(sizes & 15) % SIZES.len()];
    let reply = SIZES[usize::from(sizes >> 4) % SIZES.len()];
    if world.asked.len() < MAX_REQUESTS && world.hosts[path[0]].node.is_some() {
        world.request(path, body as usize, reply);
    }
}
