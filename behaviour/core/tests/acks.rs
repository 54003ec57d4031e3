//! When a relay acknowledges, and what it passes on before it has.

#[path = "support/rig.rs"]
mod rig;

use por_core::types::{ChannelId, InvalidReason, Yocto};
use por_core::wire::{self, Frame, Rejection};
use por_core::*;
use rig::*;

/// Nothing has been acknowledged yet: the author may take another way at once, and nobody severs anybody.
#[test]
fn what_the_next_node_refuses_at_once_is_refused() {
    let mut rig = Rig::new();
    let (id, item) = rig.relayed(b"question", 100);
    let rejection = Rejection { exchange: item.exchange, reason: RejectReason::Balance, invalid: None };
    rig.down_refuses(id, rejection);
    assert_eq!(rig.rejection().map(|(reason, _)| reason), Some(RejectReason::Balance));
    assert_eq!(rig.up_acknowledged(), []);
    let (upper, lower) = (rig.node.channel(IN).unwrap(), rig.node.channel(OUT).unwrap());
    assert_eq!(upper.totals.sent_a, upper.totals.sent_b, "given back");
    assert_eq!((upper.unfinished, lower.unfinished), (0, 0));
    rig.steps(100, 100);
    assert!(rig.orders.is_empty() && rig.disconnected.is_empty());
}

/// It was sent before, to a node that had crashed perhaps, and the time for an Ack runs since.
#[test]
fn what_upstream_sends_again_is_acknowledged_at_once() {
    let mut rig = Rig::new();
    let head = rig.head(b"question", 100);
    let (payment, item) = (Some(rig.payment(&[&head])), rig.item(&head, b"question"));
    let exchange = item.exchange;
    rig.up_sends(Frame::Request(wire::Request { payment, resent: true, requests: vec![item] }));
    assert_eq!(rig.up_acknowledged(), [exchange]);
}

/// A next node that says nothing is this node's affair: upstream has the Ack before it could miss it, and before
/// lateness is paid for.
#[test]
fn an_ack_does_not_wait_for_long() {
    for late in [false, true] {
        let mut rig = Rig::new();
        rig.input(Input::LateFee { per_ms: Yocto(1) });
        let mut head = rig.head(b"question", 100);
        if !late {
            head.route[1].allowance_ms += 100_000;
        }
        let (_, exchange) = rig.ask(&head, b"question");
        let (mut waited_ms, mut acks) = (0, vec![]);
        while acks.is_empty() {
            rig.later(10);
            waited_ms += 10;
            let got = rig.up_got();
            let paid = got.iter().any(|frame| matches!(frame, Frame::Late(_)));
            acks.extend(
                got.into_iter()
                    .filter_map(|frame| match frame {
                        Frame::Ack(ack) => Some(ack.exchanges),
                        _ => None,
                    })
                    .flatten(),
            );
            assert!(!paid || !acks.is_empty(), "paid for without an obligation");
        }
        assert_eq!(acks, [exchange]);
        let (beat, grace) = (u64::from(rig.terms.heartbeat_ms), u64::from(rig.terms.grace_ms));
        let half = (grace + Policy::default().margin_ms) / 2;
        assert!(waited_ms <= half + beat + 10, "{waited_ms} ms");
    }
}

/// Only the destination knows its apps, and what is invalid for a stranger this node cannot tell: the author takes
/// another way, and does not give up for it.
#[test]
fn a_next_node_speaks_for_nobody_else() {
    for reason in
        [RejectReason::NoApp, RejectReason::ServerPrice, RejectReason::Abandoned, RejectReason::Invalid]
    {
        // Longer than the path to `down` alone.
        let mut rig = Rig::new();
        let mut head = rig.head(b"question", 100);
        let (destination, last) = (secret(77).public(), head.route[1].clone());
        head.route.push(types::Hop { channel: ChannelId(70), to: destination, ..last });
        head.destination = destination;
        let (a, b) = (rig.down.public(), destination);
        let edge = GraphEdge { channel: ChannelId(70), a, b, terms: rig.terms.clone(), open: true };
        rig.input(Input::Graph { version: 5, chain_time_ms: NOW, edges: vec![edge] });
        let (id, _) = rig.ask(&head, b"question");
        let exchange = rig.passed_on();
        let statement =
            types::Invalid { request: id, signer: rig.down.public(), reason: InvalidReason::Underpaid };
        let invalid = (reason == RejectReason::Invalid).then(|| signed_invalid(&rig.down, statement));
        rig.down_refuses(id, Rejection { exchange, reason, invalid });
        let (told, proof) = rig.rejection().expect("refused");
        assert_eq!(told, RejectReason::NoEdge, "{reason:?}");
        assert!(proof.is_none(), "{reason:?}");
    }
}

/// It is faulted for that, and this node is under obligation all the same.
#[test]
fn an_answer_that_does_not_hold_keeps_no_ack_back() {
    let mut rig = Rig::new();
    rig.input(Input::LateFee { per_ms: Yocto(1) });
    let (id, item) = rig.relayed(b"question", 100);
    let mut answer = rig.response(id, item.exchange, b"answer");
    answer.body = Some(bytes::Bytes::from_static(b"nonsen"));
    rig.respond(answer);
    assert_eq!(rig.disconnected, [rig.down.public()]);
    assert!(rig.responses_up_got().is_empty());
    let beat = u64::from(rig.terms.heartbeat_ms);
    rig.later(beat);
    assert_eq!(rig.up_acknowledged().len(), 1);
}
