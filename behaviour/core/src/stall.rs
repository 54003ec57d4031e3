//! Time in which this node heard nobody, because its disk hung or its process stood still, or because it had no
//! connection: what others said meanwhile waits to be read. Nobody is blamed for that time, nor for any before the
//! chain is read; what this node owes for it, it pays.

use por_types::{ChannelId, NodeKey, RequestId};

use crate::api::{Patience, Time};
use crate::job::Role;
use crate::node::Node;
use crate::wire::Frame;

impl Node {
    /// From `since` until now nothing was taken in.
    pub(crate) fn on_stalled(&mut self, since: Time) {
        let now = self.now;
        // What is measured from the start of this process begins anew.
        self.started = Some(now);
        for job in self.jobs.values_mut() {
            job.pace.skip(now);
        }
        for edge in self.edges.values_mut() {
            edge.heard = now;
            edge.away.skip(since, now);
            // Patience is counted in syncs after which a word would have been read.
            edge.extra = true;
        }
        let later = now.after_ms(self.config.policy.margin_ms);
        if matches!(self.config.policy.patience, Patience::AfterMs(_)) {
            let due = self.due.iter().take_while(|(time, _)| *time <= now).copied();
            let relayed =
                |id: &RequestId| self.jobs.get(id).is_some_and(|job| matches!(job.role, Role::Relay(_)));
            let due: Vec<_> = due.filter(|(_, id)| relayed(id)).collect();
            for (time, id) in due {
                self.due.remove(&(time, id));
                self.due.insert((later, id));
            }
        }
        let syncing = std::mem::take(&mut self.syncing);
        self.syncing =
            syncing.into_iter().map(|(time, peer, epoch)| (time.max(later), peer, epoch)).collect();
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
            self.excused = Some(self.now);
            self.on_stalled(since);
        }
    }

    /// The chain is read for the first time. Until then nobody was judged, as neither terms nor channels were
    /// known; from now on time counts.
    pub(crate) fn chain_read(&mut self) {
        let first = !std::mem::replace(&mut self.knows_chain, true);
        if let Some(started) = self.started.filter(|started| first && *started < self.now) {
            self.on_stalled(started);
        }
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
