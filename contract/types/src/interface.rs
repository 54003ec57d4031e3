//! The contract's interface: method names, arguments, deposits, gas, views and events.
//!
//! The contract, the node's chain client and the tests all use these definitions, so a
//! method cannot be called by another name or with other fields than it has.

mod args;
mod events;
mod views;

use serde::{Deserialize, Serialize};

use crate::Yocto;

pub use args::*;
pub use events::*;
pub use views::*;

/// NEP-297 `standard` of all events.
pub const EVENT_STANDARD: &str = "por";
/// NEP-297 `version` of all events.
pub const EVENT_VERSION: &str = "1.0.0";
/// `state_version` of the contract state this interface describes.
pub const STATE_VERSION: u32 = 2;
/// Most entries of one page of a view.
pub const MAX_PAGE: u32 = 100;
/// Indices of nodes are below this. A check that has searched as many still loads, goes on and saves
/// within [`CHECK_GAS`].
pub const MAX_INDICES: u32 = 1 << 20;

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
    /// As many nodes are registered as the contract can search.
    pub const FULL: &str = "E_FULL";
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
