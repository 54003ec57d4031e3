//! The states of a bounty: money is conserved by every step, and everybody can get out.

use por_bounty::bounty::{Attached, Bounty, Downtime};
use por_bounty::interface::{CHECK_TIMEOUT_MS, GIVE_UP_MS, Outcome, STORAGE, Stage, code};
use por_types::{NodeKey, RequestId, Yocto};
use proptest::prelude::*;

const REWARD: Yocto = Yocto(500);
const COLLATERAL: Yocto = Yocto(3_000);
const ANSWER_MS: u64 = 60_000;
const START: u64 = 1_000_000;

fn offered() -> Bounty {
    Bounty {
        request: RequestId([1; 32]),
        client: "client.near".parse().expect("account"),
        server: "server.near".parse().expect("account"),
        node_key: NodeKey([2; 32]),
        reward: REWARD,
        collateral: COLLATERAL,
        answer_ms: ANSWER_MS,
        show_body: false,
        stage: Stage::Offered,
        attempts: 0,
        owed_client: Yocto::ZERO,
        owed_server: Yocto::ZERO,
        paying: 0,
    }
}

fn good(final_until_ms: u64) -> Option<Attached> {
    Some(Attached { attached: true, right_key: true, final_until_ms })
}

fn active() -> Bounty {
    let mut bounty = offered();
    let attempt = bounty.accept(START).expect("offered");
    assert_eq!(bounty.judge_acceptance(attempt, good(START)), Ok(true));
    bounty
}

fn downtime(isolated_ms: u64, final_until_ms: u64) -> Option<Downtime> {
    Some(Downtime { isolated_ms, final_until_ms })
}

/// What is owed, and that nothing else is left in the bounty.
fn owed(bounty: &Bounty) -> (Yocto, Yocto) {
    assert!(matches!(bounty.stage, Stage::Done { .. }));
    (bounty.owed_client, bounty.owed_server)
}

fn sum(parts: &[Yocto]) -> Yocto {
    Yocto::checked_sum(parts.iter().copied()).expect("fits")
}

#[test]
fn only_a_certain_attachment_of_the_right_node_binds_the_server() {
    let bad = [
        None,
        Some(Attached { attached: false, right_key: true, final_until_ms: START }),
        Some(Attached { attached: true, right_key: false, final_until_ms: START }),
        // A check of a close before the acceptance is still pending.
        Some(Attached { attached: true, right_key: true, final_until_ms: START - 1 }),
    ];
    for answer in bad {
        let mut bounty = offered();
        let attempt = bounty.accept(START).expect("offered");
        assert_eq!(bounty.judge_acceptance(attempt, answer), Ok(false), "{answer:?}");
        assert_eq!((bounty.stage, bounty.owed_server), (Stage::Offered, COLLATERAL));
        // It may try again, and what it is owed stays owed.
        let again = bounty.accept(START + 1).expect("offered");
        assert_eq!(bounty.judge_acceptance(attempt, good(START + 9)), Ok(false), "a late answer");
        assert_eq!(bounty.judge_acceptance(again, good(START + 9)), Ok(true));
        let deadline_ms = START + 9 + ANSWER_MS;
        assert_eq!(bounty.stage, Stage::Active { since_ms: START + 9, deadline_ms });
        assert_eq!(bounty.held(), Ok(sum(&[STORAGE, REWARD, COLLATERAL, COLLATERAL])));
    }
}

#[test]
fn an_answer_earns_reward_and_collateral_until_the_deadline() {
    let mut bounty = active();
    bounty.answered(START + ANSWER_MS - 1).expect("in time");
    assert_eq!(owed(&bounty), (STORAGE, sum(&[REWARD, COLLATERAL])));
    assert_eq!(bounty.answered(START).map_err(|refusal| refusal.code), Err(code::STATE), "once only");

    let late = active().answered(START + ANSWER_MS);
    assert_eq!(late.map_err(|refusal| refusal.code), Err(code::TOO_LATE));
    let unbound = offered().answered(START);
    assert_eq!(unbound.map_err(|refusal| refusal.code), Err(code::STATE));
}

#[test]
fn isolation_is_the_servers_loss_at_once() {
    let mut bounty = active();
    let now = START + 10;
    assert_eq!(bounty.asked_time(now), Ok((START, now)));
    assert_eq!(bounty.judge_downtime(now, downtime(1, START), now), Ok(Some(Outcome::Isolated)));
    assert_eq!(owed(&bounty), (sum(&[REWARD, COLLATERAL, STORAGE]), Yocto::ZERO));
}

#[test]
fn time_after_the_deadline_is_not_asked_about() {
    let deadline = START + ANSWER_MS;
    assert_eq!(active().asked_time(deadline + 1), Ok((START, deadline)));
}

#[test]
fn without_isolation_it_expires_once_that_is_certain() {
    let deadline = START + ANSWER_MS;
    let undecided = [
        // Before the deadline; after it, but asked before; with a check pending; without answer.
        (deadline - 1, downtime(0, deadline - 1), deadline - 1),
        (deadline - 1, downtime(0, deadline + 5), deadline + 5),
        (deadline, downtime(0, deadline - 1), deadline + 5),
        (deadline, None, deadline + 5),
        (deadline, None, deadline + GIVE_UP_MS - 1),
    ];
    let mut bounty = active();
    for (asked, answer, now) in undecided {
        assert_eq!(bounty.judge_downtime(asked, answer, now), Ok(None), "{asked} {answer:?} {now}");
    }
    let mut forsaken = bounty.clone();
    assert_eq!(bounty.judge_downtime(deadline, downtime(0, deadline), deadline), Ok(Some(Outcome::Expired)));
    assert_eq!(forsaken.judge_downtime(deadline, None, deadline + GIVE_UP_MS), Ok(Some(Outcome::Expired)));
    for bounty in [bounty, forsaken] {
        assert_eq!(owed(&bounty), (sum(&[REWARD, STORAGE]), COLLATERAL));
    }
}

#[test]
fn an_unanswered_acceptance_can_be_left_by_either_side() {
    let mut bounty = offered();
    let attempt = bounty.accept(START).expect("offered");
    let early = bounty.clone().release(START + CHECK_TIMEOUT_MS - 1);
    assert_eq!(early.map_err(|refusal| refusal.code), Err(code::TOO_EARLY));
    let mut cancelled = bounty.clone();
    cancelled.cancel().expect("not bound yet");
    assert_eq!(owed(&cancelled), (sum(&[REWARD, STORAGE]), COLLATERAL));
    assert_eq!(cancelled.judge_acceptance(attempt, good(START)), Ok(false), "it comes too late");

    bounty.release(START + CHECK_TIMEOUT_MS).expect("long enough");
    assert_eq!((bounty.stage, bounty.owed_server), (Stage::Offered, COLLATERAL));
    assert_eq!(active().cancel().map_err(|refusal| refusal.code), Err(code::STATE), "bound");
}

#[derive(Clone, Debug)]
enum Step {
    Cancel,
    Accept,
    Acceptance(u32, Option<(bool, bool, u64)>),
    Release,
    Answer,
    Downtime(Option<(u64, u64)>),
    Collect,
    Paid(bool),
    Wait(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let time = || 0..2 * ANSWER_MS;
    prop_oneof![
        Just(Step::Cancel),
        Just(Step::Accept),
        (0..4u32, proptest::option::of((any::<bool>(), any::<bool>(), time())))
            .prop_map(|(attempt, answer)| Step::Acceptance(attempt, answer)),
        Just(Step::Release),
        Just(Step::Answer),
        proptest::option::of((0..2u64, time())).prop_map(Step::Downtime),
        Just(Step::Collect),
        any::<bool>().prop_map(Step::Paid),
        prop_oneof![0..ANSWER_MS, Just(CHECK_TIMEOUT_MS), Just(GIVE_UP_MS)].prop_map(Step::Wait),
    ]
}

proptest! {
    #[test]
    fn every_step_conserves_money_and_an_exit_remains(steps in proptest::collection::vec(step(), 1..40)) {
        let mut bounty = offered();
        let mut now = START;
        // What came in, what is under way and what arrived.
        let (mut inflow, mut arrived) = (sum(&[STORAGE, REWARD]), Yocto::ZERO);
        let mut under_way: Vec<(bool, Yocto)> = Vec::new();
        for step in steps {
            match step {
                Step::Cancel => { let _ = bounty.cancel(); }
                Step::Accept => if bounty.accept(now).is_ok() {
                    inflow = sum(&[inflow, COLLATERAL]);
                },
                Step::Acceptance(attempt, answer) => {
                    let answer = answer.map(|(attached, right_key, at)| Attached {
                        attached, right_key, final_until_ms: START + at,
                    });
                    let _ = bounty.judge_acceptance(attempt, answer);
                }
                Step::Release => { let _ = bounty.release(now); }
                Step::Answer => { let _ = bounty.answered(now); }
                Step::Downtime(answer) => if let Ok((_, to_ms)) = bounty.asked_time(now) {
                    let answer = answer.and_then(|(isolated, at)| downtime(isolated, START + at));
                    let _ = bounty.judge_downtime(to_ms, answer, now);
                },
                Step::Collect => if let Ok((client, server)) = bounty.collect() {
                    let paid = [(true, client), (false, server)];
                    under_way.extend(paid.into_iter().filter(|(_, amount)| !amount.is_zero()));
                },
                Step::Paid(ok) => if let Some((to_client, amount)) = under_way.pop() {
                    bounty.paid(to_client, amount, ok).expect("sums fit");
                    if ok { arrived = sum(&[arrived, amount]); }
                },
                Step::Wait(ms) => now += ms,
            }
            let moving = under_way.iter().map(|(_, amount)| *amount);
            let all = sum(&[bounty.held().expect("fits"), arrived, Yocto::checked_sum(moving).expect("fits")]);
            prop_assert_eq!(all, inflow);
            prop_assert_eq!(bounty.paying as usize, under_way.len());
        }
        // Whatever happened: time and the calls that anybody can make bring all money out.
        now += CHECK_TIMEOUT_MS;
        let _ = bounty.release(now);
        if matches!(bounty.stage, Stage::Active { .. }) {
            now += ANSWER_MS + GIVE_UP_MS;
            bounty.judge_downtime(now, None, now).expect("sums fit");
        }
        let _ = bounty.cancel();
        for (to_client, amount) in under_way {
            bounty.paid(to_client, amount, false).expect("sums fit");
        }
        if let Ok((client, server)) = bounty.collect() {
            arrived = sum(&[arrived, client, server]);
            for amount in [client, server] {
                if !amount.is_zero() {
                    bounty.paid(true, amount, true).expect("sums fit");
                }
            }
        }
        prop_assert!(bounty.is_over(), "{:?}", bounty);
        prop_assert_eq!(arrived, inflow);
    }
}
