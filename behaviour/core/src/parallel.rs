//! Parallel channels: who has acknowledged a request and is refused takes another channel of the same
//! pair if what the route grants for that hop covers it (protocol section 4).
//!
//! The signed route names channels, and the proof that goes upstream is of a channel that it names.
//! Which one is used in its stead concerns the two neighbours alone. If that one fails as well, the
//! named one is severed too, unless it is already: its order is the proof.

use por_types::{ChannelId, RequestId, SeverOrder, SeverReason, Signed};

use crate::api::RejectReason;
use crate::graph::covers;
use crate::job::{Job, Leg, Role};
use crate::node::Node;
use crate::wire::PARALLEL;

impl Node {
    /// The channel is in the graph, be it closing.
    pub(crate) fn is_there(&self, id: ChannelId) -> bool {
        self.channels.get(&id).is_some_and(|channel| channel.there().is_some())
    }

    /// The channel over which a refused request is asked next: in turn the one that the route names and
    /// those that can stand in for it.
    pub(crate) fn next_channel(&self, id: RequestId) -> Option<ChannelId> {
        let job = self.jobs.get(&id)?;
        let Role::Relay(relay) = &job.role else { return None };
        let named = job.named().filter(|named| self.is_there(*named));
        let channels: Vec<ChannelId> = named.into_iter().chain(self.stand_ins(job)).collect();
        let turn = (relay.tries as usize).checked_rem(channels.len())?;
        channels.get(turn).copied()
    }

    /// Channels with the next node, other than the named one, that could carry the request now; none
    /// any more once it has refused for as long as an Ack may take.
    fn stand_ins(&self, job: &Job) -> impl Iterator<Item = ChannelId> {
        let leg = job.to().filter(|to| {
            let limit = self.borne_ms(to.peer);
            self.heeded_ms(job.first_asked()) <= limit
        });
        let leg = leg.filter(|to| {
            let hello = self.edges.get(&to.peer).and_then(|edge| edge.hello());
            hello.is_some_and(|hello| hello.has(PARALLEL))
        });
        leg.into_iter().flat_map(move |to| {
            let others = self.channels_with(to.peer).map(|(id, _)| id);
            others.filter(move |id| job.named() != Some(*id) && self.stands_in(job, to, *id).is_ok())
        })
    }

    fn stands_in(&self, job: &Job, to: &Leg, id: ChannelId) -> Result<(), RejectReason> {
        let channel = self.channels.get(&id).ok_or(RejectReason::NoEdge)?;
        let info = channel.open_info().ok_or(RejectReason::NoEdge)?;
        self.check_seen(channel)?;
        let hop = job.head.route.get(usize::from(to.hop)).ok_or(RejectReason::NoEdge)?;
        let ahead = channel.outgoing.bytes.saturating_add(job.head.body_len);
        let in_time = info.terms.allowance_ms(ahead, job.head.response_limit) <= hop.allowance_ms;
        if !in_time || !covers(hop, &job.head, &info.terms) {
            return Err(RejectReason::Busy);
        }
        if !self.covers_more(channel, to.amount) {
            return Err(RejectReason::Balance);
        }
        self.check_load(channel.outgoing, info, to)
    }

    /// Counts the leg towards the destination on another channel.
    pub(crate) fn move_leg(&mut self, id: RequestId, channel: ChannelId) {
        let Some(mut leg) = self.jobs.get(&id).and_then(Job::to).filter(|to| to.channel != channel).cloned()
        else {
            return;
        };
        self.settle(&mut leg, false);
        (leg.channel, leg.open) = (channel, true);
        self.load(&leg, false);
        if let Some(to) = self.jobs.get_mut(&id).and_then(Job::downstream_mut) {
            *to = leg;
        }
        self.dirty_jobs.insert(id);
    }

    /// The channel of a request's next leg is severed by this order.
    pub(crate) fn leg_severed(&mut self, id: RequestId, order: &Signed<SeverOrder>) {
        let Some(job) = self.jobs.get(&id) else { return };
        if self.may_still_ask(job) {
            return;
        }
        let Some(amount) = job.to().map(|to| to.amount) else { return };
        let severed = order.statement.channel;
        let Some(named) = job.named().filter(|named| *named != severed) else {
            return self.severed(id, order.clone(), amount, true);
        };
        // The stand-in is gone; upstream knows of the named one.
        let reason = order.statement.reason;
        self.sever(named, reason, Some(id));
        let proof = self.own_order(named, reason, Some(id));
        self.severed(id, proof, amount, true);
    }

    /// Nothing is paid for the request at present, and another channel could take it.
    fn may_still_ask(&self, job: &Job) -> bool {
        job.is_refused() && self.stand_ins(job).next().is_some()
    }

    /// The request is waited for no longer: its edge is severed, or the proof that it was goes upstream.
    pub(crate) fn end_leg(&mut self, id: RequestId, reason: SeverReason) {
        let Some(to) = self.jobs.get(&id).and_then(Job::to).cloned() else { return };
        if self.is_there(to.channel) {
            return self.sever(to.channel, reason, Some(id));
        }
        let order = self.own_order(to.channel, reason, Some(id));
        self.severed(id, order, to.amount, true);
    }
}
