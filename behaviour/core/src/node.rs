//! The state machine's door: inputs come in, outputs go out, flushes form in between.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use por_types::{ChannelId, Invalid, NodeKey, RequestId, SeverOrder, SeverReason, Signed, Yocto};

use crate::api::{
    AppPricing, ChannelSnapshot, Command, CoreConfig, Event, ExchangeId, Input, Output, RestoreError,
    Restored, Table, Time,
};
use crate::author::Draft;
use crate::destination::Waiting;
use crate::edge::{Edge, Edges, Outbox, Outgoing};
use crate::fault::Fault;
use crate::fee::LateFee;
use crate::graph::Graph;
use crate::job::{Job, Leg, Role};
use crate::jobs::{Ids, Jobs};
use crate::ledger::Channel;
use crate::roots::Roots;
use crate::rows;
use crate::stall::Stalls;
use crate::statements::Statements;
use crate::store::{Held, Store};
use crate::wire::Frame;

/// A served app.
#[derive(Clone, Copy, Debug)]
pub(crate) struct App {
    pub pricing: AppPricing,
    pub max_queued: u32,
}

/// A node: its edges, exchanges and channels.
///
/// Everything a peer can make grow is bounded by [`crate::Limits`] and the terms of the channels.
#[derive(Debug)]
pub struct Node {
    pub(crate) config: CoreConfig,
    pub(crate) key: NodeKey,
    pub(crate) now: Time,
    pub(crate) graph: Graph,
    pub(crate) channels: BTreeMap<ChannelId, Channel>,
    /// The channels with each peer.
    pub(crate) with_peer: BTreeMap<NodeKey, BTreeSet<ChannelId>>,
    pub(crate) edges: Edges,
    pub(crate) jobs: Jobs,
    pub(crate) apps: BTreeMap<String, App>,
    /// Requests with each app, also while it is not served.
    pub(crate) queues: BTreeMap<String, Waiting>,
    pub(crate) roots: Roots,
    pub(crate) statements: Statements,
    pub(crate) store: Store,
    /// Requests of the application to sign in this flush.
    pub(crate) drafts: Vec<Draft>,
    /// Answers of the application to sign in this flush.
    pub(crate) answers: Vec<crate::destination::Answer>,
    /// Rejections to sign in this flush.
    pub(crate) declines: Vec<Invalid>,
    /// Unanswered requests of the application.
    pub(crate) local: u32,
    /// When each unanswered request of the application is overdue.
    pub(crate) due: BTreeSet<(Time, RequestId)>,
    /// When the answer to each session's first Sync is overdue.
    pub(crate) syncing: BTreeSet<(Time, NodeKey, u64)>,
    /// When those who use another connection than this node does should have followed it.
    pub(crate) strays: BTreeSet<(Time, NodeKey)>,
    /// When to sync with those to whom something is owed.
    pub(crate) beats: BTreeSet<(Time, NodeKey)>,
    /// When to look at what those owe who were asked.
    pub(crate) watches: BTreeSet<(Time, NodeKey)>,
    /// Requests that the next node has refused, and when it is asked again.
    pub(crate) retries: BTreeSet<(Time, RequestId)>,
    /// When the next step of each pursuit is due.
    pub(crate) pursuits: BTreeSet<(Time, ChannelId)>,
    /// Own requests that pursue, by the severed channel.
    pub(crate) pursuing: BTreeMap<RequestId, ChannelId>,
    pub(crate) late_fee: LateFee,
    /// When edges were severed by own decision lately.
    pub(crate) severs: VecDeque<(Time, NodeKey)>,
    /// Channels of which the chain is to learn that they are severed.
    pub(crate) reported: BTreeSet<ChannelId>,
    /// Jobs of which this flush writes the row.
    pub(crate) dirty_jobs: Ids,
    pub(crate) dirty_channels: BTreeSet<ChannelId>,
    /// Channels with a new counter-signature: the counterparty has another copy of it.
    pub(crate) receipted: BTreeSet<ChannelId>,
    /// Edges with something to send.
    pub(crate) busy: BTreeSet<NodeKey>,
    pub(crate) boot: u32,
    counter: u32,
    nonces: u64,
    /// A flush is due.
    pub(crate) stale: bool,
    /// When this process took its first input.
    pub(crate) started: Option<Time>,
    /// When it took nothing in since then.
    pub(crate) stalls: Stalls,
    /// Before this time nobody is judged: what has come meanwhile is read first.
    pub(crate) reads_until: Time,
    /// The chain was read since this process started.
    pub(crate) knows_chain: bool,
    /// Since when there has been no connection at all.
    pub(crate) alone: Option<Time>,
    /// When such a time was last counted as this node's own.
    pub(crate) excused: Option<Time>,
    pub(crate) outputs: VecDeque<Output>,
    /// Severed before their start was told.
    pub(crate) postponed: Vec<(RequestId, Signed<SeverOrder>, Yocto)>,
    /// Pays nothing for its lateness.
    #[cfg(feature = "testing")]
    pub(crate) cheats: bool,
}

impl Node {
    /// Continues from the rows of the store; empty for a new node.
    ///
    /// # Errors
    /// Rows that are damaged or belong to another node: the node must not run without its state.
    pub fn new(config: CoreConfig, restored: Restored) -> Result<Node, RestoreError> {
        let loaded = rows::Loaded::read(restored.rows)?;
        let mut node = Node::empty(config);
        node.restore(loaded)?;
        Ok(node)
    }

    fn empty(config: CoreConfig) -> Node {
        Node {
            key: config.secret.public(),
            statements: Statements::new(&config.network),
            config,
            now: Time::default(),
            graph: Graph::default(),
            channels: BTreeMap::new(),
            with_peer: BTreeMap::new(),
            edges: BTreeMap::new(),
            jobs: Jobs::default(),
            apps: BTreeMap::new(),
            queues: BTreeMap::new(),
            roots: Roots::default(),
            store: Store::default(),
            drafts: Vec::new(),
            answers: Vec::new(),
            declines: Vec::new(),
            local: 0,
            due: BTreeSet::new(),
            syncing: BTreeSet::new(),
            strays: BTreeSet::new(),
            beats: BTreeSet::new(),
            watches: BTreeSet::new(),
            retries: BTreeSet::new(),
            pursuits: BTreeSet::new(),
            pursuing: BTreeMap::new(),
            late_fee: LateFee::default(),
            severs: VecDeque::new(),
            reported: BTreeSet::new(),
            dirty_jobs: Ids::default(),
            dirty_channels: BTreeSet::new(),
            receipted: BTreeSet::new(),
            busy: BTreeSet::new(),
            boot: 0,
            counter: 0,
            nonces: 0,
            stale: true,
            started: None,
            stalls: Stalls::default(),
            reads_until: Time::default(),
            knows_chain: false,
            alone: None,
            excused: None,
            outputs: VecDeque::new(),
            postponed: Vec::new(),
            #[cfg(feature = "testing")]
            cheats: false,
        }
    }

    /// Takes one input. Drain [`Node::poll`] after a batch of inputs: all of them make one flush.
    pub fn handle(&mut self, now: Time, input: Input) {
        self.now = self.now.max(now);
        self.stale = true;
        if self.started.is_none() {
            self.started = Some(self.now);
            self.start_clocks();
        }
        match input {
            Input::Connected { peer, conn, hello } => self.on_connected(peer, conn, hello),
            Input::Disconnected { peer, conn } => self.on_disconnected(peer, conn),
            Input::Frame { peer, conn, frame } => {
                if let Err(fault) = self.on_frame(peer, conn, frame) {
                    self.misbehaved(peer, fault);
                }
            }
            Input::Drained { peer, conn, bytes } => self.on_drained(peer, conn, bytes),
            Input::Persisted { batch } => {
                self.store.persisted(batch);
                self.release();
                self.sever_postponed();
            }
            Input::Command(command) => self.on_command(command),
            Input::Channels { channels } => self.on_channels(channels),
            Input::Graph { version, chain_time_ms, edges } => {
                self.graph.update(version, chain_time_ms, edges);
            }
            Input::LateFee { per_ms } => self.late_fee.set(self.now, per_ms),
            Input::Stalled { since } => self.on_stalled(since),
            Input::Tick => {}
        }
    }

    /// The next thing to carry out. The first call after inputs forms the flush.
    pub fn poll(&mut self) -> Option<Output> {
        if self.stale {
            self.stale = false;
            self.tick();
            self.flush();
        }
        self.outputs.pop_front()
    }

    /// For a host that stops: the last batch of writes, which would have waited for others some milliseconds more
    /// (that exchanges are over, above all). A host that crashes finds out anew what they say.
    pub fn last_writes(&mut self) -> Option<Output> {
        // Inputs that were not worked on have had no effect yet, or half of one.
        let whole = !self.stale && self.outputs.is_empty();
        whole.then(|| self.store.cut_last()).flatten()
    }

    /// Whether everything that was taken in so far is written, and said to whom it concerns and is there.
    pub fn is_settled(&self) -> bool {
        !self.stale && self.outputs.is_empty() && self.store.is_idle()
    }

    /// When to send `Input::Tick` at the latest.
    pub fn next_deadline(&self) -> Option<Time> {
        let due = self.due.first().map(|(time, _)| *time);
        let sync = self.syncing.first().map(|(time, ..)| *time);
        let stray = self.strays.first().map(|(time, _)| *time);
        let beat = self.beats.first().map(|(time, _)| *time);
        let watch = self.watches.first().map(|(time, _)| *time);
        let retry = self.retries.first().map(|(time, _)| *time);
        let pursuit = self.pursuits.first().map(|(time, _)| *time);
        let store = self.store.deadline();
        [due, sync, stray, beat, watch, retry, pursuit, store].into_iter().flatten().min()
    }

    /// Its name on the network.
    pub fn key(&self) -> NodeKey {
        self.key
    }

    pub fn channel(&self, id: ChannelId) -> Option<ChannelSnapshot> {
        self.channels.get(&id).map(|channel| channel.snapshot(self.late_per_s(channel)))
    }

    pub fn channels(&self) -> Vec<ChannelSnapshot> {
        self.channels.values().map(|channel| channel.snapshot(self.late_per_s(channel))).collect()
    }

    /// What this node owns on each channel, and with whom.
    pub fn balances(&self) -> Vec<(ChannelId, NodeKey, Yocto)> {
        self.channels.iter().map(|(id, channel)| (*id, channel.row.peer, channel.balance_mine())).collect()
    }

    /// Exchanges that this node still keeps, in any role: 0 once all is settled and acknowledged.
    pub fn unfinished(&self) -> usize {
        self.jobs.len()
    }

    /// Whether the application has asked for this request and it has no outcome yet.
    pub fn is_awaited(&self, request: &RequestId) -> bool {
        let is_own = |job: &Job| matches!(job.role, Role::Author(_));
        self.jobs.get(request).is_some_and(is_own) && !self.pursuing.contains_key(request)
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Request { .. } => self.on_request_command(command),
            Command::Respond { request, body } => self.respond(request, body),
            Command::Serve { app, pricing, max_queued } => self.serve(app, App { pricing, max_queued }),
            Command::StopServing { app } => {
                self.apps.remove(&app);
            }
            Command::Pursue { .. } => self.on_pursue(command),
            Command::Sever { channel } => {
                self.sever(channel, SeverReason::Operator, None);
            }
        }
    }

    fn on_frame(&mut self, peer: NodeKey, conn: crate::ConnId, frame: Frame) -> Result<(), Fault> {
        let Some(edge) = self.edges.get(&peer).filter(|edge| edge.conns.contains_key(&conn)) else {
            return Ok(());
        };
        let (now, speaks) = (self.now, edge.recv == Some(conn));
        if speaks {
            self.edge(peer).heard = now;
        }
        if let Frame::Sync(sync) = frame {
            return self.on_sync(peer, conn, sync);
        }
        if !speaks {
            return Ok(());
        }
        if self.is_left(&frame) {
            self.edge(peer).left = true;
            return Ok(());
        }
        if let Some(channel) = self.unread(peer, &frame) {
            return self.not_heard(peer, channel);
        }
        match frame {
            Frame::Hello(_) => Err(Fault::new("Hello inside a session")),
            Frame::Sync(_) => Ok(()),
            Frame::Request(frame) => self.on_request(peer, frame),
            Frame::Ack(frame) => self.on_ack(peer, frame),
            Frame::Reject(frame) => self.on_reject(peer, frame),
            Frame::Response(frame) => self.on_response(peer, frame),
            Frame::Done(frame) => self.on_done(peer, frame),
            Frame::Credit(frame) => self.on_credit(peer, frame),
            Frame::Fragment(frame) => self.on_fragment(peer, frame),
            Frame::Late(frame) => self.on_late(peer, frame),
            Frame::Severed(frame) => self.on_severed(peer, frame),
        }
    }

    fn tick(&mut self) {
        while let Some(&(time, request)) = self.due.first()
            && time <= self.now
        {
            self.due.pop_first();
            self.on_due(request, time);
        }
        while let Some(&(time, peer, epoch)) = self.syncing.first()
            && time <= self.now
        {
            self.syncing.pop_first();
            let out = self.edges.get(&peer).map(|edge| &edge.out);
            if matches!(out, Some(Outgoing::Syncing { epoch: now, .. }) if *now == epoch) {
                self.misbehaved(peer, Fault::new("does not answer Sync"));
            }
        }
        while let Some(&(time, peer)) = self.strays.first()
            && time <= self.now
        {
            self.strays.pop_first();
            self.on_stray(peer);
        }
        self.keep_time();
    }

    /// The channels with a peer.
    pub(crate) fn channels_with(&self, peer: NodeKey) -> impl Iterator<Item = (ChannelId, &Channel)> {
        let ids = self.with_peer.get(&peer).into_iter().flatten();
        ids.filter_map(|id| self.channels.get(id).map(|channel| (*id, channel)))
    }

    /// Ends a peer's connections; its exchanges stay open.
    pub(crate) fn misbehaved(&mut self, peer: NodeKey, fault: Fault) {
        tracing::warn!(%peer, reason = %fault.0, "peer broke the protocol");
        self.notify(Event::Misbehaved { peer, reason: fault.0 });
        self.disconnect(peer);
    }

    pub(crate) fn disconnect(&mut self, peer: NodeKey) {
        let conns: Vec<_> =
            self.edges.get(&peer).into_iter().flat_map(|edge| edge.conns.keys().copied()).collect();
        for conn in conns {
            self.outputs.push_back(Output::Disconnect { peer, conn });
            self.on_disconnected(peer, conn);
        }
    }

    pub(crate) fn notify(&mut self, event: Event) {
        self.outputs.push_back(Output::Notify(event));
    }

    /// Tells the application once this flush is on disk.
    pub(crate) fn notify_durable(&mut self, event: Event) {
        self.store.hold(Held::Output(Output::Notify(event)));
    }

    /// Numbers of exchanges and epochs: increasing for ever.
    pub(crate) fn next_number(&mut self) -> u64 {
        self.counter = self.counter.wrapping_add(1);
        if self.counter == 0 {
            self.boot = self.boot.saturating_add(1);
            self.save_meta();
        }
        u64::from(self.boot) << 32 | u64::from(self.counter)
    }

    pub(crate) fn next_exchange(&mut self) -> ExchangeId {
        ExchangeId(self.next_number())
    }

    pub(crate) fn save_meta(&mut self) {
        let row = rows::MetaRow { node: self.key, network: self.config.network.clone(), boot: self.boot };
        self.store.put(Table::Meta, rows::MetaRow::key(), rows::encode(&row, 256));
    }

    pub(crate) fn nonce(&mut self) -> u64 {
        self.nonces += 1;
        let hash = blake3::keyed_hash(&self.config.seed, &self.nonces.to_be_bytes());
        let mut nonce = [0; 8];
        nonce.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_be_bytes(nonce)
    }

    /// What to send to a peer with the next flush.
    pub(crate) fn outbox(&mut self, peer: NodeKey) -> &mut Outbox {
        self.busy.insert(peer);
        &mut self.edges.entry(peer).or_default().outbox
    }

    /// The request that a peer was asked under this number. One that waits to be asked again has a number
    /// that the peer was never told: whatever it says of that says nothing of the request.
    pub(crate) fn asked(&self, peer: NodeKey, exchange: ExchangeId) -> Option<RequestId> {
        let id = self.edges.get(&peer)?.asked.get(&exchange)?;
        self.jobs.get(id).filter(|job| !job.is_refused()).map(|_| *id)
    }

    pub(crate) fn edge(&mut self, peer: NodeKey) -> &mut Edge {
        self.edges.entry(peer).or_default()
    }

    /// Counts a leg as unanswered.
    pub(crate) fn load(&mut self, leg: &Leg, incoming: bool) {
        if let Some(channel) = self.channels.get_mut(&leg.channel) {
            if !incoming && leg.hop > 0 {
                channel.relayed.add(leg.via, leg.amount, leg.bytes);
            }
            let load = if incoming { &mut channel.incoming } else { &mut channel.outgoing };
            // Sums of what was paid, hence within what exists.
            *load = load.plus(leg.amount, leg.bytes).unwrap_or(*load);
        }
    }

    /// The leg has its outcome.
    pub(crate) fn settle(&mut self, leg: &mut Leg, incoming: bool) {
        if !std::mem::take(&mut leg.open) {
            return;
        }
        if let Some(channel) = self.channels.get_mut(&leg.channel) {
            if !incoming && leg.hop > 0 {
                channel.relayed.remove(&leg.via, leg.amount, leg.bytes);
            }
            let load = if incoming { &mut channel.incoming } else { &mut channel.outgoing };
            *load = load.minus(leg.amount, leg.bytes);
        }
    }

    /// Bytes that an exchange may make this node hold: whole bodies at the ends, windows at a relay.
    pub(crate) fn reservation(&self, leg: &Leg, body_len: u64, is_relay: bool) -> u64 {
        if !is_relay {
            return leg.bytes;
        }
        let window = u64::from(self.config.limits.window);
        let reply = leg.bytes.saturating_sub(body_len);
        body_len.min(window).saturating_add(reply.min(window))
    }

    pub(crate) fn is_relay(&self, job_destination: &NodeKey) -> bool {
        *job_destination != self.key
    }

    /// Forgets a job with its rows.
    pub(crate) fn forget(&mut self, request: &RequestId) -> Option<Box<Job>> {
        let mut job = self.jobs.remove(request)?;
        if let Some(alarm) = job.pace.alarm {
            self.due.remove(&(alarm, *request));
        }
        self.disown_late(request, &job);
        self.disown_request(request, &job);
        self.dirty_jobs.remove(request);
        self.store.delete(Table::Exchanges, rows::job_key(request));
        if matches!(job.role, Role::Answered { below: None, .. }) {
            self.store.delete(Table::Exchanges, rows::answer_key(request));
        }
        let here = !self.is_relay(&job.head.destination);
        if here && job.from().is_some_and(|from| !from.clock.late.is_zero()) {
            self.store.delete(Table::Exchanges, rows::clock_key(request));
        }
        if job.pace.noted_ms > 0 {
            self.store.delete(Table::Exchanges, rows::waits_key(request));
        }
        if job.has_chunks() {
            self.delete_chunks(request, job.head.body_len);
        }
        let relay = self.is_relay(&job.head.destination);
        match job.from().cloned() {
            Some(_) if matches!(job.role, Role::Rejected { .. } | Role::Severed { .. }) => {}
            Some(leg) => {
                let reserved = self.reservation(&leg, job.head.body_len, relay);
                let edge = self.edge(leg.peer);
                edge.reserved = edge.reserved.saturating_sub(reserved);
            }
            None => {
                if let Some(leg) = job.to().cloned() {
                    let edge = self.edge(leg.peer);
                    edge.reserved = edge.reserved.saturating_sub(leg.bytes);
                }
            }
        }
        self.settle_job(&mut job);
        Some(job)
    }

    fn settle_job(&mut self, job: &mut Job) {
        match &mut job.role {
            Role::Author(author) => self.settle(&mut author.to, false),
            Role::Relay(relay) => {
                self.settle(&mut relay.from, true);
                self.settle(&mut relay.to, false);
            }
            Role::Destination { from, .. }
            | Role::Answered { from, .. }
            | Role::Rejected { from, .. }
            | Role::Severed { from, .. } => self.settle(from, true),
        }
    }

    /// A late payment of a job that ends before it was signed: nobody waits for it any more.
    fn disown_late(&mut self, request: &RequestId, job: &Job) {
        // What was set aside for it is part of its total.
        let Some(from) = job.from().filter(|from| !from.clock.late.is_zero()) else { return };
        let Some(edge) = self.edges.get_mut(&from.peer) else { return };
        let mut unsigned = Vec::new();
        edge.outbox.late.retain(|(id, due)| {
            let ends = id == request;
            unsigned.extend(ends.then_some(due.amount));
            !ends
        });
        for reply in &mut edge.outbox.responses {
            if reply.request == *request {
                unsigned.push(std::mem::take(&mut reply.late).amount);
            }
        }
        if let Some(channel) = self.channels.get_mut(&from.channel) {
            unsigned.into_iter().for_each(|amount| channel.disown(amount));
        }
    }

    /// Nor is a request passed on that has ended before it was paid for.
    fn disown_request(&mut self, request: &RequestId, job: &Job) {
        let Some(to) = job.to() else { return };
        let Some(edge) = self.edges.get_mut(&to.peer) else { return };
        let unsigned = edge.outbox.requests.extract_if(.., |queued| queued.request == *request);
        if unsigned.filter(|queued| queued.fresh).count() > 0
            && let Some(channel) = self.channels.get_mut(&to.channel)
        {
            channel.disown(to.amount);
        }
    }

    /// Only for a body that was taken on: the length of any other is whatever its author has signed.
    pub(crate) fn delete_chunks(&mut self, request: &RequestId, body_len: u64) {
        let count = rows::chunks(usize::try_from(body_len).unwrap_or(usize::MAX));
        for index in 0..count {
            self.store.delete(Table::Exchanges, rows::chunk_key(request, index));
        }
    }

    pub(crate) fn put_chunks(&mut self, request: &RequestId, body: &[u8]) {
        if rows::chunks(body.len()) == 0 {
            return;
        }
        for (index, chunk) in (0u32..).zip(body.chunks(rows::CHUNK)) {
            self.store.put(Table::Exchanges, rows::chunk_key(request, index), chunk.to_vec());
        }
    }

    /// Balance of this node on a channel less what it may have to refund, as far as the counterparty knows.
    pub(crate) fn available(&self, channel: ChannelId) -> Yocto {
        self.channels.get(&channel).map_or(Yocto::ZERO, Channel::available)
    }

    /// The same, whatever the counterparty knows.
    pub(crate) fn funds(&self, channel: ChannelId) -> Yocto {
        self.channels.get(&channel).map_or(Yocto::ZERO, Channel::funds)
    }
}
