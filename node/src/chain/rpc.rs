//! Several RPC endpoints as one: failover, bounded tries, and answers that never go back.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use near_jsonrpc_client::errors::{JsonRpcError, JsonRpcServerError};
use near_jsonrpc_client::methods::RpcMethod;
use near_jsonrpc_client::{JsonRpcClient, methods};
use near_primitives::hash::CryptoHash;
use near_primitives::types::{BlockId, BlockReference, Finality};
use rand::Rng as _;

use super::error::ChainError;

/// How patient the client is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RpcLimits {
    /// For one try at one endpoint.
    pub try_timeout: Duration,
    /// For one try that waits for a transaction.
    pub transaction_timeout: Duration,
    /// Rounds over all endpoints, at least 1.
    pub rounds: u32,
    /// Wait after the first round; doubles with each, up to 8 s, with up to a quarter of jitter.
    pub backoff: Duration,
}

impl Default for RpcLimits {
    fn default() -> Self {
        RpcLimits {
            try_timeout: Duration::from_secs(10),
            transaction_timeout: Duration::from_secs(30),
            rounds: 4,
            backoff: Duration::from_millis(250),
        }
    }
}

const MAX_BACKOFF: Duration = Duration::from_secs(8);

/// Blocks that an answer may be ahead of what two endpoints agree on: beside an endpoint that invents
/// heights the answers of all others would look old for ever.
const AHEAD: u64 = 1_000;
/// An endpoint whose latest block is older than this has stopped: it has no say in how high the chain is.
const STOPPED: Duration = Duration::from_secs(300);
/// Longest wait when all endpoints are asked how high the chain is.
const SURVEY: Duration = Duration::from_secs(3);

/// The final head of the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    pub height: u64,
    pub hash: near_primitives::hash::CryptoHash,
    /// Block time, milliseconds since 1970.
    pub time_ms: u64,
}

/// Why an endpoint's answer is not taken.
pub(super) struct Skip(pub(super) String);

/// What came of asking all endpoints.
pub(super) enum RpcFailure<E> {
    /// An endpoint gave a definite error. `tries` counts the attempts that may have been received.
    Handler { error: E, tries: u32 },
    /// Nobody gave a usable answer.
    Nobody(ChainError),
}

pub(super) struct Rpc {
    endpoints: Vec<Endpoint>,
    preferred: AtomicUsize,
    /// Time of a final block that was seen by an earlier run.
    seen_ms: u64,
    /// Highest height of a final answer. Answers below it are old.
    floor: AtomicU64,
    /// Answers above it are taken only after all endpoints were asked how high the chain is.
    ceiling: AtomicU64,
    /// An answer was above the ceiling.
    doubt: AtomicBool,
    limits: RpcLimits,
}

struct Endpoint {
    url: String,
    client: JsonRpcClient,
}

impl Rpc {
    pub(super) fn new(urls: &[String], limits: RpcLimits) -> Result<Rpc, ChainError> {
        let mut headers = reqwest::header::HeaderMap::new();
        let json = reqwest::header::HeaderValue::from_static("application/json");
        headers.insert(reqwest::header::CONTENT_TYPE, json);
        let http = reqwest::Client::builder()
            .default_headers(headers)
            .connect_timeout(limits.try_timeout)
            .pool_idle_timeout(Duration::from_secs(30))
            .build()
            .map_err(|error| ChainError::Unreachable { reasons: error.to_string() })?;
        let connector = JsonRpcClient::with(http);
        let endpoints =
            urls.iter().map(|url| Endpoint { url: url.clone(), client: connector.connect(url) }).collect();
        Ok(Rpc {
            endpoints,
            preferred: AtomicUsize::new(0),
            seen_ms: 0,
            floor: AtomicU64::new(0),
            ceiling: AtomicU64::new(0),
            doubt: AtomicBool::new(false),
            limits,
        })
    }

    /// The same, for which a head is old that is from before this time, milliseconds since 1970.
    pub(super) fn after(self, seen_ms: u64) -> Rpc {
        Rpc { seen_ms, ..self }
    }

    pub(super) fn limits(&self) -> &RpcLimits {
        &self.limits
    }

    /// Asks the endpoints in turn until one gives an answer that `accept` takes, or an error that
    /// `transient` does not excuse.
    pub(super) async fn ask<M, T>(
        &self,
        request: &M,
        timeout: Duration,
        transient: impl Fn(&M::Error) -> bool,
        accept: impl Fn(M::Response) -> Result<T, Skip>,
    ) -> Result<T, RpcFailure<M::Error>>
    where
        M: RpcMethod + Sync,
        M::Error: std::fmt::Display,
    {
        let mut reasons: Vec<String> = Vec::new();
        let mut tries = 0;
        let mut lagging = true;
        for round in 0..self.limits.rounds.max(1) {
            if round > 0 {
                tokio::time::sleep(self.pause(round)).await;
            }
            reasons.clear();
            let first = self.preferred.load(Ordering::Relaxed);
            let count = self.endpoints.len();
            // Who was doubted is asked once more, should the others bear it out.
            let mut queue: VecDeque<(usize, bool)> =
                (0..count).map(|i| ((first + i) % count, true)).collect();
            while let Some((at, fresh)) = queue.pop_front() {
                let endpoint = &self.endpoints[at];
                tries += 1;
                let reason = match tokio::time::timeout(timeout, endpoint.client.call(request)).await {
                    Err(_) => format!("no answer within {} s", timeout.as_secs_f32()),
                    Ok(Ok(response)) => match accept(response) {
                        Ok(value) => {
                            self.preferred.store(at, Ordering::Relaxed);
                            return Ok(value);
                        }
                        Err(Skip(reason)) => {
                            if self.doubt.swap(false, Ordering::AcqRel) && fresh {
                                self.survey().await;
                                queue.push_front((at, false));
                                continue;
                            }
                            reasons.push(format!("{}: {reason}", endpoint.url));
                            continue;
                        }
                    },
                    Ok(Err(JsonRpcError::ServerError(JsonRpcServerError::HandlerError(error)))) => {
                        if !transient(&error) {
                            self.preferred.store(at, Ordering::Relaxed);
                            return Err(RpcFailure::Handler { error, tries });
                        }
                        error.to_string()
                    }
                    Ok(Err(error)) => describe(&error),
                };
                lagging = false;
                tracing::debug!(
                    endpoint = endpoint.url,
                    method = request.method_name(),
                    reason,
                    "RPC failed"
                );
                reasons.push(format!("{}: {reason}", endpoint.url));
            }
        }
        let what = request.method_name().to_owned();
        Err(RpcFailure::Nobody(if lagging {
            ChainError::Lagging { what }
        } else {
            ChainError::Unreachable { reasons: reasons.join("; ") }
        }))
    }

    /// Asks all endpoints at the same time, once; what answered, with its URL.
    pub(super) async fn ask_all<M>(&self, request: &M, timeout: Duration) -> Vec<(&str, M::Response)>
    where
        M: RpcMethod + Sync,
    {
        let asked = self.endpoints.iter().map(|endpoint| async {
            let answer = tokio::time::timeout(timeout, endpoint.client.call(request)).await;
            Some((endpoint.url.as_str(), answer.ok()?.ok()?))
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    fn pause(&self, round: u32) -> Duration {
        let base = self.limits.backoff.saturating_mul(1 << (round - 1).min(8)).min(MAX_BACKOFF);
        base + base.mul_f64(rand::rng().random_range(0.0..0.25))
    }

    /// The height below which answers are old. Take it before asking, so that two questions at the
    /// same time do not accuse each other's answers.
    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// Checks the height of a final answer against the floor taken before, and raises the floor.
    pub(super) fn rise(&self, floor: u64, height: u64) -> Result<(), Skip> {
        if height < floor {
            return Err(Skip(format!("is at block {height}, {floor} was seen before")));
        }
        self.fits(height)?;
        self.floor.fetch_max(height, Ordering::AcqRel);
        Ok(())
    }

    fn fits(&self, height: u64) -> Result<(), Skip> {
        let ceiling = self.ceiling.load(Ordering::Acquire);
        if height > ceiling {
            self.doubt.store(true, Ordering::Release);
            return Err(Skip(format!("claims block {height}, no other endpoint is beyond {ceiling}")));
        }
        Ok(())
    }

    /// Asks all endpoints how high the chain is, and raises the ceiling to what two of them have
    /// reached; to what the only one has, if no other answers.
    async fn survey(&self) {
        let timeout = self.limits.try_timeout.min(SURVEY);
        let answers = self.ask_all(&methods::status::RpcStatusRequest, timeout).await;
        let height = |(_, status): (&str, near_primitives::views::StatusResponse)| {
            let time = status.sync_info.latest_block_time.unix_timestamp();
            (u64::try_from(time).unwrap_or(0), status.sync_info.latest_block_height)
        };
        let mut heights: Vec<(u64, u64)> = answers.into_iter().map(height).collect();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let runs = |time: u64| Duration::from_secs(time).saturating_add(STOPPED) >= now;
        if heights.iter().any(|(time, _)| runs(*time)) {
            heights.retain(|(time, _)| runs(*time));
        }
        let mut heights: Vec<u64> = heights.into_iter().map(|(_, height)| height).collect();
        heights.sort_unstable_by(|a, b| b.cmp(a));
        if let Some(height) = heights.get(1).or(heights.first()) {
            self.ceiling.fetch_max(height.saturating_add(AHEAD), Ordering::AcqRel);
        }
    }

    /// The final head.
    pub(super) async fn head(&self) -> Result<Head, ChainError> {
        let request =
            methods::block::RpcBlockRequest { block_reference: BlockReference::Finality(Finality::Final) };
        let floor = self.floor();
        let accept = |block: near_primitives::views::BlockView| {
            let header = block.header;
            let time_ms = header.timestamp / 1_000_000;
            if time_ms < self.seen_ms {
                return Err(Skip(format!("is at time {time_ms}, {} was seen before", self.seen_ms)));
            }
            self.rise(floor, header.height)?;
            Ok(Head { height: header.height, hash: header.hash, time_ms })
        };
        let answer = self.ask(&request, self.limits.try_timeout, |_| true, accept).await;
        answer.map_err(|failure| match failure {
            RpcFailure::Nobody(error) => error,
            RpcFailure::Handler { error, .. } => ChainError::Unreachable { reasons: error.to_string() },
        })
    }

    /// Takes note of a block that is final: views from here on are not older than it.
    pub(super) async fn rise_to(&self, block: CryptoHash) -> Result<(), ChainError> {
        let request = methods::block::RpcBlockRequest {
            block_reference: BlockReference::BlockId(BlockId::Hash(block)),
        };
        let accept = |view: near_primitives::views::BlockView| {
            if view.header.hash != block {
                return Err(Skip("gave another block than asked for".to_owned()));
            }
            self.fits(view.header.height)?;
            self.floor.fetch_max(view.header.height, Ordering::AcqRel);
            Ok(())
        };
        let answer = self.ask(&request, self.limits.try_timeout, |_| true, accept).await;
        answer.map_err(|failure| match failure {
            RpcFailure::Nobody(error) => error,
            RpcFailure::Handler { error, .. } => ChainError::Unreachable { reasons: error.to_string() },
        })
    }

    /// Asks every endpoint for its chain: those that answer must be on `expected`, and one has to
    /// answer.
    pub(super) async fn check_chain_id(&self, expected: &str) -> Result<(), ChainError> {
        let accept = |status: near_primitives::views::StatusResponse| Ok(status.chain_id);
        let request = methods::status::RpcStatusRequest;
        let answers = self.ask_all(&request, self.limits.try_timeout).await;
        if let Some((url, found)) = answers.iter().find(|(_, found)| found.chain_id != expected) {
            let reason = format!("the RPC endpoint {url} is on chain {}, not on {expected}", found.chain_id);
            return Err(ChainError::Foreign { reason });
        }
        if !answers.is_empty() {
            return Ok(());
        }
        // Nobody yet: the usual patience, and the reasons.
        match self.ask(&request, self.limits.try_timeout, |_| true, accept).await {
            Ok(found) if found == expected => Ok(()),
            Ok(found) => Err(ChainError::Foreign {
                reason: format!("the RPC endpoint is on chain {found}, not on {expected}"),
            }),
            Err(RpcFailure::Nobody(error)) => Err(error),
            Err(RpcFailure::Handler { error, .. }) => {
                Err(ChainError::Unreachable { reasons: error.to_string() })
            }
        }
    }
}

/// The cause that says most; reqwest hides it behind "error sending request".
fn describe<E: std::fmt::Display>(error: &JsonRpcError<E>) -> String {
    use near_jsonrpc_client::errors::{JsonRpcTransportSendError, RpcTransportError};
    if let JsonRpcError::TransportError(RpcTransportError::SendError(
        JsonRpcTransportSendError::PayloadSendError(error),
    )) = error
    {
        if error.is_connect() {
            return "cannot connect".to_owned();
        }
        let mut cause: &dyn std::error::Error = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        return cause.to_string();
    }
    match error {
        JsonRpcError::TransportError(error) => error.to_string(),
        JsonRpcError::ServerError(JsonRpcServerError::HandlerError(error)) => error.to_string(),
        JsonRpcError::ServerError(JsonRpcServerError::RequestValidationError(error)) => format!("{error:?}"),
        JsonRpcError::ServerError(JsonRpcServerError::InternalError { info }) => {
            info.clone().unwrap_or_else(|| "internal error".to_owned())
        }
        JsonRpcError::ServerError(JsonRpcServerError::NonContextualError(error)) => error.to_string(),
        JsonRpcError::ServerError(JsonRpcServerError::ResponseStatusError(error)) => error.to_string(),
    }
}
