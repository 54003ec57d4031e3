//! The daemon: one process that owns the store, the keys and the nonces of a home.
//!
//! ```text
//!   API (api/)   SDK (sdk.rs)
//!        └────┬─────┘
//!          Daemon ── Requester: route, pay, wait, re-route
//!             │   ── Apps: requests for served apps, leases
//!             │   ── Channels: chain <-> ledger
//!             │   ── keeper: attachment, pending partition checks
//!             │   ── graph task: change log -> routes and protocol
//!        Control ── Driver ── store
//!                      └───── swarm
//! ```
//!
//! Every part runs in a task of its own. When one fails, all stop and the cause is reported; the
//! store is closed last.

mod actions;
mod apps;
mod clock;
mod incoming;
mod keeper;
mod known;
mod news;
mod orders;
mod providers;
mod pursuit;
mod requester;
mod seen;
mod supervisor;

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p_por::Control;
use parking_lot::Mutex;
use por_core::Limits;
use por_types::interface::ConfigView;
use por_types::{AccountId, ChannelId, Network, NodeKey, SeverOrder, Signed, Yocto};
use tokio::sync::{Notify, watch};

use crate::alarm::Alarm;
use crate::chain::{Chain, ChainConfig, ChainError};
use crate::channels::{Channels, Parts};
use crate::client::{
    Announced, ApiRequest, ApiResponse, ClientError, ErrorCode, GraphEdgeInfo, GraphInfo, PeerInfo, Status,
    TowerStatus, Traffic,
};
use crate::config::Config;
use crate::exit::CliError;
use crate::graph::{GraphSync, GraphVersion, KeptGraph, SharedGraph, is_over};
use crate::home::Home;
use crate::keys::NodeSetup;
use crate::seal::{self, Context, SealError};
use crate::store::{NodeStore, StoreIdentity};
use crate::swarm::{self, SwarmConfig, SwarmHandle};
use crate::watch::{check as check_with_towers, keep_handing_over};

pub(crate) use apps::Apps;
pub(crate) use known::Known;
use known::{Connected, Memory};
pub(crate) use supervisor::{API_TASK, Stop, Supervisor, failure};

use incoming::Opener;
use requester::Requester;

/// Tasks that a thread runs before it looks for bytes that have arrived. Where threads never rest, a request
/// of somebody new waits for as many turns; tokio's 61 make some 20 ms of it.
const TASKS_BETWEEN_IO: u32 = 2;

/// The executor of a process with a node in it, to be built.
pub fn executor() -> tokio::runtime::Builder {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    builder.enable_all().event_interval(TASKS_BETWEEN_IO);
    builder
}

/// How often the change log is read: on a local chain, and elsewhere.
const SYNC_INTERVAL: (Duration, Duration) = (Duration::from_millis(250), Duration::from_millis(1000));
/// How long the status waits for the chain: who asks for it wants to know what is wrong.
const STATUS_PATIENCE: Duration = Duration::from_secs(3);
/// Most edges in the answer of `GET /v1/graph`.
const MAX_GRAPH_EDGES: usize = 10_000;
/// Bytes of a request's label: it is kept for as long as the news.
const MAX_LABEL: usize = 64;

/// Everything that the API and the SDK work with.
pub(crate) struct Daemon {
    pub network: Network,
    pub node_key: NodeKey,
    pub account: AccountId,
    pub limits: Limits,
    pub secret: por_types::NodeSecret,
    pub control: Control,
    pub store: NodeStore,
    pub chain: Chain,
    pub graph: SharedGraph,
    pub versions: watch::Receiver<GraphVersion>,
    pub swarm: SwarmHandle,
    pub channels: Channels,
    pub apps: Apps,
    pub opener: Opener,
    pub requester: Requester,
    pub traffic: Arc<Mutex<Traffic>>,
    pub news: Arc<news::Bulletin>,
    /// Orders on their way to the chain.
    pub orders: Mutex<BTreeMap<ChannelId, Signed<SeverOrder>>>,
    /// How handing over to each watchtower goes.
    pub towers: Mutex<BTreeMap<libp2p::Multiaddr, TowerStatus>>,
    /// What is wrong with this machine's clock or the chain's, if anything.
    pub clock: Mutex<Option<String>>,
    /// What the protocol was told that lateness costs, per request and millisecond.
    pub late_fee: Mutex<Yocto>,
    /// Makes the graph task look at the chain now.
    pub sync_now: Arc<Notify>,
    /// What the swarm announces and the store holds; locked while one of them changes, so that they agree.
    announced: tokio::sync::Mutex<HashSet<[u8; 32]>>,
    started: Instant,
}

/// Runs the daemon of a home until `shutdown` resolves or a part of it fails; then everything is
/// durable and the store closed.
///
/// Errors: those of [`crate::sdk::Node::start`], and why a running daemon had to stop.
pub async fn run(setup: NodeSetup, shutdown: impl Future<Output = ()>) -> Result<(), CliError> {
    outlive_file_limits();
    let home = setup.home.data_dir().to_owned();
    let mut node = crate::sdk::Node::start(setup).await?;
    for addr in node.listening() {
        tracing::info!("listening on {addr}");
    }
    tracing::info!(node = %node.key(), api = %node.api_addr(), home = %home.display(), "the node runs");
    let failed = tokio::select! {
        result = node.stopped() => Some(result),
        () = shutdown => None,
    };
    match failed {
        Some(result) => Ok(result?),
        None => {
            tracing::info!("stopping");
            Ok(node.shutdown().await?)
        }
    }
}

/// Longest wait until neighbours are told what has ended, and the time for the last of it to get to the sockets.
const LEAVE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_millis(50));

/// A limit on the size of files is met like a full disk, by an error: without a handler the signal for
/// it ends the process without a word. Handlers of tokio stay for the life of the process.
pub(crate) fn outlive_file_limits() {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        if let Err(error) = signal(SignalKind::from_raw(libc::SIGXFSZ)) {
            tracing::warn!(%error, "a limit on the size of files would end the node at once");
        }
    }
}

/// Starts everything but the API. On an error nothing keeps running.
pub(crate) async fn start(setup: &NodeSetup) -> Result<(Arc<Daemon>, Supervisor), ClientError> {
    let NodeSetup { home, config, keys, .. } = setup;
    let network = config.network();
    let identity = StoreIdentity { network: network.clone(), node_key: keys.node.public() };
    let store = open_store(home.store_file(), identity.clone()).await?;
    let limits = Limits::default();
    let por = libp2p_por::Config::new(network.clone())
        .with_limits(limits.clone())
        .with_policy(config.policy.core())
        .with_seed(rand::random())
        .with_redial(Some((Duration::from_millis(200), Duration::from_secs(30))));
    let (behaviour, control, driver) =
        libp2p_por::new(por, keys.node.clone(), store.ledger()).map_err(protocol_error)?;
    let (swarm, swarm_task) =
        swarm::start(&swarm_config(config, &setup.home), &keys.node, behaviour)
            .await
            .map_err(|error| ClientError::new(error.code(), error.to_string(), "").in_two_lines())?;
    let mut chain_config = ChainConfig::new(&config.network, config.account.clone(), Some(keys.near.clone()));
    chain_config.seen_ms = seen::time_ms(&store)?;
    let Connected { chain, known, late_fee } = known::connect(chain_config, &store).await?;
    // Nothing has been signed, nor anything kept of what the chain says: no task runs yet.
    let checked = async {
        check_here(&chain, &keys.near, known.is_some()).await?;
        check_with_towers(&keys.node, &store, &chain, &config.p2p.watchtowers).await?;
        // What changed since is taken from several endpoints, as while the node runs.
        match late_fee {
            Some(fee) => Ok(fee),
            None => orders::agree_on_fee(&chain).await,
        }
    };
    let fee = match checked.await {
        Ok(fee) => fee,
        Err(error) => {
            // The chain's client has it too.
            chain.stop_sending();
            store.close().await.map_err(store_error)?;
            return Err(error);
        }
    };
    let kept = KeptGraph::new(home.graph_file(), config.network(), config.network.rpc_urls.clone());
    let (kept, kept_graph) = kept.load().await.map_err(|error| other(error.to_string()))?;
    let graph_sync = GraphSync::from_kept(chain.clone(), kept_graph);
    let graph_sync = if known.is_some() { graph_sync.unchecked() } else { graph_sync };
    let (graph, versions) = (graph_sync.graph(), graph_sync.watch());
    let channels = Channels::load(Parts {
        node_key: identity.node_key,
        policy: config.policy.clone(),
        control: control.clone(),
        chain: chain.clone(),
        graph: graph.clone(),
        store: store.clone(),
        swarm: swarm.clone(),
    })?;
    let news = Arc::new(news::Bulletin::default());
    let requester = Requester::new(
        identity.node_key,
        control.clone(),
        graph.clone(),
        versions.clone(),
        swarm.connected(),
        channels.told(),
        news.clone(),
    );
    let found = chain.config_found().clone();
    let opener = Opener::new(network.clone(), keys.node.clone());
    let alarm = Alarm::default();
    let daemon = Arc::new(Daemon {
        network,
        node_key: identity.node_key,
        account: config.account.clone(),
        limits,
        secret: keys.node.clone(),
        control: control.clone(),
        store: store.clone(),
        chain,
        graph,
        versions: versions.clone(),
        swarm,
        channels: channels.clone(),
        apps: Apps::new(control, opener.clone(), alarm.clone()),
        opener,
        requester,
        traffic: Arc::default(),
        news,
        orders: Mutex::default(),
        towers: Mutex::default(),
        clock: Mutex::default(),
        late_fee: Mutex::new(fee),
        sync_now: Arc::new(Notify::new()),
        announced: tokio::sync::Mutex::default(),
        started: Instant::now(),
    });
    let mut supervisor = Supervisor::new(store);
    let sending = daemon.chain.clone().keep_sending();
    supervisor.spawn("chain sender", async move { Err(sending.await.into()) });
    supervisor.heed(alarm);
    supervisor.heed(swarm_task.alarm());
    supervisor.spawn("protocol driver", async move { driver.await.map_err(driver_error) });
    supervisor.spawn("swarm", async move {
        swarm_task.run().await;
        Ok(())
    });
    let memory = Memory::new(daemon.store.clone(), config.network.rpc_urls.clone(), found);
    let local = config.network.is_local();
    supervisor.spawn("graph", follow_graph(daemon.clone(), graph_sync, memory, kept, local));
    let control = daemon.control.clone();
    supervisor.spawn("channel manager", async move {
        // Before any channel: an answer that is late is not to go out as if lateness cost nothing.
        control.set_late_fee(fee).await.map_err(|_| other("the protocol driver has stopped"))?;
        channels.run(versions, known).await
    });
    let pace = keeper::Pace::new(config.network.is_local());
    supervisor.spawn("keeper", keeper::run(daemon.clone(), config.policy.checks, pace));
    supervisor.spawn("orders", orders::run(daemon.clone(), config.network.is_local()));
    supervisor.spawn("late fee", orders::follow_fee(daemon.clone(), config.network.is_local()));
    let towers = config.p2p.watchtowers.clone();
    supervisor.spawn("watchtowers", keep_handing_over(daemon.clone(), towers, config.network.is_local()));
    supervisor.spawn("pursuit", pursuit::run(daemon.clone()));
    supervisor.spawn("news", news::follow(daemon.clone()));
    supervisor.spawn("apps", daemon.apps.clone().sweep());
    if let Err(error) = daemon.restore_announcements().await {
        supervisor.stop_handle().stop();
        supervisor.run().await?;
        return Err(error);
    }
    Ok((daemon, supervisor))
}

/// What a start looks at before anything is signed. While the chain is away nothing can be said of the key, and
/// of the clock only that it is not far from when the chain was there.
async fn check_here(chain: &Chain, key: &near_crypto::SecretKey, away: bool) -> Result<(), ClientError> {
    if away {
        return Ok(());
    }
    if let Err(error @ (ChainError::NoKey { .. } | ChainError::NoAccount { .. })) = chain.check_key(key).await
    {
        tracing::error!(%error, "no edge can be severed, closed or defended: {}", error.fix());
    }
    clock::check(chain).await
}

async fn open_store(path: std::path::PathBuf, identity: StoreIdentity) -> Result<NodeStore, ClientError> {
    // Checking a large store takes a while.
    let open = tokio::task::spawn_blocking(move || NodeStore::open(&path, &identity));
    open.await.map_err(|error| other(error.to_string()))?.map_err(store_error)
}

fn swarm_config(config: &Config, home: &Home) -> SwarmConfig {
    SwarmConfig {
        listen: config.p2p.listen.clone(),
        external: config.p2p.external.clone(),
        hide_listen: !config.p2p.announce_listen,
        boot: config.network.boot_peers.clone(),
        remembered: Some(home.peers_file()),
    }
}

/// Keeps the graph up to date and tells the protocol what changed. An endpoint that fails is shown
/// in the status; it does not stop the node.
async fn follow_graph(
    daemon: Arc<Daemon>,
    mut sync: GraphSync,
    mut memory: Memory,
    mut kept: KeptGraph,
    local: bool,
) -> Result<(), ClientError> {
    let mut failing = false;
    let mut told = 0;
    let mut seen = seen::Seen::default();
    let mut clock = clock::ClockWatch::new(local);
    let interval = if local { SYNC_INTERVAL.0 } else { SYNC_INTERVAL.1 };
    loop {
        let mut head_time_ms = None;
        let mut reread = false;
        let news = match sync.step().await {
            Ok(step) => {
                failing = false;
                seen.keep(&daemon.store, step.version, step.chain_time_ms).await?;
                let (fee, channels) = (*daemon.late_fee.lock(), daemon.channels.views());
                memory.keep(step.chain_time_ms, fee, channels).await?;
                head_time_ms = Some(step.head_time_ms);
                reread = step.reread;
                Some((step.version, step.chain_time_ms, step.edges))
            }
            // Another chain or contract than the node has signed for.
            Err(error @ (ChainError::Foreign { .. } | ChainError::NoContract { .. }))
                if !sync.is_checked() =>
            {
                return Err(error.into());
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the chain cannot be followed");
                }
                let graph = daemon.graph.read();
                // Pages that came before the failure are in the graph; their edges are not known here.
                let partly = graph.version() != told;
                partly.then(|| (graph.version(), graph.chain_time_ms(), graph.edges()))
            }
        };
        if let Some((version, time, edges)) = news {
            drop_strangers(&daemon, &edges);
            let update = daemon.control.update_graph(version, time, edges).await;
            update.map_err(|_| other("the protocol driver has stopped"))?;
            told = version;
        }
        if let Some(time_ms) = head_time_ms {
            // Asks the chain: what it has said is told to the protocol first.
            clock.look(&daemon, time_ms).await;
            let written = kept.keep(daemon.graph.clone(), reread).await;
            kept = written.map_err(|error| other(error.to_string()))?;
        }
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = daemon.sync_now.notified() => {}
        }
    }
}

/// Channels of others that are over are of no use to anybody here, and the change log does not say
/// when their records go.
fn drop_strangers(daemon: &Daemon, changed: &[por_core::GraphEdge]) {
    let mut graph = daemon.graph.write();
    for edge in changed.iter().filter(|edge| edge.a != daemon.node_key && edge.b != daemon.node_key) {
        let over = graph.edge(edge.channel).is_some_and(|edge| is_over(&edge.view.status));
        if over {
            graph.forget(edge.channel);
        }
    }
}

impl Daemon {
    /// Tells neighbours what has ended before the node stops: one that keeps an answer for a node that stays away
    /// severs the edge.
    pub(crate) async fn take_leave(&self) {
        let settled = tokio::time::timeout(LEAVE.0, self.control.settled()).await;
        if !self.swarm.connected().borrow().is_empty() && matches!(settled, Ok(Ok(()))) {
            tokio::time::sleep(LEAVE.1).await;
        }
    }

    pub(crate) async fn status(&self) -> Status {
        let news = self.versions.borrow().clone();
        let (node, nodes, channels) = {
            let graph = self.graph.read();
            (graph.node(&self.node_key).cloned(), graph.node_count(), graph.channel_count())
        };
        // The status must not fail because the chain is away: the graph's error says so.
        let asked = async {
            tokio::join!(
                self.chain.withdrawable(&self.account),
                self.chain.node(&self.account),
                self.chain.config()
            )
        };
        let slow = || ChainError::Unreachable { reasons: "no answer in time".to_owned() };
        let asked = tokio::time::timeout(STATUS_PATIENCE, asked).await;
        let (withdrawable, fresh, config) = asked.unwrap_or_else(|_| (Err(slow()), Err(slow()), Err(slow())));
        let announced = config.map(announced).unwrap_or_default();
        let node = match fresh {
            Ok(fresh) => fresh.filter(|node| node.node_key == self.node_key),
            Err(_) => node,
        };
        let apps = self.apps.status().await;
        let chain_error = news.error.or_else(|| withdrawable.as_ref().err().map(ToString::to_string));
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            network: self.network.clone(),
            node_key: self.node_key,
            peer_id: self.swarm.local_peer().to_string(),
            account: self.account.clone(),
            registered: node.is_some(),
            attached: node.as_ref().is_some_and(|node| node.attached),
            attached_since_ms: node.as_ref().and_then(|node| node.attached_since_ms),
            stake: node.map(|node| node.stake).unwrap_or_default(),
            withdrawable: withdrawable.unwrap_or_default(),
            listening: self.swarm.listening().iter().map(ToString::to_string).collect(),
            connected_peers: u32::try_from(self.swarm.connected().borrow().len()).unwrap_or(u32::MAX),
            graph_version: news.version,
            graph_nodes: u32::try_from(nodes).unwrap_or(u32::MAX),
            graph_channels: u32::try_from(channels).unwrap_or(u32::MAX),
            chain_time_ms: news.chain_time_ms,
            chain_error,
            clock: self.clock.lock().clone(),
            announced,
            apps,
            watchtowers: self.towers.lock().values().cloned().collect(),
            traffic: self.traffic.lock().clone(),
            uptime_ms: u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        }
    }

    /// Sends a request of a local client. What it has cost is told also when `stopping` resolves before its end.
    pub(crate) async fn request(
        &self,
        request: &ApiRequest,
        stopping: impl Future<Output = ()>,
    ) -> Result<ApiResponse, ClientError> {
        self.sendable(request)?;
        self.traffic.lock().sent += 1;
        let result = match seal::is_sealed(&request.app) {
            true => self.sealed_request(request, stopping).await,
            false => self.requester.request(request, stopping).await,
        };
        let mut traffic = self.traffic.lock();
        match &result {
            Ok(response) => {
                traffic.answered += 1;
                traffic.spent = traffic.spent.checked_add(response.price).unwrap_or(traffic.spent);
            }
            Err(_) => traffic.failed += 1,
        }
        drop(traffic);
        result
    }

    /// What no node would take is told by its name, before anything is signed.
    fn sendable(&self, request: &ApiRequest) -> Result<(), ClientError> {
        apps::check_name(&request.app)?;
        if request.label.as_ref().is_some_and(|label| label.len() > MAX_LABEL) {
            let what = format!("labels have at most {MAX_LABEL} bytes");
            return Err(ClientError::new(ErrorCode::Usage, what, "use a shorter one"));
        }
        let most = self.limits.max_body;
        let named = [("body", request.body.len() as u64), ("response limit", request.response_limit)];
        match named.into_iter().find(|(_, bytes)| *bytes > most) {
            Some((name, bytes)) => {
                let what = format!("a {name} of {bytes} bytes is more than the {most} that nodes take");
                Err(ClientError::new(ErrorCode::Usage, what, "split it into several requests"))
            }
            None => Ok(()),
        }
    }

    async fn sealed_request(
        &self,
        request: &ApiRequest,
        stopping: impl Future<Output = ()>,
    ) -> Result<ApiResponse, ClientError> {
        let context = Context {
            network: &self.network,
            author: &self.node_key,
            destination: &request.destination,
            app: &request.app,
        };
        let (body, opener) = seal::seal_request(&context, &request.body).map_err(seal_error)?;
        let response_limit = seal::sealed_len(request.response_limit);
        let sealed = ApiRequest { body, response_limit, ..request.clone() };
        let response = self.requester.request(&sealed, stopping).await?;
        // Whatever it holds, it was paid for.
        let body = opener.open(&response.body);
        let body = body.map_err(|error| {
            seal_error(error).having_spent(response.price).having_sent(vec![response.request])
        })?;
        Ok(ApiResponse { body, ..response })
    }

    pub(crate) async fn peers(&self) -> Result<Vec<PeerInfo>, ClientError> {
        self.swarm.peers().await.map_err(|error| ClientError::new(error.code(), error.to_string(), ""))
    }

    pub(crate) fn graph_info(&self) -> GraphInfo {
        let graph = self.graph.read();
        let edge = |edge: por_core::GraphEdge| GraphEdgeInfo {
            channel: edge.channel,
            a: edge.a,
            b: edge.b,
            open: edge.open,
            terms: edge.terms,
        };
        GraphInfo {
            version: graph.version(),
            chain_time_ms: graph.chain_time_ms(),
            edges: graph.edges().into_iter().take(MAX_GRAPH_EDGES).map(edge).collect(),
        }
    }
}

/// What the contract's owner has announced: the operator has until then to leave.
fn announced(config: ConfigView) -> Vec<Announced> {
    let code = config.next_code.map(|next| Announced { what: "code".to_owned(), from_ms: next.from_ms });
    let params =
        config.next_params.map(|next| Announced { what: "parameters".to_owned(), from_ms: next.from_ms });
    code.into_iter().chain(params).collect()
}

fn seal_error(error: SealError) -> ClientError {
    ClientError::new(ErrorCode::Fatal, error.to_string(), "").in_two_lines()
}

pub(crate) fn other(message: impl Into<String>) -> ClientError {
    ClientError::new(ErrorCode::Other, message, "")
}

pub(crate) fn store_error(error: crate::store::StoreError) -> ClientError {
    ClientError::new(error.code(), error.to_string(), "").in_two_lines()
}

/// An error of the store travels through the driver; its kind decides the exit code.
fn from_store(error: libp2p_por::StoreError) -> ClientError {
    match error.source.and_then(|cause| cause.downcast::<crate::store::StoreError>().ok()) {
        Some(error) => store_error(*error),
        None => other(error.message),
    }
}

fn protocol_error(error: libp2p_por::Error) -> ClientError {
    match error {
        libp2p_por::Error::Store(error) => from_store(error),
        libp2p_por::Error::Restore(error) => {
            ClientError::new(ErrorCode::CorruptStore, error.to_string(), "put back the store's latest copy")
        }
        error => other(error.to_string()),
    }
}

fn driver_error(error: libp2p_por::DriverError) -> ClientError {
    match error {
        libp2p_por::DriverError::Store(error) => from_store(error),
        error => other(error.to_string()),
    }
}

/// Errors of the setup carry the command line's codes; those that the API has are the same.
pub(crate) fn setup_error(error: CliError) -> ClientError {
    let code = ErrorCode::ALL.into_iter().find(|code| code.exit_code() == error.code.code());
    ClientError::new(code.unwrap_or(ErrorCode::Other), error.message, error.fix)
}
