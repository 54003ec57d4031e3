use near_sdk::env;
use por_types::interface::code;
use por_types::{Network, NodeKey, Signature, Signed, Statement, Verify};

use crate::fail::require;

/// ed25519 as the VM checks it. Weak keys are refused at registration.
struct VmVerify;

impl Verify for VmVerify {
    fn verify(&self, key: &NodeKey, message: &[u8], signature: &Signature) -> bool {
        env::ed25519_verify(&signature.0, message, &key.0)
    }
}

/// Stops unless `signature` is `key`'s signature of `statement` on this network.
pub fn check_signature<T: Statement>(network: &Network, key: &NodeKey, statement: &T, signature: &Signature) {
    check_message(network, key, &statement.signed_bytes(network), signature);
}

/// Stops unless `signature` is `key`'s signature of `message`, a statement on this network.
pub fn check_message(network: &Network, key: &NodeKey, message: &[u8], signature: &Signature) {
    require!(
        VmVerify.verify(key, message, signature),
        code::SIGNATURE,
        "not {key}'s signature of this statement for {} on {}; sign exactly these values",
        network.contract,
        network.chain_id
    );
}

pub fn check_signed<T: Statement>(network: &Network, key: &NodeKey, signed: &Signed<T>) {
    check_signature(network, key, &signed.statement, &signed.signature);
}
