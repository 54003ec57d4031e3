//! Bidirectional search for a path between the ends of a removed edge.
//!
//! The side that has cost less so far grows next, so a small component is exhausted at about
//! twice its own cost, and two well-connected ends meet after a small part of the graph.

use borsh::{BorshDeserialize, BorshSerialize};

use crate::adjacency::Graph;
use crate::bits::Bits;
use crate::budget::Budget;

/// Cost of looking at a node, in links.
const NODE_COST: u64 = 8;

/// One side's progress.
pub struct Half {
    pub visited: Bits,
    pub count: u32,
    cost: u64,
    /// Nodes seen, from `next` on not looked at.
    queue: Vec<u32>,
    next: usize,
    /// Parts of the next node's neighbours that were looked at.
    part: usize,
}

/// As stored between calls.
#[derive(BorshSerialize, BorshDeserialize)]
pub struct SavedHalf {
    visited: Bits,
    count: u32,
    cost: u64,
    first: Option<u32>,
    part: u32,
    open: Bits,
}

pub enum Found {
    /// The ends are still connected.
    Path,
    /// This half is a component.
    Exhausted(usize),
    /// The budget is used up.
    Unfinished,
}

impl Half {
    pub fn new(start: u32, nodes: u32) -> Half {
        let mut visited = Bits::new(nodes);
        visited.add(start);
        Half { visited, count: 1, cost: 0, queue: vec![start], next: 0, part: 0 }
    }

    pub fn is_exhausted(&self) -> bool {
        self.next == self.queue.len()
    }

    pub fn save(self, nodes: u32) -> SavedHalf {
        let mut open = Bits::new(nodes);
        for node in self.queue.iter().skip(self.next + 1) {
            open.add(*node);
        }
        let first = self.queue.get(self.next).copied();
        SavedHalf {
            visited: self.visited,
            count: self.count,
            cost: self.cost,
            first,
            // Parts are fewer than nodes.
            part: self.part as u32,
            open,
        }
    }

    pub fn restore(saved: SavedHalf) -> Half {
        let queue = saved.first.into_iter().chain(saved.open.from(0)).collect();
        Half {
            visited: saved.visited,
            count: saved.count,
            cost: saved.cost,
            queue,
            next: 0,
            part: saved.part as usize,
        }
    }

    /// Looks at the next part of the next node's neighbours. `stop` says which neighbour ends
    /// the search; `seen` is told every new node.
    fn grow(&mut self, graph: &mut Graph, links: &mut Vec<u32>, stop: impl Fn(u32) -> bool) -> bool {
        let node = self.queue[self.next];
        let more = graph.part(node, self.part, links);
        self.cost += NODE_COST + links.len() as u64;
        for &to in links.iter() {
            if stop(to) {
                return true;
            }
            if !self.visited.has(to) {
                self.visited.add(to);
                self.count += 1;
                self.queue.push(to);
            }
        }
        if more {
            self.part += 1;
        } else {
            self.part = 0;
            self.next += 1;
        }
        false
    }
}

/// Searches from both ends, or from `only` one.
pub fn search(halves: &mut [Half; 2], only: Option<usize>, graph: &mut Graph, budget: &Budget) -> Found {
    let mut links = Vec::new();
    loop {
        if let Some(done) = halves.iter().position(Half::is_exhausted) {
            return Found::Exhausted(done);
        }
        if !budget.lasts(graph.bytes) {
            return Found::Unfinished;
        }
        let cheaper = usize::from(halves[1].cost < halves[0].cost);
        let [first, second] = halves;
        let met = match only.unwrap_or(cheaper) {
            0 => first.grow(graph, &mut links, |to| second.visited.has(to)),
            _ => second.grow(graph, &mut links, |to| first.visited.has(to)),
        };
        if met {
            return Found::Path;
        }
    }
}

/// Goes on with one half until it has `most` nodes, as far as the budget lasts, but at least a step.
pub fn continue_half(half: &mut Half, most: u32, graph: &mut Graph, budget: &Budget) {
    let mut links = Vec::new();
    while !half.is_exhausted() {
        half.grow(graph, &mut links, |_| false);
        if half.count >= most || !budget.lasts(graph.bytes) {
            return;
        }
    }
}
