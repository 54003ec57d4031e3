//! Connections and sessions: who may send what when, and what a peer gains by playing with them.

#[path = "support/rig.rs"]
mod rig;

use por_core::types::Yocto;
use por_core::wire::{self, Frame, Hello, Lane, Sync};
use por_core::*;
use rig::*;

fn hello(rig: &Rig) -> Hello {
    Hello::new(network(), Lane::Control, &rig.limits)
}

fn syncs(frames: Vec<Frame>) -> Vec<Sync> {
    frames
        .into_iter()
        .filter_map(|frame| if let Frame::Sync(sync) = frame { Some(sync) } else { None })
        .collect()
}

#[test]
fn a_peer_is_ready_once_both_directions_are_open() {
    let rig = Rig::new();
    let ready =
        |peer| rig.events.iter().filter(|e| matches!(e, Event::PeerReady { peer: p } if *p == peer)).count();
    assert_eq!((ready(rig.up.public()), ready(rig.down.public())), (1, 1));
}

#[test]
fn nothing_is_asked_of_a_peer_that_has_not_answered_sync() {
    let mut rig = Rig::new();
    let (up, down) = (rig.up.public(), rig.down.public());
    rig.input(Input::Disconnected { peer: down, conn: ConnId(2) });
    let input = Input::Connected { peer: down, conn: ConnId(7), hello: hello(&rig) };
    rig.input(input);
    assert_eq!(syncs(rig.down_got()).len(), 1, "only Sync");
    let head = rig.head(b"question", 100);
    rig.ask(&head, b"question");
    assert!(rig.down_got().is_empty());
    assert_eq!(rig.rejection().unwrap().0, RejectReason::Unreachable);
    assert!(!rig.disconnected.contains(&up));
}

#[test]
fn a_peer_that_does_not_answer_sync_is_disconnected_after_a_while() {
    let mut rig = Rig::new();
    let down = rig.down.public();
    rig.input(Input::Disconnected { peer: down, conn: ConnId(2) });
    let input = Input::Connected { peer: down, conn: ConnId(7), hello: hello(&rig) };
    rig.input(input);
    let deadline = rig.node.next_deadline().expect("a deadline");
    rig.node.handle(Time(deadline.0 - 1), Input::Tick);
    rig.drain();
    assert!(rig.disconnected.is_empty());
    rig.node.handle(deadline, Input::Tick);
    rig.drain();
    assert!(rig.blames(down, "does not answer Sync"));
}

#[test]
fn frames_over_another_connection_than_the_peers_session_are_ignored() {
    let mut rig = Rig::new();
    let up = rig.up.public();
    let input = Input::Connected { peer: up, conn: ConnId(9), hello: hello(&rig) };
    rig.input(input);
    let head = rig.head_here(b"question", 100);
    let item = rig.item(&head, b"question");
    let payment = Some(rig.payment(&[&head]));
    let frame = Frame::Request(wire::Request { payment, resent: false, requests: vec![item] });
    rig.input(Input::Frame { peer: up, conn: ConnId(9), frame: frame.clone() });
    assert!(rig.sent.is_empty(), "{:?}", rig.sent);
    // Nor from a connection that was never announced.
    rig.input(Input::Frame { peer: up, conn: ConnId(99), frame: frame.clone() });
    assert!(rig.sent.is_empty());
    // The peer moves its session: now it counts, and the old connection does not.
    let sync = Sync { epoch: 1 << 40, complete: true, ..Sync::default() };
    rig.input(Input::Frame { peer: up, conn: ConnId(9), frame: Frame::Sync(sync) });
    rig.sent.clear();
    rig.input(Input::Frame { peer: up, conn: ConnId(1), frame: frame.clone() });
    assert_eq!(rig.node.unfinished(), 0);
    rig.input(Input::Frame { peer: up, conn: ConnId(9), frame });
    assert_eq!(rig.node.unfinished(), 1);
}

#[test]
fn each_epoch_of_the_peer_is_answered_once_with_what_is_unfinished() {
    let mut rig = Rig::new();
    let head = rig.head_here(b"question", 100);
    let (id, exchange) = rig.ask(&head, b"question");
    rig.sent.clear();
    let probe = Frame::Sync(Sync { epoch: 1 << 40, complete: true, ..Sync::default() });
    rig.up_sends(probe.clone());
    let answers: Vec<Sync> = syncs(rig.up_got()).into_iter().filter(|sync| sync.answers == 1 << 40).collect();
    let known: Vec<_> = answers.iter().flat_map(|sync| &sync.known).collect();
    assert_eq!((known.len(), known[0].exchange, known[0].request, known[0].acked), (1, exchange, id, true));
    assert!(answers.last().unwrap().complete);
    rig.up_sends(probe);
    assert!(syncs(rig.up_got()).is_empty(), "a heartbeat is not answered");
}

#[test]
fn a_peer_that_begins_one_session_after_the_other_is_disconnected() {
    let mut rig = Rig::new();
    for epoch in 0..100 {
        rig.up_sends(Frame::Sync(Sync { epoch: (1 << 40) + epoch, complete: true, ..Sync::default() }));
    }
    assert!(rig.blames(rig.up.public(), "one session after the other"));
}

#[test]
fn a_lost_connection_moves_the_session_to_another_one() {
    let mut rig = Rig::new();
    let down = rig.down.public();
    let input = Input::Connected { peer: down, conn: ConnId(9), hello: hello(&rig) };
    rig.input(input);
    assert!(rig.down_got().is_empty(), "one connection is enough");
    rig.input(Input::Disconnected { peer: down, conn: ConnId(2) });
    let probes = syncs(rig.down_got());
    assert_eq!((probes.len(), probes[0].answers), (1, 0));
    assert!(!rig.events.iter().any(|e| matches!(e, Event::PeerLost { .. })));
    rig.input(Input::Disconnected { peer: down, conn: ConnId(9) });
    assert!(rig.events.iter().any(|e| matches!(e, Event::PeerLost { peer } if *peer == down)));
}

#[test]
fn a_hello_of_another_network_closes_the_connection() {
    let mut rig = Rig::new();
    let peer = secret(5).public();
    let foreign = types::Network { chain_id: "testnet".into(), ..network() };
    let hello = Hello::new(foreign, Lane::Control, &rig.limits);
    rig.input(Input::Connected { peer, conn: ConnId(9), hello });
    assert_eq!(rig.disconnected, [peer]);
}

#[test]
fn a_request_of_a_peer_without_a_channel_is_refused() {
    let mut rig = Rig::new();
    let stranger = secret(5);
    rig.connect(stranger.public());
    let mut head = rig.head_here(b"question", 100);
    head.author = stranger.public();
    let mut item = rig.item(&head, b"question");
    item.proof = sign_one(&stranger, &head);
    let frame = Frame::Request(wire::Request { payment: None, resent: true, requests: vec![item] });
    rig.frame(stranger.public(), frame);
    assert!(rig.blames(stranger.public(), "not with this peer"));
    assert!(!rig.disconnected.contains(&rig.up.public()));
}

/// Nor may one that makes channels up go on with that for ever.
#[test]
fn requests_over_channels_that_nobody_has_seen_are_few() {
    let mut rig = Rig::new();
    let stranger = secret(5);
    rig.connect(stranger.public());
    let mut head = rig.head_here(b"question", 100);
    (head.author, head.route[0].channel) = (stranger.public(), types::ChannelId(99));
    let mut item = rig.item(&head, b"question");
    item.proof = sign_one(&stranger, &head);
    let frame = Frame::Request(wire::Request { payment: None, resent: true, requests: vec![item] });
    for _ in 0..64 {
        rig.frame(stranger.public(), frame.clone());
    }
    assert!(rig.disconnected.is_empty(), "it may be ahead of this node");
    rig.frame(stranger.public(), frame);
    assert!(rig.blames(stranger.public(), "not with this peer"));
    assert_eq!(rig.node.unfinished(), 0);
}

/// A peer that has read the chain first is not at fault: what it asks over a channel that this node does not
/// see yet is asked again when it does.
#[test]
fn a_request_over_a_channel_that_is_not_seen_yet_is_left_for_later() {
    let mut rig = Rig::new();
    let up = rig.up.public();
    let seen = rig.my_channels();
    let unseen: Vec<_> = seen.iter().filter(|info| info.channel != IN).cloned().collect();
    rig.node = Node::new(config(&rig.limits), Restored::default()).unwrap();
    rig.input(Input::Channels { channels: unseen.clone() });
    rig.graph();
    rig.serve(10);
    rig.connect(up);
    let head = rig.head_here(b"question", 100);
    let item = rig.item(&head, b"question");
    let payment = rig.payment(&[&head]);
    let ask = |payment, resent| {
        Frame::Request(wire::Request { payment: Some(payment), resent, requests: vec![item.clone()] })
    };
    rig.frame(up, ask(payment.clone(), false));
    rig.input(Input::Channels { channels: unseen });
    assert!(rig.disconnected.is_empty(), "{:?}", rig.events);
    assert_eq!(rig.node.unfinished(), 0);
    rig.input(Input::Channels { channels: seen });
    assert_eq!(rig.disconnected, [up], "to be told again");
    rig.connect_and(up, vec![ask(payment, true)]);
    assert_eq!(rig.node.unfinished(), 1);
    assert!(!rig.events.iter().any(|event| matches!(event, Event::Misbehaved { .. })));
}

/// The peer has lost the connection that this node still takes for good, and begins anew on another one.
#[test]
fn a_connection_that_the_peer_has_lost_is_left() {
    for up in (10..60).map(secret).take(8) {
        let mut rig = Rig::with(|rig| rig.up = up);
        let up = rig.up.public();
        let input = Input::Connected { peer: up, conn: ConnId(9), hello: hello(&rig) };
        rig.input(input);
        let sync = Sync { epoch: (1 << 32) + 1, complete: true, ..Sync::default() };
        rig.input(Input::Frame { peer: up, conn: ConnId(9), frame: Frame::Sync(sync) });
        rig.later(1_000);
        let begun = |(conn, frame): &(ConnId, Frame)| {
            *conn == ConnId(9) && matches!(frame, Frame::Sync(sync) if sync.answers == 0)
        };
        assert!(rig.over.iter().any(begun), "this node still speaks on a connection that is not there");
    }
}

/// Connections that were lost without a word do not keep a new one out.
#[test]
fn the_oldest_idle_connection_makes_room() {
    let mut rig = Rig::new();
    let up = rig.up.public();
    for conn in 10..40 {
        let input = Input::Connected { peer: up, conn: ConnId(conn), hello: hello(&rig) };
        rig.input(input);
        let sync = Sync { epoch: conn << 40, complete: true, ..Sync::default() };
        rig.input(Input::Frame { peer: up, conn: ConnId(conn), frame: Frame::Sync(sync) });
        let answered = rig.over.iter().any(|(to, frame)| {
            *to == ConnId(conn) && matches!(frame, Frame::Sync(sync) if sync.answers == conn << 40)
        });
        assert!(answered, "connection {conn} was refused");
    }
}

#[test]
fn exchange_numbers_and_epochs_never_repeat_across_restarts() {
    let mut rig = Rig::new();
    let (_, first) = rig.relayed(b"question", 100);
    let row = |((table, key), value): (&(Table, RowKey), &Vec<u8>)| Row {
        table: *table,
        key: key.clone(),
        value: value.clone(),
    };
    let rows = rig.rows.iter().map(row).collect();
    rig.node = Node::new(config(&rig.limits), Restored { rows }).unwrap();
    rig.uncommitted.clear();
    rig.sent.clear();
    rig.chain();
    let down = rig.down.public();
    rig.connect(down);
    let probe = syncs(rig.down_got())[0].epoch;
    assert!(probe > first.exchange.0, "{probe}");
    assert_eq!(probe >> 32, (first.exchange.0 >> 32) + 1);
}

/// After a new session a big body starts with the request that announces it, not with whatever comes next.
#[test]
fn a_big_body_that_is_sent_again_starts_at_once() {
    let mut rig = Rig::with(|rig| rig.terms.bytes_per_s = 1_000_000);
    let body = bytes::Bytes::from(vec![7; 90_000]);
    let head = rig.head(&body, 100);
    let down = rig.down.public();
    rig.input(Input::Command(Command::Request {
        token: 1,
        destination: down,
        app: "app".into(),
        body,
        response_limit: 100,
        server_price: Yocto(10),
        expires_ms: NOW + 60_000,
        graph_version: 5,
        route: vec![types::Hop { allowance_ms: 60_000, ..head.route[1].clone() }],
    }));
    let fragments =
        |rig: &mut Rig| rig.down_got().iter().filter(|frame| matches!(frame, Frame::Fragment(_))).count();
    assert!(fragments(&mut rig) > 0);
    rig.sent.clear();
    rig.reconnect(down);
    assert!(fragments(&mut rig) > 0);
}

/// An author that crashed does not know any more that its request was acknowledged: a rejection would end
/// it without a proof.
#[test]
fn who_asks_again_over_a_channel_that_was_severed_meanwhile_gets_the_order() {
    let mut rig = Rig::new();
    let up = rig.up.public();
    let head = rig.head_here(b"question", 100);
    let item = rig.item(&head, b"question");
    let payment = Some(rig.payment(&[&head]));
    let ask = |resent| {
        let (payment, requests) = (payment.clone(), vec![item.clone()]);
        Frame::Request(wire::Request { payment, resent, requests })
    };
    rig.up_sends(ask(false));
    assert_eq!(rig.node.unfinished(), 1);
    rig.input(Input::Command(Command::Sever { channel: IN }));
    assert_eq!(rig.node.unfinished(), 0);
    rig.reconnect(up);
    rig.sent.clear();
    rig.up_sends(ask(true));
    let told = rig.up_got().into_iter().find_map(|frame| match frame {
        Frame::Severed(severed) => Some(severed),
        Frame::Reject(_) => panic!("it may have been acknowledged"),
        _ => None,
    });
    let told = told.expect("the order");
    assert_eq!((told.order.statement.channel, told.items[0].exchange), (IN, item.exchange));
    assert_eq!(rig.node.unfinished(), 0);
}

/// A refund that was signed after the session's Sync, and whose rejection nobody waits for any more.
#[test]
fn a_payment_that_was_signed_before_the_session_is_open_is_told() {
    let mut rig = Rig::new();
    let body = vec![7; 40_000];
    let head = rig.head_here(&body, 100);
    let mut item = rig.item(&head, &body);
    item.body = None;
    let exchange = item.exchange;
    let payment = Some(rig.payment(&[&head]));
    rig.up_sends(Frame::Request(wire::Request { payment, resent: false, requests: vec![item] }));
    let up = rig.up.public();
    for conn in (1..=8).map(ConnId) {
        rig.input(Input::Disconnected { peer: up, conn });
    }
    let wait = |rig: &mut Rig| {
        rig.steps(45, 100);
        assert!(rig.disconnected.is_empty(), "{:?}", rig.events);
    };
    let done = Frame::Done(wire::Done { exchanges: vec![exchange], receipts: vec![] });
    rig.connect_with_and(up, wait, vec![done]);
    let refunded = rig.node.channel(IN).unwrap().totals.sent_b;
    assert_eq!(refunded, rig.paid_up, "given up");
    let told = rig.up_got().into_iter().any(|frame| match frame {
        Frame::Sync(sync) => sync
            .channels
            .iter()
            .flat_map(|channel| &channel.own)
            .any(|own| own.statement.totals.sent_b == refunded),
        _ => false,
    });
    assert!(told);
}
