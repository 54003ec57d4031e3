//! What a hostile neighbour can do with the numbers, the times and the answers that are its own to choose.

#[path = "support/rig.rs"]
mod rig;

use bytes::Bytes;
use por_core::types::{ChannelId, Hop, RequestId, Yocto};
use por_core::verified::Encoder;
use por_core::wire::{self, Credit, Fragment, Frame, Part, ResponseItem};
use por_core::{Event, ExchangeId, Input, MyChannel, Node, Patience, Policy, RejectReason, Restored, Row};
use rig::*;

const LATE_FEE: Yocto = Yocto(2);

fn late(frames: &[Frame]) -> u128 {
    let amounts = frames.iter().map(|frame| match frame {
        Frame::Late(late) => late.items.iter().map(|item| item.amount.0).sum(),
        Frame::Response(response) => {
            response.responses.iter().filter_map(|item| item.late).map(|late| late.amount.0).sum()
        }
        _ => 0,
    });
    amounts.sum()
}

/// The round trip is measured with the peer's own help: who is slow on purpose would be paid for
/// lateness that is none.
#[test]
fn who_answers_syncs_slowly_is_not_paid_for_that() {
    let mut rig = Rig::new();
    rig.input(Input::LateFee { per_ms: LATE_FEE });
    let up = rig.up.public();
    for conn in (1..=8).map(por_core::ConnId) {
        rig.input(Input::Disconnected { peer: up, conn });
    }
    rig.connect_with(up, |rig| rig.later(25_000));
    rig.up_got();
    let mut head = rig.head(b"question", 100);
    head.route[1].allowance_ms += 10_000;
    let bound_ms = head.bound_ms_at(0);
    let (id, _) = rig.ask(&head, b"question");
    let exchange = rig.passed_on();
    rig.acknowledge(true);
    // In time, by the promised round trip.
    for _ in 0..(bound_ms - u64::from(rig.terms.rtt_ms)) / 500 {
        rig.later(500);
        let epoch = rig.epoch();
        rig.down_sends(Frame::Sync(wire::Sync {
            epoch: epoch - (1 << 32),
            complete: true,
            ..Default::default()
        }));
    }
    let item = rig.response(id, exchange, b"answer");
    rig.respond(item);
    let frames = rig.up_got();
    assert!(frames.iter().any(|frame| matches!(frame, Frame::Response(_))), "{frames:?}");
    assert_eq!(late(&frames), 0);
}

/// A request may come before the first round trip is measured. Its time is short by the longest one that the
/// terms allow only until then.
#[test]
fn a_request_that_comes_before_the_first_round_trip_is_measured_has_its_time() {
    // By the bound less the promised round trip, and by so much more.
    for (more_ms, late_ms) in [(0, 0), (60, 0), (80, 0), (81, 1)] {
        let mut rig = Rig::new();
        rig.input(Input::LateFee { per_ms: LATE_FEE });
        let up = rig.up.public();
        for conn in (1..=8).map(por_core::ConnId) {
            rig.input(Input::Disconnected { peer: up, conn });
        }
        let trip_ms = 20;
        let head = rig.head_here(b"question", 100);
        let mut asked = None;
        rig.connect_with(up, |rig| {
            asked = Some(rig.ask(&head, b"question").0);
            rig.later(trip_ms);
        });
        let spare_ms = head.bound_ms_at(0) - u64::from(rig.terms.rtt_ms);
        rig.later(spare_ms + more_ms - trip_ms);
        let request = asked.expect("it was asked");
        rig.input(Input::Command(por_core::Command::Respond { request, body: b"answer".as_slice().into() }));
        rig.later(0);
        let frames = rig.up_got();
        assert!(frames.iter().any(|frame| matches!(frame, Frame::Response(_))), "{frames:?}");
        assert_eq!(late(&frames), late_ms * LATE_FEE.0, "{more_ms}");
    }
}

/// A session's first round trip may have waited for the disk; the shortest that was seen counts.
#[test]
fn the_answer_to_a_request_tells_the_round_trip_better() {
    // By the bound less the shortest round trip, and a millisecond later.
    for (more_ms, late_ms) in [(0, 0), (1, 1)] {
        let mut rig = Rig::new();
        rig.input(Input::LateFee { per_ms: LATE_FEE });
        let up = rig.up.public();
        for conn in (1..=8).map(por_core::ConnId) {
            rig.input(Input::Disconnected { peer: up, conn });
        }
        rig.connect_with(up, |rig| rig.later(60));
        rig.up_got();
        // An own request to the neighbour, which it acknowledges after that time.
        let trip_ms = 7;
        let hop =
            Hop { channel: IN, to: up, allowance_ms: 60_000, ..rig.head(b"question", 100).route[0].clone() };
        assert_eq!(rig.ask_own_over(hop, 0), None);
        let exchange = rig.passed_on();
        rig.later(trip_ms);
        rig.up_sends(Frame::Ack(wire::Ack { receipts: vec![], exchanges: vec![exchange] }));
        let head = rig.head_here(b"question", 100);
        let (request, _) = rig.ask(&head, b"question");
        rig.later(head.bound_ms_at(0) - trip_ms + more_ms);
        rig.input(Input::Command(por_core::Command::Respond { request, body: b"answer".as_slice().into() }));
        rig.later(0);
        let frames = rig.up_got();
        assert!(frames.iter().any(|frame| matches!(frame, Frame::Response(_))), "{frames:?}");
        assert_eq!(late(&frames), late_ms * LATE_FEE.0, "{more_ms}");
    }
}

fn send_body(rig: &mut Rig, exchange: ExchangeId, body: &Bytes, upto: u64) {
    let (encoder, mut offset) = (Encoder::new(body.clone()), 0);
    while offset < encoder.len().min(upto) {
        let data = encoder.read(offset, upto - offset);
        let fragment = Fragment { exchange, part: Part::ResponseBody, offset, data };
        offset += fragment.data.len() as u64;
        rig.down_sends(Frame::Fragment(fragment));
    }
}

fn announce(rig: &mut Rig, id: RequestId, exchange: ExchangeId, body: &Bytes) -> ResponseItem {
    let item = ResponseItem { body: None, ..rig.response(id, exchange, body) };
    rig.respond(item.clone());
    item
}

fn announced(frames: &[Frame]) -> Vec<RequestId> {
    let items = frames.iter().filter_map(|frame| match frame {
        Frame::Response(response) => Some(&response.responses),
        _ => None,
    });
    items.flatten().map(|item| RequestId(item.receipt.receipt.body_hash.0)).collect()
}

/// A destination may sign two answers. Once one has passed this node as a whole it owes nothing more, and must not be made to promise another one that never comes.
#[test]
fn an_answer_that_is_here_as_a_whole_is_not_given_up_for_another() {
    for len in [20_000, 40_000, 60_000] {
        let mut rig = Rig::with(|rig| rig.terms.bytes_per_s = 100_000);
        rig.input(Input::LateFee { per_ms: LATE_FEE });
        let (id, request) = rig.relayed(b"question", 100_000);
        rig.acknowledge_item(request.exchange);
        let (first, second) = (Bytes::from(vec![1; 40_000]), Bytes::from(vec![2; len]));
        announce(&mut rig, id, request.exchange, &first);
        send_body(&mut rig, request.exchange, &first, u64::MAX);
        let frames = rig.up_got();
        assert_eq!(announced(&frames).len(), 1);
        let item = announce(&mut rig, id, request.exchange, &second);
        send_body(&mut rig, request.exchange, &second, 64 << 10);
        assert!(rig.disconnected.is_empty(), "{len}: {:?}", rig.events);
        assert_eq!(announced(&rig.up_got()), [], "{len}");
        // Whoever has lost the first one gets the second, on which everybody is late or severed as usual.
        let (body, part) = (Encoder::new(first).root(), Part::ResponseBody);
        let lost = Credit { exchange: ExchangeId(1), part, body, up_to: 64 << 10, from: Some(0) };
        rig.up_sends(Frame::Credit(lost));
        assert_eq!(announced(&rig.up_got()), [RequestId(item.receipt.receipt.body_hash.0)], "{len}");
        let wanted = rig.down_got();
        let wanted = wanted.iter().filter_map(|frame| match frame {
            Frame::Credit(credit) => Some((credit.body, credit.from)),
            _ => None,
        });
        assert_eq!(wanted.last(), Some((item.receipt.receipt.body_hash, Some(0))), "{len}");
        send_body(&mut rig, request.exchange, &second, u64::MAX);
        let frames = rig.up_got();
        let passed = frames.iter().map(|frame| match frame {
            Frame::Fragment(fragment) => fragment.data.len() as u64,
            _ => 0,
        });
        assert_eq!(passed.sum::<u64>(), Encoder::new(second).len(), "{len}");
    }
}

/// An upstream node that has forgotten the exchange before, and could not say so, is no flood: its neighbour
/// would be severed for not talking to it.
#[test]
fn a_request_that_comes_anew_ends_the_exchange_before() {
    let mut rig = Rig::new();
    let head = rig.head_here(b"question", 100);
    let (id, _) = rig.ask(&head, b"question");
    let (_, second) = rig.ask(&head, b"question");
    let acked = |frames: &[Frame]| {
        frames.iter().any(|frame| matches!(frame, Frame::Ack(ack) if ack.exchanges.contains(&second)))
    };
    assert!(rig.disconnected.is_empty(), "{:?}", rig.events);
    assert!(acked(&rig.up_got()));
    assert_eq!(rig.node.unfinished(), 1);
    assert_eq!(rig.node.unanswered("app"), 1);
    rig.input(Input::Command(por_core::Command::Respond {
        request: id,
        body: Bytes::from_static(b"answer"),
    }));
    let answered: Vec<ExchangeId> = rig.responses_up_got().iter().map(|item| item.exchange).collect();
    assert_eq!(answered, [second]);
    rig.up_sends(Frame::Done(wire::Done { exchanges: vec![second], receipts: vec![] }));
    rig.later(100);
    assert_eq!(rig.node.unfinished(), 0);
    let served = rig.events.iter().filter(|event| matches!(event, Event::Served { .. })).count();
    assert_eq!(served, 1);
}

/// The same through a relay, in the middle of it.
#[test]
fn a_relayed_request_that_comes_anew_ends_the_exchange_before() {
    let mut rig = Rig::new();
    let mut head = rig.head(b"question", 100);
    head.route[1].allowance_ms += 10_000;
    let (id, _) = rig.ask(&head, b"question");
    let first = rig.passed_on();
    rig.sent.clear();
    let (_, second) = rig.ask(&head, b"question");
    assert!(rig.disconnected.is_empty(), "{:?}", rig.events);
    let exchange = rig.passed_on();
    assert_ne!(exchange, first);
    rig.later(100);
    let frames = rig.down_got();
    let done = frames.iter().any(|frame| matches!(frame, Frame::Done(done) if done.exchanges == [first]));
    assert!(done, "{frames:?}");
    let item = rig.response(id, exchange, b"answer");
    rig.respond(item);
    let answered: Vec<ExchangeId> = rig.responses_up_got().iter().map(|item| item.exchange).collect();
    assert_eq!(answered, [second]);
}

/// A hundred bytes must not make this node send a body as often as the neighbour likes.
#[test]
fn an_own_answer_is_not_sent_from_its_start_again_and_again() {
    let mut rig = Rig::new();
    let head = rig.head_here(b"question", 100_000);
    let (id, exchange) = rig.ask(&head, b"question");
    let body = Bytes::from(vec![7; 60_000]);
    rig.input(Input::Command(por_core::Command::Respond { request: id, body: body.clone() }));
    let (part, root) = (Part::ResponseBody, Encoder::new(body).root());
    let (up, mut sent) = (rig.up.public(), 0);
    for _ in 0..100 {
        for conn in (1..=8).map(por_core::ConnId) {
            rig.input(Input::Drained { peer: up, conn, bytes: 1 << 20 });
        }
        let frames = rig.up_got();
        sent += frames.iter().filter(|f| matches!(f, Frame::Fragment(f) if f.offset == 0)).count();
        rig.up_sends(Frame::Credit(Credit { exchange, part, body: root, up_to: 64 << 10, from: Some(0) }));
    }
    assert!(sent <= 17, "{sent} times");
    assert!(rig.blames(up, "again and again"));
    // Refused is not lost.
    rig.reconnect(up);
    rig.later(11_000);
    rig.up_got();
    rig.up_sends(Frame::Credit(Credit { exchange, part, body: root, up_to: 64 << 10, from: Some(0) }));
    assert!(rig.up_got().iter().any(|f| matches!(f, Frame::Fragment(f) if f.offset == 0)));
}

/// Until its bound nobody is late: a request that may take for ever would keep its place on every edge for one
/// price, and no channel of the path could be closed in peace.
#[test]
fn a_path_is_granted_no_more_than_a_day() {
    const DAY_MS: u64 = 24 * 3600 * 1000;
    for (more, taken) in [(0, true), (1, false), (u64::MAX - DAY_MS, false)] {
        let mut rig = Rig::new();
        let mut head = rig.head(b"question", 100);
        head.route[1].allowance_ms = DAY_MS - head.route[0].allowance_ms + more;
        rig.ask(&head, b"question");
        let passed = rig.down_got().iter().any(|frame| matches!(frame, Frame::Request(_)));
        assert_eq!(passed, taken, "{more}");
        assert_eq!(rig.rejection().map(|(reason, _)| reason), (!taken).then_some(RejectReason::Expired));
    }
}

/// The length of a body is the author's to sign, and nothing is counted by it before that is taken on.
#[test]
fn a_request_of_impossible_length_is_refused_and_forgotten_like_any_other() {
    for body_len in [1 << 40, 1 << 52, u64::MAX] {
        let mut rig = Rig::new();
        let mut head = rig.head(b"question", 100);
        head.body_len = body_len;
        let mut item = rig.item(&head, b"");
        item.body = None;
        let exchange = item.exchange;
        let payment = Some(rig.payment(&[&head]));
        rig.up_sends(Frame::Request(wire::Request { payment, resent: false, requests: vec![item] }));
        assert!(rig.rejection().is_some());
        rig.up_sends(Frame::Done(wire::Done { exchanges: vec![exchange], receipts: vec![] }));
        rig.later(100);
        assert_eq!(rig.node.unfinished(), 0);
    }
}

/// A relay writes down what came inside a frame, however large its limits allow that to be.
#[test]
fn a_relay_starts_again_with_a_body_that_its_limits_let_into_a_frame() {
    let mut rig = Rig::with(|rig| rig.limits.max_inline = 64 << 10);
    rig.relayed(&[7; 40_000], 100);
    let rows = rig.rows.iter().map(|((table, key), value)| Row {
        table: *table,
        key: key.clone(),
        value: value.clone(),
    });
    let node = Node::new(config(&rig.limits), Restored { rows: rows.collect() }).expect("its own rows");
    assert_eq!(node.unfinished(), 1);
}

/// What upstream does not take stays here, and coming again brings the next node no credit for more of it.
#[test]
fn who_comes_again_and_again_fills_no_relay() {
    let mut rig = Rig::with(|rig| {
        (rig.terms.bytes_per_s, rig.terms.byte_fee) = (1_000_000, Yocto::ZERO);
        (rig.terms.heartbeat_ms, rig.terms.grace_ms) = (60_000, 60_000);
    });
    let (id, request) = rig.relayed(b"question", 900_000);
    rig.acknowledge_item(request.exchange);
    let (exchange, down) = (request.exchange, rig.down.public());
    let body = Bytes::from(vec![7; 900_000]);
    let item = announce(&mut rig, id, exchange, &body);
    let encoder = Encoder::new(body);
    let mut sent = 0;
    let mut credit = u64::from(rig.limits.window);
    for round in 0..10 {
        while sent < credit {
            let data = encoder.read(sent, credit - sent);
            let fragment = Fragment { exchange, part: Part::ResponseBody, offset: sent, data };
            sent += fragment.data.len() as u64;
            rig.down_sends(Frame::Fragment(fragment));
        }
        assert!(rig.disconnected.is_empty(), "{round}: {:?}", rig.events);
        rig.down_got();
        rig.reconnect(down);
        rig.respond(ResponseItem { resume: true, ..item.clone() });
        for frame in rig.down_got() {
            if let Frame::Credit(Credit { up_to, from: Some(from), .. }) = frame {
                (sent, credit) = (from, up_to);
            }
        }
    }
    // The first window left for upstream, which gives no credit for more.
    assert!(credit <= 3 * u64::from(rig.limits.window), "{credit} bytes");
}

/// The channels as the chain has them, one of them with syncs every 100 ms.
fn quick(rig: &Rig, channel: ChannelId) -> Vec<MyChannel> {
    let mut channels = rig.my_channels();
    channels.iter_mut().filter(|info| info.channel == channel).for_each(|info| info.terms.heartbeat_ms = 100);
    channels
}

/// Two ends learn of a parallel channel at different times: until the other one has, it owes no syncs for it.
#[test]
fn nobody_is_held_to_the_rhythm_of_a_channel_that_it_does_not_see_yet() {
    let mut rig = Rig::with(|rig| {
        (rig.beside, rig.unseen, rig.terms.heartbeat_ms) = (true, vec![BESIDE], 10_000);
    });
    let channels = quick(&rig, BESIDE);
    rig.input(Input::Channels { channels });
    let mut head = rig.head(b"question", 100);
    head.route[1].allowance_ms += 100_000;
    rig.ask(&head, b"question");
    rig.acknowledge(true);
    rig.steps(80, 100);
    assert!(rig.orders.is_empty(), "{:?}", rig.orders);
    rig.steps(150, 100);
    assert_eq!(rig.orders.len(), 1, "but to that of the others");
}

/// And who sees first that one has left the graph goes on with the syncs that the other end expects.
#[test]
fn syncs_go_on_in_the_rhythm_of_a_channel_that_the_other_end_may_still_see() {
    let mut rig = Rig::with(|rig| rig.terms.heartbeat_ms = 10_000);
    let channels = quick(&rig, SECOND);
    rig.input(Input::Channels { channels });
    let head = rig.head_here(b"question", 100);
    rig.ask(&head, b"question");
    rig.gone = vec![SECOND];
    let channels = quick(&rig, SECOND);
    rig.input(Input::Channels { channels });
    rig.up_got();
    rig.steps(20, 100);
    let syncs = rig.up_got().iter().filter(|frame| matches!(frame, Frame::Sync(_))).count();
    assert!(syncs >= 15, "{syncs}");
}

/// The time is the author's to grant, for a price that does not depend on it.
#[test]
fn nothing_is_kept_of_an_answered_request_until_its_time_is_over() {
    let policy = Policy { patience: Patience::AfterMs(1_000), ..Policy::default() };
    let mut rig = Rig::with(|rig| rig.policy = policy);
    let mut head = rig.head(b"question", 100);
    head.route[1].allowance_ms += 50_000_000;
    let (id, up) = rig.ask(&head, b"question");
    let exchange = rig.passed_on();
    let item = rig.response(id, exchange, b"answer");
    rig.respond(item);
    rig.up_sends(Frame::Done(wire::Done { exchanges: vec![up], receipts: vec![] }));
    rig.later(100);
    assert_eq!(rig.node.leaks(), [""; 0]);
}

/// A byte for each: what a frame costs is bounded by what an honest peer could have to say.
#[test]
fn who_names_more_exchanges_than_there_can_be_is_disconnected() {
    let exchanges = vec![ExchangeId(1); (1 << 16) + 1];
    let done = Frame::Done(wire::Done { exchanges: exchanges.clone(), receipts: vec![] });
    for frame in [done, Frame::Ack(wire::Ack { exchanges, receipts: vec![] })] {
        let mut rig = Rig::new();
        rig.up_sends(frame);
        assert!(rig.blames(rig.up.public(), "more exchanges"));
    }
}

/// It would have to sever a next node that is away for a moment, and lose a bond for a few fees.
#[test]
fn a_relay_takes_no_more_than_it_can_pay_the_lateness_of() {
    let mut rig = Rig::new();
    let borne_ms = rig.terms.heartbeat_ms + rig.terms.grace_ms + Policy::default().margin_ms as u32;
    // Enough for one request and a half, until the next node is in breach.
    rig.input(Input::LateFee { per_ms: Yocto(DEPOSIT.0 / u128::from(borne_ms) * 2 / 3) });
    assert!(rig.ask_through(b"question", 100));
    let mut head = rig.head(b"another", 100);
    head.route[1].allowance_ms += 10_000;
    let (second, _) = rig.ask(&head, b"another");
    assert!(rig.down_got().is_empty());
    let (reason, _) = rig.rejection().expect("rejected");
    assert_eq!(reason, RejectReason::Balance);
    let short = |event: &Event| matches!(event, Event::Short { channel: IN, .. });
    assert!(rig.events.iter().any(short), "the operator learns of it");
    // With the payment back.
    let refund = rig.node.channel(IN).unwrap().totals.sent_b;
    assert_eq!(Ok(refund), head.payment_at(0), "{second}");
    // What a node serves itself it can answer.
    let here = rig.head_here(b"question", 100);
    rig.ask(&here, b"question");
    assert!(rig.rejection().is_none());
}

/// What has to be added to in time: what a silent next node costs ends by itself.
#[test]
fn lateness_that_the_next_node_pays_for_is_told_of_by_the_second() {
    let mut rig = Rig::new();
    rig.input(Input::LateFee { per_ms: LATE_FEE });
    let per_s = |rig: &Rig| rig.node.channel(IN).unwrap().late_per_s;
    let mut head = rig.head(b"question", 100);
    head.route[1].allowance_ms = u64::from(rig.terms.rtt_ms) + 1_000;
    let (id, _) = rig.ask(&head, b"question");
    let exchange = rig.passed_on();
    rig.acknowledge(true);
    assert_eq!(per_s(&rig), Yocto::ZERO, "there is time yet");
    let bound = head.bound_ms_at(0);
    rig.later(bound + 1);
    assert_eq!(per_s(&rig), Yocto::ZERO, "nobody has paid for it");
    rig.down_pays_late(id, exchange, LATE_FEE);
    assert_eq!(per_s(&rig), Yocto(LATE_FEE.0 * 1_000));
    assert_eq!(rig.node.channel(OUT).unwrap().late_per_s, Yocto::ZERO, "it is paid from the other one");
    let answer = rig.response(id, exchange, b"answer");
    rig.respond(answer);
    assert_eq!(per_s(&rig), Yocto::ZERO);
}
