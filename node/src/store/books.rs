//! The ledger's rows: in the database as of the last checkpoint, in the journal since then.

use std::path::Path;

use borsh::{BorshDeserialize, BorshSerialize};
use por_core::{Restored, Table, Write};
use redb::Database;

use super::error::StoreError;
use super::journal::{Device, Journal, JournalError, JournalId};
use super::memory::Memory;
use super::rows::{self, AppTable, ReadError, StoreTable};

/// Bytes of the journal after which the database is brought up to date.
pub(super) const CHECKPOINT_BYTES: u64 = 32 << 20;

const HEAD_KEY: &[u8] = b"journal";
const TABLES: [Table; 3] = [Table::Channels, Table::Exchanges, Table::Meta];

/// What the database knows of its journal.
#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
pub(super) struct JournalRow {
    id: JournalId,
    /// Groups up to this one are in the database.
    sequence: u64,
    /// All groups are, and none was written since.
    pub closed: bool,
}

/// `None` for a store that has never had a journal.
pub(super) fn journal_head(database: &Database) -> Result<Option<JournalRow>, ReadError> {
    let bytes = rows::get(database, StoreTable::App(AppTable::Metadata), HEAD_KEY)?;
    let read = |bytes: Vec<u8>| {
        borsh::from_slice(&bytes)
            .map_err(|_| ReadError::Checksum { table: "metadata", key: hex::encode(HEAD_KEY) })
    };
    bytes.map(read).transpose()
}

pub(super) struct Books {
    id: JournalId,
    journal: Journal,
    memory: Memory,
}

impl Books {
    /// Takes up what the journal holds and brings the database up to date with it.
    pub(super) fn open(
        path: &Path,
        database: &Database,
        head: Option<JournalRow>,
        device: Box<dyn Device>,
    ) -> Result<Books, StoreError> {
        let head = head.unwrap_or_else(|| JournalRow { id: rand::random(), sequence: 0, closed: true });
        let mut stored = Vec::new();
        for table in TABLES {
            let keys = rows::keys(database, StoreTable::Ledger(table)).map_err(|error| error.at(path))?;
            stored.extend(keys.into_iter().map(|key| (table, key)));
        }
        let mut memory = Memory::new(stored);
        let journal = Journal::replay(device, head.id, head.sequence, |write| memory.apply(write))
            .map_err(|error| error.at(path))?;
        let mut books = Books { id: head.id, journal, memory };
        books.checkpoint(path, database, false)?;
        Ok(books)
    }

    /// Makes batches durable, as one group.
    pub(super) fn commit(&mut self, batches: Vec<Vec<Write>>) -> Result<(), JournalError> {
        for write in batches.iter().flatten() {
            self.journal.add(write);
        }
        self.journal.commit()?;
        for write in batches.into_iter().flatten() {
            self.memory.apply(write);
        }
        Ok(())
    }

    pub(super) fn is_due(&self) -> bool {
        self.journal.bytes() >= CHECKPOINT_BYTES
    }

    /// Brings the database up to date.
    pub(super) fn checkpoint(
        &mut self,
        path: &Path,
        database: &Database,
        closed: bool,
    ) -> Result<(), StoreError> {
        let head = JournalRow { id: self.id, sequence: self.journal.sequence(), closed };
        self.write(database, head).map_err(|error| StoreError::from_redb(path, error))?;
        self.memory.stored();
        self.journal.restart().map_err(|error| JournalError::from(error).at(path))
    }

    fn write(&self, database: &Database, head: JournalRow) -> Result<(), redb::Error> {
        let transaction = database.begin_write()?;
        let mut writer = rows::Writer::new(&transaction);
        // In the order of the tree.
        let mut changes: Vec<_> = self.memory.rows().collect();
        changes.sort_unstable_by_key(|(key, _)| *key);
        for ((table, key), value) in changes {
            writer.write(StoreTable::Ledger(*table), key, value)?;
        }
        let head = borsh::to_vec(&head)?;
        writer.write(StoreTable::App(AppTable::Metadata), HEAD_KEY, Some(&head))?;
        drop(writer);
        transaction.commit()?;
        Ok(())
    }

    pub(super) fn restored(&self, database: &Database) -> Result<Restored, ReadError> {
        let mut restored = Restored::default();
        for table in TABLES {
            let rows = rows::list(database, StoreTable::Ledger(table))?;
            restored.rows.extend(self.memory.over(table, rows));
        }
        Ok(restored)
    }
}
