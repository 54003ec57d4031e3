//! What the views of the contract must answer.

use por_types::interface::{BooksView, ChannelView, DowntimeView, NodeView};
use por_types::{ChannelId, Totals, Yocto};

use super::{Model, Op, PURSE_STORAGE, REMEMBERED};

impl Model {
    pub fn node_view(&self, index: usize) -> NodeView {
        let node = &self.nodes[index];
        NodeView {
            index: node.index,
            account: node.account.clone(),
            node_key: node.key,
            stake: Yocto(self.stake_seen(index)),
            active_stake: Yocto(node.active),
            locked: Yocto(self.locked(index)),
            // Shown as asked for; it takes effect on what is left then.
            unstaking: Yocto(node.withdrawing_sum() + self.waiting_sums(index).1),
            attached: node.attached_ms.is_some(),
            attached_since_ms: node.attached_ms,
        }
    }

    /// `None` also for one that never opened once a node of it has left.
    pub fn channel_view(&self, id: ChannelId) -> Option<ChannelView> {
        let channel = self.channels.get(&id)?;
        let [a, b] = channel.ends.map(|end| &self.nodes[end]);
        if a.gone || b.gone {
            return None;
        }
        Some(ChannelView {
            channel: id,
            a: a.account.clone(),
            b: b.account.clone(),
            key_a: a.key,
            key_b: b.key,
            deposit_a: Yocto(channel.deposits[0]),
            deposit_b: Yocto(channel.deposits[1]),
            drawn_a: Yocto(channel.drawn[0]),
            drawn_b: Yocto(channel.drawn[1]),
            bond: Yocto(channel.bond),
            totals: Totals { sent_a: Yocto(channel.totals[0]), sent_b: Yocto(channel.totals[1]) },
            terms: channel.terms.clone(),
            sequence: channel.sequence,
            status: channel.status.clone(),
        })
    }

    /// The books. What is due to be paid out may stand as stake or as withdrawable; the model has
    /// already moved it.
    pub fn books(&self) -> BooksView {
        let mut bonds = [0, 0];
        let mut deposits = 0;
        for channel in self.channels.values() {
            let (held, forfeited) = channel.bonds();
            bonds[usize::from(forfeited)] += held * channel.bond;
            deposits += if channel.holds_pot() { channel.pot() } else { 0 };
        }
        let waiting = self.waiting.iter().map(|(_, op)| match op {
            Op::Stake { amount, .. } => *amount,
            _ => 0,
        });
        let stakes = self.nodes.iter().map(|node| node.chargeable()).sum::<u128>() + waiting.sum::<u128>();
        let purses: u128 = self.purses.values().sum();
        let records = self.purses.len() as u128 * PURSE_STORAGE;
        let withdrawable = self.nodes.iter().map(|node| node.owed).sum::<u128>() + purses - records;
        let storage = self.storage + self.pool + records;
        let parts = [storage, deposits, stakes, bonds[0], bonds[1], self.treasury, withdrawable];
        BooksView {
            balance: Yocto(parts.iter().sum()),
            storage: Yocto(storage),
            deposits: Yocto(deposits),
            stakes: Yocto(stakes),
            bonds: Yocto(bonds[0]),
            escrow: Yocto(bonds[1]),
            treasury: Yocto(self.treasury),
            withdrawable: Yocto(withdrawable),
            surplus: Yocto::ZERO,
        }
    }

    /// How long a node was not attached in a span that does not reach beyond now.
    pub fn downtime(&self, index: usize, from_ms: u64, to_ms: u64) -> DowntimeView {
        let node = &self.nodes[index];
        let within = |(since, until): (u64, u64)| until.min(to_ms).saturating_sub(since.max(from_ms));
        let known = node.past.len().saturating_sub(REMEMBERED);
        // What has been forgotten counts as attached.
        let forgotten = if known == 0 { 0 } else { node.past[known - 1].1 };
        let mut attached = within((0, forgotten));
        attached += node.past[known..].iter().copied().map(within).sum::<u64>();
        attached += node.attached_ms.map_or(0, |since| within((since, to_ms)));
        DowntimeView {
            downtime_ms: to_ms - from_ms - attached,
            complete: forgotten <= from_ms,
            final_until_ms: self.clock_ms(),
        }
    }
}
