//! A download under way: `NAME.part` beside the target and `NAME.part.state`.
//!
//! The state file holds what is being downloaded, two bitmaps with one bit per MiB,
//! and the outboard as far as it is known:
//!
//! - a *written* bit says that the MiB was verified and handed to the operating
//!   system; it survives a crash of this process, not one of the machine;
//! - a *durable* bit says that the MiB was synced to disk before the bit was set.
//!
//! A resumed download trusts durable bits, hashes again only what is merely written
//! (at most what arrived since the last checkpoint), and fetches the rest. So neither
//! are gigabytes hashed before anything happens, nor is paid content paid for twice.
//!
//! The target itself appears by one rename when everything is there, never before.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Read},
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
};

use bao_tree::io::sync::{self, encode_ranges_validated};
use bao_tree::{ChunkNum, ChunkRanges};

use crate::{
    exit::{Exit, Failure},
    id::{ContentId, ID_BYTES},
    outboard::FileOutboard,
    slice::{MAX_WINDOW, Verified, Window, WindowError},
    tree::{GROUP, outboard_len},
};

/// Bytes that one bit of the bitmaps stands for.
pub const UNIT: u64 = 1024 * 1024;
const MAGIC: [u8; 16] = *b"fileshare part 1";
/// Magic, id, size, start, end, BLAKE3 of all that.
const HEADER: usize = 16 + ID_BYTES + 3 * 8 + 32;
const BITMAPS_AT: u64 = 4096;

/// What goes wrong with a download's files.
#[derive(Debug, thiserror::Error)]
pub enum PartError {
    #[error("{0} already exists")]
    Exists(PathBuf),
    #[error("{path} holds another download, of {id}")]
    OtherDownload { path: PathBuf, id: String },
    #[error("another process is downloading to {0}")]
    InUse(PathBuf),
    #[error("{0} needs {1} more bytes than its disk has free")]
    DiskFull(PathBuf, u64),
    #[error("the download is not complete: {missing} of {total} bytes are missing")]
    Incomplete { missing: u64, total: u64 },
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
            PartError::Exists(_) => (
                Exit::Exists,
                "choose another output with -o, or pass --overwrite",
            ),
            PartError::OtherDownload { .. } => (
                Exit::Exists,
                "finish that download first, choose another output, or pass --overwrite",
            ),
            PartError::InUse(_) => (Exit::Retryable, "wait for it, or choose another output"),
            PartError::DiskFull(..) => (
                Exit::DiskFull,
                "free some space and run the same command again; what is verified is kept",
            ),
            PartError::Incomplete { .. } => (
                Exit::Retryable,
                "run the same command again; it continues where it stopped",
            ),
            PartError::Range(..) => (Exit::Usage, "`fileshare stat ID` shows the size"),
            PartError::Window(_) => (Exit::Fatal, ""),
            PartError::Io { path, error } => return Failure::io(path.display(), error),
        };
        Failure::new(exit, what, fix)
    }
}

/// What is being downloaded: `start..end` of content with `size` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub id: ContentId,
    pub size: u64,
    pub start: u64,
    pub end: u64,
}

impl Span {
    pub fn whole(id: ContentId, size: u64) -> Self {
        Span {
            id,
            size,
            start: 0,
            end: size,
        }
    }

    /// Bytes `start..end`, both offsets in the content.
    pub fn range(id: ContentId, size: u64, start: u64, end: u64) -> Result<Self, PartError> {
        if start > end || end > size {
            return Err(PartError::Range(start, end, size));
        }
        Ok(Span {
            id,
            size,
            start,
            end,
        })
    }

    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub const fn is_whole(&self) -> bool {
        self.start == 0 && self.end == self.size
    }

    const fn first_unit(&self) -> u64 {
        self.start / UNIT
    }

    /// Empty content still has one unit: its window carries the proof.
    fn units(&self) -> u64 {
        if self.is_empty() {
            return u64::from(self.size == 0);
        }
        self.end.div_ceil(UNIT) - self.first_unit()
    }

    /// The bytes of the span within this unit (counted from the first).
    fn unit_bytes(&self, unit: u64) -> (u64, u64) {
        let from = (self.first_unit() + unit) * UNIT;
        (from.max(self.start), (from + UNIT).min(self.end))
    }

    /// The units that this window has bytes of.
    fn units_of(&self, window: Window) -> Range<u64> {
        let end = window.end().div_ceil(UNIT).max(window.offset() / UNIT + 1);
        let units = |unit: u64| unit.saturating_sub(self.first_unit()).min(self.units());
        units(window.offset() / UNIT)..units(end)
    }

    /// Windows of at most `window_len` bytes that cover the units for which `missing`
    /// holds, in order. Window borders are multiples of `window_len`.
    pub fn windows(
        &self,
        window_len: u64,
        missing: impl Fn(u64) -> bool,
    ) -> Result<Vec<Window>, WindowError> {
        let step = (window_len.clamp(UNIT, MAX_WINDOW) / UNIT) * UNIT;
        let mut windows = Vec::new();
        let mut open: Option<(u64, u64)> = None;
        for unit in (0..self.units()).filter(|unit| missing(*unit)) {
            let (from, to) = self.unit_bytes(unit);
            open = match open {
                Some((start, end)) if end == from && from / step == start / step => {
                    Some((start, to))
                }
                Some(done) => {
                    windows.push(self.aligned(done)?);
                    Some((from, to))
                }
                None => Some((from, to)),
            };
        }
        if let Some(last) = open {
            windows.push(self.aligned(last)?);
        }
        Ok(windows)
    }

    fn aligned(&self, (from, to): (u64, u64)) -> Result<Window, WindowError> {
        let from = from / GROUP * GROUP;
        let to = to.next_multiple_of(GROUP).min(self.size);
        Window::new(from, to - from, self.size)
    }

    fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..16].copy_from_slice(&MAGIC);
        header[16..16 + ID_BYTES].copy_from_slice(&self.id.to_bytes());
        let numbers = [self.size, self.start, self.end];
        for (at, number) in numbers.iter().enumerate() {
            let from = 16 + ID_BYTES + at * 8;
            header[from..from + 8].copy_from_slice(&number.to_le_bytes());
        }
        let hash = blake3::hash(&header[..HEADER - 32]);
        header[HEADER - 32..].copy_from_slice(hash.as_bytes());
        header
    }

    fn parse(header: &[u8; HEADER]) -> Option<Self> {
        let (body, hash) = header.split_at(HEADER - 32);
        if blake3::hash(body) != *<&[u8; 32]>::try_from(hash).ok()? || body[..16] != MAGIC {
            return None;
        }
        let id = ContentId::from_bytes(&body[16..16 + ID_BYTES]).ok()?;
        let number = |at: usize| {
            let from = 16 + ID_BYTES + at * 8;
            let bytes = body[from..from + 8].try_into().ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        Span::range(id, number(0)?, number(1)?, number(2)?).ok()
    }
}

/// A bitmap with one bit per unit.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Bits(Vec<u8>);

impl Bits {
    fn new(units: u64) -> Self {
        Bits(vec![0; units.div_ceil(8) as usize])
    }

    fn get(&self, unit: u64) -> bool {
        self.0[(unit / 8) as usize] & (1 << (unit % 8)) != 0
    }

    fn set(&mut self, unit: u64, to: bool) {
        let bit = 1 << (unit % 8);
        if to {
            self.0[(unit / 8) as usize] |= bit;
        } else {
            self.0[(unit / 8) as usize] &= !bit;
        }
    }
}

/// The files of a download under way. Methods block; run them off the async threads.
#[derive(Debug)]
pub struct Part {
    span: Span,
    target: PathBuf,
    data_path: PathBuf,
    state_path: PathBuf,
    data: File,
    state: File,
    bits: parking::Mutex<Progress>,
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
}

/// `NAME` + `suffix`.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

impl Part {
    /// Starts or resumes the download of `span` to `target`.
    ///
    /// With `overwrite`, an existing target is replaced at the end, and the rest of
    /// another download to the same name is dropped.
    pub fn open(target: &Path, span: Span, overwrite: bool) -> Result<Self, PartError> {
        if !overwrite && target.symlink_metadata().is_ok() {
            return Err(PartError::Exists(target.to_owned()));
        }
        let (data_path, state_path) = (
            with_suffix(target, ".part"),
            with_suffix(target, ".part.state"),
        );
        let state = lock_state(&state_path, target)?;
        let data = open_file(&data_path)?;
        let part = Part {
            bits: parking::Mutex::new(Progress {
                written: Bits::new(span.units()),
                durable: Bits::new(span.units()),
                done: 0,
            }),
            span,
            target: target.to_owned(),
            data_path,
            state_path,
            data,
            state,
        };
        if part.belongs(overwrite)? {
            part.resume()?;
        } else {
            part.start()?;
        }
        match part.check_space() {
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
        let _ = fs::remove_file(&self.data_path);
        let _ = fs::remove_file(&self.state_path);
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
            Some(span) if !overwrite => Err(PartError::OtherDownload {
                path: self.data_path.clone(),
                id: span.id.to_string(),
            }),
            _ => Ok(false),
        }
    }

    fn data_len(&self) -> Result<u64, PartError> {
        let metadata = self.data.metadata().map_err(io_at(&self.data_path))?;
        Ok(metadata.len())
    }

    fn start(&self) -> Result<(), PartError> {
        let write = || {
            self.state.set_len(0)?;
            self.state.set_len(self.outboard_at())?;
            self.state.sync_all()?;
            self.data.set_len(0)?;
            self.data.set_len(self.span.len())?;
            self.data.sync_all()?;
            // Last, so that a header vouches for bitmaps that were cleared before it.
            self.state.write_all_at(&self.span.header(), 0)?;
            self.state.sync_all()
        };
        write().map_err(io_at(&self.state_path))
    }

    fn resume(&self) -> Result<(), PartError> {
        let mut progress = self.bits.lock();
        let len = progress.written.0.len();
        let read = |at: u64, bits: &mut Bits| self.state.read_exact_at(&mut bits.0, at);
        read(BITMAPS_AT, &mut progress.durable).map_err(io_at(&self.state_path))?;
        read(BITMAPS_AT + len as u64, &mut progress.written).map_err(io_at(&self.state_path))?;
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
        let whole =
            from.is_multiple_of(GROUP) && (to.is_multiple_of(GROUP) || to == self.span.size);
        if !whole || from == to {
            return false;
        }
        let ranges = ChunkRanges::from(ChunkNum::full_chunks(from)..ChunkNum::chunks(to));
        let outboard = self.outboard();
        let data = Shifted(&self.data, self.span.start);
        encode_ranges_validated(data, outboard, &ranges, io::sink()).is_ok()
    }

    fn check_space(&self) -> Result<(), PartError> {
        let missing = self.span.len() - self.done();
        // Not every file system can tell; then the write itself will.
        let Ok(disk) = rustix::fs::fstatvfs(&self.data) else {
            return Ok(());
        };
        let free = disk.f_bavail.saturating_mul(disk.f_frsize);
        match missing.checked_sub(free) {
            Some(short) if short > 0 => Err(PartError::DiskFull(self.target.clone(), short)),
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

    pub const fn span(&self) -> &Span {
        &self.span
    }

    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Bytes of the span that are verified and written.
    pub fn done(&self) -> u64 {
        self.bits.lock().done
    }

    pub fn is_complete(&self) -> bool {
        let progress = self.bits.lock();
        (0..self.span.units()).all(|unit| progress.written.get(unit))
    }

    /// What is left to fetch, in order, in windows of at most `window_len` bytes.
    pub fn missing(&self, window_len: u64) -> Result<Vec<Window>, PartError> {
        let progress = self.bits.lock();
        let windows = self
            .span
            .windows(window_len, |unit| !progress.written.get(unit))?;
        Ok(windows)
    }

    /// Writes a verified window of this content into the partial file. May be called
    /// from several threads at once. Returns the number of bytes that were new.
    pub fn write(&self, verified: &Verified) -> Result<u64, PartError> {
        let window = verified.window();
        verified
            .write_to(&self.data, self.span.start, self.span.end)
            .map_err(io_at(&self.data_path))?;
        verified
            .nodes()
            .write_to(&self.state, self.outboard_at())
            .map_err(io_at(&self.state_path))?;
        let mut progress = self.bits.lock();
        let mut new = 0;
        let touched = self.span.units_of(window);
        for unit in touched.clone() {
            let (from, to) = self.span.unit_bytes(unit);
            let covered = window.offset() <= from && to <= window.end();
            if covered && !progress.written.get(unit) {
                progress.written.set(unit, true);
                new += to - from;
            }
        }
        progress.done += new;
        self.store_written(&progress.written, touched)?;
        Ok(new)
    }

    fn store_written(&self, written: &Bits, units: Range<u64>) -> Result<(), PartError> {
        let bytes = units.start / 8..units.end.div_ceil(8);
        let at = BITMAPS_AT + written.0.len() as u64 + bytes.start;
        self.state
            .write_all_at(&written.0[bytes.start as usize..bytes.end as usize], at)
            .map_err(io_at(&self.state_path))
    }

    /// Syncs what has been written and only then marks it as durable.
    pub fn checkpoint(&self) -> Result<(), PartError> {
        let written = self.bits.lock().written.clone();
        if self.bits.lock().durable == written {
            return Ok(());
        }
        self.data.sync_data().map_err(io_at(&self.data_path))?;
        let mark = || {
            self.state.sync_data()?;
            self.state.write_all_at(&written.0, BITMAPS_AT)?;
            self.state.sync_data()
        };
        mark().map_err(io_at(&self.state_path))?;
        self.bits.lock().durable = written;
        Ok(())
    }

    /// Gives the target its name, if and only if every byte is there.
    ///
    /// With `keep_outboard`, the hash tree goes to that file, for serving the target
    /// without hashing it again; only for a whole file.
    pub fn finish(
        self,
        overwrite: bool,
        keep_outboard: Option<&mut File>,
    ) -> Result<(), PartError> {
        if !self.is_complete() {
            return Err(PartError::Incomplete {
                missing: self.span.len() - self.done(),
                total: self.span.len(),
            });
        }
        self.data.sync_all().map_err(io_at(&self.data_path))?;
        if let (Some(file), true) = (keep_outboard, self.span.is_whole()) {
            self.copy_outboard(file).map_err(io_at(&self.state_path))?;
        }
        if overwrite {
            fs::rename(&self.data_path, &self.target).map_err(io_at(&self.target))?;
        } else {
            rename_new(&self.data_path, &self.target)?;
        }
        // From here on the target is there: litter is no reason to fail.
        let _ = fs::remove_file(&self.state_path);
        sync_dir(&self.target);
        Ok(())
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
        let at = offset
            .checked_sub(self.1)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        FileExt::read_at(self.0, buffer, at)
    }
}

fn open_file(path: &Path) -> Result<File, PartError> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .open(path)
        .map_err(io_at(path))
}

fn io_at(path: &Path) -> impl FnOnce(io::Error) -> PartError {
    let path = path.to_owned();
    move |error| PartError::Io { path, error }
}

/// Opens and locks the state file, for as long as the handle lives.
fn lock_state(path: &Path, target: &Path) -> Result<File, PartError> {
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
        Ok(there) if (there.dev(), there.ino()) == (ours.dev(), ours.ino()) => Ok(state),
        _ => Err(in_use()),
    }
}

/// Renames without replacing anything.
fn rename_new(from: &Path, to: &Path) -> Result<(), PartError> {
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
