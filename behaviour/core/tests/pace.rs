//! Whose time it is while a body is under way: slow and abandoned uploads, withheld credit.

#[path = "support/rig.rs"]
mod rig;

use std::ops::Range;

use bytes::Bytes;
use por_core::types::{InvalidReason, RequestHead, RequestId, SeverReason, Yocto};
use por_core::verified::Encoder;
use por_core::wire::{self, Credit, Fragment, Frame, Part};
use por_core::{ConnId, ExchangeId, Input, RejectReason};
use rig::*;

const LATE_FEE: Yocto = Yocto(2);

/// Past every deadline of a request over one more edge.
const LONG_MS: u64 = 600_000;

fn slow() -> Rig {
    let mut rig = Rig::with(|rig| {
        rig.terms.bytes_per_s = 100_000;
        rig.limits.window = 64 << 10;
    });
    rig.input(Input::LateFee { per_ms: LATE_FEE });
    rig
}

fn body() -> Bytes {
    (0..200_000u32).map(|i| i as u8).collect()
}

/// `up` announces a request whose body follows.
fn announce(rig: &mut Rig, head: &RequestHead, body: &[u8]) -> ExchangeId {
    let mut item = rig.item(head, body);
    item.body = None;
    let exchange = item.exchange;
    let payment = Some(rig.payment(&[head]));
    rig.up_sends(Frame::Request(wire::Request { payment, resent: false, requests: vec![item] }));
    exchange
}

/// `up` sends the part of the body's stream from one position to another.
fn upload(rig: &mut Rig, body: &Bytes, exchange: ExchangeId, from: u64, to: u64) {
    let encoder = Encoder::new(body.clone());
    let mut offset = from;
    while offset < to {
        let data = encoder.read(offset, to - offset);
        let len = data.len() as u64;
        let part = Part::RequestBody;
        rig.up_sends(Frame::Fragment(Fragment { exchange, part, offset, data }));
        offset += len;
    }
}

fn paid_late(frames: &[Frame]) -> u128 {
    let items =
        frames.iter().filter_map(|frame| if let Frame::Late(late) = frame { Some(late) } else { None });
    items.flat_map(|late| &late.items).map(|item| item.amount.0).sum()
}

/// `down` acknowledges what was passed on to it.
fn acknowledge(rig: &mut Rig) {
    rig.acknowledge(true);
}

/// A request for so long an answer that was passed on and acknowledged: its id, and its exchanges with `up` and `down`.
fn relayed(rig: &mut Rig, len: usize) -> (RequestId, ExchangeId, ExchangeId) {
    let mut head = rig.head(b"question", len as u64);
    head.route[1].allowance_ms += 1_000;
    let (id, up) = rig.ask(&head, b"question");
    let down = rig.passed_on();
    rig.acknowledge(true);
    (id, up, down)
}

/// The peers are there, whatever else they do not do.
fn pass(rig: &mut Rig, ms: u64) {
    for _ in 0..ms / 500 {
        rig.later(500);
        rig.alive();
        rig.up_takes_proofs();
    }
}

#[test]
fn an_abandoned_upload_is_declined_with_the_refund() {
    let mut rig = slow();
    let body = body();
    let head = rig.head_here(&body, 100);
    let exchange = announce(&mut rig, &head, &body);
    upload(&mut rig, &body, exchange, 0, 20_000);
    pass(&mut rig, 2_000);
    assert!(rig.rejection().is_none(), "not yet");
    pass(&mut rig, 20_000);
    let frames = rig.up_got();
    let rejection = frames.iter().find_map(|frame| match frame {
        Frame::Reject(reject) => reject.rejections.first(),
        _ => None,
    });
    let rejection = rejection.expect("dropped");
    assert_eq!(rejection.reason, RejectReason::Abandoned);
    let proof = rejection.invalid.as_ref().expect("signed");
    assert_eq!(proof.statement.reason, InvalidReason::Refused);
    assert_eq!(paid_late(&frames), 0);
    let snapshot = rig.node.channel(IN).unwrap();
    assert_eq!(snapshot.totals.sent_a, snapshot.totals.sent_b, "refunded whole");
}

#[test]
fn an_upload_slower_than_promised_costs_a_relay_nothing() {
    let mut rig = slow();
    let body = body();
    let mut head = rig.head(&body, 100);
    head.route[1].allowance_ms += 1_000;
    let exchange = announce(&mut rig, &head, &body);
    acknowledge(&mut rig);
    let (mut sent, most) = (0, 60_000);
    // A little now and then, far below what the terms promise, and always with credit left.
    while sent < most {
        upload(&mut rig, &body, exchange, sent, sent + 2_000);
        sent += 2_000;
        pass(&mut rig, LONG_MS / 30);
    }
    assert_eq!(paid_late(&rig.up_got()), 0);
    assert!(rig.orders.is_empty(), "{:?}", rig.orders);
}

#[test]
fn who_downstream_takes_no_body_is_paid_late_for_and_severed() {
    let mut rig = slow();
    let body = body();
    let mut head = rig.head(&body, 100);
    head.route[1].allowance_ms += 1_000;
    let exchange = announce(&mut rig, &head, &body);
    // All that the node has given credit for; `down` takes the first window, and nothing more.
    upload(&mut rig, &body, exchange, 0, 64 << 10);
    acknowledge(&mut rig);
    let granted = rig.up_got().iter().rev().find_map(|frame| match frame {
        Frame::Credit(credit) => Some(credit.up_to),
        _ => None,
    });
    upload(&mut rig, &body, exchange, 64 << 10, granted.expect("credit"));
    pass(&mut rig, LONG_MS / 10);
    assert!(paid_late(&rig.up_got()) > 0, "the node is under obligation");
    assert_eq!(rig.orders.len(), 1, "and severs who does not take the body");
}

#[test]
fn who_takes_payments_and_does_not_counter_sign_them_is_severed() {
    for signs in [true, false] {
        let mut rig = slow();
        let mut head = rig.head(b"question", 100);
        head.route[1].allowance_ms += LONG_MS;
        rig.ask(&head, b"question");
        rig.acknowledge(signs);
        pass(&mut rig, LONG_MS / 10);
        let reasons: Vec<_> = rig.orders.iter().map(|order| order.statement.reason).collect();
        let expected = if signs { vec![] } else { vec![SeverReason::Disagreement] };
        assert_eq!(reasons, expected);
    }
}

/// A relayed request of which the whole answer has come: late, and it was paid for.
fn answered_late(rig: &mut Rig, answer: &Bytes) -> (ExchangeId, ExchangeId) {
    let (id, up, down) = relayed(rig, answer.len());
    pass(rig, 3_500);
    let mut item = rig.response(id, down, answer);
    item.body = None;
    rig.respond(item);
    let encoder = Encoder::new(answer.clone());
    let mut offset = 0;
    while offset < encoder.len() {
        let data = encoder.read(offset, encoder.len() - offset);
        let fragment = Fragment { exchange: down, part: Part::ResponseBody, offset, data };
        offset += fragment.data.len() as u64;
        rig.down_sends(Frame::Fragment(fragment));
    }
    let frames = rig.up_got();
    assert!(paid_late(&frames) > 0, "late");
    let passed = frames.iter().map(|frame| match frame {
        Frame::Fragment(fragment) => fragment.data.len() as u64,
        _ => 0,
    });
    assert_eq!(passed.sum::<u64>(), encoder.len(), "passed on whole");
    (up, down)
}

#[test]
fn an_answer_that_was_passed_on_whole_is_not_late_any_more() {
    let mut rig = slow();
    let answer = body().slice(..40_000);
    answered_late(&mut rig, &answer);
    // Further up somebody is away: the upstream node cannot say Done yet.
    pass(&mut rig, 4_000);
    assert_eq!(paid_late(&rig.up_got()), 0);
    assert!(rig.orders.is_empty(), "{:?}", rig.orders);
}

#[test]
fn an_answer_that_has_to_come_again_is_owed_again_on_both_edges() {
    let mut rig = slow();
    let answer = body().slice(..40_000);
    let (exchange, _) = answered_late(&mut rig, &answer);
    let up = rig.up.public();
    rig.reconnect(up);
    let root = Encoder::new(answer).root();
    let (part, up_to) = (Part::ResponseBody, 64 << 10);
    rig.up_sends(Frame::Credit(wire::Credit { exchange, part, body: root, up_to, from: Some(0) }));
    let asked = rig.down_got().iter().any(|frame| matches!(frame, Frame::Credit(c) if c.from == Some(0)));
    assert!(asked, "the body is needed once more");
    // The downstream node has gone.
    for _ in 0..20 {
        rig.later(500);
        rig.up_takes_proofs();
    }
    assert_eq!(rig.orders.len(), 1, "{:?}", rig.orders);
    assert_eq!(rig.orders[0].statement.channel, OUT);
    let frames = rig.up_got();
    let severed = frames.iter().any(|frame| matches!(frame, Frame::Severed(_)));
    assert!(severed && paid_late(&frames) > 0);
}

#[test]
fn nobody_is_late_with_what_upstream_is_not_there_to_take() {
    let mut rig = slow();
    let answer = body();
    let (id, _, exchange) = relayed(&mut rig, answer.len());
    // A little late by now.
    pass(&mut rig, 4_500);
    let mut item = rig.response(id, exchange, &answer);
    item.body = None;
    rig.respond(item);
    // The upstream node goes, and has credit left for all that comes: as much as `down` has credit for.
    let up = rig.up.public();
    for conn in (1..=8).map(ConnId) {
        rig.input(Input::Disconnected { peer: up, conn });
    }
    first_window(&mut rig, exchange, &answer);
    pass(&mut rig, 10_000);
    let severed: Vec<_> = rig.orders.iter().map(|order| order.statement.channel).collect();
    assert_eq!(severed, [IN], "and not who has sent all that it has credit for");
}

#[test]
fn who_has_to_send_an_answer_once_more_has_the_time_for_it() {
    let mut rig = slow();
    let answer = body();
    let (id, up_exchange, exchange) = relayed(&mut rig, answer.len());
    let mut item = rig.response(id, exchange, &answer);
    item.body = None;
    rig.respond(item);
    first_window(&mut rig, exchange, &answer);
    // Late, but not for long.
    pass(&mut rig, 5_000);
    assert!(rig.orders.is_empty(), "{:?}", rig.orders);
    let up = rig.up.public();
    rig.reconnect(up);
    let root = Encoder::new(answer).root();
    let (part, up_to) = (Part::ResponseBody, 64 << 10);
    let credit = wire::Credit { exchange: up_exchange, part, body: root, up_to, from: Some(0) };
    rig.up_sends(Frame::Credit(credit));
    let asked = rig.down_got().iter().any(|frame| matches!(frame, Frame::Credit(c) if c.from == Some(0)));
    assert!(asked, "upstream has lost what it had");
    pass(&mut rig, 3_000);
    assert!(rig.orders.is_empty(), "{:?}", rig.orders);
    pass(&mut rig, 6_000);
    let severed: Vec<_> = rig.orders.iter().map(|order| order.statement.channel).collect();
    assert_eq!(severed, [OUT], "but no more than that");
}

/// `down` sends as much of an answer as it has credit for at first.
fn first_window(rig: &mut Rig, exchange: ExchangeId, answer: &Bytes) {
    send_window(rig, exchange, answer, 0..u64::from(rig.limits.window));
}

/// `down` sends this part of the answer's stream.
fn send_window(rig: &mut Rig, exchange: ExchangeId, answer: &Bytes, part: Range<u64>) {
    let (encoder, mut offset) = (Encoder::new(answer.clone()), part.start);
    while offset < part.end {
        let data = encoder.read(offset, part.end - offset);
        let fragment = Fragment { exchange, part: Part::ResponseBody, offset, data };
        offset += fragment.data.len() as u64;
        rig.down_sends(Frame::Fragment(fragment));
    }
}

/// A small credit of upstream's makes the next node send a whole window again: not as often as it likes.
#[test]
fn a_body_is_not_sent_from_its_start_again_and_again() {
    let mut rig = Rig::with(|rig| {
        rig.terms.bytes_per_s = 1_000_000;
        // Nobody is in breach while this goes on.
        (rig.terms.heartbeat_ms, rig.terms.grace_ms) = (60_000, 60_000);
    });
    let (id, request) = rig.relayed(b"question", 100_000);
    rig.acknowledge_item(request.exchange);
    let body = bytes::Bytes::from(vec![7; 90_000]);
    let encoder = Encoder::new(body.clone());
    let mut item = rig.response(id, request.exchange, &body);
    item.body = None;
    rig.respond(item);
    let mut asked = 0;
    for _ in 0..100 {
        let mut offset = 0;
        while offset < 64 << 10 && rig.disconnected.is_empty() {
            let data = encoder.read(offset, (64 << 10) - offset);
            let len = data.len() as u64;
            let fragment = Fragment { exchange: request.exchange, part: Part::ResponseBody, offset, data };
            rig.down_sends(Frame::Fragment(fragment));
            offset += len;
        }
        rig.sent.clear();
        let (part, body) = (Part::ResponseBody, encoder.root());
        let again = Credit { exchange: ExchangeId(1), part, body, up_to: 1, from: Some(0) };
        rig.up_sends(Frame::Credit(again));
        let again = |frame: &Frame| matches!(frame, Frame::Credit(credit) if credit.from == Some(0));
        asked += rig.down_got().iter().filter(|frame| again(frame)).count();
    }
    assert!(asked <= 16, "{asked} times");
    let up = rig.up.public();
    assert!(rig.blames(up, "again and again"));
    assert!(!rig.disconnected.contains(&rig.down.public()));
    // Refused is not lost: after a while it is asked for once more.
    rig.reconnect(up);
    rig.later(11_000);
    assert!(rig.orders.is_empty());
    rig.sent.clear();
    let (part, body) = (Part::ResponseBody, encoder.root());
    let again = Credit { exchange: ExchangeId(1), part, body, up_to: 1, from: Some(0) };
    rig.up_sends(Frame::Credit(again));
    let again = |frame: &Frame| matches!(frame, Frame::Credit(credit) if credit.from == Some(0));
    assert!(rig.down_got().iter().any(again), "it would wait for ever");
}

/// A relay that has begun to pass on an answer for which `up` gives no more credit: the time until it severs `up`,
/// milliseconds, with a restart in between.
fn bears(restarts_at_ms: Option<u64>) -> u64 {
    let mut rig = Rig::with(|rig| rig.terms.bytes_per_s = 1_000_000);
    let answer = body();
    let (id, _, exchange) = relayed(&mut rig, answer.len());
    let send = |rig: &mut Rig| {
        rig.respond(wire::ResponseItem { body: None, ..rig.response(id, exchange, &answer) });
        first_window(rig, exchange, &answer);
        // All of it leaves, and the next window stays.
        let peer = rig.up.public();
        loop {
            let frames = rig.up_got();
            let fragments = frames.iter().filter_map(|frame| match frame {
                Frame::Fragment(fragment) => Some(fragment.data.len() as u64),
                _ => None,
            });
            let bytes = fragments.sum();
            (1..=8).map(ConnId).for_each(|conn| rig.input(Input::Drained { peer, conn, bytes }));
            if bytes == 0 {
                break;
            }
        }
        let credits = rig.down_got().into_iter().filter_map(|frame| match frame {
            Frame::Credit(credit) => Some(credit.up_to),
            _ => None,
        });
        let up_to = credits.max().expect("credit for what has left");
        send_window(rig, exchange, &answer, u64::from(rig.limits.window)..up_to);
    };
    send(&mut rig);
    for ms in (0..LONG_MS).step_by(500) {
        if Some(ms) == restarts_at_ms {
            rig.restart();
            rig.later(0);
            rig.chain();
            let (up, down) = (rig.up.public(), rig.down.public());
            rig.connect(up);
            let body_bytes = Encoder::new(Bytes::from_static(b"question")).len();
            rig.known =
                vec![wire::SyncExchange { exchange, request: id, acked: true, body_bytes, credit: 0 }];
            rig.connect(down);
            send(&mut rig);
        }
        pass(&mut rig, 500);
        if let Some(order) = rig.orders.first() {
            assert_eq!((order.statement.channel, order.statement.reason), (IN, SeverReason::NoAck));
            return ms;
        }
    }
    panic!("for ever")
}

/// The node after it does not begin anew, and would find it at fault.
#[test]
fn a_relay_that_restarts_bears_an_answer_that_is_not_taken_for_no_longer() {
    let bears_ms = bears(None);
    let beat_ms = u64::from(terms().heartbeat_ms);
    let with_restart_ms = bears(Some(bears_ms / 1_000 * 500));
    assert!(with_restart_ms.abs_diff(bears_ms) <= 2 * beat_ms, "{with_restart_ms} of {bears_ms} ms");
}
