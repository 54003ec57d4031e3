//! How many ask at the same time.

use por_core::Time;
use por_core::types::NodeKey;

/// For how long a request of somebody else counts, milliseconds.
const LATELY_MS: u64 = 1_000;

/// Whether requests come from more than one side: two neighbours, or a neighbour and the application here.
/// Those of one side wait for those of the others that are taken in with them.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    last: Option<NodeKey>,
    /// When one came that was not from the same side as the one before it.
    mixed: Option<Time>,
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
}
