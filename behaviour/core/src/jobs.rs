//! The jobs by request, and sets of requests.

use std::collections::{HashMap, HashSet, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};

use por_types::RequestId;

use crate::job::Job;

/// By request. Ids are hashes already, so little more is done to place them; the key keeps authors from
/// choosing ids that fall on each other. The order differs from run to run.
pub(crate) type ById<T> = HashMap<RequestId, T, Key>;

/// Jobs are large: the table holds pointers.
#[derive(Debug, Default)]
pub(crate) struct Jobs(ById<Box<Job>>);

impl Jobs {
    pub fn get(&self, id: &RequestId) -> Option<&Job> {
        self.0.get(id).map(|job| &**job)
    }

    pub fn get_mut(&mut self, id: &RequestId) -> Option<&mut Job> {
        self.0.get_mut(id).map(|job| &mut **job)
    }

    pub fn insert(&mut self, id: RequestId, job: Job) {
        self.0.insert(id, Box::new(job));
    }

    pub fn remove(&mut self, id: &RequestId) -> Option<Box<Job>> {
        self.0.remove(id)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn values_mut(&mut self) -> impl Iterator<Item = &mut Job> {
        self.0.values_mut().map(|job| &mut **job)
    }

    pub fn iter(&self) -> impl Iterator<Item = (&RequestId, &Job)> {
        self.0.iter().map(|(id, job)| (id, &**job))
    }
}

/// Requests in the order in which they were entered.
#[derive(Debug, Default)]
pub(crate) struct Ids {
    all: HashSet<RequestId, Key>,
    /// Those that were removed, and entered twice, among them.
    order: VecDeque<RequestId>,
}

impl Ids {
    pub fn insert(&mut self, id: RequestId) {
        if self.all.insert(id) {
            self.order.push_back(id);
        }
    }

    pub fn contains(&self, id: &RequestId) -> bool {
        self.all.contains(id)
    }

    pub fn remove(&mut self, id: &RequestId) {
        self.all.remove(id);
    }

    /// Takes out the first one.
    pub fn pop(&mut self) -> Option<RequestId> {
        while let Some(id) = self.order.pop_front() {
            if self.all.remove(&id) {
                return Some(id);
            }
        }
        None
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Key([u64; 2]);

impl Default for Key {
    fn default() -> Key {
        let random = RandomState::new();
        // Odd, so that no bit of the id is lost in the product.
        Key([random.hash_one(0u8), random.hash_one(1u8) | 1])
    }
}

impl BuildHasher for Key {
    type Hasher = IdHasher;

    fn build_hasher(&self) -> IdHasher {
        IdHasher { state: self.0[0], factor: self.0[1] }
    }
}

pub(crate) struct IdHasher {
    state: u64,
    factor: u64,
}

impl Hasher for IdHasher {
    fn write(&mut self, bytes: &[u8]) {
        // As many bits as could ever be told apart by a table.
        for part in bytes.chunks(8).take(2) {
            let mut word = [0; 8];
            word[..part.len()].copy_from_slice(part);
            let product = u128::from(self.state ^ u64::from_le_bytes(word)) * u128::from(self.factor);
            self.state = (product as u64) ^ (product >> 64) as u64;
        }
    }

    fn write_usize(&mut self, _length: usize) {}

    fn finish(&self) -> u64 {
        self.state
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_that_differ_in_one_bit_fall_apart() {
        let key = Key::default();
        let mut seen = std::collections::HashSet::new();
        for bit in 0..128 {
            let mut id = [0; 32];
            id[bit / 8] = 1 << (bit % 8);
            assert!(seen.insert(key.hash_one(RequestId(id))), "bit {bit}");
        }
    }

    #[test]
    fn ids_come_out_once_and_in_order() {
        let id = |number| RequestId([number; 32]);
        let mut ids = Ids::default();
        [3, 1, 2, 3].map(id).into_iter().for_each(|id| ids.insert(id));
        ids.remove(&id(1));
        assert!(!ids.contains(&id(1)) && ids.contains(&id(3)));
        assert_eq!(ids.pop(), Some(id(3)));
        ids.insert(id(1));
        ids.insert(id(3));
        let rest: Vec<_> = std::iter::from_fn(|| ids.pop()).collect();
        assert_eq!(rest, [1, 2, 3].map(id));
        assert!(ids.all.is_empty() && ids.order.is_empty());
    }
}
