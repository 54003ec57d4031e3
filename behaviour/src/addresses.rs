//! Where counterparties are: what the swarm was told of peers by hand or by its other behaviours.

use std::collections::{HashMap, HashSet};
use std::num::NonZeroUsize;

use libp2p_core::Multiaddr;
use libp2p_identity::PeerId;
use libp2p_swarm::PeerAddresses;

/// Peers with which there is nothing to do yet: of more than these the one told of first is forgotten.
const MAX_OTHERS: NonZeroUsize = NonZeroUsize::new(256).expect("not zero");

/// At most ten addresses of each peer. Unlike in a cache, an address at which a counterparty was not reached
/// is kept, since it is dialled until it is back; and no number of strangers pushes it out.
#[derive(Debug)]
pub(crate) struct Addresses {
    wanted: HashMap<PeerId, PeerAddresses>,
    others: PeerAddresses,
}

impl Default for Addresses {
    fn default() -> Addresses {
        Addresses { wanted: HashMap::new(), others: PeerAddresses::new(MAX_OTHERS) }
    }
}

fn one() -> PeerAddresses {
    PeerAddresses::new(NonZeroUsize::MIN)
}

impl Addresses {
    pub fn add(&mut self, peer: PeerId, address: Multiaddr) {
        self.wanted.get_mut(&peer).unwrap_or(&mut self.others).add(peer, address);
    }

    /// Those that are wanted from now on.
    pub fn want(&mut self, peers: &HashSet<PeerId>) {
        let gone: Vec<PeerId> = self.wanted.keys().filter(|peer| !peers.contains(peer)).copied().collect();
        for peer in gone {
            let Some(mut addresses) = self.wanted.remove(&peer) else { continue };
            addresses.get(&peer).for_each(|address| {
                self.others.add(peer, address);
            });
        }
        for peer in peers {
            let others = &mut self.others;
            self.wanted.entry(*peer).or_insert_with(|| {
                let mut addresses = one();
                others.get(peer).for_each(|address| {
                    addresses.add(*peer, address);
                });
                addresses
            });
        }
    }

    /// Of a counterparty; none of others, whom this behaviour does not dial.
    pub fn of(&mut self, peer: &PeerId) -> Vec<Multiaddr> {
        self.wanted.get_mut(peer).map(|addresses| addresses.get(peer).collect()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> Multiaddr {
        format!("/ip4/127.0.0.1/tcp/{port}").parse().expect("an address")
    }

    #[test]
    fn strangers_push_out_no_address_of_a_counterparty() {
        let (early, late) = (PeerId::random(), PeerId::random());
        let mut addresses = Addresses::default();
        addresses.add(early, address(1));
        assert_eq!(addresses.of(&early), [], "not a counterparty yet");
        addresses.want(&[early, late].into());
        addresses.add(late, address(2));
        for _ in 0..2 * MAX_OTHERS.get() {
            addresses.add(PeerId::random(), address(3));
        }
        assert_eq!(addresses.of(&early), [address(1).with_p2p(early).expect("no peer yet")]);
        assert_eq!(addresses.of(&late), [address(2).with_p2p(late).expect("no peer yet")]);
        (0..20).for_each(|port| addresses.add(late, address(100 + port)));
        assert_eq!(addresses.of(&late).len(), 10);
        addresses.want(&[late].into());
        assert_eq!(addresses.of(&early), []);
        addresses.want(&[early].into());
        assert_eq!(addresses.of(&early).len(), 1, "remembered for a while");
    }
}
