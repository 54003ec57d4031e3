//! Which side of a partition is smaller.

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::Yocto;

use super::search::continue_half;
use super::{Job, Phase, Work};
use crate::Contract;
use crate::adjacency::GROUP;
use crate::fail::OrStop;
use crate::weights::Weights;

/// What is known of one side.
#[derive(Clone, Copy, Default, BorshSerialize, BorshDeserialize)]
pub struct Stats {
    weight: Yocto,
    attached: bool,
}

impl Stats {
    fn add(&mut self, weight: Option<Yocto>) {
        if let Some(weight) = weight {
            self.attached = true;
            self.weight = self.weight.checked_add(weight).or_stop();
        }
    }
}

#[derive(Clone, Copy)]
pub struct Decision {
    /// Index of the smaller half.
    pub smaller: usize,
}

impl Contract {
    /// Weighs what both halves have visited, a group at a time.
    pub(super) fn step_weigh(
        &mut self,
        job: &mut Job,
        work: &mut Work<'_>,
        exhausted: u8,
        from: u32,
        mut stats: [Stats; 2],
    ) -> (Phase, bool) {
        let halves = work.halves.take().unwrap_or_else(|| self.halves(job));
        if !work.lasts() {
            work.halves = Some(halves);
            return (Phase::Weigh { exhausted, from, stats }, false);
        }
        // The first node of each half that is not weighed yet, so that none is looked for twice.
        let mut next = halves.each_ref().map(|half| half.visited.from(from).next());
        while let Some(at) = next.into_iter().flatten().min() {
            if !work.lasts() {
                work.halves = Some(halves);
                return (Phase::Weigh { exhausted, from: at, stats }, false);
            }
            let end = (at / GROUP + 1) * GROUP;
            let mut weights = Weights::default();
            for ((half, stats), next) in halves.iter().zip(&mut stats).zip(&mut next) {
                if next.is_none_or(|next| next >= end) {
                    continue;
                }
                let mut left = half.visited.from(at);
                *next = left.find(|node| {
                    let within = *node < end;
                    if within {
                        stats.add(weights.of(*node));
                    }
                    !within
                });
            }
            work.budget.bytes += weights.bytes + 200;
        }
        work.halves = Some(halves);
        (Phase::Compare { exhausted, stats }, true)
    }

    /// Searches the other half as far as it matters.
    pub(super) fn step_compare(
        &mut self,
        job: &mut Job,
        work: &mut Work<'_>,
        exhausted: u8,
        stats: [Stats; 2],
    ) -> (Phase, bool) {
        let mut halves = work.halves.take().unwrap_or_else(|| self.halves(job));
        let done = usize::from(exhausted);
        let other = 1 - done;
        let total = (!self.flow.split).then_some(self.flow.attached_stake);
        let early = decide_early(stats[done], stats[other], total);
        if early.is_none() && !halves[other].is_exhausted() {
            // What comes anew is weighed a group at a time, since one part of a hub's neighbours can be
            // in more groups than a call may read; and not before there is about twice as much.
            let half = &mut halves[other];
            let most = half.count.saturating_add(1).next_power_of_two().max(GROUP);
            if work.lasts() {
                continue_half(half, most, &mut work.graph, work.budget);
            }
            let enough = half.count >= most || half.is_exhausted();
            work.halves = Some(halves);
            return if enough {
                (Phase::Weigh { exhausted, from: 0, stats: Default::default() }, true)
            } else {
                (Phase::Compare { exhausted, stats }, false)
            };
        }
        let smaller = match early {
            Some(()) => done,
            None => {
                let known = |half: usize| {
                    let node = halves[half].visited.first();
                    // The side that has the lowest node index is the larger one.
                    (stats[half].attached, stats[half].weight, halves[half].count, std::cmp::Reverse(node))
                };
                if known(done) < known(other) { done } else { other }
            }
        };
        work.halves = Some(halves);
        (self.decided(job, work, Decision { smaller }), true)
    }
}

/// `Some` if the exhausted side is the smaller one, whatever else the other still has. `total`
/// is the weight of all attached nodes if they are known to be in one component.
fn decide_early(exhausted: Stats, other: Stats, total: Option<Yocto>) -> Option<()> {
    if !other.attached {
        return None;
    }
    let half = total.map(|total| Yocto(total.0 / 2 + total.0 % 2));
    let below_half = half.is_some_and(|half| exhausted.weight < half);
    (!exhausted.attached || other.weight > exhausted.weight || below_half).then_some(())
}
