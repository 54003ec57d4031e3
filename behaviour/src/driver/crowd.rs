//! How many ask at the same time, and how much each.

use std::collections::HashMap;

use por_core::Time;
use por_core::types::NodeKey;

/// For how long a request of somebody else counts, milliseconds.
const LATELY_MS: u64 = 1_000;
/// Requests and responses that shares are of, at most: those taken in last weigh most.
const REMEMBERED: usize = 1_024;
/// A neighbour is light with at most one of so many of all requests and responses.
const LIGHT: usize = 8;

/// Whether requests come from more than one side: two neighbours, or a neighbour and the application here.
/// Those of one side wait for those of the others that are taken in with them.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    last: Option<NodeKey>,
    /// When one came that was not from the same side as the one before it.
    mixed: Option<Time>,
    /// Requests and responses lately taken in, by neighbour, and their sum.
    taken: HashMap<NodeKey, usize>,
    all: usize,
}

impl Crowd {
    pub fn asked(&mut self, from: NodeKey, now: Time) {
        if self.last.replace(from).is_some_and(|last| last != from) {
            self.mixed = Some(now);
        }
    }

    pub fn is_mixed(&self, now: Time) -> bool {
        self.mixed.is_some_and(|mixed| now.since_ms(mixed) < LATELY_MS)
    }

    pub fn took(&mut self, from: NodeKey, count: usize) {
        *self.taken.entry(from).or_default() += count;
        self.all += count;
        if self.all > REMEMBERED {
            self.taken.retain(|_, count| {
                *count /= 2;
                *count > 0
            });
            self.all = self.taken.values().sum();
        }
    }

    /// Whether `count` more are little beside what the others have sent.
    pub fn is_light(&self, from: &NodeKey, count: usize) -> bool {
        let own = self.taken.get(from).copied().unwrap_or_default() + count;
        own * LIGHT <= self.all + count
    }
}

#[cfg(test)]
mod tests {
    use por_core::types::NodeSecret;

    use super::*;

    #[test]
    fn two_sides_are_a_crowd_as_long_as_both_ask() {
        let [one, other] = [1, 2].map(|seed| NodeSecret::from_seed(&[seed; 32]).public());
        let mut crowd = Crowd::default();
        for ms in 0..10 {
            crowd.asked(one, Time(ms));
            assert!(!crowd.is_mixed(Time(ms)));
        }
        crowd.asked(other, Time(10));
        assert!(crowd.is_mixed(Time(10)));
        crowd.asked(one, Time(20));
        assert!(crowd.is_mixed(Time(1_019)));
        crowd.asked(one, Time(1_020));
        assert!(!crowd.is_mixed(Time(1_020)));
    }

    #[test]
    fn a_neighbour_is_light_beside_one_that_asks_for_much_and_not_by_itself() {
        let [greedy, modest, new] = [1, 2, 3].map(|seed| NodeSecret::from_seed(&[seed; 32]).public());
        let mut crowd = Crowd::default();
        crowd.took(modest, 1);
        assert!(!crowd.is_light(&modest, 1), "nobody else asks");
        crowd.took(greedy, 20);
        assert!(crowd.is_light(&modest, 1), "2 of 22");
        assert!(!crowd.is_light(&modest, 2), "3 of 23");
        assert!(!crowd.is_light(&greedy, 1));
        assert!(crowd.is_light(&new, 3) && !crowd.is_light(&new, 4));
    }

    #[test]
    fn what_was_long_ago_weighs_less() {
        let [before, now] = [1, 2].map(|seed| NodeSecret::from_seed(&[seed; 32]).public());
        let mut crowd = Crowd::default();
        crowd.took(before, 1_000);
        for _ in 0..12 {
            assert!(!crowd.is_light(&before, 1), "{crowd:?}");
            crowd.took(now, 400);
            if crowd.taken.get(&before).is_none_or(|count| *count < 100) {
                break;
            }
        }
        assert!(crowd.is_light(&before, 1), "{crowd:?}");
        (0..40).for_each(|_| crowd.took(now, 400));
        assert_eq!(crowd.taken.len(), 1, "forgotten");
    }
}
