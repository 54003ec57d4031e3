//! Whose time it is while a body is under way: slow and abandoned uploads, withheld credit.

#[path = "support/rig.rs"]
mod rig;

use bytes::Bytes;
use por_core::types::{InvalidReason, RequestHead, SeverReason, Yocto};
use por_core::verified::Encoder;
use por_core::wire::{self, Frame, Part};
use por_core::{ExchangeId, Input, RejectReason};
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
        rig.up_sends(Frame::Fragment(wire::Fragment { exchange, part, offset, data }));
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
