//! Rust client of a running daemon's local API (docs/api.md). Used by the command line tools and
//! by apps that run beside the daemon; other languages speak HTTP to it directly.
//!
//! The client of a daemon in the same process ([`crate::sdk::Node::client`]) hands requests,
//! responses and provider records over directly, without a copy or a socket.

mod error;
mod inside;
mod transport;
mod types;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use por_core::{AppPricing, SignedReceipt};
use por_types::{AccountId, ChannelId, NodeKey, RequestId, Terms, Yocto};
use reqwest::{Method, Response, StatusCode};

pub use error::{ClientError, ErrorBody, ErrorCode};
pub use por_core::PursuitEnd;
pub use types::{
    ActionResult, AmountBody, Announced, ApiIncoming, ApiRequest, ApiResponse, AppStatus, ChannelInfo,
    ConfirmBody, GraphEdgeInfo, GraphInfo, Happening, News, PeerInfo, ProposeBody, Provider, Quote,
    QuoteRequest, QuotedHop, QuotedRoute, ServeRequest, Status, TowerStatus, Traffic, What, WithdrawBody,
};

use crate::runtime::Daemon;
use crate::seal;
use inside::Inside;
use transport::{Call, Transport, header, header_value};

/// Name of the file in the home that holds the daemon's API address while it runs.
pub const ADDR_FILE: &str = "api-addr";
/// Name of the file in the home that holds the API's bearer token.
pub const TOKEN_FILE: &str = "api-token";

/// Headers of the API.
pub(crate) mod headers {
    pub const REQUEST_ID: &str = "por-request-id";
    pub const PRICE: &str = "por-price";
    pub const RECEIPT: &str = "por-receipt";
    pub const ROUTE: &str = "por-route";
    pub const ATTEMPTS: &str = "por-attempts";
    pub const AUTHOR: &str = "por-author";
    pub const RESPONSE_LIMIT: &str = "por-response-limit";
    pub const SERVER_PRICE: &str = "por-server-price";
}

/// Time for a call that the daemon answers from memory.
const QUICK: Duration = Duration::from_secs(30);
/// Time for a call that waits for a transaction to be final.
const CHAIN: Duration = Duration::from_secs(180);
/// What the daemon may take beyond the time that a call names itself.
const MARGIN: Duration = Duration::from_secs(15);
/// How long one poll for an incoming request waits at the daemon.
const POLL: Duration = Duration::from_secs(20);

/// A connection to the daemon; cheap to clone, safe to share between tasks.
#[derive(Clone, Debug)]
pub struct Client {
    transport: Arc<Transport>,
    inside: Option<Inside>,
}

impl Client {
    /// The daemon of `home`. Reads [`ADDR_FILE`] and [`TOKEN_FILE`], and reads them again when the
    /// daemon was restarted on another port.
    ///
    /// Errors: [`ErrorCode::Unreachable`] when no daemon runs there.
    pub fn from_home(home: &Path) -> Result<Client, ClientError> {
        Ok(Client { transport: Arc::new(Transport::from_home(home)?), inside: None })
    }

    /// A daemon at a known address.
    pub fn new(addr: SocketAddr, token: String) -> Client {
        Client { transport: Arc::new(Transport::new(addr, token)), inside: None }
    }

    /// The daemon of this process, which also answers at `addr`.
    pub(crate) fn inside(daemon: &Arc<Daemon>, addr: SocketAddr, token: String) -> Client {
        Client { inside: Some(Inside::new(daemon)), ..Client::new(addr, token) }
    }

    /// Whether something listens where the daemon is, or has moved to; takes a second at most.
    pub async fn is_there(&self) -> bool {
        self.inside.is_some() || self.transport.is_there().await
    }

    pub async fn status(&self) -> Result<Status, ClientError> {
        self.get("status").await
    }

    pub async fn peers(&self) -> Result<Vec<PeerInfo>, ClientError> {
        self.get("peers").await
    }

    /// What happened lately to the guarantee; `since` is [`News::next`] of the last answer, or 0.
    pub async fn news(&self, since: u64) -> Result<News, ClientError> {
        self.news_within(since, Duration::ZERO).await
    }

    /// [`Client::news`] that waits for the first that is new, at most as long as this (the daemon's bound is a
    /// minute); without any there was none.
    pub async fn news_within(&self, since: u64, wait: Duration) -> Result<News, ClientError> {
        let mut query = vec![("since", since.to_string())];
        if !wait.is_zero() {
            let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
            query.push(("wait_ms", wait_ms.to_string()));
        }
        let call = Call::new(Method::GET, &["news"], QUICK.saturating_add(wait)).query(query);
        self.transport.json(call).await
    }

    pub async fn channels(&self) -> Result<Vec<ChannelInfo>, ClientError> {
        self.get("channels").await
    }

    pub async fn graph(&self) -> Result<GraphInfo, ClientError> {
        self.get("graph").await
    }

    /// Exact prices of the cheapest routes within the latency bound.
    ///
    /// Errors: [`ErrorCode::NoRoute`].
    pub async fn quote(&self, q: &QuoteRequest) -> Result<Quote, ClientError> {
        if let Some(inside) = &self.inside {
            return inside.quote(q).await;
        }
        self.post("quote", q, QUICK).await
    }

    /// Sends a request and waits for its response. The daemon takes other routes by itself while
    /// price and deadline allow.
    ///
    /// Errors: [`ErrorCode::NoRoute`], `Unreachable`, `Budget`, `Deadline`, `NotFound` (the
    /// destination does not serve the app), `Retryable`, `Fatal`.
    pub async fn request(&self, r: ApiRequest) -> Result<ApiResponse, ClientError> {
        if let Some(inside) = &self.inside {
            return inside.request(&r).await;
        }
        let sealed = seal::is_sealed(&r.app);
        // One that cannot be represented is as good as none.
        let deadline_ms = u64::try_from(r.deadline.as_millis()).unwrap_or(u64::MAX);
        let mut query = vec![
            ("destination", r.destination.to_string()),
            ("app", r.app),
            ("response_limit", r.response_limit.to_string()),
            ("server_price", r.server_price.to_string()),
            ("deadline_ms", deadline_ms.to_string()),
        ];
        if let Some(max_price) = r.max_price {
            query.push(("max_price", max_price.to_string()));
        }
        if !r.avoid.is_empty() {
            let channels: Vec<String> = r.avoid.iter().map(ChannelId::to_string).collect();
            query.push(("avoid", channels.join(",")));
        }
        if let Some(label) = r.label {
            query.push(("label", label));
        }
        let at_stake = r.max_price.unwrap_or_default();
        let call =
            Call::new(Method::POST, &["requests"], r.deadline.saturating_add(MARGIN)).at_stake(at_stake);
        let response = self.transport.send(call.query(query).body(r.body)).await?;
        read_response(response, sealed).await.map_err(|error| error.having_spent(at_stake))
    }

    /// Serves `app`: from now on the node acknowledges requests for it. At most `max_queued`
    /// unanswered ones are taken.
    ///
    /// Errors: [`ErrorCode::Usage`] if `max_queued` is 0; see [`AppServer::leave`].
    pub async fn serve(
        &self,
        app: &str,
        pricing: AppPricing,
        max_queued: u32,
    ) -> Result<AppServer, ClientError> {
        if max_queued == 0 {
            let what = "max_queued is 0: nothing would be taken";
            return Err(ClientError::new(ErrorCode::Usage, what, "use at least 1, or stop serving"));
        }
        let (client, app) = (self.clone(), app.to_owned());
        let (renewed, leaves) = Default::default();
        let server = AppServer { client, app, pricing, max_queued, renewed, leaves };
        server.register().await?;
        Ok(server)
    }

    /// Nodes that announced `key`, at most `limit`; searches for at most `wait`.
    pub async fn providers(
        &self,
        key: &[u8; 32],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Provider>, ClientError> {
        if let Some(inside) = &self.inside {
            return inside.providers(*key, limit, wait).await;
        }
        let key = hex::encode(key);
        let wait_ms = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX);
        let query = vec![("limit", limit.to_string()), ("wait_ms", wait_ms.to_string())];
        let call = Call::new(Method::GET, &["providers", &key], wait.saturating_add(MARGIN)).query(query);
        self.transport.json(call).await
    }

    /// Announces this node as a provider of `key`; the daemon repeats it, also after restarts.
    pub async fn provide(&self, key: &[u8; 32]) -> Result<(), ClientError> {
        if let Some(inside) = &self.inside {
            return inside.provide(*key).await;
        }
        self.provider_call(Method::PUT, key).await
    }

    /// Ends [`Client::provide`]; records at other nodes expire.
    pub async fn stop_providing(&self, key: &[u8; 32]) -> Result<(), ClientError> {
        if let Some(inside) = &self.inside {
            return inside.stop_providing(*key).await;
        }
        self.provider_call(Method::DELETE, key).await
    }

    /// Registers the node's key with `stake` attached; does nothing if it is registered.
    pub async fn register(&self, stake: Yocto) -> Result<ActionResult, ClientError> {
        self.post("chain/register", &AmountBody { amount: stake }, CHAIN).await
    }

    pub async fn stake(&self, amount: Yocto) -> Result<ActionResult, ClientError> {
        self.post("chain/stake", &AmountBody { amount }, CHAIN).await
    }

    pub async fn unstake(&self, amount: Yocto) -> Result<ActionResult, ClientError> {
        self.post("chain/unstake", &AmountBody { amount }, CHAIN).await
    }

    /// Withdraws `amount`, or everything withdrawable, to the node's account.
    pub async fn withdraw(&self, amount: Option<Yocto>) -> Result<ActionResult, ClientError> {
        self.post("chain/withdraw", &WithdrawBody { amount }, CHAIN).await
    }

    /// Proposes a channel; the result names it.
    pub async fn propose_channel(
        &self,
        counterparty: &AccountId,
        deposit: Yocto,
        terms: Terms,
    ) -> Result<ActionResult, ClientError> {
        let body = ProposeBody { counterparty: counterparty.clone(), deposit, terms };
        self.post("channels/propose", &body, CHAIN).await
    }

    /// Confirms a proposal with `deposit` of one's own; with `terms`, only if they are the
    /// proposal's.
    pub async fn confirm_channel(
        &self,
        channel: ChannelId,
        deposit: Yocto,
        terms: Option<Terms>,
    ) -> Result<ActionResult, ClientError> {
        self.channel_call(channel, "confirm", &ConfirmBody { deposit, terms }).await
    }

    pub async fn cancel_channel(&self, channel: ChannelId) -> Result<ActionResult, ClientError> {
        self.channel_call(channel, "cancel", &serde_json::json!({})).await
    }

    pub async fn top_up_channel(
        &self,
        channel: ChannelId,
        amount: Yocto,
    ) -> Result<ActionResult, ClientError> {
        self.channel_call(channel, "top-up", &AmountBody { amount }).await
    }

    /// Starts a cooperative close. The daemon finishes open exchanges, states the totals on chain
    /// and finalizes; watch [`Client::channels`] for `Closed`.
    pub async fn close_channel(&self, channel: ChannelId) -> Result<ActionResult, ClientError> {
        self.channel_call(channel, "close", &serde_json::json!({})).await
    }

    /// Severs a channel without the other side and waits until the chain shows it: for a neighbour that
    /// confirms no close. Both sides lose their bond; deposits are paid out when the time for evidence is over.
    ///
    /// Errors: `Unreachable` if the order is not on chain yet: it is signed, and the daemon brings it there.
    pub async fn sever_channel(&self, channel: ChannelId) -> Result<ActionResult, ClientError> {
        self.channel_call(channel, "sever", &serde_json::json!({})).await
    }

    async fn get<T: serde::de::DeserializeOwned>(&self, path: &str) -> Result<T, ClientError> {
        self.transport.json(Call::new(Method::GET, &[path], QUICK)).await
    }

    async fn post<B: serde::Serialize, T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &B,
        time: Duration,
    ) -> Result<T, ClientError> {
        let segments: Vec<&str> = path.split('/').collect();
        self.transport.json(Call::new(Method::POST, &segments, time).json(body)?).await
    }

    async fn channel_call<B: serde::Serialize>(
        &self,
        channel: ChannelId,
        action: &str,
        body: &B,
    ) -> Result<ActionResult, ClientError> {
        let id = channel.to_string();
        self.transport.json(Call::new(Method::POST, &["channels", &id, action], CHAIN).json(body)?).await
    }

    async fn provider_call(&self, method: Method, key: &[u8; 32]) -> Result<(), ClientError> {
        let key = hex::encode(key);
        self.transport.send(Call::new(method, &["providers", &key], QUICK)).await.map(drop)
    }
}

/// An app that this program serves through the daemon. Any number of tasks may share it.
///
/// A request that is taken and not answered within the daemon's lease is delivered again, so an
/// app that crashed finds its work when it comes back.
#[derive(Clone, Debug)]
pub struct AppServer {
    client: Client,
    app: String,
    pricing: AppPricing,
    max_queued: u32,
    /// How often it was registered again. Of several that find the app gone one brings it back: each time its
    /// requests are delivered anew, to whoever asks first.
    renewed: Arc<tokio::sync::Mutex<u64>>,
    leaves: Arc<AtomicBool>,
}

impl AppServer {
    /// The next request; waits until there is one. Registers the app again if the daemon was
    /// restarted, or if another client has stopped it.
    /// Where it is dropped before it ends, a request may have been taken: that comes again after the lease.
    ///
    /// Errors: [`ErrorCode::Unreachable`] while no daemon runs; call again later. [`ErrorCode::NotFound`] after
    /// [`AppServer::leave`], when nothing is left to be answered.
    pub async fn next(&self) -> Result<ApiIncoming, ClientError> {
        loop {
            let renewed = *self.renewed.lock().await;
            if let Some(inside) = &self.client.inside {
                match inside.next(&self.app, POLL).await {
                    Ok(Some(incoming)) => return Ok(incoming),
                    Ok(None) => {}
                    // Another client has served the app meanwhile and stopped it.
                    Err(error) if error.code == ErrorCode::NotFound => self.register_again(renewed).await?,
                    Err(error) => return Err(error),
                }
                continue;
            }
            let call = Call::new(Method::GET, &["apps", &self.app, "next"], POLL + MARGIN)
                .query(vec![("wait_ms", POLL.as_millis().to_string())]);
            match self.client.transport.send(call).await {
                Ok(response) if response.status() == StatusCode::NO_CONTENT => {}
                Ok(response) => return read_incoming(response).await,
                Err(error) if error.code == ErrorCode::NotFound => self.register_again(renewed).await?,
                Err(error) => return Err(error),
            }
        }
    }

    /// Answers a request. Answering one that was answered already, or that came before a restart of
    /// the daemon (it is delivered again), does nothing.
    ///
    /// Errors: [`ErrorCode::Usage`] if the body is longer than the request's response limit.
    pub async fn respond(&self, request: RequestId, body: Bytes) -> Result<(), ClientError> {
        let answered = match &self.client.inside {
            Some(inside) => inside.respond(&self.app, request, body).await,
            None => {
                let id = request.to_string();
                let path = ["apps", &self.app, "responses", &id];
                let call = Call::new(Method::POST, &path, QUICK).body(body);
                self.client.transport.send(call).await.map(drop)
            }
        };
        match answered {
            // Answered before, or the daemon was restarted and delivers the request again.
            Err(error) if error.code == ErrorCode::NotFound => Ok(()),
            other => other,
        }
    }

    /// The node rejects new requests for the app from now on; those that it has acknowledged are still to be
    /// taken and answered, some of them anew. Then [`AppServer::stop`].
    pub async fn leave(&self) -> Result<(), ClientError> {
        // Nobody may be bringing it back at the same time: that would come after this.
        let _renewed = self.renewed.lock().await;
        self.leaves.store(true, Ordering::Relaxed);
        self.register().await
    }

    /// Stops serving: the node rejects new requests for the app.
    pub async fn stop(self) -> Result<(), ClientError> {
        if let Some(inside) = &self.client.inside {
            return inside.stop(&self.app);
        }
        let call = Call::new(Method::DELETE, &["apps", &self.app], QUICK);
        self.client.transport.send(call).await.map(drop)
    }

    /// `seen`: [`AppServer::renewed`] before the app was found gone.
    async fn register_again(&self, seen: u64) -> Result<(), ClientError> {
        let mut renewed = self.renewed.lock().await;
        if self.leaves.load(Ordering::Relaxed) {
            return Err(ClientError::new(ErrorCode::NotFound, "the app has left", "serve it again"));
        }
        if *renewed == seen {
            self.register().await?;
            *renewed += 1;
        }
        Ok(())
    }

    async fn register(&self) -> Result<(), ClientError> {
        let max_queued = if self.leaves.load(Ordering::Relaxed) { 0 } else { self.max_queued };
        if let Some(inside) = &self.client.inside {
            return inside.serve(&self.app, self.pricing, max_queued).await;
        }
        let AppPricing { base, per_byte } = self.pricing;
        let body = ServeRequest { base, per_byte, max_queued };
        let call = Call::new(Method::POST, &["apps", &self.app, "serve"], QUICK).json(&body)?;
        self.client.transport.send(call).await.map(drop)
    }
}

async fn read_response(response: Response, sealed: bool) -> Result<ApiResponse, ClientError> {
    let request = header(&response, headers::REQUEST_ID)?;
    let price = header(&response, headers::PRICE)?;
    let attempts = header(&response, headers::ATTEMPTS)?;
    let receipt = BASE64
        .decode(header_value(&response, headers::RECEIPT)?)
        .ok()
        .and_then(|bytes| borsh::from_slice::<SignedReceipt>(&bytes).ok())
        .ok_or_else(|| transport::malformed(headers::RECEIPT))?;
    let route = header_value(&response, headers::ROUTE)?
        .split(',')
        .map(|id| id.parse().map_err(|_| transport::malformed(headers::ROUTE)))
        .collect::<Result<Vec<ChannelId>, ClientError>>()?;
    let body = response.bytes().await.map_err(transport::broken)?;
    let len = body.len() as u64;
    // The receipt is for what was on the way.
    if (if sealed { seal::sealed_len(len) } else { len }) != receipt.receipt.body_len {
        return Err(transport::malformed("response body"));
    }
    Ok(ApiResponse { body, request, price, receipt, route, attempts })
}

async fn read_incoming(response: Response) -> Result<ApiIncoming, ClientError> {
    let request: RequestId = header(&response, headers::REQUEST_ID)?;
    let author: NodeKey = header(&response, headers::AUTHOR)?;
    let response_limit = header(&response, headers::RESPONSE_LIMIT)?;
    let server_price = header(&response, headers::SERVER_PRICE)?;
    let body = response.bytes().await.map_err(transport::broken)?;
    Ok(ApiIncoming { request, author, body, response_limit, server_price })
}
