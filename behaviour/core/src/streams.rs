//! The bulk lane: fragments in and out, credits, fair turns.

use bytes::Bytes;
use por_types::{NodeKey, RequestId};

use crate::api::{ConnId, Output};
use crate::body::{Inflow, Outflow};
use crate::edge::QueuedReply;
use crate::fault::Fault;
use crate::job::{Asked, Job, Leg, Role};
use crate::node::Node;
use crate::wire::{Credit, Fragment, Frame, Lane, LateDue, Part};

/// Most bytes of fragments per connection that the driver has not written yet.
const MAX_UNWRITTEN: u64 = 1 << 20;

/// Bytes of one body per turn.
const TURN: u64 = 64 << 10;

/// How often a body may be asked for once more, of what has been sent already, for each node that it passes
/// to: a hundred bytes that ask for it cost a window, at a relay of its other edge too.
const MAX_RESTARTS: u64 = 16;

/// And once more in so many milliseconds: connections may be lost as often as they like.
const RESTART_MS: u64 = 10_000;

impl Node {
    pub(crate) fn on_drained(&mut self, peer: NodeKey, conn: ConnId, bytes: u64) {
        let Some(edge) = self.edges.get_mut(&peer) else { return };
        if let Some(conn) = edge.conns.get_mut(&conn) {
            conn.unwritten = conn.unwritten.saturating_sub(bytes);
        }
        if !edge.bulk.is_empty() {
            self.busy.insert(peer);
        }
    }

    pub(crate) fn on_fragment(&mut self, peer: NodeKey, fragment: Fragment) -> Result<(), Fault> {
        let Fragment { exchange, part, offset, data } = fragment;
        let Some(edge) = self.edges.get(&peer) else { return Ok(()) };
        // Left over from an exchange that has ended.
        match part {
            Part::ResponseBody => {
                let Some(id) = self.asked(peer, exchange) else { return Ok(()) };
                match self.response_fragment(peer, id, offset, data) {
                    // They may be of an answer that was left, not of the one that is known.
                    Err(_) if self.has_left(peer) => Ok(()),
                    result => result,
                }
            }
            Part::RequestBody => {
                let Some(&id) = edge.owed.get(&exchange) else { return Ok(()) };
                self.request_fragment(peer, id, offset, data)
            }
        }
    }

    fn response_fragment(
        &mut self,
        peer: NodeKey,
        id: RequestId,
        offset: u64,
        data: Bytes,
    ) -> Result<(), Fault> {
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        match &mut job.role {
            Role::Author(author) => {
                let Some(arriving) = &mut author.reply else { return Ok(()) };
                let exchange = author.to.exchange;
                arriving.inflow.gather(offset, data, &mut arriving.data)?;
                let complete = arriving.inflow.is_complete();
                let body = arriving.inflow.root();
                if let Some(up_to) = arriving.inflow.grant_verified() {
                    let credit = Credit { exchange, part: Part::ResponseBody, body, up_to, from: None };
                    self.outbox(peer).credits.push(credit);
                }
                if complete {
                    self.response_complete(id);
                }
                Ok(())
            }
            Role::Relay(relay) => {
                // After its end come only bytes of another answer, which is not taken yet.
                let passing = relay.reply.as_mut().filter(|passing| !passing.flow.is_whole());
                let Some(passing) = passing else { return Ok(()) };
                let upstream = relay.from.peer;
                let result = passing.flow.push(offset, data);
                let complete = passing.flow.inflow().is_some_and(|inflow| inflow.is_complete());
                self.list(upstream, id, Part::ResponseBody);
                self.refill(id, Part::ResponseBody);
                self.sample(id, false);
                if complete {
                    self.response_complete(id);
                }
                result
            }
            _ => Ok(()),
        }
    }

    fn request_fragment(
        &mut self,
        peer: NodeKey,
        id: RequestId,
        offset: u64,
        data: Bytes,
    ) -> Result<(), Fault> {
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        match &mut job.role {
            Role::Destination { from, stage: Asked::Uploading { inflow, data: body } } => {
                let exchange = from.exchange;
                inflow.gather(offset, data, body)?;
                if inflow.is_complete() {
                    let body = Bytes::from(std::mem::take(body));
                    self.upload_over(id);
                    self.queue(id, body);
                } else if let Some(up_to) = inflow.grant_verified() {
                    let body = inflow.root();
                    let credit = Credit { exchange, part: Part::RequestBody, body, up_to, from: None };
                    self.outbox(peer).credits.push(credit);
                }
                self.sample(id, true);
                Ok(())
            }
            Role::Relay(relay) => {
                let downstream = relay.to.peer;
                let result = relay.body.push(offset, data);
                let complete = relay.body.inflow().is_some_and(|inflow| inflow.is_complete());
                if complete {
                    self.upload_over(id);
                }
                self.list(downstream, id, Part::RequestBody);
                self.refill(id, Part::RequestBody);
                self.sample(id, true);
                result
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn on_credit(&mut self, peer: NodeKey, credit: Credit) -> Result<(), Fault> {
        let Some(edge) = self.edges.get(&peer) else { return Ok(()) };
        let id = match credit.part {
            Part::RequestBody => self.asked(peer, credit.exchange),
            Part::ResponseBody => edge.owed.get(&credit.exchange).copied(),
        };
        let Some(id) = id else { return Ok(()) };
        if self.flow(id, credit.part).is_none_or(|flow| flow.root() != credit.body) {
            return Ok(());
        }
        match credit.from {
            Some(from) => self.resume(peer, id, credit.part, from, credit.up_to),
            None => {
                if let Some(flow) = self.flow(id, credit.part) {
                    flow.grant(credit.up_to);
                }
                self.list(peer, id, credit.part);
                self.sample(id, false);
                Ok(())
            }
        }
    }

    /// The outgoing body of a job in this direction.
    pub(crate) fn flow(&mut self, id: RequestId, part: Part) -> Option<&mut Outflow> {
        let job: &mut Job = self.jobs.get_mut(&id)?;
        match part {
            Part::RequestBody => job.upload(),
            Part::ResponseBody => job.reply().map(|(_, flow)| flow),
        }
    }

    /// Sends a body to `peer` from a position on; asks its source again where that is needed.
    pub(crate) fn resume(
        &mut self,
        peer: NodeKey,
        id: RequestId,
        part: Part,
        from: u64,
        limit: u64,
    ) -> Result<(), Fault> {
        let (now, behind) = (self.now, self.nodes_behind(id, part));
        let Some(flow) = self.flow(id, part) else { return Ok(()) };
        let body = flow.root();
        // Before anything is dropped that would have to be asked for.
        if flow.goes_back(from) {
            let (count, since) = &mut flow.restarts;
            if *count == 0 {
                *since = now;
            }
            // Each node may ask so often by itself, besides what those behind it ask of it.
            let most = behind.saturating_mul(MAX_RESTARTS).saturating_add(now.since_ms(*since) / RESTART_MS);
            if *count >= most {
                return Err(Fault::new("asks for a body from its start again and again"));
            }
            *count += 1;
        }
        if part == Part::ResponseBody && flow.is_gone(from) && self.answer_anew(peer, id)? {
            return Ok(());
        }
        let Some(flow) = self.flow(id, part) else { return Ok(()) };
        let refetch = flow.resume(from, limit)?;
        self.list(peer, id, part);
        self.sample(id, false);
        if refetch && part == Part::ResponseBody {
            self.owe_again(id);
        }
        if refetch && let Some((source, exchange)) = self.source(id, part) {
            let up_to = u64::from(self.config.limits.window);
            let credit = Credit { exchange, part, body, up_to, from: Some(0) };
            self.outbox(source).credits.push(credit);
        }
        self.refill(id, part);
        Ok(())
    }

    /// Upstream has lost an answer that the downstream node does not have any more either: announces the one
    /// that it has now. False if there is none.
    fn answer_anew(&mut self, peer: NodeKey, id: RequestId) -> Result<bool, Fault> {
        let window = self.config.limits.window;
        let Some(Role::Relay(relay)) = self.jobs.get_mut(&id).map(|job| &mut job.role) else {
            return Ok(false);
        };
        let exchange = relay.to.exchange;
        let source = relay.to.peer;
        let Some(passing) = &mut relay.reply else { return Ok(false) };
        let Some(receipt) = passing.newer.take() else { return Ok(false) };
        let body = receipt.receipt.body_hash;
        let inflow = Inflow::new(body, receipt.receipt.body_len, window)?;
        let before = std::mem::replace(&mut passing.flow, Outflow::piped(inflow));
        passing.flow.restarts = before.restarts;
        passing.receipt = receipt;
        self.outbox(peer).responses.push(QueuedReply {
            request: id,
            resume: false,
            late: LateDue::default(),
        });
        let credit =
            Credit { exchange, part: Part::ResponseBody, body, up_to: u64::from(window), from: Some(0) };
        self.outbox(source).credits.push(credit);
        self.owe_again(id);
        self.sample(id, false);
        Ok(true)
    }

    /// How many nodes a body still passes once it has left this one.
    fn nodes_behind(&self, id: RequestId, part: Part) -> u64 {
        let Some(job) = self.jobs.get(&id) else { return 0 };
        let hops = |leg: Option<&Leg>| leg.map_or(0, |leg| usize::from(leg.hop));
        let nodes = match part {
            Part::RequestBody => job.head.route.len().saturating_sub(hops(job.to())),
            Part::ResponseBody => hops(job.from()) + 1,
        };
        nodes as u64
    }

    /// Where a relayed body comes from.
    fn source(&self, id: RequestId, part: Part) -> Option<(NodeKey, crate::ExchangeId)> {
        let job = self.jobs.get(&id)?;
        let leg = match part {
            Part::RequestBody => job.from()?,
            Part::ResponseBody => job.to()?,
        };
        Some((leg.peer, leg.exchange))
    }

    /// Puts a body in the queue for the bulk lane if it has something to send.
    pub(crate) fn list(&mut self, peer: NodeKey, id: RequestId, part: Part) {
        let Some(flow) = self.flow(id, part) else { return };
        if !flow.listed && flow.is_sendable() {
            flow.listed = true;
            self.edge(peer).bulk.push_back((id, part));
            self.busy.insert(peer);
        }
    }

    /// Gives the source of a relayed body credit for what has left this node.
    fn refill(&mut self, id: RequestId, part: Part) {
        let Some(flow) = self.flow(id, part) else { return };
        let body = flow.root();
        let Some(up_to) = flow.refill() else { return };
        if let Some((source, exchange)) = self.source(id, part) {
            self.outbox(source).credits.push(Credit { exchange, part, body, up_to, from: None });
        }
    }

    /// Hands the driver fragments, one body after the other, while it keeps up.
    pub(crate) fn pump(&mut self, peer: NodeKey) {
        loop {
            let Some(edge) = self.edges.get_mut(&peer) else { return };
            let Some(conn) = edge.open() else { return };
            let full = edge.conns.get(&conn).is_none_or(|c| c.unwritten >= MAX_UNWRITTEN);
            if full {
                return;
            }
            let Some((id, part)) = edge.bulk.pop_front() else { return };
            let sent = self.turn(peer, conn, id, part);
            if let Some(conn) = self.edge(peer).conns.get_mut(&conn) {
                conn.unwritten += sent;
            }
            self.refill(id, part);
            self.list(peer, id, part);
            self.sample(id, false);
        }
    }

    fn turn(&mut self, peer: NodeKey, conn: ConnId, id: RequestId, part: Part) -> u64 {
        let Some(exchange) = self.exchange_towards(id, part) else { return 0 };
        let mut sent = 0;
        while sent < TURN {
            let Some(flow) = self.flow(id, part) else { break };
            flow.listed = false;
            let Some((offset, data)) = flow.take(TURN - sent) else { break };
            sent += data.len() as u64;
            let frame = Frame::Fragment(Fragment { exchange, part, offset, data });
            self.outputs.push_back(Output::Send { peer, conn, lane: Lane::Bulk, frame });
        }
        if part == Part::RequestBody && self.flow(id, part).is_some_and(|flow| flow.is_sent()) {
            self.sent_upload(id);
        }
        sent
    }

    /// An own request's body has left.
    fn sent_upload(&mut self, id: RequestId) {
        if self.jobs.get(&id).is_some_and(|job| matches!(job.role, Role::Author(_))) {
            self.upload_over(id);
        }
    }

    /// Number of the exchange on the edge that a body leaves over.
    fn exchange_towards(&self, id: RequestId, part: Part) -> Option<crate::ExchangeId> {
        let job = self.jobs.get(&id)?;
        match part {
            Part::RequestBody => job.to().map(|leg| leg.exchange),
            Part::ResponseBody => job.from().map(|leg| leg.exchange),
        }
    }
}
