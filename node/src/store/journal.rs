//! The journal: what the ledger has written since the database was last brought up to date.
//!
//! Most rows live for a second: a request's row is written, changed and removed before anybody reads
//! it. So a commit appends its writes here, with one sync, and only what is left of them after
//! megabytes goes into the database. The file is a ring: once the database holds what its beginning
//! says, groups are written from there again. Where the first group that the database lacks begins is
//! known to the database; the chain goes on behind each group, or at the start of the file.
//!
//! A group is one commit: a header of 64 bytes and the writes, padded to whole blocks. Groups are
//! numbered from 1 for ever, and each is begun only after the one before it is durable. Therefore
//! the first group that does not read well is the end if no later one exists: a write that was
//! interrupted, of which nobody was told. With a later one in the file it is damage. Which group was the
//! last that was durable is noted in a file of its own, after each: so the last one too is either whole, or
//! was never durable, or is damaged and known to be. This mark is not synced; after a power cut it
//! may be missing or an earlier one, and then the last group alone is taken at its word.

mod device;

use std::io::{self, SeekFrom};
use std::path::Path;

use por_core::{Table, Write};

use super::error::StoreError;

use device::BLOCK;
pub(super) use device::{Blocks, Device, Files, file, left_behind};
#[cfg(test)]
pub(super) use {device::mark_file, tests::in_small_blocks};

/// Bytes of a header, and of a mark.
const HEADER: usize = 64;
const MAGIC: [u8; 8] = *b"por/jrn2";
/// Of groups that were padded to 64 bytes, with marks among them: still read, not written any more.
const MAGIC_1: [u8; 8] = *b"por/jrn1";
/// Bytes of the file beyond which it is cut when nothing in it is needed.
const KEEP: u64 = 64 << 20;
/// Zeros are written this far ahead: a sync of bytes that the file has already need not make a new
/// length durable as well, which takes as long again.
const AHEAD: usize = 1 << 20;
/// Bytes of the buffer that are kept between groups.
const KEEP_BUFFER: usize = 4 << 20;

/// Length in a mark, which is else a header: the group of that number is durable.
const MARK: u64 = u64::MAX;

#[cfg(test)]
mod tests;

/// Which journal it is: random, known to the database. Checksums are keyed with it, so that the
/// journal of another database is never taken for this one's.
pub(super) type JournalId = [u8; 32];

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
    buffer: Blocks,
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
    /// Groups of its kind begin at multiples of this.
    align: usize,
}

impl Header {
    fn new(sequence: u64, len: u64, checksum: [u8; 32]) -> Header {
        Header { sequence, len, checksum, align: BLOCK }
    }

    fn encode(&self, id: &JournalId) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let magic = if self.align == BLOCK { MAGIC } else { MAGIC_1 };
        bytes[..8].copy_from_slice(&magic);
        bytes[8..16].copy_from_slice(&self.sequence.to_le_bytes());
        bytes[16..24].copy_from_slice(&self.len.to_le_bytes());
        bytes[24..56].copy_from_slice(&self.checksum);
        let sum = blake3::keyed_hash(id, &bytes[..56]);
        bytes[56..].copy_from_slice(&sum.as_bytes()[..8]);
        bytes
    }

    fn decode(bytes: &[u8; HEADER], id: &JournalId) -> Option<Header> {
        let align = match *bytes.first_chunk()? {
            MAGIC => BLOCK,
            MAGIC_1 => HEADER,
            _ => return None,
        };
        if blake3::keyed_hash(id, &bytes[..56]).as_bytes()[..8] != bytes[56..] {
            return None;
        }
        let mut header = Header { sequence: 0, len: 0, checksum: [0; 32], align };
        let mut number = [0; 8];
        number.copy_from_slice(&bytes[8..16]);
        header.sequence = u64::from_le_bytes(number);
        number.copy_from_slice(&bytes[16..24]);
        header.len = u64::from_le_bytes(number);
        header.checksum.copy_from_slice(&bytes[24..56]);
        Some(header)
    }

    fn is_mark(&self) -> bool {
        self.len == MARK
    }

    /// Bytes of the whole group.
    fn padded(&self) -> u64 {
        (HEADER as u64).saturating_add(self.len).next_multiple_of(self.align as u64)
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
            buffer: Blocks::new(BLOCK),
            failed: false,
        };
        journal.len = journal.device.seek(SeekFrom::End(0))?;
        journal.replay_from(start, &mut take)?;
        if start > 0 {
            journal.replay_from(0, &mut take)?;
        }
        journal.look_for_later()?;
        // The caller brings the database up to date, hence from the start.
        journal.buffer = Blocks::new(BLOCK);
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
            position += header.padded();
        }
        Ok(())
    }

    /// The group at `position`, its writes in the buffer; `None` if there is no sound one.
    fn read_group(&mut self, position: u64, len: u64) -> io::Result<Option<Header>> {
        let mut bytes = [0; HEADER];
        if len.saturating_sub(position) < HEADER as u64 {
            return Ok(None);
        }
        self.device.seek(SeekFrom::Start(position))?;
        self.device.read_exact(&mut bytes)?;
        let Some(header) = Header::decode(&bytes, &self.id).filter(|header| !header.is_mark()) else {
            return Ok(None);
        };
        if header.len > len - position - HEADER as u64 {
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
            for bytes in chunk[..part].as_chunks().0 {
                self.compare(bytes)?;
            }
            position += part as u64;
        }
        let mark = self.device.read_mark()?;
        mark.first_chunk().map_or(Ok(()), |mark| self.compare(mark))
    }

    /// What may be a later header, or a mark.
    fn compare(&self, bytes: &[u8; HEADER]) -> Result<(), JournalError> {
        let Some(header) = Header::decode(bytes, &self.id) else { return Ok(()) };
        let durable = if header.is_mark() { header.sequence } else { header.sequence.saturating_sub(1) };
        if durable <= self.sequence {
            return Ok(());
        }
        let lost = self.sequence + 1;
        Err(JournalError::Damaged(format!("group {lost} does not read well, and {durable} was durable")))
    }

    /// Adds a write to the next group.
    pub(super) fn add(&mut self, write: &Write) {
        if self.buffer.is_empty() {
            self.buffer.resize(HEADER, 0);
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
        let end = self.position + self.buffer.len().next_multiple_of(BLOCK) as u64;
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
        let (sequence, len) = (self.sequence + 1, (self.buffer.len() - HEADER) as u64);
        let header = Header::new(sequence, len, checksum(&self.id, &self.buffer[HEADER..]));
        self.buffer[..HEADER].copy_from_slice(&header.encode(&self.id));
        pad(&mut self.buffer);
        self.device.write_at(self.position, &self.buffer)?;
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
        let mut zeros = Blocks::with_capacity(BLOCK, AHEAD);
        (0..AHEAD / BLOCK).for_each(|_| zeros.extend_from_slice(&[0; BLOCK]));
        match self.device.write_at(end, &zeros) {
            Ok(()) => self.len += AHEAD as u64,
            // The group is written all the same; when there is no place for the next one, that one will say so.
            Err(error) => tracing::debug!(%error, "the journal grows group by group"),
        }
    }

    /// Notes that the last group is durable.
    fn mark(&mut self) {
        let mark = Header::new(self.sequence, MARK, [0; 32]).encode(&self.id);
        // The group is durable with or without it, and a disk that is full now will say so again.
        if let Err(error) = self.device.write_mark(&mark) {
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

/// Fills up the last block.
fn pad(buffer: &mut Blocks) {
    let missing = buffer.len().next_multiple_of(BLOCK) - buffer.len();
    buffer.extend_from_slice(&[0; BLOCK][..missing]);
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
        take(Write { table, key: key.into(), value });
        bytes = rest;
    }
    Some(())
}
