//! Every check that the contract makes, by a call that must be refused for that reason: with
//! any one of them removed a test here fails.

use por_types::interface::{Params, code, method};
use por_types::{ChannelId, CooperativeClose, Network, NodeKey, RegistrationProof, Signature, Terms, Yocto};
use serde_json::{Value, json};

use crate::harness::*;

const NEAR: u128 = Yocto::ONE_NEAR.0;
const ONE: Yocto = Yocto(1);

fn minus_one(amount: Yocto) -> Yocto {
    amount.checked_sub(ONE).expect("positive")
}

/// Alice and Bob with an open channel of 4 and 1 NEAR, and Carol.
fn opened() -> (Vm, ChannelId) {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test", "carol.test"]);
    let id = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::near(1));
    (vm, id)
}

/// The same, closing with these totals agreed.
fn closing(sent_a: u128, sent_b: u128) -> (Vm, ChannelId) {
    let (mut vm, id) = opened();
    let close = json!({ "channel": id, "totals": totals(sent_a, sent_b) });
    vm.act("alice.test", method::REQUEST_CLOSE, close.clone()).expect("request");
    vm.act("bob.test", method::CONFIRM_CLOSE, close).expect("confirm");
    (vm, id)
}

fn other_networks() -> [Network; 2] {
    [
        Network { chain_id: "other-chain".into(), ..network() },
        Network { contract: account("other.test"), ..network() },
    ]
}

#[test]
fn initialisation_happens_once() {
    let mut vm = Vm::started();
    let message = vm
        .call(CONTRACT, method::NEW, &Vm::new_args(params(), true), Yocto::ZERO)
        .expect_err("a second initialisation");
    assert!(message.contains("already been initialized"), "{message}");
    let message = Vm::deployed().act("alice.test", method::STAKE, json!({})).expect_err("no state");
    assert!(message.contains("not initialized"), "{message}");
}

#[test]
fn initialisation_checks_its_arguments() {
    let start = |args: Value| Vm::deployed().act(CONTRACT, method::NEW, args);
    let args = |params| serde_json::to_value(Vm::new_args(params, true)).expect("arguments");
    for bad in [
        Params { sever_penalty: Yocto(3), ..params() },
        Params { slash_bps: 10_001, ..params() },
        Params { notice_ms: u64::MAX, ..params() },
        Params { min_stake: Yocto(u128::MAX), ..params() },
    ] {
        refused(start(args(bad)), code::PARAMS);
    }
    for chain_id in ["", "with space", "0123456789012345678901234567890123"] {
        let mut args = args(params());
        args["chain_id"] = json!(chain_id);
        refused(start(args), code::ARGUMENT);
    }
}

#[test]
fn initialisation_needs_money_for_storage() {
    let mut vm = Vm::deployed();
    let needed = (vm.storage_usage() + 90_000) as u128 * 10_000_000_000_000_000_000;
    vm.set_balance(needed - 1);
    let args = Vm::new_args(params(), true);
    refused(vm.call(CONTRACT, method::NEW, &args, Yocto::ZERO), code::DEPOSIT);
    vm.set_balance(needed);
    vm.call(CONTRACT, method::NEW, &args, Yocto::ZERO).expect("new");
}

#[test]
fn arguments_must_be_what_the_interface_says() {
    let mut vm = Vm::with_nodes(&["alice.test"]);
    let bad: [&[u8]; 9] = [
        b"",
        b"[]",
        b"null",
        b"{\"amount\"",
        b"{}",
        b"{\"amount\": 1}",
        b"{\"amount\": \"-1\"}",
        b"{\"amount\": \"340282366920938463463374607431768211456\"}",
        b"{\"amount\": {\"amount\": {}}}",
    ];
    for input in bad {
        refused(vm.call_raw("alice.test", method::UNSTAKE, input.to_vec(), Yocto::ZERO), code::ARGUMENT);
    }
    for channel in [json!(-1), json!(0.5), json!("0"), json!(true), json!([0])] {
        refused(vm.act("alice.test", method::TOP_UP, json!({ "channel": channel })), code::ARGUMENT);
    }
    let nested = format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)).into_bytes();
    refused(vm.call_raw("alice.test", method::UNSTAKE, nested, Yocto::ZERO), code::ARGUMENT);
}

#[test]
fn calls_that_take_no_deposit_refuse_one() {
    let (mut vm, id) = opened();
    let close = json!({ "channel": id, "totals": totals(0, 0) });
    for method in [
        method::UNSTAKE,
        method::CANCEL_PROPOSAL,
        method::REQUEST_CLOSE,
        method::CONFIRM_CLOSE,
        method::CLOSE_SIGNED,
        method::SUBMIT_STATE,
        method::PING,
        method::CHECK,
        method::DRAW,
        method::SET_PARAMS,
        method::FORGET_CHANNEL,
        method::WITHDRAW,
    ] {
        refused_deposit(vm.call("alice.test", method, &close, ONE));
    }
    // The account itself, which alone may begin it.
    refused_deposit(vm.call(CONTRACT, method::MIGRATE, &json!({}), ONE));
}

#[test]
fn only_the_account_itself_migrates_and_calls_back() {
    let mut vm = Vm::with_nodes(&["alice.test"]);
    refused(vm.act("alice.test", method::MIGRATE, json!({})), code::NOT_ALLOWED);
    let callback = json!({ "account": "alice.test", "amount": Yocto::near(1) });
    let message = vm.act("alice.test", "on_withdrawn", callback).expect_err("private");
    assert!(message.contains("private"), "{message}");
    assert_eq!(vm.withdrawable("alice.test"), Yocto::ZERO);
}

#[test]
fn one_account_one_key_one_node() {
    let mut vm = Vm::with_nodes(&["alice.test"]);
    refused(vm.register("alice.test", Yocto::ZERO), code::ACCOUNT_TAKEN);
    let statement =
        RegistrationProof { account: account("bob.test"), node_key: secret("alice.test").public() };
    let signed = secret("alice.test").sign(&network(), statement);
    let args = json!({ "node_key": signed.statement.node_key, "proof": signed.signature });
    refused(vm.call("bob.test", method::REGISTER, &args, Yocto::near(5)), code::KEY_TAKEN);
}

#[test]
fn registration_needs_possession_of_the_key() {
    let mut vm = Vm::started();
    let node_key = secret("alice.test").public();
    let mut attempt = |signer: &str, name: &str, network: &Network| {
        let statement = RegistrationProof { account: account(name), node_key };
        let proof = secret(signer).sign(network, statement).signature;
        let args = json!({ "node_key": node_key, "proof": proof });
        vm.call("alice.test", method::REGISTER, &args, Yocto::near(5))
    };
    refused(attempt("bob.test", "alice.test", &network()), code::SIGNATURE);
    // Somebody else's registration, seen on chain.
    refused(attempt("alice.test", "bob.test", &network()), code::SIGNATURE);
    for other in other_networks() {
        refused(attempt("alice.test", "alice.test", &other), code::SIGNATURE);
    }
    attempt("alice.test", "alice.test", &network()).expect("register");
}

#[test]
fn registration_refuses_keys_that_anybody_can_sign_for() {
    let mut vm = Vm::started();
    // The identity: this signature verifies for it and every message.
    let mut key = [0; 32];
    key[0] = 1;
    let mut signature = [0; 64];
    signature[0] = 1;
    let args = json!({ "node_key": NodeKey(key), "proof": Signature(signature) });
    refused(vm.call("alice.test", method::REGISTER, &args, Yocto::near(5)), code::WEAK_KEY);
}

#[test]
fn registration_pays_its_storage() {
    let mut vm = Vm::started();
    let cost = vm.config().register_storage;
    let args = Vm::register_args("alice.test");
    refused(vm.call("alice.test", method::REGISTER, &args, minus_one(cost)), code::DEPOSIT);
    vm.call("alice.test", method::REGISTER, &args, cost).expect("register");
}

#[test]
fn stake_calls_check_caller_and_amount() {
    let mut vm = Vm::with_nodes(&["alice.test"]);
    refused(vm.call("bob.test", method::STAKE, &json!({}), ONE), code::NOT_REGISTERED);
    refused(vm.act("alice.test", method::STAKE, json!({})), code::DEPOSIT);
    let unstake = |amount: Yocto| json!({ "amount": amount });
    refused(vm.act("bob.test", method::UNSTAKE, unstake(ONE)), code::NOT_REGISTERED);
    refused(vm.act("alice.test", method::UNSTAKE, unstake(Yocto::ZERO)), code::ARGUMENT);
    refused(vm.act("alice.test", method::UNSTAKE, unstake(Yocto(10 * NEAR + 1))), code::STAKE_TOO_LOW);
    vm.act("alice.test", method::UNSTAKE, unstake(Yocto::near(10))).expect("all of it");
    refused(vm.act("alice.test", method::UNSTAKE, unstake(ONE)), code::STAKE_TOO_LOW);
}

#[test]
fn waiting_changes_of_stake_are_bounded() {
    let mut vm = Vm::with_nodes(&["alice.test"]);
    for _ in 0..8 {
        vm.now_ms += 1;
        vm.act("alice.test", method::UNSTAKE, json!({ "amount": ONE })).expect("unstake");
    }
    vm.now_ms += 1;
    refused(vm.act("alice.test", method::UNSTAKE, json!({ "amount": ONE })), code::TOO_MANY_PENDING);
    for _ in 0..7 {
        vm.now_ms += 1;
        vm.call("alice.test", method::STAKE, &json!({}), ONE).expect("stake");
    }
    vm.now_ms += 1;
    refused(vm.call("alice.test", method::STAKE, &json!({}), ONE), code::TOO_MANY_PENDING);
}

#[test]
fn locked_stake_stays() {
    let (mut vm, id) = opened();
    let unstake = |amount: u128| json!({ "amount": Yocto(amount) });
    // The minimum stake is 3; one channel locks 1.
    refused(vm.act("alice.test", method::UNSTAKE, unstake(7 * NEAR + 1)), code::STAKE_LOCKED);
    for _ in 0..3 {
        vm.open("alice.test", "bob.test", Yocto::ZERO, Yocto::ZERO);
    }
    refused(vm.act("alice.test", method::UNSTAKE, unstake(6 * NEAR + 1)), code::STAKE_LOCKED);
    vm.act("alice.test", method::UNSTAKE, unstake(6 * NEAR)).expect("what is not locked");
    // A sever does not free the lock before its window has passed.
    vm.act("any.test", method::SEVER, json!({ "order": order("alice.test", id) })).expect("sever");
    vm.now_ms += params().challenge_ms;
    vm.act("any.test", method::FINALIZE, json!({ "channel": id })).expect("finalize");
    refused(vm.act("alice.test", method::UNSTAKE, unstake(1)), code::STAKE_LOCKED);
}

#[test]
fn a_channel_needs_stake_on_both_sides() {
    let mut vm = Vm::with_nodes(&["alice.test"]);
    vm.register("poor.test", Yocto(3 * NEAR - 1)).expect("register");
    refused(vm.propose("poor.test", "alice.test", Yocto::ZERO), code::STAKE_TOO_LOW);
    let id = vm.propose("alice.test", "poor.test", Yocto::ZERO).expect("propose");
    refused(vm.confirm("poor.test", id, Yocto::ZERO), code::STAKE_TOO_LOW);
    vm.call("poor.test", method::STAKE, &json!({}), ONE).expect("stake");
    vm.confirm("poor.test", id, Yocto::ZERO).expect("confirm");
    for _ in 0..2 {
        vm.propose("poor.test", "alice.test", Yocto::ZERO).expect("propose");
    }
    // Three locks of one NEAR each are all of its stake.
    refused(vm.propose("poor.test", "alice.test", Yocto::ZERO), code::STAKE_TOO_LOW);
}

#[test]
fn a_proposal_is_checked() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    refused(vm.propose("carol.test", "bob.test", ONE), code::NOT_REGISTERED);
    refused(vm.propose("alice.test", "carol.test", ONE), code::NOT_REGISTERED);
    refused(vm.propose("alice.test", "alice.test", ONE), code::SELF_CHANNEL);
    let bad = Terms { rtt_ms: 0, ..terms() };
    let args = json!({ "counterparty": "bob.test", "terms": bad, "deposit": ONE });
    refused(vm.call("alice.test", method::PROPOSE_CHANNEL, &args, Yocto::near(9)), code::ARGUMENT);
    let args = json!({ "counterparty": "bob.test", "terms": terms(), "deposit": Yocto::near(4) });
    let cost = vm.propose_cost(Yocto::near(4));
    refused(vm.call("alice.test", method::PROPOSE_CHANNEL, &args, minus_one(cost)), code::DEPOSIT);
    refused(vm.call("alice.test", method::PROPOSE_CHANNEL, &args, Yocto::ZERO), code::DEPOSIT);
    vm.call("alice.test", method::PROPOSE_CHANNEL, &args, cost).expect("propose");
}

#[test]
fn a_confirmation_is_checked() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test", "carol.test"]);
    refused(vm.confirm("bob.test", ChannelId(0), ONE), code::NO_CHANNEL);
    let id = vm.propose("alice.test", "bob.test", Yocto::near(4)).expect("propose");
    refused(vm.confirm("nobody.test", id, ONE), code::NOT_REGISTERED);
    refused(vm.confirm("carol.test", id, ONE), code::NOT_ALLOWED);
    refused(vm.confirm("alice.test", id, ONE), code::NOT_ALLOWED);
    let other = Terms { byte_fee: Yocto(11), ..terms() };
    let args = json!({ "channel": id, "terms": other, "deposit": ONE });
    refused(vm.call("bob.test", method::CONFIRM_CHANNEL, &args, Yocto::near(9)), code::TERMS_DIFFER);
    let args = json!({ "channel": id, "terms": terms(), "deposit": Yocto::near(1) });
    let cost = vm.confirm_cost(Yocto::near(1));
    refused(vm.call("bob.test", method::CONFIRM_CHANNEL, &args, minus_one(cost)), code::DEPOSIT);
    vm.call("bob.test", method::CONFIRM_CHANNEL, &args, cost).expect("confirm");
    refused(vm.confirm("bob.test", id, ONE), code::NOT_PROPOSED);
}

#[test]
fn only_the_proposer_withdraws_and_only_a_proposal() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test", "carol.test"]);
    let id = vm.propose("alice.test", "bob.test", Yocto::near(4)).expect("propose");
    let args = json!({ "channel": id });
    refused(vm.act("bob.test", method::CANCEL_PROPOSAL, args.clone()), code::NOT_ALLOWED);
    refused(vm.act("carol.test", method::CANCEL_PROPOSAL, args.clone()), code::NOT_ALLOWED);
    refused(vm.act("nobody.test", method::CANCEL_PROPOSAL, args.clone()), code::NOT_REGISTERED);
    vm.act("alice.test", method::CANCEL_PROPOSAL, args.clone()).expect("cancel");
    refused(vm.act("alice.test", method::CANCEL_PROPOSAL, args.clone()), code::NOT_PROPOSED);
    refused(vm.confirm("bob.test", id, ONE), code::NOT_PROPOSED);
    let (mut vm, id) = opened();
    refused(vm.act("alice.test", method::CANCEL_PROPOSAL, json!({ "channel": id })), code::NOT_PROPOSED);
}

#[test]
fn a_top_up_is_checked() {
    let (mut vm, id) = opened();
    let args = json!({ "channel": id });
    refused(vm.call("carol.test", method::TOP_UP, &args, ONE), code::NOT_ALLOWED);
    refused(vm.call("nobody.test", method::TOP_UP, &args, ONE), code::NOT_REGISTERED);
    refused(vm.call("alice.test", method::TOP_UP, &args, Yocto::ZERO), code::DEPOSIT);
    refused(vm.call("alice.test", method::TOP_UP, &json!({ "channel": 9 }), ONE), code::NO_CHANNEL);
    let proposed = vm.propose("alice.test", "bob.test", ONE).expect("propose");
    refused(vm.call("alice.test", method::TOP_UP, &json!({ "channel": proposed }), ONE), code::NOT_OPEN);
    let (mut vm, id) = closing(0, 0);
    refused(vm.call("alice.test", method::TOP_UP, &json!({ "channel": id }), ONE), code::NOT_OPEN);
}

#[test]
fn a_close_request_is_checked() {
    let (mut vm, id) = opened();
    let close = |sent_a, sent_b| json!({ "channel": id, "totals": totals(sent_a, sent_b) });
    refused(vm.act("carol.test", method::REQUEST_CLOSE, close(0, 0)), code::NOT_ALLOWED);
    refused(vm.act("nobody.test", method::REQUEST_CLOSE, close(0, 0)), code::NOT_REGISTERED);
    refused(vm.act("alice.test", method::REQUEST_CLOSE, close(4 * NEAR + 1, 0)), code::TOTALS_EXCEED_POT);
    refused(vm.act("alice.test", method::REQUEST_CLOSE, close(0, NEAR + 1)), code::TOTALS_EXCEED_POT);
    refused(
        vm.act("alice.test", method::REQUEST_CLOSE, close(u128::MAX, u128::MAX)),
        code::TOTALS_EXCEED_POT,
    );
    // Totals may exceed the deposits as long as the balances do not.
    vm.act("alice.test", method::REQUEST_CLOSE, close(9 * NEAR, 6 * NEAR)).expect("request");
    let proposed = vm.propose("alice.test", "bob.test", ONE).expect("propose");
    let args = json!({ "channel": proposed, "totals": totals(0, 0) });
    refused(vm.act("alice.test", method::REQUEST_CLOSE, args), code::NOT_OPEN);
}

#[test]
fn a_close_confirmation_is_checked() {
    let (mut vm, id) = opened();
    let close = |sent_a| json!({ "channel": id, "totals": totals(sent_a, 0) });
    refused(vm.act("bob.test", method::CONFIRM_CLOSE, close(0)), code::NOT_REQUESTED);
    vm.act("alice.test", method::REQUEST_CLOSE, close(5)).expect("request");
    refused(vm.act("alice.test", method::CONFIRM_CLOSE, close(5)), code::NOT_ALLOWED);
    refused(vm.act("carol.test", method::CONFIRM_CLOSE, close(5)), code::NOT_ALLOWED);
    refused(vm.act("bob.test", method::CONFIRM_CLOSE, close(6)), code::TOTALS_DIFFER);
    // A request is binding for nobody until confirmed, so it may be replaced.
    vm.act("bob.test", method::REQUEST_CLOSE, close(6)).expect("another request");
    refused(vm.act("bob.test", method::CONFIRM_CLOSE, close(6)), code::NOT_ALLOWED);
    vm.act("alice.test", method::CONFIRM_CLOSE, close(6)).expect("confirm");
    refused(vm.act("bob.test", method::CONFIRM_CLOSE, close(6)), code::NOT_OPEN);
    refused(vm.act("bob.test", method::REQUEST_CLOSE, close(6)), code::NOT_OPEN);
}

#[test]
fn a_signed_close_is_checked() {
    let (mut vm, id) = opened();
    let expires_ms = vm.now_ms;
    let good = CooperativeClose { channel: id, sequence: 1, expires_ms, totals: totals(NEAR, 0) };
    let mut attempt = |args: Value| vm.act("any.test", method::CLOSE_SIGNED, args);
    let signed = |close: CooperativeClose| close_args("alice.test", "bob.test", close);

    for sequence in [0, 2, u64::MAX] {
        refused(attempt(signed(CooperativeClose { sequence, ..good.clone() })), code::SEQUENCE);
    }
    let expired = CooperativeClose { expires_ms: expires_ms - 1, ..good.clone() };
    refused(attempt(signed(expired)), code::EXPIRED);
    let above = CooperativeClose { totals: totals(4 * NEAR + 1, 0), ..good.clone() };
    refused(attempt(signed(above)), code::TOTALS_EXCEED_POT);
    let missing = CooperativeClose { channel: ChannelId(7), ..good.clone() };
    refused(attempt(signed(missing)), code::NO_CHANNEL);
    for (a, b) in [
        ("bob.test", "alice.test"),
        ("alice.test", "alice.test"),
        ("bob.test", "bob.test"),
        ("alice.test", "carol.test"),
        ("carol.test", "bob.test"),
    ] {
        refused(attempt(close_args(a, b, good.clone())), code::SIGNATURE);
    }
    let mut changed = signed(good.clone());
    changed["close"]["totals"]["sent_a"] = json!("0");
    refused(attempt(changed), code::SIGNATURE);
    for network in other_networks() {
        let signature = |by: &str| secret(by).sign(&network, good.clone()).signature;
        let args = json!({ "close": good, "signature_a": signature("alice.test"), "signature_b": signature("bob.test") });
        refused(attempt(args), code::SIGNATURE);
    }
    attempt(signed(good.clone())).expect("close");
    refused(attempt(signed(good)), code::NOT_OPEN);
}

#[test]
fn a_close_of_one_channel_closes_no_other() {
    let (mut vm, id) = opened();
    let second = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::near(1));
    let close = CooperativeClose { channel: id, sequence: 1, expires_ms: vm.now_ms, totals: totals(NEAR, 0) };
    let mut args = close_args("alice.test", "bob.test", close);
    args["close"]["channel"] = json!(second);
    refused(vm.act("any.test", method::CLOSE_SIGNED, args), code::SIGNATURE);
}

#[test]
fn evidence_is_checked() {
    let (mut vm, id) = opened();
    let submit = |state, signer: &str| json!({ "state": state, "signer": signer });
    let high = totals(3 * NEAR, 0);
    let args = submit(state("alice.test", id, high), "a");
    refused(vm.act("bob.test", method::SUBMIT_STATE, args), code::NOT_CLOSING);

    let (mut vm, id) = closing(NEAR, 0);
    let second = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::near(1));
    let mut attempt = |args: Value| vm.act("bob.test", method::SUBMIT_STATE, args);
    // Inflating the counter-total: Bob cannot sign for Alice.
    refused(attempt(submit(state("bob.test", id, high), "a")), code::SIGNATURE);
    refused(attempt(submit(state("alice.test", id, high), "b")), code::SIGNATURE);
    refused(attempt(submit(state("carol.test", id, high), "a")), code::SIGNATURE);
    // A payment on another channel.
    let mut replayed = submit(state("alice.test", second, high), "a");
    replayed["state"]["statement"]["channel"] = json!(id);
    refused(attempt(replayed), code::SIGNATURE);
    refused(attempt(submit(state("alice.test", second, high), "a")), code::NOT_CLOSING);
    for network in other_networks() {
        let statement = state("alice.test", id, high).statement;
        let signed = secret("alice.test").sign(&network, statement);
        refused(attempt(json!({ "state": signed, "signer": "a" })), code::SIGNATURE);
    }
    refused(attempt(submit(state("alice.test", ChannelId(9), high), "a")), code::NO_CHANNEL);
    refused(attempt(submit(state("alice.test", id, high), "c")), code::ARGUMENT);
    // Old states prove nothing.
    for sent_a in [0, NEAR - 1, NEAR] {
        refused(attempt(submit(state("alice.test", id, totals(sent_a, 0)), "a")), code::NOTHING_NEW);
    }
    refused(attempt(submit(state("bob.test", id, totals(9 * NEAR, 0)), "b")), code::NOTHING_NEW);
    attempt(submit(state("alice.test", id, high), "a")).expect("evidence");
    refused(attempt(submit(state("alice.test", id, high), "a")), code::NOTHING_NEW);
}

#[test]
fn evidence_comes_in_time() {
    let (mut vm, id) = closing(0, 0);
    vm.now_ms += params().notice_ms;
    let args = json!({ "state": state("alice.test", id, totals(1, 0)), "signer": "a" });
    refused(vm.act("bob.test", method::SUBMIT_STATE, args.clone()), code::WINDOW_OVER);
    vm.act("bob.test", method::FINALIZE, json!({ "channel": id })).expect("finalize");
    refused(vm.act("bob.test", method::SUBMIT_STATE, args), code::NOT_CLOSING);
}

#[test]
fn totals_above_the_pot_pay_the_pot_and_no_more() {
    let (mut vm, id) = closing(0, 0);
    for (by, side, total) in [("alice.test", "a", totals(u128::MAX, 0)), ("bob.test", "b", totals(0, 7))] {
        let args = json!({ "state": state(by, id, total), "signer": side });
        vm.act("any.test", method::SUBMIT_STATE, args).expect("evidence");
    }
    vm.now_ms += params().notice_ms;
    vm.act("any.test", method::FINALIZE, json!({ "channel": id })).expect("finalize");
    assert_eq!(vm.withdrawable("alice.test"), Yocto::ZERO);
    assert_eq!(vm.withdrawable("bob.test"), Yocto::near(5));
}

#[test]
fn a_sever_is_checked() {
    let (mut vm, id) = opened();
    let second = vm.open("alice.test", "bob.test", Yocto::ZERO, Yocto::ZERO);
    let proposed = vm.propose("alice.test", "bob.test", Yocto::ZERO).expect("propose");
    let mut attempt = |order: Value| vm.act("alice.test", method::SEVER, json!({ "order": order }));
    let value = |by, id| serde_json::to_value(order(by, id)).expect("order");
    refused(attempt(value("carol.test", id)), code::NOT_ALLOWED);
    refused(attempt(value("alice.test", ChannelId(9))), code::NO_CHANNEL);
    refused(attempt(value("alice.test", proposed)), code::NOT_SEVERABLE);
    // Alice cannot sign in Bob's name, nor use an order for another channel or network.
    let mut forged = value("alice.test", id);
    forged["statement"]["signer"] = json!(secret("bob.test").public());
    refused(attempt(forged), code::SIGNATURE);
    let mut replayed = value("bob.test", second);
    replayed["statement"]["channel"] = json!(id);
    refused(attempt(replayed), code::SIGNATURE);
    for network in other_networks() {
        let signed = secret("bob.test").sign(&network, order("bob.test", id).statement);
        refused(attempt(serde_json::to_value(signed).expect("order")), code::SIGNATURE);
    }
    attempt(value("bob.test", id)).expect("sever");
    refused(attempt(value("bob.test", id)), code::NOT_SEVERABLE);
    refused(attempt(value("alice.test", id)), code::NOT_SEVERABLE);
}

#[test]
fn a_sever_comes_too_late_once_bonds_may_be_returned() {
    let (mut vm, id) = closing(0, 0);
    vm.now_ms += params().notice_ms;
    vm.act("bob.test", method::FINALIZE, json!({ "channel": id })).expect("finalize");
    vm.now_ms += params().challenge_ms;
    let args = json!({ "order": order("bob.test", id) });
    refused(vm.act("any.test", method::SEVER, args.clone()), code::NOT_SEVERABLE);
    vm.act("bob.test", method::FINALIZE, json!({ "channel": id })).expect("release");
    refused(vm.act("any.test", method::SEVER, args), code::NOT_SEVERABLE);
}

#[test]
fn only_what_is_over_is_finalized_and_forgotten() {
    let (mut vm, id) = opened();
    let proposed = vm.propose("alice.test", "bob.test", Yocto::ZERO).expect("propose");
    for (channel, finalize, forget) in [
        (id, code::NOTHING_TO_FINALIZE, code::TOO_EARLY),
        (proposed, code::NOTHING_TO_FINALIZE, code::TOO_EARLY),
        (ChannelId(9), code::NO_CHANNEL, code::NO_CHANNEL),
    ] {
        let args = json!({ "channel": channel });
        refused(vm.act("alice.test", method::FINALIZE, args.clone()), finalize);
        refused(vm.act("alice.test", method::FORGET_CHANNEL, args), forget);
    }
    let args = json!({ "channel": proposed });
    vm.act("alice.test", method::CANCEL_PROPOSAL, args.clone()).expect("cancel");
    vm.act("bob.test", method::FORGET_CHANNEL, args.clone()).expect("forget");
    refused(vm.act("bob.test", method::FORGET_CHANNEL, args), code::NO_CHANNEL);
}

#[test]
fn money_is_withdrawn_once_and_only_by_its_owner() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.propose("alice.test", "bob.test", Yocto::near(4)).expect("propose");
    vm.act("alice.test", method::CANCEL_PROPOSAL, json!({ "channel": id })).expect("cancel");
    for stranger in ["bob.test", "nobody.test", "owner.test", "treasury.test", CONTRACT] {
        refused(vm.act(stranger, method::WITHDRAW, json!({})), code::WITHDRAWABLE);
        refused(vm.act(stranger, method::WITHDRAW, json!({ "amount": ONE })), code::WITHDRAWABLE);
    }
    let amount = |amount: u128| json!({ "amount": Yocto(amount) });
    refused(vm.act("alice.test", method::WITHDRAW, amount(0)), code::WITHDRAWABLE);
    refused(vm.act("alice.test", method::WITHDRAW, amount(5 * NEAR + 1)), code::WITHDRAWABLE);
    refused(vm.act("alice.test", method::WITHDRAW, amount(u128::MAX)), code::WITHDRAWABLE);
    vm.act("alice.test", method::WITHDRAW, amount(5 * NEAR)).expect("withdraw");
    refused(vm.act("alice.test", method::WITHDRAW, amount(1)), code::WITHDRAWABLE);
    refused(vm.act("alice.test", method::WITHDRAW, json!({})), code::WITHDRAWABLE);
    assert_eq!(vm.received["alice.test"], 5 * NEAR);
}
