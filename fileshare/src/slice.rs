//! Windows of content as self-verifying slices.
//!
//! A slice is the part of the hash tree that proves a [`Window`], in pre-order:
//! for each inner node on the way the hashes of its two children (64 bytes), for
//! each leaf its bytes. It is what bao-tree writes for the same range, without a
//! size prefix: the size is proven once, by a [`size proof`](encode_size_proof).
//! A slice has exactly one valid form and length.

use std::{
    fs::File,
    io::{self, IoSlice},
};

use bao_tree::{
    ChunkNum, ChunkRanges,
    io::{
        BaoContentItem, DecodeError, EncodeError,
        sync::{DecodeResponseIter, Outboard, ReadAt, encode_ranges_validated},
    },
};
use blake3::Hash;
use bytes::Bytes;

use crate::{
    holes,
    outboard::{FileOutboard, Nodes},
    tree::{
        GROUP, MAX_SIZE, PAIR, geometry, groups, hash_zeros, leaf_hash, left_groups, parent_hash, parse_pair,
    },
};

/// Largest window that one request may ask for, in bytes.
pub const MAX_WINDOW: u64 = 8 * 1024 * 1024;
/// Window that downloads ask for unless told otherwise, in bytes.
pub const DEFAULT_WINDOW: u64 = 4 * 1024 * 1024;
/// Largest window of zeros, in bytes: whoever checks it hashes that much.
pub const MAX_ZEROS: u64 = 1 << 30;
/// Longest size proof: the last chunk and the way to it.
pub const MAX_SIZE_PROOF: usize = 1024 + 64 * PAIR as usize;

/// Part of some content: starts at a multiple of 16 KiB and ends at one or at the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Window {
    offset: u64,
    len: u64,
    /// Nothing but zeros: its slice is the way to it, and the rest is computed.
    zeros: bool,
}

/// Why an offset and a length are not a window.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WindowError {
    #[error("a window starts and ends at a multiple of 16 KiB or at the end, not {0}..{1}")]
    Unaligned(u64, u64),
    #[error("a window has at most 8 MiB, not {0} bytes")]
    TooLong(u64),
    #[error("a window has at least one byte")]
    Empty,
    #[error("window {offset} + {len} lies outside of {size} bytes")]
    Outside { offset: u64, len: u64, size: u64 },
}

impl Window {
    /// The window of `len` bytes from `offset` of content with `size` bytes.
    /// Only empty content has an empty window.
    pub fn new(offset: u64, len: u64, size: u64) -> Result<Self, WindowError> {
        let outside = WindowError::Outside { offset, len, size };
        if size > MAX_SIZE {
            return Err(outside);
        }
        if len > MAX_WINDOW {
            return Err(WindowError::TooLong(len));
        }
        let end = match offset.checked_add(len) {
            Some(end) if end <= size => end,
            _ => return Err(outside),
        };
        if len == 0 && size > 0 {
            return Err(WindowError::Empty);
        }
        let aligned = offset.is_multiple_of(GROUP) && (end.is_multiple_of(GROUP) || end == size);
        if !aligned {
            return Err(WindowError::Unaligned(offset, end));
        }
        Ok(Window { offset, len, zeros: false })
    }

    /// A window that holds zeros only, of at most [`MAX_ZEROS`] bytes.
    pub fn zeros(offset: u64, len: u64, size: u64) -> Result<Self, WindowError> {
        if len > MAX_ZEROS {
            return Err(WindowError::TooLong(len));
        }
        // All but the length is as with any other window: its first and last leaf say so.
        let end = offset.checked_add(len).filter(|end| *end <= size);
        let end = end.ok_or(WindowError::Outside { offset, len, size })?;
        if len == 0 {
            return Err(WindowError::Empty);
        }
        let aligned = offset.is_multiple_of(GROUP) && (end.is_multiple_of(GROUP) || end == size);
        if !aligned || size > MAX_SIZE {
            return Err(WindowError::Unaligned(offset, end));
        }
        Ok(Window { offset, len, zeros: true })
    }

    pub const fn is_zeros(&self) -> bool {
        self.zeros
    }

    pub const fn offset(&self) -> u64 {
        self.offset
    }

    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Only the window of empty content is empty.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub const fn end(&self) -> u64 {
        self.offset + self.len
    }

    fn first_group(&self) -> u64 {
        self.offset / GROUP
    }

    fn end_group(&self) -> u64 {
        self.end().div_ceil(GROUP).max(1)
    }

    fn chunks(&self) -> ChunkRanges {
        if self.len == 0 {
            return ChunkRanges::all();
        }
        ChunkRanges::from(ChunkNum::full_chunks(self.offset)..ChunkNum::chunks(self.end()))
    }
}

/// Why a slice could not be made, or is not one of the content asked for.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SliceError {
    /// The content on disk is not what it was when it was added.
    #[error("the content no longer matches its id at byte {offset}")]
    ContentChanged { offset: u64 },
    /// The outboard on disk does not belong to the id.
    #[error("the hash tree on disk does not match its id")]
    OutboardCorrupt,
    /// The slice has another length than this window's slice.
    #[error("the slice has {got} bytes, but this window takes exactly {expected}")]
    Length { expected: u64, got: u64 },
    /// The slice does not hash to the id.
    #[error("the slice does not match the id at byte {offset}")]
    Mismatch { offset: u64 },
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<EncodeError> for SliceError {
    fn from(error: EncodeError) -> Self {
        match error {
            EncodeError::LeafHashMismatch(chunk) => SliceError::ContentChanged { offset: chunk.to_bytes() },
            EncodeError::ParentHashMismatch(_) => SliceError::OutboardCorrupt,
            // The file has become shorter.
            EncodeError::Io(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                SliceError::ContentChanged { offset: u64::MAX }
            }
            EncodeError::Io(error) => SliceError::Io(error),
            other => SliceError::Io(io::Error::other(other)),
        }
    }
}

/// Exact length in bytes of the slice for `window` of content with `size` bytes.
pub fn encoded_len(size: u64, window: Window) -> u64 {
    fn inner(first: u64, count: u64, from: u64, to: u64, zeros: bool) -> u64 {
        let end = first + count;
        if end <= from || first >= to {
            return 0;
        }
        if from <= first && end <= to {
            return if zeros { 0 } else { count - 1 };
        }
        let left = left_groups(count);
        1 + inner(first, left, from, to, zeros) + inner(first + left, count - left, from, to, zeros)
    }
    let nodes = inner(0, groups(size), window.first_group(), window.end_group(), window.zeros);
    if window.zeros { nodes * PAIR } else { window.len + nodes * PAIR }
}

/// Encodes a window, checking every byte of it against the outboard's root on the
/// way: changed or rotten content is an error, never a wrong slice.
pub fn encode(data: impl ReadAt, outboard: impl Outboard, window: Window) -> Result<Vec<u8>, SliceError> {
    encode_after(Vec::new(), data, outboard, window)
}

/// The same behind what `out` holds already, so that an answer is built in one buffer.
pub fn encode_after(
    mut out: Vec<u8>,
    data: impl ReadAt,
    outboard: impl Outboard,
    window: Window,
) -> Result<Vec<u8>, SliceError> {
    let expected = encoded_len(outboard.tree().size(), window);
    let start = out.len();
    out.reserve_exact(expected as usize);
    encode_ranges_validated(data, outboard, &window.chunks(), &mut out)?;
    let got = (out.len() - start) as u64;
    if got != expected {
        return Err(SliceError::Length { expected, got });
    }
    Ok(out)
}

/// The slice of a window of zeros: the way to it, checked against the root. That there are zeros is for the
/// caller to know; whoever gets the slice computes it.
pub fn encode_zeros(
    mut out: Vec<u8>,
    outboard: &FileOutboard<'_>,
    window: Window,
) -> Result<Vec<u8>, SliceError> {
    fn way(
        out: &mut Vec<u8>,
        outboard: &FileOutboard<'_>,
        (first, count, node): (u64, u64, u64),
        window: Window,
        hash: Hash,
    ) -> Result<(), SliceError> {
        let end = first + count;
        let outside = first >= window.end_group() || end <= window.first_group();
        if outside || (first >= window.first_group() && end <= window.end_group()) {
            return Ok(());
        }
        let pair = outboard.node(node)?;
        let (left, right) = parse_pair(&pair);
        let is_root = first == 0 && count == groups(outboard.size());
        if parent_hash(&left, &right, is_root) != hash {
            return Err(SliceError::OutboardCorrupt);
        }
        out.extend_from_slice(&pair);
        let left_count = left_groups(count);
        way(out, outboard, (first, left_count, node + 1), window, left)?;
        way(out, outboard, (first + left_count, count - left_count, node + left_count), window, right)
    }
    let all = (0, groups(outboard.size()), 0);
    way(&mut out, outboard, all, window, Outboard::root(outboard))?;
    Ok(out)
}

/// A slice whose every byte has been checked.
#[derive(Clone, Debug)]
pub struct Verified {
    window: Window,
    /// The leaves in order; they share the slice's buffer.
    leaves: Vec<Bytes>,
    nodes: Nodes,
}

/// Checks a slice against the id's hash and the (proven) size. Copies no content.
///
/// # Errors
/// [`SliceError::Length`] or [`SliceError::Mismatch`]: the sender is at fault.
pub fn decode(root: Hash, size: u64, window: Window, slice: &Bytes) -> Result<Verified, SliceError> {
    let expected = encoded_len(size, window);
    let got = slice.len() as u64;
    if got != expected {
        return Err(SliceError::Length { expected, got });
    }
    let mut decoding = Decoding {
        size,
        window,
        rest: slice.clone(),
        leaves: if window.zeros {
            Vec::new()
        } else {
            Vec::with_capacity(window.len.div_ceil(GROUP) as usize)
        },
        nodes: Nodes::default(),
    };
    decoding.subtree(0, groups(size), 0, root)?;
    Ok(Verified { window, leaves: decoding.leaves, nodes: decoding.nodes })
}

struct Decoding {
    size: u64,
    window: Window,
    rest: Bytes,
    leaves: Vec<Bytes>,
    nodes: Nodes,
}

impl Decoding {
    /// Checks `count` leaves from `first` on, whose root is stored at index `node`.
    fn subtree(&mut self, first: u64, count: u64, node: u64, hash: Hash) -> Result<(), SliceError> {
        if first >= self.window.end_group() || first + count <= self.window.first_group() {
            return Ok(());
        }
        let is_root = first == 0 && count == groups(self.size);
        let offset = first * GROUP;
        let inside = first >= self.window.first_group() && first + count <= self.window.end_group();
        if self.window.zeros && inside {
            // The nodes below are not kept: whoever needs them computes them again.
            if hash_zeros(first, count, self.size, is_root, &mut Vec::new()) != hash {
                return Err(SliceError::Mismatch { offset });
            }
            return Ok(());
        }
        if count == 1 {
            let leaf = self.take((self.size - offset).min(GROUP) as usize)?;
            if leaf_hash(first, &leaf, is_root) != hash {
                return Err(SliceError::Mismatch { offset });
            }
            self.leaves.push(leaf);
            return Ok(());
        }
        let bytes = self.take(PAIR as usize)?;
        let mut pair = [0; PAIR as usize];
        pair.copy_from_slice(&bytes);
        let (left, right) = parse_pair(&pair);
        if parent_hash(&left, &right, is_root) != hash {
            return Err(SliceError::Mismatch { offset });
        }
        self.nodes.push(node, &pair);
        let left_count = left_groups(count);
        self.subtree(first, left_count, node + 1, left)?;
        self.subtree(first + left_count, count - left_count, node + left_count, right)
    }

    fn take(&mut self, len: usize) -> Result<Bytes, SliceError> {
        if self.rest.len() < len {
            return Err(SliceError::Length {
                expected: encoded_len(self.size, self.window),
                got: encoded_len(self.size, self.window) - self.rest.len() as u64,
            });
        }
        Ok(self.rest.split_to(len))
    }
}

impl Verified {
    pub const fn window(&self) -> Window {
        self.window
    }

    /// The hash tree's nodes on the way, for an outboard of one's own.
    pub const fn nodes(&self) -> &Nodes {
        &self.nodes
    }

    /// The window's bytes as far as they lie within `from..to` (offsets in the
    /// content), in order, without copying.
    /// A window of zeros has none.
    pub fn bytes_within(&self, from: u64, to: u64) -> Vec<Bytes> {
        let mut at = self.window.offset;
        let mut parts = Vec::with_capacity(self.leaves.len());
        for leaf in &self.leaves {
            let end = at + leaf.len() as u64;
            let (start, stop) = (from.clamp(at, end), to.clamp(at, end));
            if start < stop {
                parts.push(leaf.slice((start - at) as usize..(stop - at) as usize));
            }
            at = end;
        }
        parts
    }

    /// Writes the window's bytes within `from..to` to `file`, in which `from` is byte 0.
    /// Zeros become a hole.
    pub fn write_to(&self, file: &File, from: u64, to: u64) -> io::Result<()> {
        if self.window.zeros {
            let (start, end) = (self.window.offset.clamp(from, to), self.window.end().clamp(from, to));
            return holes::make_hole(file, start - from, end - start);
        }
        let parts = self.bytes_within(from, to);
        let start = self.window.offset.max(from) - from;
        write_parts(file, start, &parts)
    }
}

/// Leaves written per system call, 256 KiB. Larger writes make the kernel look for larger pieces of
/// fresh memory, which costs ten times as much where that has to come from a hypervisor.
const WRITTEN: usize = 16;

/// Writes the parts one after the other from `at` on.
/// Does not touch the file's cursor, so windows can be written concurrently.
fn write_parts(file: &File, mut at: u64, parts: &[Bytes]) -> io::Result<()> {
    let mut slices: Vec<IoSlice<'_>> = parts.iter().map(|part| IoSlice::new(part)).collect();
    let mut slices = &mut slices[..];
    while !slices.is_empty() {
        let some = &slices[..slices.len().min(WRITTEN)];
        match rustix::io::pwritev(file, some, at) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                at += n as u64;
                IoSlice::advance_slices(&mut slices, n);
            }
            Err(rustix::io::Errno::INTR) => (),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

fn last_chunk(size: u64) -> ChunkRanges {
    let end = ChunkNum::chunks(size);
    if end.0 <= 1 {
        return ChunkRanges::all();
    }
    ChunkRanges::from(ChunkNum(end.0 - 1)..end)
}

/// Proves the content's size: the last chunk (at most 1 KiB) and the way to it.
///
/// BLAKE3 hashes the position of a chunk with it, so a chunk that verifies as the
/// last one of `size` bytes fixes `size`.
pub fn encode_size_proof(data: impl ReadAt, outboard: impl Outboard) -> Result<Vec<u8>, SliceError> {
    let mut out = Vec::new();
    let ranges = last_chunk(outboard.tree().size());
    encode_ranges_validated(data, outboard, &ranges, &mut out)?;
    Ok(out)
}

/// Checks a size proof.
///
/// # Errors
/// [`SliceError::Mismatch`] if the content under `root` does not have `size` bytes.
pub fn verify_size_proof(root: Hash, size: u64, proof: &[u8]) -> Result<(), SliceError> {
    let wrong = || SliceError::Mismatch { offset: size };
    if size > MAX_SIZE || proof.len() > MAX_SIZE_PROOF {
        return Err(wrong());
    }
    let mut rest = proof;
    let mut seen = 0;
    let ranges = last_chunk(size);
    for item in DecodeResponseIter::new(root, geometry(size), &mut rest, &ranges) {
        match item {
            Ok(BaoContentItem::Leaf(leaf)) => seen = leaf.offset + leaf.data.len() as u64,
            Ok(BaoContentItem::Parent(_)) => (),
            Err(DecodeError::Io(error)) => return Err(SliceError::Io(error)),
            Err(_) => return Err(wrong()),
        }
    }
    if seen == size && rest.is_empty() { Ok(()) } else { Err(wrong()) }
}
