//! One channel from registration to the last withdrawal, and its closes.

use por_interop::sandbox::with_sandbox;
use por_types::interface::{ChangeKind, ChangesView, ChannelStatus, ChannelView, NodeView, code, method};
use por_types::{ChannelId, CooperativeClose, Side, Yocto};
use serde_json::json;

use crate::NEAR;
use crate::net::{self, Net, close_args, order, refused, state, terms, totals};

#[test]
fn the_whole_life_of_a_channel() {
    with_sandbox("channel::the_whole_life_of_a_channel", || async {
        let mut net = Net::start(&["alice", "bob"]).await;
        register_and_stake(&mut net).await;
        let id = open_and_top_up(&mut net).await;
        close_with_evidence(&mut net, id).await;
        everybody_leaves(&mut net, id).await;
    });
}

async fn register_and_stake(net: &mut Net) {
    for name in ["alice", "bob"] {
        net.register(name, Yocto::near(5)).await.expect("register");
        net.call(name, method::STAKE, json!({}), Yocto::near(3)).await.expect("stake");
    }
    let alice = net.node("alice").await;
    assert_eq!((alice.index, alice.stake, alice.locked), (0, Yocto::near(8), Yocto::ZERO));
    assert_eq!(alice.node_key, net.secret("alice").public());
    let bob: Option<NodeView> =
        net.view(method::NODE_BY_KEY, json!({ "node_key": net.secret("bob").public() })).await;
    assert_eq!(bob.map(|bob| bob.index), Some(1));
    net.pass(net::ACTIVATION_MS).await;
    assert_eq!(net.node("alice").await.active_stake, Yocto::near(8));
}

async fn open_and_top_up(net: &mut Net) -> ChannelId {
    // A proposal that is withdrawn leaves nothing behind.
    let withdrawn = net.propose("alice", "bob", Yocto::near(4)).await.expect("propose");
    net.act("alice", method::CANCEL_PROPOSAL, json!({ "channel": withdrawn })).await.expect("cancel");
    net.act("bob", method::FORGET_CHANNEL, json!({ "channel": withdrawn })).await.expect("forget");
    let storage = net.config().await.channel_storage;
    let returned = Yocto::near(5).checked_add(storage).expect("sum");
    assert_eq!(net.withdrawable("alice").await, returned);
    net.withdraw("alice", returned).await;

    let id = net.open("alice", "bob", Yocto::near(4), Yocto::near(1)).await;
    net.call("bob", method::TOP_UP, json!({ "channel": id }), Yocto::near(1)).await.expect("top up");
    let channel = net.channel(id).await;
    assert_eq!(channel.status, ChannelStatus::Open);
    assert_eq!((channel.deposit_a, channel.deposit_b), (Yocto::near(4), Yocto::near(2)));
    assert_eq!((channel.bond, &channel.terms), (Yocto::near(1), &terms()));
    let changes: ChangesView = net.view(method::CHANGES, json!({ "since": 0, "limit": 100 })).await;
    assert_eq!((changes.upto, changes.nodes.len()), (changes.version, 2));
    assert_eq!(changes.channels, [channel]);
    assert_eq!(changes.gone, [ChangeKind::Channel { channel: withdrawn }], "the forgotten one");
    id
}

async fn close_with_evidence(net: &mut Net, id: ChannelId) {
    let close = json!({ "channel": id, "totals": totals(NEAR, 0) });
    net.act("bob", method::REQUEST_CLOSE, close.clone()).await.expect("request");
    net.act("alice", method::CONFIRM_CLOSE, close).await.expect("confirm");
    // Bob understated what Alice paid; any third party who has her payment corrects it.
    let evidence = json!({ "state": state(net, "alice", id, totals(3 * NEAR, 0)), "signer": "a" });
    net.act("bob", method::SUBMIT_STATE, evidence).await.expect("evidence");
    assert_eq!(net.channel(id).await.totals, totals(3 * NEAR, 0));
    refused(net.act("bob", method::FINALIZE, json!({ "channel": id })).await, code::TOO_EARLY);
    net.pass(net::NOTICE_MS).await;
    net.act("alice", method::FINALIZE, json!({ "channel": id })).await.expect("finalize");
    let ChannelStatus::Closed { paid_a, paid_b, bonds_until_ms: Some(until), severed: false } =
        net.channel(id).await.status
    else {
        panic!("paid out, bonds held");
    };
    assert_eq!((paid_a, paid_b), (Yocto::near(1), Yocto::near(5)));
    assert_eq!(net.withdrawable("bob").await, Yocto::near(5));
    refused(net.act("bob", method::FINALIZE, json!({ "channel": id })).await, code::TOO_EARLY);
    net.pass_until(until).await;
    net.act("bob", method::FINALIZE, json!({ "channel": id })).await.expect("release");
}

async fn everybody_leaves(net: &mut Net, id: ChannelId) {
    net.act("bob", method::FORGET_CHANNEL, json!({ "channel": id })).await.expect("forget");
    let gone: Option<ChannelView> = net.view(method::CHANNEL, json!({ "channel": id })).await;
    assert_eq!(gone, None);
    for name in ["alice", "bob"] {
        net.act(name, method::UNSTAKE, json!({ "amount": Yocto::near(8) })).await.expect("unstake");
        assert_eq!(net.node(name).await.unstaking, Yocto::near(8));
    }
    net.pass(net::REIMBURSEMENT_MS).await;
    let storage = net.config().await.channel_storage;
    let alice = Yocto::near(1 + 1 + 8).checked_add(storage).expect("sum");
    net.withdraw("alice", alice).await;
    net.withdraw("bob", Yocto::near(5 + 1 + 8)).await;
    refused(net.act("alice", method::WITHDRAW, json!({})).await, code::WITHDRAWABLE);
    let books = net.books().await;
    for part in [books.deposits, books.stakes, books.bonds, books.escrow, books.treasury, books.withdrawable]
    {
        assert_eq!(part, Yocto::ZERO, "{books:?}");
    }
}

#[test]
fn cheating_a_sever_is_answered_in_the_challenge_window() {
    with_sandbox("channel::cheating_a_sever_is_answered_in_the_challenge_window", || async {
        let mut net = Net::with_nodes(&["alice", "bob", "carol"]).await;
        let id = net.open("alice", "bob", Yocto::near(4), Yocto::near(1)).await;
        // Carol, a third party, holds Bob's order and executes it.
        let args = json!({ "order": order(&net, "bob", id) });
        net.act("carol", method::SEVER, args.clone()).await.expect("sever");
        refused(net.act("carol", method::SEVER, args).await, code::NOT_SEVERABLE);
        let ChannelStatus::Severed { by: Side::B, severed_ms, settles_ms } = net.channel(id).await.status
        else {
            panic!("severed by b");
        };
        assert_eq!(settles_ms - severed_ms, net::CHALLENGE_MS);
        assert_eq!((net.books().await.bonds, net.books().await.escrow), (Yocto::ZERO, Yocto::near(2)));
        // Both sides weigh nothing and have one node: Bob's is smaller, for Alice came first.
        // He pays her half of the penalty, and a twentieth of the rest is slashed.
        let slash = Yocto(4 * NEAR / 20);
        assert_eq!(net.withdrawable("alice").await, Yocto::near(1));
        assert_eq!(net.node("bob").await.stake, Yocto(4 * NEAR - slash.0));

        // Bob settles with an old state, Alice's newer payment counts; he cannot raise it himself.
        let submit = |state, signer: &str| json!({ "state": state, "signer": signer });
        let old = submit(state(&net, "alice", id, totals(NEAR, 0)), "a");
        net.act("bob", method::SUBMIT_STATE, old.clone()).await.expect("old evidence");
        let forged = submit(state(&net, "bob", id, totals(4 * NEAR, 0)), "a");
        refused(net.act("bob", method::SUBMIT_STATE, forged).await, code::SIGNATURE);
        let new = submit(state(&net, "bob", id, totals(0, 2 * NEAR)), "b");
        net.act("carol", method::SUBMIT_STATE, new).await.expect("newer evidence");
        refused(net.act("bob", method::SUBMIT_STATE, old).await, code::NOTHING_NEW);
        assert_eq!(net.channel(id).await.totals, totals(NEAR, 2 * NEAR));

        net.pass_until(settles_ms).await;
        let late = submit(state(&net, "alice", id, totals(2 * NEAR, 0)), "a");
        refused(net.act("bob", method::SUBMIT_STATE, late).await, code::WINDOW_OVER);
        net.act("carol", method::FINALIZE, json!({ "channel": id })).await.expect("finalize");
        // Alice also got her half of the penalty back, when the sever cut the two apart.
        net.withdraw("alice", Yocto::near(6)).await;
        refused(net.act("bob", method::WITHDRAW, json!({})).await, code::WITHDRAWABLE);
        assert_eq!(net.node("bob").await.locked, Yocto::near(1));

        net.pass_until(severed_ms + net::REIMBURSEMENT_MS).await;
        net.act("carol", method::FINALIZE, json!({ "channel": id })).await.expect("release");
        assert_eq!(net.node("bob").await.locked, Yocto::ZERO);
        assert_eq!(net.books().await.treasury, Yocto(2 * NEAR + slash.0));
        net.withdraw("treasury", Yocto(2 * NEAR + slash.0)).await;
    });
}

#[test]
fn a_close_with_both_signatures() {
    with_sandbox("channel::a_close_with_both_signatures", || async {
        let mut net = Net::with_nodes(&["alice", "bob"]).await;
        let id = net.open("alice", "bob", Yocto::near(4), Yocto::near(1)).await;
        let other = net.open("alice", "bob", Yocto::near(1), Yocto::ZERO).await;
        let now = net.now_ms().await;
        let good = CooperativeClose {
            channel: id,
            sequence: 1,
            expires_ms: now + 3_600_000,
            totals: totals(5 * NEAR, 2 * NEAR),
        };
        for (close, expected) in [
            (CooperativeClose { sequence: 0, ..good.clone() }, code::SEQUENCE),
            (CooperativeClose { sequence: 2, ..good.clone() }, code::SEQUENCE),
            (CooperativeClose { expires_ms: now - 1, ..good.clone() }, code::EXPIRED),
            (CooperativeClose { totals: totals(5 * NEAR, 0), ..good.clone() }, code::TOTALS_EXCEED_POT),
        ] {
            let args = close_args(&net, "alice", "bob", close);
            refused(net.act("bob", method::CLOSE_SIGNED, args).await, expected);
        }
        let one_signer = close_args(&net, "alice", "alice", good.clone());
        refused(net.act("alice", method::CLOSE_SIGNED, one_signer).await, code::SIGNATURE);
        let mut replayed = close_args(&net, "alice", "bob", good.clone());
        replayed["close"]["channel"] = json!(other);
        refused(net.act("alice", method::CLOSE_SIGNED, replayed.clone()).await, code::SIGNATURE);
        replayed["close"]["totals"] = json!(totals(0, 0));
        refused(net.act("alice", method::CLOSE_SIGNED, replayed).await, code::SIGNATURE);

        let args = close_args(&net, "alice", "bob", good);
        net.act("bob", method::CLOSE_SIGNED, args.clone()).await.expect("close");
        refused(net.act("bob", method::CLOSE_SIGNED, args).await, code::NOT_OPEN);
        assert_eq!(net.channel(id).await.sequence, 1);
        net.pass(net::NOTICE_MS).await;
        net.act("bob", method::FINALIZE, json!({ "channel": id })).await.expect("finalize");
        net.withdraw("alice", Yocto::near(1)).await;
        net.withdraw("bob", Yocto::near(4)).await;
        assert_eq!(net.channel(other).await.status, ChannelStatus::Open);
    });
}
