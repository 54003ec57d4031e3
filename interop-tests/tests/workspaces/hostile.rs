//! Calls that must be refused, and what they must not change.

use por_interop::sandbox::with_sandbox;
use por_types::interface::{BooksView, RegisterArgs, code, method};
use por_types::{ChannelId, RegistrationProof, Terms, Yocto};
use serde_json::{Value, json};

use crate::NEAR;
use crate::net::{Net, order, refused, state, terms, totals};

#[test]
fn hostile_calls_are_refused_and_change_nothing() {
    with_sandbox("hostile::hostile_calls_are_refused_and_change_nothing", || async {
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
        let parts =
            |b: &BooksView| [b.storage, b.deposits, b.stakes, b.bonds, b.escrow, b.treasury, b.withdrawable];
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
