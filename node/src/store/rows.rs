//! Tables and rows in the database.

use std::path::Path;

use por_core::Table;
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};

use super::error::StoreError;

/// Bytes of the checksum behind each value.
const CHECKSUM: usize = 8;

type Definition = TableDefinition<'static, &'static [u8], &'static [u8]>;
type OpenTable<'t> = redb::Table<'t, &'static [u8], &'static [u8]>;
/// Key and value.
pub(super) type KeyValue = (Vec<u8>, Vec<u8>);

/// Tables of the node itself, beside those of the protocol's ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AppTable {
    /// Identity of the store and counters.
    Metadata,
    /// Contract calls that were decided and are not known to be done.
    Intents,
    /// Provider keys that this node announces.
    Announced,
    /// Channels that the operator asked to close.
    Closing,
}

/// Any table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum StoreTable {
    Ledger(Table),
    App(AppTable),
}

impl StoreTable {
    const ALL: [StoreTable; 7] = [
        StoreTable::Ledger(Table::Channels),
        StoreTable::Ledger(Table::Exchanges),
        StoreTable::Ledger(Table::Meta),
        StoreTable::App(AppTable::Metadata),
        StoreTable::App(AppTable::Intents),
        StoreTable::App(AppTable::Announced),
        StoreTable::App(AppTable::Closing),
    ];

    const fn name(self) -> &'static str {
        match self {
            StoreTable::Ledger(Table::Channels) => "channels",
            StoreTable::Ledger(Table::Exchanges) => "exchanges",
            StoreTable::Ledger(Table::Meta) => "meta",
            StoreTable::App(AppTable::Metadata) => "metadata",
            StoreTable::App(AppTable::Intents) => "intents",
            StoreTable::App(AppTable::Announced) => "announced",
            StoreTable::App(AppTable::Closing) => "closing",
        }
    }

    fn definition(self) -> Definition {
        TableDefinition::new(self.name())
    }
}

/// Why a row could not be read.
#[derive(Debug)]
pub(super) enum ReadError {
    Database(redb::Error),
    /// A value does not match its checksum.
    Checksum {
        table: &'static str,
        key: String,
    },
}

impl<E: Into<redb::Error>> From<E> for ReadError {
    fn from(error: E) -> Self {
        ReadError::Database(error.into())
    }
}

impl ReadError {
    pub(super) fn at(self, path: &Path) -> StoreError {
        match self {
            ReadError::Database(error) => StoreError::from_redb(path, error),
            ReadError::Checksum { table, key } => {
                StoreError::damaged(path, format!("row {key} of table {table} does not match its checksum"))
            }
        }
    }
}

/// Creates all tables and the first row, durably.
pub(super) fn initialise(database: &Database, key: &[u8], value: &[u8]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    for table in StoreTable::ALL {
        transaction.open_table(table.definition())?;
    }
    Writer::new(&transaction).write(StoreTable::App(AppTable::Metadata), key, Some(value))?;
    transaction.commit()?;
    Ok(())
}

/// Writes rows of one transaction; opens each table once.
pub(super) struct Writer<'t> {
    transaction: &'t WriteTransaction,
    tables: Vec<(StoreTable, OpenTable<'t>)>,
    sealed: Vec<u8>,
}

impl<'t> Writer<'t> {
    pub(super) fn new(transaction: &'t WriteTransaction) -> Self {
        Writer { transaction, tables: Vec::new(), sealed: Vec::new() }
    }

    /// Writes a row, or removes it where `value` is `None`.
    pub(super) fn write(
        &mut self,
        table: StoreTable,
        key: &[u8],
        value: Option<&[u8]>,
    ) -> Result<(), redb::Error> {
        let index = match self.tables.iter().position(|(open, _)| *open == table) {
            Some(index) => index,
            None => {
                self.tables.push((table, self.transaction.open_table(table.definition())?));
                self.tables.len() - 1
            }
        };
        let rows = &mut self.tables[index].1;
        match value {
            Some(value) => {
                self.sealed.clear();
                self.sealed.extend_from_slice(value);
                self.sealed.extend_from_slice(&checksum(table, key, value));
                rows.insert(key, self.sealed.as_slice())?;
            }
            None => {
                rows.remove(key)?;
            }
        }
        Ok(())
    }
}

pub(super) fn get(database: &Database, table: StoreTable, key: &[u8]) -> Result<Option<Vec<u8>>, ReadError> {
    let transaction = database.begin_read()?;
    let rows = transaction.open_table(table.definition())?;
    rows.get(key)?.map(|sealed| open(table, key, sealed.value())).transpose()
}

pub(super) fn list(database: &Database, table: StoreTable) -> Result<Vec<KeyValue>, ReadError> {
    let transaction = database.begin_read()?;
    let rows = transaction.open_table(table.definition())?;
    let mut all = Vec::new();
    for row in rows.iter()? {
        let (key, sealed) = row?;
        all.push((key.value().to_vec(), open(table, key.value(), sealed.value())?));
    }
    Ok(all)
}

pub(super) fn keys(database: &Database, table: StoreTable) -> Result<Vec<Vec<u8>>, ReadError> {
    let transaction = database.begin_read()?;
    let rows = transaction.open_table(table.definition())?;
    let keys = rows.iter()?.map(|row| row.map(|(key, _)| key.value().to_vec()));
    Ok(keys.collect::<Result<_, _>>()?)
}

fn open(table: StoreTable, key: &[u8], sealed: &[u8]) -> Result<Vec<u8>, ReadError> {
    let damaged = || ReadError::Checksum { table: table.name(), key: hex::encode(key) };
    let split = sealed.len().checked_sub(CHECKSUM).ok_or_else(damaged)?;
    let (value, sum) = sealed.split_at(split);
    if sum != checksum(table, key, value) {
        return Err(damaged());
    }
    Ok(value.to_vec())
}

fn checksum(table: StoreTable, key: &[u8], value: &[u8]) -> [u8; CHECKSUM] {
    let mut hasher = blake3::Hasher::new();
    // Lengths keep the parts apart.
    hasher.update(&(table.name().len() as u64).to_le_bytes()).update(table.name().as_bytes());
    hasher.update(&(key.len() as u64).to_le_bytes()).update(key).update(value);
    let mut sum = [0; CHECKSUM];
    hasher.finalize_xof().fill(&mut sum);
    sum
}
