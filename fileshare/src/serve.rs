//! `serve`: answers the network's questions from the store through the running daemon,
//! and announces what the store has.
//!
//! Taking questions, answering them and announcing go on for as long as the process
//! lives: a daemon that is restarted, or not there yet, is waited for.

use std::{
    collections::HashSet,
    fs::{File, TryLockError},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use por_core::AppPricing;
use por_node::client::{ApiIncoming, AppServer, Client, ClientError, ErrorCode};
use por_types::Yocto;
use tokio::{sync::Semaphore, task::JoinSet};
use tracing::{info, warn};

use crate::{
    answer::{Answerer, refusal},
    exit::{Exit, Failure},
    fetch::{GIB, Stop},
    net::blocking,
    proto::{Fault, GET_APP, Pricing, STAT_APP},
    store::Store,
};

/// Questions that the node acknowledges before they are answered.
const MAX_QUEUED: u32 = 256;
/// Questions taken from the daemon at a time, per app.
const POLLERS: usize = 4;
/// Answers being made or handed over at a time; each holds a window in memory.
const MAX_ANSWERS: usize = 16;
/// How often the store is asked for changes.
const WATCH: Duration = Duration::from_millis(500);
/// Ids announced at most, what was put before what it contains: the network's record
/// keeping is not made for each file of a big directory, whose providers are found by
/// the directory's id.
const MAX_ANNOUNCED: usize = 1000;
/// How often everything is announced again, whatever the daemon remembers.
const ANNOUNCE_AGAIN: Duration = Duration::from_secs(30 * 60);
/// How long answers in hand may take when the server ends.
const LEAVE: Duration = Duration::from_secs(10);
/// How long a word to the daemon may take then.
const GOODBYE: Duration = Duration::from_secs(2);
/// Longest pause between two looks whether the daemon is back: what it has acknowledged before is paid late for
/// until it is answered.
const AWAY: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// What the server did so far.
#[derive(Debug, Default)]
pub struct Served {
    pub answers: AtomicU64,
    /// Bytes of answers.
    pub bytes: AtomicU64,
    /// Ids announced.
    pub announced: AtomicU64,
}

/// The price per byte for a price per GiB. Rounded up, so that a price is never lost.
pub fn per_byte(per_gib: Yocto) -> Yocto {
    Yocto(per_gib.0.div_ceil(u128::from(GIB)))
}

/// The file in a home that its one file server holds.
const LOCK_FILE: &str = "fileshare.lock";

/// Makes this process the one that serves a node's files; freed when it is dropped or the process
/// ends. The node itself would let the last server of an app take it over, with another price.
#[derive(Debug)]
pub struct ServerLock {
    _file: File,
}

impl ServerLock {
    /// # Errors
    /// [`Exit::Exists`] if another process serves the files of this home's node.
    pub fn take(home: &Path) -> Result<Self, Failure> {
        let path = home.join(LOCK_FILE);
        let failed = |error: &std::io::Error| Failure::io(format!("locking {}", path.display()), error);
        let file = File::options()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => Ok(ServerLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(Failure::new(
                Exit::Exists,
                "this node serves files already",
                "stop the other `fileshare serve` or `fileshare node` of this home first; a running server \
                 offers what is put later by itself",
            )),
            Err(TryLockError::Error(error)) => Err(failed(&error)),
        }
    }
}

/// Serves until `stop` is set. Calls `ready` once questions can come in and what is in
/// the store has been announced for the first time.
///
/// # Errors
/// What no waiting mends: a wrong token, a daemon of another version, a corrupt store.
pub async fn serve(
    client: Client,
    store: Store,
    pricing: Pricing,
    stop: Stop,
    served: Arc<Served>,
    ready: impl FnOnce(),
) -> Result<(), Failure> {
    let mut desk = Desk::default();
    // Not given up half way: what the daemon has heard of by then has to be taken back.
    let mut result = desk.open(&client, &store, pricing, &stop, &served).await;
    if result.is_ok() {
        let announcer =
            Announcer { client, store, known: HashSet::new(), generation: None, last: None, served };
        result = tokio::select! {
            result = announcer.run(&stop, ready) => result,
            () = stop.wait() => Ok(()),
            Some(ended) = desk.workers.join_next() => match ended {
                Ok(result) => result,
                Err(error) => Err(Failure::new(Exit::Other, format!("internal error: {error}"), "")),
            },
        };
    }
    stop.set();
    desk.close().await;
    result
}

/// The apps at the daemon, and who works for them.
#[derive(Default)]
struct Desk {
    apps: Vec<AppServer>,
    workers: JoinSet<Result<(), Failure>>,
    /// Nothing more is taken, also of what is acknowledged.
    abandoned: Stop,
}

impl Desk {
    async fn open(
        &mut self,
        client: &Client,
        store: &Store,
        pricing: Pricing,
        stop: &Stop,
        served: &Arc<Served>,
    ) -> Result<(), Failure> {
        let answerer = Answerer::new(store.clone(), pricing);
        let room = Arc::new(Semaphore::new(MAX_ANSWERS));
        for (app, pricing) in [(STAT_APP, Pricing::default()), (GET_APP, pricing)] {
            let terms = AppPricing { base: pricing.base, per_byte: pricing.per_byte };
            let server = client.serve(app, terms, MAX_QUEUED).await?;
            self.apps.push(server.clone());
            for _ in 0..POLLERS {
                let worker = Worker {
                    server: server.clone(),
                    app,
                    answerer: answerer.clone(),
                    room: Arc::clone(&room),
                    served: Arc::clone(served),
                };
                self.workers.spawn(worker.run(stop.clone(), self.abandoned.clone()));
            }
        }
        Ok(())
    }

    /// Nothing more is acknowledged, and what is gets its answer: each without one would be paid late for until
    /// somebody serves again.
    async fn close(mut self) {
        for app in &self.apps {
            if !matches!(tokio::time::timeout(GOODBYE, app.leave()).await, Ok(Ok(()))) {
                // The daemon may be gone as well; then there is nobody to answer.
                self.abandoned.set();
            }
        }
        let finish = async { while self.workers.join_next().await.is_some() {} };
        let _ = tokio::time::timeout(LEAVE, finish).await;
        for app in self.apps {
            let _ = tokio::time::timeout(GOODBYE, app.stop()).await;
        }
    }
}

/// What a failure of the daemon means for a server that runs for days.
fn waits(error: &ClientError) -> bool {
    !matches!(error.code, ErrorCode::WrongKey | ErrorCode::Foreign | ErrorCode::Usage | ErrorCode::Fatal)
}

/// Pauses that double while something keeps failing, up to the longest.
struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    const fn new(longest: Duration) -> Self {
        Backoff { next: Duration::from_millis(100), longest }
    }

    async fn pause(&mut self, stop: &Stop) {
        tokio::select! {
            () = tokio::time::sleep(self.next) => (),
            () = stop.wait() => (),
        }
        self.next = (self.next * 2).min(self.longest);
    }
}

/// Takes questions of one app, one after the other, and answers each in a task.
struct Worker {
    server: AppServer,
    app: &'static str,
    answerer: Answerer,
    room: Arc<Semaphore>,
    served: Arc<Served>,
}

impl Worker {
    /// Until nothing is left to be answered after `stop`, or all is `abandoned`.
    async fn run(self, stop: Stop, abandoned: Stop) -> Result<(), Failure> {
        let mut backoff = Backoff::new(AWAY);
        let mut answers = JoinSet::new();
        while !abandoned.is_set() {
            // Room first: a question that is taken is answered.
            let Ok(permit) = Arc::clone(&self.room).acquire_owned().await else {
                break;
            };
            let next = tokio::select! {
                next = self.server.next() => next,
                () = abandoned.wait() => break,
            };
            match next {
                Ok(incoming) => {
                    backoff = Backoff::new(AWAY);
                    let (server, answerer) = (self.server.clone(), self.answerer.clone());
                    let (app, served) = (self.app, Arc::clone(&self.served));
                    answers.spawn(async move {
                        answer(&server, app, answerer, incoming, &served).await;
                        drop(permit);
                    });
                }
                Err(_) if stop.is_set() => break,
                Err(error) if waits(&error) => {
                    drop(permit);
                    info!(app = self.app, %error, "waiting for the daemon");
                    backoff.pause(&stop).await;
                }
                Err(error) => return Err(error.into()),
            }
            while answers.try_join_next().is_some() {}
        }
        while answers.join_next().await.is_some() {}
        Ok(())
    }
}

async fn answer(
    server: &AppServer,
    app: &'static str,
    answerer: Answerer,
    incoming: ApiIncoming,
    served: &Served,
) {
    let (body, limit) = (incoming.body, incoming.response_limit);
    let answer = blocking(move || answerer.answer(app, &body, limit)).await.unwrap_or_else(|failure| {
        // Asked again it would fail again, and lateness is paid for all the while.
        warn!(request = %incoming.request, what = failure.what, "a question could not be answered");
        refusal(Fault::Damaged, "the provider failed", limit)
    });
    let bytes = answer.len() as u64;
    match server.respond(incoming.request, answer.into()).await {
        Ok(()) => {
            served.answers.fetch_add(1, Ordering::Relaxed);
            served.bytes.fetch_add(bytes, Ordering::Relaxed);
        }
        // It is delivered again when its lease is over.
        Err(error) => warn!(request = %incoming.request, %error, "an answer was not taken"),
    }
}

/// The ids to announce.
fn to_announce(store: &Store) -> Result<HashSet<[u8; 32]>, Failure> {
    let entries: HashSet<[u8; 32]> = store.entries()?.iter().map(|entry| *entry.id.hash()).collect();
    let pins = store.pins()?;
    let pinned = pins.iter().map(|id| *id.hash()).filter(|hash| entries.contains(hash));
    let mut chosen: HashSet<[u8; 32]> = pinned.take(MAX_ANNOUNCED).collect();
    for hash in &entries {
        if chosen.len() >= MAX_ANNOUNCED {
            warn!(
                items = entries.len(),
                "only {MAX_ANNOUNCED} ids are announced; the rest is served if asked"
            );
            break;
        }
        chosen.insert(*hash);
    }
    Ok(chosen)
}

/// Keeps the network's records of what the store has up to date.
struct Announcer {
    client: Client,
    store: Store,
    known: HashSet<[u8; 32]>,
    generation: Option<u64>,
    last: Option<Instant>,
    served: Arc<Served>,
}

impl Announcer {
    async fn run(mut self, stop: &Stop, ready: impl FnOnce()) -> Result<(), Failure> {
        self.round().await?;
        ready();
        let mut backoff = Backoff::new(LONGEST_PAUSE);
        while !stop.is_set() {
            match self.round().await {
                Ok(()) => {
                    backoff = Backoff::new(LONGEST_PAUSE);
                    tokio::select! {
                        () = tokio::time::sleep(WATCH) => (),
                        () = stop.wait() => (),
                    }
                }
                Err(failure) => {
                    if matches!(
                        failure.exit,
                        Exit::WrongKey | Exit::ForeignVersion | Exit::CorruptStore | Exit::Fatal
                    ) {
                        return Err(failure);
                    }
                    info!(what = %failure.what, "announcing again later");
                    backoff.pause(stop).await;
                }
            }
        }
        Ok(())
    }

    /// Announces what is new, and takes back what is gone.
    async fn round(&mut self) -> Result<(), Failure> {
        let store = self.store.clone();
        let generation = blocking(move || store.generation()).await?;
        if self.last.is_some_and(|last| last.elapsed() > ANNOUNCE_AGAIN) {
            self.known.clear();
            self.generation = None;
        }
        if self.generation == Some(generation) {
            return Ok(());
        }
        let store = self.store.clone();
        let present = blocking(move || to_announce(&store)).await??;
        for hash in &present {
            if !self.known.contains(hash) {
                self.client.provide(hash).await?;
                self.known.insert(*hash);
            }
        }
        let gone: Vec<[u8; 32]> = self.known.difference(&present).copied().collect();
        for hash in gone {
            self.client.stop_providing(&hash).await?;
            self.known.remove(&hash);
        }
        self.served.announced.store(self.known.len() as u64, Ordering::Relaxed);
        self.last.get_or_insert_with(Instant::now);
        if self.known.len() == present.len() {
            self.last = Some(Instant::now());
        }
        self.generation = Some(generation);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_has_one_file_server() {
        let home = tempfile::tempdir().expect("a folder");
        let lock = ServerLock::take(home.path()).expect("the first");
        let second = ServerLock::take(home.path()).expect_err("the second");
        assert_eq!(second.exit, Exit::Exists);
        assert!(!second.fix.is_empty());
        drop(lock);
        ServerLock::take(home.path()).expect("free again");
    }

    #[test]
    fn prices_per_gib_are_rounded_up() {
        assert_eq!(per_byte(Yocto(0)), Yocto(0));
        assert_eq!(per_byte(Yocto(1)), Yocto(1));
        assert_eq!(per_byte(Yocto(u128::from(GIB) * 5)), Yocto(5));
        assert_eq!(per_byte(Yocto(u128::from(GIB) * 5 + 1)), Yocto(6));
    }
}
