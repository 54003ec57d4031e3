//! Requests of the local application.

use por_types::{ChannelId, Hash, ItemKind, RequestHead, RequestId};

use crate::admission::MAX_BOUND_MS;
use crate::api::{Command, Event, RejectReason, SignedReceipt};
use crate::body::Outflow;
use crate::edge::Queued;
use crate::flush::take_all;
use crate::graph::Refusal;
use crate::job::{Author, Job, Leg, Role};
use crate::node::Node;
use crate::pace::Pace;
use crate::rows::Clock;
use crate::verified::Encoder;
use bytes::Bytes;

/// A request that is paid for and waits for the flush's signature.
#[derive(Debug)]
pub(crate) struct Draft {
    purpose: Purpose,
    head: RequestHead,
    body: Encoder,
    to: Leg,
}

/// Who asks.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Purpose {
    /// The application, which knows the request by this token until it has an id.
    App(u64),
    /// The pursuit after this channel.
    Pursuit(ChannelId),
}

impl Draft {
    pub fn new(purpose: Purpose, head: RequestHead, body: Encoder, to: Leg) -> Draft {
        Draft { purpose, head, body, to }
    }

    pub fn purpose(&self) -> Purpose {
        self.purpose
    }
}

impl Node {
    pub(crate) fn on_request_command(&mut self, command: Command) {
        let Command::Request {
            token,
            destination,
            app,
            body,
            response_limit,
            server_price,
            expires_ms,
            graph_version,
            route,
        } = command
        else {
            return;
        };
        if body.len() as u64 > self.config.limits.max_body {
            return self.notify(Event::Refused { token, reason: RejectReason::TooLarge });
        }
        let body = Encoder::new(body);
        let head = RequestHead {
            author: self.key,
            nonce: self.nonce(),
            destination,
            app,
            body_hash: body.root(),
            body_len: body.body().len() as u64,
            response_limit,
            expires_ms,
            graph_version,
            server_price,
            route,
        };
        match self.plan(&head) {
            Ok(to) => self.drafts.push(Draft::new(Purpose::App(token), head, body, to)),
            Err(reason) => self.notify(Event::Refused { token, reason }),
        }
    }

    /// Checks a request and sets its payment aside.
    pub(crate) fn plan(&mut self, head: &RequestHead) -> Result<Leg, RejectReason> {
        head.validate().map_err(|_| RejectReason::Invalid)?;
        let limits = &self.config.limits;
        if head.response_limit > limits.max_body {
            return Err(RejectReason::TooLarge);
        }
        if self.local >= limits.max_local {
            return Err(RejectReason::Busy);
        }
        let first = head.route.first().ok_or(RejectReason::Invalid)?;
        let (peer, id) = (first.to, first.channel);
        self.graph.check(head, 0, false, None).map_err(|refusal| match refusal {
            Refusal::Reject(reason) => reason,
            Refusal::Invalid(_) => RejectReason::Invalid,
            Refusal::Short(_) => RejectReason::Balance,
        })?;
        if head.expires_ms <= self.graph.chain_time_ms || head.bound_ms_at(0) > MAX_BOUND_MS {
            return Err(RejectReason::Expired);
        }
        let leg = Leg::new(head, peer, crate::ExchangeId(0), 0).map_err(|_| RejectReason::Invalid)?;
        self.check_next(&leg)?;
        let edge = self.edge(peer);
        if edge.reserved.saturating_add(leg.bytes) > self.config.limits.max_peer_bytes {
            return Err(RejectReason::Busy);
        }
        let channel = self.channels.get_mut(&id).ok_or(RejectReason::NoEdge)?;
        channel.spend(leg.amount).map_err(|_| RejectReason::Balance)?;
        self.load(&leg, false);
        self.edge(peer).reserved += leg.bytes;
        self.local += 1;
        Ok(leg)
    }

    /// Signs the flush's requests with one signature and makes exchanges of them.
    pub(crate) fn flush_drafts(&mut self) {
        let mut drafts = take_all(&mut self.drafts);
        let most = self.most_signed();
        while drafts.len() > most {
            let rest = drafts.split_off(most);
            self.sign_drafts(std::mem::replace(&mut drafts, rest));
        }
        if !drafts.is_empty() {
            self.sign_drafts(drafts);
        }
    }

    fn sign_drafts(&mut self, drafts: Vec<Draft>) {
        let heads: Vec<Bytes> =
            drafts.iter().map(|draft| Bytes::from(borsh::to_vec(&draft.head).unwrap_or_default())).collect();
        let (ids, leaves): (Vec<RequestId>, Vec<Hash>) =
            heads.iter().map(|head| self.statements.request(head)).unzip();
        let proofs = self.sign_leaves::<RequestHead>(leaves);
        for (((draft, head), id), proof) in drafts.into_iter().zip(heads).zip(ids).zip(proofs) {
            self.start(id, draft, head, proof);
        }
    }

    fn start(&mut self, request: RequestId, draft: Draft, head_bytes: Bytes, proof: por_types::FlushProof) {
        let Draft { purpose, head, body, mut to } = draft;
        let (peer, price) = (to.peer, to.amount);
        to.exchange = self.next_exchange();
        self.edge(peer).asked.insert(to.exchange, request);
        self.outbox(peer).requests.push(Queued { request, fresh: true });
        self.put_chunks(&request, body.body());
        to.clock = Clock::new(self.now, head.bound_ms_at(0));
        self.due.insert((to.clock.deadline, request));
        let batch = self.store.next_batch();
        let uploaded = head.body_len <= u64::from(self.config.limits.max_inline);
        let author = Author { to, body: Outflow::whole(body), acked: false, uploaded, batch, reply: None };
        self.jobs.insert(
            request,
            Job { head, head_bytes, proof, pace: Pace::new(self.now), role: Role::Author(author) },
        );
        self.supervise(peer);
        self.dirty_jobs.insert(request);
        match purpose {
            Purpose::App(token) => self.notify_durable(Event::Started { token, request, price }),
            Purpose::Pursuit(channel) => self.pursuit_asks(channel, request, price),
        }
    }

    /// The author has its verified response.
    pub(crate) fn finish_author(&mut self, request: RequestId, receipt: SignedReceipt, body: Bytes) {
        if self.close_author(&request) {
            self.tell_author(request, Event::Response { request, receipt, body });
        }
    }

    /// The outcome of an own request.
    pub(crate) fn tell_author(&mut self, request: RequestId, outcome: Event) {
        match self.pursuing.remove(&request) {
            None => self.notify(outcome),
            Some(channel) => self.pursuit_heard(channel, &outcome),
        }
    }

    /// Ends an own request; Done goes out once that is on disk.
    pub(crate) fn close_author(&mut self, request: &RequestId) -> bool {
        let Some(job) = self.forget(request) else { return false };
        if let Role::Author(author) = &job.role {
            self.due.remove(&(author.to.clock.deadline, *request));
        }
        if let Some(to) = job.to() {
            let exchange = to.exchange;
            self.edge(to.peer).asked.remove(&exchange);
            self.outbox(to.peer).done.push(exchange);
        }
        self.local = self.local.saturating_sub(1);
        true
    }
}

/// Items of requests are prepayments.
pub(crate) const REQUEST: ItemKind = ItemKind::Request;
