//! The contract through near-workspaces: against the local chain's binary, or against the
//! node that `NEAR_SANDBOX_BIN_PATH` names. Nothing here rests on more than what a real
//! sandbox node does: times come from its blocks, gas rewards may flow to the contract, and
//! calls take the time they take.

#[path = "workspaces/net.rs"]
mod net;

use net::{Net, close_args, order, refused, state, terms, totals};
use por_interop::sandbox::with_sandbox;
use por_types::interface::{ChangesView, ChannelStatus, ChannelView, NodeView, RegisterArgs, code, method};
use por_types::{ChannelId, CooperativeClose, RegistrationProof, Side, Terms, Yocto};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use serde_json::{Value, json};

const NEAR: u128 = Yocto::ONE_NEAR.0;

#[test]
fn the_whole_life_of_a_channel() {
    with_sandbox("the_whole_life_of_a_channel", || async {
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
    assert_eq!(changes.channels, [channel], "the forgotten one is gone");
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
    with_sandbox("cheating_a_sever_is_answered_in_the_challenge_window", || async {
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
        net.withdraw("alice", Yocto::near(5)).await;
        refused(net.act("bob", method::WITHDRAW, json!({})).await, code::WITHDRAWABLE);
        assert_eq!(net.node("bob").await.locked, Yocto::near(1));

        net.pass_until(severed_ms + net::REIMBURSEMENT_MS).await;
        net.act("carol", method::FINALIZE, json!({ "channel": id })).await.expect("release");
        assert_eq!(net.node("bob").await.locked, Yocto::ZERO);
        assert_eq!(net.books().await.treasury, Yocto::near(2));
        net.withdraw("treasury", Yocto::near(2)).await;
    });
}

#[test]
fn a_close_with_both_signatures() {
    with_sandbox("a_close_with_both_signatures", || async {
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
        refused(net.act("alice", method::CLOSE_SIGNED, replayed.clone()).await, code::TOTALS_EXCEED_POT);
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

#[test]
fn hostile_calls_are_refused_and_change_nothing() {
    with_sandbox("hostile_calls_are_refused_and_change_nothing", || async {
        let mut net = Net::with_nodes(&["alice", "bob", "carol"]).await;
        let id = net.open("alice", "bob", Yocto::near(4), Yocto::near(1)).await;
        let proposed = net.propose("alice", "bob", Yocto::near(1)).await.expect("propose");
        let before = (net.books().await, net.config().await.graph_version);
        hostile_registrations(&mut net).await;
        hostile_openings(&mut net, id, proposed).await;
        hostile_closings(&mut net, id).await;
        hostile_withdrawals(&mut net).await;
        let (books, version) = (net.books().await, net.config().await.graph_version);
        assert_eq!(before.1, version);
        let parts = |b: &por_types::interface::BooksView| {
            [b.storage, b.deposits, b.stakes, b.bonds, b.escrow, b.treasury, b.withdrawable]
        };
        assert_eq!(parts(&before.0), parts(&books));
    });
}

async fn hostile_registrations(net: &mut Net) {
    refused(net.register("alice", Yocto::ZERO).await, code::ACCOUNT_TAKEN);
    net.create("mallory").await;
    let storage = net.config().await.register_storage;
    // Alice's registration, seen on chain, under another account.
    let stolen = net.register_args("alice");
    refused(net.call("mallory", method::REGISTER, json!(stolen), Yocto::near(5)).await, code::KEY_TAKEN);
    let statement =
        RegistrationProof { account: net.account("alice"), node_key: net.secret("mallory").public() };
    let signed = net.secret("mallory").sign(&net.network(), statement);
    let args = RegisterArgs { node_key: signed.statement.node_key, proof: signed.signature };
    refused(net.call("mallory", method::REGISTER, json!(args), Yocto::near(5)).await, code::SIGNATURE);
    let args = net.register_args("mallory");
    let short = storage.checked_sub(Yocto(1)).expect("positive");
    refused(net.call("mallory", method::REGISTER, json!(args), short).await, code::DEPOSIT);
    for (method, args) in [
        (method::STAKE, json!({})),
        (method::CONFIRM_CHANNEL, json!({ "channel": 1, "terms": terms(), "deposit": "0" })),
    ] {
        refused(net.call("mallory", method, args, Yocto::near(3)).await, code::NOT_REGISTERED);
    }
}

async fn hostile_openings(net: &mut Net, open: ChannelId, proposed: ChannelId) {
    let propose = |to: &Net, name: &str, terms: Terms| json!({ "counterparty": to.account(name), "terms": terms, "deposit": Yocto::near(2) });
    let cost = net.propose_cost(Yocto::near(2)).await;
    let short = cost.checked_sub(Yocto(1)).expect("positive");
    let args = propose(net, "bob", terms());
    refused(net.call("alice", method::PROPOSE_CHANNEL, args, short).await, code::DEPOSIT);
    let args = propose(net, "alice", terms());
    refused(net.call("alice", method::PROPOSE_CHANNEL, args, cost).await, code::SELF_CHANNEL);
    let args = propose(net, "bob", Terms { heartbeat_ms: 0, ..terms() });
    refused(net.call("alice", method::PROPOSE_CHANNEL, args, cost).await, code::ARGUMENT);

    let confirm =
        |channel, terms: Terms| json!({ "channel": channel, "terms": terms, "deposit": Yocto::near(1) });
    let good = confirm(proposed, terms());
    refused(net.call("bob", method::CONFIRM_CHANNEL, good.clone(), Yocto::near(1)).await, code::DEPOSIT);
    for name in ["alice", "carol"] {
        refused(
            net.call(name, method::CONFIRM_CHANNEL, good.clone(), Yocto::near(2)).await,
            code::NOT_ALLOWED,
        );
    }
    let other = confirm(proposed, Terms { base_fee: Yocto(0), ..terms() });
    refused(net.call("bob", method::CONFIRM_CHANNEL, other, Yocto::near(2)).await, code::TERMS_DIFFER);
    let twice = confirm(open, terms());
    refused(net.call("bob", method::CONFIRM_CHANNEL, twice, Yocto::near(2)).await, code::NOT_PROPOSED);
    let args = json!({ "channel": proposed });
    refused(net.act("bob", method::CANCEL_PROPOSAL, args.clone()).await, code::NOT_ALLOWED);
    refused(net.call("carol", method::TOP_UP, json!({ "channel": open }), Yocto(1)).await, code::NOT_ALLOWED);
    refused(net.call("alice", method::TOP_UP, args, Yocto(1)).await, code::NOT_OPEN);
    // One NEAR is locked by the proposal, one by the channel, two are the minimum.
    refused(
        net.act("alice", method::UNSTAKE, json!({ "amount": Yocto(3 * NEAR + 1) })).await,
        code::STAKE_LOCKED,
    );
}

async fn hostile_closings(net: &mut Net, id: ChannelId) {
    let close = |sent_a| json!({ "channel": id, "totals": totals(sent_a, 0) });
    refused(net.act("alice", method::REQUEST_CLOSE, close(4 * NEAR + 1)).await, code::TOTALS_EXCEED_POT);
    refused(net.act("carol", method::REQUEST_CLOSE, close(0)).await, code::NOT_ALLOWED);
    refused(net.act("bob", method::CONFIRM_CLOSE, close(0)).await, code::NOT_REQUESTED);
    let evidence = json!({ "state": state(net, "alice", id, totals(1, 0)), "signer": "a" });
    refused(net.act("bob", method::SUBMIT_STATE, evidence).await, code::NOT_CLOSING);
    refused(net.act("bob", method::FINALIZE, json!({ "channel": id })).await, code::NOTHING_TO_FINALIZE);
    refused(net.act("bob", method::FORGET_CHANNEL, json!({ "channel": id })).await, code::TOO_EARLY);
    let strange = json!({ "order": order(net, "carol", id) });
    refused(net.act("carol", method::SEVER, strange).await, code::NOT_ALLOWED);
    let mut forged = json!({ "order": order(net, "carol", id) });
    forged["order"]["statement"]["signer"] = json!(net.secret("bob").public());
    refused(net.act("carol", method::SEVER, forged).await, code::SIGNATURE);
}

async fn hostile_withdrawals(net: &mut Net) {
    for name in ["alice", "mallory", "treasury"] {
        refused(net.act(name, method::WITHDRAW, json!({})).await, code::WITHDRAWABLE);
        refused(net.act(name, method::WITHDRAW, json!({ "amount": "1" })).await, code::WITHDRAWABLE);
    }
    let fake = json!({ "account": net.account("mallory"), "amount": Yocto::near(1) });
    assert!(net.act("mallory", "on_withdrawn", fake).await.is_err());
    assert!(net.act("mallory", method::MIGRATE, json!({})).await.is_err());
    assert!(net.call("alice", method::WITHDRAW, json!({}), Yocto(1)).await.is_err(), "takes no deposit");
    refused(net.act("alice", method::UNSTAKE, json!([])).await, code::ARGUMENT);
    refused(net.act("alice", method::UNSTAKE, Value::Null).await, code::ARGUMENT);
}

/// Random calls; [`Net::call`] checks after every one that the books hold what came in.
#[test]
fn random_sequences_conserve_money() {
    with_sandbox("random_sequences_conserve_money", || async {
        let seed: u64 = match std::env::var("POR_SEED") {
            Ok(seed) => seed.parse().expect("POR_SEED is a number"),
            Err(_) => rand::random(),
        };
        println!("seed {seed}");
        let mut rng = StdRng::seed_from_u64(seed);
        const NAMES: [&str; 3] = ["alice", "bob", "carol"];
        let mut net = Net::with_nodes(&NAMES).await;
        let (mut ends, mut accepted) = (Vec::new(), 0);
        for _ in 0..40 {
            accepted += usize::from(random_call(&mut net, &mut rng, &NAMES, &mut ends).await);
        }
        assert!(accepted >= 8, "only {accepted} calls were accepted");
    });
}

async fn random_call(
    net: &mut Net,
    rng: &mut StdRng,
    names: &[&'static str],
    ends: &mut Vec<(&'static str, &'static str)>,
) -> bool {
    let a = names[rng.random_range(0..names.len())];
    let b = names[rng.random_range(0..names.len())];
    let amount = Yocto(rng.random_range(0..2 * NEAR));
    let id = ChannelId(rng.random_range(0..=ends.len() as u64));
    let of = ends.get(id.0 as usize).copied().unwrap_or((a, b));
    let total = totals(rng.random_range(0..2 * NEAR), rng.random_range(0..2 * NEAR));
    let channel = json!({ "channel": id });
    let done = match rng.random_range(0..11) {
        0 | 1 => {
            let proposed = net.propose(a, b, amount).await;
            if proposed.is_ok() {
                ends.push((a, b));
            }
            return proposed.is_ok();
        }
        2 | 3 => net.confirm(of.1, id, amount).await,
        4 => {
            let close = json!({ "channel": id, "totals": total });
            let _ = net.act(of.0, method::REQUEST_CLOSE, close.clone()).await;
            net.act(of.1, method::CONFIRM_CLOSE, close).await
        }
        5 => net.act(a, method::SEVER, json!({ "order": order(net, of.1, id) })).await,
        6 => {
            let args = json!({ "state": state(net, of.0, id, total), "signer": "a" });
            net.act(b, method::SUBMIT_STATE, args).await
        }
        7 => {
            net.pass(net::NOTICE_MS).await;
            net.act(a, method::FINALIZE, channel).await
        }
        8 => net.call(a, method::STAKE, json!({}), amount).await,
        9 => net.act(a, method::UNSTAKE, json!({ "amount": amount })).await,
        _ => {
            let owed = net.withdrawable(a).await;
            if owed.is_zero() {
                net.act(a, method::WITHDRAW, json!({})).await
            } else {
                net.withdraw(a, owed).await;
                return true;
            }
        }
    };
    done.is_ok()
}
