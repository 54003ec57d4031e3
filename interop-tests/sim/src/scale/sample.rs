//! Requests over some of the routes, by the real core in virtual time.

use std::collections::{BTreeMap, BTreeSet};

use por_core::Event;
use por_core::testing::{Options, Outcome, World};
use por_node::routes::Route;
use por_types::Yocto;
use serde::Serialize;

use super::network::Network;
use super::{BODY, Scale};

/// What a millisecond of lateness costs, yocto: the unit of the figures.
const FEE: u128 = 7;
/// Virtual time in which everything has to come to its end.
const REST_MS: u64 = 30 * 60_000;
/// Time above an edge's own that routes allow, milliseconds.
const SLACK_MS: u64 = 200;

/// What became of the requests.
#[derive(Debug, Default, Serialize)]
pub struct Sample {
    pub requests: u64,
    /// Nodes on their routes, and those that fell silent.
    pub hosts: usize,
    pub silent: usize,
    pub answered: u64,
    /// Ended with proof of a severed edge, and the edges.
    pub severed: u64,
    pub severs: u64,
    pub rejected: u64,
    pub refused: u64,
    /// Answered or severed requests whose author was paid for lateness, and for how long in all.
    pub late: u64,
    pub late_ms: u64,
    /// Late payments between any two nodes.
    pub late_payments: u64,
    /// Requests without an outcome.
    pub violations: u64,
}

/// The part of the network that the routes touch.
struct Part {
    world: World,
    paths: Vec<Vec<usize>>,
}

pub fn run(args: &Scale, network: &Network, routes: &[Route]) -> anyhow::Result<Sample> {
    let Part { mut world, paths } = part(args, network, routes);
    let silent = world.options.mute_after_ack.len();
    world.run(2_000);
    let pause = args.spread / (paths.len() as u64).max(1);
    let mut tokens = Vec::with_capacity(paths.len());
    for path in &paths {
        tokens.push(world.request(path, BODY as usize, BODY));
        world.run(pause);
    }
    let end = world.now_ms().saturating_add(REST_MS);
    // Heartbeats never cease: look now and then whether all is over.
    while world.now_ms() < end && tokens.iter().any(|token| world.outcome(*token).is_none()) {
        let soon = world.now_ms().saturating_add(5_000);
        world.run_until(soon);
    }
    let mut sample =
        Sample { requests: tokens.len() as u64, hosts: world.hosts.len(), silent, ..Sample::default() };
    for token in tokens {
        match world.outcome(token) {
            Some(Outcome::Response(_)) => sample.answered += 1,
            Some(Outcome::Severed(..)) => sample.severed += 1,
            Some(Outcome::Rejected(..)) => sample.rejected += 1,
            Some(Outcome::Refused(_)) => sample.refused += 1,
            None => sample.violations += 1,
        }
    }
    sample.severs = world.severed.len() as u64;
    count_late(&world, &mut sample)?;
    Ok(sample)
}

fn count_late(world: &World, sample: &mut Sample) -> anyhow::Result<()> {
    let mut late = BTreeMap::new();
    for event in (0..world.hosts.len()).flat_map(|host| world.events(host)) {
        match event {
            Event::Late { request, amount } => {
                let sum: &mut u128 = late.entry(*request).or_default();
                *sum += amount.0;
            }
            Event::PaidLate { .. } => sample.late_payments += 1,
            _ => {}
        }
    }
    sample.late = late.len() as u64;
    sample.late_ms = u64::try_from(late.values().sum::<u128>() / FEE)?;
    Ok(())
}

fn part(args: &Scale, network: &Network, routes: &[Route]) -> Part {
    let mut hosts: BTreeMap<u32, usize> = BTreeMap::new();
    let mut place = |node: u32| {
        let next = hosts.len();
        *hosts.entry(node).or_insert(next)
    };
    let (mut pairs, mut options) = (Vec::new(), Options::new(args.seed));
    let (mut known, mut paths): (BTreeMap<(usize, usize), usize>, Vec<Vec<usize>>) =
        (BTreeMap::new(), Vec::new());
    let mut ends = BTreeSet::new();
    for route in routes.iter().take(args.requests) {
        let mut path = Vec::new();
        for (at, hop) in route.hops.iter().enumerate() {
            let Some(channel) = usize::try_from(hop.channel.0).ok().and_then(|id| network.channels.get(id))
            else {
                continue;
            };
            let forward = network.key(channel.b) == hop.to;
            let (from, to) = if forward { (channel.a, channel.b) } else { (channel.b, channel.a) };
            let (from, to) = (place(from), place(to));
            if at == 0 {
                path.push(from);
            }
            path.push(to);
            let pair = (from.min(to), from.max(to));
            // Between two nodes one channel is enough: the terms are those of the first route.
            known.entry(pair).or_insert_with(|| {
                pairs.push(pair);
                options.channel_terms.insert(pairs.len() - 1, channel.terms.clone());
                // A quarter of the promised round trip each way; a frame takes up to twice that.
                options.delays.insert(pair, u64::from(channel.terms.rtt_ms) / 4);
                pairs.len() - 1
            });
        }
        ends.extend(path.first().into_iter().chain(path.last()).copied());
        paths.push(path);
    }
    options.late_fee = Some(Yocto(FEE));
    options.slack_ms = SLACK_MS;
    let mut world = World::new(options, hosts.len(), &pairs);
    for host in (0..world.hosts.len()).filter(|host| !ends.contains(host)) {
        if world.rng.chance(args.silent) {
            world.options.mute_after_ack.insert(host);
        }
    }
    Part { world, paths }
}
