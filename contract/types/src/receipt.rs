//! The verifier of response receipts, for any NEAR contract and any other third party
//! (protocol sections 1 and 4).
//!
//! A destination signs one root per flush; each response's receipt carries the Merkle path to
//! it. [`SignedReceipt::verify`] checks that a node answered a request, with one ed25519
//! signature and at most [`MAX_FLUSH_DEPTH`](crate::MAX_FLUSH_DEPTH) hashes, and
//! [`SignedReceipt::verify_body`] that it answered with these very bytes. The signature check is
//! injected, so that a contract uses the chain's own:
//!
//! ```
//! use por_types::{NodeKey, Signature, Verify};
//! # mod env { pub fn ed25519_verify(_: &[u8; 64], _: &[u8], _: &[u8; 32]) -> bool { true } }
//!
//! /// ed25519 as NEAR's VM checks it.
//! struct Vm;
//!
//! impl Verify for Vm {
//!     fn verify(&self, key: &NodeKey, message: &[u8], signature: &Signature) -> bool {
//!         env::ed25519_verify(&signature.0, message, &key.0)
//!     }
//! }
//! ```
//!
//! What a receipt shows: the holder of the node key signed that its answer to the request has
//! this length and hash. Not that the author received it, nor that the answer is any good: a
//! contract that pays for the delivery asks for the body, so that paying publishes it.

use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::{FlushProof, Network, NodeKey, RequestHead, RequestId, ResponseReceipt, Verify};

/// A destination-signed receipt with its flush proof: shows a third party what was answered.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct SignedReceipt {
    pub receipt: ResponseReceipt,
    pub proof: FlushProof,
}

/// Why a receipt does not show what it should.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReceiptError {
    #[error("the receipt is for another request")]
    OtherRequest,
    #[error("anybody can sign for this node key")]
    WeakKey,
    #[error(
        "the node did not sign this receipt for this network, or the path does not lead to what it signed"
    )]
    Signature,
    #[error("the response is longer than the request allows")]
    TooLong,
    #[error("the body does not have the signed length")]
    BodyLength,
    #[error("the body does not have the signed hash")]
    BodyHash,
}

impl SignedReceipt {
    /// Checks that node `server` answered `request` on `network`.
    ///
    /// The id says nothing about who was asked: the caller knows that, or checks the request's
    /// head with [`SignedReceipt::verify_for`].
    ///
    /// # Errors
    /// [`ReceiptError::OtherRequest`], [`ReceiptError::WeakKey`] or [`ReceiptError::Signature`].
    pub fn verify(
        &self,
        network: &Network,
        server: &NodeKey,
        request: &RequestId,
        verify: &impl Verify,
    ) -> Result<(), ReceiptError> {
        if self.receipt.request != *request {
            return Err(ReceiptError::OtherRequest);
        }
        if server.is_weak() {
            return Err(ReceiptError::WeakKey);
        }
        match self.proof.verify(network, server, &self.receipt, verify) {
            true => Ok(()),
            false => Err(ReceiptError::Signature),
        }
    }

    /// Checks that the request with this head was answered by the destination that it names,
    /// within the response limit that its author signed.
    ///
    /// # Errors
    /// As [`SignedReceipt::verify`], and [`ReceiptError::TooLong`].
    pub fn verify_for(
        &self,
        network: &Network,
        head: &RequestHead,
        verify: &impl Verify,
    ) -> Result<(), ReceiptError> {
        self.verify(network, &head.destination, &head.id(network), verify)?;
        if self.receipt.body_len > head.response_limit {
            return Err(ReceiptError::TooLong);
        }
        Ok(())
    }

    /// Checks that `body` is the response that the receipt names: its length and its BLAKE3
    /// hash. In a contract this costs about 0.2 Tgas per kB, with the body's way there.
    ///
    /// # Errors
    /// [`ReceiptError::BodyLength`] or [`ReceiptError::BodyHash`].
    #[cfg(feature = "body")]
    pub fn verify_body(&self, body: &[u8]) -> Result<(), ReceiptError> {
        if body.len() as u64 != self.receipt.body_len {
            return Err(ReceiptError::BodyLength);
        }
        // Not secret, so a plain comparison will do.
        match blake3::hash(body).as_bytes() == &self.receipt.body_hash.0 {
            true => Ok(()),
            false => Err(ReceiptError::BodyHash),
        }
    }
}
