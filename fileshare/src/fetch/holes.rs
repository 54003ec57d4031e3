//! Which parts of a download are holes, as its providers say.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use por_types::NodeKey;

use super::{Session, discover::STAT_TIME, judge};
use crate::{
    exit::{Exit, Failure},
    holes::Holes,
    id::ContentId,
    net::Network,
    proto::{Answer, HOLES_LIMIT, Question},
};

/// Most answers that a map of holes is put together from; what they do not name is fetched as data.
const MAX_ANSWERS: usize = 256;

/// Longest time for a map: what is not known then is fetched as data.
const MAP_TIME: Duration = Duration::from_secs(60);

/// What is known so far.
#[derive(Debug, Default)]
pub(super) struct Maps(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Providers that say they have holes, by hash.
    sparse: HashMap<[u8; 32], Vec<NodeKey>>,
    /// By hash and size: one can be listed with several, until they are proven.
    known: HashMap<([u8; 32], u64), Arc<Holes>>,
    /// Providers that did not tell what they said they have.
    mute: HashSet<NodeKey>,
}

impl Maps {
    /// A provider says that it has content with holes.
    pub(super) fn note(&self, id: &ContentId, node: NodeKey) {
        let mut state = self.lock();
        let told = state.sparse.entry(*id.hash()).or_default();
        if !told.contains(&node) {
            told.push(node);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn known(&self, id: &ContentId, size: u64) -> Option<Arc<Holes>> {
        self.lock().known.get(&(*id.hash(), size)).cloned()
    }

    /// Whom to ask.
    fn teller(&self, id: &ContentId) -> Option<NodeKey> {
        let state = self.lock();
        state.sparse.get(id.hash())?.iter().find(|node| !state.mute.contains(*node)).copied()
    }
}

impl<N: Network> Session<N> {
    /// The holes of some content; none if no provider told of any, or they cannot be learnt: everything
    /// is fetched as data then.
    pub async fn holes(&self, id: ContentId, size: u64) -> Arc<Holes> {
        if let Some(known) = self.maps.known(&id, size) {
            return known;
        }
        let until = Instant::now() + MAP_TIME;
        let mut holes = Holes::default();
        while let Some(node) = self.maps.teller(&id) {
            let mut runs = Vec::new();
            let asked = self.ask_holes(node, id, &mut runs, until).await;
            holes = Holes::new(runs, size);
            let Err(failure) = asked else { break };
            tracing::debug!(%node, what = %failure.what, "no whole map of the holes");
            let mute = self.failed_beside(node, &failure).await;
            if mute {
                self.maps.lock().mute.insert(node);
            }
            if !mute || !holes.is_empty() {
                break;
            }
        }
        let holes = Arc::new(holes);
        self.maps.lock().known.insert((*id.hash(), size), Arc::clone(&holes));
        holes
    }

    /// Adds what a provider tells to `runs`. An error: it did not tell all.
    async fn ask_holes(
        &self,
        node: NodeKey,
        id: ContentId,
        runs: &mut Vec<(u64, u64)>,
        until: Instant,
    ) -> Result<(), Failure> {
        let mut from = 0;
        for _ in 0..MAX_ANSWERS {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let what = "the map of the holes takes too long";
                return Err(Failure::new(Exit::Retryable, what, "run the same command again later"));
            }
            let question = Question::Holes { id, from };
            let reply = self.ask_beside(node, question, HOLES_LIMIT, left.min(STAT_TIME)).await?;
            let answer = Answer::decode(&reply.body).and_then(Answer::into_holes);
            let (some, more) = answer.map_err(|error| judge(&error).1)?;
            runs.extend(some);
            match more {
                Some(next) if next > from => from = next,
                _ => break,
            }
        }
        Ok(())
    }
}
