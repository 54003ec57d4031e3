use borsh::{BorshDeserialize, BorshSerialize};
use near_account_id::AccountId;
use serde::{Deserialize, Serialize};

use crate::merkle::FlushOf;
use crate::{
    AmountError, FlushProof, Hash, Hop, MAX_HOPS, Network, NodeKey, Purpose, RequestId, RouteError,
    Statement, Verify, Yocto,
};

/// Longest app name, bytes.
pub const MAX_APP_LEN: usize = 64;

/// Proof of possession of a node key: the key signs the account that registers it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct RegistrationProof {
    pub account: AccountId,
    pub node_key: NodeKey,
}

impl Statement for RegistrationProof {
    const PURPOSE: Purpose = Purpose::Registration;
}

/// Everything that a request's path must agree on, signed by its author (protocol section 4).
/// The request id is the hash of these bytes.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct RequestHead {
    pub author: NodeKey,
    /// Random; makes otherwise equal requests different.
    pub nonce: u64,
    pub destination: NodeKey,
    /// Name of the app at the destination, at most [`MAX_APP_LEN`] bytes.
    pub app: String,
    /// BLAKE3 of the body.
    pub body_hash: Hash,
    /// Bytes of the body.
    pub body_len: u64,
    /// Most bytes that the response may have.
    pub response_limit: u64,
    /// Block time, milliseconds since 1970, from which on no node acknowledges it.
    pub expires_ms: u64,
    /// Version of the graph that the route was computed on.
    pub graph_version: u64,
    /// What the destination's app earns, above the prices of the edges.
    pub server_price: Yocto,
    /// Edges from the author to the destination.
    pub route: Vec<Hop>,
}

impl Statement for RequestHead {
    const PURPOSE: Purpose = Purpose::Request;
}

impl FlushOf for RequestHead {
    const FLUSH_PURPOSE: Purpose = Purpose::RequestFlush;
}

impl RequestHead {
    pub fn id(&self, network: &Network) -> RequestId {
        RequestId(self.digest(network))
    }

    /// What the sender of edge `index` pays over it: that edge's price, those of all later edges
    /// and the server's price.
    pub fn payment_at(&self, index: usize) -> Result<Yocto, AmountError> {
        let edges = self.route.get(index..).unwrap_or_default();
        Yocto::checked_sum(edges.iter().map(|hop| hop.price))?.checked_add(self.server_price)
    }

    /// Time within which the sender of edge `index` expects the response, milliseconds from
    /// its sending: the allowances of that edge and all after it (protocol section 5).
    pub fn bound_ms_at(&self, index: usize) -> u64 {
        let edges = self.route.get(index..).unwrap_or_default();
        edges.iter().fold(0, |sum, hop| hop.allowance_ms.saturating_add(sum))
    }

    /// Checks that need nothing but these bytes.
    pub fn validate(&self) -> Result<(), InvalidReason> {
        if self.app.is_empty() || self.app.len() > MAX_APP_LEN {
            return Err(InvalidReason::App);
        }
        self.validate_route().map_err(|_| InvalidReason::Route)
    }

    fn validate_route(&self) -> Result<(), RouteError> {
        if self.route.len() > MAX_HOPS {
            return Err(RouteError::TooLong);
        }
        let last = self.route.last().ok_or(RouteError::Empty)?;
        if last.to != self.destination {
            return Err(RouteError::WrongEnd);
        }
        for (i, hop) in self.route.iter().enumerate() {
            if hop.to == self.author || self.route[..i].iter().any(|earlier| earlier.to == hop.to) {
                return Err(RouteError::Loop);
            }
        }
        self.payment_at(0)?;
        Ok(())
    }
}

/// A request with its author's signature.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct SignedRequest {
    pub head: RequestHead,
    pub proof: FlushProof,
}

impl SignedRequest {
    pub fn verify(&self, network: &Network, verify: &impl Verify) -> bool {
        self.proof.verify(network, &self.head.author, &self.head, verify)
    }
}

/// What the destination signs for a response. Verifiable by a contract (SHA-256 and ed25519
/// only, besides the body's BLAKE3).
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct ResponseReceipt {
    pub request: RequestId,
    /// Bytes of the body, at most the request's response limit.
    pub body_len: u64,
    /// BLAKE3 of the body.
    pub body_hash: Hash,
}

impl Statement for ResponseReceipt {
    const PURPOSE: Purpose = Purpose::Receipt;
}

impl FlushOf for ResponseReceipt {
    const FLUSH_PURPOSE: Purpose = Purpose::ReceiptFlush;
}

/// Why a request is invalid by its author's own signed bytes (protocol section 1).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum InvalidReason {
    /// App name empty or too long.
    App,
    /// Route empty, too long, looping, or not ending at the destination.
    Route,
    /// A hop names a channel that does not join the previous node to the hop's node in the
    /// named version of the graph.
    Channel,
    /// A hop's price is below what the channel's terms ask.
    Underpaid,
    /// A hop's allowance is below what the channel's terms promise.
    Allowance,
    /// The body does not have the signed length or hash.
    Body,
    /// The server's price is below what the app asks.
    ServerPrice,
    /// The destination declines; counts from nobody else.
    Refused,
}

/// What a node signs that rejects an invalid request, or declines one that is for it.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Invalid {
    pub request: RequestId,
    pub signer: NodeKey,
    pub reason: InvalidReason,
}

impl Statement for Invalid {
    const PURPOSE: Purpose = Purpose::Invalid;
}

impl FlushOf for Invalid {
    const FLUSH_PURPOSE: Purpose = Purpose::InvalidFlush;
}

/// A rejection with its signer's flush proof; travels to the author with a refund.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct SignedInvalid {
    pub statement: Invalid,
    pub proof: FlushProof,
}

impl SignedInvalid {
    /// Checks that the node which the statement names has signed it. Whether its word counts, or what it
    /// says is so, is for the caller to judge.
    pub fn verify(&self, network: &Network, verify: &impl Verify) -> bool {
        self.proof.verify(network, &self.statement.signer, &self.statement, verify)
    }
}
