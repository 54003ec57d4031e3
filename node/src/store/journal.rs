//! The journal: what the ledger has written since the database was last brought up to date.
//!
//! Most rows live for a second: a request's row is written, changed and removed before anybody reads
//! it. So a commit appends its writes here, with one sync, and only what is left of them after
//! megabytes goes into the database. The file is a ring: once the database holds what its beginning
//! says, groups are written from there again. Where the first group that the database lacks begins is
//! known to the database; the chain goes on behind each group, or at the start of the file.
//!
//! A group is one commit: a header of 64 bytes and the writes, padded to [`ALIGN`]. Groups are
//! numbered from 1 for ever, and each is begun only after the one before it is durable. Therefore
//! the first group that does not read well is the end if no later one exists: a write that was
//! interrupted, of which nobody was told. With a later one in the file it is damage. Behind the last
//! group stands a mark, written once the group is durable: so the last one too is either whole, or
//! was never durable, or is damaged and known to be. The mark itself is not synced; after a power cut it
//! may be missing, and then the last group alone is taken at its word.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use por_core::{Table, Write};

use super::error::StoreError;

/// Groups begin at multiples of this, so that they can be found behind a damaged one.
const ALIGN: usize = 64;
const MAGIC: [u8; 8] = *b"por/jrn1";
/// Bytes of the file beyond which it is cut when nothing in it is needed.
const KEEP: u64 = 64 << 20;
/// Zeros are written this far ahead: a sync of bytes that the file has already need not make a new
/// length durable as well, which takes as long again.
const AHEAD: u64 = 1 << 20;
/// Bytes of the buffer that are kept between groups.
const KEEP_BUFFER: usize = 4 << 20;

/// Length in the header of a mark: the group of that number, which ends where the mark begins, is
/// durable.
const MARK: u64 = u64::MAX;

/// Which journal it is: random, known to the database. Checksums are keyed with it, so that the
/// journal of another database is never taken for this one's.
pub(super) type JournalId = [u8; 32];

/// Where groups are written; a file but for tests.
pub(super) trait Device: Read + Seek + Send {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()>;
    fn sync(&mut self) -> io::Result<()>;
    fn set_len(&mut self, len: u64) -> io::Result<()>;
}

impl Device for File {
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        io::Write::write_all(self, bytes)
    }
    fn sync(&mut self) -> io::Result<()> {
        self.sync_data()
    }
    fn set_len(&mut self, len: u64) -> io::Result<()> {
        File::set_len(self, len)
    }
}

/// The journal's file beside the database.
pub(super) fn file(store: &Path) -> PathBuf {
    store.with_extension("journal")
}

/// Opens the file; with `create` one that is not there is made.
pub(super) fn open(store: &Path, create: bool) -> Result<File, StoreError> {
    let path = file(store);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(create);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    match options.open(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let cause = format!("its journal {} is missing", path.display());
            Err(StoreError::damaged(store, cause))
        }
        Err(error) => Err(StoreError::io(&path, &error)),
        Ok(file) if create => {
            // That it is there must be as durable as what is in it.
            let directory = path.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
            let synced = File::open(directory).and_then(|directory| directory.sync_all());
            synced.map(|()| file).map_err(|error| StoreError::io(&path, &error))
        }
        Ok(file) => Ok(file),
    }
}

pub(super) struct Journal {
    device: Box<dyn Device>,
    id: JournalId,
    /// Number of the last group written.
    sequence: u64,
    /// Where the next group begins.
    position: u64,
    /// Length of the file.
    len: u64,
    /// Where the first group begins that may still be needed; `position` is below it after a turn to the
    /// start of the file, and must stay there.
    oldest: u64,
    buffer: Vec<u8>,
    /// A write or sync has failed. What the file holds is not known any more: a sync that is tried again
    /// may succeed without having written what the first one lost.
    failed: bool,
}

/// Why a journal could not be read.
#[derive(Debug)]
pub(super) enum JournalError {
    Io(io::Error),
    Damaged(String),
}

impl From<io::Error> for JournalError {
    fn from(error: io::Error) -> JournalError {
        JournalError::Io(error)
    }
}

impl JournalError {
    pub(super) fn at(self, store: &Path) -> StoreError {
        match self {
            JournalError::Io(error) => StoreError::io(&file(store), &error),
            JournalError::Damaged(cause) => StoreError::damaged(&file(store), cause),
        }
    }
}

struct Header {
    sequence: u64,
    len: u64,
    checksum: [u8; 32],
}

impl Header {
    fn encode(&self, id: &JournalId) -> [u8; ALIGN] {
        let mut bytes = [0; ALIGN];
        bytes[..8].copy_from_slice(&MAGIC);
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.len.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.checksum);
        let sum = blake3::keyed_hash(id, &bytes[..56]);
        bytes[56..].copy_from_slice(&sum.as_bytes()[..8]);
        bytes
    }

    fn decode(bytes: &[u8; ALIGN], id: &JournalId) -> Option<Header> {
        if bytes[..8] != MAGIC || blake3::keyed_hash(id, &bytes[..56]).as_bytes()[..8] != bytes[56..] {
            return None;
        }
        let mut header = Header { sequence: 0, len: 0, checksum: [0; 32] };
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[8..16]);
        header.sequence = u64::from_le_bytes(number);
        number.copy_from_slice(&bytes[16..24]);
        header.len = u64::from_le_bytes(number);
        header.checksum.copy_from_slice(&bytes[24..56]);
        Some(header)
    }
}

impl Journal {
    /// Reads the groups after number `since` into `take`, oldest first. `start`: where the first of them
    /// was written, or would be.
    ///
    /// # Errors
    /// The file cannot be read, or a group that was durable does not read well.
    pub(super) fn replay(
        device: Box<dyn Device>,
        id: JournalId,
        since: u64,
        start: u64,
        mut take: impl FnMut(Write),
    ) -> Result<Journal, JournalError> {
        let mut journal = Journal {
            device,
            id,
            sequence: since,
            position: 0,
            len: 0,
            oldest: 0,
            buffer: Vec::new(),
            failed: false,
        };
        journal.len = journal.device.seek(SeekFrom::End(0))?;
        journal.replay_from(start, &mut take)?;
        if start > 0 {
            journal.replay_from(0, &mut take)?;
        }
        journal.look_for_later()?;
        // The caller brings the database up to date, hence from the start.
        journal.buffer = Vec::new();
        Ok(journal)
    }

    /// Follows the chain of groups from here on, if the next one is here.
    fn replay_from(&mut self, mut position: u64, take: &mut impl FnMut(Write)) -> Result<(), JournalError> {
        while let Some(header) = self.read_group(position, self.len)? {
            if header.sequence != self.sequence.saturating_add(1) {
                break;
            }
            decode(&self.buffer, take)
                .ok_or_else(|| JournalError::Damaged(format!("group {} is malformed", header.sequence)))?;
            self.sequence = header.sequence;
            position += padded(header.len);
        }
        Ok(())
    }

    /// The group at `position`, its writes in the buffer; `None` if there is no sound one.
    fn read_group(&mut self, position: u64, len: u64) -> io::Result<Option<Header>> {
        let mut bytes = [0; ALIGN];
        if len.saturating_sub(position) < ALIGN as u64 {
            return Ok(None);
        }
        self.device.seek(SeekFrom::Start(position))?;
        self.device.read_exact(&mut bytes)?;
        let Some(header) = Header::decode(&bytes, &self.id).filter(|header| header.len != MARK) else {
            return Ok(None);
        };
        if header.len > len - position - ALIGN as u64 {
            return Ok(None);
        }
        self.buffer.resize(usize::try_from(header.len).map_err(io::Error::other)?, 0);
        self.device.read_exact(&mut self.buffer)?;
        Ok((checksum(&self.id, &self.buffer) == header.checksum).then_some(header))
    }

    /// A later group than the last one, or a mark of a later one, proves that one between them was
    /// durable and is lost.
    fn look_for_later(&mut self) -> Result<(), JournalError> {
        let mut chunk = vec![0; 1 << 20];
        let mut position = 0;
        self.device.seek(SeekFrom::Start(0))?;
        while position < self.len {
            let part = usize::try_from((self.len - position).min(chunk.len() as u64)).unwrap_or(chunk.len());
            self.device.read_exact(&mut chunk[..part])?;
            for bytes in chunk[..part].as_chunks::<ALIGN>().0 {
                let Some(header) = Header::decode(bytes, &self.id) else { continue };
                let marked = header.len == MARK;
                let durable = if marked { header.sequence } else { header.sequence.saturating_sub(1) };
                if durable > self.sequence {
                    let lost = self.sequence + 1;
                    return Err(JournalError::Damaged(format!(
                        "group {lost} does not read well, and {durable} was durable"
                    )));
                }
            }
            position += part as u64;
        }
        Ok(())
    }

    /// Adds a write to the next group.
    pub(super) fn add(&mut self, write: &Write) {
        if self.buffer.is_empty() {
            self.buffer.resize(ALIGN, 0);
        }
        let value = write.value.as_deref();
        let absent = u8::from(value.is_none());
        self.buffer.extend_from_slice(&[write.table as u8, absent]);
        // Keys and values are far below 4 GiB: the queue is.
        self.buffer.extend_from_slice(&(write.key.len() as u32).to_le_bytes());
        self.buffer.extend_from_slice(&(value.map_or(0, <[u8]>::len) as u32).to_le_bytes());
        self.buffer.extend_from_slice(&write.key);
        self.buffer.extend_from_slice(value.unwrap_or_default());
    }

    /// Whether what was added has a place that is not needed any more.
    pub(super) fn fits(&self) -> bool {
        // With the mark behind it.
        let end = self.position + (self.buffer.len().next_multiple_of(ALIGN) + ALIGN) as u64;
        self.position >= self.oldest || end <= self.oldest
    }

    /// Makes what was added durable, as one group, which has to fit. After an error nothing more is
    /// written: every later call fails.
    pub(super) fn commit(&mut self) -> io::Result<()> {
        if self.failed {
            return Err(io::Error::other("an earlier write to the journal has failed"));
        }
        if self.buffer.is_empty() {
            return Ok(());
        }
        // Until the group is durable, and for good if it never is.
        self.failed = true;
        let (sequence, len) = (self.sequence + 1, (self.buffer.len() - ALIGN) as u64);
        let header = Header { sequence, len, checksum: checksum(&self.id, &self.buffer[ALIGN..]) };
        self.buffer[..ALIGN].copy_from_slice(&header.encode(&self.id));
        let end = self.buffer.len().next_multiple_of(ALIGN);
        self.buffer.resize(end, 0);
        self.device.seek(SeekFrom::Start(self.position))?;
        self.device.write_all(&self.buffer)?;
        let end = self.position + self.buffer.len() as u64;
        self.write_ahead(end);
        self.device.sync()?;
        self.failed = false;
        self.position = end;
        self.sequence = sequence;
        self.mark();
        self.buffer.clear();
        self.buffer.shrink_to(KEEP_BUFFER);
        Ok(())
    }

    /// Lengthens the file, if the group has reached its end.
    fn write_ahead(&mut self, end: u64) {
        if end <= self.len {
            return;
        }
        self.len = end;
        let zeros = vec![0; AHEAD as usize];
        match self.device.write_all(&zeros) {
            Ok(()) => self.len += AHEAD,
            // The group is written all the same; when there is no place for the next one, that one will say so.
            Err(error) => tracing::debug!(%error, "the journal grows group by group"),
        }
    }

    /// Notes behind the group that it is durable; the next group takes the mark's place.
    fn mark(&mut self) {
        let mark = Header { sequence: self.sequence, len: MARK, checksum: [0; 32] }.encode(&self.id);
        // The group is durable with or without it, and a disk that is full now will say so again.
        let written = self.device.seek(SeekFrom::Start(self.position));
        if let Err(error) = written.and_then(|_| self.device.write_all(&mark)) {
            tracing::warn!(%error, "the end of the journal cannot be marked");
        }
    }

    /// Where the next group begins.
    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// Goes on at the start of the file, if there are `room` bytes that are not needed any more.
    pub(super) fn turn(&mut self, room: u64) {
        if self.position >= self.oldest && self.oldest >= room {
            self.position = 0;
        }
    }

    /// The database durably holds all groups before the one that begins here.
    pub(super) fn release(&mut self, oldest: u64) {
        self.oldest = oldest;
    }

    /// Number of the last group.
    pub(super) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// The database holds all groups durably: goes on from the start of the file.
    pub(super) fn restart(&mut self) -> io::Result<()> {
        if self.len > KEEP {
            self.device.set_len(KEEP)?;
            self.len = KEEP;
        }
        (self.position, self.oldest) = (0, 0);
        Ok(())
    }
}

fn padded(len: u64) -> u64 {
    (ALIGN as u64).saturating_add(len).next_multiple_of(ALIGN as u64)
}

fn checksum(id: &JournalId, payload: &[u8]) -> [u8; 32] {
    *blake3::keyed_hash(id, payload).as_bytes()
}

fn decode(mut bytes: &[u8], take: &mut impl FnMut(Write)) -> Option<()> {
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_first_chunk::<10>()?;
        let table = match head[0] {
            1 => Table::Channels,
            2 => Table::Exchanges,
            3 => Table::Meta,
            _ => return None,
        };
        let key_len = u32::from_le_bytes([head[2], head[3], head[4], head[5]]) as usize;
        let len = u32::from_le_bytes([head[6], head[7], head[8], head[9]]) as usize;
        let (key, rest) = rest.split_at_checked(key_len)?;
        let (value, rest) = rest.split_at_checked(len)?;
        let value = (head[1] == 0).then(|| value.to_vec());
        take(Write { table, key: key.to_vec(), value });
        bytes = rest;
    }
    Some(())
}
