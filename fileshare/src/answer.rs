//! Answering questions from the store. Blocks; callers bound how many at a time.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tracing::warn;

use crate::{
    id::ContentId,
    proto::{
        Answer, Fault, GET_APP, MAX_RUNS, MAX_STAT_LISTING, Pricing, Question, STAT_APP, Stat, get_limit,
        slice_header,
    },
    slice::{self, MAX_WINDOW, Window},
    store::{Item, Store, StoreError},
};

/// Items kept open between questions; each holds up to two files.
const MAX_OPEN: usize = 128;
/// Items remembered to be lost.
const MAX_LOST: usize = 4096;
/// How often the store is asked whether anything changed, and how long an absent item
/// is taken to be absent.
const FRESH: Duration = Duration::from_secs(1);

/// Answers questions about what a store has. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Answerer {
    store: Store,
    pricing: Pricing,
    open: Arc<Mutex<Open>>,
}

/// The items that were asked for last.
#[derive(Debug, Default)]
struct Open {
    /// The store's generation that all this belongs to, and when it was read.
    generation: Option<(u64, Instant)>,
    /// Items with the time of their last use.
    items: HashMap<[u8; 32], (Instant, Arc<Item>)>,
    /// Ids that the store did not have a moment ago, so that asking for nonsense does
    /// not open the database each time.
    absent: VecDeque<([u8; 32], Instant)>,
    /// Items whose loss was told of, once each.
    lost: HashSet<[u8; 32]>,
}

impl Open {
    fn refresh(&mut self, store: &Store, now: Instant) {
        self.absent.retain(|(_, since)| now.duration_since(*since) < FRESH);
        let known = match self.generation {
            Some((_, read)) if now.duration_since(read) < FRESH => return,
            other => other.map(|(generation, _)| generation),
        };
        let generation = store.generation();
        if known != Some(generation) {
            self.items.clear();
            self.absent.clear();
            self.lost.clear();
        }
        self.generation = Some((generation, now));
    }

    fn find(&mut self, hash: &[u8; 32], now: Instant) -> Option<Arc<Item>> {
        let (used, item) = self.items.get_mut(hash)?;
        *used = now;
        Some(Arc::clone(item))
    }

    fn number(&self) -> Option<u64> {
        self.generation.map(|(number, _)| number)
    }

    /// `of`: the generation that the item was looked up in. If there has been another since, the item may be
    /// gone, and nothing would take it out again before the next.
    fn keep(&mut self, now: Instant, of: Option<u64>, item: &Arc<Item>) {
        if of != self.number() {
            return;
        }
        let oldest = self.items.iter().min_by_key(|(_, (used, _))| *used).map(|(hash, _)| *hash);
        if self.items.len() >= MAX_OPEN
            && let Some(oldest) = oldest
        {
            self.items.remove(&oldest);
        }
        self.items.insert(*item.id().hash(), (now, Arc::clone(item)));
    }

    /// Whether this loss is news. Remembers a bounded number.
    fn note_lost(&mut self, hash: [u8; 32]) -> bool {
        if self.lost.len() >= MAX_LOST {
            self.lost.clear();
        }
        self.lost.insert(hash)
    }

    fn note_absent(&mut self, hash: [u8; 32], now: Instant) {
        self.absent.push_back((hash, now));
        if self.absent.len() > MAX_OPEN {
            self.absent.pop_front();
        }
    }
}

/// A refusal of at most `limit` bytes.
pub(crate) fn refusal(fault: Fault, reason: &str, limit: u64) -> Vec<u8> {
    let refusal = Answer::refused(fault, reason).encode().unwrap_or_default();
    if refusal.len() as u64 <= limit { refusal } else { Vec::new() }
}

impl Answerer {
    /// `pricing` is what stats tell; charging it is the daemon's business.
    pub fn new(store: Store, pricing: Pricing) -> Self {
        Answerer { store, pricing, open: Arc::default() }
    }

    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// The answer to a question that came in for `app`, at most `limit` bytes. Whatever
    /// is wrong becomes a refusal; never anything but verified content.
    pub fn answer(&self, app: &str, question: &[u8], limit: u64) -> Vec<u8> {
        let answer = self.try_answer(app, question, limit).unwrap_or_else(|(fault, reason)| {
            let refusal = Answer::refused(fault, reason).encode();
            refusal.unwrap_or_default()
        });
        if answer.len() as u64 <= limit { answer } else { refusal(Fault::Invalid, "limit too small", limit) }
    }

    fn try_answer(&self, app: &str, question: &[u8], limit: u64) -> Result<Vec<u8>, (Fault, String)> {
        let question = Question::decode(question).map_err(|error| (Fault::Unsupported, error.to_string()))?;
        match (app, question) {
            (STAT_APP, Question::Stat { id, listing }) => self.stat(&id, listing),
            (STAT_APP, Question::Holes { id, from }) => self.holes(&id, from),
            (GET_APP, Question::Get { id, offset, len }) => self.get(&id, offset, len, limit),
            (GET_APP, Question::Zeros { id, offset, len }) => self.zeros(&id, offset, len, limit),
            _ => Err((Fault::Invalid, "this app does not answer that".into())),
        }
    }

    fn stat(&self, id: &ContentId, listing: bool) -> Result<Vec<u8>, (Fault, String)> {
        let item = self.item(id)?;
        let proof = item.size_proof().map_err(|error| self.damaged(id, &error))?;
        let short = item.size() <= MAX_STAT_LISTING as u64;
        let listing = if listing && short && item.id().is_directory() {
            Some(item.read_all().map_err(|error| self.damaged(id, &error))?)
        } else {
            None
        };
        let answer = Answer::Stat(Stat {
            size: item.size(),
            proof: serde_bytes::Bytes::new(&proof),
            directory: item.id().is_directory(),
            pricing: self.pricing,
            max_window: MAX_WINDOW,
            listing: listing.as_deref().map(serde_bytes::Bytes::new),
            sparse: item.seems_sparse(),
        });
        answer.encode().map_err(|error| (Fault::Busy, error.to_string()))
    }

    fn get(&self, id: &ContentId, offset: u64, len: u64, limit: u64) -> Result<Vec<u8>, (Fault, String)> {
        let item = self.item(id)?;
        let window =
            Window::new(offset, len, item.size()).map_err(|error| (Fault::Invalid, error.to_string()))?;
        if get_limit(item.size(), window) > limit {
            return Err((Fault::Invalid, "limit too small".into()));
        }
        let header = slice_header(slice::encoded_len(item.size(), window));
        item.encode_after(header, window).map_err(|error| self.damaged(id, &error))
    }

    fn holes(&self, id: &ContentId, from: u64) -> Result<Vec<u8>, (Fault, String)> {
        let item = self.item(id)?;
        let (holes, more) = item.holes(from, MAX_RUNS).map_err(|error| self.damaged(id, &error))?;
        let answer = Answer::Holes { runs: holes.runs().to_vec(), more };
        answer.encode().map_err(|error| (Fault::Busy, error.to_string()))
    }

    fn zeros(&self, id: &ContentId, offset: u64, len: u64, limit: u64) -> Result<Vec<u8>, (Fault, String)> {
        let item = self.item(id)?;
        let window =
            Window::zeros(offset, len, item.size()).map_err(|error| (Fault::Invalid, error.to_string()))?;
        if get_limit(item.size(), window) > limit {
            return Err((Fault::Invalid, "limit too small".into()));
        }
        let header = slice_header(slice::encoded_len(item.size(), window));
        let zeros = item.encode_zeros_after(header, window).map_err(|error| self.damaged(id, &error))?;
        zeros.ok_or_else(|| (Fault::NotFound, "there is no hole".into()))
    }

    fn damaged(&self, id: &ContentId, error: &StoreError) -> (Fault, String) {
        warn!(%id, %error, "cannot serve");
        // What is open may be an old file; look at the records again next time.
        self.lock().items.remove(id.hash());
        (Fault::Damaged, "the provider's copy is damaged".into())
    }

    fn item(&self, id: &ContentId) -> Result<Arc<Item>, (Fault, String)> {
        let now = Instant::now();
        let not_found = || (Fault::NotFound, "not here".into());
        let generation = {
            let mut open = self.lock();
            open.refresh(&self.store, now);
            if let Some(item) = open.find(id.hash(), now) {
                return Ok(item);
            }
            if open.absent.iter().any(|(hash, _)| hash == id.hash()) {
                return Err(not_found());
            }
            open.number()
        };
        match self.store.need(id).and_then(|entry| self.store.item(&entry)) {
            Ok(item) => {
                let item = Arc::new(item);
                self.lock().keep(now, generation, &item);
                Ok(item)
            }
            Err(StoreError::NotFound(_)) => {
                self.lock().note_absent(*id.hash(), now);
                Err(not_found())
            }
            Err(error @ StoreError::Lost { .. }) => {
                let mut open = self.lock();
                open.note_absent(*id.hash(), now);
                // Who asks learns no more than that; its owner should, or nobody ever will.
                if open.note_lost(*id.hash()) {
                    warn!(%error, "asked for and not served; put it again, or remove it with `fileshare rm`");
                }
                Err(not_found())
            }
            Err(error @ StoreError::Busy(_)) => Err((Fault::Busy, error.to_string())),
            Err(error) => Err(self.damaged(id, &error)),
        }
    }

    /// The cache is whole at any time: a panic elsewhere does not spoil it.
    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::AddOptions;

    #[test]
    fn an_item_that_was_looked_up_before_a_change_is_not_kept_after_it() {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        let id = store.add_reader(&[7; 100_000][..], AddOptions::default(), &mut |_| ()).unwrap().id;
        let (mut open, now) = (Open::default(), Instant::now());
        open.refresh(&store, now);
        let before = open.number();
        let item = Arc::new(store.item(&store.need(&id).unwrap()).unwrap());
        store.unpin(&id).unwrap();
        store.remove(&id).unwrap();
        // Another question meanwhile finds out that the store has changed.
        open.refresh(&store, now + FRESH);
        open.keep(now, before, &item);
        assert!(open.find(id.hash(), now).is_none());
        open.keep(now, open.number(), &item);
        assert!(open.find(id.hash(), now).is_some());
    }
}
