//! How deep a key lies in NEAR's trie.
//!
//! NEAR charges a contract for each trie node on the way to a key it writes, and
//! limits the size of the nodes and values a receipt may touch. The map has no
//! nodes, but they follow from the neighbours of a key: the trie branches exactly
//! where the keys that share a prefix differ in their next half byte.

use super::{Bytes, State};

/// A branch with all of its sixteen children, as the trie stores it.
const BRANCH_BYTES: usize = 16 * 32 + 11;

/// The way to a key: lengths, in half bytes, of the prefixes at which it branches.
pub(crate) struct TriePath {
    /// Where the nodes on the way branch, from the root down.
    pub(crate) branches: Vec<usize>,
    /// Nodes on the way: branches, extensions between them, and the leaf.
    pub(crate) nodes: u64,
}

impl TriePath {
    /// A bound on the stored size of one branch on the way, in bytes.
    pub(crate) const BRANCH_BYTES: usize = BRANCH_BYTES;
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

impl State {
    /// The way to `key`, which need not exist.
    pub(crate) fn trie_path(&self, key: &[u8]) -> TriePath {
        let mut path = TriePath { branches: Vec::new(), nodes: 0 };
        let mut depth = 0;
        while let Some((first, last)) = self.span(key, depth) {
            let branch = common_nibbles(&first, &last);
            if first == last || common_nibbles(key, &first) < branch {
                // A leaf, or an extension that leads elsewhere: the way ends here.
                path.nodes += 1;
                return path;
            }
            path.nodes += 1 + u64::from(branch > depth);
            path.branches.push(branch);
            if nibble(key, branch).is_none() {
                return path;
            }
            depth = branch + 1;
        }
        path
    }

    /// The first and the last key that share the first `depth` half bytes of `key`.
    fn span(&self, key: &[u8], depth: usize) -> Option<(Bytes, Bytes)> {
        let mut low = key[..depth / 2].to_vec();
        let mut high = low.clone();
        if depth % 2 == 1 {
            low.push(key[depth / 2] & 0xf0);
            high.push(key[depth / 2] | 0x0f);
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

    #[test]
    fn path_counts_branches_extensions_and_the_leaf() {
        // Root: extension over 0x1, branch at half byte 1, then leaves.
        let two = state(&[&[0x12, 0x34], &[0x15, 0x34]]);
        let path = two.trie_path(&[0x12, 0x34]);
        assert_eq!(path.branches, vec![1]);
        assert_eq!(path.nodes, 3);
        // A key that leaves the extension sees only the extension.
        assert_eq!(two.trie_path(&[0x22]).nodes, 1);
        // A missing child ends at the branch.
        assert_eq!(two.trie_path(&[0x17]).nodes, 2);
        // A key that is the prefix of another ends at its branch.
        let nested = state(&[&[0x12], &[0x12, 0x34]]);
        let path = nested.trie_path(&[0x12]);
        assert_eq!(path.branches, vec![2]);
        assert_eq!(path.nodes, 2);
        assert_eq!(nested.trie_path(&[0x12, 0x34]).nodes, 3);
    }

    #[test]
    fn an_empty_state_has_no_nodes() {
        assert_eq!(state(&[]).trie_path(&[1, 2]).nodes, 0);
    }
}
