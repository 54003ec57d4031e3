//! What a node keeps.

use crate::ledger::Load;
use crate::node::Node;

impl Node {
    /// Channels that peers have said to see.
    pub fn remembered_channels(&self) -> usize {
        self.edges.values().map(|edge| edge.seen.len()).sum()
    }

    /// What a node at rest must not keep.
    pub fn leaks(&self) -> Vec<String> {
        let mut leaks = Vec::new();
        for (peer, edge) in &self.edges {
            if edge.reserved != 0 || !edge.bulk.is_empty() || !edge.asked.is_empty() || !edge.owed.is_empty()
            {
                let (asked, owed) = (edge.asked.len(), edge.owed.len());
                leaks.push(format!("edge {peer}: {} bytes, {asked} asked, {owed} owed", edge.reserved));
            }
        }
        let open =
            [self.local as usize, self.due.len(), self.queues.len(), self.syncing.len(), self.jobs.len()];
        if open.iter().any(|count| *count != 0) {
            leaks.push(format!("local, due, queues, syncing, jobs: {open:?}"));
        }
        for (id, channel) in &self.channels {
            if channel.outgoing != Load::default() || !channel.relayed.is_empty() {
                leaks.push(format!("{id}: {:?} unanswered, {:?}", channel.outgoing, channel.relayed));
            }
        }
        for (id, job) in self.jobs.iter() {
            leaks.push(format!("{id}: from {:?} to {:?}", job.from(), job.to()));
        }
        leaks
    }
}
