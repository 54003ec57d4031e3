//! What an adversary gets (protocol section 9), row by row, where the contract decides it.
//! docs/threats.md names the test of each row.

use por_types::interface::{AttachmentView, ChannelStatus, ChecksView, DowntimeView, Params, code, method};
use por_types::{ChannelId, Draw, Network, Yocto};
use serde_json::{Value, json};

use crate::harness::{Done, Vm, account, network, order, params, refused, secret, state, totals};

const NEAR: u128 = Yocto::ONE_NEAR.0;
/// The genesis anchor.
const ANCHOR: &str = "owner.test";
/// So little that a partition check cannot begin in the call.
const SHORT_OF_GAS: u64 = 14_000_000_000_000;

/// Nodes with these stakes, all active.
fn staked(nodes: &[(&str, u128)]) -> Vm {
    let mut vm = Vm::started();
    for (name, stake) in nodes {
        vm.register(name, Yocto::near(*stake)).expect("register");
    }
    vm.now_ms += params().activation_ms;
    vm
}

fn ping(vm: &mut Vm, who: &str, through: &str) -> Result<Done, String> {
    vm.act(who, method::PING, json!({ "through": through }))
}

/// A channel, over which `b` becomes attached.
fn join(vm: &mut Vm, a: &str, b: &str) -> ChannelId {
    let id = vm.open(a, b, Yocto::near(1), Yocto::near(1));
    ping(vm, b, a).expect("ping");
    id
}

fn sever(vm: &mut Vm, by: &str, id: ChannelId) {
    vm.act("anyone.test", method::SEVER, json!({ "order": order(by, id) })).expect("sever");
}

fn finalize(vm: &mut Vm, id: ChannelId) {
    vm.act("anyone.test", method::FINALIZE, json!({ "channel": id })).expect("finalize");
}

fn attached(vm: &mut Vm, name: &str) -> bool {
    vm.node(name).attached
}

/// What is left of `amount` after the slash.
fn slashed(amount: u128) -> u128 {
    amount - amount * u128::from(params().slash_bps) / 10_000
}

#[test]
fn an_old_state_a_hidden_direction_or_an_inflated_total_wins_nothing() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::near(1));
    sever(&mut vm, "alice.test", id);
    let submit = |vm: &mut Vm, by: &str, sent_a: u128, sent_b: u128, signer: &str| {
        let args = json!({ "state": state(by, id, totals(sent_a, sent_b)), "signer": signer });
        vm.act("watchtower.test", method::SUBMIT_STATE, args)
    };
    // Alice settles with an old state and an invented total of Bob's.
    submit(&mut vm, "alice.test", NEAR, 3 * NEAR, "a").expect("an old state counts until a newer one");
    assert_eq!(vm.channel(id).totals, totals(NEAR, 0), "her signature proves only what she paid");
    refused(submit(&mut vm, "alice.test", NEAR, 3 * NEAR, "b"), code::SIGNATURE);
    // Whoever holds the newer states shows them, for each direction.
    submit(&mut vm, "alice.test", 3 * NEAR, 0, "a").expect("newer");
    refused(submit(&mut vm, "alice.test", 2 * NEAR, 0, "a"), code::NOTHING_NEW);
    submit(&mut vm, "bob.test", 0, NEAR / 2, "b").expect("the direction that was hidden");
    vm.now_ms += params().challenge_ms;
    finalize(&mut vm, id);
    let ChannelStatus::Closed { paid_a, paid_b, .. } = vm.channel(id).status else { panic!("paid out") };
    assert_eq!((paid_a.0, paid_b.0), (3 * NEAR / 2, 7 * NEAR / 2));
    assert_eq!(paid_a.0 + paid_b.0, 5 * NEAR, "the pot");
}

/// A draw of half a NEAR each way, signed by both for `on`.
fn draw(on: &Network, act: &Draw) -> Value {
    let by = |name: &str| secret(name).sign(on, act.clone()).signature;
    json!({ "draw": act, "signature_a": by("alice.test"), "signature_b": by("bob.test") })
}

#[test]
fn a_draw_is_executed_once_in_time_and_only_where_it_was_signed() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::near(1));
    let other = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::near(1));
    let half = Yocto(NEAR / 2);
    let (totals, expires_ms) = (totals(2 * NEAR, 0), vm.now_ms + 1_000);
    let act = Draw { channel: id, sequence: 1, expires_ms, totals, draw_a: half, draw_b: half };
    let submit = |vm: &mut Vm, args: Value| vm.act("holder.test", method::DRAW, args);
    for chain_id in [network().chain_id, "other-chain".to_owned()] {
        let mut elsewhere = network();
        elsewhere.contract =
            if chain_id == elsewhere.chain_id { account("fake.test") } else { elsewhere.contract };
        elsewhere.chain_id = chain_id;
        refused(submit(&mut vm, draw(&elsewhere, &act)), code::SIGNATURE);
    }
    // The signatures of one channel's draw with the other channel's name.
    let mut moved = draw(&network(), &act);
    moved["draw"]["channel"] = json!(other);
    refused(submit(&mut vm, moved), code::SIGNATURE);
    let mut more = draw(&network(), &act);
    more["draw"]["draw_b"] = json!(Yocto::near(3));
    refused(submit(&mut vm, more), code::SIGNATURE);
    submit(&mut vm, draw(&network(), &act)).expect("draw");
    assert_eq!((vm.withdrawable("alice.test"), vm.withdrawable("bob.test")), (half, half));
    refused(submit(&mut vm, draw(&network(), &act)), code::SEQUENCE);
    let late = Draw { sequence: 2, ..act.clone() };
    vm.now_ms += 1_001;
    refused(submit(&mut vm, draw(&network(), &late)), code::EXPIRED);
    let greedy = Draw { sequence: 2, expires_ms: vm.now_ms, draw_a: Yocto::near(2), ..act };
    assert!(submit(&mut vm, draw(&network(), &greedy)).is_err(), "more than alice has left");
    // What the draw stated is a floor: nobody settles below it.
    let below = json!({ "channel": id, "totals": super::harness::totals(NEAR, 0) });
    refused(vm.act("alice.test", method::REQUEST_CLOSE, below), code::TOTALS_BELOW_PROVEN);
    sever(&mut vm, "alice.test", id);
    vm.now_ms += params().challenge_ms;
    finalize(&mut vm, id);
    let ChannelStatus::Closed { paid_a, paid_b, .. } = vm.channel(id).status else { panic!("paid out") };
    assert_eq!((paid_a.0, paid_b.0), (3 * NEAR / 2, 5 * NEAR / 2));
}

#[test]
fn who_refuses_to_close_together_is_severed_and_nothing_is_stuck() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::near(1));
    let close = json!({ "channel": id, "totals": totals(NEAR, 0) });
    vm.act("alice.test", method::REQUEST_CLOSE, close).expect("request");
    // Bob never answers: from here on no call is his.
    vm.now_ms += params().notice_ms;
    refused(vm.act("alice.test", method::FINALIZE, json!({ "channel": id })), code::NOTHING_TO_FINALIZE);
    sever(&mut vm, "alice.test", id);
    vm.now_ms += params().challenge_ms;
    finalize(&mut vm, id);
    vm.act("alice.test", method::WITHDRAW, json!({})).expect("withdraw");
    assert!(vm.received["alice.test"] >= 4 * NEAR);
    vm.now_ms += params().reimbursement_ms;
    finalize(&mut vm, id);
    assert_eq!(vm.node("alice.test").locked, Yocto::ZERO);
    vm.act("alice.test", method::FORGET_CHANNEL, json!({ "channel": id })).expect("forget");
}

#[test]
fn an_order_beats_a_cooperative_close_whoever_brings_it() {
    for during_notice in [true, false] {
        let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
        let id = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::near(1));
        // Alice has given the order to her neighbour upstream, and then closes quietly with Bob.
        let withheld = json!({ "order": order("alice.test", id) });
        let close = json!({ "channel": id, "totals": totals(0, 0) });
        vm.act("alice.test", method::REQUEST_CLOSE, close.clone()).expect("request");
        vm.act("bob.test", method::CONFIRM_CLOSE, close).expect("confirm");
        vm.now_ms += params().notice_ms;
        if !during_notice {
            finalize(&mut vm, id);
        }
        vm.act("upstream.test", method::SEVER, withheld).expect("anyone may bring it");
        assert_eq!((vm.books().bonds, vm.books().escrow), (Yocto::ZERO, Yocto::near(2)), "forfeited");
    }
}

#[test]
fn sock_puppets_pay_along_with_the_node_they_surround() {
    let mut vm = staked(&[(ANCHOR, 100), ("honest.test", 10), ("faulty.test", 10), ("puppet.test", 10)]);
    join(&mut vm, ANCHOR, "honest.test");
    let first = join(&mut vm, "honest.test", "faulty.test");
    join(&mut vm, "faulty.test", "puppet.test");
    let second = vm.open("honest.test", "puppet.test", Yocto::near(1), Yocto::near(1));
    sever(&mut vm, "honest.test", first);
    assert!(attached(&mut vm, "faulty.test"), "the puppet still connects it");
    let before = vm.withdrawable("honest.test");
    sever(&mut vm, "honest.test", second);
    for name in ["faulty.test", "puppet.test"] {
        assert!(!attached(&mut vm, name), "{name}");
        // Each is the endpoint of one penalty, and then slashed.
        assert_eq!(vm.node(name).stake.0, slashed(9 * NEAR), "{name}");
    }
    assert_eq!(vm.withdrawable("honest.test").0 - before.0, 2 * NEAR, "both halves are returned");
    assert_eq!(vm.node("honest.test").stake, Yocto::near(10));
}

#[test]
fn a_private_component_is_never_attached() {
    let mut vm = staked(&[(ANCHOR, 3), ("x.test", 5_000), ("y.test", 5_000)]);
    vm.open("x.test", "y.test", Yocto::near(1), Yocto::near(1));
    for (who, through) in
        [("x.test", "y.test"), ("y.test", "x.test"), ("x.test", ANCHOR), ("x.test", "x.test")]
    {
        refused(ping(&mut vm, who, through), code::NOT_ATTACHED);
    }
    vm.now_ms += params().reimbursement_ms;
    let from_ms = vm.now_ms - 1_000;
    let args = json!({ "account": "x.test", "from_ms": from_ms, "to_ms": vm.now_ms });
    let down: Option<DowntimeView> = vm.view(method::DOWNTIME, &args);
    assert_eq!(down.expect("a node").downtime_ms, 1_000, "whatever it stakes");
}

#[test]
fn stake_that_was_just_deposited_does_not_make_a_side_larger() {
    // The same with and without waiting for the activation: the test can tell the difference.
    for (waits, cut) in [(false, "attacker.test"), (true, "honest.test")] {
        let mut vm = staked(&[(ANCHOR, 10), ("honest.test", 10), ("attacker.test", 10)]);
        join(&mut vm, ANCHOR, "honest.test");
        let id = join(&mut vm, "honest.test", "attacker.test");
        vm.call("attacker.test", method::STAKE, &json!({}), Yocto::near(1_000)).expect("stake");
        if waits {
            vm.now_ms += params().activation_ms;
        }
        sever(&mut vm, "attacker.test", id);
        assert!(!attached(&mut vm, cut), "{cut}");
        assert!(attached(&mut vm, ANCHOR), "the anchor always is");
    }
}

#[test]
fn withdrawn_stake_is_charged_before_the_rest() {
    let mut vm = staked(&[(ANCHOR, 100), ("faulty.test", 10)]);
    let id = join(&mut vm, ANCHOR, "faulty.test");
    // Everything that is not needed for its channel, in the block before it is cut off.
    vm.act("faulty.test", method::UNSTAKE, json!({ "amount": Yocto::near(7) })).expect("unstake");
    sever(&mut vm, ANCHOR, id);
    let node = vm.node("faulty.test");
    assert_eq!(node.stake.0 + node.unstaking.0, slashed(9 * NEAR));
    assert_eq!(node.stake, Yocto::near(3), "withdrawn stake goes first");
    vm.now_ms += params().reimbursement_ms;
    assert!(vm.withdrawable("faulty.test").0 >= slashed(9 * NEAR) - 3 * NEAR);
}

#[test]
fn severing_gains_nothing() {
    let mut vm = staked(&[(ANCHOR, 100), ("greedy.test", 10), ("victim.test", 10)]);
    join(&mut vm, ANCHOR, "greedy.test");
    let id = join(&mut vm, "greedy.test", "victim.test");
    // What it has in this channel: deposit, bond, and nothing withdrawable yet.
    let before = vm.withdrawable("greedy.test").0 + vm.node("greedy.test").stake.0 + 2 * NEAR;
    sever(&mut vm, "greedy.test", id);
    vm.now_ms += params().challenge_ms;
    finalize(&mut vm, id);
    vm.now_ms += params().reimbursement_ms;
    finalize(&mut vm, id);
    let after = vm.withdrawable("greedy.test").0 + vm.node("greedy.test").stake.0;
    assert_eq!(after, before, "its half comes back, and not a yocto more");
    // Both ends together lose the penalty and the slash.
    assert_eq!(vm.books().treasury.0, 2 * NEAR + (9 * NEAR - slashed(9 * NEAR)));
    assert_eq!(vm.node("victim.test").stake.0, slashed(9 * NEAR));
}

#[test]
fn severing_without_cutting_off_costs_the_half() {
    let mut vm = staked(&[(ANCHOR, 100), ("a.test", 10), ("b.test", 10)]);
    join(&mut vm, ANCHOR, "a.test");
    join(&mut vm, ANCHOR, "b.test");
    let id = vm.open("a.test", "b.test", Yocto::near(1), Yocto::near(1));
    let before = vm.withdrawable("a.test").0 + 2 * NEAR;
    sever(&mut vm, "a.test", id);
    vm.now_ms += params().reimbursement_ms;
    finalize(&mut vm, id);
    finalize(&mut vm, id);
    assert_eq!(vm.withdrawable("a.test").0, before - NEAR);
    assert_eq!(vm.books().treasury, Yocto::near(2));
}

#[test]
fn a_node_is_slashed_once_in_a_window() {
    let mut vm = staked(&[(ANCHOR, 100), ("small.test", 20)]);
    let mut expected = 20 * NEAR;
    for round in 0..3 {
        if round == 2 {
            vm.now_ms += params().reimbursement_ms;
        }
        let id = join(&mut vm, ANCHOR, "small.test");
        sever(&mut vm, ANCHOR, id);
        expected -= NEAR;
        if round != 1 {
            expected = slashed(expected);
        }
        assert_eq!(vm.node("small.test").stake.0, expected, "round {round}");
    }
}

#[test]
fn a_leaf_does_not_pay_for_the_node_it_hangs_on() {
    let mut vm = staked(&[(ANCHOR, 100), ("faulty.test", 10), ("leaf.test", 10)]);
    let id = join(&mut vm, ANCHOR, "faulty.test");
    join(&mut vm, "faulty.test", "leaf.test");
    sever(&mut vm, ANCHOR, id);
    assert!(!attached(&mut vm, "leaf.test"));
    assert_eq!(vm.node("faulty.test").stake.0, slashed(9 * NEAR), "the endpoint pays first");
    assert_eq!(vm.node("leaf.test").stake.0, slashed(10 * NEAR), "the slash alone");
}

#[test]
fn severed_edges_of_puppets_do_not_detach_a_server() {
    let mut vm = staked(&[(ANCHOR, 100), ("server.test", 10), ("puppet.test", 10)]);
    join(&mut vm, ANCHOR, "server.test");
    let since_ms = vm.now_ms;
    let id = join(&mut vm, "server.test", "puppet.test");
    vm.now_ms += 10_000;
    sever(&mut vm, "puppet.test", id);
    let args = json!({ "account": "server.test" });
    let view: Option<AttachmentView> = vm.view(method::ATTACHMENT, &args);
    assert_eq!(view.expect("a node").attached_since_ms, Some(since_ms));
    let args = json!({ "account": "server.test", "from_ms": since_ms, "to_ms": vm.now_ms });
    let down: Option<DowntimeView> = vm.view(method::DOWNTIME, &args);
    assert_eq!(down.expect("a node").downtime_ms, 0);
    assert_eq!(vm.node("server.test").stake, Yocto::near(10));
    assert!(!attached(&mut vm, "puppet.test"), "who did it is cut off");
}

#[test]
fn a_check_that_does_not_fit_is_prepaid_and_anyone_continues_it() {
    let mut vm = staked(&[(ANCHOR, 100), ("a.test", 10), ("b.test", 10)]);
    let id = join(&mut vm, ANCHOR, "a.test");
    let deposit = vm.config().check_deposit;
    vm.gas = SHORT_OF_GAS;
    let args = json!({ "order": order(ANCHOR, id) });
    let free = vm.call("closer.test", method::SEVER, &args, Yocto::ZERO);
    refused(free, code::DEPOSIT);
    assert_eq!(vm.channel(id).status, ChannelStatus::Open);
    vm.call("closer.test", method::SEVER, &args, deposit).expect("sever");
    vm.gas = Vm::GAS;
    let pending: ChecksView = vm.view(method::CHECKS, &json!({}));
    assert_eq!((pending.checks, pending.head.map(|head| head.channel)), (1, Some(id)));
    // Others go on meanwhile, and the result is that of the moment of the close.
    vm.open(ANCHOR, "b.test", Yocto::near(1), Yocto::near(1));
    let joined = vm.open("b.test", "a.test", Yocto::near(1), Yocto::near(1));
    assert!(attached(&mut vm, "a.test"), "not judged yet");
    let done = vm.act("crank.test", method::CHECK, json!({})).expect("check");
    assert_eq!(done.value, json!(0));
    assert!(!attached(&mut vm, "a.test"), "the later channel did not save it");
    assert_eq!(vm.channel(joined).status, ChannelStatus::Open);
    let rest = vm.withdrawable("closer.test");
    assert!(!rest.is_zero() && rest < deposit, "what is left of its deposit comes back: {rest}");
    refused(vm.act("crank.test", method::CHECK, json!({})), code::NO_CHECK);
}

#[test]
fn cooperative_closes_wait_while_checks_pile_up_and_severs_do_not() {
    let mut vm = staked(&[(ANCHOR, 100), ("a.test", 100)]);
    let channels: Vec<ChannelId> =
        (0..66).map(|_| vm.open(ANCHOR, "a.test", Yocto::ZERO, Yocto::ZERO)).collect();
    let close = json!({ "channel": channels[0], "totals": totals(0, 0) });
    vm.act(ANCHOR, method::REQUEST_CLOSE, close.clone()).expect("request");
    vm.act("a.test", method::CONFIRM_CLOSE, close).expect("confirm");
    vm.now_ms += params().notice_ms;
    let deposit = vm.config().check_deposit;
    let piled = |vm: &mut Vm, id: ChannelId| {
        vm.gas = SHORT_OF_GAS;
        vm.call("anyone.test", method::SEVER, &json!({ "order": order(ANCHOR, id) }), deposit)
            .expect("sever");
        vm.gas = Vm::GAS;
    };
    for id in &channels[1..65] {
        piled(&mut vm, *id);
    }
    let cooperative = json!({ "channel": channels[0] });
    refused(vm.call("a.test", method::FINALIZE, &cooperative, deposit), code::CHECKS_PENDING);
    piled(&mut vm, channels[65]);
    while vm.view::<ChecksView>(method::CHECKS, &json!({})).checks > 0 {
        vm.act("crank.test", method::CHECK, json!({})).expect("check");
    }
    vm.call("a.test", method::FINALIZE, &cooperative, deposit).expect("its turn");
}

#[test]
fn storage_litter_is_paid_by_who_leaves_it() {
    let mut vm = Vm::with_nodes(&["litterer.test", "victim.test"]);
    let victim = vm.withdrawable("victim.test").0 + vm.node("victim.test").stake.0;
    let before = vm.books().storage;
    // The harness asserts after each call that what is held pays for what is used.
    let ids: Vec<ChannelId> =
        (0..9).map(|_| vm.propose("litterer.test", "victim.test", Yocto::ZERO).expect("propose")).collect();
    let storage = vm.config().channel_storage;
    assert_eq!(vm.books().storage.0 - before.0, 9 * storage.0);
    for id in ids {
        vm.act("litterer.test", method::CANCEL_PROPOSAL, json!({ "channel": id })).expect("cancel");
        vm.act("litterer.test", method::FORGET_CHANNEL, json!({ "channel": id })).expect("forget");
    }
    assert_eq!(vm.books().storage, before);
    assert_eq!(vm.withdrawable("victim.test").0 + vm.node("victim.test").stake.0, victim);
}

#[test]
fn bounds_are_told_alike_by_contract_and_tools() {
    let good = Params {
        late_fee: Yocto::millinear(1),
        sever_penalty: Yocto::near(2),
        challenge_ms: 3_600_000,
        notice_ms: 60_000,
        min_stake: Yocto::near(1),
        activation_ms: 3_600_000,
        reimbursement_ms: 3_600_000,
        slash_bps: 5_000,
    };
    let edges: [(fn(&mut Params, u64), [u64; 4]); 8] = [
        (|p, v| p.late_fee = Yocto(u128::from(v) * (NEAR / 1_000_000_000)), [0, 1, 1_000_000, 1_000_001]),
        (|p, v| p.sever_penalty = Yocto::millinear(v.into()), [99, 100, 1_000_000, 1_000_001]),
        (|p, v| p.challenge_ms = v, [3_599_999, 3_600_000, 2_592_000_000, 2_592_000_001]),
        (|p, v| p.notice_ms = v, [59_999, 60_000, 604_800_000, 604_800_001]),
        (|p, v| p.min_stake = Yocto::millinear(v.into()), [999, 1_000, 100_000_000, 100_000_001]),
        (|p, v| p.activation_ms = v, [3_599_999, 3_600_000, 2_592_000_000, 2_592_000_001]),
        (|p, v| p.reimbursement_ms = v, [3_599_999, 3_600_000, 7_776_000_000, 7_776_000_001]),
        (|p, v| p.slash_bps = v as u16, [0, 5_000, 5_001, 10_001]),
    ];
    for (at, (set, values)) in edges.iter().enumerate() {
        for value in values {
            for test in [false, true] {
                let mut params = good.clone();
                set(&mut params, *value);
                let told = params.out_of_bounds(test);
                let args = Vm::new_args(params, test);
                let done = Vm::deployed().call(super::harness::CONTRACT, method::NEW, &args, Yocto::ZERO);
                assert_eq!(
                    told.is_some(),
                    done.is_err(),
                    "field {at}, {value}, test {test}: {told:?}, {done:?}"
                );
            }
        }
    }
}
