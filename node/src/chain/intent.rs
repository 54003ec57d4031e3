//! What the node has decided to do on chain, stored before it is sent.

use futures::future::BoxFuture;
use parking_lot::Mutex;
use rand::RngCore as _;
use serde::{Deserialize, Serialize};

use super::call::Call;

/// Name of an intent in the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct IntentId(pub [u8; 16]);

/// A call that is to take effect exactly once.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Intent {
    pub id: IntentId,
    pub call: Call,
}

impl Intent {
    /// A new intent; each one is carried out.
    pub fn new(call: Call) -> Intent {
        let mut id = [0; 16];
        rand::rng().fill_bytes(&mut id);
        Intent { id: IntentId(id), call }
    }
}

/// A stored intent: the call and the transaction that was last signed for it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct IntentRecord {
    pub(super) intent: Intent,
    pub(super) sent: SentTx,
}

/// A signed transaction that may have been sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct SentTx {
    pub(super) hash: String,
    pub(super) nonce: u64,
    /// Height of the block on which it was signed: for who has not seen that, it is too old. 0 in records of
    /// earlier versions.
    #[serde(default)]
    pub(super) height: u64,
    /// Base64 of the borsh bytes: sending them again cannot have a second effect.
    pub(super) bytes: String,
}

/// Where intents survive a crash. Implemented by the node's store.
pub trait IntentStore: Send + Sync + 'static {
    /// Writes or replaces a record; resolves when it is durable.
    fn put(&self, id: IntentId, record: Vec<u8>) -> BoxFuture<'_, Result<(), String>>;
    /// Removes a record; no error if there is none.
    fn remove(&self, id: IntentId) -> BoxFuture<'_, Result<(), String>>;
    /// All records, in any order.
    fn load(&self) -> Result<Vec<(IntentId, Vec<u8>)>, String>;
}

/// Intents that do not survive; for tools that make single calls, and for tests.
#[derive(Debug, Default)]
pub struct MemoryIntents(Mutex<std::collections::BTreeMap<IntentId, Vec<u8>>>);

impl IntentStore for MemoryIntents {
    fn put(&self, id: IntentId, record: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        self.0.lock().insert(id, record);
        Box::pin(std::future::ready(Ok(())))
    }

    fn remove(&self, id: IntentId) -> BoxFuture<'_, Result<(), String>> {
        self.0.lock().remove(&id);
        Box::pin(std::future::ready(Ok(())))
    }

    fn load(&self) -> Result<Vec<(IntentId, Vec<u8>)>, String> {
        Ok(self.0.lock().iter().map(|(id, record)| (*id, record.clone())).collect())
    }
}
