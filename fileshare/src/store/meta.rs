//! The metadata: tables in redb, opened for the moment of one transaction.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use redb::{
    Builder, Database, DatabaseError, ReadOnlyDatabase, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, TableError,
};
use serde::{Deserialize, Serialize};

use super::{PATIENCE, Store, StoreError, io_at};
use crate::{
    id::{ContentId, ID_BYTES, Kind},
    part::sync_dir,
};

const ITEMS: TableDefinition<'_, [u8; 32], &[u8]> = TableDefinition::new("items");
const PINS: TableDefinition<'_, [u8; ID_BYTES], ()> = TableDefinition::new("pins");
/// Version of the records in [`ITEMS`].
const VERSION: u8 = 1;
/// The database holds little; its cache need not be redb's gigabyte.
const CACHE_BYTES: usize = 4 * 1024 * 1024;
/// Places remembered per item.
const MAX_PLACES: usize = 8;

/// Where an item's content lies.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Place {
    /// In the database, at most [`super::INLINE`] bytes.
    Inline(#[serde(with = "serde_bytes")] Vec<u8>),
    /// In the store's blob folder.
    Blob,
    /// In a file of the user's, which must still have this size and time.
    File {
        #[serde(with = "path_bytes")]
        path: PathBuf,
        /// Modification time in nanoseconds since 1970.
        modified: i128,
    },
}

/// One item of the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    pub id: ContentId,
    /// Length of the content in bytes.
    pub size: u64,
    /// Where it lies; the first that still has it is used.
    pub places: Vec<Place>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    directory: bool,
    size: u64,
    places: Vec<Place>,
}

impl Entry {
    fn encode(&self) -> Result<Vec<u8>, String> {
        let record =
            Record { directory: self.id.is_directory(), size: self.size, places: self.places.clone() };
        cbor4ii::serde::to_vec(vec![VERSION], &record).map_err(|error| error.to_string())
    }

    fn decode(hash: [u8; 32], bytes: &[u8]) -> Result<Self, String> {
        let Some((&VERSION, bytes)) = bytes.split_first() else {
            return Err("a record of unknown version".into());
        };
        let record: Record = cbor4ii::serde::from_slice(bytes).map_err(|error| error.to_string())?;
        let kind = if record.directory { Kind::Directory } else { Kind::File };
        Ok(Entry { id: ContentId::new(kind, hash), size: record.size, places: record.places })
    }

    /// Takes over the places of another put of the same content, the newest first.
    pub(super) fn merge(&mut self, older: Entry) {
        for place in older.places {
            let same = |known: &Place| match (known, &place) {
                (Place::File { path: a, .. }, Place::File { path: b, .. }) => a == b,
                (a, b) => a == b,
            };
            if !self.places.iter().any(same) {
                self.places.push(place);
            }
        }
        self.places.truncate(MAX_PLACES);
    }
}

/// Paths are bytes on disk: not every path is UTF-8.
mod path_bytes {
    use std::{
        ffi::OsString,
        os::unix::ffi::{OsStrExt, OsStringExt},
        path::{Path, PathBuf},
    };

    use serde::{Deserializer, Serializer};

    pub fn serialize<S: Serializer>(path: &Path, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(path.as_os_str().as_bytes(), serializer)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<PathBuf, D::Error> {
        let bytes: Vec<u8> = serde_bytes::deserialize(deserializer)?;
        Ok(OsString::from_vec(bytes).into())
    }
}

/// The tables within a transaction that may change them.
pub(super) struct Tables<'t> {
    root: &'t Path,
    items: redb::Table<'t, [u8; 32], &'static [u8]>,
    pins: redb::Table<'t, [u8; ID_BYTES], ()>,
}

/// The tables within a transaction that only reads.
pub(super) struct View<'t> {
    root: &'t Path,
    items: redb::ReadOnlyTable<[u8; 32], &'static [u8]>,
    pins: redb::ReadOnlyTable<[u8; ID_BYTES], ()>,
}

macro_rules! reading {
    ($tables:ident) => {
        impl $tables<'_> {
            fn bad(&self) -> impl Fn(StorageError) -> StoreError + use<> {
                let root = self.root.to_owned();
                move |error| storage(&root, error)
            }

            fn parse(&self, hash: [u8; 32], bytes: &[u8]) -> Result<Entry, StoreError> {
                Entry::decode(hash, bytes).map_err(|why| corrupt(self.root, why))
            }

            pub fn entry(&self, hash: &[u8; 32]) -> Result<Option<Entry>, StoreError> {
                let found = self.items.get(hash).map_err(self.bad())?;
                found.map(|value| self.parse(*hash, value.value())).transpose()
            }

            pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
                let mut entries = Vec::new();
                for row in self.items.iter().map_err(self.bad())? {
                    let (hash, value) = row.map_err(self.bad())?;
                    entries.push(self.parse(hash.value(), value.value())?);
                }
                Ok(entries)
            }

            pub fn pins(&self) -> Result<Vec<ContentId>, StoreError> {
                let mut pins = Vec::new();
                for row in self.pins.iter().map_err(self.bad())? {
                    let (id, _) = row.map_err(self.bad())?;
                    let id = ContentId::from_bytes(&id.value());
                    pins.push(id.map_err(|error| corrupt(self.root, error))?);
                }
                Ok(pins)
            }
        }
    };
}

reading!(Tables);
reading!(View);

impl Tables<'_> {
    pub fn put(&mut self, entry: &Entry) -> Result<(), StoreError> {
        let bytes = entry.encode().map_err(|why| corrupt(self.root, why))?;
        let bad = self.bad();
        self.items.insert(entry.id.hash(), &bytes[..]).map_err(bad)?;
        Ok(())
    }

    pub fn remove(&mut self, hash: &[u8; 32]) -> Result<bool, StoreError> {
        let bad = self.bad();
        Ok(self.items.remove(hash).map_err(bad)?.is_some())
    }

    pub fn pin(&mut self, id: &ContentId) -> Result<(), StoreError> {
        let bad = self.bad();
        self.pins.insert(&id.to_bytes(), ()).map_err(bad)?;
        Ok(())
    }

    pub fn unpin(&mut self, id: &ContentId) -> Result<bool, StoreError> {
        let bad = self.bad();
        Ok(self.pins.remove(&id.to_bytes()).map_err(bad)?.is_some())
    }

    pub fn is_pinned(&self, id: &ContentId) -> Result<bool, StoreError> {
        let found = self.pins.get(&id.to_bytes()).map_err(self.bad())?;
        Ok(found.is_some())
    }
}

fn corrupt(root: &Path, why: impl std::fmt::Display) -> StoreError {
    StoreError::Corrupt { path: root.to_owned(), why: why.to_string() }
}

/// A disk that fails or is full says nothing against the store: who takes it for corrupt throws it away.
fn failed(root: &Path, error: redb::Error) -> StoreError {
    match error {
        redb::Error::Io(error) if error.kind() != std::io::ErrorKind::InvalidData => {
            StoreError::Io { path: root.join("meta.redb"), error }
        }
        other => corrupt(root, other),
    }
}

fn storage(root: &Path, error: StorageError) -> StoreError {
    failed(root, error.into())
}

/// What became of an attempt to open the database.
enum Attempt<T> {
    Done(T),
    Locked,
    Unclean,
}

fn attempt<T>(root: &Path, opened: Result<T, DatabaseError>) -> Result<Attempt<T>, StoreError> {
    match opened {
        Ok(database) => Ok(Attempt::Done(database)),
        Err(DatabaseError::DatabaseAlreadyOpen) => Ok(Attempt::Locked),
        Err(DatabaseError::RepairAborted) => Ok(Attempt::Unclean),
        Err(DatabaseError::UpgradeRequired(_)) => Err(StoreError::Newer(root.to_owned())),
        Err(DatabaseError::Storage(error)) => Err(storage(root, error)),
        Err(other) => Err(corrupt(root, other)),
    }
}

fn table_error(root: &Path, error: TableError) -> StoreError {
    match error {
        TableError::Storage(error) => storage(root, error),
        other => corrupt(root, other),
    }
}

/// redb checks what it reads, but may panic on pages that no redb ever wrote.
fn guarded<T>(root: &Path, work: impl FnOnce() -> Result<T, StoreError>) -> Result<T, StoreError> {
    catch_unwind(AssertUnwindSafe(work)).unwrap_or_else(|_| Err(corrupt(root, "the database cannot be read")))
}

impl Store {
    /// Runs one transaction that may change the metadata; all or nothing.
    pub(super) fn change<T>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        self.change_then(work, |_| ())
    }

    /// The same, and then, still excluding others, what must not happen before the
    /// transaction is durable: removing files that the metadata no longer names.
    pub(super) fn change_then<T>(
        &self,
        work: impl FnOnce(&mut Tables<'_>) -> Result<T, StoreError>,
        then: impl FnOnce(&T),
    ) -> Result<T, StoreError> {
        guarded(&self.root, || {
            let database = self.open_database()?;
            let transaction = database.begin_write().map_err(|error| failed(&self.root, error.into()))?;
            let mut tables = Tables {
                root: &self.root,
                items: transaction.open_table(ITEMS).map_err(|error| table_error(&self.root, error))?,
                pins: transaction.open_table(PINS).map_err(|error| table_error(&self.root, error))?,
            };
            let result = work(&mut tables);
            drop(tables);
            match result {
                Ok(value) => {
                    transaction.commit().map_err(|error| failed(&self.root, error.into()))?;
                    // First what frees space: on a full disk nothing else could be written.
                    then(&value);
                    self.bump_generation()?;
                    Ok(value)
                }
                Err(error) => {
                    let _ = transaction.abort();
                    Err(error)
                }
            }
        })
    }

    /// Runs one transaction that only reads; readers do not exclude each other.
    pub(super) fn look<T>(
        &self,
        work: impl FnOnce(&View<'_>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        guarded(&self.root, || {
            let database = self.open_for_reading()?;
            let transaction = database.begin_read().map_err(|error| failed(&self.root, error.into()))?;
            let view = View {
                root: &self.root,
                items: transaction.open_table(ITEMS).map_err(|error| table_error(&self.root, error))?,
                pins: transaction.open_table(PINS).map_err(|error| table_error(&self.root, error))?,
            };
            work(&view)
        })
    }

    /// Makes the database elsewhere and gives it its name when it is whole, so that a
    /// process killed meanwhile leaves nothing that looks corrupt.
    pub(super) fn create_database(&self) -> Result<(), StoreError> {
        // Without the lock of other temporary files: the database takes one itself.
        let folder = self.folder("tmp");
        let temporary = tempfile::NamedTempFile::new_in(&folder).map_err(io_at(&folder))?;
        let path = self.database_path();
        {
            let database = Builder::new()
                .set_cache_size(CACHE_BYTES)
                .create(temporary.path())
                .map_err(|error| failed(&self.root, error.into()))?;
            let made = || -> Result<(), redb::Error> {
                let transaction = database.begin_write()?;
                transaction.open_table(ITEMS)?;
                transaction.open_table(PINS)?;
                Ok(transaction.commit()?)
            };
            made().map_err(|error| failed(&self.root, error))?;
        }
        match temporary.persist_noclobber(&path) {
            Ok(_) => sync_dir(&path),
            // Another process was faster.
            Err(error) if error.error.kind() == std::io::ErrorKind::AlreadyExists => (),
            Err(error) => return Err(io_at(&path)(error.error)),
        }
        Ok(())
    }

    fn open_database(&self) -> Result<Database, StoreError> {
        self.patiently(|| {
            let opened = Builder::new().set_cache_size(CACHE_BYTES).create(self.database_path());
            attempt(&self.root, opened)
        })
    }

    fn open_for_reading(&self) -> Result<ReadOnlyDatabase, StoreError> {
        self.patiently(|| {
            let opened = Builder::new().set_cache_size(CACHE_BYTES).open_read_only(self.database_path());
            let opened = attempt(&self.root, opened)?;
            if matches!(opened, Attempt::Unclean) {
                // Its last writer died; opening for writing repairs.
                drop(self.open_database()?);
            }
            Ok(opened)
        })
    }

    fn patiently<T>(
        &self,
        mut open: impl FnMut() -> Result<Attempt<T>, StoreError>,
    ) -> Result<T, StoreError> {
        let until = Instant::now() + PATIENCE;
        let mut pause = Duration::from_millis(1);
        loop {
            if let Attempt::Done(database) = open()? {
                return Ok(database);
            }
            if Instant::now() >= until {
                return Err(StoreError::Busy(self.root.clone()));
            }
            thread::sleep(pause);
            pause = (pause * 2).min(Duration::from_millis(50));
        }
    }

    fn bump_generation(&self) -> Result<(), StoreError> {
        // Under the database's lock, so that numbers only grow.
        let path = self.root.join("generation");
        let next = self.generation().wrapping_add(1);
        let temporary = self.root.join("generation.new");
        fs::write(&temporary, next.to_le_bytes()).map_err(io_at(&temporary))?;
        fs::rename(&temporary, &path).map_err(io_at(&path))
    }
}
