//! Who paid whom, and the proof that it adds up.

use por_node::chain::Chain;
use por_node::client::ChannelInfo;
use por_types::interface::{BooksView, ChannelStatus, ChannelView};
use por_types::{ChannelId, Yocto};
use serde::Serialize;

use super::cluster::Cluster;
use crate::exit::{Exit, Failure};

/// What came of one channel.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelBook {
    pub channel: ChannelId,
    pub a: String,
    pub b: String,
    pub deposit_a: Yocto,
    pub deposit_b: Yocto,
    /// All that each side has ever paid the other; both sides' ledgers say the same.
    pub sent_a: Yocto,
    pub sent_b: Yocto,
    /// What the contract has paid out.
    pub paid_a: Option<Yocto>,
    pub paid_b: Option<Yocto>,
    /// The edge was severed; the totals are what the contract was shown.
    pub severed: bool,
}

/// What a node has paid and received over all its channels.
#[derive(Clone, Debug, Serialize)]
pub struct NodeBook {
    pub name: String,
    pub received: Yocto,
    pub paid: Yocto,
    /// On its account on the chain.
    pub wallet: Option<Yocto>,
}

impl NodeBook {
    /// What it has won; `Err` holds what it has spent on balance.
    pub fn profit(&self) -> Result<Yocto, Yocto> {
        self.received.checked_sub(self.paid).map_err(|_| self.paid.saturating_sub(self.received))
    }
}

/// One line of the proof.
#[derive(Clone, Debug, Serialize)]
pub struct Check {
    pub what: String,
    pub left: Yocto,
    pub right: Yocto,
}

impl Check {
    pub fn holds(&self) -> bool {
        self.left == self.right
    }
}

pub fn overflow<E: std::fmt::Display>(error: E) -> Failure {
    Failure::new(Exit::Fatal, format!("the books do not fit: {error}"), "report this as a defect")
}

pub fn sum(amounts: impl IntoIterator<Item = Yocto>) -> Result<Yocto, Failure> {
    Yocto::checked_sum(amounts).map_err(overflow)
}

/// Reads a channel from both of its ends, once they agree and nothing is under way on it.
pub async fn channel(cluster: &Cluster, id: ChannelId, a: &str, b: &str) -> Result<ChannelBook, Failure> {
    let (left, right) = super::cluster::until(&format!("channel {id}: both ends to agree"), || async {
        let (left, right) = (cluster.member(a).channel(id).await?, cluster.member(b).channel(id).await?);
        let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
        let settled = left.totals == right.totals && left.unfinished + right.unfinished == 0;
        Ok(settled.then_some((left, right)))
    })
    .await?;
    Ok(book(&left, &right, a, b))
}

fn book(left: &ChannelInfo, right: &ChannelInfo, a: &str, b: &str) -> ChannelBook {
    let (paid_a, paid_b) = match &left.status {
        ChannelStatus::Closed { paid_a, paid_b, .. } => (Some(*paid_a), Some(*paid_b)),
        _ => (None, None),
    };
    ChannelBook {
        channel: left.channel,
        a: a.to_owned(),
        b: b.to_owned(),
        deposit_a: left.deposit_mine,
        deposit_b: right.deposit_mine,
        sent_a: left.totals.sent_a,
        sent_b: left.totals.sent_b,
        paid_a,
        paid_b,
        severed: false,
    }
}

/// A severed channel, of which one end is no more: what counts is what the contract was shown.
pub fn on_chain(channel: ChannelId, view: &ChannelView, a: &str, b: &str) -> ChannelBook {
    let (paid_a, paid_b) = match &view.status {
        ChannelStatus::Closed { paid_a, paid_b, severed: true, .. } => (Some(*paid_a), Some(*paid_b)),
        _ => (None, None),
    };
    ChannelBook {
        channel,
        a: a.to_owned(),
        b: b.to_owned(),
        deposit_a: view.deposit_a,
        deposit_b: view.deposit_b,
        sent_a: view.totals.sent_a,
        sent_b: view.totals.sent_b,
        paid_a,
        paid_b,
        severed: true,
    }
}

/// Sums of a node over the channels.
pub fn node(name: &str, channels: &[ChannelBook]) -> Result<NodeBook, Failure> {
    let of = |ours: fn(&ChannelBook) -> (&str, Yocto, Yocto)| {
        channels
            .iter()
            .map(ours)
            .filter(|(end, ..)| *end == name)
            .map(|(_, paid, got)| (paid, got))
            .collect::<Vec<_>>()
    };
    let mut lines = of(|c| (c.a.as_str(), c.sent_a, c.sent_b));
    lines.extend(of(|c| (c.b.as_str(), c.sent_b, c.sent_a)));
    let paid = sum(lines.iter().map(|(paid, _)| *paid))?;
    let received = sum(lines.iter().map(|(_, received)| *received))?;
    Ok(NodeBook { name: name.to_owned(), received, paid, wallet: None })
}

/// Everything that has to be equal after the first act, to the yocto.
pub async fn checks(
    chain: &Chain,
    channels: &[ChannelBook],
    nodes: &[NodeBook],
    reader: &str,
    spent: Yocto,
    surplus: Yocto,
) -> Result<Vec<Check>, Failure> {
    let mut checks = channel_checks(channels)?;
    checks.push(conserved(nodes)?);
    if let Some(reader) = nodes.iter().find(|node| node.name == reader) {
        checks.push(Check {
            what: format!("{}'s channels = the prices that its get was quoted", reader.name),
            left: reader.profit().err().unwrap_or(Yocto::ZERO),
            right: spent,
        });
    }
    checks.push(contract(&read(chain).await?, surplus)?);
    Ok(checks)
}

/// What each channel paid out.
///
/// Errors: if one is not paid out yet.
pub fn channel_checks(channels: &[ChannelBook]) -> Result<Vec<Check>, Failure> {
    let mut checks = Vec::new();
    for book in channels {
        let id = book.channel;
        let pot = sum([book.deposit_a, book.deposit_b])?;
        let (Some(paid_a), Some(paid_b)) = (book.paid_a, book.paid_b) else {
            let what = format!("channel {id} is not paid out");
            return Err(Failure::new(Exit::Fatal, what, "report this as a defect"));
        };
        checks.push(Check {
            what: format!("channel {id}: paid out = paid in"),
            left: sum([paid_a, paid_b])?,
            right: pot,
        });
        let source = if book.severed { "as the contract was shown" } else { "as both ledgers say" };
        let [put_in, sent, received] = [book.deposit_a, book.sent_a, book.sent_b].map(Yocto::to_near_string);
        checks.push(Check {
            what: format!(
                "channel {id}: {} put in {put_in} - sent {sent} + received {received}, {source} = paid out",
                book.a
            ),
            left: sum([book.deposit_a, book.sent_b])?.checked_sub(book.sent_a).map_err(overflow)?,
            right: paid_a,
        });
    }
    Ok(checks)
}

/// Nothing was made and nothing was lost.
pub fn conserved(nodes: &[NodeBook]) -> Result<Check, Failure> {
    let profits = nodes.iter().filter_map(|node| node.profit().ok());
    let losses = nodes.iter().filter_map(|node| node.profit().err());
    Ok(Check {
        what: "all that was earned = all that was spent".into(),
        left: sum(profits)?,
        right: sum(losses)?,
    })
}

/// The contract's books.
pub async fn read(chain: &Chain) -> Result<BooksView, Failure> {
    Ok(chain.books().await.map_err(por_node::exit::CliError::from)?)
}

/// `surplus`: what the account held beyond its books before anybody used it (unused gas of its
/// own deployment comes back to it); not a yocto may have been added or taken since.
pub fn contract(books: &BooksView, surplus: Yocto) -> Result<Check, Failure> {
    let owed = sum([books.owed().map_err(overflow)?, surplus])?;
    Ok(Check { what: "the contract holds = what it owes".into(), left: books.balance, right: owed })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_is_told_as_it_is() {
        let mut book = ChannelBook {
            channel: ChannelId(3),
            a: "alice".into(),
            b: "bob".into(),
            deposit_a: Yocto::near(10),
            deposit_b: Yocto::near(10),
            sent_a: Yocto::near(2),
            sent_b: Yocto::near(1),
            paid_a: Some(Yocto::near(9)),
            paid_b: Some(Yocto::near(11)),
            severed: false,
        };
        let checks = channel_checks(std::slice::from_ref(&book)).expect("paid out");
        assert!(checks.iter().all(Check::holds), "{checks:?}");
        assert_eq!((checks[1].left, checks[1].right), (Yocto::near(9), Yocto::near(9)), "what she gets");
        let says = "put in 10 NEAR - sent 2 NEAR + received 1 NEAR, as both ledgers say";
        assert!(checks[1].what.contains(says), "{}", checks[1].what);
        (book.paid_a, book.paid_b) = (Some(Yocto::near(10)), Some(Yocto::near(10)));
        let wrong = channel_checks(&[book]).expect("paid out");
        assert!(wrong[0].holds() && !wrong[1].holds());
    }
}
