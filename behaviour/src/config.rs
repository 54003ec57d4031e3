use std::time::Duration;

use por_core::types::Network;
use por_core::{Limits, Policy};

/// Shortest delay between dials of one peer: without any the node would do nothing else.
const MIN_REDIAL: Duration = Duration::from_millis(10);

/// Settings of the behaviour; everything has a default but the network.
#[derive(Clone, Debug)]
pub struct Config {
    pub(crate) network: Network,
    pub(crate) limits: Limits,
    pub(crate) policy: Policy,
    pub(crate) seed: Option<[u8; 32]>,
    pub(crate) handshake_timeout: Duration,
    pub(crate) stall_timeout: Duration,
    pub(crate) redial: Option<(Duration, Duration)>,
    pub(crate) max_control_queue: usize,
    pub(crate) event_queue: usize,
}

impl Config {
    pub fn new(network: Network) -> Config {
        Config {
            network,
            limits: Limits::default(),
            policy: Policy::default(),
            seed: None,
            handshake_timeout: Duration::from_secs(10),
            stall_timeout: Duration::from_secs(30),
            redial: Some((Duration::from_millis(500), Duration::from_secs(60))),
            max_control_queue: 8192,
            event_queue: 1024,
        }
    }

    /// Bounds on everything a peer or the application can make the node hold. Some have ranges, which
    /// [`new`](crate::new) checks.
    pub fn with_limits(mut self, limits: Limits) -> Config {
        self.limits = limits;
        self
    }

    /// What the node does where the protocol leaves it the choice: when to sever, when to wait.
    pub fn with_policy(mut self, policy: Policy) -> Config {
        self.policy = policy;
        self
    }

    /// Randomness of request nonces; must differ at every start. By default taken from the
    /// operating system's hash seeds and the clock: nonces need to be distinct, not secret.
    pub fn with_seed(mut self, seed: [u8; 32]) -> Config {
        self.seed = Some(seed);
        self
    }

    /// Time from a connection's start until both lanes have exchanged Hello, default 10 s.
    pub fn with_handshake_timeout(mut self, timeout: Duration) -> Config {
        self.handshake_timeout = timeout;
        self
    }

    /// Longest time without progress in the middle of a frame, read or written, default 30 s.
    pub fn with_stall_timeout(mut self, timeout: Duration) -> Config {
        self.stall_timeout = timeout;
        self
    }

    /// First and longest delay between dials of a counterparty that is not connected, default 500 ms
    /// and 60 s; `None` leaves dialling to the application. Addresses are those told to the swarm by its
    /// `add_peer_address`, and what its other behaviours know. The first is 10 ms at least, the longest is at least the first.
    pub fn with_redial(mut self, delays: Option<(Duration, Duration)>) -> Config {
        self.redial = delays.map(|(first, longest)| {
            let first = first.max(MIN_REDIAL);
            (first, longest.max(first))
        });
        self
    }

    /// Most control frames waiting for one connection, default 8192; a peer that reads more slowly
    /// than it makes this node answer is disconnected.
    pub fn with_max_control_queue(mut self, frames: usize) -> Config {
        self.max_control_queue = frames.max(1);
        self
    }

    /// Most events that wait for one subscriber of [`Control::events`](crate::Control::events), default 1024;
    /// one that lags further behind is dropped.
    pub fn with_event_queue(mut self, events: usize) -> Config {
        self.event_queue = events;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dials_are_never_without_a_delay() {
        let network =
            Network { chain_id: "test".to_owned(), contract: "por.test".parse().expect("an account") };
        let config = Config::new(network).with_redial(Some((Duration::ZERO, Duration::ZERO)));
        assert_eq!(config.redial, Some((MIN_REDIAL, MIN_REDIAL)));
        let second = Duration::from_secs(1);
        assert_eq!(config.with_redial(Some((second, Duration::ZERO))).redial, Some((second, second)));
    }
}
