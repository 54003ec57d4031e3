//! The contract's interface: method names, arguments, deposits, gas, views and events.
//!
//! The contract, the node's chain client and the tests all use these definitions, so a
//! method cannot be called by another name or with other fields than it has.

use near_account_id::AccountId;
use serde::{Deserialize, Serialize};

use crate::{
    ChannelId, ChannelState, CooperativeClose, NodeKey, SeverOrder, Side, Signature, Signed, Terms, Totals,
    Yocto,
};

/// NEP-297 `standard` of all events.
pub const EVENT_STANDARD: &str = "por";
/// NEP-297 `version` of all events.
pub const EVENT_VERSION: &str = "1.0.0";
/// `state_version` of the contract state this interface describes.
pub const STATE_VERSION: u32 = 1;
/// Most entries of one page of a view.
pub const MAX_PAGE: u32 = 100;

/// Method names.
pub mod method {
    pub const NEW: &str = "new";
    pub const REGISTER: &str = "register";
    pub const STAKE: &str = "stake";
    pub const UNSTAKE: &str = "unstake";
    pub const PROPOSE_CHANNEL: &str = "propose_channel";
    pub const CONFIRM_CHANNEL: &str = "confirm_channel";
    pub const CANCEL_PROPOSAL: &str = "cancel_proposal";
    pub const TOP_UP: &str = "top_up";
    pub const REQUEST_CLOSE: &str = "request_close";
    pub const CONFIRM_CLOSE: &str = "confirm_close";
    pub const CLOSE_SIGNED: &str = "close_signed";
    pub const SUBMIT_STATE: &str = "submit_state";
    pub const SEVER: &str = "sever";
    pub const FINALIZE: &str = "finalize";
    pub const WITHDRAW: &str = "withdraw";
    pub const PING: &str = "ping";

    pub const CONFIG: &str = "config";
    pub const NODE: &str = "node";
    pub const NODE_BY_KEY: &str = "node_by_key";
    pub const CHANNEL: &str = "channel";
    pub const NODES: &str = "nodes";
    pub const CHANNELS: &str = "channels";
    pub const CHANGES: &str = "changes";
    pub const WITHDRAWABLE: &str = "withdrawable";
    pub const BOOKS: &str = "books";
}

/// Parameters of a network (protocol section 2). Durations in milliseconds of block time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Params {
    /// Late payment per request and millisecond.
    pub late_fee: Yocto,
    /// Forfeited when an edge is severed; half of it is each side's bond. Even.
    pub sever_penalty: Yocto,
    pub challenge_ms: u64,
    /// Notice between the announcement of a cooperative close and its effect.
    pub notice_ms: u64,
    pub min_stake: Yocto,
    pub activation_ms: u64,
    pub reimbursement_ms: u64,
    /// Share of a cut-off node's stake that is slashed, in parts of 10,000.
    pub slash_bps: u16,
}

/// Arguments of [`method::NEW`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewArgs {
    pub chain_id: String,
    /// May set parameters with notice; cannot touch user funds.
    pub owner: AccountId,
    pub treasury: AccountId,
    pub params: Params,
    /// Lifts the hard bounds on parameters. Nodes refuse such a contract outside localnet.
    #[serde(default)]
    pub test: bool,
}

/// Arguments of [`method::REGISTER`]. Attached deposit: storage, the rest becomes stake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisterArgs {
    pub node_key: NodeKey,
    /// `node_key`'s signature of [`crate::RegistrationProof`].
    pub proof: Signature,
}

/// Arguments of [`method::UNSTAKE`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnstakeArgs {
    pub amount: Yocto,
}

/// Arguments of [`method::PROPOSE_CHANNEL`]. Attached: storage, plus the deposit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposeChannelArgs {
    pub counterparty: AccountId,
    pub terms: Terms,
    /// The proposer's deposit; what is attached above it pays storage, and the rest of that
    /// becomes withdrawable.
    pub deposit: Yocto,
}

/// Arguments of [`method::CONFIRM_CHANNEL`]. Attached: at least the deposit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmChannelArgs {
    pub channel: ChannelId,
    /// The terms that the confirmer read; must equal the proposal's.
    pub terms: Terms,
    pub deposit: Yocto,
}

/// Arguments of calls that name only a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelArgs {
    pub channel: ChannelId,
}

/// Arguments of [`method::REQUEST_CLOSE`] and [`method::CONFIRM_CLOSE`]: the totals that the
/// caller states. A confirmation must state the request's totals.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseArgs {
    pub channel: ChannelId,
    pub totals: Totals,
}

/// Arguments of [`method::CLOSE_SIGNED`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloseSignedArgs {
    pub close: CooperativeClose,
    pub signature_a: Signature,
    pub signature_b: Signature,
}

/// Arguments of [`method::SUBMIT_STATE`]: evidence during a notice or challenge window.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubmitStateArgs {
    pub state: Signed<ChannelState>,
    /// Whose signature it is; that side's own total is what it proves.
    pub signer: Side,
}

/// Arguments of [`method::SEVER`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeverArgs {
    pub order: Signed<SeverOrder>,
}

/// Arguments of [`method::WITHDRAW`]: `None` takes everything withdrawable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawArgs {
    #[serde(default)]
    pub amount: Option<Yocto>,
}

/// Page of a list view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageArgs {
    pub from: u64,
    /// At most [`MAX_PAGE`].
    pub limit: u32,
}

/// Arguments of [`method::CHANGES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesArgs {
    /// Version that the caller already has.
    pub since: u64,
    pub limit: u32,
}

/// Answer of [`method::CONFIG`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfigView {
    pub state_version: u32,
    pub chain_id: String,
    pub owner: AccountId,
    pub treasury: AccountId,
    pub params: Params,
    pub test: bool,
    /// Version of the graph: number of entries ever written to the change log.
    pub graph_version: u64,
    pub nodes: u64,
    pub channels: u64,
    /// Storage deposit of a registration, a proposal (both sides' part paid by the proposer).
    pub register_storage: Yocto,
    pub channel_storage: Yocto,
}

/// A registered node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Index in the graph, from 0, in order of registration.
    pub index: u32,
    pub account: AccountId,
    pub node_key: NodeKey,
    /// All stake, active or not, locked or not.
    pub stake: Yocto,
    /// Part of `stake` that weighs now.
    pub active_stake: Yocto,
    /// Part of `stake` that open channels lock.
    pub locked: Yocto,
    /// Withdrawn but still chargeable.
    pub unstaking: Yocto,
    pub attached: bool,
    /// Block time, milliseconds; `None` while unattached.
    pub attached_since_ms: Option<u64>,
}

/// Where a channel is in its life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "state")]
pub enum ChannelStatus {
    Proposed,
    Open,
    /// Cooperative close announced by `by`; leaves the graph at `closes_ms` once confirmed.
    Closing {
        by: Side,
        totals: Totals,
        confirmed: bool,
        closes_ms: u64,
    },
    /// Severed; settles at `settles_ms`.
    Severed {
        by: Side,
        severed_ms: u64,
        settles_ms: u64,
    },
    /// Paid out.
    Closed {
        paid_a: Yocto,
        paid_b: Yocto,
    },
    /// Proposal withdrawn.
    Cancelled,
}

/// A channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelView {
    pub channel: ChannelId,
    pub a: AccountId,
    pub b: AccountId,
    pub key_a: NodeKey,
    pub key_b: NodeKey,
    pub deposit_a: Yocto,
    pub deposit_b: Yocto,
    pub drawn_a: Yocto,
    pub drawn_b: Yocto,
    /// Best totals proven on chain so far.
    pub totals: Totals,
    pub terms: Terms,
    /// Last executed two-signature act.
    pub sequence: u64,
    pub status: ChannelStatus,
}

/// One entry of the change log. `version` counts from 1 without gaps.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Change {
    pub version: u64,
    pub height: u64,
    #[serde(flatten)]
    pub kind: ChangeKind,
}

/// What changed: which record to read again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "change")]
pub enum ChangeKind {
    Node { index: u32 },
    Channel { channel: ChannelId },
}

/// Answer of [`method::CHANGES`]: entries after `since`, with the records as they are now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChangesView {
    /// Current version of the graph.
    pub version: u64,
    /// Version up to which this answer brings the caller; continue from here while below
    /// `version`.
    pub upto: u64,
    pub nodes: Vec<NodeView>,
    pub channels: Vec<ChannelView>,
    /// Oldest version the log still holds; a caller behind it reads the pages again.
    pub oldest: u64,
}

/// The contract's books; all parts sum to the contract's balance minus storage
/// (protocol section 7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BooksView {
    /// Account balance as the contract sees it during the view.
    pub balance: Yocto,
    /// What is kept for storage and was there before initialisation.
    pub storage: Yocto,
    pub deposits: Yocto,
    pub stakes: Yocto,
    pub bonds: Yocto,
    pub escrow: Yocto,
    pub treasury: Yocto,
    pub withdrawable: Yocto,
}

/// NEP-297 events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event", content = "data")]
pub enum Event {
    Registered(Vec<RegisteredEvent>),
    StakeChanged(Vec<StakeChangedEvent>),
    ChannelChanged(Vec<ChannelChangedEvent>),
    StateSubmitted(Vec<StateSubmittedEvent>),
    Withdrawn(Vec<WithdrawnEvent>),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegisteredEvent {
    pub account: AccountId,
    pub node_key: NodeKey,
    pub index: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StakeChangedEvent {
    pub account: AccountId,
    pub stake: Yocto,
    pub unstaking: Yocto,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelChangedEvent {
    pub channel: ChannelId,
    pub status: ChannelStatus,
    pub deposit_a: Yocto,
    pub deposit_b: Yocto,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StateSubmittedEvent {
    pub channel: ChannelId,
    pub totals: Totals,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawnEvent {
    pub account: AccountId,
    pub amount: Yocto,
}
