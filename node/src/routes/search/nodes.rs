//! What a search knows of nodes.

/// Nodes that marks tell apart; a power of two.
const MARKS: usize = 1 << 15;

/// A search comes by far more nodes than it notes something of. This says so for nearly all of them,
/// from memory that stays in the nearest cache, whatever the size of the graph.
struct Marks(Box<[u64; MARKS / 64]>);

impl Default for Marks {
    fn default() -> Marks {
        Marks(Box::new([0; MARKS / 64]))
    }
}

impl Marks {
    fn clear(&mut self) {
        self.0.fill(0);
    }

    fn set(&mut self, node: u32) {
        let place = node as usize % MARKS;
        self.0[place / 64] |= 1 << (place % 64);
    }

    /// False only if the node was not set.
    fn may_have(&self, node: u32) -> bool {
        let place = node as usize % MARKS;
        self.0[place / 64] & (1 << (place % 64)) != 0
    }
}

/// What a search knows of each node. Of searches before, which the stamps tell apart, nothing counts:
/// beginning one costs nothing, whatever the size of the graph.
pub(super) struct Nodes<T> {
    known: Vec<(u32, T)>,
    stamp: u32,
    marks: Marks,
    nothing: T,
}

impl<T: Copy> Nodes<T> {
    /// `nothing` is what is known of a node at the beginning.
    pub(super) fn new(nothing: T) -> Nodes<T> {
        Nodes { known: Vec::new(), stamp: 0, marks: Marks::default(), nothing }
    }

    /// Begins a search in a graph of so many nodes.
    pub(super) fn begin(&mut self, nodes: usize) {
        self.marks.clear();
        self.stamp = self.stamp.wrapping_add(1);
        if self.stamp == 0 {
            self.known.clear();
            self.stamp = 1;
        }
        if self.known.len() < nodes {
            self.known.resize(nodes, (0, self.nothing));
        }
    }

    pub(super) fn of(&self, node: u32) -> T {
        if !self.marks.may_have(node) {
            return self.nothing;
        }
        let (stamp, known) = self.known[node as usize];
        if stamp == self.stamp { known } else { self.nothing }
    }

    pub(super) fn of_mut(&mut self, node: u32) -> &mut T {
        self.marks.set(node);
        let (stamp, known) = &mut self.known[node as usize];
        if *stamp != self.stamp {
            (*stamp, *known) = (self.stamp, self.nothing);
        }
        known
    }
}
