//! Attacks on neighbours, in networks of the real protocol core in virtual time.

use bytes::{Bytes, BytesMut};
use por_core::testing::{CHAIN_TIME_MS, Options, Outcome, World};
use por_core::types::{
    ChannelState, FlushRoot, FlushTree, Item, ItemKind, Items, RequestHead, Side, Statement, Terms, Totals,
    Yocto, leaf_hash,
};
use por_core::wire::{Frame, Lane, Request, RequestItem};
use por_core::{Event, ExchangeId, RejectReason, codec};
use por_worlds::crash as crashes;

use super::Played;

const BOND: u128 = 1_000_000;

fn options(seed: u64) -> Options {
    let mut options = Options::new(seed);
    options.terms = Terms {
        rtt_ms: 100,
        bytes_per_s: 1_000_000,
        base_fee: Yocto(100),
        byte_fee: Yocto(1),
        heartbeat_ms: 200,
        grace_ms: 400,
        max_requests: 256,
        max_bytes: 64 << 20,
    };
    options.bond = Yocto(BOND);
    options.late_fee = Some(Yocto(1));
    options.slack_ms = 0;
    options.log = true;
    options
}

/// What a host has gained in its channels; a severed one costs its bond.
fn gain(world: &World, host: usize) -> i128 {
    let mine = world.edges.iter().filter(|edge| edge.a == host || edge.b == host);
    mine.map(|edge| {
        // What the other end can prove: the attacker's own books need not be true.
        let (other, side) = if edge.a == host { (edge.b, Side::A) } else { (edge.a, Side::B) };
        let held = world.hosts[other].node.as_ref().and_then(|node| node.channel(edge.channel));
        let totals = held.map(|held| held.totals).unwrap_or_default();
        let net = totals.sent_by(side.other()).0 as i128 - totals.sent_by(side).0 as i128;
        let bond = if world.severed.contains_key(&edge.channel) { BOND as i128 } else { 0 };
        net - bond
    })
    .sum()
}

fn is_severed(world: &World, token: u64) -> bool {
    matches!(world.outcome(token), Some(Outcome::Severed(..)))
}

fn blamed(world: &World, host: usize, who: usize) -> bool {
    let key = world.key(who);
    world.events(host).iter().any(|event| matches!(event, Event::Misbehaved { peer, .. } if *peer == key))
}

/// Requests along a line of four in which one host does not behave.
fn line(mut options: Options, attacker: usize, requests: usize) -> (World, Vec<u64>, i128) {
    options.log = true;
    let mut world = World::line(options, 4);
    world.run(500);
    let tokens = (0..requests).map(|_| world.request(&[0, 1, 2, 3], 100, 200)).collect();
    world.run(120_000);
    let gain = gain(&world, attacker);
    (world, tokens, gain)
}

pub fn never_acknowledge(seed: u64) -> Played {
    let mut world = World::line(options(seed), 4);
    world.run(500);
    // It is there when the sessions open, and says nothing to requests.
    world.options.mute.insert(2);
    let token = world.request(&[0, 1, 2, 3], 100, 200);
    world.run(120_000);
    (gain(&world, 2), is_severed(&world, token), "severed; the author has the proof and its refund".into())
}

pub fn silent_after_ack(seed: u64) -> Played {
    let mut options = options(seed);
    options.mute_after_ack.insert(2);
    let (world, tokens, gain) = line(options, 2, 1);
    (gain, is_severed(&world, tokens[0]), "severed; the author has the proof and its refund".into())
}

pub fn abscond(seed: u64) -> Played {
    let mut options = options(seed);
    options.terms.max_requests = 10_000;
    let mut world = World::line(options, 3);
    world.run(500);
    world.options.mute.insert(1);
    // As many prepayments as the author's own node lets it make.
    let tokens: Vec<u64> = (0..3_000).map(|_| world.request(&[0, 1, 2], 100, 200)).collect();
    world.run(120_000);
    let refused = |token: &&u64| matches!(world.outcome(**token), Some(Outcome::Refused(RejectReason::Busy)));
    let refused = tokens.iter().filter(refused).count();
    let severed = tokens.iter().filter(|token| is_severed(&world, **token)).count();
    let paid = world.hosts[0].node.as_ref().and_then(|node| node.channel(world.edges[0].channel));
    let kept = paid.map_or(Yocto::ZERO, |channel| channel.totals.sent_a);
    let rest = refused > 0 && severed > 0 && refused + severed == tokens.len() && kept.0 < BOND;
    (
        gain(&world, 1),
        rest,
        format!("{severed} prepayments of {kept} were lost, {refused} held back; the bond is more"),
    )
}

pub fn pay_no_lateness(seed: u64) -> Played {
    let mut options = options(seed);
    options.cheats.insert(3);
    options.app_ms = Some(60_000);
    let (world, tokens, gain) = line(options, 3, 1);
    (gain, is_severed(&world, tokens[0]), "severed for lateness that it did not pay".into())
}

fn tampering(options: Options, what: &str) -> Played {
    let (world, tokens, gain) = line(options, 1, 3);
    let caught = blamed(&world, 0, 1);
    let none = tokens.iter().all(|token| !matches!(world.outcome(*token), Some(Outcome::Response(_))));
    let ended = tokens.iter().all(|token| is_severed(&world, *token));
    (gain, caught && none && ended, format!("{what} is caught at the next hop, which severs"))
}

pub fn forge_response(seed: u64) -> Played {
    let mut options = options(seed);
    options.forgers.insert(1);
    tampering(options, "a forged body")
}

pub fn truncate_response(seed: u64) -> Played {
    let mut options = options(seed);
    options.truncaters.insert(1);
    tampering(options, "a truncated body")
}

/// Hand-made frames of host 0 on its connection with host 1.
fn inject(world: &mut World, frame: &Frame) {
    let mut bytes = BytesMut::new();
    codec::encode(frame, &mut bytes);
    inject_bytes(world, bytes.freeze());
}

fn inject_bytes(world: &mut World, bytes: Bytes) {
    if let Some(link) = world.links_between(0, 1).first().copied() {
        world.put(link, 0, Lane::Control, bytes);
    }
}

/// The first request that host 0 has sent to host 1.
fn sent_request(world: &World) -> Option<Request> {
    world.log.iter().find_map(|logged| match &logged.frame {
        Frame::Request(request) if logged.from == 0 && logged.to == 1 => Some(request.clone()),
        _ => None,
    })
}

/// A world in which host 0 was answered by host 2 through host 1 once.
fn answered(seed: u64) -> Option<(World, Request)> {
    let mut world = World::line(options(seed), 3);
    world.run(500);
    let token = world.request(&[0, 1, 2], 100, 200);
    world.run(20_000);
    let request = sent_request(&world)?;
    matches!(world.outcome(token), Some(Outcome::Response(_))).then_some((world, request))
}

fn not_played() -> Played {
    (0, false, "the honest part did not work".into())
}

pub fn replay_payment(seed: u64) -> Played {
    let Some((mut world, request)) = answered(seed) else { return not_played() };
    let before = gain(&world, 0);
    let served = |world: &World| world.hosts[2].seen.values().sum::<u32>();
    let once = served(&world) == 1;
    // The same request and payment under another number: answered for nothing?
    let mut again = request;
    again.requests.iter_mut().for_each(|item| item.exchange = ExchangeId(1 << 60));
    again.resent = true;
    inject(&mut world, &Frame::Request(again));
    world.run(20_000);
    let rest = once && served(&world) == 1 && blamed(&world, 1, 0);
    (gain(&world, 0) - before, rest, "a payment pays for what it names, once".into())
}

pub fn one_id_twice(seed: u64) -> Played {
    let Some((mut world, request)) = answered(seed) else { return not_played() };
    let before = gain(&world, 0);
    // Another body under the id of the first.
    let mut other = request;
    for item in &mut other.requests {
        item.exchange = ExchangeId(1 << 60);
        item.body = item.body.as_ref().map(|body| body.iter().map(|byte| byte ^ 1).collect());
    }
    other.resent = true;
    inject(&mut world, &Frame::Request(other));
    world.run(20_000);
    let rest = world.hosts[2].seen.values().sum::<u32>() == 1 && blamed(&world, 1, 0);
    (gain(&world, 0) - before, rest, "an id is the hash of what was signed, the body's hash in it".into())
}

/// A paid request made by hand: the head is the attacker's.
fn forged(world: &World, head: &RequestHead, sent: Yocto) -> Option<Frame> {
    let (network, secret) = (World::network(), world.secret(0));
    let amount = head.payment_at(0).ok()?;
    let request = head.id(&network);
    let channel = head.route.first()?.channel;
    let items = vec![Item { request, amount, kind: ItemKind::Request }];
    let items = Items { channel, payer: Side::A, items }.hash(&network);
    let totals = Totals { sent_a: sent.checked_add(amount).ok()?, sent_b: Yocto::ZERO };
    let payment = Some(secret.sign(&network, ChannelState { channel, totals, items }));
    let tree = FlushTree::new(vec![leaf_hash(&head.signed_bytes(&network))])?;
    let root = FlushRoot::<RequestHead>::new(tree.root(), tree.leaves());
    let proof = tree.proof(0, secret.sign(&network, root).signature)?;
    let bytes = borsh::to_vec(head).ok()?.into();
    let body = Some(Bytes::new());
    let exchange = ExchangeId(1 << 60);
    let item = RequestItem { exchange, hop: 0, head: bytes, proof, body, again: false, channel: None };
    Some(Frame::Request(Request { payment, resent: false, requests: vec![item] }))
}

pub fn underpaid_hop(seed: u64) -> Played {
    let mut world = World::line(options(seed), 3);
    world.run(500);
    let mut route = world.route(&[0, 1, 2], 0, 100);
    // The first relay is paid well; the next edge is not.
    if let Some(last) = route.last_mut() {
        last.price = last.price.saturating_sub(Yocto(1));
    }
    let head = RequestHead {
        author: world.key(0),
        nonce: 1,
        destination: world.key(2),
        app: por_core::testing::APP.into(),
        body_hash: por_core::types::Hash(*blake3::hash(b"").as_bytes()),
        body_len: 0,
        response_limit: 100,
        expires_ms: CHAIN_TIME_MS + 60_000,
        graph_version: 1,
        server_price: Yocto(50),
        route,
    };
    let Some(frame) = forged(&world, &head, Yocto::ZERO) else { return not_played() };
    inject(&mut world, &frame);
    world.run(20_000);
    let id = head.id(&World::network());
    let proven = world.log.iter().any(|logged| match &logged.frame {
        Frame::Reject(reject) => reject
            .rejections
            .iter()
            .any(|rejection| rejection.invalid.as_ref().is_some_and(|proof| proof.statement.request == id)),
        _ => false,
    });
    let whole = gain(&world, 1) == 0 && world.severed.is_empty();
    (
        gain(&world, 0),
        proven && whole,
        "rejected with a proof from its own bytes; no relay was trapped".into(),
    )
}

pub fn farm_late_fees(seed: u64) -> Played {
    let mut options = options(seed);
    options.terms.max_requests = 32;
    options.terms.bytes_per_s = 50_000;
    options.delay_ms = 5;
    options.app_ms = Some(1);
    let mut world = World::line(options, 3);
    world.run(500);
    let mut tokens = Vec::new();
    for _ in 0..40 {
        tokens.extend((0..40).map(|_| world.request(&[0, 1, 2], 100, 2_000)));
        world.run(50);
    }
    world.run(120_000);
    let late: u128 = world
        .events(0)
        .iter()
        .map(|event| if let Event::Late { amount, .. } = event { amount.0 } else { 0 })
        .sum();
    let answered = tokens.iter().filter(|t| matches!(world.outcome(**t), Some(Outcome::Response(_)))).count();
    let held = tokens.len() - answered;
    let rest = answered > 0 && held > 0 && world.severed.is_empty();
    (
        gain(&world, 0),
        rest,
        format!("{held} of {} were held back by the caps; {late} came as late fees", tokens.len()),
    )
}

pub fn flood(seed: u64) -> Played {
    // Allowances with room for the requests that are under way together.
    let mut world = World::line(Options { slack_ms: 2_000, ..options(seed) }, 4);
    world.run(500);
    let mut rng = por_core::testing::Rng::new(seed);
    let mut tokens = Vec::new();
    for round in 0..200 {
        // Frames of random bytes behind an honest length, and lengths beyond every limit.
        let len = 1 + rng.below(600) as u32;
        let mut bytes = BytesMut::new();
        let told = if round % 3 == 0 { u32::MAX } else { len };
        bytes.extend_from_slice(&told.to_be_bytes());
        bytes.extend((0..len).map(|_| rng.next() as u8));
        inject_bytes(&mut world, bytes.freeze());
        tokens.push(world.request(&[3, 2, 1], 100, 200));
        world.run(20);
    }
    world.run(120_000);
    let answered = tokens.iter().filter(|t| matches!(world.outcome(**t), Some(Outcome::Response(_)))).count();
    let held = world.hosts[1].node.as_ref().map_or(1, |node| node.unfinished());
    let rest = answered == tokens.len() && held == 0 && world.severed.is_empty();
    (
        gain(&world, 0),
        rest,
        format!("disconnected each time; beside it {answered} of {} requests were answered", tokens.len()),
    )
}

pub fn crash(seed: u64) -> Played {
    let mut tally = crashes::Tally::default();
    for part in (0..1_000).step_by(37) {
        crashes::crash(seed.wrapping_mul(1_000).wrapping_add(part), &mut tally);
    }
    (0, tally.is_sound(), format!("{} crashes lost nothing and severed nobody", tally.boundaries))
}

pub fn restored_backup(seed: u64) -> Played {
    let mut world = World::line(options(seed), 3);
    world.run(500);
    let ask = |world: &mut World| {
        let tokens: Vec<u64> =
            [[0, 1, 2], [2, 1, 0]].iter().map(|path| world.request(path, 100, 200)).collect();
        world.run(5_000);
        tokens
    };
    let mut tokens = ask(&mut world);
    let backup = world.hosts[1].rows();
    tokens.extend(ask(&mut world));
    tokens.extend(ask(&mut world));
    world.crash(1);
    world.hosts[1].set_rows(backup);
    world.run(5_000);
    tokens.extend(ask(&mut world));
    world.run(60_000);
    let mut tally = crashes::Tally::default();
    crashes::judge_states(&world, "restored", &mut tally);
    let answered = tokens.iter().all(|token| matches!(world.outcome(*token), Some(Outcome::Response(_))));
    let what = match tally.findings.first() {
        None => "the peers' states are adopted; nothing is signed below them".to_owned(),
        Some(finding) => finding.clone(),
    };
    (0, tally.is_sound() && answered && world.severed.is_empty(), what)
}
