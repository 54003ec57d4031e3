//! The ledger thread: group commit of everything that was submitted.
//!
//! A small batch that comes while the thread rests is made durable by the task that asks for it: to wake
//! the thread, and to be woken by it, can take half as long as the sync.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, RwLock};
use por_core::{Restored, Write};
use redb::Database;
use tokio::sync::oneshot;

use super::books::Books;
use super::error::StoreError;
use super::rows::{self, AppTable, ReadError, StoreTable};
use super::{NodeStore, guarded};

/// Most bytes that may wait to be written. The protocol's limits keep honest operation far below;
/// reaching it means that the disk has stalled, and stopping is safer than running out of memory.
const MAX_QUEUED: usize = 512 << 20;

/// Most bytes that are written in place: about two requests or their ends.
const MAX_IN_PLACE: usize = 4 << 10;
/// What a commit may usually take for it to be done in place: a task that takes longer keeps others of
/// its executor's thread waiting. The thread does it until the disk has shown to be as quick as that.
const MAX_IN_PLACE_TIME: Duration = Duration::from_micros(500);

/// State shared by the handles and the ledger thread.
pub(super) struct Shared {
    pub(super) path: PathBuf,
    /// `None` once closed.
    database: RwLock<Option<Database>>,
    books: Mutex<Books>,
    queue: Mutex<Queue>,
    /// Signalled when the queue has work for the thread or the store is to be closed.
    work: Condvar,
    progress: Mutex<Progress>,
}

struct Queue {
    jobs: VecDeque<Job>,
    bytes: usize,
    /// What is queued is for the thread to do.
    summoned: bool,
    /// Somebody is at a commit, or what comes after it.
    busy: bool,
    /// What a commit of batches took lately, on average, and what it may take for one to be done in place.
    usual: Duration,
    most_in_place: Duration,
    /// The thread has something to do besides, with the next batch.
    upkeep_due: bool,
    closing: bool,
}

impl Default for Queue {
    fn default() -> Queue {
        Queue {
            jobs: VecDeque::new(),
            bytes: 0,
            summoned: false,
            busy: false,
            usual: 2 * MAX_IN_PLACE_TIME,
            most_in_place: MAX_IN_PLACE_TIME,
            upkeep_due: false,
            closing: false,
        }
    }
}

impl Queue {
    /// Notes what a commit took; one that took very long says little of the next.
    fn took(&mut self, time: Duration) {
        self.usual = (self.usual * 7 + time.min(2 * MAX_IN_PLACE_TIME)) / 8;
    }

    /// Whether what is queued may be made durable by the task that waits for it.
    fn is_for_here(&self) -> bool {
        let quick = self.bytes <= MAX_IN_PLACE && self.usual <= self.most_in_place;
        let is_free = !self.busy && !self.upkeep_due && !self.closing;
        quick && is_free && only_batches(&self.jobs)
    }

    fn take(&mut self) -> VecDeque<Job> {
        self.busy = true;
        self.summoned = false;
        self.bytes = 0;
        std::mem::take(&mut self.jobs)
    }
}

enum Job {
    Batch {
        number: u64,
        writes: Vec<Write>,
    },
    App {
        table: AppTable,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
        done: oneshot::Sender<Result<(), StoreError>>,
    },
    /// Nothing to write: it is done when all before it is.
    Mark {
        done: oneshot::Sender<Result<(), StoreError>>,
    },
}

impl Job {
    fn bytes(&self) -> usize {
        match self {
            Job::Batch { writes, .. } => {
                writes.iter().map(|w| w.key.len() + w.value.as_ref().map_or(0, Vec::len) + 64).sum()
            }
            Job::App { key, value, .. } => key.len() + value.as_ref().map_or(0, Vec::len) + 64,
            Job::Mark { .. } => 64,
        }
    }
}

#[derive(Default)]
struct Progress {
    /// Highest durable batch.
    durable: u64,
    /// Final: nothing is written after it.
    failure: Option<StoreError>,
    waker: Option<Waker>,
    /// Groups committed, for tests and metrics.
    commits: u64,
}

pub(super) fn spawn(shared: Arc<Shared>) -> std::io::Result<JoinHandle<()>> {
    let task = move || {
        // A store whose thread is gone would keep all who write to it waiting.
        if let Err(error) = guarded(&shared.path, || run(&shared)) {
            shared.fail(error);
        }
    };
    std::thread::Builder::new().name("por-ledger".into()).spawn(task)
}

fn run(shared: &Shared) {
    while let Some(jobs) = shared.take_jobs() {
        shared.make_durable(jobs);
        // Nobody waits for it.
        if shared.failure().is_none()
            && let Err(error) = shared.upkeep()
        {
            shared.fail(error);
        }
        shared.rest(false);
    }
    if shared.failure().is_none()
        && let Err(error) = shared.checkpoint()
    {
        shared.fail(error);
    }
}

impl Shared {
    pub(super) fn new(path: PathBuf, database: Database, books: Books) -> Shared {
        Shared {
            path,
            database: RwLock::new(Some(database)),
            books: Mutex::new(books),
            queue: Mutex::default(),
            work: Condvar::new(),
            progress: Mutex::default(),
        }
    }

    pub(super) fn read<T>(&self, f: impl FnOnce(&Database) -> Result<T, ReadError>) -> Result<T, StoreError> {
        let guard = self.database.read();
        let database = guard.as_ref().ok_or(StoreError::Closed)?;
        guarded(&self.path, || f(database))?.map_err(|error| error.at(&self.path))
    }

    pub(super) async fn write_app(
        &self,
        table: AppTable,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
    ) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        self.push(Job::App { table, key, value, done })?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    pub(super) async fn settled(&self) -> Result<(), StoreError> {
        let (done, result) = oneshot::channel();
        self.push(Job::Mark { done })?;
        result.await.map_err(|_| StoreError::Closed)?
    }

    fn push(&self, job: Job) -> Result<(), StoreError> {
        let mut queue = self.queue.lock();
        if queue.closing {
            return Err(StoreError::Closed);
        }
        let bytes = queue.bytes.saturating_add(job.bytes());
        if bytes > MAX_QUEUED {
            return Err(StoreError::Busy { bytes });
        }
        queue.bytes = bytes;
        queue.jobs.push_back(job);
        // Else it is made durable when its task asks for it; whoever queues more meanwhile, or closes the
        // store, summons the thread for it.
        if !queue.is_for_here() {
            queue.summoned = true;
            self.work.notify_one();
        }
        Ok(())
    }

    /// Everything queued; waits for work. `None` when the store is closing and nothing is left.
    fn take_jobs(&self) -> Option<VecDeque<Job>> {
        let mut queue = self.queue.lock();
        while queue.busy || !(queue.summoned || queue.closing) {
            self.work.wait(&mut queue);
        }
        // Nothing is summoned for nothing: the store is closing.
        (!queue.jobs.is_empty()).then(|| queue.take())
    }

    /// Makes what is queued durable, if that is for the calling task to do.
    fn commit_here(&self) {
        let jobs = {
            let mut queue = self.queue.lock();
            if queue.jobs.is_empty() || queue.summoned {
                return;
            }
            queue.take()
        };
        self.make_durable(jobs);
        self.rest(self.books.lock().is_upkeep_due());
    }

    /// Writes jobs and tells those who wait for them; [`Shared::rest`] is due then.
    fn make_durable(&self, mut jobs: VecDeque<Job>) {
        let start = only_batches(&jobs).then(Instant::now);
        let result = match self.failure() {
            Some(failure) => Err(failure),
            None => self.commit(&mut jobs),
        };
        if let Some(start) = start {
            self.queue.lock().took(start.elapsed());
        }
        self.report(jobs, &result);
    }

    /// Others may take what is queued.
    fn rest(&self, upkeep_due: bool) {
        let mut queue = self.queue.lock();
        queue.busy = false;
        queue.upkeep_due = upkeep_due;
        if queue.summoned || queue.closing {
            self.work.notify_one();
        }
    }

    /// Batches first: a row of the node's own tables may rely on them.
    fn commit(&self, jobs: &mut VecDeque<Job>) -> Result<(), StoreError> {
        let guard = self.database.read();
        let database = guard.as_ref().ok_or(StoreError::Closed)?;
        let batches = jobs.iter_mut().filter_map(|job| match job {
            Job::Batch { writes, .. } => Some(std::mem::take(writes)),
            Job::App { .. } | Job::Mark { .. } => None,
        });
        let batches: Vec<Vec<Write>> = batches.collect();
        guarded(&self.path, || self.books.lock().commit(&self.path, database, batches))??;
        guarded(&self.path, || commit_apps(database, jobs))?
            .map_err(|error| StoreError::from_redb(&self.path, error))
    }

    /// Notes what is durable now, and moves rows on to the database, if it is time.
    fn upkeep(&self) -> Result<(), StoreError> {
        let guard = self.database.read();
        let database = guard.as_ref().ok_or(StoreError::Closed)?;
        guarded(&self.path, || self.books.lock().upkeep(&self.path, database))?
    }

    /// Brings the database up to date with everything, as the store closes.
    fn checkpoint(&self) -> Result<(), StoreError> {
        let guard = self.database.read();
        let database = guard.as_ref().ok_or(StoreError::Closed)?;
        guarded(&self.path, || self.books.lock().checkpoint(&self.path, database, true))?
    }

    pub(super) fn restored(&self) -> Result<Restored, StoreError> {
        self.read(|database| self.books.lock().restored(database))
    }

    fn report(&self, jobs: VecDeque<Job>, result: &Result<(), StoreError>) {
        let mut progress = self.progress.lock();
        match result {
            Ok(()) => {
                let last = jobs.iter().rev().find_map(|job| match job {
                    Job::Batch { number, .. } => Some(*number),
                    Job::App { .. } | Job::Mark { .. } => None,
                });
                progress.durable = last.unwrap_or(progress.durable).max(progress.durable);
                progress.commits += 1;
            }
            Err(error) => {
                progress.failure.get_or_insert_with(|| error.clone());
            }
        }
        if let Some(waker) = progress.waker.take() {
            waker.wake();
        }
        drop(progress);
        for job in jobs {
            if let Job::App { done, .. } | Job::Mark { done } = job {
                // The caller may have gone; its row is written all the same.
                let _ = done.send(result.clone());
            }
        }
    }

    pub(super) fn failure(&self) -> Option<StoreError> {
        self.progress.lock().failure.clone()
    }

    fn fail(&self, error: StoreError) {
        let mut progress = self.progress.lock();
        progress.failure.get_or_insert(error);
        if let Some(waker) = progress.waker.take() {
            waker.wake();
        }
    }

    pub(super) fn begin_close(&self) {
        self.queue.lock().closing = true;
        self.work.notify_all();
    }

    pub(super) fn drop_database(&self) {
        self.database.write().take();
    }

    #[cfg(test)]
    pub(super) fn set_most_in_place(&self, time: Duration) {
        self.queue.lock().most_in_place = time;
    }

    #[cfg(test)]
    pub(super) fn commits(&self) -> u64 {
        self.progress.lock().commits
    }
}

fn only_batches(jobs: &VecDeque<Job>) -> bool {
    jobs.iter().all(|job| matches!(job, Job::Batch { .. }))
}

fn commit_apps(database: &Database, jobs: &VecDeque<Job>) -> Result<(), redb::Error> {
    if !jobs.iter().any(|job| matches!(job, Job::App { .. })) {
        return Ok(());
    }
    let transaction = database.begin_write()?;
    let mut writer = rows::Writer::new(&transaction);
    for job in jobs {
        if let Job::App { table, key, value, .. } = job {
            writer.write(StoreTable::App(*table), key, value.as_deref())?;
        }
    }
    drop(writer);
    transaction.commit()?;
    Ok(())
}

/// What the protocol driver writes to.
#[derive(Debug)]
pub struct LedgerStore {
    store: NodeStore,
    /// Highest batch that the driver was told of.
    told: u64,
}

impl LedgerStore {
    pub(super) fn new(store: NodeStore) -> LedgerStore {
        LedgerStore { store, told: 0 }
    }

    /// Queues a batch. A failure shows in [`LedgerStore::poll`].
    fn queue(&mut self, number: u64, writes: Vec<Write>) {
        let shared = self.store.shared();
        if let Err(error) = shared.push(Job::Batch { number, writes }) {
            shared.fail(error);
        }
    }

    /// The highest durable batch, once it has grown; or why there will be no more.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64, StoreError>> {
        // What is made durable here must not wake the task that does it.
        let before = self.look(None);
        if before.is_ready() {
            return before;
        }
        self.store.shared().commit_here();
        self.look(Some(cx.waker()))
    }

    /// What there is to tell; `waker` is woken when there is more.
    fn look(&mut self, waker: Option<&Waker>) -> Poll<Result<u64, StoreError>> {
        let mut progress = self.store.shared().progress.lock();
        if let Some(failure) = &progress.failure {
            return Poll::Ready(Err(failure.clone()));
        }
        if progress.durable > self.told {
            self.told = progress.durable;
            return Poll::Ready(Ok(self.told));
        }
        progress.waker = waker.cloned();
        Poll::Pending
    }
}

impl libp2p_por::Store for LedgerStore {
    fn load(&mut self) -> Result<Restored, libp2p_por::StoreError> {
        self.store.restored().map_err(foreign)
    }

    fn submit(&mut self, batch: u64, writes: Vec<Write>) {
        self.queue(batch, writes);
    }

    fn poll_durable(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64, libp2p_por::StoreError>> {
        self.poll(cx).map_err(foreign)
    }
}

/// The cause stays inside, so that the daemon can tell a full disk from a damaged file.
fn foreign(error: StoreError) -> libp2p_por::StoreError {
    libp2p_por::StoreError::with_source(error.to_string(), error)
}
