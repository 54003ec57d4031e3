//! What a block's contracts touch of the state, as NEAR counts it.
//!
//! NEAR proves a block to its validators with every trie node and value that its receipts
//! looked at, as of the state before the block, and limits how much of this proof one receipt
//! may cause. What the block itself has written needs no proof, and costs no trie nodes.

use std::collections::{HashMap, HashSet};

use near_primitives::trie_key::TrieKey;
use near_primitives::types::AccountId;

use super::State;
use super::trie_path::prefix;

/// What NEAR counts for each removal, in bytes: a bound on the siblings it has to prove.
const REMOVAL: usize = 2_000;

/// Counts what is touched in one block.
pub(crate) struct Recorder {
    /// The state before the block.
    base: State,
    /// Queries need no proof, so nothing limits it.
    proves: bool,
    nodes: HashSet<(usize, Vec<u8>)>,
    values: HashSet<Vec<u8>>,
    /// Keys looked up, with the number of nodes on the way.
    found: HashMap<Vec<u8>, u64>,
    bytes: usize,
}

impl Recorder {
    /// For a block that starts from `base`.
    pub(crate) fn new(base: State) -> Self {
        let (nodes, values, found) = Default::default();
        Self { base, proves: true, nodes, values, found, bytes: 0 }
    }

    /// For a query as of `base`.
    pub(crate) fn for_query(base: State) -> Self {
        Self { proves: false, ..Self::new(base) }
    }

    /// The size of the proof so far, in bytes: a bound from above, as on NEAR.
    pub(crate) fn bytes(&self) -> usize {
        if self.proves { self.bytes } else { 0 }
    }

    /// Whether this block has already written the key.
    pub(crate) fn is_overlaid(&self, state: &State, key: &[u8]) -> bool {
        state.dirty.contains(key) && !self.base.dirty.contains(key)
    }

    /// Records the way to a key. Returns the number of nodes on it.
    pub(crate) fn look_up(&mut self, key: &[u8]) -> u64 {
        if let Some(nodes) = self.found.get(key) {
            return *nodes;
        }
        let path = self.base.trie_path(key);
        let nodes = path.len() as u64;
        for node in path {
            if self.nodes.insert((node.start, prefix(key, node.start))) {
                self.bytes = self.bytes.saturating_add(self.base.trie_node_bytes(key, node));
            }
        }
        self.found.insert(key.to_vec(), nodes);
        nodes
    }

    /// Records the value under a key. Returns whether there is one.
    pub(crate) fn read_value(&mut self, key: &[u8]) -> bool {
        let Some(value) = self.base.get_raw(key) else {
            return false;
        };
        let length = value.len();
        if self.values.insert(key.to_vec()) {
            self.bytes = self.bytes.saturating_add(length);
        }
        true
    }

    pub(crate) fn remove(&mut self) {
        self.bytes = self.bytes.saturating_add(REMOVAL);
    }

    /// Records what is read before a receipt runs, which does not count as the receipt's.
    pub(crate) fn start_receipt(&mut self, receiver: &AccountId) -> usize {
        let key = TrieKey::Account { account_id: receiver.clone() }.to_vec();
        self.look_up(&key);
        self.read_value(&key);
        self.bytes()
    }
}
