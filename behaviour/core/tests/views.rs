//! Views of the chain differ for a while: what one end sees already the other does not yet.

#[path = "support/rig.rs"]
mod rig;

use por_core::types::{NodeKey, Yocto};
use por_core::wire::{Frame, SeenChannel, Sync};
use por_core::*;
use rig::*;

/// `down` tells what it sees now, outside of any session's beginning.
fn down_sees(rig: &mut Rig, seen: Vec<SeenChannel>) {
    let epoch = rig.epoch();
    rig.down_sends(Frame::Sync(Sync { epoch, seen, complete: true, ..Sync::default() }));
}

/// What the node has told a peer that it sees.
fn told(rig: &mut Rig, peer: NodeKey) -> Vec<SeenChannel> {
    let seen = |frame| if let Frame::Sync(sync) = frame { sync.seen } else { vec![] };
    rig.got(peer).into_iter().flat_map(seen).collect()
}

#[test]
fn nothing_is_asked_over_a_channel_that_the_next_node_does_not_see() {
    let mut rig = Rig::with(|rig| rig.unseen = vec![OUT]);
    assert!(!rig.ask_through(b"question", 100));
    assert_eq!(rig.rejection(), Some((RejectReason::Unreachable, None)));
    rig.unseen.clear();
    let seen = rig.seen_by(rig.down.public());
    down_sees(&mut rig, seen);
    assert!(rig.ask_through(b"question", 100));
}

/// A process that has started anew has not read the chain yet.
#[test]
fn a_peer_that_has_restarted_says_anew_what_it_sees() {
    let mut rig = Rig::new();
    let down = rig.down.public();
    assert!(rig.ask_through(b"question", 100));
    rig.unseen = vec![OUT];
    rig.reconnect(down);
    rig.ask_through(b"another", 100);
    assert_eq!(rig.rejection(), Some((RejectReason::Unreachable, None)));
}

#[test]
fn what_a_peer_sees_before_this_node_does_counts_once_it_does() {
    let mut rig = Rig::new();
    let all = rig.my_channels();
    rig.node = Node::new(config(&rig.limits), Restored::default()).unwrap();
    let without = all.iter().filter(|info| info.channel != OUT).cloned().collect();
    rig.input(Input::Channels { channels: without });
    rig.graph();
    rig.connect_all();
    assert!(!rig.ask_through(b"question", 100));
    rig.input(Input::Channels { channels: all });
    assert!(rig.ask_through(b"question", 100));
}

/// It would refuse a payment that its own view does not cover.
#[test]
fn a_deposit_is_spent_once_the_counterparty_sees_it() {
    let mut rig = Rig::new();
    let mut channels = rig.my_channels();
    channels
        .iter_mut()
        .filter(|info| info.channel == OUT)
        .for_each(|info| info.deposit_mine = Yocto(3 * DEPOSIT.0));
    rig.input(Input::Channels { channels });
    assert_eq!(rig.ask_own(2 * DEPOSIT.0), Some(RejectReason::Balance));
    down_sees(&mut rig, vec![SeenChannel { channel: OUT, deposit: Yocto(3 * DEPOSIT.0) }]);
    assert_eq!(rig.ask_own(2 * DEPOSIT.0), None);
    assert!(rig.down_got().iter().any(|frame| matches!(frame, Frame::Request(_))));
    // And no more than this node has, whatever the counterparty says.
    down_sees(&mut rig, vec![SeenChannel { channel: OUT, deposit: Yocto(u128::MAX >> 1) }]);
    assert_eq!(rig.ask_own(2 * DEPOSIT.0), Some(RejectReason::Balance));
}

#[test]
fn peers_are_told_of_each_change_that_they_have_to_know() {
    let mut rig = Rig::new();
    let (up, down) = (rig.up.public(), rig.down.public());
    let mut channels = rig.my_channels();
    rig.input(Input::Channels { channels: channels.clone() });
    assert!(rig.sent.is_empty(), "nothing has changed");
    channels.iter_mut().filter(|info| info.channel == IN).for_each(|info| {
        info.deposit_theirs = Yocto(50);
    });
    rig.input(Input::Channels { channels: channels.clone() });
    assert!(told(&mut rig, up).contains(&SeenChannel { channel: IN, deposit: Yocto(50) }));
    assert!(told(&mut rig, down).is_empty());
    rig.beside = true;
    let beside = rig.my_channels().into_iter().find(|info| info.channel == BESIDE);
    channels.extend(beside);
    rig.input(Input::Channels { channels });
    assert!(told(&mut rig, down).iter().any(|seen| seen.channel == BESIDE));
}

/// What changes while a session begins is told when it is open.
#[test]
fn a_change_during_a_sync_is_told_after_it() {
    let mut rig = Rig::new();
    let down = rig.down.public();
    let channels = rig.my_channels();
    rig.node = Node::new(config(&rig.limits), Restored::default()).unwrap();
    rig.sent.clear();
    rig.connect_with(down, |rig| rig.input(Input::Channels { channels: channels.clone() }));
    assert!(told(&mut rig, down).iter().any(|seen| seen.channel == OUT));
}

/// A peer may name channels without end; what is kept of that is not.
#[test]
fn channels_that_a_peer_makes_up_are_kept_up_to_a_limit() {
    let mut rig = Rig::new();
    for first in 0..100u64 {
        let name =
            |n| SeenChannel { channel: types::ChannelId(1_000 + first * 1_000 + n), deposit: Yocto(1) };
        down_sees(&mut rig, (0..1_000).map(name).collect());
    }
    assert!(rig.disconnected.is_empty());
    assert!(rig.node.remembered_channels() <= 2 * 4096);
    assert!(rig.ask_through(b"question", 100), "those that there are count");
}

/// What was received can be drawn as well, so more than was ever deposited.
#[test]
fn draws_beyond_the_deposit_hide_no_deposit() {
    let mut rig = Rig::new();
    let mut channels = rig.my_channels();
    let out = channels.iter_mut().find(|info| info.channel == OUT).expect("there is one");
    (out.deposit_mine, out.drawn_mine) = (Yocto(3 * DEPOSIT.0), Yocto(2 * DEPOSIT.0));
    rig.input(Input::Channels { channels });
    // To `down`, which does not see the top-up, the node has nothing left.
    assert_eq!(rig.ask_own(1), Some(RejectReason::Balance));
    down_sees(&mut rig, vec![SeenChannel { channel: OUT, deposit: Yocto(3 * DEPOSIT.0) }]);
    assert_eq!(rig.ask_own(1), None);
}
