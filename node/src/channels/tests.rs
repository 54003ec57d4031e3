use por_core::ChannelSnapshot;
use por_types::interface::{ChannelStatus, ChannelView};
use por_types::{ChannelId, ChannelState, Hash, Network, NodeSecret, Side, Signed, Terms, Totals, Yocto};

use super::decide::{Action, Situation, decide};
use crate::config::PolicyConfig;

fn totals(sent_a: u128, sent_b: u128) -> Totals {
    Totals { sent_a: Yocto(sent_a), sent_b: Yocto(sent_b) }
}

fn view(status: ChannelStatus) -> ChannelView {
    let key = |seed| NodeSecret::from_seed(&[seed; 32]).public();
    ChannelView {
        channel: ChannelId(7),
        a: "a.test".parse().expect("account"),
        b: "b.test".parse().expect("account"),
        key_a: key(1),
        key_b: key(2),
        deposit_a: Yocto(1000),
        deposit_b: Yocto(1000),
        drawn_a: Yocto::ZERO,
        drawn_b: Yocto::ZERO,
        bond: Yocto(10),
        totals: Totals::default(),
        terms: Terms {
            rtt_ms: 10,
            bytes_per_s: 1,
            base_fee: Yocto(1),
            byte_fee: Yocto(1),
            heartbeat_ms: 10,
            grace_ms: 10,
            max_requests: 1,
            max_bytes: 1,
        },
        sequence: 0,
        status,
    }
}

/// The ledger of side A: it has paid `sent_a` and been paid `sent_b`.
fn ledger(sent_a: u128, sent_b: u128, unfinished: u32) -> ChannelSnapshot {
    let secret = NodeSecret::from_seed(&[2; 32]);
    let network = Network { chain_id: "localnet".into(), contract: "por.test".parse().expect("account") };
    let state = ChannelState { channel: ChannelId(7), totals: totals(sent_a, sent_b), items: Hash([0; 32]) };
    let payment: Signed<ChannelState> = secret.sign(&network, state);
    ChannelSnapshot {
        channel: ChannelId(7),
        peer: secret.public(),
        side: Side::A,
        totals: totals(sent_a, sent_b),
        pending_out: Yocto::ZERO,
        pending_in: Yocto::ZERO,
        balance_mine: Yocto(1000),
        balance_theirs: Yocto(1000),
        unfinished,
        late_per_s: Yocto::ZERO,
        their_payment: Some(payment),
        their_receipt: None,
    }
}

struct Case<'c> {
    view: ChannelView,
    ledger: Option<&'c ChannelSnapshot>,
    close_wanted: bool,
    stated: Option<Totals>,
    now_ms: u64,
}

/// Of side A, with nothing asked for.
fn situation<'s>(
    view: &'s ChannelView,
    ledger: Option<&'s ChannelSnapshot>,
    policy: &'s PolicyConfig,
) -> Situation<'s> {
    Situation {
        view,
        side: Side::A,
        ledger,
        close_wanted: false,
        stated: None,
        over: std::time::Duration::ZERO,
        now_ms: 0,
        policy,
        top_up_most: Some(Yocto::ZERO),
    }
}

fn next(case: Case<'_>) -> Option<Action> {
    let policy = PolicyConfig::default();
    let Case { view, ledger, close_wanted, stated, now_ms } = case;
    decide(&Situation { close_wanted, stated, now_ms, ..situation(&view, ledger, &policy) })
}

fn closing(by: Side, sent_a: u128, sent_b: u128, confirmed: bool) -> ChannelStatus {
    ChannelStatus::Closing { by, totals: totals(sent_a, sent_b), confirmed, closes_ms: 500 }
}

#[test]
fn a_close_waits_for_unfinished_exchanges_and_states_the_ledger() {
    let busy = ledger(5, 3, 1);
    let case = |ledger| Case {
        view: view(ChannelStatus::Open),
        ledger,
        close_wanted: true,
        stated: None,
        now_ms: 0,
    };
    assert_eq!(next(case(Some(&busy))), None);
    let quiet = ledger(5, 3, 0);
    assert_eq!(next(case(Some(&quiet))), Some(Action::RequestClose(totals(5, 3))));
    assert_eq!(next(case(None)), Some(Action::RequestClose(totals(0, 0))));
    let unasked = Case { close_wanted: false, ..case(Some(&quiet)) };
    assert_eq!(next(unasked), None);
}

#[test]
fn a_fair_request_is_confirmed_and_an_unfair_one_answered_once() {
    let ours = ledger(5, 3, 0);
    let case = |sent_a, sent_b, stated| Case {
        view: view(closing(Side::B, sent_a, sent_b, false)),
        ledger: Some(&ours),
        close_wanted: false,
        stated,
        now_ms: 0,
    };
    assert_eq!(next(case(5, 3, None)), Some(Action::ConfirmClose(totals(5, 3))));
    // The other side gives more than it has to.
    assert_eq!(next(case(4, 3, None)), Some(Action::ConfirmClose(totals(4, 3))));
    // It forgets what it paid, or claims more than it was paid.
    assert_eq!(next(case(5, 2, None)), Some(Action::RequestClose(totals(5, 3))));
    assert_eq!(next(case(6, 3, None)), Some(Action::RequestClose(totals(5, 3))));
    assert_eq!(next(case(6, 3, Some(totals(5, 3)))), None);
}

#[test]
fn a_confirmed_close_takes_evidence_first_and_is_finalized_when_due() {
    let ours = ledger(5, 3, 0);
    let case = |by, sent_b, now_ms| Case {
        view: view(closing(by, 5, sent_b, true)),
        ledger: Some(&ours),
        close_wanted: true,
        stated: None,
        now_ms,
    };
    assert!(matches!(next(case(Side::A, 2, 499)), Some(Action::Evidence(args)) if args.signer == Side::B));
    assert_eq!(next(case(Side::A, 2, 500)), Some(Action::Finalize), "too late for evidence");
    assert_eq!(next(case(Side::A, 3, 499)), None);
    assert_eq!(next(case(Side::A, 3, 500)), Some(Action::Finalize));
    assert_eq!(next(case(Side::B, 3, 500)), None, "the side that asked goes first");
    assert_eq!(next(case(Side::B, 3, 500 + 15_000)), Some(Action::Finalize));
}

#[test]
fn bonds_are_fetched_and_then_nothing_is_left() {
    let closed = |bonds_until_ms| Case {
        view: view(ChannelStatus::Closed {
            paid_a: Yocto(1),
            paid_b: Yocto(1),
            bonds_until_ms,
            severed: false,
        }),
        ledger: None,
        close_wanted: false,
        stated: None,
        now_ms: 1000,
    };
    assert_eq!(next(closed(Some(1000))), Some(Action::Finalize));
    assert_eq!(next(closed(Some(1001))), None);
    assert_eq!(next(closed(None)), None);
}

#[test]
fn proposals_are_confirmed_only_where_the_policy_says_so() {
    let proposal = view(ChannelStatus::Proposed);
    let decide_with =
        |policy: &PolicyConfig, side| decide(&Situation { side, ..situation(&proposal, None, policy) });
    let off = PolicyConfig::default();
    assert_eq!(decide_with(&off, Side::B), None);
    let on = PolicyConfig { auto_confirm: true, confirm_deposit: Yocto(9), ..off.clone() };
    assert_eq!(decide_with(&on, Side::B), Some(Action::Confirm { deposit: Yocto(9) }));
    assert_eq!(decide_with(&on, Side::A), None, "one's own proposal");
    let others = PolicyConfig { confirm_accounts: vec!["c.test".parse().expect("account")], ..on };
    assert_eq!(decide_with(&others, Side::B), None);
}

#[test]
fn the_proposer_forgets_what_has_been_over_for_long_enough() {
    let policy = PolicyConfig::default();
    let over_for = |view: &ChannelView, side, ledger: Option<&ChannelSnapshot>, over| {
        decide(&Situation { side, over, now_ms: 1_000, ..situation(view, ledger, &policy) })
    };
    let long = policy.forget_after();
    let closed = view(ChannelStatus::Closed {
        paid_a: Yocto(1),
        paid_b: Yocto(1),
        bonds_until_ms: None,
        severed: true,
    });
    for view in [&closed, &view(ChannelStatus::Cancelled)] {
        assert_eq!(over_for(view, Side::A, None, long), Some(Action::Forget));
        assert_eq!(over_for(view, Side::A, None, long - std::time::Duration::from_millis(1)), None);
        assert_eq!(over_for(view, Side::B, None, long), None, "the deposit is the proposer's");
        let busy = ledger(5, 3, 1);
        assert_eq!(over_for(view, Side::A, Some(&busy), long), None, "an exchange has no outcome yet");
    }
}

#[test]
fn only_a_close_that_takes_the_edge_attaches_the_deposit_of_its_check() {
    let deposit = Yocto::near(1);
    let severed = ChannelStatus::Severed { by: Side::A, severed_ms: 0, settles_ms: 5 };
    for (status, attached) in [(closing(Side::A, 1, 1, true), deposit), (severed, Yocto::ZERO)] {
        let call = Action::Finalize.call(&view(status), deposit).expect("fits");
        assert_eq!((call.method(), call.attached()), ("finalize", attached));
    }
}

#[test]
fn what_was_added_counts_as_soon_as_the_chain_shows_it() {
    let policy = PolicyConfig { late_top_up: Yocto(1_000_000), ..PolicyConfig::default() };
    // 960 of the 1000 that the chain shows are spent, for 10 a second; the snapshot may be from before it showed more.
    let passing = ChannelSnapshot { late_per_s: Yocto(10), pending_in: Yocto(20), ..ledger(960, 0, 1) };
    let with = |deposit: u128, most: Option<u128>, close_wanted| {
        let view = ChannelView { deposit_a: Yocto(deposit), ..view(ChannelStatus::Open) };
        let top_up_most = most.map(Yocto);
        let situation = Situation { close_wanted, top_up_most, ..situation(&view, Some(&passing), &policy) };
        (decide(&situation), situation.runs_dry())
    };
    let added = |amount| Some(Action::TopUp { amount: Yocto(amount) });
    assert_eq!(with(1_000, Some(1_000_000), false), (added(100_000), false));
    assert_eq!(
        with(1_000, Some(400), true),
        (added(400), false),
        "lateness goes on while a close waits for it"
    );
    assert_eq!(with(1_000 + 579, Some(1_000_000), false), (added(100_000), false));
    assert_eq!(with(1_000 + 580, Some(1_000_000), false), (None, false), "it lasts for a minute");
    assert_eq!(with(1_000, Some(0), false), (None, true), "no more may be added");
    assert_eq!(with(1_000, None, false), (None, false), "the limit is not the reason");
}
