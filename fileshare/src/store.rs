//! What this machine has: metadata in redb, hash trees and copies in files.
//!
//! ```text
//! meta.redb           items and pins; content of up to 16 KiB inline
//! outboard/HASH       hash tree of an item above 16 KiB, 0.4 % of its size
//! blob/HASH           content that was copied into the store
//! generation          changes with every change of the metadata
//! tmp/                work under way; what is unlocked there is litter
//! ```
//!
//! Several processes use one store: `fileshare serve` for days, `put` for a moment.
//! redb lets one process at a time open a database for writing, so nobody keeps it open:
//! each operation opens it, runs one transaction and closes it again, which takes
//! milliseconds, and waits for others at most [`PATIENCE`]. Hashing and copying happen
//! before that, outside of any lock. A server keeps an index in memory and loads it again
//! when the generation changes, so the database is not on a download's path at all.
//! The operating system drops the lock of a process that dies, and redb recovers then.
//!
//! Files stay where they are unless copied. Path, size and modification time are
//! remembered and checked again before each use; beyond that every byte is checked
//! against its hash while it is served, so a file that changed is an error, never a
//! wrong answer.

mod add;
mod item;
mod meta;

use std::{
    collections::HashSet,
    fs::{self, File},
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

pub use self::{
    add::{AddOptions, Added, Staged},
    item::Item,
    meta::{Entry, Place},
};
use crate::{
    dir::Directory,
    exit::{Exit, Failure},
    id::{ContentId, Kind},
    slice::SliceError,
    tree::GROUP,
};

/// How long an operation waits for other processes to release the database.
pub const PATIENCE: Duration = Duration::from_secs(20);
/// Content of up to this many bytes lies in the database itself.
pub const INLINE: u64 = GROUP;

/// What goes wrong with the store.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error("{0} is not in the store")]
    NotFound(ContentId),
    #[error("{id}: no file holds its content any more ({why})")]
    Lost { id: ContentId, why: String },
    #[error("the store {path} is corrupt: {why}")]
    Corrupt { path: PathBuf, why: String },
    #[error("the store {0} was written by a newer version")]
    Newer(PathBuf),
    #[error("the store {0} is in use by another process")]
    Busy(PathBuf),
    #[error("{0} changed while it was read")]
    Changed(PathBuf),
    #[error("{0} is neither a file nor a directory")]
    NotAFile(PathBuf),
    #[error("{0} is pinned")]
    Pinned(ContentId),
    #[error(transparent)]
    Slice(#[from] SliceError),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        let what = error.to_string();
        let again = "add the file again with `fileshare put`";
        let (exit, fix) = match &error {
            StoreError::NotFound(_) => {
                (Exit::NotFound, "`fileshare pin ls` and the id of `fileshare put` show what is there")
            }
            StoreError::Lost { .. } => (Exit::NotFound, again),
            StoreError::Corrupt { .. } => {
                (Exit::CorruptStore, "move the store's folder away and put the files again")
            }
            StoreError::Newer(_) => (Exit::ForeignVersion, "install the newer version"),
            StoreError::Busy(_) => (Exit::Retryable, "try again when the other process is done"),
            StoreError::Changed(_) => {
                (Exit::Retryable, "try again when nobody writes to it, or pass --copy from a snapshot")
            }
            StoreError::NotAFile(_) => (Exit::Usage, "name a regular file, a directory, or -"),
            StoreError::Pinned(_) => (Exit::Other, "`fileshare pin rm ID` first"),
            StoreError::Slice(SliceError::ContentChanged { .. }) => (Exit::VerificationFailed, again),
            StoreError::Slice(SliceError::OutboardCorrupt) => (Exit::CorruptStore, again),
            StoreError::Slice(_) => (Exit::VerificationFailed, again),
            StoreError::Io { path, error } => return Failure::io(path.display(), error),
        };
        Failure::new(exit, what, fix)
    }
}

/// A store on disk. Cheap to clone; methods block, run them off the async threads.
#[derive(Clone, Debug)]
pub struct Store {
    root: PathBuf,
}

/// What [`Store::gc`] removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Collected {
    /// Items whose metadata was dropped.
    pub items: u64,
    /// Files removed from the store's folders.
    pub files: u64,
    /// Their bytes.
    pub bytes: u64,
}

impl Store {
    /// Opens the store in this folder, making it if there is none.
    pub fn open(root: &Path) -> Result<Self, StoreError> {
        let store = Store { root: root.to_owned() };
        for folder in
            [store.root.clone(), store.folder("outboard"), store.folder("blob"), store.folder("tmp")]
        {
            make_private(&folder).map_err(io_at(&folder))?;
        }
        if !store.database_path().exists() {
            store.create_database()?;
        }
        Ok(store)
    }

    pub fn root(&self) -> &Path {
        &self.root
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.root.join(name)
    }

    fn database_path(&self) -> PathBuf {
        self.root.join("meta.redb")
    }

    fn outboard_path(&self, hash: &[u8; 32]) -> PathBuf {
        self.folder("outboard").join(hex::encode(hash))
    }

    fn blob_path(&self, hash: &[u8; 32]) -> PathBuf {
        self.folder("blob").join(hex::encode(hash))
    }

    /// A number that differs after every change of the metadata, by any process.
    pub fn generation(&self) -> u64 {
        let bytes = fs::read(self.root.join("generation")).unwrap_or_default();
        bytes.try_into().map_or(0, u64::from_le_bytes)
    }

    /// The item with this hash, whichever kind is asked for.
    pub fn get(&self, id: &ContentId) -> Result<Option<Entry>, StoreError> {
        self.look(|tables| tables.entry(id.hash()))
    }

    /// Like [`Self::get`], but absence is an error.
    pub fn need(&self, id: &ContentId) -> Result<Entry, StoreError> {
        self.get(id)?.ok_or(StoreError::NotFound(*id))
    }

    /// Every item, in the order of hashes.
    pub fn entries(&self) -> Result<Vec<Entry>, StoreError> {
        self.look(|tables| tables.entries())
    }

    /// The pinned ids, in the order of hashes.
    pub fn pins(&self) -> Result<Vec<ContentId>, StoreError> {
        self.look(|tables| tables.pins())
    }

    /// Keeps an item, and what a directory contains, from [`Self::gc`].
    pub fn pin(&self, id: &ContentId) -> Result<(), StoreError> {
        self.change(|tables| {
            if tables.entry(id.hash())?.is_none() {
                return Err(StoreError::NotFound(*id));
            }
            tables.pin(id)
        })
    }

    /// Takes a pin away. False if there was none.
    pub fn unpin(&self, id: &ContentId) -> Result<bool, StoreError> {
        self.change(|tables| tables.unpin(id))
    }

    /// Forgets an unpinned item and removes the store's own files of it. The file that
    /// was put without `--copy` is the user's and stays.
    pub fn remove(&self, id: &ContentId) -> Result<(), StoreError> {
        self.change_then(
            |tables| {
                if tables.is_pinned(id)? {
                    return Err(StoreError::Pinned(*id));
                }
                if !tables.remove(id.hash())? {
                    return Err(StoreError::NotFound(*id));
                }
                Ok(())
            },
            |()| {
                for path in [self.outboard_path(id.hash()), self.blob_path(id.hash())] {
                    let _ = fs::remove_file(path);
                }
            },
        )
    }

    /// Drops what no pin leads to, and litter of processes that died.
    pub fn gc(&self) -> Result<Collected, StoreError> {
        let mut collected = Collected::default();
        let (items, keep) = self.change_then(
            |tables| {
                let keep = self.reachable(tables)?;
                let mut items = 0;
                for entry in tables.entries()? {
                    if !keep.contains(entry.id.hash()) {
                        tables.remove(entry.id.hash())?;
                        items += 1;
                    }
                }
                Ok((items, keep))
            },
            |(_, keep)| {
                let orphan = |path: &Path| !hash_of(path).is_some_and(|hash| keep.contains(&hash));
                self.sweep(&self.folder("outboard"), &mut collected, orphan);
                self.sweep(&self.folder("blob"), &mut collected, orphan);
                self.sweep(&self.folder("tmp"), &mut collected, is_litter);
            },
        )?;
        drop(keep);
        collected.items = items;
        Ok(collected)
    }

    fn reachable(&self, tables: &meta::Tables<'_>) -> Result<HashSet<[u8; 32]>, StoreError> {
        let mut keep = HashSet::new();
        let mut todo: Vec<ContentId> = tables.pins()?;
        while let Some(id) = todo.pop() {
            let fresh = keep.insert(*id.hash());
            if !fresh || id.kind() != Kind::Directory {
                continue;
            }
            let Some(entry) = tables.entry(id.hash())? else {
                continue;
            };
            // A listing that cannot be read leads nowhere; its pin still keeps itself.
            let listing = self.item(&entry).and_then(|item| item.read_all());
            if let Ok(directory) = listing.map(|bytes| Directory::decode(&bytes)) {
                let children = directory.map(|directory| directory.ids().collect::<Vec<_>>());
                todo.extend(children.unwrap_or_default());
            }
        }
        Ok(keep)
    }

    fn sweep(&self, folder: &Path, collected: &mut Collected, doomed: impl Fn(&Path) -> bool) {
        let Ok(listing) = fs::read_dir(folder) else {
            return;
        };
        for found in listing.flatten().filter(|found| doomed(&found.path())) {
            let len = found.metadata().map_or(0, |metadata| metadata.len());
            if fs::remove_file(found.path()).is_ok() {
                collected.files += 1;
                collected.bytes += len;
            }
        }
    }

    /// A locked temporary file in the store's own folder.
    fn temporary(&self) -> Result<tempfile::NamedTempFile, StoreError> {
        let folder = self.folder("tmp");
        let file = tempfile::NamedTempFile::new_in(&folder).map_err(io_at(&folder))?;
        file.as_file().lock().map_err(io_at(file.path()))?;
        Ok(file)
    }
}

/// The hash that a file in the store is named by.
fn hash_of(path: &Path) -> Option<[u8; 32]> {
    let mut hash = [0; 32];
    let name = path.file_name()?.to_str()?;
    hex::decode_to_slice(name, &mut hash).ok()?;
    Some(hash)
}

/// Whether a temporary file's maker is gone: it holds a lock as long as it lives, from
/// right after making the file.
fn is_litter(path: &Path) -> bool {
    let Ok(file) = File::open(path) else {
        return false;
    };
    let made = file.metadata().and_then(|metadata| metadata.modified());
    let age = made.map(|made| SystemTime::now().duration_since(made).unwrap_or_default());
    age.is_ok_and(|age| age > Duration::from_secs(60)) && file.try_lock().is_ok()
}

fn make_private(folder: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> StoreError {
    let path = path.to_owned();
    move |error| StoreError::Io { path, error }
}

/// Opens a file to read it. What is none is refused: whoever opens a pipe waits until somebody writes.
fn open_regular(path: &Path) -> io::Result<File> {
    use std::os::unix::fs::OpenOptionsExt;
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::Error::other("it is no regular file")) }
}

/// Size and modification time, by which a changed file is noticed.
fn stamp(file: &File) -> io::Result<(u64, i128)> {
    use std::os::unix::fs::MetadataExt;
    let metadata = file.metadata()?;
    let nanos = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    Ok((metadata.len(), nanos))
}
