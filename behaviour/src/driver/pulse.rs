//! Whether the driver hears: while the node waits for anybody, it looks at what has come several times
//! within the time that the policy tolerates.

use por_core::Time;

/// Looks within the tolerated time.
const LOOKS: u64 = 4;

/// Least time between two looks, milliseconds. What is missed is then always longer than the time in which the
/// core has it read before it judges anybody (half the margin, a quarter of a second at least): else a disk
/// that is slow for every write would hide others for ever.
const BETWEEN_MS: u64 = 100;

#[derive(Debug)]
pub(super) struct Pulse {
    every_ms: u64,
    /// When what had come was last taken in.
    last: Option<Time>,
    /// It was said that this is long ago.
    told: bool,
}

impl Pulse {
    /// `margin_ms`: the lateness of others that is tolerated.
    pub(super) fn new(margin_ms: u64) -> Pulse {
        Pulse { every_ms: margin_ms.div_ceil(LOOKS).max(BETWEEN_MS), last: None, told: false }
    }

    /// What has come is taken in now.
    pub(super) fn beat(&mut self, now: Time) {
        (self.last, self.told) = (Some(now), false);
    }

    /// The node has something to do at `deadline`: when to look again at the latest.
    pub(super) fn at_most(&self, now: Time, deadline: Time) -> Time {
        deadline.min(now.after_ms(self.every_ms))
    }

    /// Since when nothing was taken in, if that is longer than tolerated. `waits`: the node has had something to
    /// wait for since the last look; else there was none to take.
    pub(super) fn missed(&mut self, now: Time, waits: bool) -> Option<Time> {
        let late = |last: &Time| now.since_ms(*last) > self.every_ms.saturating_mul(LOOKS);
        let last = self.last.filter(|last| waits && late(last))?;
        if !std::mem::replace(&mut self.told, true) {
            let ms = now.since_ms(last);
            tracing::warn!(
                ms,
                "took nothing in for so long: the disk or the machine is slow, others are not blamed"
            );
        }
        Some(last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missed_is_longer_than_what_is_tolerated_and_than_reading_it_takes() {
        for margin_ms in [0, 100, 300, 999, 1_000, 10_000, 600_000] {
            let mut pulse = Pulse::new(margin_ms);
            let start = Time(1_000);
            assert_eq!(pulse.missed(start.after_ms(1 << 40), true), None, "nothing was taken in yet");
            pulse.beat(start);
            let tolerated = margin_ms.max(250);
            assert_eq!(pulse.missed(start.after_ms(tolerated), true), None, "{margin_ms}");
            let late = start.after_ms(margin_ms.max(400) + LOOKS);
            assert_eq!(pulse.missed(late, false), None, "{margin_ms}");
            assert_eq!(pulse.missed(late, true), Some(start), "{margin_ms}");
        }
    }
}
