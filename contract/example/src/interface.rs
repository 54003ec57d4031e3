//! What clients of the bounty contract use: methods, answers, error codes.

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::{AccountId, NodeKey, RequestId, Yocto};
use serde::{Deserialize, Serialize};

/// Method names.
pub mod method {
    pub const NEW: &str = "new";
    pub const OPEN: &str = "open";
    pub const CANCEL: &str = "cancel";
    pub const ACCEPT: &str = "accept";
    pub const RELEASE: &str = "release";
    pub const CLAIM: &str = "claim";
    pub const SETTLE: &str = "settle";
    pub const COLLECT: &str = "collect";

    pub const BOUNTY: &str = "bounty";
    pub const CONFIG: &str = "config";
}

/// First word of every panic message of the contract, before `: ` and what to do about it.
pub mod code {
    /// An argument is malformed or out of range.
    pub const ARGUMENT: &str = "E_ARGUMENT";
    /// The attached deposit is not what the call asks for.
    pub const DEPOSIT: &str = "E_DEPOSIT";
    /// No bounty has this number (any more).
    pub const NO_BOUNTY: &str = "E_NO_BOUNTY";
    /// The caller is not the one who may do this.
    pub const NOT_ALLOWED: &str = "E_NOT_ALLOWED";
    /// The bounty is not in the state that this call needs.
    pub const STATE: &str = "E_STATE";
    /// Wait: the message says until when.
    pub const TOO_EARLY: &str = "E_TOO_EARLY";
    /// The time for an answer is over.
    pub const TOO_LATE: &str = "E_TOO_LATE";
    /// The receipt or the body does not show the response.
    pub const RECEIPT: &str = "E_RECEIPT";
    /// Nothing is owed.
    pub const NOTHING_OWED: &str = "E_NOTHING_OWED";
    /// A sum does not fit; state is unchanged.
    pub const OVERFLOW: &str = "E_OVERFLOW";
}

/// Held for a bounty's record and returned to the client with the last payment: 10 millinear,
/// the stake of 1,000 bytes.
pub const STORAGE: Yocto = Yocto(10_000_000_000_000_000_000_000);
/// The time for an answer is between this, in milliseconds of block time, ...
pub const MIN_ANSWER_MS: u64 = 10_000;
/// ... and this.
pub const MAX_ANSWER_MS: u64 = 30 * 24 * 3_600_000;
/// If the Proof of Response contract has not answered after this long, an acceptance can be
/// released.
pub const CHECK_TIMEOUT_MS: u64 = 600_000;
/// If its answer has not been final for this long after the deadline, everybody gets their own
/// back.
pub const GIVE_UP_MS: u64 = 7 * 24 * 3_600_000;
/// Longest body that can be shown, bytes.
pub const MAX_BODY: usize = 256 * 1024;

/// Where a bounty stands. Times are block times, milliseconds since 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "stage")]
pub enum Stage {
    /// The client's money is here; the server may accept, the client may cancel.
    Offered,
    /// The server's collateral is here too; the Proof of Response contract is being asked
    /// whether its node is attached.
    Checking { attempt: u32, started_ms: u64 },
    /// The node was attached at `since_ms`: from then on isolation is the server's loss, until
    /// `deadline_ms`.
    Active { since_ms: u64, deadline_ms: u64 },
    /// Decided: what is owed can be collected.
    Done { outcome: Outcome },
}

/// How a bounty ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The client took it back before anybody accepted.
    Cancelled,
    /// A receipt was shown: reward and collateral are the server's.
    Answered,
    /// The server's node was cut off from the main component in time: reward and collateral
    /// are the client's.
    Isolated,
    /// Neither: everybody gets their own back.
    Expired,
}

/// A bounty.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BountyView {
    pub request: RequestId,
    pub client: AccountId,
    pub server: AccountId,
    pub node_key: NodeKey,
    pub reward: Yocto,
    pub collateral: Yocto,
    pub answer_ms: u64,
    pub show_body: bool,
    #[serde(flatten)]
    pub stage: Stage,
    /// What [`method::COLLECT`] pays the client and the server now.
    pub owed_client: Yocto,
    pub owed_server: Yocto,
}

/// The contract's settings and its books.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigView {
    /// The Proof of Response contract, and the chain it signs for.
    pub por: AccountId,
    pub chain_id: String,
    /// Bounties ever opened: numbers `0..bounties`.
    pub bounties: u64,
    /// All that bounties hold: rewards, collateral, storage, and what is owed.
    pub held: Yocto,
    /// The account's balance, at least `held`.
    pub balance: Yocto,
}
