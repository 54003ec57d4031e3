//! What comes back from downstream: acks, rejections, responses; and Done from upstream.

use std::collections::HashSet;

use bytes::{Bytes, BytesMut};
use por_types::{Invalid, ItemKind, NodeKey, RequestId, SignedInvalid};

use crate::api::{Event, ExchangeId, RejectReason, SignedReceipt, Time};
use crate::body::{Inflow, Outflow};
use crate::edge::{Queued, QueuedReply};
use crate::fault::Fault;
use crate::graph::Refusal;
use crate::job::{Arriving, Job, Leg, Passing, Relay, Role};
use crate::node::Node;
use crate::rows::Clock;
use crate::verified::Encoder;
use crate::wire::{Ack, Credit, Done, LateDue, Part, Reject, Rejection, Response, ResponseItem};

/// Shortest and longest pause before a node that has refused is asked again, milliseconds.
pub(crate) const ASK_AGAIN_MS: (u64, u64) = (20, 500);

/// How many of the longest pauses fit into the time after which a missing Ack is a breach, at least.
const ASK_AGAIN_TIMES: u64 = 8;

/// Most exchanges that a frame may name: far more than honest peers have under way in one flush.
const MAX_NUMBERS: usize = 1 << 16;

fn check_numbers(exchanges: &[ExchangeId]) -> Result<(), Fault> {
    match exchanges.len() {
        0..=MAX_NUMBERS => Ok(()),
        _ => Err(Fault::new("names more exchanges than there can be")),
    }
}

/// A next node's reason as it is passed on. What only the destination can know, or what is a proof for who can check
/// it alone, says no more than that this way is none: else any node of a path could make the author give up.
fn of_its_own(reason: RejectReason) -> RejectReason {
    use RejectReason as R;
    match reason {
        R::Busy | R::Balance | R::NoEdge | R::Unreachable | R::Expired | R::TooLarge => reason,
        R::NoApp | R::ServerPrice | R::Invalid | R::Abandoned => R::NoEdge,
    }
}

impl Node {
    pub(crate) fn on_ack(&mut self, peer: NodeKey, frame: Ack) -> Result<(), Fault> {
        check_numbers(&frame.exchanges)?;
        self.take_receipts(peer, &frame.receipts)?;
        for exchange in frame.exchanges {
            if let Some(id) = self.asked(peer, exchange) {
                self.measure(peer, id);
                self.acked(id);
            }
        }
        Ok(())
    }

    /// The downstream node is under obligation.
    pub(crate) fn acked(&mut self, request: RequestId) {
        let Some(job) = self.jobs.get_mut(&request) else { return };
        match &mut job.role {
            Role::Author(author) if !author.acked => {
                author.acked = true;
                let bound_ms = job.head.bound_ms_at(0);
                self.notify(Event::Acked { request, bound_ms });
            }
            Role::Relay(relay) => relay.acked = true,
            _ => {}
        }
    }

    pub(crate) fn take_receipts(
        &mut self,
        peer: NodeKey,
        receipts: &[por_types::Signed<por_types::ChannelState>],
    ) -> Result<(), Fault> {
        for receipt in receipts {
            let id = receipt.statement.channel;
            // One that is over, of a store that was lost since, say: the peer still has it.
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            if channel.row.peer != peer {
                return Err(Fault::new("counter-signature on a foreign channel"));
            }
            if channel.receive_receipt(&self.config.network, receipt)? {
                self.receipted.insert(id);
            }
        }
        Ok(())
    }

    pub(crate) fn on_reject(&mut self, peer: NodeKey, frame: Reject) -> Result<(), Fault> {
        if frame.rejections.is_empty() {
            return Err(Fault::new("a Reject frame without rejections"));
        }
        if let Some(payment) = &frame.payment {
            let items = self.refund_items(peer, payment.statement.channel, &frame.rejections);
            self.take_payment(peer, payment, items.filter(|_| !frame.resent))?;
        }
        frame.rejections.into_iter().try_for_each(|rejection| self.on_rejection(peer, rejection))
    }

    /// What a refund has to name; `None` if an exchange is not known any more.
    fn refund_items(
        &mut self,
        peer: NodeKey,
        channel: por_types::ChannelId,
        rejections: &[Rejection],
    ) -> Option<Vec<por_types::Item>> {
        let mut items = Vec::with_capacity(rejections.len());
        for rejection in rejections {
            let id = self.asked(peer, rejection.exchange)?;
            let to = self.jobs.get(&id)?.to()?;
            if to.channel == channel {
                items.push(to.item(id, ItemKind::Refund));
            }
        }
        Some(items)
    }

    fn on_rejection(&mut self, peer: NodeKey, rejection: Rejection) -> Result<(), Fault> {
        let Rejection { exchange, reason, invalid } = rejection;
        let Some(id) = self.asked(peer, exchange) else {
            self.outbox(peer).done.push(exchange);
            return Ok(());
        };
        let Some(hop) = self.jobs.get(&id).and_then(Job::to).map(|to| to.hop) else { return Ok(()) };
        if reason == RejectReason::Invalid && invalid.is_none() {
            return Err(Fault::new("rejection as invalid without a proof"));
        }
        if invalid.as_ref().is_some_and(|proof| !self.is_signed(id, hop, proof)) {
            return Err(Fault::new("rejection with a wrong proof"));
        }
        let Some(job) = self.jobs.get(&id) else { return Ok(()) };
        let Some(to) = job.to() else { return Ok(()) };
        let ends = invalid.as_ref().is_some_and(|proof| self.is_final(job, to, &proof.statement));
        if job.is_acked() && !ends {
            return Err(Fault::new("rejects what it had acknowledged"));
        }
        let (channel, amount) = (to.channel, to.amount);
        if !self.channels.get_mut(&channel).is_some_and(|channel| channel.apply(amount)) {
            return Err(Fault::new("rejection without the refund"));
        }
        self.dirty_channels.insert(channel);
        match &job.role {
            Role::Relay(relay) if !ends && relay.unsaid.is_none() => self.ask_later(id),
            Role::Relay(_) if !ends => self.rejected(id, of_its_own(reason), None),
            _ => self.rejected(id, reason, invalid),
        }
        Ok(())
    }

    /// Whether a node of the path from `hop` on has signed this rejection, of this request.
    fn is_signed(&mut self, id: RequestId, hop: u8, invalid: &SignedInvalid) -> bool {
        let SignedInvalid { statement, proof } = invalid;
        let route = self.jobs.get(&id).map(|job| &job.head.route);
        let mut later = route.into_iter().flatten().skip(usize::from(hop));
        let on_path = later.any(|hop| hop.to == statement.signer);
        let leaf = self.statements.invalid(statement);
        on_path
            && statement.request == id
            && self.roots.invalid(&self.config.network, &statement.signer, leaf, proof)
    }

    /// Whether a signed rejection ends a request that was acknowledged: the destination's own word, or
    /// what the author's bytes bear out.
    fn is_final(&self, job: &Job, to: &Leg, statement: &Invalid) -> bool {
        let destination = statement.signer == job.head.destination;
        let borne_out = || {
            let checked = self.graph.check(&job.head, usize::from(to.hop), false, None);
            job.head.validate().is_err() || matches!(checked, Err(Refusal::Invalid(_)))
        };
        destination || borne_out()
    }

    /// The next node has given the money back. Towards upstream that ends nothing: it is asked again
    /// until it takes the request, or was asked in vain for as long as an Ack may take.
    fn ask_later(&mut self, id: RequestId) {
        let exchange = self.next_exchange();
        let now = self.now;
        let Some(to) = self.jobs.get(&id).and_then(Job::to) else { return };
        let longest = self.longest_pause_ms(to.peer);
        let Some(Role::Relay(relay)) = self.jobs.get_mut(&id).map(|job| &mut job.role) else { return };
        let (peer, before) = (relay.to.peer, std::mem::replace(&mut relay.to.exchange, exchange));
        let pause = (now.since_ms(relay.first) / 2).clamp(ASK_AGAIN_MS.0, longest);
        let time = now.after_ms(pause);
        relay.again = Some(time);
        relay.tries = relay.tries.saturating_add(1);
        relay.body.pause();
        self.retries.insert((time, id));
        let edge = self.edge(peer);
        edge.asked.remove(&before);
        edge.asked.insert(exchange, id);
        self.outbox(peer).done.push(before);
        self.dirty_jobs.insert(id);
        // The money is back: until it is asked again, the channel that the route names counts.
        if let Some(named) = self.jobs.get(&id).and_then(Job::named) {
            self.move_leg(id, named);
        }
    }

    pub(crate) fn longest_pause_ms(&self, peer: NodeKey) -> u64 {
        (self.borne_ms(peer) / ASK_AGAIN_TIMES).clamp(ASK_AGAIN_MS.0, ASK_AGAIN_MS.1)
    }

    /// Asks the next node again, if the balance allows. If it is not there it is asked with the next session.
    pub(crate) fn ask_refused(&mut self, id: RequestId, at: Time) {
        let now = self.now;
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let bound_ms = job.to().map_or(0, |to| job.head.bound_ms_at(usize::from(to.hop)));
        let Role::Relay(relay) = &mut job.role else { return };
        if relay.again != Some(at) {
            return;
        }
        let (peer, amount) = (relay.to.peer, relay.to.amount);
        if self.edges.get(&peer).is_none_or(|edge| edge.open().is_none()) {
            return;
        }
        let longest = self.longest_pause_ms(peer);
        let channel = self.next_channel(id);
        let entry = channel.and_then(|channel| self.channels.get_mut(&channel));
        let owed = entry.map(|channel| channel.spend(amount));
        let Some(Role::Relay(relay)) = self.jobs.get_mut(&id).map(|job| &mut job.role) else { return };
        let Some(channel) = channel.filter(|_| matches!(owed, Some(Ok(())))) else {
            let time = now.after_ms(longest);
            relay.again = Some(time);
            relay.tries = relay.tries.saturating_add(1);
            self.retries.insert((time, id));
            return;
        };
        relay.again = None;
        // What it owes begins when it takes the request.
        relay.to.clock = Clock::new(now, bound_ms);
        self.move_leg(id, channel);
        self.outbox(peer).requests.push(Queued { request: id, fresh: true });
        self.dirty_jobs.insert(id);
    }

    /// The request is over: the author is told, a relay refunds in turn.
    fn rejected(&mut self, request: RequestId, reason: RejectReason, invalid: Option<SignedInvalid>) {
        let Some(job) = self.jobs.get_mut(&request) else { return };
        match &mut job.role {
            Role::Author(author) => {
                let refund = author.to.amount;
                self.close_author(&request);
                // Before the row is gone: told again after a crash rather than never.
                self.tell_author(request, Event::Rejected { request, reason, refund, invalid });
            }
            Role::Relay(relay) => {
                let (mut from, mut to) = (relay.from.clone(), relay.to.clone());
                let body_len = job.head.body_len;
                self.settle(&mut from, true);
                self.settle(&mut to, false);
                let reserved = self.reservation(&from, body_len, true);
                let edge = self.edge(from.peer);
                edge.reserved = edge.reserved.saturating_sub(reserved);
                self.edge(to.peer).asked.remove(&to.exchange);
                self.outbox(to.peer).done.push(to.exchange);
                self.refund(request, &from);
                if let Some(job) = self.jobs.get_mut(&request) {
                    job.role = Role::Rejected { from, reason, invalid };
                }
                self.dirty_jobs.insert(request);
            }
            _ => {}
        }
    }

    pub(crate) fn on_response(&mut self, peer: NodeKey, frame: Response) -> Result<(), Fault> {
        if let Some(payment) = &frame.payment {
            let due =
                frame.responses.iter().filter_map(|item| Some((item.exchange, item.late?.amount, false)));
            let items = self.late_items(peer, payment.statement.channel, due);
            self.take_payment(peer, payment, items.filter(|_| !frame.resent))?;
        }
        frame.responses.into_iter().try_for_each(|item| self.on_response_item(peer, item))
    }

    fn on_response_item(&mut self, peer: NodeKey, item: ResponseItem) -> Result<(), Fault> {
        let Some(id) = self.asked(peer, item.exchange) else {
            self.outbox(peer).done.push(item.exchange);
            return Ok(());
        };
        let Some(job) = self.jobs.get(&id) else { return Ok(()) };
        if !self.knows_chain && matches!(job.role, Role::Relay(_)) {
            // Nor could this node pay upstream for its lateness.
            self.edge(peer).left = true;
            return Ok(());
        }
        let receipt = &item.receipt.receipt;
        if receipt.request != id {
            return Err(Fault::new("response belongs to another request"));
        }
        if receipt.body_len > job.head.response_limit {
            return Err(Fault::new("response is longer than the request allows"));
        }
        let destination = job.head.destination;
        let leaf = self.statements.receipt(receipt);
        if !self.roots.receipt(&self.config.network, &destination, leaf, &item.receipt.proof) {
            return Err(Fault::new("response is not signed by the destination"));
        }
        self.acked(id);
        if let Some(late) = item.late {
            self.take_late(id, late)?;
        }
        let Some(body) = item.body else {
            self.give_ack(id);
            return self.response_begins(peer, id, item.receipt, item.resume);
        };
        if body.len() as u64 != receipt.body_len {
            return Err(Fault::new("response body does not have the signed length"));
        }
        let body = Encoder::new(body);
        if body.root() != receipt.body_hash {
            return Err(Fault::new("response body does not have the signed hash"));
        }
        self.response_whole(id, item.receipt, body);
        Ok(())
    }

    fn response_whole(&mut self, id: RequestId, receipt: SignedReceipt, body: Encoder) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let relay = match &job.role {
            Role::Author(_) => return self.finish_author(id, receipt, body.body().clone()),
            Role::Relay(relay) => relay,
            _ => return,
        };
        let (mut from, mut to) = (relay.from.clone(), relay.to.clone());
        let earned = from.amount.saturating_sub(to.amount);
        self.account(to.peer, earned, true);
        let late = self.close_upstream(id);
        if let Some(job) = self.jobs.get(&id) {
            from = job.from().cloned().unwrap_or(from);
        }
        self.settle(&mut to, false);
        // The downstream node keeps the response until the upstream one has it: nothing is written
        // here, but where it comes with a late payment or the row has to be written anyway.
        let stored = !from.clock.late.is_zero() || self.dirty_jobs.contains(&id);
        let below = (!stored).then_some((to.peer, to.exchange));
        if below.is_none() {
            self.edge(to.peer).asked.remove(&to.exchange);
            self.outbox(to.peer).done.push(to.exchange);
            self.dirty_jobs.insert(id);
        }
        self.outbox(from.peer).responses.push(QueuedReply { request: id, resume: false, late });
        let reply = Outflow::whole(body);
        if let Some(job) = self.jobs.get_mut(&id) {
            job.role = Role::Answered { from, receipt, reply, earned, served: false, below };
        }
        self.judge_profit(to.peer, to.channel, id);
    }

    /// A big response follows on the bulk lane.
    fn response_begins(
        &mut self,
        peer: NodeKey,
        id: RequestId,
        receipt: SignedReceipt,
        resume: bool,
    ) -> Result<(), Fault> {
        let window = self.config.limits.window;
        if receipt.receipt.body_len == 0 {
            return Err(Fault::new("an empty response body does not need the bulk lane"));
        }
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        let Some(exchange) = job.to().map(|to| to.exchange) else { return Ok(()) };
        let body = receipt.receipt.body_hash;
        let inflow = Inflow::new(body, receipt.receipt.body_len, window)?;
        let mut again = resume;
        let mut forward = None;
        match &mut job.role {
            Role::Author(author) => match &mut author.reply {
                Some(arriving) if arriving.receipt.receipt == receipt.receipt => again = true,
                reply => {
                    *reply = Some(Box::new(Arriving { receipt, inflow, data: BytesMut::new() }));
                }
            },
            Role::Relay(Relay { from, reply, .. }) => match reply {
                Some(passing) if passing.receipt.receipt == receipt.receipt => again = true,
                // Nothing is owed any more, on either edge: it is not given up for one that may never come.
                Some(passing) if passing.flow.is_whole() => passing.newer = Some(receipt),
                reply => {
                    *reply = Some(Box::new(Passing { receipt, flow: Outflow::piped(inflow), newer: None }));
                    forward = Some(from.peer);
                }
            },
            _ => return Ok(()),
        }
        if let Some(upstream) = forward {
            let reply = QueuedReply { request: id, resume: false, late: LateDue::default() };
            self.outbox(upstream).responses.push(reply);
        }
        let inflow = self.jobs.get_mut(&id).and_then(|job| job.reply_inflow());
        if again && let Some((from, up_to)) = inflow.and_then(Inflow::resume) {
            let credit = Credit { exchange, part: Part::ResponseBody, body, up_to, from: Some(from) };
            self.outbox(peer).credits.push(credit);
        }
        Ok(())
    }

    /// The last byte of a big response was verified here.
    pub(crate) fn response_complete(&mut self, id: RequestId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        match &mut job.role {
            Role::Author(author) => {
                let Some(arriving) = author.reply.take() else { return };
                let Arriving { receipt, data, .. } = *arriving;
                self.finish_author(id, receipt, Bytes::from(data));
            }
            Role::Relay(relay) => {
                // The downstream node keeps the body until the upstream one has it.
                let (from, mut to) = (relay.from.clone(), relay.to.clone());
                let late = self.close_upstream(id);
                if !late.amount.is_zero() {
                    self.outbox(from.peer).late.push((id, late));
                }
                self.account(to.peer, from.amount.saturating_sub(to.amount), true);
                self.settle(&mut to, false);
                if let Some(job) = self.jobs.get_mut(&id)
                    && let Role::Relay(relay) = &mut job.role
                {
                    relay.to.open = false;
                }
                self.judge_profit(to.peer, to.channel, id);
            }
            _ => {}
        }
    }

    /// A response has to come from downstream once more, since upstream lost it. One that had arrived as
    /// a whole is owed on both edges again until it is whole again, within bounds that begin now; of one
    /// that is under way so much time does not count.
    pub(crate) fn owe_again(&mut self, id: RequestId) {
        let (now, fee) = (self.now, self.late_fee.paid(self.now));
        let Some(job) = self.jobs.get_mut(&id) else { return };
        let Role::Relay(relay) = &mut job.role else { return };
        let bound = |leg: &Leg| now.after_ms(job.head.bound_ms_at(usize::from(leg.hop)));
        let (from_bound, to_bound) = (bound(&relay.from), bound(&relay.to));
        for (leg, bound) in [(&mut relay.from, from_bound), (&mut relay.to, to_bound)] {
            if leg.open {
                let more = bound.since_ms(leg.clock.deadline.max(now));
                leg.clock.shift(more);
            }
        }
        let (mut from, mut to) = (None, None);
        if !std::mem::replace(&mut relay.from.open, true) {
            let clock = &mut relay.from.clock;
            clock.deadline = clock.deadline.max(from_bound);
            clock.paid_until = clock.paid_until.max(from_bound);
            from = Some(relay.from.clone());
        }
        if !std::mem::replace(&mut relay.to.open, true) {
            // What was paid before is accounted for, and is no credit for what comes now.
            let paid_ms = relay.to.clock.late.0.checked_div(fee.0).unwrap_or_default();
            let paid_ms = u64::try_from(paid_ms).unwrap_or(u64::MAX);
            relay.to.clock.deadline = Time(to_bound.0.saturating_sub(paid_ms));
            to = Some(relay.to.clone());
        }
        if let Some(from) = &from {
            self.load(from, true);
            self.beat_later(from.peer);
        }
        if let Some(to) = &to {
            self.load(to, false);
            self.supervise(to.peer);
        }
        self.dirty_jobs.insert(id);
    }

    pub(crate) fn on_done(&mut self, peer: NodeKey, frame: Done) -> Result<(), Fault> {
        check_numbers(&frame.exchanges)?;
        self.take_receipts(peer, &frame.receipts)?;
        // A refund that was set aside in this flush is paid first, with the Reject: for that the peer says Done again.
        let edge = self.edge(peer);
        let unsaid = edge.outbox.rejects.iter().filter(|queued| queued.fresh);
        let unsaid: HashSet<RequestId> = unsaid.map(|queued| queued.request).collect();
        for exchange in frame.exchanges {
            let request = self.edge(peer).owed.get(&exchange);
            if request.is_none_or(|request| !unsaid.contains(request)) {
                self.finish(peer, exchange);
            }
        }
        Ok(())
    }

    /// The upstream node wants nothing more of this exchange.
    pub(crate) fn finish(&mut self, peer: NodeKey, exchange: ExchangeId) {
        let Some(request) = self.edge(peer).owed.remove(&exchange) else { return };
        let Some(job) = self.forget(&request) else { return };
        match job.role {
            Role::Answered { earned, served: true, .. } => {
                self.notify_durable(Event::Served { request, earned })
            }
            Role::Answered { earned, below, .. } => {
                if let Some((peer, exchange)) = below {
                    self.edge(peer).asked.remove(&exchange);
                    self.outbox(peer).done.push(exchange);
                }
                self.notify_durable(Event::Relayed { request, earned });
            }
            Role::Relay(relay) => {
                self.edge(relay.to.peer).asked.remove(&relay.to.exchange);
                self.outbox(relay.to.peer).done.push(relay.to.exchange);
                let earned = relay.from.amount.saturating_sub(relay.to.amount);
                self.notify_durable(Event::Relayed { request, earned });
            }
            Role::Destination { .. } => self.unqueue(&job.head.app, &request),
            Role::Rejected { .. } => {
                // One that waits to be said again must not be said of the same request if that comes anew:
                // its refund is not that one's.
                let rejects = &mut self.edge(peer).outbox.rejects;
                rejects.retain(|queued| queued.fresh || queued.request != request);
            }
            Role::Author(_) | Role::Severed { .. } => {}
        }
    }
}
