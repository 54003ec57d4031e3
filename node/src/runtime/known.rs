//! What the chain has said of this node, over restarts. A node that starts while all endpoints are away would
//! answer nobody, and whoever waits for it would sever it: it keeps what it has promised by what it knew, and
//! promises nothing new until it has read the chain.
//!
//! Not for ever: a channel whose close began after that can be over one challenge period later.

use std::sync::Arc;
use std::time::Duration;

use por_types::Yocto;
use por_types::interface::{ChannelView, ConfigView};
use serde::{Deserialize, Serialize};

use super::store_error;
use crate::chain::{CLOCK_TOLERANCE, Chain, ChainConfig, ChainError, now_ms};
use crate::client::ClientError;
use crate::store::{AppTable, NodeStore};

const KEY: &[u8] = b"known chain";
/// How long a start waits for the chain if it can go on without.
const PATIENCE: Duration = Duration::from_secs(10);
/// Kept anew though nothing has changed when this part of a challenge period has passed, and at least this time.
const SHARE: u64 = 20;
const LEAST: Duration = Duration::from_secs(60);

/// What is kept.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Known {
    /// Who has said so: others may be of another chain.
    rpc_urls: Vec<String>,
    /// Block time at which it was so, milliseconds since 1970.
    pub time_ms: u64,
    config: ConfigView,
    /// This node's, as the graph had them.
    pub channels: Vec<ChannelView>,
}

impl Known {
    fn read(store: &NodeStore, rpc_urls: &[String]) -> Result<Option<Known>, ClientError> {
        let kept = store.get(AppTable::Metadata, KEY).map_err(store_error)?;
        // What another version has kept is of no use, and of no harm.
        let known = kept.and_then(|bytes| serde_json::from_slice::<Known>(&bytes).ok());
        Ok(known.filter(|known| known.rpc_urls == rpc_urls))
    }
}

/// Whether no channel that was open at a block time can be over now. A clock that is behind what was known is
/// wrong.
fn is_fresh(known_ms: u64, challenge_ms: u64, now_ms: u64) -> bool {
    let from = known_ms.saturating_sub(millis(CLOCK_TOLERANCE));
    (from..known_ms.saturating_add(challenge_ms)).contains(&now_ms)
}

/// The chain as a start finds it.
pub(super) struct Connected {
    pub chain: Chain,
    /// If no endpoint answers and what an earlier run knew is fresh: then nothing was checked yet, see
    /// [`Chain::check`].
    pub known: Option<Known>,
    /// What lateness cost in an earlier run.
    pub late_fee: Option<Yocto>,
}

/// Connects with the chain.
///
/// Errors: as [`Chain::connect`], and those of the store.
pub(super) async fn connect(config: ChainConfig, store: &NodeStore) -> Result<Connected, ClientError> {
    let intents = Arc::new(store.clone());
    let known = Known::read(store, &config.rpc_urls)?;
    let late_fee = known.as_ref().map(|known| known.config.params.late_fee);
    let known = known.filter(|known| is_fresh(known.time_ms, known.config.params.challenge_ms, now_ms()));
    let connecting = Chain::connect(config.clone(), intents.clone());
    let Some(known) = known else { return Ok(Connected { chain: connecting.await?, known: None, late_fee }) };
    let cause = match tokio::time::timeout(PATIENCE, connecting).await {
        Ok(Ok(chain)) => return Ok(Connected { chain, known: None, late_fee }),
        Ok(Err(error @ (ChainError::Unreachable { .. } | ChainError::Lagging { .. }))) => error.to_string(),
        Ok(Err(error)) => return Err(error.into()),
        Err(_) => format!("no answer within {} s", PATIENCE.as_secs()),
    };
    tracing::error!(
        cause,
        "the chain is away: the node keeps what it has promised, and takes on nothing new"
    );
    let chain = Chain::resume(config, intents, known.config.clone())?;
    Ok(Connected { chain, known: Some(known), late_fee })
}

/// Keeps what is known while the daemon runs.
pub(super) struct Memory {
    store: NodeStore,
    kept: Known,
}

impl Memory {
    pub(super) fn new(store: NodeStore, rpc_urls: Vec<String>, config: ConfigView) -> Memory {
        Memory { store, kept: Known { rpc_urls, time_ms: 0, config, channels: Vec::new() } }
    }

    /// `channels`: this node's in the graph at a block time, once it was read as a whole.
    pub(super) async fn keep(
        &mut self,
        time_ms: u64,
        late_fee: Yocto,
        channels: Vec<ChannelView>,
    ) -> Result<(), ClientError> {
        let interval = (self.kept.config.params.challenge_ms / SHARE).max(millis(LEAST));
        let mut config = self.kept.config.clone();
        config.params.late_fee = late_fee;
        let old = time_ms >= self.kept.time_ms.saturating_add(interval);
        if !old && channels == self.kept.channels && config == self.kept.config {
            return Ok(());
        }
        let known = Known { time_ms: time_ms.max(self.kept.time_ms), config, channels, ..self.kept.clone() };
        let Ok(bytes) = serde_json::to_vec(&known) else { return Ok(()) };
        self.store.put(AppTable::Metadata, KEY, bytes).await.map_err(store_error)?;
        self.kept = known;
        Ok(())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_known_is_fresh_for_a_challenge_period() {
        let tolerance = millis(CLOCK_TOLERANCE);
        let (known, challenge) = (10 * tolerance, 1_000);
        for now in [known - tolerance, known, known + 999] {
            assert!(is_fresh(known, challenge, now), "{now}");
        }
        // The clock of a machine that has no time yet, and a channel that may be over.
        for now in [0, known - tolerance - 1, known + 1_000] {
            assert!(!is_fresh(known, challenge, now), "{now}");
        }
        assert!(!is_fresh(u64::MAX, u64::MAX, 0));
    }
}
