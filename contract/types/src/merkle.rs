//! One signature per flush: a Merkle tree (SHA-256) over what the flush signs
//! (protocol section 4). A flush of one has an empty path.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::{Hash, Network, NodeKey, Purpose, Signature, Statement, Verify, sha256};

/// Longest Merkle path accepted, in levels: flushes of at most 2^16 statements.
pub const MAX_FLUSH_DEPTH: usize = 16;

/// Leaf of a flush tree: `sha256(0x00 ++ statement bytes)`, with the statement's signed
/// bytes, so the leaf commits to network and purpose.
pub fn leaf_hash(statement_bytes: &[u8]) -> Hash {
    let mut bytes = Vec::with_capacity(statement_bytes.len() + 1);
    bytes.push(0);
    bytes.extend_from_slice(statement_bytes);
    Hash(sha256(&bytes))
}

/// Inner node: `sha256(0x01 ++ left ++ right)`.
fn node_hash(left: &Hash, right: &Hash) -> Hash {
    let mut bytes = [0u8; 65];
    bytes[0] = 1;
    bytes[1..33].copy_from_slice(&left.0);
    bytes[33..].copy_from_slice(&right.0);
    Hash(sha256(&bytes))
}

/// What is signed for a flush: the root, with the number of leaves.
#[derive(Clone, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
pub struct FlushRoot<P> {
    pub root: Hash,
    pub leaves: u32,
    #[borsh(skip)]
    purpose: std::marker::PhantomData<P>,
}

/// Kind of statement that a flush tree holds.
pub trait FlushOf {
    const FLUSH_PURPOSE: Purpose;
}

impl<P: FlushOf> Statement for FlushRoot<P> {
    const PURPOSE: Purpose = P::FLUSH_PURPOSE;
}

impl<P> FlushRoot<P> {
    pub fn new(root: Hash, leaves: u32) -> Self {
        FlushRoot { root, leaves, purpose: std::marker::PhantomData }
    }
}

/// Proof that a statement was part of a signed flush.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct FlushProof {
    /// Position of the statement in the flush, from 0.
    pub index: u32,
    /// Number of statements in the flush, at least 1, at most 2^[`MAX_FLUSH_DEPTH`].
    pub leaves: u32,
    /// Sibling hashes from the leaf to the root; levels without a sibling are left out.
    pub path: Vec<Hash>,
    pub signature: Signature,
}

impl FlushProof {
    /// The root that this proof leads to, or `None` if the path does not have the shape that
    /// `index` and `leaves` prescribe.
    pub fn root_for(&self, leaf: Hash) -> Option<Hash> {
        if self.leaves == 0 || self.index >= self.leaves || self.path.len() > MAX_FLUSH_DEPTH {
            return None;
        }
        if self.leaves > 1 << MAX_FLUSH_DEPTH {
            return None;
        }
        let mut hash = leaf;
        let mut index = self.index;
        let mut width = self.leaves;
        let mut path = self.path.iter();
        while width > 1 {
            if index % 2 == 1 {
                hash = node_hash(path.next()?, &hash);
            } else if index + 1 < width {
                hash = node_hash(&hash, path.next()?);
            }
            index /= 2;
            width = width.div_ceil(2);
        }
        path.next().is_none().then_some(hash)
    }

    /// Checks shape, path and signature. Callers that see many proofs of one flush should
    /// remember verified roots and use [`FlushProof::root_for`].
    pub fn verify<S: Statement + FlushOf>(
        &self,
        network: &Network,
        signer: &NodeKey,
        statement: &S,
        verify: &impl Verify,
    ) -> bool {
        let Some(root) = self.root_for(leaf_hash(&statement.signed_bytes(network))) else {
            return false;
        };
        let signed = FlushRoot::<S>::new(root, self.leaves).signed_bytes(network);
        verify.verify(signer, &signed, &self.signature)
    }
}

/// Tree over the leaves of one flush; yields the root to sign and each leaf's path.
#[derive(Clone, Debug)]
pub struct FlushTree {
    levels: Vec<Vec<Hash>>,
}

impl FlushTree {
    /// `None` for no leaves or more than 2^[`MAX_FLUSH_DEPTH`].
    pub fn new(leaves: Vec<Hash>) -> Option<FlushTree> {
        if leaves.is_empty() || leaves.len() > 1 << MAX_FLUSH_DEPTH {
            return None;
        }
        let mut levels = vec![leaves];
        while let Some(last) = levels.last().filter(|level| level.len() > 1) {
            let next = last
                .chunks(2)
                .map(|pair| match pair {
                    [left, right] => node_hash(left, right),
                    rest => rest[0],
                })
                .collect();
            levels.push(next);
        }
        Some(FlushTree { levels })
    }

    pub fn leaves(&self) -> u32 {
        self.levels[0].len() as u32
    }

    pub fn root(&self) -> Hash {
        self.levels[self.levels.len() - 1][0]
    }

    /// The proof of leaf `index` under `signature` of the root; `None` past the last leaf.
    pub fn proof(&self, index: u32, signature: Signature) -> Option<FlushProof> {
        if index >= self.leaves() {
            return None;
        }
        let mut position = index as usize;
        let mut path = Vec::with_capacity(self.levels.len());
        for level in &self.levels[..self.levels.len() - 1] {
            if let Some(sibling) = level.get(position ^ 1) {
                path.push(*sibling);
            }
            position /= 2;
        }
        Some(FlushProof { index, leaves: self.leaves(), path, signature })
    }
}
