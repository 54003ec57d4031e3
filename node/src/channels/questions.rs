//! Questions to all endpoints about single channels, beside everything else: an endpoint that lets everybody wait
//! must not have the manager wait, for evidence has its time.

use std::collections::HashSet;

use por_types::ChannelId;
use tokio::task::{JoinError, JoinSet};

use super::failure;
use crate::alarm::failed;
use crate::chain::{Chain, Shown, pages};
use crate::client::ClientError;

/// Questions at the same time.
const AT_ONCE: usize = 8;

/// What all endpoints at the head of the chain have shown.
pub(super) struct Answer {
    pub asked: Vec<ChannelId>,
    pub shown: Vec<Shown>,
}

#[derive(Default)]
pub(super) struct Questions {
    tasks: JoinSet<Answer>,
    under_way: HashSet<ChannelId>,
}

impl Questions {
    /// Asks of these channels, as far as it is not doing that already; of some only later if they are many and
    /// named again then.
    pub(super) fn ask(&mut self, chain: &Chain, channels: impl Iterator<Item = ChannelId>) {
        let mut new: Vec<ChannelId> = channels.filter(|id| !self.under_way.contains(id)).collect();
        new.sort_unstable();
        for page in pages(&new).into_iter().take(AT_ONCE.saturating_sub(self.tasks.len())) {
            let (first, len) = page;
            let in_page = |id: &&ChannelId| id.0.checked_sub(first.0).is_some_and(|at| at < u64::from(len));
            let asked: Vec<ChannelId> = new.iter().filter(in_page).copied().collect();
            self.under_way.extend(&asked);
            let chain = chain.clone();
            self.tasks.spawn(async move { Answer { shown: chain.shown(page).await, asked } });
        }
    }

    /// The next answer; `None` if nothing is asked. Does not lose one if it is dropped.
    pub(super) async fn next(&mut self) -> Option<Result<Answer, ClientError>> {
        let answer = self.tasks.join_next().await?;
        if let Ok(answer) = &answer {
            for id in &answer.asked {
                self.under_way.remove(id);
            }
        }
        Some(answer.map_err(broken))
    }
}

fn broken(error: JoinError) -> ClientError {
    let what = error.try_into_panic().map(|panic| failed("channel manager's question", &*panic));
    failure(what.unwrap_or_else(|_| "a question of the channel manager has stopped".to_owned()))
}
