//! Orders to sever: that they reach the chain, and how many a node gives.

#[path = "support/rig.rs"]
mod rig;

use por_core::types::{ChannelId, Hop, RequestId, SeverOrder, SeverReason, Signed, Totals, Yocto};
use por_core::wire::{self, Frame, LateItem};
use por_core::{Command, Event, ExchangeId, GraphEdge, Input, Patience, Policy};
use rig::*;

/// The edge behind `down`.
const FAR: ChannelId = ChannelId(77);

/// A request that goes on from `down` over [`FAR`], and what comes back with the proof that it was severed.
fn asked_further(rig: &mut Rig) -> (RequestId, ExchangeId, Yocto) {
    let far = secret(9).public();
    let terms = rig.terms.clone();
    let edge = GraphEdge { channel: FAR, a: rig.down.public(), b: far, terms, open: true };
    rig.input(Input::Graph { version: 6, chain_time_ms: NOW, edges: vec![edge] });
    let mut head = rig.head(b"question", 100);
    head.destination = far;
    head.route.push(Hop { channel: FAR, to: far, ..head.route[1].clone() });
    head.route[1].allowance_ms += 10_000;
    let (id, _) = rig.ask(&head, b"question");
    let exchange = rig.passed_on();
    rig.acknowledge(true);
    rig.up_got();
    (id, exchange, head.payment_at(2).unwrap())
}

fn proof(rig: &mut Rig, id: RequestId, exchange: ExchangeId, refund: Yocto) -> (Signed<SeverOrder>, Frame) {
    let signer = rig.down.public();
    let order = SeverOrder { channel: FAR, signer, reason: SeverReason::MissedSync, request: Some(id) };
    let order = rig.down.sign(&network(), order);
    let payment = Some(rig.refund(id, refund));
    let items = vec![LateItem { exchange, amount: Yocto::ZERO, total: Yocto::ZERO }];
    (order.clone(), Frame::Severed(wire::Severed { order, payment, resent: false, items }))
}

/// Whoever holds an order brings it: its signer may have sent it and held it up.
#[test]
fn a_proof_that_passes_is_brought_to_the_chain() {
    for on_chain in [false, true] {
        let mut rig = Rig::new();
        let (id, exchange, refund) = asked_further(&mut rig);
        if on_chain {
            let (a, b) = (rig.down.public(), secret(9).public());
            let edge = GraphEdge { channel: FAR, a, b, terms: rig.terms.clone(), open: false };
            rig.input(Input::Graph { version: 7, chain_time_ms: NOW, edges: vec![edge] });
        }
        let (order, frame) = proof(&mut rig, id, exchange, refund);
        rig.down_sends(frame);
        assert!(rig.disconnected.is_empty(), "{:?}", rig.events);
        assert_eq!(rig.orders, if on_chain { vec![] } else { vec![order] });
        let passed = rig.up_got().into_iter().find_map(|frame| match frame {
            Frame::Severed(severed) => Some(severed.order.statement.channel),
            _ => None,
        });
        assert_eq!(passed, Some(FAR), "and goes upstream at once");
    }
}

/// What comes without the prices from there on is no proof, and the request stays open.
#[test]
fn a_proof_without_the_refund_ends_nothing() {
    let mut rig = Rig::new();
    let (id, exchange, refund) = asked_further(&mut rig);
    let (_, frame) = proof(&mut rig, id, exchange, Yocto(refund.0 - 1));
    rig.down_sends(frame);
    assert_eq!(rig.disconnected, [rig.down.public()]);
    assert!(!rig.up_got().iter().any(|frame| matches!(frame, Frame::Severed(_))));
    assert_eq!(rig.node.unfinished(), 1);
}

#[test]
fn an_order_is_brought_again_after_a_restart_while_the_chain_shows_the_edge() {
    for gone in [false, true] {
        let mut rig = Rig::new();
        rig.input(Input::Command(Command::Sever { channel: OUT }));
        let order = rig.orders.clone();
        assert_eq!(order.len(), 1);
        rig.restart();
        rig.orders.clear();
        rig.gone = if gone { vec![OUT] } else { vec![] };
        rig.chain();
        assert_eq!(rig.orders, if gone { vec![] } else { order });
    }
}

/// When many look late at once the fault is more likely here.
#[test]
fn a_node_severs_so_many_peers_in_a_while_and_then_the_next() {
    let policy = Policy { max_severs: 1, patience: Patience::AfterMs(0), ..Policy::default() };
    let window_ms = policy.sever_window_ms;
    let mut rig = Rig::with(|rig| rig.policy = policy);
    let asked = |rig: &mut Rig, channel, to, allowance_ms| {
        let hop = Hop { channel, to, allowance_ms, ..rig.head(b"question", 100).route[0].clone() };
        assert_eq!(rig.ask_own_over(hop, 0), None);
    };
    let (up, down) = (rig.up.public(), rig.down.public());
    asked(&mut rig, OUT, down, 500);
    asked(&mut rig, IN, up, 700);
    let severed = |rig: &Rig| rig.orders.iter().map(|order| order.statement.channel).collect::<Vec<_>>();
    rig.steps(6, 100);
    assert_eq!(severed(&rig), [OUT]);
    rig.steps(u32::try_from(window_ms / 100 - 2).unwrap(), 100);
    assert_eq!(severed(&rig), [OUT], "one peer within the window");
    rig.steps(20, 100);
    assert_eq!(severed(&rig), [OUT, IN], "it is not forgotten");
}

/// A peer that is there and pays is in no other breach: nothing else would look at its bound again.
#[test]
fn a_bound_that_passes_when_no_more_may_be_severed_is_looked_at_again() {
    const LATE: SeverReason = SeverReason::UnpaidLateness;
    let window_ms = 5_000;
    let patience = Patience::AfterMs(0);
    let policy = Policy { max_severs: 1, sever_window_ms: window_ms, patience, ..Policy::default() };
    let mut rig = Rig::with(|rig| rig.policy = policy);
    rig.input(Input::LateFee { per_ms: Yocto(1) });
    let (up, down) = (rig.up.public(), rig.down.public());
    for (channel, to, allowance_ms) in [(IN, up, 500), (OUT, down, 700)] {
        let hop = Hop { channel, to, allowance_ms, ..rig.head(b"question", 100).route[0].clone() };
        assert_eq!(rig.ask_own_over(hop, 0), None);
    }
    let item = rig.down_asked();
    let request = rig.last_request(&item);
    rig.acknowledge_item(item.exchange);
    let severed = |rig: &Rig| rig.orders.iter().map(|order| order.statement.channel).collect::<Vec<_>>();
    let mut told = 0;
    for passed_ms in (100..=window_ms + 1_000).step_by(100) {
        rig.later(100);
        let withheld = |it: &&Event| matches!(it, Event::SeverWithheld { reason: LATE, .. });
        told += rig.events.iter().filter(withheld).count();
        rig.events.clear();
        match passed_ms {
            ..500 => assert_eq!(severed(&rig), []),
            700..5_400 => assert_eq!(severed(&rig), [IN], "after {passed_ms} ms"),
            5_700.. => assert_eq!(severed(&rig), [IN, OUT], "after {passed_ms} ms"),
            _ => {}
        }
        if rig.orders.len() < 2 {
            rig.alive();
            rig.down_pays_late(request, item.exchange, Yocto(200));
        }
    }
    assert_eq!(told, 1, "that it is withheld, once");
    assert!(rig.orders.iter().all(|order| order.statement.reason == LATE));
}

/// The chain says no more than a node has to know, so what it says stays.
#[test]
fn totals_that_the_chain_has_proven_outlive_the_process() {
    for floors in [(5, 0), (0, 7), (5, 7)].map(|(a, b)| Totals { sent_a: Yocto(a), sent_b: Yocto(b) }) {
        let mut rig = Rig::new();
        let mut channels = rig.my_channels();
        channels.iter_mut().filter(|info| info.channel == IN).for_each(|info| info.floors = floors);
        rig.input(Input::Channels { channels });
        rig.restart();
        assert_eq!(rig.node.channel(IN).map(|channel| channel.totals), Some(floors));
    }
}
