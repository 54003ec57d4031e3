//! Totals that the chain is said to know, and the ledger does not.
//!
//! The ledger is raised to what is proven on chain, closes are stated and payments signed by it, and that cannot be
//! taken back. It happens to a node that has lost its own; to all others only if an endpoint lies. So it takes more
//! than half of the endpoints at the head of the chain, where there are several.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use por_core::ChannelSnapshot;
use por_types::interface::ChannelView;
use por_types::{ChannelId, Totals};

use crate::chain::{Chain, agree_on_totals, pages};
use crate::graph::is_over;

/// Between two times that the endpoints are asked of the same channel.
const INTERVAL: Duration = Duration::from_secs(2);
/// Questions at the same time.
const AT_ONCE: usize = 4;

type Ledger = HashMap<ChannelId, ChannelSnapshot>;

#[derive(Default)]
pub(super) struct Floors {
    /// What the endpoints agree on.
    proven: HashMap<ChannelId, Totals>,
    /// When they were asked last of what they do not agree on.
    doubted: HashMap<ChannelId, Instant>,
}

impl Floors {
    /// Lowers what is not borne out to what the ledger knows.
    pub(super) async fn check(&mut self, chain: &Chain, views: &mut [ChannelView], ledger: &Ledger) {
        if chain.is_alone() {
            return;
        }
        let new: Vec<(ChannelId, Totals)> = views
            .iter()
            .filter(|view| !is_over(&view.status) && !self.is_borne_out(view, ledger))
            .map(|view| (view.channel, view.totals))
            .collect();
        self.doubted.retain(|id, _| new.iter().any(|(new, _)| new == id));
        self.ask(chain, &new).await;
        for view in views {
            if !self.is_borne_out(view, ledger) {
                view.totals = least(in_ledger(view.channel, ledger), view.totals);
            }
        }
    }

    fn is_borne_out(&self, view: &ChannelView, ledger: &Ledger) -> bool {
        let proven = self.proven.get(&view.channel).copied().unwrap_or_default();
        let known = in_ledger(view.channel, ledger).max(proven);
        known.max(view.totals) == known
    }

    /// Asks all endpoints of these channels, of each every few seconds.
    async fn ask(&mut self, chain: &Chain, new: &[(ChannelId, Totals)]) {
        let lately = |id: &ChannelId| self.doubted.get(id).is_some_and(|asked| asked.elapsed() < INTERVAL);
        let mut due: Vec<ChannelId> = new.iter().map(|(id, _)| *id).filter(|id| !lately(id)).collect();
        due.sort_unstable();
        let mut asked = stream::iter(pages(&due))
            .map(|page| async move { (page, chain.shown(page).await) })
            .buffer_unordered(AT_ONCE);
        while let Some(((first, len), shown)) = asked.next().await {
            let asked = |id: &ChannelId| id.0.checked_sub(first.0).is_some_and(|at| at < u64::from(len));
            for (id, totals) in new.iter().filter(|(id, _)| asked(id) && due.contains(id)) {
                if agree_on_totals(*id, *totals, &shown) {
                    self.doubted.remove(id);
                    self.proven.insert(*id, *totals);
                } else if self.doubted.insert(*id, Instant::now()).is_none() {
                    tracing::error!(
                        channel = %id,
                        "an endpoint says that the contract knows of higher totals than this node has, and others do not"
                    );
                }
            }
        }
    }
}

fn in_ledger(channel: ChannelId, ledger: &Ledger) -> Totals {
    ledger.get(&channel).map(|row| row.totals).unwrap_or_default()
}

fn least(one: Totals, other: Totals) -> Totals {
    Totals { sent_a: one.sent_a.min(other.sent_a), sent_b: one.sent_b.min(other.sent_b) }
}

/// What was known before, with totals as the ledger has them: nobody can be asked, and it knows all that has been
/// signed since.
pub(super) fn lowered(views: &[ChannelView], ledger: &Ledger) -> Vec<ChannelView> {
    let lower = |view: &ChannelView| ChannelView {
        totals: least(in_ledger(view.channel, ledger), view.totals),
        ..view.clone()
    };
    views.iter().map(lower).collect()
}
