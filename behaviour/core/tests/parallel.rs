//! A node that has acknowledged a request and is refused over the channel that the route names.

#[path = "support/rig.rs"]
mod rig;

use std::collections::BTreeMap;

use por_core::types::{ChannelId, Item, ItemKind, Items, RequestId, SeverReason, Side, Yocto};
use por_core::wire::{self, Frame, Rejection, RequestItem};
use por_core::*;
use rig::*;

fn beside() -> Rig {
    Rig::with(|rig| rig.beside = true)
}

/// What `down` has paid per channel.
type Paid = BTreeMap<ChannelId, Yocto>;

/// `down` gives the money back.
fn refuse(rig: &mut Rig, paid: &mut Paid, request: RequestId, item: &RequestItem) {
    let channel = item.channel.unwrap_or(OUT);
    let amount = rig.node.channel(channel).unwrap().pending_out;
    let total = paid.entry(channel).or_default();
    *total = total.checked_add(amount).unwrap();
    let items = vec![Item { request, amount, kind: ItemKind::Refund }];
    let items = Items { channel, payer: Side::B, items }.hash(&network());
    let mine = rig.node.channel(channel).unwrap().totals.sent_a;
    let payment = Some(state(&rig.down, channel, mine, *total, items));
    let rejection = Rejection { exchange: item.exchange, reason: RejectReason::Busy, invalid: None };
    rig.sent.clear();
    rig.down_sends(Frame::Reject(wire::Reject { payment, resent: false, rejections: vec![rejection] }));
}

/// What `down` is asked next, within a second.
fn next(rig: &mut Rig) -> Option<wire::Request> {
    (0..20).find_map(|_| {
        rig.later(50);
        rig.alive();
        rig.down_got().into_iter().find_map(|frame| match frame {
            Frame::Request(request) => Some(request),
            _ => None,
        })
    })
}

/// Refused once, and asked over the other channel.
fn moved(rig: &mut Rig, paid: &mut Paid) -> (RequestId, RequestItem) {
    let (id, first) = rig.obliged(b"question", 100);
    assert_eq!(first.channel, None);
    refuse(rig, paid, id, &first);
    let again = next(rig).expect("asked again");
    let item = again.requests[0].clone();
    assert_eq!((item.channel, item.again), (Some(BESIDE), true));
    assert_eq!(again.payment.expect("paid").statement.channel, BESIDE);
    let pending = |id| rig.node.channel(id).unwrap().pending_out;
    assert_eq!(pending(OUT), Yocto::ZERO);
    assert!(pending(BESIDE) > Yocto::ZERO);
    (id, item)
}

/// Channels of the proofs that `up` got.
fn proofs(rig: &mut Rig) -> Vec<ChannelId> {
    let proof = |frame| match frame {
        Frame::Severed(severed) => Some(severed.order.statement.channel),
        _ => None,
    };
    rig.up_got().into_iter().filter_map(proof).collect()
}

fn severed(rig: &Rig) -> Vec<ChannelId> {
    rig.orders.iter().map(|order| order.statement.channel).collect()
}

#[test]
fn who_is_refused_asks_over_a_parallel_channel_and_the_answer_counts() {
    let mut rig = beside();
    let (id, item) = moved(&mut rig, &mut Paid::new());
    let answer = rig.response(id, item.exchange, b"answer");
    rig.respond(answer);
    assert_eq!(rig.responses_up_got().len(), 1);
    assert_eq!(severed(&rig), []);
    let (out, other) = (rig.node.channel(OUT).unwrap(), rig.node.channel(BESIDE).unwrap());
    assert_eq!(out.totals.sent_a, out.totals.sent_b, "the first channel has its money back");
    assert!(other.totals.sent_a > Yocto::ZERO);
}

#[test]
fn channels_take_turns_and_a_peer_that_refuses_over_all_loses_the_named_one() {
    let (mut rig, mut paid) = (beside(), Paid::new());
    let (id, mut item) = moved(&mut rig, &mut paid);
    let mut over = vec![];
    loop {
        refuse(&mut rig, &mut paid, id, &item);
        let Some(again) = next(&mut rig) else { break };
        item = again.requests[0].clone();
        over.push(item.channel);
    }
    assert!(over.contains(&None) && over.contains(&Some(BESIDE)), "{over:?}");
    assert_eq!(severed(&rig), [OUT]);
    assert_eq!(rig.orders[0].statement.reason, SeverReason::NoAck);
    assert_eq!(rig.node.channel(BESIDE).unwrap().pending_out, Yocto::ZERO);
}

#[test]
fn who_falls_silent_over_the_parallel_channel_loses_both_and_upstream_gets_the_named_one() {
    for acks in [true, false] {
        let mut rig = beside();
        let (_, item) = moved(&mut rig, &mut Paid::new());
        if acks {
            rig.acknowledge_item(item.exchange);
        }
        rig.sent.clear();
        for _ in 0..40 {
            rig.later(500);
            rig.up_takes_proofs();
        }
        let mut all = severed(&rig);
        all.sort_unstable();
        assert_eq!(all, [OUT, BESIDE]);
        assert_eq!(proofs(&mut rig), [OUT], "the edge that the route names");
    }
}

#[test]
fn a_named_channel_that_is_severed_while_nothing_is_paid_over_it_is_replaced() {
    for answers in [true, false] {
        let (mut rig, mut paid) = (beside(), Paid::new());
        let (id, first) = rig.obliged(b"question", 100);
        refuse(&mut rig, &mut paid, id, &first);
        rig.gone.push(OUT);
        rig.chain();
        assert_eq!(proofs(&mut rig), [], "there is another way");
        let again = next(&mut rig).expect("asked again");
        let item = again.requests[0].clone();
        assert_eq!(item.channel, Some(BESIDE));
        if answers {
            let answer = rig.response(id, item.exchange, b"answer");
            rig.respond(answer);
            assert_eq!(rig.responses_up_got().len(), 1);
            assert_eq!(severed(&rig), []);
        } else {
            for _ in 0..40 {
                rig.later(500);
                rig.up_takes_proofs();
                rig.up_takes_proofs();
            }
            assert_eq!(severed(&rig), [BESIDE], "the other one had left already");
            assert_eq!(proofs(&mut rig), [OUT]);
        }
    }
}

#[test]
fn a_paid_request_over_a_severed_channel_is_not_paid_twice() {
    let mut rig = beside();
    rig.obliged(b"question", 100);
    rig.gone.push(OUT);
    rig.chain();
    assert_eq!(proofs(&mut rig), [OUT]);
    assert!(next(&mut rig).is_none());
}

#[test]
fn without_a_way_left_the_proof_goes_upstream_in_time() {
    let (mut rig, mut paid) = (beside(), Paid::new());
    let (id, first) = rig.obliged(b"question", 100);
    refuse(&mut rig, &mut paid, id, &first);
    rig.gone.push(OUT);
    rig.chain();
    let again = next(&mut rig).expect("asked again").requests[0].clone();
    refuse(&mut rig, &mut paid, id, &again);
    rig.gone.push(BESIDE);
    rig.chain();
    for _ in 0..40 {
        rig.later(100);
        rig.alive();
    }
    assert_eq!(proofs(&mut rig), [OUT]);
    assert_eq!(severed(&rig), [], "nothing was left to sever");
}

#[test]
fn a_channel_that_asks_for_more_than_the_route_grants_stands_in_for_none() {
    let mut rig = beside();
    let (_, first) = {
        rig.terms.base_fee = Yocto(101);
        let dear = rig.my_channels();
        rig.terms.base_fee = Yocto(100);
        let mut channels = rig.my_channels();
        channels[3] = dear[3].clone();
        rig.input(Input::Channels { channels });
        rig.obliged(b"question", 100)
    };
    let mut paid = Paid::new();
    let id = rig.last_request(&first);
    refuse(&mut rig, &mut paid, id, &first);
    for _ in 0..4 {
        let again = next(&mut rig).expect("asked again").requests[0].clone();
        assert_eq!(again.channel, None);
        refuse(&mut rig, &mut paid, id, &again);
    }
}

#[test]
fn a_request_over_a_parallel_channel_is_taken_for_its_price_alone() {
    // From `up` over its second channel; the route names the first.
    for price in [100, 101] {
        let mut rig = Rig::new();
        let head = rig.head_here(b"question", 100);
        rig.terms.base_fee = Yocto(price);
        let dear = rig.my_channels();
        rig.terms.base_fee = Yocto(100);
        let mut channels = rig.my_channels();
        channels[2] = dear[2].clone();
        rig.input(Input::Channels { channels });
        let mut item = rig.item(&head, b"question");
        item.channel = Some(SECOND);
        let amount = head.payment_at(0).unwrap();
        let items = vec![Item { request: head.id(&network()), amount, kind: ItemKind::Request }];
        let items = Items { channel: SECOND, payer: Side::A, items }.hash(&network());
        let payment = Some(state(&rig.up, SECOND, amount, Yocto::ZERO, items));
        rig.up_sends(Frame::Request(wire::Request { payment, resent: false, requests: vec![item] }));
        assert_eq!(rig.rejection().is_none(), price == 100);
        let pending = rig.node.channel(SECOND).unwrap().pending_in;
        assert_eq!(pending, if price == 100 { amount } else { Yocto::ZERO });
    }
}
