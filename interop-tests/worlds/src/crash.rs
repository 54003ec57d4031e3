//! A crash before every single output of every host: nothing that was signed or promised is lost,
//! and nobody is severed for it (protocol sections 3 and 5).
//!
//! Judged by what authors were told, by the frames on the wire and by the totals at both ends.

use std::collections::BTreeMap;

use por_core::testing::{Faults as Rates, Logged, Options, Outcome, Rng, World};
use por_core::types::{ChannelId, ChannelState, RequestHead, Side, Signed, Terms, Yocto};
use por_core::wire::Frame;
use por_core::{Event, Limits};
use serde::Serialize;

/// Seeds that share one run and differ in the boundary at which a host crashes. Those that are left
/// once every boundary was visited play the run with other delays.
const PER_RUN: u64 = 1_000;

/// A square with a diagonal: relays with one and with two neighbours further on.
const PAIRS: [(usize, usize); 5] = [(0, 1), (1, 2), (2, 3), (1, 3), (0, 2)];
const PATHS: [&[usize]; 5] = [&[0, 1, 2, 3], &[0, 1, 3], &[3, 2, 1, 0], &[3, 1], &[0, 2, 3]];

#[derive(clap::Args)]
pub struct Crash {
    /// Number of seeds; each is one run with one crash. 1,000 seeds from a multiple of 1,000 visit
    /// every boundary of one run.
    #[arg(long, default_value_t = 1_000)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// One JSON line at the end instead of text.
    #[arg(long)]
    json: bool,
    /// What was sent in the last run, frame by frame, on standard error.
    #[arg(long)]
    log: bool,
}

/// What the crashes did.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Tally {
    pub seeds: u64,
    /// Boundaries between two outputs of one host at which it crashed, each once for its delays.
    pub boundaries: u64,
    /// Requests without an outcome, and signed states that an end has forgotten or signed twice.
    pub lost: u64,
    pub spurious_severs: u64,
    /// Everything else that must not be: wrong answers, books apart, honest hosts blamed.
    pub violations: u64,
    pub seed: u64,
    #[serde(skip)]
    pub findings: Vec<String>,
    /// Outputs of each host without a crash, of the run that the last seed belongs to.
    #[serde(skip)]
    clean: Option<(u64, Vec<u64>)>,
}

impl Tally {
    pub fn is_sound(&self) -> bool {
        self.lost == 0 && self.spurious_severs == 0 && self.violations == 0
    }

    fn lost(&mut self, what: String) {
        self.lost += 1;
        self.findings.push(what);
    }

    fn violation(&mut self, what: String) {
        self.violations += 1;
        self.findings.push(what);
    }
}

pub fn run(args: &Crash) -> anyhow::Result<bool> {
    let mut tally = Tally { seed: args.seed, ..Tally::default() };
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        let world = crash(seed, &mut tally);
        if args.log && seed + 1 == args.seed.saturating_add(args.seeds) {
            world.log.iter().for_each(|logged| eprintln!("{}", line(logged)));
        }
    }
    for finding in tally.findings.iter().take(20) {
        eprintln!("{finding}");
    }
    if args.json {
        println!("{}", serde_json::to_string(&tally)?);
    } else {
        let Tally { seeds, boundaries, lost, spurious_severs, violations, seed, .. } = &tally;
        println!("{seeds} runs from seed {seed}, a crash in each, at {boundaries} boundaries");
        println!("  lost             {lost}");
        println!("  spurious severs  {spurious_severs}");
        println!("  violations       {violations}");
    }
    Ok(tally.is_sound())
}

/// Plays the run of a seed with its crash, and judges it.
pub fn crash(seed: u64, tally: &mut Tally) -> World {
    let (number, part) = (seed / PER_RUN, seed % PER_RUN);
    let outputs = match &tally.clean {
        Some((of, outputs)) if *of == number => outputs.clone(),
        _ => {
            let world = play(number, 0, None);
            judge(&world, &format!("run {number} without a crash"), tally);
            let outputs: Vec<u64> = world.hosts.iter().map(|host| host.outputs).collect();
            tally.clean = Some((number, outputs.clone()));
            outputs
        }
    };
    let all: u64 = outputs.iter().sum();
    let (variant, boundary) = (part / all.max(1), part % all.max(1));
    tally.seeds += 1;
    let at = place(&outputs, boundary);
    let world = play(number, variant, Some(at));
    let what = format!("seed {seed}: host {} before output {}", at.0, at.1);
    if world.hosts[at.0].life >= 3 {
        tally.boundaries += 1;
    } else if variant == 0 {
        tally.violation(format!("{what} did not crash"));
    }
    if part + 1 == PER_RUN && all > PER_RUN {
        tally.violation(format!("run {number} has {all} boundaries, more than its seeds"));
    }
    judge(&world, &what, tally);
    world
}

/// One frame for the reader of a log: who, when, what, the payer's totals.
pub(crate) fn line(logged: &Logged) -> String {
    let Logged { from, to, sent_ms, received_ms, frame } = logged;
    let what = match frame {
        Frame::Request(f) => {
            let network = World::network();
            let id = |head: &[u8]| borsh::from_slice::<RequestHead>(head).map(|head| head.id(&network));
            let items = f.requests.iter().map(|item| (item.exchange, id(&item.head).ok(), item.again));
            format!("Request {:?}", items.collect::<Vec<_>>())
        }
        Frame::Ack(f) => format!("Ack {:?}, {} receipts", f.exchanges, f.receipts.len()),
        Frame::Reject(f) => {
            format!("Reject {:?}", f.rejections.iter().map(|r| (r.exchange, r.reason)).collect::<Vec<_>>())
        }
        Frame::Response(f) => {
            let items = f.responses.iter().map(|item| (item.exchange, item.resume, item.late));
            format!("Response resent {} {:?}", f.resent, items.collect::<Vec<_>>())
        }
        Frame::Late(f) => format!("Late resent {} {:?}", f.resent, f.items),
        Frame::Sync(f) => {
            let known: Vec<_> = f.known.iter().map(|k| k.exchange).collect();
            format!("Sync {} answers {}, knows {known:?}", f.epoch, f.answers)
        }
        Frame::Done(f) => format!("Done {:?}", f.exchanges),
        Frame::Fragment(f) => format!("Fragment {:?} at {}", f.exchange, f.offset),
        Frame::Credit(f) => format!("Credit {:?} {:?}", f.exchange, f.up_to),
        Frame::Severed(f) => format!("Severed {} {:?}", f.order.statement.channel, f.items),
        Frame::Hello(_) => "Hello".to_owned(),
    };
    let totals = states(frame).0.map(|payment| (payment.statement.channel, payment.statement.totals));
    format!("{sent_ms:>6} {received_ms:>6} {from}>{to} {what} {totals:?}")
}

/// Host and number of an output, from its number among all hosts'.
fn place(outputs: &[u64], mut boundary: u64) -> (usize, u64) {
    for (host, count) in outputs.iter().enumerate() {
        if boundary < *count {
            return (host, boundary);
        }
        boundary -= count;
    }
    (0, 0)
}

fn options(number: u64) -> Options {
    let mut options = Options::new(number);
    options.terms = Terms {
        rtt_ms: 50,
        bytes_per_s: 1_000_000,
        base_fee: Yocto(100),
        byte_fee: Yocto(1),
        heartbeat_ms: 100,
        grace_ms: 2_000,
        max_requests: 256,
        max_bytes: 64 << 20,
    };
    options.late_fee = Some(Yocto(3));
    options.bond = Yocto(1_000_000_000);
    // Crashes, and sometimes the app, make answers late.
    options.slack_ms = 0;
    options.log = true;
    options.limits = Limits { window: 64 << 10, ..Limits::default() };
    if number % 3 == 1 {
        options.limits.max_flush = 2;
        options.limits.max_inline = 1 << 10;
    }
    if number % 4 == 2 {
        options.app_ms = Some(300);
    }
    options
}

/// A few requests of different sizes, then rest.
fn play(number: u64, variant: u64, crash_at: Option<(usize, u64)>) -> World {
    let mut world = World::new(options(number), 4, &PAIRS);
    world.crash_at = crash_at;
    if variant > 0 {
        world.rng = Rng::new(number ^ variant << 32);
    }
    let mut rng = Rng::new(number ^ 0xC4A5);
    world.run(300);
    for _ in 0..4 {
        for _ in 0..1 + rng.below(2) {
            let path = PATHS[rng.below(PATHS.len() as u64) as usize];
            let body = [10, 500, 20_000, 90_000][rng.below(4) as usize];
            let reply = [8, 300, 17_000, 100_000][rng.below(4) as usize];
            if world.hosts[path[0]].node.is_some() {
                world.request(path, body, reply);
            }
        }
        let pause = rng.below(60);
        world.run(pause);
    }
    world.options.faults = Rates::default();
    world.run(60_000);
    world
}

fn judge(world: &World, what: &str, tally: &mut Tally) {
    judge_outcomes(world, what, tally);
    judge_states(world, what, tally);
    tally.spurious_severs += world.severed.len() as u64;
    for (channel, (at, order)) in &world.severed {
        tally.findings.push(format!("{what}: {channel} was severed at {at}: {:?}", order.reason));
    }
    for host in &world.hosts {
        for event in &host.events {
            if let Event::Misbehaved { reason, .. } = event {
                tally.violation(format!("{what}: host {} blames an honest peer: {reason}", host.index));
            }
        }
        let left = host.node.as_ref().map_or(1, |node| node.unfinished());
        if left != 0 {
            tally.violation(format!("{what}: host {} keeps {left} exchanges at rest", host.index));
        }
    }
}

/// Every request that the author's application was told of has ended, in one way.
fn judge_outcomes(world: &World, what: &str, tally: &mut Tally) {
    for (token, asked) in &world.asked {
        let author = &world.hosts[asked.author];
        let outcomes = author.outcomes.get(token).map(Vec::as_slice).unwrap_or_default();
        let Some(first) = outcomes.first() else {
            // The crash came before the application was told that it was sent.
            if world.id(*token).is_some() {
                tally.lost(format!("{what}: request {token} has no outcome"));
            }
            continue;
        };
        if outcomes.iter().any(|outcome| std::mem::discriminant(outcome) != std::mem::discriminant(first)) {
            tally.violation(format!("{what}: request {token} has different outcomes"));
        }
        if let Outcome::Response(body) = first
            && !world.is_response(*token, body)
        {
            tally.violation(format!("{what}: request {token} has a wrong response"));
        }
        // Only one host has crashed.
        if matches!(first, Outcome::Response(_)) && outcomes.iter().any(|outcome| outcome != first) {
            tally.violation(format!("{what}: request {token} has two different responses"));
        }
    }
}

/// The payments and counter-signatures of a frame.
fn states(frame: &Frame) -> (Option<&Signed<ChannelState>>, &[Signed<ChannelState>]) {
    match frame {
        Frame::Request(frame) => (frame.payment.as_ref(), &[]),
        Frame::Reject(frame) => (frame.payment.as_ref(), &[]),
        Frame::Response(frame) => (frame.payment.as_ref(), &[]),
        Frame::Late(frame) => (Some(&frame.payment), &[]),
        Frame::Severed(frame) => (frame.payment.as_ref(), &[]),
        Frame::Ack(frame) => (None, &frame.receipts),
        Frame::Done(frame) => (None, &frame.receipts),
        _ => (None, &[]),
    }
}

/// Nobody has signed two states of one total, forgotten one that left it, or lost one that it had
/// counter-signed; at rest both ends agree.
pub fn judge_states(world: &World, what: &str, tally: &mut Tally) {
    let mut signed: BTreeMap<(ChannelId, usize, u128), ChannelState> = BTreeMap::new();
    let mut sent: BTreeMap<(ChannelId, usize), u128> = BTreeMap::new();
    let mut receipted: BTreeMap<(ChannelId, usize), u128> = BTreeMap::new();
    let side = |channel: ChannelId, host: usize| {
        let edge = world.edges.iter().find(|edge| edge.channel == channel)?;
        Some(if edge.a == host { Side::A } else { Side::B })
    };
    for logged in &world.log {
        let (payment, receipts) = states(&logged.frame);
        if let Some(payment) = payment
            && let Some(side) = side(payment.statement.channel, logged.from)
        {
            let (state, channel) = (&payment.statement, payment.statement.channel);
            let total = state.totals.sent_by(side).0;
            let known = signed.entry((channel, logged.from, total)).or_insert_with(|| state.clone());
            if known.items != state.items {
                tally.lost(format!("{what}: host {} has signed {total} on {channel} twice", logged.from));
            }
            let most = sent.entry((channel, logged.from)).or_default();
            *most = total.max(*most);
        }
        for receipt in receipts {
            let Some(side) = side(receipt.statement.channel, logged.to) else { continue };
            let total = receipt.statement.totals.sent_by(side).0;
            let most = receipted.entry((receipt.statement.channel, logged.from)).or_default();
            *most = total.max(*most);
        }
    }
    for edge in &world.edges {
        let ends = [edge.a, edge.b].map(|host| world.hosts[host].node.as_ref()?.channel(edge.channel));
        let [Some(a), Some(b)] = ends else {
            tally.lost(format!("{what}: an end has forgotten {}", edge.channel));
            continue;
        };
        if a.totals != b.totals {
            let (channel, a, b) = (edge.channel, a.totals, b.totals);
            tally.violation(format!("{what}: the ends of {channel} hold {a:?} and {b:?}"));
        }
        for (host, side, held) in [(edge.a, Side::A, &a.totals), (edge.b, Side::B, &b.totals)] {
            let own = sent.get(&(edge.channel, host)).copied().unwrap_or_default();
            let theirs = receipted.get(&(edge.channel, host)).copied().unwrap_or_default();
            if held.sent_by(side).0 < own || held.sent_by(side.other()).0 < theirs {
                tally.lost(format!("{what}: host {host} has forgotten a state of {}", edge.channel));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Seeds that once failed.
    #[test]
    fn seeds_that_once_failed() {
        let once = [
            104_115,   // Lateness of an answer was paid while nobody was there to be told.
            114_707,   // A total that a response was about to pay was told as paid.
            8_012_549, // A refusal that was to be said again was said of the request that came anew.
        ];
        for seed in once {
            let mut tally = Tally::default();
            crash(seed, &mut tally);
            assert!(tally.is_sound(), "{:#?}", tally.findings);
        }
    }

    #[test]
    fn a_crash_at_any_boundary_loses_nothing_and_severs_nobody() {
        let mut tally = Tally::default();
        for seed in (0..6 * PER_RUN).step_by(23) {
            crash(seed, &mut tally);
        }
        assert!(tally.is_sound(), "{:#?}", tally.findings);
        assert!(tally.boundaries > 200, "{}", tally.boundaries);
    }
}
