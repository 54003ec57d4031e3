//! What goes into the node and what comes out of it.

mod policy;
mod row;

use std::fmt;

use bytes::Bytes;
use por_types::SignedInvalid;
use por_types::{
    AccountId, AmountError, ChannelId, Hop, Network, NodeKey, NodeSecret, RequestId, SeverOrder, SeverReason,
    Side, Signed, Terms, Totals, Yocto,
};

pub use policy::{ANSWER_APP, ANSWER_LIMIT, HeldAnswer, OrderPace, Patience, Policy, Pursue, PursuitEnd};
pub use por_types::SignedReceipt;
pub use row::{Row, RowKey, Table, Write};

use crate::wire::{Frame, Hello, Lane};

/// Local time in milliseconds (protocol section 5: all clocks are local). Within a process it is
/// monotonic; across restarts it goes on by the wall clock, so that time spent down counts.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    borsh::BorshSerialize,
    borsh::BorshDeserialize,
)]
pub struct Time(pub u64);

impl Time {
    pub fn after_ms(self, ms: u64) -> Time {
        Time(self.0.saturating_add(ms))
    }

    pub fn since_ms(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

/// One connection with a peer, numbered by the driver; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnId(pub u64);

/// Number of an exchange on an edge, given by its upstream end, increasing for ever (also across
/// restarts). Scope: (upstream peer, downstream peer).
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    borsh::BorshSerialize,
    borsh::BorshDeserialize,
)]
#[serde(transparent)]
pub struct ExchangeId(pub u64);

/// Bounds on everything that a peer or an application can make the node hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest body of a request or response that begins or ends at this node, bytes; a relay holds windows
    /// only, and takes what the terms of its channels allow.
    pub max_body: u64,
    /// Bodies up to this size, bytes, travel inside the frame; larger ones as fragments on the bulk lane. At
    /// most half of `max_frame`.
    pub max_inline: u32,
    /// Largest frame, bytes, checked before anything is allocated for it. At least
    /// [`MIN_FRAME`](crate::wire::MIN_FRAME).
    pub max_frame: u32,
    /// Receive window of one exchange's bulk body, bytes. At least [`MIN_FRAME`](crate::wire::MIN_FRAME).
    pub window: u32,
    /// Most bytes of bodies held for one peer.
    pub max_peer_bytes: u64,
    /// Most unanswered exchanges per peer and direction (the channel's terms may ask for fewer).
    pub max_exchanges: u32,
    /// Most requests of the local application in flight.
    pub max_local: u32,
    /// Most requests, responses or acks in one flush.
    pub max_flush: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_body: 16 << 20,
            max_inline: 16 << 10,
            max_frame: 1 << 20,
            window: 1 << 20,
            max_peer_bytes: 64 << 20,
            max_exchanges: 4096,
            max_local: 16384,
            max_flush: 1024,
        }
    }
}

/// One of this node's channels, as confirmed on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MyChannel {
    pub channel: ChannelId,
    pub peer: NodeKey,
    pub peer_account: AccountId,
    /// This node's side.
    pub side: Side,
    pub deposit_mine: Yocto,
    pub deposit_theirs: Yocto,
    pub drawn_mine: Yocto,
    pub drawn_theirs: Yocto,
    /// Each side's bond: half the sever penalty.
    pub bond: Yocto,
    /// Floors proven on chain.
    pub floors: Totals,
    pub terms: Terms,
    /// False once a close was announced or the edge left the graph: nothing new is admitted.
    pub open: bool,
    /// The edge has left the graph: what is unfinished over it ends.
    pub gone: bool,
}

/// An edge of the graph, as the chain has it. Relays check routes against these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GraphEdge {
    pub channel: ChannelId,
    pub a: NodeKey,
    pub b: NodeKey,
    pub terms: Terms,
    pub open: bool,
}

/// What a served app asks for a request, above the prices of the edges. A request that offers
/// less is rejected before it is acknowledged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct AppPricing {
    pub base: Yocto,
    /// Per byte of request body and of response limit.
    pub per_byte: Yocto,
}

impl AppPricing {
    pub fn price(&self, body_len: u64, response_limit: u64) -> Result<Yocto, AmountError> {
        let bytes = u128::from(body_len) + u128::from(response_limit);
        self.per_byte.checked_mul(bytes)?.checked_add(self.base)
    }
}

/// What the application asks of the node.
#[derive(Debug)]
pub enum Command {
    /// Sends a request. Answered by [`Event::Started`] with the same `token`, then `Acked`, and
    /// one of `Response`, `Rejected`; or by [`Event::Refused`].
    Request {
        token: u64,
        destination: NodeKey,
        app: String,
        body: Bytes,
        response_limit: u64,
        server_price: Yocto,
        /// Block time, milliseconds since 1970.
        expires_ms: u64,
        graph_version: u64,
        route: Vec<Hop>,
    },
    /// Answers an [`Event::Incoming`]. Unknown or already answered ids are ignored.
    Respond {
        request: RequestId,
        body: Bytes,
    },
    /// Serves an app from now on; at most `max_queued` unanswered requests of it are acknowledged. With 0, only
    /// what was acknowledged before is delivered.
    Serve {
        app: String,
        pricing: AppPricing,
        max_queued: u32,
    },
    StopServing {
        app: String,
    },
    /// A route for the next request of a pursuit; answers [`Event::Pursue`]. Ignored if the pursuit is
    /// over, waits for an answer, or cannot pay for the route: it asks again.
    Pursue {
        channel: ChannelId,
        /// As in a request.
        expires_ms: u64,
        graph_version: u64,
        route: Vec<Hop>,
    },
    /// Severs a channel at once, for the operator.
    Sever {
        channel: ChannelId,
    },
}

/// What happens outside the node.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "frames are by far the most frequent input")]
pub enum Input {
    /// A connection is ready: both lanes are negotiated and Hellos exchanged, nothing else has been
    /// sent on them.
    Connected {
        peer: NodeKey,
        conn: ConnId,
        /// The peer's Hello of the control lane, checked with [`Hello::check`].
        hello: Hello,
    },
    Disconnected {
        peer: NodeKey,
        conn: ConnId,
    },
    Frame {
        peer: NodeKey,
        conn: ConnId,
        frame: Frame,
    },
    /// The driver has written this many bytes of fragments (their `data`, without headers) to the
    /// connection. The node keeps at most 1 MiB per connection unwritten.
    Drained {
        peer: NodeKey,
        conn: ConnId,
        bytes: u64,
    },
    /// Everything up to and including this batch is on disk.
    Persisted {
        batch: u64,
    },
    Command(Command),
    /// The whole set of this node's channels, whenever any of them changes on chain.
    Channels {
        channels: Vec<MyChannel>,
    },
    /// Edges that changed; `version` is the graph version after them. `now_ms`: latest block time.
    Graph {
        version: u64,
        chain_time_ms: u64,
        edges: Vec<GraphEdge>,
    },
    /// The network's late fee per request and millisecond, as the chain has it.
    LateFee {
        per_ms: Yocto,
    },
    /// Since then this node has taken in nothing that peers said, for longer than the policy's margin: the
    /// store hung, or the process stood still. Comes before anything else that is known at the time.
    Stalled {
        since: Time,
    },
    /// A deadline has passed.
    Tick,
}

/// Why a request was not acknowledged or not taken; says what the caller can do.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Hash,
    serde::Serialize,
    serde::Deserialize,
    borsh::BorshSerialize,
    borsh::BorshDeserialize,
)]
#[serde(rename_all = "kebab-case")]
pub enum RejectReason {
    /// In-flight caps, memory or app queue are full: retry later or take another route.
    Busy,
    /// The next edge is out of balance: take another route.
    Balance,
    /// The next edge is not in this node's graph, closed or closing: refresh the graph, re-route.
    NoEdge,
    /// The next node is not connected, or does not see the channel on chain yet: try again shortly, or
    /// take another route.
    Unreachable,
    /// The request has expired, its expiry is too far ahead, or its route grants more than a day.
    Expired,
    /// The destination does not serve the app.
    NoApp,
    /// The app asks for more than the server price that was offered: offer more. What it asks for its operator knows,
    /// quotes are of edges.
    ServerPrice,
    /// A body or response limit is larger than the node takes.
    TooLarge,
    /// Invalid by its own signed bytes; comes with a proof.
    Invalid,
    /// The request's body stopped coming: send it again, over another route if need be.
    Abandoned,
}

impl fmt::Display for RejectReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RejectReason::Busy => "a node on the path is busy: retry later or over another route",
            RejectReason::Balance => "an edge of the path lacks balance: use another route",
            RejectReason::NoEdge => "an edge of the path is not open: refresh the graph and re-route",
            RejectReason::Unreachable => "a node of the path is not connected, or has not seen its channel on chain yet: try again or use another route",
            RejectReason::Expired => "the request has expired, or grants more time than a node takes on",
            RejectReason::NoApp => "the destination does not serve this app",
            RejectReason::ServerPrice => "the app asks for more than the server price that was offered",
            RejectReason::TooLarge => "body or response limit is larger than a node of the path takes",
            RejectReason::Invalid => "the request is invalid by its own signed bytes",
            RejectReason::Abandoned => "the request's body stopped coming: send it again",
        })
    }
}

/// What the node tells the application.
#[derive(Clone, Debug)]
pub enum Event {
    /// The request of `token` has this id; it is on disk and on its way. `price` is what was paid.
    Started {
        token: u64,
        request: RequestId,
        price: Yocto,
    },
    /// The request of `token` was not sent; nothing was paid.
    Refused {
        token: u64,
        reason: RejectReason,
    },
    /// The first node is under obligation; the response is due within `bound_ms` of sending.
    Acked {
        request: RequestId,
        bound_ms: u64,
    },
    /// Signed by the destination, verified to the last byte. A node that crashes right after it has told an outcome
    /// tells it once more; if the destination has crashed as well, its app may have answered anew, and otherwise.
    Response {
        request: RequestId,
        receipt: SignedReceipt,
        body: Bytes,
    },
    /// Refunded in full.
    Rejected {
        request: RequestId,
        reason: RejectReason,
        refund: Yocto,
        invalid: Option<SignedInvalid>,
    },
    /// The bound has passed without an outcome; the request stays open.
    Overdue {
        request: RequestId,
    },
    /// A late payment for an overdue request of this node.
    Late {
        request: RequestId,
        amount: Yocto,
    },
    /// An edge of the path was removed; `refund` are the prices from that edge on, zero if it was
    /// this node's own. `late` was paid for lateness before.
    Severed {
        request: RequestId,
        order: Signed<SeverOrder>,
        refund: Yocto,
        late: Yocto,
    },
    /// This node has severed an edge of its own.
    EdgeSevered {
        channel: ChannelId,
        peer: NodeKey,
        reason: SeverReason,
    },
    /// An edge would have been severed, but too many were lately or nobody is heard from: the fault
    /// may be here. Told once a minute at most.
    SeverWithheld {
        peer: NodeKey,
        reason: SeverReason,
    },
    /// A request was refused, or the edge after it severed, for want of an own balance on this channel: to pass it
    /// on with, or to pay for lateness from. Told once a minute at most.
    Short {
        channel: ChannelId,
        peer: NodeKey,
    },
    /// A pursuit wants a route to this node, not over the severed channel, for at most this price:
    /// answer with [`Command::Pursue`] for a request of 32 bytes, a response of [`ANSWER_LIMIT`] and
    /// no server price. Told again after a while.
    Pursue {
        channel: ChannelId,
        peer: NodeKey,
        /// Requests of this pursuit so far.
        tries: u32,
        most: Yocto,
    },
    /// A pursuit is over. `request`: the one that was not answered. After a crash perhaps told again.
    Pursued {
        channel: ChannelId,
        peer: NodeKey,
        request: RequestId,
        end: PursuitEnd,
    },
    /// A late payment that this node made to an upstream peer for one request.
    PaidLate {
        peer: NodeKey,
        amount: Yocto,
    },
    /// A request for a served app; paid, durable. Must be answered by [`Command::Respond`]. After a
    /// restart it is delivered again if it was not answered.
    Incoming {
        request: RequestId,
        /// The neighbour that it came from.
        from: NodeKey,
        author: NodeKey,
        app: String,
        body: Bytes,
        response_limit: u64,
        server_price: Yocto,
    },
    /// Hello and Sync have been exchanged.
    PeerReady {
        peer: NodeKey,
    },
    PeerLost {
        peer: NodeKey,
    },
    /// A peer broke the protocol. Its connections are being closed, except where it has forgotten
    /// an acknowledged request, which is asked again.
    Misbehaved {
        peer: NodeKey,
        reason: String,
    },
    /// The node relayed an exchange to its end and earned this much.
    Relayed {
        request: RequestId,
        earned: Yocto,
    },
    /// The node served a request to its end (response acknowledged) and earned edge and server price.
    Served {
        request: RequestId,
        earned: Yocto,
    },
}

/// What a node is made of.
#[derive(Clone, Debug)]
pub struct CoreConfig {
    pub network: Network,
    /// The node's identity key.
    pub secret: NodeSecret,
    pub limits: Limits,
    pub policy: Policy,
    /// Randomness for nonces; a fresh one per start.
    pub seed: [u8; 32],
}

/// Why the rows of the store cannot be used: stop, restore the store, never start without it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RestoreError {
    #[error("row {key} of table {table:?} is damaged: {cause}; restore the store from its latest state")]
    Damaged { table: Table, key: String, cause: String },
    #[error("row {key} of table {table:?} was written by another version or node")]
    Foreign { table: Table, key: String },
}

/// All rows of the store, at start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Restored {
    pub rows: Vec<Row>,
}

/// What the driver has to carry out, in order.
#[derive(Debug)]
pub enum Output {
    Send {
        peer: NodeKey,
        conn: ConnId,
        lane: Lane,
        frame: Frame,
    },
    /// Close this connection; the peer broke the protocol or the node is going down.
    Disconnect {
        peer: NodeKey,
        conn: ConnId,
    },
    /// Write these rows in one transaction, then answer [`Input::Persisted`]. Batches are numbered
    /// from 1 without gaps; several may be committed together.
    Persist {
        batch: u64,
        writes: Vec<Write>,
    },
    /// See that this order reaches the chain: the edge leaves the graph there. Repeated after a
    /// restart while the chain still shows the edge.
    Sever {
        order: Signed<SeverOrder>,
    },
    Notify(Event),
}

/// A channel as the node's ledger has it, for status and closing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChannelSnapshot {
    pub channel: ChannelId,
    pub peer: NodeKey,
    pub side: Side,
    /// Highest totals signed by each payer and held durably here.
    pub totals: Totals,
    /// Prepayments of exchanges without an outcome, per direction.
    pub pending_out: Yocto,
    pub pending_in: Yocto,
    pub balance_mine: Yocto,
    pub balance_theirs: Yocto,
    pub unfinished: u32,
    /// What this node pays the counterparty out of this balance for each second of lateness that the next nodes pay it
    /// for. Before the balance is used up it has to sever those (protocol section 4).
    pub late_per_s: Yocto,
    /// Counterparty's latest signature as evidence for the contract.
    pub their_payment: Option<Signed<por_types::ChannelState>>,
    /// Counterparty's counter-signature of this node's latest acknowledged payment.
    pub their_receipt: Option<Signed<por_types::ChannelState>>,
}
