//! The providers of a download: which one is asked next, and what became of each.

use std::{
    collections::HashSet,
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use por_types::{NodeKey, Yocto};
use serde::{Deserialize, Serialize};

use crate::{
    exit::{Exit, Failure},
    proto::Pricing,
};

/// First pause after a failure; it doubles with each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// Most questions in flight to one provider.
const MOST_ALLOWED: f64 = 64.0;
/// How long to wait while everybody has enough to do.
const CROWDED: Duration = Duration::from_millis(20);
/// Time assumed for a window at a provider that was never asked.
const UNKNOWN_TIME: f64 = 0.05;

/// What a provider offers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offer {
    pub node: NodeKey,
    pub pricing: Pricing,
    /// Longest window it answers.
    pub max_window: u64,
}

/// How bad a provider's failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// It may work next time: pause.
    Passing,
    /// It does not have this content, but may have other.
    Lacks,
    /// Never ask it again: it sent what no honest provider sends, or became too dear.
    Never,
}

/// What became of a provider, for the summary at the end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tally {
    pub node: NodeKey,
    /// Content received and verified, in bytes.
    pub bytes: u64,
    /// Questions answered.
    pub answers: u64,
    /// Questions that failed.
    pub failures: u64,
    /// What was paid to it and for the way.
    pub spent: Yocto,
    /// Why it is not asked any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub banned: Option<String>,
}

#[derive(Debug)]
struct Peer {
    offer: Offer,
    tally: Tally,
    in_flight: u32,
    /// Failures since the last success.
    streak: u32,
    rests_until: Option<Instant>,
    /// Questions that may be in flight to it: halved when it fails, slowly raised when it
    /// answers, since routes admit only so much at a time.
    allowed: f64,
    /// Seconds per window, smoothed.
    time: f64,
    last_failure: Option<Failure>,
}

impl Peer {
    fn rests(&self, now: Instant) -> bool {
        self.rests_until.is_some_and(|until| until > now)
    }

    fn missed(&mut self, paid: Yocto, failure: Failure) {
        self.tally.failures += 1;
        self.tally.spent = self.tally.spent.checked_add(paid).unwrap_or(Yocto(u128::MAX));
        self.last_failure = Some(failure);
    }

    fn failed(&mut self, severity: Severity, paid: Yocto, failure: Failure) {
        match severity {
            // Questions that fail together are one failure.
            Severity::Passing if self.rests(Instant::now()) => (),
            Severity::Passing => {
                self.allowed = (f64::from(self.in_flight + 1) / 2.0).clamp(1.0, MOST_ALLOWED);
                self.streak = self.streak.saturating_add(1);
                let pause = FIRST_PAUSE.saturating_mul(1 << (self.streak - 1).min(10));
                self.rests_until = Some(Instant::now() + pause.min(LONGEST_PAUSE));
            }
            Severity::Lacks => (),
            Severity::Never => self.tally.banned = Some(failure.what.clone()),
        }
        self.missed(paid, failure);
    }

    fn answered(&mut self, bytes: u64, paid: Yocto, time: Duration) {
        self.streak = 0;
        self.rests_until = None;
        self.allowed = (self.allowed + 1.0 / self.allowed.max(1.0)).min(MOST_ALLOWED);
        self.time = self.time * 0.7 + time.as_secs_f64() * 0.3;
        self.tally.answers += 1;
        self.tally.bytes += bytes;
        self.tally.spent = self.tally.spent.checked_add(paid).unwrap_or(Yocto(u128::MAX));
    }
}

/// The providers. Shared between the windows in flight.
#[derive(Debug, Default)]
pub struct Pool {
    peers: Mutex<Vec<Peer>>,
}

/// Whom to ask next.
#[derive(Debug)]
pub enum Choice {
    Ask(Offer),
    /// Everybody rests; ask again after this.
    Wait(Duration),
    /// There is nobody left, the reason being this.
    Nobody(Failure),
}

impl Pool {
    /// Adds a provider, or replaces what it offered before.
    pub fn add(&self, offer: Offer) {
        let mut peers = self.lock();
        if let Some(known) = peers.iter_mut().find(|peer| peer.offer.node == offer.node) {
            known.offer = offer;
            return;
        }
        peers.push(Peer {
            offer,
            tally: Tally {
                node: offer.node,
                bytes: 0,
                answers: 0,
                failures: 0,
                spent: Yocto::ZERO,
                banned: None,
            },
            in_flight: 0,
            streak: 0,
            rests_until: None,
            allowed: MOST_ALLOWED,
            time: UNKNOWN_TIME,
            last_failure: None,
        });
    }

    /// Takes a provider out for good, for example because it is too dear.
    pub fn ban(&self, node: NodeKey, why: Failure) {
        if let Some(peer) = self.lock().iter_mut().find(|peer| peer.offer.node == node) {
            peer.tally.banned = Some(why.what.clone());
            peer.last_failure = Some(why);
        }
    }

    /// The offers of those that may be asked.
    pub fn offers(&self) -> Vec<Offer> {
        let peers = self.lock();
        peers.iter().filter(|peer| peer.tally.banned.is_none()).map(|peer| peer.offer).collect()
    }

    /// The same, whoever probably answers first before the others: for questions beside the windows.
    pub fn ranked(&self) -> Vec<Offer> {
        let now = Instant::now();
        let peers = self.lock();
        let mut able: Vec<&Peer> = peers.iter().filter(|peer| peer.tally.banned.is_none()).collect();
        able.sort_by(|a, b| {
            let rank = |peer: &Peer| (peer.rests(now), peer.streak);
            rank(a).cmp(&rank(b)).then(a.time.total_cmp(&b.time))
        });
        able.into_iter().map(|peer| peer.offer).collect()
    }

    /// Providers that answered lately, for the progress line.
    pub fn active(&self) -> usize {
        let peers = self.lock();
        peers.iter().filter(|peer| peer.in_flight > 0 || (peer.tally.answers > 0 && peer.streak == 0)).count()
    }

    pub fn tallies(&self) -> Vec<Tally> {
        self.lock().iter().map(|peer| peer.tally.clone()).collect()
    }

    /// The provider that probably answers first. Whoever is in `lacking` is not asked;
    /// whoever is in `tried`, only if there is nobody else. Counts as in flight until
    /// [`Self::succeeded`], [`Self::failed`] or [`Self::gave_up`].
    pub fn choose(&self, lacking: &HashSet<NodeKey>, tried: &HashSet<NodeKey>) -> Choice {
        let now = Instant::now();
        let mut peers = self.lock();
        let able = |peer: &Peer| peer.tally.banned.is_none() && !lacking.contains(&peer.offer.node);
        let free = |peer: &Peer| !peer.rests(now) && f64::from(peer.in_flight) < peer.allowed.floor();
        let cost = |peer: &Peer| {
            let again = tried.contains(&peer.offer.node);
            (again, f64::from(peer.in_flight + 1) * peer.time)
        };
        let best = peers
            .iter_mut()
            .filter(|peer| able(peer) && free(peer))
            .min_by(|a, b| cost(a).partial_cmp(&cost(b)).unwrap_or(std::cmp::Ordering::Equal));
        if let Some(peer) = best {
            peer.in_flight += 1;
            return Choice::Ask(peer.offer);
        }
        let pause = |peer: &Peer| {
            let rest = peer.rests_until.map(|until| until.saturating_duration_since(now));
            rest.filter(|rest| !rest.is_zero()).unwrap_or(CROWDED)
        };
        match peers.iter().filter(|peer| able(peer)).map(pause).min() {
            Some(pause) => Choice::Wait(pause.min(LONGEST_PAUSE)),
            None => Choice::Nobody(worst(&peers)),
        }
    }

    /// A question was answered and verified.
    pub fn succeeded(&self, node: NodeKey, bytes: u64, paid: Yocto, time: Duration) {
        self.with(node, |peer| peer.answered(bytes, paid, time));
    }

    /// The same of a question that [`Self::choose`] did not choose, and that was not counted as in flight.
    pub fn told(&self, node: NodeKey, paid: Yocto, time: Duration) {
        if let Some(peer) = self.lock().iter_mut().find(|peer| peer.offer.node == node) {
            peer.answered(0, paid, time);
        }
    }

    /// A question failed; `paid` may have been paid nevertheless.
    pub fn failed(&self, node: NodeKey, severity: Severity, paid: Yocto, failure: Failure) {
        self.with(node, |peer| peer.failed(severity, paid, failure));
    }

    /// The same of a question that [`Self::choose`] did not choose.
    pub fn failed_beside(&self, node: NodeKey, severity: Severity, paid: Yocto, failure: Failure) {
        if let Some(peer) = self.lock().iter_mut().find(|peer| peer.offer.node == node) {
            peer.failed(severity, paid, failure);
        }
    }

    /// A question failed, and it was not the provider's fault: it goes on being asked.
    pub fn missed(&self, node: NodeKey, paid: Yocto, failure: Failure) {
        self.with(node, |peer| peer.missed(paid, failure));
    }

    /// A question was not sent after all.
    pub fn gave_up(&self, node: NodeKey) {
        self.with(node, |_| ());
    }

    fn with(&self, node: NodeKey, change: impl FnOnce(&mut Peer)) {
        if let Some(peer) = self.lock().iter_mut().find(|peer| peer.offer.node == node) {
            peer.in_flight = peer.in_flight.saturating_sub(1);
            change(peer);
        }
    }

    /// Counters are whole at any time: a panic elsewhere does not spoil them.
    fn lock(&self) -> MutexGuard<'_, Vec<Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The failure to report when nobody is left: lies first, since they need attention.
fn worst(peers: &[Peer]) -> Failure {
    let failures = || peers.iter().filter_map(|peer| peer.last_failure.as_ref());
    let lie = failures().find(|failure| failure.exit == Exit::VerificationFailed);
    let any = lie.or_else(|| failures().next()).cloned();
    any.unwrap_or_else(|| {
        Failure::new(
            Exit::NotFound,
            "no provider has it",
            "ask whoever gave you the id to run `fileshare serve`",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(count: u8) -> Pool {
        let pool = Pool::default();
        for n in 0..count {
            let node = NodeKey([n; 32]);
            pool.add(Offer { node, pricing: Pricing::default(), max_window: 1 << 20 });
        }
        pool
    }

    fn asked(choice: Choice) -> u8 {
        match choice {
            Choice::Ask(offer) => offer.node.0[0],
            other => panic!("{other:?}"),
        }
    }

    fn failure(exit: Exit) -> Failure {
        Failure::new(exit, "x", "")
    }

    #[test]
    fn windows_spread_and_the_faster_gets_more() {
        let (pool, none) = (pool(2), HashSet::new());
        for n in [0, 1] {
            pool.choose(&none, &none);
            pool.succeeded(NodeKey([n; 32]), 1, Yocto(3), Duration::from_millis(100 + 400 * u64::from(n)));
        }
        let mut counts = [0; 2];
        for _ in 0..12 {
            counts[usize::from(asked(pool.choose(&none, &none)))] += 1;
        }
        assert!(counts[0] > counts[1] && counts[1] > 0, "{counts:?}");
        assert_eq!(pool.tallies()[1].spent, Yocto(3));
    }

    #[test]
    fn a_question_beside_the_windows_makes_no_room_for_another_window() {
        let (pool, none) = (pool(1), HashSet::new());
        while matches!(pool.choose(&none, &none), Choice::Ask(_)) {}
        pool.told(NodeKey([0; 32]), Yocto(5), Duration::ZERO);
        assert!(matches!(pool.choose(&none, &none), Choice::Wait(_)));
        assert_eq!((pool.tallies()[0].answers, pool.tallies()[0].spent), (1, Yocto(5)));
    }

    #[test]
    fn liars_are_never_asked_again_and_named_first() {
        let (pool, none) = (pool(2), HashSet::new());
        let (zero, one) = (NodeKey([0; 32]), NodeKey([1; 32]));
        pool.failed(zero, Severity::Lacks, Yocto::ZERO, failure(Exit::NotFound));
        pool.failed(one, Severity::Never, Yocto(2), failure(Exit::VerificationFailed));
        assert_eq!(asked(pool.choose(&none, &none)), 0);
        match pool.choose(&HashSet::from([zero]), &none) {
            Choice::Nobody(failure) => assert_eq!(failure.exit, Exit::VerificationFailed),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn who_fails_rests() {
        let (pool, none) = (pool(1), HashSet::new());
        let node = NodeKey([0; 32]);
        assert_eq!(asked(pool.choose(&none, &none)), 0);
        pool.failed(node, Severity::Passing, Yocto::ZERO, failure(Exit::Retryable));
        assert!(matches!(pool.choose(&none, &none), Choice::Wait(pause) if pause <= FIRST_PAUSE));
        pool.succeeded(node, 0, Yocto::ZERO, Duration::ZERO);
        assert_eq!(asked(pool.choose(&none, &HashSet::from([node]))), 0, "tried, but the only one");
    }

    #[test]
    fn nobody_at_all_is_not_found() {
        let (pool, none) = (pool(0), HashSet::new());
        let Choice::Nobody(failure) = pool.choose(&none, &none) else { panic!("somebody") };
        assert_eq!(failure.exit, Exit::NotFound);
    }
}
