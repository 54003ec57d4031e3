//! Label-setting search with several criteria, backwards from the destination.
//!
//! A label is a way from a node to the destination with its price, latency and length. Labels are
//! settled in the order of (goal, other criterion, length); one that is no better than a settled
//! label of its node in any of the three is dropped. Prices are never negative and latencies always
//! positive, so a way with a loop is dropped by the same way without it, and the first label
//! settled at the start is the best route: the search is exact.
//!
//! It runs backwards because what the author's own channel must cover, the price of the whole
//! route, is then known when that channel is reached.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashSet};

use por_types::{ChannelId, EdgeQuote, Terms, Yocto};

use super::{Goal, RouteError, RouteQuery};
use crate::graph::{Edge, Graph};

/// Labels of one search, all nodes together.
const MAX_LABELS: usize = 2_000_000;
const NONE: u32 = u32::MAX;

#[derive(Clone, Copy, Debug)]
pub(super) struct Message {
    pub(super) body_len: u64,
    pub(super) response_limit: u64,
    pub(super) beside: u64,
}

impl Message {
    /// What an edge asks for the message; `None` if it does not take it.
    pub(super) fn quote(&self, terms: &Terms) -> Option<EdgeQuote> {
        let bytes = self.body_len.checked_add(self.response_limit)?;
        if bytes > terms.max_bytes {
            return None;
        }
        let quote = terms.quote(self.body_len, self.response_limit).ok()?;
        let allowance_ms = terms.allowance_ms(self.body_len.saturating_add(self.beside), self.response_limit);
        Some(EdgeQuote { allowance_ms, ..quote })
    }
}

/// What a route, or the rest of one, may need at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub(super) latency: u64,
    /// Including the server's price.
    pub(super) price: u128,
    pub(super) hops: usize,
}

/// One edge of a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Step {
    pub(super) channel: ChannelId,
    pub(super) from: u32,
    pub(super) to: u32,
}

pub(super) struct Search<'a> {
    graph: &'a Graph,
    message: Message,
    query: &'a RouteQuery,
    start: u32,
    end: u32,
    spendable: Option<&'a dyn Fn(ChannelId) -> Option<Yocto>>,
}

/// A way from `node` to the destination.
#[derive(Clone, Copy)]
struct Label {
    node: u32,
    /// Edge taken first from `node`, by its channel.
    channel: ChannelId,
    /// Label at the other end of that edge.
    next: u32,
}

/// In the order of the goal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
struct Cost {
    first: u128,
    second: u128,
    hops: u32,
}

#[derive(PartialEq, Eq)]
struct Queued {
    cost: Cost,
    label: u32,
}

impl Ord for Queued {
    /// The cheapest is the greatest; equal ones in the order of their making.
    fn cmp(&self, other: &Self) -> Ordering {
        other.cost.cmp(&self.cost).then_with(|| other.label.cmp(&self.label))
    }
}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What a search must not touch.
#[derive(Default)]
struct Banned {
    nodes: HashSet<u32>,
    /// Edges not to leave the spur node by.
    first: HashSet<ChannelId>,
}

impl<'a> Search<'a> {
    pub(super) fn new(
        graph: &'a Graph,
        message: Message,
        query: &'a RouteQuery,
        start: u32,
        end: u32,
        spendable: &'a dyn Fn(ChannelId) -> Option<Yocto>,
    ) -> Search<'a> {
        Search { graph, message, query, start, end, spendable: Some(spendable) }
    }

    /// The same search with all the money in the world.
    pub(super) fn ignoring_balance(&self) -> Search<'a> {
        Search { spendable: None, ..*self }
    }

    /// The `k` best paths without loops, by deviation from the best (Yen's algorithm).
    pub(super) fn best(&self, bounds: Bounds, k: usize) -> Result<Vec<Vec<Step>>, RouteError> {
        let mut found: Vec<Vec<Step>> = Vec::new();
        let mut candidates: Vec<(Cost, Vec<Step>)> = Vec::new();
        if let Some(path) = self.from(self.start, bounds, &Banned::default())? {
            candidates.push((self.cost(&path), path));
        }
        while found.len() < k {
            let Some(best) = (0..candidates.len()).min_by(|&a, &b| candidates[a].cmp(&candidates[b])) else {
                break;
            };
            let (_, path) = candidates.swap_remove(best);
            if found.len() + 1 < k {
                for spur in 0..path.len() {
                    self.deviate(&path, spur, bounds, &found, &mut candidates)?;
                }
            }
            found.push(path);
        }
        Ok(found)
    }

    /// Adds the best path that follows `path` up to its edge `spur` and leaves it there.
    fn deviate(
        &self,
        path: &[Step],
        spur: usize,
        bounds: Bounds,
        found: &[Vec<Step>],
        candidates: &mut Vec<(Cost, Vec<Step>)>,
    ) -> Result<(), RouteError> {
        let root = &path[..spur];
        let known = found.iter().map(Vec::as_slice).chain([path]);
        let first = known.filter(|other| other.starts_with(root)).filter_map(|other| other.get(spur));
        let banned = Banned {
            nodes: root.iter().map(|step| step.from).collect(),
            first: first.map(|step| step.channel).collect(),
        };
        let Some(rest) = self.rest_of(root, bounds) else { return Ok(()) };
        if let Some(tail) = self.from(path[spur].from, rest, &banned)? {
            let whole = [root, &tail].concat();
            if !candidates.iter().any(|(_, other)| *other == whole) {
                candidates.push((self.cost(&whole), whole));
            }
        }
        Ok(())
    }

    /// What is left of the bounds after `root`.
    fn rest_of(&self, root: &[Step], bounds: Bounds) -> Option<Bounds> {
        let mut rest = bounds;
        if let Some(first) = root.first() {
            rest.price = rest.price.min(self.own_limit(first.channel)?);
        }
        for step in root {
            let quote = self.quote(step.channel)?;
            rest.latency = rest.latency.checked_sub(quote.allowance_ms)?;
            rest.price = rest.price.checked_sub(quote.price.0)?;
            rest.hops = rest.hops.checked_sub(1)?;
        }
        Some(rest)
    }

    fn quote(&self, channel: ChannelId) -> Option<EdgeQuote> {
        self.message.quote(&self.graph.edge(channel)?.view.terms)
    }

    /// What the author may spend over a channel of its own.
    fn own_limit(&self, channel: ChannelId) -> Option<u128> {
        match self.spendable {
            None => Some(u128::MAX),
            Some(spendable) => spendable(channel).map(|amount| amount.0),
        }
    }

    fn cost(&self, path: &[Step]) -> Cost {
        let start = Cost { first: 0, second: 0, hops: 0 };
        path.iter().filter_map(|step| self.quote(step.channel)).fold(start, |cost, quote| {
            let added = self.add(cost, &quote);
            added.unwrap_or(Cost { first: u128::MAX, second: u128::MAX, hops: u32::MAX })
        })
    }

    fn add(&self, cost: Cost, quote: &EdgeQuote) -> Option<Cost> {
        let (price, latency) = (quote.price.0, u128::from(quote.allowance_ms));
        let (first, second) = match self.query.goal {
            Goal::Cheapest => (price, latency),
            Goal::Quickest => (latency, price),
        };
        Some(Cost {
            first: cost.first.checked_add(first)?,
            second: cost.second.checked_add(second)?,
            hops: cost.hops + 1,
        })
    }

    fn within(&self, cost: Cost, bounds: &Bounds) -> bool {
        let (price, latency) = match self.query.goal {
            Goal::Cheapest => (cost.first, cost.second),
            Goal::Quickest => (cost.second, cost.first),
        };
        let total = price.checked_add(self.query.server_price.0);
        total.is_some_and(|total| total <= bounds.price)
            && latency <= u128::from(bounds.latency)
            && cost.hops as usize <= bounds.hops
    }

    /// The best path from `source` to the destination.
    fn from(&self, source: u32, bounds: Bounds, banned: &Banned) -> Result<Option<Vec<Step>>, RouteError> {
        let mut labels: Vec<Label> = Vec::new();
        let mut queue: BinaryHeap<Queued> = BinaryHeap::new();
        // Costs settled at each node: as the goal's cost only grows, the other two decide.
        let mut settled: Vec<Vec<(u128, u32)>> = vec![Vec::new(); self.graph.places()];
        let zero = Cost { first: 0, second: 0, hops: 0 };
        labels.push(Label { node: self.end, channel: ChannelId(0), next: NONE });
        queue.push(Queued { cost: zero, label: 0 });
        while let Some(Queued { cost, label }) = queue.pop() {
            let node = labels[label as usize].node;
            let here = &mut settled[node as usize];
            if here.iter().any(|&(second, hops)| second <= cost.second && hops <= cost.hops) {
                continue;
            }
            here.push((cost.second, cost.hops));
            if node == source {
                return Ok(Some(self.unwind(&labels, label)));
            }
            for (_, edge, other) in self.graph.open_edges(node) {
                let Some(next) = self.extend(cost, edge, other, source, banned, &bounds) else { continue };
                if labels.len() >= MAX_LABELS {
                    return Err(RouteError::TooComplex);
                }
                let at = labels.len() as u32;
                labels.push(Label { node: other, channel: edge.view.channel, next: label });
                queue.push(Queued { cost: next, label: at });
            }
        }
        Ok(None)
    }

    /// The cost of going from `other` over `edge` and on; `None` if that must not be.
    fn extend(
        &self,
        cost: Cost,
        edge: &Edge,
        other: u32,
        source: u32,
        banned: &Banned,
        bounds: &Bounds,
    ) -> Option<Cost> {
        let channel = edge.view.channel;
        if self.query.exclude.contains(&channel) || banned.nodes.contains(&other) {
            return None;
        }
        // Only the ends of the route may be excluded nodes; the start comes up again in no route.
        let passes = other != self.start && other != source;
        if passes && self.query.exclude_nodes.contains(&self.graph.key_at(other)) {
            return None;
        }
        if other == source && banned.first.contains(&channel) {
            return None;
        }
        let cost = self.add(cost, &self.message.quote(&edge.view.terms)?)?;
        if !self.within(cost, bounds) {
            return None;
        }
        if other == self.start {
            let price = match self.query.goal {
                Goal::Cheapest => cost.first,
                Goal::Quickest => cost.second,
            };
            if price.checked_add(self.query.server_price.0)? > self.own_limit(channel)? {
                return None;
            }
        }
        Some(cost)
    }

    fn unwind(&self, labels: &[Label], mut at: u32) -> Vec<Step> {
        let mut path = Vec::new();
        loop {
            let label = &labels[at as usize];
            if label.next == NONE {
                return path;
            }
            let to = labels[label.next as usize].node;
            path.push(Step { channel: label.channel, from: label.node, to });
            at = label.next;
        }
    }
}
