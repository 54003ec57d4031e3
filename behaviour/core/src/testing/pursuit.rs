//! Routes for the pursuits of hosts.

use std::collections::{BTreeMap, VecDeque};

use por_types::{ChannelId, NodeKey, Yocto};

use super::{CHAIN_TIME_MS, Edge, World};
use crate::api::{ANSWER_LIMIT, Command, Input};

/// Price of a pursuit's request over one edge of the default terms.
pub const ANSWER_PRICE: Yocto = Yocto(100 + 32 + ANSWER_LIMIT as u128);

impl World {
    /// A shortest path over open channels, without one of them.
    fn way(&self, from: usize, to: usize, without: ChannelId) -> Option<Vec<usize>> {
        let usable = |edge: &&Edge| edge.channel != without && self.is_open_to(from, edge.channel);
        let open: Vec<&Edge> = self.edges.iter().filter(usable).collect();
        let mut before = BTreeMap::from([(from, from)]);
        let mut queue = VecDeque::from([from]);
        while let Some(host) = queue.pop_front() {
            for edge in open.iter().filter(|edge| edge.a == host || edge.b == host) {
                let next = if edge.a == host { edge.b } else { edge.a };
                before.entry(next).or_insert_with(|| {
                    queue.push_back(next);
                    host
                });
            }
        }
        let mut path = vec![to];
        while *path.last()? != from {
            path.push(*before.get(path.last()?)?);
        }
        path.reverse();
        Some(path)
    }

    /// Finds a host the route that its pursuit asks for.
    pub(super) fn pursue(&mut self, host: usize, channel: ChannelId, peer: NodeKey, most: Yocto) {
        let Some(to) = (0..self.hosts.len()).find(|to| self.key(*to) == peer) else { return };
        let Some(path) = self.way(host, to, channel) else { return };
        let route = self.route(&path, 32, ANSWER_LIMIT);
        let price = Yocto::checked_sum(route.iter().map(|hop| hop.price));
        if price.is_ok_and(|price| price <= most) {
            let (expires_ms, graph_version) = (CHAIN_TIME_MS + 3_600_000, 1);
            let command = Command::Pursue { channel, expires_ms, graph_version, route };
            self.input(host, Input::Command(command));
        }
    }
}
