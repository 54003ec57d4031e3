//! The application's handle.

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::channel::{mpsc, oneshot};
use futures::{Stream, StreamExt};
use por_core::api::ChannelSnapshot;
use por_core::types::{ChannelId, Hop, NodeKey, RequestId, SeverOrder, Signed, SignedInvalid, Yocto};
use por_core::{AppPricing, Command, Event, GraphEdge, MyChannel, RejectReason, SignedReceipt};
use tokio::sync::mpsc as queue;

use crate::answers::{self, Answer};
use crate::deliveries;
use crate::orders::{self, OrderStream};
use crate::pending::{self, Listener, Teller};

/// The driver has ended; its future's output says why.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the node has stopped")]
pub struct Stopped;

/// Why a request was not sent. Nothing was paid.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    #[error("request refused: {0}")]
    Refused(RejectReason),
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why a request cannot be followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WatchError {
    /// It was never sent, or it is over: its end was told to those who followed it then, and to
    /// subscribers of [`Control::events`].
    #[error("the node does not know this request, or not any more")]
    Unknown,
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// Why an answer was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RespondError {
    #[error("response of {len} bytes, the request pays for {limit} at most")]
    TooLarge { len: u64, limit: u64 },
    #[error(transparent)]
    Stopped(#[from] Stopped),
}

/// A request to send. The route and its prices are the caller's choice.
#[derive(Clone, Debug)]
pub struct OutboundRequest {
    pub destination: NodeKey,
    pub app: String,
    pub body: Bytes,
    /// Most bytes that the response may have; paid for.
    pub response_limit: u64,
    /// What the destination's app earns, above the prices of the edges.
    pub server_price: Yocto,
    /// Block time, milliseconds since 1970, from which on no node acknowledges it; at most a day ahead.
    pub expires_ms: u64,
    /// Of the graph that the route was computed on: what contradicts that version is the author's mistake, with
    /// a proof of it.
    pub graph_version: u64,
    /// At least each edge's price and time for a message of this size ([`por_core::types::Terms::quote`]), with
    /// more time where other messages are under way; a day at most in all.
    pub route: Vec<Hop>,
}

/// How a request ended. There is no other end, and none is to be overlooked: the protocol has these three.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// Signed by the destination, verified to the last byte.
    Response { receipt: SignedReceipt, body: Bytes },
    /// Proof that an edge of the path was removed. `refund`: the prices from that edge on, zero if it was this
    /// node's own; `late`: what was paid for lateness before.
    Severed { order: Box<Signed<SeverOrder>>, refund: Yocto, late: Yocto },
    /// Not taken; the whole price has come back. `invalid`: signed where the request itself or the
    /// destination is the reason.
    Rejected { reason: RejectReason, refund: Yocto, invalid: Option<SignedInvalid> },
}

/// What [`Control::complete`] tells.
#[derive(Clone, Debug)]
pub struct Ended {
    pub id: RequestId,
    /// What was paid.
    pub price: Yocto,
    pub outcome: Outcome,
}

/// What happens to a request on its way, in order; `Done` is last.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Progress {
    /// The first node is under obligation; the response is due within `bound_ms` of sending.
    Acked {
        bound_ms: u64,
    },
    /// The bound has passed; the request stays open.
    Overdue,
    /// A late payment has arrived.
    Late {
        amount: Yocto,
    },
    Done(Outcome),
}

pub(crate) enum Message {
    Request {
        request: OutboundRequest,
        teller: Teller,
    },
    Watch {
        request: RequestId,
        teller: Teller,
        /// Whether there is such a request.
        reply: oneshot::Sender<bool>,
    },
    Serve {
        app: String,
        pricing: AppPricing,
        max_queued: u32,
        reply: oneshot::Sender<deliveries::Receiver>,
    },
    Leave {
        app: String,
        server: deliveries::Tag,
        reply: oneshot::Sender<()>,
    },
    Unanswered {
        app: String,
        reply: oneshot::Sender<usize>,
    },
    /// [`Command::Pursue`].
    Pursue(Command),
    Channels {
        channels: Vec<MyChannel>,
        reply: oneshot::Sender<()>,
    },
    Graph {
        version: u64,
        chain_time_ms: u64,
        edges: Vec<GraphEdge>,
        reply: oneshot::Sender<()>,
    },
    LateFee {
        per_ms: Yocto,
        reply: oneshot::Sender<()>,
    },
    Sever {
        channel: ChannelId,
        reply: oneshot::Sender<()>,
    },
    Settled {
        reply: oneshot::Sender<()>,
    },
    Orders {
        reply: oneshot::Sender<orders::Place>,
    },
    Snapshots {
        reply: oneshot::Sender<Vec<ChannelSnapshot>>,
    },
    Balances {
        reply: oneshot::Sender<Vec<(ChannelId, NodeKey, Yocto)>>,
    },
    Snapshot {
        channel: ChannelId,
        reply: oneshot::Sender<Option<ChannelSnapshot>>,
    },
    Subscribe {
        reply: oneshot::Sender<mpsc::Receiver<Event>>,
    },
}

/// A request as the driver delivers it to an app.
#[derive(Debug)]
pub(crate) struct Delivery {
    pub id: RequestId,
    pub from: NodeKey,
    pub author: NodeKey,
    pub app: String,
    pub body: Bytes,
    pub response_limit: u64,
    pub server_price: Yocto,
}

/// Cheap to clone; works without the swarm. All calls wait while the driver is busy and fail with
/// [`Stopped`] once it has ended. Dropping a call's future before it resolves may or may not have
/// had its effect; a request of which the id was not learned is told to subscribers of
/// [`Control::events`].
#[derive(Clone, Debug)]
pub struct Control {
    sender: queue::Sender<Message>,
    answers: answers::Sender,
}

impl Control {
    pub(crate) fn new(sender: queue::Sender<Message>, answers: answers::Sender) -> Control {
        Control { sender, answers }
    }

    async fn send(&self, message: Message) -> Result<(), Stopped> {
        self.sender.send(message).await.map_err(|_| Stopped)
    }

    async fn ask<T>(&self, message: impl FnOnce(oneshot::Sender<T>) -> Message) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(message(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Sends a request. Resolves once it is on disk with its payment; the outcome follows.
    pub async fn request(&self, request: OutboundRequest) -> Result<PendingRequest, RequestError> {
        let (teller, listener) = pending::pair();
        self.send(Message::Request { request, teller }).await?;
        PendingRequest::new(listener).await
    }

    /// Sends a request and waits for its end, for whom nothing in between matters: [`Control::request`] and
    /// [`PendingRequest::outcome`] with one wake-up of the caller. Bound the wait where you cannot wait
    /// for ever: the request stays open, and its id is told to subscribers of [`Control::events`] only.
    pub async fn complete(&self, request: OutboundRequest) -> Result<Ended, RequestError> {
        self.begin(request).await?.await
    }

    /// [`Control::complete`] in two steps: hands a request to the driver, and what this resolves to is the wait
    /// for its end, which tells meanwhile what the request's id is. Nothing was sent if this is dropped before it
    /// resolves.
    pub async fn begin(&self, request: OutboundRequest) -> Result<Completion, Stopped> {
        let (teller, listener) = pending::pair();
        self.send(Message::Request { request, teller }).await?;
        Ok(Completion { listener })
    }

    /// Follows a request of this node from here on, for example one from before a restart. Others who
    /// follow it are told as before. [`WatchError::Unknown`] if it has ended already, or never was.
    pub async fn watch(&self, request: RequestId) -> Result<PendingRequest, WatchError> {
        let (teller, listener) = pending::pair();
        if !self.ask(|reply| Message::Watch { request, teller, reply }).await? {
            return Err(WatchError::Unknown);
        }
        Ok(PendingRequest { id: request, price: Yocto::ZERO, listener: Some(listener), early: None })
    }

    /// Serves an app until the returned stream is dropped, or the call is given up. At most `max_queued`
    /// unanswered requests are acknowledged; unanswered ones from before are delivered again. With 0 nothing
    /// more is taken: for a server that leaves when [`Control::unanswered`] is 0.
    pub async fn serve(
        &self,
        app: impl Into<String>,
        pricing: AppPricing,
        max_queued: u32,
    ) -> Result<Serving, Stopped> {
        let app = app.into();
        let requests = self.ask(|reply| Message::Serve { app, pricing, max_queued, reply }).await?;
        Ok(Serving { requests, control: self.clone() })
    }

    /// Requests that were acknowledged for an app, served or not, and have no answer yet.
    pub async fn unanswered(&self, app: impl Into<String>) -> Result<usize, Stopped> {
        let app = app.into();
        self.ask(|reply| Message::Unanswered { app, reply }).await
    }

    /// A route for a pursuit, as asked for by [`Event::Pursue`] of [`Control::events`].
    pub async fn pursue(
        &self,
        channel: ChannelId,
        route: Vec<Hop>,
        graph_version: u64,
        expires_ms: u64,
    ) -> Result<(), Stopped> {
        let command = Command::Pursue { channel, expires_ms, graph_version, route };
        self.sender.send(Message::Pursue(command)).await.map_err(|_| Stopped)
    }

    /// This node's channels as confirmed on chain, the whole set whenever one changes: one that is missing
    /// is gone, and what is unfinished over it ends. Nobody is judged before the first call. The peer of
    /// each that is not gone is kept connected, also while the channel closes.
    pub async fn set_channels(&self, channels: Vec<MyChannel>) -> Result<(), Stopped> {
        self.ask(|reply| Message::Channels { channels, reply }).await
    }

    /// Edges of the graph that changed, the graph's version after them, and the latest block's time in
    /// milliseconds since 1970, by which requests expire. An older version than told before changes nothing.
    pub async fn update_graph(
        &self,
        version: u64,
        chain_time_ms: u64,
        edges: Vec<GraphEdge>,
    ) -> Result<(), Stopped> {
        self.ask(|reply| Message::Graph { version, chain_time_ms, edges, reply }).await
    }

    /// The network's late fee per request and millisecond, as the chain has it. Until it is told
    /// nothing is paid for lateness.
    pub async fn set_late_fee(&self, per_ms: Yocto) -> Result<(), Stopped> {
        self.ask(|reply| Message::LateFee { per_ms, reply }).await
    }

    /// Severs a channel of this node at once: bonds are lost, what waits for an answer over it gets
    /// the proof.
    pub async fn sever(&self, channel: ChannelId) -> Result<(), Stopped> {
        self.ask(|reply| Message::Sever { channel, reply }).await
    }

    /// Waits until what has happened so far is durable and has been given to the connections: for who is about to
    /// stop. That an answer has come is told its server some milliseconds after the application, and a server
    /// that keeps an answer for somebody who is away for long severs the edge. On a busy node this may take as
    /// long as requests come.
    pub async fn settled(&self) -> Result<(), Stopped> {
        self.ask(|reply| Message::Settled { reply }).await
    }

    /// SeverOrders that have to reach the chain, one a channel; again after a restart while the
    /// chain still shows the edge. Whoever takes them last gets those that come, and those that the stream
    /// before has not yielded; that one ends.
    pub async fn orders(&self) -> Result<OrderStream, Stopped> {
        let place = self.ask(|reply| Message::Orders { reply }).await?;
        Ok(place.take())
    }

    /// All channels as the node's ledger has them, with the evidence for the contract.
    pub async fn channels(&self) -> Result<Vec<ChannelSnapshot>, Stopped> {
        self.ask(|reply| Message::Snapshots { reply }).await
    }

    /// What this node owns on each channel, and with whom: all that the choice of a route needs.
    pub async fn balances(&self) -> Result<Vec<(ChannelId, NodeKey, Yocto)>, Stopped> {
        self.ask(|reply| Message::Balances { reply }).await
    }

    /// One of [`Control::channels`]; `None` if the node has never known it.
    pub async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelSnapshot>, Stopped> {
        self.ask(|reply| Message::Snapshot { channel, reply }).await
    }

    /// Everything the node tells, from now on, for status and metrics. Requests of served apps come
    /// without their bodies. A subscriber that lags behind the queue is dropped: its stream ends.
    pub async fn events(&self) -> Result<EventStream, Stopped> {
        let events = self.ask(|reply| Message::Subscribe { reply }).await?;
        Ok(EventStream { events })
    }
}

/// The wait for the end of a request, from [`Control::begin`]. Dropping it does not cancel the request.
#[derive(Debug)]
#[must_use = "the request's end is told to nobody else"]
pub struct Completion {
    listener: Listener,
}

impl Completion {
    /// Waits until the request is on disk with its payment: its id and what was paid. Whoever needs neither
    /// awaits the end alone, with one wake-up less.
    pub async fn started(&self) -> Result<(RequestId, Yocto), RequestError> {
        let start = poll_fn(|cx| self.listener.poll_start(cx)).await.ok_or(Stopped)?;
        start.map_err(RequestError::Refused)
    }

    /// The request's id; `None` until it is on disk, and where it was refused.
    pub fn id(&self) -> Option<RequestId> {
        self.listener.id()
    }
}

impl Future for Completion {
    type Output = Result<Ended, RequestError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.listener.poll_end(cx).map(|end| end.ok_or(Stopped)?.map_err(RequestError::Refused))
    }
}

/// A request that is on its way. Dropping it does not cancel the request.
#[derive(Debug)]
pub struct PendingRequest {
    pub id: RequestId,
    /// What was paid; zero where the request was taken up by [`Control::watch`].
    pub price: Yocto,
    /// `None` once the outcome was told.
    listener: Option<Listener>,
    early: Option<Outcome>,
}

impl PendingRequest {
    /// Waits for the start.
    async fn new(listener: Listener) -> Result<PendingRequest, RequestError> {
        let start = poll_fn(|cx| listener.poll_start(cx)).await.ok_or(Stopped)?;
        let (id, price) = start.map_err(RequestError::Refused)?;
        Ok(PendingRequest { id, price, listener: Some(listener), early: None })
    }

    /// What happens next; `None` after the outcome.
    pub async fn next(&mut self) -> Result<Option<Progress>, Stopped> {
        if let Some(outcome) = self.early.take() {
            return Ok(Some(Progress::Done(outcome)));
        }
        let Some(listener) = &self.listener else { return Ok(None) };
        let progress = poll_fn(|cx| listener.poll_next(cx)).await.ok_or(Stopped)?;
        if matches!(progress, Progress::Done(_)) {
            self.listener = None;
        }
        Ok(Some(progress))
    }

    /// Waits until the first node is under obligation (`true`), or the request has ended before.
    pub async fn acked(&mut self) -> Result<bool, Stopped> {
        loop {
            match self.next().await? {
                Some(Progress::Acked { .. }) => return Ok(true),
                Some(Progress::Overdue | Progress::Late { .. }) => {}
                Some(Progress::Done(outcome)) => {
                    self.early = Some(outcome);
                    return Ok(false);
                }
                None => return Err(Stopped),
            }
        }
    }

    /// Waits for the end. Bound the wait where you cannot wait for ever: the request stays open.
    pub async fn outcome(self) -> Result<Outcome, Stopped> {
        match (self.early, self.listener) {
            (Some(outcome), _) => Ok(outcome),
            (None, Some(listener)) => poll_fn(|cx| listener.poll_outcome(cx)).await.ok_or(Stopped),
            (None, None) => Err(Stopped),
        }
    }
}

/// Requests of a served app, those of each neighbour in turn ([`crate::FairQueue`]). Dropping it stops
/// serving.
#[derive(Debug)]
pub struct Serving {
    requests: deliveries::Receiver,
    control: Control,
}

impl Stream for Serving {
    type Item = IncomingRequest;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<IncomingRequest>> {
        let control = self.control.clone();
        self.requests
            .poll_next_unpin(cx)
            .map(|request| request.map(|delivery| IncomingRequest::new(delivery, control)))
    }
}

impl Serving {
    /// Ends serving in good order, from wherever it is to be ended.
    pub fn exit(&self) -> Exit {
        let (app, server) = (self.requests.app().to_owned(), self.requests.tag());
        Exit { app, server, control: self.control.clone() }
    }
}

/// The way out for the server of an app: [`Serving::exit`].
#[derive(Clone, Debug)]
pub struct Exit {
    app: String,
    server: deliveries::Tag,
    control: Control,
}

impl Exit {
    /// From now on nothing more is taken for the app. Waits until all that was taken is answered: the server goes on
    /// with that, and is dropped afterwards. Returns as well if it was dropped, or another one has taken its place.
    pub async fn leave(&self) -> Result<(), Stopped> {
        let (app, server) = (self.app.clone(), self.server.clone());
        self.control.ask(|reply| Message::Leave { app, server, reply }).await
    }
}

/// A paid request that this node is obliged to answer. Dropped without an answer it stays open, and from its
/// deadline on the node pays for its lateness: it is given to the app's next server. What cannot be answered
/// otherwise should be answered with an empty body.
#[derive(Debug)]
pub struct IncomingRequest {
    delivery: Delivery,
    control: Control,
    answered: AtomicBool,
}

impl IncomingRequest {
    fn new(delivery: Delivery, control: Control) -> IncomingRequest {
        IncomingRequest { delivery, control, answered: AtomicBool::new(false) }
    }

    pub fn id(&self) -> RequestId {
        self.delivery.id
    }

    pub fn author(&self) -> NodeKey {
        self.delivery.author
    }

    /// The neighbour that it came from, and that is owed the answer.
    pub fn from(&self) -> NodeKey {
        self.delivery.from
    }

    pub fn app(&self) -> &str {
        &self.delivery.app
    }

    pub fn body(&self) -> &Bytes {
        &self.delivery.body
    }

    /// Most bytes of the response, as paid for.
    pub fn response_limit(&self) -> u64 {
        self.delivery.response_limit
    }

    /// What this node earns for the app, above the price of its edge.
    pub fn server_price(&self) -> Yocto {
        self.delivery.server_price
    }

    /// Answers from anywhere, without the swarm and without waiting for the driver. The first answer that is
    /// not too large counts, further ones have no effect.
    pub async fn respond(&self, body: Bytes) -> Result<(), RespondError> {
        let (len, limit) = (body.len() as u64, self.delivery.response_limit);
        if len > limit {
            return Err(RespondError::TooLarge { len, limit });
        }
        if self.answered.swap(true, Ordering::Relaxed) {
            return Ok(());
        }
        let Delivery { id: request, from, author, .. } = self.delivery;
        Ok(self.control.answers.send(from, author, Answer { request, body })?)
    }
}

/// See [`Control::events`].
#[derive(Debug)]
pub struct EventStream {
    events: mpsc::Receiver<Event>,
}

impl Stream for EventStream {
    type Item = Event;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Event>> {
        self.events.poll_next_unpin(cx)
    }
}
