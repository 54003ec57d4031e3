//! The best way within all bounds, from both ends.
//!
//! A label is a way from one of the ends to a node, with its [`Cost`]. Each end settles its labels in
//! the order of a weighted sum of the criteria; a label that is no better than another of its node
//! in anything the attempt counts is dropped. Wherever a label runs into a node that the other end
//! has settled, the two make a whole way. The bounds, and the best way seen, limit the weighted sum;
//! the limit is divided between the ends as in [`super::reach`]. Sums are rough and their limit a
//! little above what it says, costs are exact. A way with a loop is never the best, as every edge
//! takes time: the same way without the loop is better.

use std::cell::Cell;
use std::hint::black_box;

use por_types::ChannelId;

use super::heap::{Heap, Waiting};
use super::measure::SLACK;
use super::nodes::Nodes;
use super::relax::Relaxed;
use super::{Bounds, Cost, Gate, NONE, Step, cost};
use crate::routes::{Goal, RouteError};

/// Labels of one search, all nodes together.
const MAX_LABELS: usize = 1_000_000;
/// Labels of an end for which a thread keeps room from one search to the next.
const KEPT_LABELS: usize = 1 << 14;

/// What a search counts.
#[derive(Clone, Copy, Debug)]
pub(super) struct Attempt {
    /// Weights, and a way that is known already: nothing dearer is of interest.
    pub(super) relaxed: Relaxed,
    /// There is a bound on the criterion that is not the goal.
    pub(super) bounded: bool,
    /// The hops, and what each own channel can pay, count as well.
    pub(super) all: bool,
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
    key: f64,
}

/// What one end knows of a node: its label settled last, and the best one that waits.
#[derive(Clone, Copy)]
struct Here {
    settled: u32,
    waiting: u32,
}

/// The memory of a search, which the next one of the thread takes over.
struct Room {
    nodes: Nodes<[Here; 2]>,
    ends: [End; 2],
}

impl Default for Room {
    fn default() -> Room {
        let nowhere = [Here { settled: NONE, waiting: NONE }; 2];
        Room { nodes: Nodes::new(nowhere), ends: Default::default() }
    }
}

thread_local! {
    static SPARE: Cell<Option<Box<Room>>> = const { Cell::new(None) };
}

#[derive(Default)]
struct End {
    labels: Vec<Label>,
    queue: Heap,
    /// Every label that is not settled, and of interest, has at least this key.
    bound: f64,
    /// Labels from here on are not noted.
    part: f64,
    /// There were some.
    cut: bool,
}

/// Where the ends met best so far: labels at both sides of an edge, at the source's side first.
#[derive(Clone, Copy)]
struct Joint {
    cost: Cost,
    labels: [u32; 2],
    channel: ChannelId,
}

pub(super) struct Meeting<'s, 'a> {
    gate: Gate<'s, 'a>,
    attempt: Attempt,
    /// Most that the way may cost: first and second criterion, hops.
    most: Cost,
    room: Box<Room>,
    best: Option<Joint>,
    /// Ways of this key and more are of no interest.
    limit: f64,
}

impl<'s, 'a> Meeting<'s, 'a> {
    pub(super) fn new(gate: Gate<'s, 'a>, bounds: &Bounds, attempt: Attempt) -> Meeting<'s, 'a> {
        let search = gate.search;
        // Nothing is within a price bound below what the server asks.
        let price = bounds.price.checked_sub(search.query.server_price.0);
        let mut most = match search.query.goal {
            Goal::Cheapest => Cost { first: price.unwrap_or(0), second: bounds.latency.into(), hops: 0 },
            Goal::Quickest => Cost { first: bounds.latency.into(), second: price.unwrap_or(0), hops: 0 },
        };
        most.hops = if price.is_some() { bounds.hops as u32 } else { 0 };
        if let Some(known) = attempt.relaxed.known {
            most.first = most.first.min(known.first);
        }
        let mut room = SPARE.take().unwrap_or_default();
        room.nodes.begin(search.graph.places());
        let mut new = Meeting { gate, attempt, most, room, best: None, limit: 0.0 };
        new.divide();
        new
    }

    /// The best path, if there is one within what the attempt counts.
    pub(super) fn run(mut self) -> Result<Option<Vec<Step>>, RouteError> {
        if self.most.hops == 0 {
            return Ok(None);
        }
        for side in [0, 1] {
            let node = self.gate.origin[side];
            let zero = Label {
                cost: Cost::default(),
                own: u128::MAX,
                channel: ChannelId(0),
                node,
                before: NONE,
                sibling: NONE,
                key: 0.0,
            };
            self.room.ends[side].labels.push(zero);
            self.room.nodes.of_mut(node)[side].settled = 0;
        }
        self.expand(0, 0)?;
        self.expand(1, 0)?;
        while let Some(side) = self.next() {
            let end = &mut self.room.ends[side];
            let labels = &end.labels;
            let before = |a: u32, b: u32| labels[a as usize].cost < labels[b as usize].cost;
            let Some(label) = end.queue.pop(before) else { break };
            let key = end.labels[label as usize].key;
            if key >= end.part {
                // It was noted before its end's part was known to be as small.
                end.queue.clear(KEPT_LABELS);
                end.cut = true;
                continue;
            }
            if self.over(key, side) {
                break;
            }
            let end = &mut self.room.ends[side];
            end.bound = key;
            // Its edges are far away in memory. They come while those of this label are looked at.
            if let Some(next) = end.queue.first() {
                let node = end.labels[next as usize].node;
                black_box(self.gate.search.graph.outlines_of(node).first().map(|edge| edge.to));
            }
            if self.settle(side, label) {
                self.expand(side, label)?;
            }
        }
        Ok(self.best.map(|joint| self.unwind(&joint)))
    }

    /// The end that goes on, the one with less to do; none if all is done.
    fn next(&mut self) -> Option<usize> {
        let [source, end] = [0, 1].map(|side| self.room.ends[side].queue.len());
        for end in self.room.ends.iter_mut().filter(|end| end.queue.len() == 0) {
            if !end.cut {
                // It has seen everything, up to the other end.
                return None;
            }
            end.bound = end.bound.max(end.part);
        }
        match (source, end) {
            (0, 0) => None,
            (0, _) => Some(1),
            (_, 0) => Some(0),
            _ => Some(usize::from(end < source)),
        }
    }

    /// True if no way through a label with this key, and one that the other end has not settled, is
    /// of interest.
    fn over(&self, key: f64, side: usize) -> bool {
        key + self.room.ends[1 - side].bound >= self.limit
    }

    /// The key at which ways stop to be of interest, divided between the ends: what is better than the
    /// best has no more of the one criterion, and is within the bound of the other.
    fn divide(&mut self) {
        let first = self.best.as_ref().map_or(self.most.first, |best| best.cost.first);
        // Where everything is free, a way that costs nothing still is of interest.
        self.limit =
            self.attempt.relaxed.rank.key(first, self.most.second) * (1.0 + SLACK) + f64::MIN_POSITIVE;
        let share = self.attempt.relaxed.share;
        for (end, share) in self.room.ends.iter_mut().zip([share, 1.0 - share]) {
            end.part = self.limit * share * (1.0 + SLACK);
        }
    }

    /// Notes the label at its node, unless a settled one is as good in everything.
    fn settle(&mut self, side: usize, label: u32) -> bool {
        let Room { nodes, ends } = &mut *self.room;
        let new = ends[side].labels[label as usize];
        let here = &mut nodes.of_mut(new.node)[side];
        if self.attempt.beaten(&ends[side].labels, here.settled, &new) {
            return false;
        }
        ends[side].labels[label as usize].sibling = here.settled;
        here.settled = label;
        true
    }

    fn expand(&mut self, side: usize, label: u32) -> Result<(), RouteError> {
        let search = self.gate.search;
        let from = self.room.ends[side].labels[label as usize];
        let rank = self.attempt.relaxed.rank;
        for (edge, link) in search.graph.outlines_of(from.node).iter().zip(0..) {
            let Some((first, second)) = search.load.on(edge) else { continue };
            let key = from.key + rank.first * first + rank.second * second;
            if key >= self.limit {
                continue;
            }
            let here = self.room.nodes.of(edge.to);
            let within = key < self.room.ends[side].part;
            self.room.ends[side].cut |= !within;
            let further = within && edge.to != self.gate.origin[1 - side] && !self.over(key, side);
            if further || here[1 - side].settled != NONE {
                let Some(new) = self.extend(side, label, link, key) else { continue };
                self.arrive(side, new, further)?;
            }
        }
        Ok(())
    }

    /// The label at the end of a link of `before`'s node; `None` if that must not be.
    fn extend(&self, side: usize, before: u32, link: u32, key: f64) -> Option<Label> {
        let search = self.gate.search;
        let from = &self.room.ends[side].labels[before as usize];
        let (place, link) = (link, &search.graph.links_of(from.node)[link as usize]);
        let (price, latency) = search.message.weigh(link)?;
        let cost = from.cost.plus(cost(search.query.goal, price, latency))?;
        let better = self.best.as_ref().is_none_or(|best| cost < best.cost);
        if !better || cost.first > self.most.first || cost.second > self.most.second {
            return None;
        }
        if !self.gate.pass(side, from.node, link.to, place) {
            return None;
        }
        let own = self.gate.own(side, from.node, link)?.min(from.own);
        let new = Label { cost, own, channel: link.channel, node: link.to, before, sibling: NONE, key };
        self.affordable(&cost, own).then_some(new)
    }

    /// Within the hops and the own channel's balance, if the attempt counts them.
    fn affordable(&self, cost: &Cost, own: u128) -> bool {
        let price = match self.gate.search.query.goal {
            Goal::Cheapest => cost.first,
            Goal::Quickest => cost.second,
        };
        !self.attempt.all || (cost.hops <= self.most.hops && price <= own)
    }

    /// A way reaches a node: it may meet the other end there, and it may go on.
    fn arrive(&mut self, side: usize, new: Label, further: bool) -> Result<(), RouteError> {
        let here = self.room.nodes.of(new.node);
        self.join(side, &new, here[1 - side].settled);
        let labels = &self.room.ends[side].labels;
        let waiting = here[side].waiting;
        let queued = waiting != NONE && self.attempt.beats(&labels[waiting as usize], &new);
        if !further || queued || self.attempt.beaten(labels, here[side].settled, &new) {
            return Ok(());
        }
        if labels.len() >= MAX_LABELS {
            return Err(RouteError::TooComplex);
        }
        let label = labels.len() as u32;
        self.room.nodes.of_mut(new.node)[side].waiting = label;
        let end = &mut self.room.ends[side];
        end.labels.push(new);
        let labels = &end.labels;
        let before = |a: u32, b: u32| labels[a as usize].cost < labels[b as usize].cost;
        end.queue.push(Waiting { rough: new.key.to_bits(), label }, before);
        Ok(())
    }

    /// Tries a label against everything the other end has settled at its node.
    fn join(&mut self, side: usize, new: &Label, mut settled: u32) {
        while settled != NONE {
            let other = self.room.ends[1 - side].labels[settled as usize];
            if let Some(cost) = new.cost.plus(other.cost)
                && cost.first <= self.most.first
                && cost.second <= self.most.second
                && self.best.as_ref().is_none_or(|best| cost < best.cost)
                && self.affordable(&cost, new.own.min(other.own))
            {
                let mut labels = [settled; 2];
                labels[side] = new.before;
                self.best = Some(Joint { cost, labels, channel: new.channel });
                self.divide();
            }
            settled = other.sibling;
        }
    }

    fn unwind(&self, joint: &Joint) -> Vec<Step> {
        let [source, end] = &self.room.ends;
        let mut path = Vec::with_capacity(joint.cost.hops as usize);
        let mut at = &source.labels[joint.labels[0] as usize];
        while at.before != NONE {
            let before = &source.labels[at.before as usize];
            path.push(Step { channel: at.channel, from: before.node, to: at.node });
            at = before;
        }
        path.reverse();
        let from = source.labels[joint.labels[0] as usize].node;
        let mut at = &end.labels[joint.labels[1] as usize];
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
        let mut room = std::mem::take(&mut self.room);
        for end in &mut room.ends {
            end.labels.clear();
            end.labels.shrink_to(KEPT_LABELS);
            end.queue.clear(KEPT_LABELS);
            (end.bound, end.cut) = (0.0, false);
        }
        SPARE.set(Some(room));
    }
}

impl Attempt {
    /// True if `other` need not be looked at where `one` is.
    fn beats(&self, one: &Label, other: &Label) -> bool {
        let (a, b) = (&one.cost, &other.cost);
        let better = if self.bounded {
            a.first <= b.first
                && a.second <= b.second
                && (a.hops <= b.hops || (a.first, a.second) != (b.first, b.second))
        } else {
            a <= b
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
