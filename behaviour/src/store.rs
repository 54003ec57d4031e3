//! Where the protocol's rows live.

use std::collections::BTreeMap;
use std::task::{Context, Poll};

use por_core::{Restored, Row, RowKey, Table, Write};

/// Why rows could not be read or written. Final: the driver stops before it sends anything that
/// relies on them.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct StoreError {
    /// What went wrong and what to do about it.
    pub message: String,
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    pub fn new(message: impl Into<String>) -> StoreError {
        StoreError { message: message.into(), source: None }
    }

    pub fn with_source(
        message: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> StoreError {
        StoreError { message: message.into(), source: Some(source.into()) }
    }
}

/// A transactional store of opaque rows.
pub trait Store: Send + 'static {
    /// Loads all rows; called once, before anything else.
    fn load(&mut self) -> Result<Restored, StoreError>;

    /// Takes a batch without blocking. Batches are numbered from 1 and must become durable in order;
    /// each as a whole, several may share a commit. The last one comes when the driver stops: nobody waits for
    /// it, but a store that is closed in order should keep it.
    fn submit(&mut self, batch: u64, writes: Vec<Write>);

    /// The highest batch that is durable, once for each time that it has grown; `Pending` until it grows
    /// again, and the task is woken then. A store that is never `Pending` stops its node.
    ///
    /// Called after every batch, in the same turn: a store may write a small one only then, and here,
    /// which saves waking a thread. It should not take longer than its executor has patience for.
    fn poll_durable(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64, StoreError>>;
}

/// A store for examples and tests: "durable" means in memory.
#[derive(Debug, Default)]
pub struct MemoryStore {
    rows: BTreeMap<(Table, RowKey), Vec<u8>>,
    durable: u64,
    told: u64,
}

impl MemoryStore {
    /// With the rows of an earlier life.
    pub fn with_rows(rows: impl IntoIterator<Item = Row>) -> MemoryStore {
        let rows = rows.into_iter().map(|row| ((row.table, row.key), row.value)).collect();
        MemoryStore { rows, durable: 0, told: 0 }
    }

    /// The rows as they are now.
    pub fn rows(&self) -> impl Iterator<Item = Row> {
        let row = |((table, key), value): (&(Table, RowKey), &Vec<u8>)| Row {
            table: *table,
            key: key.clone(),
            value: value.clone(),
        };
        self.rows.iter().map(row)
    }
}

impl Store for MemoryStore {
    fn load(&mut self) -> Result<Restored, StoreError> {
        Ok(Restored { rows: self.rows().collect() })
    }

    fn submit(&mut self, batch: u64, writes: Vec<Write>) {
        for Write { table, key, value } in writes {
            match value {
                Some(value) => self.rows.insert((table, key), value),
                None => self.rows.remove(&(table, key)),
            };
        }
        self.durable = batch;
    }

    fn poll_durable(&mut self, _: &mut Context<'_>) -> Poll<Result<u64, StoreError>> {
        // `submit` and `poll_durable` are called by the same task in turn: no wake-up is needed.
        if self.durable == self.told {
            return Poll::Pending;
        }
        self.told = self.durable;
        Poll::Ready(Ok(self.durable))
    }
}
