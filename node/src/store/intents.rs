//! Contract calls that were decided survive in the same database as everything else.

use futures::future::BoxFuture;

use super::{AppTable, NodeStore};
use crate::chain::{IntentId, IntentStore};

impl IntentStore for NodeStore {
    fn put(&self, id: IntentId, record: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async move {
            NodeStore::put(self, AppTable::Intents, &id.0, record).await.map_err(|error| error.to_string())
        })
    }

    fn remove(&self, id: IntentId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(
            async move { self.delete(AppTable::Intents, &id.0).await.map_err(|error| error.to_string()) },
        )
    }

    fn load(&self) -> Result<Vec<(IntentId, Vec<u8>)>, String> {
        let rows = self.list(AppTable::Intents).map_err(|error| error.to_string())?;
        let intent = |(key, value): (Vec<u8>, Vec<u8>)| {
            let id = key.as_slice().try_into().map_err(|_| "an intent's id is damaged".to_owned())?;
            Ok((IntentId(id), value))
        };
        rows.into_iter().map(intent).collect()
    }
}
