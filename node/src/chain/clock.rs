//! This machine's clock beside the chain's (protocol section 5).
//!
//! Local time goes on by the wall clock across restarts: if that was set forward meanwhile, all of the
//! difference would be paid for as lateness, and if it was set back, none of the time that has passed. Blocks
//! say what time it is, some seconds late. A chain that stands still looks like a clock that is fast; the
//! endpoints' own clocks, which HTTP tells, say which of the two it is.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// What a clock may be off, and what blocks may lag behind it.
pub const CLOCK_TOLERANCE: Duration = Duration::from_secs(30);

/// This machine's clock as the chain's endpoints show it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ClockState {
    /// Within [`CLOCK_TOLERANCE`].
    Right,
    /// Ahead of blocks, and of the endpoints' clocks if they tell.
    Ahead(Duration),
    /// Behind them.
    Behind(Duration),
    /// The clock is right by those of the endpoints; their latest block is older than it should be by this.
    Stale(Duration),
}

/// What one endpoint shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shown {
    /// Time of its latest final block, milliseconds since 1970.
    pub(super) block_ms: u64,
    /// Its own clock.
    pub(super) date_ms: Option<u64>,
}

/// Judges `now_ms` by what the endpoints show. A clock that one of them bears out is right: one that is wrong
/// agrees with nobody.
///
/// `test_chain`: its blocks may be from the future, as tests let time pass.
pub(super) fn judge(now_ms: u64, shown: &[Shown], test_chain: bool) -> ClockState {
    let near = |other: u64| now_ms.abs_diff(other) <= in_ms(CLOCK_TOLERANCE);
    let apart = |other: u64| Duration::from_millis(now_ms.abs_diff(other));
    let blocks = || shown.iter().map(|shown| shown.block_ms);
    let dates = || shown.iter().filter_map(|shown| shown.date_ms);
    if blocks().any(near) {
        return ClockState::Right;
    }
    if dates().any(near) {
        // Blocks from the future are refused one by one.
        let latest = blocks().max().filter(|latest| *latest < now_ms);
        return latest.map_or(ClockState::Right, |latest| ClockState::Stale(apart(latest)));
    }
    match (agreed(dates()), agreed(blocks())) {
        (Some(time), _) | (None, Some(time)) if time < now_ms => ClockState::Ahead(apart(time)),
        (Some(time), _) => ClockState::Behind(apart(time)),
        (None, Some(time)) if !test_chain => ClockState::Behind(apart(time)),
        (None, _) => ClockState::Right,
    }
}

/// The latest time that two of them show, or the only one shows.
fn agreed(times: impl Iterator<Item = u64>) -> Option<u64> {
    let mut times: Vec<u64> = times.collect();
    times.sort_unstable_by(|a, b| b.cmp(a));
    times.get(1).or(times.first()).copied()
}

/// The present, milliseconds since 1970; not earlier than it was while this runs, whoever sets the clock back.
#[derive(Debug)]
pub(super) struct Present {
    start: Instant,
    start_ms: u64,
}

impl Present {
    pub(super) fn new() -> Present {
        Present { start: Instant::now(), start_ms: now_ms() }
    }

    pub(super) fn now_ms(&self) -> u64 {
        // The monotonic clock may have slept with the machine, which the other one has not.
        now_ms().max(self.start_ms.saturating_add(in_ms(self.start.elapsed())))
    }
}

/// The wall clock, milliseconds since 1970.
pub(crate) fn now_ms() -> u64 {
    millis(SystemTime::now())
}

pub(super) fn millis(time: SystemTime) -> u64 {
    in_ms(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

pub(super) fn in_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000_000;
    const HOUR: u64 = 3_600_000;

    fn shown(block_ms: u64, date_ms: u64) -> Shown {
        Shown { block_ms, date_ms: Some(date_ms) }
    }

    fn dateless(block_ms: u64) -> Shown {
        Shown { block_ms, date_ms: None }
    }

    fn hours(hours: u64) -> Duration {
        Duration::from_millis(hours * HOUR)
    }

    #[test]
    fn a_clock_is_right_ahead_or_behind() {
        assert_eq!(judge(NOW, &[dateless(NOW - 4_000)], false), ClockState::Right);
        assert_eq!(judge(NOW, &[shown(NOW - 4_000, NOW)], false), ClockState::Right);
        let hour = hours(1);
        assert_eq!(judge(NOW, &[dateless(NOW - HOUR)], false), ClockState::Ahead(hour));
        assert_eq!(judge(NOW, &[shown(NOW - HOUR - 4_000, NOW - HOUR)], false), ClockState::Ahead(hour));
        assert_eq!(judge(NOW, &[dateless(NOW + HOUR)], false), ClockState::Behind(hour));
        assert_eq!(judge(NOW, &[shown(NOW + HOUR - 4_000, NOW + HOUR)], false), ClockState::Behind(hour));
        assert_eq!(judge(NOW, &[], false), ClockState::Right, "nothing is known");
    }

    #[test]
    fn a_chain_that_stands_still_is_no_wrong_clock() {
        assert_eq!(judge(NOW, &[shown(NOW - HOUR, NOW - 1_000)], false), ClockState::Stale(hours(1)));
        // Wrong is also a clock beside a chain that stands still.
        assert_eq!(judge(NOW, &[shown(NOW - 3 * HOUR, NOW - HOUR)], false), ClockState::Ahead(hours(1)));
        // The clock is behind, and the chain has stood still for longer: blocks alone would say it is ahead.
        assert_eq!(judge(NOW, &[shown(NOW - HOUR, NOW + HOUR)], false), ClockState::Behind(hours(1)));
    }

    #[test]
    fn one_of_several_endpoints_is_not_believed() {
        let right = shown(NOW - 2_000, NOW);
        assert_eq!(judge(NOW, &[shown(NOW + HOUR, NOW + HOUR), right, right], false), ClockState::Right);
        assert_eq!(judge(NOW, &[right, shown(NOW - HOUR, NOW - HOUR)], false), ClockState::Right);
        let (one, two) = (shown(NOW - HOUR, NOW - HOUR), shown(NOW - 2 * HOUR, NOW - 2 * HOUR));
        assert_eq!(
            judge(NOW, &[one, shown(NOW + HOUR, NOW + HOUR), two], false),
            ClockState::Ahead(hours(1))
        );
    }

    #[test]
    fn a_test_chain_may_be_ahead_and_no_clock() {
        assert_eq!(judge(NOW, &[shown(NOW + HOUR, NOW)], true), ClockState::Right);
        assert_eq!(judge(NOW, &[dateless(NOW + HOUR)], true), ClockState::Right);
        assert_eq!(judge(NOW, &[shown(NOW - HOUR, NOW - HOUR)], true), ClockState::Ahead(hours(1)));
    }

    #[test]
    fn the_present_does_not_go_back() {
        let present = Present { start: Instant::now(), start_ms: now_ms() + HOUR };
        assert!(present.now_ms() >= present.start_ms);
    }
}
