//! One search from both ends.
//!
//! A label is a way from one of the ends to a node, with its price, latency and length. Each end
//! settles its labels in the order of their [`Cost`]; a label that is no better than a settled one
//! of its node in anything the attempt counts is dropped. Wherever a label runs into a node that the
//! other end has settled, the two make a whole way. As costs are added and compared as
//! (first, second, hops) and every edge costs something, a way not yet seen when the search stops
//! is at least as dear as the two ends' latest labels together: the best one seen is the best.
//! A way with a loop is never the best, as it is dearer than the same way without it.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap};
use std::hash::{BuildHasherDefault, Hasher};

use por_types::ChannelId;

use super::{Banned, Bounds, Cost, Search, Step, cost};
use crate::graph::Link;
use crate::routes::{Goal, RouteError};

/// Labels of one search, all nodes together.
const MAX_LABELS: usize = 1_000_000;
const NONE: u32 = u32::MAX;

/// What a search counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    /// What it is to be best in.
    order: Goal,
    /// The other criterion is held to its bound.
    second: bool,
    /// So are the hops and what each own channel can pay.
    all: bool,
    /// The cost of a way that is known already: nothing dearer is of interest.
    known: Option<Cost>,
}

impl Attempt {
    pub(super) fn relaxed(order: Goal) -> Attempt {
        Attempt { order, second: false, all: false, known: None }
    }

    pub(super) fn bounded(order: Goal, second: bool, known: Option<Cost>) -> Attempt {
        Attempt { order, second, all: false, known }
    }

    /// Counts everything. What an own channel can pay limits the price, whatever the order.
    pub(super) fn complete(order: Goal, second: bool, known: Option<Cost>) -> Attempt {
        Attempt { order, second: second || order == Goal::Quickest, all: true, known }
    }
}

/// A way from an end to `node`.
#[derive(Clone, Copy)]
struct Label {
    cost: Cost,
    /// What the own channel that the way begins with can pay.
    own: u128,
    /// Edge that reaches `node`, and the label at its other end.
    channel: ChannelId,
    node: u32,
    before: u32,
    /// Label of the same node that was settled before this one.
    sibling: u32,
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

/// Places are small numbers that nobody chooses: one multiplication spreads them well enough.
#[derive(Default)]
struct Spread(u64);

impl Hasher for Spread {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for &byte in bytes {
            self.write_u32(u32::from(byte));
        }
    }

    fn write_u32(&mut self, place: u32) {
        let mixed = (self.0 ^ u64::from(place)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.0 = mixed ^ (mixed >> 32);
    }
}

/// What one end knows of a node: its label settled last, and the best one that waits.
#[derive(Clone, Copy)]
struct Here {
    settled: u32,
    waiting: u32,
}

const NOWHERE: [Here; 2] = [Here { settled: NONE, waiting: NONE }; 2];

struct End {
    labels: Vec<Label>,
    queue: BinaryHeap<Queued>,
    /// Every label that is not settled costs at least this.
    reached: Cost,
}

/// Where the ends met at the least cost so far: labels at both sides of an edge, at the source's
/// side first.
#[derive(Clone, Copy)]
struct Joint {
    cost: Cost,
    labels: [u32; 2],
    channel: ChannelId,
}

/// The end at the source, and the one at the destination.
const SOURCE: usize = 0;

pub(super) struct Meeting<'s, 'a> {
    search: &'s Search<'a>,
    banned: &'s Banned,
    attempt: Attempt,
    /// Where each end begins.
    origin: [u32; 2],
    /// Most that the way may cost: first and second criterion, hops.
    most: Cost,
    nodes: HashMap<u32, [Here; 2], BuildHasherDefault<Spread>>,
    ends: [End; 2],
    best: Option<Joint>,
}

impl<'s, 'a> Meeting<'s, 'a> {
    pub(super) fn new(
        search: &'s Search<'a>,
        source: u32,
        bounds: &Bounds,
        banned: &'s Banned,
        attempt: Attempt,
    ) -> Meeting<'s, 'a> {
        // Nothing is within a price bound below what the server asks.
        let price = bounds.price.checked_sub(search.query.server_price.0);
        let mut most = match attempt.order {
            Goal::Cheapest => Cost { first: price.unwrap_or(0), second: bounds.latency.into(), hops: 0 },
            Goal::Quickest => Cost { first: bounds.latency.into(), second: price.unwrap_or(0), hops: 0 },
        };
        most.hops = if price.is_some() { bounds.hops as u32 } else { 0 };
        if let Some(known) = attempt.known {
            most.first = most.first.min(known.first);
        }
        let origin = [source, search.end];
        let end = || End { labels: Vec::new(), queue: BinaryHeap::new(), reached: Cost::default() };
        let nodes = HashMap::default();
        Meeting { search, banned, attempt, origin, most, nodes, ends: [end(), end()], best: None }
    }

    /// The best path, if there is one within what the attempt counts.
    pub(super) fn run(mut self) -> Result<Option<Vec<Step>>, RouteError> {
        if self.most.hops == 0 {
            return Ok(None);
        }
        for side in [0, 1] {
            let node = self.origin[side];
            let zero = Label {
                cost: Cost::default(),
                own: u128::MAX,
                channel: ChannelId(0),
                node,
                before: NONE,
                sibling: NONE,
            };
            self.ends[side].labels.push(zero);
            self.nodes.entry(node).or_insert(NOWHERE)[side].settled = 0;
        }
        self.expand(0, 0)?;
        self.expand(1, 0)?;
        loop {
            // The end with less to do goes on.
            let side = usize::from(self.ends[1].queue.len() < self.ends[0].queue.len());
            let Some(Queued { cost, label }) = self.ends[side].queue.pop() else { break };
            if self.over(cost, side) {
                break;
            }
            self.ends[side].reached = cost;
            if self.settle(side, label) {
                self.expand(side, label)?;
            }
        }
        Ok(self.best.map(|joint| self.unwind(&joint)))
    }

    /// True if no way through a label of this cost is better than the best one known.
    fn over(&self, cost: Cost, side: usize) -> bool {
        let other = self.ends[1 - side].reached;
        match (cost.plus(other), &self.best) {
            (None, _) => true,
            (Some(least), Some(best)) => least >= best.cost,
            (Some(least), None) => least.first > self.most.first,
        }
    }

    /// Notes the label at its node, unless a settled one is as good in everything.
    fn settle(&mut self, side: usize, label: u32) -> bool {
        let new = self.ends[side].labels[label as usize];
        let Some(here) = self.nodes.get_mut(&new.node) else { return false };
        let here = &mut here[side];
        if self.attempt.beaten(&self.ends[side].labels, here.settled, &new) {
            return false;
        }
        self.ends[side].labels[label as usize].sibling = here.settled;
        here.settled = label;
        true
    }

    fn expand(&mut self, side: usize, label: u32) -> Result<(), RouteError> {
        let graph = self.search.graph;
        let from = self.ends[side].labels[label as usize];
        for link in graph.links_of(from.node) {
            let Some((cost, own)) = self.extend(side, &from, link) else { continue };
            let new = Label { cost, own, channel: link.channel, node: link.to, before: label, sibling: NONE };
            self.arrive(side, new)?;
        }
        Ok(())
    }

    /// Cost and own limit of going on over `link`; `None` if that must not be.
    fn extend(&self, side: usize, from: &Label, link: &Link) -> Option<(Cost, u128)> {
        let (search, to) = (self.search, link.to);
        let (price, latency) = search.message.weigh(link)?;
        let cost = from.cost.plus(cost(self.attempt.order, price, latency))?;
        if cost.first > self.most.first || (self.attempt.second && cost.second > self.most.second) {
            return None;
        }
        if search.query.exclude.contains(&link.channel) || self.banned.nodes.contains(&to) {
            return None;
        }
        // Only the ends of the route may be excluded nodes.
        let [source, end] = self.origin;
        if to != source && to != end && to != search.start && search.excluded.contains(&to) {
            return None;
        }
        // The edge at the source is left by the one side and arrived at by the other.
        let at_source = if side == SOURCE { from.node == source } else { to == source };
        let mut own = from.own;
        if at_source {
            if self.banned.first.contains(&link.channel) {
                return None;
            }
            if source == search.start {
                own = search.own_limit(link.channel)?.checked_sub(search.query.server_price.0)?;
            }
        }
        self.affordable(&cost, own).then_some((cost, own))
    }

    /// Within the hops and the own channel's balance, if the attempt counts them.
    fn affordable(&self, cost: &Cost, own: u128) -> bool {
        let price = match self.attempt.order {
            Goal::Cheapest => cost.first,
            Goal::Quickest => cost.second,
        };
        !self.attempt.all || (cost.hops <= self.most.hops && price <= own)
    }

    /// A way reaches a node: it may meet the other end there, and it may go on.
    fn arrive(&mut self, side: usize, new: Label) -> Result<(), RouteError> {
        let here = *self.nodes.entry(new.node).or_insert(NOWHERE);
        self.join(side, &new, here[1 - side].settled);
        if new.node == self.origin[1 - side] || self.over(new.cost, side) {
            return Ok(());
        }
        let labels = &self.ends[side].labels;
        let waiting = here[side].waiting;
        let queued = waiting != NONE && self.attempt.beats(&labels[waiting as usize], &new);
        if queued || self.attempt.beaten(labels, here[side].settled, &new) {
            return Ok(());
        }
        if labels.len() >= MAX_LABELS {
            return Err(RouteError::TooComplex);
        }
        let label = labels.len() as u32;
        if let Some(here) = self.nodes.get_mut(&new.node) {
            here[side].waiting = label;
        }
        self.ends[side].queue.push(Queued { cost: new.cost, label });
        self.ends[side].labels.push(new);
        Ok(())
    }

    /// Tries a label against everything the other end has settled at its node.
    fn join(&mut self, side: usize, new: &Label, mut settled: u32) {
        while settled != NONE {
            let other = self.ends[1 - side].labels[settled as usize];
            if let Some(cost) = new.cost.plus(other.cost)
                && self.best.as_ref().is_none_or(|best| cost < best.cost)
                && cost.first <= self.most.first
                && (!self.attempt.second || cost.second <= self.most.second)
                && self.affordable(&cost, new.own.min(other.own))
            {
                let mut labels = [settled; 2];
                labels[side] = new.before;
                self.best = Some(Joint { cost, labels, channel: new.channel });
            }
            settled = other.sibling;
        }
    }

    fn unwind(&self, joint: &Joint) -> Vec<Step> {
        let [source, end] = &self.ends;
        let mut path = Vec::with_capacity(joint.cost.hops as usize);
        let mut at = &source.labels[joint.labels[0] as usize];
        while at.before != NONE {
            let before = &source.labels[at.before as usize];
            path.push(Step { channel: at.channel, from: before.node, to: at.node });
            at = before;
        }
        path.reverse();
        let (from, mut at) = (at_node(source, joint.labels[0]), &end.labels[joint.labels[1] as usize]);
        path.push(Step { channel: joint.channel, from, to: at.node });
        while at.before != NONE {
            let before = &end.labels[at.before as usize];
            path.push(Step { channel: at.channel, from: at.node, to: before.node });
            at = before;
        }
        path
    }
}

fn at_node(end: &End, label: u32) -> u32 {
    end.labels[label as usize].node
}

impl Attempt {
    /// True if `other` need not be looked at for `one`'s sake, which comes no later in the order.
    fn beats(&self, one: &Label, other: &Label) -> bool {
        one.cost <= other.cost
            && (!self.second || one.cost.second <= other.cost.second)
            && (!self.all || (one.cost.hops <= other.cost.hops && one.own >= other.own))
    }

    fn beaten(&self, labels: &[Label], mut settled: u32, new: &Label) -> bool {
        while settled != NONE {
            let old = &labels[settled as usize];
            if self.beats(old, new) {
                return true;
            }
            settled = old.sibling;
        }
        false
    }
}
