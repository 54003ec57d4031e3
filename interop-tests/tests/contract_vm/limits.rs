//! Limits of the chain and of the contract's own records, reached on purpose: nothing that many
//! cheap calls leave behind stops a check, hides an edge or goes unpaid.

use por_types::interface::{ChecksView, NeighbourView, code, method};
use por_types::{ChannelId, Yocto};
use serde_json::json;

use crate::harness::{Vm, order, params, refused, terms};

const ANCHOR: &str = "owner.test";
/// So little that a partition check cannot begin in the call.
const SHORT_OF_GAS: u64 = 14_000_000_000_000;

/// As long as the name of an account can be.
fn long_name(number: usize) -> String {
    format!("{number:0>59}.test")
}

/// The anchor and node `a.test`, with so many channels between them.
fn parallel(channels: usize) -> (Vm, Vec<ChannelId>) {
    let mut vm = Vm::started();
    for name in [ANCHOR, "a.test"] {
        vm.register(name, Yocto::near(2_000)).expect("register");
    }
    let ids = (0..channels).map(|_| vm.open(ANCHOR, "a.test", Yocto::ZERO, Yocto::ZERO)).collect();
    (vm, ids)
}

/// Severs without the gas for the check.
fn sever_later(vm: &mut Vm, by: &str, id: ChannelId) {
    let deposit = vm.config().check_deposit;
    vm.gas = SHORT_OF_GAS;
    vm.call("anyone.test", method::SEVER, &json!({ "order": order(by, id) }), deposit).expect("sever");
    vm.gas = Vm::GAS;
}

fn checks(vm: &mut Vm) -> ChecksView {
    vm.view(method::CHECKS, &json!({}))
}

/// Continues checks until nothing waits.
fn crank(vm: &mut Vm) {
    while checks(vm).waiting > 0 {
        vm.act("crank.test", method::CHECK, json!({})).expect("a check can always be continued");
    }
}

/// A call may log 100 events of 16 KiB.
#[test]
fn no_number_of_pings_that_wait_stops_the_checks() {
    let (mut vm, ids) = parallel(2);
    let nodes = 150;
    for number in 0..nodes {
        vm.register(&long_name(number), Yocto::ZERO).expect("register");
    }
    sever_later(&mut vm, ANCHOR, ids[0]);
    for number in 0..nodes {
        vm.act(&long_name(number), method::PING, json!({ "through": ANCHOR })).expect("ping");
    }
    crank(&mut vm);
}

#[test]
fn no_number_of_checks_that_wait_stops_them() {
    let (mut vm, ids) = parallel(160);
    for id in &ids[1..] {
        sever_later(&mut vm, ANCHOR, *id);
    }
    crank(&mut vm);
    assert!(checks(&mut vm).head.is_none());
}

/// Links of a hub to one node beyond what one entry counts stay together when its page is divided.
#[test]
fn every_one_of_many_parallel_channels_of_a_hub_can_end() {
    // Of one node 257 channels take two entries; with these neighbours on both sides of it they
    // are in the middle of a full page.
    let (below, above, channels) = (255, 256, 257);
    let mut vm = Vm::started();
    vm.register("hub.test", Yocto::near(5_000)).expect("register");
    let names: Vec<String> = (0..=below + above).map(|number| format!("n{number}.test")).collect();
    for name in &names {
        vm.register(name, Yocto::near(300)).expect("register");
    }
    let (propose, confirm) = (vm.propose_cost(Yocto::ZERO), vm.confirm_cost(Yocto::ZERO));
    let open = |vm: &mut Vm, name: &str| -> ChannelId {
        let args = json!({ "counterparty": name, "terms": terms(), "deposit": Yocto::ZERO });
        let input = serde_json::to_vec(&args).expect("arguments");
        let done = vm.call_unchecked("hub.test", method::PROPOSE_CHANNEL, input, propose).expect("propose");
        let args = json!({ "channel": done.value, "terms": terms(), "deposit": Yocto::ZERO });
        let input = serde_json::to_vec(&args).expect("arguments");
        vm.call_unchecked(name, method::CONFIRM_CHANNEL, input, confirm).expect("confirm");
        serde_json::from_value(done.value).expect("channel")
    };
    let middle = &names[below];
    let ids: Vec<ChannelId> = (0..channels).map(|_| open(&mut vm, middle)).collect();
    let around: Vec<ChannelId> =
        names.iter().filter(|name| *name != middle).map(|name| open(&mut vm, name)).collect();
    vm.check_conservation();
    let (last, others) = ids.split_last().expect("channels");
    for id in others {
        let args = json!({ "order": order("hub.test", *id) });
        let input = serde_json::to_vec(&args).expect("arguments");
        vm.call_unchecked("anyone.test", method::SEVER, input, Yocto::ZERO).expect("sever");
    }
    // Behind another, where a close that fails would hold up everything for good.
    sever_later(&mut vm, "hub.test", around[0]);
    sever_later(&mut vm, "hub.test", *last);
    crank(&mut vm);
    let args = json!({ "index": 0, "from": below + 1, "limit": 1 });
    let found: Vec<NeighbourView> = vm.view(method::NEIGHBOURS, &args);
    assert_eq!(found[0].index as usize, below + 2);
}

/// Stake that waits to become active has a place in the order of time, which takes storage.
#[test]
fn deposits_of_one_block_leave_no_litter() {
    let mut vm = Vm::with_nodes(&["litterer.test"]);
    vm.now_ms += params().activation_ms;
    let before = vm.storage_usage();
    for _ in 0..2_500 {
        for (method, args, deposit) in [
            (method::STAKE, json!({}), Yocto(1)),
            (method::UNSTAKE, json!({ "amount": Yocto(1) }), Yocto::ZERO),
        ] {
            let input = serde_json::to_vec(&args).expect("arguments");
            vm.call_unchecked("litterer.test", method, input, deposit).expect("a change of stake");
        }
    }
    // The ring of the change log is full now.
    let litter = vm.storage_usage() - before;
    assert!(litter < 80_000, "{litter} bytes");
    vm.check_conservation();
}

/// Gas that a wrong witness burns is not what the closer has prepaid.
#[test]
fn a_witness_that_is_no_path_earns_nothing() {
    let (mut vm, ids) = parallel(2);
    vm.register("b.test", Yocto::near(10)).expect("register");
    vm.register("greedy.test", Yocto::ZERO).expect("register");
    sever_later(&mut vm, ANCHOR, ids[0]);
    let deposit = checks(&mut vm).head.expect("a check").reward;
    // To and fro between the ends, then to where no edge leads, and back.
    let mut path = [0, 1].repeat(40_000);
    path.extend([2, 1]);
    vm.act("greedy.test", method::CHECK, json!({ "witness": { "path": path } })).expect("check");
    crank(&mut vm);
    refused(vm.act("crank.test", method::CHECK, json!({})), code::NO_CHECK);
    let (rest, earned) = (vm.withdrawable("anyone.test"), vm.withdrawable("greedy.test"));
    assert_eq!(rest.0 + earned.0, deposit.0);
    // What the check takes without a witness is 3 Tgas, 0.0001 NEAR each.
    assert!(earned < Yocto::ONE_NEAR.portion(Yocto(3), Yocto(10_000)).expect("small"), "{earned}");
}

/// Nor does who goes to and fro on a path, which shows no more than the path itself.
#[test]
fn a_witness_that_goes_to_and_fro_earns_nothing() {
    let (mut vm, ids) = parallel(2);
    vm.register("greedy.test", Yocto::ZERO).expect("register");
    sever_later(&mut vm, ANCHOR, ids[0]);
    let path = [0, 1].repeat(20_000);
    vm.act("greedy.test", method::CHECK, json!({ "witness": { "path": path } })).expect("check");
    refused(vm.act("crank.test", method::CHECK, json!({})), code::NO_CHECK);
    let earned = vm.withdrawable("greedy.test");
    assert!(earned < Yocto::ONE_NEAR.portion(Yocto(3), Yocto(10_000)).expect("small"), "{earned}");
}

/// A SeverOrder attaches what its bringer has read some blocks before, and is not to be refused for
/// that.
#[test]
fn a_registration_in_between_does_not_make_a_deposit_too_little() {
    let (mut vm, ids) = parallel(3);
    sever_later(&mut vm, ANCHOR, ids[0]);
    let deposit = vm.config().check_deposit;
    vm.register("hasty.test", Yocto::ZERO).expect("register");
    vm.call("anyone.test", method::SEVER, &json!({ "order": order(ANCHOR, ids[1]) }), deposit)
        .expect("sever");
    crank(&mut vm);
}

/// Whoever looks for checks to continue finds them also between two of them.
#[test]
fn the_check_that_comes_next_is_shown() {
    let (mut vm, ids) = parallel(80);
    for id in &ids[1..] {
        sever_later(&mut vm, ANCHOR, *id);
    }
    // So that calls end at many points, also right after a check.
    for step in 0..120 {
        vm.gas = 17_000_000_000_000 + step * 100_000_000_000;
        vm.act("crank.test", method::CHECK, json!({})).expect("check");
        let pending = checks(&mut vm);
        assert_eq!(pending.head.is_some(), pending.checks > 0, "{pending:?}");
        if pending.checks == 0 {
            return;
        }
    }
}

/// The pages of a hub go with its last channel, whichever page that is in.
#[test]
fn a_hub_whose_channels_are_over_leaves_no_litter() {
    let channels = 600;
    let mut vm = Vm::started();
    vm.register("hub.test", Yocto::near(5_000)).expect("register");
    let names: Vec<String> = (0..channels).map(|number| format!("n{number}.test")).collect();
    for name in &names {
        vm.register(name, Yocto::near(10)).expect("register");
    }
    let ids: Vec<ChannelId> =
        names.iter().map(|name| vm.open("hub.test", name, Yocto::ZERO, Yocto::ZERO)).collect();
    for id in ids {
        vm.act("anyone.test", method::SEVER, json!({ "order": order("hub.test", id) })).expect("sever");
    }
    let pages: Vec<Vec<u8>> = vm.stored().keys().filter(|key| key[0] == b'v').cloned().collect();
    assert!(pages.is_empty(), "{pages:?}");
}
