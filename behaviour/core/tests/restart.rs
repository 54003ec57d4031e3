//! What a restart must not pay twice.

#[path = "support/rig.rs"]
mod rig;

use bytes::Bytes;
use por_core::types::{RequestId, Yocto};
use por_core::wire::{self, Frame};
use por_core::*;
use rig::*;

const LATE_FEE: Yocto = Yocto(2);
const BIG: usize = 40_000;

/// So long the end of an exchange waits for other writes at most.
const LAZY_MS: u64 = 20;

/// A new process from what is on disk, `ms` later, not yet connected.
fn restart(rig: &mut Rig, ms: u64) {
    let rows = rig.rows.iter().map(|((table, key), value)| Row {
        table: *table,
        key: key.clone(),
        value: value.clone(),
    });
    let restored = Restored { rows: rows.collect() };
    rig.node = Node::new(config(&rig.limits), restored).unwrap();
    rig.sent.clear();
    rig.later(ms);
    rig.chain();
    rig.input(Input::LateFee { per_ms: LATE_FEE });
    rig.serve(10);
}

fn last_incoming(rig: &Rig) -> RequestId {
    let find = |event: &Event| match event {
        Event::Incoming { request, .. } => Some(*request),
        _ => None,
    };
    rig.events.iter().rev().find_map(find).expect("with the app")
}

#[test]
fn a_response_that_is_made_again_after_a_crash_pays_its_lateness_once() {
    for small in [true, false] {
        // No sync comes in between.
        let mut rig =
            Rig::with(|rig| (rig.terms.bytes_per_s, rig.terms.heartbeat_ms) = (1_000_000, 1_000_000));
        rig.input(Input::LateFee { per_ms: LATE_FEE });
        let len = if small { 100 } else { BIG };
        let head = rig.head_here(b"question", len as u64);
        rig.ask(&head, b"question");
        let request = last_incoming(&rig);
        // Late, and paid for with the response.
        rig.later(900);
        let respond = || Input::Command(Command::Respond { request, body: Bytes::from(vec![7; len]) });
        rig.input(respond());
        let paid = rig.node.channel(IN).unwrap().totals.sent_b;
        assert!(paid > Yocto::ZERO);
        // Back at once: nothing more has become due.
        restart(&mut rig, 0);
        rig.connect_all();
        rig.input(respond());
        assert_eq!(rig.node.channel(IN).unwrap().totals.sent_b, paid, "small {small}");
    }
}

fn paid_up(rig: &Rig) -> Yocto {
    rig.node.channel(IN).unwrap().totals.sent_b
}

/// A request that waits here, late already, and paid for up to now at most.
fn overdue(heartbeat_ms: u32) -> Rig {
    let mut rig =
        Rig::with(|rig| (rig.terms.bytes_per_s, rig.terms.heartbeat_ms) = (1_000_000, heartbeat_ms));
    rig.input(Input::LateFee { per_ms: LATE_FEE });
    let head = rig.head_here(b"question", 100);
    rig.ask(&head, b"question");
    for _ in 0..9 {
        rig.later(100);
    }
    rig
}

#[test]
fn after_a_restart_syncs_keep_to_the_rhythm_of_the_terms() {
    let mut rig = overdue(100);
    let before = paid_up(&rig);
    assert!(before > Yocto::ZERO);
    // The process starts before it knows the chain.
    restart(&mut rig, 50);
    rig.connect_all();
    rig.later(100);
    assert!(paid_up(&rig) > before);
}

#[test]
fn a_sync_that_was_missed_is_made_up_for_when_the_session_is_open() {
    for starts_anew in [false, true] {
        let mut rig = overdue(2_000);
        for conn in (1..=8).map(ConnId) {
            let peer = rig.up.public();
            rig.input(Input::Disconnected { peer, conn });
        }
        // One sync is missed, the next one is far.
        for _ in 0..20 {
            rig.later(100);
        }
        if starts_anew {
            restart(&mut rig, 10);
        }
        let before = paid_up(&rig);
        let up = rig.up.public();
        rig.connect(up);
        rig.later(u64::from(2 * rig.terms.rtt_ms) + LAZY_MS);
        assert_eq!(paid_up(&rig), before, "the peer may say first what it has");
        rig.later(1);
        assert!(paid_up(&rig) > before, "starts anew: {starts_anew}");
    }
}

/// A small response has passed the node, which has crashed since; the edge it came over is gone.
fn passed_and_severed(rtt_ms: u32) -> (Rig, ExchangeId) {
    let mut rig = Rig::with(|rig| rig.terms.rtt_ms = rtt_ms);
    let mut head = rig.head(b"question", 100);
    head.route[1].allowance_ms += 10_000;
    let (id, exchange) = rig.ask(&head, b"question");
    let down = rig.down_got().into_iter().find_map(|frame| match frame {
        Frame::Request(request) => request.requests.into_iter().next(),
        _ => None,
    });
    let answer = rig.response(id, down.expect("passed on").exchange, b"answer");
    rig.respond(answer);
    assert_eq!(rig.responses_up_got().len(), 1);
    restart(&mut rig, 10);
    rig.gone.push(OUT);
    rig.chain();
    (rig, exchange)
}

fn proofs(rig: &mut Rig) -> usize {
    rig.up_got().iter().filter(|frame| matches!(frame, Frame::Severed(_))).count()
}

#[test]
fn an_answered_exchange_is_not_refunded_after_a_crash() {
    // However short the edge is, the end of the exchange may wait for other writes upstream.
    for (rtt_ms, told_ms) in [(100, 50), (1, LAZY_MS)] {
        let (mut rig, exchange) = passed_and_severed(rtt_ms);
        let up = rig.up.public();
        rig.connect(up);
        rig.later(told_ms);
        // It has the response, and says so when the session is open.
        rig.up_sends(Frame::Done(wire::Done { exchanges: vec![exchange], receipts: vec![] }));
        for _ in 0..50 {
            rig.later(100);
        }
        assert_eq!(rig.node.channel(IN).unwrap().totals.sent_b, Yocto::ZERO, "nothing was refunded");
        assert_eq!((proofs(&mut rig), rig.node.unfinished()), (0, 0));
    }
}

#[test]
fn an_exchange_that_upstream_still_waits_for_is_refunded_after_a_crash() {
    let (mut rig, _) = passed_and_severed(100);
    let up = rig.up.public();
    rig.connect(up);
    for _ in 0..50 {
        rig.later(100);
    }
    assert!(rig.node.channel(IN).unwrap().totals.sent_b > Yocto::ZERO);
    assert_eq!(proofs(&mut rig), 1);
}
