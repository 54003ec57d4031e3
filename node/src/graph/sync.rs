//! Following the contract's change log.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt as _, TryStreamExt as _, stream};
use parking_lot::RwLock;
use por_core::GraphEdge;
use por_types::interface::{ChannelView, MAX_PAGE, NodeView, method};
use tokio::sync::watch;

use super::{Graph, GraphError};
use crate::chain::{Chain, ChainError, MAX_RECORDS};

/// The graph as readers share it. Hold the lock for short, never across an await.
pub type SharedGraph = Arc<RwLock<Graph>>;

/// Tries before a graph that changes faster than it can be read is given up for this step.
const REREADS: u32 = 3;
/// Steps that wait for endpoints to come as far as an earlier run has seen the graph.
const LAGS: u32 = 5;
/// Pages that are asked for at a time.
const IN_FLIGHT: usize = 4;

/// What [`GraphSync`] tells those who wait for news.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GraphVersion {
    pub version: u64,
    pub chain_time_ms: u64,
    pub height: u64,
    /// Why the chain cannot be followed at the moment; `None` while all is well.
    pub error: Option<String>,
}

/// What one step brought.
#[derive(Clone, Debug, Default)]
pub struct SyncStep {
    /// Version of the graph after the step.
    pub version: u64,
    pub chain_time_ms: u64,
    /// Time of the block that the step began with, milliseconds since 1970; endpoints may go back in it.
    pub head_time_ms: u64,
    /// Edges that changed; all of them with the first graph and after a full read.
    pub edges: Vec<GraphEdge>,
    /// Nodes or channels changed.
    pub changed: bool,
    /// All of it was read anew.
    pub reread: bool,
}

/// Keeps a [`Graph`] up to date.
pub struct GraphSync {
    chain: Chain,
    graph: SharedGraph,
    version: watch::Sender<GraphVersion>,
    /// Whether chain and contract are known to be the expected ones.
    checked: bool,
    /// What an earlier run has kept, until it is known what became of it since.
    kept: Option<SharedGraph>,
    /// Steps in which no endpoint had come as far as that.
    lagged: u32,
}

impl GraphSync {
    pub fn new(chain: Chain) -> GraphSync {
        GraphSync {
            chain,
            graph: SharedGraph::default(),
            version: watch::Sender::default(),
            checked: true,
            kept: None,
            lagged: 0,
        }
    }

    /// Follows the log from a graph that was read before, if it reaches back so far.
    pub fn from_kept(chain: Chain, kept: Option<Graph>) -> GraphSync {
        GraphSync { kept: kept.map(|graph| Arc::new(RwLock::new(graph))), ..GraphSync::new(chain) }
    }

    /// For a chain that was not checked: the first step does it.
    pub(crate) fn unchecked(self) -> GraphSync {
        GraphSync { checked: false, ..self }
    }

    pub(crate) fn is_checked(&self) -> bool {
        self.checked
    }

    pub fn graph(&self) -> SharedGraph {
        self.graph.clone()
    }

    /// Sees every new version, and why there is none.
    pub fn watch(&self) -> watch::Receiver<GraphVersion> {
        self.version.subscribe()
    }

    /// Reads what changed since the last step. On an error the graph keeps what it has.
    pub async fn step(&mut self) -> Result<SyncStep, ChainError> {
        let result = self.try_step().await;
        let (version, chain_time_ms, height) = {
            let graph = self.graph.read();
            (graph.version(), graph.chain_time_ms(), graph.height())
        };
        let error = result.as_ref().err().map(ChainError::to_string);
        let news = GraphVersion { version, chain_time_ms, height, error };
        self.version.send_if_modified(|old| {
            let new = *old != news;
            *old = news;
            new
        });
        result
    }

    /// Steps every `interval`, handing each one that brought something (or a later block time) to
    /// `on_step`, until the task is dropped. Failures are shown by [`GraphSync::watch`].
    pub async fn run(mut self, interval: Duration, mut on_step: impl FnMut(SyncStep)) {
        let mut timer = tokio::time::interval(interval);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            timer.tick().await;
            match self.step().await {
                Ok(step) => on_step(step),
                Err(error) => tracing::warn!(%error, "the chain cannot be followed"),
            }
        }
    }

    async fn try_step(&mut self) -> Result<SyncStep, ChainError> {
        if !self.checked {
            self.chain.check().await?;
            self.checked = true;
        }
        let head = self.chain.head().await?;
        let mut step = SyncStep { head_time_ms: head.time_ms, ..SyncStep::default() };
        let mut rereads = 0;
        if !self.resume(&mut step).await? {
            loop {
                match follow(&self.chain, &self.graph, &mut step).await {
                    Ok(()) => break,
                    Err(Follow::Chain(error)) => return Err(error),
                    // The log does not reach back to what was read a moment ago.
                    Err(Follow::Graph(GraphError::Behind { .. })) if rereads >= REREADS => {
                        return Err(unlike("the graph changes faster than it can be read".to_owned()));
                    }
                    Err(Follow::Graph(GraphError::Backwards { .. })) => {
                        return Err(ChainError::Lagging { what: "the change log".to_owned() });
                    }
                    Err(Follow::Graph(GraphError::Behind { .. })) => {
                        rereads += 1;
                        let fresh = read_all(&self.chain).await?;
                        step.reread = true;
                        self.replace(fresh, &mut step);
                    }
                }
            }
        }
        let mut graph = self.graph.write();
        graph.observe_block(head.height, head.time_ms);
        step.version = graph.version();
        step.chain_time_ms = graph.chain_time_ms();
        Ok(step)
    }

    /// Goes on from what an earlier run has kept. False if there is nothing, or nothing that the log leads on
    /// from: then all is to be read. Nobody sees a graph of which it is not known what became of it.
    async fn resume(&mut self, step: &mut SyncStep) -> Result<bool, ChainError> {
        let Some(kept) = &self.kept else { return Ok(false) };
        match follow(&self.chain, kept, step).await {
            Ok(()) => {}
            // An endpoint that is some blocks behind gets there; a chain that began anew does not.
            Err(Follow::Chain(error @ ChainError::Lagging { .. })) if self.lagged < LAGS => {
                self.lagged += 1;
                return Err(error);
            }
            Err(Follow::Graph(_) | Follow::Chain(ChainError::Lagging { .. })) => {
                self.kept = None;
                step.edges.clear();
                return Ok(false);
            }
            Err(Follow::Chain(error)) => return Err(error),
        }
        if let Some(kept) = self.kept.take() {
            let graph = std::mem::take(&mut *kept.write());
            self.replace(graph, step);
        }
        Ok(true)
    }

    fn replace(&self, mut fresh: Graph, step: &mut SyncStep) {
        step.edges = fresh.edges();
        step.changed = true;
        let mut graph = self.graph.write();
        // Should the chain be away before the step ends: what time it was there is known.
        fresh.observe_block(graph.height(), graph.chain_time_ms());
        *graph = fresh;
    }
}

/// Reads up to the version that the first page names: what changes meanwhile is for the next step, so
/// that this one ends. Pages that bring nobody nearer are no answers of the contract.
async fn follow(chain: &Chain, graph: &SharedGraph, step: &mut SyncStep) -> Result<(), Follow> {
    let mut end = None;
    loop {
        let since = graph.read().version();
        let page = chain.changes(since, MAX_PAGE).await?;
        let end = *end.get_or_insert(page.version);
        step.changed |= !(page.nodes.is_empty() && page.channels.is_empty() && page.gone.is_empty());
        let edges = graph.write().apply(&page).map_err(Follow::Graph)?;
        step.edges.extend(edges);
        check_size(graph)?;
        if page.upto >= end {
            return Ok(());
        }
    }
}

/// No endpoint fills the memory with what it says.
fn check_size(graph: &SharedGraph) -> Result<(), ChainError> {
    let records = graph.read().records();
    if records > MAX_RECORDS {
        return Err(unlike(format!("the graph has {records} nodes or channels")));
    }
    Ok(())
}

/// Reads every page. The version is that before the first page: what changes while reading is
/// read again from the log.
async fn read_all(chain: &Chain) -> Result<Graph, ChainError> {
    let config = chain.config().await?;
    let pages = |records: u64| stream::iter((0..records).step_by(MAX_PAGE as usize));
    let mut nodes: Vec<NodeView> = Vec::new();
    let mut asked = pages(config.nodes).map(|from| chain.nodes(from, MAX_PAGE)).buffered(IN_FLIGHT);
    while let Some(page) = asked.try_next().await? {
        nodes.extend(page);
    }
    let mut channels: Vec<ChannelView> = Vec::new();
    let mut asked = pages(config.channels).map(|from| chain.channels(from, MAX_PAGE)).buffered(IN_FLIGHT);
    while let Some(page) = asked.try_next().await? {
        channels.extend(page);
        if channels.len() as u64 > MAX_RECORDS {
            return Err(unlike(format!("the graph has more than {MAX_RECORDS} channels")));
        }
    }
    Ok(Graph::from_pages(config.graph_version, &nodes, &channels))
}

/// What is said of the graph cannot be followed.
fn unlike(reason: String) -> ChainError {
    ChainError::Answer { method: method::CHANGES.to_owned(), reason }
}

enum Follow {
    Chain(ChainError),
    Graph(GraphError),
}

impl From<ChainError> for Follow {
    fn from(error: ChainError) -> Follow {
        Follow::Chain(error)
    }
}
