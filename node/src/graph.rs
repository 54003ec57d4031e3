//! This node's copy of the graph on chain, kept up by the contract's change log.

mod kept;
mod links;
mod sync;

use std::collections::HashMap;

use por_core::GraphEdge;
use por_types::interface::{ChangeKind, ChangesView, ChannelStatus, ChannelView, NodeView};
use por_types::{AccountId, ChannelId, NodeKey};

use links::Links;

pub(crate) use kept::KeptGraph;
pub(crate) use links::{Link, Outline};
pub use sync::{GraphSync, GraphVersion, SharedGraph, SyncStep};

/// Nodes and channels at one version of the contract's graph.
///
/// Nodes have small dense numbers inside, so that a search touches arrays only, and what it reads
/// of the open channels lies flat beside the records. Channels are found by id and by either end.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    version: u64,
    chain_time_ms: u64,
    height: u64,
    nodes: Vec<Vertex>,
    by_key: HashMap<NodeKey, u32>,
    by_account: HashMap<AccountId, u32>,
    by_index: HashMap<u32, u32>,
    links: Links,
    edges: Vec<Edge>,
    by_channel: HashMap<ChannelId, u32>,
    /// Channels that were forgotten: others have moved then.
    forgotten: u64,
}

/// A node that is registered or an end of a channel.
#[derive(Clone, Debug)]
struct Vertex {
    key: NodeKey,
    view: Option<NodeView>,
    /// Its channels, open or not, by their place in `edges`.
    channels: Vec<u32>,
}

/// A channel of the graph.
#[derive(Clone, Debug)]
pub struct Edge {
    pub view: ChannelView,
    /// Requests may use it: confirmed on chain, not severed, no close announced.
    pub open: bool,
    pub(crate) a: u32,
    pub(crate) b: u32,
}

impl Edge {
    /// Each end's, with its place.
    fn links(&self) -> [(u32, Link); 2] {
        let link = |to| Link::new(self.view.channel, &self.view.terms, to);
        [(self.a, link(self.b)), (self.b, link(self.a))]
    }

    fn to_core(&self) -> GraphEdge {
        GraphEdge {
            channel: self.view.channel,
            a: self.view.key_a,
            b: self.view.key_b,
            terms: self.view.terms.clone(),
            open: self.open,
        }
    }
}

/// The change log cannot be applied; the graph is as it was.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum GraphError {
    /// Read all pages again.
    #[error("the change log starts at version {oldest}, this copy is at {have}")]
    Behind { have: u64, oldest: u64 },
    /// Ask another endpoint, or again.
    #[error("the answer goes back to version {found} from {have}")]
    Backwards { have: u64, found: u64 },
}

/// True while requests may use a channel in this state (protocol section 6).
pub fn is_open(status: &ChannelStatus) -> bool {
    matches!(status, ChannelStatus::Open | ChannelStatus::Closing { confirmed: false, .. })
}

/// True once nothing is left to finalize.
pub fn is_over(status: &ChannelStatus) -> bool {
    matches!(status, ChannelStatus::Closed { bonds_until_ms: None, .. } | ChannelStatus::Cancelled)
}

impl Graph {
    /// Version of the contract's graph that this copy has.
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Block time last seen, milliseconds since 1970; 0 before the first.
    pub fn chain_time_ms(&self) -> u64 {
        self.chain_time_ms
    }

    /// Height of the block last seen.
    pub fn height(&self) -> u64 {
        self.height
    }

    /// Registered nodes known.
    pub fn node_count(&self) -> usize {
        self.nodes.iter().filter(|node| node.view.is_some()).count()
    }

    /// Channels known, open or not.
    pub fn channel_count(&self) -> usize {
        self.edges.len()
    }

    /// Nodes or channels kept, whichever are more.
    pub(crate) fn records(&self) -> u64 {
        self.nodes.len().max(self.edges.len()) as u64
    }

    /// Notes a block; heights and times that go back are ignored.
    pub fn observe_block(&mut self, height: u64, time_ms: u64) {
        self.height = self.height.max(height);
        self.chain_time_ms = self.chain_time_ms.max(time_ms);
    }

    /// Applies one page of the change log. Work is proportional to the page. Returns the edges
    /// that changed.
    pub fn apply(&mut self, changes: &ChangesView) -> Result<Vec<GraphEdge>, GraphError> {
        if changes.version < self.version || changes.upto < self.version {
            let found = changes.version.min(changes.upto);
            return Err(GraphError::Backwards { have: self.version, found });
        }
        if self.version.saturating_add(1) < changes.oldest && changes.version > self.version {
            return Err(GraphError::Behind { have: self.version, oldest: changes.oldest });
        }
        for node in &changes.nodes {
            self.put_node(node);
        }
        let mut changed: Vec<GraphEdge> =
            changes.channels.iter().map(|channel| self.put_channel(channel)).collect();
        for gone in &changes.gone {
            match gone {
                ChangeKind::Node { index } => self.forget_node(*index),
                ChangeKind::Channel { channel } => {
                    let known = self.edge(*channel).map(Edge::to_core);
                    changed.extend(known.map(|edge| GraphEdge { open: false, ..edge }));
                    self.forget(*channel);
                }
            }
        }
        self.version = changes.upto;
        Ok(changed)
    }

    /// A graph of whole pages that were read while the contract was at `version` or later.
    /// Applying the changes since `version` brings it up to date whatever changed meanwhile.
    pub fn from_pages(version: u64, nodes: &[NodeView], channels: &[ChannelView]) -> Graph {
        let mut graph = Graph { version, ..Graph::default() };
        for node in nodes {
            graph.put_node(node);
        }
        for channel in channels {
            graph.record(channel);
        }
        let open = graph.edges.iter().filter(|edge| edge.open);
        graph.links = Links::new(graph.nodes.len(), open.flat_map(Edge::links));
        graph
    }

    fn put_node(&mut self, view: &NodeView) {
        let at = self.vertex(view.node_key);
        self.by_account.insert(view.account.clone(), at);
        // That its former holder has left may be further on in the log.
        if let Some(former) = self.by_index.insert(view.index, at) {
            self.nodes[former as usize].view.take_if(|known| known.index == view.index);
        }
        self.nodes[at as usize].view = Some(view.clone());
    }

    fn put_channel(&mut self, view: &ChannelView) -> GraphEdge {
        let place = self.record(view);
        let edge = &self.edges[place as usize];
        if edge.open {
            for (end, link) in edge.links() {
                self.links.insert(end, link);
            }
        }
        edge.to_core()
    }

    /// Takes over what the chain says of a channel, and what was open of it before out of the links.
    /// Returns its place.
    fn record(&mut self, view: &ChannelView) -> u32 {
        let (a, b) = (self.vertex(view.key_a), self.vertex(view.key_b));
        let edge = Edge { view: view.clone(), open: is_open(&view.status), a, b };
        match self.by_channel.get(&view.channel) {
            Some(&place) => {
                let old = std::mem::replace(&mut self.edges[place as usize], edge);
                if old.open {
                    self.unlink(&old);
                }
                if (old.a, old.b) != (a, b) {
                    self.detach(place, &old);
                    self.attach(place, a, b);
                }
                place
            }
            None => {
                let place = self.edges.len() as u32;
                self.edges.push(edge);
                self.by_channel.insert(view.channel, place);
                self.attach(place, a, b);
                place
            }
        }
    }

    fn unlink(&mut self, edge: &Edge) {
        for end in [edge.a, edge.b] {
            self.links.remove(end, edge.view.channel);
        }
    }

    fn attach(&mut self, place: u32, a: u32, b: u32) {
        for end in [a, b] {
            self.nodes[end as usize].channels.push(place);
        }
    }

    fn detach(&mut self, place: u32, edge: &Edge) {
        for end in [edge.a, edge.b] {
            self.nodes[end as usize].channels.retain(|&other| other != place);
        }
    }

    /// Removes a channel whose record is no longer on chain.
    pub fn forget(&mut self, channel: ChannelId) {
        let Some(place) = self.by_channel.remove(&channel) else { return };
        self.forgotten += 1;
        let last = (self.edges.len() - 1) as u32;
        let gone = self.edges.swap_remove(place as usize);
        if gone.open {
            self.unlink(&gone);
        }
        self.detach(place, &gone);
        // The last edge has taken its place.
        let Some(moved) = self.edges.get(place as usize) else { return };
        self.by_channel.insert(moved.view.channel, place);
        for end in [moved.a, moved.b] {
            for other in self.nodes[end as usize].channels.iter_mut().filter(|other| **other == last) {
                *other = place;
            }
        }
    }

    /// The node that had this index has left; a vertex without a node stays.
    fn forget_node(&mut self, index: u32) {
        if let Some(at) = self.by_index.remove(&index) {
            self.nodes[at as usize].view.take_if(|known| known.index == index);
        }
    }

    fn vertex(&mut self, key: NodeKey) -> u32 {
        if let Some(&at) = self.by_key.get(&key) {
            return at;
        }
        let at = self.nodes.len() as u32;
        self.nodes.push(Vertex { key, view: None, channels: Vec::new() });
        self.links.add_node();
        self.by_key.insert(key, at);
        at
    }

    pub fn edge(&self, channel: ChannelId) -> Option<&Edge> {
        self.edges.get(*self.by_channel.get(&channel)? as usize)
    }

    /// All edges as the protocol core takes them.
    pub fn edges(&self) -> Vec<GraphEdge> {
        self.edges.iter().map(Edge::to_core).collect()
    }

    /// All channels in which `key` is an end, open or not.
    pub fn channels_of(&self, key: &NodeKey) -> Vec<&ChannelView> {
        let Some(at) = self.place_of(key) else { return Vec::new() };
        let places = self.nodes[at as usize].channels.iter();
        places.map(|&place| &self.edges[place as usize].view).collect()
    }

    /// The registered node with this key.
    pub fn node(&self, key: &NodeKey) -> Option<&NodeView> {
        self.nodes.get(*self.by_key.get(key)? as usize)?.view.as_ref()
    }

    pub fn node_of_account(&self, account: &AccountId) -> Option<&NodeView> {
        self.nodes.get(*self.by_account.get(account)? as usize)?.view.as_ref()
    }

    /// The node with this index of the contract.
    pub fn node_at(&self, index: u32) -> Option<&NodeView> {
        let node = self.nodes.get(*self.by_index.get(&index)? as usize)?.view.as_ref();
        node.filter(|node| node.index == index)
    }

    /// All registered nodes.
    pub fn nodes(&self) -> impl Iterator<Item = &NodeView> {
        self.nodes.iter().filter_map(|node| node.view.as_ref())
    }

    pub(crate) fn place_of(&self, key: &NodeKey) -> Option<u32> {
        self.by_key.get(key).copied()
    }

    /// Places of nodes are below this.
    pub(crate) fn places(&self) -> usize {
        self.nodes.len()
    }

    pub(crate) fn key_at(&self, at: u32) -> NodeKey {
        self.nodes[at as usize].key
    }

    /// Open channels at a node.
    pub(crate) fn links_of(&self, at: u32) -> &[Link] {
        self.links.of(at)
    }

    /// The same about, in the same order.
    pub(crate) fn outlines_of(&self, at: u32) -> &[Outline] {
        self.links.outlines_of(at)
    }
}

#[cfg(test)]
mod tests;
