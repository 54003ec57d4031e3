//! A queue of labels, the smallest first.

/// Children of each place: fewer levels than a binary heap, and they lie side by side.
const WIDTH: usize = 4;

/// What waits: a label, and a number that orders it against nearly all others.
#[derive(Clone, Copy)]
pub(super) struct Waiting {
    pub(super) rough: u64,
    pub(super) label: u32,
}

/// Smallest `rough` first; of equal ones the caller says which comes before the other.
#[derive(Default)]
pub(super) struct Heap {
    items: Vec<Waiting>,
}

impl Heap {
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    pub(super) fn first(&self) -> Option<u32> {
        self.items.first().map(|first| first.label)
    }

    /// Forgets everything; keeps memory for `most` items.
    pub(super) fn clear(&mut self, most: usize) {
        self.items.clear();
        self.items.shrink_to(most);
    }

    pub(super) fn push(&mut self, new: Waiting, before: impl Fn(u32, u32) -> bool) {
        let mut at = self.items.len();
        self.items.push(new);
        while at > 0 {
            let parent = (at - 1) / WIDTH;
            if !less(&new, &self.items[parent], &before) {
                break;
            }
            self.items[at] = self.items[parent];
            at = parent;
        }
        self.items[at] = new;
    }

    pub(super) fn pop(&mut self, before: impl Fn(u32, u32) -> bool) -> Option<u32> {
        let last = self.items.pop()?;
        let Some(first) = self.items.first().copied() else { return Some(last.label) };
        let (mut at, len) = (0, self.items.len());
        loop {
            let start = at * WIDTH + 1;
            if start >= len {
                break;
            }
            let mut least = start;
            for child in start + 1..(start + WIDTH).min(len) {
                if less(&self.items[child], &self.items[least], &before) {
                    least = child;
                }
            }
            if !less(&self.items[least], &last, &before) {
                break;
            }
            self.items[at] = self.items[least];
            at = least;
        }
        self.items[at] = last;
        Some(first.label)
    }
}

fn less(a: &Waiting, b: &Waiting, before: &impl Fn(u32, u32) -> bool) -> bool {
    a.rough < b.rough || (a.rough == b.rough && before(a.label, b.label))
}
