//! Very many penalties, of parallel channels between two nodes: whoever makes them, a check comes to
//! its end, and who continues it is paid for that.

use por_types::interface::{ChecksView, Event, Params, method};
use por_types::{ChannelId, Yocto};
use serde_json::json;

use crate::harness::{CONTRACT, Vm, order, params, terms};

const ANCHOR: &str = "owner.test";
pub const HALF: Yocto = Yocto(1_000);
const TERA: u64 = 1_000_000_000_000;

/// The anchor and node `a.test` with so many channels between them, for a penalty of next to nothing.
fn parallel(channels: usize) -> (Vm, Vec<ChannelId>) {
    parallel_on(Vm::deployed(), channels)
}

/// The same where a contract is deployed.
pub fn parallel_on(mut vm: Vm, channels: usize) -> (Vm, Vec<ChannelId>) {
    let cheap = Params { sever_penalty: Yocto(2 * HALF.0), min_stake: Yocto::ZERO, ..params() };
    vm.call(CONTRACT, method::NEW, &Vm::new_args(cheap, true), Yocto::ZERO).expect("new");
    for name in [ANCHOR, "a.test", "crank.test"] {
        vm.register(name, Yocto::near(1)).expect("register");
    }
    let (propose, confirm) = (vm.propose_cost(Yocto::ZERO), vm.confirm_cost(Yocto::ZERO));
    let open = |_| {
        let args = json!({ "counterparty": "a.test", "terms": terms(), "deposit": Yocto::ZERO });
        let id = vm.trusted(ANCHOR, method::PROPOSE_CHANNEL, &args, propose).value;
        let args = json!({ "channel": id, "terms": terms(), "deposit": Yocto::ZERO });
        vm.trusted("a.test", method::CONFIRM_CHANNEL, &args, confirm);
        serde_json::from_value(id).expect("channel id")
    };
    let ids = (0..channels).map(open).collect();
    (vm, ids)
}

/// Severs all of them while another still connects the ends.
pub fn sever_all(vm: &mut Vm, ids: &[ChannelId]) {
    for id in ids {
        vm.trusted("anyone.test", method::SEVER, &json!({ "order": order("a.test", *id) }), Yocto::ZERO);
    }
}

/// What a check took: calls, the most that one burnt, what all burnt (Tgas), what was reimbursed.
#[derive(Debug, Default)]
struct Taken {
    calls: usize,
    most: u64,
    burnt: u64,
    /// Of that by calls for which the closer has prepaid.
    prepaid: u64,
    claims: usize,
    reimbursed: u128,
}

impl Taken {
    fn add(&mut self, done: &por_contract_model::vm::Done) {
        let tgas = done.gas / TERA;
        self.calls += 1;
        self.most = self.most.max(tgas);
        self.burnt += tgas;
        for log in &done.logs {
            let event = serde_json::from_str(log.strip_prefix("EVENT_JSON:").expect("NEP-297"));
            if let Event::Reimbursed(paid) = event.expect("an event") {
                self.claims += paid.len();
                self.reimbursed += paid.iter().map(|claim| claim.amount.0).sum::<u128>();
            }
        }
    }
}

/// Severs the last one and continues its check to the end. What is left of the deposit is the closer's.
fn cut_off(vm: &mut Vm, id: ChannelId) -> Taken {
    let deposit = vm.config().check_deposit;
    let args = json!({ "order": order(ANCHOR, id) });
    let mut taken = Taken::default();
    taken.add(&vm.call("closer.test", method::SEVER, &args, deposit).expect("sever"));
    while vm.view::<ChecksView>(method::CHECKS, &json!({})).waiting > 0 {
        let before = taken.burnt;
        taken.add(&vm.act("crank.test", method::CHECK, json!({})).expect("a check can always be continued"));
        // A call's first 3 Tgas are for what is no part of the check.
        taken.prepaid += (taken.burnt - before).saturating_sub(3);
        assert!(taken.calls < 500, "{taken:?}");
    }
    let (earned, price) = (vm.withdrawable("crank.test").0, Yocto::millinear(1).0 / 10);
    assert!(earned / price >= u128::from(taken.prepaid), "to the end: {taken:?}, {earned}");
    taken
}

#[test]
fn no_number_of_claims_stops_a_check() {
    let claims = 3_000;
    let (mut vm, ids) = parallel(claims);
    let (last, others) = ids.split_last().expect("channels");
    sever_all(&mut vm, others);
    let taken = cut_off(&mut vm, *last);
    assert_eq!((taken.claims, taken.reimbursed), (claims, claims as u128 * HALF.0));
    assert_eq!(vm.withdrawable(ANCHOR).0, claims as u128 * HALF.0);
}

/// Channels that are over and that nobody finalizes.
#[test]
fn penalties_that_are_over_cost_no_check_anything() {
    let channels = 3_000;
    let (mut vm, ids) = parallel(channels);
    let (last, others) = ids.split_last().expect("channels");
    let (late, early) = others.split_last().expect("channels");
    sever_all(&mut vm, early);
    vm.now_ms += params().reimbursement_ms;
    sever_all(&mut vm, &[*late]);
    let taken = cut_off(&mut vm, *last);
    assert_eq!(taken.claims, 2);
    // The next one is as cheap as the first of a network.
    let id = vm.open(ANCHOR, "a.test", Yocto::ZERO, Yocto::ZERO);
    let taken = cut_off(&mut vm, id);
    assert!(taken.calls == 1 && taken.burnt < 10, "{taken:?}");
}
