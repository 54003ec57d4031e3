//! The full life of a small network: open, pay, draw, cheat, challenge, finalise, sever all
//! neighbours, partition, reimburse, reconnect, ping, downtime, leave.

use por_interop::sandbox::with_sandbox;
use por_types::interface::{ChannelStatus, code, method};
use por_types::{ChannelId, CooperativeClose, Draw, NewTerms, Terms, Yocto};
use serde_json::json;

use crate::NEAR;
use crate::net::{
    self, ANCHOR, Net, close_args, draw_args, order, refused, state, terms, terms_args, totals,
};

const NODES: [&str; 4] = [ANCHOR, "alice", "bob", "dave"];

/// Anchor to Alice, Alice to Bob; Dave has two neighbours, Bob and Alice.
struct Edges {
    anchor_alice: ChannelId,
    alice_bob: ChannelId,
    bob_dave: ChannelId,
    alice_dave: ChannelId,
}

#[test]
fn the_full_life_of_a_network() {
    with_sandbox("life::the_full_life_of_a_network", || async {
        let mut net = Net::with_nodes(&NODES).await;
        net.pass(net::ACTIVATION_MS).await;
        let edges = open_and_attach(&mut net).await;
        draw_and_change_terms(&mut net, edges.anchor_alice).await;
        let attached_ms = net.attachment("dave").await.attached_since_ms.expect("attached");

        // One severed edge alone does not cut Dave off.
        net.sever(ANCHOR, "bob", edges.bob_dave).await;
        assert!(net.node("dave").await.attached);
        let now = net.now_ms().await;
        assert_eq!(net.downtime("dave", attached_ms, now.min(certain(&net).await)).await, 0);
        let cut_ms = partition_and_reimburse(&mut net, &edges, attached_ms).await;

        challenge_and_finalise(&mut net, edges.bob_dave).await;
        let again = reconnect(&mut net, attached_ms, cut_ms).await;
        everybody_leaves(&mut net, &edges, again).await;
    });
}

/// The time up to which the contract's answers are final.
async fn certain(net: &Net) -> u64 {
    net.attachment("dave").await.final_until_ms
}

async fn open_and_attach(net: &mut Net) -> Edges {
    let edges = Edges {
        anchor_alice: net.open(ANCHOR, "alice", Yocto::near(4), Yocto::near(1)).await,
        alice_bob: net.open("alice", "bob", Yocto::near(2), Yocto::near(2)).await,
        bob_dave: net.open("bob", "dave", Yocto::near(4), Yocto::near(1)).await,
        alice_dave: net.open("alice", "dave", Yocto::near(1), Yocto::near(1)).await,
    };
    assert!(net.node(ANCHOR).await.attached, "the anchor always is");
    // Nobody is attached through a neighbour that is not, or through no neighbour.
    for through in ["bob", ANCHOR] {
        let args = json!({ "through": net.account(through) });
        refused(net.act("dave", method::PING, args).await, code::NOT_ATTACHED);
    }
    for (name, through) in [("alice", ANCHOR), ("bob", "alice"), ("dave", "bob")] {
        net.ping(name, through).await;
    }
    assert_eq!(net.config().await.attached_stake, Yocto::near(20));
    edges
}

async fn draw_and_change_terms(net: &mut Net, id: ChannelId) {
    let expires_ms = net.now_ms().await + 3_600_000;
    // The anchor has paid Alice two NEAR, and she takes them out.
    let draw = Draw {
        channel: id,
        sequence: 1,
        expires_ms,
        totals: totals(2 * NEAR, 0),
        draw_a: Yocto::ZERO,
        draw_b: Yocto::near(2),
    };
    let greedy = Draw { draw_b: Yocto(3 * NEAR + 1), ..draw.clone() };
    let args = draw_args(net, ANCHOR, "alice", greedy);
    assert!(net.act("alice", method::DRAW, args).await.is_err(), "more than her balance");
    let args = draw_args(net, "alice", "alice", draw.clone());
    refused(net.act("alice", method::DRAW, args).await, code::SIGNATURE);
    let args = draw_args(net, ANCHOR, "alice", draw);
    net.act("bob", method::DRAW, args.clone()).await.expect("draw, by anyone");
    refused(net.act("alice", method::DRAW, args).await, code::SEQUENCE);
    net.withdraw("alice", Yocto::near(2)).await;

    let dearer = Terms { base_fee: Yocto(7_000), ..terms() };
    let act = NewTerms { channel: id, sequence: 2, expires_ms, totals: totals(2 * NEAR, 0), terms: dearer };
    let args = terms_args(net, ANCHOR, "alice", act.clone());
    net.act("alice", method::REPLACE_TERMS, args).await.expect("new terms");
    let channel = net.channel(id).await;
    assert_eq!((channel.terms, channel.sequence), (act.terms, 2));
    assert_eq!((channel.drawn_b, channel.totals), (Yocto::near(2), totals(2 * NEAR, 0)));
}

/// The last neighbour severs too. Returns when Dave was cut off.
async fn partition_and_reimburse(net: &mut Net, edges: &Edges, attached_ms: u64) -> u64 {
    assert_eq!(net.books().await.treasury, Yocto::ZERO);
    net.sever("bob", "alice", edges.alice_dave).await;
    let (cut_ms, _) = net.severed(edges.alice_dave).await;
    assert!(!net.node("dave").await.attached);
    assert_eq!(net.attachment("dave").await.attached_since_ms, None);
    for name in [ANCHOR, "alice", "bob"] {
        assert!(net.node(name).await.attached, "{name} is on the larger side");
    }
    // Each neighbour gets its half of the penalty back, out of Dave's stake; then the slash.
    for name in ["alice", "bob"] {
        assert_eq!(net.withdrawable(name).await, Yocto::near(1), "{name}");
    }
    let slash = Yocto(3 * NEAR * 500 / 10_000);
    assert_eq!(net.node("dave").await.stake, Yocto(3 * NEAR - slash.0));
    let books = net.books().await;
    assert_eq!((books.treasury, books.escrow), (slash, Yocto::near(4)));
    // A node cannot sever its own way out of this a second time.
    let again = json!({ "order": order(net, "dave", edges.alice_dave) });
    refused(net.act("dave", method::SEVER, again).await, code::NOT_SEVERABLE);

    net.pass(5_000).await;
    let until = certain(net).await;
    assert_eq!(net.downtime("dave", attached_ms, until).await, until - cut_ms);
    assert_eq!(net.downtime("bob", attached_ms, until).await, 0);
    cut_ms
}

async fn challenge_and_finalise(net: &mut Net, id: ChannelId) {
    let (_, settles_ms) = net.severed(id).await;
    // Bob settles with an old state; a watchtower has the newest that he signed.
    let old = json!({ "state": state(net, "bob", id, totals(NEAR, 0)), "signer": "a" });
    net.act("bob", method::SUBMIT_STATE, old).await.expect("old evidence");
    let inflated = json!({ "state": state(net, "bob", id, totals(0, NEAR)), "signer": "b" });
    refused(net.act("bob", method::SUBMIT_STATE, inflated).await, code::SIGNATURE);
    let new = json!({ "state": state(net, "bob", id, totals(3 * NEAR, 0)), "signer": "a" });
    net.act(ANCHOR, method::SUBMIT_STATE, new).await.expect("newer evidence");
    refused(net.act("dave", method::FINALIZE, json!({ "channel": id })).await, code::TOO_EARLY);
    net.pass_until(settles_ms).await;
    net.act("alice", method::FINALIZE, json!({ "channel": id })).await.expect("finalise");
    let ChannelStatus::Closed { paid_a, paid_b, severed: true, .. } = net.channel(id).await.status else {
        panic!("paid out");
    };
    assert_eq!((paid_a, paid_b), (Yocto::near(1), Yocto::near(4)));
    net.withdraw("dave", Yocto::near(4)).await;
    net.withdraw("bob", Yocto::near(2)).await;
}

async fn reconnect(net: &mut Net, attached_ms: u64, cut_ms: u64) -> ChannelId {
    // What is left of Dave's stake is locked by the severed channels.
    net.call("dave", method::STAKE, json!({}), Yocto::near(3)).await.expect("stake");
    let id = net.open("bob", "dave", Yocto::near(1), Yocto::ZERO).await;
    assert!(!net.node("dave").await.attached, "not before a ping");
    net.ping("dave", "bob").await;
    let since = net.attachment("dave").await.attached_since_ms.expect("attached");
    assert!(since > cut_ms);
    net.pass(5_000).await;
    let until = certain(net).await;
    assert_eq!(net.downtime("dave", attached_ms, until).await, since - cut_ms, "it no longer grows");
    assert_eq!(net.downtime("dave", since, until).await, 0);
    id
}

async fn everybody_leaves(net: &mut Net, edges: &Edges, again: ChannelId) {
    let dave = edges.alice_dave;
    let (_, settles_ms) = net.severed(dave).await;
    net.pass_until(settles_ms).await;
    net.act(ANCHOR, method::FINALIZE, json!({ "channel": dave })).await.expect("finalise");

    let expires_ms = net.now_ms().await + 3_600_000;
    let open = [
        ("bob", "dave", again, 1, totals(0, 0)),
        ("alice", "bob", edges.alice_bob, 1, totals(NEAR, 0)),
        (ANCHOR, "alice", edges.anchor_alice, 3, totals(2 * NEAR, 0)),
    ];
    for (a, b, channel, sequence, totals) in open {
        let close = CooperativeClose { channel, sequence, expires_ms, totals };
        let args = close_args(net, a, b, close);
        net.act(a, method::CLOSE_SIGNED, args).await.expect("close");
    }
    net.pass(net::NOTICE_MS).await;
    for (_, _, channel, ..) in open {
        net.act("bob", method::FINALIZE, json!({ "channel": channel })).await.expect("finalise");
    }
    // A cooperative close cuts off without a slash.
    assert!(!net.node("alice").await.attached && net.node(ANCHOR).await.attached);
    let slash = Yocto(3 * NEAR * 500 / 10_000);
    assert_eq!(net.books().await.treasury, slash);

    net.pass(net::REIMBURSEMENT_MS).await;
    let all = [edges.bob_dave, dave, again, edges.alice_bob, edges.anchor_alice];
    for channel in all {
        net.act("dave", method::FINALIZE, json!({ "channel": channel })).await.expect("release");
        net.act("dave", method::FORGET_CHANNEL, json!({ "channel": channel })).await.expect("forget");
    }
    for name in NODES {
        let stake = net.node(name).await.stake;
        net.act(name, method::UNSTAKE, json!({ "amount": stake })).await.expect("unstake");
    }
    net.pass(net::REIMBURSEMENT_MS).await;
    for name in NODES {
        let all = net.withdrawable(name).await;
        net.withdraw(name, all).await;
    }
    net.withdraw("treasury", Yocto(4 * NEAR + slash.0)).await;
    let books = net.books().await;
    for part in [books.deposits, books.stakes, books.bonds, books.escrow, books.treasury, books.withdrawable]
    {
        assert_eq!(part, Yocto::ZERO, "{books:?}");
    }
}
