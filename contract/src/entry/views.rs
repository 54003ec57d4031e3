//! Views: the graph in pages and by version, single records, the books.

use near_sdk::near;
use por_types::interface::{
    AccountArgs, BooksView, ChangeKind, ChangesArgs, ChangesView, ChannelArgs, ChannelView, ConfigView,
    KeyArgs, MAX_PAGE, NeighbourView, NeighboursArgs, NodeView, PageArgs,
};
use por_types::{ChannelId, Yocto};

use super::now_ms;
use crate::args::args;
use crate::config::{CHANNEL_STORAGE, REGISTER_STORAGE};
use crate::{Contract, ContractExt};

#[near]
impl Contract {
    pub fn config(&self) -> ConfigView {
        ConfigView {
            state_version: self.version,
            chain_id: self.config.network.chain_id.clone(),
            owner: self.config.owner.clone(),
            treasury: self.config.treasury.clone(),
            params: self.config.params.clone().into(),
            test: self.config.test,
            graph_version: self.graph_version,
            nodes: u64::from(self.nodes),
            channels: self.channels,
            check_deposit: Yocto::ZERO,
            anchor: self.config.owner.clone(),
            attached_stake: Yocto::ZERO,
            checks: 0,
            governance_notice_ms: 0,
            next_params: None,
            next_code: None,
            register_storage: REGISTER_STORAGE,
            channel_storage: CHANNEL_STORAGE,
        }
    }

    pub fn node(&self) -> Option<NodeView> {
        let AccountArgs { account } = args();
        Self::node_view(Self::node_index(&account)?)
    }

    pub fn node_by_key(&self) -> Option<NodeView> {
        let KeyArgs { node_key } = args();
        Self::node_view(Self::node_index_by_key(&node_key)?)
    }

    pub fn channel(&self) -> Option<ChannelView> {
        let ChannelArgs { channel } = args();
        Self::channel_view(channel)
    }

    /// Nodes with index `from..from + limit`.
    pub fn nodes(&self) -> Vec<NodeView> {
        let PageArgs { from, limit } = args();
        let end = from.saturating_add(u64::from(limit.min(MAX_PAGE))).min(u64::from(self.nodes));
        (from..end).filter_map(|index| Self::node_view(u32::try_from(index).ok()?)).collect()
    }

    /// Channels with id `from..from + limit` that are not forgotten.
    pub fn channels(&self) -> Vec<ChannelView> {
        let PageArgs { from, limit } = args();
        let end = from.saturating_add(u64::from(limit.min(MAX_PAGE))).min(self.channels);
        (from..end).filter_map(|id| Self::channel_view(ChannelId(id))).collect()
    }

    /// Records that changed after version `since`, as they are now.
    pub fn changes(&self) -> ChangesView {
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
            oldest,
        };
        for change in self.changed(since, upto) {
            match change {
                ChangeKind::Node { index } => view.nodes.extend(Self::node_view(index)),
                ChangeKind::Channel { channel } => view.channels.extend(Self::channel_view(channel)),
            }
        }
        view
    }

    /// Neighbours of node `index` in the graph, from neighbour `from` on.
    pub fn neighbours(&self) -> Vec<NeighbourView> {
        let NeighboursArgs { index, from, limit } = args();
        Self::links_from(index, from, limit.min(MAX_PAGE) as usize)
    }

    pub fn withdrawable(&self) -> Yocto {
        let AccountArgs { account } = args();
        self.available(&account, now_ms())
    }

    pub fn books(&self) -> BooksView {
        self.books.view()
    }
}

impl Contract {
    fn node_view(index: u32) -> Option<NodeView> {
        Some(Self::try_node(index)?.view(index, now_ms()))
    }

    fn channel_view(id: ChannelId) -> Option<ChannelView> {
        Some(Self::try_channel(id)?.view(id))
    }
}
