//! How long a round trip between two neighbours takes, and what it leaves of a bound (protocol section 5).

use por_types::{ChannelId, NodeKey, RequestHead, RequestId};

use crate::api::Time;
use crate::job::{Job, Leg};
use crate::node::Node;
use crate::rows::Clock;

impl Node {
    /// The upstream node's bound, less what the way between takes.
    ///
    /// Upstream counts what is `resent` from when it was sent first. If this process has started since, that time was
    /// its own absence; upstream bears it, but no further one on top: so upstream's own excuses nothing then.
    pub(crate) fn clock_from(&self, head: &RequestHead, from: &Leg, resent: bool) -> Clock {
        let bound = head.bound_ms_at(usize::from(from.hop));
        let measured = self.edges.get(&from.peer).and_then(|edge| edge.rtt_ms).unwrap_or(u64::MAX);
        // More than was promised is no reason to be early: the peer can make every round trip look long, and
        // would be paid for lateness that is none.
        let allowed_ms = bound.saturating_sub(measured.min(self.declared_trip_ms(from.channel)));
        let (_, grace) = self.rhythm(from.peer);
        let was_away = resent && self.started.is_some_and(|started| self.now.since_ms(started) <= grace);
        Clock { excused_ms: if was_away { grace } else { 0 }, ..Clock::new(self.now, allowed_ms) }
    }

    fn declared_trip_ms(&self, channel: ChannelId) -> u64 {
        let channel = self.channels.get(&channel).and_then(|channel| channel.info.as_ref());
        channel.map_or(0, |info| u64::from(info.terms.rtt_ms))
    }

    /// The peer has answered now what went to it at `since`.
    pub(crate) fn measured(&mut self, peer: NodeKey, since: Time) {
        let sample_ms = self.now.since_ms(since);
        let edge = self.edge(peer);
        if let Some(shortest) = &mut edge.rtt_ms {
            *shortest = sample_ms.min(*shortest);
            return;
        }
        edge.rtt_ms = Some(sample_ms);
        // What the peer has asked meanwhile was taken to have come by the longest way there may be.
        let owed: Vec<RequestId> = edge.owed.values().copied().collect();
        for id in owed {
            let Some(from) = self.jobs.get(&id).and_then(Job::from) else { continue };
            let less_ms = self.declared_trip_ms(from.channel).saturating_sub(sample_ms);
            if from.clock.since < since || less_ms == 0 {
                continue;
            }
            if let Some(from) = self.jobs.get_mut(&id).and_then(Job::upstream_mut) {
                from.clock.shift(less_ms);
                self.dirty_jobs.insert(id);
            }
        }
    }

    /// The first answer to a small request tells the edge's round trip.
    pub(crate) fn measure(&mut self, peer: NodeKey, id: RequestId) {
        let Some(job) = self.jobs.get(&id).filter(|job| !job.is_acked()) else { return };
        let Some(to) = job.to().filter(|_| job.head.body_len <= u64::from(self.config.limits.max_inline))
        else {
            return;
        };
        let since = to.clock.since;
        // What was sent again over a later session says nothing.
        if since >= self.edge(peer).turned {
            self.measured(peer, since);
        }
    }
}
