//! Upstream nodes that cannot be reached or do not take an answer.

#[path = "support/rig.rs"]
mod rig;

use por_core::types::{RequestId, SeverReason};
use por_core::wire::{self, Frame, Part};
use por_core::*;
use rig::*;

/// Heartbeat, grace and margin: longer than that nobody's absence is borne.
const LIMIT_MS: u64 = 3_000;

fn incoming(rig: &Rig) -> RequestId {
    let find = |event: &Event| match event {
        Event::Incoming { request, .. } => Some(*request),
        _ => None,
    };
    rig.events.iter().rev().find_map(find).expect("with the app")
}

/// A request that was answered here.
fn answered(rig: &mut Rig, len: usize) -> ExchangeId {
    let mut head = rig.head_here(b"question", len as u64);
    head.route[0].allowance_ms += 1_000;
    let (_, exchange) = rig.ask(&head, b"question");
    let request = incoming(rig);
    rig.input(Input::Command(Command::Respond { request, body: vec![7; len].into() }));
    exchange
}

fn leave(rig: &mut Rig) {
    let peer = rig.up.public();
    for conn in (1..=8).map(ConnId) {
        rig.input(Input::Disconnected { peer, conn });
    }
}

fn pass(rig: &mut Rig, ms: u64) {
    for _ in 0..ms / 100 {
        rig.later(100);
    }
}

fn reasons(rig: &Rig) -> Vec<(types::ChannelId, SeverReason)> {
    rig.orders.iter().map(|order| (order.statement.channel, order.statement.reason)).collect()
}

#[test]
fn who_is_away_for_longer_than_is_borne_is_severed_and_nothing_is_kept_for_it() {
    for answers in [true, false] {
        let mut rig = Rig::new();
        if answers {
            answered(&mut rig, 100);
        } else {
            let mut head = rig.head_here(b"question", 100);
            head.route[0].allowance_ms += 100_000;
            rig.ask(&head, b"question");
        }
        leave(&mut rig);
        pass(&mut rig, LIMIT_MS - 200);
        assert_eq!(reasons(&rig), [], "not yet");
        pass(&mut rig, 2_000);
        assert_eq!(reasons(&rig), [(IN, SeverReason::MissedSync)]);
        assert_eq!(rig.node.unfinished(), 0);
    }
}

#[test]
fn who_comes_back_in_time_is_not_severed_and_absences_add_up() {
    let mut rig = Rig::new();
    answered(&mut rig, 100);
    let up = rig.up.public();
    for _ in 0..2 {
        leave(&mut rig);
        pass(&mut rig, LIMIT_MS / 2 - 200);
        rig.connect(up);
        pass(&mut rig, 500);
    }
    assert_eq!(reasons(&rig), []);
    leave(&mut rig);
    pass(&mut rig, LIMIT_MS / 2);
    assert_eq!(reasons(&rig), [(IN, SeverReason::MissedSync)]);
}

#[test]
fn a_relay_tells_the_next_node_that_nobody_waits_any_more() {
    let mut rig = Rig::new();
    let (_, item) = rig.relayed(b"question", 100);
    rig.acknowledge_item(item.exchange);
    leave(&mut rig);
    for _ in 0..(LIMIT_MS + 2_000) / 100 {
        rig.later(100);
        rig.alive();
    }
    assert_eq!(reasons(&rig), [(IN, SeverReason::MissedSync)]);
    let done = rig.down_got().into_iter().any(|frame| match frame {
        Frame::Done(done) => done.exchanges.contains(&item.exchange),
        _ => false,
    });
    assert!(done, "the next node is released");
    assert_eq!(rig.node.unfinished(), 0);
}

#[test]
fn who_is_cut_off_itself_bears_it_longer() {
    let mut rig = Rig::new();
    answered(&mut rig, 100);
    leave(&mut rig);
    let peer = rig.down.public();
    for conn in (1..=8).map(ConnId) {
        rig.input(Input::Disconnected { peer, conn });
    }
    pass(&mut rig, 3 * LIMIT_MS);
    assert_eq!(reasons(&rig), []);
    let withheld = |event: &&Event| matches!(event, Event::SeverWithheld { .. });
    assert_eq!(rig.events.iter().filter(withheld).count(), 1, "not with each heartbeat");
    pass(&mut rig, 2 * LIMIT_MS);
    assert_eq!(reasons(&rig), [(IN, SeverReason::MissedSync)], "but not for ever");
}

#[test]
fn own_downtime_is_nobodys_absence() {
    let mut rig = Rig::new();
    answered(&mut rig, 100);
    rig.restart();
    // An hour later; the peers come back one after the other.
    rig.later(3_600_000);
    rig.chain();
    assert_eq!(rig.node.unfinished(), 1);
    let (up, down) = (rig.up.public(), rig.down.public());
    rig.connect(down);
    pass(&mut rig, 2 * LIMIT_MS);
    rig.connect(up);
    pass(&mut rig, LIMIT_MS);
    assert_eq!(reasons(&rig), []);
}

/// Passes a body on to `up` as far as it gives credit, and answers how much came.
fn taken(rig: &mut Rig, exchange: ExchangeId, credit: bool) -> u64 {
    let mut end = 0;
    for frame in rig.up_got() {
        let Frame::Fragment(fragment) = frame else { continue };
        end = fragment.offset + fragment.data.len() as u64;
        let peer = rig.up.public();
        for conn in (1..=8).map(ConnId) {
            rig.input(Input::Drained { peer, conn, bytes: fragment.data.len() as u64 });
        }
    }
    if credit && end > 0 {
        let body = types::Hash(*blake3::hash(&[7; BIG]).as_bytes());
        let (part, up_to) = (Part::ResponseBody, end + (64 << 10));
        rig.up_sends(Frame::Credit(wire::Credit { exchange, part, body, up_to, from: None }));
    }
    end
}

const BIG: usize = 300_000;

#[test]
fn who_gives_no_credit_for_a_response_is_severed_and_who_does_is_not() {
    for gives in [true, false] {
        let mut rig = Rig::with(|rig| rig.terms.bytes_per_s = 1_000_000);
        let exchange = answered(&mut rig, BIG);
        let mut most = 0;
        for _ in 0..60 {
            most = most.max(taken(&mut rig, exchange, gives));
            pass(&mut rig, 500);
            if gives && most >= BIG as u64 {
                rig.up_sends(Frame::Done(wire::Done { exchanges: vec![exchange], receipts: vec![] }));
            }
        }
        let expected = if gives { vec![] } else { vec![(IN, SeverReason::NoAck)] };
        assert_eq!(reasons(&rig), expected, "{most} bytes");
        assert_eq!(rig.node.unfinished(), 0);
    }
}

#[test]
fn who_never_says_that_it_has_a_response_is_severed() {
    let mut rig = Rig::new();
    answered(&mut rig, 100);
    pass(&mut rig, LIMIT_MS);
    assert_eq!(reasons(&rig), [], "nodes further up may take their time");
    pass(&mut rig, 10_000);
    assert_eq!(reasons(&rig), [(IN, SeverReason::NoAck)]);
}

#[test]
fn a_look_that_comes_late_reads_what_has_come_first() {
    // When upstream has not taken the answer for too long.
    let untaken = |rig: &mut Rig, ms: u64| {
        (0..ms / 100).find(|_| {
            rig.later(100);
            !rig.orders.is_empty()
        })
    };
    let mut rig = Rig::new();
    answered(&mut rig, 100);
    let steps = untaken(&mut rig, 100_000).expect("severed at last");
    assert_eq!(reasons(&rig), [(IN, SeverReason::NoAck)]);
    for comes in [true, false] {
        let mut rig = Rig::new();
        let exchange = answered(&mut rig, 100);
        assert_eq!(untaken(&mut rig, 100 * steps), None);
        // Held up, for less than counts as a stall.
        rig.later(600);
        if comes {
            rig.up_sends(Frame::Done(wire::Done { exchanges: vec![exchange], receipts: vec![] }));
        }
        pass(&mut rig, 2_000);
        let expected = if comes { vec![] } else { vec![(IN, SeverReason::NoAck)] };
        assert_eq!(reasons(&rig), expected);
    }
    // A machine that is always held up blames somebody all the same.
    let mut rig = Rig::new();
    answered(&mut rig, 100);
    (0..100_000 / 700).for_each(|_| rig.later(700));
    assert_eq!(reasons(&rig), [(IN, SeverReason::NoAck)]);
}
