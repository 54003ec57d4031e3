//! Bodies as verified streams: the BLAKE3 tree in pre-order over groups of 16 KiB.
//!
//! A subtree of more than one group is its two children's chaining values (64 bytes), then the
//! left child, then the right one; a group is its bytes. With the root hash and the length known
//! from a signature every piece is checked as it arrives, and the position in the encoded stream
//! alone says which piece is meant. Equal in layout to Bao with 16 KiB groups and no length header.

use blake3::hazmat::{HasherExt, Mode, left_subtree_len, merge_subtrees_non_root, merge_subtrees_root};
use bytes::{Bytes, BytesMut};
use por_types::Hash;

/// Bytes of a group, the smallest unit that can be verified.
pub const GROUP_LEN: u64 = 16 << 10;

/// Bytes of an inner node.
pub const NODE_LEN: u64 = 64;

type Cv = [u8; 32];

/// Number of groups of a body; an empty body has one empty group.
fn groups(body_len: u64) -> u64 {
    body_len.div_ceil(GROUP_LEN).max(1)
}

/// Bytes of the verified stream of a body, saturating.
pub fn encoded_len(body_len: u64) -> u64 {
    body_len.saturating_add((groups(body_len) - 1).saturating_mul(NODE_LEN))
}

/// Bytes of the left child of a subtree of `len` bytes (more than one group).
fn left_len(len: u64) -> u64 {
    left_subtree_len(len)
}

fn group_cv(data: &[u8], start: u64) -> Cv {
    let mut hasher = blake3::Hasher::new();
    hasher.set_input_offset(start);
    hasher.update(data);
    hasher.finalize_non_root()
}

/// Sender's side: hands out slices of the encoded stream of a body.
#[derive(Clone, Debug)]
pub struct Encoder {
    body: Bytes,
    /// Inner nodes in pre-order.
    nodes: Bytes,
    root: Hash,
}

/// A piece of the stream: where it starts and what it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    /// Inner node with this pre-order index.
    Node(u64),
    /// Body bytes from here.
    Group { start: u64, len: u64 },
}

impl Encoder {
    /// Hashes the whole body once.
    pub fn new(body: Bytes) -> Encoder {
        let count = groups(body.len() as u64) - 1;
        let mut nodes = BytesMut::zeroed((count * NODE_LEN) as usize);
        let root = if count == 0 {
            *blake3::hash(&body).as_bytes()
        } else {
            let (left, right) = fill_nodes(&body, 0, &mut nodes);
            *merge_subtrees_root(&left, &right, Mode::Hash).as_bytes()
        };
        Encoder { body, nodes: nodes.freeze(), root: Hash(root) }
    }

    /// BLAKE3 of the body.
    pub fn root(&self) -> Hash {
        self.root
    }

    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// Bytes of the encoded stream.
    pub fn len(&self) -> u64 {
        encoded_len(self.body.len() as u64)
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// At most `max` bytes of the stream from `offset` on, without copying: up to the end of the
    /// piece (inner node or group) that holds `offset`. Empty at the end.
    pub fn read(&self, offset: u64, max: u64) -> Bytes {
        if offset >= self.len() {
            return Bytes::new();
        }
        let (place, start) = locate(self.body.len() as u64, offset);
        let skip = offset - start;
        let (source, from, len) = match place {
            Place::Node(index) => (&self.nodes, index * NODE_LEN, NODE_LEN),
            Place::Group { start, len } => (&self.body, start, len),
        };
        let end = (from + len).min((from + skip).saturating_add(max));
        source.slice((from + skip) as usize..end as usize)
    }
}

/// Writes the inner nodes of the subtree of `data` (more than one group) into `nodes` and returns
/// the chaining values of its children. Recursion is as deep as the tree: at most 50 levels.
fn fill_nodes(data: &[u8], start: u64, nodes: &mut [u8]) -> (Cv, Cv) {
    let left = left_len(data.len() as u64);
    let (left_data, right_data) = data.split_at(left as usize);
    let (node, rest) = nodes.split_at_mut(NODE_LEN as usize);
    let (left_nodes, right_nodes) = rest.split_at_mut(((groups(left) - 1) * NODE_LEN) as usize);
    let left_cv = subtree_cv(left_data, start, left_nodes);
    let right_cv = subtree_cv(right_data, start + left, right_nodes);
    node[..32].copy_from_slice(&left_cv);
    node[32..].copy_from_slice(&right_cv);
    (left_cv, right_cv)
}

fn subtree_cv(data: &[u8], start: u64, nodes: &mut [u8]) -> Cv {
    if data.len() as u64 <= GROUP_LEN {
        return group_cv(data, start);
    }
    let (left, right) = fill_nodes(data, start, nodes);
    merge_subtrees_non_root(&left, &right, Mode::Hash)
}

/// The piece that holds `offset`, and where in the stream it begins. `offset` is inside the stream.
fn locate(body_len: u64, offset: u64) -> (Place, u64) {
    let (mut start, mut len) = (0, body_len);
    let (mut position, mut node) = (0, 0);
    while len > GROUP_LEN {
        if offset < position + NODE_LEN {
            return (Place::Node(node), position);
        }
        let left = left_len(len);
        let left_end = position + NODE_LEN + encoded_len(left);
        if offset < left_end {
            (position, node, len) = (position + NODE_LEN, node + 1, left);
        } else {
            node += groups(left);
            (position, start, len) = (left_end, start + left, len - left);
        }
    }
    (Place::Group { start, len }, position)
}

/// Why a stream was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StreamError {
    #[error("bytes do not belong to the signed body")]
    Mismatch,
    #[error("fragment leaves a gap")]
    Gap,
    #[error("bytes past the end of the body")]
    PastEnd,
}

/// A verified part of the encoded stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Position in the encoded stream.
    pub offset: u64,
    pub bytes: Bytes,
    /// True for body bytes, false for inner nodes.
    pub is_body: bool,
}

/// Receiver's side: takes the stream in any cut and gives out what is verified.
#[derive(Clone, Debug)]
pub struct Decoder {
    /// Subtrees still to come, the next one last.
    stack: Vec<Subtree>,
    /// Bytes of the piece under way, fewer than it needs.
    partial: BytesMut,
    /// Verified bytes of the stream.
    verified: u64,
    len: u64,
}

#[derive(Clone, Copy, Debug)]
struct Subtree {
    expected: Cv,
    start: u64,
    len: u64,
    is_root: bool,
}

impl Subtree {
    fn piece_len(&self) -> u64 {
        if self.len > GROUP_LEN { NODE_LEN } else { self.len }
    }

    fn children(&self, node: &[u8]) -> Option<(Subtree, Subtree)> {
        let left_cv: Cv = node.get(..32)?.try_into().ok()?;
        let right_cv: Cv = node.get(32..)?.try_into().ok()?;
        let found = if self.is_root {
            *merge_subtrees_root(&left_cv, &right_cv, Mode::Hash).as_bytes()
        } else {
            merge_subtrees_non_root(&left_cv, &right_cv, Mode::Hash)
        };
        let left = left_len(self.len);
        (found == self.expected).then_some((
            Subtree { expected: left_cv, start: self.start, len: left, is_root: false },
            Subtree { expected: right_cv, start: self.start + left, len: self.len - left, is_root: false },
        ))
    }

    fn is_group(&self, data: &[u8]) -> bool {
        let found = if self.is_root { *blake3::hash(data).as_bytes() } else { group_cv(data, self.start) };
        found == self.expected
    }
}

impl Decoder {
    /// For a body of `body_len` bytes whose BLAKE3 hash is `root`. An empty body is verified here.
    pub fn new(root: Hash, body_len: u64) -> Result<Decoder, StreamError> {
        let whole = Subtree { expected: root.0, start: 0, len: body_len, is_root: true };
        let mut stack = vec![whole];
        if body_len == 0 {
            if !whole.is_group(&[]) {
                return Err(StreamError::Mismatch);
            }
            stack.clear();
        }
        Ok(Decoder { stack, partial: BytesMut::new(), verified: 0, len: encoded_len(body_len) })
    }

    /// Bytes of the encoded stream that are verified; a restarted stream may begin here.
    pub fn verified(&self) -> u64 {
        self.verified
    }

    /// Position of the next byte that is needed.
    pub fn position(&self) -> u64 {
        self.verified + self.partial.len() as u64
    }

    pub fn is_complete(&self) -> bool {
        self.stack.is_empty()
    }

    /// Bytes of the whole encoded stream.
    pub fn encoded_len(&self) -> u64 {
        self.len
    }

    /// Forgets bytes that are not verified yet; the stream goes on at [`Decoder::verified`].
    pub fn rewind(&mut self) {
        self.partial.clear();
    }

    /// Takes `data` at `offset`, skips what is known already, appends what is verified to `out`.
    /// After an error nothing of this stream's sender can be trusted; `out` holds only good pieces.
    pub fn push(&mut self, offset: u64, mut data: Bytes, out: &mut Vec<Piece>) -> Result<(), StreamError> {
        let position = self.position();
        if offset > position {
            return Err(StreamError::Gap);
        }
        let known = (position - offset).min(data.len() as u64);
        let _ = data.split_to(known as usize);
        while !data.is_empty() {
            let subtree = *self.stack.last().ok_or(StreamError::PastEnd)?;
            let missing = subtree.piece_len() as usize - self.partial.len();
            if data.len() < missing {
                self.partial.extend_from_slice(&data);
                break;
            }
            let tail = data.split_to(missing);
            let bytes = if self.partial.is_empty() {
                tail
            } else {
                self.partial.extend_from_slice(&tail);
                self.partial.split().freeze()
            };
            out.push(self.take_piece(subtree, bytes)?);
        }
        Ok(())
    }

    fn take_piece(&mut self, subtree: Subtree, bytes: Bytes) -> Result<Piece, StreamError> {
        let is_body = subtree.len <= GROUP_LEN;
        if is_body {
            if !subtree.is_group(&bytes) {
                return Err(StreamError::Mismatch);
            }
            self.stack.pop();
        } else {
            let (left, right) = subtree.children(&bytes).ok_or(StreamError::Mismatch)?;
            self.stack.pop();
            self.stack.push(right);
            self.stack.push(left);
        }
        let offset = self.verified;
        self.verified += bytes.len() as u64;
        Ok(Piece { offset, bytes, is_body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SIZES: [u64; 12] = [
        0,
        1,
        1023,
        1025,
        GROUP_LEN - 1,
        GROUP_LEN,
        GROUP_LEN + 1,
        2 * GROUP_LEN,
        3 * GROUP_LEN + 5,
        4 * GROUP_LEN,
        7 * GROUP_LEN + 1,
        16 * GROUP_LEN + 777,
    ];

    fn body(len: u64) -> Bytes {
        (0..len).map(|i| (i * 31 % 251) as u8).collect::<Vec<_>>().into()
    }

    fn stream(encoder: &Encoder) -> Vec<u8> {
        let mut all = Vec::new();
        while (all.len() as u64) < encoder.len() {
            let piece = encoder.read(all.len() as u64, u64::MAX);
            assert!(!piece.is_empty());
            all.extend_from_slice(&piece);
        }
        all
    }

    fn decode(root: Hash, len: u64, encoded: &[u8], cut: usize) -> Result<Vec<u8>, StreamError> {
        let mut decoder = Decoder::new(root, len)?;
        let (mut out, mut offset) = (Vec::new(), 0u64);
        for part in encoded.chunks(cut) {
            decoder.push(offset, Bytes::copy_from_slice(part), &mut out)?;
            offset += part.len() as u64;
        }
        assert!(decoder.is_complete());
        Ok(out.iter().filter(|p| p.is_body).flat_map(|p| p.bytes.to_vec()).collect())
    }

    #[test]
    fn every_size_and_cut_round_trips_under_the_plain_blake3_hash() {
        for len in SIZES {
            let body = body(len);
            let encoder = Encoder::new(body.clone());
            assert_eq!(encoder.root().0, *blake3::hash(&body).as_bytes(), "{len}");
            let encoded = stream(&encoder);
            assert_eq!(encoded.len() as u64, encoded_len(len));
            for cut in [1, 63, 64, 1000, 16384, 65536, 1 << 20] {
                assert_eq!(
                    decode(encoder.root(), len, &encoded, cut).as_deref(),
                    Ok(&body[..]),
                    "{len} {cut}"
                );
            }
        }
    }

    #[test]
    fn any_flipped_byte_is_detected() {
        let body = body(3 * GROUP_LEN + 5);
        let encoder = Encoder::new(body.clone());
        let good = stream(&encoder);
        for position in (0..good.len()).step_by(97).chain(0..200).chain(good.len() - 3..good.len()) {
            let mut bad = good.clone();
            bad[position] ^= 1;
            let result = decode(encoder.root(), body.len() as u64, &bad, 4096);
            assert_eq!(result, Err(StreamError::Mismatch), "byte {position}");
        }
    }

    #[test]
    fn gaps_and_bytes_past_the_end_are_refused_and_repetitions_are_skipped() {
        let body = body(GROUP_LEN + 10);
        let encoder = Encoder::new(body.clone());
        let all = Bytes::from(stream(&encoder));
        let mut out = Vec::new();
        let mut decoder = Decoder::new(encoder.root(), body.len() as u64).unwrap();
        assert_eq!(decoder.push(1, all.slice(1..), &mut out), Err(StreamError::Gap));
        decoder.push(0, all.slice(..100), &mut out).unwrap();
        decoder.rewind();
        assert_eq!(decoder.position(), 64);
        decoder.push(0, all.clone(), &mut out).unwrap();
        assert!(decoder.is_complete());
        decoder.push(0, all.clone(), &mut out).unwrap();
        let end = all.len() as u64;
        assert_eq!(decoder.push(end, Bytes::from_static(b"x"), &mut out), Err(StreamError::PastEnd));
    }

    proptest! {
        #[test]
        fn random_bodies_and_reads_agree(len in 0u64..200_000, cut in 1usize..70_000, max in 1u64..20_000) {
            let body = body(len);
            let encoder = Encoder::new(body.clone());
            let mut all = Vec::new();
            while (all.len() as u64) < encoder.len() {
                all.extend_from_slice(&encoder.read(all.len() as u64, max));
            }
            prop_assert_eq!(decode(encoder.root(), len, &all, cut), Ok(body.to_vec()));
        }
    }
}
