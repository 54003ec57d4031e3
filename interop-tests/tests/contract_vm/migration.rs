//! The state of version 1, made by its own wasm, taken over by the current code.

use por_types::Yocto;
use por_types::interface::{ChannelStatus, ChecksView, Event, code, method};
use serde_json::json;

use super::harness::{CONTRACT, Done, Vm, order, params, refused, state, totals};
use super::penalties::{HALF, parallel_on, sever_all};

const FIRST: &[u8] = include_bytes!("../../fixtures/contract-v1.wasm");
/// Of version 2, but from before claims were left in the list of penalties and indices used again.
const SECOND: &[u8] = include_bytes!("../../fixtures/contract-v2.wasm");
const NAMES: [&str; 3] = ["owner.test", "alice.test", "bob.test"];
const NEAR: u128 = Yocto::ONE_NEAR.0;

/// What version 1 asked for a registration and a channel's storage, with more than enough.
fn first_call(
    vm: &mut Vm,
    who: &str,
    method: &str,
    args: serde_json::Value,
    deposit: Yocto,
) -> serde_json::Value {
    let input = serde_json::to_vec(&args).expect("arguments");
    vm.call_unchecked(who, method, input, deposit).expect(method).value
}

fn first_version() -> Vm {
    let mut vm = Vm::deployed_with(FIRST.to_vec());
    let args = serde_json::to_value(Vm::new_args(params(), true)).expect("arguments");
    first_call(&mut vm, CONTRACT, method::NEW, args, Yocto::ZERO);
    for name in NAMES {
        let args = serde_json::to_value(Vm::register_args(name)).expect("arguments");
        first_call(&mut vm, name, method::REGISTER, args, Yocto::near(10));
    }
    vm
}

fn first_channel(vm: &mut Vm, a: &str, b: &str) -> por_types::ChannelId {
    let terms = super::harness::terms();
    let args = json!({ "counterparty": b, "terms": terms, "deposit": Yocto::near(2) });
    let id = first_call(vm, a, method::PROPOSE_CHANNEL, args, Yocto::near(4));
    let args = json!({ "channel": id, "terms": terms, "deposit": Yocto::near(1) });
    first_call(vm, b, method::CONFIRM_CHANNEL, args, Yocto::near(2));
    serde_json::from_value(id).expect("channel id")
}

#[test]
fn a_state_of_version_one_goes_on_in_several_steps() {
    let mut vm = first_version();
    let ring = [("owner.test", "alice.test"), ("alice.test", "bob.test"), ("bob.test", "owner.test")];
    let ids = ring.map(|(a, b)| first_channel(&mut vm, a, b));
    let severed = first_channel(&mut vm, "alice.test", "bob.test");
    first_call(&mut vm, "x.test", method::SEVER, json!({ "order": order("bob.test", severed) }), Yocto::ZERO);
    let money = vm.balance();

    vm.set_code(super::harness::wasm());
    let message = vm.act("alice.test", method::STAKE, json!({})).expect_err("not migrated");
    assert!(message.contains("deserialize"), "{message}");
    refused(vm.act("alice.test", method::MIGRATE, json!({})), code::NOT_ALLOWED);
    let step = |vm: &mut Vm, who: &str| {
        let input = serde_json::to_vec(&json!({ "limit": 3 })).expect("arguments");
        vm.call_unchecked(who, method::MIGRATE, input, Yocto::ZERO).expect("migrate").value
    };
    assert_eq!(step(&mut vm, CONTRACT), json!(false));
    assert_eq!(step(&mut vm, "anyone.test"), json!(true));
    assert_eq!(vm.balance(), money);
    vm.check_conservation();

    assert_eq!(vm.config().state_version, 2);
    assert!(vm.node("owner.test").attached, "the owner is the anchor of a network of version 1");
    assert_eq!(vm.channel(ids[0]).status, ChannelStatus::Open);
    vm.now_ms += params().activation_ms;
    for name in ["alice.test", "bob.test"] {
        vm.act(name, method::PING, json!({ "through": "owner.test" })).expect("attached");
        assert_eq!(vm.node(name).active_stake, vm.node(name).stake);
    }

    // The ring holds when one edge goes; when the next goes, Bob is cut off and pays for both
    // penalties of version 1 and 2 that Alice has, and for the owner's.
    vm.act("x.test", method::SEVER, json!({ "order": order("alice.test", ids[1]) })).expect("sever");
    assert!(vm.node("bob.test").attached);
    let before = ["alice.test", "owner.test"].map(|name| vm.withdrawable(name));
    vm.act("x.test", method::SEVER, json!({ "order": order("owner.test", ids[2]) })).expect("sever");
    assert!(!vm.node("bob.test").attached);
    let gained = |vm: &mut Vm, name, before: Yocto| vm.withdrawable(name).checked_sub(before).expect("gain");
    assert_eq!(gained(&mut vm, "alice.test", before[0]), Yocto::near(2));
    assert_eq!(gained(&mut vm, "owner.test", before[1]), Yocto::near(1));
    let evidence = json!({ "state": state("bob.test", severed, totals(0, NEAR)), "signer": "b" });
    vm.act("x.test", method::SUBMIT_STATE, evidence).expect("evidence");
    vm.now_ms += params().challenge_ms;
    vm.act("x.test", method::FINALIZE, json!({ "channel": severed })).expect("finalize");
    assert!(
        matches!(vm.channel(severed).status, ChannelStatus::Closed { paid_a, .. } if paid_a == Yocto::near(3))
    );
}

/// Records of the check, of what waits behind it and of kept sides have grown since.
#[test]
fn a_check_that_earlier_code_of_this_version_has_begun_comes_to_the_same_end() {
    let channels = 60;
    let mut phases = 0;
    for steps in [0, 2, 4, 6, 8, 10] {
        let (mut vm, ids) = parallel_on(Vm::deployed_with(SECOND.to_vec()), channels + 2);
        let (late, ids) = ids.split_last().expect("channels");
        let (last, others) = ids.split_last().expect("channels");
        sever_all(&mut vm, others);
        for (who, method) in [("a.test", method::REQUEST_CLOSE), ("owner.test", method::CONFIRM_CLOSE)] {
            vm.act(who, method, json!({ "channel": late, "totals": totals(0, 0) })).expect(method);
        }
        vm.now_ms += params().notice_ms;
        // A check waits, without gas for it, and behind it a close that will find a partition.
        vm.gas = 14_000_000_000_000;
        let deposit = vm.config().check_deposit;
        let sever = json!({ "order": order("owner.test", *last) });
        vm.call("x.test", method::SEVER, &sever, deposit).expect("sever");
        let finalize = json!({ "channel": late });
        vm.call("x.test", method::FINALIZE, &finalize, deposit).expect("finalize");
        let mut reimbursed = 0;
        let mut check = |vm: &mut Vm| reimbursed += paid(&vm.act("crank.test", method::CHECK, json!({})));
        vm.gas = 19_000_000_000_000;
        for _ in 0..steps {
            check(&mut vm);
        }
        let head = vm.view::<ChecksView>(method::CHECKS, &json!({})).head;
        phases += usize::from(head.is_some_and(|head| head.channel == *late));

        vm.set_code(super::harness::wasm());
        vm.gas = Vm::GAS;
        while vm.view::<ChecksView>(method::CHECKS, &json!({})).waiting > 0 {
            check(&mut vm);
        }
        assert_eq!(reimbursed, (channels as u128 + 1) * HALF.0, "{steps} steps by the earlier code");
        // The order finds the side that a close has cut off, whichever code kept it.
        let order = json!({ "order": order("owner.test", *late) });
        assert_eq!(paid(&vm.act("x.test", method::SEVER, order)), HALF.0);
    }
    assert!(phases > 3, "the earlier code stopped at different points: {phases}");
}

/// What a call reimbursed, in yocto.
fn paid(done: &Result<Done, String>) -> u128 {
    let events = done.as_ref().expect("accepted").logs.iter().map(|log| {
        let json = log.strip_prefix("EVENT_JSON:").expect("NEP-297");
        serde_json::from_str(json).expect("an event")
    });
    let amounts = events.map(|event| match event {
        Event::Reimbursed(claims) => claims.iter().map(|claim| claim.amount.0).sum(),
        _ => 0,
    });
    amounts.sum()
}

#[test]
fn a_current_state_stays_as_it_is() {
    let mut vm = Vm::with_nodes(&["alice.test"]);
    let before = vm.config();
    vm.act(CONTRACT, method::MIGRATE, json!({})).expect("nothing to do");
    assert_eq!(vm.config(), before);
}
