//! Frames of `/por/1.0.0` (protocol section 4).
//!
//! Each substream starts with [`Frame::Hello`], which names its lane. On the wire a frame is
//! `length: u32 big endian (of what follows) ++ type: u8 ++ payload`; the payload is a CBOR map,
//! except for [`Frame::Fragment`], whose payload is `exchange: u64 BE ++ part: u8 ++ offset: u64 BE
//! ++ data`. Unknown types are errors, unknown map keys are ignored.
//!
//! Each side opens a substream per lane and sends all its frames on those two, requests and replies
//! alike, so that they arrive in the order in which they were made.
//!
//! Hello belongs to the transport: a driver sends [`Hello::new`], checks the peer's with
//! [`Hello::check`] and hands it to the node with `Input::Connected`. It never reaches the node as a
//! frame.

use bytes::Bytes;
use por_types::{
    ChannelId, ChannelState, FlushProof, Hash, Network, RequestId, SeverOrder, Signed, SignedInvalid, Yocto,
};
use serde::{Deserialize, Serialize};

use crate::api::{ExchangeId, Limits, RejectReason, SignedReceipt};

/// Name of the protocol.
pub const PROTOCOL_NAME: &str = "/por/1.0.0";

/// Version in [`Hello`].
pub const VERSION: u16 = 1;

/// Control frames and small bodies travel on one substream, big bodies on another, so that they
/// never hold up heartbeats. The frame that announces a big body (a Request or Response item
/// without body) travels on the bulk lane too, ahead of the fragments; a receiver takes any frame on
/// either lane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Lane {
    Control,
    Bulk,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// First frame of each substream, from its opener.
    Hello(Hello),
    /// After Hello on the control lane, both ways; and as heartbeat.
    Sync(Sync),
    Request(Request),
    Ack(Ack),
    Reject(Reject),
    Response(Response),
    /// Upstream has the response on disk or has passed it on: downstream may forget it.
    Done(Done),
    /// More bulk bytes may be sent for an exchange.
    Credit(Credit),
    /// Part of a big body, on the bulk lane.
    Fragment(Fragment),
    /// Late payment per heartbeat.
    Late(Late),
    /// Proof that an edge of the path was removed.
    Severed(Severed),
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    pub version: u16,
    pub network: Network,
    pub lane: Lane,
    pub max_frame: u32,
    pub max_inline: u32,
    pub max_body: u64,
    /// Initial credit of each bulk body, bytes.
    pub window: u32,
    #[serde(default, deserialize_with = "crate::codec::few")]
    pub features: Vec<String>,
}

/// Why a peer's Hello was refused: close the connection, it cannot become useful.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HelloError {
    #[error("peer speaks version {0} of the protocol, this node speaks {VERSION}")]
    Version(u16),
    #[error("peer belongs to {contract} on {chain_id}")]
    Network { chain_id: String, contract: String },
    #[error(
        "peer names limits that no request fits: max_frame {max_frame}, max_inline {max_inline}, window {window}"
    )]
    Limits { max_frame: u32, max_inline: u32, window: u32 },
}

/// Feature of a node that takes a request over another channel of the pair than the route names.
pub const PARALLEL: &str = "parallel";

/// Feature of a node that says in [`Sync::seen`] which channels with the peer it sees on chain, and is
/// asked over no other.
pub const CHANNELS: &str = "channels";

/// Smallest `max_frame` and `window` that a peer may name: a frame with one request of the longest
/// route and an inline body has to fit.
pub const MIN_FRAME: u32 = 64 << 10;

impl Hello {
    /// What this node says on a lane.
    pub fn new(network: Network, lane: Lane, limits: &Limits) -> Hello {
        Hello {
            version: VERSION,
            network,
            lane,
            max_frame: limits.max_frame,
            max_inline: limits.max_inline,
            max_body: limits.max_body,
            window: limits.window,
            features: vec![PARALLEL.to_owned(), CHANNELS.to_owned()],
        }
    }

    /// Refuses a peer of another network or version, and limits below [`MIN_FRAME`].
    pub fn check(&self, network: &Network) -> Result<(), HelloError> {
        if self.version != VERSION {
            return Err(HelloError::Version(self.version));
        }
        if self.network != *network {
            let Network { chain_id, contract } = self.network.clone();
            return Err(HelloError::Network { chain_id, contract: contract.to_string() });
        }
        let Hello { max_frame, max_inline, window, .. } = *self;
        if max_frame < MIN_FRAME || window < MIN_FRAME || max_inline > max_frame / 2 {
            return Err(HelloError::Limits { max_frame, max_inline, window });
        }
        Ok(())
    }

    /// Whether the peer has a feature.
    pub fn has(&self, feature: &str) -> bool {
        self.features.iter().any(|named| named == feature)
    }
}

/// Best states per channel and unfinished exchanges.
///
/// Each direction has its own session. A side that has a new connection to send on, or cannot know
/// whether its last frames arrived, starts its next `epoch` with a Sync over that connection and
/// sends nothing else until the peer's complete answer over the same connection has told what it
/// knows. Frames over another connection than the sender's latest epoch are stale and ignored. A
/// Sync of the current epoch that answers nothing is a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sync {
    /// The sender's session number, increasing for ever (also across restarts).
    pub epoch: u64,
    /// The receiver's epoch that this answers; 0 in a first Sync and a heartbeat.
    #[serde(default)]
    pub answers: u64,
    #[serde(deserialize_with = "crate::codec::few")]
    pub channels: Vec<SyncChannel>,
    /// Exchanges without an outcome in which the sender is downstream; with `known` the upstream end
    /// learns which of its requests arrived.
    #[serde(default)]
    pub known: Vec<SyncExchange>,
    /// Last part: everything unfinished has been named.
    #[serde(default)]
    pub complete: bool,
    /// Channels with the receiver that the sender sees on chain: in an epoch's first Sync, in each
    /// answer, and in a Sync of their own when its view has changed.
    #[serde(default, deserialize_with = "crate::codec::few")]
    pub seen: Vec<SeenChannel>,
}

/// A channel as the sender of a [`Sync`] sees it on chain. Views of the chain differ for a while: over a
/// channel that the counterparty does not see yet, or beyond the deposit that it knows of, nothing is
/// asked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SeenChannel {
    pub channel: ChannelId,
    /// The receiver's deposit, with all top-ups.
    pub deposit: Yocto,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncChannel {
    /// The sender's own best payment.
    #[serde(default)]
    pub own: Option<Signed<ChannelState>>,
    /// The receiver's best payment that the sender holds (receiver's signature).
    #[serde(default)]
    pub theirs: Option<Signed<ChannelState>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SyncExchange {
    pub exchange: ExchangeId,
    pub request: RequestId,
    pub acked: bool,
    /// Position in the encoded request body from which on it is wanted; its end if nothing is.
    pub body_bytes: u64,
    /// Position up to which it may be sent, as in [`Credit::up_to`].
    #[serde(default)]
    pub credit: u64,
}

/// One flush of requests with the one payment per channel that pays for them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Payment of this flush; pays, in order, for all `requests`.
    #[serde(default)]
    pub payment: Option<Signed<ChannelState>>,
    /// Paid for before: the payment is the sender's latest, whatever its items.
    #[serde(default)]
    pub resent: bool,
    #[serde(with = "crate::proofs")]
    pub requests: Vec<RequestItem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestItem {
    pub exchange: ExchangeId,
    /// Index in the route of the edge this travels on.
    pub hop: u8,
    /// borsh bytes of the author's `RequestHead`, passed on untouched.
    pub head: Bytes,
    pub proof: FlushProof,
    /// The body where it is small; else it follows on the bulk lane.
    pub body: Option<Bytes>,
    /// Was refused before, and the sender is under obligation for it; or pursues. Then what ails the path
    /// beyond the receiver's own edges is no reason to refuse it.
    pub again: bool,
    /// Paid over this channel of the same pair instead of the one that the route names; only for a peer
    /// with the feature [`PARALLEL`].
    pub channel: Option<ChannelId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ack {
    /// Counter-signatures of payments, at most one per channel.
    pub receipts: Vec<Signed<ChannelState>>,
    pub exchanges: Vec<ExchangeId>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reject {
    /// Refund of all `rejections`, in order.
    #[serde(default)]
    pub payment: Option<Signed<ChannelState>>,
    /// Refunded before: the payment is the sender's latest, whatever its items.
    #[serde(default)]
    pub resent: bool,
    pub rejections: Vec<Rejection>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rejection {
    pub exchange: ExchangeId,
    pub reason: RejectReason,
    #[serde(default)]
    pub invalid: Option<SignedInvalid>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// Residual late payment.
    #[serde(default)]
    pub payment: Option<Signed<ChannelState>>,
    /// Paid before: the payment is the sender's latest, whatever its items.
    #[serde(default)]
    pub resent: bool,
    #[serde(with = "crate::proofs")]
    pub responses: Vec<ResponseItem>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseItem {
    pub exchange: ExchangeId,
    pub receipt: SignedReceipt,
    /// Sent before: the body follows once a credit says from where.
    pub resume: bool,
    /// The body where it is small; else it follows on the bulk lane.
    pub body: Option<Bytes>,
    /// Residual late payment, and all late payments of the exchange so far.
    pub late: Option<LateDue>,
}

/// See [`LateItem`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateDue {
    pub amount: Yocto,
    pub total: Yocto,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Done {
    pub exchanges: Vec<ExchangeId>,
    /// Counter-signatures of refunds and late payments.
    #[serde(default)]
    pub receipts: Vec<Signed<ChannelState>>,
}

/// Which body a fragment or a credit belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Part {
    /// Travels from the upstream end.
    RequestBody,
    /// Travels from the downstream end.
    ResponseBody,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Credit {
    pub exchange: ExchangeId,
    pub part: Part,
    /// BLAKE3 of the body that is meant: credit for another body of the exchange (a destination that
    /// restarted may answer anew) is stale.
    pub body: Hash,
    /// Total bytes that may have been sent, counted from the start of the encoded body. A sender
    /// may send the receiver's Hello window without any credit.
    pub up_to: u64,
    /// Go on from this position: everything before it is verified already.
    #[serde(default)]
    pub from: Option<u64>,
}

/// A piece of a verified stream: BLAKE3 tree nodes and data in pre-order, 16 KiB groups, so that
/// each group is checked against the signed hash before it is passed on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub exchange: ExchangeId,
    pub part: Part,
    /// Position in the encoded stream.
    pub offset: u64,
    pub data: Bytes,
}

/// Late payments of one sync and channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// Pays, in order, for all `items`.
    pub payment: Signed<ChannelState>,
    /// Paid for before: the payment is the sender's latest, whatever its items.
    #[serde(default)]
    pub resent: bool,
    pub items: Vec<LateItem>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LateItem {
    pub exchange: ExchangeId,
    /// What this frame's payment pays for the exchange; zero if it was sent before.
    pub amount: Yocto,
    /// All late payments of the exchange so far, so that a lost frame is made up for by the next.
    pub total: Yocto,
}

/// An edge of the path was removed: proof, refunds and residual late payments.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Severed {
    pub order: Signed<SeverOrder>,
    /// Refunds and residual late payments of all `items`, in order; a refund comes before the late
    /// payment of its exchange.
    #[serde(default)]
    pub payment: Option<Signed<ChannelState>>,
    /// Paid before: the payment is the sender's latest, whatever its items.
    #[serde(default)]
    pub resent: bool,
    pub items: Vec<LateItem>,
}
