//! Nodes in swarms over the memory transport, with channels that a test makes up.
#![allow(dead_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures::task::AtomicWaker;
use futures::{FutureExt, StreamExt};
use libp2p::Multiaddr;
use libp2p::core::transport::{MemoryTransport, Transport};
use libp2p::core::upgrade;
use libp2p::identity::Keypair;
use libp2p::swarm::{NetworkBehaviour, Swarm, SwarmEvent};
use libp2p_por as por;
use por::por_core::types::{
    AccountId, ChannelId, Hop, Network, NodeKey, NodeSecret, Side, Terms, Totals, Yocto,
};
use por::por_core::{GraphEdge, MyChannel};
use por::{Config, Control, MemoryStore, OutboundRequest};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

/// A connection that nothing keeps is closed after it, unless a test wants it otherwise.
pub const IDLE: Duration = Duration::from_secs(10);
pub const DEPOSIT: Yocto = Yocto::near(100);

pub fn network() -> Network {
    Network { chain_id: "localnet".to_owned(), contract: account("por.test.near") }
}

pub fn account(name: &str) -> AccountId {
    name.parse().expect("a valid account id")
}

pub fn terms() -> Terms {
    Terms {
        rtt_ms: 5_000,
        bytes_per_s: 1_000_000,
        base_fee: Yocto(1_000_000),
        byte_fee: Yocto(10),
        heartbeat_ms: 1_000,
        grace_ms: 5_000,
        max_requests: 2_000,
        max_bytes: 1 << 30,
    }
}

/// The limit that no test may wait longer than for anything.
pub async fn bounded<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(60), future).await {
        Ok(value) => value,
        Err(_) => panic!("{what}: not within a minute"),
    }
}

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p_swarm::derive_prelude")]
pub struct Net {
    pub por: por::Behaviour,
    pub ping: libp2p::ping::Behaviour,
}

/// Keeps a driver from its turns, as an executor does that is busy with others.
#[derive(Default)]
pub struct Pause {
    on: AtomicBool,
    driver: AtomicWaker,
}

impl Pause {
    pub fn set(&self, on: bool) {
        self.on.store(on, Ordering::SeqCst);
        self.driver.wake();
    }
}

async fn pausing(mut driver: por::Driver, pause: Arc<Pause>) -> Result<(), por::DriverError> {
    std::future::poll_fn(move |cx| {
        pause.driver.register(cx.waker());
        if pause.on.load(Ordering::SeqCst) { Poll::Pending } else { driver.poll_unpin(cx) }
    })
    .await
}

/// A running node. Its swarm and driver are tasks.
pub struct TestNode {
    pub key: NodeKey,
    pub peer: libp2p::PeerId,
    pub control: Control,
    pub address: Multiaddr,
    pub events: mpsc::UnboundedReceiver<por::Event>,
    dial: mpsc::UnboundedSender<Order>,
    pub swarm: JoinHandle<()>,
    pub driver: JoinHandle<Result<(), por::DriverError>>,
    pub pause: Arc<Pause>,
    pub secret: NodeSecret,
}

pub fn secret_of(pair: &Keypair) -> NodeSecret {
    let pair = pair.clone().try_into_ed25519().expect("ed25519");
    let mut seed = [0; 32];
    seed.copy_from_slice(pair.secret().as_ref());
    NodeSecret::from_seed(&seed)
}

/// A swarm that listens in memory. A connection that nothing keeps is closed after `idle`.
pub async fn swarm<B: NetworkBehaviour>(
    idle: Duration,
    behaviour: impl FnOnce(&Keypair) -> B,
) -> (Swarm<B>, Multiaddr) {
    let pair = Keypair::generate_ed25519();
    let transport = MemoryTransport::default()
        .upgrade(upgrade::Version::V1)
        .authenticate(libp2p::noise::Config::new(&pair).expect("a key"))
        .multiplex(libp2p::yamux::Config::default())
        .boxed();
    let config = libp2p::swarm::Config::with_tokio_executor().with_idle_connection_timeout(idle);
    let mut swarm = Swarm::new(transport, behaviour(&pair), pair.public().to_peer_id(), config);
    swarm.listen_on("/memory/0".parse().expect("an address")).expect("listens");
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    (swarm, address)
}

impl TestNode {
    pub async fn start() -> TestNode {
        TestNode::with(Config::new(network()).with_redial(None), MemoryStore::default()).await
    }

    pub async fn with(config: Config, store: impl por::Store) -> TestNode {
        TestNode::with_idle(config, store, IDLE).await
    }

    /// A connection that nothing keeps is closed after `idle`.
    pub async fn with_idle(config: Config, store: impl por::Store, idle: Duration) -> TestNode {
        let mut parts = None;
        let (swarm, address) = swarm(idle, |pair| {
            let secret = secret_of(pair);
            let (behaviour, control, driver) =
                por::new(config, secret.clone(), store).expect("an empty store loads");
            parts = Some((control, driver, secret));
            Net { por: behaviour, ping: libp2p::ping::Behaviour::default() }
        })
        .await;
        let (control, driver, secret) = parts.expect("made above");
        let peer = *swarm.local_peer_id();
        let pause = Arc::new(Pause::default());
        let (event_sender, events) = mpsc::unbounded_channel();
        let (dial, dials) = mpsc::unbounded_channel();
        TestNode {
            key: secret.public(),
            peer,
            control,
            address,
            events,
            dial,
            swarm: tokio::spawn(run(swarm, event_sender, dials)),
            driver: tokio::spawn(pausing(driver, Arc::clone(&pause))),
            pause,
            secret,
        }
    }

    pub fn dial(&self, other: &TestNode) {
        self.dial.send(Order::Dial(other.address.clone())).expect("the swarm runs");
    }

    /// Closes all connections with `peer` and waits until the protocol has noticed.
    pub async fn cut(&mut self, peer: libp2p::PeerId) {
        self.dial.send(Order::Disconnect(peer)).expect("the swarm runs");
        self.event(|event| matches!(event, por::Event::PeerLost { peer: lost } if *lost == peer)).await;
    }

    pub async fn event(&mut self, mut wanted: impl FnMut(&por::Event) -> bool) -> por::Event {
        bounded("event", async {
            loop {
                let event = self.events.recv().await.expect("the swarm runs");
                if wanted(&event) {
                    return event;
                }
            }
        })
        .await
    }

    pub async fn ready_with(&mut self, other: libp2p::PeerId) {
        self.event(|event| matches!(event, por::Event::PeerReady { peer } if *peer == other)).await;
    }
}

/// What a test asks of a swarm.
pub enum Order {
    Dial(Multiaddr),
    Disconnect(libp2p::PeerId),
}

async fn run(
    mut swarm: Swarm<Net>,
    events: mpsc::UnboundedSender<por::Event>,
    mut orders: mpsc::UnboundedReceiver<Order>,
) {
    loop {
        tokio::select! {
            event = swarm.select_next_some() => {
                if let SwarmEvent::Behaviour(NetEvent::Por(event)) = event {
                    let _ = events.send(event);
                }
            }
            Some(order) = orders.recv() => match order {
                Order::Dial(address) => swarm.dial(address).expect("dialable"),
                Order::Disconnect(peer) => {
                    let _ = swarm.disconnect_peer_id(peer);
                }
            },
        }
    }
}

/// An open channel as its one side has it.
pub fn my_channel(channel: ChannelId, peer: NodeKey, side: Side) -> MyChannel {
    MyChannel {
        channel,
        peer,
        peer_account: account("peer.test.near"),
        side,
        deposit_mine: DEPOSIT,
        deposit_theirs: DEPOSIT,
        drawn_mine: Yocto::ZERO,
        drawn_theirs: Yocto::ZERO,
        bond: Yocto::near(50),
        floors: Totals::default(),
        terms: terms(),
        open: true,
        gone: false,
    }
}

/// A chain of channels between neighbours, known to all.
pub fn chain(keys: &[NodeKey]) -> (Vec<GraphEdge>, Vec<Vec<MyChannel>>) {
    let mut edges = Vec::new();
    let mut mine = vec![Vec::new(); keys.len()];
    for (index, pair) in keys.windows(2).enumerate() {
        let channel = ChannelId(index as u64);
        edges.push(GraphEdge { channel, a: pair[0], b: pair[1], terms: terms(), open: true });
        for (node, side) in [(index, Side::A), (index + 1, Side::B)] {
            let peer = if side == Side::A { pair[1] } else { pair[0] };
            mine[node].push(my_channel(channel, peer, side));
        }
    }
    (edges, mine)
}

/// Starts `count` nodes in a row, connected and ready.
pub async fn row(count: usize) -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for _ in 0..count {
        nodes.push(TestNode::start().await);
    }
    join_row(&mut nodes).await;
    nodes
}

pub async fn join_row(nodes: &mut [TestNode]) {
    let keys: Vec<NodeKey> = nodes.iter().map(|node| node.key).collect();
    let (edges, mine) = chain(&keys);
    for (node, channels) in nodes.iter().zip(mine) {
        bounded("graph", node.control.update_graph(1, 1, edges.clone())).await.expect("runs");
        bounded("channels", node.control.set_channels(channels)).await.expect("runs");
    }
    for index in 1..nodes.len() {
        nodes[index].dial(&nodes[index - 1]);
        let (left, right) = nodes.split_at_mut(index);
        let (left, right) = (&mut left[index - 1], &mut right[0]);
        left.ready_with(right.peer).await;
        right.ready_with(left.peer).await;
    }
}

/// A hop at its price, with room for everything else that a test has under way on the edge.
pub fn hop(channel: ChannelId, to: NodeKey, len: u64, response_limit: u64) -> Hop {
    let quote = terms().quote(len, response_limit).expect("small");
    Hop { channel, to, price: quote.price, allowance_ms: quote.allowance_ms + 60_000 }
}

/// A request from the first of `nodes` to the last.
pub fn request(nodes: &[TestNode], body: Bytes, response_limit: u64, server_price: Yocto) -> OutboundRequest {
    let len = body.len() as u64;
    let hop = |(index, node): (usize, &TestNode)| hop(ChannelId(index as u64), node.key, len, response_limit);
    let route = nodes[1..].iter().enumerate().map(hop).collect();
    OutboundRequest {
        destination: nodes[nodes.len() - 1].key,
        app: "echo".to_owned(),
        body,
        response_limit,
        server_price,
        expires_ms: 60_000,
        graph_version: 1,
        route,
    }
}

/// Serves `echo`: the answer is `reply` of the body.
pub async fn serve(node: &TestNode, reply: impl Fn(&Bytes) -> Bytes + Send + 'static) -> JoinHandle<()> {
    let mut serving = node.control.serve("echo", Default::default(), 2_000).await.expect("runs");
    tokio::spawn(async move {
        while let Some(request) = serving.next().await {
            let _ = request.respond(reply(request.body())).await;
        }
    })
}
