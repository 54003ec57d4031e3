use borsh::{BorshDeserialize, BorshSerialize};
use near_account_id::AccountId;
use serde::{Deserialize, Serialize};

/// Longest chain id, bytes.
pub const MAX_CHAIN_ID_LEN: usize = 32;

/// Which deployment a statement belongs to: a chain and the contract on it.
///
/// Part of every signed byte string, so that nothing signed for one network can be
/// replayed on another (protocol section 3).
#[derive(
    Clone,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    BorshSerialize,
    BorshDeserialize,
    Serialize,
    Deserialize,
)]
pub struct Network {
    /// NEAR chain id: `mainnet`, `testnet`, `localnet` ...; at most [`MAX_CHAIN_ID_LEN`] bytes.
    pub chain_id: String,
    pub contract: AccountId,
}
