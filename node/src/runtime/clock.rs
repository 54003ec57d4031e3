//! Whether this machine's clock is right, before anything relies on it (protocol section 5).
//!
//! A node that has just started goes on by the wall clock: what that is wrong by would be paid for as lateness,
//! or be missing from it. So a wrong clock is an error at the start. Later on the node's time is monotonic and
//! a clock that is set costs nothing by itself; to stop would break promises to neighbours, so the operator
//! is told, in the log and in the status, to set it right before the next start.

use std::time::{Duration, Instant};

use super::Daemon;
use crate::chain::{CLOCK_TOLERANCE, Chain, ClockState, now_ms};
use crate::client::{ClientError, ErrorCode};

/// Between two looks at a clock that seems wrong: on a local chain, and elsewhere.
const LOOK: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// At the start, when nothing has been signed yet.
///
/// Errors: `Retryable` if the clock is wrong: it may be about to be set, as after a boot; those of the chain.
pub(super) async fn check(chain: &Chain) -> Result<(), ClientError> {
    match chain.clock().await? {
        ClockState::Right => Ok(()),
        state @ ClockState::Stale(_) => {
            tracing::warn!("{}", words(state).unwrap_or_default());
            Ok(())
        }
        state @ (ClockState::Ahead(_) | ClockState::Behind(_)) => Err(ClientError::new(
            ErrorCode::Retryable,
            words(state).unwrap_or_default(),
            "set this machine's clock (`timedatectl set-ntp true`) and start again; nothing was paid by it",
        )),
    }
}

/// Looks at the clock while the daemon runs.
pub(super) struct ClockWatch {
    interval: Duration,
    looked: Option<Instant>,
}

impl ClockWatch {
    pub(super) fn new(local: bool) -> ClockWatch {
        ClockWatch { interval: if local { LOOK.0 } else { LOOK.1 }, looked: None }
    }

    /// `head_ms`: time of the chain's latest block. Only if it is not near this machine's time the endpoints
    /// are asked for more.
    pub(super) async fn look(&mut self, daemon: &Daemon, head_ms: u64) {
        let apart = Duration::from_millis(now_ms().abs_diff(head_ms));
        if apart <= CLOCK_TOLERANCE {
            return tell(daemon, None);
        }
        if self.looked.is_some_and(|looked| looked.elapsed() < self.interval) {
            return;
        }
        self.looked = Some(Instant::now());
        match daemon.chain.clock().await {
            Ok(state) => tell(daemon, words(state)),
            Err(error) => tracing::debug!(%error, "the clock cannot be compared"),
        }
    }
}

/// What the status says from now on.
fn tell(daemon: &Daemon, wrong: Option<String>) {
    let mut told = daemon.clock.lock();
    match (&*told, &wrong) {
        (None, Some(wrong)) => tracing::error!("{wrong}"),
        (Some(_), None) => tracing::info!("this machine's clock and the chain's agree again"),
        _ => {}
    }
    *told = wrong;
}

fn words(state: ClockState) -> Option<String> {
    let seconds = |time: Duration| format!("{} s", time.as_secs());
    Some(match state {
        ClockState::Right => return None,
        ClockState::Ahead(by) => format!("this machine's clock is {} ahead of the chain's", seconds(by)),
        ClockState::Behind(by) => format!("this machine's clock is {} behind the chain's", seconds(by)),
        ClockState::Stale(by) => {
            format!("the latest block is {} old: the chain stands still, or its endpoints do", seconds(by))
        }
    })
}
