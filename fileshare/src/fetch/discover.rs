//! Finding providers and asking them what they have, before anything is paid by the byte.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use por_types::{NodeKey, Yocto};

use super::{Session, judge};
use crate::{
    dir::{Directory, MAX_LISTING},
    exit::{Exit, Failure},
    id::{ContentId, Kind},
    net::{Call, Local, Network, Reply},
    part::UNIT,
    pool::{Offer, Severity},
    proto::{Answer, MAX_STAT_LISTING, ProtoError, Question, STAT_APP, STAT_LIMIT, STAT_LISTING_LIMIT},
    slice::{MAX_WINDOW, verify_size_proof},
};

/// Providers asked for a stat.
const MAX_PROVIDERS: usize = 16;
/// Longest search for providers.
const SEARCH_TIME: Duration = Duration::from_secs(10);
/// Longest time for a stat.
pub(super) const STAT_TIME: Duration = Duration::from_secs(15);
/// How long others may take once the first has answered.
const GRACE: Duration = Duration::from_secs(2);

/// What is known of some content after asking for it.
#[derive(Clone, Debug)]
pub struct Found {
    pub id: ContentId,
    /// Proven against the id.
    pub size: u64,
    /// A directory's listing if it came along: not verified beyond its hash.
    pub listing: Option<Bytes>,
    /// Whoever answered calls it a directory.
    pub called_directory: bool,
}

impl<N: Network> Session<N> {
    /// Finds out who has the content (or asks just `from`), and fills the pool.
    ///
    /// With `sure` false the id's kind is a guess (64 hex digits); then it is a directory if a provider says
    /// so and gives its listing, or if this machine's own store says so. A longer listing is paid for, and who says
    /// that there is one may be wrong: then it is a file, and [`Session::may_be_directory`].
    pub async fn discover(&self, id: ContentId, sure: bool, from: &[NodeKey]) -> Result<Found, Failure> {
        let providers = if from.is_empty() {
            let wait = self.time_left()?.min(SEARCH_TIME);
            self.net.providers(id.hash(), MAX_PROVIDERS, wait).await?
        } else {
            from.to_vec()
        };
        let want_listing = id.is_directory() || !sure;
        let mut answers =
            stream::iter(providers.into_iter().take(MAX_PROVIDERS))
                .map(|node| async move {
                    self.stat(node, id, want_listing).await.map_err(|failure| (node, failure))
                })
                .buffer_unordered(MAX_PROVIDERS);
        let mut found: Option<Found> = None;
        let (mut own, mut long) = (false, false);
        let mut failures = Vec::new();
        let mut until = Instant::now() + self.time_left()?;
        while let Ok(Some(answer)) = tokio::time::timeout_at(until.into(), answers.next()).await {
            match answer {
                Ok((offer, answer)) => {
                    own |= answer.called_directory && offer.node == Local::KEY;
                    let fits = (MAX_STAT_LISTING as u64 + 1..=MAX_LISTING).contains(&answer.size);
                    long |= answer.called_directory && answer.listing.is_none() && fits;
                    if found.is_none() {
                        until = until.min(Instant::now() + GRACE);
                    }
                    self.pool.add(offer);
                    // Anybody can call a small file a directory: that counts if its bytes are a listing.
                    let is_listing = |bytes: &Bytes| sure || Directory::decode(bytes).is_ok();
                    let answer = Found { listing: answer.listing.filter(is_listing), ..answer };
                    if found.as_ref().is_none_or(|found| found.listing.is_none()) {
                        found = Some(answer);
                    }
                }
                Err((node, failure)) => failures.push(failure.context(format_args!("provider {node}"))),
            }
        }
        drop(answers);
        let mut found = found.ok_or_else(|| nobody(id, failures))?;
        if !sure && (found.listing.is_some() || own) {
            found.id = ContentId::new(Kind::Directory, *id.hash());
        } else if !sure && long {
            self.may_be_directory.store(true, Ordering::Relaxed);
        }
        Ok(found)
    }

    /// Asks the providers at hand, one after the other, until one has this content too: those first that
    /// have answered so far.
    pub async fn stat_any(&self, id: ContentId) -> Result<Found, Failure> {
        let mut failures = Vec::new();
        for offer in self.pool.ranked() {
            match self.stat(offer.node, id, id.is_directory()).await {
                Ok((_, found)) => return Ok(found),
                Err(failure) => {
                    self.failed_beside(offer.node, &failure).await;
                    failures.push(failure.context(format_args!("provider {}", offer.node)));
                }
            }
        }
        Err(nobody(id, failures))
    }

    /// A question beside the windows was not answered: others are asked first from here on. Whether that was
    /// the provider's doing.
    pub(super) async fn failed_beside(&self, node: NodeKey, failure: &Failure) -> bool {
        let own = failure.exit == Exit::Budget || self.time_left().is_err() || self.is_outage(failure).await;
        if !own {
            let severity = if failure.exit == Exit::NotFound { Severity::Lacks } else { Severity::Passing };
            self.pool.failed_beside(node, severity, failure.spent, failure.clone());
        }
        !own
    }

    /// Asks one provider what it has and what it costs. The size is proven.
    pub async fn stat(&self, node: NodeKey, id: ContentId, listing: bool) -> Result<(Offer, Found), Failure> {
        let limit = if listing { STAT_LISTING_LIMIT } else { STAT_LIMIT };
        let started = Instant::now();
        let reply = self.ask_beside(node, Question::Stat { id, listing }, limit, STAT_TIME).await?;
        let (offer, found, sparse) = read_stat(node, id, &reply.body).map_err(|error| judge(&error).1)?;
        if sparse {
            self.maps.note(&id, node);
        }
        self.pool.add(offer);
        self.pool.told(node, reply.price, started.elapsed());
        Ok((offer, found))
    }

    /// Asks one provider something that it charges nothing for.
    pub(super) async fn ask_beside(
        &self,
        node: NodeKey,
        question: Question,
        limit: u64,
        longest: Duration,
    ) -> Result<Reply, Failure> {
        let body = question.encode().map_err(|error| judge(&error).1)?;
        let price = self.net.quote(node, STAT_APP, body.len() as u64, limit, Yocto::ZERO).await?;
        let reservation = self.budget.reserve(price)?;
        let call = Call {
            to: node,
            app: STAT_APP,
            body,
            limit,
            server_price: Yocto::ZERO,
            max_price: price,
            deadline: self.time_left()?.min(longest),
        };
        self.pay(reservation, call).await
    }
}

fn read_stat(node: NodeKey, id: ContentId, body: &Bytes) -> Result<(Offer, Found, bool), ProtoError> {
    let stat = Answer::decode(body)?.into_stat()?;
    verify_size_proof(id.root(), stat.size, stat.proof)?;
    let listing = match stat.listing {
        Some(listing) if stat.directory => {
            if blake3::hash(listing) != id.root() {
                return Err(ProtoError::Malformed("the listing is another's".into()));
            }
            Some(body.slice_ref(listing))
        }
        _ => None,
    };
    let max_window = stat.max_window.min(MAX_WINDOW);
    if max_window < UNIT {
        return Err(ProtoError::Malformed("its windows are too small".into()));
    }
    let found = Found { id, size: stat.size, listing, called_directory: stat.directory };
    let offer = Offer { node, pricing: stat.pricing, max_window };
    Ok((offer, found, stat.sparse))
}

/// What to say when nobody answered usefully: lies first, then what may pass.
fn nobody(id: ContentId, failures: Vec<Failure>) -> Failure {
    let rank = |failure: &Failure| match failure.exit {
        Exit::VerificationFailed => 0,
        Exit::Usage | Exit::WrongKey | Exit::ForeignVersion | Exit::Fatal => 1,
        Exit::Budget => 2,
        Exit::NotFound => 9,
        _ => 5,
    };
    failures.into_iter().min_by_key(rank).unwrap_or_else(|| {
        Failure::new(
            Exit::NotFound,
            format!("nobody offers {id}"),
            "check the id, and that its owner runs `fileshare serve`",
        )
    })
}
