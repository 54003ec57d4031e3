//! Own channels that are said to have left the graph.
//!
//! The protocol signs orders to sever for what was under way over them, which cannot be taken back. So if the
//! endpoints at the head of the chain are not of one mind, the channel stays for now, and the operator is told.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use por_core::{ChannelSnapshot, MyChannel};
use por_types::ChannelId;

use crate::chain::Chain;

/// Between two times that the endpoints are asked of the same channel.
const INTERVAL: Duration = Duration::from_secs(2);

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
        for channel in leaving {
            if !self.is_doubted(chain, channel).await {
                continue;
            }
            let Some(told) = told else { return false };
            mine.retain(|info| info.channel != channel);
            mine.extend(told.iter().find(|info| info.channel == channel).cloned());
        }
        mine.sort_by_key(|info| info.channel);
        true
    }

    async fn is_doubted(&mut self, chain: &Chain, channel: ChannelId) -> bool {
        let asked = self.doubted.get(&channel);
        if asked.is_some_and(|asked| asked.elapsed() < INTERVAL) {
            return true;
        }
        let first = asked.is_none();
        let doubted = chain.is_still_shown(channel).await;
        if doubted {
            self.doubted.insert(channel, Instant::now());
            if first {
                tracing::error!(%channel, "some endpoint says that the channel has left the graph, and others do not");
            }
        } else if self.doubted.remove(&channel).is_some() {
            tracing::info!(%channel, "all endpoints say that the channel has left the graph");
        }
        doubted
    }
}
