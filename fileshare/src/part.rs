//! A download under way: `NAME.part` beside the target and `NAME.part.state`.
//!
//! The state file holds what is being downloaded, two bitmaps with one bit per MiB,
//! and the outboard as far as it is known:
//!
//! - a *written* bit says that the MiB was verified and handed to the operating
//!   system; it survives a crash of this process, not one of the machine;
//! - a *durable* bit says that the MiB was synced to disk before the bit was set, or is a hole that was
//!   never written.
//!
//! A resumed download trusts durable bits, hashes again only what is merely written
//! (at most what arrived since the last checkpoint), and fetches the rest. So neither
//! are gigabytes hashed before anything happens, nor is paid content paid for twice.
//!
//! The target itself appears by one rename when everything is there, never before.

mod durable;
mod paths;
mod span;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use bao_tree::io::sync::{self, encode_ranges_validated};
use bao_tree::{ChunkNum, ChunkRanges};

pub use self::paths::{Paths, with_suffix};
use self::span::{Bits, HEADER, MAGIC};
pub use self::span::{Span, UNIT};
use crate::{
    exit::{Exit, Failure},
    holes::Holes,
    landing::{FileId, Files},
    outboard::FileOutboard,
    slice::{MAX_ZEROS, Verified, Window, WindowError},
    tree::{GROUP, PAIR, groups, hash_zeros, left_groups, outboard_len},
};

const BITMAPS_AT: u64 = 4096;
/// What a state file begins with until its header is there.
const BEGINNING: [u8; MAGIC.len()] = *b"fileshare begins";

/// What goes wrong with a download's files.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PartError {
    #[error("{0} already exists")]
    Exists(PathBuf),
    #[error("{0} is a folder, and what is fetched is a file")]
    Folder(PathBuf),
    #[error("{0} is no folder, and what is fetched is one")]
    NoFolder(PathBuf),
    #[error("{0} is a device, a pipe or a socket, which nothing replaces")]
    Special(PathBuf),
    #[error("{path} holds another download, of {id}")]
    OtherDownload { path: PathBuf, id: String },
    #[error("{0} is there and is no partial download")]
    Foreign(PathBuf),
    #[error("another process is downloading to {0}")]
    InUse(PathBuf),
    #[error("{0} needs {1} more bytes than its disk has free")]
    DiskFull(PathBuf, u64),
    #[error("the download is not complete: {missing} of {total} bytes are missing")]
    Incomplete { missing: u64, total: u64 },
    #[error("the disk of {0} did not keep what was written")]
    Lost(PathBuf),
    #[error("the range {0}..{1} lies outside of the content's {2} bytes")]
    Range(u64, u64, u64),
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error("{path}: {error}")]
    Io { path: PathBuf, error: io::Error },
}

impl From<PartError> for Failure {
    fn from(error: PartError) -> Self {
        let what = error.to_string();
        let (exit, fix) = match &error {
            PartError::Exists(_) => (Exit::Exists, "choose another output with -o, or pass --overwrite"),
            PartError::Folder(_) => (Exit::Exists, "choose another output with -o, say a file in it"),
            PartError::Special(_) => (Exit::Exists, "choose another output; `-o - > PATH` writes to it"),
            PartError::NoFolder(_) => (Exit::Exists, "choose another output with -o, or move it away"),
            PartError::OtherDownload { .. } => {
                (Exit::Exists, "finish that download first, choose another output, or pass --overwrite")
            }
            PartError::Foreign(_) => {
                (Exit::Exists, "move it away, choose another output with -o, or pass --overwrite")
            }
            PartError::InUse(_) => (Exit::Retryable, "wait for it, or choose another output"),
            PartError::DiskFull(..) => {
                (Exit::DiskFull, "free some space and run the same command again; what is verified is kept")
            }
            PartError::Incomplete { .. } => {
                (Exit::Retryable, "run the same command again; it continues where it stopped")
            }
            PartError::Lost(_) => (
                Exit::Other,
                "see to the disk, then run the same command again; what is lost is fetched anew",
            ),
            PartError::Range(..) => (Exit::Usage, "`fileshare stat ID` shows the size"),
            PartError::Window(_) => (Exit::Fatal, ""),
            PartError::Io { path, error } => return Failure::io(path.display(), error),
        };
        Failure::new(exit, what, fix)
    }
}

/// The files of a download under way. Methods block; run them off the async threads.
#[derive(Debug)]
pub struct Part {
    span: Span,
    paths: Paths,
    data: File,
    state: File,
    bits: parking::Mutex<Progress>,
    /// Bytes that resuming had to hash.
    rehashed: AtomicU64,
}

/// std's mutex, but a panic elsewhere does not spread: the bitmaps are whole at any time.
mod parking {
    use std::sync::{Mutex as Std, MutexGuard, PoisonError};

    #[derive(Debug)]
    pub struct Mutex<T>(Std<T>);

    impl<T> Mutex<T> {
        pub fn new(value: T) -> Self {
            Mutex(Std::new(value))
        }

        pub fn lock(&self) -> MutexGuard<'_, T> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner)
        }
    }
}

#[derive(Debug)]
struct Progress {
    written: Bits,
    durable: Bits,
    /// Bytes of the span that are written.
    done: u64,
    /// The disk did not keep what was written: see [`Part::checkpoint`].
    lost: bool,
}

impl Part {
    /// Starts or resumes the download of `span` to `target`.
    ///
    /// With `overwrite`, an existing target is replaced at the end, and the rest of
    /// another download to the same name is dropped.
    pub fn open(target: &Path, span: Span, overwrite: bool) -> Result<Self, PartError> {
        Part::open_sparse(target, span, overwrite, 0)
    }

    /// The same for content of which `zeros` bytes will be holes, and take no space.
    pub fn open_sparse(target: &Path, span: Span, overwrite: bool, zeros: u64) -> Result<Self, PartError> {
        Part::open_at(Paths::beside(target), span, overwrite, zeros)
    }

    /// The same with its files under other names.
    pub fn open_at(paths: Paths, span: Span, overwrite: bool, zeros: u64) -> Result<Self, PartError> {
        match paths.target.symlink_metadata() {
            // Nothing would give it the name at the end.
            Ok(there) if there.is_dir() => return Err(PartError::Folder(paths.target)),
            Ok(there) if is_special(&there) => return Err(PartError::Special(paths.target)),
            Ok(_) if !overwrite => return Err(PartError::Exists(paths.target)),
            _ => {}
        }
        let state = lock_state(&paths.state, &paths.target, overwrite)?;
        if !overwrite && let Some(theirs) = foreign(&state, &paths)? {
            if theirs != paths.state {
                // Made just now, to be locked.
                let _ = fs::remove_file(&paths.state);
            }
            return Err(PartError::Foreign(theirs));
        }
        let data = open_file(&paths.data)?;
        no_writers(&data, &paths.data, &paths.target)?;
        let part = Part {
            bits: parking::Mutex::new(Progress {
                written: Bits::new(span.units()),
                durable: Bits::new(span.units()),
                done: 0,
                lost: false,
            }),
            span,
            paths,
            data,
            state,
            rehashed: AtomicU64::new(0),
        };
        if part.belongs(overwrite)? {
            part.resume()?;
        } else {
            part.start()?;
        }
        match part.check_space(zeros) {
            Err(error) if part.done() == 0 => {
                part.discard();
                Err(error)
            }
            Err(error) => Err(error),
            Ok(()) => Ok(part),
        }
    }

    /// Gives the download up and removes its files.
    pub fn discard(self) {
        let _ = fs::remove_file(&self.paths.data);
        let _ = fs::remove_file(&self.paths.state);
    }

    /// Whether the files on disk belong to this download.
    fn belongs(&self, overwrite: bool) -> Result<bool, PartError> {
        let mut header = [0; HEADER];
        if self.state.read_exact_at(&mut header, 0).is_err() {
            return Ok(false);
        }
        let whole = self.data_len()? == self.span.len();
        match Span::parse(&header) {
            Some(span) if span == self.span => Ok(whole),
            Some(span) if !overwrite => {
                Err(PartError::OtherDownload { path: self.paths.data.clone(), id: span.id.to_string() })
            }
            _ => Ok(false),
        }
    }

    fn data_len(&self) -> Result<u64, PartError> {
        let metadata = self.data.metadata().map_err(io_at(&self.paths.data))?;
        Ok(metadata.len())
    }

    fn start(&self) -> Result<(), PartError> {
        let write = || {
            self.state.set_len(0)?;
            self.state.set_len(self.outboard_at())?;
            // Should this be interrupted, the files are known to be a download's.
            self.state.write_all_at(&BEGINNING, 0)?;
            self.state.sync_all()?;
            self.data.set_len(0)?;
            self.data.set_len(self.span.len())?;
            self.data.sync_all()?;
            // Last, so that a header vouches for bitmaps that were cleared before it.
            self.state.write_all_at(&self.span.header(), 0)?;
            self.state.sync_all()
        };
        write().map_err(io_at(&self.paths.state))
    }

    fn resume(&self) -> Result<(), PartError> {
        let mut progress = self.bits.lock();
        let len = progress.written.0.len();
        let read = |at: u64, bits: &mut Bits| self.state.read_exact_at(&mut bits.0, at);
        read(BITMAPS_AT, &mut progress.durable).map_err(io_at(&self.paths.state))?;
        read(BITMAPS_AT + len as u64, &mut progress.written).map_err(io_at(&self.paths.state))?;
        for unit in 0..self.span.units() {
            let durable = progress.durable.get(unit);
            let present = durable || (progress.written.get(unit) && self.unit_verifies(unit));
            progress.written.set(unit, present);
            if present {
                let (from, to) = self.span.unit_bytes(unit);
                progress.done += to - from;
            }
        }
        Ok(())
    }

    /// Hashes a unit that was written but perhaps never reached the disk.
    fn unit_verifies(&self, unit: u64) -> bool {
        let (from, to) = self.span.unit_bytes(unit);
        // The edges of a range may be parts of groups, which cannot be checked alone.
        let whole = from.is_multiple_of(GROUP) && (to.is_multiple_of(GROUP) || to == self.span.size);
        if !whole || from == to {
            return false;
        }
        self.rehashed.fetch_add(to - from, Ordering::Relaxed);
        let ranges = ChunkRanges::from(ChunkNum::full_chunks(from)..ChunkNum::chunks(to));
        let outboard = self.outboard();
        let data = Shifted(&self.data, self.span.start);
        encode_ranges_validated(data, outboard, &ranges, io::sink()).is_ok()
    }

    fn check_space(&self, zeros: u64) -> Result<(), PartError> {
        let missing = (self.span.len() - self.done()).saturating_sub(zeros);
        // Not every file system can tell; then the write itself will.
        let Ok(disk) = rustix::fs::fstatvfs(&self.data) else {
            return Ok(());
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        match missing.checked_sub(free) {
            Some(short) if short > 0 => Err(PartError::DiskFull(self.paths.target.clone(), short)),
            _ => Ok(()),
        }
    }

    fn outboard_at(&self) -> u64 {
        let bitmaps = 2 * self.span.units().div_ceil(8);
        (BITMAPS_AT + bitmaps).next_multiple_of(4096)
    }

    fn outboard(&self) -> FileOutboard<'_> {
        let root = self.span.id.root();
        FileOutboard::new(root, self.span.size, Some(&self.state), self.outboard_at())
    }

    /// Which units of a download are missing, without touching it; `None` if there is
    /// nothing of it. For prices: what a crash left unsynced counts as there.
    pub fn peek(paths: &Paths, span: &Span) -> Option<impl Fn(u64) -> bool + use<>> {
        let state = File::open(&paths.state).ok()?;
        let mut header = [0; HEADER];
        state.read_exact_at(&mut header, 0).ok()?;
        let data = fs::metadata(&paths.data).ok()?;
        if Span::parse(&header)? != *span || data.len() != span.len() {
            return None;
        }
        let mut written = Bits::new(span.units());
        let at = BITMAPS_AT + written.0.len() as u64;
        state.read_exact_at(&mut written.0, at).ok()?;
        Some(move |unit| !written.get(unit))
    }

    /// Lets whoever may read the file run it.
    pub fn make_executable(&self) -> Result<(), PartError> {
        let set = || {
            let mut permissions = self.data.metadata()?.permissions();
            let mode = permissions.mode();
            permissions.set_mode(mode | ((mode & 0o444) >> 2));
            self.data.set_permissions(permissions)
        };
        set().map_err(io_at(&self.paths.data))
    }

    pub const fn span(&self) -> &Span {
        &self.span
    }

    pub fn target(&self) -> &Path {
        &self.paths.target
    }

    /// Bytes of the span that are verified and written.
    pub fn done(&self) -> u64 {
        self.bits.lock().done
    }

    /// Bytes that had to be hashed again to resume: what had not been synced when the download stopped.
    pub fn rehashed(&self) -> u64 {
        self.rehashed.load(Ordering::Relaxed)
    }

    pub fn is_complete(&self) -> bool {
        let progress = self.bits.lock();
        (0..self.span.units()).all(|unit| progress.written.get(unit))
    }

    /// What is left to fetch, in order, in windows of at most `window_len` bytes.
    pub fn missing(&self, window_len: u64) -> Result<Vec<Window>, PartError> {
        self.missing_but(window_len, &Holes::default())
    }

    /// The same, holes as such.
    pub fn missing_but(&self, window_len: u64, holes: &Holes) -> Result<Vec<Window>, PartError> {
        let progress = self.bits.lock();
        let windows = self.span.windows(window_len, |unit| !progress.written.get(unit), holes)?;
        Ok(windows)
    }

    /// Writes a verified window of this content into the partial file. May be called
    /// from several threads at once. Returns the number of bytes that were new.
    pub fn write(&self, verified: &Verified) -> Result<u64, PartError> {
        verified.write_to(&self.data, self.span.start, self.span.end).map_err(io_at(&self.paths.data))?;
        verified.nodes().write_to(&self.state, self.outboard_at()).map_err(io_at(&self.paths.state))?;
        self.mark(verified.window())
    }

    /// Where [`Part::write`] writes, for another process of the same user to do the same; `None` if the
    /// paths cannot be told to it.
    pub fn files(&self) -> Option<Files> {
        let file = |path: &Path, file: &File| {
            let metadata = file.metadata().ok()?;
            let path = std::path::absolute(path).ok().filter(|path| path.to_str().is_some())?;
            Some(FileId { path, device: metadata.dev(), inode: metadata.ino() })
        };
        let data = file(&self.paths.data, &self.data)?;
        let state = file(&self.paths.state, &self.state)?;
        Some(Files { data, state, outboard_at: self.outboard_at(), span: self.span })
    }

    /// Notes that a verified window and its hash tree were written. Returns the number of bytes that were
    /// new.
    pub fn mark(&self, window: Window) -> Result<u64, PartError> {
        let mut progress = self.bits.lock();
        self.check_kept(&progress)?;
        let mut new = 0;
        let touched = self.span.units_of(window);
        for unit in touched.clone() {
            let (from, to) = self.span.unit_bytes(unit);
            let covered = window.offset() <= from && to <= window.end();
            if covered && !progress.written.get(unit) {
                progress.written.set(unit, true);
                new += to - from;
            }
            // A hole is on disk since the file has its length.
            if covered && window.is_zeros() {
                progress.durable.set(unit, true);
            }
        }
        progress.done += new;
        let bitmap = progress.written.0.len() as u64;
        if window.is_zeros() {
            self.store(&progress.durable, touched.clone(), 0)?;
        }
        self.store(&progress.written, touched, bitmap)?;
        Ok(new)
    }

    /// Writes a part of a bitmap, which lies `from` bytes behind the first.
    fn store(&self, bits: &Bits, units: Range<u64>, from: u64) -> Result<(), PartError> {
        let bytes = units.start / 8..units.end.div_ceil(8);
        let at = BITMAPS_AT + from + bytes.start;
        self.state
            .write_all_at(&bits.0[bytes.start as usize..bytes.end as usize], at)
            .map_err(io_at(&self.paths.state))
    }

    /// Gives the target its name, if and only if every byte is there.
    ///
    /// With `keep_outboard`, the hash tree goes to that file, for serving the target
    /// without hashing it again; only for a whole file.
    pub fn finish(self, overwrite: bool, keep_outboard: Option<&mut File>) -> Result<(), PartError> {
        if !self.is_complete() {
            return Err(PartError::Incomplete {
                missing: self.span.len() - self.done(),
                total: self.span.len(),
            });
        }
        self.sync(File::sync_all)?;
        if let (Some(file), true) = (keep_outboard, self.span.is_whole()) {
            let (holes, _) =
                Holes::of_file(&self.data, self.span.size, 0, usize::MAX).map_err(io_at(&self.paths.data))?;
            self.nodes_of_holes(&holes, 0, groups(self.span.size), 0).map_err(io_at(&self.paths.state))?;
            self.copy_outboard(file).map_err(io_at(&self.paths.state))?;
        }
        if overwrite {
            fs::rename(&self.paths.data, &self.paths.target).map_err(io_at(&self.paths.target))?;
        } else {
            rename_new(&self.paths.data, &self.paths.target)?;
        }
        // From here on the target is there: litter is no reason to fail.
        let _ = fs::remove_file(&self.paths.state);
        sync_dir(&self.paths.target);
        Ok(())
    }

    /// Computes the hash tree below the windows of zeros, which was not kept.
    fn nodes_of_holes(&self, holes: &Holes, first: u64, count: u64, node: u64) -> io::Result<()> {
        if holes.is_empty() || count == 1 {
            return Ok(());
        }
        let units = first * GROUP / UNIT..((first + count) * GROUP).min(self.span.size).div_ceil(UNIT);
        if count * GROUP <= MAX_ZEROS && units.clone().all(|unit| holes.contains(unit)) {
            let mut pairs = Vec::new();
            let is_root = first == 0 && count == groups(self.span.size);
            hash_zeros(first, count, self.span.size, is_root, &mut pairs);
            return self.state.write_all_at(&pairs, self.outboard_at() + node * PAIR);
        }
        // Below a unit all is data, or the unit would be a hole.
        if count * GROUP <= UNIT || !units.clone().any(|unit| holes.contains(unit)) {
            return Ok(());
        }
        let left = left_groups(count);
        self.nodes_of_holes(holes, first, left, node + 1)?;
        self.nodes_of_holes(holes, first + left, count - left, node + left)
    }

    fn copy_outboard(&self, to: &mut File) -> io::Result<()> {
        let mut from = self.state.try_clone()?;
        io::Seek::seek(&mut from, io::SeekFrom::Start(self.outboard_at()))?;
        io::copy(&mut from.take(outboard_len(self.span.size)), to)?;
        Ok(())
    }
}

/// The partial file as content: byte `start` of the content is its byte 0.
struct Shifted<'a>(&'a File, u64);

impl sync::ReadAt for Shifted<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        let at = offset.checked_sub(self.1).ok_or(io::ErrorKind::UnexpectedEof)?;
        FileExt::read_at(self.0, buffer, at)
    }
}

fn open_file(path: &Path) -> Result<File, PartError> {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).map_err(io_at(path))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> PartError {
    let path = path.to_owned();
    move |error| PartError::Io { path, error }
}

/// What lies where a download's files are to be, and is none of them. The names are not so rare that
/// nobody else would use them.
fn foreign(state: &File, paths: &Paths) -> Result<Option<PathBuf>, PartError> {
    let mut begins = [0; MAGIC.len()];
    let len = state.metadata().map_err(io_at(&paths.state))?.len();
    if state.read_exact_at(&mut begins, 0).is_ok() && [MAGIC, BEGINNING].contains(&begins) {
        return Ok(None);
    }
    if len > 0 {
        return Ok(Some(paths.state.clone()));
    }
    match paths.data.symlink_metadata() {
        Ok(metadata) if !metadata.is_file() || metadata.len() > 0 => Ok(Some(paths.data.clone())),
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_at(&paths.data)(error)),
        _ => Ok(None),
    }
}

/// Whoever writes for a download that died holds the data, until its last window is written.
fn no_writers(data: &File, path: &Path, target: &Path) -> Result<(), PartError> {
    match data.try_lock() {
        Ok(()) => data.unlock().map_err(io_at(path)),
        Err(TryLockError::WouldBlock) => Err(PartError::InUse(target.to_owned())),
        Err(TryLockError::Error(error)) => Err(io_at(path)(error)),
    }
}

/// Opens and locks the state file, for as long as the handle lives. The target is not there then, unless it
/// is to be replaced.
pub(crate) fn lock_state(path: &Path, target: &Path, overwrite: bool) -> Result<File, PartError> {
    let in_use = || PartError::InUse(target.to_owned());
    let state = open_file(path)?;
    match state.try_lock() {
        Ok(()) => (),
        Err(TryLockError::WouldBlock) => return Err(in_use()),
        Err(TryLockError::Error(error)) => return Err(io_at(path)(error)),
    }
    // Whoever held the lock before may have finished and removed the file.
    let ours = state.metadata().map_err(io_at(path))?;
    match fs::metadata(path) {
        Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => (),
        _ => return Err(in_use()),
    }
    // It has perhaps finished since its caller looked.
    if !overwrite && target.symlink_metadata().is_ok() {
        if ours.len() == 0 {
            let _ = fs::remove_file(path);
        }
        return Err(PartError::Exists(target.to_owned()));
    }
    Ok(state)
}

/// Neither a file, a folder nor a link: programs rely on what it is.
pub(crate) fn is_special(there: &fs::Metadata) -> bool {
    !there.is_file() && !there.is_dir() && !there.is_symlink()
}

/// Renames without replacing anything.
pub(crate) fn rename_new(from: &Path, to: &Path) -> Result<(), PartError> {
    use rustix::{fs as rfs, io::Errno};
    match rfs::renameat_with(rfs::CWD, from, rfs::CWD, to, rfs::RenameFlags::NOREPLACE) {
        Ok(()) => Ok(()),
        Err(Errno::EXIST) => Err(PartError::Exists(to.to_owned())),
        // A file system without that flag: a link refuses to replace as well.
        Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => match fs::hard_link(from, to) {
            Ok(()) => fs::remove_file(from).map_err(io_at(from)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                Err(PartError::Exists(to.to_owned()))
            }
            Err(error) => Err(io_at(to)(error)),
        },
        Err(error) => Err(io_at(to)(error.into())),
    }
}

/// Makes a rename durable, where the file system allows to sync directories.
pub(crate) fn sync_dir(path: &Path) {
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if let Ok(directory) = File::open(parent) {
        let _ = directory.sync_all();
    }
}
