//! Watchtowers: guards for channels of nodes that are away (protocol section 3, "On chain", and
//! section 9, "settle with an old state").
//!
//! What a node hands to a tower is signed: the latest payment of each counterparty, orders to sever,
//! and, for the node itself should it lose its disk, its own latest state. So a tower cannot take or
//! move anything, and needs nobody's trust to be used or to serve: it checks every signature, brings
//! to the contract what the contract does not know, and pays gas for it with an account of its own.
//! A tower that does nothing does no more harm than none.
//!
//! Nothing is encrypted to hide it from the tower: it has to read what it brings to the contract, and
//! learns the totals of the channels it guards, nothing of requests or routes. On the way everything
//! is encrypted by the connection.
//!
//! [`Tower`] is for programs that have their own ways to it; `por watch` is [`service`], which nodes
//! reach with the protocol of [`wire`] when `p2p.watchtowers` names it.

mod client;
mod restore;
pub mod service;
mod store;
#[cfg(test)]
mod tests;
mod tower;
pub mod wire;

use por_types::interface::SubmitStateArgs;
use por_types::{ChannelId, SeverOrder, Signed};
use serde::{Deserialize, Serialize};

use crate::chain::ChainError;

pub(crate) use client::keep_handing_over;
pub(crate) use restore::check;
pub use restore::{RestoredChannel, restore};
pub use store::WatchStoreError;
pub use tower::{Round, Tower};

/// Most channels that a tower guards: each costs less than 1 KB.
pub const MAX_GUARDED: usize = 4096;

/// Most channels of one node that `por watch` guards.
pub const MAX_PER_NODE: usize = 512;

/// What a node hands to a tower. Replaces nothing: of each channel and signer the highest total
/// counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// Payments of counterparties, ready for the contract.
    #[serde(default)]
    pub states: Vec<SubmitStateArgs>,
    /// Orders that somebody signed and that are to reach the contract, whoever withholds them.
    #[serde(default)]
    pub orders: Vec<Signed<SeverOrder>>,
    /// The node's own latest states: never brought to the contract, only given back.
    #[serde(default)]
    pub own: Vec<SubmitStateArgs>,
}

impl Handed {
    pub fn is_empty(&self) -> bool {
        self.states.is_empty() && self.orders.is_empty() && self.own.is_empty()
    }
}

#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("channel {0} is not on chain; hand over states of channels that are open")]
    Unknown(ChannelId),
    #[error("a statement about channel {0} is not signed by its side; do not trust who handed it over")]
    Forged(ChannelId),
    #[error("channel {0} is not the sender's; hand over states of your own channels")]
    NotYours(ChannelId),
    #[error("{MAX_GUARDED} channels are guarded already, or {MAX_PER_NODE} of yours; use another tower")]
    Full,
}
