//! The contract as the protocol and the decisions say it, without regard for cost: plain lists,
//! every sum computed anew, every partition check at once on a graph that petgraph searches.
//!
//! What a check depends on happens in one order. The model keeps that order as a list of
//! operations and applies as many as the contract says it has: when an operation is applied, all
//! before it have been, so a check sees graph and stakes exactly as of its close.

mod acts;
mod calls;
mod govern;
mod money;
mod order;
mod seen;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use por_types::interface::{ChannelStatus, NextCode, NextParams, Params};
use por_types::{AccountId, ChannelId, NodeKey, Terms};

pub use calls::{Call, NO_DEPOSIT};

/// Storage of a purse's record: 0.002 NEAR.
pub const PURSE_STORAGE: u128 = 2_000_000_000_000_000_000_000;
/// Stays of the first deposit for an index that becomes free: 0.001 NEAR.
pub const INDEX_STORAGE: u128 = 1_000_000_000_000_000_000_000;
/// Ended attachments that are remembered.
pub const REMEMBERED: usize = 16;

/// An amount that changes its state at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Due {
    pub at_ms: u64,
    pub amount: u128,
}

/// A node that is or was registered. Nobody else is ever meant by its place in the list, as by its
/// index.
#[derive(Clone, Debug)]
pub struct Node {
    /// What the contract calls it while it is registered.
    pub index: u32,
    pub account: AccountId,
    pub key: NodeKey,
    pub active: u128,
    /// Oldest first, as `withdrawing`.
    pub maturing: Vec<Due>,
    pub withdrawing: Vec<Due>,
    pub owed: u128,
    pub attached_ms: Option<u64>,
    /// All ended attachments, oldest first.
    pub past: Vec<(u64, u64)>,
    pub slashed_ms: Option<u64>,
    /// Unregistered.
    pub gone: bool,
}

/// What the check of a cooperative close found, for a later SeverOrder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    NotYet,
    Connected,
    /// Members of the smaller side.
    Partition(BTreeSet<usize>),
    /// Connected at the close, separated by a later check.
    SeparatedLater,
}

#[derive(Clone, Debug)]
pub struct Channel {
    pub ends: [usize; 2],
    pub deposits: [u128; 2],
    pub drawn: [u128; 2],
    pub bond: u128,
    pub totals: [u128; 2],
    pub terms: Terms,
    pub sequence: u64,
    pub status: ChannelStatus,
    /// Of a sever: when its bonds are released.
    pub release_ms: u64,
    pub found: Found,
}

#[derive(Clone, Debug)]
pub struct Penalty {
    pub channel: ChannelId,
    pub ends: [usize; 2],
    pub half: u128,
    pub until_ms: u64,
    pub taken: bool,
}

/// Parameters as of a close.
#[derive(Clone, Copy, Debug)]
pub struct Then {
    pub slash_bps: u16,
    pub window_ms: u64,
}

/// What a partition check depends on.
#[derive(Clone, Debug)]
pub enum Op {
    Edge(ChannelId),
    Close { channel: ChannelId, severed: bool, closer: AccountId, then: Then },
    Late { channel: ChannelId, closer: AccountId, then: Then },
    Stake { node: usize, amount: u128, activation_ms: u64 },
    Unstake { node: usize, amount: u128, due_ms: u64 },
    Ping { node: usize, through: usize },
}

/// What happened, for the statistics of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    StillConnected,
    CutOffBySever,
    CutOffByClose,
    TieOfWeight,
    OneSideAttached,
    NoSideAttached,
    BothSidesAttached,
    AnchorCutOff,
    ReimbursedInFull,
    StakeDidNotSuffice,
    PuppetsPaid,
    Slashed,
    SlashedAlready,
    LateOrderJoined,
    LateOrderReimbursed,
    LateOrderTooLate,
    Attached,
    AttachedAgain,
    PingInVain,
    CheckWaited,
    CheckContinued,
    StoppedWhileCharging,
    ParamsChanged,
    Left,
    LeftAttached,
    LeftWhileChecksWait,
    LateOrderWithoutMember,
    IndexUsedAgain,
    IndexNotFreeYet,
    LateOrderAfterSuccession,
}

#[derive(Clone, Debug)]
pub struct Model {
    pub now_ms: u64,
    pub chain_id: String,
    pub contract: AccountId,
    pub owner: AccountId,
    pub treasury_account: AccountId,
    pub anchor: AccountId,
    pub params: Params,
    pub next_params: Option<NextParams>,
    pub next_code: Option<NextCode>,
    pub test: bool,
    pub nodes: Vec<Node>,
    /// Indices in use, or used before.
    pub indices: u32,
    /// Indices whose nodes have left, and when, in that order.
    pub vacant: VecDeque<(u32, u64)>,
    /// Indices that some node has left.
    pub once_left: BTreeSet<u32>,
    pub channels: BTreeMap<ChannelId, Channel>,
    pub proposed: u64,
    pub treasury: u128,
    /// Of accounts without a node, with the storage of the record.
    pub purses: BTreeMap<AccountId, u128>,
    /// What has left, by receiver.
    pub received: BTreeMap<AccountId, u128>,
    /// Operations that wait, with their times.
    pub waiting: VecDeque<(u64, Op)>,
    /// The operation at the head is a check, which may be under way.
    pub begun: bool,
    pub edges: BTreeMap<ChannelId, [usize; 2]>,
    /// When the last stake that was deposited becomes active.
    pub ripe_ms: u64,
    pub penalties: Vec<Penalty>,
    /// Storage held, without purses and deposits of checks.
    pub storage: u128,
    /// Deposits of checks that have not been paid out.
    pub pool: u128,
    pub register_storage: u128,
    pub channel_storage: u128,
    pub reached: BTreeMap<State, u64>,
}

impl Model {
    pub fn note(&mut self, state: State) {
        *self.reached.entry(state).or_default() += 1;
    }

    pub fn index_of(&self, account: &AccountId) -> Option<usize> {
        self.nodes.iter().position(|node| node.account == *account && !node.gone)
    }

    pub fn is_anchor(&self, node: usize) -> bool {
        self.nodes[node].account == self.anchor
    }

    /// "The block time when nothing waits, else the time of the operation at the head."
    pub fn clock_ms(&self) -> u64 {
        self.waiting.front().map_or(self.now_ms, |(time, _)| *time)
    }

    /// Unfinished checks, late SeverOrders included.
    pub fn pending_checks(&self) -> usize {
        self.waiting.iter().filter(|(_, op)| matches!(op, Op::Close { .. } | Op::Late { .. })).count()
    }

    /// Changes of stake of a node that wait.
    pub fn waiting_stakes(&self, of: usize) -> usize {
        let is = |op: &Op| matches!(op, Op::Stake { node, .. } | Op::Unstake { node, .. } if *node == of);
        self.waiting.iter().filter(|(_, op)| is(op)).count()
    }

    pub fn waiting_ping(&self, of: usize) -> bool {
        self.waiting.iter().any(|(_, op)| matches!(op, Op::Ping { node, .. } if *node == of))
    }

    /// The time of the next call. What falls due by the clock falls due.
    pub fn advance_time(&mut self, now_ms: u64) {
        self.now_ms = now_ms;
        if self.next_params.as_ref().is_some_and(|next| next.from_ms <= now_ms)
            && let Some(next) = self.next_params.take()
        {
            self.params = next.params;
            self.note(State::ParamsChanged);
        }
        self.age(self.clock_ms());
    }
}
