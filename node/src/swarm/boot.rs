//! Peers to begin with. Kademlia looks for them again every five minutes; who is connected with nobody, because
//! none of them was there at its start or its network came later, does not wait so long.

use std::time::Duration;

use libp2p::{Multiaddr, PeerId, Swarm};
use tokio::time::Instant;

use super::behaviour::NodeBehaviour;
use super::dial;

/// Until they are dialled again, from the first to the longest wait.
const WAIT: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

pub(super) struct Boot {
    peers: Vec<(PeerId, Multiaddr)>,
    next: Instant,
    wait: Duration,
}

impl Boot {
    /// For peers that have been dialled just now.
    pub(super) fn new(peers: Vec<(PeerId, Multiaddr)>) -> Boot {
        Boot { peers, next: Instant::now() + WAIT.0, wait: WAIT.0 }
    }

    /// The last connection has closed.
    pub(super) fn on_alone(&mut self) {
        (self.next, self.wait) = (Instant::now() + WAIT.0, WAIT.0);
    }

    /// When [`Self::dial`] is due, for who is connected with nobody.
    pub(super) async fn due(&self) {
        match self.peers.is_empty() {
            true => std::future::pending().await,
            false => tokio::time::sleep_until(self.next).await,
        }
    }

    pub(super) fn dial(&mut self, swarm: &mut Swarm<NodeBehaviour>) {
        self.wait = (self.wait * 2).min(WAIT.1);
        self.next = Instant::now() + self.wait;
        for (peer, address) in &self.peers {
            dial(swarm, *peer, std::slice::from_ref(address));
        }
    }
}
