//! The contract's interface: method names, arguments, deposits, gas, views and events.
//!
//! The contract, the node's chain client and the tests all use these definitions, so a
//! method cannot be called by another name or with other fields than it has.

use near_account_id::AccountId;
use serde::{Deserialize, Serialize};

use crate::{
    ChannelId, ChannelState, CooperativeClose, Draw, Hash, NewTerms, NodeKey, SeverOrder, Side, Signature,
    Signed, Terms, Totals, Yocto,
};

/// NEP-297 `standard` of all events.
pub const EVENT_STANDARD: &str = "por";
/// NEP-297 `version` of all events.
pub const EVENT_VERSION: &str = "1.0.0";
/// `state_version` of the contract state this interface describes.
pub const STATE_VERSION: u32 = 2;
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
    pub const FORGET_CHANNEL: &str = "forget_channel";
    pub const WITHDRAW: &str = "withdraw";
    pub const UNREGISTER: &str = "unregister";
    pub const DRAW: &str = "draw";
    pub const REPLACE_TERMS: &str = "replace_terms";
    pub const PING: &str = "ping";
    pub const CHECK: &str = "check";
    pub const SET_PARAMS: &str = "set_params";
    pub const SET_OWNER: &str = "set_owner";
    pub const SET_TREASURY: &str = "set_treasury";
    pub const ANNOUNCE_UPGRADE: &str = "announce_upgrade";
    pub const CANCEL_UPGRADE: &str = "cancel_upgrade";
    pub const UPGRADE: &str = "upgrade";
    pub const MIGRATE: &str = "migrate";

    pub const CONFIG: &str = "config";
    pub const NODE: &str = "node";
    pub const NODE_BY_KEY: &str = "node_by_key";
    pub const CHANNEL: &str = "channel";
    pub const NODES: &str = "nodes";
    pub const CHANNELS: &str = "channels";
    pub const CHANGES: &str = "changes";
    pub const NEIGHBOURS: &str = "neighbours";
    pub const ATTACHMENT: &str = "attachment";
    pub const DOWNTIME: &str = "downtime";
    pub const CHECKS: &str = "checks";
    pub const WITHDRAWABLE: &str = "withdrawable";
    pub const BOOKS: &str = "books";
}

/// Gas to attach to any call of this interface; what is not burnt is refunded.
pub const CALL_GAS: u64 = 60_000_000_000_000;
/// Gas to attach to [`method::SEVER`], [`method::FINALIZE`] and [`method::CHECK`], whose
/// partition check goes as far as the gas lasts; what is not burnt is refunded.
pub const CHECK_GAS: u64 = 300_000_000_000_000;

/// First word of every panic message of the contract, before `: ` and what to do about it.
/// Stable: clients match on these, see [`error_code`].
pub mod code {
    /// Arguments are malformed or out of range.
    pub const ARGUMENT: &str = "E_ARGUMENT";
    /// Parameters of the network are outside their hard bounds.
    pub const PARAMS: &str = "E_PARAMS";
    /// The attached deposit does not cover what the call needs.
    pub const DEPOSIT: &str = "E_DEPOSIT";
    /// The caller has no registered node.
    pub const NOT_REGISTERED: &str = "E_NOT_REGISTERED";
    /// The account already registered a node.
    pub const ACCOUNT_TAKEN: &str = "E_ACCOUNT_TAKEN";
    /// The node key is already registered.
    pub const KEY_TAKEN: &str = "E_KEY_TAKEN";
    /// The node key is one that anybody can sign for.
    pub const WEAK_KEY: &str = "E_WEAK_KEY";
    /// A signature does not verify for the key, statement, chain and contract.
    pub const SIGNATURE: &str = "E_SIGNATURE";
    /// Stake is below the minimum.
    pub const STAKE_TOO_LOW: &str = "E_STAKE_TOO_LOW";
    /// Open channels lock the stake.
    pub const STAKE_LOCKED: &str = "E_STAKE_LOCKED";
    /// Too many deposits or withdrawals of stake are still waiting.
    pub const TOO_MANY_PENDING: &str = "E_TOO_MANY_PENDING";
    /// A channel needs two different nodes.
    pub const SELF_CHANNEL: &str = "E_SELF_CHANNEL";
    /// No channel has this id.
    pub const NO_CHANNEL: &str = "E_NO_CHANNEL";
    /// The caller is not the side that may do this.
    pub const NOT_ALLOWED: &str = "E_NOT_ALLOWED";
    /// The channel is not a proposal (any more).
    pub const NOT_PROPOSED: &str = "E_NOT_PROPOSED";
    /// The terms are not those of the proposal.
    pub const TERMS_DIFFER: &str = "E_TERMS_DIFFER";
    /// The channel is not open.
    pub const NOT_OPEN: &str = "E_NOT_OPEN";
    /// No close was requested.
    pub const NOT_REQUESTED: &str = "E_NOT_REQUESTED";
    /// The totals are not those of the request.
    pub const TOTALS_DIFFER: &str = "E_TOTALS_DIFFER";
    /// The totals are below what was already proven on chain.
    pub const TOTALS_BELOW_PROVEN: &str = "E_TOTALS_BELOW_PROVEN";
    /// The totals pay more than the channel holds.
    pub const TOTALS_EXCEED_POT: &str = "E_TOTALS_EXCEED_POT";
    /// The two-signature act is not the next one.
    pub const SEQUENCE: &str = "E_SEQUENCE";
    /// The two-signature act has expired.
    pub const EXPIRED: &str = "E_EXPIRED";
    /// The channel is in no window that takes evidence.
    pub const NOT_CLOSING: &str = "E_NOT_CLOSING";
    /// The window for evidence is over: finalize.
    pub const WINDOW_OVER: &str = "E_WINDOW_OVER";
    /// The statement proves nothing that the contract did not know.
    pub const NOTHING_NEW: &str = "E_NOTHING_NEW";
    /// Wait: the message says until when.
    pub const TOO_EARLY: &str = "E_TOO_EARLY";
    /// Nothing is left to finalize.
    pub const NOTHING_TO_FINALIZE: &str = "E_NOTHING_TO_FINALIZE";
    /// The channel can no longer be severed.
    pub const NOT_SEVERABLE: &str = "E_NOT_SEVERABLE";
    /// The account has less withdrawable than it asks for, or nothing.
    pub const WITHDRAWABLE: &str = "E_WITHDRAWABLE";
    /// Partition checks are pending and this has to wait for them; continue them with `check`.
    pub const CHECKS_PENDING: &str = "E_CHECKS_PENDING";
    /// No partition check is pending.
    pub const NO_CHECK: &str = "E_NO_CHECK";
    /// The node is attached already, or has a ping waiting to be judged.
    pub const ATTACHED: &str = "E_ATTACHED";
    /// The node named in a ping is no attached neighbour.
    pub const NOT_ATTACHED: &str = "E_NOT_ATTACHED";
    /// The node still has channels, stake, money or waiting changes.
    pub const IN_USE: &str = "E_IN_USE";
    /// Nothing was announced, or something else than this.
    pub const NOT_ANNOUNCED: &str = "E_NOT_ANNOUNCED";
    /// The stored state is of a version that this code cannot migrate.
    pub const STATE_VERSION: &str = "E_STATE_VERSION";
    /// A sum does not fit; state is unchanged.
    pub const OVERFLOW: &str = "E_OVERFLOW";
}

/// The [`code`] in a failure message of the contract, wherever the RPC put it.
pub fn error_code(message: &str) -> Option<&str> {
    message.match_indices("E_").find_map(|(start, _)| {
        let at_word = !message[..start].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_');
        let rest = &message[start..];
        let end = rest.find(|c: char| !c.is_ascii_uppercase() && c != '_')?;
        (at_word && end > 2 && rest[end..].starts_with(": ")).then_some(&rest[..end])
    })
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

impl Params {
    /// Each side's half of the sever penalty.
    pub fn bond(&self) -> Yocto {
        Yocto(self.sever_penalty.0 / 2)
    }
}

/// Arguments of [`method::NEW`]. No deposit.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NewArgs {
    pub chain_id: String,
    /// May set parameters with notice; cannot touch user funds.
    pub owner: AccountId,
    pub treasury: AccountId,
    pub params: Params,
    /// The node that this account registers is the genesis anchor, which always counts as
    /// attached (protocol section 7). `None`: the owner.
    #[serde(default)]
    pub anchor: Option<AccountId>,
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

/// Arguments of [`method::PROPOSE_CHANNEL`]. Attached: at least `deposit`, the bond (half of
/// [`Params::sever_penalty`]) and [`ConfigView::channel_storage`]. What is attached above that
/// becomes withdrawable. Locks half a penalty of the proposer's stake. Returns the
/// [`ChannelId`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProposeChannelArgs {
    pub counterparty: AccountId,
    pub terms: Terms,
    /// The proposer's deposit.
    pub deposit: Yocto,
}

/// Arguments of [`method::CONFIRM_CHANNEL`]. Attached: at least `deposit` and the bond (half of
/// [`Params::sever_penalty`]); the rest becomes withdrawable. Locks half a penalty of the
/// confirmer's stake.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ConfirmChannelArgs {
    pub channel: ChannelId,
    /// The terms that the confirmer read; must equal the proposal's.
    pub terms: Terms,
    pub deposit: Yocto,
}

/// Arguments of calls that name only a channel.
///
/// - [`method::CANCEL_PROPOSAL`]: by the proposer; deposit and bond become withdrawable.
/// - [`method::TOP_UP`]: by either side; everything attached is added to its deposit.
/// - [`method::FORGET_CHANNEL`]: by anyone, once nothing is left to finalize. Removes the
///   record; its storage deposit becomes withdrawable for the proposer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelArgs {
    pub channel: ChannelId,
}

/// Arguments of [`method::REQUEST_CLOSE`] and [`method::CONFIRM_CLOSE`]: the totals that the
/// caller states. A confirmation must state the request's totals. Until it is confirmed, a
/// request binds nobody: the channel stays in the graph and either side may replace it.
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

/// What makes a partition check cheaper. A wrong or stale witness costs gas and changes
/// nothing else.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Witness {
    /// Indices of nodes from one end of the channel to the other, each linked to the next: the
    /// ends are still connected.
    #[serde(default)]
    pub path: Vec<u32>,
    /// The side that is cut off: it is searched alone.
    #[serde(default)]
    pub closed: Option<Side>,
}

/// Arguments of [`method::SEVER`]. By anyone. The edge leaves the graph in this call and its
/// partition check begins. Attach [`ConfigView::check_deposit`]: needed if the check does not
/// finish in this call, the unused rest becomes withdrawable for the caller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeverArgs {
    pub order: Signed<SeverOrder>,
    #[serde(default)]
    pub witness: Option<Witness>,
}

/// Arguments of [`method::FINALIZE`]. By anyone. The next step that time allows:
///
/// - a closing channel past its notice is paid out, becomes `Closed`, and its edge leaves the
///   graph with a partition check; deposit as with [`method::SEVER`]. Refused while too many
///   checks are pending;
/// - a severed one past its challenge window is paid out and becomes `Closed`;
/// - a `Closed` one past `bonds_until_ms` has its bonds returned (or, if they were forfeited,
///   given to the treasury) and its stake unlocked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FinalizeArgs {
    pub channel: ChannelId,
    #[serde(default)]
    pub witness: Option<Witness>,
}

/// Arguments of [`method::CHECK`]: continues pending partition checks, and what waits behind
/// them, as far as the gas lasts. By anyone; the caller is paid for its gas out of the
/// closers' deposits, as far as these last. `witness` is about the check at the head of the
/// queue. Returns how many checks are still pending.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckArgs {
    #[serde(default)]
    pub witness: Option<Witness>,
}

/// Arguments of [`method::PING`]: the caller's node becomes attached if it has an open channel
/// to the attached node of `through` (protocol section 7). While checks are pending it is
/// recorded and judged after them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PingArgs {
    pub through: AccountId,
}

/// Arguments of [`method::DRAW`]: by anyone who holds both signatures, on a channel that is
/// open. Each side's draw becomes withdrawable; the totals become floors.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DrawArgs {
    pub draw: Draw,
    pub signature_a: Signature,
    pub signature_b: Signature,
}

/// Arguments of [`method::REPLACE_TERMS`]: as [`DrawArgs`], for new terms.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReplaceTermsArgs {
    pub act: NewTerms,
    pub signature_a: Signature,
    pub signature_b: Signature,
}

/// Arguments of [`method::SET_PARAMS`]. By the owner. In force after a notice of
/// [`ConfigView::governance_notice_ms`]; replaces a change that is still waiting.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SetParamsArgs {
    pub params: Params,
}

/// Arguments of [`method::ANNOUNCE_UPGRADE`]. By the owner. After the notice anyone may call
/// [`method::UPGRADE`] with the code itself as input; it is deployed and migrated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AnnounceUpgradeArgs {
    /// SHA-256 of the code.
    pub code_hash: Hash,
}

/// Arguments of [`method::MIGRATE`], which is open to the contract's own account only when it
/// has to take over a state of another version, and then to anyone until it is done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct MigrateArgs {
    /// Most channels to convert in this call; `None`: as many as the gas allows.
    #[serde(default)]
    pub limit: Option<u32>,
}

/// Arguments of [`method::WITHDRAW`]: `None` takes everything withdrawable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WithdrawArgs {
    #[serde(default)]
    pub amount: Option<Yocto>,
}

/// Arguments of [`method::NODE`], [`method::WITHDRAWABLE`], [`method::ATTACHMENT`],
/// [`method::SET_OWNER`] and [`method::SET_TREASURY`] (the last two by the owner).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccountArgs {
    pub account: AccountId,
}

/// Arguments of [`method::DOWNTIME`]: block times, milliseconds, `from_ms <= to_ms`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DowntimeArgs {
    pub account: AccountId,
    pub from_ms: u64,
    pub to_ms: u64,
}

/// Arguments of [`method::NODE_BY_KEY`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeyArgs {
    pub node_key: NodeKey,
}

/// Page of a list view: the records with index or channel id `from..from + limit` that exist.
/// The last index is in [`ConfigView`]; forgotten channels leave gaps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PageArgs {
    pub from: u64,
    /// At most [`MAX_PAGE`].
    pub limit: u32,
}

/// Arguments of [`method::NEIGHBOURS`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighboursArgs {
    /// Index of the node whose neighbours are asked for.
    pub index: u32,
    /// Smallest neighbour index to answer.
    pub from: u32,
    /// At most [`MAX_PAGE`].
    pub limit: u32,
}

/// One entry of the answer of [`method::NEIGHBOURS`], in ascending order of `index`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct NeighbourView {
    pub index: u32,
    /// Channels in the graph between the two nodes, at least 1.
    pub channels: u32,
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
    /// Nodes ever registered: indices `0..nodes`.
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
    /// The check at the head of the queue.
    pub head: Option<CheckView>,
}

/// A partition check under way.
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
    /// Index in the graph, from 0, in order of registration.
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

/// NEP-297 events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event", content = "data")]
pub enum Event {
    Registered(Vec<RegisteredEvent>),
    StakeChanged(Vec<StakeChangedEvent>),
    ChannelChanged(Vec<ChannelChangedEvent>),
    StateSubmitted(Vec<StateSubmittedEvent>),
    Withdrawn(Vec<WithdrawnEvent>),
    Checked(Vec<CheckedEvent>),
    Reimbursed(Vec<ReimbursedEvent>),
    Attached(Vec<AttachedEvent>),
    CutOff(Vec<CutOffEvent>),
    Governed(Vec<GovernedEvent>),
}

/// A partition check has begun to wait, or is finished.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckedEvent {
    pub channel: ChannelId,
    /// `None` while it waits.
    pub partition: Option<bool>,
    /// Nodes of the smaller side; 0 unless there is a partition.
    pub cut_off: u32,
}

/// A penalty was reimbursed to its end on the larger side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReimbursedEvent {
    /// The channel that was severed.
    pub channel: ChannelId,
    pub account: AccountId,
    pub amount: Yocto,
}

/// A ping was judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AttachedEvent {
    pub account: AccountId,
    /// False: a recorded ping found no attached neighbour.
    pub attached: bool,
}

/// A node of a smaller side.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CutOffEvent {
    pub index: u32,
    /// Taken from its stake for the other side's penalties, without what was taken from an
    /// endpoint first.
    pub charged: Yocto,
    pub slashed: Yocto,
}

/// The owner acted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GovernedEvent {
    /// The method.
    pub act: String,
    /// When it takes effect: block time, milliseconds.
    pub from_ms: u64,
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
