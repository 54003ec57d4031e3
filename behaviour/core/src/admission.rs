//! A request arrives: is it paid, honest, affordable? (protocol sections 4 and 5)
//!
//! What an honest peer would never send ends its connection. What the author's own bytes make
//! impossible is refused with a proof, the rest with a reason; both with the whole payment back.

use borsh::BorshDeserialize;
use bytes::{Bytes, BytesMut};
use por_types::{
    ChannelId, ChannelState, Hash, Invalid, Item, ItemKind, NodeKey, RequestHead, RequestId, SeverReason,
    Signed, SignedInvalid,
};

use crate::api::{ANSWER_APP, ANSWER_LIMIT, Patience, RejectReason, Time};
use crate::body::{Inflow, Outflow};
use crate::edge::{Edge, Queued};
use crate::fault::Fault;
use crate::graph::Refusal;
use crate::job::{Asked, Job, Leg, Relay, Role};
use crate::ledger::Channel;
use crate::node::Node;
use crate::pace::{Pace, declined};
use crate::replies::ASK_AGAIN_MS;
use crate::rows::Clock;
use crate::verified::Encoder;
use crate::wire::{CHANNELS, Request, RequestItem};

/// Most bytes of a request's head: 20 hops and the longest app name fit twice.
const MAX_HEAD: usize = 4096;

/// How far ahead of the chain's time a request may expire, milliseconds.
const MAX_EXPIRY_MS: u64 = 24 * 3600 * 1000;

/// Most time that an author may grant a path, milliseconds: until it has passed nobody pays for lateness, and
/// what is under way keeps its place on every edge.
pub(crate) const MAX_BOUND_MS: u64 = 24 * 3600 * 1000;

/// Most frames of a peer over channels that the chain does not show yet.
const MAX_UNHEARD: usize = 64;

/// A request whose bytes make sense on this edge.
struct Parsed {
    item: RequestItem,
    head: RequestHead,
    leaf: Hash,
    id: RequestId,
    from: Leg,
}

impl Node {
    pub(crate) fn on_request(&mut self, peer: NodeKey, frame: Request) -> Result<(), Fault> {
        if frame.requests.is_empty() {
            return Err(Fault::new("a Request frame without requests"));
        }
        let mut parsed = Vec::with_capacity(frame.requests.len());
        for item in frame.requests {
            match self.parse(peer, item)? {
                Ok(request) => parsed.push(request),
                Err(channel) => return self.not_heard(peer, channel),
            }
        }
        if let Some(payment) = &frame.payment {
            let channel = payment.statement.channel;
            let paid = parsed.iter().filter(|request| request.from.channel == channel);
            let items = paid.map(|request| request.from.item(request.id, ItemKind::Request)).collect();
            self.take_payment(peer, payment, (!frame.resent).then_some(items))?;
        }
        for request in parsed {
            // It may have been acknowledged before: the order is its end then, and no rejection.
            match self.channels.get(&request.from.channel).and_then(|channel| channel.row.order.clone()) {
                Some(order) if frame.resent => self.tell_parted(peer, order, request.item.exchange),
                _ => self.admit(peer, request, frame.resent)?,
            }
        }
        Ok(())
    }

    /// Takes a payment. `items`: what it has to name, where it is known. Answers whether it was new.
    pub(crate) fn take_payment(
        &mut self,
        peer: NodeKey,
        payment: &Signed<ChannelState>,
        items: Option<Vec<Item>>,
    ) -> Result<bool, Fault> {
        let id = payment.statement.channel;
        let channel = self.channels.get_mut(&id).filter(|channel| channel.row.peer == peer);
        let channel = channel.ok_or_else(|| Fault::new("payment on a channel that is not with this peer"))?;
        let network = &self.config.network;
        let theirs = payment.statement.totals.sent_by(channel.row.side.other());
        if theirs > channel.row.their_total
            && let Some(items) = items
            && payment.statement.items != channel.items_hash(network, items)
        {
            return Err(Fault::new("payment names other items than those it came with"));
        }
        let new = channel.receive(network, payment)?;
        if new {
            self.dirty_channels.insert(id);
            self.outbox(peer).receipts.insert(id);
        }
        Ok(new)
    }

    /// A frame over a channel that the chain does not show to this node yet: left for when it does. The
    /// peer is ahead of it, or makes the channel up.
    pub(crate) fn not_heard(&mut self, peer: NodeKey, channel: ChannelId) -> Result<(), Fault> {
        let unheard = &mut self.edge(peer).unheard;
        unheard.push(channel);
        if unheard.len() > MAX_UNHEARD {
            unheard.clear();
            return Err(Fault::new("requests over a channel that is not with this peer"));
        }
        Ok(())
    }

    /// The channel, if this node does not know it yet.
    fn parse(&mut self, peer: NodeKey, item: RequestItem) -> Result<Result<Parsed, ChannelId>, Fault> {
        if item.head.len() > MAX_HEAD {
            return Err(Fault::new("request head is too long"));
        }
        let head =
            RequestHead::try_from_slice(&item.head).map_err(|_| Fault::new("request head is malformed"))?;
        let index = usize::from(item.hop);
        let before = match index.checked_sub(1) {
            None => Some(head.author),
            Some(previous) => head.route.get(previous).map(|hop| hop.to),
        };
        let here = head.route.get(index).map(|hop| hop.to);
        if before != Some(peer) || here != Some(self.key) {
            return Err(Fault::new("request does not pass from this peer to this node"));
        }
        let mut from = Leg::new(&head, peer, item.exchange, item.hop)
            .map_err(|_| Fault::new("request names impossible prices"))?;
        from.channel = item.channel.unwrap_or(from.channel);
        match self.channels.get(&from.channel) {
            Some(channel) if channel.row.peer != peer => {
                return Err(Fault::new("request names a channel that is not with this peer"));
            }
            Some(Channel { info: Some(_), .. }) => {}
            _ => return Ok(Err(from.channel)),
        }
        let (id, leaf) = self.statements.request(&item.head);
        Ok(Ok(Parsed { item, head, leaf, id, from }))
    }

    fn admit(&mut self, peer: NodeKey, request: Parsed, resent: bool) -> Result<(), Fault> {
        let Parsed { item, head, leaf, id, from } = request;
        let known = self.edge(peer).owed.get(&item.exchange).copied();
        match known {
            // Sent again: the peer learned from Sync, or will learn, what has become of it.
            Some(known) if known == id => return Ok(()),
            Some(_) => return Err(Fault::new("one exchange number for two requests")),
            None => self.asked_again(peer, id)?,
        }
        if self.edge(peer).owed.len() >= self.most_owed(peer) {
            return Err(Fault::new("more unfinished requests than the channel's terms and limits allow"));
        }
        if !self.roots.request(&self.config.network, &head.author, leaf, &item.proof) {
            return Err(Fault::new("author's signature is wrong"));
        }
        let body =
            Some(item.body).filter(Option::is_some).or((head.body_len == 0).then(|| Some(Bytes::new())));
        let body = body.flatten().map(|body| check_body(body, &head)).transpose()?;
        let paid = self.channels.get_mut(&from.channel).is_some_and(|channel| channel.apply(from.amount));
        if !paid {
            return Err(Fault::new("request is not covered by a payment"));
        }
        self.dirty_channels.insert(from.channel);
        self.edge(peer).owed.insert(item.exchange, id);
        let again = item.again && (from.hop > 0 || self.may_insist(&head));
        let verdict = self.judge(&head, &from, again);
        let now = self.now;
        let away_ms = self.edge(peer).away.total_ms(now);
        let pace = Pace::of(now, away_ms);
        let job = |head| move |role| Job { head, head_bytes: item.head, proof: item.proof, pace, role };
        match verdict {
            Ok(None) => {
                let from = Leg { clock: self.clock_from(&head, &from, resent), ..from };
                self.admit_here(id, from, body, job(head))
            }
            Ok(Some(to)) => {
                let from = Leg { clock: self.clock_from(&head, &from, resent), ..from };
                let allowed_ms = head.bound_ms_at(usize::from(to.hop));
                let to = Leg { clock: Clock::new(self.now, allowed_ms), ..to };
                self.admit_relay(id, from, to, body, again || resent, job(head))
            }
            Err(refusal) => {
                self.refuse(id, from, refusal, job(head));
                Ok(())
            }
        }
    }

    /// An author is under no obligation, and must not make nodes sever whom they cannot reach; but for
    /// one that pursues, and has lost its own edge with the destination.
    fn may_insist(&self, head: &RequestHead) -> bool {
        head.app == ANSWER_APP && self.graph.have_parted(&head.author, &head.destination)
    }

    /// A request that comes anew, and is paid anew, ends the exchange before: that is over for the peer, which
    /// could not say so if the session was down at that time. Were it a fault, an author that sends a request
    /// twice could part two honest neighbours.
    fn asked_again(&mut self, peer: NodeKey, id: RequestId) -> Result<(), Fault> {
        let Some(job) = self.jobs.get(&id) else { return Ok(()) };
        let before = job.from().filter(|from| from.peer == peer).map(|from| from.exchange);
        let before = before.ok_or_else(|| Fault::new("a request of another neighbour, or of this node"))?;
        self.finish(peer, before);
        Ok(())
    }

    /// Unfinished requests from a peer beyond which it floods: unanswered ones within the terms, and
    /// as many that wait for its Done.
    fn most_owed(&self, peer: NodeKey) -> usize {
        let infos = self.channels_with(peer).filter_map(|(_, channel)| channel.info.as_ref());
        let terms = infos.fold(0u64, |sum, info| sum.saturating_add(u64::from(info.terms.max_requests)));
        let most = u64::from(self.config.limits.max_exchanges).saturating_add(terms.min(1 << 20));
        usize::try_from(most).unwrap_or(usize::MAX)
    }

    /// Decides about a paid request: the next leg, `None` at the destination, or why not.
    ///
    /// `again`: the peer was refused once and is under obligation. It may sever this edge for a
    /// second refusal, so what ails the path further on is no reason any more: that is where it has
    /// to come to light.
    fn judge(&self, head: &RequestHead, from: &Leg, again: bool) -> Result<Option<Leg>, Refusal> {
        use RejectReason as R;
        let reject = |reason| Err(Refusal::Reject(reason));
        head.validate().map_err(Refusal::Invalid)?;
        let limits = &self.config.limits;
        let relay = self.is_relay(&head.destination);
        // A relay holds windows of a body, never all of it.
        if !relay && (head.body_len > limits.max_body || head.response_limit > limits.max_body) {
            return reject(R::TooLarge);
        }
        let now = self.graph.chain_time_ms;
        let expired = head.expires_ms <= now || head.expires_ms > now.saturating_add(MAX_EXPIRY_MS);
        if expired && !(relay && again) {
            return reject(R::Expired);
        }
        // Also where it comes again: who has acknowledged it sees a bound that is longer still.
        if head.bound_ms_at(usize::from(from.hop)) > MAX_BOUND_MS {
            return reject(R::Expired);
        }
        let Some(channel) = self.channels.get(&from.channel) else { return reject(R::NoEdge) };
        let info = if again { channel.there() } else { channel.open_info() };
        let hop = usize::from(from.hop);
        let beside = head.route.get(hop).is_none_or(|hop| hop.channel != from.channel);
        // One that closes has terms until it is gone, and is no mistake of who had taken the request on before.
        let beside = beside || (again && !self.graph.is_open(from.channel));
        let beside = if beside { Some(&info.ok_or(Refusal::Reject(R::NoEdge))?.terms) } else { None };
        self.graph.check(head, hop, again, beside)?;
        let Some(info) = info else { return reject(R::NoEdge) };
        self.check_load(channel.incoming, info, from).map_err(Refusal::Reject)?;
        let reserved = self.edges.get(&from.peer).map_or(0, |edge| edge.reserved);
        let needed = self.reservation(from, head.body_len, relay);
        if reserved.saturating_add(needed) > limits.max_peer_bytes {
            return reject(R::Busy);
        }
        if relay {
            let to = self.judge_next(head, from, again)?;
            if again || self.can_be_late(channel, from, to.peer) {
                Ok(Some(to))
            } else {
                Err(Refusal::Short(from.channel))
            }
        } else {
            self.judge_app(head, from.peer).map(|()| None)
        }
    }

    fn judge_app(&self, head: &RequestHead, from: NodeKey) -> Result<(), Refusal> {
        use RejectReason as R;
        if head.app == ANSWER_APP {
            let fits = head.body_len == 32 && head.response_limit >= ANSWER_LIMIT;
            return if fits { Ok(()) } else { Err(Refusal::Reject(R::NoApp)) };
        }
        // A server that takes no more is on its way out.
        let app = self.apps.get(&head.app).filter(|app| app.max_queued > 0);
        let app = app.ok_or(Refusal::Reject(R::NoApp))?;
        let price = app.pricing.price(head.body_len, head.response_limit);
        if price.is_err() || price.is_ok_and(|price| head.server_price < price) {
            return Err(Refusal::Reject(R::ServerPrice));
        }
        match self.queues.get(&head.app) {
            Some(waiting) if !waiting.has_room(from, app.max_queued) => Err(Refusal::Reject(R::Busy)),
            _ => Ok(()),
        }
    }

    fn judge_next(&self, head: &RequestHead, from: &Leg, again: bool) -> Result<Leg, Refusal> {
        let reject = Refusal::Reject;
        let index = from.hop.checked_add(1).ok_or(reject(RejectReason::NoEdge))?;
        let hop = head.route.get(usize::from(index)).ok_or(reject(RejectReason::NoEdge))?;
        let to =
            Leg::new(head, hop.to, crate::ExchangeId(0), index).map_err(|_| reject(RejectReason::NoEdge))?;
        match self.check_next(&to) {
            Err(RejectReason::Unreachable | RejectReason::NoEdge) if again && self.can_prove(&to) => {
                return Ok(to);
            }
            Err(RejectReason::Balance) if again && self.can_pay_later(&to) => return Ok(to),
            Err(RejectReason::Balance) => return Err(Refusal::Short(to.channel)),
            checked => checked.map_err(reject)?,
        }
        if !again && !self.can_still_be_late(&to) {
            return Err(Refusal::Short(to.channel));
        }
        if !again && !self.has_share(&to) {
            return Err(reject(RejectReason::Busy));
        }
        // The time that the author grants has to cover what is on its way over that edge already.
        let channel = self.channels.get(&to.channel).and_then(|c| Some((c.outgoing, c.open_info()?)));
        let (load, info) = channel.ok_or(reject(RejectReason::NoEdge))?;
        let ahead = load.bytes.saturating_add(head.body_len);
        if info.terms.allowance_ms(ahead, head.response_limit) > hop.allowance_ms {
            return Err(reject(RejectReason::Busy));
        }
        Ok(to)
    }

    /// Whether the next edge is this node's, so that its end can be waited for or proven.
    fn can_prove(&self, to: &Leg) -> bool {
        let channel = self.channels.get(&to.channel).filter(|channel| channel.row.peer == to.peer);
        channel.is_some_and(|channel| channel.there().is_none() || self.funds(to.channel) >= to.amount)
    }

    /// Whether the next node can be asked: edge open, peer there, within caps, covered.
    pub(crate) fn check_next(&self, to: &Leg) -> Result<(), RejectReason> {
        let channel = self.channels.get(&to.channel).filter(|channel| channel.row.peer == to.peer);
        let channel = channel.ok_or(RejectReason::NoEdge)?;
        let info = channel.open_info().ok_or(RejectReason::NoEdge)?;
        let edge = self.edges.get(&to.peer).filter(|edge| edge.open().is_some());
        let edge = edge.ok_or(RejectReason::Unreachable)?;
        self.check_seen(channel)?;
        if edge.asked.len() >= self.config.limits.max_exchanges as usize {
            return Err(RejectReason::Busy);
        }
        self.check_load(channel.outgoing, info, to)?;
        if self.covers_more(channel, to.amount) { Ok(()) } else { Err(RejectReason::Balance) }
    }

    /// Whether the counterparty sees the channel on chain: what it is asked before it cannot be answered,
    /// and it would be severed for that.
    pub(crate) fn check_seen(&self, channel: &Channel) -> Result<(), RejectReason> {
        if channel.heard.is_some() {
            return Ok(());
        }
        let hello = self.edges.get(&channel.row.peer).and_then(Edge::hello);
        if hello.is_some_and(|hello| hello.has(CHANNELS)) { Err(RejectReason::Unreachable) } else { Ok(()) }
    }

    fn accept(&mut self, id: RequestId, from: &Leg, body_len: u64, relay: bool) {
        let reserved = self.reservation(from, body_len, relay);
        self.load(from, true);
        self.edge(from.peer).reserved += reserved;
        self.dirty_jobs.insert(id);
        self.beat_later(from.peer);
    }

    fn admit_here(
        &mut self,
        id: RequestId,
        from: Leg,
        body: Option<Encoder>,
        job: impl FnOnce(Role) -> Job,
    ) -> Result<(), Fault> {
        let placeholder = Asked::Queued { body: Bytes::new() };
        let mut job = job(Role::Destination { from: from.clone(), stage: placeholder });
        self.accept(id, &from, job.head.body_len, false);
        self.outbox(from.peer).acks.push(from.exchange);
        self.enqueue(&job.head.app, id, from.peer);
        let whole = body.map(|encoder| encoder.body().clone());
        if whole.is_none() {
            let inflow = Inflow::new(job.head.body_hash, job.head.body_len, self.config.limits.window)?;
            job.role = Role::Destination { from, stage: Asked::Uploading { inflow, data: BytesMut::new() } };
        }
        self.jobs.insert(id, job);
        self.sample(id, true);
        if let Some(body) = whole {
            self.queue(id, body);
        }
        Ok(())
    }

    fn admit_relay(
        &mut self,
        id: RequestId,
        from: Leg,
        mut to: Leg,
        body: Option<Encoder>,
        has_waited: bool,
        job: impl FnOnce(Role) -> Job,
    ) -> Result<(), Fault> {
        to.exchange = self.next_exchange();
        let window = self.config.limits.window;
        let mut job =
            job(Role::Destination { from: from.clone(), stage: Asked::Queued { body: Bytes::new() } });
        let body = match body {
            Some(encoder) => Outflow::whole(encoder),
            None => Outflow::piped(Inflow::new(job.head.body_hash, job.head.body_len, window)?),
        };
        let gone = self.channels.get(&to.channel).is_none_or(|channel| channel.there().is_none());
        if gone {
            return self.admit_severed(id, from, to, body, job);
        }
        let owed = self.channels.get_mut(&to.channel).map(|channel| channel.spend(to.amount));
        let paid = matches!(owed, Some(Ok(())));
        if !paid && !self.can_pay_later(&to) {
            let refusal = Refusal::Short(to.channel);
            self.refuse(id, from, refusal, |role| Job { role, ..job });
            return Ok(());
        }
        self.load(&to, false);
        let first = self.now;
        // Who insists is under obligation, and who sends it again has waited for this node: neither for much longer.
        let unsaid = (paid && !has_waited).then_some(first);
        self.accept(id, &from, job.head.body_len, true);
        if unsaid.is_none() {
            self.outbox(from.peer).acks.push(from.exchange);
        }
        let impatient = matches!(self.config.policy.patience, Patience::AfterMs(_));
        let alarm = impatient.then_some(to.clock.deadline);
        self.edge(to.peer).asked.insert(to.exchange, id);
        let peer = to.peer;
        let mut relay = Relay { unsaid, ..relay(from, to, body, first) };
        if paid {
            self.outbox(peer).requests.push(Queued { request: id, fresh: true });
        } else {
            // The next node takes no payment for want of a deposit that is there: as if it had refused.
            let again = first.after_ms(ASK_AGAIN_MS.0);
            relay.again = Some(again);
            self.retries.insert((again, id));
        }
        job.role = Role::Relay(relay);
        self.jobs.insert(id, job);
        if let Some(alarm) = alarm {
            self.look_at(id, alarm);
        }
        self.sample(id, true);
        self.supervise(peer);
        Ok(())
    }

    /// The next edge is no more: whoever insists gets the proof of that.
    fn admit_severed(
        &mut self,
        id: RequestId,
        from: Leg,
        mut to: Leg,
        body: Outflow,
        mut job: Job,
    ) -> Result<(), Fault> {
        let order = self.own_order(to.channel, SeverReason::Disagreement, Some(id));
        self.accept(id, &from, job.head.body_len, true);
        self.outbox(from.peer).acks.push(from.exchange);
        let (amount, first) = (to.amount, self.now);
        to.open = false;
        job.role = Role::Relay(relay(from, to, body, first));
        self.jobs.insert(id, job);
        self.severed(id, order, amount, true);
        Ok(())
    }

    /// Rejects before any obligation: the payment goes back whole. The destination signs that it
    /// declines: nobody else's word ends what was acknowledged further up.
    pub(crate) fn refuse(
        &mut self,
        id: RequestId,
        mut from: Leg,
        refusal: Refusal,
        job: impl FnOnce(Role) -> Job,
    ) {
        from.open = false;
        let placeholder = Role::Rejected { from: from.clone(), reason: RejectReason::Busy, invalid: None };
        let mut job = job(placeholder);
        let last = !self.is_relay(&job.head.destination);
        let (reason, proof) = match refusal {
            Refusal::Reject(reason) => (reason, last.then_some(declined(reason))),
            Refusal::Invalid(reason) => (RejectReason::Invalid, Some(reason)),
            Refusal::Short(channel) => {
                self.tell_short(channel);
                (RejectReason::Balance, None)
            }
        };
        // Signed with everything else that this flush declines.
        self.declines.extend(proof.map(|reason| Invalid { request: id, signer: self.key, reason }));
        self.refund(id, &from);
        job.role = Role::Rejected { from, reason, invalid: None };
        self.jobs.insert(id, job);
        self.dirty_jobs.insert(id);
    }

    /// Signs the flush's rejections with one signature.
    pub(crate) fn flush_declines(&mut self) {
        let declines = std::mem::take(&mut self.declines);
        for part in declines.chunks(self.most_signed()) {
            let leaves = part.iter().map(|statement| self.statements.invalid(statement)).collect();
            for (statement, proof) in part.iter().zip(self.sign_leaves::<Invalid>(leaves)) {
                if let Some(Job { role: Role::Rejected { invalid, .. }, .. }) =
                    self.jobs.get_mut(&statement.request)
                {
                    *invalid = Some(SignedInvalid { statement: statement.clone(), proof });
                    self.dirty_jobs.insert(statement.request);
                }
            }
        }
    }

    /// Owes a request's payment back to the upstream node, with a Reject in this flush.
    pub(crate) fn refund(&mut self, request: RequestId, from: &Leg) {
        let owed = self.channels.get_mut(&from.channel).map(|channel| channel.owe(from.amount));
        // What may have to be refunded is never spent, so this holds unless the chain's view of the
        // deposits has shrunk below what was signed.
        let fresh = matches!(owed, Some(Ok(())));
        if !fresh {
            tracing::error!(%request, channel = %from.channel, "balance does not cover a refund");
        }
        self.outbox(from.peer).rejects.push(Queued { request, fresh });
    }
}

fn relay(from: Leg, to: Leg, body: Outflow, first: Time) -> Relay {
    let (acked, again, tries, unsaid, restored, reply) = (false, None, 0, None, false, None);
    Relay { from, to, body, acked, first, again, tries, unsaid, restored, reply }
}

fn check_body(body: Bytes, head: &RequestHead) -> Result<Encoder, Fault> {
    if body.len() as u64 != head.body_len {
        return Err(Fault::new("request body does not have the signed length"));
    }
    let encoder = Encoder::new(body);
    if encoder.root() != Hash(head.body_hash.0) {
        return Err(Fault::new("request body does not have the signed hash"));
    }
    Ok(encoder)
}
