//! Views: the graph in pages and by version, single records, the books.

use near_sdk::near;
use por_types::interface::{
    BooksView, ChangeKind, ChangesView, ChannelView, ConfigView, MAX_PAGE, NeighbourView, NodeView,
};
use por_types::{AccountId, ChannelId, NodeKey, Yocto};

use super::now_ms;
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
            register_storage: REGISTER_STORAGE,
            channel_storage: CHANNEL_STORAGE,
        }
    }

    pub fn node(&self, account: AccountId) -> Option<NodeView> {
        Self::node_view(Self::node_index(&account)?)
    }

    pub fn node_by_key(&self, node_key: NodeKey) -> Option<NodeView> {
        Self::node_view(Self::node_index_by_key(&node_key)?)
    }

    pub fn channel(&self, channel: ChannelId) -> Option<ChannelView> {
        Self::channel_view(channel)
    }

    /// Nodes with index `from..from + limit`.
    pub fn nodes(&self, from: u64, limit: u32) -> Vec<NodeView> {
        let end = from.saturating_add(u64::from(limit.min(MAX_PAGE))).min(u64::from(self.nodes));
        (from..end).filter_map(|index| Self::node_view(u32::try_from(index).ok()?)).collect()
    }

    /// Channels with id `from..from + limit` that are not forgotten.
    pub fn channels(&self, from: u64, limit: u32) -> Vec<ChannelView> {
        let end = from.saturating_add(u64::from(limit.min(MAX_PAGE))).min(self.channels);
        (from..end).filter_map(|id| Self::channel_view(ChannelId(id))).collect()
    }

    /// Records that changed after version `since`, as they are now.
    pub fn changes(&self, since: u64, limit: u32) -> ChangesView {
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
    pub fn neighbours(&self, index: u32, from: u32, limit: u32) -> Vec<NeighbourView> {
        Self::links_from(index, from, limit.min(MAX_PAGE) as usize)
    }

    pub fn withdrawable(&self, account: AccountId) -> Yocto {
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
