//! What the journal holds and the database does not yet, by key: the latest value of each row.

use std::collections::{BTreeMap, HashMap, HashSet};

use por_core::{Row, Table, Write};

type Key = (Table, Vec<u8>);

#[derive(Debug, Default)]
pub(super) struct Memory {
    rows: HashMap<Key, Option<Vec<u8>>>,
    /// Keys in the database: a row that is not there and was removed leaves nothing at all.
    stored: HashSet<Key>,
}

impl Memory {
    pub(super) fn new(stored: impl IntoIterator<Item = Key>) -> Memory {
        Memory { rows: HashMap::new(), stored: stored.into_iter().collect() }
    }

    pub(super) fn apply(&mut self, write: Write) {
        let Write { table, key, value } = write;
        let key = (table, key);
        if value.is_none() && !self.stored.contains(&key) {
            self.rows.remove(&key);
        } else {
            self.rows.insert(key, value);
        }
    }

    /// What the database lacks.
    pub(super) fn rows(&self) -> impl Iterator<Item = (&Key, Option<&[u8]>)> {
        self.rows.iter().map(|(key, value)| (key, value.as_deref()))
    }

    /// The database holds everything.
    pub(super) fn stored(&mut self) {
        for (key, value) in std::mem::take(&mut self.rows) {
            match value {
                Some(_) => self.stored.insert(key),
                None => self.stored.remove(&key),
            };
        }
    }

    /// The database's rows of a table with what came after them.
    pub(super) fn over(&self, table: Table, rows: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<Row> {
        let mut all: BTreeMap<Vec<u8>, Vec<u8>> = rows.into_iter().collect();
        for ((_, key), value) in self.rows.iter().filter(|((of, _), _)| *of == table) {
            match value {
                Some(value) => all.insert(key.clone(), value.clone()),
                None => all.remove(key),
            };
        }
        all.into_iter().map(|(key, value)| Row { table, key, value }).collect()
    }
}
