//! A random network that follows from a seed, as every graph gets it.

use por_types::NodeKey;
use rand::rngs::StdRng;
use rand::{Rng as _, SeedableRng as _};

/// Bytes of the request's body, and most bytes of the response.
pub const BODY: u64 = 256;

/// A channel: what it asks and promises.
#[derive(Clone, Copy, Debug)]
pub struct Channel {
    pub a: u32,
    pub b: u32,
    pub base_fee: u32,
    pub byte_fee: u32,
    pub rtt_ms: u16,
}

impl Channel {
    /// Price of a request of [`BODY`] bytes with a response of as many.
    pub fn price(&self) -> u64 {
        u64::from(self.base_fee) + u64::from(self.byte_fee) * 2 * BODY
    }
}

pub struct Network {
    pub nodes: u32,
    pub channels: Vec<Channel>,
    seed: u64,
}

/// From one node to another within a time.
#[derive(Clone, Copy, Debug)]
pub struct Query {
    pub from: u32,
    pub to: u32,
    /// Tight enough that the cheapest route of all breaks it.
    pub bound_ms: u64,
}

impl Network {
    /// Every node has a channel to an earlier one, so that all are connected; the other channels
    /// join nodes at random.
    pub fn new(nodes: u32, channels: u32, seed: u64) -> Network {
        let mut random = StdRng::seed_from_u64(seed);
        let mut all = Vec::with_capacity(channels as usize);
        for place in 0..channels {
            let (a, b) = if place + 1 < nodes {
                (place + 1, random.random_range(0..=place))
            } else {
                let a = random.random_range(0..nodes);
                (a, (a + random.random_range(1..nodes)) % nodes)
            };
            all.push(Channel {
                a,
                b,
                base_fee: random.random_range(1_000..50_000),
                byte_fee: random.random_range(0..100),
                rtt_ms: random.random_range(5..200),
            });
        }
        Network { nodes, channels: all, seed }
    }

    pub fn random(&self, purpose: u64) -> StdRng {
        StdRng::seed_from_u64(self.seed.wrapping_mul(31).wrapping_add(purpose))
    }

    /// A key that no other node has. Searches never look at its curve.
    pub fn key(&self, node: u32) -> NodeKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&node.to_le_bytes());
        key[4..12].copy_from_slice(&self.seed.to_le_bytes());
        NodeKey(key)
    }
}
