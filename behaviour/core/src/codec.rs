//! Bytes of the frames (layout: [`crate::wire`]).
//!
//! The length is checked before anything is allocated for a frame, payloads are decoded from
//! the read buffer, and fragments share its memory.

use std::fmt;
use std::marker::PhantomData;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use cbor4ii::core::dec::Read;
use cbor4ii::core::utils::SliceReader;
use serde::de::{DeserializeOwned, Error as _, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

use crate::api::ExchangeId;
use crate::wire::{Fragment, Frame, Part};

/// Bytes in front of a payload: length and type.
pub const HEADER_LEN: usize = 5;

/// Bytes of a fragment in front of its data, with the frame's header.
pub const FRAGMENT_HEADER_LEN: usize = HEADER_LEN + 17;

/// Why a frame could not be read. The peer broke the protocol: disconnect it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    #[error("frame of {len} bytes, at most {max} are taken")]
    TooLong { len: u32, max: u32 },
    #[error("frame without a type")]
    Empty,
    #[error("unknown frame type {0}")]
    UnknownType(u8),
    #[error("malformed {frame} frame: {cause}")]
    Malformed { frame: &'static str, cause: String },
}

mod kind {
    pub const HELLO: u8 = 1;
    pub const SYNC: u8 = 2;
    pub const REQUEST: u8 = 3;
    pub const ACK: u8 = 4;
    pub const REJECT: u8 = 5;
    pub const RESPONSE: u8 = 6;
    pub const DONE: u8 = 7;
    pub const CREDIT: u8 = 8;
    pub const FRAGMENT: u8 = 9;
    pub const LATE: u8 = 10;
    pub const SEVERED: u8 = 11;
}

/// Appends the bytes of `frame` to `out`.
pub fn encode(frame: &Frame, out: &mut BytesMut) {
    let start = out.len();
    out.put_u32(0);
    match frame {
        Frame::Hello(p) => put_cbor(out, kind::HELLO, p),
        Frame::Sync(p) => put_cbor(out, kind::SYNC, p),
        Frame::Request(p) => put_cbor(out, kind::REQUEST, p),
        Frame::Ack(p) => put_cbor(out, kind::ACK, p),
        Frame::Reject(p) => put_cbor(out, kind::REJECT, p),
        Frame::Response(p) => put_cbor(out, kind::RESPONSE, p),
        Frame::Done(p) => put_cbor(out, kind::DONE, p),
        Frame::Credit(p) => put_cbor(out, kind::CREDIT, p),
        Frame::Late(p) => put_cbor(out, kind::LATE, p),
        Frame::Severed(p) => put_cbor(out, kind::SEVERED, p),
        Frame::Fragment(f) => {
            put_fragment_header(out, f);
            out.put_slice(&f.data);
        }
    }
    let len = u32::try_from(out.len() - start - 4).unwrap_or(u32::MAX);
    out[start..start + 4].copy_from_slice(&len.to_be_bytes());
}

fn put_fragment_header(out: &mut BytesMut, fragment: &Fragment) {
    out.put_u8(kind::FRAGMENT);
    out.put_u64(fragment.exchange.0);
    out.put_u8(match fragment.part {
        Part::RequestBody => 0,
        Part::ResponseBody => 1,
    });
    out.put_u64(fragment.offset);
}

fn put_cbor<T: Serialize>(out: &mut BytesMut, kind: u8, payload: &T) {
    out.put_u8(kind);
    // Memory cannot refuse a write and no payload holds a value without a CBOR form.
    let written = payload.serialize(&mut cbor4ii::serde::Serializer::new(Append(out)));
    debug_assert!(written.is_ok());
}

/// Where CBOR is appended: without the detour over `io::Write`, since it comes in pieces of a few bytes.
struct Append<'a>(&'a mut BytesMut);

impl cbor4ii::core::enc::Write for Append<'_> {
    type Error = std::convert::Infallible;

    #[inline]
    fn push(&mut self, input: &[u8]) -> Result<(), Self::Error> {
        self.0.extend_from_slice(input);
        Ok(())
    }
}

/// A fragment with less than this part of the buffer that it came in is copied out of it: as long as it is
/// held, for want of credit, the whole buffer would be.
const SHARE_OF_BUFFER: usize = 4;

/// Cuts a byte stream into frames.
#[derive(Clone, Debug)]
pub struct Decoder {
    max_frame: u32,
    /// Where the stream goes on, if it still does in the same buffer.
    next: usize,
    /// Bytes of that buffer before it.
    taken: usize,
}

impl Decoder {
    /// `max_frame`: most bytes of type and payload.
    pub fn new(max_frame: u32) -> Self {
        Decoder { max_frame, next: 0, taken: 0 }
    }

    /// Takes one frame off the front of `src`; `None` until it is complete. After an error the
    /// stream cannot be used any more.
    pub fn decode(&mut self, src: &mut BytesMut) -> Result<Option<Frame>, WireError> {
        let Some(header) = src.get(..4) else {
            return Ok(None);
        };
        let len = u32::from_be_bytes([header[0], header[1], header[2], header[3]]);
        if len > self.max_frame {
            return Err(WireError::TooLong { len, max: self.max_frame });
        }
        if len == 0 {
            return Err(WireError::Empty);
        }
        let total = 4 + len as usize;
        if src.len() < total {
            return Ok(None);
        }
        if src.as_ptr().addr() != self.next {
            self.taken = 0;
        }
        let buffer = self.taken + src.capacity();
        let mut frame = src.split_to(total);
        (self.next, self.taken) = (src.as_ptr().addr(), self.taken + total);
        frame.advance(4);
        let kind = frame.get_u8();
        let mut frame = decode_payload(kind, frame.freeze())?;
        if let Frame::Fragment(Fragment { data, .. }) = &mut frame
            && data.len() < buffer / SHARE_OF_BUFFER
        {
            *data = Bytes::copy_from_slice(data);
        }
        Ok(Some(frame))
    }
}

fn decode_payload(kind: u8, payload: Bytes) -> Result<Frame, WireError> {
    Ok(match kind {
        kind::HELLO => Frame::Hello(cbor("Hello", &payload)?),
        kind::SYNC => Frame::Sync(cbor("Sync", &payload)?),
        kind::REQUEST => Frame::Request(cbor("Request", &payload)?),
        kind::ACK => Frame::Ack(cbor("Ack", &payload)?),
        kind::REJECT => Frame::Reject(cbor("Reject", &payload)?),
        kind::RESPONSE => Frame::Response(cbor("Response", &payload)?),
        kind::DONE => Frame::Done(cbor("Done", &payload)?),
        kind::CREDIT => Frame::Credit(cbor("Credit", &payload)?),
        kind::FRAGMENT => Frame::Fragment(fragment(payload)?),
        kind::LATE => Frame::Late(cbor("Late", &payload)?),
        kind::SEVERED => Frame::Severed(cbor("Severed", &payload)?),
        other => return Err(WireError::UnknownType(other)),
    })
}

fn cbor<T: DeserializeOwned>(frame: &'static str, payload: &[u8]) -> Result<T, WireError> {
    let malformed = |cause: String| WireError::Malformed { frame, cause };
    let mut deserializer = cbor4ii::serde::Deserializer::new(SliceReader::new(payload));
    let value = T::deserialize(&mut deserializer).map_err(|e| malformed(e.to_string()))?;
    let mut rest = deserializer.into_inner();
    match rest.fill(1) {
        Ok(bytes) if bytes.as_ref().is_empty() => Ok(value),
        _ => Err(malformed("bytes after the payload".into())),
    }
}

/// Most items of a list whose items may be empty: on the wire they take a byte, in memory hundreds.
pub const MAX_EMPTY_ITEMS: usize = 1024;

/// Reads a list of at most [`MAX_EMPTY_ITEMS`].
pub(crate) fn few<'de, T, D>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    struct Few<T>(PhantomData<T>);
    impl<'de, T: Deserialize<'de>> Visitor<'de> for Few<T> {
        type Value = Vec<T>;
        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a list of at most {MAX_EMPTY_ITEMS}")
        }
        fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<T>, A::Error> {
            let mut list = Vec::new();
            while let Some(item) = items.next_element()? {
                if list.len() == MAX_EMPTY_ITEMS {
                    return Err(A::Error::invalid_length(list.len() + 1, &self));
                }
                list.push(item);
            }
            Ok(list)
        }
    }
    deserializer.deserialize_seq(Few(PhantomData))
}

/// Bytes of a block that small byte strings share.
const BLOCK: usize = 16 << 10;

/// Longest byte string in a block.
const PACKED: usize = 2 << 10;

thread_local! {
    static PACKING: std::cell::RefCell<BytesMut> = std::cell::RefCell::default();
}

/// Copies small byte strings into blocks: no allocation for each, and neighbours lie side by side. As
/// long as one of them is held its block is: at most [`BLOCK`] bytes for each request or response.
fn pack(bytes: &[u8]) -> Bytes {
    if bytes.len() > PACKED {
        return Bytes::copy_from_slice(bytes);
    }
    PACKING.with_borrow_mut(|block| {
        if block.capacity() < bytes.len() {
            *block = BytesMut::with_capacity(BLOCK);
        }
        block.extend_from_slice(bytes);
        block.split().freeze()
    })
}

struct Packed;

impl Visitor<'_> for Packed {
    type Value = Bytes;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a byte string")
    }

    fn visit_bytes<E: serde::de::Error>(self, bytes: &[u8]) -> Result<Bytes, E> {
        Ok(pack(bytes))
    }
}

pub(crate) fn packed<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Bytes, D::Error> {
    deserializer.deserialize_bytes(Packed)
}

pub(crate) fn packed_option<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Bytes>, D::Error> {
    struct Wrapped(Bytes);
    impl<'de> Deserialize<'de> for Wrapped {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Wrapped, D::Error> {
            packed(deserializer).map(Wrapped)
        }
    }
    Option::<Wrapped>::deserialize(deserializer).map(|bytes| bytes.map(|bytes| bytes.0))
}

fn fragment(mut payload: Bytes) -> Result<Fragment, WireError> {
    let malformed = |cause: &str| WireError::Malformed { frame: "Fragment", cause: cause.into() };
    if payload.len() < FRAGMENT_HEADER_LEN - HEADER_LEN {
        return Err(malformed("shorter than its header"));
    }
    let exchange = ExchangeId(payload.get_u64());
    let part = match payload.get_u8() {
        0 => Part::RequestBody,
        1 => Part::ResponseBody,
        _ => return Err(malformed("unknown part")),
    };
    let offset = payload.get_u64();
    if payload.is_empty() {
        return Err(malformed("no data"));
    }
    if offset.checked_add(payload.len() as u64).is_none() {
        return Err(malformed("offset out of range"));
    }
    Ok(Fragment { exchange, part, offset, data: payload })
}
