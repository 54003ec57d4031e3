//! Nodes of any shape in this process, each with its own durable store or one in memory, over TCP
//! on loopback.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use futures::StreamExt as _;
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, Swarm, SwarmBuilder, identity, noise, tcp, yamux};
use libp2p_por as por;
use por_core::{GraphEdge, MyChannel};
use por_node::store::{NodeStore, StoreIdentity};
use por_types::{ChannelId, Hop, Network, NodeKey, NodeSecret, Side, Terms, Totals, Yocto};
use thread_priority::{
    NormalThreadSchedulePolicy, ThreadPriority, ThreadSchedulePolicy, set_thread_priority_and_policy,
    thread_native_id,
};
use tokio::runtime::{Handle, Runtime};
use tokio::sync::oneshot;

/// Longest wait for nodes to connect.
const PATIENCE: Duration = Duration::from_secs(120);

pub struct Node {
    pub key: NodeKey,
    pub control: por::Control,
    pub address: Multiaddr,
    /// Where its tasks run.
    pub runtime: Handle,
    swarm: Option<Swarm<por::Behaviour>>,
    _store: Option<NodeStore>,
}

pub fn network() -> anyhow::Result<Network> {
    Ok(Network { chain_id: "bench".to_owned(), contract: "por.bench".parse()? })
}

pub fn terms() -> Terms {
    Terms {
        rtt_ms: 10_000,
        bytes_per_s: 1_000_000_000,
        base_fee: Yocto(1_000),
        byte_fee: Yocto(1),
        heartbeat_ms: 1_000,
        grace_ms: 5_000,
        max_requests: 4_000,
        max_bytes: 1 << 30,
    }
}

/// The key of the node with this number, the same in every process.
pub fn secret(number: u32) -> NodeSecret {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    NodeSecret::from_seed(&seed)
}

fn keypair(number: u32) -> anyhow::Result<identity::Keypair> {
    let mut seed = [9; 32];
    seed[..4].copy_from_slice(&number.to_le_bytes());
    Ok(identity::Keypair::ed25519_from_bytes(seed)?)
}

/// An edge between the nodes `a` and `b`, numbered by `channel`.
pub fn edge(channel: usize, a: NodeKey, b: NodeKey) -> GraphEdge {
    GraphEdge { channel: ChannelId(channel as u64), a, b, terms: terms(), open: true }
}

/// A channel as its end at `side` has it.
pub fn channel(channel: usize, peer: NodeKey, side: Side) -> anyhow::Result<MyChannel> {
    Ok(MyChannel {
        channel: ChannelId(channel as u64),
        peer,
        peer_account: "peer.bench".parse()?,
        side,
        deposit_mine: Yocto::near(1_000),
        deposit_theirs: Yocto::near(1_000),
        drawn_mine: Yocto::ZERO,
        drawn_theirs: Yocto::ZERO,
        bond: Yocto::near(1_000),
        floors: Totals::default(),
        terms: terms(),
        open: true,
        gone: false,
    })
}

impl Node {
    /// Makes the node with this number and listens; `store`: where its state goes, else to memory.
    pub async fn start(number: u32, store: Option<&Path>) -> anyhow::Result<Node> {
        let secret = secret(number);
        let key = secret.public();
        let config = por::Config::new(network()?).with_redial(None);
        let identity = StoreIdentity { network: network()?, node_key: key };
        let kept = store.map(|path| NodeStore::open(path, &identity)).transpose()?;
        let (behaviour, control, driver) = match &kept {
            Some(store) => por::new(config, secret, store.ledger())?,
            None => por::new(config, secret, por::MemoryStore::default())?,
        };
        tokio::spawn(driver);
        let mut swarm = SwarmBuilder::with_existing_identity(keypair(number)?)
            .with_tokio()
            .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
            .with_behaviour(|_| behaviour)?
            .with_swarm_config(|config| config.with_idle_connection_timeout(Duration::from_secs(3_600)))
            .build();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
        let address = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address;
            }
        };
        Ok(Node { key, control, address, runtime: Handle::current(), swarm: Some(swarm), _store: kept })
    }

    pub async fn know(&self, edges: Vec<GraphEdge>, channels: Vec<MyChannel>) -> anyhow::Result<()> {
        self.control.set_late_fee(Yocto(1)).await?;
        self.control.update_graph(1, 1, edges).await?;
        Ok(self.control.set_channels(channels).await?)
    }

    /// Dials, and polls the swarm from now on. Resolves when `neighbours` peers are ready.
    pub fn run(&mut self, dial: &[Multiaddr], neighbours: usize) -> anyhow::Result<oneshot::Receiver<()>> {
        let mut swarm = self.swarm.take().context("started once")?;
        let _guard = self.runtime.enter();
        for address in dial {
            swarm.dial(address.clone())?;
        }
        let (ready, is_ready) = oneshot::channel();
        tokio::spawn(async move {
            let mut ready = Some(ready);
            let mut peers = HashSet::new();
            loop {
                if let SwarmEvent::Behaviour(por::Event::PeerReady { peer }) = swarm.select_next_some().await
                {
                    peers.insert(peer);
                }
                if peers.len() >= neighbours
                    && let Some(ready) = ready.take()
                {
                    let _ = ready.send(());
                }
            }
        });
        Ok(is_ready)
    }
}

/// Where the threads of a node run.
#[derive(Clone, Copy, Debug, Default)]
pub struct Place {
    /// On this core only; else where the kernel wants.
    pub core: Option<usize>,
    /// After the threads of others that are on the core: only while these have nothing to do.
    pub behind: bool,
    /// Its store is in memory, where there is a file system for that: as if it had a disk of its own.
    pub in_memory: bool,
}

/// The file system in memory.
const MEMORY: &str = "/dev/shm";

impl Place {
    fn runtime(self) -> std::io::Result<Runtime> {
        let mut builder = por_node::runtime::executor();
        if self.core.is_some() {
            builder.worker_threads(1);
        }
        // Threads that these start, the ledger's above all, are in the same place.
        let settle = move || {
            if let Err(error) = self.settle() {
                eprintln!("a thread stays where the kernel wants it: {error}");
            }
        };
        builder.on_thread_start(settle).build()
    }

    fn settle(self) -> std::io::Result<()> {
        if let Some(core) = self.core {
            let mut cores = rustix::thread::CpuSet::new();
            cores.set(core);
            rustix::thread::sched_setaffinity(None, &cores)?;
        }
        if self.behind {
            // A lower priority is not enough: who runs is left to run for some milliseconds.
            let idle = ThreadSchedulePolicy::Normal(NormalThreadSchedulePolicy::Idle);
            set_thread_priority_and_policy(thread_native_id(), ThreadPriority::Min, idle)
                .map_err(|error| std::io::Error::other(format!("{error:?}")))?;
        }
        Ok(())
    }
}

/// Nodes with channels between them, all connected.
pub struct Net {
    pub nodes: Vec<Node>,
    edges: Vec<(usize, usize)>,
    /// Of nodes that do not share one.
    runtimes: Vec<Runtime>,
    _dir: tempfile::TempDir,
    _memory: Option<tempfile::TempDir>,
}

impl Net {
    /// `edges[i]` is channel `i`, from its side a to its side b. Every node has its store on disk.
    pub async fn start(count: usize, edges: &[(usize, usize)]) -> anyhow::Result<Net> {
        Net::on(vec![(Handle::current(), Place::default()); count], Vec::new(), edges).await
    }

    /// The same with threads of its own for each node, as if each were a process, where its place says.
    pub async fn start_apart(places: &[Place], edges: &[(usize, usize)]) -> anyhow::Result<Net> {
        let runtimes: Vec<Runtime> = places.iter().map(|place| place.runtime()).collect::<Result<_, _>>()?;
        let handles = runtimes.iter().map(|runtime| runtime.handle().clone());
        Net::on(handles.zip(places.iter().copied()).collect(), runtimes, edges).await
    }

    async fn on(
        nodes: Vec<(Handle, Place)>,
        runtimes: Vec<Runtime>,
        edges: &[(usize, usize)],
    ) -> anyhow::Result<Net> {
        let dir = tempfile::tempdir()?;
        let memory = tempfile::tempdir_in(MEMORY).ok();
        let places = nodes;
        let mut nodes = Vec::new();
        for (number, (handle, place)) in (0u32..).zip(places) {
            let memory = memory.as_ref().filter(|_| place.in_memory);
            let path = memory.unwrap_or(&dir).path().join(format!("{number}.redb"));
            nodes.push(handle.spawn(async move { Node::start(number, Some(&path)).await }).await??);
        }
        let mut net = Net { nodes, edges: edges.to_vec(), runtimes, _dir: dir, _memory: memory };
        net.open().await?;
        net.connect().await?;
        Ok(net)
    }

    async fn open(&self) -> anyhow::Result<()> {
        let numbered = || self.edges.iter().copied().enumerate();
        let graph: Vec<GraphEdge> =
            numbered().map(|(id, (a, b))| edge(id, self.nodes[a].key, self.nodes[b].key)).collect();
        for (place, node) in self.nodes.iter().enumerate() {
            let mut own = Vec::new();
            for (id, (a, b)) in numbered() {
                match place {
                    _ if place == a => own.push(channel(id, self.nodes[b].key, Side::A)?),
                    _ if place == b => own.push(channel(id, self.nodes[a].key, Side::B)?),
                    _ => {}
                }
            }
            node.know(graph.clone(), own).await?;
        }
        Ok(())
    }

    async fn connect(&mut self) -> anyhow::Result<()> {
        let mut dials: HashMap<usize, HashSet<usize>> = HashMap::new();
        let mut neighbours: HashMap<usize, HashSet<usize>> = HashMap::new();
        for &(a, b) in &self.edges {
            dials.entry(a).or_default().insert(b);
            neighbours.entry(a).or_default().insert(b);
            neighbours.entry(b).or_default().insert(a);
        }
        let addresses: Vec<Multiaddr> = self.nodes.iter().map(|node| node.address.clone()).collect();
        let mut waits = Vec::new();
        for (place, node) in self.nodes.iter_mut().enumerate() {
            let to = dials.get(&place).into_iter().flatten().map(|to| addresses[*to].clone());
            waits.push(node.run(&to.collect::<Vec<_>>(), neighbours.get(&place).map_or(0, HashSet::len))?);
        }
        for wait in waits {
            tokio::time::timeout(PATIENCE, wait).await.context("nodes do not connect")??;
        }
        Ok(())
    }

    /// A request from `from` over these channels in turn, with `body` and as many bytes back.
    pub fn request(
        &self,
        mut from: usize,
        route: &[usize],
        app: &str,
        body: Bytes,
    ) -> anyhow::Result<por::OutboundRequest> {
        let len = body.len() as u64;
        let quote = terms().quote(len, len)?;
        let mut hops = Vec::with_capacity(route.len());
        for &id in route {
            let (a, b) = *self.edges.get(id).context("no such channel")?;
            from = if a == from { b } else { a };
            let allowance_ms = quote.allowance_ms + 60_000;
            hops.push(Hop {
                channel: ChannelId(id as u64),
                to: self.nodes[from].key,
                price: quote.price,
                allowance_ms,
            });
        }
        Ok(por::OutboundRequest {
            destination: self.nodes[from].key,
            app: app.to_owned(),
            body,
            response_limit: len,
            server_price: Yocto::ZERO,
            expires_ms: 3_600_000,
            graph_version: 1,
            route: hops,
        })
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // Must not wait here, where other tasks run.
        for runtime in std::mem::take(&mut self.runtimes) {
            runtime.shutdown_background();
        }
    }
}

/// Answers every request of `app` with its own body from now on.
pub async fn echo(node: &Node, app: &'static str, max_queued: u32) -> anyhow::Result<()> {
    let mut serving = node.control.serve(app, por_core::AppPricing::default(), max_queued).await?;
    node.runtime.spawn(async move {
        while let Some(request) = serving.next().await {
            if request.respond(request.body().clone()).await.is_err() {
                return;
            }
        }
    });
    Ok(())
}
