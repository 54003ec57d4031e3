//! The smaller side of a partition.

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::{AccountId, ChannelId, Yocto};

use super::Job;
use crate::Contract;
use crate::bits::Bits;
use crate::store::{self, Table};

/// The smaller side that a cooperative close has cut off, for a SeverOrder that comes later.
#[derive(BorshSerialize, BorshDeserialize)]
pub struct CutRecord {
    side: Bits,
    /// Paid for this record by `closer`.
    pub storage: Yocto,
    pub closer: AccountId,
    /// Block time of the close. Zero in a record of former code, under which no index was used again.
    at_ms: u64,
}

/// Bytes that records of former code are short of.
const ADDED: usize = 8;

impl CutRecord {
    /// Of the check of a close.
    pub fn new(side: Bits, storage: Yocto, job: &Job) -> CutRecord {
        CutRecord { side, storage, closer: job.closer.clone(), at_ms: job.at_ms }
    }

    pub fn read(channel: ChannelId) -> Option<CutRecord> {
        store::read_grown(Table::Cuts, &channel.0.to_le_bytes(), ADDED)
    }

    pub fn write(&self, channel: ChannelId) {
        store::write(Table::Cuts, &channel.0.to_le_bytes(), self);
    }

    /// Reads it and removes it.
    pub fn take(channel: ChannelId) -> Option<CutRecord> {
        let cut = Self::read(channel)?;
        store::remove(Table::Cuts, &channel.0.to_le_bytes());
        Some(cut)
    }

    pub fn side(self) -> Smaller {
        Smaller { nodes: self.side, at_ms: self.at_ms }
    }
}

/// The nodes of the smaller side as of a close.
#[derive(Default)]
pub struct Smaller {
    pub nodes: Bits,
    /// Block time of the close.
    pub at_ms: u64,
}

impl Smaller {
    pub fn has(&self, node: u32) -> bool {
        self.nodes.has(node)
    }

    /// Whether the two are on different sides.
    pub fn separates(&self, a: u32, b: u32) -> bool {
        self.has(a) != self.has(b)
    }

    /// A late order finds the side as it was: a member may have left since, without any stake, and
    /// another node may have its index.
    pub fn still_has(&self, node: u32) -> bool {
        Contract::tenure(node).from_ms <= self.at_ms
    }
}
