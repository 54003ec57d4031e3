//! Views of the chain differ for a while: what one end sees already the other does not yet.

#[path = "support/rig.rs"]
mod rig;

use por_core::types::{Hop, NodeKey, Yocto};
use por_core::wire::{Frame, Request, RequestItem, SeenChannel, Sync};
use por_core::*;
use rig::*;

/// `down` tells what it sees now, outside of any session's beginning.
fn down_sees(rig: &mut Rig, seen: Vec<SeenChannel>) {
    let epoch = rig.epoch();
    rig.down_sends(Frame::Sync(Sync { epoch, seen, complete: true, ..Sync::default() }));
}

/// The same of `up`, which connected first.
fn up_sees(rig: &mut Rig, seen: Vec<SeenChannel>) {
    rig.up_sends(Frame::Sync(Sync { epoch: 1 << 32, seen, complete: true, ..Sync::default() }));
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

/// An upstream node that makes believe it knows of no deposit gets nothing paid for lateness; that is no reason
/// to sever the next edge.
#[test]
fn who_claims_to_see_no_deposit_gets_no_edge_severed() {
    let mut rig = Rig::new();
    rig.input(Input::LateFee { per_ms: Yocto(1) });
    let mut head = rig.head(b"question", 100);
    head.route[1].allowance_ms += 10_000;
    rig.ask(&head, b"question");
    rig.acknowledge(true);
    up_sees(&mut rig, vec![SeenChannel { channel: IN, deposit: Yocto::ZERO }]);
    // Late, but not for longer than is tolerated.
    for _ in 0..125 {
        rig.later(100);
        rig.alive();
    }
    assert!(rig.orders.is_empty(), "{:?}", rig.orders);
}

/// `up` has acknowledged a request, was refused once, and insists.
fn insist(rig: &mut Rig) {
    let author = secret(9);
    let mut head = rig.head(b"question", 100);
    head.author = author.public();
    let before = Hop { channel: types::ChannelId(77), to: rig.up.public(), ..head.route[0].clone() };
    head.route.insert(0, before);
    head.route[2].allowance_ms += 10_000;
    let mut item = rig.item(&head, b"question");
    (item.proof, item.hop, item.again) = (sign_one(&author, &head), 1, true);
    let amount = head.payment_at(1).unwrap();
    rig.paid_up = rig.paid_up.checked_add(amount).unwrap();
    let paid = types::Item { request: head.id(&network()), amount, kind: types::ItemKind::Request };
    let items = types::Items { channel: IN, payer: types::Side::A, items: vec![paid] };
    let payment = state(&rig.up, IN, rig.paid_up, Yocto::ZERO, items.hash(&network()));
    let payment = Some(payment);
    rig.up_sends(Frame::Request(Request { payment, resent: false, requests: vec![item] }));
}

fn acknowledged(rig: &mut Rig) -> bool {
    rig.up_got().iter().any(|frame| matches!(frame, Frame::Ack(ack) if !ack.exchanges.is_empty()))
}

/// A next node that takes no money must not bring the edge before it down: that it cannot be asked has to come
/// to light at its own.
#[test]
fn who_claims_to_see_no_deposit_is_in_breach_itself() {
    let mut rig = Rig::new();
    down_sees_nothing_of_the_deposit(&mut rig);
    insist(&mut rig);
    assert!(acknowledged(&mut rig));
    for _ in 0..50 {
        rig.later(100);
        rig.alive();
    }
    let orders: Vec<_> = rig.orders.iter().map(|o| (o.statement.channel, o.statement.reason)).collect();
    assert_eq!(orders, [(OUT, types::SeverReason::NoAck)]);
    assert!(rig.up_got().iter().any(|frame| matches!(frame, Frame::Severed(_))));
}

#[test]
fn what_waits_for_the_next_node_to_see_the_deposit_is_asked_once_it_does() {
    let mut rig = Rig::new();
    down_sees_nothing_of_the_deposit(&mut rig);
    insist(&mut rig);
    rig.later(600);
    let asked = |rig: &mut Rig| rig.down_got().iter().any(|frame| matches!(frame, Frame::Request(_)));
    assert!(!asked(&mut rig));
    down_sees(&mut rig, vec![SeenChannel { channel: OUT, deposit: DEPOSIT }]);
    rig.later(600);
    assert!(asked(&mut rig));
}

fn down_sees_nothing_of_the_deposit(rig: &mut Rig) {
    let (down, all) = (rig.down.public(), rig.my_channels());
    rig.unseen = vec![OUT];
    rig.reconnect(down);
    down_sees(rig, vec![SeenChannel { channel: OUT, deposit: Yocto::ZERO }]);
    rig.input(Input::Channels { channels: all });
    rig.sent.clear();
}

/// Frames of two connections overtake each other; deposits only grow.
#[test]
fn older_news_do_not_replace_newer_ones() {
    let mut rig = Rig::with(|rig| rig.unseen = vec![OUT]);
    down_sees(&mut rig, vec![SeenChannel { channel: OUT, deposit: DEPOSIT }]);
    down_sees(&mut rig, vec![SeenChannel { channel: OUT, deposit: Yocto(1) }]);
    assert!(rig.ask_through(b"question", 100));
}

/// An answer that the peer's last process has left behind says nothing of what the new one sees.
#[test]
fn answers_of_the_last_session_count_for_nothing() {
    let mut rig = Rig::with(|rig| rig.unseen = vec![OUT]);
    let (epoch, seen) = (rig.epoch(), vec![SeenChannel { channel: OUT, deposit: DEPOSIT }]);
    rig.down_sends(Frame::Sync(Sync { epoch, answers: 1, seen, complete: true, ..Sync::default() }));
    assert!(!rig.ask_through(b"question", 100));
}

/// The edge that it came over is gone before it is passed on: what was set aside for it is free again.
#[test]
fn a_request_that_ends_before_it_is_paid_for_costs_nothing() {
    let mut rig = Rig::new();
    let mut head = rig.head(b"question", 100);
    head.route[1].allowance_ms += 10_000;
    let item = rig.item(&head, b"question");
    let payment = Some(rig.payment(&[&head]));
    let frame = Frame::Request(Request { payment, resent: false, requests: vec![item] });
    let peer = rig.up.public();
    rig.node.handle(Time(1), Input::Frame { peer, conn: ConnId(1), frame });
    rig.gone.push(IN);
    rig.chain();
    assert!(!rig.down_got().iter().any(|frame| matches!(frame, Frame::Request(_))));
    assert_eq!(rig.node.channel(OUT).unwrap().balance_mine, DEPOSIT);
}

/// A close that is announced while a request is on its way takes nothing new; who had taken the request on before
/// would sever this node for a refusal.
#[test]
fn over_a_closing_channel_comes_only_what_was_taken_on_before() {
    let mut rig = Rig::new();
    let mut channels = rig.my_channels();
    channels[0].open = false;
    rig.input(Input::Channels { channels });
    let (a, b) = (rig.up.public(), rig.node.key());
    let edge = GraphEdge { channel: IN, a, b, terms: rig.terms.clone(), open: false };
    rig.input(Input::Graph { version: 6, chain_time_ms: NOW, edges: vec![edge] });
    for again in [false, true] {
        let mut head = rig.head_here(&[7; 32], ANSWER_LIMIT);
        head.app = ANSWER_APP.into();
        let item = RequestItem { again, ..rig.item(&head, &[7; 32]) };
        let payment = Some(rig.payment(&[&head]));
        rig.up_sends(Frame::Request(Request { payment, resent: false, requests: vec![item] }));
        let rejected = rig.rejection().map(|(reason, _)| reason);
        assert_eq!(rejected, (!again).then_some(RejectReason::NoEdge));
    }
}
