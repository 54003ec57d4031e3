//! Acts of both sides: draws and new terms (protocol section 2).

use por_types::interface::{code, method};
use por_types::{ChannelId, Draw, NewTerms, Signed, Statement, Totals, Yocto};
use serde::Serialize;
use serde_json::{Value, json};

use super::harness::{Vm, network, refused, secret, state, terms, totals};

const NEAR: u128 = Yocto::ONE_NEAR.0;
const ALICE: &str = "alice.test";
const BOB: &str = "bob.test";

fn opened() -> (Vm, ChannelId) {
    let mut vm = Vm::with_nodes(&[ALICE, BOB]);
    let id = vm.open(ALICE, BOB, Yocto::near(4), Yocto::near(1));
    (vm, id)
}

fn both<T: Statement + Serialize + Clone>(name: &str, statement: T) -> Value {
    let sign = |by: &str| -> Signed<T> { secret(by).sign(&network(), statement.clone()) };
    let (a, b) = (sign(ALICE), sign(BOB));
    json!({ name: statement, "signature_a": a.signature, "signature_b": b.signature })
}

fn draw(vm: &Vm, channel: ChannelId, sequence: u64, totals: Totals, a: u128, b: u128) -> Draw {
    let expires_ms = vm.now_ms + 1_000;
    Draw { channel, sequence, expires_ms, totals, draw_a: Yocto(a), draw_b: Yocto(b) }
}

fn submit(vm: &mut Vm, draw: &Draw) -> Result<(), String> {
    vm.act("anyone.test", method::DRAW, both("draw", draw.clone())).map(drop)
}

#[test]
fn earnings_leave_an_open_channel_and_settlement_accounts_for_them() {
    let (mut vm, id) = opened();
    // Bob has earned two and takes them and half of his deposit; Alice takes one.
    let act = draw(&vm, id, 1, totals(2 * NEAR, 0), NEAR, 2 * NEAR + NEAR / 2);
    submit(&mut vm, &act).expect("draw");
    assert_eq!(vm.withdrawable(ALICE), Yocto::near(1));
    assert_eq!(vm.withdrawable(BOB), Yocto(2 * NEAR + NEAR / 2));
    let view = vm.channel(id);
    assert_eq!((view.sequence, view.totals), (1, totals(2 * NEAR, 0)));
    assert_eq!((view.drawn_a, view.drawn_b), (Yocto::near(1), Yocto(2 * NEAR + NEAR / 2)));

    // Nothing below the draw's totals counts any more, and the rest is divided by them.
    let close = json!({ "channel": id, "totals": totals(NEAR, 0) });
    refused(vm.act(ALICE, method::REQUEST_CLOSE, close), code::TOTALS_BELOW_PROVEN);
    let close = json!({ "channel": id, "totals": totals(2 * NEAR, 0) });
    vm.act(ALICE, method::REQUEST_CLOSE, close.clone()).expect("request");
    vm.act(BOB, method::CONFIRM_CLOSE, close).expect("confirm");
    let old = json!({ "state": state(ALICE, id, totals(NEAR, 0)), "signer": "a" });
    refused(vm.act(BOB, method::SUBMIT_STATE, old), code::NOTHING_NEW);
    vm.now_ms += super::harness::params().notice_ms;
    vm.act(BOB, method::FINALIZE, json!({ "channel": id })).expect("finalize");
    assert_eq!(vm.withdrawable(ALICE), Yocto::near(2));
    assert_eq!(vm.withdrawable(BOB), Yocto::near(3));
}

#[test]
fn a_draw_counts_once_in_order_and_in_time() {
    let (mut vm, id) = opened();
    let first = draw(&vm, id, 1, totals(NEAR, 0), 0, NEAR);
    let second = draw(&vm, id, 2, totals(NEAR, 0), 0, NEAR);
    refused(submit(&mut vm, &second), code::SEQUENCE);
    submit(&mut vm, &first).expect("draw");
    refused(submit(&mut vm, &first), code::SEQUENCE);
    let late = draw(&vm, id, 2, totals(NEAR, 0), 0, 1);
    vm.now_ms = late.expires_ms + 1;
    refused(submit(&mut vm, &late), code::EXPIRED);
    assert_eq!(vm.withdrawable(BOB), Yocto::near(1));
}

#[test]
fn a_draw_takes_no_more_than_its_side_has() {
    let (mut vm, id) = opened();
    for (a, b) in [(3 * NEAR + 1, 0), (0, 2 * NEAR + 1), (u128::MAX, u128::MAX), (u128::MAX, 0)] {
        let act = draw(&vm, id, 1, totals(NEAR, 0), a, b);
        let message = submit(&mut vm, &act).expect_err("more than there is");
        assert!(message.contains(code::TOTALS_EXCEED_POT) || message.contains(code::OVERFLOW), "{message}");
    }
    let act = draw(&vm, id, 1, totals(NEAR, 0), 3 * NEAR, 2 * NEAR);
    submit(&mut vm, &act).expect("everything");
    assert_eq!(vm.books().deposits, Yocto::ZERO);
}

#[test]
fn an_act_needs_both_signatures_of_exactly_these_values() {
    let (mut vm, id) = opened();
    let act = draw(&vm, id, 1, totals(NEAR, 0), 0, NEAR);
    let args = both("draw", act.clone());
    let mut swapped = args.clone();
    swapped["signature_a"] = args["signature_b"].clone();
    refused(vm.act(BOB, method::DRAW, swapped), code::SIGNATURE);
    let mut raised = args.clone();
    raised["draw"]["draw_b"] = json!(Yocto(NEAR + 1));
    refused(vm.act(BOB, method::DRAW, raised), code::SIGNATURE);
    let other = vm.open(ALICE, BOB, Yocto::near(4), Yocto::near(1));
    let mut moved = args;
    moved["draw"]["channel"] = json!(other);
    refused(vm.act(BOB, method::DRAW, moved), code::SIGNATURE);
}

#[test]
fn acts_end_when_the_channel_closes() {
    let (mut vm, id) = opened();
    let act = draw(&vm, id, 1, totals(NEAR, 0), 0, NEAR);
    let close = json!({ "channel": id, "totals": totals(0, 0) });
    vm.act(ALICE, method::REQUEST_CLOSE, close.clone()).expect("request");
    vm.act(BOB, method::CONFIRM_CLOSE, close).expect("confirm");
    refused(submit(&mut vm, &act), code::NOT_OPEN);
}

#[test]
fn terms_are_replaced_without_closing() {
    let (mut vm, id) = opened();
    let mut dearer = terms();
    dearer.base_fee = Yocto(77);
    let act = NewTerms {
        channel: id,
        sequence: 1,
        expires_ms: vm.now_ms,
        totals: totals(NEAR, 0),
        terms: dearer.clone(),
    };
    vm.act("anyone.test", method::REPLACE_TERMS, both("act", act.clone())).expect("replace");
    let view = vm.channel(id);
    assert_eq!((view.terms, view.totals, view.sequence), (dearer, totals(NEAR, 0), 1));
    let mut broken = NewTerms { sequence: 2, ..act };
    broken.terms.rtt_ms = 0;
    refused(vm.act(ALICE, method::REPLACE_TERMS, both("act", broken)), code::ARGUMENT);
}
