//! What a hostile downstream peer can send back, and what a store can come back as.

#[path = "support/rig.rs"]
mod rig;

use por_core::types::{ChannelId, Hash, Invalid, InvalidReason, Yocto};
use por_core::verified::Encoder;
use por_core::wire::{self, Frame, Part, Rejection, ResponseItem, Sync, SyncChannel, SyncExchange};
use por_core::*;
use rig::*;

#[test]
fn a_response_forged_by_a_relay_is_stopped_at_the_next_hop() {
    let mut rig = Rig::new();
    let (id, request) = rig.relayed(b"question", 100);
    let mut item = rig.response(id, request.exchange, b"forged");
    item.receipt.proof = sign_one(&rig.up, &item.receipt.receipt);
    rig.respond(item);
    assert!(rig.blames(rig.down.public(), "not signed by the destination"));
    assert!(rig.responses_up_got().is_empty());
    assert_eq!(rig.node.unfinished(), 1, "the exchange stays open");
}

#[test]
fn a_response_to_another_request_is_stopped() {
    let mut rig = Rig::new();
    let (_, first) = rig.relayed(b"one", 100);
    let (second, _) = rig.relayed(b"two", 300);
    let item = rig.response(second, first.exchange, b"swapped");
    rig.respond(item);
    assert!(rig.blames(rig.down.public(), "another request"));
    assert!(rig.responses_up_got().is_empty());
}

#[test]
fn a_truncated_changed_or_too_long_response_is_stopped() {
    for (body, sent, why) in [
        (&b"answer"[..], &b"answe"[..], "signed length"),
        (b"answer", b"answes", "signed hash"),
        (&[7; 101], &[7; 101], "longer than the request allows"),
    ] {
        let mut rig = Rig::new();
        let (id, request) = rig.relayed(b"question", 100);
        let mut item = rig.response(id, request.exchange, body);
        item.body = Some(bytes::Bytes::copy_from_slice(sent));
        rig.respond(item);
        assert!(rig.blames(rig.down.public(), why), "{why}");
        assert!(rig.responses_up_got().is_empty());
    }
}

fn fragments(encoder: &Encoder, exchange: ExchangeId, upto: u64) -> Vec<wire::Fragment> {
    let (mut all, mut offset) = (Vec::new(), 0);
    while offset < upto.min(encoder.len()) {
        let data = encoder.read(offset, upto - offset);
        let len = data.len() as u64;
        all.push(wire::Fragment { exchange, part: Part::ResponseBody, offset, data });
        offset += len;
    }
    all
}

fn streamed(rig: &mut Rig) -> Vec<wire::Fragment> {
    let frames = rig.up_got().into_iter();
    frames.filter_map(|frame| if let Frame::Fragment(f) = frame { Some(f) } else { None }).collect()
}

#[test]
fn a_big_response_is_passed_on_as_it_arrives_and_a_bad_fragment_is_not() {
    let mut rig = Rig::new();
    let (id, request) = rig.relayed(b"question", 100_000);
    let body: Vec<u8> = (0..90_000).map(|i| i as u8).collect();
    let encoder = Encoder::new(body.clone().into());
    let mut item = rig.response(id, request.exchange, &body);
    item.body = None;
    rig.respond(item.clone());
    let announced = rig.responses_up_got();
    assert_eq!((announced.len(), announced[0].body.as_deref()), (1, None));
    let good = fragments(&encoder, request.exchange, 40_000);
    for fragment in &good {
        rig.down_sends(Frame::Fragment(fragment.clone()));
    }
    let passed: u64 = streamed(&mut rig).iter().map(|f| f.data.len() as u64).sum();
    assert!(passed > 30_000, "{passed} bytes passed on");
    let mut rest = fragments(&encoder, request.exchange, 60_000).split_off(good.len() - 1);
    let mut bad = rest[0].data.to_vec();
    *bad.last_mut().unwrap() ^= 1;
    rest[0].data = bad.into();
    for fragment in rest {
        rig.down_sends(Frame::Fragment(fragment));
    }
    assert!(rig.blames(rig.down.public(), "bad body"));
    assert_eq!(streamed(&mut rig).iter().map(|f| f.data.len()).sum::<usize>(), 0);
    // After the reconnection the peer goes on where verification stopped.
    rig.disconnected.clear();
    let down = rig.down.public();
    rig.connect(down);
    rig.down_got();
    item.resume = true;
    rig.respond(item);
    let credit =
        rig.down_got().into_iter().find_map(|f| if let Frame::Credit(c) = f { Some(c) } else { None });
    let credit = credit.expect("told where to go on");
    assert_eq!(credit.from, Some(passed), "the last verified group");
}

#[test]
fn a_rejection_without_refund_is_refused() {
    let mut rig = Rig::new();
    let (_, request) = rig.relayed(b"question", 100);
    let rejection = Rejection { exchange: request.exchange, reason: RejectReason::Busy, invalid: None };
    rig.down_sends(Frame::Reject(wire::Reject { payment: None, resent: false, rejections: vec![rejection] }));
    assert!(rig.blames(rig.down.public(), "without the refund"));
    assert_eq!(rig.node.unfinished(), 1);
}

#[test]
fn what_the_destination_declines_travels_upstream_with_the_whole_payment() {
    let mut rig = Rig::new();
    let (id, request) = rig.relayed(b"question", 100);
    let rejection = declined(&rig, id, request.exchange, RejectReason::NoApp);
    reject(&mut rig, id, rejection);
    let frames = rig.up_got();
    let Some(Frame::Reject(reject)) = frames.iter().find(|f| matches!(f, Frame::Reject(_))) else {
        panic!("{frames:?}")
    };
    assert_eq!(reject.rejections[0].reason, RejectReason::NoApp);
    assert_eq!(reject.rejections[0].invalid.as_ref().map(|i| i.statement.signer), Some(rig.down.public()));
    let snapshot = rig.node.channel(IN).unwrap();
    assert_eq!(snapshot.totals.sent_a, snapshot.totals.sent_b);
    assert!(rig.down_got().iter().any(|f| matches!(f, Frame::Done(_))));
    assert_eq!(rig.node.channel(OUT).unwrap().pending_out, Yocto::ZERO);
}

/// A rejection that the destination has signed.
fn declined(
    rig: &Rig,
    request: types::RequestId,
    exchange: por_core::ExchangeId,
    reason: RejectReason,
) -> Rejection {
    let statement = Invalid { request, signer: rig.down.public(), reason: InvalidReason::Refused };
    Rejection { exchange, reason, invalid: Some(signed_invalid(&rig.down, statement)) }
}

/// `down` rejects with the refund.
fn reject(rig: &mut Rig, id: types::RequestId, rejection: Rejection) {
    rig.sent.clear();
    rig.down_refuses(id, rejection);
}

#[test]
fn who_is_refused_after_its_ack_asks_again_and_tells_upstream_nothing() {
    let mut rig = Rig::new();
    let (id, request) = rig.obliged(b"question", 100);
    let rejection = Rejection { exchange: request.exchange, reason: RejectReason::Busy, invalid: None };
    reject(&mut rig, id, rejection);
    assert!(!rig.up_got().iter().any(|f| matches!(f, Frame::Reject(_))));
    assert!(!rig.down_got().iter().any(|f| matches!(f, Frame::Request(_))), "not at once");
    rig.sent.clear();
    rig.later(20);
    let again = rig.down_got().into_iter().find_map(|f| match f {
        Frame::Request(request) => Some(request),
        _ => None,
    });
    let again = again.expect("asked again");
    let item = &again.requests[0];
    assert!(item.again && again.payment.is_some() && item.exchange != request.exchange);
    assert_eq!(item.head, request.head);
    let answer = rig.response(id, item.exchange, b"answer");
    rig.respond(answer);
    assert_eq!(rig.responses_up_got().len(), 1);
}

#[test]
fn who_is_refused_for_longer_than_an_ack_may_take_severs() {
    let mut rig = Rig::new();
    let (id, mut request) = rig.obliged(b"question", 100);
    for _ in 0..100 {
        let rejection =
            Rejection { exchange: request.exchange, reason: RejectReason::Balance, invalid: None };
        reject(&mut rig, id, rejection);
        let again = (0..50).find_map(|_| {
            rig.later(50);
            rig.down_got().into_iter().find_map(|f| match f {
                Frame::Request(request) => request.requests.into_iter().next(),
                _ => None,
            })
        });
        match again {
            Some(item) => request = item,
            None => break,
        }
    }
    assert_eq!(rig.orders.len(), 1, "severed once");
    assert_eq!(rig.orders[0].statement.reason, types::SeverReason::NoAck);
    assert!(rig.up_got().iter().any(|f| matches!(f, Frame::Severed(_))), "the proof is upstream");
}

/// Numbers of exchanges can be guessed. Whoever has given the money back and "acknowledges" what it was not
/// asked yet would owe neither an Ack nor a sync, and this node would pay upstream for ever.
#[test]
fn who_has_refused_acknowledges_nothing_before_it_is_asked_again() {
    for by_sync in [false, true] {
        let mut rig = Rig::new();
        rig.input(Input::LateFee { per_ms: Yocto(1) });
        let (id, request) = rig.obliged(b"question", 100);
        let rejection = Rejection { exchange: request.exchange, reason: RejectReason::Busy, invalid: None };
        reject(&mut rig, id, rejection);
        let guesses = (1..=2_000).map(|n| ExchangeId(request.exchange.0 + n));
        let down = rig.down.public();
        if by_sync {
            let known =
                |exchange| SyncExchange { exchange, request: id, acked: true, body_bytes: 0, credit: 0 };
            rig.known = guesses.map(known).collect();
            rig.reconnect(down);
        } else {
            rig.down_sends(Frame::Ack(wire::Ack { receipts: vec![], exchanges: guesses.collect() }));
        }
        for conn in (1..=9).map(ConnId) {
            rig.input(Input::Disconnected { peer: down, conn });
        }
        for _ in 0..600 {
            if rig.orders.is_empty() {
                rig.later(100);
                rig.up_sends(Frame::Sync(Sync { epoch: 1 << 32, complete: true, ..Sync::default() }));
            }
        }
        let order = rig.orders.first().map(|order| (order.statement.channel, order.statement.reason));
        assert_eq!(order, Some((OUT, types::SeverReason::NoAck)), "by Sync: {by_sync}");
    }
}

/// Nor can it answer: what it sends under a number that it was not told is not of this request.
#[test]
fn who_has_refused_answers_nothing_before_it_is_asked_again() {
    let mut rig = Rig::new();
    let (id, request) = rig.obliged(b"question", 100);
    let rejection = Rejection { exchange: request.exchange, reason: RejectReason::Busy, invalid: None };
    reject(&mut rig, id, rejection);
    for guess in 1..=5 {
        let answer = rig.response(id, ExchangeId(request.exchange.0 + guess), b"answer");
        rig.respond(answer);
    }
    assert!(rig.responses_up_got().is_empty());
    assert!(rig.disconnected.is_empty());
    rig.later(20);
    assert!(rig.down_got().iter().any(|frame| matches!(frame, Frame::Request(_))), "asked again");
}

#[test]
fn who_rejects_what_it_had_acknowledged_breaks_the_protocol() {
    let mut rig = Rig::new();
    let (id, request) = rig.relayed(b"question", 100);
    rig.down_sends(Frame::Ack(wire::Ack { receipts: vec![], exchanges: vec![request.exchange] }));
    let rejection = Rejection { exchange: request.exchange, reason: RejectReason::Busy, invalid: None };
    reject(&mut rig, id, rejection);
    assert!(rig.blames(rig.down.public(), "had acknowledged"));
    assert_eq!(rig.node.unfinished(), 1);
}

#[test]
fn a_rejection_as_invalid_needs_the_proof_of_a_node_of_the_path() {
    let mut rig = Rig::new();
    let (id, request) = rig.relayed(b"question", 100);
    let amount = rig.node.channel(OUT).unwrap().pending_out;
    let payment = Some(rig.refund(id, amount));
    let stranger = secret(9);
    let statement = Invalid { request: id, signer: stranger.public(), reason: InvalidReason::Body };
    let invalid = Some(signed_invalid(&stranger, statement));
    let rejection = Rejection { exchange: request.exchange, reason: RejectReason::Invalid, invalid };
    rig.down_sends(Frame::Reject(wire::Reject { payment, resent: false, rejections: vec![rejection] }));
    assert!(rig.blames(rig.down.public(), "wrong proof"));
}

/// The proof of another rejection of the same flush shows nothing for this one.
#[test]
fn a_rejection_with_the_proof_of_another_one_is_refused() {
    let mut rig = Rig::new();
    let (id, request) = rig.relayed(b"question", 100);
    let mut rejection = declined(&rig, id, request.exchange, RejectReason::Busy);
    let other = Invalid {
        request: types::RequestId([7; 32]),
        signer: rig.down.public(),
        reason: InvalidReason::Refused,
    };
    rejection.invalid.as_mut().unwrap().proof = sign_one(&rig.down, &other);
    reject(&mut rig, id, rejection);
    assert!(rig.blames(rig.down.public(), "wrong proof"));
    assert_eq!(rig.node.unfinished(), 1, "the exchange stays open");
}

#[test]
fn a_receipt_for_a_state_never_signed_is_refused() {
    let mut rig = Rig::new();
    rig.relayed(b"question", 100);
    let receipt = state(&rig.down, OUT, Yocto(999_999), Yocto::ZERO, Hash([0; 32]));
    rig.down_sends(Frame::Ack(wire::Ack { receipts: vec![receipt], exchanges: vec![] }));
    assert!(rig.blames(rig.down.public(), "never signed"));
}

/// Whoever has lost its store does not know of channels that are over; the peer still has them, and says so at
/// the start of each session.
#[test]
fn a_receipt_on_a_channel_that_is_not_known_is_passed_over() {
    let mut rig = Rig::new();
    let (_, request) = rig.relayed(b"question", 100);
    let over = state(&rig.down, ChannelId(99), Yocto(5), Yocto(5), Hash([0; 32]));
    let paid = rig.node.channel(OUT).unwrap().totals.sent_a;
    let receipt = state(&rig.down, OUT, paid, Yocto::ZERO, Hash([0; 32]));
    let receipts = vec![over, receipt.clone()];
    rig.down_sends(Frame::Ack(wire::Ack { receipts, exchanges: vec![request.exchange] }));
    assert_eq!(rig.node.channel(OUT).unwrap().their_receipt, Some(receipt), "what follows counts");
    // Another peer's is no accident.
    let foreign = state(&rig.down, IN, Yocto(5), Yocto(5), Hash([0; 32]));
    rig.down_sends(Frame::Ack(wire::Ack { receipts: vec![foreign], exchanges: vec![] }));
    assert!(rig.blames(rig.down.public(), "foreign channel"));
}

#[test]
fn the_counter_signature_of_a_payment_is_kept_as_evidence() {
    let mut rig = Rig::new();
    let (_, request) = rig.relayed(b"question", 100);
    let row = rig.node.channel(OUT).unwrap();
    let paid = row.totals.sent_a;
    assert!(row.their_receipt.is_none());
    let receipt = state(&rig.down, OUT, paid, Yocto::ZERO, Hash([0; 32]));
    rig.down_sends(Frame::Ack(wire::Ack {
        receipts: vec![receipt.clone()],
        exchanges: vec![request.exchange],
    }));
    assert_eq!(rig.node.channel(OUT).unwrap().their_receipt, Some(receipt));
}

#[test]
fn an_answer_to_an_unknown_exchange_is_done_with() {
    let mut rig = Rig::new();
    let (id, request) = rig.relayed(b"question", 100);
    let item = rig.response(id, request.exchange, b"answer");
    rig.respond(item.clone());
    let exchange = rig.responses_up_got()[0].exchange;
    rig.sent.clear();
    rig.respond(item.clone());
    assert!(rig.responses_up_got().is_empty(), "passed on once");
    assert!(rig.down_got().is_empty(), "the next node keeps it until the one before has it");
    rig.up_sends(Frame::Done(wire::Done { exchanges: vec![exchange], receipts: vec![] }));
    assert!(rig.down_got().is_empty(), "an end for which nobody waits makes no batch by itself");
    rig.later(20);
    let Some(Frame::Done(done)) = rig.down_got().pop() else { panic!("not done") };
    assert_eq!(done.exchanges, [request.exchange]);
    rig.sent.clear();
    rig.respond(item);
    let Some(Frame::Done(done)) = rig.down_got().pop() else { panic!("not done") };
    assert_eq!(done.exchanges, [request.exchange]);
}

/// What was set aside for it is not lost to both.
#[test]
fn a_refusal_that_was_not_said_yet_is_not_done_with() {
    let mut rig = Rig::new();
    let mut head = rig.head_here(b"question", 100);
    head.app = "unknown".into();
    let before = rig.node.channel(IN).unwrap().balance_mine;
    let item = rig.item(&head, b"question");
    let (exchange, payment) = (item.exchange, Some(rig.payment(&[&head])));
    let request = Frame::Request(wire::Request { payment, resent: false, requests: vec![item] });
    let done = Frame::Done(wire::Done { exchanges: vec![exchange], receipts: vec![] });
    rig.frames(rig.up.public(), [request, done.clone()]);
    assert!(rig.rejection().is_some(), "it comes with the refund");
    let after = rig.node.channel(IN).unwrap();
    assert_eq!((after.totals.sent_a, after.balance_mine), (after.totals.sent_b, before));
    rig.up_sends(done);
    rig.later(20);
    assert!(rig.rows.keys().all(|(table, _)| *table != Table::Exchanges), "over, once it was said");
}

#[test]
fn a_settled_old_state_in_sync_changes_nothing() {
    let mut rig = Rig::new();
    let head = rig.head_here(b"question", 100);
    rig.ask(&head, b"question");
    let before = rig.node.channel(IN).unwrap().totals;
    let old = state(&rig.up, IN, Yocto(1), Yocto::ZERO, Hash([0; 32]));
    let channels = vec![SyncChannel { own: Some(old), theirs: None }];
    rig.up_sends(Frame::Sync(Sync { epoch: 1 << 40, channels, complete: true, ..Sync::default() }));
    assert_eq!(rig.node.channel(IN).unwrap().totals, before);
    assert!(rig.disconnected.is_empty());
}

#[test]
fn an_old_copy_of_the_store_never_signs_below_what_the_peer_holds() {
    let mut rig = Rig::new();
    rig.relayed(b"question", 100);
    let newest = rig.node.channel(OUT).unwrap().totals.sent_a;
    let held = state(&secret(2), OUT, newest, Yocto::ZERO, Hash([4; 32]));
    // A node with an empty store learns its own total from the peer.
    let mut fresh = Rig::new();
    let channels = vec![SyncChannel { own: None, theirs: Some(held) }];
    fresh.down_sends(Frame::Sync(Sync { epoch: 1 << 40, channels, complete: true, ..Sync::default() }));
    assert_eq!(fresh.node.channel(OUT).unwrap().totals.sent_a, newest);
    // A forged one is not believed.
    let forged = state(&secret(3), OUT, Yocto(newest.0 + 1), Yocto::ZERO, Hash([4; 32]));
    let channels = vec![SyncChannel { own: None, theirs: Some(forged) }];
    fresh.down_sends(Frame::Sync(Sync { epoch: 1 << 41, channels, complete: true, ..Sync::default() }));
    assert!(fresh.blames(fresh.down.public(), "wrong signature"));
}

fn restored(rig: &Rig) -> Restored {
    let row = |((table, key), value): (&(Table, RowKey), &Vec<u8>)| Row {
        table: *table,
        key: key.clone(),
        value: value.clone(),
    };
    Restored { rows: rig.rows.iter().map(row).collect() }
}

#[test]
fn a_damaged_or_foreign_store_is_refused_with_a_typed_error() {
    let mut rig = Rig::new();
    rig.relayed(b"question", 100);
    let good = restored(&rig);
    assert!(Node::new(config(&rig.limits), good.clone()).is_ok());
    for index in 0..good.rows.len() {
        let mut bad = good.clone();
        let len = bad.rows[index].value.len();
        bad.rows[index].value.truncate(len - 1);
        let error = Node::new(config(&rig.limits), bad).unwrap_err();
        assert!(matches!(error, RestoreError::Damaged { .. }), "{error}");
    }
    let other = CoreConfig { secret: secret(8), ..config(&rig.limits) };
    assert!(matches!(Node::new(other, good), Err(RestoreError::Foreign { .. })));
}

#[test]
fn a_peer_that_forgot_an_acknowledged_request_is_told_and_asked_again() {
    let mut rig = Rig::new();
    let (_, request) = rig.relayed(b"question", 100);
    rig.down_sends(Frame::Ack(wire::Ack { receipts: vec![], exchanges: vec![request.exchange] }));
    let down = rig.down.public();
    rig.input(Input::Disconnected { peer: down, conn: ConnId(2) });
    rig.sent.clear();
    rig.connect(down);
    let told =
        |e: &Event| matches!(e, Event::Misbehaved { reason, .. } if reason.contains("has forgotten request"));
    assert!(rig.events.iter().any(told));
    let again =
        rig.down_got().into_iter().find_map(|f| if let Frame::Request(r) = f { Some(r) } else { None });
    let again = again.expect("asked again");
    assert!(again.resent);
    assert_eq!(again.requests[0].exchange, request.exchange);
    let total = rig.node.channel(OUT).unwrap().totals.sent_a;
    assert_eq!(again.payment.unwrap().statement.totals.sent_a, total, "paid once");
}

/// This node is under obligation for it: what comes meanwhile does not take the money that it is to be asked with.
#[test]
fn money_to_ask_again_with_is_not_spent_on_others() {
    let mut rig = Rig::new();
    let (id, request) = rig.obliged(b"question", 100);
    let amount = rig.node.channel(OUT).unwrap().pending_out;
    let rejection = Rejection { exchange: request.exchange, reason: RejectReason::Busy, invalid: None };
    reject(&mut rig, id, rejection);
    let mut channels = rig.my_channels();
    channels.iter_mut().find(|channel| channel.channel == OUT).unwrap().deposit_mine = amount;
    rig.input(Input::Channels { channels });
    assert!(!rig.ask_through(b"question", 100));
    assert_eq!(rig.rejection().map(|(reason, _)| reason), Some(RejectReason::Balance));
    assert_eq!(rig.ask_own(10), Some(RejectReason::Balance));
    rig.later(20);
    assert!(rig.down_got().iter().any(|frame| matches!(frame, Frame::Request(_))), "asked again");
}

/// Upstream takes no sum of late payments that was not paid before, or with it.
#[test]
fn an_answer_that_comes_twice_at_once_is_passed_on_once() {
    let mut rig = Rig::new();
    rig.input(Input::LateFee { per_ms: Yocto(1) });
    let head = rig.head(b"question", 100);
    let (id, _) = rig.ask(&head, b"question");
    let exchange = rig.passed_on();
    rig.acknowledge(true);
    let paid_up = |rig: &Rig| rig.node.channel(IN).unwrap().totals.sent_b;
    while paid_up(&rig).is_zero() {
        rig.later(100);
        rig.alive();
    }
    let paid = paid_up(&rig);
    rig.later(100);
    let whole = rig.response(id, exchange, b"answer");
    let announced = ResponseItem { body: None, ..whole.clone() };
    let frame =
        |item| Frame::Response(wire::Response { payment: None, resent: false, responses: vec![item] });
    rig.frames(rig.down.public(), [frame(announced), frame(whole)]);
    let answers = rig.responses_up_got();
    let more = paid_up(&rig).saturating_sub(paid);
    assert!(!more.is_zero(), "late");
    let told: Vec<_> = answers.iter().map(|item| item.late.map(|late| (late.amount, late.total))).collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].map(|(amount, _)| amount), Some(more), "{told:?}");
}
