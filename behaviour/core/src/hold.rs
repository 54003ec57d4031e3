//! What is kept for an upstream node, and for how long: who cannot be reached or does not take an
//! answer is in breach at last (protocol section 5).

use por_types::{ChannelId, NodeKey, RequestId, SeverReason, Terms};

use crate::api::{Event, Table};
use crate::guarantee::SELF_DOUBT;
use crate::job::{Job, Role};
use crate::node::Node;
use crate::rows;
use crate::verified::encoded_len;
use crate::wire::MIN_FRAME;

/// Every node gives credit in steps of at least half the smallest window, bytes.
const STEP: u64 = MIN_FRAME as u64 / 2;

/// That a breach is not acted on is told this often at most, for each peer.
const WITHHELD_TOLD_MS: u64 = 60_000;

impl Node {
    /// Something is kept until the peer has it.
    pub(crate) fn keeps_for(&self, peer: NodeKey) -> bool {
        let mut owed = self.edges.get(&peer).into_iter().flat_map(|edge| edge.owed.values());
        self.channels_with(peer).any(|(_, channel)| channel.incoming.requests > 0)
            || owed.any(|id| self.jobs.get(id).is_some_and(is_kept))
    }

    /// A look at an upstream peer, with each sync.
    pub(crate) fn watch_upstream(&mut self, peer: NodeKey) {
        if !self.judges() {
            return;
        }
        let now = self.now;
        let (limit, (beat, _)) = (self.borne_ms(peer), self.rhythm(peer));
        let edge = self.edge(peer);
        let (connected, away_ms) = (edge.open().is_some(), edge.away.total_ms(now));
        let owed: Vec<RequestId> = edge.owed.values().copied().collect();
        let (mut unreachable, mut untaken) = (Vec::new(), Vec::new());
        for id in owed {
            self.sample(id, false);
            let Some(job) = self.jobs.get(&id).filter(|job| is_kept(job)) else { continue };
            let waits_ms = job.pace.waits_ms;
            if !connected && away_ms.saturating_sub(job.pace.away_ms) > limit {
                unreachable.push(id);
            } else if waits_ms > limit && self.taken_within_ms(id).is_some_and(|bound| waits_ms > bound) {
                untaken.push(id);
            }
            if waits_ms >= beat || !connected {
                // Who waits further down is not held up by this edge.
                self.keep_answer(id);
                self.note_wait(id, beat);
            }
        }
        if !unreachable.is_empty() {
            self.accuse(peer, SeverReason::MissedSync, &unreachable);
        } else if !untaken.is_empty() {
            self.accuse(peer, SeverReason::NoAck, &untaken);
        }
    }

    /// An answer that only passes cannot be kept, and the node after this one waits as well: it goes on counting
    /// when this process starts anew, and so does that.
    fn note_wait(&mut self, id: RequestId, beat_ms: u64) {
        let Some(job) = self.jobs.get_mut(&id).filter(|job| matches!(job.role, Role::Relay(_))) else {
            return;
        };
        let (waits_ms, noted_ms) = (job.pace.waits_ms, &mut job.pace.noted_ms);
        if waits_ms.saturating_sub(*noted_ms) >= beat_ms {
            *noted_ms = waits_ms;
            self.store.put_lazily(Table::Exchanges, rows::waits_key(&id), rows::encode(&waits_ms, 9));
        }
    }

    /// How long an outcome may wait for upstream, all in all, milliseconds: what the edges up to the
    /// author may take in turn, each with the time in which its absence or a missing credit is noticed
    /// and the round trips of as many credits as the body takes. Grows with every edge by more than the
    /// node before bears, so that who is at fault is found by its own neighbour.
    fn taken_within_ms(&mut self, id: RequestId) -> Option<u64> {
        let job = self.jobs.get_mut(&id)?;
        let len = job.reply().map_or(0, |(receipt, _)| receipt.receipt.body_len);
        let job = self.jobs.get(&id)?;
        let from = job.from()?;
        let steps = encoded_len(len).div_ceil(STEP).saturating_add(1);
        let own = &self.channels.get(&from.channel)?.info.as_ref()?.terms;
        let hops = job.head.route.iter().take(usize::from(from.hop) + 1);
        let margin = self.config.policy.margin_ms;
        let each = hops.map(|hop| {
            let terms: &Terms = self.graph.terms(hop.channel).unwrap_or(own);
            let most = terms.allowance_ms(terms.max_bytes, 0).min(hop.allowance_ms);
            let trips = steps.saturating_mul(u64::from(terms.rtt_ms));
            let noticed = u64::from(terms.heartbeat_ms) + u64::from(terms.grace_ms);
            let noticed = noticed.saturating_add(margin).saturating_mul(2);
            most.saturating_add(trips).saturating_add(noticed)
        });
        Some(each.fold(0, u64::saturating_add))
    }

    /// An upstream peer is in breach for these requests.
    fn accuse(&mut self, peer: NodeKey, reason: SeverReason, requests: &[RequestId]) {
        if !self.config.policy.act_on_breach {
            return;
        }
        let leg = |id: &RequestId| Some((self.jobs.get(id)?.from()?.channel, *id));
        let mut channels: Vec<(ChannelId, RequestId)> = requests.iter().filter_map(leg).collect();
        channels.sort_unstable();
        channels.dedup_by_key(|(channel, _)| *channel);
        if self.is_cut_off(peer) || !self.may_sever(peer) {
            return self.withhold(peer, reason);
        }
        for (channel, request) in channels {
            self.sever(channel, reason, Some(request));
        }
    }

    /// A breach is found again with each heartbeat.
    pub(crate) fn withhold(&mut self, peer: NodeKey, reason: SeverReason) {
        let now = self.now;
        let told = &mut self.edge(peer).withheld;
        if told.is_none_or(|(time, before)| before != reason || now.since_ms(time) >= WITHHELD_TOLD_MS) {
            *told = Some((now, reason));
            self.notify(Event::SeverWithheld { peer, reason });
        }
    }

    /// Nobody is connected, or this process has not met the peer yet: the fault is likely here. Nobody
    /// can hide behind that for long.
    fn is_cut_off(&self, peer: NodeKey) -> bool {
        let limit = self.borne_ms(peer);
        let Some(edge) = self.edges.get(&peer) else { return true };
        if edge.open().is_some() || edge.away.total_ms(self.now) > limit.saturating_mul(SELF_DOUBT) {
            return false;
        }
        edge.rtt_ms.is_none() || self.edges.values().all(|edge| edge.open().is_none())
    }
}

/// The peer has something to wait for; a refund is in the totals whether it knows or not.
fn is_kept(job: &Job) -> bool {
    !matches!(job.role, Role::Rejected { .. })
}
