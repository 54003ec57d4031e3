//! Several RPC endpoints as one: failover, bounded tries, and answers that never go back.

mod proof;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use near_jsonrpc_client::methods;
use near_jsonrpc_client::methods::RpcMethod;
use near_primitives::hash::CryptoHash;
use near_primitives::types::{BlockId, BlockReference, Finality};
use rand::Rng as _;

use super::clock::{self, ClockState, Present, Shown, in_ms};
use super::error::ChainError;
use super::http::{Answered, Endpoint, Unanswered};
use super::sound;
use proof::patience;

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

impl RpcLimits {
    /// The wait before this round, the first being 0.
    fn pause(&self, round: u32) -> Duration {
        let base = self.backoff.saturating_mul(1 << round.saturating_sub(1).min(8)).min(MAX_BACKOFF);
        base + base.mul_f64(rand::rng().random_range(0.0..0.25))
    }
}

const MAX_BACKOFF: Duration = Duration::from_secs(8);

/// Blocks that an answer may be ahead of what two endpoints agree on: beside an endpoint that invents
/// heights the answers of all others would look old for ever.
const AHEAD: u64 = 1_000;
/// An endpoint whose latest block is older than this has stopped: it has no say in how high the chain is.
const STOPPED: Duration = Duration::from_secs(300);
/// An endpoint whose latest block is younger than this is at the head of the chain.
const LIVE: Duration = Duration::from_secs(60);
/// A block's time is not further than this ahead of this machine's clock: by it the node would let time for
/// evidence go by.
const FUTURE: Duration = Duration::from_secs(300);
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
pub(super) enum Skip {
    /// It is behind what was seen before.
    Old(String),
    /// It makes no sense.
    Bad(String),
}

/// What came of asking all endpoints.
pub(super) enum RpcFailure<E> {
    /// An endpoint gave a definite error. `tries` counts the attempts that may have been received.
    Handler { error: E, tries: u32 },
    /// Nobody gave a usable answer.
    Nobody(ChainError),
}

pub(super) struct Rpc {
    endpoints: Vec<Arc<Endpoint>>,
    preferred: AtomicUsize,
    /// Time of a final block that was seen by an earlier run.
    seen_ms: u64,
    /// Latest time of a head that was taken.
    latest_ms: AtomicU64,
    /// Highest height of a final answer. Answers below it are old.
    floor: AtomicU64,
    /// Answers above it are taken only after all endpoints were asked how high the chain is.
    ceiling: AtomicU64,
    /// An answer was above the ceiling.
    doubt: AtomicBool,
    limits: RpcLimits,
    present: Present,
    /// Tests let its time pass: blocks may be from the future.
    test_chain: bool,
}

/// What one endpoint has to say to a question.
enum Reply<T, E> {
    Taken(T),
    Skipped(Skip),
    /// A definite error.
    Refused(E),
    /// No answer, or an error that may pass.
    Failed(String),
}

/// Why the endpoints' answers are not taken, of one round.
#[derive(Default)]
struct Round {
    reasons: Vec<String>,
    old: usize,
    bad: Option<String>,
    /// Some gave no answer at all.
    failed: bool,
}

impl Round {
    fn note(&mut self, url: &str, skip: Skip) {
        let reason = match skip {
            Skip::Old(reason) => {
                self.old += 1;
                reason
            }
            Skip::Bad(reason) => {
                self.bad = Some(reason.clone());
                reason
            }
        };
        self.reasons.push(format!("{url}: {reason}"));
    }
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
        let endpoints = urls.iter().map(|url| Arc::new(Endpoint::new(url.clone(), http.clone()))).collect();
        Ok(Rpc {
            endpoints,
            preferred: AtomicUsize::new(0),
            seen_ms: 0,
            latest_ms: AtomicU64::new(0),
            floor: AtomicU64::new(0),
            ceiling: AtomicU64::new(0),
            doubt: AtomicBool::new(false),
            limits,
            present: Present::new(),
            test_chain: false,
        })
    }

    /// The same, for a chain whose time tests may let pass.
    pub(super) fn for_tests(self, test_chain: bool) -> Rpc {
        Rpc { test_chain, ..self }
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
        self.ask_round(request, timeout, false, transient, accept).await
    }

    /// The same for questions that change nothing: the error of one endpoint is the answer only if none of
    /// the others has a better one.
    pub(super) async fn look<M, T>(
        &self,
        request: &M,
        transient: impl Fn(&M::Error) -> bool,
        accept: impl Fn(M::Response) -> Result<T, Skip>,
    ) -> Result<T, RpcFailure<M::Error>>
    where
        M: RpcMethod + Sync,
        M::Error: std::fmt::Display,
    {
        self.ask_round(request, self.limits.try_timeout, true, transient, accept).await
    }

    async fn ask_round<M, T>(
        &self,
        request: &M,
        timeout: Duration,
        seek_others: bool,
        transient: impl Fn(&M::Error) -> bool,
        accept: impl Fn(M::Response) -> Result<T, Skip>,
    ) -> Result<T, RpcFailure<M::Error>>
    where
        M: RpcMethod + Sync,
        M::Error: std::fmt::Display,
    {
        let what = request.method_name().to_owned();
        let mut tries = 0;
        let mut lagging = true;
        let mut round = Round::default();
        for number in 0..self.limits.rounds.max(1) {
            if number > 0 {
                tokio::time::sleep(self.limits.pause(number)).await;
            }
            round = Round::default();
            let mut refused = None;
            let first = self.preferred.load(Ordering::Relaxed);
            let count = self.endpoints.len();
            // Who was doubted is asked once more, should the others bear it out.
            let mut queue: VecDeque<(usize, bool)> =
                (0..count).map(|i| ((first + i) % count, true)).collect();
            while let Some((at, fresh)) = queue.pop_front() {
                let endpoint = &self.endpoints[at];
                tries += 1;
                let reason = match self.reply(endpoint, request, timeout, &transient, &accept).await {
                    Reply::Taken(value) => {
                        self.preferred.store(at, Ordering::Relaxed);
                        return Ok(value);
                    }
                    Reply::Refused(error) if seek_others => {
                        refused.get_or_insert(error);
                        continue;
                    }
                    Reply::Refused(error) => {
                        self.preferred.store(at, Ordering::Relaxed);
                        return Err(RpcFailure::Handler { error, tries });
                    }
                    Reply::Skipped(skip) => {
                        if self.doubt.swap(false, Ordering::AcqRel) && fresh {
                            self.survey().await;
                            queue.push_front((at, false));
                        } else {
                            round.note(&endpoint.url, skip);
                        }
                        continue;
                    }
                    Reply::Failed(reason) => reason,
                };
                tracing::debug!(endpoint = endpoint.url, method = what, reason, "RPC failed");
                round.failed = true;
                round.reasons.push(format!("{}: {reason}", endpoint.url));
            }
            if let Some(error) = refused {
                return Err(RpcFailure::Handler { error, tries });
            }
            if round.old > 0 {
                self.reconsider().await;
            }
            lagging &= !round.failed && round.bad.is_none();
            // Nobody is behind or away: asked again they would say the same.
            if round.old == 0 && !round.failed && round.bad.is_some() {
                break;
            }
        }
        Err(RpcFailure::Nobody(match round.bad {
            _ if lagging => ChainError::Lagging { what },
            Some(reason) if !round.failed => ChainError::Answer { method: what, reason },
            _ => ChainError::Unreachable { reasons: round.reasons.join("; ") },
        }))
    }

    async fn reply<M, T>(
        &self,
        endpoint: &Endpoint,
        request: &M,
        timeout: Duration,
        transient: &impl Fn(&M::Error) -> bool,
        accept: &impl Fn(M::Response) -> Result<T, Skip>,
    ) -> Reply<T, M::Error>
    where
        M: RpcMethod + Sync,
        M::Error: std::fmt::Display,
    {
        match tokio::time::timeout(timeout, endpoint.call(request)).await {
            Err(_) => Reply::Failed(format!("no answer within {} s", timeout.as_secs_f32())),
            Ok(Ok(Answered { answer, .. })) => accept(answer).map_or_else(Reply::Skipped, Reply::Taken),
            Ok(Err(Unanswered::Handler(error))) if !transient(&error) => Reply::Refused(error),
            Ok(Err(Unanswered::Handler(error))) => Reply::Failed(error.to_string()),
            Ok(Err(Unanswered::Failed(reason))) => Reply::Failed(reason),
        }
    }

    /// Begins with the next endpoint from now on: what this one says leads nowhere.
    pub(super) fn pass_over(&self) {
        let next = self.preferred.load(Ordering::Relaxed).wrapping_add(1);
        self.preferred.store(next.checked_rem(self.endpoints.len()).unwrap_or(0), Ordering::Relaxed);
    }

    /// Asks all endpoints at the same time, once; what answered, with its URL.
    pub(super) async fn ask_all<M>(&self, request: &M, timeout: Duration) -> Vec<(&str, M::Response)>
    where
        M: RpcMethod + Sync,
    {
        let answers = self.ask_all_dated(request, timeout).await.into_iter();
        answers.map(|(url, answered)| (url, answered.answer)).collect()
    }

    async fn ask_all_dated<M>(&self, request: &M, timeout: Duration) -> Vec<(&str, Answered<M::Response>)>
    where
        M: RpcMethod + Sync,
    {
        let asked = self.endpoints.iter().map(|endpoint| async {
            let answer = tokio::time::timeout(patience(endpoint, timeout), endpoint.call(request)).await;
            Some((endpoint.url.as_str(), answer.ok()?.ok()?))
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// There is one endpoint, which is believed.
    pub(super) fn is_alone(&self) -> bool {
        self.endpoints.len() < 2
    }

    /// What those endpoints answer that are at the head of the chain; nothing if there is one endpoint in all.
    pub(super) async fn ask_live<M>(&self, request: &M) -> Vec<M::Response>
    where
        M: RpcMethod + Sync,
    {
        if self.is_alone() {
            return Vec::new();
        }
        let timeout = self.limits.try_timeout.min(SURVEY);
        let asked = self.endpoints.iter().map(|endpoint| async {
            let both = async {
                let status = methods::status::RpcStatusRequest;
                tokio::join!(endpoint.call(request), endpoint.call(&status))
            };
            let (answer, status) = tokio::time::timeout(patience(endpoint, timeout), both).await.ok()?;
            let time = status.ok()?.answer.sync_info.latest_block_time.unix_timestamp();
            let time = Duration::from_secs(u64::try_from(time).unwrap_or(0));
            let now = Duration::from_millis(self.present.now_ms());
            if time.saturating_add(LIVE) < now { None } else { Some(answer.ok()?.answer) }
        });
        futures::future::join_all(asked).await.into_iter().flatten().collect()
    }

    /// The height below which answers are old. Take it before asking, so that two questions at the
    /// same time do not accuse each other's answers.
    pub(super) fn floor(&self) -> u64 {
        self.floor.load(Ordering::Acquire)
    }

    /// Checks the height of a final answer against the floor taken before, and raises the floor.
    pub(super) fn rise(&self, floor: u64, height: u64) -> Result<(), Skip> {
        if height < floor {
            return Err(Skip::Old(format!("is at block {height}, {floor} was seen before")));
        }
        self.fits(height)?;
        self.floor.fetch_max(height, Ordering::AcqRel);
        Ok(())
    }

    fn fits(&self, height: u64) -> Result<(), Skip> {
        sound::count("block", height)?;
        let ceiling = self.ceiling.load(Ordering::Acquire);
        if height > ceiling {
            self.doubt.store(true, Ordering::Release);
            return Err(Skip::Old(format!("claims block {height}, no other endpoint is beyond {ceiling}")));
        }
        Ok(())
    }

    /// Asks all endpoints how high the chain is, and raises the ceiling to what two of them have
    /// reached; to what the only one has, if no other answers.
    async fn survey(&self) {
        let mut heights = self.heights().await;
        let now = Duration::from_millis(self.present.now_ms());
        let runs = |time: &Duration| time.saturating_add(STOPPED) >= now;
        if heights.iter().any(|(time, _)| runs(time)) {
            heights.retain(|(time, _)| runs(time));
        }
        if let Some(height) = agreed(heights) {
            self.ceiling.fetch_max(height.saturating_add(AHEAD), Ordering::AcqRel);
        }
    }

    /// Lowers the floor if those at the head of the chain are far below it: an endpoint that was there alone
    /// for a while has invented it, and all others would be old for ever.
    async fn reconsider(&self) {
        let mut heights = self.heights().await;
        let now = Duration::from_millis(self.present.now_ms());
        heights.retain(|(time, _)| time.saturating_add(LIVE) >= now);
        let Some(height) = agreed(heights) else { return };
        let most = height.saturating_add(AHEAD);
        let floor = self.floor();
        if most < floor {
            tracing::warn!(floor, height, "no endpoint bears out how high one has said that the chain is");
            self.ceiling.store(most, Ordering::Release);
            // Others may have raised it meanwhile: then they are right.
            let _ = self.floor.compare_exchange(floor, height, Ordering::AcqRel, Ordering::Acquire);
        }
    }

    /// Time and height of each endpoint's latest block.
    async fn heights(&self) -> Vec<(Duration, u64)> {
        let timeout = self.limits.try_timeout.min(SURVEY);
        let answers = self.ask_all(&methods::status::RpcStatusRequest, timeout).await;
        let height = |(_, status): (&str, near_primitives::views::StatusResponse)| {
            let time = status.sync_info.latest_block_time.unix_timestamp();
            let height = status.sync_info.latest_block_height;
            let time = Duration::from_secs(u64::try_from(time).unwrap_or(0));
            (height <= sound::MAX_COUNT).then_some((time, height))
        };
        answers.into_iter().filter_map(height).collect()
    }

    /// This machine's clock as the endpoints show it.
    ///
    /// Errors: [`ChainError::Unreachable`] if none of them shows anything.
    pub(super) async fn clock(&self) -> Result<ClockState, ChainError> {
        let request =
            methods::block::RpcBlockRequest { block_reference: BlockReference::Finality(Finality::Final) };
        let mut shown = Vec::new();
        for number in 0..self.limits.rounds.max(1) {
            if number > 0 {
                tokio::time::sleep(self.limits.pause(number)).await;
            }
            let answers = self.ask_all_dated(&request, self.limits.try_timeout.min(SURVEY)).await;
            shown.extend(answers.into_iter().map(|(_, answered)| Shown {
                block_ms: answered.answer.header.timestamp / 1_000_000,
                date_ms: answered.date_ms,
            }));
            if !shown.is_empty() {
                return Ok(clock::judge(clock::now_ms(), &shown, self.test_chain));
            }
        }
        Err(ChainError::Unreachable { reasons: "nobody says what time it is on the chain".to_owned() })
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
                return Err(Skip::Old(format!("is at time {time_ms}, {} was seen before", self.seen_ms)));
            }
            let present = self.present.now_ms();
            if time_ms > present.saturating_add(in_ms(FUTURE)) && !self.test_chain {
                let ahead = (time_ms - present) / 1_000;
                return Err(Skip::Bad(format!("has a block from {ahead} s after this machine's time")));
            }
            // By less an earlier one may have been from the future.
            let latest = self.latest_ms.load(Ordering::Acquire);
            if time_ms.saturating_add(in_ms(FUTURE)) < latest {
                return Err(Skip::Old(format!("is at time {time_ms}, {latest} was seen before")));
            }
            self.rise(floor, header.height)?;
            self.latest_ms.fetch_max(time_ms, Ordering::AcqRel);
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
                return Err(Skip::Bad("gave another block than asked for".to_owned()));
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
}

/// The height that two have reached, or the only one has.
fn agreed(heights: Vec<(Duration, u64)>) -> Option<u64> {
    let mut heights: Vec<u64> = heights.into_iter().map(|(_, height)| height).collect();
    heights.sort_unstable_by(|a, b| b.cmp(a));
    heights.get(1).or(heights.first()).copied()
}

#[cfg(test)]
mod tests;
