//! Which steps of the channel manager wait before they are made again.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use por_types::ChannelId;

use super::BACKOFF;

/// What was made of a channel lately, by name. A step that fails waits alone: evidence has its time, whatever else
/// cannot be done.
#[derive(Default)]
pub(super) struct Rests(HashMap<(ChannelId, &'static str), (Instant, Duration)>);

impl Rests {
    pub(super) fn waits(&self, channel: ChannelId, step: &'static str, now: Instant) -> bool {
        self.0.get(&(channel, step)).is_some_and(|(until, _)| now < *until)
    }

    /// Until the graph shows the effect, the same would be derived again.
    pub(super) fn made(&mut self, channel: ChannelId, step: &'static str, now: Instant) {
        self.0.insert((channel, step), (now + BACKOFF.0, BACKOFF.0));
    }

    /// Each failure in a row waits for twice as long.
    pub(super) fn failed(&mut self, channel: ChannelId, step: &'static str, now: Instant) {
        let wait = self.0.get(&(channel, step)).map_or(BACKOFF.0, |(_, wait)| *wait);
        self.0.insert((channel, step), (now + wait, (wait * 2).min(BACKOFF.1)));
    }

    /// The chain knows no channel but these.
    pub(super) fn keep(&mut self, known: impl Fn(ChannelId) -> bool) {
        self.0.retain(|(channel, _), _| known(*channel));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOP_UP: &str = "adding to the deposit";
    const EVIDENCE: &str = "submitting evidence";

    #[test]
    fn a_step_that_fails_holds_up_no_other() {
        let (mut rests, channel, other) = (Rests::default(), ChannelId(1), ChannelId(2));
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        assert!(!rests.waits(channel, TOP_UP, start));
        let mut at = 0;
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            rests.failed(channel, TOP_UP, after(at));
            assert!(rests.waits(channel, TOP_UP, after(at + wait) - Duration::from_millis(1)), "{wait}");
            assert!(!rests.waits(channel, EVIDENCE, after(at)));
            assert!(!rests.waits(other, TOP_UP, after(at)));
            at += wait;
            assert!(!rests.waits(channel, TOP_UP, after(at)), "{wait}");
        }
        rests.made(channel, TOP_UP, after(at));
        assert!(rests.waits(channel, TOP_UP, after(at)));
        assert!(!rests.waits(channel, TOP_UP, after(at + 1)));
        rests.failed(channel, TOP_UP, after(at));
        rests.keep(|it| it == other);
        assert!(!rests.waits(channel, TOP_UP, after(at)), "it is no more");
    }
}
