//! A silent neighbour is asked over other routes by who has severed it.

use por_core::testing::{ANSWER_PRICE, Options, Outcome, World};
use por_core::types::{ChannelId, Yocto};
use por_core::{Event, Policy, Pursue, PursuitEnd};

/// Host 2 has the neighbours 1, 3, 4 and 5, which reach each other without it; 0 asks 5 through it.
const PAIRS: [(usize, usize); 8] = [(0, 1), (1, 2), (2, 3), (2, 4), (2, 5), (1, 3), (3, 4), (4, 5)];
const OF_2: [usize; 4] = [2, 3, 4, 5];

const WINDOW_MS: u64 = 120_000;

fn options(budget: u128, max_requests: u32) -> Options {
    let mut options = Options::new(3);
    options.late_fee = Some(Yocto(1));
    options.slack_ms = 0;
    options.bond = Yocto(1_000_000_000);
    options.chain_ms = 500;
    // A relay acknowledges once the next node has, and is silent after it.
    options.app_ms = Some(100);
    let pursuit = Some(Pursue { budget: Yocto(budget), max_requests, window_ms: WINDOW_MS });
    options.policies.insert(1, Policy { pursuit, ..Policy::default() });
    options
}

/// What host 0 asks of host 5 meets a host 2 that falls silent once it has acknowledged.
fn silent(mut options: Options) -> World {
    options.mute_after_ack.insert(2);
    let mut world = World::new(options, 6, &PAIRS);
    world.run(500);
    let token = world.request(&[0, 1, 2, 5], 100, 200);
    world.run(8_000);
    assert_eq!(outcome(&world, token), Some(ChannelId(2)));
    world
}

fn outcome(world: &World, token: u64) -> Option<ChannelId> {
    match world.outcome(token)? {
        Outcome::Severed(channel, _) => Some(channel),
        _ => None,
    }
}

fn ends(world: &World) -> Vec<PursuitEnd> {
    let end = |event: &Event| if let Event::Pursued { end, .. } = event { Some(*end) } else { None };
    world.events(1).iter().filter_map(end).collect()
}

fn severed(world: &World) -> Vec<usize> {
    world.severed.keys().map(|channel| channel.0 as usize).collect()
}

#[test]
fn every_neighbour_of_a_silent_node_finds_it_silent_until_it_is_isolated() {
    for seed in 1..=12 {
        let mut world = silent(Options { seed, ..options(1_000_000_000, 20) });
        world.run(WINDOW_MS);
        assert_eq!(severed(&world), OF_2, "seed {seed}");
        assert_eq!(ends(&world), [PursuitEnd::Isolated], "seed {seed}");
        let signer = |key| (0..6).find(|host| world.key(*host) == key).expect("a host");
        let signers: Vec<usize> = world.severed.values().map(|(_, order)| signer(order.signer)).collect();
        assert_eq!(signers, [1, 3, 4, 5], "seed {seed}");
        for host in [0, 1, 3, 4, 5] {
            let leaks = world.hosts[host].node.as_ref().map(|node| node.leaks());
            assert_eq!(leaks, Some(vec![]), "seed {seed}, host {host}");
        }
    }
}

#[test]
fn a_node_that_is_gone_is_isolated_too() {
    let mut world = World::new(options(1_000_000_000, 20), 6, &PAIRS);
    world.options.app_ms = Some(5_000);
    world.run(500);
    let token = world.request(&[0, 1, 2, 5], 100, 200);
    world.run(200);
    world.kill(2);
    world.run(WINDOW_MS);
    assert_eq!(outcome(&world, token), Some(ChannelId(2)));
    assert_eq!(severed(&world), OF_2);
    assert_eq!(ends(&world), [PursuitEnd::Isolated]);
}

#[test]
fn a_pursuit_survives_crashes() {
    for after in [0, 400, 900, 1_800, 3_000, 5_000, 9_000] {
        let mut world = silent(options(1_000_000_000, 20));
        world.run(after);
        world.crash(1);
        world.run(WINDOW_MS);
        let told: Vec<_> = world.events(1).iter().filter(|e| !matches!(e, Event::PaidLate { .. })).collect();
        assert_eq!(ends(&world), [PursuitEnd::Isolated], "crash after {after} ms: {told:#?}");
        assert_eq!(severed(&world), OF_2, "crash after {after} ms");
    }
}

#[test]
fn the_end_of_a_pursuit_is_told_whatever_a_crash_cuts_off() {
    let mut clean = silent(options(1_000_000_000, 20));
    let begun = clean.hosts[1].outputs;
    clean.run(WINDOW_MS);
    assert_eq!(ends(&clean), [PursuitEnd::Isolated]);
    let outputs = clean.hosts[1].outputs;
    assert!(outputs > begun + 20, "{begun} to {outputs}");
    for boundary in begun..outputs {
        let mut world = silent(options(1_000_000_000, 20));
        world.crash_at = Some((1, boundary));
        world.run(WINDOW_MS);
        let told = ends(&world);
        // Perhaps once more after the crash.
        let isolated = told.iter().all(|end| *end == PursuitEnd::Isolated);
        assert!(isolated && matches!(told.len(), 1..=2), "crash before output {boundary}: {told:?}");
    }
}

#[test]
fn without_a_policy_nobody_is_pursued() {
    let mut options = options(0, 0);
    options.policies.clear();
    let mut world = silent(options);
    world.run(WINDOW_MS);
    // Host 5 has its answer left on its hands.
    assert_eq!((severed(&world), ends(&world)), (vec![2, 5], vec![]));
}

#[test]
fn a_pursuit_spends_no_more_than_its_budget_and_requests() {
    let mut world = silent(options(1_000_000_000, 1));
    world.run(2 * WINDOW_MS);
    assert_eq!(ends(&world), [PursuitEnd::Spent]);
    assert_eq!(severed(&world), [2, 3, 5], "one request, one neighbour more");
    // Less than the cheapest route costs: nothing is spent, and it ends with its window.
    let mut world = silent(options(ANSWER_PRICE.0, 20));
    let paid = |world: &World| {
        let channels = world.hosts[1].node.as_ref().map(|node| node.channels()).unwrap_or_default();
        channels.iter().map(|channel| channel.totals.sent_by(channel.side).0).sum::<u128>()
    };
    let before = paid(&world);
    world.run(2 * WINDOW_MS);
    assert_eq!((severed(&world), ends(&world)), (vec![2, 5], vec![PursuitEnd::TimedOut]));
    assert_eq!(paid(&world), before);
}

#[test]
fn a_node_that_cannot_be_reached_over_one_edge_answers_over_another() {
    let mut options = options(1_000_000_000, 20);
    options.slack_ms = 500;
    let mut world = World::new(options, 6, &PAIRS);
    world.run(500);
    let token = world.request(&[0, 1, 2, 5], 100, 200);
    world.run(25);
    world.part(1, 2);
    world.run(WINDOW_MS);
    assert_eq!(outcome(&world, token), Some(ChannelId(2)));
    assert_eq!(severed(&world), [2], "the broken edge alone");
    let ends = ends(&world);
    assert!(matches!(ends[..], [PursuitEnd::Answered { .. }]), "{ends:?}");
}
