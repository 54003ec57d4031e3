//! What the journal holds and the database does not yet, by key: the latest value of each row.
//!
//! Rows age: those that are to go into the database next wait a while in a generation of their own, in
//! which most of them are overtaken.

use std::collections::{BTreeMap, HashMap, HashSet};

use foldhash::quality::RandomState;
use por_core::{Row, RowKey, Table, Write};

use super::rows;

pub(super) type Key = (Table, RowKey);

/// Keys hold hashes that peers can choose only by trying; how they fall here differs in each process.
type Rows = HashMap<Key, Option<Vec<u8>>, RandomState>;

#[derive(Debug, Default)]
pub(super) struct Memory {
    rows: Rows,
    /// As of the last [`Memory::age`].
    aging: Rows,
    /// Keys in the database: a row that is not there and was removed leaves nothing at all.
    stored: HashSet<Key, RandomState>,
}

impl Memory {
    pub(super) fn new(stored: impl IntoIterator<Item = Key>) -> Memory {
        Memory { stored: stored.into_iter().collect(), ..Memory::default() }
    }

    pub(super) fn apply(&mut self, write: Write) {
        let Write { table, key, value } = write;
        let key = (table, key);
        if value.is_none() && !self.stored.contains(&key) && !self.aging.contains_key(&key) {
            self.rows.remove(&key);
        } else {
            self.rows.insert(key, value);
        }
    }

    /// Begins a new generation; the one before is in the database.
    pub(super) fn age(&mut self) {
        debug_assert!(self.aging.is_empty());
        self.aging = std::mem::take(&mut self.rows);
    }

    /// What the database lacks of the old generation and nothing later has overtaken.
    pub(super) fn aged(&self) -> impl Iterator<Item = (&Key, Option<&[u8]>)> {
        let left = self.aging.iter().filter(|(key, _)| !self.rows.contains_key(*key));
        left.map(|(key, value)| (key, value.as_deref()))
    }

    /// The database holds [`Memory::aged`].
    pub(super) fn aged_stored(&mut self) {
        for (key, value) in std::mem::take(&mut self.aging) {
            match self.rows.get(&key) {
                None => self.note(key, value.is_some()),
                // Was never stored and is gone: nothing is left to do for it.
                Some(None) if !self.stored.contains(&key) => {
                    self.rows.remove(&key);
                }
                Some(_) => {}
            }
        }
    }

    /// Everything that the database lacks.
    pub(super) fn all(&self) -> impl Iterator<Item = (&Key, Option<&[u8]>)> {
        self.aged().chain(self.rows.iter().map(|(key, value)| (key, value.as_deref())))
    }

    /// The database holds everything.
    pub(super) fn all_stored(&mut self) {
        self.aged_stored();
        for (key, value) in std::mem::take(&mut self.rows) {
            self.note(key, value.is_some());
        }
    }

    fn note(&mut self, key: Key, stored: bool) {
        if stored {
            self.stored.insert(key);
        } else {
            self.stored.remove(&key);
        }
    }

    /// The database's rows of a table with what came after them.
    pub(super) fn over(&self, table: Table, rows: Vec<rows::KeyValue>) -> Vec<Row> {
        let rows = rows.into_iter().map(|(key, value)| (RowKey::from(key), value));
        let mut all: BTreeMap<RowKey, Vec<u8>> = rows.collect();
        for ((_, key), value) in self.all().filter(|((of, _), _)| *of == table) {
            match value {
                Some(value) => all.insert(key.clone(), value.to_vec()),
                None => all.remove(key),
            };
        }
        all.into_iter().map(|(key, value)| Row { table, key, value }).collect()
    }
}
