//! Views: the graph in pages and by version, single records, the books.

use near_sdk::near;
use por_types::interface::{
    AccountArgs, AttachmentView, ChangeKind, ChangesArgs, ChangesView, ChannelArgs, ChannelView, CheckView,
    ChecksView, ConfigView, DowntimeArgs, DowntimeView, KeyArgs, MAX_PAGE, NeighboursArgs, NextCode,
    NextParams, NodeView, PageArgs, code,
};
use por_types::{ChannelId, Hash};

use super::now_ms;
use crate::answers::answer;
use crate::args::args;
use crate::config::{CHANNEL_STORAGE, REGISTER_STORAGE};
use crate::fail::require;
use crate::{Contract, ContractExt};

#[near]
impl Contract {
    pub fn config(&self) {
        let view = ConfigView {
            state_version: self.version,
            chain_id: self.config.network.chain_id.clone(),
            owner: self.config.owner.clone(),
            treasury: self.config.treasury.clone(),
            params: self.params().clone().into(),
            test: self.config.test,
            graph_version: self.graph_version,
            nodes: u64::from(self.nodes),
            channels: self.channels,
            check_deposit: self.check_deposit(),
            anchor: self.governance.anchor.clone(),
            attached_stake: self.flow.attached_stake,
            checks: self.flow.checks,
            governance_notice_ms: self.governance_notice_ms(),
            next_params: self.next_params(),
            next_code: self.next_code(),
            register_storage: REGISTER_STORAGE,
            channel_storage: CHANNEL_STORAGE,
        };
        answer(&view);
    }

    pub fn node(&self) {
        let AccountArgs { account } = args();
        answer(&Self::node_index(&account).and_then(|index| self.node_view(index)));
    }

    pub fn node_by_key(&self) {
        let KeyArgs { node_key } = args();
        answer(&Self::node_index_by_key(&node_key).and_then(|index| self.node_view(index)));
    }

    pub fn channel(&self) {
        let ChannelArgs { channel } = args();
        answer(&Self::channel_view(channel));
    }

    /// Nodes with index `from..from + limit`.
    pub fn nodes(&self) {
        let PageArgs { from, limit } = args();
        let end = from.saturating_add(u64::from(limit.min(MAX_PAGE))).min(u64::from(self.nodes));
        let nodes = (from..end).filter_map(|index| self.node_view(u32::try_from(index).ok()?));
        answer(&nodes.collect::<Vec<_>>());
    }

    /// Channels with id `from..from + limit` that are not forgotten.
    pub fn channels(&self) {
        let PageArgs { from, limit } = args();
        let end = from.saturating_add(u64::from(limit.min(MAX_PAGE))).min(self.channels);
        let channels = (from..end).filter_map(|id| Self::channel_view(ChannelId(id)));
        answer(&channels.collect::<Vec<_>>());
    }

    /// Records that changed after version `since`, as they are now.
    pub fn changes(&self) {
        let ChangesArgs { since, limit } = args();
        let oldest = self.oldest_version();
        let behind = since.saturating_add(1) < oldest;
        let span = if behind { 0 } else { u64::from(limit.min(MAX_PAGE)) };
        let upto = since.saturating_add(span).min(self.graph_version);
        let mut view = ChangesView {
            version: self.graph_version,
            upto,
            nodes: Vec::new(),
            channels: Vec::new(),
            gone: Vec::new(),
            oldest,
        };
        for change in self.changed(since, upto) {
            let found = match change {
                ChangeKind::Node { index } => self.node_view(index).map(|node| view.nodes.push(node)),
                ChangeKind::Channel { channel } => {
                    Self::channel_view(channel).map(|channel| view.channels.push(channel))
                }
            };
            if found.is_none() {
                view.gone.push(change);
            }
        }
        answer(&view);
    }

    /// Neighbours of node `index` in the graph, from neighbour `from` on.
    pub fn neighbours(&self) {
        let NeighboursArgs { index, from, limit } = args();
        answer(&Self::links_from(index, from, limit.min(MAX_PAGE) as usize));
    }

    pub fn withdrawable(&self) {
        let AccountArgs { account } = args();
        answer(&self.available(&account));
    }

    /// Since when a node is attached, for contracts on top.
    pub fn attachment(&self) {
        let AccountArgs { account } = args();
        let node = Self::node_index(&account).map(Self::load_node);
        answer(&node.map(|node| AttachmentView {
            attached_since_ms: node.attached_since_ms,
            final_until_ms: self.clock_ms(),
        }));
    }

    /// How long a node was not attached, for contracts on top.
    pub fn downtime(&self) {
        let DowntimeArgs { account, from_ms, to_ms } = args();
        require!(from_ms <= to_ms, code::ARGUMENT, "from_ms is after to_ms; exchange them");
        let node = Self::node_index(&account).map(Self::load_node);
        answer(&node.map(|node| DowntimeView {
            downtime_ms: to_ms - from_ms - node.attached_within(from_ms, to_ms, now_ms()),
            complete: from_ms >= node.later.forgotten_ms,
            final_until_ms: self.clock_ms(),
        }));
    }

    pub fn checks(&self) {
        let view = ChecksView {
            checks: self.flow.checks,
            waiting: self.flow.waiting(),
            head: self.head_job().map(|job| CheckView {
                channel: job.channel,
                a: job.a,
                b: job.b,
                closed_ms: job.at_ms,
                reward: job.prepaid,
            }),
        };
        answer(&view);
    }

    pub fn books(&self) {
        answer(&self.books.view());
    }
}

impl Contract {
    fn next_params(&self) -> Option<NextParams> {
        let (params, from_ms) = self.governance.next_params.clone()?;
        (now_ms() < from_ms).then(|| NextParams { params: params.into(), from_ms })
    }

    fn next_code(&self) -> Option<NextCode> {
        let (hash, from_ms) = self.governance.next_code?;
        Some(NextCode { code_hash: Hash(hash), from_ms })
    }

    fn node_view(&self, index: u32) -> Option<NodeView> {
        Some(Self::try_node(index)?.view(index, self.clock_ms()))
    }

    fn channel_view(id: ChannelId) -> Option<ChannelView> {
        Self::try_channel(id)?.view(id)
    }
}
