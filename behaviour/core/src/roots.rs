//! Flush signatures that were checked already: one signature per flush and hop.

use std::collections::{HashSet, VecDeque};

use por_types::{
    DalekVerify, FlushProof, FlushRoot, Network, NodeKey, Purpose, RequestHead, ResponseReceipt, Signature,
    Statement, Verify, leaf_hash,
};

/// Most roots remembered.
const CAPACITY: usize = 4096;

type Entry = (NodeKey, u8, [u8; 32], u32, Signature);

#[derive(Clone, Debug, Default)]
pub(crate) struct Roots {
    known: HashSet<Entry>,
    order: VecDeque<Entry>,
}

impl Roots {
    /// Checks that `author` signed the flush in which the statement with these signed bytes is.
    pub fn request(
        &mut self,
        network: &Network,
        author: &NodeKey,
        signed: &[u8],
        proof: &FlushProof,
    ) -> bool {
        self.check(author, Purpose::RequestFlush, signed, proof, |root, leaves| {
            FlushRoot::<RequestHead>::new(root, leaves).signed_bytes(network)
        })
    }

    /// The same for a destination's receipt.
    pub fn receipt(
        &mut self,
        network: &Network,
        destination: &NodeKey,
        receipt: &ResponseReceipt,
        proof: &FlushProof,
    ) -> bool {
        self.check(
            destination,
            Purpose::ReceiptFlush,
            &receipt.signed_bytes(network),
            proof,
            |root, leaves| FlushRoot::<ResponseReceipt>::new(root, leaves).signed_bytes(network),
        )
    }

    fn check(
        &mut self,
        signer: &NodeKey,
        purpose: Purpose,
        signed: &[u8],
        proof: &FlushProof,
        root_bytes: impl Fn(por_types::Hash, u32) -> Vec<u8>,
    ) -> bool {
        let Some(root) = proof.root_for(leaf_hash(signed)) else {
            return false;
        };
        let entry = (*signer, purpose as u8, root.0, proof.leaves, proof.signature);
        if self.known.contains(&entry) {
            return true;
        }
        if !DalekVerify.verify(signer, &root_bytes(root, proof.leaves), &proof.signature) {
            return false;
        }
        self.remember(entry);
        true
    }

    fn remember(&mut self, entry: Entry) {
        if self.order.len() >= CAPACITY
            && let Some(oldest) = self.order.pop_front()
        {
            self.known.remove(&oldest);
        }
        self.known.insert(entry);
        self.order.push_back(entry);
    }
}
