//! JSON bodies of the local API, shared by the daemon and its Rust client.

use std::time::Duration;

use bytes::Bytes;
use por_core::{PursuitEnd, SignedReceipt};
use por_types::interface::ChannelStatus;
use por_types::{AccountId, ChannelId, Network, NodeKey, RequestId, SeverReason, Side, Terms, Totals, Yocto};
use serde::{Deserialize, Serialize};

/// Answer of `GET /v1/status`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the daemon.
    pub version: String,
    pub network: Network,
    pub node_key: NodeKey,
    pub peer_id: String,
    pub account: AccountId,
    /// True once the account has registered this node's key with the contract.
    pub registered: bool,
    /// The node is part of the main component as the contract counts it (protocol section 7).
    #[serde(default)]
    pub attached: bool,
    /// Block time, milliseconds since 1970; `None` while not attached.
    #[serde(default)]
    pub attached_since_ms: Option<u64>,
    pub stake: Yocto,
    /// What `withdraw` would pay out now.
    pub withdrawable: Yocto,
    /// Multiaddresses that the node is bound to.
    pub listening: Vec<String>,
    pub connected_peers: u32,
    pub graph_version: u64,
    pub graph_nodes: u32,
    pub graph_channels: u32,
    /// Block time of the chain as last seen, milliseconds since 1970; 0 before the first answer.
    pub chain_time_ms: u64,
    /// Why the chain cannot be followed at the moment; `None` while all is well.
    #[serde(default)]
    pub chain_error: Option<String>,
    /// What is wrong with this machine's clock beside the chain's; `None` while they agree.
    #[serde(default)]
    pub clock: Option<String>,
    /// Changes of the contract that its owner has announced.
    #[serde(default)]
    pub announced: Vec<Announced>,
    pub apps: Vec<AppStatus>,
    /// Towers that get this node's latest states.
    #[serde(default)]
    pub watchtowers: Vec<TowerStatus>,
    pub traffic: Traffic,
    pub uptime_ms: u64,
}

/// A change of the contract that waits for its time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Announced {
    /// `code` or `parameters`.
    pub what: String,
    /// Block time from which it may take effect, milliseconds since 1970.
    pub from_ms: u64,
}

/// How handing over to a watchtower goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TowerStatus {
    pub address: String,
    /// Channels of which it has states.
    pub channels: u32,
    /// Channels of which it did not get the latest ones.
    pub behind: u32,
    /// Why not.
    #[serde(default)]
    pub error: Option<String>,
}

/// A served app.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AppStatus {
    pub app: String,
    pub base: Yocto,
    pub per_byte: Yocto,
    /// Requests that wait for a worker.
    pub waiting: u32,
    /// Requests that a worker has taken and not answered yet.
    pub leased: u32,
}

/// Counters since the daemon started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Requests of local clients that were sent, answered, and ended otherwise.
    pub sent: u64,
    pub answered: u64,
    pub failed: u64,
    /// Price of the answered ones.
    pub spent: Yocto,
    pub served: u64,
    pub earned_serving: Yocto,
    pub relayed: u64,
    pub earned_relaying: Yocto,
    /// Late payments made and received (protocol section 5), and edges that this node severed.
    #[serde(default)]
    pub paid_late: Yocto,
    #[serde(default)]
    pub got_late: Yocto,
    #[serde(default)]
    pub severed: u64,
}

/// Answer of `GET /v1/news`: what happened lately to the guarantee (protocol sections 5 and 6).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct News {
    /// Ask from this number on the next time. Below the number that was asked from if the daemon was started
    /// anew since: then from 0.
    pub next: u64,
    /// Oldest first; those that are too old, or from before the daemon's start, are forgotten.
    pub happenings: Vec<Happening>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Happening {
    /// Counts from 0 at the daemon's start.
    pub number: u64,
    /// Clock of the daemon's machine, milliseconds since 1970.
    pub at_ms: u64,
    #[serde(flatten)]
    pub what: What,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "event")]
#[non_exhaustive]
pub enum What {
    /// A request of this node is on its way that has a label ([`ApiRequest::label`]); each attempt is told.
    Sent { request: RequestId, label: String, price: Yocto },
    /// The bound of a request of this node has passed without an outcome.
    Overdue { request: RequestId },
    /// A late payment came for a request of this node.
    Late { request: RequestId, amount: Yocto },
    /// This node paid an upstream peer for the lateness of one request.
    PaidLate { peer: NodeKey, amount: Yocto },
    /// This node has severed an edge of its own.
    Severed { channel: ChannelId, peer: NodeKey, reason: SeverReason },
    /// It would have severed an edge, but the fault may be its own.
    Withheld { peer: NodeKey, reason: SeverReason },
    /// A request was refused, or the edge after it severed, for want of an own balance on this channel: to pass it
    /// on with, or to pay for lateness from. Told once a minute at most; add to the deposit.
    Short { channel: ChannelId, peer: NodeKey },
    /// Proof came that an edge of the path of a request of this node was severed by `signer`.
    /// `refund` came back of `price` (`None`: from before the daemon's start), and `late` was paid
    /// for lateness, earlier payments included.
    Proof {
        request: RequestId,
        channel: ChannelId,
        signer: NodeKey,
        reason: SeverReason,
        price: Option<Yocto>,
        refund: Yocto,
        late: Yocto,
    },
    /// The pursuit of a severed neighbour for its answer to a request is over. After a restart perhaps
    /// told again.
    Pursued { channel: ChannelId, peer: NodeKey, request: RequestId, end: PursuitEnd },
}

/// A peer, known or connected.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PeerInfo {
    pub peer_id: String,
    pub node_key: Option<NodeKey>,
    pub connected: bool,
    pub addresses: Vec<String>,
    pub agent: Option<String>,
    /// Last measured round trip, microseconds.
    pub rtt_us: Option<u64>,
}

/// One of this node's channels: the chain's record with the ledger's state.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ChannelInfo {
    pub channel: ChannelId,
    pub peer: NodeKey,
    pub peer_account: AccountId,
    /// This node's side.
    pub side: Side,
    pub status: ChannelStatus,
    pub terms: Terms,
    pub deposit_mine: Yocto,
    pub deposit_theirs: Yocto,
    pub bond: Yocto,
    /// Highest totals signed by each payer and held durably by this node.
    pub totals: Totals,
    pub balance_mine: Yocto,
    pub balance_theirs: Yocto,
    pub pending_out: Yocto,
    pub pending_in: Yocto,
    /// Exchanges without an outcome.
    pub unfinished: u32,
    pub connected: bool,
    /// The operator or the counterparty asked for a close: nothing new is admitted.
    pub closing: bool,
}

/// Answer of `GET /v1/graph`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphInfo {
    pub version: u64,
    pub chain_time_ms: u64,
    pub edges: Vec<GraphEdgeInfo>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GraphEdgeInfo {
    pub channel: ChannelId,
    pub a: NodeKey,
    pub b: NodeKey,
    pub open: bool,
    pub terms: Terms,
}

/// Body of `POST /v1/quote`. Here and in all bodies, a field that is not known is an error: a bound that is
/// misspelt must not be taken for none.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuoteRequest {
    pub destination: NodeKey,
    #[serde(default)]
    pub app: Option<String>,
    pub body_len: u64,
    pub response_limit: u64,
    #[serde(default)]
    pub server_price: Yocto,
    #[serde(default)]
    pub max_latency_ms: Option<u64>,
    /// Number of routes wanted, at least 1; the daemon caps it.
    #[serde(default)]
    pub alternatives: Option<u32>,
}

/// Answer of `POST /v1/quote`: routes from the cheapest on; at least one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Quote {
    pub routes: Vec<QuotedRoute>,
    pub graph_version: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotedRoute {
    pub hops: Vec<QuotedHop>,
    /// All edges and the server's price: exactly what a request costs.
    pub price: Yocto,
    /// Time within which the response is due, milliseconds from sending.
    pub bound_ms: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct QuotedHop {
    pub channel: ChannelId,
    pub from: NodeKey,
    pub to: NodeKey,
    pub price: Yocto,
    pub allowance_ms: u64,
}

/// A request to send, see [`super::Client::request`]. [`ApiRequest::new`] makes one without bounds of its own:
/// `ApiRequest { max_price: Some(most), ..ApiRequest::new(destination, "echo", body, 5) }`.
#[derive(Clone, Debug)]
pub struct ApiRequest {
    pub destination: NodeKey,
    pub app: String,
    pub body: Bytes,
    /// Most bytes that the response may have; each is paid for.
    pub response_limit: u64,
    /// What the destination's app asks, above the prices of the edges.
    pub server_price: Yocto,
    /// Most that edges and server may cost together, over all attempts; `None` for no bound.
    pub max_price: Option<Yocto>,
    /// Time for all attempts together.
    pub deadline: Duration,
    /// Channels that routes must not use (for example to spread parallel requests).
    pub avoid: Vec<ChannelId>,
    /// With one, up to 64 bytes, the news tell the id of what is sent for this request at once ([`What::Sent`]),
    /// and not with its answer.
    pub label: Option<String>,
}

impl ApiRequest {
    /// Time for a request whose caller names none.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(60);

    /// A request that offers the app nothing above the prices of the edges, may cost anything, and has
    /// [`ApiRequest::DEFAULT_DEADLINE`].
    pub fn new(
        destination: NodeKey,
        app: impl Into<String>,
        body: impl Into<Bytes>,
        response_limit: u64,
    ) -> ApiRequest {
        ApiRequest {
            destination,
            app: app.into(),
            body: body.into(),
            response_limit,
            server_price: Yocto::ZERO,
            max_price: None,
            deadline: ApiRequest::DEFAULT_DEADLINE,
            avoid: Vec::new(),
            label: None,
        }
    }
}

/// A response, signed by the destination and verified to its last byte.
#[derive(Clone, Debug)]
pub struct ApiResponse {
    pub body: Bytes,
    pub request: RequestId,
    /// What was paid, with what earlier attempts lost on severed paths.
    pub price: Yocto,
    /// Shows a third party what was answered.
    pub receipt: SignedReceipt,
    /// Channels of the path that answered.
    pub route: Vec<ChannelId>,
    /// Requests sent until one was answered, at least 1.
    pub attempts: u32,
}

/// Body of `POST /v1/apps/{app}/serve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ServeRequest {
    #[serde(default)]
    pub base: Yocto,
    #[serde(default)]
    pub per_byte: Yocto,
    /// Most unanswered requests that the node acknowledges for the app.
    pub max_queued: u32,
}

/// A request that waits for this app's answer. It is paid and the node is under obligation.
#[derive(Clone, Debug)]
pub struct ApiIncoming {
    pub request: RequestId,
    pub author: NodeKey,
    pub body: Bytes,
    /// The answer may not be longer than this, bytes.
    pub response_limit: u64,
    /// What the author pays the app, above the edges.
    pub server_price: Yocto,
}

/// A node that announced a provider key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provider {
    pub node_key: NodeKey,
    pub peer_id: String,
}

/// Body of `POST /v1/chain/register`: `amount` is the stake; of `stake` and `unstake`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AmountBody {
    pub amount: Yocto,
}

/// Body of `POST /v1/chain/withdraw`: `None` takes everything.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WithdrawBody {
    #[serde(default)]
    pub amount: Option<Yocto>,
}

/// Body of `POST /v1/channels/propose`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProposeBody {
    pub counterparty: AccountId,
    pub deposit: Yocto,
    pub terms: Terms,
}

/// Body of `POST /v1/channels/{id}/confirm`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ConfirmBody {
    pub deposit: Yocto,
    /// The terms that the operator read; without them those of the proposal are taken.
    #[serde(default)]
    pub terms: Option<Terms>,
}

/// Answer of a call that changes something on chain.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ActionResult {
    /// Hash of the transaction; `None` where the effect was there already or comes later.
    #[serde(default)]
    pub transaction: Option<String>,
    /// The channel proposed.
    #[serde(default)]
    pub channel: Option<ChannelId>,
    /// What was withdrawn.
    #[serde(default)]
    pub amount: Option<Yocto>,
}
