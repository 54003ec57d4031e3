//! Whether an endpoint's answer to a view can be an answer of the contract. One that cannot is passed over:
//! sums of its numbers might not fit, loops over its pages not end, and calls be made for what it says.
//!
//! That an answer is sound does not make it true: an endpoint that lies consistently, and alone, is believed.

use por_types::Yocto;
use por_types::interface::{ChangesView, ChannelStatus, ChannelView, ConfigView, NodeView};

use super::rpc::Skip;

/// Heights, versions, ids and the like are smaller: counted by the millisecond they would last for 8,900 years.
pub(super) const MAX_COUNT: u64 = 1 << 48;
/// Nodes and channels that a node reads and keeps in memory, each; some 2 GB.
pub(crate) const MAX_RECORDS: u64 = 1 << 20;
/// Channels ever proposed: their pages are read one by one, whether there is anything left in them or not.
const MAX_CHANNELS: u64 = 1 << 24;
/// Changes that a contract's log may hold; it keeps some 4,000.
const MAX_LOG: u64 = 1 << 16;
/// More than any account has, in yocto: a million times all NEAR. Sums of many such amounts fit.
const MAX_AMOUNT: Yocto = Yocto(1 << 120);
/// A call does not attach more than this for storage or a check, whatever the contract is said to ask for.
const MAX_FEE: Yocto = Yocto::near(10_000);

type Sound = Result<(), Skip>;

fn that(is: bool, why: impl FnOnce() -> String) -> Sound {
    if is { Ok(()) } else { Err(Skip::Bad(why())) }
}

pub(super) fn count(what: &str, number: u64) -> Sound {
    that(number <= MAX_COUNT, || format!("says {what} {number}"))
}

fn amounts(of: &dyn std::fmt::Display, amounts: &[Yocto]) -> Sound {
    that(amounts.iter().all(|amount| *amount <= MAX_AMOUNT), || {
        format!("says of {of} more than all NEAR there is")
    })
}

pub(super) fn config(view: &ConfigView) -> Sound {
    count("version", view.graph_version)?;
    that(view.nodes <= MAX_RECORDS, || format!("says {} nodes", view.nodes))?;
    that(view.channels <= MAX_CHANNELS, || format!("says {} channels", view.channels))?;
    let asked = [view.register_storage, view.channel_storage, view.check_deposit];
    that(asked.iter().all(|fee| *fee <= MAX_FEE), || {
        "asks for deposits that no contract asks for".to_owned()
    })?;
    let params = view.params.out_of_bounds(view.test);
    that(params.is_none(), || format!("says parameters that no contract has: {}", params.unwrap_or_default()))
}

pub(super) fn node(view: &NodeView) -> Sound {
    amounts(&view.account, &[view.stake, view.active_stake, view.locked, view.unstaking])
}

pub(super) fn channel(view: &ChannelView) -> Sound {
    let id = view.channel;
    count("channel", id.0)?;
    let terms = view.terms.validate();
    that(terms.is_ok(), || format!("says terms of channel {id} that no contract has"))?;
    that(view.key_a != view.key_b, || format!("says that channel {id} has one end"))?;
    let ChannelView { deposit_a, deposit_b, drawn_a, drawn_b, bond, totals, .. } = view;
    let mut all = vec![*deposit_a, *deposit_b, *drawn_a, *drawn_b, *bond, totals.sent_a, totals.sent_b];
    match &view.status {
        ChannelStatus::Closing { totals, .. } => all.extend([totals.sent_a, totals.sent_b]),
        ChannelStatus::Closed { paid_a, paid_b, .. } => all.extend([*paid_a, *paid_b]),
        _ => {}
    }
    amounts(&format_args!("channel {id}"), &all)
}

/// A page of nodes with index `from..from + limit`.
pub(super) fn nodes(from: u64, limit: u32, page: &[NodeView]) -> Sound {
    in_page(from, limit, page.iter().map(|node| u64::from(node.index)))?;
    page.iter().try_for_each(node)
}

/// A page of channels with id `from..from + limit`.
pub(super) fn channels(from: u64, limit: u32, page: &[ChannelView]) -> Sound {
    in_page(from, limit, page.iter().map(|channel| channel.channel.0))?;
    page.iter().try_for_each(channel)
}

fn in_page(from: u64, limit: u32, numbers: impl Iterator<Item = u64>) -> Sound {
    let end = from.saturating_add(u64::from(limit));
    let mut next = from;
    for number in numbers {
        that((next..end).contains(&number), || format!("gives {number} in the page {from} to {end}"))?;
        next = number.saturating_add(1);
    }
    Ok(())
}

/// A page of the change log after `since`. Each brings its reader nearer to the version that it names, by as
/// much as was asked for, or says that the log begins later.
pub(super) fn changes(since: u64, limit: u32, page: &ChangesView) -> Sound {
    let ChangesView { version, upto, oldest, nodes, channels, gone } = page;
    if *version < since {
        return Err(Skip::Old(format!("is at version {version}, {since} was seen before")));
    }
    count("version", *version)?;
    that(*oldest <= (*version).max(1), || format!("says that the log begins at {oldest}, after its end"))?;
    let behind = since.saturating_add(1) < *oldest;
    let expected = if behind { since } else { since.saturating_add(u64::from(limit)).min(*version) };
    that(*upto == expected, || format!("answers changes from {since} to {upto} of {version}"))?;
    that(behind || version - since <= MAX_LOG, || format!("says {} changes", version - since))?;
    let entries = nodes.len().saturating_add(channels.len()).saturating_add(gone.len());
    that(entries as u64 <= upto - since, || format!("gives {entries} records for {} changes", upto - since))?;
    nodes.iter().try_for_each(node)?;
    channels.iter().try_for_each(channel)
}
