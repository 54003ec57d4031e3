//! What has to be on disk before what: one batch of writes per flush, and the outputs that wait
//! for it.
//!
//! What nobody waits for (the end of an exchange above all) makes no batch by itself: it goes with the
//! next one, or after [`LAZY_MS`]. A crash in between finds what it would have found that much earlier.

use std::collections::VecDeque;

use por_types::RequestId;

use crate::api::{Event, Output, RowKey, Table, Time, Write};
use crate::flush::take_all;
use crate::wire::{Frame, Part};

/// For how long writes wait for others when nobody waits for them, milliseconds.
pub(crate) const LAZY_MS: u64 = 20;

/// Most writes that wait so.
const MAX_LAZY: usize = 256;

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

impl Held {
    /// Nobody waits for it: that an exchange is over may be told a moment later.
    fn is_patient(&self) -> bool {
        match self {
            Held::Output(Output::Send { frame: Frame::Done(done), .. }) => done.receipts.is_empty(),
            Held::Output(Output::Notify(event)) => {
                matches!(event, Event::Relayed { .. } | Event::Served { .. })
            }
            Held::Output(_) | Held::Start(..) | Held::Answer(_) => false,
        }
    }
}

#[derive(Debug, Default)]
pub(crate) struct Store {
    /// In order: later ones of a row win.
    writes: Vec<Write>,
    /// One of them is not to wait.
    urgent: bool,
    /// Since when they wait.
    since: Option<Time>,
    /// Last batch handed out.
    last: u64,
    durable: u64,
    /// In order.
    held: VecDeque<Held>,
    /// How many of them wait for which batch; those behind them for the next one.
    groups: VecDeque<(u64, usize)>,
    /// Those behind them.
    fresh: usize,
    /// Somebody waits for one of those.
    awaited: bool,
}

impl Store {
    pub fn put(&mut self, table: Table, key: RowKey, value: Vec<u8>) {
        self.urgent = true;
        self.put_lazily(table, key, value);
    }

    /// Not needed after a crash: what it says would then be found out anew.
    pub fn put_lazily(&mut self, table: Table, key: RowKey, value: Vec<u8>) {
        self.writes.push(Write { table, key, value: Some(value) });
    }

    /// What is not deleted yet is deleted anew after a crash.
    pub fn delete(&mut self, table: Table, key: RowKey) {
        self.writes.push(Write { table, key, value: None });
    }

    /// Holds something back until the writes up to the next cut are durable.
    pub fn hold(&mut self, held: Held) {
        self.awaited |= !held.is_patient();
        self.fresh += 1;
        self.held.push_back(held);
    }

    /// The writes since the last batch, as one more, if it is time for it.
    pub fn cut(&mut self, now: Time) -> Option<Output> {
        let awaited = std::mem::take(&mut self.awaited);
        let batch = self.cut_if(now, self.urgent || awaited);
        let last = if self.writes.is_empty() { self.last } else { self.last + 1 };
        match std::mem::take(&mut self.fresh) {
            0 => {}
            count => self.groups.push_back((last, count)),
        }
        batch
    }

    fn cut_if(&mut self, now: Time, waiting: bool) -> Option<Output> {
        if self.writes.is_empty() {
            return None;
        }
        let since = *self.since.get_or_insert(now);
        if !waiting && self.writes.len() < MAX_LAZY && now.since_ms(since) < LAZY_MS {
            return None;
        }
        (self.urgent, self.since) = (false, None);
        let writes = take_all(&mut self.writes);
        self.last += 1;
        Some(Output::Persist { batch: self.last, writes })
    }

    /// The writes that nobody waits for, as the last batch. None if others are among them: half of what belongs
    /// together is worse than nothing.
    pub fn cut_last(&mut self) -> Option<Output> {
        if self.urgent || self.writes.is_empty() {
            return None;
        }
        self.since = None;
        self.last += 1;
        Some(Output::Persist { batch: self.last, writes: take_all(&mut self.writes) })
    }

    /// Nothing waits to be written, or for what is.
    pub fn is_idle(&self) -> bool {
        self.writes.is_empty() && self.held.is_empty()
    }

    /// When writes that nobody waits for become a batch.
    pub fn deadline(&self) -> Option<Time> {
        self.since.map(|since| since.after_ms(LAZY_MS))
    }

    /// The batch that writes from now on are part of.
    pub fn next_batch(&self) -> u64 {
        self.last + 1
    }

    pub fn is_durable(&self, batch: u64) -> bool {
        batch <= self.durable
    }

    /// Numbers that were never handed out are ignored.
    pub fn persisted(&mut self, batch: u64) {
        self.durable = self.durable.max(batch.min(self.last));
    }

    /// The next thing that need not wait any more, in order.
    pub fn release(&mut self) -> Option<Held> {
        let (batch, count) = self.groups.front_mut()?;
        if *batch > self.durable {
            return None;
        }
        *count -= 1;
        if *count == 0 {
            self.groups.pop_front();
        }
        self.held.pop_front()
    }
}
