//! From the decision to sever until the proof is with the upstream end, over loopback.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use futures::StreamExt as _;
use libp2p_por::Outcome;
use por_core::AppPricing;
use por_types::ChannelId;
use serde_json::json;

use crate::figures::{Compared, quantile};
use crate::net::{Net, echo};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Edges that are severed, one after the other.
    #[arg(long, default_value_t = 200)]
    severs: usize,
}

/// Time that a proof may take beyond a round trip, milliseconds.
const MARGIN_MS: f64 = 50.0;
const PATIENCE: Duration = Duration::from_secs(60);

/// author – relay – destination, with as many channels on the second edge as there are to sever.
pub async fn run(args: &Args, as_json: bool) -> anyhow::Result<()> {
    ensure!(args.severs > 0, "nothing to sever");
    let mut edges = vec![(0, 1)];
    edges.extend((0..args.severs).map(|_| (1, 2)));
    let net = Net::start(3, &edges).await?;
    let body = Bytes::from_static(&[7; 256]);
    echo(&net.nodes[1], "echo", 16).await?;
    let mut silent = net.nodes[2].control.serve("silent", AppPricing::default(), 4_000).await?;
    let (mut trips, mut proofs) = (Vec::new(), Vec::new());
    for channel in 1..=args.severs {
        let ask = net.request(0, &[0], "echo", body.clone())?;
        let start = Instant::now();
        let answer = net.nodes[0].control.request(ask).await?.outcome().await?;
        ensure!(matches!(answer, Outcome::Response { .. }), "no round trip: {answer:?}");
        trips.push(start.elapsed().as_secs_f64() * 1e3);

        let ask = net.request(0, &[0, channel], "silent", body.clone())?;
        let asked = net.nodes[0].control.request(ask).await?;
        let arrived = tokio::time::timeout(PATIENCE, silent.next()).await.context("no request arrives")?;
        // Kept unanswered: the edge is severed over it.
        let _kept = arrived.context("the destination has ended")?;
        let start = Instant::now();
        net.nodes[1].control.sever(ChannelId(channel as u64)).await?;
        match tokio::time::timeout(PATIENCE, asked.outcome()).await.context("no proof arrives")?? {
            Outcome::Severed { order, .. } if order.statement.channel == ChannelId(channel as u64) => {}
            other => bail!("not the proof of the severed edge: {other:?}"),
        }
        proofs.push(start.elapsed().as_secs_f64() * 1e3);
    }
    for (metric, share) in [("p50_ms", 0.5), ("p99_ms", 0.99)] {
        let (trip, proof) = (quantile(&trips, share), quantile(&proofs, share));
        let line = Compared {
            bench: "sever",
            variant: "decision to proof upstream".to_owned(),
            comparator_name: "itself",
            comparator_variant: "round trip of a paid request".to_owned(),
            metric,
            less_is_better: true,
            ours: vec![proof],
            comparator: vec![trip],
            also: vec![("severs", json!(args.severs)), ("within_bound", json!(proof <= trip + MARGIN_MS))],
            ..Compared::default()
        };
        line.print(as_json);
    }
    Ok(())
}
