//! Whole networks: happy paths, then everything that can go wrong at once.

use por_core::testing::scenario::{self, Setup};
use por_core::testing::{Faults, Options, Outcome, World};
use por_core::types::{ChannelId, Yocto};
use por_core::{Command, Input, Node};

fn check(world: &World, what: &str) -> por_core::testing::Report {
    let report = world.audit();
    let seed = world.options.seed;
    assert!(report.violations.is_empty(), "{what}, seed {seed}: {:#?}", report.violations);
    report
}

#[test]
fn small_requests_pass_two_relays_and_are_paid_exactly() {
    let mut world = World::line(Options::new(1), 4);
    world.run(1000);
    for _ in 0..50 {
        world.request(&[0, 1, 2, 3], 200, 500);
    }
    world.run(10_000);
    let report = check(&world, "small");
    assert_eq!(report.responses, 50);
}

#[test]
fn big_bodies_pass_relays_both_ways() {
    let mut world = World::line(Options::new(2), 4);
    world.run(1000);
    for i in 0..10 {
        world.request(&[0, 1, 2, 3], 300_000 + i * 1000, 700_001);
    }
    world.request(&[3, 2, 1, 0], 20, 3_000_000);
    world.run(100_000);
    let report = check(&world, "big");
    assert_eq!(report.responses, 11);
}

fn sweep(name: &str, seeds: std::ops::Range<u64>, faults: Faults) {
    let mut total = (0, 0);
    for seed in seeds {
        let setup = Setup::new(faults);
        let world = scenario::random(seed, &if seed % 4 == 0 { setup.tight() } else { setup });
        let report = check(&world, name);
        total = (total.0 + report.responses, total.1 + report.requests);
    }
    assert!(total.0 * 4 > total.1, "{name}: hardly anything was answered: {total:?}");
}

#[test]
fn connections_break_and_frames_are_repeated() {
    sweep("cuts", 100..112, Faults { cut: 8, duplicate: 50, second: 500, crash: 0 });
}

#[test]
fn hosts_crash_between_any_two_outputs() {
    sweep("crashes", 200..212, Faults { cut: 0, duplicate: 0, second: 0, crash: 6 });
}

#[test]
fn everything_at_once() {
    sweep("all", 300..312, Faults { cut: 5, duplicate: 30, second: 300, crash: 4 });
}

/// A run without other faults, repeated with a crash before each single output of each host.
#[test]
fn a_crash_before_any_single_output_loses_nothing() {
    let seed = 400;
    let clean = scenario::random(seed, &Setup::new(Faults::default()));
    check(&clean, "clean");
    let outputs: Vec<u64> = clean.hosts.iter().map(|host| host.outputs).collect();
    let mut visited = 0;
    for (host, outputs) in outputs.into_iter().enumerate() {
        for boundary in (0..outputs).step_by(23) {
            let setup = Setup { crash_at: Some((host, boundary)), ..Setup::new(Faults::default()) };
            let world = scenario::random(seed, &setup);
            check(&world, &format!("crash of host {host} before output {boundary}"));
            visited += 1;
        }
    }
    assert!(visited > 40, "{visited} boundaries");
}

/// Seeds of `por-sim smoke` that once failed, with its mix of faults.
#[test]
fn seeds_that_once_failed() {
    let crash = Faults { crash: 4, ..Faults::default() };
    let runs = [
        // A response that changed after a crash met credit for the one before it.
        (1101, Faults { duplicate: 40, second: 300, ..crash }),
        // A refund was signed between the session's Sync and its opening.
        (2019, Faults { cut: 6, ..crash }),
        // Credit was taken back while bytes that had used it were under way.
        (5327, Faults { cut: 6, duplicate: 40, second: 300, ..crash }),
        // Credit for an upload came between the peer's answer and the opening of the session.
        (10127, Faults { cut: 6, duplicate: 40, second: 300, ..crash }),
        (10345, Faults { second: 300, ..crash }),
        // A node that restarted met bytes for which the one before had given credit.
        (22759, Faults { cut: 6, duplicate: 40, ..crash }),
        // A peer's answer to Sync took back credit that it had given since.
        (23975, Faults { cut: 6, duplicate: 40, ..crash }),
    ];
    for (seed, faults) in runs {
        check(&scenario::random(seed, &Setup::new(faults)), "once failed");
    }
}

/// Whose edges were severed, and by whom, once a request along four hosts met this author.
fn severed_for(change: impl FnOnce(&mut World), reply: u64) -> Vec<(ChannelId, usize)> {
    let mut options = Options::new(7);
    options.late_fee = Some(Yocto(1));
    options.app_ms = Some(500);
    options.slack_ms = 1_000;
    let mut world = World::line(options, 4);
    world.run(500);
    world.request(&[0, 1, 2, 3], 100, reply);
    world.run(200);
    change(&mut world);
    world.run(120_000);
    for host in &world.hosts[1..] {
        assert_eq!(host.node.as_ref().map(Node::leaks), Some(vec![]), "host {}", host.index);
    }
    let signer = |key| (0..4).find(|host| world.key(*host) == key).expect("a host");
    world.severed.iter().map(|(id, (_, order))| (*id, signer(order.signer))).collect()
}

#[test]
fn an_author_that_is_gone_for_good_costs_its_own_edge_alone() {
    for reply in [100, 300_000] {
        assert_eq!(severed_for(|world| world.kill(0), reply), [(ChannelId(1), 1)], "{reply}");
    }
}

#[test]
fn an_author_that_takes_no_response_costs_its_own_edge_alone() {
    let stingy = |world: &mut World| {
        world.options.stingy.insert(0);
    };
    for reply in [100, 300_000] {
        let severed = severed_for(stingy, reply);
        // Its own core is not told that its credit is held back, and may be the first to blame.
        let channels: Vec<ChannelId> = severed.into_iter().map(|(channel, _)| channel).collect();
        assert_eq!(channels, [ChannelId(1)], "{reply}");
    }
}

#[test]
fn who_comes_back_in_time_gets_its_answer_and_is_not_severed() {
    for reply in [100, 300_000] {
        assert_eq!(severed_for(|world| world.crash(0), reply), [], "{reply}");
    }
}

/// Each end of a channel learns of it at another moment, longer apart than silence is borne. Nobody is
/// asked for what it cannot know of, so nobody is severed for not answering.
#[test]
fn ends_that_see_a_channel_at_different_times_lose_nothing() {
    let mut answered = 0;
    for seed in 1..=10 {
        let options = Options { lag_ms: 20_000, ..Options::new(seed) };
        let mut world = World::line(options, 4);
        for quarter in 1..=100 {
            world.run_until(quarter * 250);
            world.request(&[0, 1, 2, 3], 200, 500);
            world.request(&[2, 1, 0], 200, 500);
        }
        world.run(30_000);
        let report = check(&world, "lag");
        assert!(world.severed.is_empty(), "seed {seed}: {:?}", world.severed);
        answered += report.responses;
    }
    assert!(answered > 100, "{answered} of 2000 were answered");
}

/// A process that was stopped, or whose disk hung, reads first what others have said meanwhile.
#[test]
fn a_host_that_stood_still_blames_nobody() {
    for seed in 1..=10 {
        let mut world = World::line(Options { late_fee: Some(Yocto(1)), ..Options::new(seed) }, 4);
        world.run_until(1_000);
        for _ in 0..5 {
            world.request(&[0, 1, 2, 3], 200, 500);
        }
        // Under way.
        world.run_until(1_030 + seed * 5);
        world.stall(0, 4_000);
        world.run(60_000);
        let report = check(&world, "stall");
        assert!(world.severed.is_empty(), "seed {seed}: {:?}", world.severed);
        assert_eq!(report.responses, 5, "seed {seed}");
    }
}

/// Hosts crash, stand still, and take their time to read the chain when they start.
#[test]
fn hosts_that_read_the_chain_late_lose_nothing() {
    let mut answered = 0;
    for seed in 1..=10 {
        let fee = Some(Yocto(1));
        let mut world =
            World::line(Options { late_fee: fee, read_ms: 1_500, slack_ms: 200, ..Options::new(seed) }, 4);
        world.run_until(3_000);
        for round in 0..20 {
            for len in [200, 40_000] {
                world.request(&[0, 1, 2, 3], 200, len);
                world.request(&[3, 2, 1], len as usize, 500);
            }
            world.run_until(3_000 + round * 1_000 + world.now_ms() % 700);
            let host = ((seed + round * round) % 4) as usize;
            match (seed + round) % 4 {
                0 if host != 0 && host != 3 => world.crash(host),
                1 => world.stall(host, 1_000 + 100 * (seed % 10)),
                2 => {
                    world.links_between(host.min(2), host.min(2) + 1).into_iter().for_each(|id| world.cut(id))
                }
                _ => {}
            }
            world.run_until(3_000 + (round + 1) * 1_000);
        }
        world.run(600_000);
        let report = check(&world, "late readers");
        assert!(world.severed.is_empty(), "seed {seed}: {:?}", world.severed);
        for host in &world.hosts {
            assert_eq!(host.node.as_ref().map(Node::leaks), Some(vec![]), "seed {seed}, host {}", host.index);
        }
        answered += report.responses;
    }
    assert!(answered > 500, "{answered} of 800 were answered");
}

/// Each host learns of another late fee in its own time, long after some lateness was paid for.
#[test]
fn another_late_fee_severs_nobody() {
    const APP_MS: u64 = 300_000;
    for (before, after) in [(10, 100), (100, 10), (10, 0), (1, 0)] {
        for seed in 1..=3 {
            let mut options = Options::new(seed);
            options.late_fee = Some(Yocto(before));
            options.slack_ms = 0;
            options.app_ms = Some(APP_MS);
            let mut world = World::line(options, 4);
            world.run(500);
            let token = world.request(&[0, 1, 2, 3], 100, 100);
            world.run(APP_MS / 2);
            let mut hosts: Vec<usize> = (0..4).collect();
            while !hosts.is_empty() {
                let host = hosts.swap_remove(world.rng.below(hosts.len() as u64) as usize);
                world.input(host, Input::LateFee { per_ms: Yocto(after) });
                world.run(20_000);
            }
            world.run(2 * APP_MS);
            let outcome = world.outcome(token);
            assert!(
                matches!(outcome, Some(Outcome::Response(_))),
                "{before} to {after}, seed {seed}: {outcome:?}"
            );
            assert!(world.severed.is_empty(), "{before} to {after}, seed {seed}: {:?}", world.severed);
        }
    }
}

/// A relay that has restarted waits for what the author wants nothing more of before it passes a proof on, and not
/// for a whole heartbeat more if one has passed meanwhile.
#[test]
fn a_proof_is_passed_on_soon_after_a_restart_wherever_the_heartbeat_falls() {
    const BEAT_MS: u32 = 20_000;
    for phase in (0..1_000).step_by(20) {
        let mut options = Options::new(11);
        options.late_fee = Some(Yocto(1));
        options.mute_after_ack.insert(3);
        options.terms.heartbeat_ms = BEAT_MS;
        options.phases.insert((1, 0), phase);
        let mut world = World::line(options, 4);
        world.run_until(u64::from(BEAT_MS) - 1_000);
        let token = world.request(&[0, 1, 2, 3], 100, 100);
        world.run_until(u64::from(BEAT_MS));
        world.crash(1);
        let channel = ChannelId(3);
        world.input(2, Input::Command(Command::Sever { channel }));
        world.run(1_500);
        let outcome = world.outcome(token);
        assert!(
            matches!(outcome, Some(Outcome::Severed(severed, _)) if severed == channel),
            "{phase}: {outcome:?}"
        );
    }
}
