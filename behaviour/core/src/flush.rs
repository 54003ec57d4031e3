//! One flush: sign once, write once, send once.
//!
//! Order: signatures, then frames, then one batch. Frames that rely on the batch are held until it
//! is durable; responses, fragments and credits rely on nothing that is not durable already.

use por_types::{
    ChannelId, FlushOf, FlushProof, FlushRoot, FlushTree, Hash, Item, ItemKind, MAX_FLUSH_DEPTH, NodeKey,
    RequestId, Yocto,
};

use crate::api::{ConnId, ExchangeId, Output, Table};
use crate::author::REQUEST;
use crate::edge::{Queued, QueuedReply};
use crate::job::{Job, Role};
use crate::node::Node;
use crate::rows;
use crate::store::Held;
use crate::wire::{
    Ack, Done, Frame, Lane, Late, LateDue, LateItem, Part, Reject, Rejection, Request, RequestItem, Response,
    ResponseItem, Severed, Sync,
};

/// Exchanges named in one Ack or Done frame.
const NUMBERS_PER_FRAME: usize = 2048;

/// Counter-signatures in one Ack frame.
const RECEIPTS_PER_FRAME: usize = 64;

/// Bytes of a request item besides head, path and body.
const ITEM_OVERHEAD: usize = 256;

/// What a peer takes, for the cut into frames. While there is no connection nothing is sent, but
/// payments are signed all the same.
#[derive(Clone, Copy)]
struct Target {
    peer: NodeKey,
    conn: Option<ConnId>,
    epoch: u64,
    /// Most bytes of items in a frame.
    most: usize,
    max_inline: usize,
    window: u64,
}

impl Node {
    pub(crate) fn flush(&mut self) {
        self.flush_drafts();
        self.flush_answers();
        self.flush_declines();
        let peers = std::mem::take(&mut self.busy);
        for &peer in &peers {
            self.flush_payments(peer);
        }
        for &peer in &peers {
            self.flush_frames(peer);
        }
        for &peer in &peers {
            self.pump(peer);
        }
        let credited = std::mem::take(&mut self.busy);
        for &peer in peers.union(&credited) {
            self.flush_credits(peer);
        }
        self.flush_rows();
        let batch = self.store.cut(self.now);
        self.outputs.extend(batch);
        self.release();
    }

    /// Most statements that one signature covers.
    pub(crate) fn most_signed(&self) -> usize {
        (self.config.limits.max_flush as usize).clamp(1, 1 << MAX_FLUSH_DEPTH)
    }

    /// Signs at most [`Node::most_signed`] leaves with one signature: their proofs, in order.
    pub(crate) fn sign_leaves<S: FlushOf>(
        &self,
        leaves: Vec<Hash>,
    ) -> impl Iterator<Item = FlushProof> + use<S> {
        let signed = FlushTree::new(leaves).map(|tree| {
            let root = FlushRoot::<S>::new(tree.root(), tree.leaves());
            let signature = self.config.secret.sign(&self.config.network, root).signature;
            (tree, signature)
        });
        signed.into_iter().flat_map(|(tree, signature)| {
            (0..tree.leaves()).filter_map(move |index| tree.proof(index, signature))
        })
    }

    /// Lets out what its batch is durable for.
    pub(crate) fn release(&mut self) {
        while let Some(held) = self.store.release() {
            match held {
                Held::Output(Output::Send { peer, conn, lane, frame }) => {
                    let alive = self.edges.get(&peer).is_some_and(|edge| edge.conns.contains_key(&conn));
                    if alive {
                        self.outputs.push_back(Output::Send { peer, conn, lane, frame });
                    }
                }
                Held::Output(output) => self.outputs.push_back(output),
                Held::Start(id, part, epoch) => self.start_body(id, part, epoch),
                Held::Answer(id) => self.answer_about(id),
            }
        }
    }

    fn start_body(&mut self, id: RequestId, part: Part, epoch: u64) {
        let Some(job) = self.jobs.get(&id) else { return };
        let leg = if part == Part::RequestBody { job.to() } else { job.from() };
        let Some(peer) = leg.map(|leg| leg.peer) else { return };
        let target = self.target(peer);
        if target.conn.is_some()
            && target.epoch == epoch
            && let Err(fault) = self.resume(peer, id, part, 0, target.window)
        {
            tracing::error!(%id, reason = %fault.0, "an admitted body does not restart");
        }
        // What it may send goes out with one more flush.
        self.stale = true;
    }

    fn target(&self, peer: NodeKey) -> Target {
        let limits = &self.config.limits;
        let edge = self.edges.get(&peer);
        let conn = edge.and_then(|edge| edge.open());
        let hello = edge.and_then(|edge| edge.hello());
        let max_frame = hello.map_or(limits.max_frame, |hello| hello.max_frame);
        let max_inline = hello.map_or(limits.max_inline, |hello| hello.max_inline).min(limits.max_inline);
        let window = u64::from(hello.map_or(limits.window, |hello| hello.window));
        let most = (max_frame / 2) as usize;
        let epoch = edge.map_or(0, |edge| edge.out.epoch());
        Target { peer, conn, epoch, most, max_inline: max_inline as usize, window }
    }

    fn hold_frame(&mut self, target: Target, lane: Lane, frame: Frame) {
        if let Some(conn) = target.conn {
            let peer = target.peer;
            self.store.hold(Held::Output(Output::Send { peer, conn, lane, frame }));
        }
    }

    /// Requests and refunds: what raises this node's totals.
    fn flush_payments(&mut self, peer: NodeKey) {
        let Some(edge) = self.edges.get_mut(&peer) else { return };
        let requests = take_all(&mut edge.outbox.requests);
        let rejects = std::mem::take(&mut edge.outbox.rejects);
        let severed = std::mem::take(&mut edge.outbox.severed);
        let target = self.target(peer);
        if target.conn.is_none()
            && let Some(edge) = self.edges.get_mut(&peer)
        {
            edge.outbox.keep_late();
        }
        let late = self.edges.get_mut(&peer).map(|edge| std::mem::take(&mut edge.outbox.late));
        let late = late.unwrap_or_default();
        self.flush_requests(target, requests);
        self.flush_rejects(target, rejects);
        self.flush_late(target, late);
        self.flush_severed(target, severed);
    }

    /// The late payments of a sync, one payment per channel.
    fn flush_late(&mut self, target: Target, due: Vec<(RequestId, LateDue)>) {
        let mut groups: std::collections::BTreeMap<ChannelId, Vec<(RequestId, LateDue)>> = Default::default();
        for (id, due) in due {
            let Some(from) = self.jobs.get(&id).and_then(Job::from) else { continue };
            groups.entry(from.channel).or_default().push((id, due));
        }
        for (channel, due) in groups {
            for part in due.chunks(self.most_items(target)) {
                let items = part.iter().map(|(id, due)| late_item(*id, due.amount)).collect();
                let Some(payment) = self.pay_items(channel, items) else { continue };
                let items: Vec<LateItem> =
                    part.iter().filter_map(|(id, due)| self.late_line(id, *due)).collect();
                // A sync carries either this or nothing but itself.
                self.edge(target.peer).outbox.beat = false;
                let frame = Frame::Late(Late { payment, resent: false, items });
                self.hold_frame(target, Lane::Control, frame);
            }
        }
        // After what is paid now: the totals contain it.
        self.flush_resent_late(target);
    }

    /// Totals again after a new session: the frames that told of them may be lost.
    fn flush_resent_late(&mut self, target: Target) {
        let outbox = &mut self.edge(target.peer).outbox;
        let mut again = std::mem::take(&mut outbox.resent_late);
        // A response of this flush tells the total by itself, and pays what is new in it.
        again.retain(|id| outbox.responses.iter().all(|reply| reply.request != *id));
        let mut groups: std::collections::BTreeMap<ChannelId, Vec<LateItem>> = Default::default();
        for id in again {
            let Some(from) = self.jobs.get(&id).and_then(Job::from) else { continue };
            let due = LateDue { amount: Yocto::ZERO, total: from.clock.late };
            let Some(line) = self.late_line(&id, due) else { continue };
            groups.entry(from.channel).or_default().push(line);
        }
        for (channel, lines) in groups {
            let Some(payment) = self.paid(channel) else { continue };
            for part in lines.chunks(self.most_items(target)) {
                let late = Late { payment: payment.clone(), resent: true, items: part.to_vec() };
                self.hold_frame(target, Lane::Control, Frame::Late(late));
            }
        }
    }

    fn late_line(&self, id: &RequestId, due: LateDue) -> Option<LateItem> {
        let from = self.jobs.get(id).and_then(Job::from)?;
        Some(LateItem { exchange: from.exchange, amount: due.amount, total: due.total })
    }

    fn most_items(&self, target: Target) -> usize {
        (target.most / (2 * ITEM_OVERHEAD)).clamp(1, self.config.limits.max_flush.max(1) as usize)
    }

    /// Proofs of severed edges with refunds and residual late payments.
    fn flush_severed(&mut self, target: Target, queued: Vec<Queued>) {
        let mut groups = std::collections::BTreeMap::<_, Vec<RequestId>>::new();
        for Queued { request, fresh } in queued {
            let Some(Role::Severed { from, order, sent, unsure, .. }) =
                self.jobs.get(&request).map(|job| &job.role)
            else {
                continue;
            };
            // Sent by now, or not even once.
            if *sent == fresh {
                continue;
            }
            let over = (from.channel, order.statement.channel, fresh);
            if *unsure && fresh && !self.has_told(target.peer) {
                self.beat_once_told(target.peer);
                continue;
            }
            groups.entry(over).or_default().push(request);
        }
        for ((channel, _, fresh), requests) in groups {
            for part in requests.chunks(self.most_items(target)) {
                self.send_severed(target, channel, fresh, part);
            }
        }
    }

    fn send_severed(&mut self, target: Target, channel: ChannelId, fresh: bool, requests: &[RequestId]) {
        let mut order = None;
        let (mut paid, mut lines) = (Vec::new(), Vec::new());
        for id in requests {
            let late = if fresh { self.owe_late(*id).amount } else { Yocto::ZERO };
            let Some(Role::Severed { from, order: held, refund, sent, .. }) =
                self.jobs.get_mut(id).map(|job| &mut job.role)
            else {
                continue;
            };
            *sent = true;
            order = Some(held.clone());
            let (mut from, refund) = (from.clone(), *refund);
            lines.push(LateItem { exchange: from.exchange, amount: late, total: from.clock.late });
            if !fresh {
                continue;
            }
            self.settle(&mut from, true);
            let owed = self.channels.get_mut(&channel).map(|channel| channel.owe(refund));
            if matches!(owed, Some(Ok(()))) && !refund.is_zero() {
                paid.push(Item { request: *id, amount: refund, kind: ItemKind::Refund });
            } else if !refund.is_zero() {
                tracing::error!(%id, %channel, "balance does not cover a refund");
            }
            if !late.is_zero() {
                paid.push(late_item(*id, late));
            }
            if let Some(leg) = self.jobs.get_mut(id).and_then(Job::upstream_mut) {
                leg.open = false;
            }
            self.dirty_jobs.insert(*id);
        }
        let Some(order) = order else { return };
        let payment = match (fresh, paid.is_empty()) {
            (true, false) => self.pay_items(channel, paid),
            (true, true) => None,
            (false, _) => self.paid(channel),
        };
        self.edge(target.peer).outbox.beat = false;
        let frame = Frame::Severed(Severed { order, payment, resent: !fresh, items: lines });
        self.hold_frame(target, Lane::Control, frame);
    }

    /// Items of one frame share channel, lane and whether they are paid for now.
    fn flush_requests(&mut self, target: Target, queued: Vec<Queued>) {
        let mut groups = std::collections::BTreeMap::<_, Vec<RequestId>>::new();
        for Queued { request, fresh } in queued {
            let Some(job) = self.jobs.get_mut(&request) else { continue };
            let Some(channel) = job.to().map(|to| to.channel) else { continue };
            let inline =
                job.upload().and_then(|flow| flow.body()).is_some_and(|b| b.len() <= target.max_inline);
            groups.entry((channel, fresh, inline)).or_default().push(request);
        }
        for ((channel, fresh, inline), requests) in groups {
            let (mut part, mut size) = (Vec::new(), 0);
            for request in requests {
                let Some(job) = self.jobs.get(&request) else { continue };
                let body = if inline { job.head.body_len as usize } else { 0 };
                let item = job.head_bytes.len() + job.proof.path.len() * 34 + body + ITEM_OVERHEAD;
                let full = size + item > target.most || part.len() >= self.config.limits.max_flush as usize;
                if full && !part.is_empty() {
                    self.send_requests(target, channel, fresh, inline, std::mem::take(&mut part));
                    size = 0;
                }
                size += item;
                part.push(request);
            }
            self.send_requests(target, channel, fresh, inline, part);
        }
    }

    fn send_requests(
        &mut self,
        target: Target,
        channel: ChannelId,
        fresh: bool,
        inline: bool,
        requests: Vec<RequestId>,
    ) {
        let payment = if fresh { self.pay(channel, REQUEST, &requests) } else { self.paid(channel) };
        let lane = if inline { Lane::Control } else { Lane::Bulk };
        let mut items = Vec::with_capacity(requests.len());
        items.extend(requests.iter().filter_map(|id| self.request_item(id, inline)));
        self.hold_frame(target, lane, Frame::Request(Request { payment, resent: !fresh, requests: items }));
        if !inline {
            for id in requests {
                self.store.hold(Held::Start(id, Part::RequestBody, target.epoch));
            }
        }
    }

    fn request_item(&mut self, id: &RequestId, inline: bool) -> Option<RequestItem> {
        let job = self.jobs.get_mut(id)?;
        let (exchange, hop) = job.to().map(|to| (to.exchange, to.hop))?;
        let body = job.upload().and_then(|flow| flow.body().cloned()).filter(|_| inline);
        let (head, proof, again) = (job.head_bytes.clone(), job.proof.clone(), job.is_insisting());
        let channel = job.to().map(|to| to.channel).filter(|channel| job.named() != Some(*channel));
        Some(RequestItem { exchange, hop, head, proof, body, again, channel })
    }

    /// The latest payment, for what is sent again: the peer may have missed it.
    fn paid(&self, channel: ChannelId) -> Option<por_types::Signed<por_types::ChannelState>> {
        self.channels.get(&channel).and_then(|channel| channel.row.own_payment.clone())
    }

    /// Signs one payment for these requests' prepayments or refunds.
    fn pay(
        &mut self,
        channel: ChannelId,
        kind: ItemKind,
        requests: &[RequestId],
    ) -> Option<por_types::Signed<por_types::ChannelState>> {
        let legs = requests.iter().filter_map(|id| {
            let job = self.jobs.get(id)?;
            let leg = if kind == ItemKind::Refund { job.from() } else { job.to() };
            leg.map(|leg| leg.item(*id, kind))
        });
        let mut items = Vec::with_capacity(requests.len());
        items.extend(legs);
        self.pay_items(channel, items)
    }

    /// Signs one payment for items that were set aside.
    fn pay_items(
        &mut self,
        channel: ChannelId,
        items: Vec<Item>,
    ) -> Option<por_types::Signed<por_types::ChannelState>> {
        let entry = self.channels.get_mut(&channel)?;
        match entry.sign(&self.config.network, &self.config.secret, items) {
            Ok(payment) => {
                let peer = entry.row.peer;
                self.dirty_channels.insert(channel);
                if let Some(edge) = self.edges.get_mut(&peer).filter(|edge| edge.open().is_none()) {
                    edge.unsaid.insert(channel);
                }
                Some(payment)
            }
            Err(error) => {
                tracing::error!(%channel, %error, "a payment that was set aside could not be signed");
                None
            }
        }
    }

    fn flush_rejects(&mut self, target: Target, queued: Vec<Queued>) {
        let mut groups: std::collections::BTreeMap<(ChannelId, bool), Vec<RequestId>> = Default::default();
        for Queued { request, fresh } in queued {
            let Some(from) = self.jobs.get(&request).and_then(Job::from) else { continue };
            groups.entry((from.channel, fresh)).or_default().push(request);
        }
        let most = self.most_items(target);
        for ((channel, fresh), requests) in groups {
            for part in requests.chunks(most) {
                let payment =
                    if fresh { self.pay(channel, ItemKind::Refund, part) } else { self.paid(channel) };
                let rejections = part.iter().filter_map(|id| self.rejection(id)).collect();
                self.hold_frame(
                    target,
                    Lane::Control,
                    Frame::Reject(Reject { payment, resent: !fresh, rejections }),
                );
            }
        }
    }

    fn rejection(&self, id: &RequestId) -> Option<Rejection> {
        match &self.jobs.get(id)?.role {
            Role::Rejected { from, reason, invalid } => {
                Some(Rejection { exchange: from.exchange, reason: *reason, invalid: invalid.clone() })
            }
            _ => None,
        }
    }

    fn flush_frames(&mut self, peer: NodeKey) {
        self.flush_sync(peer);
        let target = self.target(peer);
        let Some(edge) = self.edges.get_mut(&peer) else { return };
        let outbox = &mut edge.outbox;
        let acks = take_all(&mut outbox.acks);
        let done = take_all(&mut outbox.done);
        let responses = outbox.take_responses();
        let receipts = std::mem::take(&mut outbox.receipts);
        let beat = std::mem::take(&mut outbox.beat);
        if target.conn.is_none() {
            // Made again from the jobs when the session opens.
            return;
        }
        if let Some(conn) = target.conn
            && std::mem::take(&mut self.edge(peer).outbox.seen)
        {
            self.flush_seen(peer, conn, target.epoch);
        }
        if let Some(conn) = target.conn {
            self.flush_unsaid(peer, conn, target.epoch);
        }
        self.flush_acks(target, acks, receipts.into_iter().collect());
        if beat {
            let sync = Sync { epoch: target.epoch, complete: true, ..Sync::default() };
            self.hold_frame(target, Lane::Control, Frame::Sync(sync));
        }
        for part in done.chunks(NUMBERS_PER_FRAME) {
            let frame = Frame::Done(Done { exchanges: part.to_vec(), receipts: Vec::new() });
            self.hold_frame(target, Lane::Control, frame);
        }
        if responses.is_empty() || self.is_kept(peer) {
            return;
        }
        self.flush_responses(target, responses);
    }

    fn flush_acks(&mut self, target: Target, acks: Vec<ExchangeId>, channels: Vec<ChannelId>) {
        let mut receipts = Vec::new();
        for id in channels {
            if let Some(channel) = self.channels.get_mut(&id) {
                receipts.extend(channel.countersign(&self.config.network, &self.config.secret));
            }
        }
        let mut acks = acks.chunks(NUMBERS_PER_FRAME);
        let mut receipts = receipts.chunks(RECEIPTS_PER_FRAME);
        loop {
            let (exchanges, receipts) = (acks.next(), receipts.next());
            if exchanges.is_none() && receipts.is_none() {
                return;
            }
            let exchanges = exchanges.unwrap_or_default().to_vec();
            let receipts = receipts.unwrap_or_default().to_vec();
            self.hold_frame(target, Lane::Control, Frame::Ack(Ack { receipts, exchanges }));
        }
    }

    /// Small responses share frames; each big one is announced on the bulk lane ahead of its body.
    /// One with a residual late payment goes by itself, after its payment is durable.
    fn flush_responses(&mut self, target: Target, queued: Vec<QueuedReply>) {
        let (mut part, mut size) = (Vec::with_capacity(queued.len()), 0);
        for QueuedReply { request, resume, late: due } in queued {
            let late = self.late_of(&request, due);
            let Some(job) = self.jobs.get_mut(&request) else { continue };
            let Some(exchange) = job.from().map(|from| from.exchange) else { continue };
            let Some((receipt, flow)) = job.reply() else { continue };
            let receipt = receipt.clone();
            let body = flow.body().filter(|body| body.len() <= target.max_inline).cloned();
            let lane = if body.is_some() { Lane::Control } else { Lane::Bulk };
            let len = body.as_ref().map_or(0, |body| body.len());
            let whole = body.is_some();
            let resume = resume && !whole;
            let item = ResponseItem { exchange, receipt, resume, body, late };
            if late.is_some() {
                self.send_late_response(target, lane, request, item);
                continue;
            }
            if !whole {
                self.send_response(target, lane, vec![item]);
                if !resume {
                    self.start_reply(target, request);
                }
                continue;
            }
            let bytes = item.receipt.proof.path.len() * 34 + len + ITEM_OVERHEAD;
            if size + bytes > target.most && !part.is_empty() {
                self.send_response(target, Lane::Control, std::mem::take(&mut part));
                size = 0;
            }
            size += bytes;
            part.push(item);
        }
        if !part.is_empty() {
            self.send_response(target, Lane::Control, part);
        }
    }

    fn late_of(&self, request: &RequestId, due: LateDue) -> Option<LateDue> {
        let total = self.jobs.get(request).and_then(Job::from)?.clock.late;
        (!total.is_zero()).then_some(LateDue { amount: due.amount, total })
    }

    fn send_late_response(&mut self, target: Target, lane: Lane, request: RequestId, item: ResponseItem) {
        let Some(channel) = self.jobs.get(&request).and_then(Job::from).map(|from| from.channel) else {
            return;
        };
        let amount = item.late.map_or(Yocto::ZERO, |late| late.amount);
        let fresh = !amount.is_zero();
        let payment = match fresh {
            true => self.pay_items(channel, vec![late_item(request, amount)]),
            false => self.paid(channel),
        };
        let starts = item.body.is_none() && !item.resume;
        let frame = Frame::Response(Response { payment, resent: !fresh, responses: vec![item] });
        self.hold_frame(target, lane, frame);
        if starts {
            self.store.hold(Held::Start(request, Part::ResponseBody, target.epoch));
        }
    }

    fn start_reply(&mut self, target: Target, request: RequestId) {
        let started = self.resume(target.peer, request, Part::ResponseBody, 0, target.window);
        if let Err(fault) = started {
            tracing::error!(%request, reason = %fault.0, "a response body does not start");
        }
    }

    /// A response relies on nothing but the request, which was durable before it was acknowledged.
    fn send_response(&mut self, target: Target, lane: Lane, responses: Vec<ResponseItem>) {
        let Some(conn) = target.conn else { return };
        let frame = Frame::Response(Response { payment: None, resent: false, responses });
        self.outputs.push_back(Output::Send { peer: target.peer, conn, lane, frame });
    }

    fn flush_credits(&mut self, peer: NodeKey) {
        let Some(edge) = self.edges.get_mut(&peer) else { return };
        let credits = std::mem::take(&mut edge.outbox.credits);
        let Some(conn) = edge.open() else { return };
        for credit in credits {
            let frame = Frame::Credit(credit);
            self.outputs.push_back(Output::Send { peer, conn, lane: Lane::Control, frame });
        }
    }

    fn flush_rows(&mut self) {
        while let Some(id) = self.dirty_jobs.pop() {
            let Some(job) = self.jobs.get(&id) else { continue };
            if let Some(row) = job.row() {
                let value = rows::encode(&row, row.size_hint());
                self.store.put(Table::Exchanges, rows::job_key(&id), value);
            } else if let Some(row) = job.answer_row(self.config.limits.max_inline) {
                let value = rows::encode(&row, row.size_hint());
                // Without it the app is asked again.
                self.store.put_lazily(Table::Exchanges, rows::answer_key(&id), value);
            } else if let Some(clock) = job.paid_clock() {
                self.store.put(Table::Exchanges, rows::clock_key(&id), rows::encode(&clock, 64));
            }
        }
        for id in std::mem::take(&mut self.dirty_channels) {
            if let Some(channel) = self.channels.get(&id) {
                self.store.put(Table::Channels, rows::ChannelRow::key(id), rows::encode(&channel.row, 1024));
            }
            self.receipted.remove(&id);
        }
        for id in std::mem::take(&mut self.receipted) {
            if let Some(channel) = self.channels.get(&id) {
                let row = rows::encode(&channel.row, 1024);
                self.store.put_lazily(Table::Channels, rows::ChannelRow::key(id), row);
            }
        }
    }
}

/// What there is, with room for as much: the next flush is mostly of the same size.
pub(crate) fn take_all<T>(from: &mut Vec<T>) -> Vec<T> {
    let room = Vec::with_capacity(from.len());
    std::mem::replace(from, room)
}

fn late_item(request: RequestId, amount: Yocto) -> Item {
    Item { request, amount, kind: ItemKind::Late }
}
