//! Which index a new node gets: if possible one whose node has left, so that coming and going uses
//! up nothing that a check has to search or a closer has to pay for.
//!
//! What names nodes by index goes with them, but for two records that may outlive a node: the side
//! that a cooperative close cut off, and a proposal to a node that has left. For these the contract
//! remembers from when on a used index is its present node's ([`Tenure`]). Everything else that may
//! name a node - the search and the side of a check, operations that wait - is over before its index
//! is used again: an index is free only once the [clock](Contract::clock_ms) has passed the time at
//! which its node left.

use borsh::{BorshDeserialize, BorshSerialize};
use near_sdk::env;
use por_types::interface::{MAX_INDICES, code};
use por_types::{ChannelId, Yocto};

use crate::Contract;
use crate::config::{INDEX_STORAGE, REGISTER_STORAGE};
use crate::fail::{OrStop, require};
use crate::store::{self, Span, Table};

/// An index without a node.
#[derive(BorshSerialize, BorshDeserialize)]
struct Vacancy {
    index: u32,
    /// Block time at which its node left.
    at_ms: u64,
}

/// From when on an index that another node had before is its present node's; zero for the first.
#[derive(Default, BorshSerialize, BorshDeserialize)]
pub struct Tenure {
    /// Block time of the registration, later than all that the former node was part of.
    pub from_ms: u64,
    /// The first channel that was proposed later.
    from_channel: u64,
}

fn vacancies() -> Span {
    store::read(Table::Vacant, &[]).unwrap_or_default()
}

fn save_vacancies(span: Span) {
    if span.is_empty() {
        store::remove(Table::Vacant, &[]);
    } else {
        store::write(Table::Vacant, &[], &span);
    }
}

impl Contract {
    /// The index for a node that registers now.
    pub(crate) fn take_index(&mut self) -> u32 {
        let mut span = vacancies();
        if let Some(vacancy) = span.front::<Vacancy>(Table::Vacant)
            && vacancy.at_ms < self.clock_ms()
        {
            span.pop(Table::Vacant);
            save_vacancies(span);
            let tenure = Tenure { from_ms: env::block_timestamp_ms(), from_channel: self.channels };
            store::write(Table::Tenures, &vacancy.index.to_le_bytes(), &tenure);
            return vacancy.index;
        }
        require!(
            self.nodes < MAX_INDICES,
            code::FULL,
            "the network has {MAX_INDICES} nodes; register when one has left"
        );
        self.nodes += 1;
        self.nodes - 1
    }

    /// The node has left. Answers what it gets back of its storage deposit: the first to leave an
    /// index pays for the record that the index has from then on.
    pub(crate) fn vacate_index(&mut self, index: u32) -> Yocto {
        let paid = store::take::<Tenure>(Table::Tenures, &index.to_le_bytes()).is_some();
        let mut span = vacancies();
        span.push(Table::Vacant, &Vacancy { index, at_ms: env::block_timestamp_ms() });
        save_vacancies(span);
        let kept = if paid { Yocto::ZERO } else { INDEX_STORAGE };
        REGISTER_STORAGE.checked_sub(kept).or_stop()
    }

    pub(crate) fn tenure(index: u32) -> Tenure {
        store::read(Table::Tenures, &index.to_le_bytes()).unwrap_or_default()
    }

    /// Whether the index was its present node's when `channel` was proposed.
    pub(crate) fn had_index(index: u32, channel: ChannelId) -> bool {
        Self::tenure(index).from_channel <= channel.0
    }
}
