//! Gas of the contract's calls, in NEAR's own VM, on graphs of real size.
//!
//! A figure is what the VM burns plus NEAR's fees for the call's receipt and arguments, in Tgas.

mod graph;

use anyhow::Result;
use por_contract_model::vm::{Vm, close_args, order, state, totals};
use por_types::interface::{CHECK_GAS, Witness, method};
use por_types::{CONTRACT_WASM, ChannelId, CooperativeClose, Yocto};
use serde_json::{Value, json};

use graph::{Network, name};

/// What one kind of call took.
struct Figure {
    name: &'static str,
    tgas: Vec<f64>,
}

/// Prints figures as they come.
struct Report {
    json: bool,
    nodes: u32,
    channels: usize,
}

impl Report {
    fn print(&self, mut figure: Figure) {
        figure.tgas.sort_by(f64::total_cmp);
        let median = figure.tgas.get(figure.tgas.len() / 2).copied().unwrap_or_default();
        let max = figure.tgas.last().copied().unwrap_or_default();
        let (name, calls) = (figure.name, figure.tgas.len());
        if self.json {
            let line = json!({
                "name": name, "nodes": self.nodes, "channels": self.channels,
                "tgas_median": round(median), "tgas_max": round(max), "calls": calls,
            });
            println!("{line}");
        } else {
            println!(
                "{name:<24} {:>7} nodes {:>7} channels   median {median:>8.2}   max {max:>8.2} Tgas   {calls} calls",
                self.nodes, self.channels
            );
        }
    }
}

fn round(tgas: f64) -> f64 {
    (tgas * 1000.0).round() / 1000.0
}

/// Runs all of it; `large`: nodes of the largest graph.
pub fn run(large: u32, json: bool) -> Result<()> {
    let bytes = CONTRACT_WASM.len();
    if json {
        println!("{}", json!({ "name": "wasm", "bytes": bytes }));
    } else {
        println!("wasm {bytes} bytes");
    }
    let mut network = Network::random(10_000, 50_000);
    let report = Report { json, nodes: network.nodes, channels: network.channels.len() };
    ordinary(&mut network, &report);
    sever_random(&mut network, &report, "sever_random", 300);
    drop(network);
    whole("sever_path", Network::path(10_000), json);
    whole("sever_path_witness", Network::ring(10_000), json);
    whole("sever_halves", Network::halves(10_000, 50_000), json);
    star(10_000, json);
    let mut network = Network::random(large, large as usize * 2);
    let report = Report { json, nodes: network.nodes, channels: network.channels.len() };
    sever_random(&mut network, &report, "sever_random_large", 50);
    drop(network);
    whole("sever_halves_large", Network::halves(large, large as usize * 2), json);
    Ok(())
}

/// Every method, on the big random graph.
fn ordinary(network: &mut Network, report: &Report) {
    let mut calls = Calls { figures: Vec::new() };
    let nodes = network.nodes;
    let count = 20;
    for i in 0..count {
        calls.enter(network, nodes + i);
        calls.channels(network, nodes + i);
        calls.closes(network, nodes + i);
        calls.leave(network, nodes + count + i);
    }
    calls.owner(network);
    for figure in calls.figures {
        report.print(figure);
    }
}

/// Measured calls, by method.
struct Calls {
    figures: Vec<Figure>,
}

impl Calls {
    fn add(&mut self, name: &'static str, tgas: f64) {
        match self.figures.iter_mut().find(|figure| figure.name == name) {
            Some(figure) => figure.tgas.push(tgas),
            None => self.figures.push(Figure { name, tgas: vec![tgas] }),
        }
    }

    fn call(&mut self, vm: &mut Vm, who: &str, method: &'static str, args: &Value, deposit: Yocto) -> Value {
        let (value, tgas) = measured(vm, who, method, args, deposit);
        self.add(method, tgas);
        value
    }

    /// A new node: register, stake, unstake, withdraw.
    fn enter(&mut self, network: &mut Network, node: u32) {
        let who = name(node);
        let vm = &mut network.vm;
        let args = serde_json::to_value(Vm::register_args(&who)).expect("arguments");
        self.call(vm, &who, method::REGISTER, &args, Yocto::near(50));
        self.call(vm, &who, method::STAKE, &json!({}), Yocto::near(5));
        self.call(vm, &who, method::UNSTAKE, &json!({ "amount": Yocto::near(1) }), Yocto::ZERO);
        vm.now_ms += graph::params().reimbursement_ms;
        self.call(vm, &who, method::WITHDRAW, &json!({}), Yocto::ZERO);
    }

    /// A node that comes, takes its stake back and leaves.
    fn leave(&mut self, network: &mut Network, node: u32) {
        let who = name(node);
        let vm = &mut network.vm;
        let args = serde_json::to_value(Vm::register_args(&who)).expect("arguments");
        vm.trusted(&who, method::REGISTER, &args, Yocto::near(50));
        let stake = vm.node(&who).stake;
        vm.trusted(&who, method::UNSTAKE, &json!({ "amount": stake }), Yocto::ZERO);
        vm.now_ms += graph::params().reimbursement_ms;
        vm.trusted(&who, method::WITHDRAW, &json!({}), Yocto::ZERO);
        self.call(vm, &who, method::UNREGISTER, &json!({}), Yocto::ZERO);
    }

    /// Its channels with an old node: proposals, top-up, acts of both, ping.
    fn channels(&mut self, network: &mut Network, node: u32) {
        let (who, other) = (name(node), name(node % network.nodes));
        let vm = &mut network.vm;
        let terms = por_contract_model::vm::terms();
        let propose = json!({ "counterparty": other, "terms": terms, "deposit": Yocto::near(2) });
        let id = self.call(vm, &who, method::PROPOSE_CHANNEL, &propose, Yocto::near(4));
        self.call(vm, &who, method::CANCEL_PROPOSAL, &json!({ "channel": id }), Yocto::ZERO);
        self.call(vm, &who, method::FORGET_CHANNEL, &json!({ "channel": id }), Yocto::ZERO);
        for _ in 0..4 {
            let id = vm.trusted(&who, method::PROPOSE_CHANNEL, &propose, Yocto::near(4)).value;
            let confirm = json!({ "channel": id, "terms": terms, "deposit": Yocto::near(2) });
            self.call(vm, &other, method::CONFIRM_CHANNEL, &confirm, Yocto::near(4));
            let id: ChannelId = serde_json::from_value(id).expect("channel id");
            network.channels.push((id, node, node % network.nodes));
        }
        let Some((id, ..)) = network.channels.last().copied() else { return };
        self.call(vm, &who, method::TOP_UP, &json!({ "channel": id }), Yocto::near(1));
        self.call(vm, &who, method::PING, &json!({ "through": other }), Yocto::ZERO);
        let acts = graph::acts(&who, &other, id, vm.now_ms);
        self.call(vm, &who, method::DRAW, &acts[0], Yocto::ZERO);
        self.call(vm, &who, method::REPLACE_TERMS, &acts[1], Yocto::ZERO);
    }

    /// Ends the four channels, each in another way.
    fn closes(&mut self, network: &mut Network, node: u32) {
        let (who, other) = (name(node), name(node % network.nodes));
        let ids: Vec<ChannelId> =
            network.channels.drain(network.channels.len() - 4..).map(|edge| edge.0).collect();
        let vm = &mut network.vm;
        let close = |id: ChannelId| json!({ "channel": id, "totals": totals(0, 0) });
        self.call(vm, &who, method::REQUEST_CLOSE, &close(ids[0]), Yocto::ZERO);
        self.call(vm, &other, method::CONFIRM_CLOSE, &close(ids[0]), Yocto::ZERO);
        let expires_ms = vm.now_ms + 1;
        let signed = CooperativeClose { channel: ids[1], sequence: 1, expires_ms, totals: totals(0, 0) };
        self.call(vm, &who, method::CLOSE_SIGNED, &close_args(&who, &other, signed), Yocto::ZERO);
        let (_, tgas) =
            measured(vm, &who, method::SEVER, &json!({ "order": order(&who, ids[2]) }), graph::DEPOSIT);
        self.add("sever_parallel", tgas);
        let evidence = json!({ "state": state(&who, ids[2], totals(5, 0)), "signer": "a" });
        self.call(vm, &who, method::SUBMIT_STATE, &evidence, Yocto::ZERO);
        vm.now_ms += graph::params().challenge_ms;
        for (kind, id, deposit) in
            [("finalize_close", ids[0], graph::DEPOSIT), ("finalize_sever", ids[2], Yocto::ZERO)]
        {
            let (_, tgas) = measured(vm, &who, method::FINALIZE, &json!({ "channel": id }), deposit);
            self.add(kind, tgas);
        }
        vm.now_ms += graph::params().challenge_ms;
        let (_, tgas) = measured(vm, &who, method::FINALIZE, &json!({ "channel": ids[0] }), Yocto::ZERO);
        self.add("finalize_release", tgas);
    }

    fn owner(&mut self, network: &mut Network) {
        let vm = &mut network.vm;
        let params = graph::params();
        self.call(vm, "owner.test", method::SET_PARAMS, &json!({ "params": params }), Yocto::ZERO);
        let to = |account: &str| json!({ "account": account });
        self.call(vm, "owner.test", method::SET_TREASURY, &to("treasury.test"), Yocto::ZERO);
        let hash = json!({ "code_hash": por_types::Hash([7; 32]) });
        self.call(vm, "owner.test", method::ANNOUNCE_UPGRADE, &hash, Yocto::ZERO);
        self.call(vm, "owner.test", method::CANCEL_UPGRADE, &json!({}), Yocto::ZERO);
        self.call(vm, "owner.test", method::SET_OWNER, &to("owner.test"), Yocto::ZERO);
    }
}

/// A call that must succeed, and its Tgas.
fn measured(vm: &mut Vm, who: &str, method: &str, args: &Value, deposit: Yocto) -> (Value, f64) {
    let done = vm.trusted(who, method, args, deposit);
    let bytes = serde_json::to_vec(args).map_or(0, |bytes| bytes.len());
    let gas = done.gas + vm.receipt_gas(method, bytes);
    (done.value, gas as f64 / 1e12)
}

/// Severs edges spread over the graph, with their checks.
fn sever_random(network: &mut Network, report: &Report, name: &'static str, count: usize) {
    network.vm.gas = CHECK_GAS;
    let step = network.channels.len() / count;
    let mut tgas = Vec::new();
    for at in 0..count {
        let (id, a, _) = network.channels[at * step];
        tgas.extend(sever_all(&mut network.vm, a, id, None));
    }
    report.print(Figure { name, tgas });
}

/// Severs the middle edge of a graph that is made for it, and continues until nothing waits.
fn whole(name: &'static str, mut network: Network, json: bool) {
    network.vm.gas = CHECK_GAS;
    let report = Report { json, nodes: network.nodes, channels: network.channels.len() };
    let (id, a, b) = network.bridge();
    let witness = name.ends_with("witness").then(|| Witness { path: network.way_around(a, b), closed: None });
    let tgas = sever_all(&mut network.vm, a, id, witness);
    report.print(Figure { name, tgas });
}

/// Severs, and continues the check until it is finished: Tgas of each call.
fn sever_all(vm: &mut Vm, by: u32, id: ChannelId, witness: Option<Witness>) -> Vec<f64> {
    let args = json!({ "order": order(&name(by), id), "witness": witness });
    let (_, tgas) = measured(vm, "anyone.test", method::SEVER, &args, graph::DEPOSIT);
    let mut all = vec![tgas];
    while vm.config().checks > 0 {
        let (_, tgas) = measured(vm, "cranker.test", method::CHECK, &json!({}), Yocto::ZERO);
        all.push(tgas);
    }
    all
}

/// A hub with `leaves`: opening one more channel at it, and severing a leaf.
fn star(leaves: u32, json: bool) {
    let mut network = Network::star(leaves);
    let report = Report { json, nodes: network.nodes, channels: network.channels.len() };
    let mut calls = Calls { figures: Vec::new() };
    for i in 0..20 {
        let leaf = leaves / 21 * (i + 1);
        let terms = por_contract_model::vm::terms();
        let propose = json!({ "counterparty": name(0), "terms": terms, "deposit": Yocto::near(1) });
        let vm = &mut network.vm;
        let id = vm.trusted(&name(leaf), method::PROPOSE_CHANNEL, &propose, Yocto::near(3)).value;
        let confirm = json!({ "channel": id, "terms": terms, "deposit": Yocto::near(1) });
        let (_, tgas) = measured(vm, &name(0), method::CONFIRM_CHANNEL, &confirm, Yocto::near(3));
        calls.add("open_at_hub", tgas);
    }
    network.vm.gas = CHECK_GAS;
    let step = network.channels.len() / 43;
    for at in 0..20 {
        let (id, a, _) = network.channels[at * step * 2 + 1];
        for tgas in sever_all(&mut network.vm, a, id, None) {
            calls.add("sever_star", tgas);
        }
    }
    for figure in calls.figures {
        report.print(figure);
    }
}
