//! Provider records that this node announces; remembered over restarts.

use std::time::Duration;

use super::{Daemon, other, store_error};
use crate::client::{ClientError, Provider};
use crate::store::AppTable;
use crate::swarm::SwarmError;

/// Most providers in one answer, and longest search.
const MAX_PROVIDERS: usize = 64;
const MAX_WAIT: Duration = Duration::from_secs(60);

impl Daemon {
    pub(crate) async fn providers(
        &self,
        key: [u8; 32],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Provider>, ClientError> {
        let limit = limit.clamp(1, MAX_PROVIDERS);
        let found = self.swarm.providers(key, limit, wait.min(MAX_WAIT)).await.map_err(swarm_error)?;
        let provider =
            |(node_key, peer): (_, libp2p::PeerId)| Provider { node_key, peer_id: peer.to_string() };
        Ok(found.into_iter().map(provider).collect())
    }

    pub(crate) async fn provide(&self, key: [u8; 32]) -> Result<(), ClientError> {
        let mut announced = self.announced.lock().await;
        if announced.contains(&key) {
            return Ok(());
        }
        self.swarm.provide(key).await.map_err(swarm_error)?;
        self.store.put(AppTable::Announced, &key, Vec::new()).await.map_err(store_error)?;
        announced.insert(key);
        Ok(())
    }

    pub(crate) async fn stop_providing(&self, key: [u8; 32]) -> Result<(), ClientError> {
        let mut announced = self.announced.lock().await;
        // First: should this call be given up half way, the next one to provide it does everything anew.
        announced.remove(&key);
        self.store.delete(AppTable::Announced, &key).await.map_err(store_error)?;
        self.swarm.stop_providing(key).await.map_err(swarm_error)
    }

    /// Announces again what was announced before the restart.
    pub(super) async fn restore_announcements(&self) -> Result<(), ClientError> {
        let mut announced = self.announced.lock().await;
        for (key, _) in self.store.list(AppTable::Announced).map_err(store_error)? {
            let Ok(key) = <[u8; 32]>::try_from(key) else { continue };
            self.swarm.provide(key).await.map_err(swarm_error)?;
            announced.insert(key);
        }
        Ok(())
    }
}

fn swarm_error(error: SwarmError) -> ClientError {
    match error {
        SwarmError::Setup(cause) => other(format!("the provider key cannot be announced: {cause}")),
        error => ClientError::new(error.code(), error.to_string(), ""),
    }
}
