//! The best way by one measure, from both ends at once.
//!
//! Each end settles the nodes around it in the order of their distance, with one label for each.
//! Wherever a label runs into a node that the other end knows, the two make a whole way. A way not
//! yet seen is at least as long as what both ends have settled: once that is no better than the
//! best one seen, that one is the best. A limit that is known from the start is divided between the
//! ends, and neither notes what lies beyond its part: a way within the limit has an edge from the
//! one part into the other, which is found by the end that settles its node there later.

use std::cell::Cell;
use std::hint::black_box;
use std::thread::LocalKey;

use por_types::ChannelId;

use super::heap::{Heap, Waiting};
use super::measure::{Exact, Lexical, Rank, Sum, real};
use super::nodes::Nodes;
use super::{Gate, NONE, Step};

/// Labels of an end for which a thread keeps room from one search to the next.
const KEPT_LABELS: usize = 1 << 14;

/// A way from an end to `node`.
#[derive(Clone, Copy)]
struct Label<E> {
    sum: Sum<E>,
    /// The criterion that is not the goal.
    second: f64,
    /// The last edge: its place at the node where it was taken. And the label there.
    link: u32,
    node: u32,
    before: u32,
}

/// The memory of a search, which the next one of the thread takes over.
pub(super) struct Room<E> {
    /// The best label of each end.
    nodes: Nodes<[u32; 2]>,
    ends: [End<E>; 2],
}

struct End<E> {
    labels: Vec<Label<E>>,
    queue: Heap,
    /// The last label settled.
    reached: f64,
    /// What is not settled, and of interest, has at least this.
    bound: Sum<E>,
    /// What has as much is not noted.
    part: f64,
    /// There was some of it.
    cut: bool,
}

impl<E: Exact> Default for End<E> {
    fn default() -> End<E> {
        let queue = Heap::default();
        End {
            labels: Vec::new(),
            queue,
            reached: 0.0,
            bound: Sum::default(),
            part: f64::INFINITY,
            cut: false,
        }
    }
}

impl<E: Exact> Default for Room<E> {
    fn default() -> Room<E> {
        Room { nodes: Nodes::new([NONE; 2]), ends: [End::default(), End::default()] }
    }
}

impl<E: Exact> Room<E> {
    fn begin(&mut self, nodes: usize) {
        self.nodes.begin(nodes);
        for end in &mut self.ends {
            end.labels.clear();
            end.labels.shrink_to(KEPT_LABELS);
            end.queue.clear(KEPT_LABELS);
            (end.reached, end.bound, end.part, end.cut) = (0.0, Sum::default(), f64::INFINITY, false);
        }
    }
}

/// Sums whose searches keep their memory.
pub(super) trait Kept: Exact {
    fn spare() -> &'static LocalKey<Cell<Option<Box<Room<Self>>>>>;
}

thread_local! {
    static EXACT: Cell<Option<Box<Room<Lexical>>>> = const { Cell::new(None) };
    static ROUGH: Cell<Option<Box<Room<()>>>> = const { Cell::new(None) };
}

impl Kept for Lexical {
    fn spare() -> &'static LocalKey<Cell<Option<Box<Room<Lexical>>>>> {
        &EXACT
    }
}

impl Kept for () {
    fn spare() -> &'static LocalKey<Cell<Option<Box<Room<()>>>>> {
        &ROUGH
    }
}

/// Where the ends met: labels at both sides of an edge.
#[derive(Clone, Copy)]
struct Joint {
    labels: [u32; 2],
    /// At which side the edge was taken, and its place at the node there.
    side: usize,
    link: u32,
}

/// The best way, and how far each end went for it.
pub(super) struct Reached {
    pub(super) path: Option<Vec<Step>>,
    /// Its rough sum, or the limit if there is none below it.
    pub(super) least: f64,
    /// Among the other ways seen, the one that is best by the goal's criterion within the bound on
    /// the other one.
    pub(super) within: Option<Vec<Step>>,
    pub(super) ends: [f64; 2],
}

pub(super) struct Reach<'s, 'a, E: Kept> {
    gate: Gate<'s, 'a>,
    rank: Rank,
    /// Ways of this and more are of no interest.
    limit: Sum<E>,
    /// The source's part of a way.
    share: f64,
    /// Most of the criterion that is not the goal.
    most: f64,
    room: Box<Room<E>>,
    best: Option<Joint>,
    within: Option<(f64, Joint)>,
}

impl<'s, 'a, E: Kept> Reach<'s, 'a, E> {
    /// Ways within `most` of the criterion that is not the goal are noted besides the best one.
    pub(super) fn new(gate: Gate<'s, 'a>, rank: Rank, most: u128) -> Reach<'s, 'a, E> {
        let mut room = E::spare().take().unwrap_or_default();
        room.begin(gate.search.graph.places());
        let most = if most == u128::MAX { 0.0 } else { real(most) };
        Reach { gate, rank, limit: Sum::MOST, share: 0.5, most, room, best: None, within: None }
    }

    /// Only ways below `limit`, of which the source's part is expected to be `share`.
    pub(super) fn below(mut self, limit: f64, share: f64) -> Reach<'s, 'a, E> {
        self.limit.key = limit;
        self.share = share;
        self
    }

    pub(super) fn run(mut self) -> Reached {
        self.divide();
        for side in [0, 1] {
            let node = self.gate.origin[side];
            let zero = Label { sum: Sum::default(), second: 0.0, link: NONE, node, before: NONE };
            self.room.ends[side].labels.push(zero);
            self.room.nodes.of_mut(node)[side] = 0;
        }
        self.expand(0, 0);
        self.expand(1, 0);
        while let Some(side) = self.next() {
            let end = &mut self.room.ends[side];
            let labels = &end.labels;
            let before = |a: u32, b: u32| labels[a as usize].sum.exact < labels[b as usize].sum.exact;
            let Some(label) = end.queue.pop(before) else { break };
            let Label { sum, node, .. } = end.labels[label as usize];
            if sum.key >= end.part {
                // It was noted before its end's part was known to be as small.
                end.queue.clear(KEPT_LABELS);
                end.cut = true;
                continue;
            }
            if self.room.nodes.of(node)[side] != label {
                continue;
            }
            if sum.plus(self.room.ends[1 - side].bound) >= self.limit {
                break;
            }
            let end = &mut self.room.ends[side];
            (end.reached, end.bound) = (sum.key, sum);
            // Its edges are far away in memory. They come while those of this label are looked at.
            if let Some(next) = end.queue.first() {
                let node = end.labels[next as usize].node;
                black_box(self.gate.search.graph.outlines_of(node).first().map(|edge| edge.to));
            }
            self.expand(side, label);
        }
        let found = Reached {
            path: self.best.map(|joint| self.unwind(&joint)),
            least: self.limit.key,
            within: self.within.map(|(_, joint)| self.unwind(&joint)),
            ends: [0, 1].map(|side| self.room.ends[side].reached),
        };
        E::spare().set(Some(self.room));
        found
    }

    /// The end that goes on, the one with less to do; none if all is done.
    fn next(&mut self) -> Option<usize> {
        let [source, end] = [0, 1].map(|side| self.room.ends[side].queue.len());
        for end in self.room.ends.iter_mut().filter(|end| end.queue.len() == 0) {
            if !end.cut {
                // It has seen everything, up to the other end.
                return None;
            }
            end.bound.key = end.bound.key.max(end.part);
        }
        match (source, end) {
            (0, 0) => None,
            (0, _) => Some(1),
            (_, 0) => Some(0),
            _ => Some(usize::from(end < source)),
        }
    }

    /// Divides the limit between the ends. Exact sums have none from the start, and are not divided.
    fn divide(&mut self) {
        if E::ROUGH {
            for (end, share) in self.room.ends.iter_mut().zip([self.share, 1.0 - self.share]) {
                end.part = self.limit.key * share;
            }
        }
    }

    fn expand(&mut self, side: usize, label: u32) {
        let search = self.gate.search;
        let from = self.room.ends[side].labels[label as usize];
        for (edge, link) in search.graph.outlines_of(from.node).iter().zip(0..) {
            let Some((first, second)) = search.load.on(edge) else { continue };
            let key = from.sum.key + self.rank.first * first + self.rank.second * second;
            if !E::below(key, self.limit.key) {
                continue;
            }
            let known = self.room.nodes.of(edge.to);
            let end = &self.room.ends[side];
            if known[side] != NONE && !E::below(key, end.labels[known[side] as usize].sum.key) {
                continue;
            }
            let within = key < end.part;
            let further = within
                && edge.to != self.gate.origin[1 - side]
                && E::below(key + self.room.ends[1 - side].bound.key, self.limit.key);
            self.room.ends[side].cut |= !within;
            if further || known[1 - side] != NONE {
                let new = Label {
                    sum: Sum { exact: from.sum.exact, key },
                    second: from.second + second,
                    link,
                    node: edge.to,
                    before: label,
                };
                self.arrive(side, &from, new, further);
            }
        }
    }

    /// A way reaches a node: it may meet the other end there, and it may go on.
    fn arrive(&mut self, side: usize, from: &Label<E>, mut new: Label<E>, further: bool) {
        let search = self.gate.search;
        let known = self.room.nodes.of(new.node);
        if !E::ROUGH {
            let link = &search.graph.links_of(from.node)[new.link as usize];
            let Some((price, latency)) = search.message.weigh(link) else { return };
            new.sum.exact = from.sum.exact.plus(E::of(search.query.goal, price, latency));
            new.sum.key = new.sum.exact.key(search.query.goal, new.sum.key);
            if known[side] != NONE && self.room.ends[side].labels[known[side] as usize].sum <= new.sum {
                return;
            }
        }
        if !self.gate.pass(side, from.node, new.node, new.link) {
            return;
        }
        if known[1 - side] != NONE {
            self.join(side, &new, known[1 - side]);
        }
        if !further {
            return;
        }
        let end = &mut self.room.ends[side];
        let label = end.labels.len() as u32;
        end.labels.push(new);
        let labels = &end.labels;
        let before = |a: u32, b: u32| labels[a as usize].sum.exact < labels[b as usize].sum.exact;
        end.queue.push(Waiting { rough: new.sum.key.to_bits(), label }, before);
        self.room.nodes.of_mut(new.node)[side] = label;
    }

    fn join(&mut self, side: usize, new: &Label<E>, known: u32) {
        let other = &self.room.ends[1 - side].labels[known as usize];
        let sum = new.sum.plus(other.sum);
        let second = new.second + other.second;
        let mut labels = [known; 2];
        labels[side] = new.before;
        let joint = Joint { labels, side, link: new.link };
        if second <= self.most {
            // In units of the key, which is all that it is compared with.
            let first = sum.key - self.rank.second * second;
            if self.within.is_none_or(|(best, _)| first < best) {
                self.within = Some((first, joint));
            }
        }
        if sum < self.limit {
            self.best = Some(joint);
            self.limit = sum;
            self.divide();
        }
    }

    fn unwind(&self, joint: &Joint) -> Vec<Step> {
        let [source, end] = [0, 1].map(|side| &self.room.ends[side].labels);
        let mut path = Vec::new();
        let (before, after) = (joint.labels[0], joint.labels[1]);
        let mut at = &source[before as usize];
        while at.before != NONE {
            let before = &source[at.before as usize];
            path.push(Step { channel: self.channel(before.node, at.link), from: before.node, to: at.node });
            at = before;
        }
        path.reverse();
        let (from, mut at) = (source[before as usize].node, &end[after as usize]);
        let taken = [from, at.node][joint.side];
        path.push(Step { channel: self.channel(taken, joint.link), from, to: at.node });
        while at.before != NONE {
            let before = &end[at.before as usize];
            path.push(Step { channel: self.channel(before.node, at.link), from: at.node, to: before.node });
            at = before;
        }
        path
    }

    fn channel(&self, node: u32, link: u32) -> ChannelId {
        self.gate.search.graph.links_of(node)[link as usize].channel
    }
}
