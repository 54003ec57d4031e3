//! The protocol between nodes and towers: requests and responses in CBOR, `/por/watch/1`.
//!
//! Who asks is known from the connection, whose noise handshake proves the node key; so only a node
//! itself can hand over states of its channels, or have them given back.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::{NetworkBehaviour, SwarmEvent};
use libp2p::{Multiaddr, PeerId, StreamProtocol, Swarm, identity, noise, tcp, yamux};
use libp2p_request_response::{self as request_response, OutboundRequestId, ProtocolSupport, cbor};
use por_types::{ChannelId, NodeSecret};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::Handed;
use crate::swarm::SwarmError;

/// Name of the protocol.
pub const PROTOCOL: &str = "/por/watch/1";
/// Most channels in one request or response.
pub const PAGE: usize = 32;
/// Longest request and response, bytes.
const MAX_MESSAGE: u64 = 64 << 10;
/// Longest wait for an answer.
const TIMEOUT: Duration = Duration::from_secs(20);
/// A connection without requests is closed after this.
const IDLE: Duration = Duration::from_secs(60);
/// Requests that wait for the client's swarm.
const ASKS: usize = 16;

/// From a node to a tower.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Ask {
    /// At most [`PAGE`] channels.
    HandOver(Handed),
    /// The asking node's channels with ids above this.
    GiveBack { after: Option<ChannelId> },
}

/// From a tower to a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Reply {
    /// Everything is on the tower's disk.
    Kept {},
    /// Ask again with `more`, if there is more.
    Given { handed: Handed, more: Option<ChannelId> },
    /// Nothing was kept; `retry`: the same may be taken later.
    Refused { why: String, retry: bool },
}

/// Limits come first: a connection above them is refused before anything is allocated for it.
#[derive(NetworkBehaviour)]
pub(super) struct WatchBehaviour {
    limits: connection_limits::Behaviour,
    pub watch: cbor::Behaviour<Ask, Reply>,
}

pub(super) type WatchEvent = WatchBehaviourEvent;

impl WatchBehaviour {
    fn new(support: ProtocolSupport) -> WatchBehaviour {
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(64))
            .with_max_established_incoming(Some(1024))
            .with_max_established_per_peer(Some(2));
        let codec = cbor::codec::Codec::default()
            .set_request_size_maximum(MAX_MESSAGE)
            .set_response_size_maximum(MAX_MESSAGE);
        let config =
            request_response::Config::default().with_request_timeout(TIMEOUT).with_max_concurrent_streams(4);
        let protocols = [(StreamProtocol::new(PROTOCOL), support)];
        WatchBehaviour {
            limits: connection_limits::Behaviour::new(limits),
            watch: request_response::Behaviour::with_codec(codec, protocols, config),
        }
    }
}

/// A swarm that speaks this protocol and nothing else.
pub(super) fn swarm(
    secret: &NodeSecret,
    support: ProtocolSupport,
) -> Result<Swarm<WatchBehaviour>, SwarmError> {
    let setup = |error: &dyn std::fmt::Display| SwarmError::Setup(error.to_string());
    let keypair = identity::Keypair::ed25519_from_bytes(secret.seed())
        .map_err(|error| SwarmError::Key(error.to_string()))?;
    let tcp = || tcp::Config::default().nodelay(true);
    let builder = libp2p::SwarmBuilder::with_existing_identity(keypair.clone())
        .with_tokio()
        .with_tcp(tcp(), noise::Config::new, yamux::Config::default)
        .map_err(|error| setup(&error))?;
    match builder.with_dns() {
        Ok(builder) => Ok(builder
            .with_behaviour(|_| WatchBehaviour::new(support))
            .map_err(|error| setup(&error))?
            .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE))
            .build()),
        // Without a resolver configuration names cannot be dialled, all else works.
        Err(_) => Ok(libp2p::SwarmBuilder::with_existing_identity(keypair)
            .with_tokio()
            .with_tcp(tcp(), noise::Config::new, yamux::Config::default)
            .map_err(|error| setup(&error))?
            .with_behaviour(|_| WatchBehaviour::new(support))
            .map_err(|error| setup(&error))?
            .with_swarm_config(|config| config.with_idle_connection_timeout(IDLE))
            .build()),
    }
}

/// Why a tower could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AskError {
    #[error("the tower's address {0} does not end with /p2p/PEER")]
    Address(Multiaddr),
    #[error("the tower cannot be reached: {0}")]
    Unreachable(String),
    #[error("the client has stopped")]
    Stopped,
}

struct Asking {
    tower: Multiaddr,
    ask: Ask,
    reply: oneshot::Sender<Result<Reply, AskError>>,
}

/// Asks towers; cheap to clone.
#[derive(Clone, Debug)]
pub struct TowerClient {
    asks: mpsc::Sender<Asking>,
}

impl TowerClient {
    /// A client that proves to be the node of `secret`. Its task ends with the last clone.
    pub fn start(secret: &NodeSecret) -> Result<TowerClient, SwarmError> {
        let swarm = swarm(secret, ProtocolSupport::Outbound)?;
        let (asks, receiver) = mpsc::channel(ASKS);
        tokio::spawn(run(swarm, receiver));
        Ok(TowerClient { asks })
    }

    /// Nothing can be asked any more: its task has failed.
    pub(super) fn has_stopped(&self) -> bool {
        self.asks.is_closed()
    }

    /// One request; waits at most as long as it takes to connect, and 20 s.
    pub async fn ask(&self, tower: &Multiaddr, ask: Ask) -> Result<Reply, AskError> {
        let (reply, answer) = oneshot::channel();
        let asking = Asking { tower: tower.clone(), ask, reply };
        self.asks.send(asking).await.map_err(|_| AskError::Stopped)?;
        answer.await.map_err(|_| AskError::Stopped)?
    }
}

async fn run(mut swarm: Swarm<WatchBehaviour>, mut asks: mpsc::Receiver<Asking>) {
    let mut waiting: HashMap<OutboundRequestId, oneshot::Sender<Result<Reply, AskError>>> = HashMap::new();
    loop {
        tokio::select! {
            asking = asks.recv() => {
                let Some(Asking { tower, ask, reply }) = asking else { return };
                match peer_of(&tower) {
                    Some((peer, address)) => {
                        let watch = &mut swarm.behaviour_mut().watch;
                        waiting.insert(watch.send_request_with_addresses(&peer, ask, vec![address]), reply);
                    }
                    // The caller may have gone.
                    None => drop(reply.send(Err(AskError::Address(tower)))),
                }
            }
            event = swarm.select_next_some() => {
                let SwarmEvent::Behaviour(WatchEvent::Watch(event)) = event else { continue };
                let (id, result) = match event {
                    request_response::Event::Message {
                        message: request_response::Message::Response { request_id, response },
                        ..
                    } => (request_id, Ok(response)),
                    request_response::Event::OutboundFailure { request_id, error, .. } => {
                        (request_id, Err(AskError::Unreachable(error.to_string())))
                    }
                    _ => continue,
                };
                if let Some(reply) = waiting.remove(&id) {
                    let _ = reply.send(result);
                }
            }
        }
    }
}

/// Peer and address of `.../p2p/PEER`.
pub(crate) fn peer_of(address: &Multiaddr) -> Option<(PeerId, Multiaddr)> {
    let mut base = address.clone();
    match base.pop() {
        Some(Protocol::P2p(peer)) if !base.is_empty() => Some((peer, base)),
        _ => None,
    }
}
