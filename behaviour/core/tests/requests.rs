//! What a hostile upstream peer or author can send with a request, and what comes of it.

#[path = "support/rig.rs"]
mod rig;

use por_core::types::{ChannelId, DalekVerify, Hash, InvalidReason, Side, Yocto};
use por_core::wire::{self, Frame, Lane, RequestItem};
use por_core::*;
use rig::*;

/// The channel's totals as the node has them: what the peer pays, what the node pays.
fn totals(rig: &Rig, channel: ChannelId) -> (Yocto, Yocto) {
    let snapshot = rig.node.channel(channel).unwrap();
    let me = snapshot.side;
    (snapshot.totals.sent_by(me.other()), snapshot.totals.sent_by(me))
}

#[test]
fn an_honest_request_is_acknowledged_passed_on_and_paid() {
    let mut rig = Rig::new();
    let head = rig.head(b"question", 100);
    let (id, exchange) = rig.ask(&head, b"question");
    let ack = rig.up_got().into_iter().find_map(|frame| match frame {
        Frame::Ack(ack) => Some(ack),
        _ => None,
    });
    let ack = ack.expect("counter-signed");
    assert!(ack.exchanges.is_empty(), "not before the next node has acknowledged");
    // The counter-signature is of the very bytes that were paid with.
    let receipt = &ack.receipts[0];
    assert!(receipt.verify(&network(), &rig.me, &DalekVerify));
    assert_eq!(receipt.statement.totals.sent_a, head.payment_at(0).unwrap());
    let Some(Frame::Request(request)) = rig.down_got().pop() else { panic!("not passed on") };
    assert_eq!(request.requests[0].hop, 1);
    assert_eq!(request.requests[0].head[..], borsh::to_vec(&head).unwrap()[..]);
    let payment = request.payment.expect("paid");
    assert!(payment.verify(&network(), &rig.me, &DalekVerify));
    assert_eq!(payment.statement.totals.sent_a, head.payment_at(1).unwrap());
    let snapshot = rig.node.channel(IN).unwrap();
    assert_eq!(
        (snapshot.side, snapshot.pending_in, snapshot.unfinished),
        (Side::B, head.payment_at(0).unwrap(), 1)
    );
    rig.sent.clear();
    rig.acknowledge_item(request.requests[0].exchange);
    assert_eq!(rig.up_acknowledged(), [], "it waits for company");
    let beat = u64::from(rig.terms.heartbeat_ms);
    rig.later(beat);
    assert_eq!(rig.up_acknowledged(), [exchange]);
    let item = rig.response(id, request.requests[0].exchange, b"answer");
    rig.respond(item);
    assert_eq!(rig.responses_up_got()[0].body.as_deref(), Some(&b"answer"[..]));
    rig.up_sends(Frame::Done(wire::Done { exchanges: vec![exchange], receipts: vec![] }));
    assert!(rig.rows.keys().any(|(table, _)| *table == Table::Exchanges), "the end goes with the next batch");
    rig.later(20);
    let earned = head.route[0].price;
    assert!(rig.events.iter().any(|e| matches!(e, Event::Relayed { earned: got, .. } if *got == earned)));
    assert_eq!(rig.node.unfinished(), 0);
    assert!(rig.rows.keys().all(|(table, _)| *table != Table::Exchanges), "all rows are gone");
}

#[test]
fn nothing_is_acknowledged_or_passed_on_before_it_is_on_disk() {
    let mut rig = Rig::new();
    rig.commit = false;
    let head = rig.head(b"question", 100);
    rig.ask(&head, b"question");
    assert!(rig.sent.is_empty(), "{:?}", rig.sent);
    let row = rig.rows.iter().find(|((table, _), _)| *table == Table::Exchanges);
    assert!(row.is_some(), "written ahead");
    rig.commit = true;
    rig.drain();
    assert!(matches!(rig.up_got()[..], [Frame::Ack(_)]));
    assert!(matches!(rig.down_got()[..], [Frame::Request(_)]));
}

#[test]
fn a_repeated_request_costs_nothing_and_is_served_once() {
    let mut rig = Rig::new();
    let head = rig.head_here(b"question", 100);
    let item = rig.item(&head, b"question");
    let payment = Some(rig.payment(&[&head]));
    let frame = Frame::Request(wire::Request { payment, resent: false, requests: vec![item] });
    rig.up_sends(frame.clone());
    rig.up_sends(frame);
    let incoming = rig.events.iter().filter(|e| matches!(e, Event::Incoming { .. })).count();
    assert_eq!(incoming, 1);
    assert_eq!(totals(&rig, IN), (head.payment_at(0).unwrap(), Yocto::ZERO));
    assert!(rig.disconnected.is_empty());
}

#[test]
fn one_number_for_two_requests_is_refused() {
    let mut rig = Rig::new();
    let head = rig.head_here(b"question", 100);
    let (_, exchange) = rig.ask(&head, b"question");
    let other = rig.head_here(b"other", 100);
    let mut item = rig.item(&other, b"other");
    item.exchange = exchange;
    let payment = Some(rig.payment(&[&other]));
    rig.up_sends(Frame::Request(wire::Request { payment, resent: false, requests: vec![item] }));
    assert!(rig.blames(rig.up.public(), "one exchange number"));
}

#[test]
fn a_forged_author_signature_is_refused() {
    let mut rig = Rig::new();
    let head = rig.head(b"question", 100);
    let mut item = rig.item(&head, b"question");
    item.proof = sign_one(&rig.down, &head);
    let payment = Some(rig.payment(&[&head]));
    rig.up_sends(Frame::Request(wire::Request { payment, resent: false, requests: vec![item] }));
    assert!(rig.blames(rig.up.public(), "author's signature"));
    assert!(rig.down_got().is_empty());
}

#[test]
fn a_request_without_payment_is_refused() {
    let mut rig = Rig::new();
    let head = rig.head(b"question", 100);
    let item = rig.item(&head, b"question");
    rig.up_sends(Frame::Request(wire::Request { payment: None, resent: true, requests: vec![item] }));
    assert!(rig.blames(rig.up.public(), "not covered"));
}

#[test]
fn a_replayed_payment_pays_for_nothing_more() {
    let mut rig = Rig::new();
    let first = rig.head_here(b"question", 100);
    rig.ask(&first, b"question");
    let second = rig.head_here(b"again", 100);
    let item = rig.item(&second, b"again");
    rig.paid_up = Yocto::ZERO;
    let replayed = Some(rig.payment(&[&first]));
    rig.up_sends(Frame::Request(wire::Request { payment: replayed, resent: false, requests: vec![item] }));
    assert!(rig.blames(rig.up.public(), "not covered"));
}

#[test]
fn a_payment_replayed_on_another_channel_is_refused() {
    let mut rig = Rig::new();
    let mut head = rig.head_here(b"question", 100);
    head.route[0].channel = SECOND;
    let item = rig.item(&head, b"question");
    let mut payment = rig.payment(&[&head]);
    payment.statement.channel = SECOND;
    rig.up_sends(Frame::Request(wire::Request {
        payment: Some(payment),
        resent: true,
        requests: vec![item],
    }));
    assert!(rig.blames(rig.up.public(), "wrong signature"));
    assert_eq!(totals(&rig, SECOND), (Yocto::ZERO, Yocto::ZERO));
}

#[test]
fn an_inflated_counter_total_is_refused() {
    let mut rig = Rig::new();
    let head = rig.head_here(b"question", 100);
    let item = rig.item(&head, b"question");
    let honest = rig.payment(&[&head]);
    let items = honest.statement.items;
    let payment = state(&rig.up, IN, rig.paid_up, Yocto(1), items);
    rig.up_sends(Frame::Request(wire::Request {
        payment: Some(payment),
        resent: false,
        requests: vec![item],
    }));
    assert!(rig.blames(rig.up.public(), "more of this node's total than it ever signed"));
}

#[test]
fn a_payment_beyond_the_balance_is_refused() {
    let mut rig = Rig::new();
    let head = rig.head_here(b"question", 100);
    let item = rig.item(&head, b"question");
    let payment = state(&rig.up, IN, Yocto(DEPOSIT.0 + 1), Yocto::ZERO, Hash([0; 32]));
    rig.up_sends(Frame::Request(wire::Request {
        payment: Some(payment),
        resent: true,
        requests: vec![item],
    }));
    assert!(rig.blames(rig.up.public(), "not covered by the payer's balance"));
}

#[test]
fn a_payment_for_other_items_is_refused() {
    let mut rig = Rig::new();
    let head = rig.head_here(b"question", 100);
    let item = rig.item(&head, b"question");
    let payment = state(&rig.up, IN, head.payment_at(0).unwrap(), Yocto::ZERO, Hash([9; 32]));
    rig.up_sends(Frame::Request(wire::Request {
        payment: Some(payment),
        resent: false,
        requests: vec![item],
    }));
    assert!(rig.blames(rig.up.public(), "other items"));
}

#[test]
fn a_body_that_is_not_the_signed_one_is_refused() {
    for body in [&b"questiom"[..], b"question and more"] {
        let mut rig = Rig::new();
        let head = rig.head(b"question", 100);
        rig.ask(&head, body);
        assert!(rig.blames(rig.up.public(), "request body does not have the signed"));
        assert!(rig.down_got().is_empty());
    }
}

#[test]
fn a_request_for_another_path_is_refused() {
    let mut rig = Rig::new();
    let mut head = rig.head(b"question", 100);
    head.route[0].to = rig.down.public();
    rig.ask(&head, b"question");
    assert!(rig.blames(rig.up.public(), "does not pass"));
}

/// Rejected with this reason and all of the money back.
fn assert_rejected(rig: &mut Rig, head: &types::RequestHead, reason: RejectReason) {
    rig.ask(head, b"question");
    let rejection = rig.rejection().expect("rejected");
    assert_eq!(rejection.0, reason);
    let (theirs, mine) = totals(rig, IN);
    assert_eq!(theirs, mine, "refunded in full");
    assert!(rig.down_got().is_empty());
    assert!(rig.disconnected.is_empty());
}

#[test]
fn an_underpaid_later_hop_is_invalid_with_proof_and_refund() {
    let mut rig = Rig::new();
    let mut head = rig.head(b"question", 100);
    head.route[1].price = Yocto(head.route[1].price.0 - 1);
    let (id, _) = rig.ask(&head, b"question");
    let (reason, invalid) = rig.rejection().expect("rejected");
    assert_eq!(reason, RejectReason::Invalid);
    let invalid = invalid.expect("with proof");
    assert!(invalid.verify(&network(), &DalekVerify));
    assert_eq!((invalid.statement.request, invalid.statement.reason), (id, InvalidReason::Underpaid));
    assert_eq!(totals(&rig, IN).0, totals(&rig, IN).1);
}

#[test]
fn what_an_older_graph_would_have_shown_is_no_proof_of_invalidity() {
    let mut rig = Rig::new();
    let mut head = rig.head(b"question", 100);
    head.route[1].price = Yocto(head.route[1].price.0 - 1);
    head.graph_version = 4;
    assert_rejected(&mut rig, &head, RejectReason::NoEdge);
}

#[test]
fn too_little_time_and_edges_that_do_not_join_are_invalid() {
    let mut rig = Rig::new();
    let mut head = rig.head(b"question", 100);
    head.route[1].allowance_ms -= 1;
    assert_rejected(&mut rig, &head, RejectReason::Invalid);
    let mut head = rig.head(b"question", 100);
    head.route[1].channel = SECOND;
    assert_rejected(&mut rig, &head, RejectReason::Invalid);
}

#[test]
fn requests_that_cannot_be_served_are_rejected_with_the_reason() {
    use RejectReason as R;
    let mut rig = Rig::new();
    let mut head = rig.head_here(b"question", 100);
    head.expires_ms = NOW;
    assert_rejected(&mut rig, &head, R::Expired);
    head.expires_ms = NOW + 25 * 3600 * 1000;
    assert_rejected(&mut rig, &head, R::Expired);
    let mut head = rig.head_here(b"question", 100);
    head.app = "other".into();
    assert_rejected(&mut rig, &head, R::NoApp);
    let mut head = rig.head_here(b"question", 100);
    head.server_price = Yocto(9);
    assert_rejected(&mut rig, &head, R::ServerPrice);
    let mut head = rig.head(b"question", 100);
    head.route[1].channel = ChannelId(77);
    assert_rejected(&mut rig, &head, R::NoEdge);
}

/// Otherwise any author could make a node sever a neighbour that is away.
#[test]
fn an_author_insists_only_on_whom_it_has_parted_with() {
    let mut rig = Rig::new();
    let (up, down) = (rig.up.public(), rig.down.public());
    rig.input(Input::Disconnected { peer: down, conn: ConnId(2) });
    let insist = |rig: &mut Rig| {
        let mut head = rig.head(&[7; 32], ANSWER_LIMIT);
        head.app = ANSWER_APP.into();
        let item = RequestItem { again: true, ..rig.item(&head, &[7; 32]) };
        let payment = Some(rig.payment(&[&head]));
        rig.up_sends(Frame::Request(wire::Request { payment, resent: false, requests: vec![item] }));
        rig.rejection().map(|(reason, _)| reason)
    };
    assert_eq!(insist(&mut rig), Some(RejectReason::Unreachable));
    let edge = GraphEdge { channel: ChannelId(70), a: down, b: up, terms: rig.terms.clone(), open: false };
    rig.input(Input::Graph { version: 6, chain_time_ms: NOW, edges: vec![edge] });
    assert_eq!(insist(&mut rig), None);
    assert_eq!(rig.node.unfinished(), 2, "one refused, one taken");
}

#[test]
fn an_unreachable_or_closing_next_node_rejects() {
    let mut rig = Rig::new();
    let down = rig.down.public();
    rig.input(Input::Disconnected { peer: down, conn: ConnId(2) });
    let head = rig.head(b"question", 100);
    assert_rejected(&mut rig, &head, RejectReason::Unreachable);
    let mut rig = Rig::new();
    let mut channels = rig.my_channels();
    channels[1].open = false;
    rig.input(Input::Channels { channels });
    let head = rig.head(b"question", 100);
    assert_rejected(&mut rig, &head, RejectReason::NoEdge);
}

#[test]
fn a_next_edge_without_balance_rejects() {
    let mut rig = Rig::new();
    let mut channels = rig.my_channels();
    channels[1].deposit_mine = Yocto(10);
    rig.input(Input::Channels { channels });
    let head = rig.head(b"question", 100);
    assert_rejected(&mut rig, &head, RejectReason::Balance);
}

#[test]
fn more_requests_than_the_terms_allow_are_busy() {
    let mut rig = Rig::with(|rig| rig.terms.max_requests = 2);
    for _ in 0..2 {
        let head = rig.head_here(b"question", 100);
        rig.ask(&head, b"question");
        assert!(rig.rejection().is_none());
    }
    let head = rig.head_here(b"question", 100);
    rig.ask(&head, b"question");
    assert_eq!(rig.rejection().unwrap().0, RejectReason::Busy);
}

#[test]
fn an_app_with_a_full_queue_is_busy() {
    let mut rig = Rig::new();
    for _ in 0..4 {
        let head = rig.head_here(b"question", 100);
        rig.ask(&head, b"question");
        assert!(rig.rejection().is_none());
    }
    let head = rig.head_here(b"question", 100);
    rig.ask(&head, b"question");
    assert_eq!(rig.rejection().unwrap().0, RejectReason::Busy);
}

/// Whoever is flooded pays one signature for all that it declines at once.
#[test]
fn what_is_declined_together_is_signed_once() {
    let mut rig = Rig::new();
    for _ in 0..4 {
        let head = rig.head_here(b"question", 100);
        rig.ask(&head, b"question");
    }
    let heads: Vec<_> = (0..3).map(|_| rig.head_here(b"question", 100)).collect();
    let requests = heads.iter().map(|head| rig.item(head, b"question")).collect();
    let payment = Some(rig.payment(&heads.iter().collect::<Vec<_>>()));
    rig.up_sends(Frame::Request(wire::Request { payment, resent: false, requests }));
    let frames = rig.up_got();
    let rejections: Vec<_> = frames
        .iter()
        .filter_map(|frame| if let Frame::Reject(reject) = frame { Some(&reject.rejections) } else { None })
        .flatten()
        .collect();
    assert_eq!(rejections.len(), 3);
    let mut signatures = Vec::new();
    for (rejection, head) in rejections.iter().zip(&heads) {
        assert_eq!(rejection.reason, RejectReason::Busy);
        let proof = rejection.invalid.as_ref().expect("signed");
        assert!(proof.verify(&network(), &DalekVerify));
        assert_eq!(proof.statement.request, head.id(&network()));
        assert_eq!((proof.statement.signer, proof.proof.leaves), (rig.me, 3));
        signatures.push(proof.proof.signature);
    }
    signatures.dedup();
    assert_eq!(signatures.len(), 1);
}

#[test]
fn an_allowance_that_does_not_cover_what_is_under_way_is_busy() {
    let mut rig = Rig::new();
    let head = rig.head(b"question", 100);
    rig.ask(&head, b"question");
    assert!(rig.rejection().is_none());
    // 116 more bytes at 1000 bytes a second take 116 ms longer.
    let mut head = rig.head(b"question", 100);
    rig.ask(&head, b"question");
    assert_eq!(rig.rejection().unwrap().0, RejectReason::Busy);
    head.nonce = 99;
    head.route[1].allowance_ms += 116;
    rig.ask(&head, b"question");
    assert!(rig.rejection().is_none());
}

/// A refusal that is to be said again after a lost connection is over when the request comes anew with the
/// same message, whether Done comes before it or not at all.
#[test]
fn a_refusal_is_not_said_again_of_a_request_that_came_anew() {
    for done in [true, false] {
        let mut rig = Rig::new();
        let mut head = rig.head_here(b"question", 100);
        head.app = "unknown".into();
        let (_, before) = rig.ask(&head, b"question");
        assert_eq!(rig.rejection().unwrap().0, RejectReason::NoApp);
        let item = rig.item(&head, b"question");
        let (exchange, payment) = (item.exchange, Some(rig.payment(&[&head])));
        let mut frames = vec![Frame::Request(wire::Request { payment, resent: false, requests: vec![item] })];
        if done {
            frames.insert(0, Frame::Done(wire::Done { exchanges: vec![before], receipts: vec![] }));
        }
        rig.reconnect_and(rig.up.public(), frames);
        let rejects = rig.up_got().into_iter().filter_map(|frame| match frame {
            Frame::Reject(reject) => Some(reject),
            _ => None,
        });
        let rejects: Vec<wire::Reject> = rejects.collect();
        let [reject] = &rejects[..] else { panic!("{rejects:?}") };
        assert_eq!((reject.rejections.len(), reject.rejections[0].exchange), (1, exchange));
        let refunded = reject.payment.as_ref().unwrap().statement.totals.sent_b;
        assert_eq!(refunded, rig.paid_up, "done {done}");
    }
}

/// How many requests of a neighbour are passed on until one is not, how many of another one after that, and
/// how many more of the first.
fn shared(mut rig: Rig) -> (usize, usize, usize) {
    let greedy = (0..100).take_while(|_| rig.ask_through(b"question", 100)).count();
    let modest = (0..100).take_while(|_| rig.ask_from_other(b"question", 100)).count();
    let again = (0..100).take_while(|_| rig.ask_through(b"question", 100)).count();
    assert!(rig.disconnected.is_empty());
    (greedy, modest, again)
}

#[test]
fn one_neighbour_does_not_fill_the_next_edge() {
    let with = |change: fn(&mut Rig)| {
        Rig::with(|rig| {
            (rig.other, rig.limits.max_exchanges) = (Some(secret(4)), 1000);
            rig.terms.max_requests = 1000;
            change(rig);
        })
    };
    // Of 18 places one neighbour may have 16, 8 times as many as are left then; another one that of the rest.
    assert_eq!(shared(with(|rig| rig.terms.max_requests = 18)), (16, 2, 0));
    // A request takes 108 of the bytes.
    assert_eq!(shared(with(|rig| rig.terms.max_bytes = 18 * 108)), (16, 2, 0));
    // Exposure stays below the bond.
    let price = Rig::new().head(b"question", 100).payment_at(1).unwrap();
    let mut rig = with(|_| {});
    let mut channels = rig.my_channels();
    channels[1].bond = Yocto(18 * price.0);
    rig.input(Input::Channels { channels });
    assert_eq!(shared(rig), (16, 1, 0));
}

#[test]
fn what_is_answered_is_free_for_all() {
    let mut rig = Rig::with(|rig| {
        (rig.other, rig.limits.max_exchanges) = (Some(secret(4)), 1000);
        rig.terms.max_requests = 18;
    });
    let mut items = Vec::new();
    for _ in 0..16 {
        items.push(rig.relayed(b"question", 100));
    }
    assert!(!rig.ask_through(b"question", 100));
    for (id, item) in items {
        let response = rig.response(id, item.exchange, b"answer");
        rig.respond(response);
    }
    assert!((0..16).all(|_| rig.ask_through(b"question", 100)));
    assert!(rig.ask_from_other(b"question", 100));
}

#[test]
fn unanswered_prepayments_stay_below_the_bond() {
    let price = Rig::new().head_here(b"question", 100).payment_at(0).unwrap();
    let mut rig = Rig::with(|rig| rig.bond = Yocto(2 * price.0));
    let head = rig.head_here(b"question", 100);
    rig.ask(&head, b"question");
    assert!(rig.rejection().is_none());
    let head = rig.head_here(b"question", 100);
    rig.ask(&head, b"question");
    assert_eq!(rig.rejection().unwrap().0, RejectReason::Busy);
}

#[test]
fn a_flood_of_requests_disconnects_the_peer_and_no_other() {
    let mut rig = Rig::with(|rig| rig.terms.max_requests = 2);
    for _ in 0..40 {
        let head = rig.head_here(b"question", 100);
        rig.ask(&head, b"question");
    }
    assert!(rig.blames(rig.up.public(), "more unfinished requests"));
    assert!(!rig.disconnected.contains(&rig.down.public()));
    assert!(rig.node.unfinished() <= 20);
}

#[test]
fn fragments_beyond_the_credit_disconnect_the_peer() {
    let mut rig = Rig::new();
    let body = vec![3; 200_000];
    let head = rig.head_here(&body, 100);
    let mut item = rig.item(&head, &body);
    item.body = None;
    let payment = Some(rig.payment(&[&head]));
    rig.up_sends(Frame::Request(wire::Request { payment, resent: false, requests: vec![item.clone()] }));
    assert!(rig.rejection().is_none());
    let data = vec![0; rig.limits.window as usize + 1].into();
    let part = wire::Part::RequestBody;
    rig.up_sends(Frame::Fragment(wire::Fragment { exchange: item.exchange, part, offset: 0, data }));
    assert!(rig.blames(rig.up.public(), "than it had credit for"));
}

#[test]
fn what_may_have_to_be_refunded_is_never_spent() {
    let mut rig = Rig::with(|rig| rig.terms.base_fee = Yocto(400_000));
    let mut channels = rig.my_channels();
    channels[0].deposit_mine = Yocto(1000);
    rig.input(Input::Channels { channels });
    let head = rig.head_here(b"question", 100);
    rig.ask(&head, b"question");
    // The node's whole balance on IN is the prepayment of a request that it has not answered.
    let snapshot = rig.node.channel(IN).unwrap();
    assert!(snapshot.balance_mine.0 > 400_000);
    let mut route = rig.head_here(b"", 10).route;
    route[0].to = rig.up.public();
    rig.input(Input::Command(Command::Request {
        token: 5,
        destination: rig.up.public(),
        app: "app".into(),
        body: Default::default(),
        response_limit: 10,
        server_price: Yocto::ZERO,
        expires_ms: NOW + 1000,
        graph_version: 5,
        route,
    }));
    let refused = |e: &Event| matches!(e, Event::Refused { token: 5, reason: RejectReason::Balance });
    assert!(rig.events.iter().any(refused), "{:?}", rig.events);
}

#[test]
fn a_flush_of_many_requests_has_one_signature_and_one_payment() {
    let mut rig = Rig::with(|rig| rig.terms.max_requests = 100);
    let head = rig.head(b"q", 10);
    let route = vec![types::Hop { channel: OUT, ..head.route[1].clone() }];
    for token in 0..16 {
        let command = Command::Request {
            token,
            destination: rig.down.public(),
            app: "app".into(),
            body: "q".into(),
            response_limit: 10,
            server_price: Yocto(10),
            expires_ms: NOW + 1000,
            graph_version: 5,
            route: route.clone(),
        };
        rig.node.handle(Time(1), Input::Command(command));
    }
    rig.drain();
    let lanes: Vec<Lane> = rig.sent.iter().map(|(_, lane, _)| *lane).collect();
    assert_eq!(lanes, [Lane::Control]);
    let Some(Frame::Request(request)) = rig.down_got().pop() else { panic!("no request") };
    assert_eq!(request.requests.len(), 16);
    assert!(request.requests.iter().all(|item| item.proof.signature == request.requests[0].proof.signature));
    let one = head.route[1].price.0 + 10;
    assert_eq!(request.payment.unwrap().statement.totals.sent_a, Yocto(16 * one));
    let started = rig.events.iter().filter(|e| matches!(e, Event::Started { .. })).count();
    assert_eq!(started, 16);
}
