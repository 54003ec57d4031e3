//! What this node reads from the chain of its own channels.

use std::collections::BTreeSet;

use por_types::{ChannelId, NodeKey};

use crate::api::MyChannel;
use crate::ledger::Channel;
use crate::node::Node;

impl Node {
    pub(crate) fn on_channels(&mut self, channels: Vec<MyChannel>) {
        let mut ahead = self.chain_read();
        let listed: BTreeSet<ChannelId> = channels.iter().map(|info| info.channel).collect();
        let mut gone: Vec<ChannelId> =
            channels.iter().filter(|info| info.gone).map(|info| info.channel).collect();
        for (id, channel) in &mut self.channels {
            if !listed.contains(id) {
                if let Some(info) = &mut channel.info {
                    (info.open, info.gone) = (false, true);
                }
                // Perhaps it was gone before this process started.
                gone.push(*id);
            }
        }
        let mut told = BTreeSet::new();
        for info in channels {
            let id = info.channel;
            self.with_peer.entry(info.peer).or_default().insert(id);
            if self.edges.get(&info.peer).is_some_and(|edge| edge.unheard.contains(&id)) {
                ahead.insert(info.peer);
            }
            let peer = info.peer;
            let new = || Channel::new(id, peer, info.side);
            let channel = self.channels.entry(id).or_insert_with(new);
            if channel.row.peer != peer || channel.row.side != info.side {
                continue;
            }
            let news =
                channel.info.as_ref().is_none_or(|before| before.deposit_theirs != info.deposit_theirs);
            if let Some(edge) = self.edges.get(&peer) {
                channel.heard = channel.heard.or_else(|| edge.seen.get(&id).copied());
                if news && edge.out.conn().is_some() {
                    told.insert(peer);
                }
            }
            if channel.set_info(info) {
                self.dirty_channels.insert(id);
            }
        }
        self.keep_rhythm();
        for id in gone {
            self.left_graph(id);
        }
        self.report_orders();
        for peer in told {
            self.outbox(peer).seen = true;
        }
        for peer in ahead {
            self.hear_again(peer);
        }
    }

    /// A peer of whom something was left because this node had not read the chain so far says all that is
    /// unfinished once more when it connects again.
    fn hear_again(&mut self, peer: NodeKey) {
        self.edge(peer).unheard.clear();
        self.disconnect(peer);
    }
}
