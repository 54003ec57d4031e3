//! A host: a node with its disk and its application.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use por_types::{ChannelId, NodeKey, NodeSecret, RequestId, Yocto};

use super::{APP, Happening, Rng, World, nth_response};
use crate::api::{
    Command, CoreConfig, Event, Input, Limits, Output, Policy, RejectReason, Restored, Row, RowKey, Table,
    Time, Write,
};
use crate::node::Node;

/// How a request ended for its author.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    Response(bytes::Bytes),
    /// With who has signed it, if somebody has.
    Rejected(RejectReason, Option<NodeKey>),
    Refused(RejectReason),
    /// With the channel that was severed and the refund.
    Severed(ChannelId, Yocto),
}

pub struct Host {
    pub index: usize,
    pub secret: NodeSecret,
    /// Of its latest start.
    pub limits: Limits,
    /// `None` while it is down.
    pub node: Option<Node>,
    /// Number of starts.
    pub life: u32,
    /// Outputs over all lives.
    pub outputs: u64,
    /// Deadline for which a tick is queued.
    pub(super) tick_at: Option<u64>,
    disk: BTreeMap<(Table, RowKey), Vec<u8>>,
    pending: VecDeque<(u64, Vec<Write>)>,
    /// All events of all lives, in order.
    pub events: Vec<Event>,
    pub started: BTreeMap<RequestId, u64>,
    /// By token, with the life in which each was told.
    pub outcomes: BTreeMap<u64, Vec<Outcome>>,
    pub(super) outcome_lives: BTreeMap<u64, Vec<u32>>,
    /// Requests that the app has seen, by token.
    pub seen: BTreeMap<u64, u32>,
    /// Outcomes of requests whose start was not told before a crash.
    pub(super) orphans: BTreeMap<RequestId, RejectReason>,
    pub(super) orphans_severed: BTreeSet<RequestId>,
}

impl Host {
    pub(super) fn new(index: usize, rng: &mut Rng) -> Host {
        let mut seed = [0; 32];
        seed.chunks_mut(8).for_each(|chunk| chunk.copy_from_slice(&rng.next().to_be_bytes()));
        Host {
            index,
            secret: NodeSecret::from_seed(&seed),
            limits: Limits::default(),
            node: None,
            life: 0,
            outputs: 0,
            tick_at: None,
            disk: BTreeMap::new(),
            pending: VecDeque::new(),
            events: Vec::new(),
            started: BTreeMap::new(),
            outcomes: BTreeMap::new(),
            outcome_lives: BTreeMap::new(),
            seen: BTreeMap::new(),
            orphans: BTreeMap::new(),
            orphans_severed: BTreeSet::new(),
        }
    }

    /// Rows as they are on disk.
    pub fn rows(&self) -> Vec<Row> {
        let row = |((table, key), value): (&(Table, RowKey), &Vec<u8>)| Row {
            table: *table,
            key: key.clone(),
            value: value.clone(),
        };
        self.disk.iter().map(row).collect()
    }

    /// Another state of the disk, while the host is down.
    pub fn set_rows(&mut self, rows: Vec<Row>) {
        self.disk = rows.into_iter().map(|row| ((row.table, row.key), row.value)).collect();
    }

    pub(super) fn start(&mut self, limits: Limits, policy: Policy, cheats: bool, seed: u64) {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&seed.to_be_bytes());
        let network = World::network();
        self.limits = limits.clone();
        let config = CoreConfig { network, secret: self.secret.clone(), limits, policy, seed: bytes };
        let node = Node::new(config, Restored { rows: self.rows() });
        let mut node = node.unwrap_or_else(|error| panic!("host {}: {error}", self.index));
        node.cheats = cheats;
        self.node = Some(node);
        self.life += 1;
    }

    pub(super) fn handle(&mut self, now: u64, input: Input) {
        if let Some(node) = &mut self.node {
            node.handle(Time(now), input);
        }
    }

    pub(super) fn poll(&mut self) -> Option<Output> {
        self.node.as_mut().and_then(Node::poll)
    }

    pub(super) fn uncommitted(&self) -> usize {
        self.pending.len()
    }

    fn apply(&mut self, writes: Vec<Write>) {
        for Write { table, key, value } in writes {
            match value {
                Some(value) => self.disk.insert((table, key), value),
                None => self.disk.remove(&(table, key)),
            };
        }
    }

    /// Everything up to `batch` is durable; false if it was already.
    pub(super) fn commit(&mut self, batch: u64) -> bool {
        let mut any = false;
        while self.pending.front().is_some_and(|(number, _)| *number <= batch) {
            if let Some((_, writes)) = self.pending.pop_front() {
                self.apply(writes);
                any = true;
            }
        }
        any
    }

    pub(super) fn crash(&mut self, keep: usize) {
        let kept: Vec<_> = self.pending.drain(..).take(keep).collect();
        for (_, writes) in kept {
            self.apply(writes);
        }
        self.node = None;
        self.tick_at = None;
        self.life += 1;
    }

    fn token(&self, request: &RequestId, body: Option<&[u8]>) -> Option<u64> {
        let known = self.started.get(request).copied();
        known.or_else(|| body?.get(..8)?.try_into().ok().map(u64::from_be_bytes))
    }

    fn ended(&mut self, token: u64, outcome: Outcome) {
        self.outcomes.entry(token).or_default().push(outcome);
        self.outcome_lives.entry(token).or_default().push(self.life);
    }
}

impl World {
    pub(super) fn carry_out(&mut self, host: usize, output: Output) {
        match output {
            Output::Send { peer, conn, lane, frame } => self.send(host, peer, conn, lane, frame),
            Output::Disconnect { conn, .. } => self.cut(conn.0),
            Output::Persist { batch, writes } => {
                self.hosts[host].pending.push_back((batch, writes));
                let delay = self.options.commit_ms + self.rng.below(self.options.commit_ms + 1);
                let life = self.hosts[host].life;
                self.at(delay, Happening::Committed { host, life, batch });
            }
            Output::Sever { order } => self.submit_order(host, order),
            Output::Notify(event) => self.told(host, event),
        }
    }

    fn told(&mut self, index: usize, event: Event) {
        let host = &mut self.hosts[index];
        match &event {
            Event::Started { token, request, .. } => {
                host.started.insert(*request, *token);
            }
            Event::Refused { token, reason } => host.ended(*token, Outcome::Refused(*reason)),
            Event::Response { request, body, .. } => {
                if let Some(token) = host.token(request, Some(body)) {
                    host.started.insert(*request, token);
                    host.ended(token, Outcome::Response(body.clone()));
                }
            }
            Event::Rejected { request, reason, invalid, .. } => match host.token(request, None) {
                Some(token) => {
                    let signer = invalid.as_ref().map(|proof| proof.statement.signer);
                    host.ended(token, Outcome::Rejected(*reason, signer));
                }
                None => {
                    host.orphans.insert(*request, *reason);
                }
            },
            Event::Severed { request, order, refund, .. } => {
                let outcome = Outcome::Severed(order.statement.channel, *refund);
                match host.token(request, None) {
                    Some(token) => host.ended(token, outcome),
                    None => {
                        host.orphans_severed.insert(*request);
                    }
                }
            }
            Event::Pursue { channel, peer, most, .. } => self.pursue(index, *channel, *peer, *most),
            Event::Incoming { request, body, app, .. } if app == APP => {
                self.serve(index, *request, body.clone());
            }
            _ => {}
        }
        self.hosts[index].events.push(event);
    }

    fn serve(&mut self, host: usize, request: RequestId, body: bytes::Bytes) {
        let token = self.hosts[host].token(&request, Some(&body));
        let body = match token {
            Some(token) => {
                let told = self.hosts[host].seen.entry(token).or_default();
                let nth = u64::from(std::mem::replace(told, *told + 1));
                let len = self.asked.get(&token).map_or(8, |asked| asked.response_len);
                nth_response(token, len, nth)
            }
            // A request without a single byte has no token.
            None => bytes::Bytes::new(),
        };
        let respond = Command::Respond { request, body };
        let delay = self.options.app_ms.unwrap_or_else(|| self.rng.below(30));
        let life = self.hosts[host].life;
        self.at(delay, Happening::Input { host, life, input: Input::Command(respond) });
    }
}
