//! Cooperative closes, as hosts carry them out beside the core (protocol sections 3 and 6): who wants one takes
//! nothing new, and states the totals once nothing is unfinished; the other end confirms what takes nothing from it,
//! or states what is right. In the window that follows a later payment may be shown.

use por_types::{ChannelId, Side, Totals};

use super::{Happening, World};
use crate::api::ChannelSnapshot;

/// How often hosts look at a close.
const LOOK_MS: u64 = 100;
/// From the confirmation until it takes effect: what had been taken on before comes to its end meanwhile.
const WINDOW_MS: u64 = 15_000;

/// How far a close is.
#[derive(Clone, Debug, Default)]
pub struct Close {
    /// Who wants it.
    asker: usize,
    /// The totals stated last, and by which side.
    stated: Option<(Side, Totals)>,
    /// When the other end has confirmed them.
    confirmed_ms: Option<u64>,
    /// What the channel was paid out by.
    pub paid_out: Option<Totals>,
}

impl World {
    /// A host wants a channel closed.
    pub fn close(&mut self, channel: ChannelId, asker: usize) {
        if self.closes.contains_key(&channel) {
            return;
        }
        self.closes.insert(channel, Close { asker, ..Close::default() });
        self.winds_down(asker, channel);
        self.at(LOOK_MS, Happening::Closing { channel });
    }

    pub(super) fn close_on(&mut self, channel: ChannelId) {
        if self.severed.contains_key(&channel) {
            return;
        }
        let Some(mut close) = self.closes.get(&channel).cloned() else { return };
        match (close.stated, close.confirmed_ms) {
            (None, _) => {
                close.stated = self.settled(channel, close.asker).map(|own| (own.side, own.totals));
                if close.stated.is_some() {
                    self.is_announced(channel);
                }
            }
            (Some((by, stated)), None) => self.answer(channel, &mut close, by, stated),
            (Some((_, stated)), Some(since)) => {
                let mut totals = stated;
                for own in self.ends(channel).into_iter().filter_map(|host| self.snapshot(channel, host)) {
                    let other = own.side.other();
                    let shown = own.their_payment.map_or(totals, |payment| payment.statement.totals);
                    totals.set(other, totals.sent_by(other).max(shown.sent_by(other)));
                }
                close.stated = close.stated.map(|(by, _)| (by, totals));
                if self.now >= since + WINDOW_MS {
                    close.paid_out = Some(totals);
                    self.takes_effect(channel);
                }
            }
        }
        if close.paid_out.is_none() {
            self.at(LOOK_MS, Happening::Closing { channel });
        }
        self.closes.insert(channel, close);
    }

    /// Each end that knows of the close and has nothing unfinished says what it thinks of the totals stated last.
    fn answer(&mut self, channel: ChannelId, close: &mut Close, by: Side, stated: Totals) {
        for host in self.ends(channel) {
            let Some(ChannelSnapshot { side, totals: right, .. }) = self.settled(channel, host) else {
                continue;
            };
            if side == by {
                if stated != right {
                    close.stated = Some((side, right));
                    return;
                }
                continue;
            }
            let is_fair =
                stated.sent_by(by) >= right.sent_by(by) && stated.sent_by(side) <= right.sent_by(side);
            if is_fair {
                close.confirmed_ms = Some(self.now);
            } else {
                close.stated = Some((side, right));
            }
            return;
        }
    }

    fn ends(&self, channel: ChannelId) -> Vec<usize> {
        let edge = self.edges.iter().find(|edge| edge.channel == channel);
        edge.map(|edge| vec![edge.a, edge.b]).unwrap_or_default()
    }

    fn snapshot(&self, channel: ChannelId, host: usize) -> Option<ChannelSnapshot> {
        self.hosts[host].node.as_ref()?.channel(channel)
    }

    /// A host's books, if it knows of the close and nothing over the channel is unfinished.
    fn settled(&self, channel: ChannelId, host: usize) -> Option<ChannelSnapshot> {
        let winds_down = self.is_winding_down(host, channel);
        self.snapshot(channel, host).filter(|own| winds_down && own.unfinished == 0)
    }
}
