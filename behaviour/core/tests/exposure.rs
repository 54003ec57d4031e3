//! How much a node takes on: up to what absconding could gain, and what its balances cover.

#[path = "support/rig.rs"]
mod rig;

use por_core::types::{ChannelId, Yocto};
use por_core::wire::{self, Frame, Rejection, RequestItem};
use por_core::{ANSWER_APP, ANSWER_LIMIT, Command, Event, GraphEdge, Input, Policy, RejectReason};
use rig::*;

/// What the bond has to exceed: a prepayment, and lateness until a breach is noticed.
fn exposed(rig: &Rig, late_fee: Yocto, requests: u128) -> Yocto {
    let price = rig.head_here(b"question", 100).payment_at(0).unwrap();
    let noticed_ms = u128::from(rig.terms.heartbeat_ms) + u128::from(rig.terms.grace_ms);
    Yocto(requests * (price.0 + late_fee.0 * noticed_ms))
}

#[test]
fn lateness_until_a_breach_is_noticed_counts_as_exposure() {
    let late_fee = Yocto(3);
    for requests in [1, 3] {
        let most = exposed(&Rig::new(), late_fee, requests);
        for (bond, taken) in [(most.0 + 1, requests), (most.0, requests - 1)] {
            let mut rig = Rig::with(|rig| rig.bond = Yocto(bond));
            rig.input(Input::LateFee { per_ms: late_fee });
            for number in 0..requests {
                let head = rig.head_here(b"question", 100);
                rig.ask(&head, b"question");
                let refused = rig.rejection().map(|(reason, _)| reason);
                assert_eq!(
                    refused,
                    (number >= taken).then_some(RejectReason::Busy),
                    "{number} of {requests}"
                );
            }
        }
    }
}

fn told_short(rig: &mut Rig) -> usize {
    let events = std::mem::take(&mut rig.events);
    events.iter().filter(|event| matches!(event, Event::Short { channel: IN, .. })).count()
}

#[test]
fn that_a_balance_is_short_is_told_once_a_minute() {
    let mut rig = Rig::new();
    rig.input(Input::LateFee { per_ms: DEPOSIT });
    assert!(!rig.ask_through(b"first", 100));
    assert_eq!(told_short(&mut rig), 1);
    rig.later(30_000);
    assert!(!rig.ask_through(b"second", 100));
    rig.later(29_999);
    assert!(!rig.ask_through(b"third", 100));
    assert_eq!(told_short(&mut rig), 0, "it is the same minute");
    rig.later(1);
    assert!(!rig.ask_through(b"fourth", 100));
    assert_eq!(told_short(&mut rig), 1);
}

/// What neighbours have relayed must not use up what the lateness of others is paid from: the node would have to
/// sever whoever it waits for. What it spends on own requests is its own to weigh.
#[test]
fn what_is_relayed_leaves_what_lateness_is_paid_from() {
    let borne_ms =
        u128::from(terms().heartbeat_ms + terms().grace_ms) + u128::from(Policy::default().margin_ms);
    let late_fee = Yocto(100);
    let amount = Rig::new().head(b"question", 100).payment_at(1).unwrap();
    let least = 2 * late_fee.0 * borne_ms + amount.0;
    for (deposit, taken) in [(least, true), (least - 1, false)] {
        let mut rig = Rig::with(|rig| rig.out_deposit = Yocto(deposit));
        rig.input(Input::LateFee { per_ms: late_fee });
        let asked = [rig.ask_from_down(b"one", 103), rig.ask_from_down(b"two", 103)];
        let delivered = rig.events.iter().filter(|event| matches!(event, Event::Incoming { .. })).count();
        assert_eq!(delivered, 2, "both are taken");
        rig.events.clear();
        assert_eq!(rig.ask_through(b"question", 100), taken, "{deposit}");
        let refused = rig.rejection().map(|(reason, _)| reason);
        assert_eq!(refused, (!taken).then_some(RejectReason::Balance), "{deposit}");
        let told = rig.events.iter().any(|event| matches!(event, Event::Short { channel: OUT, .. }));
        assert_eq!(told, !taken, "{deposit}");
        if taken {
            continue;
        }
        assert_eq!(rig.ask_own(10), None, "the node's own request");
        for (request, _) in asked {
            rig.input(Input::Command(Command::Respond { request, body: b"answer".as_slice().into() }));
        }
        let exchanges = asked.map(|(_, exchange)| exchange).to_vec();
        rig.down_sends(Frame::Done(wire::Done { exchanges, receipts: vec![] }));
        assert!(rig.ask_through(b"again", 103), "nothing is left that could be late");
    }
}

/// Who insists is told the truth all the same: what is not there cannot be passed on, now or later.
#[test]
fn who_insists_is_refused_what_this_node_cannot_pay_for() {
    for deposit in [1, DEPOSIT.0] {
        let mut rig = Rig::with(|rig| rig.out_deposit = Yocto(deposit));
        let (up, down) = (rig.up.public(), rig.down.public());
        let parted =
            GraphEdge { channel: ChannelId(70), a: down, b: up, terms: rig.terms.clone(), open: false };
        rig.input(Input::Graph { version: 6, chain_time_ms: NOW, edges: vec![parted] });
        let mut head = rig.head(&[7; 32], ANSWER_LIMIT);
        head.app = ANSWER_APP.into();
        head.route[1].allowance_ms += 10_000;
        let item = RequestItem { again: true, ..rig.item(&head, &[7; 32]) };
        let payment = Some(rig.payment(&[&head]));
        rig.up_sends(Frame::Request(wire::Request { payment, resent: false, requests: vec![item] }));
        let reason = rig.rejection().map(|(reason, _)| reason);
        assert_eq!(reason, (deposit == 1).then_some(RejectReason::Balance), "{deposit}");
    }
}

#[test]
fn a_request_of_exactly_what_the_terms_allow_is_taken() {
    let mut rig = Rig::with(|rig| rig.terms.max_bytes = 108);
    let head = rig.head_here(b"question", 100);
    rig.ask(&head, b"question");
    assert!(rig.rejection().is_none());
    let mut rig = Rig::with(|rig| rig.terms.max_bytes = 107);
    let head = rig.head_here(b"question", 100);
    rig.ask(&head, b"question");
    assert_eq!(rig.rejection().map(|(reason, _)| reason), Some(RejectReason::TooLarge));
}

/// What a node is obliged to ask again is paid for anew: something else must not take it meanwhile.
#[test]
fn what_is_to_be_asked_again_stays_covered() {
    let amount = Rig::new().head(b"question", 100).payment_at(1).unwrap();
    // One is refused and waits, one is under way; a third leaves as much as the first needs, or a little less.
    for (deposit, taken) in [(3 * amount.0, true), (3 * amount.0 - 1, false)] {
        let mut rig = Rig::with(|rig| rig.out_deposit = Yocto(deposit));
        let (first, item) = rig.obliged(b"first", 103);
        let (_, other) = rig.relayed(b"second", 102);
        rig.acknowledge_item(other.exchange);
        let busy = Rejection { exchange: item.exchange, reason: RejectReason::Busy, invalid: None };
        let payment = Some(rig.refund(first, amount));
        rig.down_sends(Frame::Reject(wire::Reject { payment, resent: false, rejections: vec![busy] }));
        assert!(rig.rejection().is_none(), "it is obliged to ask again");
        assert_eq!(rig.ask_through(b"third", 103), taken, "{deposit}");
        let refused = rig.rejection().map(|(reason, _)| reason);
        assert_eq!(refused, (!taken).then_some(RejectReason::Balance), "{deposit}");
    }
}
