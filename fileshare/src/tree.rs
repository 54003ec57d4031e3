//! The BLAKE3 hash tree in groups of 16 KiB: its shape, and hashing a file into it.
//!
//! The tree over `n` groups is BLAKE3's own: the left side holds the largest
//! power of two below `n`, the right side the rest. Inner nodes are stored as
//! pairs of child hashes in pre-order (the *outboard*, 64 bytes per node, 0.4 %
//! of the content), the layout that the crate bao-tree reads.

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::FileExt,
};

use crate::holes;
use bao_tree::{BaoTree, BlockSize};
use blake3::{
    Hash,
    hazmat::{HasherExt, Mode, merge_subtrees_non_root, merge_subtrees_root},
};

/// Bytes covered by one leaf of the outboard: 16 chunks of BLAKE3.
pub const GROUP: u64 = 16 * 1024;
/// The same as bao-tree's block size.
pub const BLOCK: BlockSize = BlockSize::from_chunk_log(4);
/// Bytes of one stored inner node: the hashes of its two children.
pub const PAIR: u64 = 64;
/// Largest content, in bytes: file offsets are signed 64-bit numbers.
pub const MAX_SIZE: u64 = i64::MAX as u64;
/// Bytes hashed at a time while a file is read; its nodes are written at once.
const PIECE: u64 = 8 * 1024 * 1024;

/// The tree's geometry for content of `size` bytes.
pub fn geometry(size: u64) -> BaoTree {
    BaoTree::new(size, BLOCK)
}

/// Number of leaves; empty content has one.
pub const fn groups(size: u64) -> u64 {
    let groups = size.div_ceil(GROUP);
    if groups == 0 { 1 } else { groups }
}

/// Length of the outboard in bytes.
pub const fn outboard_len(size: u64) -> u64 {
    (groups(size) - 1) * PAIR
}

/// Leaves on the left side of a subtree of `groups` leaves (at least 2).
pub(crate) const fn left_groups(groups: u64) -> u64 {
    1 << (u64::BITS - 1 - (groups - 1).leading_zeros())
}

/// Hash of one leaf that starts at group `group`.
pub(crate) fn leaf_hash(group: u64, data: &[u8], is_root: bool) -> Hash {
    if is_root {
        return blake3::hash(data);
    }
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(group * GROUP);
    hasher.update(data);
    Hash::from_bytes(hasher.finalize_non_root())
}

/// Hash of an inner node.
pub(crate) fn parent_hash(left: &Hash, right: &Hash, is_root: bool) -> Hash {
    let (left, right) = (left.as_bytes(), right.as_bytes());
    if is_root {
        merge_subtrees_root(left, right, Mode::Hash)
    } else {
        Hash::from_bytes(merge_subtrees_non_root(left, right, Mode::Hash))
    }
}

pub(crate) fn pair_bytes(left: &Hash, right: &Hash) -> [u8; PAIR as usize] {
    let mut pair = [0; PAIR as usize];
    pair[..32].copy_from_slice(left.as_bytes());
    pair[32..].copy_from_slice(right.as_bytes());
    pair
}

pub(crate) fn parse_pair(pair: &[u8; PAIR as usize]) -> (Hash, Hash) {
    let (mut left, mut right) = ([0; 32], [0; 32]);
    left.copy_from_slice(&pair[..32]);
    right.copy_from_slice(&pair[32..]);
    (Hash::from_bytes(left), Hash::from_bytes(right))
}

/// Reads exactly `size` bytes, hashes them once, and writes the outboard to
/// `outboard` (from its byte 0). Needs 8 MiB of memory whatever the size.
///
/// Calls `progress` with the number of bytes hashed since its last call.
///
/// # Errors
/// `UnexpectedEof` if there are fewer bytes; whatever reading or writing fails with.
pub fn hash_reader(
    data: impl Read,
    size: u64,
    outboard: &File,
    progress: &mut dyn FnMut(u64),
) -> io::Result<Hash> {
    let mut hashing = Hashing { data, size, outboard, progress, piece: Vec::new(), pairs: Vec::new() };
    hashing.subtree(0, groups(size), 0)
}

/// As [`hash_reader`] for the first `size` bytes of a file, whose holes are not read; with `copy`, its data
/// goes there too, at the same places. Returns the number of bytes that were read as well.
pub fn hash_file(
    file: &File,
    size: u64,
    outboard: &File,
    copy: Option<&File>,
    progress: &mut dyn FnMut(u64),
) -> io::Result<(Hash, u64)> {
    let data = FilePieces { file, size, copy, next: None, read: 0 };
    let mut hashing = Hashing { data, size, outboard, progress, piece: Vec::new(), pairs: Vec::new() };
    let root = hashing.subtree(0, groups(size), 0)?;
    Ok((root, hashing.data.read))
}

/// Where pieces come from, in order.
trait Pieces {
    /// Fills the buffer with what lies at `at`. False, and nothing filled, if that is zeros only.
    fn fill(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<bool>;
}

impl<R: Read> Pieces for R {
    fn fill(&mut self, _: u64, buffer: &mut [u8]) -> io::Result<bool> {
        self.read_exact(buffer)?;
        Ok(true)
    }
}

struct FilePieces<'a> {
    file: &'a File,
    size: u64,
    copy: Option<&'a File>,
    /// The next data, from its start; the file's size where there is none.
    next: Option<u64>,
    read: u64,
}

impl Pieces for FilePieces<'_> {
    fn fill(&mut self, at: u64, buffer: &mut [u8]) -> io::Result<bool> {
        let end = at + buffer.len() as u64;
        let next = match self.next.filter(|next| *next >= at) {
            Some(next) => next,
            None => holes::next_data(self.file, at, self.size)?.map_or(self.size, |(start, _)| start),
        };
        self.next = Some(next);
        if next >= end && !buffer.is_empty() {
            // A file that was cut short ends in a hole of another kind.
            if self.file.metadata()?.len() < end {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            return Ok(false);
        }
        self.file.read_exact_at(buffer, at)?;
        self.read += buffer.len() as u64;
        if let Some(copy) = self.copy {
            self.copy_data(copy, at, buffer)?;
        }
        Ok(true)
    }
}

impl FilePieces<'_> {
    /// Copies a piece that was read, but for the holes in it.
    fn copy_data(&self, copy: &File, at: u64, piece: &[u8]) -> io::Result<()> {
        let (mut from, end) = (at, at + piece.len() as u64);
        while from < end {
            let Some((start, stop)) = holes::next_data(self.file, from, self.size)? else { break };
            let (start, stop) = (start.clamp(from, end), stop.clamp(from, end));
            copy.write_all_at(&piece[(start - at) as usize..(stop - at) as usize], start)?;
            from = stop.max(from + 1);
        }
        Ok(())
    }
}

struct Hashing<'a, R> {
    data: R,
    size: u64,
    outboard: &'a File,
    progress: &'a mut dyn FnMut(u64),
    piece: Vec<u8>,
    pairs: Vec<u8>,
}

impl<R: Pieces> Hashing<'_, R> {
    /// Hashes `count` leaves from `first` on; their nodes go to `node` and after.
    fn subtree(&mut self, first: u64, count: u64, node: u64) -> io::Result<Hash> {
        let is_root = first == 0 && count == groups(self.size);
        if count <= PIECE / GROUP {
            return self.piece(first, count, node, is_root);
        }
        let left_count = left_groups(count);
        let left = self.subtree(first, left_count, node + 1)?;
        let right = self.subtree(first + left_count, count - left_count, node + left_count)?;
        self.outboard.write_all_at(&pair_bytes(&left, &right), node * PAIR)?;
        Ok(parent_hash(&left, &right, is_root))
    }

    fn piece(&mut self, first: u64, count: u64, node: u64, is_root: bool) -> io::Result<Hash> {
        let end = self.size.min((first + count) * GROUP);
        let len = (end - first * GROUP) as usize;
        self.piece.resize(len, 0);
        self.pairs.clear();
        let hash = if self.data.fill(first * GROUP, &mut self.piece)? {
            hash_piece(&self.piece, first, is_root, &mut self.pairs)
        } else {
            hash_zeros(first, count, self.size, is_root, &mut self.pairs)
        };
        self.outboard.write_all_at(&self.pairs, node * PAIR)?;
        (self.progress)(len as u64);
        Ok(hash)
    }
}

/// Hashes a subtree that lies in memory; appends its nodes in pre-order.
fn hash_piece(data: &[u8], first: u64, is_root: bool, pairs: &mut Vec<u8>) -> Hash {
    let count = groups(data.len() as u64);
    if count == 1 {
        return leaf_hash(first, data, is_root);
    }
    let left_count = left_groups(count);
    let (left_data, right_data) = data.split_at((left_count * GROUP) as usize);
    let at = pairs.len();
    pairs.extend_from_slice(&[0; PAIR as usize]);
    let left = hash_piece(left_data, first, false, pairs);
    let right = hash_piece(right_data, first + left_count, false, pairs);
    pairs[at..at + PAIR as usize].copy_from_slice(&pair_bytes(&left, &right));
    parent_hash(&left, &right, is_root)
}

/// Zeros that are hashed at a time: small enough for a core's cache.
static ZEROS: [u8; 4 * GROUP as usize] = [0; 4 * GROUP as usize];

/// Hashes `count` leaves from `first` on of content of `size` bytes, all of them zeros; appends their nodes in
/// pre-order. BLAKE3 hashes a chunk's position with it, so that no two stretches of zeros have the same hash and
/// each has to be computed.
pub(crate) fn hash_zeros(first: u64, count: u64, size: u64, is_root: bool, pairs: &mut Vec<u8>) -> Hash {
    let len = size.min((first + count) * GROUP).saturating_sub(first * GROUP);
    if let Some(zeros) = ZEROS.get(..len as usize) {
        return hash_piece(zeros, first, is_root, pairs);
    }
    let left_count = left_groups(count);
    let at = pairs.len();
    pairs.extend_from_slice(&[0; PAIR as usize]);
    let left = hash_zeros(first, left_count, size, false, pairs);
    let right = hash_zeros(first + left_count, count - left_count, size, false, pairs);
    pairs[at..at + PAIR as usize].copy_from_slice(&pair_bytes(&left, &right));
    parent_hash(&left, &right, is_root)
}

#[cfg(test)]
mod tests {
    use bao_tree::io::outboard::PreOrderMemOutboard;

    use super::*;

    fn check(size: u64) {
        let data: Vec<u8> = (0..size).map(|i| (i * 31 % 251) as u8).collect();
        let file = tempfile::tempfile().unwrap();
        let mut seen = 0;
        let root = hash_reader(&data[..], size, &file, &mut |n| seen += n).unwrap();
        assert_eq!(root, blake3::hash(&data), "size {size}");
        assert_eq!(seen, size);
        let expected = PreOrderMemOutboard::create(&data, BLOCK);
        assert_eq!(expected.root, root);
        assert_eq!(outboard_len(size), expected.data.len() as u64);
        let mut ours = vec![0; expected.data.len()];
        file.read_exact_at(&mut ours, 0).unwrap();
        assert!(ours == expected.data, "outboard differs, size {size}");
    }

    #[test]
    fn hash_and_outboard_are_those_of_blake3_and_bao_tree() {
        for size in [0, 1, 1024, 1025, GROUP - 1, GROUP, GROUP + 1, 3 * GROUP + 5] {
            check(size);
        }
        for size in [PIECE - 1, PIECE, PIECE + 1, 3 * PIECE, 5 * PIECE + GROUP + 17] {
            check(size);
        }
    }

    #[test]
    fn zeros_hash_as_if_they_were_read() {
        for size in [1, GROUP + 1, 5 * GROUP, 64 * GROUP + 17, PIECE + 3 * GROUP] {
            let data = vec![0; size as usize];
            let (mut ours, mut theirs) = (Vec::new(), Vec::new());
            let zeros = hash_zeros(0, groups(size), size, true, &mut ours);
            assert_eq!(zeros, hash_piece(&data, 0, true, &mut theirs), "size {size}");
            assert_eq!(zeros, blake3::hash(&data));
            assert!(ours == theirs);
        }
    }

    #[test]
    fn a_sparse_file_is_read_where_it_has_data() {
        let (file, copy, outboard) =
            (tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap(), tempfile::tempfile().unwrap());
        let size = 6 * PIECE + 100;
        file.set_len(size).unwrap();
        copy.set_len(size).unwrap();
        file.write_all_at(&[5; 100_000], 2 * PIECE + 17).unwrap();
        let mut seen = 0;
        let (root, read) = hash_file(&file, size, &outboard, Some(&copy), &mut |n| seen += n).unwrap();
        assert_eq!((read, seen), (PIECE, size));
        let mut bytes = vec![0; size as usize];
        copy.read_exact_at(&mut bytes, 0).unwrap();
        assert_eq!(root, blake3::hash(&bytes));
        let again = tempfile::tempfile().unwrap();
        assert_eq!(hash_reader(&bytes[..], size, &again, &mut |_| ()).unwrap(), root);
        let (mut ours, mut theirs) =
            (vec![0; outboard_len(size) as usize], vec![0; outboard_len(size) as usize]);
        outboard.read_exact_at(&mut ours, 0).unwrap();
        again.read_exact_at(&mut theirs, 0).unwrap();
        assert!(ours == theirs, "the hash trees differ");
        // Cut short meanwhile.
        file.set_len(5 * PIECE).unwrap();
        let error = hash_file(&file, size, &outboard, None, &mut |_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_short_reader_is_an_error() {
        let file = tempfile::tempfile().unwrap();
        let error = hash_reader(&[0u8; 100][..], 101, &file, &mut |_| ()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }
}
