//! The second outcome: edges are severed, and proofs of it travel upstream (protocol section 6).

use por_types::{
    ChannelId, DalekVerify, Item, ItemKind, NodeKey, RequestId, SeverOrder, SeverReason, Signed, Yocto,
};

use crate::api::{Event, ExchangeId, OrderPace, Output, Time};
use crate::edge::Queued;
use crate::fault::Fault;
use crate::job::{Job, Leg, Relay, Role};
use crate::node::Node;
use crate::store::{Held, LAZY_MS};
use crate::wire::{Frame, Lane, LateDue, LateItem, Severed};

impl Node {
    /// Severs a channel of this node: the order goes to the chain, and to everyone upstream who waits
    /// for an answer over it.
    pub(crate) fn sever(&mut self, id: ChannelId, reason: SeverReason, request: Option<RequestId>) {
        let Some(channel) = self.channels.get(&id) else { return };
        let gone = channel.info.as_ref().is_none_or(|info| info.gone);
        if channel.row.order.is_some() || gone {
            return;
        }
        let peer = channel.row.peer;
        let order = self.order(id, reason, request);
        self.severs.push_back((self.now, peer));
        self.begin_pursuit(id, reason, request);
        self.reported.insert(id);
        self.store.hold(Held::Output(Output::Sever { order: order.clone() }));
        self.notify_durable(Event::EdgeSevered { channel: id, peer, reason });
        self.enter_order(id, order);
    }

    fn order(
        &self,
        channel: ChannelId,
        reason: SeverReason,
        request: Option<RequestId>,
    ) -> Signed<SeverOrder> {
        let order = SeverOrder { channel, signer: self.key, reason, request };
        self.config.secret.sign(&self.config.network, order)
    }

    /// The chain shows that an edge of this node is no more: whoever did it, its own order is the
    /// proof upstream.
    pub(crate) fn left_graph(&mut self, id: ChannelId) {
        let Some(channel) = self.channels.get(&id) else { return };
        let peer = channel.row.peer;
        let over = |leg: Option<&Leg>| leg.is_some_and(|leg| leg.channel == id);
        let Some(edge) = self.edges.get(&peer) else { return };
        // Also what only waits for the other end's Done, which may never come.
        let unfinished = edge.asked.values().any(|request| over(self.jobs.get(request).and_then(Job::to)))
            || edge.owed.values().any(|request| over(self.jobs.get(request).and_then(Job::from)));
        if !unfinished {
            return;
        }
        let order = self.own_order(id, SeverReason::Disagreement, None);
        self.enter_order(id, order);
    }

    /// The order by which a channel was severed, or one of this node.
    pub(crate) fn own_order(
        &self,
        id: ChannelId,
        reason: SeverReason,
        request: Option<RequestId>,
    ) -> Signed<SeverOrder> {
        let held = self.channels.get(&id).and_then(|channel| channel.row.order.clone());
        held.unwrap_or_else(|| self.order(id, reason, request))
    }

    /// Orders of which the chain does not know yet are reported again after a restart, and what a crash
    /// has left unfinished over them is ended.
    pub(crate) fn report_orders(&mut self) {
        let unfinished: Vec<_> = self
            .channels
            .iter()
            .filter(|(_, channel)| channel.outgoing.requests > 0 || channel.incoming.requests > 0)
            .filter_map(|(id, channel)| Some((*id, channel.row.order.clone()?)))
            .collect();
        for (id, order) in unfinished {
            self.enter_order(id, order);
        }
        let pending: Vec<_> = self
            .channels
            .iter()
            .filter(|(id, channel)| {
                let there = channel.info.as_ref().is_some_and(|info| !info.gone);
                there && !self.reported.contains(id)
            })
            .filter_map(|(id, channel)| Some((*id, channel.row.order.clone()?)))
            .collect();
        for (id, order) in pending {
            self.reported.insert(id);
            self.store.hold(Held::Output(Output::Sever { order }));
        }
    }

    /// A channel of this node is severed: ends what is unfinished over it.
    fn enter_order(&mut self, id: ChannelId, order: Signed<SeverOrder>) {
        let Some(channel) = self.channels.get_mut(&id) else { return };
        let peer = channel.row.peer;
        if channel.row.order.is_none() {
            channel.row.order = Some(order.clone());
            channel.ordered = self.store.next_batch();
            self.dirty_channels.insert(id);
        }
        self.graph.close(id);
        let edge = self.edge(peer);
        let asked: Vec<RequestId> = edge.asked.values().copied().collect();
        let owed: Vec<_> = edge.owed.iter().map(|(exchange, request)| (*exchange, *request)).collect();
        for request in asked {
            let leg = self.jobs.get(&request).and_then(Job::to).filter(|to| to.open && to.channel == id);
            if leg.is_some() {
                self.leg_severed(request, &order);
            } else {
                self.keep_answer(request);
            }
        }
        for (exchange, request) in owed {
            let over = self.jobs.get(&request).and_then(Job::from).is_some_and(|from| from.channel == id);
            if over {
                self.finish(peer, exchange);
            }
        }
    }

    /// An answer is written down that the edge it came over will not bring again.
    pub(crate) fn keep_answer(&mut self, request: RequestId) {
        let Some(Role::Answered { below, .. }) = self.jobs.get_mut(&request).map(|job| &mut job.role) else {
            return;
        };
        if let Some((peer, exchange)) = below.take() {
            self.edge(peer).asked.remove(&exchange);
            self.outbox(peer).done.push(exchange);
            self.dirty_jobs.insert(request);
        }
    }

    /// A request's path is severed: the author is told, a relay passes the proof on. `amount`: the
    /// prices from that edge on; `own`: the edge is this node's.
    pub(crate) fn severed(
        &mut self,
        request: RequestId,
        order: Signed<SeverOrder>,
        amount: Yocto,
        own: bool,
    ) {
        let ordered = self.channels.get(&order.statement.channel).map_or(0, |channel| channel.ordered);
        // The proof is of a request that was taken on.
        self.give_ack(request);
        let Some(job) = self.jobs.get_mut(&request) else { return };
        match &mut job.role {
            // The start is told first; and a crash could still take an order back that is not on disk.
            Role::Author(author) if own && !self.store.is_durable(author.batch.max(ordered)) => {
                self.postponed.push((request, order, amount));
            }
            Role::Author(author) => {
                let (late, refund) = (author.to.clock.late, if own { Yocto::ZERO } else { amount });
                self.close_author(&request);
                self.tell_author(request, Event::Severed { request, order, refund, late });
            }
            Role::Relay(relay) => {
                let (from, mut to) = (relay.from.clone(), relay.to.clone());
                let body_len = job.head.body_len;
                let unsure = relay.restored;
                self.settle(&mut to, false);
                let reserved = self.reservation(&from, body_len, true);
                let edge = self.edge(from.peer);
                edge.reserved = edge.reserved.saturating_sub(reserved);
                if self.edge(to.peer).asked.remove(&to.exchange).is_some() {
                    self.outbox(to.peer).done.push(to.exchange);
                }
                let upstream = from.peer;
                if let Some(job) = self.jobs.get_mut(&request) {
                    job.role = Role::Severed { from, order, refund: amount, sent: false, unsure };
                }
                self.dirty_jobs.insert(request);
                if self.config.policy.orders == OrderPace::AtOnce {
                    self.outbox(upstream).severed.push(Queued { request, fresh: true });
                }
                if !own {
                    self.judge_profit(to.peer, to.channel, request);
                }
            }
            _ => {}
        }
    }

    pub(crate) fn sever_postponed(&mut self) {
        for (request, order, amount) in std::mem::take(&mut self.postponed) {
            self.severed(request, order, amount, true);
        }
    }

    /// The upstream peer has had the time to say of which exchanges it wants nothing more: an answer may
    /// have been passed on before a crash, which is not to be refunded. Nor is anything before the chain
    /// is read: what there is to refund with is not known.
    pub(crate) fn has_told(&self, peer: NodeKey) -> bool {
        let Some(edge) = self.edges.get(&peer).filter(|edge| edge.open().is_some()) else { return false };
        self.judges() && self.heeded_ms(edge.turned) > self.told_within_ms(peer)
    }

    /// The answer may have been here before this process started: the next node brings it again with its session, if
    /// that opens before it would be missed.
    pub(crate) fn may_be_answered(&self, id: RequestId) -> bool {
        let Some(Role::Relay(Relay { restored: true, to, .. })) = self.jobs.get(&id).map(|job| &job.role)
        else {
            return false;
        };
        !self.has_told(to.peer) && self.heeded_ms(Time::default()) <= self.borne_ms(to.peer)
    }

    /// How long that may take, milliseconds: the end of an exchange waits a little for other writes, and
    /// is told once it is on disk.
    pub(crate) fn told_within_ms(&self, peer: NodeKey) -> u64 {
        let trips = self.channels_with(peer).filter_map(|(_, channel)| channel.info.as_ref());
        let trip = trips.map(|info| u64::from(info.terms.rtt_ms)).max().unwrap_or_default();
        trip.saturating_mul(2).saturating_add(LAZY_MS)
    }

    /// Proof of a severed edge from downstream.
    pub(crate) fn on_severed(&mut self, peer: NodeKey, frame: Severed) -> Result<(), Fault> {
        if frame.items.is_empty() {
            return Err(Fault::new("a Severed frame without items"));
        }
        let statement = &frame.order.statement;
        if !frame.order.verify(&self.config.network, &statement.signer, &DalekVerify) {
            return Err(Fault::new("a SeverOrder with a wrong signature"));
        }
        if let Some(payment) = &frame.payment {
            let items = self.severed_items(peer, payment.statement.channel, &frame);
            self.take_payment(peer, payment, items.filter(|_| !frame.resent))?;
        }
        for item in &frame.items {
            self.on_severed_item(peer, &frame.order, *item)?;
        }
        Ok(())
    }

    /// Tells an upstream node that has missed it that the channel between the two is severed. What it has
    /// paid over that for this exchange stays: a prepayment is lost with its edge.
    pub(crate) fn tell_parted(&mut self, peer: NodeKey, order: Signed<SeverOrder>, exchange: ExchangeId) {
        let Some(conn) = self.edges.get(&peer).and_then(|edge| edge.open()) else { return };
        let items = vec![LateItem { exchange, amount: Yocto::ZERO, total: Yocto::ZERO }];
        let frame = Frame::Severed(Severed { order, payment: None, resent: true, items });
        self.store.hold(Held::Output(Output::Send { peer, conn, lane: Lane::Control, frame }));
    }

    /// What the payment of a proof has to name; `None` if an exchange is not known any more.
    fn severed_items(&mut self, peer: NodeKey, channel: ChannelId, frame: &Severed) -> Option<Vec<Item>> {
        let mut items = Vec::new();
        for item in &frame.items {
            let request = self.asked(peer, item.exchange)?;
            let job = self.jobs.get(&request)?;
            if job.to()?.channel != channel {
                continue;
            }
            let (_, refund) = place(job, &frame.order.statement)?;
            let parts = [(refund, ItemKind::Refund), (item.amount, ItemKind::Late)];
            let parts = parts.into_iter().filter(|(amount, _)| !amount.is_zero());
            items.extend(parts.map(|(amount, kind)| Item { request, amount, kind }));
        }
        Some(items)
    }

    fn on_severed_item(
        &mut self,
        peer: NodeKey,
        order: &Signed<SeverOrder>,
        item: LateItem,
    ) -> Result<(), Fault> {
        let Some(id) = self.asked(peer, item.exchange) else {
            self.outbox(peer).done.push(item.exchange);
            return Ok(());
        };
        let Some(job) = self.jobs.get(&id) else { return Ok(()) };
        let Some(to) = job.to().cloned() else { return Ok(()) };
        let Some((hop, refund)) = place(job, &order.statement) else {
            return Err(Fault::new("a SeverOrder for an edge that is not on the rest of the path"));
        };
        let own = hop == usize::from(to.hop);
        if !own {
            // The refund first: without it the proof is void and the request stays open. Lateness that
            // is not paid is a loss of this edge.
            if !self.channels.get_mut(&to.channel).is_some_and(|channel| channel.apply(refund)) {
                return Err(Fault::new("proof of a severed edge without the refund"));
            }
            self.dirty_channels.insert(to.channel);
        }
        self.take_late(id, LateDue { amount: item.amount, total: item.total })?;
        if own {
            // The counterparty has severed the edge between the two.
            self.learn_order(order);
            self.enter_order(to.channel, order.clone());
            return Ok(());
        }
        self.learn_order(order);
        self.graph.close(order.statement.channel);
        self.severed(id, order.clone(), refund, false);
        Ok(())
    }

    /// Whoever holds an order makes sure that it reaches the chain.
    fn learn_order(&mut self, order: &Signed<SeverOrder>) {
        let id = order.statement.channel;
        if self.reported.insert(id) && self.graph.is_open(id) {
            self.store.hold(Held::Output(Output::Sever { order: order.clone() }));
        }
    }
}

/// Which hop of the rest of a job's path an order severs, and the prices from there on that this
/// node gets back.
fn place(job: &Job, order: &SeverOrder) -> Option<(usize, Yocto)> {
    let to = job.to()?;
    let first = usize::from(to.hop);
    let here = to.channel == order.channel;
    let later = || {
        let mut rest = first + 1..job.head.route.len();
        rest.find(|hop| job.head.route.get(*hop).is_some_and(|hop| hop.channel == order.channel))
    };
    let hop = if here { first } else { later()? };
    let before = match hop.checked_sub(1) {
        None => job.head.author,
        Some(previous) => job.head.route.get(previous)?.to,
    };
    if order.signer != before && order.signer != job.head.route.get(hop)?.to {
        return None;
    }
    let refund = if hop == first { Yocto::ZERO } else { job.head.payment_at(hop).ok()? };
    Some((hop, refund))
}
