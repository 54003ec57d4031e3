//! What the owner may do, when it takes effect, and what a node leaves behind.

use por_types::interface::{code, method};
use por_types::{ChannelId, CooperativeClose, Hash, Yocto, sha256};
use serde_json::json;

use super::harness::{Vm, close_args, order, params, refused, totals, wasm};

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
    // Its index is the first time free, and will be another's.
    let returned = deposit.checked_sub(Yocto::millinear(1)).expect("more");
    assert_eq!(vm.withdrawable("alice.test"), returned);
    vm.act("alice.test", method::WITHDRAW, json!({})).expect("withdraw the storage");
    refused(vm.act("alice.test", method::UNREGISTER, json!({})), code::NOT_REGISTERED);
    vm.register("alice.test", Yocto::ZERO).expect("a new index");
    assert_eq!(vm.node("alice.test").index, 2);
}

/// Closes with both signatures; the edge has left the graph, the bonds are still held.
fn close(vm: &mut Vm, a: &str, b: &str, channel: ChannelId) {
    let close = CooperativeClose { channel, sequence: 1, expires_ms: vm.now_ms, totals: totals(0, 0) };
    vm.act("any.test", method::CLOSE_SIGNED, close_args(a, b, close)).expect("close");
    vm.now_ms += vm.config().params.notice_ms;
    vm.act("any.test", method::FINALIZE, json!({ "channel": channel })).expect("the edge leaves");
}

/// Returns the bonds and removes the channel.
fn release(vm: &mut Vm, channel: ChannelId) {
    vm.now_ms += vm.config().params.challenge_ms;
    for step in [method::FINALIZE, method::FORGET_CHANNEL] {
        vm.act("any.test", step, json!({ "channel": channel })).expect("release");
    }
}

/// A node without channels takes everything and goes.
fn leave(vm: &mut Vm, name: &str) {
    let amount = vm.node(name).stake;
    vm.act(name, method::UNSTAKE, json!({ "amount": amount })).expect("unstake");
    vm.now_ms += vm.config().params.reimbursement_ms;
    vm.act(name, method::WITHDRAW, json!({})).expect("withdraw");
    vm.act(name, method::UNREGISTER, json!({})).expect("leave");
}

#[test]
fn an_order_after_a_close_is_carried_out_although_a_node_of_the_cut_off_side_has_left() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test", "carol.test", "dave.test"]);
    let [first, second, _] =
        [("alice.test", "bob.test"), ("bob.test", "carol.test"), ("alice.test", "dave.test")]
            .map(|(a, b)| vm.open(a, b, Yocto::ZERO, Yocto::ZERO));
    // The bonds of the first channel are held for the long window, all else is quick.
    let mut quick = params();
    (quick.challenge_ms, quick.reimbursement_ms, quick.notice_ms) = (1_000, 2_000, 100);
    close(&mut vm, "alice.test", "bob.test", first);
    vm.act("owner.test", method::SET_PARAMS, json!({ "params": quick })).expect("announce");
    vm.now_ms += params().notice_ms;
    close(&mut vm, "bob.test", "carol.test", second);
    release(&mut vm, second);
    leave(&mut vm, "carol.test");

    let before = vm.withdrawable("alice.test");
    vm.act("any.test", method::SEVER, json!({ "order": order("alice.test", first) })).expect("order");
    let half = vm.channel(first).bond;
    assert_eq!(vm.withdrawable("alice.test"), before.checked_add(half).expect("sum"));
    assert_eq!(vm.config().checks, 0);
}

#[test]
fn a_node_that_stayed_attached_alone_can_leave() {
    let mut vm = Vm::started();
    for (name, stake) in [("owner.test", 10), ("alice.test", 30), ("bob.test", 20)] {
        vm.register(name, Yocto::near(stake)).expect("register");
    }
    vm.now_ms += params().activation_ms;
    let to_anchor = vm.open("owner.test", "alice.test", Yocto::ZERO, Yocto::ZERO);
    let between = vm.open("alice.test", "bob.test", Yocto::ZERO, Yocto::ZERO);
    vm.act("alice.test", method::PING, json!({ "through": "owner.test" })).expect("ping");
    vm.act("bob.test", method::PING, json!({ "through": "alice.test" })).expect("ping");
    for (a, b, channel) in [("owner.test", "alice.test", to_anchor), ("alice.test", "bob.test", between)] {
        close(&mut vm, a, b, channel);
        release(&mut vm, channel);
    }
    assert!(vm.node("alice.test").attached && !vm.node("bob.test").attached);
    leave(&mut vm, "alice.test");
    assert!(!vm.withdrawable("alice.test").is_zero());
    leave(&mut vm, "bob.test");
    refused(vm.act("owner.test", method::UNREGISTER, json!({})), code::IN_USE);
}
