//! What client and server say to each other: one question, one answer, in CBOR.
//!
//! Two apps take the same questions. [`STAT_APP`] is free of a server's price, so that
//! asking around costs no more than the route; [`GET_APP`] is paid per byte. The
//! version is the last part of the app's name. Unknown fields are ignored, unknown
//! questions are answered with [`Fault::Unsupported`].

use bytes::Bytes;
use por_types::{AmountError, Yocto};
use serde::{Deserialize, Serialize};

use crate::{
    id::ContentId,
    slice::{self, MAX_SIZE_PROOF, SliceError, Window, WindowError},
};

/// App that answers [`Question::Stat`].
pub const STAT_APP: &str = "fileshare/stat/1";
/// App that answers [`Question::Get`].
pub const GET_APP: &str = "fileshare/get/1";
/// Longest question, in bytes.
pub const MAX_QUESTION: usize = 1024;
/// Longest listing that comes with a stat, in bytes; longer ones are fetched like files.
pub const MAX_STAT_LISTING: usize = 64 * 1024;
/// Limit of a stat's answer without listing, in bytes.
pub const STAT_LIMIT: u64 = MAX_SIZE_PROOF as u64 + 512;
/// Limit of a stat's answer with a listing, in bytes.
pub const STAT_LISTING_LIMIT: u64 = STAT_LIMIT + MAX_STAT_LISTING as u64;
/// Most runs in an answer about holes, and that answer's limit in bytes.
pub const MAX_RUNS: usize = 750;
pub const HOLES_LIMIT: u64 = 16 * 1024;
/// Longest explanation in a refusal, in bytes.
pub const MAX_REASON: usize = 160;
/// A get's answer has room for a refusal, however small the window.
const MIN_ANSWER: u64 = 256;

/// What a client asks.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Question {
    /// Is it there, how long is it, what does it cost?
    Stat {
        id: ContentId,
        /// Whether a directory's listing shall come along, if it is short.
        #[serde(default)]
        listing: bool,
    },
    /// The slice of a window.
    Get { id: ContentId, offset: u64, len: u64 },
    /// Which units of 1 MiB are holes, from unit `from` on? A hint: zeros are proven by [`Question::Zeros`].
    Holes { id: ContentId, from: u64 },
    /// The way to a window that is all zeros, which its receiver computes.
    Zeros { id: ContentId, offset: u64, len: u64 },
}

/// What a server answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer<'a> {
    Stat(#[serde(borrow)] Stat<'a>),
    /// The slice, see [`crate::slice`].
    Slice(#[serde(borrow)] &'a serde_bytes::Bytes),
    Holes {
        /// First unit and count of each run.
        runs: Vec<(u64, u64)>,
        /// The unit to ask from for more.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        more: Option<u64>,
    },
    Refused {
        fault: Fault,
        reason: String,
    },
}

/// What is there and what it costs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stat<'a> {
    /// Length in bytes, proven by `proof`.
    pub size: u64,
    #[serde(borrow)]
    pub proof: &'a serde_bytes::Bytes,
    /// Whether the server knows it as a directory.
    pub directory: bool,
    pub pricing: Pricing,
    /// Longest window that the server answers, in bytes.
    pub max_window: u64,
    /// A directory's listing, if asked for and short.
    #[serde(default, borrow, skip_serializing_if = "Option::is_none")]
    pub listing: Option<&'a serde_bytes::Bytes>,
    /// It has holes; ask [`Question::Holes`].
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub sparse: bool,
}

/// A server's price for [`GET_APP`], in yoctoNEAR.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pricing {
    /// Per question.
    pub base: Yocto,
    /// Per byte of the question and of the answer's limit.
    pub per_byte: Yocto,
}

impl Pricing {
    pub fn price(&self, question: u64, limit: u64) -> Result<Yocto, AmountError> {
        let bytes = u128::from(question) + u128::from(limit);
        self.per_byte.checked_mul(bytes)?.checked_add(self.base)
    }
}

/// Why a server gives no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// It does not have the content (any more).
    NotFound,
    /// The question makes no sense; asking again does not help.
    Invalid,
    /// Its copy is damaged.
    Damaged,
    /// Ask again later.
    Busy,
    /// A question of a later version.
    #[serde(other)]
    Unsupported,
}

/// Why bytes are no question or answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ProtoError {
    #[error("a message of {0} bytes is longer than allowed")]
    TooLong(usize),
    #[error("not a message of this protocol: {0}")]
    Malformed(String),
    #[error("the answer is to another question")]
    OtherAnswer,
    #[error("the server refused: {reason}")]
    Refused { fault: Fault, reason: String },
    #[error(transparent)]
    Window(#[from] WindowError),
    #[error(transparent)]
    Slice(#[from] SliceError),
}

fn encode(message: &impl Serialize) -> Result<Vec<u8>, ProtoError> {
    cbor4ii::serde::to_vec(Vec::new(), message).map_err(|error| ProtoError::Malformed(error.to_string()))
}

/// Reads one message and nothing behind it.
fn decode<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, ProtoError> {
    let malformed = |error: String| ProtoError::Malformed(error);
    let mut reader = cbor4ii::core::utils::SliceReader::new(bytes);
    let mut deserializer = cbor4ii::serde::Deserializer::new(&mut reader);
    let message = T::deserialize(&mut deserializer).map_err(|error| malformed(error.to_string()))?;
    let rest =
        cbor4ii::core::dec::Read::fill(&mut reader, 1).map_err(|error| malformed(error.to_string()))?;
    if rest.as_ref().is_empty() {
        Ok(message)
    } else {
        Err(malformed("something follows the message".into()))
    }
}

impl Question {
    pub fn get(id: ContentId, window: Window) -> Self {
        let (offset, len) = (window.offset(), window.len());
        if window.is_zeros() {
            Question::Zeros { id, offset, len }
        } else {
            Question::Get { id, offset, len }
        }
    }

    pub fn encode(&self) -> Result<Bytes, ProtoError> {
        encode(self).map(Bytes::from)
    }

    pub fn decode(bytes: &[u8]) -> Result<Self, ProtoError> {
        if bytes.len() > MAX_QUESTION {
            return Err(ProtoError::TooLong(bytes.len()));
        }
        decode(bytes)
    }
}

impl<'a> Answer<'a> {
    pub fn encode(&self) -> Result<Vec<u8>, ProtoError> {
        encode(self)
    }

    /// Reads an answer; byte strings point into `bytes`.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, ProtoError> {
        decode(bytes)
    }

    /// A refusal, its reason cut to what an answer always has room for.
    pub fn refused(fault: Fault, reason: impl std::fmt::Display) -> Answer<'static> {
        let mut reason = reason.to_string();
        let end = (0..=MAX_REASON.min(reason.len())).rev().find(|end| reason.is_char_boundary(*end));
        reason.truncate(end.unwrap_or(0));
        Answer::Refused { fault, reason }
    }

    fn or_refusal<T>(self, take: impl FnOnce(Self) -> Option<T>) -> Result<T, ProtoError> {
        match self {
            Answer::Refused { fault, reason } => {
                Err(ProtoError::Refused { fault, reason: printable(&reason) })
            }
            other => take(other).ok_or(ProtoError::OtherAnswer),
        }
    }

    /// The stat that this must be.
    pub fn into_stat(self) -> Result<Stat<'a>, ProtoError> {
        self.or_refusal(|answer| match answer {
            Answer::Stat(stat) => Some(stat),
            _ => None,
        })
    }

    /// The holes that this must be, and where to ask for more.
    pub fn into_holes(self) -> Result<(Vec<(u64, u64)>, Option<u64>), ProtoError> {
        self.or_refusal(|answer| match answer {
            Answer::Holes { runs, more } => Some((runs, more)),
            _ => None,
        })
    }

    /// The slice that this must be.
    pub fn into_slice(self) -> Result<&'a [u8], ProtoError> {
        self.or_refusal(|answer| match answer {
            Answer::Slice(slice) => Some(&slice[..]),
            _ => None,
        })
    }
}

/// A stranger's text, fit for a terminal.
fn printable(text: &str) -> String {
    text.chars().take(MAX_REASON).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// What stands before a slice of `len` bytes in an answer.
pub fn slice_header(len: u64) -> Vec<u8> {
    let mut header = Vec::with_capacity(16 + len as usize);
    // A map of one entry, the key "slice", and a byte string of this length.
    header.extend_from_slice(b"\xa1\x65slice");
    match len {
        0..24 => header.push(0x40 | len as u8),
        24..0x100 => header.extend_from_slice(&[0x58, len as u8]),
        0x100..0x1_0000 => {
            header.push(0x59);
            header.extend_from_slice(&(len as u16).to_be_bytes());
        }
        0x1_0000..0x1_0000_0000 => {
            header.push(0x5a);
            header.extend_from_slice(&(len as u32).to_be_bytes());
        }
        _ => {
            header.push(0x5b);
            header.extend_from_slice(&len.to_be_bytes());
        }
    }
    header
}

/// Limit of the answer to a get of this window: exactly its slice's length with its
/// frame, but never too little for a refusal.
pub fn get_limit(size: u64, window: Window) -> u64 {
    let slice = slice::encoded_len(size, window);
    let header: u64 = match slice {
        0..24 => 8,
        24..0x100 => 9,
        0x100..0x1_0000 => 10,
        0x1_0000..0x1_0000_0000 => 12,
        _ => 16,
    };
    (slice + header).max(MIN_ANSWER)
}

/// The slice in a get's answer, sharing the answer's memory.
pub fn slice_of(answer: &Bytes) -> Result<Bytes, ProtoError> {
    let slice = Answer::decode(answer)?.into_slice()?;
    Ok(answer.slice_ref(slice))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::slice::MAX_WINDOW;

    fn id() -> ContentId {
        ContentId::file(blake3::hash(b"x"))
    }

    #[test]
    fn a_slice_is_framed_as_serde_would() {
        for len in [0, 1, 23, 24, 255, 256, 65535, 65536, 100_000] {
            let slice = vec![7; len];
            let by_serde = Answer::Slice(serde_bytes::Bytes::new(&slice));
            let mut ours = slice_header(len as u64);
            ours.extend_from_slice(&slice);
            assert_eq!(by_serde.encode().unwrap(), ours, "length {len}");
            let answer = Bytes::from(ours);
            let found = slice_of(&answer).unwrap();
            assert_eq!(found, slice);
            assert_eq!(found.is_empty(), len == 0);
            // Shared, not copied.
            if len > 0 {
                assert_eq!(found.as_ptr_range().end, answer.as_ptr_range().end);
            }
        }
    }

    #[test]
    fn the_limit_of_a_get_is_exact() {
        for (size, len) in [(0, 0), (1, 1), (5000, 5000), (16 << 20, MAX_WINDOW)] {
            let window = Window::new(0, len, size).unwrap();
            let slice = slice::encoded_len(size, window);
            let exact = slice_header(slice).len() as u64 + slice;
            assert_eq!(get_limit(size, window), exact.max(MIN_ANSWER));
        }
        let refusal = Answer::refused(Fault::NotFound, "\u{1f980}".repeat(1000));
        assert!(refusal.encode().unwrap().len() as u64 <= MIN_ANSWER);
    }

    #[test]
    fn the_limit_of_a_stat_holds_the_longest() {
        let (proof, listing) = (vec![1; MAX_SIZE_PROOF], vec![2; MAX_STAT_LISTING]);
        let most = Yocto(u128::MAX);
        let stat = |listing| {
            Answer::Stat(Stat {
                size: u64::MAX,
                proof: serde_bytes::Bytes::new(&proof),
                directory: true,
                pricing: Pricing { base: most, per_byte: most },
                max_window: u64::MAX,
                listing,
                sparse: true,
            })
        };
        let short = stat(None).encode().unwrap().len() as u64;
        let long = stat(Some(serde_bytes::Bytes::new(&listing)));
        assert!(short <= STAT_LIMIT);
        assert!(long.encode().unwrap().len() as u64 <= STAT_LISTING_LIMIT);
        let bytes = long.encode().unwrap();
        assert_eq!(Answer::decode(&bytes).unwrap(), long);
    }

    #[test]
    fn the_limit_of_holes_holds_the_most_runs() {
        let most = Answer::Holes { runs: vec![(u64::MAX, u64::MAX); MAX_RUNS], more: Some(u64::MAX) };
        assert!(most.encode().unwrap().len() as u64 <= HOLES_LIMIT);
    }

    #[test]
    fn a_later_fault_is_still_a_refusal() {
        let bytes = Answer::refused(Fault::Busy, "x").encode().unwrap();
        let text = bytes.windows(4).position(|four| four == b"busy").unwrap();
        let mut later = bytes;
        later[text..text + 4].copy_from_slice(b"lazy");
        let refused = Answer::decode(&later).unwrap().into_slice().unwrap_err();
        assert!(matches!(refused, ProtoError::Refused { fault: Fault::Unsupported, .. }));
    }

    #[test]
    fn questions_have_fixed_bytes() {
        let window = Window::new(1 << 20, 4 << 20, 100 << 20).unwrap();
        let get = Question::get(id(), window).encode().unwrap();
        let mut expected = b"\xa1\x63get\xa3\x62id\x58\x24".to_vec();
        expected.extend_from_slice(&id().to_bytes());
        expected.extend_from_slice(b"\x66offset\x1a\x00\x10\x00\x00\x63len\x1a\x00\x40\x00\x00");
        assert_eq!(hex::encode(get), hex::encode(expected));
    }

    proptest! {
        #[test]
        fn questions_round_trip(hash: [u8; 32], offset: u64, len: u64, listing: bool) {
            let id = ContentId::new(crate::id::Kind::File, hash);
            for question in [Question::Stat { id, listing }, Question::Get { id, offset, len }] {
                let bytes = question.encode().unwrap();
                prop_assert!(bytes.len() <= MAX_QUESTION);
                prop_assert_eq!(Question::decode(&bytes).unwrap(), question);
            }
        }

        #[test]
        fn garbage_never_panics(bytes: Vec<u8>) {
            let _ = Question::decode(&bytes);
            let _ = Answer::decode(&bytes);
            let _ = slice_of(&Bytes::from(bytes));
        }
    }
}
