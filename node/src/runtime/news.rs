//! What happens to the guarantee at this node (protocol sections 5 and 6): counted for the status, and
//! the latest of it kept for who wants to follow it.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use por_core::Event;
use por_types::{RequestId, Yocto};
use tokio::sync::watch;

use super::{Daemon, other};
use crate::chain::now_ms;
use crate::client::{ClientError, Happening, News, What};

/// Happenings kept; older ones are forgotten.
const KEPT: usize = 1024;
/// Requests of this node whose price is remembered until their outcome. More than the protocol has
/// under way; above it prices of new ones are not told.
const PRICES: usize = 16_384;

/// The latest happenings, oldest first.
#[derive(Debug, Default)]
struct Ring {
    next: u64,
    kept: VecDeque<Happening>,
}

impl Ring {
    fn push(&mut self, at_ms: u64, what: What) {
        if self.kept.len() >= KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Happening { number: self.next, at_ms, what });
        self.next += 1;
    }

    fn since(&self, number: u64) -> News {
        let happenings = self.kept.iter().filter(|it| it.number >= number).cloned().collect();
        News { next: self.next, happenings }
    }
}

/// [`Ring`], shared by those who tell, and those who ask or wait.
#[derive(Debug, Default)]
pub(crate) struct Bulletin(watch::Sender<Ring>);

impl Bulletin {
    pub(crate) fn push(&self, what: What) {
        self.0.send_modify(|ring| ring.push(now_ms(), what));
    }

    /// Those with at least this number, oldest first.
    pub(crate) fn since(&self, number: u64) -> News {
        self.0.borrow().since(number)
    }

    /// Waits until there is one with this number, or it is clear that the number is of another life of the daemon;
    /// at most as long.
    pub(crate) async fn there_is(&self, number: u64, longest: Duration) {
        let mut ring = self.0.subscribe();
        let told = ring.wait_for(|ring| ring.next != number);
        // The sender lives as long as this.
        let _ = tokio::time::timeout(longest, told).await;
    }
}

/// Runs for ever.
pub(super) async fn follow(daemon: Arc<Daemon>) -> Result<(), ClientError> {
    let mut prices = HashMap::new();
    let mut again = false;
    loop {
        let mut events =
            daemon.control.events().await.map_err(|_| other("the protocol driver has stopped"))?;
        // Only now: the events also end when the node stops.
        if std::mem::replace(&mut again, true) {
            tracing::warn!("some events were not counted: the daemon was too busy");
        }
        while let Some(event) = events.next().await {
            count(&daemon, &event);
            if let Some(what) = tell(event, &mut prices) {
                daemon.news.push(what);
            }
        }
        prices.clear();
    }
}

fn count(daemon: &Daemon, event: &Event) {
    let add = |sum: &mut Yocto, amount: Yocto| *sum = sum.checked_add(amount).unwrap_or(*sum);
    let mut traffic = daemon.traffic.lock();
    match event {
        Event::Relayed { earned, .. } => {
            traffic.relayed += 1;
            add(&mut traffic.earned_relaying, *earned);
        }
        Event::Served { earned, .. } => {
            traffic.served += 1;
            add(&mut traffic.earned_serving, *earned);
        }
        Event::PaidLate { amount, .. } => add(&mut traffic.paid_late, *amount),
        Event::Late { amount, .. } => add(&mut traffic.got_late, *amount),
        Event::EdgeSevered { .. } => traffic.severed += 1,
        _ => {}
    }
}

fn tell(event: Event, prices: &mut HashMap<RequestId, Yocto>) -> Option<What> {
    match event {
        Event::Started { request, price, .. } => {
            if prices.len() < PRICES {
                prices.insert(request, price);
            }
            None
        }
        Event::Response { request, .. } | Event::Rejected { request, .. } => {
            prices.remove(&request);
            None
        }
        Event::Severed { request, order, refund, late } => {
            let price = prices.remove(&request);
            let por_types::SeverOrder { channel, signer, reason, .. } = order.statement;
            Some(What::Proof { request, channel, signer, reason, price, refund, late })
        }
        Event::Overdue { request } => Some(What::Overdue { request }),
        Event::Late { request, amount } => Some(What::Late { request, amount }),
        Event::PaidLate { peer, amount } => Some(What::PaidLate { peer, amount }),
        Event::EdgeSevered { channel, peer, reason } => Some(What::Severed { channel, peer, reason }),
        Event::SeverWithheld { peer, reason } => Some(What::Withheld { peer, reason }),
        Event::Short { channel, peer } => Some(What::Short { channel, peer }),
        Event::Pursued { channel, peer, request, end } => Some(What::Pursued { channel, peer, request, end }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use por_types::NodeKey;

    use super::*;

    #[test]
    fn the_latest_are_kept_in_order() {
        let mut ring = Ring::default();
        let late = |n: u64| What::PaidLate { peer: NodeKey([0; 32]), amount: Yocto(n.into()) };
        for n in 0..(KEPT as u64 + 10) {
            ring.push(n, late(n));
        }
        let all = ring.since(0);
        assert_eq!((all.happenings.len(), all.next), (KEPT, KEPT as u64 + 10));
        assert_eq!((all.happenings[0].number, all.happenings[0].at_ms), (10, 10));
        let last = ring.since(KEPT as u64 + 9).happenings;
        assert_eq!(last.len(), 1);
        assert_eq!(last[0].what, late(KEPT as u64 + 9));
        assert!(ring.since(all.next).happenings.is_empty());
    }

    /// One that waits from a number of an earlier life learns at once that it is one.
    #[tokio::test]
    async fn who_waits_is_told_of_the_next() {
        let bulletin = Bulletin::default();
        let long = Duration::from_secs(3600);
        bulletin.there_is(0, Duration::from_millis(1)).await;
        assert_eq!(bulletin.since(0).happenings, []);
        {
            let waiting = bulletin.there_is(0, long);
            tokio::pin!(waiting);
            assert!(futures::poll!(waiting.as_mut()).is_pending());
            bulletin.push(What::Overdue { request: RequestId([1; 32]) });
            waiting.await;
        }
        assert_eq!(bulletin.since(0).happenings.len(), 1);
        bulletin.there_is(0, long).await;
        bulletin.there_is(7, long).await;
        assert_eq!(bulletin.since(7), News { next: 1, happenings: Vec::new() });
    }
}
