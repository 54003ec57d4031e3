//! The nodes of NEAR's trie on the way to a key.
//!
//! NEAR charges a contract for each trie node on the way to a key it writes, and
//! limits the size of the nodes and values a receipt may touch. The map has no
//! nodes, but they follow from the neighbours of a key: the trie branches exactly
//! where the keys that share a prefix differ in their next half byte.

use super::{Bytes, State};

/// Bytes of every stored node besides its own: its tag, and the memory its subtree uses.
const NODE: usize = 1 + 8;
/// A reference to a value: its length and its hash.
const VALUE_REF: usize = 4 + 32;
const HASH: usize = 32;
/// Which of its children a branch has.
const CHILD_MASK: usize = 2;

/// A node on the way to a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TrieNode {
    /// Half bytes of the key before this node.
    pub(crate) start: usize,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// Leads past so many half bytes that all keys below share.
    Extension(usize),
    Branch,
    /// Holds a value behind so many half bytes.
    Leaf(usize),
}

fn nibble(key: &[u8], at: usize) -> Option<u8> {
    let byte = *key.get(at / 2)?;
    Some(if at.is_multiple_of(2) { byte >> 4 } else { byte & 0xf })
}

fn common_nibbles(a: &[u8], b: &[u8]) -> usize {
    let same = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    let half = match (a.get(same), b.get(same)) {
        (Some(a), Some(b)) => usize::from(a >> 4 == b >> 4),
        _ => 0,
    };
    2 * same + half
}

/// The first `depth` half bytes of a key, in bytes; an odd one is followed by zero.
pub(crate) fn prefix(key: &[u8], depth: usize) -> Vec<u8> {
    let mut prefix = key[..depth / 2].to_vec();
    if depth % 2 == 1 {
        prefix.push(key[depth / 2] & 0xf0);
    }
    prefix
}

/// The stored length of a part of a key, with its length prefix.
fn encoded(nibbles: usize) -> usize {
    4 + nibbles / 2 + 1
}

impl State {
    /// The nodes on the way to `key`, which need not exist, from the root down.
    pub(crate) fn trie_path(&self, key: &[u8]) -> Vec<TrieNode> {
        let mut path = Vec::new();
        let mut depth = 0;
        while let Some((first, last)) = self.span(key, depth) {
            if first == last {
                path.push(TrieNode { start: depth, kind: Kind::Leaf(2 * first.len() - depth) });
                return path;
            }
            let branch = common_nibbles(&first, &last);
            if branch > depth {
                path.push(TrieNode { start: depth, kind: Kind::Extension(branch - depth) });
            }
            if common_nibbles(key, &first) < branch {
                // The extension leads elsewhere: the way ends here.
                return path;
            }
            path.push(TrieNode { start: branch, kind: Kind::Branch });
            if nibble(key, branch).is_none() {
                return path;
            }
            depth = branch + 1;
        }
        path
    }

    /// The stored size of a node on the way to `key`, in bytes.
    pub(crate) fn trie_node_bytes(&self, key: &[u8], node: TrieNode) -> usize {
        NODE + match node.kind {
            Kind::Extension(nibbles) => encoded(nibbles) + HASH,
            Kind::Leaf(nibbles) => encoded(nibbles) + VALUE_REF,
            Kind::Branch => {
                let holds_value =
                    node.start.is_multiple_of(2) && self.map.contains_key(prefix(key, node.start).as_slice());
                let value = if holds_value { VALUE_REF } else { 0 };
                CHILD_MASK + HASH * self.children(key, node.start) + value
            }
        }
    }

    /// How many half bytes follow the first `depth` ones of `key` in the keys that share them.
    fn children(&self, key: &[u8], depth: usize) -> usize {
        let mut next = 0u8;
        let mut children = 0;
        while next < 16 {
            let mut from = prefix(key, depth);
            match from.last_mut().filter(|_| depth % 2 == 1) {
                Some(last) => *last |= next,
                None => from.push(next << 4),
            }
            let found = self.map.get_next(from.as_slice());
            let Some((found, _)) = found.filter(|(found, _)| common_nibbles(key, found) >= depth) else {
                break;
            };
            let Some(child) = nibble(found, depth) else { break };
            children += 1;
            next = child + 1;
        }
        children
    }

    /// The first and the last key that share the first `depth` half bytes of `key`.
    fn span(&self, key: &[u8], depth: usize) -> Option<(Bytes, Bytes)> {
        let low = prefix(key, depth);
        let mut high = low.clone();
        if let Some(last) = high.last_mut().filter(|_| depth % 2 == 1) {
            *last |= 0x0f;
        }
        // Keys are shorter than 2,200 bytes: this sorts behind all that share the prefix.
        high.resize(high.len() + 2_200, 0xff);
        let shares = |found: &Bytes| common_nibbles(key, found) >= depth;
        let (first, _) = self.map.get_next(low.as_slice()).filter(|(k, _)| shares(k))?;
        let (last, _) = self.map.get_prev(high.as_slice()).filter(|(k, _)| shares(k))?;
        Some((first.clone(), last.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(keys: &[&[u8]]) -> State {
        State::from_entries(keys.iter().map(|key| (key.to_vec(), vec![1])))
    }

    fn sizes(state: &State, key: &[u8]) -> Vec<usize> {
        state.trie_path(key).into_iter().map(|node| state.trie_node_bytes(key, node)).collect()
    }

    #[test]
    fn path_has_branches_extensions_and_the_leaf() {
        // Root: extension over 0x1, branch at half byte 1, then leaves.
        let two = state(&[&[0x12, 0x34], &[0x15, 0x34]]);
        let path = two.trie_path(&[0x12, 0x34]);
        let starts: Vec<usize> = path.iter().map(|node| node.start).collect();
        assert_eq!(starts, [0, 1, 2]);
        // A key that leaves the extension sees only the extension.
        assert_eq!(two.trie_path(&[0x22]).len(), 1);
        // A missing child ends at the branch.
        assert_eq!(two.trie_path(&[0x17]).len(), 2);
        // A key that is the prefix of another ends at its branch.
        let nested = state(&[&[0x12], &[0x12, 0x34]]);
        let path = nested.trie_path(&[0x12]);
        assert_eq!(path.last().map(|node| (node.start, node.kind)), Some((2, Kind::Branch)));
        assert_eq!(path.len(), 2);
        assert_eq!(nested.trie_path(&[0x12, 0x34]).len(), 3);
    }

    #[test]
    fn nodes_have_the_size_of_their_stored_form() {
        let two = state(&[&[0x12, 0x34], &[0x15, 0x34]]);
        // Tag and memory, the length and one byte of key, and the child's hash; tag and
        // memory, mask and two hashes; tag and memory, length and two bytes of key, and
        // the reference to the value.
        assert_eq!(sizes(&two, &[0x12, 0x34]), [9 + 5 + 32, 9 + 2 + 64, 9 + 6 + 36]);
        let nested = state(&[&[0x12], &[0x12, 0x34], &[0x12, 0x84], &[0x12, 0xf4]]);
        assert_eq!(sizes(&nested, &[0x12]), [9 + 6 + 32, 9 + 2 + 3 * 32 + 36]);
    }

    #[test]
    fn an_empty_state_has_no_nodes() {
        assert!(state(&[]).trie_path(&[1, 2]).is_empty());
    }
}
