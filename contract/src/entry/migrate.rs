//! Taking over a state of an older version.
//!
//! Until it is done the root state stays as it was, so that no other method can read it, and
//! progress has a record of its own.

use borsh::{BorshDeserialize, BorshSerialize};
use near_sdk::{env, near};
use por_types::ChannelId;
use por_types::interface::{MigrateArgs, code};

use super::{account, now_ms};
use crate::adjacency;
use crate::answers::answer;
use crate::args::args;
use crate::books::Books;
use crate::budget::Budget;
use crate::channel::Status;
use crate::config::{Config, Governance};
use crate::fail::{fail, require};
use crate::flow::Flow;
use crate::penalties::Penalty;
use crate::store::{self, Table};
use crate::{CURRENT, Contract, ContractExt};

/// The root state of version 1.
#[derive(BorshSerialize, BorshDeserialize)]
struct First {
    version: u32,
    config: Config,
    books: Books,
    nodes: u32,
    channels: u64,
    graph_version: u64,
}

#[derive(BorshSerialize, BorshDeserialize)]
struct Progress {
    flow: Flow,
    node: u32,
    channel: u64,
}

#[near]
impl Contract {
    /// Brings the stored state to the version of this code; changes nothing if it is. Called by
    /// the account itself after a deployment, then by anyone until it is done. Answers whether
    /// it is.
    pub fn migrate() {
        let MigrateArgs { limit } = args();
        // near-sdk refuses deposits only where a method changes a state that it has loaded.
        require!(
            env::attached_deposit().is_zero(),
            code::ARGUMENT,
            "migrate doesn't accept deposit; attach nothing"
        );
        let Some(bytes) = env::storage_read(b"STATE") else {
            fail!(code::STATE_VERSION, "there is no state; call new");
        };
        let version = bytes.first_chunk().map_or(0, |head| u32::from_le_bytes(*head));
        let progress: Option<Progress> = store::read(Table::Migration, &[]);
        require!(
            progress.is_some() || env::predecessor_account_id() == env::current_account_id(),
            code::NOT_ALLOWED,
            "only the contract itself begins a migration; upgrade it"
        );
        if version == CURRENT {
            return answer(&true);
        }
        let first = First::try_from_slice(&bytes);
        let (1, Ok(first)) = (version, first) else {
            fail!(
                code::STATE_VERSION,
                "the state is of version {version}, this code knows 1 to {CURRENT}; deploy code that migrates it"
            );
        };
        let done = Contract::from_first(first, progress).convert(limit.unwrap_or(u32::MAX));
        answer(&done);
    }
}

/// A state on its way to the current version.
struct Conversion {
    contract: Contract,
    node: u32,
    channel: u64,
}

impl Contract {
    fn from_first(first: First, progress: Option<Progress>) -> Conversion {
        let progress = progress.unwrap_or_else(|| Progress { flow: Flow::new(), node: 0, channel: 0 });
        let anchor = first.config.owner.clone();
        let contract = Contract {
            version: CURRENT,
            config: first.config,
            books: first.books,
            nodes: first.nodes,
            channels: first.channels,
            graph_version: first.graph_version,
            governance: Governance { anchor, next_params: None, next_code: None },
            flow: progress.flow,
        };
        Conversion { contract, node: progress.node, channel: progress.channel }
    }
}

impl Conversion {
    /// Converts up to `limit` channels, and as much as the gas allows; true when all is done.
    fn convert(mut self, limit: u32) -> bool {
        let budget = Budget::of_call(self.contract.nodes, None);
        while self.node < self.contract.nodes && budget.lasts(0) {
            self.contract.convert_node(self.node);
            self.node += 1;
        }
        let mut left = limit;
        while self.channel < self.contract.channels && left > 0 && budget.lasts(0) {
            self.contract.convert_channel(ChannelId(self.channel));
            self.channel += 1;
            left -= 1;
        }
        let done = self.node == self.contract.nodes && self.channel == self.contract.channels;
        if done {
            store::remove(Table::Migration, &[]);
            env::state_write(&self.contract);
        } else {
            let flow = self.contract.flow.clone();
            let progress = Progress { flow, node: self.node, channel: self.channel };
            store::write(Table::Migration, &[], &progress);
        }
        done
    }
}

impl Contract {
    /// The old graph of the node's group goes; stake that is not active yet gets its place in
    /// the order of time; the anchor is attached.
    fn convert_node(&mut self, index: u32) {
        /// Nodes per record of the old graph.
        const GROUP: u32 = 512;
        if index.is_multiple_of(GROUP) {
            store::remove(Table::OldGroups, &(index / GROUP).to_le_bytes());
        }
        for group in 0..=(self.nodes - 1) / GROUP {
            let mut page = [0; 8];
            page[..4].copy_from_slice(&index.to_le_bytes());
            page[4..].copy_from_slice(&group.to_le_bytes());
            store::remove(Table::OldPages, &page);
        }
        self.ripen_later(index, now_ms() + self.params().activation_ms);
        let owner = account(self.governance.anchor.as_str());
        if Self::load_node(index).account == owner {
            self.flow.anchor = Some(index);
            self.with_node(index, |node, _| node.attached_since_ms = Some(now_ms()));
        }
    }

    /// Its edge enters the new graph, its nodes count it, its penalty is listed.
    fn convert_channel(&mut self, id: ChannelId) {
        let Some(mut channel) = Self::try_channel(id) else { return };
        self.with_node(channel.a, |node, _| node.later.channels += 1);
        if !matches!(channel.status, Status::Proposed | Status::Cancelled) {
            self.with_node(channel.b, |node, _| node.later.channels += 1);
        }
        let (until_ms, forfeited) = match channel.status {
            Status::Open { .. } | Status::Closing { .. } => return adjacency::link(channel.a, channel.b),
            Status::Severed { held_until_ms, .. } => (held_until_ms, true),
            Status::Closed { held_until_ms: Some(until), severed, .. } => (until, severed),
            _ => return,
        };
        let (a, b, half) = (channel.a, channel.b, channel.bond);
        let penalty = Penalty { channel: id, a, b, half, until_ms, forfeited };
        channel.penalty = Some(self.add_penalty(&penalty));
        Self::save_channel(id, &channel);
    }
}
