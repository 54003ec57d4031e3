//! What people see of the daemon's answers.

use por_types::Side;
use por_types::interface::ChannelStatus;

use super::output::{facts, table};
use crate::client::{ActionResult, ChannelInfo, Happening, PeerInfo, Quote, Status, What};
use crate::exit::shown;

pub(super) fn status(status: &Status) -> String {
    let traffic = &status.traffic;
    let mut rows = vec![
        ("version", status.version.clone()),
        ("node key", status.node_key.to_string()),
        ("peer id", status.peer_id.clone()),
        ("account", status.account.to_string()),
        ("network", format!("{} on {}", status.network.contract, status.network.chain_id)),
        ("registered", if status.registered { "yes".into() } else { "no; run `por register`".into() }),
        ("attached", attached(status)),
        ("stake", status.stake.to_near_string()),
        ("withdrawable", status.withdrawable.to_near_string()),
        ("listening", status.listening.join(" ")),
        ("peers", status.connected_peers.to_string()),
        (
            "graph",
            format!(
                "{} nodes, {} channels, version {}",
                status.graph_nodes, status.graph_channels, status.graph_version
            ),
        ),
        (
            "requests",
            format!(
                "{} sent, {} answered, {} failed, {} spent",
                traffic.sent,
                traffic.answered,
                traffic.failed,
                traffic.spent.to_near_string()
            ),
        ),
        (
            "earned",
            format!(
                "{} serving {}, {} relaying {}",
                traffic.earned_serving.to_near_string(),
                traffic.served,
                traffic.earned_relaying.to_near_string(),
                traffic.relayed
            ),
        ),
        (
            "up",
            humantime::format_duration(std::time::Duration::from_secs(status.uptime_ms / 1000)).to_string(),
        ),
    ];
    if let Some(error) = &status.chain_error {
        rows.push(("chain", format!("cannot be followed: {error}")));
    }
    if let Some(wrong) = &status.clock {
        rows.push(("clock", wrong.clone()));
    }
    for next in &status.announced {
        rows.push(("announced", format!("other {} of the contract from {}", next.what, time(next.from_ms))));
    }
    for app in &status.apps {
        rows.push(("app", format!("{}: {} waiting, {} being answered", app.app, app.waiting, app.leased)));
    }
    facts(&rows)
}

fn attached(status: &Status) -> String {
    match (status.attached, status.attached_since_ms) {
        (true, Some(since)) => format!("since {}", time(since)),
        (true, None) => "yes".to_owned(),
        (false, _) if status.registered => "no; needs a channel to an attached node".to_owned(),
        (false, _) => "no".to_owned(),
    }
}

/// Block time in milliseconds, as people read it.
pub(super) fn time(ms: u64) -> String {
    /// The year 10000, which the format does not have.
    const END: u64 = 253_402_300_800_000;
    let time = std::time::UNIX_EPOCH.checked_add(std::time::Duration::from_secs(ms / 1000));
    match time.filter(|_| ms < END) {
        Some(time) => humantime::format_rfc3339(time).to_string(),
        None => ms.to_string(),
    }
}

/// One line.
pub(super) fn happening(happening: &Happening) -> String {
    let what = match &happening.what {
        What::Sent { request, label, price } => {
            format!("sent: request {request} ({}), {}", shown(label), price.to_near_string())
        }
        What::Overdue { request } => format!("overdue: request {request}"),
        What::Late { request, amount } => {
            format!("late payment: {} for request {request}", amount.to_near_string())
        }
        What::PaidLate { peer, amount } => {
            format!("paid for lateness: {} to {peer}", amount.to_near_string())
        }
        What::Severed { channel, peer, reason } => {
            format!("severed: channel {channel} with {peer} ({reason:?})")
        }
        What::Withheld { peer, reason } => {
            format!("not severed yet: {peer} ({reason:?}), for the fault may be here")
        }
        What::Short { channel, .. } => {
            format!(
                "short: the own balance on channel {channel} was too small for a request (`por channel top-up \
                 {channel} AMOUNT`)"
            )
        }
        What::Proof { request, channel, signer, reason, refund, late, .. } => {
            let (refund, late) = (refund.to_near_string(), late.to_near_string());
            format!(
                "proof: request {request} ended, channel {channel} was severed by {signer} ({reason:?}); {refund} \
                 came back, {late} for lateness"
            )
        }
        What::Pursued { channel, peer, request, end } => {
            format!("pursued: {peer} of channel {channel} for request {request} ({end:?})")
        }
    };
    format!("{}  {what}", time(happening.at_ms))
}

pub(super) fn peers(peers: &[PeerInfo]) -> String {
    let rows: Vec<Vec<String>> = peers
        .iter()
        .map(|peer| {
            vec![
                peer.peer_id.clone(),
                if peer.connected { "connected" } else { "known" }.to_owned(),
                peer.rtt_us.map_or("-".to_owned(), |us| format!("{:.1} ms", us as f64 / 1000.0)),
                peer.addresses.first().cloned().unwrap_or_else(|| "-".to_owned()),
            ]
        })
        .collect();
    table(&["PEER", "STATE", "RTT", "ADDRESS"], &rows)
}

fn state(channel: &ChannelInfo) -> String {
    match &channel.status {
        ChannelStatus::Proposed if channel.side == Side::A => "proposed by us".to_owned(),
        ChannelStatus::Proposed => "proposed to us".to_owned(),
        ChannelStatus::Open if channel.closing => "winding down".to_owned(),
        ChannelStatus::Open => "open".to_owned(),
        ChannelStatus::Closing { confirmed: false, .. } => "close requested".to_owned(),
        ChannelStatus::Closing { .. } => "closing".to_owned(),
        ChannelStatus::Severed { .. } => "severed".to_owned(),
        ChannelStatus::Closed { severed: true, .. } => "closed, severed".to_owned(),
        ChannelStatus::Closed { .. } => "closed".to_owned(),
        ChannelStatus::Cancelled => "cancelled".to_owned(),
    }
}

pub(super) fn channels(channels: &[ChannelInfo]) -> String {
    let rows: Vec<Vec<String>> = channels
        .iter()
        .map(|channel| {
            vec![
                channel.channel.to_string(),
                channel.peer_account.to_string(),
                state(channel),
                channel.balance_mine.to_near_string(),
                channel.balance_theirs.to_near_string(),
                channel.unfinished.to_string(),
                if channel.connected { "yes" } else { "no" }.to_owned(),
            ]
        })
        .collect();
    table(&["ID", "WITH", "STATE", "OURS", "THEIRS", "UNFINISHED", "CONNECTED"], &rows)
}

pub(super) fn quote(quote: &Quote) -> String {
    let mut lines = Vec::new();
    for (number, route) in quote.routes.iter().enumerate() {
        let price = route.price.to_near_string();
        lines.push(format!("route {}: {price}, answer within {} ms", number + 1, route.bound_ms));
        let rows: Vec<Vec<String>> = route
            .hops
            .iter()
            .map(|hop| {
                vec![
                    format!("  {}", hop.channel),
                    hop.to.to_string(),
                    hop.price.to_near_string(),
                    format!("{} ms", hop.allowance_ms),
                ]
            })
            .collect();
        lines.push(table(&["  CHANNEL", "TO", "PRICE", "TIME"], &rows));
    }
    lines.join("\n")
}

/// The outcome of a chain action: the channel or amount it is about, and the transaction.
pub(super) fn action(result: &ActionResult) -> String {
    let mut rows = Vec::new();
    if let Some(channel) = result.channel {
        rows.push(("channel", channel.to_string()));
    }
    if let Some(amount) = result.amount {
        rows.push(("amount", amount.to_near_string()));
    }
    if let Some(transaction) = &result.transaction {
        rows.push(("transaction", transaction.clone()));
    }
    facts(&rows)
}
