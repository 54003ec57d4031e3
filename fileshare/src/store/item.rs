//! An item opened for serving.

use std::{fs::File, io, os::unix::fs::MetadataExt, path::PathBuf};

use bao_tree::io::sync::ReadAt;
use bytes::Bytes;

use super::{Entry, Place, Store, StoreError, io_at, open_regular, stamp};
use crate::{
    holes::{self, Holes},
    id::ContentId,
    outboard::FileOutboard,
    part::UNIT,
    slice::{self, DEFAULT_WINDOW, SliceError, Window},
    tree::outboard_len,
};

/// Content and hash tree of one item, open and checked for size and time. Slices are
/// made from it by several threads at once.
#[derive(Debug)]
pub struct Item {
    id: ContentId,
    size: u64,
    data: Data,
    /// None if the tree has a single leaf.
    outboard: Option<(PathBuf, File)>,
}

#[derive(Debug)]
enum Data {
    Inline(Vec<u8>),
    File(PathBuf, File),
}

/// bao-tree reads by position from a trait of its own.
struct Reader<'a>(&'a Data);

impl ReadAt for Reader<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        match self.0 {
            Data::Inline(bytes) => bytes.as_slice().read_at(offset, buffer),
            Data::File(_, file) => std::os::unix::fs::FileExt::read_at(file, buffer, offset),
        }
    }
}

impl Store {
    /// Opens an item, from the first of its places that still has it.
    ///
    /// # Errors
    /// [`StoreError::Lost`] if none has: the user moved or changed the file.
    /// [`StoreError::Corrupt`] if the hash tree is missing or cut short.
    pub fn item(&self, entry: &Entry) -> Result<Item, StoreError> {
        let mut why = String::from("it has no place");
        for place in &entry.places {
            match self.open_place(entry, place) {
                Ok(data) => {
                    return Ok(Item {
                        id: entry.id,
                        size: entry.size,
                        data,
                        outboard: self.open_outboard(entry)?,
                    });
                }
                Err(error) => why = error,
            }
        }
        Err(StoreError::Lost { id: entry.id, why })
    }

    fn open_place(&self, entry: &Entry, place: &Place) -> Result<Data, String> {
        let (path, modified) = match place {
            Place::Inline(bytes) => return Ok(Data::Inline(bytes.clone())),
            Place::Blob => (self.blob_path(entry.id.hash()), None),
            Place::File { path, modified } => (path.clone(), Some(*modified)),
        };
        let shown = path.display();
        let file = open_regular(&path).map_err(|error| format!("{shown}: {error}"))?;
        let (size, time) = stamp(&file).map_err(|error| format!("{shown}: {error}"))?;
        if size != entry.size || modified.is_some_and(|modified| modified != time) {
            return Err(format!("{shown} has changed since it was put"));
        }
        Ok(Data::File(path, file))
    }

    fn open_outboard(&self, entry: &Entry) -> Result<Option<(PathBuf, File)>, StoreError> {
        let expected = outboard_len(entry.size);
        if expected == 0 {
            return Ok(None);
        }
        let path = self.outboard_path(entry.id.hash());
        let corrupt = |why: String| StoreError::Corrupt { path: path.clone(), why };
        let file = File::open(&path).map_err(|error| match error.kind() {
            io::ErrorKind::NotFound => corrupt("the hash tree is missing".into()),
            _ => io_at(&path)(error),
        })?;
        let len = file.metadata().map_err(io_at(&path))?.len();
        if len != expected {
            return Err(corrupt(format!("the hash tree has {len} bytes instead of {expected}")));
        }
        Ok(Some((path, file)))
    }
}

impl Item {
    pub const fn id(&self) -> ContentId {
        self.id
    }

    pub const fn size(&self) -> u64 {
        self.size
    }

    /// The slice for a window. Every byte is checked on the way; a file that has changed
    /// is an error.
    pub fn encode(&self, window: Window) -> Result<Vec<u8>, StoreError> {
        self.encode_after(Vec::new(), window)
    }

    /// The same behind what `out` holds already.
    pub fn encode_after(&self, out: Vec<u8>, window: Window) -> Result<Vec<u8>, StoreError> {
        self.unchanged()?;
        self.with_outboard(|data, outboard| slice::encode_after(out, data, outboard, window))
    }

    /// The slice for a window of zeros behind what `out` holds already; `None` if it is no hole here.
    pub fn encode_zeros_after(&self, out: Vec<u8>, window: Window) -> Result<Option<Vec<u8>>, StoreError> {
        self.unchanged()?;
        let Data::File(path, file) = &self.data else { return Ok(None) };
        let hole = holes::is_hole(file, window.offset(), window.end(), self.size).map_err(io_at(path))?;
        if !hole {
            return Ok(None);
        }
        self.with_outboard(|_, outboard| slice::encode_zeros(out, &outboard, window)).map(Some)
    }

    /// Whether it seems to have holes worth asking for; may be wrong.
    pub fn seems_sparse(&self) -> bool {
        let Data::File(_, file) = &self.data else { return false };
        file.metadata()
            .is_ok_and(|metadata| metadata.blocks().saturating_mul(512).saturating_add(UNIT) <= self.size)
    }

    /// Units that are holes, from unit `from` on: at most `most` runs, and where to go on.
    pub fn holes(&self, from: u64, most: usize) -> Result<(Holes, Option<u64>), StoreError> {
        match &self.data {
            Data::File(path, file) => Holes::of_file(file, self.size, from, most).map_err(io_at(path)),
            Data::Inline(_) => Ok((Holes::default(), None)),
        }
    }

    /// The proof of the content's size.
    pub fn size_proof(&self) -> Result<Vec<u8>, StoreError> {
        self.unchanged()?;
        self.with_outboard(|data, outboard| slice::encode_size_proof(data, outboard))
    }

    /// The window's content, verified.
    pub fn read(&self, window: Window) -> Result<slice::Verified, StoreError> {
        let encoded = Bytes::from(self.encode(window)?);
        Ok(slice::decode(self.id.root(), self.size, window, &encoded)?)
    }

    /// Everything, verified. For listings and tests: the caller bounds the size.
    pub fn read_all(&self) -> Result<Vec<u8>, StoreError> {
        let mut all = Vec::new();
        let mut at = 0;
        loop {
            let len = DEFAULT_WINDOW.min(self.size - at);
            let window =
                Window::new(at, len, self.size).map_err(|error| SliceError::Io(io::Error::other(error)))?;
            for part in self.read(window)?.bytes_within(0, self.size) {
                all.extend_from_slice(&part);
            }
            at += len;
            if at >= self.size {
                return Ok(all);
            }
        }
    }

    fn with_outboard<T>(
        &self,
        work: impl FnOnce(Reader<'_>, FileOutboard<'_>) -> Result<T, SliceError>,
    ) -> Result<T, StoreError> {
        let file = self.outboard.as_ref().map(|(_, file)| file);
        let outboard = FileOutboard::new(self.id.root(), self.size, file, 0);
        work(Reader(&self.data), outboard).map_err(|error| match (error, &self.outboard) {
            (SliceError::OutboardCorrupt, Some((path, _))) => {
                StoreError::Corrupt { path: path.clone(), why: "the hash tree does not match its id".into() }
            }
            (other, _) => StoreError::Slice(other),
        })
    }

    /// A file cut short or written to since it was opened is noticed before hashing;
    /// the hash notices everything else.
    fn unchanged(&self) -> Result<(), StoreError> {
        let Data::File(path, file) = &self.data else {
            return Ok(());
        };
        let (size, _) = stamp(file).map_err(io_at(path))?;
        if size < self.size {
            return Err(StoreError::Changed(path.clone()));
        }
        Ok(())
    }
}
