//! What has to be on disk before what: one batch of writes per flush, and the outputs that wait
//! for it.

use std::collections::VecDeque;

use por_types::RequestId;

use crate::api::{Output, Table, Write};
use crate::wire::Part;

/// Something that waits for a batch.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "outputs are by far the most frequent")]
pub(crate) enum Held {
    Output(Output),
    /// The frame that announces the body goes out now, so it may follow in the session of this epoch.
    Start(RequestId, Part, u64),
    /// This node itself answers the request now.
    Answer(RequestId),
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    /// In order: later ones of a row win.
    writes: Vec<Write>,
    /// Last batch handed out.
    last: u64,
    durable: u64,
    held: VecDeque<(u64, Held)>,
}

impl Store {
    pub fn put(&mut self, table: Table, key: Vec<u8>, value: Vec<u8>) {
        self.writes.push(Write { table, key, value: Some(value) });
    }

    pub fn delete(&mut self, table: Table, key: Vec<u8>) {
        self.writes.push(Write { table, key, value: None });
    }

    /// The writes since the last call, as one batch.
    pub fn cut(&mut self) -> Option<Output> {
        if self.writes.is_empty() {
            return None;
        }
        let writes = std::mem::take(&mut self.writes);
        self.last += 1;
        Some(Output::Persist { batch: self.last, writes })
    }

    /// The batch that writes from now on are part of.
    pub fn next_batch(&self) -> u64 {
        self.last + 1
    }

    pub fn is_durable(&self, batch: u64) -> bool {
        batch <= self.durable
    }

    /// Holds something back until every batch handed out so far is durable.
    pub fn hold(&mut self, held: Held) {
        self.held.push_back((self.last, held));
    }

    /// Numbers that were never handed out are ignored.
    pub fn persisted(&mut self, batch: u64) {
        self.durable = self.durable.max(batch.min(self.last));
    }

    /// The next thing that need not wait any more, in order.
    pub fn release(&mut self) -> Option<Held> {
        let (batch, _) = self.held.front()?;
        if *batch > self.durable {
            return None;
        }
        self.held.pop_front().map(|(_, held)| held)
    }
}
