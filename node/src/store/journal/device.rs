//! The files under a journal.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use aligned_vec::{AVec, ConstAlign};

use super::super::error::StoreError;
use super::HEADER;

/// What a disk reads and writes at once. Bytes are written past the page cache, by whole blocks from
/// memory that begins at a multiple of it: for groups of 16 KiB that takes a third less time than to
/// write and sync cached pages, and half of the CPU.
pub(super) const BLOCK: usize = 4096;

/// Bytes where a disk can take them from.
pub(in crate::store) type Blocks = AVec<u8, ConstAlign<BLOCK>>;

/// Where groups are written; files but for tests. Its length is a multiple of [`BLOCK`], once it was
/// written to.
pub(in crate::store) trait Device: Read + Seek + Send {
    /// Both the place and the number of bytes are multiples of [`BLOCK`].
    fn write_at(&mut self, place: u64, blocks: &Blocks) -> io::Result<()>;
    /// Makes what was written durable, but for the mark.
    fn sync(&mut self) -> io::Result<()>;
    fn set_len(&mut self, len: u64) -> io::Result<()>;
    /// The mark as it was last written, or what is left of it.
    fn read_mark(&mut self) -> io::Result<Vec<u8>>;
    fn write_mark(&mut self, mark: &[u8; HEADER]) -> io::Result<()>;
}

/// The journal beside the database.
pub(in crate::store) fn file(store: &Path) -> PathBuf {
    store.with_extension("journal")
}

/// Which group was the last that was durable.
pub(in crate::store) fn mark_file(store: &Path) -> PathBuf {
    store.with_extension("mark")
}

/// What is here of a store's journal, if anything was ever written to it.
pub(in crate::store) fn left_behind(store: &Path) -> Result<Option<PathBuf>, StoreError> {
    for path in [file(store), mark_file(store)] {
        match std::fs::symlink_metadata(&path) {
            Ok(found) if found.len() > 0 => return Ok(Some(path)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(StoreError::io(&path, &error)),
        }
    }
    Ok(None)
}

/// The two files of a journal.
#[derive(Debug)]
pub(in crate::store) struct Files {
    file: File,
    /// The same file, past the page cache, where its file system can do that.
    direct: Option<File>,
    mark: File,
}

impl Files {
    /// Opens the journal of a store; with `create` one that is not there is made.
    pub fn open(store: &Path, create: bool) -> Result<Files, StoreError> {
        let path = file(store);
        let mut options = options();
        match options.create(create).open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let cause = format!("its journal {} is missing", path.display());
                Err(StoreError::damaged(store, cause))
            }
            Err(error) => Err(StoreError::io(&path, &error)),
            Ok(file) => {
                let mark_path = mark_file(store);
                let mark = options.create(true).open(&mark_path);
                let mark = mark.map_err(|error| StoreError::io(&mark_path, &error))?;
                if create {
                    sync_directory(&path).map_err(|error| StoreError::io(&path, &error))?;
                }
                Ok(Files { file, direct: open_direct(&path), mark })
            }
        }
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// That a file is there must be as durable as what is in it.
fn sync_directory(path: &Path) -> io::Result<()> {
    let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(directory).and_then(|directory| directory.sync_all())
}

#[cfg(target_os = "linux")]
fn open_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(path);
    file.inspect_err(|error| tracing::debug!(%error, "the journal is written through the page cache")).ok()
}

#[cfg(not(target_os = "linux"))]
fn open_direct(_: &Path) -> Option<File> {
    None
}

fn write_at(mut file: &File, place: u64, bytes: &[u8]) -> io::Result<()> {
    file.seek(SeekFrom::Start(place))?;
    file.write_all(bytes)
}

impl Read for Files {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        self.file.read(bytes)
    }
}

impl Seek for Files {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.file.seek(to)
    }
}

impl Device for Files {
    fn write_at(&mut self, place: u64, blocks: &Blocks) -> io::Result<()> {
        if let Some(direct) = &self.direct {
            match write_at(direct, place, blocks) {
                // What its file system asks for beyond whole blocks, it says only now.
                Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                    tracing::debug!(%error, "the journal is written through the page cache");
                    self.direct = None;
                }
                result => return result,
            }
        }
        write_at(&self.file, place, blocks)
    }

    fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn set_len(&mut self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }

    fn read_mark(&mut self) -> io::Result<Vec<u8>> {
        let mut mark = Vec::new();
        self.mark.seek(SeekFrom::Start(0))?;
        (&self.mark).take(HEADER as u64).read_to_end(&mut mark)?;
        Ok(mark)
    }

    fn write_mark(&mut self, mark: &[u8; HEADER]) -> io::Result<()> {
        write_at(&self.mark, 0, mark)
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;

    /// A file system that refuses to write past the cache costs nothing but time.
    #[test]
    fn what_cannot_be_written_directly_is_written_through_the_cache() {
        let dir = tempfile::tempdir().expect("directory");
        let store = dir.path().join("store.redb");
        let mut files = Files::open(&store, true).expect("create");
        // Says of whatever is not a number that it is invalid.
        let refuses = OpenOptions::new().write(true).open("/proc/self/oom_score_adj").expect("open");
        files.direct = Some(refuses);
        let blocks = Blocks::from_iter(BLOCK, std::iter::repeat_n(7, 2 * BLOCK));
        files.write_at(BLOCK as u64, &blocks).expect("written");
        files.sync().expect("synced");
        assert!(files.direct.is_none(), "it is not asked again");
        let written = std::fs::read(file(&store)).expect("read");
        assert_eq!(written.len(), 3 * BLOCK);
        assert_eq!(written[BLOCK..], blocks[..]);
    }
}
