use ed25519_dalek::{Signer, SigningKey, VerifyingKey};

use crate::{Network, NodeKey, Signature, Signed, Statement, Verify};

/// Host-side check with ed25519-dalek's strict rules (no small-order keys, canonical `s`).
#[derive(Clone, Copy, Debug, Default)]
pub struct DalekVerify;

impl Verify for DalekVerify {
    fn verify(&self, key: &NodeKey, message: &[u8], signature: &Signature) -> bool {
        let Ok(key) = VerifyingKey::from_bytes(&key.0) else {
            return false;
        };
        key.verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
    }
}

/// A node's signing key. Wiped from memory when dropped; never printed.
#[derive(Clone)]
pub struct NodeSecret(SigningKey);

impl NodeSecret {
    /// From the 32-byte ed25519 seed.
    pub fn from_seed(seed: &[u8; 32]) -> NodeSecret {
        NodeSecret(SigningKey::from_bytes(seed))
    }

    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    pub fn public(&self) -> NodeKey {
        NodeKey(self.0.verifying_key().to_bytes())
    }

    pub fn sign_bytes(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }

    pub fn sign<T: Statement>(&self, network: &Network, statement: T) -> Signed<T> {
        let signature = self.sign_bytes(&statement.signed_bytes(network));
        Signed { statement, signature }
    }
}

impl std::fmt::Debug for NodeSecret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "NodeSecret({})", self.public())
    }
}
