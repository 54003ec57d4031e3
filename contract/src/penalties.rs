//! Penalties that a partition may still have to reimburse (protocol section 7).

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::{ChannelId, Yocto};

use crate::Contract;
use crate::check::Smaller;
use crate::store::{self, Table};

#[derive(BorshSerialize, BorshDeserialize)]
pub struct Penalty {
    pub channel: ChannelId,
    pub a: u32,
    pub b: u32,
    /// What each end forfeited.
    pub half: Yocto,
    /// Block time from which on checks no longer count it, or no SeverOrder can come any more.
    pub until_ms: u64,
    /// False for a cooperative close: only a later SeverOrder makes a penalty of it.
    pub forfeited: bool,
}

/// How many entries at the front of the list a call takes off at most: more than it adds.
const TRIMMED: usize = 4;

impl Penalty {
    /// Whether a partition with this smaller side, found by the check of a close at `at_ms`,
    /// reimburses it.
    pub fn is_claimed(&self, at_ms: u64, side: &Smaller) -> bool {
        self.forfeited && !self.is_over(at_ms) && side.separates(self.a, self.b)
    }

    /// Whether nothing at `at_ms` or later, in the order of events, asks for it.
    pub fn is_over(&self, at_ms: u64) -> bool {
        at_ms >= self.until_ms
    }
}

impl Contract {
    /// Adds it to the list; answers its number.
    pub(crate) fn add_penalty(&mut self, penalty: &Penalty) -> u64 {
        self.trim_penalties();
        self.flow.penalties.push(Table::Penalties, penalty)
    }

    pub(crate) fn penalty(number: u64) -> Option<Penalty> {
        store::read(Table::Penalties, &number.to_le_bytes())
    }

    /// Removes it if it is still there.
    pub(crate) fn remove_penalty(&mut self, number: u64) {
        store::remove(Table::Penalties, &number.to_le_bytes());
        if number == self.flow.penalties.first {
            self.flow.penalties.first += 1;
        }
        self.trim_penalties();
    }

    /// Takes off the front of the list what has been removed or is over, a few at a time: the list is
    /// about as long as there are penalties in their window, whoever finalizes their channels or not.
    fn trim_penalties(&mut self) {
        let clock_ms = self.clock_ms();
        for _ in 0..TRIMMED {
            let first = self.flow.penalties.first;
            if self.flow.penalties.is_empty() {
                return;
            }
            match Self::penalty(first) {
                Some(penalty) if !penalty.is_over(clock_ms) => return,
                Some(_) => self.flow.penalties.pop(Table::Penalties),
                None => self.flow.penalties.first += 1,
            }
        }
    }
}
