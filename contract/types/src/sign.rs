use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{Network, NodeKey, Signature};

/// What a signature is for. The first byte string of everything that is signed, so that
/// a signature for one purpose never verifies for another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize)]
#[borsh(use_discriminant = true)]
#[repr(u8)]
pub enum Purpose {
    Registration = 1,
    ChannelState = 2,
    Items = 3,
    Request = 4,
    Receipt = 5,
    RequestFlush = 6,
    ReceiptFlush = 7,
    Invalid = 8,
    Draw = 9,
    NewTerms = 10,
    CooperativeClose = 11,
    SeverOrder = 12,
    InvalidFlush = 13,
}

/// First bytes of everything that is signed or hashed into an id.
const DOMAIN: &[u8; 14] = b"por/statement1";

/// Something a node signs. Its signed bytes are
/// `"por/statement1" ++ borsh(purpose: u8, network, statement)`.
pub trait Statement: BorshSerialize {
    const PURPOSE: Purpose;

    /// The exact bytes that are signed (protocol section 3, "Signed bytes").
    fn signed_bytes(&self, network: &Network) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        bytes.extend_from_slice(DOMAIN);
        // Writing to a Vec cannot fail and no statement holds an unserializable value.
        let written = borsh::to_writer(&mut bytes, &(Self::PURPOSE, network))
            .and_then(|()| borsh::to_writer(&mut bytes, self));
        debug_assert!(written.is_ok());
        bytes
    }

    /// SHA-256 of [`Statement::signed_bytes`].
    fn digest(&self, network: &Network) -> [u8; 32] {
        sha256(&self.signed_bytes(network))
    }
}

/// How signatures are checked: by the VM in the contract, by ed25519-dalek elsewhere.
pub trait Verify {
    /// True if `signature` is `key`'s ed25519 signature of `message`. Implementations refuse
    /// weak keys and non-canonical signatures where their backend lets them.
    fn verify(&self, key: &NodeKey, message: &[u8], signature: &Signature) -> bool;
}

/// A statement with one signature. Who must have signed is the statement's business.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Signed<T> {
    pub statement: T,
    pub signature: Signature,
}

impl<T: Statement> Signed<T> {
    pub fn verify(&self, network: &Network, key: &NodeKey, verify: &impl Verify) -> bool {
        verify.verify(key, &self.statement.signed_bytes(network), &self.signature)
    }
}

pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    Sha256::digest(bytes).into()
}
