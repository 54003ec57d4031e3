//! Answers of the views.

use near_account_id::AccountId;
use serde::{Deserialize, Serialize};

use super::Params;
#[cfg(doc)]
use super::method;
use crate::{AmountError, ChannelId, Hash, NodeKey, Side, Terms, Totals, Yocto};

/// One entry of the answer of [`method::NEIGHBOURS`], in ascending order of `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourView {
    pub index: u32,
    /// Channels in the graph between the two nodes, at least 1.
    pub channels: u32,
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
    /// Indices in use, or used before: `0..nodes`.
    pub nodes: u64,
    /// Channels ever proposed: ids `0..channels`.
    pub channels: u64,
    /// Storage deposit of a registration, a proposal (both sides' part paid by the proposer).
    pub register_storage: Yocto,
    pub channel_storage: Yocto,
    /// What a closer attaches for a check that is not finished in the call of the close. Grows
    /// with the number of nodes.
    pub check_deposit: Yocto,
    /// Account of the genesis anchor.
    pub anchor: AccountId,
    /// Active stake of all attached nodes.
    pub attached_stake: Yocto,
    /// Partition checks that are not finished.
    pub checks: u32,
    /// Notice before changes of parameters or code take effect, milliseconds.
    pub governance_notice_ms: u64,
    /// Parameters that were announced, and when they are in force (block time, milliseconds).
    pub next_params: Option<NextParams>,
    pub next_code: Option<NextCode>,
}

/// A change of parameters that waits for its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextParams {
    pub params: Params,
    pub from_ms: u64,
}

/// An upgrade that waits for its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NextCode {
    pub code_hash: Hash,
    pub from_ms: u64,
}

/// Answer of [`method::ATTACHMENT`], for contracts on top.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachmentView {
    /// Block time, milliseconds; `None` while unattached.
    pub attached_since_ms: Option<u64>,
    /// All partition checks of closes before this block time are applied: what the answer says
    /// about times before it is final.
    pub final_until_ms: u64,
}

/// Answer of [`method::DOWNTIME`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DowntimeView {
    /// Milliseconds between `from_ms` and `to_ms` in which the node was not attached. Time
    /// before its registration and time that has not come yet count as unattached.
    pub downtime_ms: u64,
    /// The contract still knows all of the node's attachments in the span. If not, the time it
    /// has forgotten counts as attached.
    pub complete: bool,
    /// As in [`AttachmentView`].
    pub final_until_ms: u64,
}

/// Answer of [`method::CHECKS`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChecksView {
    /// Unfinished partition checks.
    pub checks: u32,
    /// Operations that wait behind them, checks included.
    pub waiting: u64,
    /// The check at the head of the queue. `None` also while other operations that wait come before
    /// the next check: like a check they are continued by [`method::CHECK`], as long as any wait.
    pub head: Option<CheckView>,
}

/// A partition check that is under way or comes next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckView {
    pub channel: ChannelId,
    /// Indices of the channel's ends.
    pub a: u32,
    pub b: u32,
    /// Block time of the close, milliseconds.
    pub closed_ms: u64,
    /// What is left of the closer's deposit for those who continue the check.
    pub reward: Yocto,
}

/// A registered node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeView {
    /// Index in the graph, from 0. Another node may get it once this one has left.
    pub index: u32,
    pub account: AccountId,
    pub node_key: NodeKey,
    /// All stake, active or not, locked or not; changes that wait for checks included.
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
    /// Cooperative close announced by `by` (A for a close with both signatures). Once
    /// `confirmed` the edge leaves the graph at `closes_ms`, and is then finalized; until then
    /// `closes_ms` is 0.
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
    /// Paid out; the payments are withdrawable.
    Closed {
        paid_a: Yocto,
        paid_b: Yocto,
        /// Bonds and stake locks are held until this block time (protocol section 6); `None`
        /// once they are released.
        bonds_until_ms: Option<u64>,
        /// The bonds were forfeited by a sever.
        severed: bool,
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
    /// Each side's bond: half of the sever penalty at the time of the proposal.
    pub bond: Yocto,
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
    /// What changed and is there no more.
    #[serde(default)]
    pub gone: Vec<ChangeKind>,
    /// Oldest version the log still holds; a caller behind it reads the pages again.
    pub oldest: u64,
}

/// The contract's books: `balance` is the sum of all other parts, after every call
/// (protocol section 7).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BooksView {
    /// Account balance as the contract sees it during the view.
    pub balance: Yocto,
    /// The balance at initialisation and the storage deposits held since.
    pub storage: Yocto,
    /// What channels hold: deposits of proposals and open channels minus draws.
    pub deposits: Yocto,
    /// All stake, withdrawing stake included.
    pub stakes: Yocto,
    pub bonds: Yocto,
    /// Forfeited bonds whose reimbursement window has not ended.
    pub escrow: Yocto,
    pub treasury: Yocto,
    pub withdrawable: Yocto,
    /// Came without a call: transfers to the account and the chain's gas rewards. Belongs to
    /// nobody.
    pub surplus: Yocto,
}

impl BooksView {
    /// What somebody owns or may claim: all parts but the surplus. With that it is the balance.
    ///
    /// Errors: more than fits, which no contract has.
    pub fn owed(&self) -> Result<Yocto, AmountError> {
        let BooksView { storage, deposits, stakes, bonds, escrow, treasury, withdrawable, .. } = *self;
        Yocto::checked_sum([storage, deposits, stakes, bonds, escrow, treasury, withdrawable])
    }
}
