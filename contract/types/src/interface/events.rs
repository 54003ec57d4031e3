//! NEP-297 events.

use near_account_id::AccountId;
use serde::{Deserialize, Serialize};

use super::ChannelStatus;
use crate::{ChannelId, NodeKey, Totals, Yocto};

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
