//! Time in which this node heard nobody, because its disk hung or its process stood still: what others said
//! meanwhile waits to be read. Nobody is blamed for that time; what this node owes for it, it pays.

use por_types::RequestId;

use crate::api::{Patience, Time};
use crate::job::Role;
use crate::node::Node;

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
}
