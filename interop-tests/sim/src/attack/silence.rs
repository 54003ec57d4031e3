//! A node that falls silent after its Ack, pursued by the neighbour that severs it: the network in
//! virtual time decides who severs whom and when, the contract what that costs.

use por_contract_model::vm::{Vm, params};
use por_core::testing::{Options, World};
use por_core::types::{ChannelId, NodeKey, Yocto};
use por_core::{Event, Policy, Pursue, PursuitEnd};

use super::Played;
use super::contract::{half, join, sever, slashed, staked, wealth};

/// The contract's accounts of the hosts; the first is the genesis anchor.
const NAMES: [&str; 6] = ["owner.test", "n1.test", "silent.test", "n3.test", "n4.test", "n5.test"];
const SILENT: usize = 2;
const NEIGHBOURS: [usize; 4] = [1, 3, 4, 5];
/// The neighbours of the silent host reach each other without it.
const PAIRS: [(usize, usize); 8] = [(0, 1), (1, 2), (2, 3), (2, 4), (2, 5), (1, 3), (3, 4), (4, 5)];
const STAKE: u128 = 10;

/// Host 0 asks host 5 through the silent one; host 1 severs it, and pursues.
fn network(seed: u64) -> World {
    let mut options = Options::new(seed);
    options.late_fee = Some(Yocto(1));
    options.slack_ms = 0;
    options.bond = Yocto(1_000_000_000);
    options.chain_ms = 500;
    options.mute_after_ack.insert(SILENT);
    let pursuit = Some(Pursue { budget: Yocto(1_000_000_000), max_requests: 20, window_ms: 120_000 });
    options.policies.insert(1, Policy { pursuit, ..Policy::default() });
    let mut world = World::new(options, NAMES.len(), &PAIRS);
    world.run(500);
    world.request(&[0, 1, SILENT, 5], 100, 200);
    world.run(120_000);
    world
}

/// The channels of the network, in the same order, everybody attached.
fn contract() -> (Vm, Vec<ChannelId>) {
    let mut vm = staked(&NAMES.map(|name| (name, if name == NAMES[0] { 100 } else { STAKE })));
    let mut attached = vec![0];
    let mut channels = Vec::new();
    for (a, b) in PAIRS {
        channels.push(match attached.contains(&b) {
            true => vm.open(NAMES[a], NAMES[b], Yocto::near(1), Yocto::near(1)),
            false => join(&mut vm, NAMES[a], NAMES[b]),
        });
        attached.push(b);
    }
    (vm, channels)
}

/// Who has severed which channel, by number of the pair, in the order of the chain.
fn severed(world: &World) -> Vec<(usize, usize)> {
    let signer = |key: NodeKey| (0..NAMES.len()).find(|host| world.key(*host) == key);
    let mut orders: Vec<_> = world.severed.iter().map(|(id, (at, order))| (*at, *id, order.signer)).collect();
    orders.sort_unstable_by_key(|(at, id, _)| (*at, *id));
    let pair = |id: ChannelId| usize::try_from(id.0 - 1).unwrap_or(usize::MAX);
    orders.into_iter().filter_map(|(_, id, key)| Some((signer(key)?, pair(id)))).collect()
}

pub fn pursued(seed: u64) -> Played {
    let world = network(seed);
    let orders = severed(&world);
    let isolated = |event: &Event| matches!(event, Event::Pursued { end: PursuitEnd::Isolated, .. });
    let found = world.events(1).iter().any(isolated);
    let mut signers: Vec<usize> = orders.iter().map(|(signer, _)| *signer).collect();
    signers.sort_unstable();
    let (mut vm, channels) = contract();
    let before = NAMES.map(|name| wealth(&mut vm, name));
    for (signer, pair) in &orders {
        sever(&mut vm, NAMES[*signer], channels[*pair]);
    }
    // One penalty for each neighbour: its own halves were bonds, the others' come out of its stake.
    let count = NEIGHBOURS.len() as i128;
    let rest = (STAKE * Yocto::ONE_NEAR.0) as i128 - count * half();
    let stake = i128::try_from(slashed(rest.unsigned_abs())).unwrap_or_default();
    let profit = wealth(&mut vm, NAMES[SILENT]) - before[SILENT] - count * half();
    let whole = NEIGHBOURS.iter().all(|host| wealth(&mut vm, NAMES[*host]) == before[*host] + half());
    let apart = !vm.node(NAMES[SILENT]).attached && vm.node(NAMES[1]).attached;
    let paid = vm.node(NAMES[SILENT]).stake.0 as i128 == stake;
    vm.check_conservation();
    (
        profit,
        found && signers == NEIGHBOURS && whole && apart && paid,
        format!(
            "all {count} neighbours severed it and have their halves back; {} was slashed beyond that",
            Yocto(rest.unsigned_abs() * u128::from(params().slash_bps) / 10_000)
        ),
    )
}
