//! Own channels that are said to have left the graph.
//!
//! The protocol signs orders to sever for what was under way over them, which cannot be taken back. So if the
//! endpoints at the head of the chain are not of one mind, the channel stays for now, and the operator is told.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures::{StreamExt as _, stream};
use por_core::{ChannelSnapshot, MyChannel};
use por_types::ChannelId;

use crate::chain::Chain;

/// Between two times that the endpoints are asked of the same channel.
const INTERVAL: Duration = Duration::from_secs(2);
/// Channels of which the endpoints are asked at the same time.
const AT_ONCE: usize = 16;

/// What is doubted.
#[derive(Default)]
pub(super) struct Leaving {
    /// When the endpoints were asked last.
    doubted: HashMap<ChannelId, Instant>,
}

impl Leaving {
    /// Puts back into `mine` what has not left for sure, as the protocol was `told` of it last. False if that
    /// is not possible as it was told of nothing yet: then it is not to be told now.
    pub(super) async fn check(
        &mut self,
        chain: &Chain,
        mine: &mut Vec<MyChannel>,
        told: Option<&[MyChannel]>,
        ledger: &HashMap<ChannelId, ChannelSnapshot>,
    ) -> bool {
        let here: HashSet<ChannelId> =
            mine.iter().filter(|info| !info.gone).map(|info| info.channel).collect();
        let before: Vec<ChannelId> = match told {
            Some(told) => told.iter().filter(|info| !info.gone).map(|info| info.channel).collect(),
            None => ledger.values().filter(|row| row.unfinished > 0).map(|row| row.channel).collect(),
        };
        let leaving: Vec<ChannelId> = before.into_iter().filter(|channel| !here.contains(channel)).collect();
        self.doubted.retain(|channel, _| leaving.contains(channel));
        for channel in self.doubted_of(chain, leaving).await {
            let Some(told) = told else { return false };
            mine.retain(|info| info.channel != channel);
            mine.extend(told.iter().find(|info| info.channel == channel).cloned());
        }
        mine.sort_by_key(|info| info.channel);
        true
    }

    /// Those of `leaving` that some endpoints still show. They are asked of several channels at a time: all of a
    /// hub's may have left while it was away.
    async fn doubted_of(&mut self, chain: &Chain, leaving: Vec<ChannelId>) -> Vec<ChannelId> {
        let lately = |asked: &Instant| asked.elapsed() < INTERVAL;
        let (mut doubted, due): (Vec<ChannelId>, Vec<ChannelId>) =
            leaving.into_iter().partition(|channel| self.doubted.get(channel).is_some_and(lately));
        let asked = stream::iter(due)
            .map(|channel| async move { (channel, chain.is_still_shown(channel).await) })
            .buffer_unordered(AT_ONCE);
        for (channel, shown) in asked.collect::<Vec<_>>().await {
            if self.note(channel, shown) {
                doubted.push(channel);
            }
        }
        doubted
    }

    /// What the endpoints say of a channel now.
    fn note(&mut self, channel: ChannelId, shown: bool) -> bool {
        if !shown {
            if self.doubted.remove(&channel).is_some() {
                tracing::info!(%channel, "all endpoints say that the channel has left the graph");
            }
        } else if self.doubted.insert(channel, Instant::now()).is_none() {
            tracing::error!(%channel, "some endpoint says that the channel has left the graph, and others do not");
        }
        shown
    }
}
