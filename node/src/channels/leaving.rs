//! Own channels that are said to have left the graph.
//!
//! The protocol signs orders to sever for what was under way over them, which cannot be taken back. So if the
//! endpoints at the head of the chain are not of one mind, the channel stays for now, and the operator is told.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use por_core::{ChannelSnapshot, MyChannel};
use por_types::ChannelId;
use por_types::interface::ChannelStatus;

use super::questions::{Answer, Questions};
use crate::chain::{Chain, Shown};

/// Between two times that the endpoints are asked of the same channel.
const INTERVAL: Duration = Duration::from_secs(2);

/// What is doubted.
#[derive(Default)]
pub(super) struct Leaving {
    pub(super) questions: Questions,
    /// When the endpoints were asked last.
    doubted: HashMap<ChannelId, Instant>,
    /// These have left for sure.
    left: HashSet<ChannelId>,
}

impl Leaving {
    /// Puts back into `mine` what has not left for sure, as the protocol was `told` of it last. False if that
    /// is not possible as it was told of nothing yet: then it is not to be told now.
    pub(super) fn check(
        &mut self,
        chain: &Chain,
        mine: &mut Vec<MyChannel>,
        told: Option<&[MyChannel]>,
        ledger: &HashMap<ChannelId, ChannelSnapshot>,
    ) -> bool {
        if chain.is_alone() {
            return true;
        }
        let here: HashSet<ChannelId> =
            mine.iter().filter(|info| !info.gone).map(|info| info.channel).collect();
        let before: Vec<ChannelId> = match told {
            Some(told) => told.iter().filter(|info| !info.gone).map(|info| info.channel).collect(),
            None => ledger.values().filter(|row| row.unfinished > 0).map(|row| row.channel).collect(),
        };
        let leaving: Vec<ChannelId> = before.into_iter().filter(|channel| !here.contains(channel)).collect();
        self.doubted.retain(|channel, _| leaving.contains(channel));
        self.left.retain(|channel| leaving.contains(channel));
        let in_doubt: Vec<ChannelId> =
            leaving.into_iter().filter(|channel| !self.left.contains(channel)).collect();
        let lately = |id: &&ChannelId| self.doubted.get(id).is_none_or(|asked| asked.elapsed() >= INTERVAL);
        self.questions.ask(chain, in_doubt.iter().filter(lately).copied());
        for channel in in_doubt {
            let Some(told) = told else { return false };
            mine.retain(|info| info.channel != channel);
            mine.extend(told.iter().find(|info| info.channel == channel).cloned());
        }
        mine.sort_by_key(|info| info.channel);
        true
    }

    /// What the endpoints have said.
    pub(super) fn take(&mut self, answer: &Answer) {
        for id in &answer.asked {
            let (shown, gone): (Vec<bool>, Vec<bool>) =
                answer.shown.iter().map(|shown| is_there(*id, shown)).partition(|there| *there);
            if !shown.is_empty() && shown.len() >= gone.len() {
                self.left.remove(id);
                if self.doubted.insert(*id, Instant::now()).is_none() {
                    tracing::error!(channel = %id, "some endpoint says that the channel has left the graph, and others do not");
                }
            } else {
                self.left.insert(*id);
                if self.doubted.remove(id).is_some() {
                    tracing::info!(channel = %id, "the endpoints say that the channel has left the graph");
                }
            }
        }
    }
}

/// The endpoint shows the channel as part of the graph, or proposed.
fn is_there(id: ChannelId, shown: &Shown) -> bool {
    use ChannelStatus::{Closing, Open, Proposed};
    let status = shown.channels.get(&id).map(|view| &view.status);
    matches!(status, Some(Proposed | Open | Closing { .. }))
}
