//! The ledger's rows: in the database as of the last checkpoint, in the journal since then.

use std::path::Path;

use borsh::{BorshDeserialize, BorshSerialize};
use por_core::{Restored, Table, Write};
use redb::Database;

use super::error::StoreError;
use super::journal::{Device, Journal, JournalError, JournalId};
use super::memory::{Key, Memory};
use super::rows::{self, AppTable, ReadError, StoreTable};

/// Bytes of the journal whose rows go into the database together.
pub(super) const CHECKPOINT_BYTES: u64 = 32 << 20;
/// Bytes of the journal after them until they do: what is overtaken by then is never written. Commits
/// wait for the database, and where thousands of requests are under way it would have as many rows to
/// take after a quarter of this.
const RIPEN_BYTES: u64 = CHECKPOINT_BYTES;

const HEAD_KEY: &[u8] = b"journal";
const TABLES: [Table; 3] = [Table::Channels, Table::Exchanges, Table::Meta];

/// What the database knows of its journal.
#[derive(Clone, Copy, Debug, BorshSerialize, BorshDeserialize)]
pub(super) struct JournalRow {
    id: JournalId,
    /// Groups up to this one are in the database.
    sequence: u64,
    /// Where the one after it is in the journal.
    start: u64,
    /// All groups are, and none was written since.
    pub closed: bool,
}

#[cfg(test)]
impl JournalRow {
    pub(super) fn id(&self) -> JournalId {
        self.id
    }
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
    /// Durable in the journal and not in memory yet.
    fresh: Vec<Vec<Write>>,
    /// Up to where the aging rows go, while there are any.
    ripening: Option<Ripening>,
    /// Bytes of the journal since it last changed whether rows are aging.
    written: u64,
}

#[derive(Clone, Copy)]
struct Ripening {
    sequence: u64,
    /// Where the group after it begins.
    start: u64,
}

impl Books {
    /// Takes up what the journal holds and brings the database up to date with it.
    pub(super) fn open(
        path: &Path,
        database: &Database,
        head: Option<JournalRow>,
        device: Box<dyn Device>,
    ) -> Result<Books, StoreError> {
        let head =
            head.unwrap_or_else(|| JournalRow { id: rand::random(), sequence: 0, start: 0, closed: true });
        let mut stored = Vec::new();
        for table in TABLES {
            let keys = rows::keys(database, StoreTable::Ledger(table)).map_err(|error| error.at(path))?;
            stored.extend(keys.into_iter().map(|key| (table, key.into())));
        }
        let mut memory = Memory::new(stored);
        let journal =
            Journal::replay(device, head.id, head.sequence, head.start, |write| memory.apply(write))
                .map_err(|error| error.at(path))?;
        let mut books = Books { id: head.id, journal, memory, fresh: Vec::new(), ripening: None, written: 0 };
        books.checkpoint(path, database, false)?;
        Ok(books)
    }

    /// Makes batches durable, as one group; [`Books::upkeep`] is due once those who wait know.
    pub(super) fn commit(
        &mut self,
        path: &Path,
        database: &Database,
        batches: Vec<Vec<Write>>,
    ) -> Result<(), StoreError> {
        self.note();
        for write in batches.iter().flatten() {
            self.journal.add(write);
        }
        if !self.journal.fits() {
            self.ripe(path, database)?;
        }
        let before = self.journal.position();
        self.journal.commit().map_err(|error| JournalError::from(error).at(path))?;
        self.written = self.written.saturating_add(self.journal.position() - before);
        self.fresh = batches;
        Ok(())
    }

    fn note(&mut self) {
        for write in std::mem::take(&mut self.fresh).into_iter().flatten() {
            self.memory.apply(write);
        }
    }

    /// Whether it is time to move rows on towards the database.
    pub(super) fn is_upkeep_due(&self) -> bool {
        self.written >= if self.ripening.is_some() { RIPEN_BYTES } else { CHECKPOINT_BYTES }
    }

    /// Moves rows on towards the database, when it is time.
    pub(super) fn upkeep(&mut self, path: &Path, database: &Database) -> Result<(), StoreError> {
        self.note();
        if !self.is_upkeep_due() {
            return Ok(());
        }
        if self.ripening.is_some() {
            return self.ripe(path, database);
        }
        self.memory.age();
        self.journal.turn(CHECKPOINT_BYTES);
        let (sequence, start) = (self.journal.sequence(), self.journal.position());
        self.ripening = Some(Ripening { sequence, start });
        self.written = 0;
        Ok(())
    }

    /// What is left of the aging rows goes into the database. Whatever has overtaken others of them is in
    /// the journal, behind the place from which it is read from now on.
    fn ripe(&mut self, path: &Path, database: &Database) -> Result<(), StoreError> {
        let Some(Ripening { sequence, start }) = self.ripening else { return Ok(()) };
        let head = JournalRow { id: self.id, sequence, start, closed: false };
        let rows = self.memory.aged().collect();
        write(database, rows, head).map_err(|error| StoreError::from_redb(path, error))?;
        self.memory.aged_stored();
        self.journal.release(start);
        self.ripening = None;
        Ok(())
    }

    /// Brings the database up to date with everything.
    pub(super) fn checkpoint(
        &mut self,
        path: &Path,
        database: &Database,
        closed: bool,
    ) -> Result<(), StoreError> {
        self.note();
        let head = JournalRow { id: self.id, sequence: self.journal.sequence(), start: 0, closed };
        let rows = self.memory.all().collect();
        write(database, rows, head).map_err(|error| StoreError::from_redb(path, error))?;
        self.memory.all_stored();
        (self.ripening, self.written) = (None, 0);
        self.journal.restart().map_err(|error| JournalError::from(error).at(path))
    }

    pub(super) fn restored(&mut self, database: &Database) -> Result<Restored, ReadError> {
        self.note();
        let mut restored = Restored::default();
        for table in TABLES {
            let rows = rows::list(database, StoreTable::Ledger(table))?;
            restored.rows.extend(self.memory.over(table, rows));
        }
        Ok(restored)
    }
}

fn write(
    database: &Database,
    mut changes: Vec<(&Key, Option<&[u8]>)>,
    head: JournalRow,
) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    let mut writer = rows::Writer::new(&transaction);
    // In the order of the tree.
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
