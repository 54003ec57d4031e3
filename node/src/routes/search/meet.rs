//! One search from both ends.
//!
//! A label is a way from one of the ends to a node, with its [`Cost`]. Each end settles its labels in
//! the order of their [`Key`], a weighted sum of the criteria; a label that is no better than
//! another of its node in anything the attempt counts is dropped. Wherever a label runs into a node
//! that the other end has settled, the two make a whole way. A way not yet seen has at least the
//! keys of both ends' latest labels together: once nothing of interest has as much, the best way
//! seen is the best. A way with a loop is never the best, as every edge takes time: the same way
//! without the loop is better.

use std::cell::Cell;
use std::cmp::Ordering;
use std::collections::BinaryHeap;

use por_types::ChannelId;

use super::{Banned, Bounds, Cost, Search, Step, cost};
use crate::graph::Link;
use crate::routes::{Goal, RouteError};

/// Labels of one search, all nodes together.
const MAX_LABELS: usize = 1_000_000;
/// Labels of an end for which a thread keeps room from one search to the next.
const KEPT_LABELS: usize = 1 << 14;
const NONE: u32 = u32::MAX;

/// In which order labels are settled: what a search is best at.
#[derive(Clone, Copy, Debug)]
pub(super) enum Order {
    /// The criterion of the query's goal, then the other one.
    Goal,
    /// The other way round.
    Other,
    /// The weighted sum. With weights between the best way without a bound and one within it, the
    /// best way within the bound is among the first.
    Mixed { first: u128, second: u128 },
}

impl Order {
    pub(super) fn key(self, cost: &Cost) -> Key {
        let (key, tie) = match self {
            Order::Goal => (cost.first, cost.second),
            Order::Other => (cost.second, cost.first),
            // A sum that does not fit makes the search longer, not wrong.
            Order::Mixed { first, second } => {
                let sum = times(first, cost.first).saturating_add(times(second, cost.second));
                (sum, cost.first)
            }
        };
        Key { key, tie, hops: cost.hops }
    }
}

/// The product, or the largest number where it might not fit. Several times faster than the exact
/// check, and a search computes little else.
fn times(a: u128, b: u128) -> u128 {
    if a.leading_zeros() + b.leading_zeros() >= u128::BITS { a.wrapping_mul(b) } else { u128::MAX }
}

/// A cost in the order of an attempt.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Key {
    key: u128,
    tie: u128,
    hops: u32,
}

impl Key {
    fn plus(self, other: Key) -> Key {
        Key {
            key: self.key.saturating_add(other.key),
            tie: self.tie.saturating_add(other.tie),
            hops: self.hops.saturating_add(other.hops),
        }
    }
}

/// What a search counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    order: Order,
    /// Both criteria are held to their bounds, and the goal decides among what is within.
    second: bool,
    /// So are the hops and what each own channel can pay.
    all: bool,
    /// The cost of a way that is known already: nothing dearer is of interest.
    known: Option<Cost>,
}

impl Attempt {
    /// The first in the order, whatever else is asked of it.
    pub(super) fn relaxed(order: Order) -> Attempt {
        Attempt { order, second: false, all: false, known: None }
    }

    pub(super) fn bounded(order: Order, known: Option<Cost>) -> Attempt {
        Attempt { order, second: true, all: false, known }
    }

    /// Counts everything. `second`: there is a bound on the criterion that is not the goal.
    pub(super) fn complete(order: Order, second: bool, known: Option<Cost>) -> Attempt {
        Attempt { order, second, all: true, known }
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
    key: Key,
    label: u32,
}

impl Ord for Queued {
    /// The cheapest is the greatest; equal ones in the order of their making.
    fn cmp(&self, other: &Self) -> Ordering {
        other.key.cmp(&self.key).then_with(|| other.label.cmp(&self.label))
    }
}

impl PartialOrd for Queued {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// What one end knows of a node: its label settled last, and the best one that waits.
#[derive(Clone, Copy)]
struct Here {
    settled: u32,
    waiting: u32,
}

const NOWHERE: [Here; 2] = [Here { settled: NONE, waiting: NONE }; 2];

/// What both ends know of each node. Of searches before, which the stamps tell apart, nothing counts:
/// beginning a search costs nothing, whatever the size of the graph.
#[derive(Default)]
struct Nodes {
    known: Vec<(u32, [Here; 2])>,
    stamp: u32,
}

impl Nodes {
    fn begin(&mut self) {
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.known.clear();
            self.stamp = 1;
        }
    }

    fn of(&self, node: u32) -> [Here; 2] {
        match self.known.get(node as usize) {
            Some((stamp, here)) if *stamp == self.stamp => *here,
            _ => NOWHERE,
        }
    }

    fn of_mut(&mut self, node: u32) -> &mut [Here; 2] {
        let place = node as usize;
        if place >= self.known.len() {
            self.known.resize((place + 1).next_power_of_two(), (0, NOWHERE));
        }
        let (stamp, here) = &mut self.known[place];
        if *stamp != self.stamp {
            (*stamp, *here) = (self.stamp, NOWHERE);
        }
        here
    }
}

/// The memory of a search, which the next one of the thread takes over.
#[derive(Default)]
struct Room {
    nodes: Nodes,
    ends: [End; 2],
}

thread_local! {
    static SPARE: Cell<Option<Box<Room>>> = const { Cell::new(None) };
}

#[derive(Default)]
struct End {
    labels: Vec<Label>,
    queue: BinaryHeap<Queued>,
    /// Every label that is not settled has at least this key.
    reached: Key,
}

/// Where the ends met best so far: labels at both sides of an edge, at the source's side first.
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
    nodes: Nodes,
    ends: [End; 2],
    best: Option<Joint>,
    /// Ways of this key and more are of no interest; `None` while all are.
    limit: Option<Key>,
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
        let mut most = match search.query.goal {
            Goal::Cheapest => Cost { first: price.unwrap_or(0), second: bounds.latency.into(), hops: 0 },
            Goal::Quickest => Cost { first: bounds.latency.into(), second: price.unwrap_or(0), hops: 0 },
        };
        most.hops = if price.is_some() { bounds.hops as u32 } else { 0 };
        if let Some(known) = attempt.known {
            most.first = most.first.min(known.first);
        }
        let origin = [source, search.end];
        let Room { mut nodes, ends } = *SPARE.take().unwrap_or_default();
        nodes.begin();
        let mut new = Meeting { search, banned, attempt, origin, most, nodes, ends, best: None, limit: None };
        new.limit = new.limit();
        new
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
            self.nodes.of_mut(node)[side].settled = 0;
        }
        self.expand(0, 0)?;
        self.expand(1, 0)?;
        loop {
            // The end with less to do goes on.
            let side = usize::from(self.ends[1].queue.len() < self.ends[0].queue.len());
            let Some(Queued { key, label }) = self.ends[side].queue.pop() else { break };
            if self.over(key, side) {
                break;
            }
            self.ends[side].reached = key;
            if self.settle(side, label) {
                self.expand(side, label)?;
            }
        }
        Ok(self.best.map(|joint| self.unwind(&joint)))
    }

    /// True if no way through a label with this key, and one that the other end has not settled, is
    /// of interest.
    fn over(&self, key: Key, side: usize) -> bool {
        self.limit.is_some_and(|limit| key.plus(self.ends[1 - side].reached) >= limit)
    }

    /// The key at which ways stop to be of interest.
    fn limit(&self) -> Option<Key> {
        let order = self.attempt.order;
        let above = |cost: &Cost| {
            let key = order.key(cost).key.checked_add(1)?;
            Some(Key { key, ..Key::default() })
        };
        match &self.best {
            Some(best) if !self.attempt.second => Some(order.key(&best.cost)),
            // What is better has no more of the one, and is within the bound of the other.
            Some(best) => above(&Cost { first: best.cost.first, ..self.most }),
            None if self.attempt.second => above(&self.most),
            None => None,
        }
    }

    /// Within the bounds of the criteria that the attempt counts.
    fn within(&self, cost: &Cost) -> bool {
        let (first, second) = (cost.first <= self.most.first, cost.second <= self.most.second);
        match self.attempt.order {
            _ if self.attempt.second => first && second,
            Order::Goal => first,
            Order::Other => second,
            Order::Mixed { .. } => true,
        }
    }

    /// True if a whole way is better than the best one known.
    fn improves(&self, cost: &Cost) -> bool {
        let order = self.attempt.order;
        self.best.as_ref().is_none_or(|best| match self.attempt.second {
            true => *cost < best.cost,
            false => order.key(cost) < order.key(&best.cost),
        })
    }

    /// Notes the label at its node, unless a settled one is as good in everything.
    fn settle(&mut self, side: usize, label: u32) -> bool {
        let new = self.ends[side].labels[label as usize];
        let here = &mut self.nodes.of_mut(new.node)[side];
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
        let cost = from.cost.plus(cost(search.query.goal, price, latency))?;
        if !self.within(&cost) {
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
        let price = match self.search.query.goal {
            Goal::Cheapest => cost.first,
            Goal::Quickest => cost.second,
        };
        !self.attempt.all || (cost.hops <= self.most.hops && price <= own)
    }

    /// A way reaches a node: it may meet the other end there, and it may go on.
    fn arrive(&mut self, side: usize, new: Label) -> Result<(), RouteError> {
        let here = self.nodes.of(new.node);
        self.join(side, &new, here[1 - side].settled);
        let key = self.attempt.order.key(&new.cost);
        if new.node == self.origin[1 - side] || self.over(key, side) {
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
        self.nodes.of_mut(new.node)[side].waiting = label;
        self.ends[side].queue.push(Queued { key, label });
        self.ends[side].labels.push(new);
        Ok(())
    }

    /// Tries a label against everything the other end has settled at its node.
    fn join(&mut self, side: usize, new: &Label, mut settled: u32) {
        while settled != NONE {
            let other = self.ends[1 - side].labels[settled as usize];
            if let Some(cost) = new.cost.plus(other.cost)
                && self.within(&cost)
                && self.improves(&cost)
                && self.affordable(&cost, new.own.min(other.own))
            {
                let mut labels = [settled; 2];
                labels[side] = new.before;
                self.best = Some(Joint { cost, labels, channel: new.channel });
                self.limit = self.limit();
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

impl Drop for Meeting<'_, '_> {
    /// Leaves its memory to the next search, unless it was an unusual one.
    fn drop(&mut self) {
        let mut room = Room { nodes: std::mem::take(&mut self.nodes), ends: std::mem::take(&mut self.ends) };
        for end in &mut room.ends {
            end.labels.clear();
            end.labels.shrink_to(KEPT_LABELS);
            end.queue.clear();
            end.queue.shrink_to(KEPT_LABELS);
            end.reached = Key::default();
        }
        SPARE.set(Some(Box::new(room)));
    }
}

fn at_node(end: &End, label: u32) -> u32 {
    end.labels[label as usize].node
}

impl Attempt {
    /// True if `other` need not be looked at where `one` is.
    fn beats(&self, one: &Label, other: &Label) -> bool {
        let (a, b) = (&one.cost, &other.cost);
        let better = if self.second {
            a.first <= b.first
                && a.second <= b.second
                && (a.hops <= b.hops || (a.first, a.second) != (b.first, b.second))
        } else {
            self.order.key(a) <= self.order.key(b)
        };
        better && (!self.all || (a.hops <= b.hops && one.own >= other.own))
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
