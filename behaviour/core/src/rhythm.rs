//! How often the two ends of an edge sync (protocol section 5), while each sees the channels between them
//! on chain in its own time: this node keeps to the shortest heartbeat that the peer may expect, and holds
//! the peer to the shortest that it is known to have seen.

use por_types::{NodeKey, Terms};

use crate::api::Time;
use crate::ledger::Channel;
use crate::node::Node;

/// Where a peer's terms are not known.
const HEARTBEAT_MS: u64 = 1_000;

impl Node {
    /// Heartbeat and grace that the peer is held to: the shortest of its channels', as far as it has said that
    /// it sees them, if it has said so of any.
    pub(crate) fn rhythm(&self, peer: NodeKey) -> (u64, u64) {
        let there = |channel: &Channel| channel.info.as_ref().is_some_and(|info| !info.gone);
        let says = self.channels_with(peer).any(|(_, channel)| there(channel) && channel.heard.is_some());
        let channels = self.channels_with(peer).map(|(_, channel)| channel);
        let known = channels.filter(|channel| there(channel) && (channel.heard.is_some() || !says));
        let terms = known.filter_map(|channel| Some(&channel.info.as_ref()?.terms));
        let shortest = |(beat, grace): (u32, u32), terms: &Terms| {
            (beat.min(terms.heartbeat_ms), grace.max(terms.grace_ms))
        };
        let (beat, grace) = terms.fold((u32::MAX, 0), shortest);
        (beat_ms(beat), u64::from(grace))
    }

    /// For how long the peer may be silent: heartbeat, grace and the margin, milliseconds.
    pub(crate) fn borne_ms(&self, peer: NodeKey) -> u64 {
        let (beat, grace) = self.rhythm(peer);
        beat.saturating_add(grace).saturating_add(self.config.policy.margin_ms)
    }

    /// The heartbeat that this node keeps to: also of channels that have left the graph, which the peer may
    /// still see there.
    pub(crate) fn own_beat_ms(&self, peer: NodeKey) -> u64 {
        let infos = self.channels_with(peer).filter_map(|(_, channel)| channel.info.as_ref());
        beat_ms(infos.map(|info| info.terms.heartbeat_ms).min().unwrap_or(u32::MAX))
    }

    /// When this node syncs next.
    pub(crate) fn next_beat(&self, peer: NodeKey) -> Time {
        Time(next_in_phase(self.now.0, self.phase(peer), self.own_beat_ms(peer)))
    }

    fn phase(&self, peer: NodeKey) -> u64 {
        if let Some(phase) = self.config.policy.phases.get(&peer) {
            return *phase;
        }
        let hash = blake3::keyed_hash(&self.config.seed, &peer.0);
        let mut phase = [0; 8];
        phase.copy_from_slice(&hash.as_bytes()[..8]);
        u64::from_be_bytes(phase) >> 8
    }
}

/// `u32::MAX`: no terms are known.
fn beat_ms(shortest: u32) -> u64 {
    if shortest == u32::MAX { HEARTBEAT_MS } else { u64::from(shortest.max(1)) }
}

/// The first time after `now` that is `phase` modulo `period`.
fn next_in_phase(now: u64, phase: u64, period: u64) -> u64 {
    let (now_in, phase) = (now % period, phase % period);
    let ahead = if phase > now_in { phase - now_in } else { phase + period - now_in };
    now.saturating_add(ahead)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_fall_into_their_phase() {
        assert_eq!(next_in_phase(0, 600, 1000), 600);
        assert_eq!(next_in_phase(600, 600, 1000), 1600);
        assert_eq!(next_in_phase(10_601, 600, 1000), 11_600);
        assert_eq!(next_in_phase(999, 0, 500), 1000);
        assert_eq!(next_in_phase(1000, 2_500, 500), 1500);
    }
}
