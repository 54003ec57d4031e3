//! One node between two hand-driven peers: `up` asks, `down` answers. Whatever they send is made of
//! plain statements, so they can lie about everything.

#![allow(dead_code, reason = "each test target uses its part")]

#[path = "basics.rs"]
mod basics;
#[path = "signed.rs"]
mod signed;

pub use basics::*;
use bytes::Bytes;
use por_core::types::{
    ChannelId, ChannelState, Hash, Hop, Item, ItemKind, Items, NodeKey, NodeSecret, RequestHead, RequestId,
    ResponseReceipt, Side, Signed, Terms, Totals, Yocto,
};
use por_core::wire::{self, Frame, Hello, Lane, RequestItem, ResponseItem, SeenChannel, Sync};
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
    pub terms: Terms,
    pub open: bool,
    pub limits: Limits,
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
            terms: terms(),
            open: true,
            limits,
            beside: false,
            other: None,
            paid_other: Yocto::ZERO,
            gone: vec![],
            known: vec![],
            unseen: vec![],
            over: vec![],
        };
        change(&mut rig);
        rig.node = Node::new(config(&rig.limits), Restored::default()).unwrap();
        rig.chain();
        rig.serve(10);
        rig.connect_all();
        rig
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
            deposit_mine: DEPOSIT,
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

    /// A request of `up` through the node to `down`.
    pub fn head(&self, body: &[u8], response_limit: u64) -> RequestHead {
        let quote = self.terms.quote(body.len() as u64, response_limit).unwrap();
        let hop = |channel, to| Hop { channel, to, price: quote.price, allowance_ms: quote.allowance_ms };
        RequestHead {
            author: self.up.public(),
            nonce: self.exchanges,
            destination: self.down.public(),
            app: "app".into(),
            body_hash: Hash(*blake3::hash(body).as_bytes()),
            body_len: body.len() as u64,
            response_limit,
            expires_ms: NOW + 60_000,
            graph_version: 5,
            server_price: Yocto(10),
            route: vec![hop(IN, self.me), hop(OUT, self.down.public())],
        }
    }

    /// The same ending at the node itself.
    pub fn head_here(&self, body: &[u8], response_limit: u64) -> RequestHead {
        let mut head = self.head(body, response_limit);
        head.route.truncate(1);
        head.destination = self.me;
        head
    }

    /// The item of a request, signed by `up`.
    pub fn item(&mut self, head: &RequestHead, body: &[u8]) -> RequestItem {
        self.exchanges += 1;
        RequestItem {
            exchange: ExchangeId(self.exchanges),
            hop: 0,
            head: borsh::to_vec(head).unwrap().into(),
            proof: sign_one(&self.up, head),
            body: Some(Bytes::copy_from_slice(body)),
            again: false,
            channel: None,
        }
    }

    /// `up`'s payment on IN for these heads.
    pub fn payment(&mut self, heads: &[&RequestHead]) -> Signed<ChannelState> {
        let item = |head: &&RequestHead| Item {
            request: head.id(&network()),
            amount: head.payment_at(0).unwrap(),
            kind: ItemKind::Request,
        };
        let items: Vec<Item> = heads.iter().map(item).collect();
        let sum = Yocto::checked_sum(items.iter().map(|item| item.amount)).unwrap();
        self.paid_up = self.paid_up.checked_add(sum).unwrap();
        let items = Items { channel: IN, payer: Side::A, items };
        state(&self.up, IN, self.paid_up, Yocto::ZERO, items.hash(&network()))
    }

    /// Sends one paid request and returns its id and exchange.
    pub fn ask(&mut self, head: &RequestHead, body: &[u8]) -> (RequestId, ExchangeId) {
        let item = self.item(head, body);
        let exchange = item.exchange;
        let payment = Some(self.payment(&[head]));
        self.up_sends(Frame::Request(wire::Request { payment, resent: false, requests: vec![item] }));
        (head.id(&network()), exchange)
    }

    /// The other neighbour asks `down` through the node: true if it was passed on.
    pub fn ask_from_other(&mut self, body: &[u8], limit: u64) -> bool {
        let other = self.other.clone().expect("there is one");
        let mut head = self.head(body, limit);
        (head.author, head.route[0].channel) = (other.public(), OTHER);
        head.route[1].allowance_ms += 10_000;
        let mut item = self.item(&head, body);
        item.proof = sign_one(&other, &head);
        let amount = head.payment_at(0).unwrap();
        self.paid_other = self.paid_other.checked_add(amount).unwrap();
        let paid = Item { request: head.id(&network()), amount, kind: ItemKind::Request };
        let items = Items { channel: OTHER, payer: Side::A, items: vec![paid] };
        let payment = state(&other, OTHER, self.paid_other, Yocto::ZERO, items.hash(&network()));
        let request = wire::Request { payment: Some(payment), resent: false, requests: vec![item] };
        self.frame(other.public(), Frame::Request(request));
        self.was_passed_on()
    }

    /// `up` asks `down` through the node: true if it was passed on.
    pub fn ask_through(&mut self, body: &[u8], limit: u64) -> bool {
        let mut head = self.head(body, limit);
        head.route[1].allowance_ms += 10_000;
        self.ask(&head, body);
        self.was_passed_on()
    }

    fn was_passed_on(&mut self) -> bool {
        self.down_got().iter().any(|frame| matches!(frame, Frame::Request(_)))
    }

    /// Asks through the node and returns what `down` received.
    pub fn relayed(&mut self, body: &[u8], limit: u64) -> (RequestId, RequestItem) {
        let mut head = self.head(body, limit);
        head.route[1].allowance_ms += 10_000;
        let (id, _) = self.ask(&head, body);
        let item = self.down_got().into_iter().find_map(|frame| match frame {
            Frame::Request(request) => request.requests.into_iter().next(),
            _ => None,
        });
        (id, item.expect("passed on"))
    }

    /// [`Rig::relayed`], with the node under obligation: upstream has learned in a new session that it has the request.
    pub fn obliged(&mut self, body: &[u8], limit: u64) -> (RequestId, RequestItem) {
        let relayed = self.relayed(body, limit);
        self.reconnect(self.up.public());
        relayed
    }

    /// Asks `down` on the node's own behalf; why not, if it refuses.
    pub fn ask_own(&mut self, server_price: u128) -> Option<RejectReason> {
        let head = self.head(b"question", 100);
        self.events.clear();
        self.input(Input::Command(Command::Request {
            token: 1,
            destination: self.down.public(),
            app: "app".into(),
            body: b"question".as_slice().into(),
            response_limit: 100,
            server_price: Yocto(server_price),
            expires_ms: NOW + 60_000,
            graph_version: 5,
            route: vec![Hop { allowance_ms: 60_000, ..head.route[1].clone() }],
        }));
        self.events.iter().find_map(|event| match event {
            Event::Refused { reason, .. } => Some(*reason),
            _ => None,
        })
    }

    /// Id of a request that was passed on.
    pub fn last_request(&self, item: &RequestItem) -> RequestId {
        borsh::from_slice::<RequestHead>(&item.head).unwrap().id(&network())
    }

    pub fn rejection(&mut self) -> Option<(RejectReason, Option<types::SignedInvalid>)> {
        self.up_got().into_iter().find_map(|frame| match frame {
            Frame::Reject(reject) => reject.rejections.into_iter().next().map(|r| (r.reason, r.invalid)),
            _ => None,
        })
    }

    /// A response of `down`.
    pub fn response(&self, request: RequestId, exchange: ExchangeId, body: &[u8]) -> ResponseItem {
        let body_hash = Hash(*blake3::hash(body).as_bytes());
        let receipt = ResponseReceipt { request, body_len: body.len() as u64, body_hash };
        let proof = sign_one(&self.down, &receipt);
        let receipt = SignedReceipt { receipt, proof };
        ResponseItem {
            exchange,
            receipt,
            resume: false,
            body: Some(Bytes::copy_from_slice(body)),
            late: None,
        }
    }

    pub fn respond(&mut self, item: ResponseItem) {
        self.down_sends(Frame::Response(wire::Response {
            payment: None,
            resent: false,
            responses: vec![item],
        }));
    }

    pub fn responses_up_got(&mut self) -> Vec<ResponseItem> {
        let responses = self.up_got().into_iter().filter_map(|frame| match frame {
            Frame::Response(response) => Some(response.responses),
            _ => None,
        });
        responses.flatten().collect()
    }
}
