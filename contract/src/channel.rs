//! A channel's record and where it is in its life (protocol sections 2 and 7).

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::interface::{ChannelChangedEvent, ChannelStatus, ChannelView, code};
use por_types::{ChannelId, Funds, Side, Terms, Totals, Yocto};

use crate::Contract;
use crate::fail::{fail, require};
use crate::node::NodeRecord;
use crate::store::{self, Table};

#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub struct ChannelRecord {
    /// Index of the proposer.
    pub a: u32,
    /// Index of the confirmer.
    pub b: u32,
    pub funds: Funds,
    /// Each side's bond, and each side's lock of stake.
    pub bond: Yocto,
    /// Storage deposit, the proposer's.
    pub storage: Yocto,
    /// Best totals proven or agreed on chain.
    pub totals: Totals,
    pub terms: Terms,
    pub sequence: u64,
    pub status: Status,
    /// Number of the penalty of this channel's end, once there is one. (State version 2.)
    pub penalty: Option<u64>,
}

#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub enum Status {
    Proposed,
    Open {
        request: Option<CloseRequest>,
    },
    /// In the graph until `closes_ms`, then to be settled.
    Closing {
        by: Side,
        totals: Totals,
        closes_ms: u64,
    },
    /// Out of the graph, bonds forfeited.
    Severed {
        by: Side,
        severed_ms: u64,
        settles_ms: u64,
        held_until_ms: u64,
    },
    /// Paid out. `held_until_ms`: bonds (or forfeits) and stake locks are still held.
    Closed {
        paid_a: Yocto,
        paid_b: Yocto,
        held_until_ms: Option<u64>,
        severed: bool,
    },
    Cancelled,
}

/// A close that one side asked for.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub struct CloseRequest {
    pub by: Side,
    pub totals: Totals,
}

impl Status {
    fn view(&self) -> ChannelStatus {
        match self {
            Status::Proposed => ChannelStatus::Proposed,
            Status::Open { request: None } => ChannelStatus::Open,
            Status::Open { request: Some(request) } => ChannelStatus::Closing {
                by: request.by,
                totals: request.totals,
                confirmed: false,
                closes_ms: 0,
            },
            Status::Closing { by, totals, closes_ms } => {
                ChannelStatus::Closing { by: *by, totals: *totals, confirmed: true, closes_ms: *closes_ms }
            }
            Status::Severed { by, severed_ms, settles_ms, .. } => {
                ChannelStatus::Severed { by: *by, severed_ms: *severed_ms, settles_ms: *settles_ms }
            }
            Status::Closed { paid_a, paid_b, held_until_ms, severed } => ChannelStatus::Closed {
                paid_a: *paid_a,
                paid_b: *paid_b,
                bonds_until_ms: *held_until_ms,
                severed: *severed,
            },
            Status::Cancelled => ChannelStatus::Cancelled,
        }
    }

    pub fn name(&self) -> &'static str {
        match self {
            Status::Proposed => "proposed",
            Status::Open { .. } => "open",
            Status::Closing { .. } => "closing",
            Status::Severed { .. } => "severed",
            Status::Closed { .. } => "closed",
            Status::Cancelled => "cancelled",
        }
    }
}

impl ChannelRecord {
    /// Which side `index` is; stops if neither.
    pub fn side_of(&self, id: ChannelId, index: u32) -> Side {
        if index == self.a {
            Side::A
        } else if index == self.b {
            Side::B
        } else {
            fail!(code::NOT_ALLOWED, "only the two sides of channel {id} may do this")
        }
    }

    pub fn index_of(&self, side: Side) -> u32 {
        match side {
            Side::A => self.a,
            Side::B => self.b,
        }
    }

    /// The node of a side. `None` if it has left, as the counterparty of a channel that never opened
    /// may; another can have its index then.
    pub fn node_of(&self, id: ChannelId, side: Side) -> Option<NodeRecord> {
        let index = self.index_of(side);
        let never_opened = matches!(self.status, Status::Proposed | Status::Cancelled);
        if never_opened && side == Side::B && !Contract::had_index(index, id) {
            return None;
        }
        Contract::try_node(index)
    }

    /// Stops unless the channel is open and no close of it is in force.
    pub fn require_open(&self, id: ChannelId) {
        require!(
            matches!(self.status, Status::Open { .. }),
            code::NOT_OPEN,
            "channel {id} is {}; use an open one",
            self.status.name()
        );
    }

    /// Stops unless `totals` may be agreed on: not below what is proven, not above what the
    /// channel holds.
    pub fn require_possible(&self, totals: Totals) {
        require!(
            totals.max(self.totals) == totals,
            code::TOTALS_BELOW_PROVEN,
            "{} and {} are already proven; state at least these totals",
            self.totals.sent_a,
            self.totals.sent_b
        );
        require!(
            self.funds.covers(totals),
            code::TOTALS_EXCEED_POT,
            "these totals pay more than the payer has in the channel; state totals that both signed"
        );
    }

    /// `None` if a node of a channel that never opened has left.
    pub fn view(&self, id: ChannelId) -> Option<ChannelView> {
        let a = self.node_of(id, Side::A)?;
        let b = self.node_of(id, Side::B)?;
        Some(ChannelView {
            channel: id,
            a: a.account,
            b: b.account,
            key_a: a.key,
            key_b: b.key,
            deposit_a: self.funds.deposit_a,
            deposit_b: self.funds.deposit_b,
            drawn_a: self.funds.drawn_a,
            drawn_b: self.funds.drawn_b,
            bond: self.bond,
            totals: self.totals,
            terms: self.terms.clone(),
            sequence: self.sequence,
            status: self.status.view(),
        })
    }

    pub fn event(&self, id: ChannelId) -> ChannelChangedEvent {
        ChannelChangedEvent {
            channel: id,
            status: self.status.view(),
            deposit_a: self.funds.deposit_a,
            deposit_b: self.funds.deposit_b,
        }
    }
}

impl Contract {
    pub(crate) fn try_channel(id: ChannelId) -> Option<ChannelRecord> {
        store::read_grown(Table::Channels, &id.0.to_le_bytes(), 1)
    }

    pub(crate) fn load_channel(id: ChannelId) -> ChannelRecord {
        match Self::try_channel(id) {
            Some(channel) => channel,
            None => fail!(code::NO_CHANNEL, "there is no channel {id}; check the id"),
        }
    }

    pub(crate) fn save_channel(id: ChannelId, channel: &ChannelRecord) {
        store::write(Table::Channels, &id.0.to_le_bytes(), channel);
    }

    pub(crate) fn remove_channel(id: ChannelId) {
        store::remove(Table::Channels, &id.0.to_le_bytes());
    }
}
