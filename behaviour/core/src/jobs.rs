//! The jobs by request.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hasher, RandomState};

use por_types::RequestId;

use crate::job::Job;

/// Jobs are large: the table holds pointers. Ids are hashes already, so little more is done to place
/// them; the key keeps authors from choosing ids that fall on each other.
#[derive(Debug, Default)]
pub(crate) struct Jobs(HashMap<RequestId, Box<Job>, Key>);

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

#[derive(Clone, Debug)]
struct Key([u64; 2]);

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

struct IdHasher {
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
}
