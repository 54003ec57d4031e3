//! Whether the driver hears: while the node waits for anybody, it looks at what has come several times
//! within the time that the policy tolerates.

use por_core::Time;

/// Looks within the tolerated time.
const LOOKS: u64 = 4;

/// Bounds of the time between two looks, milliseconds.
const BETWEEN_MS: std::ops::RangeInclusive<u64> = 50..=1_000;

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
        let every_ms = (margin_ms / LOOKS).clamp(*BETWEEN_MS.start(), *BETWEEN_MS.end());
        Pulse { every_ms, last: None, told: false }
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
