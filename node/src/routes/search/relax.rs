//! Lagrange's relaxation: for which weights of the two criteria the best way is just within the
//! bound.
//!
//! The exact search goes by a weighted sum, and with weights at which the two ways around the bound
//! are equal it has the least to look at. The search without the bound nearly always came by a way
//! within it, which is near enough; a rough search or two find one where it did not. More of them
//! take longer than they save, unless the two ways are far apart.

use super::measure::{Rank, SLACK, real};
use super::reach::{Reach, Reached};
use super::{Bounds, Cost, Gate, Step};

/// Rough searches of one relaxation at most.
const SEARCHES: usize = 6;
/// Weight of the other criterion, relative to what would make both criteria of the best way count
/// the same, where nothing within the bound is known.
const FIRST: f64 = 2.0;
/// How much more than the two ways around the bound the exact search may allow for, relative to them.
const NEAR: f64 = 0.3;

/// What is known once it is done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Relaxed {
    /// Weights for the exact search, and the source's part of a way by them.
    pub(super) rank: Rank,
    pub(super) share: f64,
    /// The cost of the best way seen that keeps to everything.
    pub(super) known: Option<Cost>,
}

pub(super) struct Relaxation<'s, 'a> {
    gate: Gate<'s, 'a>,
    bounds: Bounds,
    /// Most of the criterion that is not the goal.
    most: u128,
    /// A way over the bound, and the best one seen within it.
    over: Cost,
    within: Option<Cost>,
    share: f64,
    known: Option<Cost>,
}

impl<'s, 'a> Relaxation<'s, 'a> {
    /// `found` is the best way without the bound. It costs `over`, and the bound is `most`.
    pub(super) fn new(
        gate: Gate<'s, 'a>,
        bounds: Bounds,
        most: u128,
        over: Cost,
        found: &Reached,
    ) -> Relaxation<'s, 'a> {
        let share = share(found.ends);
        let mut new = Relaxation { gate, bounds, most, over, within: None, share, known: None };
        new.see(found.within.as_deref());
        new
    }

    /// `None` if nothing is within the bound.
    pub(super) fn run(mut self) -> Option<Relaxed> {
        let (first, second) = (real(self.over.first), real(self.over.second));
        // What costs nothing says nothing about weights.
        let mut rank =
            if first > 0.0 { Rank { first: 1.0, second: FIRST * first / second } } else { Rank::OTHER };
        let mut last = None;
        for _ in 0..SEARCHES {
            if let Some(next) = self.between() {
                rank = next;
                if last == Some(next) || self.near(next) {
                    break;
                }
            }
            let limit = self.within.map_or(f64::INFINITY, |cost| rank.of(&cost)).min(rank.of(&self.over));
            let found = Reach::<()>::new(self.gate, rank, self.most).below(limit, self.share).run();
            self.share = share(found.ends);
            self.see(found.path.as_deref());
            self.see(found.within.as_deref());
            last = Some(rank);
            if self.within.is_none() {
                if rank == Rank::OTHER {
                    // What is only just over the bound, by rough sums, is left to the exact search.
                    let over = found.least > real(self.most) * (1.0 + 4.0 * SLACK);
                    return (!over).then_some(Relaxed { rank, share: self.share, known: None });
                }
                rank = Rank::OTHER;
            }
        }
        Some(Relaxed { rank, share: self.share, known: self.known })
    }

    /// Takes note of a way.
    fn see(&mut self, path: Option<&[Step]>) {
        let Some(path) = path else { return };
        let search = self.gate.search;
        let cost = search.cost(path);
        if cost.second > self.most {
            self.over = cost;
            return;
        }
        if self.within.is_none_or(|within| cost < within) {
            self.within = Some(cost);
        }
        if search.fits(path, self.gate.origin[0], &self.bounds) && self.known.is_none_or(|known| cost < known)
        {
            self.known = Some(cost);
        }
    }

    /// The weights at which the two ways around the bound are equal.
    fn between(&self) -> Option<Rank> {
        let within = self.within?;
        let first = within.first.checked_sub(self.over.first)?;
        let second = self.over.second.checked_sub(within.second)?;
        (first > 0 && second > 0).then(|| Rank { first: 1.0, second: real(first) / real(second) })
    }

    /// True if little more is left for the exact search than what the two ways have by these weights.
    fn near(&self, rank: Rank) -> bool {
        let (Some(known), Some(within)) = (self.known, self.within) else { return false };
        let both = rank.of(&within);
        rank.key(known.first, self.most) - both <= NEAR * both
    }
}

/// The source's part of what both ends went.
pub(super) fn share([source, end]: [f64; 2]) -> f64 {
    let whole = source + end;
    if whole > 0.0 { (source / whole).clamp(0.1, 0.9) } else { 0.5 }
}
