//! Big bodies on an edge: receive windows, send credits, and the pipe between them at a relay.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};
use por_types::Hash;

use crate::api::Time;
use crate::fault::Fault;
use crate::verified::{Decoder, Encoder, Piece, StreamError, encoded_len};

/// Receiving half of a body.
#[derive(Clone, Debug)]
pub(crate) struct Inflow {
    root: Hash,
    body_len: u64,
    decoder: Decoder,
    /// Position up to which the sender may send.
    granted: u64,
    /// Highest position ever granted: after a restart a sender may have used it before it knew.
    promised: u64,
    /// Bytes that have left this node, or are put to use here.
    consumed: u64,
    window: u64,
    /// The source sends, or will by itself after its next Sync.
    active: bool,
}

impl Inflow {
    /// The sender starts at 0 with `window` bytes of credit.
    pub fn new(root: Hash, body_len: u64, window: u32) -> Result<Inflow, Fault> {
        let decoder = Decoder::new(root, body_len).map_err(stream_fault)?;
        let window = u64::from(window);
        let (granted, promised, consumed, active) = (window, window, 0, true);
        Ok(Inflow { root, body_len, decoder, granted, promised, consumed, window, active })
    }

    /// Nothing is wanted until [`Inflow::restart`]: after a crash, when the next node may have the
    /// body already.
    pub fn dormant(root: Hash, body_len: u64, window: u32) -> Result<Inflow, Fault> {
        Ok(Inflow { active: false, ..Inflow::new(root, body_len, window)? })
    }

    /// [`Inflow::push`], with what is verified of the body itself appended to `body`. Room for all of it is
    /// taken with its first bytes, as admission has bounded it: a body that grows is copied again and again.
    pub fn gather(&mut self, offset: u64, data: Bytes, body: &mut BytesMut) -> Result<(), Fault> {
        let mut pieces = Vec::new();
        let result = self.push(offset, data, &mut pieces);
        for piece in pieces.iter().filter(|piece| piece.is_body) {
            if body.is_empty() {
                body.reserve(usize::try_from(self.body_len).unwrap_or_default());
            }
            body.extend_from_slice(&piece.bytes);
        }
        result
    }

    /// Checks what arrived. A gap and what lies beyond the present credit are left over from before a
    /// restart of the stream: ignored.
    pub fn push(&mut self, offset: u64, data: Bytes, out: &mut Vec<Piece>) -> Result<(), Fault> {
        if offset > self.decoder.position() {
            return Ok(());
        }
        let end = offset.saturating_add(data.len() as u64);
        if end > self.promised {
            return Err(Fault::new("sent more of a body than it had credit for"));
        }
        if end > self.granted {
            return Ok(());
        }
        match self.decoder.push(offset, data, out) {
            Ok(()) => Ok(()),
            Err(error) => {
                self.decoder.rewind();
                Err(stream_fault(error))
            }
        }
    }

    pub fn root(&self) -> Hash {
        self.root
    }

    /// The source has credit for bytes that have not come.
    pub fn is_hungry(&self) -> bool {
        let end = self.granted.min(self.decoder.encoded_len());
        self.active && !self.is_complete() && self.decoder.position() < end
    }

    pub fn is_complete(&self) -> bool {
        self.decoder.is_complete()
    }

    fn verified(&self) -> u64 {
        self.decoder.verified()
    }

    /// New credit once `consumed` bytes have left this node, if it is worth a frame.
    pub fn grant(&mut self, consumed: u64) -> Option<u64> {
        self.consumed = self.consumed.max(consumed);
        let target = consumed.saturating_add(self.window).min(self.decoder.encoded_len());
        let worth = target == self.decoder.encoded_len() || target >= self.granted + self.window / 2;
        if target <= self.granted || !worth {
            return None;
        }
        self.allow(target);
        Some(target)
    }

    /// The same where the body ends at this node.
    pub fn grant_verified(&mut self) -> Option<u64> {
        self.grant(self.decoder.verified())
    }

    /// Where the source shall go on when it starts again, and its credit: no more for what has not left, or
    /// each start would bring one more window. `None` if nothing is wanted of it.
    pub fn resume(&mut self) -> Option<(u64, u64)> {
        if !self.active || self.decoder.is_complete() {
            return None;
        }
        self.decoder.rewind();
        let from = self.decoder.verified();
        self.allow(self.granted.max(self.consumed.saturating_add(self.window)));
        Some((from, self.granted))
    }

    fn allow(&mut self, up_to: u64) {
        self.granted = up_to;
        self.promised = self.promised.max(up_to);
    }

    /// Forgets everything: the body is needed from the start again.
    pub fn restart(&mut self) -> Result<(), Fault> {
        self.decoder = Decoder::new(self.root, self.body_len).map_err(stream_fault)?;
        (self.granted, self.consumed) = (self.window, 0);
        self.active = true;
        Ok(())
    }
}

fn stream_fault(error: StreamError) -> Fault {
    Fault::new(format!("bad body: {error}"))
}

/// Where an outgoing body comes from.
#[derive(Clone, Debug)]
pub(crate) enum Feed {
    Whole(Encoder),
    /// Arrives from the other edge and is passed on. Apart, since most bodies are small and whole.
    Piped {
        inflow: Box<Inflow>,
        queue: VecDeque<(u64, Bytes)>,
    },
}

/// Sending half of a body.
#[derive(Clone, Debug)]
pub(crate) struct Outflow {
    feed: Feed,
    len: u64,
    /// Next position to send.
    next: u64,
    /// Position up to which may be sent; 0 before the start.
    limit: u64,
    /// In the edge's queue of streams with something to send.
    pub listed: bool,
    /// How often it was asked of its source from the start, and since when.
    pub restarts: (u64, Time),
}

impl Outflow {
    pub fn whole(encoder: Encoder) -> Outflow {
        let len = encoder.len();
        Outflow {
            feed: Feed::Whole(encoder),
            len,
            next: 0,
            limit: 0,
            listed: false,
            restarts: Default::default(),
        }
    }

    pub fn piped(inflow: Inflow) -> Outflow {
        let len = encoded_len(inflow.body_len);
        Outflow {
            feed: Feed::Piped { inflow: Box::new(inflow), queue: VecDeque::new() },
            len,
            next: 0,
            limit: 0,
            listed: false,
            restarts: Default::default(),
        }
    }

    /// The body, if this node has all of it.
    pub fn body(&self) -> Option<&Bytes> {
        match &self.feed {
            Feed::Whole(encoder) => Some(encoder.body()),
            Feed::Piped { .. } => None,
        }
    }

    /// BLAKE3 of the body.
    pub fn root(&self) -> Hash {
        match &self.feed {
            Feed::Whole(encoder) => encoder.root(),
            Feed::Piped { inflow, .. } => inflow.root(),
        }
    }

    pub fn inflow(&mut self) -> Option<&mut Inflow> {
        match &mut self.feed {
            Feed::Whole(_) => None,
            Feed::Piped { inflow, .. } => Some(inflow),
        }
    }

    /// Nothing more is awaited of its source.
    pub fn is_whole(&self) -> bool {
        match &self.feed {
            Feed::Whole(_) => true,
            Feed::Piped { inflow, .. } => inflow.is_complete(),
        }
    }

    /// All of it was handed to the edge.
    pub fn is_sent(&self) -> bool {
        self.next >= self.len
    }

    pub fn has_credit(&self) -> bool {
        self.limit > 0
    }

    /// Stops sending until the next [`Outflow::resume`].
    pub fn pause(&mut self) {
        self.limit = 0;
    }

    /// What is wanted from there on has left this node already, or has not been asked for.
    pub fn is_gone(&self, from: u64) -> bool {
        let Feed::Piped { inflow, queue } = &self.feed else { return false };
        let held = queue.front().map_or(inflow.verified(), |(offset, _)| *offset);
        from.min(self.len) < held || !inflow.active
    }

    /// What was sent has to be sent once more from there on.
    pub fn goes_back(&self, from: u64) -> bool {
        match &self.feed {
            Feed::Whole(_) => from < self.next,
            Feed::Piped { .. } => self.is_gone(from),
        }
    }

    /// Goes on at `from`. True if bytes are needed that have left this node already: the body has to
    /// come from its source again (the inflow was restarted, the caller gives the credit).
    pub fn resume(&mut self, from: u64, limit: u64) -> Result<bool, Fault> {
        self.limit = limit;
        let from = from.min(self.len);
        let refetch = self.is_gone(from);
        if let Feed::Piped { inflow, queue } = &mut self.feed
            && refetch
        {
            queue.clear();
            inflow.restart()?;
        }
        self.next = from;
        self.trim();
        Ok(refetch)
    }

    pub fn grant(&mut self, limit: u64) {
        if self.limit > 0 {
            self.limit = self.limit.max(limit);
        }
    }

    /// Drops queued bytes before `next`.
    fn trim(&mut self) {
        let Feed::Piped { queue, .. } = &mut self.feed else { return };
        while let Some((offset, bytes)) = queue.front_mut() {
            let end = *offset + bytes.len() as u64;
            if end > self.next {
                let known = self.next.saturating_sub(*offset);
                let _ = bytes.split_to(known as usize);
                *offset += known;
                break;
            }
            queue.pop_front();
        }
    }

    /// Takes what arrived from the other edge.
    pub fn push(&mut self, offset: u64, data: Bytes) -> Result<(), Fault> {
        let Feed::Piped { inflow, queue } = &mut self.feed else {
            return Ok(());
        };
        let mut pieces = Vec::new();
        let result = inflow.push(offset, data, &mut pieces);
        queue.extend(pieces.into_iter().map(|piece| (piece.offset, piece.bytes)));
        self.trim();
        result
    }

    /// Credit for the source, after bytes have left.
    pub fn refill(&mut self) -> Option<u64> {
        let next = self.next;
        self.inflow().and_then(|inflow| inflow.grant(next))
    }

    /// There are bytes to send, as far as this node is concerned.
    pub fn is_ready(&self) -> bool {
        match &self.feed {
            Feed::Whole(_) => self.next < self.len,
            Feed::Piped { queue, .. } => queue.front().is_some_and(|(offset, _)| *offset == self.next),
        }
    }

    pub fn is_sendable(&self) -> bool {
        self.is_ready() && self.next < self.limit
    }

    /// There are bytes to send, and no credit for them.
    pub fn is_held(&self) -> bool {
        self.is_ready() && self.next >= self.limit
    }

    /// The next bytes to send, at most `max`.
    pub fn take(&mut self, max: u64) -> Option<(u64, Bytes)> {
        if !self.is_sendable() {
            return None;
        }
        let max = max.min(self.limit - self.next);
        let offset = self.next;
        let bytes = match &mut self.feed {
            Feed::Whole(encoder) => encoder.read(offset, max),
            Feed::Piped { queue, .. } => {
                let (start, front) = queue.front_mut()?;
                let part = front.split_to((front.len() as u64).min(max) as usize);
                *start += part.len() as u64;
                if front.is_empty() {
                    queue.pop_front();
                }
                part
            }
        };
        self.next += bytes.len() as u64;
        (!bytes.is_empty()).then_some((offset, bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: u32 = 64 << 10;

    fn encoder() -> Encoder {
        Encoder::new((0..300_000u32).map(|i| (i * 7) as u8).collect::<Vec<_>>().into())
    }

    fn inflow(encoder: &Encoder) -> Inflow {
        Inflow::new(encoder.root(), encoder.body().len() as u64, WINDOW).unwrap()
    }

    /// Source, relay and sink in lock step; `cut` makes the sink start again there.
    fn transfer(restart_sink_at: Option<u64>) -> Vec<u8> {
        let encoder = encoder();
        let mut source = Outflow::whole(encoder.clone());
        let mut relay = Outflow::piped(inflow(&encoder));
        let mut sink = inflow(&encoder);
        let (mut body, mut restarted) = (BytesMut::new(), false);
        source.resume(0, u64::from(WINDOW)).unwrap();
        relay.resume(0, u64::from(WINDOW)).unwrap();
        while !sink.is_complete() {
            let mut moved = false;
            if let Some((offset, data)) = source.take(10_000) {
                relay.push(offset, data).unwrap();
                moved = true;
            }
            if let Some((offset, data)) = relay.take(10_000) {
                sink.gather(offset, data, &mut body).unwrap();
                moved = true;
            }
            if let Some(up_to) = relay.refill() {
                source.grant(up_to);
            }
            if let Some(up_to) = sink.grant_verified() {
                relay.grant(up_to);
            }
            let Feed::Piped { queue, .. } = &relay.feed else { panic!("a relay") };
            let held: usize = queue.iter().map(|(_, bytes)| bytes.len()).sum();
            assert!(held <= WINDOW as usize, "a relay holds {held} bytes");
            if restart_sink_at.is_some_and(|at| !restarted && sink.verified() >= at) {
                // The sink has crashed: it needs what left the relay long ago.
                (restarted, moved) = (true, true);
                sink = inflow(&encoder);
                body.clear();
                if relay.resume(0, u64::from(WINDOW)).unwrap() {
                    source.resume(0, u64::from(WINDOW)).unwrap();
                }
            }
            assert!(moved, "stuck at {}", sink.verified());
        }
        assert!(body.capacity() < body.len() + 4096, "it grew step by step to {}", body.capacity());
        body.into()
    }

    #[test]
    fn a_body_passes_a_relay_within_one_window_of_memory() {
        assert_eq!(transfer(None), encoder().body().to_vec());
    }

    #[test]
    fn a_sink_that_starts_again_makes_the_relay_fetch_again() {
        assert_eq!(transfer(Some(150_000)), encoder().body().to_vec());
    }

    #[test]
    fn a_dormant_relay_asks_only_when_the_next_node_lacks_the_body() {
        let encoder = encoder();
        let dormant = Inflow::dormant(encoder.root(), encoder.body().len() as u64, WINDOW).unwrap();
        let mut relay = Outflow::piped(dormant);
        assert_eq!(relay.inflow().unwrap().resume(), None);
        assert_eq!(relay.resume(70_000, 140_000), Ok(true));
        assert_eq!(relay.inflow().unwrap().resume(), Some((0, u64::from(WINDOW))));
    }

    #[test]
    fn more_than_was_ever_granted_is_a_breach_and_what_is_left_over_is_not() {
        let encoder = encoder();
        let mut sink = inflow(&encoder);
        let mut out = Vec::new();
        let flood = Bytes::from(vec![0; WINDOW as usize + 1]);
        assert!(sink.push(0, flood, &mut out).is_err());
        let first = encoder.read(0, u64::MAX);
        assert_eq!(sink.push(200_000, first.clone(), &mut out), Ok(()), "a gap is left over");
        sink.push(0, first, &mut out).unwrap();
        assert!(!out.is_empty());
    }

    #[test]
    fn credit_before_a_restarted_body_begins_counts_for_nothing() {
        let mut source = Outflow::whole(encoder());
        source.grant(100_000);
        assert!(!source.is_sendable());
        source.resume(0, 10).unwrap();
        assert_eq!(source.take(1000).map(|(offset, data)| (offset, data.len())), Some((0, 10)));
        assert!(source.take(1000).is_none());
        source.pause();
        source.grant(100_000);
        assert!(source.take(1000).is_none());
    }
}
