//! Flush signatures that were checked already: one signature per flush and hop, and one hash or two
//! per statement. Siblings on a path that led to a signed root are as good as signed themselves: the
//! statements next to it need not hash their way up again.

use std::collections::VecDeque;

use por_types::{
    DalekVerify, FlushProof, FlushRoot, Hash, Invalid, Network, NodeKey, Purpose, RequestHead,
    ResponseReceipt, Signature, Statement, Verify, sha256,
};

/// Most flushes remembered: those whose statements are arriving.
const CAPACITY: usize = 64;

/// Leaves of the largest flush of which the tree is remembered; of larger ones only the root is.
const MAX_LEAVES: u32 = 2048;

/// Levels of its tree below the root.
const MAX_LEVELS: usize = MAX_LEAVES.ilog2() as usize;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Name {
    signer: NodeKey,
    purpose: u8,
    leaves: u32,
    signature: Signature,
}

/// A flush whose root is known to be signed.
#[derive(Clone, Debug)]
struct Flush {
    name: Name,
    root: Hash,
    /// By level from the leaves up, the nodes that are known to lead to the root.
    nodes: Vec<Vec<Option<Hash>>>,
}

impl Flush {
    fn new(name: Name, root: Hash) -> Flush {
        let mut nodes = Vec::new();
        let mut width = if name.leaves <= MAX_LEAVES { name.leaves } else { 1 };
        while width > 1 {
            nodes.push(vec![None; width as usize]);
            width = width.div_ceil(2);
        }
        Flush { name, root, nodes }
    }

    fn node(&self, level: usize, index: usize) -> Option<&Hash> {
        self.nodes.get(level)?.get(index)?.as_ref()
    }

    /// Whether a path leads to the root: `None` if not enough is known to say without hashing it all.
    /// If it does, its nodes are known from now on.
    fn holds(&mut self, leaf: Hash, proof: &FlushProof) -> Option<bool> {
        let (mut index, mut known, mut hash) = (proof.index as usize, false, leaf);
        let mut path = proof.path.iter();
        // What was hashed on the way, from the leaf up.
        let (mut made, mut levels) = ([leaf; MAX_LEVELS], 0);
        for (level, nodes) in self.nodes.iter().enumerate() {
            // Below the first known node the hash is made from the path, above it the path has to agree.
            known = known || self.node(level, index) == Some(&hash);
            let sibling = match nodes.get(index ^ 1) {
                None => None,
                Some(_) => Some(path.next()?),
            };
            if !known {
                (*made.get_mut(level)?, levels) = (hash, level + 1);
            }
            if let Some(sibling) = sibling {
                if known && self.node(level, index ^ 1)? != sibling {
                    return Some(false);
                }
                if !known {
                    hash = parent(index, &hash, sibling);
                }
            }
            index /= 2;
        }
        let holds = path.next().is_none() && (known || hash == self.root);
        if holds {
            self.enter(&made[..levels], proof);
        }
        Some(holds)
    }

    /// Enters the lowest nodes of a path that leads to the root, with their siblings; those above are known.
    fn enter(&mut self, made: &[Hash], proof: &FlushProof) {
        let (mut index, mut path) = (proof.index as usize, proof.path.iter());
        for (nodes, hash) in self.nodes.iter_mut().zip(made) {
            if let Some(node) = nodes.get_mut(index) {
                *node = Some(*hash);
            }
            if let Some(node) = nodes.get_mut(index ^ 1) {
                *node = path.next().copied();
            }
            index /= 2;
        }
    }

    /// Enters the nodes of a path that leads to the root.
    fn learn(&mut self, leaf: Hash, proof: &FlushProof) {
        let (mut index, mut hash) = (proof.index as usize, leaf);
        let mut path = proof.path.iter();
        for nodes in &mut self.nodes {
            let seen = nodes.get(index).is_some_and(Option::is_some);
            if let Some(node) = nodes.get_mut(index) {
                *node = Some(hash);
            }
            if let Some(node) = nodes.get_mut(index ^ 1) {
                let Some(sibling) = path.next() else { return };
                let both = seen && node.is_some();
                *node = Some(*sibling);
                if both {
                    // What is above was entered with them.
                    return;
                }
                hash = parent(index, &hash, sibling);
            }
            index /= 2;
        }
    }
}

/// Inner node of a flush tree over the node at `index` of its level and that one's sibling
/// (layout: [`por_types::FlushTree`]).
fn parent(index: usize, hash: &Hash, sibling: &Hash) -> Hash {
    let (left, right) = if index % 2 == 1 { (sibling, hash) } else { (hash, sibling) };
    let mut bytes = [1; 65];
    bytes[1..33].copy_from_slice(&left.0);
    bytes[33..].copy_from_slice(&right.0);
    Hash(sha256(&bytes))
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Roots {
    /// The latest used last.
    flushes: VecDeque<Flush>,
}

impl Roots {
    /// Checks that `author` signed the flush of requests in which this leaf is.
    pub fn request(&mut self, network: &Network, author: &NodeKey, leaf: Hash, proof: &FlushProof) -> bool {
        self.check(author, Purpose::RequestFlush, leaf, proof, |root, leaves| {
            FlushRoot::<RequestHead>::new(root, leaves).signed_bytes(network)
        })
    }

    /// The same for a destination's receipt.
    pub fn receipt(
        &mut self,
        network: &Network,
        destination: &NodeKey,
        leaf: Hash,
        proof: &FlushProof,
    ) -> bool {
        self.check(destination, Purpose::ReceiptFlush, leaf, proof, |root, leaves| {
            FlushRoot::<ResponseReceipt>::new(root, leaves).signed_bytes(network)
        })
    }

    /// The same for a rejection.
    pub fn invalid(&mut self, network: &Network, signer: &NodeKey, leaf: Hash, proof: &FlushProof) -> bool {
        self.check(signer, Purpose::InvalidFlush, leaf, proof, |root, leaves| {
            FlushRoot::<Invalid>::new(root, leaves).signed_bytes(network)
        })
    }

    fn check(
        &mut self,
        signer: &NodeKey,
        purpose: Purpose,
        leaf: Hash,
        proof: &FlushProof,
        root_bytes: impl Fn(Hash, u32) -> Vec<u8>,
    ) -> bool {
        let name = Name {
            signer: *signer,
            purpose: purpose as u8,
            leaves: proof.leaves,
            signature: proof.signature,
        };
        let position = self.flushes.iter().rposition(|flush| flush.name == name);
        if let Some(flush) = position.and_then(|position| self.flushes.get_mut(position))
            && proof.index < proof.leaves
            && flush.holds(leaf, proof) == Some(true)
        {
            return true;
        }
        let Some(root) = proof.root_for(leaf) else {
            return false;
        };
        if let Some(flush) = position.and_then(|position| self.flushes.get_mut(position))
            && flush.root == root
        {
            flush.learn(leaf, proof);
            return true;
        }
        if !DalekVerify.verify(signer, &root_bytes(root, proof.leaves), &proof.signature) {
            return false;
        }
        if self.flushes.len() >= CAPACITY {
            self.flushes.pop_front();
        }
        let mut flush = Flush::new(name, root);
        flush.learn(leaf, proof);
        self.flushes.push_back(flush);
        true
    }
}

#[cfg(test)]
mod tests {
    use por_types::{FlushTree, NodeSecret, RequestId, leaf_hash};
    use proptest::prelude::*;

    use super::*;

    fn network() -> Network {
        Network { chain_id: "localnet".into(), contract: "por.test.near".parse().expect("an account") }
    }

    fn flush(secret: &NodeSecret, leaves: u32, seed: u8) -> Vec<(ResponseReceipt, FlushProof)> {
        let network = network();
        let receipt = |index: u32| {
            let mut request = [seed; 32];
            request[..4].copy_from_slice(&index.to_le_bytes());
            ResponseReceipt { request: RequestId(request), body_len: 1, body_hash: Hash([seed; 32]) }
        };
        let receipts: Vec<_> = (0..leaves).map(receipt).collect();
        let hashes = receipts.iter().map(|receipt| leaf_hash(&receipt.signed_bytes(&network))).collect();
        let tree = FlushTree::new(hashes).expect("leaves");
        let root = FlushRoot::<ResponseReceipt>::new(tree.root(), leaves);
        let signature = secret.sign(&network, root).signature;
        let proofs = (0..leaves).filter_map(|index| tree.proof(index, signature));
        receipts.into_iter().zip(proofs).collect()
    }

    proptest! {
        /// In any order, with anything bent in between, the answer is that of a check by itself.
        #[test]
        fn what_is_remembered_changes_no_answer(
            sizes in prop::collection::vec(1u32..40, 1..4),
            picks in prop::collection::vec((any::<usize>(), any::<usize>(), 0u8..6, any::<usize>()), 1..80),
        ) {
            let secret = NodeSecret::from_seed(&[7; 32]);
            let flushes: Vec<_> =
                sizes.iter().zip(1..).map(|(size, seed)| flush(&secret, *size, seed)).collect();
            let mut roots = Roots::default();
            for (which, index, bend, place) in picks {
                let flush = &flushes[which % flushes.len()];
                let (mut receipt, mut proof) = flush[index % flush.len()].clone();
                let place = place % proof.path.len().max(1);
                match bend {
                    0 => receipt.body_len = 2,
                    1 if !proof.path.is_empty() => proof.path[place].0[3] ^= 1,
                    2 if !proof.path.is_empty() => drop(proof.path.remove(place)),
                    3 => proof.index = proof.index.wrapping_add(1),
                    _ => {}
                }
                let alone = proof.verify(&network(), &secret.public(), &receipt, &DalekVerify);
                let leaf = leaf_hash(&receipt.signed_bytes(&network()));
                let found = roots.receipt(&network(), &secret.public(), leaf, &proof);
                prop_assert_eq!(found, alone);
            }
        }
    }
}
