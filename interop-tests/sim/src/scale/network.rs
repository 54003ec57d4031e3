//! A random network that follows from a seed, as the contract shows it.

use por_core::testing::Rng;
use por_node::graph::Graph;
use por_types::interface::{ChangesView, ChannelStatus, ChannelView, MAX_PAGE, NodeView};
use por_types::{AccountId, ChannelId, NodeKey, Terms, Totals, Yocto};

/// Channels for each node.
const DEGREE: u32 = 5;

pub struct Network {
    pub nodes: u32,
    pub channels: Vec<Channel>,
    seed: u64,
}

pub struct Channel {
    pub a: u32,
    pub b: u32,
    pub terms: Terms,
}

impl Network {
    /// Every node has a channel to an earlier one, so that all are connected; the others join nodes at
    /// random.
    pub fn new(nodes: u32, seed: u64) -> Network {
        let mut rng = Rng::new(seed);
        let mut channels = Vec::new();
        for place in 0..nodes.saturating_mul(DEGREE) {
            let (a, b) = if place + 1 < nodes {
                (place + 1, rng.below(u64::from(place) + 1) as u32)
            } else {
                let a = rng.below(nodes.into()) as u32;
                (a, (a + 1 + rng.below(u64::from(nodes) - 1) as u32) % nodes)
            };
            channels.push(Channel { a, b, terms: terms(&mut rng) });
        }
        Network { nodes, channels, seed }
    }

    /// A key that no other node has. Nothing here looks at its curve.
    pub fn key(&self, node: u32) -> NodeKey {
        let mut key = [0; 32];
        key[..4].copy_from_slice(&node.to_le_bytes());
        key[4..12].copy_from_slice(&self.seed.to_le_bytes());
        NodeKey(key)
    }

    fn account(node: u32) -> AccountId {
        format!("node-{node}.scale.near").parse().unwrap_or_else(|_| unreachable!("a valid account"))
    }

    fn node(&self, index: u32) -> NodeView {
        NodeView {
            index,
            account: Network::account(index),
            node_key: self.key(index),
            stake: Yocto::near(5),
            active_stake: Yocto::near(5),
            locked: Yocto::ZERO,
            unstaking: Yocto::ZERO,
            attached: true,
            attached_since_ms: Some(1_700_000_000_000),
        }
    }

    fn channel(&self, id: usize, status: ChannelStatus) -> ChannelView {
        let Channel { a, b, terms } = &self.channels[id];
        ChannelView {
            channel: ChannelId(id as u64),
            a: Network::account(*a),
            b: Network::account(*b),
            key_a: self.key(*a),
            key_b: self.key(*b),
            deposit_a: Yocto::near(1),
            deposit_b: Yocto::near(1),
            drawn_a: Yocto::ZERO,
            drawn_b: Yocto::ZERO,
            bond: Yocto::near(1),
            totals: Totals::default(),
            terms: terms.clone(),
            sequence: 0,
            status,
        }
    }

    pub fn node_pages(&self) -> impl Iterator<Item = Vec<NodeView>> {
        let starts = (0..self.nodes).step_by(MAX_PAGE as usize);
        starts.map(|from| (from..self.nodes.min(from + MAX_PAGE)).map(|node| self.node(node)).collect())
    }

    pub fn channel_pages(&self) -> impl Iterator<Item = Vec<ChannelView>> {
        let (all, page) = (self.channels.len(), MAX_PAGE as usize);
        let starts = (0..all).step_by(page);
        starts.map(move |from| {
            (from..all.min(from + page)).map(|id| self.channel(id, ChannelStatus::Open)).collect()
        })
    }

    pub fn graph(&self) -> Graph {
        let nodes: Vec<NodeView> = self.node_pages().flatten().collect();
        let channels: Vec<ChannelView> = self.channel_pages().flatten().collect();
        Graph::from_pages(1, &nodes, &channels)
    }

    /// A page of the change log with `count` channels, half of them closed.
    pub fn changes(&self, rng: &mut Rng, since: u64, count: u32) -> ChangesView {
        let channels = (0..count).map(|number| {
            let id = rng.below(self.channels.len() as u64) as usize;
            self.channel(id, if number % 2 == 0 { ChannelStatus::Open } else { ChannelStatus::Cancelled })
        });
        let version = since + u64::from(count);
        ChangesView {
            version,
            upto: version,
            nodes: Vec::new(),
            channels: channels.collect(),
            gone: Vec::new(),
            oldest: 1,
        }
    }
}

fn terms(rng: &mut Rng) -> Terms {
    Terms {
        rtt_ms: 20 + rng.below(200) as u32,
        bytes_per_s: 1_000_000,
        base_fee: Yocto(1_000 + u128::from(rng.below(49_000))),
        byte_fee: Yocto(u128::from(rng.below(100))),
        heartbeat_ms: 1_000,
        grace_ms: 5_000,
        max_requests: 256,
        max_bytes: 64 << 20,
    }
}
