//! The third outcome: late payments, sync by sync, and the watch over those who owe this node an
//! answer (protocol section 5).
//!
//! Towards upstream a node syncs every heartbeat while it owes anything; past its deadline the sync
//! carries the late payment. Towards downstream it looks, as often, whether the other end is heard
//! from, has acknowledged, and pays.

use std::collections::BTreeSet;

use por_types::{ChannelId, Item, ItemKind, NodeKey, RequestId, SeverReason, Yocto};

use crate::api::{Event, OrderPace, Patience, Time};
use crate::edge::Queued;
use crate::fault::Fault;
use crate::job::{Job, Role};
use crate::node::Node;
use crate::wire::{Late, LateDue};

/// How many times longer than usual a silence of everybody is borne.
pub(crate) const SELF_DOUBT: u64 = 4;

impl Node {
    /// The time at which this process started is known.
    pub(crate) fn start_clocks(&mut self) {
        let mut due = Vec::new();
        for job in self.jobs.values_mut() {
            job.pace.start(self.now);
        }
        self.alone = Some(self.now);
        for (id, job) in self.jobs.iter() {
            if let Some(to) = job.to().filter(|to| to.open)
                && self.has_alarm(job)
            {
                due.push((to.clock.deadline.max(self.now), *id));
            }
        }
        for (time, id) in due {
            self.look_at(id, time);
        }
        for (id, job) in self.jobs.iter() {
            if let Role::Relay(relay) = &job.role
                && let Some(again) = relay.again
            {
                self.retries.insert((again, *id));
            }
        }
        let unsent: Vec<(NodeKey, RequestId)> = self
            .jobs
            .iter()
            .filter_map(|(id, job)| match &job.role {
                Role::Severed { from, sent: false, .. } => Some((from.peer, *id)),
                _ => None,
            })
            .collect();
        for (peer, request) in unsent {
            self.outbox(peer).severed.push(Queued { request, fresh: true });
        }
        self.resume_pursuits();
        let peers: Vec<NodeKey> = self.edges.keys().copied().collect();
        for peer in peers {
            let now = self.now;
            let edge = self.edge(peer);
            (edge.heard, edge.turned) = (now, now);
            edge.away.begin(now);
            edge.missed = true;
            self.beat_later(peer);
            self.supervise(peer);
        }
    }

    /// Whether something happens when the bound of this job has passed.
    fn has_alarm(&self, job: &Job) -> bool {
        matches!(job.role, Role::Author(_)) || matches!(self.config.policy.patience, Patience::AfterMs(_))
    }

    /// Starts the syncs for what is kept for a peer, if they do not run already.
    pub(crate) fn beat_later(&mut self, peer: NodeKey) {
        let runs = self.edges.get(&peer).is_some_and(|edge| edge.beat.is_some());
        if runs || !self.keeps_for(peer) {
            return;
        }
        let time = self.next_beat(peer);
        self.edge(peer).beat = Some(time);
        self.beats.insert((time, peer));
    }

    /// Starts the watch over a peer that was asked, if it does not run already.
    pub(crate) fn supervise(&mut self, peer: NodeKey) {
        let asked = self.channels_with(peer).any(|(_, channel)| channel.outgoing.requests > 0);
        let runs = self.edges.get(&peer).is_some_and(|edge| edge.watch.is_some());
        if runs || !asked {
            return;
        }
        let (beat, _) = self.rhythm(peer);
        let time = self.now.after_ms(beat);
        let now = self.now;
        let edge = self.edge(peer);
        edge.watch = Some(time);
        // Silence counts from when there was a reason to speak.
        edge.heard = now;
        self.watches.insert((time, peer));
    }

    /// Everything that time has brought.
    pub(crate) fn keep_time(&mut self) {
        while let Some(&(time, peer)) = self.beats.first()
            && time <= self.now
        {
            self.beats.pop_first();
            self.edge(peer).beat = None;
            self.beat(peer, time);
            self.beat_later(peer);
        }
        while let Some(&(time, request)) = self.retries.first()
            && time <= self.now
        {
            self.retries.pop_first();
            self.ask_refused(request, time);
        }
        while let Some(&(time, channel)) = self.pursuits.first()
            && time <= self.now
        {
            self.pursuits.pop_first();
            self.pursue(channel);
        }
        while let Some(&(time, peer)) = self.watches.first()
            && time <= self.now
        {
            self.watches.pop_first();
            self.edge(peer).watch = None;
            if !self.puts_off(peer, time) {
                self.watch(peer);
            }
        }
    }

    /// A sync with an upstream peer, planned for then.
    fn beat(&mut self, peer: NodeKey, planned: Time) {
        let owed: Vec<RequestId> = self.edge(peer).owed.values().copied().collect();
        let edge = self.edge(peer);
        let connected = edge.open().is_some();
        edge.missed |= !connected;
        // Patience is counted in heartbeats, whatever the peer's connections do.
        if !std::mem::take(&mut edge.extra) {
            owed.iter().for_each(|id| self.lose_patience(*id));
        }
        let silence = self.borne_ms(peer);
        let has_told = self.has_told(peer);
        for id in owed {
            self.give_ack_in_time(peer, id);
            self.drop_abandoned(id, silence);
            let Some(job) = self.jobs.get(&id) else { continue };
            match &job.role {
                Role::Severed { sent: false, unsure, .. }
                    if *unsure || self.config.policy.orders == OrderPace::WithSync =>
                {
                    let waits = *unsure && !has_told;
                    self.outbox(peer).severed.push(Queued { request: id, fresh: true });
                    // Until the proof can be told lateness goes on.
                    if waits && connected && self.knows_chain {
                        let due = self.owe_late(id);
                        if !due.amount.is_zero() {
                            self.outbox(peer).late.push((id, due));
                        }
                    }
                }
                // Closed: the whole answer is here and what was due for it is paid; that it is not taken
                // yet, since somebody further up is away, is upstream's time.
                Role::Relay(_) | Role::Destination { .. }
                    if connected && job.from().is_some_and(|from| from.open) =>
                {
                    let due = self.owe_late(id);
                    if !due.amount.is_zero() {
                        self.outbox(peer).late.push((id, due));
                    }
                }
                _ => {}
            }
        }
        self.outbox(peer).beat = true;
        let late = self.is_held_up(planned);
        let edge = self.edge(peer);
        edge.beat_late = late && !edge.beat_late;
        if !edge.beat_late {
            self.watch_upstream(peer);
        }
    }

    /// Severs the next edge if the node has paid for its lateness for as long as it wants to, or as
    /// it can.
    fn lose_patience(&mut self, id: RequestId) {
        let now = self.now;
        let (late_fee, patience) = (self.late_fee.paid(now), self.config.policy.patience);
        self.shift_deadlines(id);
        let judges = self.judges();
        if !judges || self.may_be_answered(id) {
            return;
        }
        let Some(Role::Relay(relay)) = self.jobs.get_mut(&id).map(|job| &mut job.role) else { return };
        if !relay.from.open || !relay.to.open || now <= relay.from.clock.deadline {
            return;
        }
        relay.from.clock.syncs = relay.from.clock.syncs.saturating_add(1);
        let downstream_late = relay.again.is_some() || now >= relay.to.clock.deadline;
        let enough = matches!(patience, Patience::Syncs(most) if relay.from.clock.syncs >= most);
        let (from, unpaid) = (relay.from.channel, relay.from.clock.unpaid_ms(now));
        let beat = self.own_beat_ms(self.channels.get(&from).map_or(self.key, |channel| channel.row.peer));
        // The last moment at which the next late payment is still covered.
        let next = late_fee.checked_mul(u128::from(unpaid) + u128::from(beat));
        let broke = next.is_err() || next.is_ok_and(|next| self.funds(from) < next);
        if downstream_late && (enough || broke) {
            if broke {
                self.tell_short(from);
            }
            self.end_leg(id, SeverReason::UnpaidLateness);
        }
    }

    /// Sets aside what is due upstream for a request by now, with the next signature on its channel.
    /// Answers what to tell of it.
    pub(crate) fn owe_late(&mut self, id: RequestId) -> LateDue {
        let (now, fee) = (self.now, self.late_fee.paid(self.now));
        if fee.is_zero() {
            return LateDue::default();
        }
        self.shift_deadlines(id);
        let Some(job) = self.jobs.get(&id) else { return LateDue::default() };
        #[cfg(feature = "testing")]
        if self.cheats {
            return LateDue::default();
        }
        let Some((from, clock)) = job.from().map(|from| (from.clone(), from.clock)) else {
            return LateDue::default();
        };
        let available = self.available(from.channel);
        let unpaid_ms = u128::from(clock.unpaid_ms(now));
        // As many whole milliseconds as the balance covers; more were never promised.
        let ms = unpaid_ms.min(available.0 / fee.0);
        let Ok(amount) = fee.checked_mul(ms) else { return LateDue::default() };
        let Ok(total) = clock.late.checked_add(amount) else { return LateDue::default() };
        let owed = self.channels.get_mut(&from.channel).map(|channel| channel.owe(amount));
        if amount.is_zero() || !matches!(owed, Some(Ok(()))) {
            return LateDue::default();
        }
        let downstream = self.jobs.get(&id).and_then(Job::to).map(|to| to.peer);
        if let Some(from) = self.jobs.get_mut(&id).and_then(Job::upstream_mut) {
            from.clock.late = total;
            from.clock.paid_until = clock.paid_until.after_ms(u64::try_from(ms).unwrap_or(u64::MAX));
        }
        self.dirty_jobs.insert(id);
        if let Some(peer) = downstream {
            self.account(peer, amount, false);
        }
        self.notify(Event::PaidLate { peer: from.peer, amount });
        LateDue { amount, total }
    }

    /// The answer is here: sets aside the last late payment upstream. While the peer is away, or the chain is
    /// not read, it is late still; what is due then is settled when the answer goes out.
    pub(crate) fn close_upstream(&mut self, id: RequestId) -> LateDue {
        let Some(from) = self.jobs.get(&id).and_then(Job::from).filter(|from| from.open) else {
            return LateDue::default();
        };
        let peer = from.peer;
        if self.is_kept(peer) || self.edges.get(&peer).is_none_or(|edge| edge.open().is_none()) {
            return LateDue::default();
        }
        let late = self.owe_late(id);
        if let Some(mut leg) = self.jobs.get(&id).and_then(Job::from).cloned() {
            self.settle(&mut leg, true);
        }
        if let Some(from) = self.jobs.get_mut(&id).and_then(Job::upstream_mut) {
            from.open = false;
        }
        late
    }

    /// A look at a downstream peer.
    fn watch(&mut self, peer: NodeKey) {
        let is_open = |id: &&RequestId| self.jobs.get(id).and_then(Job::to).is_some_and(|to| to.open);
        let asked = self.edges.get(&peer).into_iter().flat_map(|edge| edge.asked.values());
        let open: Vec<RequestId> = asked.filter(is_open).copied().collect();
        if open.is_empty() {
            return;
        }
        if self.judges() {
            self.judge_asked(peer, open, self.borne_ms(peer));
        }
        let still = self.channels_with(peer).any(|(_, channel)| channel.outgoing.requests > 0);
        if still {
            let time = self.now.after_ms(self.rhythm(peer).0);
            // One that came too early is made up for.
            let time = if self.reads_until > self.now { time.min(self.reads_until) } else { time };
            self.edge(peer).watch = Some(time);
            self.watches.insert((time, peer));
        }
    }

    fn judge_asked(&mut self, peer: NodeKey, open: Vec<RequestId>, limit: u64) {
        let heard = self.edge(peer).heard;
        let silent = self.heeded_ms(heard) > limit;
        // Who has refused everything owes no sync.
        let owes = open.iter().any(|id| self.jobs.get(id).is_some_and(|job| !job.is_refused()));
        if silent && owes {
            self.breach(peer, SeverReason::MissedSync, open);
        } else {
            self.watch_each(peer, &open, limit);
            self.watch_receipts(peer, &open, limit);
        }
    }

    /// Who takes payments and does not counter-sign them is in breach: the receipt is what this node
    /// could show.
    fn watch_receipts(&mut self, peer: NodeKey, open: &[RequestId], limit: u64) {
        let now = self.now;
        let Some(edge) = self.edges.get(&peer).filter(|edge| edge.open().is_some()) else { return };
        let turned = edge.turned;
        let queued_ms = self.queued_ms(peer);
        let channels: Vec<ChannelId> = self.channels_with(peer).map(|(id, _)| id).collect();
        for id in channels {
            let Some(channel) = self.channels.get_mut(&id) else { continue };
            let rtt = channel.info.as_ref().map_or(0, |info| u64::from(info.terms.rtt_ms));
            let bound = limit.saturating_add(rtt).saturating_add(queued_ms);
            let since = channel.unsigned_since(now);
            if since.is_some_and(|since| self.heeded_ms(since.max(turned)) > bound) {
                let over = |request: &&RequestId| {
                    self.jobs.get(request).and_then(Job::to).is_some_and(|to| to.channel == id)
                };
                let requests = open.iter().filter(over).copied().collect();
                self.breach(peer, SeverReason::Disagreement, requests);
            }
        }
    }

    fn watch_each(&mut self, peer: NodeKey, open: &[RequestId], limit: u64) {
        // Time before this process started is its own; connections that come and go excuse nothing,
        // or a peer could put its breach off by reconnecting.
        let started = self.started.unwrap_or_default();
        let (mut unanswered, mut unpaid) = (Vec::new(), Vec::new());
        let queued_ms = self.queued_ms(peer);
        for id in open {
            self.shift_deadlines(*id);
            let Some(job) = self.jobs.get(id) else { continue };
            let (acked, refused, first) = (job.is_acked(), job.is_refused(), job.first_asked());
            let Some(to) = job.to() else { continue };
            let rtt = self.channels.get(&to.channel).and_then(|c| c.info.as_ref());
            let rtt = rtt.map_or(0, |info| u64::from(info.terms.rtt_ms));
            // A stand-in is in breach by itself alone.
            let first = if job.named() == Some(to.channel) { first } else { to.clock.since };
            let asked_ms = self.heeded_ms(first);
            let bound = rtt.saturating_add(limit).saturating_add(queued_ms);
            // Who was asked once more just now may still be about to answer, once.
            let last_ms = rtt.saturating_add(queued_ms).saturating_add(self.longest_pause_ms(peer));
            let is_asked = !refused && first != to.clock.since && self.heeded_ms(to.clock.since) <= last_ms;
            let waits = is_asked && asked_ms <= bound.saturating_add(bound / 4);
            if !acked && asked_ms > bound && !waits {
                unanswered.push(*id);
            }
            if refused {
                continue;
            }
            // What was paid counts for so many milliseconds; payments come a heartbeat at a time.
            let tolerated = limit.saturating_add(rtt);
            // What upstream has taken since the start is excused as well.
            let excused = started.after_ms(job.pace.excused_ms());
            let since = to.clock.deadline.max(excused);
            let late_ms = self.heeded_ms(since).saturating_sub(tolerated);
            if self.late_fee.expected(since, late_ms) > to.clock.late {
                unpaid.push(*id);
            }
        }
        if !unanswered.is_empty() {
            self.breach(peer, SeverReason::NoAck, unanswered);
        } else if !unpaid.is_empty() {
            self.breach(peer, SeverReason::UnpaidLateness, unpaid);
        }
    }

    /// The peer is in breach for these requests.
    fn breach(&mut self, peer: NodeKey, reason: SeverReason, requests: Vec<RequestId>) {
        if !self.config.policy.act_on_breach {
            return;
        }
        let mut channels: Vec<(ChannelId, RequestId)> = Vec::new();
        for id in requests {
            let Some(channel) = self.jobs.get(&id).and_then(Job::to).map(|to| to.channel) else { continue };
            if self.is_there(channel) {
                channels.push((channel, id));
            } else {
                self.end_leg(id, reason);
            }
        }
        if channels.is_empty() {
            return;
        }
        channels.sort_unstable();
        channels.dedup_by_key(|(channel, _)| *channel);
        if (reason == SeverReason::MissedSync && self.hears_nobody(peer)) || !self.may_sever(peer) {
            return self.withhold(peer, reason);
        }
        for (channel, request) in channels {
            self.sever(channel, reason, Some(request));
        }
    }

    /// None of those that owe a sync is heard from, `peer` not being the only one, or there is no connection
    /// at all: the fault is likely here. Nobody can hide behind that for long.
    fn hears_nobody(&self, peer: NodeKey) -> bool {
        let limit = self.borne_ms(peer);
        let silence = self.edges.get(&peer).map_or(0, |edge| self.heeded_ms(edge.heard));
        if silence > limit.saturating_mul(SELF_DOUBT) {
            return false;
        }
        if self.alone.is_some() {
            return true;
        }
        let mut others =
            self.edges.iter().filter(|(other, edge)| **other != peer && edge.watch.is_some()).peekable();
        others.peek().is_some() && others.all(|(_, edge)| self.heeded_ms(edge.heard) > limit)
    }

    /// Whether the policy allows to sever an edge with this peer now. What it caps are the peers: more
    /// channels of one that was severed already say nothing new of where the fault is.
    pub(crate) fn may_sever(&mut self, peer: NodeKey) -> bool {
        let window = self.config.policy.sever_window_ms;
        while self.severs.front().is_some_and(|(time, _)| self.now.since_ms(*time) >= window) {
            self.severs.pop_front();
        }
        let peers: BTreeSet<NodeKey> = self.severs.iter().map(|(_, peer)| *peer).collect();
        peers.contains(&peer) || peers.len() < self.config.policy.max_severs as usize
    }

    /// The request's bound is looked at then, unless it is forgotten before.
    pub(crate) fn look_at(&mut self, request: RequestId, time: Time) {
        self.due.insert((time, request));
        if let Some(job) = self.jobs.get_mut(&request) {
            job.pace.alarm = Some(time);
        }
    }

    /// The bound of a request has passed.
    pub(crate) fn on_due(&mut self, request: RequestId, due: Time) {
        let Some(job) = self.jobs.get(&request) else { return };
        let Some(to) = job.to().filter(|to| to.open).cloned() else { return };
        let told = due > to.clock.deadline;
        if matches!(job.role, Role::Author(_)) && !told {
            self.notify(Event::Overdue { request });
        }
        let Patience::AfterMs(after) = self.config.policy.patience else { return };
        let until = to.clock.deadline.after_ms(after);
        if !self.judges() || self.may_be_answered(request) {
            self.look_at(request, self.now.after_ms(self.config.policy.margin_ms.max(1)));
        } else if self.now >= until {
            if self.may_sever(to.peer) {
                return self.end_leg(request, SeverReason::UnpaidLateness);
            }
            self.withhold(to.peer, SeverReason::UnpaidLateness);
            let first = self.severs.front().map_or(self.now, |(time, _)| *time);
            self.look_at(request, first.after_ms(self.config.policy.sever_window_ms.max(1)));
        } else {
            self.look_at(request, until);
        }
    }

    pub(crate) fn on_late(&mut self, peer: NodeKey, frame: Late) -> Result<(), Fault> {
        if frame.items.is_empty() {
            return Err(Fault::new("a Late frame without items"));
        }
        let channel = frame.payment.statement.channel;
        let due = frame.items.iter().map(|item| (item.exchange, item.amount, false));
        let items = self.late_items(peer, channel, due);
        let new = self.take_payment(peer, &frame.payment, items.filter(|_| !frame.resent))?;
        for item in frame.items {
            match self.asked(peer, item.exchange) {
                Some(id) => {
                    let due = LateDue { amount: item.amount, total: item.total };
                    self.take_late(id, due)?;
                }
                // It has ended here; what was paid for it stays.
                None if new && !frame.resent => {
                    if let Some(channel) = self.channels.get_mut(&channel) {
                        channel.apply(item.amount);
                    }
                    self.dirty_channels.insert(channel);
                }
                None => {}
            }
        }
        Ok(())
    }

    /// What a payment with late payments, and refunds before them where asked for, has to name;
    /// `None` if an exchange is not known any more.
    pub(crate) fn late_items(
        &mut self,
        peer: NodeKey,
        channel: ChannelId,
        due: impl Iterator<Item = (crate::ExchangeId, Yocto, bool)>,
    ) -> Option<Vec<Item>> {
        let mut items = Vec::new();
        for (exchange, amount, _) in due {
            let id = self.asked(peer, exchange)?;
            let to = self.jobs.get(&id)?.to()?;
            if to.channel == channel && !amount.is_zero() {
                items.push(Item { request: id, amount, kind: ItemKind::Late });
            }
        }
        Some(items)
    }

    /// Accounts for late payments of an exchange up to a total.
    pub(crate) fn take_late(&mut self, id: RequestId, due: LateDue) -> Result<(), Fault> {
        let Some(job) = self.jobs.get_mut(&id) else { return Ok(()) };
        let is_author = matches!(job.role, Role::Author(_));
        let Some(to) = job.downstream_mut() else { return Ok(()) };
        let (channel, peer) = (to.channel, to.peer);
        let amount = due.total.saturating_sub(to.clock.late);
        if amount.is_zero() {
            return Ok(());
        }
        if !self.channels.get_mut(&channel).is_some_and(|channel| channel.apply(amount)) {
            return Err(Fault::new("a late payment that was not paid"));
        }
        to.clock.late = due.total;
        self.dirty_channels.insert(channel);
        self.dirty_jobs.insert(id);
        self.account(peer, amount, true);
        if is_author {
            self.notify(Event::Late { request: id, amount });
        }
        Ok(())
    }

    /// Counts what an edge brings or costs; severs it if it loses too much (protocol section 5: a
    /// peer that understates its lateness cannot be proven wrong).
    pub(crate) fn account(&mut self, peer: NodeKey, amount: Yocto, gain: bool) {
        let (now, window) = (self.now, self.config.policy.loss_window_ms);
        let edge = self.edge(peer);
        if now.since_ms(edge.profit.0) >= window {
            edge.profit = (now, 0);
        }
        let amount = i128::try_from(amount.0).unwrap_or(i128::MAX);
        let sum =
            if gain { edge.profit.1.saturating_add(amount) } else { edge.profit.1.saturating_sub(amount) };
        edge.profit.1 = sum;
    }

    /// Severs an edge that has lost more than the policy bears; called when an exchange ended.
    pub(crate) fn judge_profit(&mut self, peer: NodeKey, channel: ChannelId, request: RequestId) {
        let Some(limit) = self.config.policy.loss_limit else { return };
        let lost = self.edges.get(&peer).map_or(0, |edge| edge.profit.1.saturating_neg());
        if lost > i128::try_from(limit.0).unwrap_or(i128::MAX) && self.may_sever(peer) {
            self.sever(channel, SeverReason::Loss, Some(request));
        }
    }

    /// The session with a peer is open again: time that it was away is excused, up to one grace a
    /// request (protocol section 5).
    pub(crate) fn excuse(&mut self, peer: NodeKey) {
        let now = self.now;
        let (_, grace) = self.rhythm(peer);
        let edge = self.edge(peer);
        let away = edge.turned;
        (edge.turned, edge.heard) = (now, now);
        let owed: Vec<RequestId> = edge.owed.values().copied().collect();
        for id in owed {
            self.shift_deadlines(id);
            let Some(from) = self.jobs.get_mut(&id).and_then(Job::upstream_mut).filter(|from| from.open)
            else {
                continue;
            };
            let clock = &mut from.clock;
            let late = now.since_ms(clock.paid_until.max(away));
            let excused = late.min(grace.saturating_sub(clock.excused_ms));
            if excused > 0 {
                clock.excused_ms += excused;
                clock.shift(excused);
                self.dirty_jobs.insert(id);
            }
        }
    }
}
