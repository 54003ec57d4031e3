//! A node whose disk hangs, or whose process stands still, does not blame others for what it has not read.

#[path = "support/rig.rs"]
mod rig;

use por_core::types::{SeverReason, Yocto};
use por_core::verified::Encoder;
use por_core::*;
use rig::*;

/// Heartbeat, grace and margin, and the round trip.
const LIMIT_MS: u64 = 3_100;

fn reasons(rig: &Rig) -> Vec<(types::ChannelId, SeverReason)> {
    rig.orders.iter().map(|order| (order.statement.channel, order.statement.reason)).collect()
}

/// Nothing is severed for a stall, and for silence after it as ever.
fn check(mut rig: Rig, channel: types::ChannelId, reason: SeverReason) {
    rig.stall(20_000);
    rig.later(LIMIT_MS / 2);
    assert_eq!(reasons(&rig), [], "{reason:?}");
    for _ in 0..200 {
        rig.later(100);
        if !rig.orders.is_empty() {
            break;
        }
    }
    assert_eq!(reasons(&rig), [(channel, reason)]);
}

#[test]
fn silence() {
    let mut rig = Rig::new();
    rig.ask_through(b"question", 100);
    check(rig, OUT, SeverReason::MissedSync);
}

#[test]
fn acks() {
    let mut rig = Rig::new();
    rig.ask_through(b"question", 100);
    rig.stall(20_000);
    rig.alive();
    rig.later(1_000);
    assert_eq!(reasons(&rig), []);
    for _ in 0..40 {
        rig.later(100);
        rig.alive();
    }
    assert_eq!(reasons(&rig), [(OUT, SeverReason::NoAck)]);
}

#[test]
fn lateness() {
    let mut rig = Rig::new();
    rig.input(Input::LateFee { per_ms: Yocto(1) });
    let (_, item) = rig.relayed(b"question", 100);
    rig.acknowledge_item(item.exchange);
    rig.stall(60_000);
    rig.alive();
    rig.later(1_000);
    assert_eq!(reasons(&rig), []);
    for _ in 0..100 {
        rig.later(100);
        rig.alive();
    }
    assert!(reasons(&rig).contains(&(OUT, SeverReason::UnpaidLateness)), "{:?}", reasons(&rig));
}

#[test]
fn absence() {
    let mut rig = Rig::new();
    let mut head = rig.head_here(b"question", 100);
    head.route[0].allowance_ms += 100_000;
    rig.ask(&head, b"question");
    let up = rig.up.public();
    for conn in (1..=8).map(ConnId) {
        rig.input(Input::Disconnected { peer: up, conn });
    }
    check(rig, IN, SeverReason::MissedSync);
}

/// A process that stands still for less than is tolerated reads what has come meanwhile before it looks: others
/// have used up what they are granted.
#[test]
fn short_ones() {
    let mut rig = Rig::new();
    let (_, item) = rig.relayed(b"question", 100);
    rig.acknowledge_item(item.exchange);
    rig.steps(27, 100);
    rig.later(900);
    rig.alive();
    rig.later(100);
    assert_eq!(reasons(&rig), [], "what came meanwhile counts");
    rig.steps(27, 100);
    rig.later(900);
    rig.later(100);
    assert_eq!(reasons(&rig).len(), 1, "nothing came");
}

/// One whose policy severs as soon as an answer is late looks whether it has come meanwhile.
#[test]
fn impatience() {
    let mut rig = Rig::new();
    let policy = Policy { patience: Patience::AfterMs(0), ..Policy::default() };
    rig.node = Node::new(CoreConfig { policy, ..config(&rig.limits) }, Restored::default()).unwrap();
    rig.uncommitted.clear();
    rig.chain();
    rig.connect_all();
    let (id, item) = rig.relayed(b"question", 100);
    rig.acknowledge_item(item.exchange);
    rig.stall(60_000);
    assert_eq!(reasons(&rig), []);
    let response = rig.response(id, item.exchange, b"answer");
    rig.down_sends(wire::Frame::Response(wire::Response {
        payment: None,
        resent: false,
        responses: vec![response],
    }));
    rig.later(10_000);
    assert_eq!(reasons(&rig), []);
    assert!(rig.up_got().iter().any(|frame| matches!(frame, wire::Frame::Response(_))));
}

fn lose_all(rig: &mut Rig) {
    for peer in [rig.up.public(), rig.down.public()] {
        for conn in (1..=100).map(ConnId) {
            rig.input(Input::Disconnected { peer, conn });
        }
    }
}

/// Without any connection it is this node that cannot be reached, though it has asked one neighbour alone.
#[test]
fn outages() {
    let mut rig = Rig::new();
    rig.ask_through(b"question", 100);
    lose_all(&mut rig);
    rig.steps(60, 100);
    assert_eq!(reasons(&rig), []);
    rig.connect_all();
    rig.steps(20, 100);
    assert_eq!(reasons(&rig), [], "it has no more than been asked again");
    rig.steps(40, 100);
    assert_eq!(reasons(&rig)[0], (OUT, SeverReason::MissedSync));
}

#[test]
fn outages_end() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask_own(10), None);
    lose_all(&mut rig);
    rig.steps(130, 100);
    assert!(reasons(&rig).contains(&(OUT, SeverReason::MissedSync)), "{:?}", reasons(&rig));
}

/// Nobody hides behind that by coming and going.
#[test]
fn outages_count_once_a_minute() {
    let mut rig = Rig::new();
    rig.ask_through(b"question", 100);
    let mut passed = 0;
    while rig.orders.is_empty() {
        lose_all(&mut rig);
        rig.later(1_100);
        rig.connect_all();
        rig.later(900);
        passed += 2_000;
        assert!(passed < 20_000, "never severed");
    }
    assert_eq!(reasons(&rig)[0], (OUT, SeverReason::NoAck));
}

/// A disk that hangs now and then hides nobody: what the node does hear of counts.
#[test]
fn stalls_that_come_again_and_again() {
    let mut rig = Rig::new();
    rig.ask_through(b"question", 100);
    for _ in 0..20 {
        rig.stall(1_500);
        rig.steps(15, 100);
    }
    assert_eq!(reasons(&rig)[0], (OUT, SeverReason::MissedSync));
}

/// Nor do outages, where the terms leave more time than there is between two that are excused.
#[test]
fn outages_are_excused_for_as_long_as_they_take() {
    let mut rig = Rig::with(|rig| (rig.terms.heartbeat_ms, rig.terms.grace_ms) = (60_000, 30_000));
    rig.ask_through(b"question", 100);
    for _ in 0..10 {
        lose_all(&mut rig);
        rig.later(1_100);
        rig.connect_all();
        rig.later(60_000);
    }
    assert_eq!(reasons(&rig)[0], (OUT, SeverReason::NoAck));
}

/// Of an upload that is slow the time before a stall stays upstream's.
#[test]
fn what_upstream_took_before_counts() {
    let mut rig = Rig::with(|rig| (rig.terms.bytes_per_s, rig.terms.heartbeat_ms) = (1_000_000, 1_000_000));
    rig.input(Input::LateFee { per_ms: Yocto(1) });
    let body = vec![7; 40_000];
    let head = rig.head_here(&body, 100);
    let mut item = rig.item(&head, &body);
    let (exchange, _) = (item.exchange, item.body.take());
    let payment = Some(rig.payment(&[&head]));
    rig.up_sends(wire::Frame::Request(wire::Request { payment, resent: false, requests: vec![item] }));
    rig.later(5_000);
    rig.stall(2_000);
    let encoder = Encoder::new(body.into());
    let mut offset = 0;
    while !encoder.read(offset, 1).is_empty() {
        let data = encoder.read(offset, u64::MAX - offset);
        let (part, len) = (wire::Part::RequestBody, data.len() as u64);
        rig.up_sends(wire::Frame::Fragment(wire::Fragment { exchange, part, offset, data }));
        offset += len;
    }
    let request = head.id(&network());
    rig.input(Input::Command(Command::Respond { request, body: b"answer".as_slice().into() }));
    let paid = rig.node.channel(IN).unwrap().totals.sent_b;
    assert!(paid <= Yocto(2_100), "{paid}");
}

/// Also if the clock is looked at a moment later than planned.
#[test]
fn the_application_is_told_that_an_answer_is_late() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask_own(10), None);
    rig.acknowledge(true);
    for _ in 0..610 {
        rig.later(101);
        rig.alive();
    }
    assert!(rig.events.iter().any(|event| matches!(event, Event::Overdue { .. })), "{:?}", rig.events);
}

/// Each write takes longer than the margin: the node hears others in between, and may say so.
#[test]
fn a_disk_that_is_always_slow() {
    let mut rig = Rig::new();
    rig.ask_through(b"question", 100);
    for _ in 0..20 {
        // Taken in at its start; the clock is looked at on the way.
        rig.later(700);
        rig.slept(500);
    }
    assert_eq!(reasons(&rig)[0], (OUT, SeverReason::MissedSync));
}

/// What it takes until a node that has started is connected for the first time is not such an outage.
#[test]
fn an_outage_after_a_slow_start() {
    let mut rig = Rig::new();
    rig.node = Node::new(config(&rig.limits), Restored::default()).unwrap();
    rig.uncommitted.clear();
    rig.chain();
    rig.later(5_000);
    rig.connect_all();
    rig.ask_through(b"question", 100);
    lose_all(&mut rig);
    rig.steps(60, 100);
    rig.connect_all();
    rig.steps(20, 100);
    assert_eq!(reasons(&rig), []);
}
