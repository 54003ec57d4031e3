//! Which parts of a download are holes, as its providers say.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use por_types::{NodeKey, Yocto};

use super::{Session, judge};
use crate::{
    exit::Failure,
    holes::Holes,
    id::ContentId,
    net::{Call, Network},
    proto::{Answer, HOLES_LIMIT, Question, STAT_APP},
};

/// Most answers that a map of holes is put together from; what they do not name is fetched as data.
const MAX_ANSWERS: usize = 256;

/// What is known so far, by hash.
#[derive(Debug, Default)]
pub(super) struct Maps {
    /// A provider that says it has holes.
    sparse: Mutex<HashMap<[u8; 32], NodeKey>>,
    known: Mutex<HashMap<[u8; 32], Arc<Holes>>>,
}

impl Maps {
    /// A provider says that it has content with holes.
    pub(super) fn note(&self, id: &ContentId, node: NodeKey) {
        self.sparse.lock().unwrap_or_else(PoisonError::into_inner).entry(*id.hash()).or_insert(node);
    }
}

impl<N: Network> Session<N> {
    /// The holes of some content; none if no provider told of any, or they cannot be learnt: everything
    /// is fetched as data then.
    pub async fn holes(&self, id: ContentId, size: u64) -> Arc<Holes> {
        if let Some(known) = self.maps.known.lock().unwrap_or_else(PoisonError::into_inner).get(id.hash()) {
            return Arc::clone(known);
        }
        let node = self.maps.sparse.lock().unwrap_or_else(PoisonError::into_inner).get(id.hash()).copied();
        let Some(node) = node else { return Arc::default() };
        let holes = match self.ask_holes(node, id).await {
            Ok(runs) => Arc::new(Holes::new(runs, size)),
            Err(failure) => {
                tracing::debug!(%node, what = %failure.what, "no map of the holes");
                Arc::default()
            }
        };
        let mut known = self.maps.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.insert(*id.hash(), Arc::clone(&holes));
        holes
    }

    async fn ask_holes(&self, node: NodeKey, id: ContentId) -> Result<Vec<(u64, u64)>, Failure> {
        let (mut runs, mut from) = (Vec::new(), 0);
        for _ in 0..MAX_ANSWERS {
            let body = Question::Holes { id, from }.encode().map_err(|error| judge(&error).1)?;
            let price = self.net.quote(node, STAT_APP, body.len() as u64, HOLES_LIMIT, Yocto::ZERO).await?;
            let reservation = self.budget.reserve(price)?;
            let call = Call {
                to: node,
                app: STAT_APP,
                body,
                limit: HOLES_LIMIT,
                server_price: Yocto::ZERO,
                max_price: price,
                deadline: self.time_left()?,
            };
            let reply = self.pay(reservation, call).await?;
            let answer = Answer::decode(&reply.body).and_then(Answer::into_holes);
            let (some, more) = answer.map_err(|error| judge(&error).1)?;
            runs.extend(some);
            match more {
                Some(next) if next > from => from = next,
                _ => break,
            }
        }
        Ok(runs)
    }
}
