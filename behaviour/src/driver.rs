//! The task that owns the state machine, the store and the clock.
//!
//! One round: take in everything that is ready (bounded), then drain the state machine once. What
//! arrived together thus leaves together: one payment, one signature and one commit per flush.

mod crowd;
mod events;
mod inbound;
mod messages;
mod pulse;
mod requests;
#[cfg(test)]
mod stall_tests;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::channel::{mpsc, oneshot};
use futures::stream::FusedStream;
use futures::{Future, StreamExt};
use futures_timer::Delay;
use por_core::types::{NodeKey, NodeSecret};
use por_core::wire::{Frame, Hello, Lane};
use por_core::{ConnId, CoreConfig, Event as CoreEvent, Input, Node, Output, Time};
use tokio::sync::mpsc as queue;

use crate::answers;
use crate::behaviour::{Behaviour, Event};
use crate::config::Config;
use crate::control::{Control, Message};
use crate::deliveries;
use crate::link::{FromHandler, Outbound, Shared};
use crate::orders::Orders;
use crate::store::{Store, StoreError};
use crowd::Crowd;
use inbound::Inbound;
use pulse::Pulse;
use requests::Requests;

/// Messages, and requests and responses of peers, taken in per round. More would share a signature,
/// but the next node would wait for them all: small rounds keep all nodes of a path busy.
const MAX_ROUND: usize = 256;
/// The same while several ask: what one of them sends waits for a few rounds of what the others send.
const CROWDED_ROUND: usize = 64;
/// Batches under way in the store before what is new waits: it then shares the next flush, with its
/// signatures. One may be on its way to the disk while the next is made.
const MAX_UNCOMMITTED: usize = 2;
/// The same while big bodies pass, which need no store and must not wait for it.
const MAX_UNCOMMITTED_STREAMING: usize = 64;
/// Batches beyond them for those who ask for little beside others: the room is taken by the others.
const MAX_EXPRESS: usize = 2;
/// How often in a turn what is durable at once may lead to more that is.
const MAX_DURABLE_AT_ONCE: u32 = 4;
/// How long after a fragment bodies count as passing, milliseconds.
const STREAMING_MS: u64 = 50;

/// Why the driver ended. Nothing is sent any more.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum DriverError {
    /// The store cannot be written: nothing that relies on it was sent. Repair it, then start again.
    #[error("the store failed: {0}")]
    Store(#[from] StoreError),
}

/// Runs the node. Spawn it on any executor; it ends when the [`Behaviour`] and all [`Control`]s are
/// gone, or with an error when the store fails.
#[must_use = "the node does nothing unless its driver is polled"]
pub struct Driver {
    node: Node,
    store: Box<dyn Store>,
    shared: Arc<Shared>,
    max_control_queue: usize,
    event_queue: usize,
    /// New connections.
    inbox: mpsc::Receiver<FromHandler>,
    /// What they say.
    inbound: Inbound,
    /// `None` once all controls are gone. Unlike the other queues it has many senders at once: one whose
    /// receiver never spins on a sender that lost its turn.
    messages: Option<queue::Receiver<Message>>,
    answers: answers::Receiver,
    to_behaviour: mpsc::Sender<Event>,
    links: HashMap<ConnId, Link>,
    requests: Requests,
    crowd: Crowd,
    servings: HashMap<String, deliveries::Sender>,
    subscribers: Vec<mpsc::Sender<CoreEvent>>,
    /// SeverOrders for the chain.
    orders: Orders,
    /// Who waits until nothing is left to be written or said.
    settling: Vec<oneshot::Sender<()>>,
    leaving: Vec<messages::Leaving>,
    /// Batches that are not durable yet, and those of them that were made for light neighbours alone.
    uncommitted: VecDeque<u64>,
    express: VecDeque<u64>,
    /// The batch of this round is for light neighbours alone.
    is_express: bool,
    durable: u64,
    /// When the last fragment of a body passed.
    streamed: Time,
    start: Instant,
    /// Wall clock at the start, milliseconds since 1970: from there on time is monotonic.
    start_ms: u64,
    timer: Option<(Time, Delay)>,
    pulse: Pulse,
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver")
            .field("node", &self.node.key())
            .field("connections", &self.links.len())
            .field("uncommitted", &self.uncommitted.len())
            .finish_non_exhaustive()
    }
}

struct Link {
    peer: NodeKey,
    outbound: Arc<Outbound>,
}

pub(crate) fn assemble(
    config: Config,
    secret: NodeSecret,
    mut store: Box<dyn Store>,
) -> Result<(Behaviour, Control, Driver), crate::Error> {
    let hello = Hello::new(config.network.clone(), Lane::Control, &config.limits);
    hello.check(&config.network).map_err(crate::Error::Limits)?;
    let restored = store.load()?;
    let core = CoreConfig {
        network: config.network.clone(),
        secret,
        limits: config.limits.clone(),
        policy: config.policy.clone(),
        seed: config.seed.unwrap_or_else(fresh_seed),
    };
    let node = Node::new(core, restored)?;
    let shared = Arc::new(Shared::default());
    let (handler_sender, inbox) = mpsc::channel(64);
    let (message_sender, messages) = queue::channel(MAX_ROUND);
    let (answer_sender, answers) = answers::channel();
    let (to_behaviour, from_driver) = mpsc::channel(256);
    let pulse = Pulse::new(config.policy.margin_ms);
    let (max_control_queue, event_queue) = (config.max_control_queue, config.event_queue);
    let behaviour = Behaviour::new(Arc::new(config), Arc::clone(&shared), handler_sender, from_driver);
    let driver = Driver {
        node,
        store,
        shared,
        max_control_queue,
        event_queue,
        inbox,
        inbound: Inbound::default(),
        messages: Some(messages),
        answers,
        to_behaviour,
        links: HashMap::new(),
        requests: Requests::default(),
        crowd: Crowd::default(),
        servings: HashMap::new(),
        subscribers: Vec::new(),
        orders: Orders::default(),
        settling: Vec::new(),
        leaving: Vec::new(),
        uncommitted: VecDeque::new(),
        express: VecDeque::new(),
        is_express: false,
        durable: 0,
        streamed: Time::default(),
        start: Instant::now(),
        start_ms: wall_ms(),
        timer: None,
        pulse,
    };
    Ok((behaviour, Control::new(message_sender, answer_sender), driver))
}

fn wall_ms() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}

/// Distinct at every start: the standard library's randomly keyed hasher over the wall clock.
fn fresh_seed() -> [u8; 32] {
    use std::hash::{BuildHasher, RandomState};
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    let mut seed = [0; 32];
    for (index, part) in seed.chunks_mut(8).enumerate() {
        part.copy_from_slice(&RandomState::new().hash_one((now, index)).to_be_bytes());
    }
    seed
}

impl Driver {
    fn now(&self) -> Time {
        let elapsed = u64::try_from(self.start.elapsed().as_millis()).unwrap_or(u64::MAX);
        Time(self.start_ms.saturating_add(elapsed))
    }

    fn input(&mut self, input: Input) {
        let now = self.now();
        self.node.handle(now, input);
    }

    /// Takes in what is ready, a round of it at most. True if more may be ready, of which nothing else
    /// would wake the task, but the store where that is behind.
    fn take_in(&mut self, cx: &mut Context<'_>, is_behind: bool) -> bool {
        self.shared.register_driver(cx.waker());
        // At once: whatever is taken in now must not be acknowledged for an app that nobody serves.
        for app in self.shared.take_unserved() {
            self.stop_serving(&app);
        }
        // While the store lags, peers wait: what they sent is held in their own buffers, not here. The
        // store wakes the task.
        if is_behind {
            let more = self.take_in_light(cx);
            self.poll_tick(cx);
            return more;
        }
        self.pulse.beat(self.now());
        let most = if self.crowd.is_mixed(self.now()) { CROWDED_ROUND } else { MAX_ROUND };
        let mut room = most;
        while room > 0 {
            let next = match self.inbox.poll_next_unpin(cx) {
                Poll::Ready(Some(message)) => Poll::Ready(message),
                _ => self.inbound.poll_next(cx),
            };
            let Poll::Ready(message) = next else { break };
            room = room.saturating_sub(weight(&message));
            self.on_handler(message);
        }
        let mut more = room == 0;
        let answers = self.answers.take(cx, most);
        more |= answers.len() == most;
        self.on_answers(answers);
        for conn in self.inbound.take_ended() {
            self.on_closed(conn);
        }
        more |= (0..most).all(|_| self.take_message(cx));
        self.poll_tick(cx);
        more
    }

    /// Tells the node of the time where it has something to do now; else the task is woken then. True if it had.
    fn poll_tick(&mut self, cx: &mut Context<'_>) -> bool {
        let due = self.poll_timer(cx);
        if due {
            self.input(Input::Tick);
        }
        due
    }

    /// Takes in what the application says. True if there was anything.
    fn take_message(&mut self, cx: &mut Context<'_>) -> bool {
        let next = self.messages.as_mut().map(|messages| messages.poll_recv(cx));
        let Some(Poll::Ready(message)) = next else { return false };
        match message {
            Some(message) => self.on_message(message),
            None => self.messages = None,
        }
        true
    }

    /// Takes in what those ask, and are answered, that have a small share of it all: neighbours, and the
    /// application. True if there may be more.
    fn take_in_light(&mut self, cx: &mut Context<'_>) -> bool {
        if self.express.len() >= MAX_EXPRESS {
            return false;
        }
        let mut room = CROWDED_ROUND;
        while room > 0 {
            let is_light = |message: &FromHandler| {
                let link = self.links.get(&message.conn());
                link.is_some_and(|link| self.crowd.is_light(&link.peer, weight(message)))
            };
            let Poll::Ready(message) = self.inbound.poll_first(cx, is_light) else { break };
            room = room.saturating_sub(weight(&message));
            self.is_express = true;
            self.on_handler(message);
        }
        let answers = self.answers.take_while(cx, room, |from| self.crowd.is_light(from, 1));
        room -= answers.len();
        self.is_express |= !answers.is_empty();
        self.on_answers(answers);
        let own = self.node.key();
        while room > 0 && self.crowd.is_light(&own, 1) && self.take_message(cx) {
            room -= 1;
            self.is_express = true;
        }
        room == 0
    }

    fn is_store_behind(&self) -> bool {
        let most = match self.now().since_ms(self.streamed) {
            0..STREAMING_MS => MAX_UNCOMMITTED_STREAMING,
            _ => MAX_UNCOMMITTED,
        };
        self.uncommitted.len() - self.express.len() >= most
    }

    fn poll_store(&mut self, cx: &mut Context<'_>) -> Result<bool, DriverError> {
        let mut any = false;
        while let Poll::Ready(durable) = self.store.poll_durable(cx) {
            let batch = durable?;
            if batch <= self.durable {
                continue;
            }
            self.durable = batch;
            for batches in [&mut self.uncommitted, &mut self.express] {
                let done = batches.partition_point(|number| *number <= batch);
                batches.drain(..done);
            }
            self.input(Input::Persisted { batch });
            any = true;
        }
        Ok(any)
    }

    fn poll_timer(&mut self, cx: &mut Context<'_>) -> bool {
        let Some(deadline) = self.node.next_deadline() else {
            self.timer = None;
            return false;
        };
        let now = self.now();
        if deadline <= now {
            self.timer = None;
            return true;
        }
        let deadline = self.pulse.at_most(now, deadline);
        // One that is earlier is kept: it costs less to look once more then than to set it anew each time.
        if self.timer.as_ref().is_none_or(|(time, _)| *time > deadline) {
            let delay = Delay::new(Duration::from_millis(deadline.since_ms(now)));
            self.timer = Some((deadline, delay));
        }
        let expired = match &mut self.timer {
            Some((_, delay)) => Pin::new(delay).poll(cx).is_ready(),
            None => false,
        };
        if !expired {
            return false;
        }
        let early = self.timer.take().is_some_and(|(time, _)| time < deadline);
        // Sets it for what is due now.
        if early { self.poll_timer(cx) } else { true }
    }

    fn on_handler(&mut self, message: FromHandler) {
        match message {
            FromHandler::Ready { conn, peer, hello, outbound, inbound } => {
                self.inbound.push(conn, inbound);
                self.links.insert(conn, Link { peer, outbound });
                self.input(Input::Connected { peer, conn, hello });
            }
            FromHandler::Frames { conn, frames } => {
                let Some(peer) = self.links.get(&conn).map(|link| link.peer) else { return };
                if frames.iter().any(|frame| matches!(frame, Frame::Fragment(_))) {
                    self.streamed = self.now();
                }
                if frames.iter().any(|frame| matches!(frame, Frame::Request(_))) {
                    self.crowd.asked(peer, self.now());
                }
                self.crowd.took(peer, frames.iter().map(items).sum());
                for frame in frames {
                    self.input(Input::Frame { peer, conn, frame });
                }
            }
            FromHandler::Drained { conn, bytes } => {
                self.streamed = self.now();
                let Some(peer) = self.links.get(&conn).map(|link| link.peer) else { return };
                self.input(Input::Drained { peer, conn, bytes });
            }
        }
    }

    fn on_closed(&mut self, conn: ConnId) {
        if let Some(Link { peer, .. }) = self.links.remove(&conn) {
            self.input(Input::Disconnected { peer, conn });
        }
    }

    /// Carries out what the state machine asks for.
    fn carry_out(&mut self) {
        let mut woken: HashSet<ConnId> = HashSet::new();
        let mut stopped: VecDeque<String> = VecDeque::new();
        loop {
            let Some(output) = self.node.poll() else {
                let Some(app) = stopped.pop_front() else { break };
                self.stop_serving(&app);
                continue;
            };
            match output {
                Output::Send { conn, lane, frame, .. } => {
                    self.send(conn, lane, frame);
                    woken.insert(conn);
                }
                Output::Disconnect { conn, .. } => {
                    if let Some(link) = self.links.get(&conn) {
                        link.outbound.close();
                    }
                }
                Output::Persist { batch, writes } => {
                    self.uncommitted.push_back(batch);
                    if self.is_express {
                        self.express.push_back(batch);
                    }
                    self.store.submit(batch, writes);
                }
                Output::Sever { order } => self.orders.push(order),
                Output::Notify(event) => self.notify(event, &mut stopped),
            }
        }
        for conn in woken {
            if let Some(link) = self.links.get(&conn) {
                link.outbound.wake();
            }
        }
    }

    fn send(&mut self, conn: ConnId, lane: Lane, frame: Frame) {
        let Some(link) = self.links.get(&conn) else { return };
        let waiting = link.outbound.push(lane, frame);
        if lane == Lane::Control && waiting > self.max_control_queue && !link.outbound.is_closing() {
            tracing::warn!(peer = %link.peer, waiting, "peer reads too slowly: disconnecting");
            link.outbound.close();
        }
    }

    fn turn(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), DriverError>> {
        // Before the node learns what time it is by anything else.
        let waits = self.node.next_deadline().is_some();
        if let Some(since) = self.pulse.missed(self.now(), waits) {
            self.input(Input::Stalled { since });
        }
        // What has become durable goes out first: others work on it while more is taken in here.
        if self.poll_store(cx)? {
            self.carry_out();
        }
        // Once a turn: it depends on the time, and what was not taken in must be looked at again.
        let was_behind = self.is_store_behind();
        let mut more = self.take_in(cx, was_behind);
        self.carry_out();
        self.is_express = false;
        // The round may have given the store something that is durable at once, and that something more.
        let mut rounds = 0;
        while self.poll_store(cx)? {
            self.carry_out();
            rounds += 1;
            if rounds == MAX_DURABLE_AT_ONCE {
                more = true;
                break;
            }
        }
        // What waited for the store was not looked at.
        more |= was_behind && rounds > 0;
        if !self.settling.is_empty() && !more && self.node.is_settled() {
            for reply in self.settling.drain(..) {
                let _ = reply.send(());
            }
        }
        self.see_off();
        if self.is_finished() {
            return Poll::Ready(Ok(()));
        }
        if more || self.poll_tick(cx) {
            // One round a turn: what it sends is on its way only when connections get theirs.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    }

    /// The end, also for who still holds the future: nothing may be sent that the store does not hold, so
    /// handlers drop their queues, and whoever waits for something is told.
    fn stop(&mut self) {
        self.shared.stop();
        if let Some(Output::Persist { batch, writes }) = self.node.last_writes() {
            self.store.submit(batch, writes);
        }
        for link in self.links.drain().map(|(_, link)| link) {
            link.outbound.close();
        }
        self.inbox.close();
        self.inbound = Inbound::default();
        self.messages = None;
        self.answers.close();
        self.to_behaviour.close_channel();
        self.requests = Requests::default();
        self.servings.clear();
        self.subscribers.clear();
        self.orders = Orders::default();
        self.settling.clear();
        self.leaving.clear();
    }

    fn is_finished(&self) -> bool {
        self.messages.is_none()
            && self.inbox.is_terminated()
            && self.inbound.is_empty()
            && self.answers.is_empty()
            && self.uncommitted.is_empty()
    }
}

/// What counts as one of a round.
fn weight(message: &FromHandler) -> usize {
    let FromHandler::Frames { frames, .. } = message else { return 1 };
    frames.iter().map(cost).sum()
}

/// Numbers of exchanges in one of a round: each costs little, and a frame can hold very many.
const NUMBERS: usize = 256;

fn cost(frame: &Frame) -> usize {
    let count = match frame {
        Frame::Ack(frame) => frame.receipts.len() + frame.exchanges.len() / NUMBERS,
        Frame::Done(frame) => frame.receipts.len() + frame.exchanges.len() / NUMBERS,
        Frame::Sync(frame) => frame.channels.len() + frame.known.len() / NUMBERS,
        Frame::Reject(frame) => frame.rejections.len(),
        Frame::Late(frame) => frame.items.len(),
        Frame::Severed(frame) => frame.items.len(),
        frame => items(frame),
    };
    count.max(1)
}

/// Requests or responses; at least one, as also an empty frame is work.
fn items(frame: &Frame) -> usize {
    match frame {
        Frame::Request(frame) => frame.requests.len().max(1),
        Frame::Response(frame) => frame.responses.len().max(1),
        _ => 1,
    }
}

impl Future for Driver {
    type Output = Result<(), DriverError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let end = this.turn(cx);
        if end.is_ready() {
            this.stop();
        }
        end
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.stop();
    }
}
