use borsh::{BorshDeserialize, BorshSerialize};
use serde::{Deserialize, Serialize};

use crate::{AmountError, ChannelId, Hash, Purpose, RequestId, Statement, Yocto};

/// Which end of a channel: `A` proposed it, `B` confirmed it.
#[derive(
    Clone,
    Copy,
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
#[serde(rename_all = "lowercase")]
pub enum Side {
    A,
    B,
}

impl Side {
    pub const fn other(self) -> Side {
        match self {
            Side::A => Side::B,
            Side::B => Side::A,
        }
    }
}

/// The two cumulative totals of a channel: what each side has ever paid the other.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
pub struct Totals {
    pub sent_a: Yocto,
    pub sent_b: Yocto,
}

impl Totals {
    pub fn sent_by(&self, side: Side) -> Yocto {
        match side {
            Side::A => self.sent_a,
            Side::B => self.sent_b,
        }
    }

    pub fn set(&mut self, side: Side, total: Yocto) {
        match side {
            Side::A => self.sent_a = total,
            Side::B => self.sent_b = total,
        }
    }

    /// Merge of crossing payments: the maximum of each total (protocol section 3).
    pub fn max(self, other: Totals) -> Totals {
        Totals { sent_a: self.sent_a.max(other.sent_a), sent_b: self.sent_b.max(other.sent_b) }
    }

    /// What `side` owns: `deposit - drawn - sent + received`. Underflow means the totals are not
    /// covered.
    pub fn balance(&self, side: Side, deposit: Yocto, drawn: Yocto) -> Result<Yocto, AmountError> {
        deposit.checked_add(self.sent_by(side.other()))?.checked_sub(drawn)?.checked_sub(self.sent_by(side))
    }
}

/// The bytes that a payer signs and the receiver counter-signs (protocol section 3).
///
/// A signature of either side authorises that side's own total and nothing else, so the
/// payment and its receipt are the same statement with two different signatures.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct ChannelState {
    pub channel: ChannelId,
    pub totals: Totals,
    /// [`Items::hash`] of what this payment pays for; zero for a state that pays for nothing
    /// new (for example a re-synchronisation).
    pub items: Hash,
}

impl Statement for ChannelState {
    const PURPOSE: Purpose = Purpose::ChannelState;
}

/// What an item of a payment is for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, BorshSerialize, BorshDeserialize, Serialize, Deserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum ItemKind {
    /// Prepayment of a request, upstream to downstream.
    Request,
    /// A request's prepayment going back after a rejection.
    Refund,
    /// Late payment of an overdue request, downstream to upstream.
    Late,
}

/// One line of a payment.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Item {
    pub request: RequestId,
    pub amount: Yocto,
    pub kind: ItemKind,
}

/// The list of items that a payment pays for, in order.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize, Serialize, Deserialize)]
pub struct Items {
    pub channel: ChannelId,
    /// Who pays.
    pub payer: Side,
    pub items: Vec<Item>,
}

impl Statement for Items {
    const PURPOSE: Purpose = Purpose::Items;
}

impl Items {
    pub fn hash(&self, network: &crate::Network) -> Hash {
        Hash(self.digest(network))
    }

    pub fn sum(&self) -> Result<Yocto, AmountError> {
        Yocto::checked_sum(self.items.iter().map(|item| item.amount))
    }
}
