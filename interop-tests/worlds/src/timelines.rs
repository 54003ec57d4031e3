//! One request over a path of nodes with exact delays: every message, when it went and when it
//! arrived, and who is out of pocket in the end (protocol section 5).

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, anyhow, ensure};
use por_core::testing::{DEPOSIT, Logged, Options, Outcome, World};
use por_core::types::{Side, Terms, Yocto};
use por_core::wire::Frame;
use por_core::{Event, OrderPace, Patience, Policy};
use serde::{Deserialize, Serialize};

/// The timelines of the protocol.
const WORKED: &str = include_str!("../timelines.toml");

/// When the request is sent; before that the nodes connect.
const START_MS: u64 = 1_000_000;

#[derive(clap::Args)]
pub struct Timelines {
    /// Another topology, with other policies: a TOML file like interop-tests/worlds/timelines.toml.
    #[arg(long)]
    file: Option<PathBuf>,
    /// One JSON line per message and per case.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    nodes: Vec<String>,
    /// Yocto per request and millisecond.
    late_fee: u64,
    /// Each side's bond.
    #[serde(default)]
    bond: u64,
    /// Until an order is final.
    #[serde(default = "chain_ms")]
    chain_ms: u64,
    /// How long each case is watched.
    #[serde(default = "until_ms")]
    until_ms: u64,
    edges: Vec<EdgeFile>,
    cases: Vec<Case>,
}

fn chain_ms() -> u64 {
    2_000
}

fn until_ms() -> u64 {
    60_000
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct EdgeFile {
    ends: [String; 2],
    one_way_ms: u32,
    heartbeat_ms: u32,
    grace_ms: u32,
    #[serde(default)]
    sync_phase_ms: u64,
    #[serde(default)]
    base_fee: u64,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    name: String,
    path: Vec<String>,
    #[serde(default)]
    server_price: u64,
    /// What the app takes.
    #[serde(default)]
    answers_after_ms: u64,
    #[serde(default)]
    silent_after_ack: Vec<String>,
    #[serde(default)]
    policies: BTreeMap<String, PolicyFile>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct PolicyFile {
    severs: Severs,
    orders: Orders,
    acts_on_breach: bool,
    pays_late: bool,
}

impl Default for PolicyFile {
    fn default() -> PolicyFile {
        PolicyFile { severs: Severs::Never, orders: Orders::AtOnce, acts_on_breach: true, pays_late: true }
    }
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Severs {
    Never,
    /// So long after the bound has passed.
    AfterMs(u64),
    /// With this late sync.
    Syncs(u32),
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Orders {
    AtOnce,
    WithSync,
}

/// A message that was on its way.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Message {
    case: String,
    event: &'static str,
    from: String,
    to: String,
    sent_ms: u64,
    received_ms: u64,
    /// Lateness that it pays for.
    late_ms: u64,
    /// The late payment in it.
    yocto: u128,
}

/// How a case ended.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub struct Ending {
    case: String,
    /// `response`, `severed`, `rejected`, or `late` if neither came in time.
    outcome: &'static str,
    /// The severed edge.
    at: Option<String>,
    bound_ms: u64,
    at_ms: u64,
    /// Lateness that the author was paid for.
    paid_late_ms: u64,
    /// What each node has more in its channels than before, without bonds.
    profit_yocto: BTreeMap<String, i128>,
    /// Forfeited bonds.
    bonds_lost_yocto: BTreeMap<String, u128>,
}

pub fn run(args: &Timelines) -> anyhow::Result<bool> {
    let text = match &args.file {
        Some(path) => std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?,
        None => WORKED.to_owned(),
    };
    for (messages, ending) in play(&text)? {
        if args.json {
            for message in &messages {
                println!("{}", serde_json::to_string(message)?);
            }
            println!("{}", serde_json::to_string(&ending)?);
        } else {
            show(&messages, &ending);
        }
    }
    Ok(true)
}

fn show(messages: &[Message], ending: &Ending) {
    println!("{}", ending.case);
    for Message { event, from, to, sent_ms, received_ms, late_ms, .. } in messages {
        let late = if *late_ms > 0 { format!("  pays {late_ms} ms") } else { String::new() };
        println!("  {sent_ms:>6} -> {received_ms:>6}  {from:>6} to {to:<6} {event}{late}");
    }
    let at = ending.at.as_ref().map(|edge| format!(" of {edge}")).unwrap_or_default();
    println!("  {}{at} after {} ms, the bound was {} ms", ending.outcome, ending.at_ms, ending.bound_ms);
    println!("  paid late {} ms; in channels {:?}", ending.paid_late_ms, ending.profit_yocto);
    if !ending.bonds_lost_yocto.is_empty() {
        println!("  bonds lost {:?}", ending.bonds_lost_yocto);
    }
    println!();
}

/// Plays all cases of a file.
pub fn play(text: &str) -> anyhow::Result<Vec<(Vec<Message>, Ending)>> {
    let file: File = toml::from_str(text).context("the file of timelines is not understood")?;
    ensure!(file.late_fee > 0, "late_fee must be at least 1");
    let stage = Stage::new(&file)?;
    file.cases.iter().map(|case| stage.play(case).with_context(|| format!("case {}", case.name))).collect()
}

struct Stage<'a> {
    file: &'a File,
    index: BTreeMap<&'a str, usize>,
    pairs: Vec<(usize, usize)>,
}

impl<'a> Stage<'a> {
    fn new(file: &'a File) -> anyhow::Result<Stage<'a>> {
        let index: BTreeMap<&str, usize> =
            file.nodes.iter().enumerate().map(|(index, name)| (name.as_str(), index)).collect();
        ensure!(index.len() == file.nodes.len(), "two nodes have one name");
        let mut stage = Stage { file, index, pairs: Vec::new() };
        for edge in &file.edges {
            let pair = (stage.node(&edge.ends[0])?, stage.node(&edge.ends[1])?);
            stage.pairs.push(pair);
        }
        Ok(stage)
    }

    fn node(&self, name: &str) -> anyhow::Result<usize> {
        self.index.get(name).copied().ok_or_else(|| anyhow!("there is no node {name}; add it to `nodes`"))
    }

    fn options(&self, case: &Case) -> anyhow::Result<Options> {
        let file = self.file;
        let mut options = Options::new(1);
        options.late_fee = Some(Yocto(file.late_fee.into()));
        options.bond = Yocto(file.bond.into());
        options.chain_ms = file.chain_ms;
        (options.commit_ms, options.early_flush, options.slack_ms, options.log) = (0, 0, 0, true);
        options.app_ms = Some(case.answers_after_ms);
        options.app_price = Yocto(case.server_price.into());
        for (number, (edge, &(a, b))) in file.edges.iter().zip(&self.pairs).enumerate() {
            options.delays.insert((a.min(b), a.max(b)), edge.one_way_ms.into());
            options.phases.insert((b, a), START_MS + edge.sync_phase_ms);
            let terms = Terms {
                rtt_ms: 2 * edge.one_way_ms,
                bytes_per_s: 1_000_000,
                base_fee: Yocto(edge.base_fee.into()),
                byte_fee: Yocto::ZERO,
                heartbeat_ms: edge.heartbeat_ms,
                grace_ms: edge.grace_ms,
                max_requests: 16,
                max_bytes: 1 << 20,
            };
            options.channel_terms.insert(number, terms);
        }
        for name in &case.silent_after_ack {
            options.mute_after_ack.insert(self.node(name)?);
        }
        for (name, policy) in &case.policies {
            let node = self.node(name)?;
            if !policy.pays_late {
                options.cheats.insert(node);
            }
            options.policies.insert(node, policy.core());
        }
        Ok(options)
    }

    fn play(&self, case: &Case) -> anyhow::Result<(Vec<Message>, Ending)> {
        let path: Vec<usize> = case.path.iter().map(|name| self.node(name)).collect::<Result<_, _>>()?;
        ensure!(path.len() > 1, "a path has at least two nodes");
        for pair in path.windows(2) {
            let joined = self
                .pairs
                .iter()
                .any(|(a, b)| (pair[0], pair[1]) == (*a, *b) || (pair[1], pair[0]) == (*a, *b));
            ensure!(joined, "no edge from {} to {}", self.file.nodes[pair[0]], self.file.nodes[pair[1]]);
        }
        let mut world = World::new(self.options(case)?, self.file.nodes.len(), &self.pairs);
        world.run_until(START_MS);
        world.log.clear();
        let before = self.balances(&world);
        world.set_server_price(Yocto(case.server_price.into()));
        let token = world.request_empty(&path);
        let (mut ended, mut paid) = (None, 0);
        let end = START_MS + self.file.until_ms;
        while world.now_ms() < end && ended.is_none() && world.step() {
            ended = world.outcome(token).map(|outcome| (outcome, world.now_ms() - START_MS));
        }
        for event in world.events(path[0]) {
            if let Event::Late { amount, .. } = event {
                paid += amount.0;
            }
        }
        let (outcome, at, at_ms) = match ended {
            Some((Outcome::Response(_), ms)) => ("response", None, ms),
            Some((Outcome::Severed(channel, _), ms)) => {
                let (a, b) = self.pairs[usize::try_from(channel.0 - 1)?];
                ("severed", Some(format!("{}-{}", self.file.nodes[a], self.file.nodes[b])), ms)
            }
            Some((Outcome::Rejected(..) | Outcome::Refused(_), ms)) => ("rejected", None, ms),
            None => ("late", None, self.file.until_ms),
        };
        let messages = self.messages(case, &world);
        // The chain learns, and what is on its way arrives.
        world.run(self.file.chain_ms + 10_000);
        let after = self.balances(&world);
        let profit = after.iter().map(|(name, now)| (name.clone(), now - before[name])).collect();
        let mut bonds: BTreeMap<String, u128> = BTreeMap::new();
        for channel in world.severed.keys() {
            let (a, b) = self.pairs[usize::try_from(channel.0 - 1)?];
            for end in [a, b] {
                *bonds.entry(self.file.nodes[end].clone()).or_default() += u128::from(self.file.bond);
            }
        }
        let bound_ms = world.route(&path, 0, 0).iter().map(|hop| hop.allowance_ms).sum();
        let ending = Ending {
            case: case.name.clone(),
            outcome,
            at,
            bound_ms,
            at_ms,
            paid_late_ms: u64::try_from(paid)? / self.file.late_fee,
            profit_yocto: profit,
            bonds_lost_yocto: bonds,
        };
        Ok((messages, ending))
    }

    /// What each node owns in its channels, by the payers' totals.
    fn balances(&self, world: &World) -> BTreeMap<String, i128> {
        let mut owned: BTreeMap<String, i128> =
            self.file.nodes.iter().map(|name| (name.clone(), 0)).collect();
        for (edge, &(a, b)) in world.edges.iter().zip(&self.pairs) {
            // Each total as its payer has signed it.
            let signed = |host: usize, side: Side| {
                let node = world.hosts[host].node.as_ref();
                let totals = node.and_then(|node| node.channel(edge.channel)).map(|channel| channel.totals);
                totals.map_or(0, |totals| totals.sent_by(side).0 as i128)
            };
            let net = signed(a, Side::A) - signed(b, Side::B);
            *owned.entry(self.file.nodes[a].clone()).or_default() += DEPOSIT.0 as i128 - net;
            *owned.entry(self.file.nodes[b].clone()).or_default() += DEPOSIT.0 as i128 + net;
        }
        owned
    }

    fn messages(&self, case: &Case, world: &World) -> Vec<Message> {
        let mut messages: Vec<Message> =
            world.log.iter().filter_map(|logged| self.message(case, world, logged)).collect();
        messages.sort_by_key(|message| (message.sent_ms, message.received_ms));
        messages
    }

    fn message(&self, case: &Case, world: &World, logged: &Logged) -> Option<Message> {
        let Logged { from, to, sent_ms, received_ms, frame } = logged;
        let (event, late): (_, u128) = match frame {
            Frame::Request(_) => ("request", 0),
            Frame::Ack(ack) if !ack.exchanges.is_empty() => ("ack", 0),
            Frame::Sync(_) => ("sync", 0),
            Frame::Late(late) => ("late", late.items.iter().map(|item| item.amount.0).sum()),
            Frame::Severed(severed) => {
                let own = severed.order.statement.signer == world.key(*from);
                let late = severed.items.iter().map(|item| item.amount.0).sum();
                (if own { "order" } else { "proof" }, late)
            }
            Frame::Response(response) => {
                let late = response.responses.iter().filter_map(|item| item.late);
                ("response", late.map(|late| late.amount.0).sum())
            }
            _ => return None,
        };
        Some(Message {
            case: case.name.clone(),
            event,
            from: self.file.nodes[*from].clone(),
            to: self.file.nodes[*to].clone(),
            sent_ms: sent_ms.checked_sub(START_MS)?,
            received_ms: received_ms.checked_sub(START_MS)?,
            late_ms: u64::try_from(late / u128::from(self.file.late_fee)).ok()?,
            yocto: late,
        })
    }
}

impl PolicyFile {
    fn core(&self) -> Policy {
        Policy {
            patience: match self.severs {
                Severs::Never => Patience::Never,
                Severs::AfterMs(ms) => Patience::AfterMs(ms),
                Severs::Syncs(most) => Patience::Syncs(most),
            },
            orders: match self.orders {
                Orders::AtOnce => OrderPace::AtOnce,
                Orders::WithSync => OrderPace::WithSync,
            },
            act_on_breach: self.acts_on_breach,
            ..Policy::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn late(messages: &[Message], from: &str, to: &str) -> Vec<(u64, u64)> {
        let paid = messages.iter().filter(|m| m.from == from && m.to == to && m.late_ms > 0);
        paid.map(|m| (m.sent_ms, m.late_ms)).collect()
    }

    fn profit(ending: &Ending, name: &str) -> i128 {
        ending.profit_yocto[name]
    }

    /// Every figure of the table in section 5 of the protocol.
    #[test]
    fn the_worked_timelines_are_met_to_the_millisecond_and_the_yocto() {
        let played = play(WORKED).expect("the file is understood");
        let [a, b, c, d, e] = &played[..] else { panic!("{} cases", played.len()) };

        assert_eq!((a.1.outcome, a.1.at_ms, a.1.bound_ms, a.1.paid_late_ms), ("response", 800, 800, 0));
        assert!(a.1.profit_yocto.values().all(|profit| *profit == 0));

        let edge = Some("Bob-Eve".to_owned());
        assert_eq!((b.1.outcome, &b.1.at, b.1.at_ms, b.1.bound_ms), ("severed", &edge, 1000, 1000));
        let order = b.0.iter().find(|m| m.event == "order").expect("an order");
        assert_eq!((order.from.as_str(), order.sent_ms), ("Bob", 700));
        assert!(b.1.profit_yocto.values().all(|profit| *profit == 0), "no late payments");
        let lost: Vec<&str> = b.1.bonds_lost_yocto.keys().map(String::as_str).collect();
        assert_eq!(lost, ["Bob", "Eve"]);

        assert_eq!((c.1.outcome, &c.1.at, c.1.at_ms, c.1.paid_late_ms), ("severed", &edge, 2100, 1100));
        assert_eq!(late(&c.0, "Bob", "Alice"), [(1600, 900)]);
        assert_eq!(late(&c.0, "Alice", "Alex"), [(1000, 100), (1500, 500), (2000, 500)]);
        let order = c.0.iter().find(|m| m.event == "order").expect("an order");
        assert_eq!((order.sent_ms, order.received_ms), (1600, 1800));
        assert_eq!((profit(&c.1, "Bob"), profit(&c.1, "Alice"), profit(&c.1, "Alex")), (-900, -200, 1100));

        assert_eq!((d.1.outcome, d.1.at_ms, d.1.paid_late_ms), ("severed", 2100, 1100));
        let order = d.0.iter().find(|m| m.event == "order").expect("an order");
        assert_eq!((order.received_ms, order.late_ms), (1599, 0));
        assert_eq!(late(&d.0, "Bob", "Alice"), []);
        assert_eq!(late(&d.0, "Alice", "Alex"), late(&c.0, "Alice", "Alex"));
        assert_eq!((profit(&d.1, "Bob"), profit(&d.1, "Alice")), (0, -1100));

        assert_eq!((e.1.outcome, e.1.at_ms), ("severed", 10_100));
        let bob: Vec<(u64, u64)> =
            (1..10).map(|n| (600 + 1000 * n, if n == 1 { 900 } else { 1000 })).collect();
        assert_eq!(late(&e.0, "Bob", "Alice"), bob);
        let alice: Vec<(u64, u64)> = (2..=20).map(|n| (500 * n, if n == 2 { 100 } else { 500 })).collect();
        assert_eq!(late(&e.0, "Alice", "Alex"), alice);
        assert_eq!((profit(&e.1, "Bob"), profit(&e.1, "Alice"), profit(&e.1, "Alex")), (-8900, -200, 9100));
    }

    #[test]
    fn a_file_with_a_mistake_is_refused_with_a_reason() {
        let typo = WORKED.replace("\"Alice\", \"Bob\", \"Carol\"]", "\"Alice\", \"Bob\", \"Karol\"]");
        let error = format!("{:#}", play(&typo).expect_err("no such node"));
        assert!(error.contains("Karol"), "{error}");
        assert!(play("nodes = 3").is_err());
    }

    /// The same rules on another topology: a slow answer over one relay.
    #[test]
    fn other_topologies_follow_the_same_rules() {
        let file = r#"
            nodes = ["P", "Q", "R"]
            late_fee = 7
            bond = 1000000
            [[edges]]
            ends = ["P", "Q"]
            one_way_ms = 50
            heartbeat_ms = 300
            grace_ms = 500
            sync_phase_ms = 40
            base_fee = 11
            [[edges]]
            ends = ["Q", "R"]
            one_way_ms = 30
            heartbeat_ms = 200
            grace_ms = 500
            sync_phase_ms = 0
            base_fee = 13
            [[cases]]
            name = "slow"
            path = ["P", "Q", "R"]
            server_price = 50
            answers_after_ms = 905
        "#;
        let played = play(file).expect("understood");
        let (messages, ending) = &played[0];
        // R has it at 80 and answers at 985. Its deadline is 80 + 60 - 60, Q's 50 + 160 - 100.
        assert_eq!((ending.outcome, ending.at_ms, ending.bound_ms), ("response", 1065, 160));
        let r: u64 = late(messages, "R", "Q").iter().map(|(_, ms)| ms).sum();
        assert_eq!(r, 985 - 80, "{messages:#?}");
        let q: u64 = late(messages, "Q", "P").iter().map(|(_, ms)| ms).sum();
        assert_eq!(q, 1015 - 110);
        assert_eq!(ending.paid_late_ms, q);
        assert_eq!(profit(ending, "P"), -(11 + 13 + 50) + 7 * i128::from(q));
        assert_eq!(profit(ending, "Q"), 11 + 7 * (i128::from(r) - i128::from(q)));
    }
}
