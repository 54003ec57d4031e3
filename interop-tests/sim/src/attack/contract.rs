//! Attacks that the contract decides, on its wasm.

use por_contract_model::vm::{Done, Vm, account, network, order, params, secret, state, totals};
use por_core::types::interface::{ChannelStatus, ChecksView, DowntimeView, code, error_code, method};
use por_core::types::{ChannelId, Draw, Yocto};
use serde_json::{Value, json};

use super::Played;

const NEAR: u128 = Yocto::ONE_NEAR.0;
/// The genesis anchor.
const ANCHOR: &str = "owner.test";
/// So little that a partition check cannot begin in the call.
const SHORT_OF_GAS: u64 = 14_000_000_000_000;

pub(super) fn staked(nodes: &[(&str, u128)]) -> Vm {
    let mut vm = Vm::started();
    for (name, stake) in nodes {
        vm.register(name, Yocto::near(*stake)).expect("register");
    }
    vm.now_ms += params().activation_ms;
    vm
}

/// A channel of one NEAR each, over which `b` becomes attached.
pub(super) fn join(vm: &mut Vm, a: &str, b: &str) -> ChannelId {
    let id = vm.open(a, b, Yocto::near(1), Yocto::near(1));
    vm.act(b, method::PING, json!({ "through": a })).expect("ping");
    id
}

/// Two nodes that stay connected through the anchor whatever happens to the edge between them.
fn triangle() -> Vm {
    let mut vm = staked(&[(ANCHOR, 100), ("attacker.test", 10), ("honest.test", 10)]);
    join(&mut vm, ANCHOR, "attacker.test");
    join(&mut vm, ANCHOR, "honest.test");
    vm
}

pub(super) fn sever(vm: &mut Vm, by: &str, id: ChannelId) {
    vm.act("anyone.test", method::SEVER, json!({ "order": order(by, id) })).expect("sever");
}

/// Lets all windows of a channel that has left the graph pass. A last call that has nothing left to
/// do is refused, which is fine: what was paid out is looked at afterwards.
fn settle(vm: &mut Vm, id: ChannelId) {
    for _ in 0..2 {
        vm.now_ms += params().challenge_ms + params().reimbursement_ms;
        let done = vm.act("anyone.test", method::FINALIZE, json!({ "channel": id }));
        assert!(done.is_ok() || refused(done, code::NOTHING_TO_FINALIZE), "every state has an exit");
    }
}

fn refused(result: Result<Done, String>, expected: &str) -> bool {
    result.is_err_and(|message| error_code(&message) == Some(expected))
}

/// What an account has in the contract outside of channels, and what it has taken out.
pub(super) fn wealth(vm: &mut Vm, name: &str) -> i128 {
    let node = vm.node(name);
    let received = vm.received.get(name).copied().unwrap_or_default();
    (vm.withdrawable(name).0 + node.stake.0 + node.unstaking.0 + received) as i128
}

pub(super) fn slashed(amount: u128) -> u128 {
    amount - amount * u128::from(params().slash_bps) / 10_000
}

pub(super) fn half() -> i128 {
    params().bond().0 as i128
}

pub fn old_state(_: u64) -> Played {
    let mut vm = Vm::with_nodes(&["attacker.test", "honest.test"]);
    let id = vm.open("attacker.test", "honest.test", Yocto::near(4), Yocto::near(1));
    sever(&mut vm, "attacker.test", id);
    let submit = |vm: &mut Vm, by: &str, sent_a: u128, sent_b: u128, signer: &str| {
        let args = json!({ "state": state(by, id, totals(sent_a, sent_b)), "signer": signer });
        vm.act("watchtower.test", method::SUBMIT_STATE, args)
    };
    // An old state with an invented total of the other side; then the truth by whoever has it.
    submit(&mut vm, "attacker.test", NEAR, 3 * NEAR, "a").expect("an old state counts until a newer one");
    let invented = refused(submit(&mut vm, "attacker.test", NEAR, 3 * NEAR, "b"), code::SIGNATURE);
    submit(&mut vm, "attacker.test", 3 * NEAR, 0, "a").expect("newer");
    submit(&mut vm, "honest.test", 0, NEAR / 2, "b").expect("the other direction");
    let older = refused(submit(&mut vm, "attacker.test", 2 * NEAR, 0, "a"), code::NOTHING_NEW);
    vm.now_ms += params().challenge_ms;
    vm.act("anyone.test", method::FINALIZE, json!({ "channel": id })).expect("finalize");
    let ChannelStatus::Closed { paid_a, paid_b, .. } = vm.channel(id).status else {
        return (0, false, "the channel was not paid out".into());
    };
    let fair = 3 * NEAR / 2;
    let pot = paid_a.0 + paid_b.0 == 5 * NEAR;
    let profit = paid_a.0 as i128 - fair as i128;
    (profit, invented && older && pot, format!("paid {paid_a}, the truth; payouts sum to the pot"))
}

pub fn replay(_: u64) -> Played {
    let mut vm = Vm::with_nodes(&["attacker.test", "honest.test"]);
    let id = vm.open("attacker.test", "honest.test", Yocto::near(4), Yocto::near(1));
    let other = vm.open("attacker.test", "honest.test", Yocto::near(4), Yocto::near(1));
    let half = Yocto(NEAR / 2);
    let expires_ms = vm.now_ms + 1_000;
    let act = Draw {
        channel: id,
        sequence: 1,
        expires_ms,
        totals: totals(0, 0),
        draw_a: half,
        draw_b: Yocto::ZERO,
    };
    let signed = |chain: &por_core::types::Network, act: &Draw| -> Value {
        let by = |name: &str| secret(name).sign(chain, act.clone()).signature;
        json!({ "draw": act, "signature_a": by("attacker.test"), "signature_b": by("honest.test") })
    };
    let submit = |vm: &mut Vm, args: Value| vm.act("attacker.test", method::DRAW, args);
    let mut elsewhere = network();
    elsewhere.contract = account("fake.test");
    let mut moved = signed(&network(), &act);
    moved["draw"]["channel"] = json!(other);
    let mut checks = vec![
        refused(submit(&mut vm, signed(&elsewhere, &act)), code::SIGNATURE),
        refused(submit(&mut vm, moved), code::SIGNATURE),
    ];
    submit(&mut vm, signed(&network(), &act)).expect("once");
    let before = wealth(&mut vm, "attacker.test");
    checks.push(refused(submit(&mut vm, signed(&network(), &act)), code::SEQUENCE));
    let late = Draw { sequence: 2, ..act };
    vm.now_ms += 1_001;
    checks.push(refused(submit(&mut vm, signed(&network(), &late)), code::EXPIRED));
    // A payment of one channel as evidence on the other.
    sever(&mut vm, "honest.test", other);
    let foreign = state("honest.test", id, totals(0, NEAR));
    let mut named = json!({ "state": foreign, "signer": "b" });
    named["state"]["statement"]["channel"] = json!(other);
    checks.push(refused(vm.act("attacker.test", method::SUBMIT_STATE, named), code::SIGNATURE));
    let twice = vm.act("anyone.test", method::SEVER, json!({ "order": order("honest.test", other) }));
    checks.push(twice.is_err());
    let profit = wealth(&mut vm, "attacker.test") - before;
    let count = checks.len();
    (profit, checks.into_iter().all(|refused| refused), format!("{count} replays refused"))
}

pub fn withheld_order(_: u64) -> Played {
    let mut worst = i128::MIN;
    let mut forfeited = true;
    for during_notice in [true, false] {
        let mut vm = triangle();
        let id = vm.open("attacker.test", "honest.test", Yocto::near(4), Yocto::near(1));
        let before = wealth(&mut vm, "attacker.test") + (4 * NEAR) as i128 + half();
        let withheld = json!({ "order": order("attacker.test", id) });
        let close = json!({ "channel": id, "totals": totals(0, 0) });
        vm.act("attacker.test", method::REQUEST_CLOSE, close.clone()).expect("request");
        vm.act("honest.test", method::CONFIRM_CLOSE, close).expect("confirm");
        vm.now_ms += params().notice_ms;
        if !during_notice {
            vm.act("anyone.test", method::FINALIZE, json!({ "channel": id })).expect("finalize");
        }
        vm.act("upstream.test", method::SEVER, withheld).expect("anyone may bring it");
        forfeited &= vm.books().escrow.0 == 2 * params().bond().0;
        settle(&mut vm, id);
        worst = worst.max(wealth(&mut vm, "attacker.test") - before);
    }
    (worst, forfeited && worst == -half(), "upstream brought the order; both bonds are forfeited".into())
}

pub fn refused_close(_: u64) -> Played {
    let mut vm = triangle();
    let id = vm.open("honest.test", "attacker.test", Yocto::near(4), Yocto::near(1));
    let fair = wealth(&mut vm, "attacker.test") + NEAR as i128 + half();
    let honest = wealth(&mut vm, "honest.test") + (4 * NEAR) as i128 + half();
    let close = json!({ "channel": id, "totals": totals(0, 0) });
    vm.act("honest.test", method::REQUEST_CLOSE, close).expect("request");
    vm.now_ms += params().notice_ms;
    sever(&mut vm, "honest.test", id);
    settle(&mut vm, id);
    let profit = wealth(&mut vm, "attacker.test") - fair;
    let loss = honest - wealth(&mut vm, "honest.test");
    (
        profit,
        profit == -half() && loss == half(),
        format!("severed without its help; each side loses its half, {loss}"),
    )
}

pub fn sock_puppets(_: u64) -> Played {
    let mut vm = staked(&[(ANCHOR, 100), ("honest.test", 10), ("faulty.test", 10), ("puppet.test", 10)]);
    join(&mut vm, ANCHOR, "honest.test");
    let first = join(&mut vm, "honest.test", "faulty.test");
    join(&mut vm, "faulty.test", "puppet.test");
    let second = vm.open("honest.test", "puppet.test", Yocto::near(1), Yocto::near(1));
    let before = wealth(&mut vm, "faulty.test") + wealth(&mut vm, "puppet.test");
    let honest = wealth(&mut vm, "honest.test") + 2 * half();
    sever(&mut vm, "honest.test", first);
    sever(&mut vm, "honest.test", second);
    // Deposits and the puppets' own channel apart, which nobody touches.
    let profit = wealth(&mut vm, "faulty.test") + wealth(&mut vm, "puppet.test") - before - 2 * half();
    let whole = wealth(&mut vm, "honest.test") == honest;
    let apart = !vm.node("faulty.test").attached && !vm.node("puppet.test").attached;
    (profit, whole && apart, "puppet and node are cut off and pay; the neighbour is whole".into())
}

pub fn private_component(_: u64) -> Played {
    let mut vm = staked(&[(ANCHOR, 3), ("x.test", 5_000), ("y.test", 5_000)]);
    vm.open("x.test", "y.test", Yocto::near(1), Yocto::near(1));
    let pings = [("x.test", "y.test"), ("y.test", "x.test"), ("x.test", ANCHOR), ("x.test", "x.test")];
    let mut none = true;
    for (who, through) in pings {
        none &= refused(vm.act(who, method::PING, json!({ "through": through })), code::NOT_ATTACHED);
    }
    vm.now_ms += 10_000;
    let args = json!({ "account": "x.test", "from_ms": vm.now_ms - 1_000, "to_ms": vm.now_ms });
    let down: Option<DowntimeView> = vm.view(method::DOWNTIME, &args);
    let down = down.is_some_and(|down| down.downtime_ms == 1_000);
    (0, none && down, "never attached, whatever it stakes".into())
}

pub fn stake_up(_: u64) -> Played {
    let mut vm = staked(&[(ANCHOR, 10), ("honest.test", 10), ("attacker.test", 10)]);
    join(&mut vm, ANCHOR, "honest.test");
    let id = join(&mut vm, "honest.test", "attacker.test");
    vm.call("attacker.test", method::STAKE, &json!({}), Yocto::near(1_000)).expect("stake");
    let before = wealth(&mut vm, "attacker.test") + half();
    sever(&mut vm, "attacker.test", id);
    let profit = wealth(&mut vm, "attacker.test") - before;
    let rest = !vm.node("attacker.test").attached && vm.node("honest.test").attached;
    (profit, rest, "its new stake weighs nothing yet and is charged all the same".into())
}

pub fn withdraw_before_isolation(_: u64) -> Played {
    let left = |withdraws: bool| {
        let mut vm = staked(&[(ANCHOR, 100), ("faulty.test", 10)]);
        let id = join(&mut vm, ANCHOR, "faulty.test");
        if withdraws {
            vm.act("faulty.test", method::UNSTAKE, json!({ "amount": Yocto::near(7) })).expect("unstake");
        }
        sever(&mut vm, ANCHOR, id);
        wealth(&mut vm, "faulty.test")
    };
    let profit = left(true) - left(false);
    (profit, profit == 0, "withdrawn stake is charged like the rest".into())
}

pub fn sever_for_profit(_: u64) -> Played {
    let mut vm = staked(&[(ANCHOR, 100), ("greedy.test", 10), ("victim.test", 10)]);
    join(&mut vm, ANCHOR, "greedy.test");
    let id = join(&mut vm, "greedy.test", "victim.test");
    let before = wealth(&mut vm, "greedy.test") + NEAR as i128 + half();
    sever(&mut vm, "greedy.test", id);
    settle(&mut vm, id);
    let profit = wealth(&mut vm, "greedy.test") - before;
    (profit, profit == 0, "its half comes back, not a yocto more; penalty and slash are lost to both".into())
}

pub fn cut_off_leaves(_: u64) -> Played {
    let mut vm = staked(&[(ANCHOR, 100), ("greedy.test", 10), ("small.test", 20)]);
    join(&mut vm, ANCHOR, "greedy.test");
    let before = wealth(&mut vm, "greedy.test");
    let mut expected = 20 * NEAR;
    let mut once = true;
    // The same small node is cut off again and again: it loses its half each time, and is slashed
    // once a window. Whoever cuts gets nothing but its own half.
    for round in 0..3 {
        let id = join(&mut vm, "greedy.test", "small.test");
        sever(&mut vm, "greedy.test", id);
        expected -= params().bond().0;
        if round == 0 {
            expected = slashed(expected);
        }
        once &= vm.node("small.test").stake.0 == expected;
    }
    // Of the three bonds that it had put in.
    let profit = wealth(&mut vm, "greedy.test") - before - 3 * half();
    (profit, once, "the own half comes back each time; the small node is slashed once a window".into())
}

pub fn frame_a_server(_: u64) -> Played {
    let mut vm = staked(&[(ANCHOR, 100), ("server.test", 10), ("puppet.test", 10)]);
    join(&mut vm, ANCHOR, "server.test");
    let since_ms = vm.now_ms;
    let id = join(&mut vm, "server.test", "puppet.test");
    let (stake, puppet) = (vm.node("server.test").stake, wealth(&mut vm, "puppet.test") + half());
    vm.now_ms += 10_000;
    sever(&mut vm, "puppet.test", id);
    let args = json!({ "account": "server.test", "from_ms": since_ms, "to_ms": vm.now_ms });
    let down: Option<DowntimeView> = vm.view(method::DOWNTIME, &args);
    let untouched = down.is_some_and(|down| down.downtime_ms == 0) && vm.node("server.test").stake == stake;
    let profit = wealth(&mut vm, "puppet.test") - puppet;
    (profit, untouched, "the server stays attached, without downtime; the puppet is cut off".into())
}

pub fn many_checks(_: u64) -> Played {
    let mut vm = staked(&[(ANCHOR, 100), ("attacker.test", 100)]);
    let channels: Vec<ChannelId> =
        (0..40).map(|_| vm.open(ANCHOR, "attacker.test", Yocto::ZERO, Yocto::ZERO)).collect();
    let deposit = vm.config().check_deposit;
    let mut free = true;
    let before = wealth(&mut vm, "attacker.test");
    for id in &channels {
        let args = json!({ "order": order("attacker.test", *id) });
        vm.gas = SHORT_OF_GAS;
        free &= refused(vm.call("attacker.test", method::SEVER, &args, Yocto::ZERO), code::DEPOSIT);
        vm.call("attacker.test", method::SEVER, &args, deposit).expect("sever");
        vm.gas = Vm::GAS;
    }
    let mut calls = 0;
    while vm.view::<ChecksView>(method::CHECKS, &json!({})).checks > 0 && calls < 100 {
        vm.act("crank.test", method::CHECK, json!({})).expect("check");
        calls += 1;
    }
    let left = vm.view::<ChecksView>(method::CHECKS, &json!({})).checks;
    let crank: Yocto = vm.withdrawable("crank.test");
    let paid = channels.len() as i128 * deposit.0 as i128;
    let profit = wealth(&mut vm, "attacker.test") - before - paid;
    (
        profit,
        free && left == 0,
        format!("40 checks were prepaid; {calls} calls of a stranger, paid {crank}, end them"),
    )
}

pub fn storage_litter(_: u64) -> Played {
    let mut vm = Vm::with_nodes(&["attacker.test", "victim.test"]);
    let (victim, before) = (wealth(&mut vm, "victim.test"), vm.books().storage);
    let ids: Vec<ChannelId> =
        (0..9).map(|_| vm.propose("attacker.test", "victim.test", Yocto::ZERO).expect("propose")).collect();
    let storage = vm.config().channel_storage;
    let paid = vm.books().storage.0 - before.0 == ids.len() as u128 * storage.0;
    let rest = wealth(&mut vm, "victim.test") == victim;
    let profit = -(ids.len() as i128 * storage.0 as i128);
    (profit, paid && rest, "who litters pays for the storage until it is forgotten".into())
}
