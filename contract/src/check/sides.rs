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
        mut from: u32,
        mut stats: [Stats; 2],
    ) -> (Phase, bool) {
        let halves = work.halves.take().unwrap_or_else(|| self.halves(job));
        while from < self.nodes {
            if !work.lasts() {
                work.halves = Some(halves);
                return (Phase::Weigh { exhausted, from, stats }, false);
            }
            let end = (from / GROUP + 1) * GROUP;
            let mut weights = Weights::default();
            for (half, stats) in halves.iter().zip(&mut stats) {
                for node in half.visited.from(from).take_while(|node| *node < end) {
                    stats.add(weights.of(node));
                }
            }
            work.budget.bytes += weights.bytes + 200;
            // Skip groups that neither side has visited.
            let next = halves.iter().filter_map(|half| half.visited.from(end).next()).min();
            from = next.unwrap_or(self.nodes);
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
        mut stats: [Stats; 2],
    ) -> (Phase, bool) {
        let mut halves = work.halves.take().unwrap_or_else(|| self.halves(job));
        let done = usize::from(exhausted);
        let other = 1 - done;
        let mut weights = Weights::default();
        let mut lasts = true;
        let total = (!self.flow.split).then_some(self.flow.attached_stake);
        if decide_early(stats[done], stats[other], total).is_none() {
            let budget = &*work.budget;
            continue_half(&mut halves[other], &mut work.graph, |graph, new| {
                for node in new {
                    stats[other].add(weights.of(*node));
                }
                lasts = budget.lasts(graph.bytes + weights.bytes);
                !lasts || decide_early(stats[done], stats[other], total).is_some()
            });
        }
        work.budget.bytes += weights.bytes;
        let early = decide_early(stats[done], stats[other], total);
        let smaller = match early {
            Some(()) => Some(done),
            None if halves[other].is_exhausted() => {
                let known = |half: usize| {
                    let node = halves[half].visited.first();
                    // The side that has the lowest node index is the larger one.
                    (stats[half].attached, stats[half].weight, halves[half].count, std::cmp::Reverse(node))
                };
                Some(if known(done) < known(other) { done } else { other })
            }
            None => None,
        };
        work.halves = Some(halves);
        match smaller {
            Some(smaller) => (self.decided(job, work, Decision { smaller }), true),
            None => (Phase::Compare { exhausted, stats }, lasts),
        }
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
