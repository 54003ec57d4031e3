//! Penalties that a partition may still have to reimburse (protocol section 7).

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::{ChannelId, Yocto};

use crate::Contract;
use crate::store::{self, Table};

#[derive(BorshSerialize, BorshDeserialize)]
pub struct Penalty {
    pub channel: ChannelId,
    pub a: u32,
    pub b: u32,
    /// What each end forfeited.
    pub half: Yocto,
    /// Checks from this time on no longer count it.
    pub until_ms: u64,
    /// False for a cooperative close: only a later SeverOrder makes a penalty of it.
    pub forfeited: bool,
}

impl Contract {
    pub(crate) fn add_penalty(&mut self, penalty: &Penalty) -> u64 {
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
        self.skip_removed();
    }

    /// Lets the span begin with a penalty that exists, a few holes at a time.
    fn skip_removed(&mut self) {
        for _ in 0..4 {
            let first = self.flow.penalties.first;
            if self.flow.penalties.is_empty() || Self::penalty(first).is_some() {
                return;
            }
            self.flow.penalties.first += 1;
        }
    }
}
