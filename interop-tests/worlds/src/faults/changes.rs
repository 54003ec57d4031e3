//! Networks whose channels change on chain while requests are under way: deposits are small and are topped up, and
//! ends close channels for good. Each host learns of it at another moment.

use std::collections::BTreeSet;

use por_core::Limits;
use por_core::testing::{Options, Rng, World};
use por_core::types::{SeverReason, Side, Yocto};
use por_core::wire::MIN_FRAME;

use super::{BIG_BYTES, HEARTBEAT_MS, Tally, restarts};

/// From this seed on: earlier ones stay what they were.
const FROM: u64 = 200_000_000;
/// From this one on operators change the limits of their nodes with every restart, and bodies of requests may be big.
const OTHER_LIMITS_FROM: u64 = 300_000_000;
/// Of 1000 requests so many are larger than the windows, there.
const UPLOADS: u32 = 60;
const UPLOAD_BYTES: usize = 120_000;
const DEPOSITS: [u128; 3] = [4_000_000, 20_000_000, 500_000_000];
/// Prices by which deposits run out, and lateness costs little.
const PRICES: (Yocto, Yocto) = (Yocto(10_000), Yocto(100));
/// How often, per 1000 requests, a deposit grows, and how often an end wants to close a channel.
const TOP_UPS: u32 = 60;
const CLOSES: u32 = 30;

pub(super) fn vary(options: &mut Options, seed: u64) {
    if seed >= FROM {
        options.deposit = Yocto(DEPOSITS[(seed % 3) as usize]);
        (options.terms.base_fee, options.terms.byte_fee) = PRICES;
    }
    if seed >= OTHER_LIMITS_FROM {
        let usual = options.limits.clone();
        options.other_limits = vec![
            Limits { max_frame: MIN_FRAME, max_inline: 1 << 10, max_flush: 16, ..usual.clone() },
            Limits { max_frame: 1 << 20, window: 1 << 20, max_inline: 64 << 10, ..usual.clone() },
            Limits { max_body: BIG_BYTES / 2, max_local: 2, ..usual.clone() },
            Limits { max_exchanges: 40, max_peer_bytes: 3 * BIG_BYTES, ..usual },
        ];
    }
}

/// Whether an edge between these honest hosts may have been severed for want of money (protocol section 4): a relay
/// that has restarted does not know whether upstream has its Ack, one whose next node stood still could not wait for
/// that one's, and then it has to insist on what the next one cannot pay for.
pub(super) fn excuses(world: &World, seed: u64, ends: [usize; 2], reason: SeverReason) -> bool {
    if seed < FROM || reason != SeverReason::NoAck {
        return false;
    }
    let poor = world.options.deposit.0 < DEPOSITS[2];
    // An Ack is kept until the answer is late at a sync.
    let stood_still =
        |host: &usize| world.stood_still_ms.get(host).is_some_and(|ms| *ms >= HEARTBEAT_MS.into());
    // Or was away for most of the time there is, twice within two seconds.
    let most = if poor { 0 } else { 1 };
    ends.iter().any(|host| restarts(&world.hosts[*host]) > most || (poor && stood_still(host)))
}

/// Bytes more of a request's body.
pub(super) fn upload(seed: u64, rng: &mut Rng) -> usize {
    if seed >= OTHER_LIMITS_FROM && rng.chance(UPLOADS) { UPLOAD_BYTES } else { 0 }
}

/// After a request.
pub(super) fn happen(world: &mut World, seed: u64, hostile: &BTreeSet<usize>, rng: &mut Rng) {
    if seed < FROM {
        return;
    }
    let edge = world.edges[rng.below(world.edges.len() as u64) as usize].clone();
    if rng.chance(TOP_UPS) {
        let side = if rng.chance(500) { Side::A } else { Side::B };
        world.top_up(edge.channel, side, Yocto(world.options.deposit.0 / 2));
    }
    let asker = if rng.chance(500) { edge.a } else { edge.b };
    if rng.chance(CLOSES) && !hostile.contains(&asker) && !world.severed.contains_key(&edge.channel) {
        world.close(edge.channel, asker);
    }
}

/// Between honest ends a close comes to its end, and pays out what each of them has been signed and no more than it
/// has signed.
pub(super) fn judge(world: &World, seed: u64, hostile: &BTreeSet<usize>, tally: &mut Tally) {
    for (id, close) in &world.closes {
        tally.closes += 1;
        let Some(edge) = world.edges.iter().find(|edge| edge.channel == *id) else { continue };
        let is_honest = |host: usize| !hostile.contains(&host);
        let Some(paid_out) = close.paid_out else {
            if is_honest(edge.a) && is_honest(edge.b) && !world.severed.contains_key(id) {
                tally.findings.push(format!("seed {seed}: the close of {id} does not end: {close:?}"));
            }
            continue;
        };
        tally.closed += 1;
        for host in [edge.a, edge.b].into_iter().filter(|host| is_honest(*host)) {
            let Some(own) = world.hosts[host].node.as_ref().and_then(|node| node.channel(*id)) else {
                continue;
            };
            let (side, other) = (own.side, own.side.other());
            let was_signed = paid_out.sent_by(other) >= own.totals.sent_by(other);
            if !was_signed || paid_out.sent_by(side) > own.totals.sent_by(side) {
                let totals = own.totals;
                let what = format!("channel {id} was paid out by {paid_out:?}, host {host} has {totals:?}");
                tally.findings.push(format!("seed {seed}: {what}"));
            }
        }
    }
}
