//! The node's libp2p swarm: TCP, noise and yamux; connection limits, the protocol itself, Kademlia
//! for addresses and provider records, identify and ping.
//!
//! The swarm runs in a task of its own ([`SwarmTask`]); everything else talks to it through the
//! bounded [`SwarmHandle`]. Requests and payments do not pass through it.

mod announce;
mod behaviour;
mod boot;
mod foreign;
mod remembered;
mod task;

use std::collections::HashSet;
use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::pin::Pin;
use std::time::Duration;

use futures::StreamExt as _;
use libp2p::swarm::{DialError, NetworkBehaviour, SwarmEvent, dial_opts::DialOpts};
use libp2p::{Multiaddr, PeerId, Swarm, TransportError, identity, noise, tcp, yamux};
use por_types::{NodeKey, NodeSecret};
use tokio::sync::{mpsc, oneshot, watch};

use crate::alarm::Alarm;
use crate::client::{ErrorCode, PeerInfo};
use behaviour::NodeBehaviour;
use boot::Boot;
use remembered::Remembered;

pub use task::SwarmTask;

/// Kademlia's name on this network.
pub const KAD_PROTOCOL: &str = "/por/kad/1.0.0";
/// Identify's protocol version.
pub const IDENTIFY_PROTOCOL: &str = "/por/id/1.0.0";
/// Commands waiting for the swarm task.
const COMMANDS: usize = 64;
/// Time for the listeners to report the addresses they are bound to.
const BIND_TIMEOUT: Duration = Duration::from_secs(10);

/// A longer search than this is as good as one without end, and a time that far off cannot be represented.
const LONGEST_SEARCH: Duration = Duration::from_secs(24 * 3600);

/// Settings of the swarm.
#[derive(Clone, Debug, Default)]
pub struct SwarmConfig {
    /// Addresses to listen on; port 0 takes a free one.
    pub listen: Vec<Multiaddr>,
    /// Addresses to announce besides the bound ones.
    pub external: Vec<Multiaddr>,
    /// Bound addresses are not announced.
    pub hide_listen: bool,
    /// Peers to connect to at start, and again while nobody is connected, with `/p2p/`.
    pub boot: Vec<Multiaddr>,
    /// File in which addresses of counterparties are kept over restarts.
    pub remembered: Option<PathBuf>,
}

/// Why the swarm could not be started, or ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SwarmError {
    #[error("{addr} is in use; stop the program that uses it, or listen on another port")]
    PortInUse { addr: Multiaddr },
    #[error(
        "cannot listen on {addr}: {cause}; write it like /ip4/0.0.0.0/tcp/7741, with an address of this machine"
    )]
    Listen { addr: Multiaddr, cause: String },
    #[error("boot peer {addr} names no peer; it must end with /p2p/PEER")]
    BootPeer { addr: Multiaddr },
    #[error("the node key is not usable: {0}")]
    Key(String),
    #[error("the network stack cannot be set up: {0}")]
    Setup(String),
    #[error("no address was bound within {} s", BIND_TIMEOUT.as_secs())]
    Timeout,
    #[error("the swarm has stopped")]
    Stopped,
}

impl SwarmError {
    /// The row of the exit code table.
    pub fn code(&self) -> ErrorCode {
        match self {
            SwarmError::PortInUse { .. } => ErrorCode::PortInUse,
            SwarmError::Listen { .. } | SwarmError::BootPeer { .. } => ErrorCode::Usage,
            SwarmError::Key(_) => ErrorCode::WrongKey,
            SwarmError::Setup(_) | SwarmError::Timeout | SwarmError::Stopped => ErrorCode::Other,
        }
    }
}

/// What the swarm is asked to do.
pub(crate) enum Command {
    Counterparties(HashSet<PeerId>),
    Provide { key: [u8; 32], done: oneshot::Sender<Result<(), String>> },
    StopProviding { key: [u8; 32] },
    Providers { key: [u8; 32], found: mpsc::Sender<PeerId> },
    Peers { reply: oneshot::Sender<Vec<PeerInfo>> },
}

/// Talks to the swarm task; cheap to clone.
#[derive(Clone, Debug)]
pub struct SwarmHandle {
    commands: mpsc::Sender<Command>,
    listening: Vec<Multiaddr>,
    connected: watch::Receiver<HashSet<PeerId>>,
    local: PeerId,
}

impl SwarmHandle {
    /// Addresses that the node is bound to.
    pub fn listening(&self) -> &[Multiaddr] {
        &self.listening
    }

    pub fn local_peer(&self) -> PeerId {
        self.local
    }

    /// The set of connected peers, as it changes.
    pub fn connected(&self) -> watch::Receiver<HashSet<PeerId>> {
        self.connected.clone()
    }

    /// Peers of this node's channels: exempt from connection limits, and looked up in Kademlia
    /// when no known address of theirs answers.
    pub async fn set_counterparties(&self, peers: HashSet<PeerId>) -> Result<(), SwarmError> {
        self.send(Command::Counterparties(peers)).await
    }

    /// Announces this node as a provider of `key`, now and again before the announcement expires.
    pub async fn provide(&self, key: [u8; 32]) -> Result<(), SwarmError> {
        let (done, result) = oneshot::channel();
        self.send(Command::Provide { key, done }).await?;
        result.await.map_err(|_| SwarmError::Stopped)?.map_err(SwarmError::Setup)
    }

    pub async fn stop_providing(&self, key: [u8; 32]) -> Result<(), SwarmError> {
        self.send(Command::StopProviding { key }).await
    }

    /// Nodes that announced `key`, this node excepted: until there are `limit`, the search is over,
    /// or `wait` has passed.
    pub async fn providers(
        &self,
        key: [u8; 32],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<(NodeKey, PeerId)>, SwarmError> {
        let (found, mut results) = mpsc::channel(64);
        self.send(Command::Providers { key, found }).await?;
        let mut providers: Vec<(NodeKey, PeerId)> = Vec::new();
        let deadline = tokio::time::Instant::now() + wait.min(LONGEST_SEARCH);
        while providers.len() < limit {
            let Ok(Some(peer)) = tokio::time::timeout_at(deadline, results.recv()).await else { break };
            let known = providers.iter().any(|(_, other)| *other == peer);
            if let (false, Some(key)) = (known || peer == self.local, libp2p_por::node_key(&peer)) {
                providers.push((key, peer));
            }
        }
        Ok(providers)
    }

    pub async fn peers(&self) -> Result<Vec<PeerInfo>, SwarmError> {
        let (reply, peers) = oneshot::channel();
        self.send(Command::Peers { reply }).await?;
        peers.await.map_err(|_| SwarmError::Stopped)
    }

    async fn send(&self, command: Command) -> Result<(), SwarmError> {
        self.commands.send(command).await.map_err(|_| SwarmError::Stopped)
    }
}

/// Builds the swarm and binds its listeners. Spawn the task; it ends when all handles are gone.
///
/// Errors: [`SwarmError::PortInUse`] and the others; nothing keeps running after an error.
pub async fn start(
    config: &SwarmConfig,
    secret: &NodeSecret,
    por: libp2p_por::Behaviour,
) -> Result<(SwarmHandle, SwarmTask), SwarmError> {
    let keypair = identity::Keypair::ed25519_from_bytes(secret.seed())
        .map_err(|error| SwarmError::Key(error.to_string()))?;
    let boot = config.boot.iter().map(boot_peer).collect::<Result<Vec<_>, _>>()?;
    let alarm = Alarm::default();
    let mut swarm = build(keypair, por, config.hide_listen, &alarm)?;
    let listening = listen(&mut swarm, &config.listen).await?;
    for addr in &config.external {
        swarm.add_external_address(addr.clone());
    }
    for (peer, addr) in &boot {
        dial(&mut swarm, *peer, std::slice::from_ref(addr));
    }
    let path = config.remembered.clone();
    let remembered = tokio::task::spawn_blocking(move || Remembered::load(path)).await.unwrap_or_default();
    for (peer, addresses) in remembered.all() {
        dial(&mut swarm, *peer, addresses);
    }
    let (commands, receiver) = mpsc::channel(COMMANDS);
    let (connected_sender, connected) = watch::channel(HashSet::new());
    let local = *swarm.local_peer_id();
    let handle = SwarmHandle { commands, listening, connected, local };
    let boot = Boot::new(boot);
    Ok((handle, SwarmTask::new(swarm, receiver, connected_sender, remembered, boot, alarm)))
}

fn dial(swarm: &mut Swarm<NodeBehaviour>, peer: PeerId, addresses: &[Multiaddr]) {
    if peer == *swarm.local_peer_id() {
        return;
    }
    for address in addresses {
        swarm.behaviour_mut().kad.add_address(&peer, address.clone());
    }
    let opts = DialOpts::peer_id(peer).addresses(addresses.to_vec()).build();
    match swarm.dial(opts) {
        // It was dialled just now: as a boot peer, say.
        Ok(()) | Err(DialError::DialPeerConditionFalse(_)) => {}
        Err(error) => tracing::warn!(%peer, %error, "a peer that is known cannot be dialled"),
    }
}

pub(crate) fn boot_peer(addr: &Multiaddr) -> Result<(PeerId, Multiaddr), SwarmError> {
    let mut base = addr.clone();
    match base.pop() {
        Some(libp2p::multiaddr::Protocol::P2p(peer)) if !base.is_empty() => Ok((peer, base)),
        _ => Err(SwarmError::BootPeer { addr: addr.clone() }),
    }
}

fn build(
    keypair: identity::Keypair,
    por: libp2p_por::Behaviour,
    hide_listen: bool,
    alarm: &Alarm,
) -> Result<Swarm<NodeBehaviour>, SwarmError> {
    let setup = |error: &dyn std::fmt::Display| SwarmError::Setup(error.to_string());
    let idle = Duration::from_secs(60);
    // The swarm would take a connection whose task has failed for one that is there, and dial no other.
    let alarm = alarm.clone();
    let executor = move |task: Pin<Box<dyn Future<Output = ()> + Send>>| {
        tokio::spawn(alarm.clone().guard("task of a connection", task));
    };
    let settings = |_| libp2p::swarm::Config::with_executor(executor).with_idle_connection_timeout(idle);
    let tcp = || tcp::Config::default().nodelay(true);
    let builder = libp2p::SwarmBuilder::with_existing_identity(keypair.clone())
        .with_tokio()
        .with_tcp(tcp(), noise::Config::new, yamux::Config::default)
        .map_err(|error| setup(&error))?;
    // Without a resolver configuration (containers) names cannot be dialled, all else works.
    match builder.with_dns() {
        Ok(builder) => Ok(builder
            .with_behaviour(|key| NodeBehaviour::new(key, por, hide_listen))
            .map_err(|error| setup(&error))?
            .with_swarm_config(settings)
            .build()),
        Err(error) => {
            tracing::warn!(%error, "names in addresses will not be resolved");
            Ok(libp2p::SwarmBuilder::with_existing_identity(keypair)
                .with_tokio()
                .with_tcp(tcp(), noise::Config::new, yamux::Config::default)
                .map_err(|error| setup(&error))?
                .with_behaviour(|key| NodeBehaviour::new(key, por, hide_listen))
                .map_err(|error| setup(&error))?
                .with_swarm_config(settings)
                .build())
        }
    }
}

/// Binds the listeners; the addresses that they are bound to. Other events of that time are lost.
pub(crate) async fn listen<B: NetworkBehaviour>(
    swarm: &mut Swarm<B>,
    addresses: &[Multiaddr],
) -> Result<Vec<Multiaddr>, SwarmError> {
    let mut waiting = HashSet::new();
    for addr in addresses {
        check_free(addr)?;
        waiting.insert(swarm.listen_on(addr.clone()).map_err(|error| listen_error(addr, &error))?);
    }
    let mut bound = Vec::new();
    let deadline = tokio::time::Instant::now() + BIND_TIMEOUT;
    while !waiting.is_empty() {
        let event = tokio::time::timeout_at(deadline, swarm.select_next_some()).await;
        match event.map_err(|_| SwarmError::Timeout)? {
            SwarmEvent::NewListenAddr { listener_id, address } => {
                waiting.remove(&listener_id);
                bound.push(address);
            }
            SwarmEvent::ListenerClosed { addresses, reason: Err(error), .. } => {
                let addr = addresses.into_iter().next().unwrap_or_else(Multiaddr::empty);
                return Err(io_error(&addr, &error));
            }
            _ => {}
        }
    }
    Ok(bound)
}

/// The transport shares its ports (`SO_REUSEPORT`), so it would listen beside another node without
/// an error, and each would get some of the connections. A plain bind tells.
fn check_free(addr: &Multiaddr) -> Result<(), SwarmError> {
    use libp2p::multiaddr::Protocol;
    let mut parts = addr.iter();
    let ip: std::net::IpAddr = match parts.next() {
        Some(Protocol::Ip4(ip)) => ip.into(),
        Some(Protocol::Ip6(ip)) => ip.into(),
        _ => return Ok(()),
    };
    match parts.next() {
        Some(Protocol::Tcp(port)) if port != 0 => {
            std::net::TcpListener::bind((ip, port)).map(drop).map_err(|error| io_error(addr, &error))
        }
        _ => Ok(()),
    }
}

fn listen_error(addr: &Multiaddr, error: &TransportError<io::Error>) -> SwarmError {
    match error {
        TransportError::Other(error) => io_error(addr, error),
        TransportError::MultiaddrNotSupported(_) => {
            SwarmError::Listen { addr: addr.clone(), cause: "this kind of address is not supported".into() }
        }
    }
}

fn io_error(addr: &Multiaddr, error: &io::Error) -> SwarmError {
    // Transports wrap the operating system's error more than once.
    let mut source: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(inner) = source {
        let io = inner.downcast_ref::<io::Error>();
        if io.is_some_and(|io| io.kind() == io::ErrorKind::AddrInUse) {
            return SwarmError::PortInUse { addr: addr.clone() };
        }
        source = match io.and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped),
            None => inner.source(),
        };
    }
    if error.to_string().contains("Address already in use") {
        return SwarmError::PortInUse { addr: addr.clone() };
    }
    SwarmError::Listen { addr: addr.clone(), cause: error.to_string() }
}
