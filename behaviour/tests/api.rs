//! What others can say with the crate's names.

use std::fmt::Debug;

use libp2p_por::*;

/// A crate that imports everything still has the language's own `core`.
#[test]
fn a_glob_import_shadows_nothing() {
    assert_eq!(core::mem::size_of::<por_core::types::Yocto>(), 16);
}

fn cause(event: &Event) -> Option<&Failure> {
    match event {
        Event::Failed { failure, .. } => Some(failure),
        _ => None,
    }
}

#[test]
fn the_cause_of_a_failure_can_be_named_and_told_apart() {
    let peer = libp2p::PeerId::random();
    let connection = libp2p::swarm::ConnectionId::new_unchecked(1);
    let event = Event::Failed { peer, connection, failure: Failure::Lane(LaneError::Stalled) };
    assert!(matches!(cause(&event), Some(Failure::Lane(LaneError::Stalled))));
    assert!(cause(&Event::PeerReady { peer }).is_none());
}

#[test]
fn all_parts_can_be_shown() {
    fn shown<T: Debug>() {}
    shown::<(Behaviour, Driver, Handler, Control)>();
}
