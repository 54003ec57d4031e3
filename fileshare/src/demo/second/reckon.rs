//! The second act's books.

use std::collections::BTreeMap;

use por_node::exit::CliError;
use por_types::{ChannelId, Yocto};
use serde_json::json;

pub(super) use crate::demo::books::{overflow, sum};

use super::watch::{Seen, catch_up};
use super::{ALIVE, DOOMED, SERVER};
use crate::demo::books::{self, ChannelBook, Check};
use crate::demo::cluster::Cluster;
use crate::demo::tell::Tell;
use crate::demo::{EDGES, READER, nodes};
use crate::exit::{Exit, Failure};

/// How things stood before the gets.
pub struct Before {
    /// The server's.
    pub stake: Yocto,
    /// What the contract has kept of penalties.
    kept: Yocto,
    /// The reader's, of requests that were answered, and for lateness.
    spent: Yocto,
    late: Yocto,
    /// What the reader had paid over its channel already: for asking what the file costs.
    paid: Yocto,
    pub news: BTreeMap<&'static str, u64>,
    paid_late: BTreeMap<&'static str, Yocto>,
}

impl Before {
    pub async fn read(cluster: &Cluster, channels: &[ChannelId]) -> Result<Before, Failure> {
        let (a, b, _) = EDGES[0];
        let book = books::channel(cluster, channels[0], a, b).await?;
        let traffic = cluster.member(READER).status().await?.traffic;
        let (mut news, mut paid_late) = (BTreeMap::new(), BTreeMap::new());
        for name in ALIVE {
            paid_late.insert(name, cluster.member(name).status().await?.traffic.paid_late);
            news.insert(name, cluster.member(name).client.news(0).await?.next);
        }
        Ok(Before {
            stake: stake(cluster).await?,
            kept: kept(cluster).await?,
            spent: traffic.spent,
            late: traffic.got_late,
            paid: outflow(&book)?,
            news,
            paid_late,
        })
    }
}

async fn stake(cluster: &Cluster) -> Result<Yocto, Failure> {
    let account = &cluster.member(SERVER).account;
    let node = cluster.chain().await?.node(account).await.map_err(CliError::from)?;
    Ok(node.map(|node| node.stake).unwrap_or_default())
}

/// Penalties belong to the treasury, after the reimbursement window.
async fn kept(cluster: &Cluster) -> Result<Yocto, Failure> {
    let books = books::read(&cluster.chain().await?).await?;
    sum([books.treasury, books.escrow])
}

/// What side A has paid on balance.
fn outflow(book: &ChannelBook) -> Result<Yocto, Failure> {
    book.sent_a.checked_sub(book.sent_b).map_err(overflow)
}

/// Reads everything once more and shows that it adds up.
pub async fn prove(
    tell: &Tell,
    cluster: &Cluster,
    channels: &[ChannelId],
    before: &Before,
    mut seen: Seen,
    surplus: Yocto,
) -> Result<(), Failure> {
    let mut ledger = Vec::new();
    for (index, (id, (a, b, _))) in channels.iter().zip(EDGES).enumerate() {
        let severed = DOOMED.iter().any(|(edge, _)| *edge == index);
        ledger.push(match severed {
            true => books::on_chain(*id, &super::view(cluster, *id).await?, a, b),
            false => books::channel(cluster, *id, a, b).await?,
        });
    }
    catch_up(cluster, &mut seen, READER).await?;
    let mut checks = books::channel_checks(&ledger)?;
    let mut nodes = nodes(&ledger)?;
    checks.push(books::conserved(&nodes)?);
    checks.push(reader(cluster, before, &seen, &ledger[0]).await?);
    let penalty = Penalty::read(cluster, channels, before).await?;
    checks.extend(penalty.checks()?);
    let chain = cluster.chain().await?;
    checks.push(books::contract(&books::read(&chain).await?, surplus)?);
    for name in ALIVE {
        cluster.member(name).client.withdraw(None).await?;
    }
    for node in &mut nodes {
        let account = &cluster.member(&node.name).account;
        node.wallet = chain.balance(account).await.map_err(CliError::from)?;
    }
    tell.step("The books of the second act", "Every line is exact, to the yocto (10^-24 NEAR).");
    who_bears_it(tell, cluster, before, &penalty).await?;
    let held =
        "In the contract are still the stakes, and what is left of the bonds until their windows are over.";
    tell.books(&ledger, &nodes, &checks, held);
    if checks.iter().all(Check::holds) {
        return Ok(());
    }
    Err(Failure::new(Exit::Fatal, "the books do not balance", "report this as a defect"))
}

/// What the reader has paid is what it has an answer or a proof for, less what it got for lateness.
async fn reader(
    cluster: &Cluster,
    before: &Before,
    seen: &Seen,
    book: &ChannelBook,
) -> Result<Check, Failure> {
    let traffic = cluster.member(READER).status().await?.traffic;
    let late = traffic.got_late.checked_sub(before.late).map_err(overflow)?;
    let answered = traffic.spent.checked_sub(before.spent).map_err(overflow)?;
    let paid = outflow(book)?.checked_sub(before.paid).map_err(overflow)?;
    Ok(Check {
        what: format!(
            "{READER}: paid over her channel + got for lateness ({}) = answered + not refunded of {} severed requests",
            late.to_near_string(),
            seen.proofs
        ),
        left: sum([paid, late])?,
        right: sum([answered, seen.lost])?,
    })
}

/// Who has paid for the server's death.
async fn who_bears_it(
    tell: &Tell,
    cluster: &Cluster,
    before: &Before,
    penalty: &Penalty,
) -> Result<(), Failure> {
    let (bonds, stake) = (penalty.half.to_near_string(), penalty.lost.to_near_string());
    tell.fact(
        &format!("dave   lost {bonds} of bonds and {stake} of stake"),
        json!({ "node": SERVER, "bonds_lost": penalty.half, "stake_lost": penalty.lost }),
    );
    for (_, name) in DOOMED {
        let late = cluster.member(name).status().await?.traffic.paid_late;
        let late = late.checked_sub(before.paid_late.get(name).copied().unwrap_or_default());
        let late = late.map_err(overflow)?;
        tell.fact(
            &format!("{name:<6} has its bond back, and paid {} for lateness", late.to_near_string()),
            json!({ "node": name, "paid_late": late }),
        );
    }
    Ok(())
}

/// Penalty, reimbursement and slash, from the contract's views.
struct Penalty {
    /// Bonds of one side of the severed channels.
    half: Yocto,
    /// Of the server's stake.
    lost: Yocto,
    /// What the contract kept.
    kept: Yocto,
    /// What the slash must be.
    slash: Yocto,
    slash_bps: u16,
}

impl Penalty {
    async fn read(cluster: &Cluster, channels: &[ChannelId], before: &Before) -> Result<Penalty, Failure> {
        let params = cluster.chain().await?.config().await.map_err(CliError::from)?.params;
        let mut half = Yocto::ZERO;
        for (edge, _) in DOOMED {
            half = sum([half, super::view(cluster, channels[edge]).await?.bond])?;
        }
        let rest = before.stake.checked_sub(half).map_err(overflow)?;
        let slash = rest.checked_mul(params.slash_bps.into()).map_err(overflow)?;
        Ok(Penalty {
            half,
            lost: before.stake.checked_sub(stake(cluster).await?).map_err(overflow)?,
            kept: kept(cluster).await?.checked_sub(before.kept).map_err(overflow)?,
            slash: Yocto(slash.0 / 10_000),
            slash_bps: params.slash_bps,
        })
    }

    fn checks(&self) -> Result<[Check; 2], Failure> {
        let percent = self.slash_bps / 100;
        Ok([
            Check {
                what: format!(
                    "{SERVER}'s stake lost = carol's and erin's bonds reimbursed + {percent} % of the rest slashed"
                ),
                left: self.lost,
                right: sum([self.half, self.slash])?,
            },
            Check {
                what: "the treasury has or gets = the four bonds + the slash".into(),
                left: self.kept,
                right: sum([self.half, self.half, self.slash])?,
            },
        ])
    }
}
