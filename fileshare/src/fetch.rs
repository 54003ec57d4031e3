//! Fetching windows: from any of several providers, verified, within limits.

mod discover;
mod holes;
mod plan;
mod whole;

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use por_types::{NodeKey, Yocto};
use tokio::sync::{Semaphore, watch};
use tracing::{debug, warn};

pub use self::{
    discover::Found,
    plan::{Cost, Plan, Shapes},
};
use crate::{
    budget::{Budget, Reservation},
    exit::{Exit, Failure},
    id::ContentId,
    landing::Landing,
    net::{Call, Network, Reply, blocking},
    pool::{Choice, Offer, Pool, Severity},
    proto::{Fault, GET_APP, ProtoError, Question, get_limit, slice_of},
    slice::{self, DEFAULT_WINDOW, SliceError, Verified, Window},
};

/// Bytes in a GiB, the unit of prices.
pub const GIB: u64 = 1 << 30;

/// Pause between two looks whether the own node is back.
const AWAY: Duration = Duration::from_millis(250);

/// What a download may take.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Most that a provider and the way to it may cost per GiB.
    pub max_price: Option<Yocto>,
    /// When everything must be over.
    pub deadline: Option<Instant>,
    /// Windows in flight at a time.
    pub in_flight: usize,
    /// Windows of zeros among them, each of which takes a core until it has been hashed.
    pub zeros_in_flight: usize,
    /// Bytes per window.
    pub window: u64,
    /// Longest time for one question.
    pub question_time: Duration,
    /// How long nothing may succeed before the download gives up.
    pub patience: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_price: None,
            deadline: None,
            in_flight: 8,
            // One is on its way while every core has one.
            zeros_in_flight: std::thread::available_parallelism().map_or(2, |cores| cores.get() + 1),
            window: DEFAULT_WINDOW,
            question_time: Duration::from_secs(60),
            patience: Duration::from_secs(60),
        }
    }
}

/// Ends a download from outside: nothing new is asked, what is in flight may finish.
#[derive(Clone, Debug)]
pub struct Stop(Arc<watch::Sender<bool>>);

impl Default for Stop {
    fn default() -> Self {
        Stop(Arc::new(watch::Sender::new(false)))
    }
}

impl Stop {
    pub fn set(&self) {
        self.0.send_replace(true);
    }

    pub fn is_set(&self) -> bool {
        *self.0.borrow()
    }

    /// Returns once it is set.
    pub async fn wait(&self) {
        // The sender lives as long as this does, so this only ends when it is set.
        let _ = self.0.subscribe().wait_for(|set| *set).await;
    }

    /// The failure of whatever was stopped.
    pub fn failure() -> Failure {
        Failure::new(
            Exit::Interrupted,
            "interrupted",
            "run the same command again; it continues where it stopped",
        )
    }
}

/// How far a download is, for whoever shows it.
#[derive(Debug, Default)]
pub struct Meter {
    total: AtomicU64,
    done: AtomicU64,
}

impl Meter {
    pub fn add_total(&self, bytes: u64) {
        self.total.fetch_add(bytes, Ordering::Relaxed);
    }

    pub fn add_done(&self, bytes: u64) {
        self.done.fetch_add(bytes, Ordering::Relaxed);
    }

    /// Bytes that are there, and bytes that shall be.
    pub fn get(&self) -> (u64, u64) {
        (self.done.load(Ordering::Relaxed), self.total.load(Ordering::Relaxed))
    }
}

/// What to do with a verified window.
pub struct Finish<T> {
    /// With its bytes, on a thread that may block.
    take: Box<dyn Fn(Verified) -> Result<T, Failure> + Send + Sync>,
    landing: Option<Ground<T>>,
}

/// Where the node itself writes windows.
struct Ground<T> {
    landing: Landing,
    /// Notes a window that is written.
    landed: Box<dyn Fn(Window) -> Result<T, Failure> + Send + Sync>,
}

impl<T> Finish<T> {
    pub fn new(take: impl Fn(Verified) -> Result<T, Failure> + Send + Sync + 'static) -> Arc<Self> {
        Arc::new(Finish { take: Box::new(take), landing: None })
    }
}

/// Why the bytes of an answer were of no use.
#[derive(Clone, Debug)]
pub enum Spoiled {
    /// This machine's doing, for example a full disk.
    Here(Failure),
    /// The provider's.
    There(Severity, Failure),
}

/// One download with its providers and its money. Shared between its windows.
#[derive(Debug)]
pub struct Session<N> {
    net: Arc<N>,
    pub pool: Pool,
    pub budget: Arc<Budget>,
    pub limits: Limits,
    pub stop: Stop,
    pub meter: Meter,
    slots: Semaphore,
    zeros: Semaphore,
    quotes: Mutex<HashMap<(NodeKey, u64, u64), Yocto>>,
    maps: holes::Maps,
    last_success: Mutex<Instant>,
    /// It was said that the own node is gone, and nothing has arrived since.
    outage: AtomicBool,
    /// See [`Session::may_be_directory`].
    may_be_directory: AtomicBool,
}

/// Why one attempt failed.
enum Attempt {
    /// This machine's doing: no other provider helps.
    Here(Failure),
    /// The provider's or the way's doing.
    There(Severity, Yocto, Failure),
    /// The price rose between asking for it and paying.
    PriceRose(Failure),
}

impl<N: Network> Session<N> {
    pub fn new(net: Arc<N>, budget: Arc<Budget>, limits: Limits, stop: Stop) -> Self {
        Session {
            net,
            pool: Pool::default(),
            budget,
            slots: Semaphore::new(limits.in_flight.max(1)),
            zeros: Semaphore::new(limits.zeros_in_flight.max(1)),
            limits,
            stop,
            meter: Meter::default(),
            quotes: Mutex::default(),
            maps: holes::Maps::default(),
            last_success: Mutex::new(Instant::now()),
            outage: AtomicBool::new(false),
            may_be_directory: AtomicBool::new(false),
        }
    }

    /// The network behind this.
    pub fn network(&self) -> &N {
        &self.net
    }

    /// Fetches and verifies a window, from whichever provider delivers it, and hands it
    /// to `finish` on a blocking thread. `halt` ends it between attempts.
    pub(crate) async fn window<T: Send + 'static>(
        &self,
        id: ContentId,
        size: u64,
        window: Window,
        finish: &Arc<Finish<T>>,
        halt: &whole::Halt<'_>,
    ) -> Result<T, Failure> {
        let _zeros = match window.is_zeros() {
            true => Some(self.zeros.acquire().await.map_err(|_| Stop::failure())?),
            false => None,
        };
        let _slot = self.slots.acquire().await.map_err(|_| Stop::failure())?;
        let (mut lacking, mut tried) = (HashSet::new(), HashSet::new());
        let mut rises = 0;
        let mut attempts = 0;
        loop {
            if self.stop.is_set() || halt.is_set() {
                return Err(Stop::failure());
            }
            self.time_left()?;
            let offer = match self.pool.choose(&lacking, &tried) {
                Choice::Ask(offer) => offer,
                Choice::Wait(pause) => {
                    self.pause(pause).await?;
                    continue;
                }
                Choice::Nobody(failure) => return Err(failure),
            };
            attempts += 1;
            match self.attempt(offer, id, size, window, finish).await {
                Ok(value) => return Ok(value),
                Err(Attempt::Here(failure)) => return Err(failure),
                Err(Attempt::PriceRose(failure)) => {
                    rises += 1;
                    if rises > 3 {
                        return Err(failure);
                    }
                }
                Err(Attempt::There(severity, paid, failure)) => {
                    debug!(node = %offer.node, what = %failure.what, ?severity, "window failed");
                    let out_of_patience = attempts >= 3 && self.since_success() > self.limits.patience;
                    if self.is_outage(&failure).await && !out_of_patience {
                        self.pool.missed(offer.node, paid, failure);
                        self.pause(AWAY).await?;
                        continue;
                    }
                    if severity == Severity::Lacks {
                        lacking.insert(offer.node);
                    }
                    tried.insert(offer.node);
                    self.pool.failed(offer.node, severity, paid, failure.clone());
                    if out_of_patience {
                        return Err(failure);
                    }
                }
            }
        }
    }

    async fn attempt<T: Send + 'static>(
        &self,
        offer: Offer,
        id: ContentId,
        size: u64,
        window: Window,
        finish: &Arc<Finish<T>>,
    ) -> Result<T, Attempt> {
        let started = Instant::now();
        let (paid, result) = self.ask(offer, id, size, window, finish).await.inspect_err(|attempt| {
            if !matches!(attempt, Attempt::There(..)) {
                self.pool.gave_up(offer.node);
            }
        })?;
        match result {
            Ok(finished) => {
                self.pool.succeeded(offer.node, content_of(window), paid, started.elapsed());
                self.touch();
                Ok(finished)
            }
            Err(Spoiled::Here(failure)) => {
                self.pool.succeeded(offer.node, 0, paid, started.elapsed());
                Err(Attempt::Here(failure))
            }
            Err(Spoiled::There(severity, failure)) => Err(Attempt::There(severity, paid, failure)),
        }
    }

    /// Asks one provider, pays it, and finishes what it answered. An error: there was no answer.
    async fn ask<T: Send + 'static>(
        &self,
        offer: Offer,
        id: ContentId,
        size: u64,
        window: Window,
        finish: &Arc<Finish<T>>,
    ) -> Result<(Yocto, Result<T, Spoiled>), Attempt> {
        let here =
            |error: &dyn std::fmt::Display| Attempt::Here(Failure::new(Exit::Other, error.to_string(), ""));
        let body = Question::get(id, window).encode().map_err(|error| here(&error))?;
        let limit = get_limit(size, window);
        let price = self.price(offer, body.len() as u64, limit).await.map_err(classify)?;
        self.check_price(price, content_of(window))
            .map_err(|failure| Attempt::There(Severity::Never, Yocto::ZERO, failure))?;
        let mut reservation = self.budget.reserve(price).map_err(Attempt::Here)?;
        let deadline = self.time_left().map_err(Attempt::Here)?;
        let body_len = body.len() as u64;
        let call = Call {
            to: offer.node,
            app: GET_APP,
            server_price: server_price(offer, body_len, limit).map_err(Attempt::Here)?,
            body,
            limit,
            max_price: price,
            deadline,
        };
        reservation.sent();
        let answered = match &finish.landing {
            Some(ground) => ground.landing.fetch(&call, window).await.map(|outcome| {
                let landed = || (ground.landed)(window).map_err(Spoiled::Here);
                (outcome.price, Answered::Landed(outcome.result.and_then(|()| landed())))
            }),
            None => self.net.request(call).await.map(|reply| (reply.price, Answered::Bytes(reply.body))),
        };
        let (price, answered) = match answered {
            Ok(answered) => answered,
            Err(failure) => {
                reservation.spend(failure.spent);
                if failure.exit == Exit::Budget {
                    self.forget_quotes(offer.node);
                    return Err(Attempt::PriceRose(failure));
                }
                return Err(classify(failure));
            }
        };
        reservation.spend(price);
        let body = match answered {
            Answered::Landed(result) => return Ok((price, result)),
            Answered::Bytes(body) => body,
        };
        let finish = Arc::clone(finish);
        let finished = blocking(move || {
            let verified = verify(id, size, window, &body)?;
            (finish.take)(verified).map_err(Spoiled::Here)
        });
        Ok((price, finished.await.unwrap_or_else(|failure| Err(Spoiled::Here(failure)))))
    }

    /// Asks, and books what it has cost, answered or not.
    async fn pay(&self, mut reservation: Reservation, call: Call) -> Result<Reply, Failure> {
        reservation.sent();
        let answered = self.net.request(call).await;
        reservation.spend(answered.as_ref().map_or_else(|failure| failure.spent, |reply| reply.price));
        answered
    }

    /// Price of a get with a question and an answer of these lengths, route included.
    pub async fn price(&self, offer: Offer, body_len: u64, limit: u64) -> Result<Yocto, Failure> {
        let key = (offer.node, body_len, limit);
        if let Some(price) = self.quotes.lock().unwrap_or_else(PoisonError::into_inner).get(&key) {
            return Ok(*price);
        }
        let own = server_price(offer, body_len, limit)?;
        let price = self.net.quote(offer.node, GET_APP, body_len, limit, own).await?;
        self.quotes.lock().unwrap_or_else(PoisonError::into_inner).insert(key, price);
        Ok(price)
    }

    fn forget_quotes(&self, node: NodeKey) {
        let mut quotes = self.quotes.lock().unwrap_or_else(PoisonError::into_inner);
        quotes.retain(|(of, _, _), _| *of != node);
    }

    /// A price per GiB says nothing about a few bytes; windows below a MiB are not judged.
    fn check_price(&self, price: Yocto, bytes: u64) -> Result<(), Failure> {
        let Some(max) = self.limits.max_price.filter(|_| bytes >= crate::part::UNIT) else {
            return Ok(());
        };
        let too_dear = match (price.checked_mul(GIB.into()), max.checked_mul(bytes.into())) {
            (Ok(asked), Ok(allowed)) => asked > allowed,
            (Err(_), _) => true,
            (Ok(_), Err(_)) => false,
        };
        if !too_dear {
            return Ok(());
        }
        let per_gib = (price.0 / u128::from(bytes)).saturating_mul(u128::from(GIB));
        let what = format!(
            "it costs {} per GiB with the way to it, more than the {} allowed",
            Yocto(per_gib).to_near_string(),
            max.to_near_string()
        );
        Err(Failure::new(Exit::Budget, what, "raise --max-price, or wait for a cheaper provider"))
    }

    /// Time for the next question.
    fn time_left(&self) -> Result<Duration, Failure> {
        let Some(deadline) = self.limits.deadline else {
            return Ok(self.limits.question_time);
        };
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            let fix = "run the same command again with a later --deadline; it continues where it stopped";
            return Err(Failure::new(Exit::Deadline, "the deadline has passed", fix));
        }
        Ok(left.min(self.limits.question_time))
    }

    async fn pause(&self, pause: Duration) -> Result<(), Failure> {
        tokio::select! {
            () = tokio::time::sleep(pause) => Ok(()),
            () = self.stop.wait() => Err(Stop::failure()),
        }
    }

    /// Whether nothing can arrive, and the providers are not to blame; says so once, and why.
    async fn is_outage(&self, failure: &Failure) -> bool {
        if failure.exit != Exit::Unreachable || self.net.is_there().await {
            return false;
        }
        if !self.outage.swap(true, Ordering::Relaxed) {
            let patience = self.limits.patience.as_secs();
            warn!(
                "this home's own node does not answer; start it again: the download goes on for {patience} s"
            );
        }
        true
    }

    /// Somebody calls content a directory that was asked for by 64 hex digits, and whose listing is so long that it
    /// did not come along: it is taken for a file.
    pub fn may_be_directory(&self) -> bool {
        self.may_be_directory.load(Ordering::Relaxed)
    }

    /// Starts the patience anew.
    fn touch(&self) {
        self.outage.store(false, Ordering::Relaxed);
        *self.last_success.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    fn since_success(&self) -> Duration {
        self.last_success.lock().unwrap_or_else(PoisonError::into_inner).elapsed()
    }
}

fn server_price(offer: Offer, body_len: u64, limit: u64) -> Result<Yocto, Failure> {
    offer.pricing.price(body_len, limit).map_err(|error| {
        Failure::new(
            Exit::Budget,
            format!("the provider's price is absurd: {error}"),
            "choose another provider",
        )
    })
}

/// Who can do something about a failure of the network.
fn classify(failure: Failure) -> Attempt {
    match failure.exit {
        Exit::Usage | Exit::WrongKey | Exit::ForeignVersion | Exit::DiskFull | Exit::CorruptStore => {
            Attempt::Here(failure)
        }
        Exit::Budget => Attempt::PriceRose(failure),
        Exit::VerificationFailed => Attempt::There(Severity::Never, failure.spent, failure),
        _ => Attempt::There(Severity::Passing, failure.spent, failure),
    }
}

/// Bytes of content that arrive for a window.
const fn content_of(window: Window) -> u64 {
    if window.is_zeros() { 0 } else { window.len() }
}

/// An answer, or what the node made of it.
enum Answered<T> {
    Bytes(Bytes),
    Landed(Result<T, Spoiled>),
}

/// Checks an answer to its last byte.
pub(crate) fn verify(id: ContentId, size: u64, window: Window, answer: &Bytes) -> Result<Verified, Spoiled> {
    let verified = slice_of(answer).and_then(|slice| Ok(slice::decode(id.root(), size, window, &slice)?));
    verified.map_err(|error| {
        let (severity, failure) = judge(&error);
        Spoiled::There(severity, failure)
    })
}

/// What a provider's unusable answer says about it.
fn judge(error: &ProtoError) -> (Severity, Failure) {
    let (severity, exit) = match error {
        ProtoError::Refused { fault: Fault::NotFound, .. } => (Severity::Lacks, Exit::NotFound),
        ProtoError::Refused { fault: Fault::Damaged, .. } => (Severity::Lacks, Exit::VerificationFailed),
        ProtoError::Refused { fault: Fault::Busy, .. } => (Severity::Passing, Exit::Retryable),
        ProtoError::Refused { fault: Fault::Invalid | Fault::Unsupported, .. } => {
            (Severity::Lacks, Exit::ForeignVersion)
        }
        ProtoError::Slice(SliceError::Io(_)) => (Severity::Passing, Exit::Other),
        _ => (Severity::Never, Exit::VerificationFailed),
    };
    let fix = match exit {
        Exit::NotFound | Exit::VerificationFailed => "try another provider with --from",
        _ => "run the same command again later; it continues where it stopped",
    };
    (severity, Failure::new(exit, error.to_string(), fix))
}
