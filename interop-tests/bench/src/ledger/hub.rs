//! A node with many channels on its real store, each to a counterparty in memory. No sockets: what
//! is measured is the protocol's state machine, its signatures (of both ends, on one thread) and
//! the durable commits of the one node.

use std::collections::{HashMap, HashSet, VecDeque};
use std::path::Path;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use libp2p_por::Store as _;
use por_core::wire::{Frame, Hello, Lane};
use por_core::{
    AppPricing, Command, ConnId, CoreConfig, Event, GraphEdge, Input, Limits, MyChannel, Node, Output,
    Policy, Restored, Time,
};
use por_node::store::{LedgerStore, NodeStore, StoreIdentity};
use por_types::{ChannelId, Hop, Network, NodeKey, NodeSecret, Side, Terms, Totals, Yocto};

/// Bytes of each request and response.
const BODY: usize = 64;
/// Longer than any round takes: no sync falls into it, and nobody is late.
const LONG_MS: u32 = 600_000;

pub struct Hub {
    node: Node,
    key: NodeKey,
    started: Instant,
    _store: NodeStore,
    ledger: LedgerStore,
    peers: Vec<Peer>,
    by_key: HashMap<NodeKey, usize>,
    /// Peers with news since they were last polled.
    dirty: Vec<usize>,
    waiting: HashSet<usize>,
    waker: Waker,
    answered: u64,
    failed: Option<String>,
}

struct Peer {
    node: Node,
    key: NodeKey,
    inbox: VecDeque<Frame>,
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn network() -> anyhow::Result<Network> {
    Ok(Network { chain_id: "bench".to_owned(), contract: "por.bench".parse()? })
}

fn terms() -> Terms {
    Terms {
        rtt_ms: LONG_MS,
        bytes_per_s: 1_000_000_000,
        base_fee: Yocto(1_000),
        byte_fee: Yocto(1),
        heartbeat_ms: LONG_MS,
        grace_ms: LONG_MS,
        max_requests: 4_000,
        max_bytes: 1 << 30,
    }
}

/// The same at every start, so that a store is found again.
fn secret(index: usize) -> NodeSecret {
    let mut seed = [7; 32];
    seed[..8].copy_from_slice(&(index as u64).to_le_bytes());
    NodeSecret::from_seed(&seed)
}

fn config(index: usize) -> anyhow::Result<CoreConfig> {
    let mut seed = [0; 32];
    seed[..8].copy_from_slice(&std::process::id().to_le_bytes().repeat(2));
    Ok(CoreConfig {
        network: network()?,
        secret: secret(index),
        limits: Limits::default(),
        policy: Policy::default(),
        seed,
    })
}

fn mine(channel: usize, peer: NodeKey, side: Side) -> anyhow::Result<MyChannel> {
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

fn edge(channel: usize, a: NodeKey, b: NodeKey) -> GraphEdge {
    GraphEdge { channel: ChannelId(channel as u64), a, b, terms: terms(), open: true }
}

/// What a start took, milliseconds.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Start {
    /// Opening and checking the database.
    pub open_ms: f64,
    /// Reading its rows, each against its checksum.
    pub load_ms: f64,
    /// Making the node of them, with its channels as the chain has them, until its first write is
    /// durable.
    pub ready_ms: f64,
}

impl Hub {
    /// Opens the store at `path` (or creates it) and makes the node of its rows.
    pub fn start(path: &Path, channels: usize) -> anyhow::Result<(Hub, Start)> {
        let keys: Vec<NodeKey> = (1..=channels).map(|index| secret(index).public()).collect();
        let key = secret(0).public();
        let began = Instant::now();
        let ms = |since: Instant| since.elapsed().as_secs_f64() * 1e3;
        let store = NodeStore::open(path, &StoreIdentity { network: network()?, node_key: key })?;
        let open_ms = ms(began);
        let loading = Instant::now();
        let mut ledger = store.ledger();
        let restored = ledger.load()?;
        let load_ms = ms(loading);
        let making = Instant::now();
        let mut hub = Hub {
            node: Node::new(config(0)?, restored)?,
            key,
            started: began,
            _store: store,
            ledger,
            peers: Vec::new(),
            by_key: keys.iter().copied().zip(0..).collect(),
            dirty: Vec::new(),
            waiting: HashSet::new(),
            waker: Waker::from(Arc::new(Unpark(std::thread::current()))),
            answered: 0,
            failed: None,
        };
        let own: anyhow::Result<Vec<MyChannel>> =
            keys.iter().enumerate().map(|(index, peer)| mine(index, *peer, Side::A)).collect();
        let edges = keys.iter().enumerate().map(|(index, peer)| edge(index, key, *peer));
        hub.tell(Input::LateFee { per_ms: Yocto(1) });
        hub.tell(Input::Graph { version: 1, chain_time_ms: 1, edges: edges.collect() });
        hub.tell(Input::Channels { channels: own? });
        let batches = hub.drain();
        hub.wait_durable(batches)?;
        Ok((hub, Start { open_ms, load_ms, ready_ms: ms(making) }))
    }

    /// Makes the counterparties and connects them.
    pub fn connect(&mut self) -> anyhow::Result<()> {
        let mut keys: Vec<(NodeKey, usize)> = self.by_key.iter().map(|(key, index)| (*key, *index)).collect();
        keys.sort_by_key(|(_, index)| *index);
        let hello = Hello::new(network()?, Lane::Control, &Limits::default());
        for (key, index) in keys {
            let mut node = Node::new(config(index + 1)?, Restored::default())?;
            let now = self.now();
            let edges = vec![edge(index, self.key, key)];
            let channels = vec![mine(index, self.key, Side::B)?];
            let serve = Command::Serve {
                app: "echo".to_owned(),
                pricing: AppPricing::default(),
                max_queued: Limits::default().max_exchanges,
            };
            let conn = ConnId(index as u64);
            for input in [
                Input::LateFee { per_ms: Yocto(1) },
                Input::Graph { version: 1, chain_time_ms: 1, edges },
                Input::Channels { channels },
                Input::Command(serve),
                Input::Connected { peer: self.key, conn, hello: hello.clone() },
            ] {
                node.handle(now, input);
            }
            self.peers.push(Peer { node, key, inbox: VecDeque::new() });
            self.mark(index);
            self.tell(Input::Connected { peer: key, conn, hello: hello.clone() });
        }
        self.settle()
    }

    fn now(&self) -> Time {
        Time(u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX))
    }

    fn tell(&mut self, input: Input) {
        let now = self.now();
        self.node.handle(now, input);
    }

    fn mark(&mut self, index: usize) {
        if self.waiting.insert(index) {
            self.dirty.push(index);
        }
    }

    /// Carries out what the node wants; returns the last batch it wrote, 0 without one.
    fn drain(&mut self) -> u64 {
        let mut last = 0;
        while let Some(output) = self.node.poll() {
            match output {
                Output::Send { peer, frame, .. } => {
                    if let Some(&index) = self.by_key.get(&peer)
                        && let Some(to) = self.peers.get_mut(index)
                    {
                        to.inbox.push_back(frame);
                        self.mark(index);
                    }
                }
                Output::Persist { batch, writes } => {
                    last = batch;
                    self.ledger.submit(batch, writes);
                }
                Output::Notify(Event::Response { body, .. }) if body.len() == BODY => self.answered += 1,
                Output::Notify(Event::Acked { .. } | Event::Started { .. } | Event::PeerReady { .. }) => {}
                other => self.failed = Some(format!("{other:?}")),
            }
        }
        last
    }

    /// Lets every counterparty with news take and answer them.
    fn peers(&mut self) {
        let now = self.now();
        self.waiting.clear();
        for index in std::mem::take(&mut self.dirty) {
            let Some(peer) = self.peers.get_mut(index) else { continue };
            let (from, conn) = (peer.key, ConnId(index as u64));
            for frame in std::mem::take(&mut peer.inbox) {
                peer.node.handle(now, Input::Frame { peer: self.key, conn, frame });
            }
            while let Some(output) = peer.node.poll() {
                match output {
                    Output::Send { frame, .. } => {
                        self.node.handle(now, Input::Frame { peer: from, conn, frame })
                    }
                    // Only the one node's disk is measured.
                    Output::Persist { batch, .. } => peer.node.handle(now, Input::Persisted { batch }),
                    Output::Notify(Event::Incoming { request, body, .. }) => {
                        peer.node.handle(now, Input::Command(Command::Respond { request, body }));
                    }
                    Output::Notify(Event::PeerReady { .. } | Event::Served { .. }) => {}
                    other => self.failed = Some(format!("{other:?}")),
                }
            }
        }
    }

    /// Tells the node what has become durable since; false if nothing has.
    fn durable(&mut self) -> anyhow::Result<bool> {
        let waker = self.waker.clone();
        match self.ledger.poll_durable(&mut Context::from_waker(&waker)) {
            Poll::Ready(batch) => {
                let batch = batch?;
                self.tell(Input::Persisted { batch });
                Ok(true)
            }
            Poll::Pending => Ok(false),
        }
    }

    fn wait_durable(&mut self, batch: u64) -> anyhow::Result<()> {
        let waker = self.waker.clone();
        loop {
            match self.ledger.poll_durable(&mut Context::from_waker(&waker)) {
                Poll::Ready(durable) => {
                    let durable = durable?;
                    self.tell(Input::Persisted { batch: durable });
                    if durable >= batch {
                        return Ok(());
                    }
                }
                Poll::Pending if batch == 0 => return Ok(()),
                Poll::Pending => std::thread::park_timeout(Duration::from_secs(1)),
            }
        }
    }

    /// One turn: whatever has come in since the last one makes one flush.
    fn turn(&mut self) -> anyhow::Result<()> {
        let answered = self.answered;
        if self.node.next_deadline().is_some_and(|due| due <= self.now()) {
            self.tell(Input::Tick);
        }
        self.drain();
        self.peers();
        if let Some(failed) = self.failed.take() {
            bail!("the ledger's node or a counterparty of it: {failed}");
        }
        let news = self.durable()? || !self.dirty.is_empty() || self.drain() != 0 || !self.dirty.is_empty();
        if !news && self.answered == answered {
            // Everything waits for the disk, or for a moment at which the node wants to be asked.
            let due = self.node.next_deadline().map_or(100, |due| due.since_ms(self.now()).min(100));
            std::thread::park_timeout(Duration::from_millis(due.max(1)));
        }
        Ok(())
    }

    fn settle(&mut self) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(120);
        // What was asked last becomes an exchange with its flush.
        self.turn()?;
        while self.node.unfinished() > 0 || !self.dirty.is_empty() {
            ensure!(Instant::now() < end, "the ledger does not come to rest");
            self.turn()?;
        }
        Ok(())
    }

    fn ask(&mut self, token: u64, channel: usize) -> anyhow::Result<()> {
        let destination = self.peers.get(channel).context("a connected channel")?.key;
        let quote = terms().quote(BODY as u64, BODY as u64)?;
        let hop = Hop {
            channel: ChannelId(channel as u64),
            to: destination,
            price: quote.price,
            allowance_ms: quote.allowance_ms,
        };
        self.tell(Input::Command(Command::Request {
            token,
            destination,
            app: "echo".to_owned(),
            body: Bytes::from_static(&[7; BODY]),
            response_limit: BODY as u64,
            server_price: Yocto::ZERO,
            expires_ms: 3_600_000,
            graph_version: 1,
            route: vec![hop],
        }));
        Ok(())
    }

    /// Payments per second: `count` of them, `inflight` at a time, over the first `active` channels
    /// in turn.
    pub fn measure(&mut self, count: u64, inflight: u64, active: usize) -> anyhow::Result<f64> {
        ensure!(active > 0 && active <= self.peers.len(), "no such channels");
        let start = Instant::now();
        let (before, mut sent) = (self.answered, 0);
        while self.answered - before < count {
            while sent < count && sent - (self.answered - before) < inflight {
                self.ask(sent, sent as usize % active)?;
                sent += 1;
            }
            self.turn()?;
        }
        let rate = count as f64 / start.elapsed().as_secs_f64();
        self.settle()?;
        Ok(rate)
    }

    /// `each` payments on every channel, in one burst per channel.
    pub fn fill(&mut self, each: u64) -> anyhow::Result<()> {
        let end = Instant::now() + Duration::from_secs(1_800);
        let before = self.answered;
        let mut asked = 0;
        for channel in 0..self.peers.len() {
            for _ in 0..each {
                self.ask(asked, channel)?;
                asked += 1;
            }
            while asked - (self.answered - before) > 8_000 {
                ensure!(Instant::now() < end, "filling the ledger takes too long");
                self.turn()?;
            }
        }
        self.settle()?;
        ensure!(self.answered - before == asked, "payments without an answer");
        Ok(())
    }
}
