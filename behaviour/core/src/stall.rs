//! Time in which this node heard nobody, because its disk hung or its process stood still, or because it had no
//! connection: what others said meanwhile waits to be read. Nobody is blamed for that time, nor for any before the
//! chain is read; what this node owes for it, it pays.

use std::collections::{BTreeSet, VecDeque};

use por_types::{ChannelId, NodeKey};

use crate::api::Time;
use crate::node::Node;
use crate::wire::Frame;

/// So long after a stall nobody is judged at least, milliseconds.
const READ_MS: u64 = 250;

/// A look that is later than this was held up, milliseconds; and so long what has come is read.
const HELD_UP_MS: u64 = 50;

/// Most stalls that are remembered one by one.
const MAX_STALLS: usize = 64;

/// From when until when nothing was taken in, oldest first, each apart from the next.
#[derive(Debug, Default)]
pub(crate) struct Stalls(VecDeque<(Time, Time)>);

impl Stalls {
    fn add(&mut self, mut since: Time, until: Time) {
        while let Some((from, _)) = self.0.pop_back_if(|(_, to)| *to >= since) {
            since = since.min(from);
        }
        self.0.push_back((since, until));
        if self.0.len() > MAX_STALLS
            && let Some((from, _)) = self.0.pop_front()
            && let Some(oldest) = self.0.front_mut()
        {
            oldest.0 = from;
        }
    }

    /// How much of the time after `start` they took, milliseconds.
    fn after(&self, start: Time) -> u64 {
        let later = self.0.iter().rev().take_while(|(_, to)| *to > start);
        later.map(|(from, to)| to.since_ms(start.max(*from))).sum()
    }
}

impl Node {
    /// From `since` until now nothing was taken in. Of that time only what goes beyond the margin, which others
    /// are granted anyway, is left out of account: who is silent while this node listens is found out though
    /// it may stall again and again, or take long for every write.
    pub(crate) fn on_stalled(&mut self, since: Time) {
        self.leave_out(since.after_ms(self.config.policy.margin_ms).min(self.now), since);
    }

    /// The time from `counted` on counts for nobody; from `since` on nothing was taken in.
    fn leave_out(&mut self, counted: Time, since: Time) {
        let now = self.now;
        self.stalls.add(counted, now);
        for job in self.jobs.values_mut() {
            job.pace.skip(since, now);
        }
        for edge in self.edges.values_mut() {
            edge.away.skip(since, now);
        }
        // Before the next stall can have become as long as this.
        let later = now.after_ms((self.config.policy.margin_ms / 2).max(READ_MS));
        self.reads_until = later;
        let syncing = std::mem::take(&mut self.syncing);
        self.syncing =
            syncing.into_iter().map(|(time, peer, epoch)| (time.max(later), peer, epoch)).collect();
    }

    /// How much of the time since then this node ran and took in what others said, milliseconds.
    pub(crate) fn heeded_ms(&self, since: Time) -> u64 {
        let since = since.max(self.started.unwrap_or_default());
        self.now.since_ms(since).saturating_sub(self.stalls.after(since))
    }

    /// Whether others are judged now: before the chain is read neither the terms are known nor whether the
    /// channels are there at all, and after a stall what has come meanwhile is read first.
    pub(crate) fn judges(&self) -> bool {
        self.knows_chain && self.now >= self.reads_until
    }

    /// A look that was planned for then comes so late that it was held up here, if for less than what counts as a
    /// stall: what has come meanwhile is read first, unless there was time for that after a stall. Whoever puts it off
    /// for that does so once, not twice in a row, or a machine that is always held up would blame nobody.
    pub(crate) fn is_held_up(&self, planned: Time) -> bool {
        self.now.since_ms(planned) > HELD_UP_MS && planned > self.reads_until
    }

    /// Puts off a look at a downstream peer that was held up.
    pub(crate) fn puts_off(&mut self, peer: NodeKey, planned: Time) -> bool {
        let (now, late) = (self.now, self.is_held_up(planned));
        let edge = self.edge(peer);
        edge.put_off = late && !edge.put_off;
        if edge.put_off {
            let time = now.after_ms(HELD_UP_MS);
            edge.watch = Some(time);
            self.watches.insert((time, peer));
        }
        self.edge(peer).put_off
    }

    /// A connection was lost.
    pub(crate) fn perhaps_alone(&mut self) {
        if self.edges.values().all(|edge| edge.conns.is_empty()) {
            self.alone.get_or_insert(self.now);
        }
    }

    /// Somebody is connected. If nobody was for longer than is tolerated, it was this node that could not
    /// be reached; once within the window of severs, or a lone neighbour could come and go for ever
    /// instead of answering.
    pub(crate) fn not_alone(&mut self) {
        let Some(since) = self.alone.take() else { return };
        let window = self.config.policy.sever_window_ms;
        let lately = self.excused.is_some_and(|time| self.now.since_ms(time) < window);
        if self.now.since_ms(since) > self.config.policy.margin_ms && !lately {
            // The time until a process that starts is connected is no such outage.
            self.excused = (self.started != Some(since)).then_some(self.now);
            self.leave_out(since, since);
        }
    }

    /// If the chain is read for the first time, time counts from now on: until now nobody was judged, as
    /// neither terms nor channels were known. Answers of whom something was left.
    pub(crate) fn chain_read(&mut self) -> BTreeSet<NodeKey> {
        if std::mem::replace(&mut self.knows_chain, true) {
            return BTreeSet::new();
        }
        if let Some(started) = self.started.filter(|started| *started < self.now) {
            self.leave_out(started, started);
        }
        let left = self.edges.iter_mut().filter_map(|(peer, edge)| edge.left.then_some(*peer));
        left.collect()
    }

    /// Whether a frame is left until the chain is read: before, this node can neither tell what a payment is
    /// worth nor refund anything upstream.
    pub(crate) fn is_left(&self, frame: &Frame) -> bool {
        let needs = match frame {
            Frame::Request(_) | Frame::Reject(_) | Frame::Severed(_) | Frame::Late(_) => true,
            Frame::Response(frame) => frame.payment.is_some(),
            _ => false,
        };
        needs && !self.knows_chain
    }

    /// Something that the peer has said was left until more of the chain is read: what follows may rest on it.
    pub(crate) fn has_left(&self, peer: NodeKey) -> bool {
        self.edges.get(&peer).is_some_and(|edge| edge.left || !edge.unheard.is_empty())
    }

    /// Whether an answer for this peer is kept until the chain is read: before, this node cannot pay for its
    /// lateness, nor tell whether it is late. The peer is then told all that is unfinished.
    pub(crate) fn is_kept(&mut self, peer: NodeKey) -> bool {
        if !self.knows_chain {
            self.edge(peer).left = true;
        }
        !self.knows_chain
    }

    /// The channel of a frame's payment, if this node has not read it from the chain yet: what the payment is
    /// worth cannot be told.
    pub(crate) fn unread(&self, peer: NodeKey, frame: &Frame) -> Option<ChannelId> {
        let payment = match frame {
            Frame::Reject(frame) => frame.payment.as_ref(),
            Frame::Response(frame) => frame.payment.as_ref(),
            Frame::Severed(frame) => frame.payment.as_ref(),
            Frame::Late(frame) => Some(&frame.payment),
            _ => None,
        };
        let id = payment?.statement.channel;
        let channel = self.channels.get(&id).filter(|channel| channel.row.peer == peer)?;
        channel.info.is_none().then_some(id)
    }
}
