//! Networks whose machines, links, apps, limits and policies differ from network to network, and whose hosts stand
//! still for moments.

use por_core::testing::{Options, Rng, World};
use por_core::wire::MIN_FRAME;
use por_core::{OrderPace, Policy};

use super::restarts;

/// From this seed on: earlier ones stay what they were.
const FROM: u64 = 100_000_000;
/// How often, per 1000 requests, a host stands still, and for how long at most, milliseconds: less than the margin.
const STALLS: u32 = 50;
const STALL_MS: u64 = 600;
/// Who restarts so often within seconds, with a slow disk at that, may be too late for an Ack.
const MANY_RESTARTS: u64 = 3;

pub(super) fn vary(options: &mut Options, seed: u64, nodes: usize) {
    if seed < FROM {
        return;
    }
    if seed.is_multiple_of(3) {
        let policy = Policy { orders: OrderPace::WithSync, ..Policy::default() };
        options.policies.extend((1..nodes).step_by(3).map(|host| (host, policy.clone())));
    }
    // Who takes as long as it may at its start leaves nothing for slow disks.
    if options.read_ms > 0 {
        return;
    }
    let mut rng = Rng::new(seed ^ 0xFB);
    options.commit_ms = [0, 3, 20, 60][rng.below(4) as usize];
    options.delay_ms = 1 + rng.below(20);
    options.early_flush = [0, 300][rng.below(2) as usize];
    options.app_ms = [None, Some(0), Some(100), Some(700)][rng.below(4) as usize];
    if rng.chance(300) {
        options.limits.max_frame = MIN_FRAME;
        options.limits.max_inline = 1 << 10;
        options.limits.max_flush = 16;
    }
}

/// After a request: now and then a host stands still.
pub(super) fn stand_still(world: &mut World, seed: u64, rng: &mut Rng) {
    if seed >= FROM && seed.is_multiple_of(2) && rng.chance(STALLS) {
        world.stall(rng.below(world.hosts.len() as u64) as usize, rng.below(STALL_MS));
    }
}

/// Whether an edge between these two may have been severed though both are honest.
pub(super) fn excuses(world: &World, seed: u64, ends: [usize; 2]) -> bool {
    seed >= FROM && ends.iter().any(|host| restarts(&world.hosts[*host]) >= MANY_RESTARTS)
}
