//! How far the chain was seen, over restarts: an endpoint that has fallen behind meanwhile must not show a
//! channel as open that is known to be severed.
//!
//! It is kept as block time: that an endpoint invents heights, or that a local chain begins anew, shuts out
//! nobody for good.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::store_error;
use crate::client::ClientError;
use crate::store::{AppTable, NodeStore};

const KEY: &[u8] = b"seen time";
/// Block time after which it is kept though nothing has changed in the graph.
const INTERVAL: Duration = Duration::from_secs(600);
/// Most by which it may be ahead of this machine's clock.
const AHEAD: Duration = Duration::from_secs(300);

/// Block time that an earlier run has kept, milliseconds since 1970; 0 if none has.
pub(super) fn time_ms(store: &NodeStore) -> Result<u64, ClientError> {
    let kept = store.get(AppTable::Metadata, KEY).map_err(store_error)?;
    Ok(kept.and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_be_bytes))
}

/// What was kept last.
#[derive(Debug, Default)]
pub(super) struct Seen {
    version: u64,
    time_ms: u64,
}

impl Seen {
    /// Keeps the block time at which the graph has a version, if that tells anything new.
    pub(super) async fn keep(
        &mut self,
        store: &NodeStore,
        version: u64,
        time_ms: u64,
    ) -> Result<(), ClientError> {
        if version == self.version && time_ms < self.time_ms.saturating_add(millis(INTERVAL)) {
            return Ok(());
        }
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let kept = time_ms.min(millis(now.saturating_add(AHEAD)));
        store.put(AppTable::Metadata, KEY, kept.to_be_bytes().to_vec()).await.map_err(store_error)?;
        (self.version, self.time_ms) = (version, time_ms);
        Ok(())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
