//! One node between two hand-driven peers: `up` asks, `down` answers. Whatever they send is made of
//! plain statements, so they can lie about everything.

#![allow(dead_code, reason = "each test target uses its part")]

#[path = "asking.rs"]
mod asking;
#[path = "basics.rs"]
mod basics;
#[path = "signed.rs"]
mod signed;

pub use basics::*;
use por_core::types::{ChannelId, NodeKey, NodeSecret, Side, Signed, Terms, Totals, Yocto};
use por_core::wire::{self, Frame, Hello, Lane, SeenChannel, Sync};
use por_core::*;
pub use signed::*;

pub const NOW: u64 = 1_700_000_000_000;
pub const DEPOSIT: Yocto = Yocto(1_000_000);
/// Channel between `up` (A) and the node (B).
pub const IN: ChannelId = ChannelId(1);
/// Channel between the node (A) and `down` (B).
pub const OUT: ChannelId = ChannelId(2);
/// Another channel between `up` (A) and the node (B).
pub const SECOND: ChannelId = ChannelId(3);
/// Another channel between the node (A) and `down` (B), if [`Rig::beside`].
pub const BESIDE: ChannelId = ChannelId(4);
/// Channel between [`Rig::other`] (A) and the node (B), if there is one.
pub const OTHER: ChannelId = ChannelId(5);

pub struct Rig {
    pub node: Node,
    pub me: NodeKey,
    pub up: NodeSecret,
    pub down: NodeSecret,
    pub rows: std::collections::BTreeMap<(Table, RowKey), Vec<u8>>,
    /// What was sent, oldest first.
    pub sent: Vec<(NodeKey, Lane, Frame)>,
    pub events: Vec<Event>,
    pub disconnected: Vec<NodeKey>,
    pub orders: Vec<Signed<types::SeverOrder>>,
    /// Batches are durable at once.
    pub commit: bool,
    pub uncommitted: Vec<u64>,
    /// What `up` has paid on IN, what `down` has on OUT.
    pub paid_up: Yocto,
    pub paid_down: Yocto,
    /// Of `down`.
    down_conn: u64,
    conns: u64,
    exchanges: u64,
    time_ms: u64,
    pub bond: Yocto,
    /// The node's deposit in OUT.
    pub out_deposit: Yocto,
    pub terms: Terms,
    pub open: bool,
    pub limits: Limits,
    pub policy: Policy,
    pub beside: bool,
    /// One more neighbour that asks.
    pub other: Option<NodeSecret>,
    /// What it has paid.
    pub paid_other: Yocto,
    /// Channels that have left the graph.
    pub gone: Vec<ChannelId>,
    /// What the next peer to connect says that it has of this node.
    pub known: Vec<wire::SyncExchange>,
    /// Channels that peers do not see on chain.
    pub unseen: Vec<ChannelId>,
    /// Over which connection each frame went, oldest first.
    pub over: Vec<(ConnId, Frame)>,
}

pub fn config(limits: &Limits) -> CoreConfig {
    CoreConfig {
        network: network(),
        secret: secret(2),
        limits: limits.clone(),
        policy: Policy::default(),
        seed: [7; 32],
    }
}

impl Rig {
    /// Connected on both sides; an app "app" is served for 10.
    pub fn new() -> Rig {
        Rig::with(|_| {})
    }

    pub fn with(change: impl FnOnce(&mut Rig)) -> Rig {
        let limits = Limits { max_exchanges: 16, window: 64 << 10, ..Limits::default() };
        let mut rig = Rig {
            node: Node::new(config(&limits), Restored::default()).unwrap(),
            me: secret(2).public(),
            up: secret(1),
            down: secret(3),
            rows: Default::default(),
            sent: vec![],
            events: vec![],
            disconnected: vec![],
            orders: vec![],
            commit: true,
            uncommitted: vec![],
            paid_up: Yocto::ZERO,
            paid_down: Yocto::ZERO,
            down_conn: 0,
            conns: 0,
            exchanges: 0,
            time_ms: 1,
            bond: Yocto::ZERO,
            out_deposit: DEPOSIT,
            terms: terms(),
            open: true,
            limits,
            policy: Policy::default(),
            beside: false,
            other: None,
            paid_other: Yocto::ZERO,
            gone: vec![],
            known: vec![],
            unseen: vec![],
            over: vec![],
        };
        change(&mut rig);
        rig.node = Node::new(rig.config(), Restored::default()).unwrap();
        rig.chain();
        rig.serve(10);
        rig.connect_all();
        rig
    }

    fn config(&self) -> CoreConfig {
        CoreConfig { policy: self.policy.clone(), ..config(&self.limits) }
    }

    /// A new process from what is on disk: not connected, and the chain is not read yet.
    pub fn restart(&mut self) {
        let row = |((table, key), value): (&(Table, RowKey), &Vec<u8>)| Row {
            table: *table,
            key: key.clone(),
            value: value.clone(),
        };
        let restored = Restored { rows: self.rows.iter().map(row).collect() };
        self.node = Node::new(self.config(), restored).unwrap();
        self.sent.clear();
    }

    pub fn connect_all(&mut self) {
        let (up, down) = (self.up.public(), self.down.public());
        self.connect(up);
        self.connect(down);
        if let Some(other) = self.other.as_ref().map(NodeSecret::public) {
            self.connect(other);
        }
        self.sent.clear();
    }

    pub fn serve(&mut self, base: u128) {
        let pricing = AppPricing { base: Yocto(base), per_byte: Yocto::ZERO };
        self.input(Input::Command(Command::Serve { app: "app".into(), pricing, max_queued: 4 }));
    }

    pub fn my_channels(&self) -> Vec<MyChannel> {
        let channel = |channel, peer: &NodeSecret, side| MyChannel {
            channel,
            peer: peer.public(),
            peer_account: "peer.near".parse().unwrap(),
            side,
            deposit_mine: if channel == OUT { self.out_deposit } else { DEPOSIT },
            deposit_theirs: DEPOSIT,
            drawn_mine: Yocto::ZERO,
            drawn_theirs: Yocto::ZERO,
            bond: self.bond,
            floors: Totals::default(),
            terms: self.terms.clone(),
            open: self.open && !self.gone.contains(&channel),
            gone: self.gone.contains(&channel),
        };
        let beside = self.beside.then(|| channel(BESIDE, &self.down, Side::A));
        let mut channels = vec![
            channel(IN, &self.up, Side::B),
            channel(OUT, &self.down, Side::A),
            channel(SECOND, &self.up, Side::B),
        ];
        channels.extend(beside);
        channels.extend(self.other.as_ref().map(|other| channel(OTHER, other, Side::B)));
        channels
    }

    pub fn chain(&mut self) {
        let channels = self.my_channels();
        self.input(Input::Channels { channels });
        self.graph();
    }

    pub fn graph(&mut self) {
        let edge = |channel, a: NodeKey, b: NodeKey| GraphEdge {
            channel,
            a,
            b,
            terms: self.terms.clone(),
            open: self.open && !self.gone.contains(&channel),
        };
        let other = self.other.as_ref().map(|other| edge(OTHER, other.public(), self.me));
        let mut edges = vec![
            edge(IN, self.up.public(), self.me),
            edge(OUT, self.me, self.down.public()),
            edge(SECOND, self.up.public(), self.me),
            edge(BESIDE, self.me, self.down.public()),
        ];
        edges.extend(other);
        self.input(Input::Graph { version: 5, chain_time_ms: NOW, edges });
    }

    pub fn input(&mut self, input: Input) {
        self.node.handle(Time(1), input);
        self.drain();
    }

    /// Time passes.
    pub fn later(&mut self, ms: u64) {
        self.time_ms += ms;
        self.node.handle(Time(self.time_ms), Input::Tick);
        self.drain();
    }

    /// Time passes, and the node runs every `ms`.
    pub fn steps(&mut self, steps: u32, ms: u64) {
        for _ in 0..steps {
            self.later(ms);
        }
    }

    /// Time passes in which the node does not run.
    pub fn stall(&mut self, ms: u64) {
        let since = Time(self.time_ms);
        self.time_ms += ms;
        self.node.handle(Time(self.time_ms), Input::Stalled { since });
        self.node.handle(Time(self.time_ms), Input::Tick);
        self.drain();
    }

    /// The same, and nothing was taken in for 700 ms before.
    pub fn slept(&mut self, ms: u64) {
        let since = Time(self.time_ms - 700);
        self.time_ms += ms;
        self.node.handle(Time(self.time_ms), Input::Stalled { since });
        self.node.handle(Time(self.time_ms), Input::Tick);
        self.drain();
    }

    pub fn drain(&mut self) {
        while let Some(output) = self.node.poll() {
            match output {
                Output::Send { peer, conn, lane, frame } => {
                    self.over.push((conn, frame.clone()));
                    self.sent.push((peer, lane, frame));
                }
                Output::Disconnect { peer, .. } => self.disconnected.push(peer),
                Output::Persist { batch, writes } => {
                    for Write { table, key, value } in writes {
                        match value {
                            Some(value) => self.rows.insert((table, key), value),
                            None => self.rows.remove(&(table, key)),
                        };
                    }
                    self.uncommitted.push(batch);
                }
                Output::Sever { order } => self.orders.push(order),
                Output::Notify(event) => self.events.push(event),
            }
        }
        if self.commit
            && let Some(batch) = self.uncommitted.pop()
        {
            self.uncommitted.clear();
            self.node.handle(Time(1), Input::Persisted { batch });
            self.drain();
        }
    }

    /// Connects a peer and goes through both Syncs.
    pub fn connect(&mut self, peer: NodeKey) {
        self.connect_and(peer, vec![]);
    }

    /// The same, with more frames that arrive together with the last Sync.
    pub fn connect_and(&mut self, peer: NodeKey, frames: Vec<Frame>) {
        self.begin(peer);
        self.answer_probe(peer, frames);
    }

    /// Connects a peer; between the two Syncs something happens.
    pub fn connect_with(&mut self, peer: NodeKey, meanwhile: impl FnOnce(&mut Rig)) {
        self.connect_with_and(peer, meanwhile, vec![]);
    }

    /// The same, with more frames that arrive together with the last Sync.
    pub fn connect_with_and(&mut self, peer: NodeKey, meanwhile: impl FnOnce(&mut Rig), frames: Vec<Frame>) {
        self.begin(peer);
        meanwhile(self);
        self.answer_probe(peer, frames);
    }

    /// Epoch of the peer that connected last.
    pub fn epoch(&self) -> u64 {
        self.conns << 32
    }

    fn begin(&mut self, peer: NodeKey) {
        self.conns += 1;
        if peer == self.down.public() {
            self.down_conn = self.conns;
        }
        let conn = ConnId(self.conns);
        let hello = Hello::new(network(), Lane::Control, &self.limits);
        self.input(Input::Connected { peer, conn, hello });
        let epoch = self.epoch();
        let seen = self.seen_by(peer);
        self.frame(peer, Frame::Sync(Sync { epoch, seen, complete: true, ..Sync::default() }));
    }

    fn answer_probe(&mut self, peer: NodeKey, frames: Vec<Frame>) {
        let probe = self.sent.iter().rev().find_map(|(to, _, frame)| match frame {
            Frame::Sync(sync) if *to == peer && sync.answers == 0 => Some(sync.epoch),
            _ => None,
        });
        let epoch = self.epoch();
        let answers = probe.expect("the node says Sync first");
        let known = std::mem::take(&mut self.known);
        let last = Frame::Sync(Sync { epoch, answers, complete: true, known, ..Sync::default() });
        self.frames(peer, [last].into_iter().chain(frames));
    }

    /// The channels that a peer sees on chain.
    pub fn seen_by(&self, peer: NodeKey) -> Vec<SeenChannel> {
        let channels = self.my_channels().into_iter();
        let channels = channels.filter(|info| info.peer == peer && !self.unseen.contains(&info.channel));
        channels.map(|info| SeenChannel { channel: info.channel, deposit: info.deposit_mine }).collect()
    }

    /// `down` acknowledges what was passed on to it, with its counter-signature or without.
    pub fn acknowledge(&mut self, signs: bool) {
        let request = self.down_got().into_iter().find_map(|frame| match frame {
            Frame::Request(request) => Some(request),
            _ => None,
        });
        let request = request.expect("passed on");
        let payment = request.payment.expect("paid").statement;
        let receipts = if signs { vec![self.down.sign(&network(), payment)] } else { vec![] };
        let exchanges = request.requests.iter().map(|item| item.exchange).collect();
        self.down_sends(Frame::Ack(wire::Ack { receipts, exchanges }));
    }

    /// Exchange of the request that was passed on to `down`, which has not taken it yet.
    pub fn passed_on(&self) -> ExchangeId {
        let request = self.sent.iter().find_map(|(_, _, frame)| match frame {
            Frame::Request(request) => request.requests.first(),
            _ => None,
        });
        request.expect("passed on").exchange
    }

    /// Exchanges that `up` got an Ack for.
    pub fn up_acknowledged(&mut self) -> Vec<ExchangeId> {
        let acks = self.up_got().into_iter().filter_map(|frame| match frame {
            Frame::Ack(ack) => Some(ack.exchanges),
            _ => None,
        });
        acks.flatten().collect()
    }

    /// `down` acknowledges one exchange.
    pub fn acknowledge_item(&mut self, exchange: ExchangeId) {
        self.down_sends(Frame::Ack(wire::Ack { receipts: vec![], exchanges: vec![exchange] }));
    }

    /// `up` is done with the exchanges for which it has got a proof.
    pub fn up_takes_proofs(&mut self) {
        let up = self.up.public();
        let proofs = self.sent.iter().filter_map(|(to, _, frame)| match frame {
            Frame::Severed(severed) if *to == up => Some(&severed.items),
            _ => None,
        });
        let exchanges: Vec<ExchangeId> = proofs.flatten().map(|item| item.exchange).collect();
        if !exchanges.is_empty() {
            self.up_sends(Frame::Done(wire::Done { exchanges, receipts: vec![] }));
        }
    }

    /// `down` says that it is there.
    pub fn alive(&mut self) {
        let epoch = self.down_conn << 32;
        self.down_sends(Frame::Sync(Sync { epoch, complete: true, ..Sync::default() }));
    }

    /// Loses all connections of a peer and connects it again.
    pub fn reconnect(&mut self, peer: NodeKey) {
        self.reconnect_and(peer, vec![]);
    }

    /// The same, with more frames that arrive together with the last Sync.
    pub fn reconnect_and(&mut self, peer: NodeKey, frames: Vec<Frame>) {
        for conn in (1..=self.conns).map(ConnId) {
            self.input(Input::Disconnected { peer, conn });
        }
        self.connect_and(peer, frames);
    }

    pub fn frame(&mut self, peer: NodeKey, frame: Frame) {
        self.frames(peer, [frame]);
    }

    /// Frames that arrive together.
    pub fn frames(&mut self, peer: NodeKey, frames: impl IntoIterator<Item = Frame>) {
        for frame in frames {
            // The latest connection of each peer counts.
            for conn in (1..=self.conns).rev().map(ConnId) {
                self.node.handle(Time(1), Input::Frame { peer, conn, frame: frame.clone() });
            }
        }
        self.drain();
    }

    pub fn up_sends(&mut self, frame: Frame) {
        let up = self.up.public();
        self.frame(up, frame);
    }

    pub fn down_sends(&mut self, frame: Frame) {
        let down = self.down.public();
        self.frame(down, frame);
    }

    /// Frames that were sent to a peer since the last call for anyone.
    pub fn got(&mut self, peer: NodeKey) -> Vec<Frame> {
        let (mine, rest) = std::mem::take(&mut self.sent).into_iter().partition(|(to, ..)| *to == peer);
        self.sent = rest;
        let frames: Vec<(NodeKey, Lane, Frame)> = mine;
        frames.into_iter().map(|(_, _, frame)| frame).collect()
    }

    pub fn up_got(&mut self) -> Vec<Frame> {
        self.got(self.up.public())
    }

    pub fn down_got(&mut self) -> Vec<Frame> {
        self.got(self.down.public())
    }

    /// True if the node has blamed this peer, with a reason that contains `why`.
    pub fn blames(&self, peer: NodeKey, why: &str) -> bool {
        self.disconnected.contains(&peer)
            && self.events.iter().any(
                |event| matches!(event, Event::Misbehaved { peer: p, reason } if *p == peer && reason.contains(why)),
            )
    }
}
