//! A standard scenario: five hosts, a square and a tail, requests of all sizes along all of it.

use super::{Faults, Options, World};
use crate::api::Limits;
use crate::wire::MIN_FRAME;

/// Channels of the scenario.
pub const PAIRS: [(usize, usize); 5] = [(0, 1), (1, 2), (2, 3), (1, 4), (4, 3)];

const PATHS: [&[usize]; 6] = [&[0, 1, 2, 3], &[0, 1, 4, 3], &[3, 2, 1], &[1, 0], &[4, 3, 2], &[2, 1, 0]];

/// What goes wrong in a run, and within which limits.
#[derive(Clone, Debug)]
pub struct Setup {
    pub faults: Faults,
    pub limits: Limits,
    /// See [`World::crash_at`].
    pub crash_at: Option<(usize, u64)>,
}

impl Setup {
    pub fn new(faults: Faults) -> Setup {
        Setup { faults, limits: Options::new(0).limits, crash_at: None }
    }

    /// Small frames, small flushes: everything is cut into several.
    pub fn tight(self) -> Setup {
        let limits = Limits { max_frame: MIN_FRAME, max_inline: 1 << 10, max_flush: 2, ..self.limits };
        Setup { limits, ..self }
    }
}

/// Up to 60 requests under faults, then time without faults until the world is at rest. Call
/// [`World::audit`] on the result.
pub fn random(seed: u64, setup: &Setup) -> World {
    let mut options = Options::new(seed);
    (options.faults, options.limits) = (setup.faults, setup.limits.clone());
    let mut world = World::new(options, 5, &PAIRS);
    world.crash_at = setup.crash_at;
    world.run(500);
    for _ in 0..12 {
        for _ in 0..world.rng.below(6) {
            let path = PATHS[world.rng.below(6) as usize];
            let body = [10, 500, 16 << 10, 20_000, 150_000][world.rng.below(5) as usize];
            let reply = [8, 300, 16 << 10, 17_000, 200_000][world.rng.below(5) as usize];
            if world.hosts[path[0]].node.is_some() {
                world.request(path, body, reply);
            }
        }
        let pause = world.rng.below(100);
        world.run(pause);
    }
    world.run(3_000);
    world.options.faults = Faults::default();
    world.run(600_000);
    world
}
