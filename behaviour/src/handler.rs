//! One connection: opens and accepts its lanes, and passes frames between them and the driver.

use std::collections::VecDeque;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::channel::mpsc;
use libp2p_core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p_swarm::handler::{
    ConnectionEvent, DialUpgradeError, FullyNegotiatedInbound, FullyNegotiatedOutbound,
};
use libp2p_swarm::{
    ConnectionHandler, ConnectionHandlerEvent, Stream, StreamProtocol, StreamUpgradeError, SubstreamProtocol,
};
use por_core::ConnId;
use por_core::types::NodeKey;
use por_core::wire::{Frame, Hello, HelloError, Lane, PROTOCOL_NAME};

use crate::config::Config;
use crate::link::{
    FromHandler, LINK_QUEUE, MAX_BATCH_BYTES, MAX_BATCH_FRAMES, MAX_CONTROL_BYTES, Outbound, Shared,
};
use crate::protocol::{LaneError, LaneReader, LaneWriter, Stall};

/// Attempts to open a lane before the connection is given up for this protocol.
const MAX_SUBSTREAM_ATTEMPTS: u8 = 5;

const PROTOCOL: StreamProtocol = StreamProtocol::new(PROTOCOL_NAME);

/// What the behaviour tells a handler.
#[derive(Debug)]
pub enum FromBehaviour {
    /// There is, or is no longer, something to do with this peer.
    Wanted(bool),
}

/// What a handler tells the behaviour.
#[derive(Debug)]
pub enum ToBehaviour {
    /// Both lanes work both ways.
    Ready,
    /// The protocol cannot run on this connection; the connection itself is fine.
    Unusable(Failure),
    /// The connection is to be closed.
    Close(Failure),
}

/// Why the protocol does not run, or no longer runs, on a connection.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    #[error("peer's identity is not an ed25519 key")]
    NotANode,
    #[error("peer does not speak {PROTOCOL_NAME}")]
    Unsupported,
    #[error("substream could not be opened: {0}")]
    Substream(String),
    #[error(transparent)]
    Hello(#[from] HelloError),
    #[error("peer did not begin its lane with Hello")]
    NoHello,
    #[error("peer opened the same lane twice")]
    DuplicateLane,
    #[error("handshake was not complete in time")]
    Handshake,
    #[error(transparent)]
    Lane(#[from] LaneError),
    #[error("closed by this node")]
    Local,
}

/// A lane that this side opens.
enum OutLane {
    Closed { attempts: u8 },
    Opening { attempts: u8 },
    Open(Box<LaneWriter>),
}

/// What was read at once.
#[derive(Default)]
struct Batch {
    frames: Vec<Frame>,
    /// There may be more: nothing wakes the task for it.
    more: bool,
    error: Option<LaneError>,
}

/// Most messages to the driver of what a peer had said when its lanes failed.
const MAX_LAST_BATCHES: u8 = 16;

/// A lane has failed. What the peer said before is still handed on: an answer that is lost here comes again
/// only when the peer does.
struct Ending {
    error: LaneError,
    /// Messages to the driver that may still be made of it.
    batches: u8,
    /// Bounds the wait for a driver that takes nothing.
    stall: Stall,
}

/// The connection's state as a whole.
enum State {
    /// Not a node, failed, or the driver has ended: substreams are refused.
    Inert,
    /// Waiting until there is something to do, or until the peer opens a lane.
    Idle,
    /// Opening lanes and waiting for the peer's. The timer bounds it.
    Handshake(Stall),
    /// `FromHandler::Ready` has been queued.
    Ready,
}

/// Handler of one connection. Its memory is bounded: one batch of frames towards the driver, one
/// chunk per lane, and the two outbound queues (see the link's documentation).
pub struct Handler {
    conn: ConnId,
    peer: Option<NodeKey>,
    config: Arc<Config>,
    shared: Arc<Shared>,
    /// Shared with the other connections until this one is ready.
    driver: mpsc::Sender<FromHandler>,
    /// Takes the place of `driver` once the driver has been told of this connection, which it takes for closed
    /// when this is dropped.
    own: Option<mpsc::Sender<FromHandler>>,
    state: State,
    wanted: bool,
    outbound: Arc<Outbound>,
    out_control: OutLane,
    out_bulk: OutLane,
    /// Accepted substreams that have not said Hello.
    unnamed: Vec<LaneReader>,
    in_control: Option<LaneReader>,
    in_bulk: Option<LaneReader>,
    hello: Option<Hello>,
    staged: VecDeque<FromHandler>,
    drained: u64,
    ending: Option<Ending>,
    events: VecDeque<ToBehaviour>,
}

impl std::fmt::Debug for Handler {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Handler")
            .field("conn", &self.conn)
            .field("peer", &self.peer)
            .field("wanted", &self.wanted)
            .field("is_ready", &matches!(self.state, State::Ready))
            .finish_non_exhaustive()
    }
}

impl Handler {
    pub(crate) fn new(
        conn: ConnId,
        peer: Option<NodeKey>,
        config: Arc<Config>,
        shared: Arc<Shared>,
        driver: mpsc::Sender<FromHandler>,
        wanted: bool,
    ) -> Handler {
        let state = if peer.is_some() { State::Idle } else { State::Inert };
        Handler {
            conn,
            peer,
            config,
            shared,
            driver,
            own: None,
            state,
            wanted,
            outbound: Arc::default(),
            out_control: OutLane::Closed { attempts: 0 },
            out_bulk: OutLane::Closed { attempts: 0 },
            unnamed: Vec::new(),
            in_control: None,
            in_bulk: None,
            hello: None,
            staged: VecDeque::new(),
            drained: 0,
            ending: None,
            events: VecDeque::new(),
        }
    }

    /// Ends the protocol on this connection.
    fn end(&mut self, event: ToBehaviour) {
        self.state = State::Inert;
        self.unnamed.clear();
        self.in_control = None;
        self.in_bulk = None;
        self.out_control = OutLane::Closed { attempts: MAX_SUBSTREAM_ATTEMPTS };
        self.out_bulk = OutLane::Closed { attempts: MAX_SUBSTREAM_ATTEMPTS };
        self.staged.clear();
        self.ending = None;
        self.events.push_back(event);
    }

    /// Ends the protocol once what the peer has said is handed on.
    fn fail(&mut self, error: LaneError) {
        let stall = Stall::new(self.config.stall_timeout);
        self.ending.get_or_insert(Ending { error, batches: MAX_LAST_BATCHES, stall });
    }

    fn accept(&mut self, stream: Stream) {
        let lanes =
            self.unnamed.len() + usize::from(self.in_control.is_some()) + usize::from(self.in_bulk.is_some());
        if matches!(self.state, State::Inert) || lanes >= 2 {
            // Dropping a substream resets it: two lanes are all that a peer gets.
            return;
        }
        self.unnamed.push(LaneReader::new(stream, self.config.limits.max_frame, self.config.stall_timeout));
    }

    fn opened(&mut self, lane: Lane, stream: Stream) {
        if matches!(self.state, State::Inert) {
            return;
        }
        let hello = Hello::new(self.config.network.clone(), lane, &self.config.limits);
        let mut writer = LaneWriter::new(stream, self.config.stall_timeout);
        writer.begin(&Frame::Hello(hello));
        *self.out_lane(lane) = OutLane::Open(Box::new(writer));
    }

    fn open_failed(&mut self, lane: Lane, error: StreamUpgradeError<std::convert::Infallible>) {
        let failure = match error {
            StreamUpgradeError::NegotiationFailed => Failure::Unsupported,
            StreamUpgradeError::Timeout => Failure::Substream("timed out".to_owned()),
            StreamUpgradeError::Io(error) => Failure::Substream(error.to_string()),
            StreamUpgradeError::Apply(never) => match never {},
        };
        let out = self.out_lane(lane);
        let OutLane::Opening { attempts } = *out else { return };
        *out = OutLane::Closed { attempts };
        if matches!(failure, Failure::Unsupported) || attempts >= MAX_SUBSTREAM_ATTEMPTS {
            self.end(ToBehaviour::Unusable(failure));
        }
    }

    fn out_lane(&mut self, lane: Lane) -> &mut OutLane {
        match lane {
            Lane::Control => &mut self.out_control,
            Lane::Bulk => &mut self.out_bulk,
        }
    }

    /// The next substream to request, if one is needed.
    fn next_open(&mut self) -> Option<Lane> {
        if !matches!(self.state, State::Handshake(_)) {
            return None;
        }
        // A stranger says Hello first: until it is checked it gets nothing.
        if !self.wanted && self.in_control.is_none() && self.in_bulk.is_none() {
            return None;
        }
        for lane in [Lane::Control, Lane::Bulk] {
            let out = self.out_lane(lane);
            if let OutLane::Closed { attempts } = *out {
                *out = OutLane::Opening { attempts: attempts + 1 };
                return Some(lane);
            }
        }
        None
    }

    /// Reads the Hellos of accepted substreams and finds out whether everything is there.
    fn poll_handshake(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        if matches!(self.state, State::Idle) && (self.wanted || !self.unnamed.is_empty()) {
            self.state = State::Handshake(Stall::new(self.config.handshake_timeout));
        }
        let State::Handshake(timer) = &mut self.state else {
            return Ok(());
        };
        if timer.poll_expired(cx) {
            return Err(Failure::Handshake);
        }
        let mut index = 0;
        while let Some(reader) = self.unnamed.get_mut(index) {
            match reader.poll_frame(cx) {
                Poll::Pending => index += 1,
                Poll::Ready(Ok((Frame::Hello(hello), _))) => {
                    let reader = self.unnamed.swap_remove(index);
                    self.named(hello, reader)?;
                }
                Poll::Ready(Ok(_)) => return Err(Failure::NoHello),
                Poll::Ready(Err(error)) => return Err(error.into()),
            }
        }
        self.poll_greet(cx)?;
        self.try_ready();
        Ok(())
    }

    fn named(&mut self, hello: Hello, reader: LaneReader) -> Result<(), Failure> {
        hello.check(&self.config.network)?;
        let slot = match hello.lane {
            Lane::Control => &mut self.in_control,
            Lane::Bulk => &mut self.in_bulk,
        };
        if slot.is_some() {
            return Err(Failure::DuplicateLane);
        }
        *slot = Some(reader);
        if hello.lane == Lane::Control {
            self.hello = Some(hello);
        }
        Ok(())
    }

    /// Gets this side's Hellos out before anything else is known.
    fn poll_greet(&mut self, cx: &mut Context<'_>) -> Result<(), Failure> {
        for out in [&mut self.out_control, &mut self.out_bulk] {
            if let OutLane::Open(writer) = out
                && let Poll::Ready(Err(error)) = writer.poll_write(cx, || None, &mut 0)
            {
                return Err(error.into());
            }
        }
        Ok(())
    }

    fn try_ready(&mut self) {
        let both_open = matches!((&self.out_control, &self.out_bulk), (OutLane::Open(_), OutLane::Open(_)));
        if !both_open || self.in_control.is_none() || self.in_bulk.is_none() {
            return;
        }
        let (Some(peer), Some(hello)) = (self.peer, self.hello.take()) else { return };
        let (conn, outbound) = (self.conn, Arc::clone(&self.outbound));
        let (own, inbound) = mpsc::channel(LINK_QUEUE);
        self.own = Some(own);
        self.staged.push_back(FromHandler::Ready { conn, peer, hello, outbound, inbound });
        self.state = State::Ready;
        self.events.push_back(ToBehaviour::Ready);
    }

    /// Writes what the driver has queued; control first, and bulk only when control is out.
    fn poll_outbound(&mut self, cx: &mut Context<'_>) -> Result<(), LaneError> {
        let (OutLane::Open(control), OutLane::Open(bulk)) = (&mut self.out_control, &mut self.out_bulk)
        else {
            return Ok(());
        };
        let outbound = &self.outbound;
        match control.poll_write(cx, || outbound.pop(Lane::Control), &mut 0) {
            Poll::Ready(Ok(())) => {}
            Poll::Ready(Err(error)) => return Err(error),
            Poll::Pending => return Ok(()),
        }
        match bulk.poll_write(cx, || outbound.pop(Lane::Bulk), &mut self.drained) {
            Poll::Ready(Err(error)) => Err(error),
            _ => Ok(()),
        }
    }

    /// Passes frames to the driver if it takes them; control first. One message at a time: other
    /// connections get their turn in between.
    fn poll_inbound(&mut self, cx: &mut Context<'_>) {
        if !self.poll_staged(cx) {
            return;
        }
        let Batch { frames, more, error } = self.read_batch(cx);
        if !frames.is_empty() {
            self.staged.push_back(FromHandler::Frames { conn: self.conn, frames });
        }
        if let Some(error) = error {
            return self.fail(error);
        }
        if self.poll_staged(cx) && more {
            cx.waker().wake_by_ref();
        }
    }

    /// Hands on what the peer has said and is here. Ready once that is done, or the driver takes nothing.
    fn poll_ending(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        loop {
            if self.poll_staged(cx) {
                // Progress: the time is for each message.
                if let Some(ending) = &mut self.ending {
                    ending.stall.progress();
                }
            } else {
                let is_over = self.ending.as_mut().is_none_or(|ending| ending.stall.poll_expired(cx));
                return if is_over { Poll::Ready(()) } else { Poll::Pending };
            }
            let left = self.ending.as_mut().and_then(|ending| {
                ending.batches = ending.batches.checked_sub(1)?;
                Some(ending.batches)
            });
            if left.is_none() {
                return Poll::Ready(());
            }
            let Batch { frames, .. } = self.read_batch(cx);
            if frames.is_empty() {
                return Poll::Ready(());
            }
            self.staged.push_back(FromHandler::Frames { conn: self.conn, frames });
        }
    }

    /// True once the driver has taken everything staged.
    fn poll_staged(&mut self, cx: &mut Context<'_>) -> bool {
        loop {
            if self.staged.is_empty() && self.drained > 0 {
                let bytes = std::mem::take(&mut self.drained);
                self.staged.push_back(FromHandler::Drained { conn: self.conn, bytes });
            }
            if self.staged.is_empty() {
                return true;
            }
            match self.driver.poll_ready(cx) {
                Poll::Pending => return false,
                Poll::Ready(Ok(())) => {}
                // The driver has ended; `shared.stop` says so to the behaviour.
                Poll::Ready(Err(_)) => self.staged.clear(),
            }
            let Some(message) = self.staged.pop_front() else { continue };
            let first = matches!(message, FromHandler::Ready { .. });
            if self.driver.start_send(message).is_err() {
                self.staged.clear();
            }
            if first && let Some(own) = self.own.take() {
                self.driver = own;
            }
        }
    }

    fn read_batch(&mut self, cx: &mut Context<'_>) -> Batch {
        let (mut batch, mut bytes) = (Batch::default(), 0);
        let lanes = [(&mut self.in_control, MAX_CONTROL_BYTES), (&mut self.in_bulk, MAX_BATCH_BYTES)];
        for (lane, most) in lanes {
            let Some(reader) = lane else { continue };
            loop {
                if batch.frames.len() >= MAX_BATCH_FRAMES || bytes >= most {
                    batch.more = true;
                    break;
                }
                match reader.poll_frame(cx) {
                    Poll::Pending => break,
                    Poll::Ready(Ok((frame, size))) => {
                        bytes += size;
                        batch.frames.push(frame);
                    }
                    Poll::Ready(Err(error)) => {
                        // The other lane may still have something.
                        batch.error.get_or_insert(error);
                        *lane = None;
                        break;
                    }
                }
            }
        }
        batch
    }

    fn poll_ready_state(&mut self, cx: &mut Context<'_>) {
        if self.outbound.is_closing() {
            return self.end(ToBehaviour::Close(Failure::Local));
        }
        if self.ending.is_none() {
            match self.poll_outbound(cx) {
                Ok(()) => self.poll_inbound(cx),
                Err(error) => self.fail(error),
            }
        }
        if self.ending.is_some()
            && self.poll_ending(cx).is_ready()
            && let Some(Ending { error, .. }) = self.ending.take()
        {
            self.end(ToBehaviour::Close(error.into()));
        }
    }
}

impl ConnectionHandler for Handler {
    type FromBehaviour = FromBehaviour;
    type ToBehaviour = ToBehaviour;
    type InboundProtocol = either::Either<ReadyUpgrade<StreamProtocol>, DeniedUpgrade>;
    type OutboundProtocol = ReadyUpgrade<StreamProtocol>;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = Lane;

    fn listen_protocol(&self) -> SubstreamProtocol<Self::InboundProtocol> {
        let upgrade = match self.state {
            State::Inert => either::Either::Right(DeniedUpgrade),
            _ => either::Either::Left(ReadyUpgrade::new(PROTOCOL)),
        };
        SubstreamProtocol::new(upgrade, ())
    }

    fn connection_keep_alive(&self) -> bool {
        match self.state {
            State::Inert => false,
            State::Idle => self.wanted,
            State::Handshake(_) => true,
            State::Ready => {
                let is_busy = !self.outbound.is_empty() || !self.staged.is_empty();
                self.wanted || is_busy || self.ending.is_some()
            }
        }
    }

    fn on_behaviour_event(&mut self, event: FromBehaviour) {
        match event {
            FromBehaviour::Wanted(wanted) => self.wanted = wanted,
        }
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, Self::InboundProtocol, Self::OutboundProtocol, (), Lane>,
    ) {
        match event {
            ConnectionEvent::FullyNegotiatedInbound(FullyNegotiatedInbound { protocol, .. }) => {
                let futures::future::Either::Left(stream) = protocol;
                self.accept(stream);
            }
            ConnectionEvent::FullyNegotiatedOutbound(FullyNegotiatedOutbound { protocol, info }) => {
                self.opened(info, protocol);
            }
            ConnectionEvent::DialUpgradeError(DialUpgradeError { info, error }) => {
                self.open_failed(info, error)
            }
            _ => {}
        }
    }

    /// The connection is closed: what has arrived on it is handed on.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<Option<ToBehaviour>> {
        let is_local = self.outbound.is_closing() || self.shared.is_stopped();
        if !matches!(self.state, State::Ready) || is_local {
            return Poll::Ready(None);
        }
        self.fail(LaneError::Closed);
        self.poll_ending(cx).map(|()| None)
    }

    fn poll(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<ConnectionHandlerEvent<Self::OutboundProtocol, Lane, ToBehaviour>> {
        self.outbound.register(cx.waker());
        if self.shared.is_stopped() && !matches!(self.state, State::Inert) {
            self.end(ToBehaviour::Unusable(Failure::Local));
        }
        if let Err(failure) = self.poll_handshake(cx) {
            self.end(ToBehaviour::Unusable(failure));
        }
        if matches!(self.state, State::Ready) {
            self.poll_ready_state(cx);
        }
        if let Some(event) = self.events.pop_front() {
            return Poll::Ready(ConnectionHandlerEvent::NotifyBehaviour(event));
        }
        if let Some(lane) = self.next_open() {
            let protocol = SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), lane)
                .with_timeout(self.config.handshake_timeout);
            return Poll::Ready(ConnectionHandlerEvent::OutboundSubstreamRequest { protocol });
        }
        Poll::Pending
    }
}
