//! The node's copy of the on-chain graph, and the check of a route against it.

use std::collections::{HashMap, HashSet};

use por_types::{ChannelId, Hop, InvalidReason, NodeKey, RequestHead, Terms};

use crate::api::{GraphEdge, RejectReason};

#[derive(Clone, Debug)]
struct Known {
    edge: GraphEdge,
    /// Graph version since which the edge is as it is.
    since: u64,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Graph {
    version: u64,
    /// Latest block time, milliseconds since 1970.
    pub chain_time_ms: u64,
    edges: HashMap<ChannelId, Known>,
    /// Pairs of nodes of which an edge has left the graph, the lower key first.
    parted: HashSet<(NodeKey, NodeKey)>,
}

/// Why a route was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    Reject(RejectReason),
    /// The author's bytes contradict the version of the graph that they name.
    Invalid(InvalidReason),
    /// This node's balance on its channel is too small: a rejection for want of balance, of which the operator
    /// learns.
    Short(ChannelId),
}

impl Graph {
    /// Versions never go back: an older answer of an endpoint is ignored.
    pub fn update(&mut self, version: u64, chain_time_ms: u64, edges: Vec<GraphEdge>) {
        self.chain_time_ms = self.chain_time_ms.max(chain_time_ms);
        if version < self.version {
            return;
        }
        self.version = version;
        for edge in edges {
            let known = self.edges.get(&edge.channel);
            let since = known.filter(|known| known.edge == edge).map_or(version, |known| known.since);
            self.part(&edge);
            self.edges.insert(edge.channel, Known { edge, since });
        }
    }

    /// A SeverOrder is known: the edge is as good as gone.
    pub fn close(&mut self, channel: ChannelId) {
        if let Some(known) = self.edges.get_mut(&channel) {
            known.edge.open = false;
            let edge = known.edge.clone();
            self.part(&edge);
        }
    }

    fn part(&mut self, edge: &GraphEdge) {
        if !edge.open {
            self.parted.insert((edge.a.min(edge.b), edge.a.max(edge.b)));
        }
    }

    /// An edge between these two has left the graph.
    pub fn have_parted(&self, a: &NodeKey, b: &NodeKey) -> bool {
        self.parted.contains(&(*a.min(b), *a.max(b)))
    }

    pub fn terms(&self, channel: ChannelId) -> Option<&Terms> {
        self.edges.get(&channel).map(|known| &known.edge.terms)
    }

    /// No edge of the node is open; as long as the graph was not read nobody is isolated.
    pub fn is_isolated(&self, node: &NodeKey) -> bool {
        let mut edges = self.edges.values().map(|known| &known.edge);
        self.version > 0 && !edges.any(|edge| edge.open && (edge.a == *node || edge.b == *node))
    }

    pub fn is_open(&self, channel: ChannelId) -> bool {
        self.edges.get(&channel).is_none_or(|known| known.edge.open)
    }

    /// Checks every edge of the route from hop `from` on (protocol section 4). `beside`: the terms of
    /// a channel that stands in for the one of hop `from`.
    pub fn check(
        &self,
        head: &RequestHead,
        from: usize,
        again: bool,
        beside: Option<&Terms>,
    ) -> Result<(), Refusal> {
        let reject = Refusal::Reject(RejectReason::NoEdge);
        for (index, hop) in head.route.iter().enumerate().skip(from) {
            if let Some(terms) = beside.filter(|_| index == from) {
                // What it asks for beyond the signed route is the neighbour's mistake.
                if !covers(hop, head, terms) {
                    return Err(reject);
                }
                continue;
            }
            let known = match self.edges.get(&hop.channel).filter(|known| known.edge.open) {
                Some(known) => known,
                None if again && index > from => continue,
                None => return Err(reject),
            };
            // The author saw the edge as it is now: what contradicts it is the author's doing.
            let provable = head.graph_version >= known.since && head.graph_version <= self.version;
            let refuse = |reason| if provable { Refusal::Invalid(reason) } else { reject };
            let before = match index.checked_sub(1).and_then(|i| head.route.get(i)) {
                Some(previous) => previous.to,
                None => head.author,
            };
            let ends = (known.edge.a, known.edge.b);
            if ends != (before, hop.to) && ends != (hop.to, before) {
                return Err(refuse(InvalidReason::Channel));
            }
            let quote = known.edge.terms.quote(head.body_len, head.response_limit);
            let Ok(quote) = quote else {
                return Err(refuse(InvalidReason::Underpaid));
            };
            if head.body_len.saturating_add(head.response_limit) > known.edge.terms.max_bytes {
                return Err(Refusal::Reject(RejectReason::TooLarge));
            }
            if hop.price < quote.price {
                return Err(refuse(InvalidReason::Underpaid));
            }
            if hop.allowance_ms < quote.allowance_ms {
                return Err(refuse(InvalidReason::Allowance));
            }
        }
        Ok(())
    }
}

/// Whether the signed hop pays for a channel with these terms, and grants it the time.
pub(crate) fn covers(hop: &Hop, head: &RequestHead, terms: &Terms) -> bool {
    let quote = terms.quote(head.body_len, head.response_limit);
    quote.is_ok_and(|quote| quote.price <= hop.price && quote.allowance_ms <= hop.allowance_ms)
        && head.body_len.saturating_add(head.response_limit) <= terms.max_bytes
}
