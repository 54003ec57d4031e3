//! Nodes in a row, each with its own durable store, over TCP on loopback.

use std::time::Duration;

use anyhow::{Context as _, anyhow};
use bytes::Bytes;
use futures::StreamExt;
use futures::future::{BoxFuture, FutureExt};
use libp2p::swarm::SwarmEvent;
use libp2p::{Multiaddr, SwarmBuilder, identity, noise, tcp, yamux};
use libp2p_por as por;
use por_core::{AppPricing, GraphEdge, MyChannel};
use por_node::store::{NodeStore, StoreIdentity};
use por_types::{ChannelId, Hop, Network, NodeKey, NodeSecret, Side, Terms, Totals, Yocto};

use crate::requests::BODY;

/// Nodes in a row; the first one asks the last one.
pub struct Row {
    nodes: Vec<Node>,
    request: por::OutboundRequest,
    _dir: tempfile::TempDir,
}

struct Node {
    key: NodeKey,
    control: por::Control,
    swarm: Option<libp2p::Swarm<por::Behaviour>>,
    address: Multiaddr,
    _store: NodeStore,
}

fn network() -> anyhow::Result<Network> {
    Ok(Network { chain_id: "bench".to_owned(), contract: "por.bench".parse()? })
}

fn terms() -> Terms {
    Terms {
        rtt_ms: 60_000,
        bytes_per_s: 1_000_000_000,
        base_fee: Yocto(1_000),
        byte_fee: Yocto(1),
        heartbeat_ms: 1_000,
        grace_ms: 60_000,
        max_requests: 4_000,
        max_bytes: 1 << 30,
    }
}

impl Row {
    pub async fn start(count: usize) -> anyhow::Result<Row> {
        let dir = tempfile::tempdir()?;
        let mut nodes = Vec::new();
        for index in 0..count {
            nodes.push(node(&dir.path().join(format!("{index}.redb"))).await?);
        }
        let request = request(&nodes)?;
        let row = Row { nodes, request, _dir: dir };
        row.open().await?;
        row.connect().await
    }

    async fn open(&self) -> anyhow::Result<()> {
        let pairs = || self.nodes.windows(2).enumerate();
        let edge = |(index, pair): (usize, &[Node])| GraphEdge {
            channel: ChannelId(index as u64),
            a: pair[0].key,
            b: pair[1].key,
            terms: terms(),
            open: true,
        };
        let edges: Vec<GraphEdge> = pairs().map(edge).collect();
        for (place, node) in self.nodes.iter().enumerate() {
            let mut channels = Vec::new();
            for (index, pair) in pairs() {
                match place.checked_sub(index) {
                    Some(0) => channels.push(channel(index, pair[1].key, Side::A)?),
                    Some(1) => channels.push(channel(index, pair[0].key, Side::B)?),
                    _ => {}
                }
            }
            node.control.update_graph(1, 1, edges.clone()).await?;
            node.control.set_channels(channels).await?;
        }
        Ok(())
    }

    /// Dials from each node to the next and waits until all are ready, then serves.
    async fn connect(mut self) -> anyhow::Result<Row> {
        let addresses: Vec<Multiaddr> = self.nodes.iter().map(|node| node.address.clone()).collect();
        let last = self.nodes.len() - 1;
        let mut waits = Vec::new();
        for (index, node) in self.nodes.iter_mut().enumerate() {
            let mut swarm = node.swarm.take().context("started once")?;
            if let Some(next) = addresses.get(index + 1) {
                swarm.dial(next.clone())?;
            }
            let neighbours = if index == 0 || index == last { 1 } else { 2 };
            let (ready, is_ready) = tokio::sync::oneshot::channel();
            tokio::spawn(poll(swarm, neighbours, ready));
            waits.push(is_ready);
        }
        for wait in waits {
            tokio::time::timeout(Duration::from_secs(30), wait).await.context("nodes do not connect")??;
        }
        let mut serving = self.nodes[last].control.serve("echo", AppPricing::default(), 1 << 16).await?;
        tokio::spawn(async move {
            while let Some(request) = serving.next().await {
                if request.respond(request.body().clone()).await.is_err() {
                    return;
                }
            }
        });
        Ok(self)
    }

    /// Sends a request with each call and waits for its verified response.
    pub fn asker(&self) -> impl Fn() -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync + 'static {
        let (control, request) = (self.nodes[0].control.clone(), self.request.clone());
        move || {
            let (control, request) = (control.clone(), request.clone());
            async move { ask(&control, request).await }.boxed()
        }
    }
}

async fn ask(control: &por::Control, request: por::OutboundRequest) -> anyhow::Result<()> {
    match control.complete(request).await?.outcome {
        por::Outcome::Response { body, .. } if body.len() == BODY => Ok(()),
        por::Outcome::Response { .. } => Err(anyhow!("a response of the wrong length")),
        por::Outcome::Rejected { reason, .. } => Err(anyhow!("rejected: {reason}")),
        por::Outcome::Severed { order, .. } => Err(anyhow!("severed: {:?}", order.statement)),
    }
}

/// From the first node over all others to the last one.
fn request(nodes: &[Node]) -> anyhow::Result<por::OutboundRequest> {
    let quote = terms().quote(BODY as u64, BODY as u64)?;
    let hops = nodes[1..].iter().enumerate().map(|(index, node)| Hop {
        channel: ChannelId(index as u64),
        to: node.key,
        price: quote.price,
        // Room for everything that is in flight.
        allowance_ms: quote.allowance_ms + 60_000,
    });
    Ok(por::OutboundRequest {
        destination: nodes[nodes.len() - 1].key,
        app: "echo".to_owned(),
        body: Bytes::from_static(&[7; BODY]),
        response_limit: BODY as u64,
        server_price: Yocto::ZERO,
        expires_ms: 3_600_000,
        graph_version: 1,
        route: hops.collect(),
    })
}

async fn node(path: &std::path::Path) -> anyhow::Result<Node> {
    let pair = identity::Keypair::generate_ed25519();
    let mut seed = [0; 32];
    seed.copy_from_slice(pair.clone().try_into_ed25519()?.secret().as_ref());
    let secret = NodeSecret::from_seed(&seed);
    let key = secret.public();
    let store = NodeStore::open(path, &StoreIdentity { network: network()?, node_key: key })?;
    let config = por::Config::new(network()?).with_redial(None);
    let (behaviour, control, driver) = por::new(config, secret, store.ledger())?;
    tokio::spawn(driver);
    let mut swarm = SwarmBuilder::with_existing_identity(pair)
        .with_tokio()
        .with_tcp(tcp::Config::default().nodelay(true), noise::Config::new, yamux::Config::default)?
        .with_behaviour(|_| behaviour)?
        .build();
    swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse()?)?;
    let address = loop {
        if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
            break address;
        }
    };
    Ok(Node { key, control, swarm: Some(swarm), address, _store: store })
}

async fn poll(
    mut swarm: libp2p::Swarm<por::Behaviour>,
    mut neighbours: usize,
    ready: tokio::sync::oneshot::Sender<()>,
) {
    let mut ready = Some(ready);
    loop {
        if let SwarmEvent::Behaviour(por::Event::PeerReady { .. }) = swarm.select_next_some().await {
            neighbours = neighbours.saturating_sub(1);
            if neighbours == 0
                && let Some(ready) = ready.take()
            {
                let _ = ready.send(());
            }
        }
    }
}

fn channel(index: usize, peer: NodeKey, side: Side) -> anyhow::Result<MyChannel> {
    Ok(MyChannel {
        channel: ChannelId(index as u64),
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
