//! Syncs that were missed, or planned before the terms were known, come sooner (protocol section 5: an
//! edge syncs every heartbeat, and missing that by more than the grace is a breach).

use por_types::NodeKey;

use crate::api::Time;
use crate::node::Node;

impl Node {
    /// The terms are known now: syncs and looks that were planned without them keep to the rhythm.
    pub(crate) fn keep_rhythm(&mut self) {
        let planned = self.edges.iter().filter(|(_, edge)| edge.beat.is_some() || edge.watch.is_some());
        let peers: Vec<NodeKey> = planned.map(|(peer, _)| *peer).collect();
        for peer in peers {
            let next = self.next_beat(peer);
            self.beat_by(peer, next);
            let (beat, _) = self.rhythm(peer);
            let look = self.now.after_ms(beat);
            let edge = self.edge(peer);
            if let Some(planned) = edge.watch.filter(|planned| *planned > look) {
                edge.watch = Some(look);
                self.watches.remove(&(planned, peer));
                self.watches.insert((look, peer));
            }
        }
    }

    /// The session is open again. A sync that fell into the time without one is made up for as soon as
    /// the peer has told of which exchanges it wants nothing more, lest absences add up to a breach.
    pub(crate) fn make_up(&mut self, peer: NodeKey) {
        if !std::mem::take(&mut self.edge(peer).missed) {
            return;
        }
        let time = self.now.after_ms(self.told_within_ms(peer).saturating_add(1));
        if self.beat_by(peer, time) {
            self.edge(peer).extra = true;
        }
    }

    /// A proof waits until the peer has told of which exchanges it wants nothing more. The sync that brings it comes
    /// right after, not a heartbeat later: in a session that ends before, lateness would go on unpaid.
    pub(crate) fn beat_once_told(&mut self, peer: NodeKey) {
        let Some(turned) = self.edges.get(&peer).filter(|edge| edge.open().is_some()).map(|edge| edge.turned)
        else {
            return;
        };
        // Before the chain is read nothing is told; with it come the terms, and the beats.
        if !self.knows_chain {
            return;
        }
        let left = self.told_within_ms(peer).saturating_add(1).saturating_sub(self.heeded_ms(turned));
        let time = self.now.after_ms(left.max(1)).max(self.reads_until);
        if self.beat_by(peer, time) {
            self.edge(peer).extra = true;
        }
    }

    /// True if the next sync was planned for later.
    fn beat_by(&mut self, peer: NodeKey, time: Time) -> bool {
        let edge = self.edge(peer);
        let Some(planned) = edge.beat.filter(|planned| *planned > time) else { return false };
        edge.beat = Some(time);
        self.beats.remove(&(planned, peer));
        self.beats.insert((time, peer));
        true
    }
}
