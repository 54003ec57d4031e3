//! What the contract does for those who follow the rules.

use por_types::interface::{
    ChangeKind, ChangesView, ChannelStatus, ChannelView, NeighbourView, NodeView, Params, code, method,
};
use por_types::{ChannelId, CooperativeClose, Side, Yocto};
use serde_json::{Value, json};

use crate::harness::*;

const NEAR: u128 = Yocto::ONE_NEAR.0;

fn neighbours(vm: &mut Vm, index: u32) -> Vec<(u32, u32)> {
    let args = json!({ "index": index, "from": 0, "limit": 100 });
    let views: Vec<NeighbourView> = vm.view(method::NEIGHBOURS, &args);
    views.into_iter().map(|view| (view.index, view.channels)).collect()
}

#[test]
fn registration_binds_account_and_key() {
    let mut vm = Vm::started();
    let done = vm.register("alice.test", Yocto::near(5)).expect("register");
    assert_eq!(done.value, json!(0));
    let event: Value =
        serde_json::from_str(done.logs[0].strip_prefix("EVENT_JSON:").expect("NEP-297")).expect("JSON");
    assert_eq!(event["standard"], "por");
    assert_eq!(event["event"], "registered");
    assert_eq!(event["data"][0]["account"], "alice.test");

    let node = vm.node("alice.test");
    assert_eq!((node.index, node.stake, node.active_stake), (0, Yocto::near(5), Yocto::ZERO));
    let by_key: Option<NodeView> =
        vm.view(method::NODE_BY_KEY, &json!({ "node_key": secret("alice.test").public() }));
    assert_eq!(by_key, Some(node));
    assert_eq!(vm.view::<Option<NodeView>>(method::NODE, &json!({ "account": "nobody.test" })), None);

    vm.now_ms += params().activation_ms - 1;
    assert_eq!(vm.node("alice.test").active_stake, Yocto::ZERO);
    vm.now_ms += 1;
    assert_eq!(vm.node("alice.test").active_stake, Yocto::near(5));
}

#[test]
fn stake_leaves_after_the_reimbursement_window() {
    let mut vm = Vm::with_nodes(&["alice.test"]);
    vm.call("alice.test", method::STAKE, &json!({}), Yocto::near(2)).expect("stake");
    vm.now_ms += params().activation_ms;
    assert_eq!(vm.node("alice.test").active_stake, Yocto::near(12));

    vm.act("alice.test", method::UNSTAKE, json!({ "amount": Yocto::near(5) })).expect("unstake");
    let node = vm.node("alice.test");
    assert_eq!(
        (node.stake, node.active_stake, node.unstaking),
        (Yocto::near(7), Yocto::near(7), Yocto::near(5))
    );
    vm.now_ms += params().reimbursement_ms - 1;
    assert_eq!(vm.withdrawable("alice.test"), Yocto::ZERO);
    refused(vm.act("alice.test", method::WITHDRAW, json!({})), code::WITHDRAWABLE);
    vm.now_ms += 1;
    assert_eq!(vm.withdrawable("alice.test"), Yocto::near(5));
    vm.act("alice.test", method::WITHDRAW, json!({})).expect("withdraw");
    assert_eq!(vm.received["alice.test"], 5 * NEAR);
    assert_eq!(vm.node("alice.test").unstaking, Yocto::ZERO);
}

#[test]
fn unstaking_takes_the_youngest_stake_first() {
    let mut vm = Vm::with_nodes(&["alice.test"]);
    vm.now_ms += params().activation_ms;
    vm.call("alice.test", method::STAKE, &json!({}), Yocto::near(3)).expect("stake");
    vm.act("alice.test", method::UNSTAKE, json!({ "amount": Yocto::near(4) })).expect("unstake");
    let node = vm.node("alice.test");
    assert_eq!((node.stake, node.active_stake), (Yocto::near(9), Yocto::near(9)));
}

#[test]
fn a_channel_opens_with_both_deposits_and_bonds() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let books = vm.books();
    let id = vm.propose("alice.test", "bob.test", Yocto::near(4)).expect("propose");
    assert_eq!(id, ChannelId(0));
    assert_eq!(vm.channel(id).status, ChannelStatus::Proposed);
    assert_eq!(vm.node("alice.test").locked, Yocto::near(1));
    assert!(neighbours(&mut vm, 0).is_empty(), "a proposal is no edge");

    vm.confirm("bob.test", id, Yocto::near(1)).expect("confirm");
    let channel = vm.channel(id);
    assert_eq!(channel.status, ChannelStatus::Open);
    assert_eq!((channel.deposit_a, channel.deposit_b), (Yocto::near(4), Yocto::near(1)));
    assert_eq!((channel.bond, channel.terms), (Yocto::near(1), terms()));
    assert_eq!(vm.node("bob.test").locked, Yocto::near(1));
    assert_eq!(neighbours(&mut vm, 0), [(1, 1)]);
    assert_eq!(neighbours(&mut vm, 1), [(0, 1)]);
    let now = vm.books();
    assert_eq!(now.deposits.checked_sub(books.deposits), Ok(Yocto::near(5)));
    assert_eq!(now.bonds.checked_sub(books.bonds), Ok(Yocto::near(2)));
}

#[test]
fn what_is_attached_too_much_is_withdrawable() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let args = json!({ "counterparty": "bob.test", "terms": terms(), "deposit": Yocto::near(1) });
    let cost = vm.propose_cost(Yocto::near(1)).checked_add(Yocto(17)).expect("sum");
    vm.call("alice.test", method::PROPOSE_CHANNEL, &args, cost).expect("propose");
    assert_eq!(vm.withdrawable("alice.test"), Yocto(17));
    let args = json!({ "channel": 0, "terms": terms(), "deposit": Yocto::ZERO });
    let cost = vm.confirm_cost(Yocto(5));
    vm.call("bob.test", method::CONFIRM_CHANNEL, &args, cost).expect("confirm");
    assert_eq!(vm.withdrawable("bob.test"), Yocto(5));
}

#[test]
fn a_withdrawn_proposal_returns_everything() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.propose("alice.test", "bob.test", Yocto::near(4)).expect("propose");
    let usage = vm.storage_usage();
    vm.act("alice.test", method::CANCEL_PROPOSAL, json!({ "channel": id })).expect("cancel");
    assert_eq!(vm.channel(id).status, ChannelStatus::Cancelled);
    assert_eq!(vm.withdrawable("alice.test"), Yocto::near(5));
    assert_eq!(vm.node("alice.test").locked, Yocto::ZERO);

    let storage = vm.config().channel_storage;
    vm.act("anyone.test", method::FORGET_CHANNEL, json!({ "channel": id })).expect("forget");
    assert_eq!(vm.withdrawable("alice.test"), Yocto::near(5).checked_add(storage).expect("sum"));
    assert_eq!(vm.view::<Option<ChannelView>>(method::CHANNEL, &json!({ "channel": id })), None);
    assert!(vm.storage_usage() < usage);
    // The id is never used again.
    assert_eq!(vm.propose("alice.test", "bob.test", Yocto::ZERO), Ok(ChannelId(1)));
}

#[test]
fn either_side_tops_up() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.open("alice.test", "bob.test", Yocto::near(1), Yocto::near(1));
    vm.call("alice.test", method::TOP_UP, &json!({ "channel": id }), Yocto(7)).expect("top up");
    vm.call("bob.test", method::TOP_UP, &json!({ "channel": id }), Yocto(9)).expect("top up");
    let channel = vm.channel(id);
    assert_eq!((channel.deposit_a, channel.deposit_b), (Yocto(NEAR + 7), Yocto(NEAR + 9)));
}

#[test]
fn a_cooperative_close_pays_by_totals_and_returns_bonds_later() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::near(1));
    let agreed = totals(3 * NEAR, NEAR);
    let close = json!({ "channel": id, "totals": agreed });
    vm.act("alice.test", method::REQUEST_CLOSE, close.clone()).expect("request");
    assert_eq!(
        vm.channel(id).status,
        ChannelStatus::Closing { by: Side::A, totals: agreed, confirmed: false, closes_ms: 0 }
    );
    vm.act("bob.test", method::CONFIRM_CLOSE, close).expect("confirm");
    let closes_ms = vm.now_ms + params().notice_ms;
    assert_eq!(
        vm.channel(id).status,
        ChannelStatus::Closing { by: Side::A, totals: agreed, confirmed: true, closes_ms }
    );
    assert_eq!(neighbours(&mut vm, 0), [(1, 1)], "the edge stays for the notice");

    let finalize = json!({ "channel": id });
    vm.now_ms = closes_ms - 1;
    refused(vm.act("anyone.test", method::FINALIZE, finalize.clone()), code::TOO_EARLY);
    vm.now_ms = closes_ms + 5;
    vm.act("anyone.test", method::FINALIZE, finalize.clone()).expect("finalize");
    let bonds_until = vm.now_ms + params().challenge_ms;
    let paid = |bonds_until_ms| ChannelStatus::Closed {
        paid_a: Yocto::near(2),
        paid_b: Yocto::near(3),
        bonds_until_ms,
        severed: false,
    };
    assert_eq!(vm.channel(id).status, paid(Some(bonds_until)));
    assert!(neighbours(&mut vm, 0).is_empty() && neighbours(&mut vm, 1).is_empty());
    assert_eq!(vm.withdrawable("alice.test"), Yocto::near(2));
    assert_eq!(vm.withdrawable("bob.test"), Yocto::near(3));
    assert_eq!(vm.node("alice.test").locked, Yocto::near(1), "locked as long as the bond");

    vm.now_ms = bonds_until - 1;
    refused(vm.act("anyone.test", method::FINALIZE, finalize.clone()), code::TOO_EARLY);
    refused(vm.act("anyone.test", method::FORGET_CHANNEL, finalize.clone()), code::TOO_EARLY);
    vm.now_ms = bonds_until;
    vm.act("anyone.test", method::FINALIZE, finalize.clone()).expect("release");
    assert_eq!(vm.channel(id).status, paid(None));
    assert_eq!(vm.withdrawable("alice.test"), Yocto::near(3));
    assert_eq!(vm.withdrawable("bob.test"), Yocto::near(4));
    assert_eq!(vm.node("alice.test").locked, Yocto::ZERO);
    assert_eq!(vm.node("bob.test").locked, Yocto::ZERO);
    refused(vm.act("anyone.test", method::FINALIZE, finalize.clone()), code::NOTHING_TO_FINALIZE);
    vm.act("anyone.test", method::FORGET_CHANNEL, finalize).expect("forget");
}

#[test]
fn evidence_in_the_notice_raises_totals() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::near(4));
    let close = json!({ "channel": id, "totals": totals(NEAR, 0) });
    vm.act("bob.test", method::REQUEST_CLOSE, close.clone()).expect("request");
    vm.act("alice.test", method::CONFIRM_CLOSE, close).expect("confirm");
    // Alice's signature proves her own total, whatever she writes about Bob's.
    let evidence = json!({ "state": state("alice.test", id, totals(2 * NEAR, 4 * NEAR)), "signer": "a" });
    vm.act("watchtower.test", method::SUBMIT_STATE, evidence).expect("evidence");
    let evidence = json!({ "state": state("bob.test", id, totals(0, 5)), "signer": "b" });
    vm.act("alice.test", method::SUBMIT_STATE, evidence).expect("evidence");
    assert_eq!(vm.channel(id).totals, totals(2 * NEAR, 5));
    vm.now_ms += params().notice_ms;
    vm.act("bob.test", method::FINALIZE, json!({ "channel": id })).expect("finalize");
    assert_eq!(vm.withdrawable("alice.test"), Yocto(2 * NEAR + 5));
    assert_eq!(vm.withdrawable("bob.test"), Yocto(6 * NEAR - 5));
}

#[test]
fn a_close_with_both_signatures_needs_one_call() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::ZERO);
    let close =
        CooperativeClose { channel: id, sequence: 1, expires_ms: vm.now_ms + 10, totals: totals(NEAR, 0) };
    vm.act("anyone.test", method::CLOSE_SIGNED, close_args("alice.test", "bob.test", close)).expect("close");
    assert_eq!(vm.channel(id).sequence, 1);
    vm.now_ms += params().notice_ms;
    vm.act("anyone.test", method::FINALIZE, json!({ "channel": id })).expect("finalize");
    assert_eq!(vm.withdrawable("alice.test"), Yocto::near(3));
    assert_eq!(vm.withdrawable("bob.test"), Yocto::near(1));
}

#[test]
fn a_sever_forfeits_both_bonds_and_settles_after_the_challenge() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::near(1));
    vm.act("anyone.test", method::SEVER, json!({ "order": order("bob.test", id) })).expect("sever");
    let settles_ms = vm.now_ms + params().challenge_ms;
    let severed_ms = vm.now_ms;
    assert_eq!(vm.channel(id).status, ChannelStatus::Severed { by: Side::B, severed_ms, settles_ms });
    assert!(neighbours(&mut vm, 0).is_empty() && neighbours(&mut vm, 1).is_empty());
    assert_eq!(vm.books().escrow, Yocto::near(2));
    assert_eq!(vm.books().bonds, Yocto::ZERO);

    let evidence = json!({ "state": state("alice.test", id, totals(NEAR, 0)), "signer": "a" });
    vm.act("bob.test", method::SUBMIT_STATE, evidence).expect("evidence");
    vm.now_ms = settles_ms - 1;
    refused(vm.act("bob.test", method::FINALIZE, json!({ "channel": id })), code::TOO_EARLY);
    vm.now_ms = settles_ms;
    vm.act("bob.test", method::FINALIZE, json!({ "channel": id })).expect("finalize");
    // Bob, the smaller side, has reimbursed one near and is slashed by 5 % of the nine left.
    assert_eq!(vm.withdrawable("alice.test"), Yocto::near(4));
    assert_eq!(vm.withdrawable("bob.test"), Yocto::near(2));
    assert_eq!(vm.node("bob.test").stake, Yocto::millinear(8_550));
    assert_eq!(vm.node("alice.test").locked, Yocto::near(1), "a severed channel's lock lasts longer");

    vm.now_ms = severed_ms + params().reimbursement_ms;
    vm.act("bob.test", method::FINALIZE, json!({ "channel": id })).expect("release");
    assert_eq!(vm.node("alice.test").locked, Yocto::ZERO);
    assert_eq!(vm.books().treasury, Yocto::millinear(2_450));
    assert_eq!(vm.withdrawable("treasury.test"), Yocto::millinear(2_450));
    vm.act("treasury.test", method::WITHDRAW, json!({})).expect("withdraw");
    assert_eq!(vm.received["treasury.test"], Yocto::millinear(2_450).0);
    assert_eq!(vm.books().treasury, Yocto::ZERO);
}

#[test]
fn a_sever_during_the_notice_is_an_ordinary_sever() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::near(1));
    let close = json!({ "channel": id, "totals": totals(NEAR, 0) });
    vm.act("alice.test", method::REQUEST_CLOSE, close.clone()).expect("request");
    vm.act("bob.test", method::CONFIRM_CLOSE, close).expect("confirm");
    vm.act("anyone.test", method::SEVER, json!({ "order": order("alice.test", id) })).expect("sever");
    assert!(matches!(vm.channel(id).status, ChannelStatus::Severed { by: Side::A, .. }));
    vm.now_ms += params().challenge_ms;
    vm.act("anyone.test", method::FINALIZE, json!({ "channel": id })).expect("finalize");
    assert_eq!(vm.withdrawable("bob.test"), Yocto::near(2), "agreed totals stand");
}

#[test]
fn a_sever_after_the_close_forfeits_bonds_still_held() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.open("alice.test", "bob.test", Yocto::near(4), Yocto::near(1));
    let close = json!({ "channel": id, "totals": totals(0, 0) });
    vm.act("alice.test", method::REQUEST_CLOSE, close.clone()).expect("request");
    vm.act("bob.test", method::CONFIRM_CLOSE, close).expect("confirm");
    vm.now_ms += params().notice_ms;
    vm.act("bob.test", method::FINALIZE, json!({ "channel": id })).expect("finalize");
    vm.now_ms += params().challenge_ms - 1;
    vm.act("anyone.test", method::SEVER, json!({ "order": order("alice.test", id) })).expect("sever");
    let until = vm.now_ms + params().reimbursement_ms;
    assert_eq!(
        vm.channel(id).status,
        ChannelStatus::Closed {
            paid_a: Yocto::near(4),
            paid_b: Yocto::near(1),
            bonds_until_ms: Some(until),
            severed: true
        }
    );
    assert_eq!(vm.books().escrow, Yocto::near(2));
    vm.now_ms = until;
    vm.act("anyone.test", method::FINALIZE, json!({ "channel": id })).expect("release");
    assert_eq!(vm.books().treasury, Yocto::millinear(2_450));
    assert_eq!(vm.withdrawable("alice.test"), Yocto::near(5), "reimbursed by the side found at the close");
}

#[test]
fn an_undeliverable_withdrawal_is_withdrawable_again() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.propose("alice.test", "bob.test", Yocto::near(4)).expect("propose");
    vm.act("alice.test", method::CANCEL_PROPOSAL, json!({ "channel": id })).expect("cancel");
    vm.unreachable.push("alice.test".into());
    vm.act("alice.test", method::WITHDRAW, json!({ "amount": Yocto::near(2) })).expect("withdraw");
    assert_eq!(vm.withdrawable("alice.test"), Yocto::near(5));
    assert!(!vm.received.contains_key("alice.test"));
    vm.unreachable.clear();
    vm.act("alice.test", method::WITHDRAW, json!({ "amount": Yocto::near(2) })).expect("withdraw");
    assert_eq!(vm.withdrawable("alice.test"), Yocto::near(3));
    assert_eq!(vm.received["alice.test"], 2 * NEAR);
}

#[test]
fn several_channels_between_the_same_pair() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let first = vm.open("alice.test", "bob.test", Yocto::near(1), Yocto::ZERO);
    let second = vm.open("bob.test", "alice.test", Yocto::near(1), Yocto::ZERO);
    assert_ne!(first, second);
    assert_eq!(neighbours(&mut vm, 0), [(1, 2)]);
    vm.act("anyone.test", method::SEVER, json!({ "order": order("alice.test", first) })).expect("sever");
    assert_eq!(neighbours(&mut vm, 0), [(1, 1)]);
    assert_eq!(vm.channel(second).status, ChannelStatus::Open);
}

#[test]
fn a_hub_keeps_all_its_neighbours() {
    let mut vm = Vm::started();
    vm.register("hub.test", Yocto::near(1_000)).expect("register");
    let mut channels = Vec::new();
    for leaf in 0..80 {
        let name = format!("leaf{leaf}.test");
        vm.register(&name, Yocto::near(5)).expect("register");
        channels.push(vm.open("hub.test", &name, Yocto::ZERO, Yocto::ZERO));
    }
    let expected: Vec<(u32, u32)> = (1..=80).map(|leaf| (leaf, 1)).collect();
    assert_eq!(neighbours(&mut vm, 0), expected);
    let args = json!({ "index": 0, "from": 70, "limit": 3 });
    let page: Vec<NeighbourView> = vm.view(method::NEIGHBOURS, &args);
    assert_eq!(page.iter().map(|link| link.index).collect::<Vec<_>>(), [70, 71, 72]);
    for channel in channels {
        vm.act("any.test", method::SEVER, json!({ "order": order("hub.test", channel) })).expect("sever");
    }
    assert!(neighbours(&mut vm, 0).is_empty());
}

/// Neighbours on both sides of a group's border, before and after the hub's pages split.
#[test]
fn a_hub_spans_groups_of_nodes() {
    let mut vm = Vm::started();
    vm.register("hub.test", Yocto::near(1_000)).expect("register");
    let stake = vm.config().register_storage.checked_add(Yocto::near(5)).expect("sum");
    for leaf in 1..550 {
        let args = serde_json::to_vec(&Vm::register_args(&format!("leaf{leaf}.test"))).expect("arguments");
        let name = format!("leaf{leaf}.test");
        vm.call_unchecked(&name, method::REGISTER, args, stake).expect("register");
    }
    let leaves = || (470..550).step_by(2).chain((471..550).step_by(2));
    let mut channels = Vec::new();
    for leaf in leaves() {
        channels.push(vm.open("hub.test", &format!("leaf{leaf}.test"), Yocto::ZERO, Yocto::ZERO));
    }
    let expected: Vec<(u32, u32)> = (470..550).map(|leaf| (leaf, 1)).collect();
    assert_eq!(neighbours(&mut vm, 0), expected);
    assert_eq!(neighbours(&mut vm, 511), [(0, 1)]);
    assert_eq!(neighbours(&mut vm, 512), [(0, 1)]);
    let page: Vec<NeighbourView> =
        vm.view(method::NEIGHBOURS, &json!({ "index": 0, "from": 510, "limit": 4 }));
    assert_eq!(page.iter().map(|link| link.index).collect::<Vec<_>>(), [510, 511, 512, 513]);
    // Everything beyond the border leaves; what is before it stays.
    for (leaf, channel) in leaves().zip(channels) {
        if leaf >= 512 {
            vm.act("any.test", method::SEVER, json!({ "order": order("hub.test", channel) })).expect("sever");
        }
    }
    assert_eq!(neighbours(&mut vm, 0), expected[..42]);
    assert!(neighbours(&mut vm, 512).is_empty());
}

#[test]
fn changes_bring_a_follower_to_the_present() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.open("alice.test", "bob.test", Yocto::near(1), Yocto::ZERO);
    let all: ChangesView = vm.view(method::CHANGES, &json!({ "since": 0, "limit": 100 }));
    assert_eq!((all.version, all.upto, all.oldest), (4, 4, 1));
    assert_eq!(all.nodes.iter().map(|node| node.index).collect::<Vec<_>>(), [0, 1]);
    assert_eq!(all.channels, [vm.channel(id)]);
    let page: ChangesView = vm.view(method::CHANGES, &json!({ "since": 1, "limit": 1 }));
    assert_eq!((page.upto, page.nodes.len(), page.channels.len()), (2, 1, 0));
    assert_eq!(page.nodes[0].index, 1);
    let none: ChangesView = vm.view(method::CHANGES, &json!({ "since": 4, "limit": 100 }));
    assert_eq!((none.upto, none.nodes.len(), none.channels.len()), (4, 0, 0));
    assert!(all.gone.is_empty() && page.gone.is_empty() && none.gone.is_empty());
}

/// Who was away while a channel ended and its record went would take it for open, as he knew it.
#[test]
fn changes_name_what_is_gone() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.propose("alice.test", "bob.test", Yocto::ZERO).expect("propose");
    let since = vm.config().graph_version;
    vm.act("alice.test", method::CANCEL_PROPOSAL, json!({ "channel": id })).expect("cancel");
    let there: ChangesView = vm.view(method::CHANGES, &json!({ "since": since, "limit": 100 }));
    assert_eq!((there.channels.len(), there.gone.len()), (1, 0));
    vm.act("bob.test", method::FORGET_CHANNEL, json!({ "channel": id })).expect("forget");
    let away: ChangesView = vm.view(method::CHANGES, &json!({ "since": since, "limit": 100 }));
    assert_eq!((away.upto, away.channels.len()), (away.version, 0));
    assert_eq!(away.gone, [ChangeKind::Channel { channel: id }]);
}

#[test]
fn a_follower_who_fell_behind_the_log_is_told() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test"]);
    let id = vm.open("alice.test", "bob.test", Yocto::near(1), Yocto::ZERO);
    let input = json!({ "channel": id }).to_string().into_bytes();
    for _ in 0..4_100 {
        vm.call_unchecked("alice.test", method::TOP_UP, input.clone(), Yocto(1)).expect("top up");
    }
    vm.check_conservation();
    let version = vm.config().graph_version;
    assert_eq!(version, 4_104);
    let behind: ChangesView = vm.view(method::CHANGES, &json!({ "since": 3, "limit": 100 }));
    assert_eq!((behind.version, behind.upto, behind.oldest), (version, 3, 65));
    assert!(behind.channels.is_empty());
    let held: ChangesView = vm.view(method::CHANGES, &json!({ "since": 64, "limit": 100 }));
    assert_eq!((held.upto, held.channels.len()), (164, 1));
}

#[test]
fn pages_list_nodes_and_channels() {
    let mut vm = Vm::with_nodes(&["alice.test", "bob.test", "carol.test"]);
    for to in ["bob.test", "carol.test"] {
        vm.propose("alice.test", to, Yocto::ZERO).expect("propose");
    }
    let nodes: Vec<NodeView> = vm.view(method::NODES, &json!({ "from": 1, "limit": 5 }));
    assert_eq!(nodes.iter().map(|node| node.index).collect::<Vec<_>>(), [1, 2]);
    vm.act("alice.test", method::CANCEL_PROPOSAL, json!({ "channel": 0 })).expect("cancel");
    vm.act("alice.test", method::FORGET_CHANNEL, json!({ "channel": 0 })).expect("forget");
    let channels: Vec<ChannelView> = vm.view(method::CHANNELS, &json!({ "from": 0, "limit": 1_000_000 }));
    assert_eq!(channels.iter().map(|channel| channel.channel).collect::<Vec<_>>(), [ChannelId(1)]);
    assert_eq!(vm.config().channels, 2);
}

#[test]
fn a_production_network_takes_only_parameters_within_bounds() {
    const HOUR: u64 = 3_600_000;
    let good = Params {
        challenge_ms: 24 * HOUR,
        notice_ms: HOUR,
        activation_ms: 24 * HOUR,
        reimbursement_ms: 72 * HOUR,
        ..params()
    };
    let start = |params| {
        let mut vm = Vm::deployed();
        vm.call(CONTRACT, method::NEW, &Vm::new_args(params, false), Yocto::ZERO)
    };
    start(good.clone()).expect("new");
    let bad = [
        Params { late_fee: Yocto::near(1), ..good.clone() },
        Params { sever_penalty: Yocto(3), ..good.clone() },
        Params { sever_penalty: Yocto::ZERO, ..good.clone() },
        Params { sever_penalty: Yocto::near(1_002), min_stake: Yocto::near(600), ..good.clone() },
        Params { challenge_ms: HOUR - 1, ..good.clone() },
        Params { notice_ms: 1, ..good.clone() },
        Params { min_stake: Yocto(1), ..good.clone() },
        Params { activation_ms: 0, ..good.clone() },
        Params { reimbursement_ms: 2 * HOUR, ..good.clone() },
        Params { slash_bps: 5_001, ..good.clone() },
    ];
    for params in bad {
        refused(start(params), code::PARAMS);
    }
}

#[test]
fn the_contract_says_what_it_is() {
    let mut vm = Vm::started();
    let metadata: Value = vm.view("contract_source_metadata", &json!({}));
    assert_eq!(metadata["version"], env!("CARGO_PKG_VERSION"));
    let standards = metadata["standards"].as_array().expect("standards");
    assert!(standards.iter().any(|standard| standard["standard"] == "nep330"));
    let config = vm.config();
    assert_eq!(config.state_version, por_types::interface::STATE_VERSION);
    assert_eq!((config.chain_id.as_str(), config.test), ("test-chain", true));
    assert_eq!(config.params, params());
}

#[test]
fn migrating_current_state_changes_nothing() {
    let mut vm = Vm::with_nodes(&["alice.test"]);
    let before = (vm.config(), vm.node("alice.test"));
    vm.act(CONTRACT, method::MIGRATE, json!({})).expect("migrate");
    assert_eq!(before, (vm.config(), vm.node("alice.test")));
}

#[test]
fn ordinary_calls_stay_cheap() {
    const LIMIT: u64 = 8_000_000_000_000;
    let mut vm = Vm::started();
    let mut dearest = (0, "");
    let mut note = |gas, what| dearest = dearest.max((gas, what));
    note(vm.register("alice.test", Yocto::near(90)).expect("register").gas, "register");
    note(vm.register("bob.test", Yocto::near(90)).expect("register").gas, "register");
    for _ in 0..70 {
        let id = vm.propose("alice.test", "bob.test", Yocto::near(1)).expect("propose");
        note(vm.confirm("bob.test", id, Yocto::near(1)).expect("confirm").gas, "confirm");
    }
    let id = ChannelId(3);
    note(
        vm.act("any.test", method::SEVER, json!({ "order": order("bob.test", id) })).expect("sever").gas,
        "sever",
    );
    let evidence = json!({ "state": state("alice.test", id, totals(5, 0)), "signer": "a" });
    note(vm.act("bob.test", method::SUBMIT_STATE, evidence).expect("evidence").gas, "submit_state");
    vm.now_ms += params().challenge_ms;
    note(vm.act("any.test", method::FINALIZE, json!({ "channel": id })).expect("finalize").gas, "finalize");
    note(vm.act("bob.test", method::WITHDRAW, json!({})).expect("withdraw").gas, "withdraw");
    assert!(dearest.0 <= LIMIT, "{} takes {} gas", dearest.1, dearest.0);
}

#[test]
fn the_wasm_stays_small() {
    assert!(wasm().len() <= 250_000, "{} bytes", wasm().len());
}
