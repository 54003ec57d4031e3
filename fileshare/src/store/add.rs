//! Adding content: hashed once while it is read, then made known in one transaction.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use tempfile::NamedTempFile;

use super::{Entry, INLINE, Place, Store, StoreError, io_at, open_regular, stamp};
use crate::{
    id::{ContentId, Kind},
    part::sync_dir,
    tree::{MAX_SIZE, hash_file, hash_reader},
};

/// How [`Store::add_file`] treats a file.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AddOptions {
    /// Keep a copy in the store instead of relying on the file where it is.
    pub copy: bool,
    /// Only compute the id; change nothing.
    pub only_hash: bool,
}

/// What was added.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Added {
    pub id: ContentId,
    /// Length of the content in bytes.
    pub size: u64,
}

/// Content that is hashed, with its files ready, but not known to the store yet.
/// Dropping it leaves nothing behind.
#[derive(Debug)]
pub struct Staged {
    entry: Entry,
    outboard: Option<NamedTempFile>,
    blob: Option<NamedTempFile>,
}

impl Staged {
    pub const fn id(&self) -> ContentId {
        self.entry.id
    }

    pub const fn size(&self) -> u64 {
        self.entry.size
    }

    pub const fn added(&self) -> Added {
        Added { id: self.entry.id, size: self.entry.size }
    }
}

impl Store {
    /// Adds and pins a file. `progress` gets the bytes hashed since its last call.
    ///
    /// # Errors
    /// [`StoreError::Changed`] if somebody writes to the file meanwhile.
    pub fn add_file(
        &self,
        path: &Path,
        options: AddOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Added, StoreError> {
        let staged = self.stage_file(path, options, progress)?;
        let added = staged.added();
        if !options.only_hash {
            self.commit(vec![staged], &[added.id])?;
        }
        Ok(added)
    }

    /// Adds and pins everything that can be read, by copying it.
    pub fn add_reader(
        &self,
        mut from: impl Read,
        options: AddOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Added, StoreError> {
        let mut copy = self.temporary()?;
        io::copy(&mut from, &mut copy).map_err(io_at(copy.path()))?;
        let mut options = options;
        options.copy = false;
        let path = copy.path().to_owned();
        let mut staged = self.stage_file(&path, options, progress)?;
        if !matches!(staged.entry.places[..], [Place::Inline(_)]) {
            copy.as_file().sync_all().map_err(io_at(&path))?;
            staged.entry.places = vec![Place::Blob];
            staged.blob = Some(copy);
        }
        let added = staged.added();
        if !options.only_hash {
            self.commit(vec![staged], &[added.id])?;
        }
        Ok(added)
    }

    /// Hashes a file and prepares what the store needs to serve it.
    pub fn stage_file(
        &self,
        path: &Path,
        options: AddOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Staged, StoreError> {
        if !fs::metadata(path).map_err(io_at(path))?.is_file() {
            return Err(StoreError::NotAFile(path.to_owned()));
        }
        let file = open_regular(path).map_err(io_at(path))?;
        let before = stamp(&file).map_err(io_at(path))?;
        let size = before.0;
        let staged = if size <= INLINE {
            let mut bytes = Vec::with_capacity(size as usize);
            let limit = (&file).take(INLINE + 1).read_to_end(&mut bytes);
            limit.map_err(io_at(path))?;
            progress(bytes.len() as u64);
            stage_inline(Kind::File, bytes)
        } else {
            self.stage_large(path, &file, before, options, progress)?
        };
        let after = stamp(&file).map_err(io_at(path))?;
        if after != before || staged.entry.size != size {
            return Err(StoreError::Changed(path.to_owned()));
        }
        Ok(staged)
    }

    fn stage_large(
        &self,
        path: &Path,
        file: &File,
        (size, modified): (u64, i128),
        options: AddOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Staged, StoreError> {
        let outboard = self.temporary()?;
        let blob = if options.copy && !options.only_hash { Some(self.temporary()?) } else { None };
        let copy = blob.as_ref().map(NamedTempFile::as_file);
        if let Some(copy) = copy {
            // What is a hole in the file stays one in the copy.
            copy.set_len(size).map_err(io_at(path))?;
        }
        let hashed = hash_file(file, size.min(MAX_SIZE), outboard.as_file(), copy, progress);
        let (root, _) = hashed.map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => StoreError::Changed(path.to_owned()),
            _ => io_at(path)(error),
        })?;
        let place =
            if blob.is_some() { Place::Blob } else { Place::File { path: absolute(path)?, modified } };
        if !options.only_hash {
            for file in [Some(&outboard), blob.as_ref()].into_iter().flatten() {
                file.as_file().sync_all().map_err(io_at(file.path()))?;
            }
        }
        Ok(Staged {
            entry: Entry { id: ContentId::file(root), size, places: vec![place] },
            outboard: Some(outboard),
            blob,
        })
    }

    /// Prepares bytes in memory, such as a directory's listing.
    pub fn stage_bytes(&self, kind: Kind, bytes: Vec<u8>) -> Result<Staged, StoreError> {
        if bytes.len() as u64 <= INLINE {
            return Ok(stage_inline(kind, bytes));
        }
        let outboard = self.temporary()?;
        let blob = self.temporary()?;
        let size = bytes.len() as u64;
        let root = hash_reader(&bytes[..], size, outboard.as_file(), &mut |_| ());
        let root = root.map_err(io_at(outboard.path()))?;
        blob.as_file().write_all(&bytes).map_err(io_at(blob.path()))?;
        for file in [&outboard, &blob] {
            file.as_file().sync_all().map_err(io_at(file.path()))?;
        }
        Ok(Staged {
            entry: Entry { id: ContentId::new(kind, *root.as_bytes()), size, places: vec![Place::Blob] },
            outboard: Some(outboard),
            blob: Some(blob),
        })
    }

    /// A file that was downloaded to `path` with its hash tree in `outboard`; the
    /// caller vouches that both were verified against `id`.
    pub fn stage_verified(
        &self,
        id: ContentId,
        path: &Path,
        outboard: NamedTempFile,
    ) -> Result<Staged, StoreError> {
        let file = File::open(path).map_err(io_at(path))?;
        let (size, modified) = stamp(&file).map_err(io_at(path))?;
        if size <= INLINE {
            let bytes = fs::read(path).map_err(io_at(path))?;
            if bytes.len() as u64 > INLINE || blake3::hash(&bytes) != id.root() {
                return Err(StoreError::Changed(path.to_owned()));
            }
            return Ok(stage_inline(id.kind(), bytes));
        }
        outboard.as_file().sync_all().map_err(io_at(outboard.path()))?;
        Ok(Staged {
            entry: Entry { id, size, places: vec![Place::File { path: absolute(path)?, modified }] },
            outboard: Some(outboard),
            blob: None,
        })
    }

    /// A file for the hash tree of a download that shall be served afterwards.
    pub fn outboard_file(&self) -> Result<NamedTempFile, StoreError> {
        self.temporary()
    }

    /// Makes staged content known and pins `pins`, all of it or nothing.
    pub fn commit(&self, staged: Vec<Staged>, pins: &[ContentId]) -> Result<(), StoreError> {
        self.change(|tables| {
            for mut item in staged {
                let hash = *item.entry.id.hash();
                // Files first: metadata never names what is not there. The same content
                // put twice replaces a file by an equal one.
                if let Some(outboard) = item.outboard.take() {
                    persist(outboard, &self.outboard_path(&hash))?;
                }
                if let Some(blob) = item.blob.take() {
                    persist(blob, &self.blob_path(&hash))?;
                }
                if let Some(older) = tables.entry(&hash)? {
                    // A directory's listing put as a file stays a directory.
                    if older.id.is_directory() {
                        item.entry.id = older.id;
                    }
                    item.entry.merge(older);
                }
                tables.put(&item.entry)?;
            }
            sync_dir(&self.outboard_path(&[0; 32]));
            sync_dir(&self.blob_path(&[0; 32]));
            pins.iter().try_for_each(|id| tables.pin(id))
        })
    }
}

fn stage_inline(kind: Kind, bytes: Vec<u8>) -> Staged {
    Staged {
        entry: Entry {
            id: ContentId::new(kind, *blake3::hash(&bytes).as_bytes()),
            size: bytes.len() as u64,
            places: vec![Place::Inline(bytes)],
        },
        outboard: None,
        blob: None,
    }
}

fn persist(file: NamedTempFile, to: &Path) -> Result<(), StoreError> {
    file.persist(to).map(drop).map_err(|error| io_at(to)(error.error))
}

fn absolute(path: &Path) -> Result<PathBuf, StoreError> {
    fs::canonicalize(path).map_err(io_at(path))
}
