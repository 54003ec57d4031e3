//! `por watch`: a tower as a daemon, with a key, an account and a store of its own.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, PeerId, Swarm};
use libp2p_request_response::{Event, Message, ProtocolSupport, ResponseChannel};
use parking_lot::Mutex;
use por_types::{ChannelId, NodeKey};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use super::store::{WatchStore, WatchStoreError};
use super::tower::{Deed, Guarded, Views, carry_out, look, look_up};
use super::wire::{self, Ask, PAGE, Reply, WatchBehaviour, WatchEvent};
use super::{Handed, WatchError};
use crate::chain::{Chain, ChainConfig, ChainError, MemoryIntents, Others};
use crate::exit::{CliError, ExitCode};
use crate::graph::{GraphSync, KeptGraph};
use crate::keys::NodeSetup;
use crate::swarm::listen;

/// Name of the tower's store in the data directory.
const STORE_FILE: &str = "watch.redb";
/// Requests that are answered at a time; more are refused until later.
const ANSWERING: usize = 32;
/// Between two looks at the chain: on a local chain, and elsewhere. Far below any challenge window.
const INTERVAL: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(15));
/// Most questions of a round that go to all endpoints.
const LOOKS: usize = 16;
/// How long a channel is left alone after a call: on a local chain, and elsewhere.
const REST: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// A tower that runs. Dropping it stops it in the background; [`WatchTower::shutdown`] waits until it
/// has.
pub struct WatchTower {
    peer: PeerId,
    listening: Vec<Multiaddr>,
    stop: watch::Sender<bool>,
    running: JoinHandle<Result<(), CliError>>,
}

struct State {
    guarded: Guarded,
    store: WatchStore,
}

struct Shared {
    chain: Chain,
    state: Mutex<State>,
}

/// Runs the tower of a home until `shutdown` resolves or a part of it fails.
///
/// Errors: as [`WatchTower::start`]; its disk.
pub async fn run(setup: NodeSetup, shutdown: impl Future<Output = ()>) -> Result<(), CliError> {
    crate::runtime::outlive_file_limits();
    let mut tower = WatchTower::start(setup).await?;
    for address in tower.addresses() {
        tracing::info!("towers are named by address: {address}");
    }
    tokio::select! {
        result = &mut tower.running => ended(result),
        () = shutdown => tower.shutdown().await,
    }
}

impl WatchTower {
    /// Starts the tower of a home that `por init` made: `p2p.listen` is where nodes reach it, the
    /// account pays the gas. The node key need not be registered with the contract.
    ///
    /// Errors: [`ExitCode::PortInUse`], [`ExitCode::CorruptStore`], [`ExitCode::Unreachable`] and
    /// others for the chain.
    pub async fn start(setup: NodeSetup) -> Result<WatchTower, CliError> {
        let NodeSetup { home, lock, config, keys } = setup;
        let path = home.data_dir().join(STORE_FILE);
        let network = config.network();
        let open = tokio::task::spawn_blocking(move || WatchStore::open(&path, &network));
        let (store, guarded) = open.await.map_err(|error| broken(&error))?.map_err(store_error)?;
        let account = config.account.clone();
        let chain = ChainConfig::new(&config.network, account, Some(keys.near.clone()));
        let chain = Chain::connect(chain, Arc::new(MemoryIntents::default())).await?;
        let mut swarm = wire::swarm(&keys.node, ProtocolSupport::Inbound).map_err(swarm_error)?;
        let listening = listen(&mut swarm, &config.p2p.listen).await.map_err(swarm_error)?;
        let peer = *swarm.local_peer_id();
        tracing::info!(channels = guarded.channels().len(), "the tower guards");
        let shared = Arc::new(Shared { chain, state: Mutex::new(State { guarded, store }) });
        let (stop, stopping) = watch::channel(false);
        let local = config.network.is_local();
        let kept = KeptGraph::new(home.graph_file(), config.network(), config.network.rpc_urls.clone());
        let running = tokio::spawn(async move {
            let result = tokio::select! {
                result = serve(shared.clone(), swarm, stopping) => result,
                result = guard(shared.clone(), kept, local) => result,
                error = shared.chain.clone().keep_sending() => Err(error.into()),
            };
            // Only now may another process have the home.
            drop(lock);
            result
        });
        Ok(WatchTower { peer, listening, stop, running })
    }

    /// What nodes name in `p2p.watchtowers`.
    pub fn addresses(&self) -> Vec<Multiaddr> {
        let named = |address: &Multiaddr| address.clone().with_p2p(self.peer).unwrap_or_else(|same| same);
        self.listening.iter().map(named).collect()
    }

    /// Stops it; everything acknowledged is on disk.
    pub async fn shutdown(mut self) -> Result<(), CliError> {
        self.stop.send_replace(true);
        ended((&mut self.running).await)
    }
}

impl Drop for WatchTower {
    fn drop(&mut self) {
        self.stop.send_replace(true);
    }
}

fn ended(result: Result<Result<(), CliError>, tokio::task::JoinError>) -> Result<(), CliError> {
    result.unwrap_or_else(|error| Err(broken(&error)))
}

fn broken(error: &dyn std::fmt::Display) -> CliError {
    CliError::new(ExitCode::Other, format!("the tower failed: {error}"), "start it again")
}

pub(super) fn store_error(error: WatchStoreError) -> CliError {
    let (code, fix) = match &error {
        WatchStoreError::Full { .. } => {
            (ExitCode::DiskFull, "free some and start again; what was acknowledged is kept")
        }
        WatchStoreError::Database { .. } => {
            (ExitCode::Other, "free space or repair the disk, then start it again")
        }
        WatchStoreError::Damaged { .. } => {
            (ExitCode::CorruptStore, "move the file away: nodes hand over again")
        }
        WatchStoreError::Foreign { .. } => (ExitCode::ForeignVersion, "use another --home for this network"),
    };
    CliError::new(code, error.to_string(), fix)
}

pub(super) fn swarm_error(error: crate::swarm::SwarmError) -> CliError {
    crate::client::ClientError::new(
        error.code(),
        error.to_string(),
        "correct p2p.listen, or stop what is there",
    )
    .into()
}

type Answered = (ResponseChannel<Reply>, Result<Reply, CliError>);

/// Answers nodes until told to stop, or until nothing can be kept any more.
async fn serve(
    shared: Arc<Shared>,
    mut swarm: Swarm<WatchBehaviour>,
    mut stopping: watch::Receiver<bool>,
) -> Result<(), CliError> {
    let mut answering: JoinSet<Answered> = JoinSet::new();
    loop {
        tokio::select! {
            _ = stopping.wait_for(|stop| *stop) => return Ok(()),
            event = swarm.select_next_some() => {
                let SwarmEvent::Behaviour(WatchEvent::Watch(Event::Message { peer, message, .. })) = event else {
                    continue;
                };
                let Message::Request { request, channel, .. } = message else { continue };
                let Some(from) = libp2p_por::node_key(&peer) else { continue };
                if answering.len() >= ANSWERING {
                    let busy = Reply::Refused { why: "the tower is busy".to_owned(), retry: true };
                    // Whoever is gone asks again.
                    let _ = swarm.behaviour_mut().watch.send_response(channel, busy);
                    continue;
                }
                let shared = shared.clone();
                answering.spawn(async move { (channel, answer(&shared, from, request).await) });
            }
            Some(done) = answering.join_next() => {
                let (channel, reply) = done.map_err(|error| broken(&error))?;
                let _ = swarm.behaviour_mut().watch.send_response(channel, reply?);
            }
        }
    }
}

/// Errors: only those after which nothing can be kept any more.
async fn answer(shared: &Arc<Shared>, from: NodeKey, ask: Ask) -> Result<Reply, CliError> {
    match ask {
        Ask::GiveBack { after } => {
            let (handed, more) = shared.state.lock().guarded.handed(Some((&from, after, PAGE)));
            Ok(Reply::Given { handed, more })
        }
        Ask::HandOver(handed) => match take(shared, from, handed).await? {
            Ok(()) => Ok(Reply::Kept {}),
            Err(error) => {
                let retry = matches!(error, WatchError::Chain(_) | WatchError::Unknown(_));
                Ok(Reply::Refused { why: error.to_string(), retry })
            }
        },
    }
}

async fn take(
    shared: &Arc<Shared>,
    from: NodeKey,
    handed: Handed,
) -> Result<Result<(), WatchError>, CliError> {
    if handed == Handed::default() {
        return Ok(Ok(()));
    }
    let most = 2 * PAGE;
    if handed.states.len() > most || handed.own.len() > most || handed.orders.len() > most {
        return Ok(Err(WatchError::Full));
    }
    let known: BTreeSet<ChannelId> = shared.state.lock().guarded.ends.keys().copied().collect();
    let ends = match look_up(&shared.chain, &known, Some(&from), &handed).await {
        Ok(ends) => ends,
        Err(error) => return Ok(Err(error)),
    };
    let shared = shared.clone();
    let keep = tokio::task::spawn_blocking(move || {
        let mut state = shared.state.lock();
        let mut next = state.guarded.clone();
        if let Err(error) = next.take(shared.chain.network(), Some(&from), handed, &ends) {
            return Ok(Err(error));
        }
        state.store.save(&next)?;
        state.guarded = next;
        Ok(Ok(()))
    });
    keep.await.map_err(|error| broken(&error))?.map_err(store_error)
}

/// Follows the chain and does what is due. Runs for ever; failures of the chain are tried again.
async fn guard(shared: Arc<Shared>, kept: KeptGraph, local: bool) -> Result<(), CliError> {
    let (interval, rest) = if local { (INTERVAL.0, REST.0) } else { (INTERVAL.1, REST.1) };
    let (mut kept, graph) = kept.load().await.map_err(|error| broken(&error))?;
    let mut sync = GraphSync::from_kept(shared.chain.clone(), graph);
    let mut resting: HashMap<ChannelId, Instant> = HashMap::new();
    let mut failing = false;
    let mut others = Others::new(&shared.chain.config_found().params);
    loop {
        match sync.step().await {
            Ok(step) => {
                failing = false;
                resting.retain(|_, until| *until > Instant::now());
                let (acted, looked) = round(&shared, &sync, others, &resting).await?;
                others = looked;
                for channel in acted {
                    resting.insert(channel, Instant::now() + rest);
                }
                kept = kept.keep(sync.graph(), step.reread).await.map_err(|error| broken(&error))?;
            }
            Err(error) => {
                if !std::mem::replace(&mut failing, true) {
                    tracing::warn!(%error, "the chain cannot be followed");
                }
            }
        }
        tokio::time::sleep(interval).await;
    }
}

/// Looks at everything once. Channels for which a call was made, well or not, and what the other endpoints show.
async fn round(
    shared: &Arc<Shared>,
    sync: &GraphSync,
    mut others: Others,
    resting: &HashMap<ChannelId, Instant>,
) -> Result<(Vec<ChannelId>, Others), CliError> {
    let channels = shared.state.lock().guarded.channels();
    let mut views = Views::new();
    for channel in channels {
        let known = sync.graph().read().edge(channel).map(|edge| edge.view.clone());
        let view = match known {
            Some(view) => Some(view),
            // Newer than the copy of the graph, or gone: only the chain knows.
            None => match shared.chain.channel(channel).await {
                Ok(view) => view,
                Err(error) => {
                    tracing::warn!(%channel, %error, "a channel cannot be looked at");
                    continue;
                }
            },
        };
        views.insert(channel, view);
    }
    let believed = look(&shared.chain, &mut others, &views, LOOKS).await.is_none();
    views.retain(|channel, _| !resting.contains_key(channel));
    let now_ms = sync.graph().read().chain_time_ms();
    let (due, others) = {
        let shared = shared.clone();
        let look = tokio::task::spawn_blocking(move || {
            let mut state = shared.state.lock();
            let mut next = state.guarded.clone();
            let deeds: Vec<Deed> = next.deeds(&views, (!believed).then_some(&mut others), now_ms);
            state.store.save(&next)?;
            state.guarded = next;
            Ok((deeds, others))
        });
        look.await.map_err(|error| broken(&error))?.map_err(store_error)?
    };
    let mut busy = Vec::new();
    for deed in due {
        busy.push(act(&shared.chain, deed).await);
    }
    Ok((busy, others))
}

async fn act(chain: &Chain, deed: Deed) -> ChannelId {
    let (channel, what) = match &deed {
        Deed::Sever(order) => (order.statement.channel, "brought an order to sever"),
        Deed::Submit(args) => (args.state.statement.channel, "showed a later payment"),
        Deed::Finalize(channel) => (*channel, "had a severed channel paid out"),
    };
    let result: Result<bool, ChainError> = carry_out(chain, deed).await;
    match result {
        Ok(true) => tracing::info!(%channel, "{what}"),
        Ok(false) => tracing::debug!(%channel, "somebody else was quicker"),
        Err(error) => tracing::warn!(%channel, %error, "a call has to wait"),
    }
    channel
}
