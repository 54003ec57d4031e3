//! More load than a server can carry: 999 greedy clients that share one node and its channel to
//! the server, and a modest one with a node and a channel of its own. All three nodes are in this
//! process, each with its clients on threads of its own; the server is alone on its core.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use bytes::Bytes;
use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use libp2p_por::{Control, OutboundRequest, Outcome};
use por_core::Event;
use serde_json::json;

use crate::figures::{Compared, median, quantile};
use crate::net::{Net, Node, Place, echo};
use crate::process::Usage;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Offered load in multiples of the capacity; may be repeated.
    #[arg(long, default_values_t = [1.0, 2.0, 5.0])]
    load: Vec<f64>,
    /// Greedy clients, all on one node.
    #[arg(long, default_value_t = 999)]
    clients: usize,
    /// Seconds of each load.
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Rounds of each, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Lets all nodes run on all cores: the clients then take what the server needs.
    #[arg(long)]
    shared: bool,
}

const BODY: usize = 256;
const GREEDY: usize = 0;
const MODEST: usize = 1;
const SERVER: usize = 2;
/// Requests that one greedy client leaves open before it skips one.
const PATIENCE: usize = 16;
/// Between two requests of the modest client.
const PAUSE: Duration = Duration::from_millis(5);
/// The load comes in portions.
const TICK: Duration = Duration::from_millis(2);

/// What one client or group of clients saw.
#[derive(Default)]
struct Seen {
    ms: Vec<f64>,
    /// Refused by the own node or a node of the path, and refunded.
    refused: u64,
    /// Not sent: the client had too many open.
    skipped: u64,
}

impl Seen {
    fn note(&mut self, took: anyhow::Result<Option<Duration>>) -> anyhow::Result<()> {
        match took? {
            Some(took) => self.ms.push(took.as_secs_f64() * 1e3),
            None => self.refused += 1,
        }
        Ok(())
    }
}

/// How long a request took; `None` if it was refused.
async fn once(control: &Control, request: OutboundRequest) -> anyhow::Result<Option<Duration>> {
    let start = Instant::now();
    let Ok(ended) = control.complete(request).await else { return Ok(None) };
    match ended.outcome {
        Outcome::Response { .. } => Ok(Some(start.elapsed())),
        Outcome::Rejected { .. } => Ok(None),
        other => anyhow::bail!("no outcome that overload may have: {other:?}"),
    }
}

/// `rate` requests a second for `time`, whatever becomes of them.
async fn offer(
    control: Control,
    request: OutboundRequest,
    rate: f64,
    clients: usize,
    time: Duration,
) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let mut open = FuturesUnordered::new();
    let mut ticks = tokio::time::interval(TICK);
    let (start, mut sent) = (Instant::now(), 0u64);
    while start.elapsed() < time {
        tokio::select! {
            _ = ticks.tick() => {
                let due = (start.elapsed().as_secs_f64() * rate) as u64;
                while sent < due {
                    sent += 1;
                    if open.len() < clients * PATIENCE {
                        open.push(once(&control, request.clone()));
                    } else {
                        seen.skipped += 1;
                    }
                }
            }
            Some(took) = open.next() => seen.note(took)?,
        }
    }
    // What is still open is answered, but not within the time.
    while let Some(took) = open.next().await {
        took?;
    }
    Ok(seen)
}

/// One request at a time.
async fn gently(control: Control, request: OutboundRequest, time: Duration) -> anyhow::Result<Seen> {
    let mut seen = Seen::default();
    let start = Instant::now();
    while start.elapsed() < time {
        seen.note(once(&control, request.clone()).await)?;
        tokio::time::sleep(PAUSE).await;
    }
    Ok(seen)
}

/// Requests a second with many always open.
async fn capacity(control: Control, request: OutboundRequest, time: Duration) -> anyhow::Result<f64> {
    let mut seen = Seen::default();
    let mut open = FuturesUnordered::new();
    let start = Instant::now();
    while start.elapsed() < time {
        while open.len() < 1024 {
            open.push(once(&control, request.clone()));
        }
        if let Some(took) = open.next().await {
            seen.note(took)?;
        }
    }
    let rate = seen.ms.len() as f64 / start.elapsed().as_secs_f64();
    while let Some(took) = open.next().await {
        took?;
    }
    Ok(rate)
}

/// The server has a core and the disk for itself; on the other core the modest client has what it needs,
/// as if it were on a machine of its own, and the greedy ones the rest.
fn places(shared: bool) -> [Place; 3] {
    let mut places = [Place::default(); 3];
    if !shared {
        places[SERVER].core = Some(0);
        places[MODEST] = Place { core: Some(1), in_memory: true, ..Place::default() };
        places[GREEDY] = Place { core: Some(1), in_memory: true, behind: true };
    }
    places
}

/// Runs clients of a node where the node runs.
fn on<T, F>(node: &Node, clients: impl FnOnce(Control) -> F) -> impl Future<Output = anyhow::Result<T>>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let running = node.runtime.spawn(clients(node.control.clone()));
    async { running.await? }
}

/// Counts signs of a heartbeat that was not on time, from now on.
async fn watch(net: &Net) -> anyhow::Result<Arc<AtomicU64>> {
    let missed = Arc::new(AtomicU64::new(0));
    for node in &net.nodes {
        let mut events = node.control.events().await?;
        let missed = missed.clone();
        let control = node.control.clone();
        // Where the node runs: a thread for it elsewhere would take time from the server's core.
        node.runtime.spawn(async move {
            loop {
                while let Some(event) = events.next().await {
                    if matches!(
                        event,
                        Event::EdgeSevered { .. }
                            | Event::SeverWithheld { .. }
                            | Event::PaidLate { .. }
                            | Event::Late { .. }
                            | Event::PeerLost { .. }
                            | Event::Misbehaved { .. }
                    ) {
                        missed.fetch_add(1, Ordering::Relaxed);
                    }
                }
                // A subscriber that lags is dropped: it begins anew.
                let Ok(again) = control.events().await else { return };
                events = again;
            }
        });
    }
    Ok(missed)
}

/// Figures of one load, by round.
#[derive(Default)]
struct Load {
    goodput: Vec<f64>,
    p50: Vec<f64>,
    p99: Vec<f64>,
    p999: Vec<f64>,
    modest_p99: Vec<f64>,
    modest_refused: u64,
    refused: u64,
    skipped: u64,
    rss_mib: f64,
}

pub async fn run(args: &Args, as_json: bool) -> anyhow::Result<()> {
    ensure!(!args.load.is_empty() && args.seconds > 0 && args.rounds > 0, "nothing to do");
    let net = Net::start_apart(&places(args.shared), &[(GREEDY, SERVER), (MODEST, SERVER)]).await?;
    echo(&net.nodes[SERVER], "echo", 4_096).await?;
    let missed = watch(&net).await?;
    let time = Duration::from_secs(args.seconds);
    let body = Bytes::from_static(&[7; BODY]);
    let greedy = net.request(GREEDY, &[0], "echo", body.clone())?;
    let modest = net.request(MODEST, &[1], "echo", body)?;
    let (many, one) = (&net.nodes[GREEDY], &net.nodes[MODEST]);
    let (mut peak, mut quiet) = (Vec::new(), Vec::new());
    let mut loads: Vec<Load> = args.load.iter().map(|_| Load::default()).collect();
    for round in 0..args.rounds {
        peak.push(on(many, |control| capacity(control, greedy.clone(), time)).await?);
        let alone = on(one, |control| gently(control, modest.clone(), time)).await?;
        quiet.push(quantile(&alone.ms, 0.99));
        for at in 0..loads.len() {
            let at = if round % 2 == 0 { at } else { loads.len() - 1 - at };
            let rate = median(&peak) * args.load[at];
            let crowd = on(many, |control| offer(control, greedy.clone(), rate, args.clients, time));
            let single = on(one, |control| gently(control, modest.clone(), time));
            let (crowd, single) = tokio::try_join!(crowd, single)?;
            loads[at].add(&crowd, &single, time)?;
        }
    }
    let missed = missed.load(Ordering::Relaxed);
    for (load, factor) in loads.iter().zip(&args.load) {
        load.print(*factor, args, &peak, &quiet, missed, as_json);
    }
    Ok(())
}

impl Load {
    fn add(&mut self, crowd: &Seen, single: &Seen, time: Duration) -> anyhow::Result<()> {
        let first = crowd.ms.first().and(single.ms.first());
        first.context("nothing was answered under load")?;
        self.goodput.push(crowd.ms.len() as f64 / time.as_secs_f64());
        for (all, share) in [(&mut self.p50, 0.5), (&mut self.p99, 0.99), (&mut self.p999, 0.999)] {
            all.push(quantile(&crowd.ms, share));
        }
        self.modest_p99.push(quantile(&single.ms, 0.99));
        self.modest_refused += single.refused;
        self.refused += crowd.refused;
        self.skipped += crowd.skipped;
        self.rss_mib = self.rss_mib.max(Usage::own()?.rss_mib);
        Ok(())
    }

    fn print(&self, factor: f64, args: &Args, peak: &[f64], quiet: &[f64], missed: u64, as_json: bool) {
        let variant = format!("{factor}x load, {} clients on one connection", args.clients);
        let goodput = Compared {
            bench: "overload",
            variant: variant.clone(),
            comparator_name: "itself",
            comparator_variant: "1024 always in flight".to_owned(),
            metric: "rps",
            ours: self.goodput.clone(),
            comparator: peak.to_vec(),
            also: vec![
                ("p50_ms", json!(median(&self.p50))),
                ("p99_ms", json!(median(&self.p99))),
                ("p999_ms", json!(median(&self.p999))),
                ("refused", json!(self.refused)),
                ("skipped", json!(self.skipped)),
                ("rss_mib", json!(self.rss_mib.round())),
                ("missed_heartbeats", json!(missed)),
            ],
            ..Compared::default()
        };
        goodput.print(as_json);
        let fair = Compared {
            bench: "overload",
            variant: format!("{variant}: the modest client"),
            comparator_name: "itself",
            comparator_variant: "unloaded".to_owned(),
            metric: "p99_ms",
            less_is_better: true,
            ours: self.modest_p99.clone(),
            comparator: quiet.to_vec(),
            also: vec![("refused", json!(self.modest_refused))],
            ..Compared::default()
        };
        fair.print(as_json);
    }
}
