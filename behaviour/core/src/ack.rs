//! When a relay acknowledges (protocol section 4).
//!
//! Once it has, only an outcome ends the request: a next node that cannot take it, for want of balance say, would be
//! asked in vain until the edge to it has to be severed. So a relay waits for a moment for what the next node
//! says, and passes a refusal on, by which nobody loses anything. Whatever keeps the next node from saying
//! it, the Ack is given long before upstream could miss it.

use por_types::{NodeKey, RequestId};

use crate::node::Node;

impl Node {
    /// This node is under obligation from now on, if it was not before.
    pub(crate) fn give_ack(&mut self, id: RequestId) {
        let Some(job) = self.jobs.get_mut(&id) else { return };
        if job.take_unsaid().is_none() {
            return;
        }
        if let Some((peer, exchange)) = job.from().map(|from| (from.peer, from.exchange)) {
            self.outbox(peer).acks.push(exchange);
        }
    }

    /// With each sync: an Ack is given if the next node has given its own, the answer is late, or it has waited for half
    /// of grace and margin. Upstream waits for the rest of them as well, a heartbeat and the round trip. By itself,
    /// at once, it would cost as much as the answer, which comes before in most cases.
    pub(crate) fn give_ack_in_time(&mut self, peer: NodeKey, id: RequestId) {
        let Some(job) = self.jobs.get(&id) else { return };
        let (Some(since), Some(from)) = (job.unsaid(), job.from()) else { return };
        let is_late = from.clock.deadline <= self.now;
        let (beat, _) = self.rhythm(peer);
        let spare = self.borne_ms(peer).saturating_sub(beat) / 2;
        if job.is_acked() || is_late || self.now.since_ms(since) > spare {
            self.give_ack(id);
        }
    }
}
