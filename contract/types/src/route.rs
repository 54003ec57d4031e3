use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::{AmountError, ChannelId, NodeKey, Yocto};

/// Most edges of a route.
pub const MAX_HOPS: usize = 20;

/// One edge of a signed route.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Hop {
    pub channel: ChannelId,
    /// The downstream end of the edge.
    pub to: NodeKey,
    /// What `to` keeps of this message: the price of the edge, at least what its terms ask.
    pub price: Yocto,
    /// Time this edge may use, milliseconds (protocol section 5).
    pub allowance_ms: u64,
}

/// Why a route is malformed; provable from the author's bytes alone.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RouteError {
    #[error("route is empty")]
    Empty,
    #[error("route has more than {MAX_HOPS} edges")]
    TooLong,
    #[error("route visits a node twice")]
    Loop,
    #[error("route does not end at the destination")]
    WrongEnd,
    #[error("prices of the route exceed 2^128 - 1")]
    Overflow,
}

impl From<AmountError> for RouteError {
    fn from(_: AmountError) -> Self {
        RouteError::Overflow
    }
}
