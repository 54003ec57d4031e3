//! What happens after the kill, as the daemons and the contract tell it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use por_node::client::{Happening, What};
use por_types::interface::ChannelStatus;
use por_types::{ChannelId, NodeKey, Yocto};
use serde_json::{Value, json};

use super::gets::Getting;
use super::reckon::{Before, sum};
use super::{ALIVE, DOOMED, Killed, READER, SERVER, view};
use crate::demo::cluster::Cluster;
use crate::demo::same_bytes;
use crate::demo::tell::Tell;
use crate::exit::{Exit, Failure};
use crate::progress::bytes;

/// Between two looks.
const INTERVAL: Duration = Duration::from_millis(50);
/// Longest time from the kill to the end.
const PATIENCE: Duration = Duration::from_secs(100);

/// What the readers have seen of proofs.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Prices of the first reader's severed requests, less what came back of them.
    pub lost: Yocto,
    /// Number of those requests.
    pub proofs: u32,
    /// Where each daemon's news go on.
    next: BTreeMap<&'static str, u64>,
}

pub fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

/// Follows everything until both gets have ended, both edges are gone and the server is cut off.
pub async fn watch(
    tell: &Tell,
    cluster: &Cluster,
    channels: &[ChannelId],
    gets: Vec<Getting>,
    before: &Before,
    killed: &Killed,
    file: &Path,
) -> Result<Seen, Failure> {
    tell.step(
        "What follows",
        "Seconds since the kill. Carol owes Bob an answer and Bob owes it to Alice: past its bound each\n\
         pays for every millisecond. Carol and Erin hear nothing from Dave and, when their patience is\n\
         over, sever the edge with a signed order, which is its own proof: it travels to Alice before\n\
         the contract has it.",
    );
    let mut watch = Watch {
        tell,
        cluster,
        killed_ms: killed.at_ms,
        seen: Seen { next: before.news.clone(), ..Seen::default() },
        late: Yocto::ZERO,
        gone: [false; 2],
        cut_off: false,
        gets,
        told: Vec::new(),
    };
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        // News last: what they tell of is older than their answers, and newer than the last ones.
        watch.contract(channels, before).await?;
        watch.gets(file).await?;
        watch.news().await?;
        watch.flush();
        if watch.gets.is_empty() && watch.cut_off && watch.gone == [true; 2] {
            return Ok(watch.seen);
        }
        if tokio::time::Instant::now() > deadline {
            let what = format!(
                "{} gets run, edges gone: {:?}, cut off: {}",
                watch.gets.len(),
                watch.gone,
                watch.cut_off
            );
            let fix = "run the demo with --keep DIR and read the logs of the nodes";
            return Err(Failure::new(Exit::Deadline, format!("the second act does not end: {what}"), fix));
        }
        tokio::time::sleep(INTERVAL).await;
    }
}

/// Reads what is new; the first reader's proofs are added up.
pub async fn catch_up(
    cluster: &Cluster,
    seen: &mut Seen,
    name: &'static str,
) -> Result<Vec<Happening>, Failure> {
    let since = seen.next.get(name).copied().unwrap_or(0);
    let news = cluster.member(name).client.news(since).await?;
    seen.next.insert(name, news.next);
    for happening in &news.happenings {
        if let (READER, What::Proof { price, refund, .. }) = (name, &happening.what) {
            let price = price.ok_or_else(|| {
                Failure::new(Exit::Fatal, "a request without a price", "report this as a defect")
            })?;
            let lost = price.checked_sub(*refund).map_err(super::reckon::overflow)?;
            seen.lost = sum([seen.lost, lost])?;
            seen.proofs += 1;
        }
    }
    Ok(news.happenings)
}

struct Watch<'a> {
    tell: &'a Tell,
    cluster: &'a Cluster,
    killed_ms: u64,
    seen: Seen,
    /// What the first reader got for lateness since the kill.
    late: Yocto,
    gone: [bool; 2],
    cut_off: bool,
    gets: Vec<Getting>,
    /// What is told at the end of this look, in the order of time.
    told: Vec<(u64, String, Value)>,
}

/// Happenings of one node that are told in one line.
struct Line {
    at_ms: u64,
    name: &'static str,
    kind: Kind,
    requests: u32,
    amount: Yocto,
    refund: Yocto,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Overdue,
    Late,
    PaidLate(NodeKey),
    Severed(ChannelId),
    Proof(ChannelId, NodeKey),
}

impl Watch<'_> {
    async fn news(&mut self) -> Result<(), Failure> {
        let mut lines: Vec<Line> = Vec::new();
        for name in ALIVE {
            let happenings = catch_up(self.cluster, &mut self.seen, name).await?;
            for Happening { at_ms, what, .. } in happenings {
                if at_ms >= self.killed_ms {
                    add(&mut lines, at_ms, name, &what)?;
                }
            }
        }
        lines.sort_by_key(|line| line.at_ms);
        for line in lines {
            self.line(&line)?;
        }
        Ok(())
    }

    fn say(&mut self, at_ms: u64, text: String, value: Value) {
        self.told.push((at_ms, text, value));
    }

    fn flush(&mut self) {
        self.told.sort_by_key(|(at_ms, ..)| *at_ms);
        for (at_ms, text, value) in std::mem::take(&mut self.told) {
            self.tell.happened(at_ms.saturating_sub(self.killed_ms), &text, value);
        }
    }

    fn name(&self, key: &NodeKey) -> String {
        self.cluster.name_of(key).unwrap_or("somebody").to_owned()
    }

    fn line(&mut self, line: &Line) -> Result<(), Failure> {
        let Line { at_ms, name, kind, requests, amount, refund } = line;
        let near = amount.to_near_string();
        let many = requests_of(*requests);
        let (text, value) = match kind {
            Kind::Overdue => (
                format!("{name}: no answer within the bound for {many}"),
                json!({ "kind": "overdue", "node": name, "requests": requests }),
            ),
            Kind::Late => {
                self.late = sum([self.late, *amount])?;
                (
                    format!(
                        "{name} gets {near} for lateness of {many}; {} so far",
                        self.late.to_near_string()
                    ),
                    json!({ "kind": "late", "node": name, "requests": requests, "yocto": amount }),
                )
            }
            Kind::PaidLate(peer) => {
                let to = self.name(peer);
                (
                    format!("{name} pays {to} {near} for lateness of {many}"),
                    json!({ "kind": "paid_late", "node": name, "to": to, "requests": requests, "yocto": amount }),
                )
            }
            Kind::Severed(channel) => (
                format!("{name} severs channel {channel} with dave, and signs the order"),
                json!({ "kind": "severed", "node": name, "channel": channel }),
            ),
            Kind::Proof(channel, signer) => {
                let signer = self.name(signer);
                let back = refund.to_near_string();
                (
                    match signer == *name {
                        true => format!("{name}: her order ends {many} of her own"),
                        false => format!(
                            "{name} holds the proof, {signer}'s order for channel {channel}: it ends {many}, {back} of \
                             {near} came back"
                        ),
                    },
                    json!({ "kind": "proof", "node": name, "channel": channel, "signer": signer,
                            "requests": requests, "price": amount, "refund": refund }),
                )
            }
        };
        self.say(*at_ms, text, value);
        Ok(())
    }

    /// What the contract has decided since the last look.
    async fn contract(&mut self, channels: &[ChannelId], before: &Before) -> Result<(), Failure> {
        for (index, (edge, name)) in DOOMED.into_iter().enumerate() {
            if self.gone[index] {
                continue;
            }
            let view = view(self.cluster, channels[edge]).await?;
            if let ChannelStatus::Severed { .. } | ChannelStatus::Closed { .. } = view.status {
                self.gone[index] = true;
                let bond = view.bond;
                self.say(
                    now_ms(),
                    format!(
                        "the contract has {name}'s order: channel {} is no more, both ends' bonds of {} are lost",
                        view.channel,
                        bond.to_near_string()
                    ),
                    json!({ "kind": "edge_gone", "channel": view.channel, "bond": bond }),
                );
            }
        }
        if self.cut_off || self.gone != [true; 2] {
            return Ok(());
        }
        let chain = self.cluster.chain().await?;
        let account = &self.cluster.member(SERVER).account;
        let node = chain.node(account).await.map_err(por_node::exit::CliError::from)?;
        let Some(node) = node.filter(|node| !node.attached) else { return Ok(()) };
        self.cut_off = true;
        let at_ms = now_ms();
        self.say(
            at_ms,
            format!(
                "the contract finds no way to dave any more; his stake pays: {} before, {} now",
                before.stake.to_near_string(),
                node.stake.to_near_string()
            ),
            json!({ "kind": "cut_off", "node": SERVER, "stake_before": before.stake, "stake": node.stake }),
        );
        for (_, name) in DOOMED {
            let account = &self.cluster.member(name).account;
            let due = chain.withdrawable(account).await.map_err(por_node::exit::CliError::from)?;
            self.say(
                at_ms,
                format!(
                    "{name} can withdraw {}: the bond back, from dave's stake, and what the check did not need",
                    due.to_near_string()
                ),
                json!({ "kind": "reimbursed", "node": name, "withdrawable": due }),
            );
        }
        Ok(())
    }

    async fn gets(&mut self, file: &Path) -> Result<(), Failure> {
        let mut running = Vec::new();
        for mut get in std::mem::take(&mut self.gets) {
            if !get.is_over()? {
                running.push(get);
                continue;
            }
            let summary = get.end().await?;
            let (one, other) = (file.to_owned(), get.target.clone());
            if !crate::net::blocking(move || same_bytes(&one, &other)).await?? {
                let what = format!("what {} has is not what was put", get.name);
                return Err(Failure::new(Exit::VerificationFailed, what, "report this as a defect"));
            }
            let parts: Vec<String> = summary
                .providers
                .iter()
                .map(|tally| format!("{} from {}", bytes(tally.bytes), self.name(&tally.node)))
                .collect();
            let from: Vec<Value> = summary
                .providers
                .iter()
                .map(|tally| json!({ "node": self.name(&tally.node), "bytes": tally.bytes, "failures": tally.failures }))
                .collect();
            self.say(
                now_ms(),
                format!("{} has the whole file, byte for byte: {}", get.name, parts.join(", ")),
                json!({ "kind": "complete", "node": get.name, "verified": true, "from": from, "spent": summary.spent }),
            );
        }
        self.gets = running;
        Ok(())
    }
}

/// `one request`, `2 requests`.
pub fn requests_of(count: u32) -> String {
    if count == 1 { "one request".to_owned() } else { format!("{count} requests") }
}

/// Adds a happening to the line that it belongs to.
fn add(lines: &mut Vec<Line>, at_ms: u64, name: &'static str, what: &What) -> Result<(), Failure> {
    let (kind, amount, refund) = match what {
        What::Overdue { .. } => (Kind::Overdue, Yocto::ZERO, Yocto::ZERO),
        What::Late { amount, .. } => (Kind::Late, *amount, Yocto::ZERO),
        // What the first relay pays is what the reader gets.
        What::PaidLate { peer, amount } if name != "bob" => (Kind::PaidLate(*peer), *amount, Yocto::ZERO),
        What::Severed { channel, .. } => (Kind::Severed(*channel), Yocto::ZERO, Yocto::ZERO),
        What::Proof { channel, signer, price, refund, .. } => {
            (Kind::Proof(*channel, *signer), price.unwrap_or_default(), *refund)
        }
        _ => return Ok(()),
    };
    let known = lines.iter_mut().find(|line| line.name == name && line.kind == kind);
    match known {
        Some(line) => {
            line.requests += 1;
            line.amount = sum([line.amount, amount])?;
            line.refund = sum([line.refund, refund])?;
        }
        None => lines.push(Line { at_ms, name, kind, requests: 1, amount, refund }),
    }
    Ok(())
}
