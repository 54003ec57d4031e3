//! The frame decoder on a stream of any bytes.

use bytes::BytesMut;
use por_core::codec::{Decoder, WireError, encode};
use por_core::wire::{Frame, MIN_FRAME};

use crate::allocated::peak;

/// Bytes that the frame of one byte may cost, and what any frame may cost beyond that. A list of
/// which a peer claims that it is long is reserved up to 1 MiB before its items arrive.
const PER_BYTE: u64 = 64;
const FIXED: u64 = 4 << 20;

/// The first byte says in which pieces the rest arrives.
///
/// Pieces make no difference; memory stays within a multiple of the frame; every frame that is
/// read is written and read again as the same; a fragment has one form only.
pub fn frame(data: &[u8]) {
    let Some((&step, stream)) = data.split_first() else { return };
    let whole = read(stream, stream.len().max(1));
    let pieces = read(stream, usize::from(step) + 1);
    assert_eq!(whole, pieces, "the pieces in which bytes arrive make a difference");
    let mut at = 0;
    for frame in &whole.0 {
        at = again(frame, stream, at);
    }
    if let Some(error) = whole.1 {
        assert!(!error.to_string().is_empty());
    }
}

/// All frames of a stream up to its first error.
fn read(stream: &[u8], step: usize) -> (Vec<Frame>, Option<WireError>) {
    let mut decoder = Decoder::new(MIN_FRAME);
    let (mut source, mut frames) = (BytesMut::new(), Vec::new());
    for piece in stream.chunks(step) {
        source.extend_from_slice(piece);
        loop {
            let before = source.len();
            let (result, held) = peak(|| decoder.decode(&mut source));
            let taken = (before - source.len()) as u64;
            let allowed = FIXED + PER_BYTE * taken.max(u64::from(MIN_FRAME));
            assert!(held <= allowed, "{held} bytes were held for a frame of at most {MIN_FRAME}");
            match result {
                Ok(Some(frame)) => frames.push(frame),
                Ok(None) => break,
                Err(error) => return (frames, Some(error)),
            }
        }
    }
    (frames, None)
}

/// Writes a frame and reads it again. Returns where the next one starts.
fn again(frame: &Frame, stream: &[u8], at: usize) -> usize {
    let header: [u8; 4] = stream[at..at + 4].try_into().unwrap_or_default();
    let end = at + 4 + u32::from_be_bytes(header) as usize;
    let mut bytes = BytesMut::new();
    encode(frame, &mut bytes);
    if let Frame::Fragment(_) = frame {
        assert_eq!(bytes[..], stream[at..end], "a fragment has two forms");
    }
    let written = bytes.clone();
    let mut decoder = Decoder::new(u32::MAX);
    let read = decoder.decode(&mut bytes);
    assert_eq!(read.as_ref().ok().and_then(Option::as_ref), Some(frame), "{read:?}");
    assert!(bytes.is_empty());
    encode(frame, &mut bytes);
    assert_eq!(bytes, written);
    end
}
