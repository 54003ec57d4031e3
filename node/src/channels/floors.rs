//! Totals that the chain is said to know, and the ledger does not.
//!
//! The ledger is raised to what is proven on chain, closes are stated and payments signed by it, and that cannot be
//! taken back. It happens to a node that has lost its own; to all others only if an endpoint lies. So it takes more
//! than half of the endpoints at the head of the chain, where there are several.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use por_core::ChannelSnapshot;
use por_types::interface::ChannelView;
use por_types::{ChannelId, Totals};

use super::questions::{Answer, Questions};
use crate::chain::{Chain, agree_on_totals};
use crate::graph::is_over;

/// Between two times that the endpoints are asked of the same channel.
const INTERVAL: Duration = Duration::from_secs(2);

type Ledger = HashMap<ChannelId, ChannelSnapshot>;

#[derive(Default)]
pub(super) struct Floors {
    pub(super) questions: Questions,
    /// What is asked, as an endpoint has said it last.
    said: HashMap<ChannelId, Totals>,
    /// What the endpoints agree on.
    proven: HashMap<ChannelId, Totals>,
    /// When they were asked last of what they do not agree on.
    doubted: HashMap<ChannelId, Instant>,
}

impl Floors {
    /// Lowers what is not borne out to what the ledger knows.
    pub(super) fn check(&mut self, chain: &Chain, views: &mut [ChannelView], ledger: &Ledger) {
        if chain.is_alone() {
            return;
        }
        let is_new = |view: &&ChannelView| !is_over(&view.status) && !self.is_borne_out(view, ledger);
        self.said = views.iter().filter(is_new).map(|view| (view.channel, view.totals)).collect();
        self.doubted.retain(|id, _| self.said.contains_key(id));
        let due = |id: &&ChannelId| self.doubted.get(id).is_none_or(|asked| asked.elapsed() >= INTERVAL);
        self.questions.ask(chain, self.said.keys().filter(due).copied());
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

    /// What the endpoints have said.
    pub(super) fn take(&mut self, answer: &Answer) {
        for id in &answer.asked {
            let Some(totals) = self.said.get(id) else { continue };
            if agree_on_totals(*id, *totals, &answer.shown) {
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
