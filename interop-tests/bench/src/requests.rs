//! Small requests: ours paid, signed and durable, theirs none of it.

use std::time::Instant;

use anyhow::ensure;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;

use crate::report::{Figures, Round};
use crate::{ours, theirs, usage};

/// Bytes of each request and response.
pub const BODY: usize = 256;

#[derive(Clone, Debug, clap::Args)]
pub struct Requests {
    /// Requests in flight; may be repeated.
    #[arg(long, default_values_t = [1, 64, 1024])]
    inflight: Vec<usize>,
    /// Rounds of each, in turn.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Requests of each round per request in flight; at least 2000 in all.
    #[arg(long, default_value_t = 40)]
    depth: usize,
    /// Only this; for profilers.
    #[arg(long)]
    only: Option<Which>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Which {
    Direct,
    Relay2,
    Theirs,
    TheirsRelay2,
}

impl Which {
    const ALL: [Which; 4] = [Which::Theirs, Which::Direct, Which::Relay2, Which::TheirsRelay2];
}

struct Field {
    direct: ours::Row,
    relayed: ours::Row,
    theirs: theirs::Row,
    theirs_relayed: theirs::Row,
}

pub async fn run(args: &Requests, json: bool) -> anyhow::Result<()> {
    let field = Field {
        direct: ours::Row::start(2).await?,
        relayed: ours::Row::start(4).await?,
        theirs: theirs::Row::start(2).await?,
        theirs_relayed: theirs::Row::start(4).await?,
    };
    for &inflight in &args.inflight {
        let count = (inflight * args.depth).max(2000);
        let mut figures = Figures::default();
        for round in 0..args.rounds {
            // A B C D, D C B A, ...: drift of the machine meets all alike.
            let mut order = Which::ALL;
            if round % 2 == 1 {
                order.reverse();
            }
            for which in order.into_iter().filter(|which| args.only.is_none_or(|only| only == *which)) {
                figures.push(which, field.measure(which, count, inflight).await?);
            }
        }
        figures.print(inflight, json);
    }
    Ok(())
}

impl Field {
    async fn measure(&self, which: Which, count: usize, inflight: usize) -> anyhow::Result<Round> {
        match which {
            Which::Direct => measure(count, inflight, self.direct.asker()).await,
            Which::Relay2 => measure(count, inflight, self.relayed.asker()).await,
            Which::Theirs => measure(count, inflight, self.theirs.asker()).await,
            Which::TheirsRelay2 => measure(count, inflight, self.theirs_relayed.asker()).await,
        }
    }
}

/// As a task of the nodes' executor, like an application: another thread would have to be woken for each answer.
async fn measure(
    count: usize,
    inflight: usize,
    ask: impl Fn() -> BoxFuture<'static, anyhow::Result<()>> + Send + Sync + 'static,
) -> anyhow::Result<Round> {
    tokio::spawn(async move { keep(count, inflight, &ask).await }).await?
}

/// Keeps `inflight` requests under way until `count` have been answered.
async fn keep(
    count: usize,
    inflight: usize,
    ask: &impl Fn() -> BoxFuture<'static, anyhow::Result<()>>,
) -> anyhow::Result<Round> {
    let one = || async {
        let start = Instant::now();
        ask().await?;
        anyhow::Ok(start.elapsed())
    };
    usage::forget_peak();
    let (start, cpu) = (Instant::now(), usage::cpu()?);
    let mut running: FuturesUnordered<_> = (0..inflight.min(count)).map(|_| one()).collect();
    let (mut sent, mut latencies) = (running.len(), Vec::with_capacity(count));
    while let Some(latency) = running.next().await {
        latencies.push(latency?);
        if sent < count {
            sent += 1;
            running.push(one());
        }
    }
    ensure!(latencies.len() == count, "{} of {count} requests were answered", latencies.len());
    latencies.sort_unstable();
    Ok(Round {
        rps: count as f64 / start.elapsed().as_secs_f64(),
        p50_us: latencies[count / 2].as_secs_f64() * 1e6,
        cpu_us: (usage::cpu()? - cpu).as_secs_f64() * 1e6 / count as f64,
        peak_mib: usage::peak_mib()?,
    })
}
