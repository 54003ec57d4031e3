//! What peers sign.

use por_core::types::{
    self, ChannelId, ChannelState, FlushOf, FlushProof, FlushRoot, FlushTree, Hash, NodeSecret, Signed,
    Statement, Totals, Yocto, leaf_hash,
};

use super::network;

pub fn state(
    signer: &NodeSecret,
    channel: ChannelId,
    sent_a: Yocto,
    sent_b: Yocto,
    items: Hash,
) -> Signed<ChannelState> {
    signer.sign(&network(), ChannelState { channel, totals: Totals { sent_a, sent_b }, items })
}

/// Signature of a flush of one.
pub fn sign_one<S: Statement + FlushOf>(signer: &NodeSecret, statement: &S) -> FlushProof {
    let tree = FlushTree::new(vec![leaf_hash(&statement.signed_bytes(&network()))]).unwrap();
    let root = FlushRoot::<S>::new(tree.root(), tree.leaves());
    tree.proof(0, signer.sign(&network(), root).signature).unwrap()
}

/// What `signer` rejects in a flush of its own.
pub fn signed_invalid(signer: &NodeSecret, statement: types::Invalid) -> types::SignedInvalid {
    types::SignedInvalid { proof: sign_one(signer, &statement), statement }
}
