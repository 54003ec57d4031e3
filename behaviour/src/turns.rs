//! Who is served next, where requests of several neighbours wait in one place.
//!
//! Start-time fair queueing: each flow has the time at which its next item starts in a schedule in
//! which all waiting flows advance alike, by what their items cost. The earliest start is served. An
//! item of a flow that had nothing waiting is thus served after at most one item of each other
//! flow that waits, however many of them wait.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::Hash;

use por_core::types::NodeKey;

/// What a request costs a server whatever its size, in bytes of bodies.
const BASE_COST: u64 = 1 << 10;
/// Flows that have nothing waiting but were served ahead of the others; beyond it the first is
/// forgotten, and may be served at once.
const MAX_RESTING: usize = 1024;

/// The order of turns of flows with keys `K`; what waits is elsewhere.
#[derive(Debug)]
struct Turns<K> {
    /// Flows with something waiting, by the start of what they are served next and their arrival.
    waiting: BTreeMap<(u64, u64), K>,
    /// Flows with nothing waiting whose last item has not ended yet, by that end.
    resting: BTreeMap<(u64, u64), K>,
    ends: HashMap<K, (u64, u64)>,
    now: u64,
    arrivals: u64,
}

impl<K> Default for Turns<K> {
    fn default() -> Turns<K> {
        Turns {
            waiting: BTreeMap::new(),
            resting: BTreeMap::new(),
            ends: HashMap::new(),
            now: 0,
            arrivals: 0,
        }
    }
}

impl<K: Copy + Eq + Hash> Turns<K> {
    /// A flow that had nothing waiting has something now.
    fn arrive(&mut self, key: K) {
        let rested = self.ends.remove(&key).and_then(|end| self.resting.remove(&end).map(|_| end.0));
        let start = rested.unwrap_or(self.now).max(self.now);
        self.wait(start, key);
    }

    fn wait(&mut self, start: u64, key: K) {
        self.waiting.insert((start, self.arrivals), key);
        self.arrivals += 1;
    }

    /// Takes the flow whose turn it is; tell [`Turns::served`] what it was served.
    fn next(&mut self) -> Option<(u64, K)> {
        let ((start, _), key) = self.waiting.pop_first()?;
        self.now = start;
        Some((start, key))
    }

    fn served(&mut self, start: u64, key: K, cost: u64, more: bool) {
        let end = start.saturating_add(cost);
        if more {
            return self.wait(end, key);
        }
        if self.waiting.is_empty() {
            // Nobody was kept waiting: nothing to remember.
            *self = Turns::default();
            return;
        }
        let place = (end, self.arrivals);
        self.arrivals += 1;
        self.resting.insert(place, key);
        self.ends.insert(key, place);
        while let Some(first) = self.resting.first_entry() {
            if first.key().0 > self.now && self.ends.len() <= MAX_RESTING {
                return;
            }
            self.ends.remove(&first.remove());
        }
    }
}

/// Items of one author each.
#[derive(Debug)]
struct Lane<T> {
    turns: Turns<NodeKey>,
    items: HashMap<NodeKey, VecDeque<(u64, T)>>,
}

impl<T> Default for Lane<T> {
    fn default() -> Lane<T> {
        Lane { turns: Turns::default(), items: HashMap::new() }
    }
}

impl<T> Lane<T> {
    fn push(&mut self, author: NodeKey, cost: u64, item: T) {
        let queue = self.items.entry(author).or_default();
        if queue.is_empty() {
            self.turns.arrive(author);
        }
        queue.push_back((cost, item));
    }

    fn pop(&mut self) -> Option<(u64, T)> {
        let (start, author) = self.turns.next()?;
        let queue = self.items.get_mut(&author)?;
        let (cost, item) = queue.pop_front()?;
        let more = !queue.is_empty();
        if !more {
            self.items.remove(&author);
        }
        self.turns.served(start, author, cost, more);
        Some((cost, item))
    }
}

/// Requests that wait for one server: neighbours are served in turn, and of each neighbour's
/// requests their authors. What a turn is worth is counted in requests and bytes of their bodies,
/// so that neither many small requests nor few large ones crowd out others. A neighbour's place does
/// not depend on how many authors it brings.
#[derive(Debug)]
pub struct FairQueue<T> {
    turns: Turns<NodeKey>,
    lanes: HashMap<NodeKey, Lane<T>>,
    len: usize,
}

impl<T> Default for FairQueue<T> {
    fn default() -> FairQueue<T> {
        FairQueue { turns: Turns::default(), lanes: HashMap::new(), len: 0 }
    }
}

impl<T> FairQueue<T> {
    /// `bytes`: length of the request's body plus the longest response.
    pub fn push(&mut self, from: NodeKey, author: NodeKey, bytes: u64, item: T) {
        let lane = self.lanes.entry(from).or_default();
        if lane.items.is_empty() {
            self.turns.arrive(from);
        }
        lane.push(author, bytes.saturating_add(BASE_COST), item);
        self.len += 1;
    }

    /// The neighbour whose turn it is.
    pub fn whose_turn(&self) -> Option<&NodeKey> {
        self.turns.waiting.first_key_value().map(|(_, from)| from)
    }

    /// The request whose turn it is.
    pub fn pop(&mut self) -> Option<T> {
        let (start, from) = self.turns.next()?;
        let lane = self.lanes.get_mut(&from)?;
        let (cost, item) = lane.pop()?;
        let more = !lane.items.is_empty();
        if !more {
            self.lanes.remove(&from);
        }
        self.turns.served(start, from, cost, more);
        self.len -= 1;
        Some(item)
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// All that wait, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        let queues = self.lanes.values().flat_map(|lane| lane.items.values());
        queues.flatten().map(|(_, item)| item)
    }

    /// Drops those for which `keep` is false. Turns of who has nothing left are skipped.
    pub fn retain(&mut self, mut keep: impl FnMut(&T) -> bool) {
        let mut kept = FairQueue::default();
        for (from, mut lane) in std::mem::take(&mut self.lanes) {
            for (author, queue) in std::mem::take(&mut lane.items) {
                for (cost, item) in queue.into_iter().filter(|(_, item)| keep(item)) {
                    kept.push(from, author, cost.saturating_sub(BASE_COST), item);
                }
            }
        }
        *self = kept;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(n: u8) -> NodeKey {
        por_core::types::NodeSecret::from_seed(&[n; 32]).public()
    }

    #[test]
    fn a_modest_neighbour_is_served_next_but_one() {
        let (greedy, modest) = (key(1), key(2));
        let mut queue = FairQueue::default();
        for n in 0..4_000 {
            queue.push(greedy, greedy, 256, n);
        }
        assert_eq!(queue.pop(), Some(0));
        for round in 0..50 {
            queue.push(modest, modest, 256, 10_000 + round);
            let next: Vec<i32> = std::iter::from_fn(|| queue.pop()).take(2).collect();
            assert!(next.contains(&(10_000 + round)), "round {round}: {next:?}");
        }
        assert_eq!(queue.len(), 4_000 - 1 - 50);
    }

    #[test]
    fn one_neighbours_authors_do_not_multiply_its_share() {
        let (relay, modest) = (key(1), key(2));
        let mut queue = FairQueue::default();
        for n in 0..100u8 {
            for _ in 0..10 {
                queue.push(relay, key(3 + n), 100, false);
            }
        }
        (0..10).for_each(|_| queue.push(modest, modest, 100, true));
        let served: Vec<bool> = std::iter::from_fn(|| queue.pop()).take(20).collect();
        assert!(served.iter().filter(|modest| **modest).count() >= 9, "{served:?}");
    }

    #[test]
    fn authors_behind_one_neighbour_are_served_in_turn() {
        let relay = key(1);
        let mut queue = FairQueue::default();
        for n in 0..1_000 {
            queue.push(relay, key(2), 100, n);
        }
        queue.push(relay, key(3), 100, -1);
        let served: Vec<i32> = std::iter::from_fn(|| queue.pop()).take(2).collect();
        assert!(served.contains(&-1), "{served:?}");
    }

    /// A large request costs its neighbour as much as many small ones, also if it never has two
    /// waiting at once.
    #[test]
    fn shares_are_of_bytes_too() {
        let (large, small) = (key(1), key(2));
        let mut queue = FairQueue::default();
        (0..2_000).for_each(|_| queue.push(small, small, 0, 1u64));
        let (mut served_large, mut served_small) = (0u64, 0u64);
        queue.push(large, large, 99 << 10, 100);
        while served_small < 1_000 {
            match queue.pop() {
                Some(100) => {
                    served_large += 100;
                    queue.push(large, large, 99 << 10, 100);
                }
                Some(cost) => served_small += cost,
                None => panic!("2,000 are waiting"),
            }
        }
        assert!(served_large.abs_diff(served_small) <= 200, "{served_large} {served_small}");
    }

    /// Every item is served once, in order within an author, whatever comes and goes.
    #[test]
    fn nothing_is_lost_or_swapped() {
        let mut state = 7u64;
        let mut random = |below: u64| {
            state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            (state >> 33) % below
        };
        let keys: Vec<NodeKey> = (1..=6).map(key).collect();
        let mut queue = FairQueue::default();
        let mut last: HashMap<(u64, u64), u64> = HashMap::new();
        let (mut pushed, mut popped) = (0u64, 0u64);
        let mut check = |(from, author, number): (u64, u64, u64)| {
            let before = last.insert((from, author), number);
            assert!(before.is_none_or(|before| before < number));
        };
        for _ in 0..20_000 {
            if random(5) < 3 {
                let (from, author) = (random(3), random(6));
                queue.push(keys[from as usize], keys[author as usize], random(5_000), (from, author, pushed));
                pushed += 1;
            } else {
                for _ in 0..random(6) {
                    if let Some(item) = queue.pop() {
                        check(item);
                        popped += 1;
                    }
                }
            }
        }
        assert_eq!(queue.len() as u64, pushed - popped);
        assert_eq!(queue.iter().count() as u64, pushed - popped);
        queue.retain(|(from, ..)| *from != 0);
        let left = queue.len();
        let rest: Vec<_> = std::iter::from_fn(|| queue.pop()).collect();
        assert_eq!(rest.len(), left);
        assert!(rest.iter().all(|(from, ..)| *from != 0));
        rest.into_iter().for_each(check);
        assert!(queue.is_empty());
    }
}
