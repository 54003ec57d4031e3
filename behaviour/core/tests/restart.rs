//! What a restart must not pay twice.

#[path = "support/rig.rs"]
mod rig;

use bytes::Bytes;
use por_core::types::{self, Item, ItemKind, Items, RequestId, Side, Yocto};
use por_core::wire::{self, Frame};
use por_core::*;
use rig::*;

const LATE_FEE: Yocto = Yocto(2);
const BIG: usize = 40_000;

/// So long the end of an exchange waits for other writes at most.
const LAZY_MS: u64 = 20;

/// A new process from what is on disk, `ms` later, not yet connected.
fn restart(rig: &mut Rig, ms: u64) {
    rig.restart();
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
    rig.steps(9, 100);
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
        rig.steps(20, 100);
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
        rig.steps(50, 100);
        assert_eq!(rig.node.channel(IN).unwrap().totals.sent_b, Yocto::ZERO, "nothing was refunded");
        assert_eq!((proofs(&mut rig), rig.node.unfinished()), (0, 0));
    }
}

#[test]
fn an_exchange_that_upstream_still_waits_for_is_refunded_after_a_crash() {
    let (mut rig, _) = passed_and_severed(100);
    let up = rig.up.public();
    rig.connect(up);
    rig.steps(50, 100);
    assert!(rig.node.channel(IN).unwrap().totals.sent_b > Yocto::ZERO);
    assert_eq!(proofs(&mut rig), 1);
}

/// Reading the chain can take long. Until then a node knows neither its channels' terms nor whether they are
/// there, and judges nobody; nor does it sign an order for what it takes for gone.
#[test]
fn nobody_is_judged_before_the_chain_is_read() {
    for connected in [true, false] {
        let mut rig = Rig::new();
        rig.input(Input::LateFee { per_ms: LATE_FEE });
        // One to pass on, one that waits here.
        rig.ask_through(b"question", 100);
        let head = rig.head_here(b"another", 100);
        rig.ask(&head, b"another");
        rig.restart();
        if connected {
            rig.connect_all();
        }
        rig.steps(600, 100);
        assert!(rig.orders.is_empty(), "{:?}", rig.orders);
        rig.chain();
        rig.later(1_000);
        assert!(rig.orders.is_empty(), "{:?}", rig.orders);
        rig.steps(400, 100);
        assert!(!rig.orders.is_empty(), "now it knows who is silent");
    }
}

/// A channel that was settled and forgotten while the node was down will not be listed any more.
#[test]
fn what_was_asked_over_a_channel_that_is_no_more_ends() {
    let mut rig = Rig::new();
    rig.ask_through(b"question", 100);
    rig.restart();
    let channels = rig.my_channels().into_iter().filter(|info| info.channel != OUT).collect();
    rig.input(Input::Channels { channels });
    rig.graph();
    let up = rig.up.public();
    rig.connect(up);
    rig.steps(20, 100);
    let told = rig.up_got().into_iter().find_map(|frame| match frame {
        Frame::Severed(severed) => Some(severed.order.statement.channel),
        _ => None,
    });
    assert_eq!(told, Some(OUT));
}

/// A refund or a late payment that comes before the chain is read is not the peer's mistake.
#[test]
fn payments_wait_for_the_chain_to_be_read() {
    let mut rig = Rig::new();
    let (id, item) = rig.relayed(b"question", 100);
    rig.acknowledge_item(item.exchange);
    rig.restart();
    rig.events.clear();
    let down = rig.down.public();
    rig.connect(down);
    let late = |rig: &mut Rig, resent| {
        let due = Item { request: id, amount: Yocto(7), kind: ItemKind::Late };
        let items = Items { channel: OUT, payer: Side::B, items: vec![due] };
        rig.paid_down = Yocto(7);
        let payment = state(&rig.down, OUT, Yocto::ZERO, Yocto(7), items.hash(&network()));
        let amount = if resent { Yocto::ZERO } else { Yocto(7) };
        let items = vec![wire::LateItem { exchange: item.exchange, amount, total: Yocto(7) }];
        Frame::Late(wire::Late { payment, resent, items })
    };
    let frame = late(&mut rig, false);
    rig.down_sends(frame);
    assert!(rig.disconnected.is_empty(), "{:?}", rig.events);
    rig.chain();
    assert_eq!(rig.disconnected, [down], "to be told again");
    let frame = late(&mut rig, true);
    rig.connect_and(down, vec![frame]);
    assert_eq!(rig.node.channel(OUT).unwrap().totals.sent_b, Yocto(7));
    assert!(!rig.events.iter().any(|event| matches!(event, Event::Misbehaved { .. })), "{:?}", rig.events);
}

/// A node with an old copy of its store learns from its neighbour what it was paid since, be it before it has
/// read the chain.
#[test]
fn states_that_a_peer_holds_are_taken_once_the_chain_is_read() {
    let mut rig = Rig::new();
    rig.restart();
    let down = rig.down.public();
    rig.connect(down);
    let paid = state(&rig.down, OUT, Yocto::ZERO, Yocto(500), types::Hash([7; 32]));
    let states = vec![wire::SyncChannel { own: Some(paid), theirs: None }];
    let epoch = rig.epoch();
    let sync = wire::Sync { epoch, channels: states, complete: true, ..Default::default() };
    rig.down_sends(Frame::Sync(sync.clone()));
    rig.chain();
    assert_eq!(rig.disconnected, [down], "to be told again");
    rig.connect(down);
    rig.down_sends(Frame::Sync(wire::Sync { epoch: rig.epoch(), ..sync }));
    assert_eq!(rig.node.channel(OUT).unwrap().totals.sent_b, Yocto(500));
    rig.chain();
    assert_eq!(rig.disconnected, [down], "and no more than that");
}

/// What there is to refund with is not known before.
#[test]
fn a_refund_waits_for_the_chain_to_be_read() {
    let (mut rig, _) = passed_and_severed(100);
    rig.restart();
    let up = rig.up.public();
    rig.connect(up);
    rig.steps(50, 100);
    assert_eq!(proofs(&mut rig), 0);
    rig.chain();
    rig.steps(50, 100);
    assert!(rig.node.channel(IN).unwrap().totals.sent_b > Yocto::ZERO);
    assert_eq!(proofs(&mut rig), 1);
}

/// The destination declines what it has not refunded anew: what it had paid too much covers it.
#[test]
fn a_rejection_before_the_chain_is_read_loses_no_refund() {
    let mut rig = Rig::new();
    let (id, item) = rig.relayed(b"question", 100);
    let paid = state(&rig.down, OUT, Yocto::ZERO, Yocto(10_000), types::Hash([7; 32]));
    let states = vec![wire::SyncChannel { own: Some(paid), theirs: None }];
    let sync = wire::Sync { epoch: rig.epoch(), channels: states, complete: true, ..Default::default() };
    rig.down_sends(Frame::Sync(sync));
    rig.restart();
    let (up, down) = (rig.up.public(), rig.down.public());
    rig.connect(up);
    rig.connect(down);
    let signer = rig.down.public();
    let statement = types::Invalid { request: id, signer, reason: types::InvalidReason::Refused };
    let invalid = Some(signed_invalid(&rig.down, statement));
    let rejection = wire::Rejection { exchange: item.exchange, reason: RejectReason::Busy, invalid };
    let reject = Frame::Reject(wire::Reject { payment: None, resent: false, rejections: vec![rejection] });
    rig.down_sends(reject.clone());
    rig.chain();
    rig.connect_and(down, vec![reject]);
    assert_eq!(rig.node.channel(IN).unwrap().totals.sent_b, rig.paid_up);
}

/// However long that takes.
#[test]
fn nobody_is_blamed_for_payments_before_the_chain_is_read() {
    let mut rig = Rig::new();
    let (id, item) = rig.relayed(b"question", 100);
    rig.acknowledge_item(item.exchange);
    rig.restart();
    rig.events.clear();
    let down = rig.down.public();
    rig.connect(down);
    for _ in 1..200 {
        rig.down_pays_late(id, item.exchange, Yocto(1));
    }
    assert!(rig.disconnected.is_empty(), "{:?}", rig.events);
}

/// The upstream node's word waits to be read as well.
#[test]
fn an_answered_exchange_is_not_refunded_after_a_crash_and_a_stall() {
    let (mut rig, exchange) = passed_and_severed(100);
    let up = rig.up.public();
    rig.connect(up);
    rig.stall(5_000);
    rig.up_sends(Frame::Done(wire::Done { exchanges: vec![exchange], receipts: vec![] }));
    rig.steps(50, 100);
    assert_eq!(rig.node.channel(IN).unwrap().totals.sent_b, Yocto::ZERO, "nothing was refunded");
}

/// The network may come back later than the machine.
#[test]
fn a_node_that_has_not_been_connected_since_its_start_doubts_itself() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask_own(10), None);
    restart(&mut rig, 10);
    rig.steps(60, 100);
    assert!(rig.orders.is_empty(), "{:?}", rig.orders);
    rig.steps(100, 100);
    assert!(!rig.orders.is_empty(), "not for ever");
}

/// A relay or a destination that was down owes for that time, whoever has the answer first: the chain is read
/// after it.
#[test]
fn an_answer_waits_for_the_chain_to_be_read_and_pays_for_the_time_until_then() {
    for big in [false, true] {
        let mut rig = Rig::with(|rig| rig.terms.bytes_per_s = 1_000_000);
        rig.input(Input::LateFee { per_ms: LATE_FEE });
        let len = if big { BIG } else { 100 };
        let head = rig.head_here(b"question", len as u64);
        let bound_ms = head.bound_ms_at(0);
        rig.ask(&head, b"question");
        let request = last_incoming(&rig);
        rig.restart();
        rig.serve(10);
        rig.connect_all();
        rig.later(bound_ms + 5_000);
        rig.input(Input::Command(Command::Respond { request, body: Bytes::from(vec![7; len]) }));
        rig.later(100);
        assert_eq!(rig.responses_up_got().len(), 0, "big {big}");
        let before = paid_up(&rig);
        rig.input(Input::LateFee { per_ms: LATE_FEE });
        rig.chain();
        let up = rig.up.public();
        assert!(rig.disconnected.contains(&up), "to be told");
        rig.connect(up);
        rig.later(100);
        assert!(paid_up(&rig).0 >= before.0 + 5_000 * LATE_FEE.0, "big {big}: {} {before}", paid_up(&rig));
        assert_eq!(rig.responses_up_got().len(), 1, "big {big}");
        let after = paid_up(&rig);
        rig.steps(50, 100);
        assert_eq!(paid_up(&rig), after, "nothing more is due, big {big}");
    }
}

/// One that owes nothing itself does not speak for the relay that was down.
#[test]
fn a_response_from_downstream_waits_for_the_chain_to_be_read() {
    let mut rig = Rig::with(|rig| rig.terms.bytes_per_s = 1_000_000);
    rig.input(Input::LateFee { per_ms: LATE_FEE });
    let (id, item) = rig.relayed(b"question", 100);
    rig.acknowledge_item(item.exchange);
    rig.restart();
    rig.connect_all();
    rig.later(20_000);
    let answer = rig.response(id, item.exchange, b"answer");
    rig.respond(answer.clone());
    rig.later(100);
    assert_eq!(rig.responses_up_got().len(), 0);
    let before = paid_up(&rig);
    rig.input(Input::LateFee { per_ms: LATE_FEE });
    rig.chain();
    let down = rig.down.public();
    assert!(rig.disconnected.contains(&down), "to be told again");
    rig.reconnect(down);
    rig.respond(answer);
    rig.later(100);
    assert!(paid_up(&rig).0 > before.0, "{} {before}", paid_up(&rig));
    assert_eq!(rig.responses_up_got().len(), 1);
}

/// The refund of what is declined cannot be told from the deposits before they are read.
#[test]
fn an_upload_that_stopped_is_given_up_once_the_chain_is_read() {
    let mut rig = Rig::new();
    let body = vec![7; BIG];
    let head = rig.head_here(&body, 100);
    let mut item = rig.item(&head, &body);
    item.body = None;
    let payment = Some(rig.payment(&[&head]));
    rig.up_sends(Frame::Request(wire::Request { payment, resent: false, requests: vec![item] }));
    rig.restart();
    let up = rig.up.public();
    rig.connect(up);
    rig.steps(100, 100);
    rig.chain();
    rig.reconnect(up);
    rig.steps(100, 100);
    assert_eq!(paid_up(&rig), rig.paid_up, "refunded");
    assert_eq!(rig.rejection().map(|(reason, _)| reason), Some(RejectReason::Abandoned));
}

/// Whom a crash takes its order back has not severed: the answer may come yet.
#[test]
fn an_author_is_told_of_its_own_order_once_that_is_on_disk() {
    let mut rig = Rig::new();
    assert_eq!(rig.ask_own(10), None);
    let item = rig.down_got().into_iter().find_map(|frame| match frame {
        Frame::Request(request) => request.requests.into_iter().next(),
        _ => None,
    });
    rig.acknowledge_item(item.expect("asked").exchange);
    let told = |rig: &Rig| rig.events.iter().filter(|event| matches!(event, Event::Severed { .. })).count();
    rig.commit = false;
    rig.input(Input::Command(Command::Sever { channel: OUT }));
    assert_eq!((told(&rig), rig.orders.len()), (0, 0));
    rig.commit = true;
    rig.drain();
    assert_eq!((told(&rig), rig.orders.len()), (1, 1));
    assert_eq!(rig.node.unfinished(), 0);
}

/// What is paid for the lateness of a request that came `after_ms` after the start, and was late already when upstream
/// went away for most of its grace.
fn paid_with_an_absence(after_ms: u64, resent: bool) -> Yocto {
    let mut rig = Rig::with(|rig| rig.terms.bytes_per_s = 1_000_000);
    restart(&mut rig, 10);
    rig.input(Input::LateFee { per_ms: LATE_FEE });
    rig.later(after_ms);
    rig.connect_all();
    let head = rig.head_here(b"question", 100);
    let requests = vec![rig.item(&head, b"question")];
    let payment = Some(rig.payment(&[&head]));
    rig.up_sends(Frame::Request(wire::Request { payment, resent, requests }));
    let request = last_incoming(&rig);
    rig.steps(5, 100);
    let up = rig.up.public();
    (1..=8).map(ConnId).for_each(|conn| rig.input(Input::Disconnected { peer: up, conn }));
    rig.steps(9, 100);
    rig.connect(up);
    rig.input(Input::Command(Command::Respond { request, body: Bytes::from_static(b"answer") }));
    paid_up(&rig)
}

#[test]
fn who_was_away_when_a_request_was_sent_excuses_itself_nothing_more() {
    let (excused, more) = (paid_with_an_absence(0, false), LATE_FEE.checked_mul(900).unwrap());
    // Upstream counts from when it sent it first, and has borne that absence.
    let resent = paid_with_an_absence(0, true);
    assert_eq!(Ok(resent), excused.checked_add(more));
    // Nobody is paid for going away by calling everything sent before.
    let later = u64::from(terms().grace_ms) + 1;
    assert_eq!(paid_with_an_absence(later, true), paid_with_an_absence(later, false));
}

/// It may have had the answer before, and the next node says so.
#[test]
fn a_relay_that_restarts_hears_the_next_node_before_it_has_to_sever() {
    // Wherever the syncs fall.
    for case in 0..40 {
        let (comes, phase_ms) = (case % 2 == 0, case / 2 * 50);
        let mut rig = Rig::new();
        let (id, item) = rig.relayed(b"question", 100);
        let answer = rig.response(id, item.exchange, b"answer");
        rig.respond(answer.clone());
        assert_eq!(rig.responses_up_got().len(), 1);
        // Late by now, and more than this node can pay for.
        rig.restart();
        rig.later(60_000 + phase_ms);
        rig.chain();
        rig.input(Input::LateFee { per_ms: Yocto(DEPOSIT.0 / 1_000) });
        let (up, down) = (rig.up.public(), rig.down.public());
        rig.connect(up);
        rig.steps(15, 10);
        rig.connect(down);
        rig.steps(15, 10);
        assert_eq!(rig.orders, [], "{phase_ms} ms");
        if comes {
            rig.respond(answer);
            rig.steps(50, 100);
            assert_eq!(rig.responses_up_got().len(), 1);
            assert_eq!(rig.orders, []);
        } else {
            rig.steps(50, 100);
            assert_eq!(rig.orders.len(), 1);
        }
    }
}
