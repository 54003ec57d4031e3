//! What the owner may do, when it takes effect, and what a node leaves behind.

use por_types::interface::{code, method};
use por_types::{Hash, Yocto, sha256};
use serde_json::json;

use super::harness::{Vm, params, refused, wasm};

const OWNER: &str = "owner.test";

#[test]
fn parameters_wait_for_their_notice_and_leave_what_has_begun() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let before = vm.open("alice.test", "bob.test", Yocto::near(1), Yocto::near(1));
    let mut next = params();
    next.sever_penalty = Yocto::near(4);
    let args = json!({ "params": next });
    refused(vm.act("alice.test", method::SET_PARAMS, args.clone()), code::NOT_ALLOWED);
    vm.act(OWNER, method::SET_PARAMS, args).expect("announce");
    let from_ms = vm.now_ms + params().notice_ms;
    let config = vm.config();
    assert_eq!(config.params, params());
    assert_eq!(
        config.next_params.map(|announced| (announced.params, announced.from_ms)),
        Some((next.clone(), from_ms))
    );

    vm.now_ms = from_ms - 1;
    assert_eq!(vm.config().params, params());
    vm.now_ms = from_ms;
    assert_eq!(vm.config().params, next);
    assert_eq!(vm.config().next_params, None);
    let after = vm.open("alice.test", "bob.test", Yocto::near(1), Yocto::near(1));
    assert_eq!(vm.channel(before).bond, Yocto::near(1));
    assert_eq!(vm.channel(after).bond, Yocto::near(2));
}

#[test]
fn a_second_announcement_replaces_the_first_and_keeps_what_is_in_force() {
    let mut vm = Vm::started();
    let with_fee = |fee| {
        let mut params = params();
        params.late_fee = Yocto(fee);
        params
    };
    vm.act(OWNER, method::SET_PARAMS, json!({ "params": with_fee(5) })).expect("first");
    vm.now_ms += params().notice_ms;
    vm.act(OWNER, method::SET_PARAMS, json!({ "params": with_fee(6) })).expect("second");
    assert_eq!(vm.config().params, with_fee(5));
    vm.act(OWNER, method::SET_PARAMS, json!({ "params": with_fee(7) })).expect("third");
    vm.now_ms += params().notice_ms;
    assert_eq!(vm.config().params, with_fee(7));
}

#[test]
fn parameters_stay_within_hard_bounds() {
    let mut vm = Vm::started();
    let mut odd = params();
    odd.sever_penalty = Yocto(3);
    refused(vm.act(OWNER, method::SET_PARAMS, json!({ "params": odd })), code::PARAMS);
    let mut total = params();
    total.slash_bps = 10_001;
    refused(vm.act(OWNER, method::SET_PARAMS, json!({ "params": total })), code::PARAMS);
}

#[test]
fn owner_and_treasury_are_handed_over() {
    let mut vm = Vm::started();
    let to = |account: &str| json!({ "account": account });
    refused(vm.act("mallory.test", method::SET_OWNER, to("mallory.test")), code::NOT_ALLOWED);
    refused(vm.act("mallory.test", method::SET_TREASURY, to("mallory.test")), code::NOT_ALLOWED);
    vm.act(OWNER, method::SET_TREASURY, to("chest.test")).expect("treasury");
    vm.act(OWNER, method::SET_OWNER, to("heir.test")).expect("owner");
    refused(vm.act(OWNER, method::SET_OWNER, to(OWNER)), code::NOT_ALLOWED);
    let config = vm.config();
    assert_eq!((config.owner.as_str(), config.treasury.as_str()), ("heir.test", "chest.test"));
}

#[test]
fn code_is_deployed_only_as_announced_and_after_the_notice() {
    let mut vm = Vm::started();
    let new = wasm();
    refused(vm.call_raw("anyone.test", method::UPGRADE, new.clone(), Yocto::ZERO), code::NOT_ANNOUNCED);
    let hash = json!({ "code_hash": Hash(sha256(&new)) });
    refused(vm.act("mallory.test", method::ANNOUNCE_UPGRADE, hash.clone()), code::NOT_ALLOWED);
    vm.act(OWNER, method::ANNOUNCE_UPGRADE, hash.clone()).expect("announce");
    let other = b"\0asm\x01\0\0\0".to_vec();
    refused(vm.call_raw("anyone.test", method::UPGRADE, other, Yocto::ZERO), code::NOT_ANNOUNCED);
    refused(vm.call_raw("anyone.test", method::UPGRADE, new.clone(), Yocto::ZERO), code::TOO_EARLY);
    vm.act(OWNER, method::CANCEL_UPGRADE, json!({})).expect("cancel");
    refused(vm.act(OWNER, method::CANCEL_UPGRADE, json!({})), code::NOT_ANNOUNCED);
    vm.now_ms += params().notice_ms;
    refused(vm.call_raw("anyone.test", method::UPGRADE, new, Yocto::ZERO), code::NOT_ANNOUNCED);
}

#[test]
fn a_node_that_leaves_gets_its_storage_back_and_its_key_is_free() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    refused(vm.act("alice.test", method::UNREGISTER, json!({})), code::IN_USE);
    vm.act("alice.test", method::UNSTAKE, json!({ "amount": Yocto::near(10) })).expect("unstake");
    vm.now_ms += params().reimbursement_ms;
    refused(vm.act("alice.test", method::UNREGISTER, json!({})), code::IN_USE);
    vm.act("alice.test", method::WITHDRAW, json!({})).expect("withdraw");
    let deposit = vm.config().register_storage;
    vm.act("alice.test", method::UNREGISTER, json!({})).expect("leave");
    assert_eq!(vm.withdrawable("alice.test"), deposit);
    vm.act("alice.test", method::WITHDRAW, json!({})).expect("withdraw the storage");
    refused(vm.act("alice.test", method::UNREGISTER, json!({})), code::NOT_REGISTERED);
    vm.register("alice.test", Yocto::ZERO).expect("a new index");
    assert_eq!(vm.node("alice.test").index, 2);
}
