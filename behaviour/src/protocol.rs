//! Lanes: framed substreams of `/por/1.0.0`.
//!
//! Each side of a connection opens two substreams, control and bulk, and *all* its frames travel on
//! those two, each lane in order; the first is Hello. A substream thus carries frames one way. (Sync
//! must come before whatever follows from it, whichever role the sender plays in it; with replies
//! on the other side's substream there would be no order between the two.)
//!
//! The control lane is written before the bulk lane and read before it, so a big body never
//! overtakes the frame that announces it, and never holds it up for more than one write.

use std::cell::RefCell;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::BytesMut;
use futures::{AsyncRead, AsyncWrite, Future};
use futures_timer::Delay;
use libp2p_swarm::Stream;
use por_core::codec::{self, Decoder, WireError};
use por_core::wire::Frame;

/// Bytes gathered before a write, and read at once.
const CHUNK: usize = 128 << 10;
/// Memory that an empty buffer keeps: idle lanes cost little, however much has passed.
const KEEP: usize = 4 << 10;

thread_local! {
    /// Where lanes read to; a lane uses it only within one call.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; CHUNK].into_boxed_slice());
}

/// Why a lane ended.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LaneError {
    #[error("substream failed: {0}")]
    Io(#[from] io::Error),
    #[error("peer closed its lane")]
    Closed,
    #[error("peer stalled in the middle of a frame")]
    Stalled,
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// Reading half of a lane.
pub(crate) struct LaneReader {
    stream: Stream,
    decoder: Decoder,
    buffer: BytesMut,
    stall: Stall,
}

impl LaneReader {
    pub fn new(mut stream: Stream, max_frame: u32, stall: Duration) -> LaneReader {
        stream.ignore_for_keep_alive();
        LaneReader {
            stream,
            decoder: Decoder::new(max_frame),
            buffer: BytesMut::new(),
            stall: Stall::new(stall),
        }
    }

    /// The next frame and roughly its size in memory.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Result<(Frame, usize), LaneError>> {
        loop {
            let before = self.buffer.len();
            if let Some(frame) = self.decoder.decode(&mut self.buffer)? {
                self.stall.progress();
                return Poll::Ready(Ok((frame, before - self.buffer.len())));
            }
            match self.poll_read(cx) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(LaneError::Closed)),
                Poll::Ready(Ok(_)) => self.stall.progress(),
                Poll::Ready(Err(error)) => return Poll::Ready(Err(error.into())),
                Poll::Pending if self.buffer.is_empty() => {
                    release(&mut self.buffer);
                    return Poll::Pending;
                }
                Poll::Pending if self.stall.poll_expired(cx) => {
                    return Poll::Ready(Err(LaneError::Stalled));
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    }

    /// Adds what has arrived to the buffer; its length.
    fn poll_read(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let count = ready!(Pin::new(&mut self.stream).poll_read(cx, scratch))?;
            self.buffer.extend_from_slice(&scratch[..count]);
            Poll::Ready(Ok(count))
        })
    }
}

/// Gives back what an empty buffer has beyond [`KEEP`].
fn release(buffer: &mut BytesMut) {
    if buffer.capacity() > KEEP {
        *buffer = BytesMut::new();
    }
}

/// Writing half of a lane: gathers frames and writes them together.
pub(crate) struct LaneWriter {
    stream: Stream,
    buffer: BytesMut,
    /// Bytes of fragments in `buffer`.
    fragments: u64,
    unflushed: bool,
    stall: Stall,
}

impl LaneWriter {
    pub fn new(mut stream: Stream, stall: Duration) -> LaneWriter {
        stream.ignore_for_keep_alive();
        LaneWriter {
            stream,
            buffer: BytesMut::new(),
            fragments: 0,
            unflushed: false,
            stall: Stall::new(stall),
        }
    }

    /// Queues the lane's first frame.
    pub fn begin(&mut self, hello: &Frame) {
        codec::encode(hello, &mut self.buffer);
        self.unflushed = true;
    }

    /// Writes what is gathered and what `next` gives, until nothing is left and everything is flushed
    /// (`Ready`), or the substream takes no more. `drained` counts bytes of written fragments.
    pub fn poll_write(
        &mut self,
        cx: &mut Context<'_>,
        mut next: impl FnMut() -> Option<Frame>,
        drained: &mut u64,
    ) -> Poll<Result<(), LaneError>> {
        loop {
            self.gather(&mut next);
            if self.buffer.is_empty() {
                if !self.unflushed {
                    release(&mut self.buffer);
                    return Poll::Ready(Ok(()));
                }
                let flushed = Pin::new(&mut self.stream).poll_flush(cx);
                ready!(self.watch(cx, flushed))?;
                self.unflushed = false;
                continue;
            }
            let written = Pin::new(&mut self.stream).poll_write(cx, &self.buffer);
            let count = ready!(self.watch(cx, written))?;
            if count == 0 {
                return Poll::Ready(Err(io::Error::from(io::ErrorKind::WriteZero).into()));
            }
            let _ = self.buffer.split_to(count);
            if self.buffer.is_empty() {
                *drained += std::mem::take(&mut self.fragments);
            }
        }
    }

    fn gather(&mut self, next: &mut impl FnMut() -> Option<Frame>) {
        // Only between writes: a buffer under way is not grown, so its fragments are counted once.
        if !self.buffer.is_empty() {
            return;
        }
        while self.buffer.len() < CHUNK
            && let Some(frame) = next()
        {
            if let Frame::Fragment(fragment) = &frame {
                self.fragments += fragment.data.len() as u64;
            }
            codec::encode(&frame, &mut self.buffer);
            self.unflushed = true;
        }
    }

    fn watch<T>(&mut self, cx: &mut Context<'_>, result: Poll<io::Result<T>>) -> Poll<Result<T, LaneError>> {
        match result {
            Poll::Ready(result) => {
                self.stall.progress();
                Poll::Ready(result.map_err(LaneError::Io))
            }
            Poll::Pending if self.stall.poll_expired(cx) => Poll::Ready(Err(LaneError::Stalled)),
            Poll::Pending => Poll::Pending,
        }
    }
}

/// Watches for progress. The timer runs only while something waits.
pub(crate) struct Stall {
    limit: Duration,
    timer: Option<Delay>,
}

impl Stall {
    pub fn new(limit: Duration) -> Stall {
        Stall { limit, timer: None }
    }

    pub fn progress(&mut self) {
        self.timer = None;
    }

    pub fn poll_expired(&mut self, cx: &mut Context<'_>) -> bool {
        let timer = self.timer.get_or_insert_with(|| Delay::new(self.limit));
        Pin::new(timer).poll(cx).is_ready()
    }
}
