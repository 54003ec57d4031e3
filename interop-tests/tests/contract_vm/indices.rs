//! Indices of nodes: those of nodes that have left are used again, no record of such a node counts for
//! the one that has its index then, and there are never more than a check can search.

use borsh::BorshDeserialize;
use por_types::interface::{
    ChangeKind, ChangesView, ChannelStatus, ChannelView, CheckedEvent, ChecksView, Event, MAX_INDICES,
    NodeView, code, method,
};
use por_types::{ChannelId, Yocto};
use serde_json::json;

use crate::harness::{Done, Vm, order, params, refused, terms, totals};

const ANCHOR: &str = "owner.test";
/// So little that a partition check cannot begin in the call.
const SHORT_OF_GAS: u64 = 14_000_000_000_000;

fn act(vm: &mut Vm, who: &str, method: &str, args: serde_json::Value) -> Done {
    vm.act(who, method, args).expect(method)
}

/// Registers without stake; answers the index.
fn enter(vm: &mut Vm, name: &str) -> u32 {
    let done = vm.register(name, Yocto::ZERO).expect("register");
    serde_json::from_value(done.value).expect("an index")
}

/// Ends a channel of both cooperatively, as far as there is nothing to wait for.
fn close(vm: &mut Vm, a: &str, b: &str, id: ChannelId, notice_ms: u64) {
    let args = json!({ "channel": id, "totals": totals(0, 0) });
    act(vm, a, method::REQUEST_CLOSE, args.clone());
    act(vm, b, method::CONFIRM_CLOSE, args);
    vm.now_ms += notice_ms;
    act(vm, "anyone.test", method::FINALIZE, json!({ "channel": id }));
}

fn events(done: &Done) -> Vec<Event> {
    let json = |log: &String| serde_json::from_str(log.strip_prefix("EVENT_JSON:").expect("NEP-297"));
    done.logs.iter().map(|log| json(log).expect("an event")).collect()
}

#[test]
fn who_comes_and_goes_uses_up_no_index() {
    let mut vm = Vm::with_nodes(&[ANCHOR]);
    let (deposit, mut kept) = (vm.config().check_deposit, Yocto::ZERO);
    for round in 0..300 {
        assert_eq!(enter(&mut vm, "guest.test"), 1, "round {round}");
        act(&mut vm, "guest.test", method::UNREGISTER, json!({}));
        vm.now_ms += 1;
        if round == 0 {
            kept = vm.books().storage;
        }
    }
    assert_eq!(vm.config().nodes, 2);
    assert_eq!(vm.config().check_deposit, deposit);
    assert_eq!(vm.books().storage, kept, "an index is paid for once");
    let one = vm.config().register_storage.0;
    assert_eq!(vm.withdrawable("guest.test").0, 300 * one - Yocto::millinear(1).0);
}

/// The longest free is used first, and none in the block in which its node leaves.
#[test]
fn indices_are_used_again_in_the_order_in_which_they_became_free() {
    let mut vm = Vm::with_nodes(&[ANCHOR]);
    let names: Vec<String> = (1..6).map(|number| format!("n{number}.test")).collect();
    for name in &names {
        enter(&mut vm, name);
    }
    for leaving in [3, 1, 4] {
        act(&mut vm, &names[leaving - 1], method::UNREGISTER, json!({}));
        vm.now_ms += 1;
    }
    vm.now_ms -= 1;
    let now: Vec<u32> = ["x.test", "y.test", "z.test"].iter().map(|name| enter(&mut vm, name)).collect();
    assert_eq!(now, [3, 1, 6], "4 has become free in this block");
    vm.now_ms += 1;
    assert_eq!(enter(&mut vm, "w.test"), 4);
    let nodes: Vec<NodeView> = vm.view(method::NODES, &json!({ "from": 0, "limit": 100 }));
    let shown: Vec<&str> = nodes.iter().map(|node| node.account.as_str()).collect();
    assert_eq!(shown, [ANCHOR, "y.test", "n2.test", "x.test", "w.test", "n5.test", "z.test"]);
}

/// What waits for a check may name a node that has left meanwhile.
#[test]
fn an_index_is_not_used_again_while_anything_from_before_waits() {
    let mut vm = Vm::with_nodes(&[ANCHOR, "a.test", "b.test"]);
    let ids = [0, 1].map(|_| vm.open(ANCHOR, "a.test", Yocto::ZERO, Yocto::ZERO));
    vm.open(ANCHOR, "b.test", Yocto::ZERO, Yocto::ZERO);
    let gone = enter(&mut vm, "gone.test");
    let deposit = vm.config().check_deposit;
    vm.gas = SHORT_OF_GAS;
    vm.call("anyone.test", method::SEVER, &json!({ "order": order(ANCHOR, ids[0]) }), deposit)
        .expect("sever");
    vm.gas = Vm::GAS;
    act(&mut vm, "b.test", method::PING, json!({ "through": "gone.test" }));
    vm.now_ms += 1;
    act(&mut vm, "gone.test", method::UNREGISTER, json!({}));
    vm.now_ms += 1;
    assert_eq!(enter(&mut vm, "early.test"), gone + 1, "the ping through the former node still waits");
    while vm.view::<ChecksView>(method::CHECKS, &json!({})).waiting > 0 {
        act(&mut vm, "crank.test", method::CHECK, json!({}));
    }
    assert!(!vm.node("b.test").attached);
    assert_eq!(enter(&mut vm, "late.test"), gone);
}

/// The side that a cooperative close has cut off is kept for a SeverOrder that comes later.
#[test]
fn a_newcomer_pays_nothing_for_a_cut_from_before_its_time() {
    let mut vm = Vm::with_nodes(&[ANCHOR, "a.test", "b.test"]);
    let first = vm.open(ANCHOR, "a.test", Yocto::ZERO, Yocto::ZERO);
    let second = vm.open("a.test", "b.test", Yocto::ZERO, Yocto::ZERO);
    let third = vm.open("a.test", "b.test", Yocto::ZERO, Yocto::ZERO);
    let notice_ms = params().notice_ms;
    close(&mut vm, ANCHOR, "a.test", first, notice_ms);
    // With shorter windows b can leave while the bonds of the first close are held.
    let short =
        por_types::interface::Params { challenge_ms: 10, notice_ms: 10, reimbursement_ms: 100, ..params() };
    act(&mut vm, ANCHOR, method::SET_PARAMS, json!({ "params": short }));
    vm.now_ms += notice_ms;
    for id in [second, third] {
        close(&mut vm, "a.test", "b.test", id, 10);
        vm.now_ms += 10;
        act(&mut vm, "anyone.test", method::FINALIZE, json!({ "channel": id }));
        act(&mut vm, "anyone.test", method::FORGET_CHANNEL, json!({ "channel": id }));
    }
    act(&mut vm, "b.test", method::UNSTAKE, json!({ "amount": Yocto::near(10) }));
    vm.now_ms += 100;
    act(&mut vm, "b.test", method::WITHDRAW, json!({}));
    act(&mut vm, "b.test", method::UNREGISTER, json!({}));
    vm.now_ms += 1;
    vm.register("new.test", Yocto::near(7)).expect("register");
    assert_eq!(vm.node("new.test").index, 2, "the index of b");

    let before = vm.node("new.test");
    let done = act(&mut vm, "anyone.test", method::SEVER, json!({ "order": order(ANCHOR, first) }));
    let cut: Vec<u32> = events(&done)
        .into_iter()
        .flat_map(|event| match event {
            Event::CutOff(nodes) => nodes.into_iter().map(|node| node.index).collect(),
            _ => Vec::new(),
        })
        .collect();
    assert_eq!(cut, [1], "only a is still there of the side");
    assert_eq!(vm.node("new.test"), before);
    // A half to the anchor, then a twentieth of the rest.
    assert_eq!(vm.node("a.test").stake, Yocto::millinear(9 * 950));
}

#[test]
fn a_proposal_to_a_node_that_has_left_is_not_for_the_next_one() {
    let mut vm = Vm::with_nodes(&["a.test"]);
    let index = enter(&mut vm, "b.test");
    let id = vm.propose("a.test", "b.test", Yocto::near(1)).expect("propose");
    act(&mut vm, "b.test", method::UNREGISTER, json!({}));
    let seen = |vm: &mut Vm| vm.view::<Option<ChannelView>>(method::CHANNEL, &json!({ "channel": id }));
    assert_eq!(seen(&mut vm), None);
    vm.now_ms += 1;
    vm.register("c.test", Yocto::near(10)).expect("register");
    assert_eq!(vm.node("c.test").index, index);
    assert_eq!(seen(&mut vm), None, "its counterparty has left");
    refused(vm.confirm("c.test", id, Yocto::ZERO), code::NOT_ALLOWED);
    // Its key signs for nothing there either.
    let sever = json!({ "order": order("c.test", id) });
    refused(vm.act("c.test", method::SEVER, sever), code::NOT_REGISTERED);
    act(&mut vm, "a.test", method::CANCEL_PROPOSAL, json!({ "channel": id }));
    assert_eq!(seen(&mut vm), None);
    // One made to the new node is for it.
    let id = vm.open("a.test", "c.test", Yocto::ZERO, Yocto::ZERO);
    assert_eq!(vm.channel(id).status, ChannelStatus::Open);
}

/// A follower reads records as they are now, and which of them are gone.
#[test]
fn the_log_tells_who_has_an_index() {
    let mut vm = Vm::with_nodes(&[ANCHOR]);
    let since = vm.config().graph_version;
    enter(&mut vm, "old.test");
    act(&mut vm, "old.test", method::UNREGISTER, json!({}));
    let page = |vm: &mut Vm, since: u64, limit: u32| -> ChangesView {
        vm.view(method::CHANGES, &json!({ "since": since, "limit": limit }))
    };
    let gone = page(&mut vm, since, 100);
    assert_eq!((gone.upto, gone.nodes.len()), (since + 2, 0));
    assert_eq!(gone.gone, [ChangeKind::Node { index: 1 }], "once, though it has come and gone");
    vm.now_ms += 1;
    enter(&mut vm, "new.test");
    let holds = |view: &ChangesView| -> Vec<(u32, String)> {
        view.nodes.iter().map(|node| (node.index, node.account.to_string())).collect()
    };
    for (from, limit) in [(since, 100), (since, 1), (since + 1, 1), (since + 2, 1)] {
        let page = page(&mut vm, from, limit);
        assert_eq!(holds(&page), [(1, "new.test".to_owned())]);
        assert!(page.gone.is_empty(), "{page:?}");
    }
}

/// Sets how many indices there are. The number follows fields of which only the names vary in length.
fn set_indices(vm: &mut Vm, nodes: u32) {
    type Names = (String, String, String, String);
    type Params = (u128, u128, u64, u64, u128, u64, u64, u16);
    let root = vm.stored().get_mut(b"STATE".as_slice()).expect("a state");
    let mut rest = root.as_slice();
    <(u32, Names, Params, bool, [u128; 7])>::deserialize(&mut rest).expect("a root state");
    let at = root.len() - rest.len();
    root[at..at + 4].copy_from_slice(&nodes.to_le_bytes());
}

/// Stores a graph: the neighbours of each node, in order, as `contract/src/adjacency.rs` packs them.
fn set_graph(vm: &mut Vm, nodes: u32, neighbours: impl Fn(u32) -> Vec<u32>) {
    for group in 0..nodes.div_ceil(256) {
        let all: Vec<Vec<u32>> = (group * 256..nodes.min(group * 256 + 256)).map(&neighbours).collect();
        let mut record = vec![u8::try_from(all.len() - 1).expect("256 nodes")];
        record.extend(all.iter().flat_map(|links| u16::try_from(links.len()).expect("few").to_le_bytes()));
        record.extend(all.iter().flatten().flat_map(|to| to.to_le_bytes()));
        let key = [b"h".as_slice(), &group.to_le_bytes()].concat();
        vm.stored().insert(key, record);
    }
}

/// Continues until nothing waits: what each call burnt, in Tgas.
fn crank(vm: &mut Vm) -> Vec<u64> {
    let mut burnt = Vec::new();
    while vm.view::<ChecksView>(method::CHECKS, &json!({})).waiting > 0 {
        burnt.push(act(vm, "crank.test", method::CHECK, json!({})).gas / 1_000_000_000_000);
        assert!(burnt.len() < 200, "the check goes on for ever");
    }
    burnt
}

/// The largest network, a ring: the check that visits every node, and the one that keeps the largest
/// side for a late order.
#[test]
fn a_check_of_the_largest_network_comes_to_an_end() {
    let mut vm = Vm::with_nodes(&["a.test", "b.test", "c.test"]);
    let last = MAX_INDICES - 1;
    set_indices(&mut vm, last);
    vm.register("last.test", Yocto::near(10)).expect("the last index");
    assert_eq!(vm.node("last.test").index, last);
    refused(vm.register("more.test", Yocto::ZERO), code::FULL);

    let ids = [("a.test", "b.test"), ("a.test", "last.test"), ("b.test", "c.test")]
        .map(|(a, b)| vm.open(a, b, Yocto::ZERO, Yocto::ZERO));
    // From b and c on all others in a ring.
    set_graph(&mut vm, MAX_INDICES, |node| match node {
        0 => vec![1, last],
        1 => vec![0, 2, last - 1],
        node if node == last => vec![0],
        node if node == last - 1 => vec![1, node - 1],
        node => vec![node - 1, node + 1],
    });
    let deposit = vm.config().check_deposit;
    let args = json!({ "order": order("b.test", ids[2]) });
    let done = vm.call("closer.test", method::SEVER, &args, deposit).expect("sever");
    assert!(events(&done).contains(&Event::Checked(vec![CheckedEvent {
        channel: ids[2],
        partition: None,
        cut_off: 0
    }])));
    let around = crank(&mut vm);

    let args = json!({ "channel": ids[0], "totals": totals(0, 0) });
    act(&mut vm, "a.test", method::REQUEST_CLOSE, args.clone());
    act(&mut vm, "b.test", method::CONFIRM_CLOSE, args);
    vm.now_ms += params().notice_ms;
    vm.call("closer.test", method::FINALIZE, &json!({ "channel": ids[0] }), deposit).expect("finalize");
    let apart = crank(&mut vm);
    let most = around.iter().chain(&apart).max();
    assert!(most < Some(&220), "around {around:?}, apart {apart:?} Tgas");
    // A node and the last one are a side as long as can be.
    let args = json!({ "order": order("b.test", ids[0]) });
    let done = vm.call("closer.test", method::SEVER, &args, deposit).expect("a late order");
    let cut = |event: &Event| matches!(event, Event::Checked(checks) if checks[0].cut_off == 2);
    assert!(events(&done).iter().any(cut), "{:?}", done.logs);
    assert!(!vm.withdrawable("closer.test").is_zero(), "its deposits were enough");
    let args = json!({ "counterparty": "b.test", "terms": terms(), "deposit": Yocto::ZERO });
    let cost = vm.propose_cost(Yocto::ZERO);
    vm.call("c.test", method::PROPOSE_CHANNEL, &args, cost).expect("all goes on");
}

/// A hub at the anchor with attached nodes around it, one in each group of indices, whose groups have
/// all the weights that they can.
fn spread(nodes: u32) -> (Vm, ChannelId) {
    /// As `contract/src/adjacency.rs` groups nodes.
    const GROUP: u32 = 256;
    let mut vm = Vm::started();
    vm.register(ANCHOR, Yocto::near(100_000)).expect("register");
    vm.register("hub.test", Yocto::near(1_000)).expect("register");
    let id = vm.open(ANCHOR, "hub.test", Yocto::ZERO, Yocto::ZERO);
    act(&mut vm, "hub.test", method::PING, json!({ "through": ANCHOR }));
    for number in 1..=nodes {
        let name = format!("n{number}.test");
        set_indices(&mut vm, number * GROUP);
        vm.register(&name, Yocto::near(10)).expect("register");
        vm.open("hub.test", &name, Yocto::ZERO, Yocto::ZERO);
        act(&mut vm, &name, method::PING, json!({ "through": "hub.test" }));
        let weights = vm.stored().get_mut([b"w".as_slice(), &number.to_le_bytes()].concat().as_slice());
        let weights = weights.expect("the weight of an attached node");
        weights[..4].copy_from_slice(&GROUP.to_le_bytes());
        for slot in 1..=u8::MAX {
            weights.push(slot);
            weights.extend(0u128.to_le_bytes());
        }
    }
    vm.now_ms += params().activation_ms;
    (vm, id)
}

/// A call keeps what it takes to weigh nodes and to note that it has cut them off, however they lie.
#[test]
fn a_side_in_many_groups_is_cut_off_by_calls_of_any_gas() {
    for tgas in [25, 35, 60, 80, 110, 300] {
        let (mut vm, id) = spread(100);
        let deposit = vm.config().check_deposit;
        vm.gas = SHORT_OF_GAS;
        let args = json!({ "order": order(ANCHOR, id) });
        vm.call("closer.test", method::SEVER, &args, deposit).expect("sever");
        vm.gas = tgas * 1_000_000_000_000;
        crank(&mut vm);
        assert!(!vm.node("hub.test").attached && !vm.node("n100.test").attached);
    }
}

/// One part of a hub's neighbours can be in more groups than what is left of a call can read.
#[test]
fn a_hub_with_neighbours_in_many_groups_stops_no_check() {
    let (mut vm, id) = spread(500);
    let deposit = vm.config().check_deposit;
    vm.gas = 200_000_000_000_000;
    vm.call("closer.test", method::SEVER, &json!({ "order": order(ANCHOR, id) }), deposit).expect("sever");
    crank(&mut vm);
    assert!(!vm.node("hub.test").attached && !vm.node("n500.test").attached);
}
