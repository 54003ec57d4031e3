//! Networks in the contract's state, opened by its own calls.

use por_contract_model::vm::{Vm, network, secret, terms, totals};
use por_types::interface::{Params, method};
use por_types::{ChannelId, Draw, NewTerms, Yocto};
use serde_json::{Value, json};

/// More than any check of these sizes takes.
pub const DEPOSIT: Yocto = Yocto::near(20);

pub fn params() -> Params {
    Params {
        late_fee: Yocto(1),
        sever_penalty: Yocto::millinear(2),
        challenge_ms: 3_600_000,
        notice_ms: 60_000,
        min_stake: Yocto::millinear(2),
        activation_ms: 1,
        reimbursement_ms: 86_400_000,
        slash_bps: 500,
    }
}

pub fn name(node: u32) -> String {
    format!("n{node}.test")
}

/// A contract with nodes `0..nodes`, and the open channels between them.
pub struct Network {
    pub vm: Vm,
    pub nodes: u32,
    pub channels: Vec<(ChannelId, u32, u32)>,
}

/// A small generator of numbers: graphs are the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // The high bits are the good ones; the remainder is below a u32.
        ((self.0 >> 33) % u64::from(bound)) as u32
    }
}

impl Network {
    fn new(nodes: u32) -> Network {
        let mut vm = Vm::deployed();
        vm.set_balance(1_000 * Yocto::ONE_NEAR.0);
        let mut args = Vm::new_args(params(), true);
        args.anchor = Some(name(0).parse().expect("account"));
        vm.trusted("por.test", method::NEW, &json!(args), Yocto::ZERO);
        for node in 0..nodes {
            let who = name(node);
            vm.trusted(&who, method::REGISTER, &json!(Vm::register_args(&who)), Yocto::near(50));
        }
        vm.now_ms += 1_000;
        Network { vm, nodes, channels: Vec::new() }
    }

    fn open(&mut self, a: u32, b: u32) {
        let terms = terms();
        let propose = json!({ "counterparty": name(b), "terms": terms, "deposit": Yocto::millinear(10) });
        let id = self.vm.trusted(&name(a), method::PROPOSE_CHANNEL, &propose, Yocto::near(1)).value;
        let confirm = json!({ "channel": id, "terms": terms, "deposit": Yocto::millinear(10) });
        self.vm.trusted(&name(b), method::CONFIRM_CHANNEL, &confirm, Yocto::near(1));
        self.channels.push((serde_json::from_value(id).expect("channel id"), a, b));
    }

    /// Attaches every node that an edge leads to from one that is, in order.
    fn attach(&mut self) {
        for at in 0..self.channels.len() {
            let (_, a, b) = self.channels[at];
            let (known, new) = (a.min(b), a.max(b));
            if !self.vm.node(&name(new)).attached && self.vm.node(&name(known)).attached {
                self.vm.trusted(&name(new), method::PING, &json!({ "through": name(known) }), Yocto::ZERO);
            }
        }
    }

    fn random_edges(&mut self, from: u32, to: u32, channels: usize) {
        let mut random = Random(u64::from(from) + 7);
        let size = to - from;
        // A tree first, so that the part is connected.
        for node in from + 1..to {
            let other = from + random.below(node - from);
            self.open(other, node);
        }
        let rest = channels.saturating_sub(size as usize - 1);
        for _ in 0..rest {
            let a = from + random.below(size);
            let b = from + (a - from + 1 + random.below(size - 1)) % size;
            self.open(a, b);
        }
    }

    /// A connected random graph.
    pub fn random(nodes: u32, channels: usize) -> Network {
        let mut network = Network::new(nodes);
        network.random_edges(0, nodes, channels);
        network.attach();
        network
    }

    /// Two random halves and one edge between them, which is the last.
    pub fn halves(nodes: u32, channels: usize) -> Network {
        let mut network = Network::new(nodes);
        network.random_edges(0, nodes / 2, channels / 2);
        network.random_edges(nodes / 2, nodes, channels / 2);
        network.open(nodes / 2 - 1, nodes / 2);
        network
    }

    pub fn path(nodes: u32) -> Network {
        let mut network = Network::new(nodes);
        let middle = nodes / 2;
        for node in (1..middle).chain(middle + 1..nodes) {
            network.open(node - 1, node);
        }
        network.open(middle - 1, middle);
        network
    }

    /// A path whose ends meet.
    pub fn ring(nodes: u32) -> Network {
        let mut network = Network::path(nodes);
        let bridge = network.channels.pop();
        network.open(nodes - 1, 0);
        network.channels.extend(bridge);
        network
    }

    pub fn star(leaves: u32) -> Network {
        let mut network = Network::new(leaves + 1);
        for leaf in 1..=leaves {
            network.open(leaf, 0);
        }
        network
    }

    /// The edge opened last.
    pub fn bridge(&self) -> (ChannelId, u32, u32) {
        *self.channels.last().expect("a channel")
    }

    /// In a ring: the way from `a` to `b` that does not take their edge.
    pub fn way_around(&self, a: u32, b: u32) -> Vec<u32> {
        (0..=a).rev().chain((b..self.nodes).rev()).collect()
    }
}

/// A draw and new terms, signed by both.
pub fn acts(a: &str, b: &str, channel: ChannelId, now_ms: u64) -> [Value; 2] {
    let (expires_ms, totals) = (now_ms + 1, totals(10, 0));
    let draw = Draw { channel, sequence: 1, expires_ms, totals, draw_a: Yocto(1), draw_b: Yocto(2) };
    let act = NewTerms { channel, sequence: 2, expires_ms, totals, terms: terms() };
    let network = network();
    let signatures = |by: &str| {
        let draw = secret(by).sign(&network, draw.clone()).signature;
        (draw, secret(by).sign(&network, act.clone()).signature)
    };
    let (a, b) = (signatures(a), signatures(b));
    [
        json!({ "draw": draw, "signature_a": a.0, "signature_b": b.0 }),
        json!({ "act": act, "signature_a": a.1, "signature_b": b.1 }),
    ]
}
