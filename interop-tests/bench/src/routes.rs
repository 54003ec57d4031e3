//! Routes: our search against LDK's and petgraph's, on the same random graphs.

mod ldk;
mod ours;
mod random;
mod simple;

use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use cpu_time::ThreadTime;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::figures::{Compared, median, quantile};
use crate::process::Usage;
use random::{Network, Query};

/// Channels for each node.
const DENSITY: u32 = 5;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Nodes of the graph; five times as many channels. May be repeated.
    #[arg(long, default_values_t = [10_000, 100_000])]
    nodes: Vec<u32>,
    /// Queries of each round.
    #[arg(long, default_value_t = 1_000)]
    queries: usize,
    /// Queries of each round for LDK and petgraph in a graph of 10,000 nodes, fewer in larger ones.
    #[arg(long, default_value_t = 200)]
    their_queries: usize,
    /// Rounds of each, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Graph and queries follow from it.
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// One graph in a process of its own, so that its memory can be told.
#[derive(Clone, Debug, clap::Args)]
pub struct BuildArgs {
    #[arg(value_enum)]
    which: Which,
    #[arg(long)]
    nodes: u32,
    #[arg(long)]
    seed: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum, Serialize, Deserialize)]
pub enum Which {
    Ours,
    Ldk,
    Petgraph,
}

/// What building a graph took.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Built {
    build_ms: f64,
    memory_mib: f64,
    /// Applying 10,000 changes of terms, milliseconds.
    changes_ms: Option<f64>,
}

/// Changes that are applied at once.
const CHANGES: usize = 10_000;

pub fn run(args: &Args, as_json: bool) -> anyhow::Result<()> {
    for &nodes in &args.nodes {
        ensure!(nodes >= 100, "a graph needs 100 nodes at least");
        search(args, nodes, as_json)?;
        build(args, nodes, as_json)?;
    }
    Ok(())
}

fn variant(nodes: u32) -> String {
    format!("{nodes}/{}", nodes * DENSITY)
}

/// Microseconds of each query, and how many had an answer. CPU time of the searching thread, so
/// that what else runs on the machine does not count; and wall time.
#[derive(Default)]
struct Times {
    us: Vec<f64>,
    wall_us: Vec<f64>,
    found: usize,
}

fn timed(queries: &[Query], mut ask: impl FnMut(&Query) -> bool) -> Times {
    let mut times = Times::default();
    for query in queries {
        let (start, cpu) = (Instant::now(), ThreadTime::now());
        let found = ask(query);
        times.us.push(cpu.elapsed().as_secs_f64() * 1e6);
        times.wall_us.push(start.elapsed().as_secs_f64() * 1e6);
        times.found += usize::from(found);
    }
    times
}

/// Each round's median and 99th percentile.
#[derive(Default)]
struct Rounds {
    median: Vec<f64>,
    p99: Vec<f64>,
    wall_median: Vec<f64>,
    found: usize,
    asked: usize,
}

impl Rounds {
    fn add(&mut self, times: &Times) {
        self.median.push(median(&times.us));
        self.p99.push(quantile(&times.us, 0.99));
        self.wall_median.push(median(&times.wall_us));
        self.found += times.found;
        self.asked += times.us.len();
    }
}

fn search(args: &Args, nodes: u32, as_json: bool) -> anyhow::Result<()> {
    let network = Network::new(nodes, nodes * DENSITY, args.seed);
    let ours = ours::build(&network);
    let ldk = ldk::Ldk::build(&network)?;
    let simple = simple::Simple::build(&network);
    let queries = ours::queries(&ours, &network, args.queries)?;
    let few = (args.their_queries * 10_000 / nodes as usize).clamp(10, queries.len());
    let mut rounds: [Rounds; 4] = Default::default();
    for round in 0..args.rounds {
        let order = if round % 2 == 0 { [0, 1, 2, 3] } else { [3, 2, 1, 0] };
        for which in order {
            let times = match which {
                0 => timed(&queries, |query| ours::find(&ours, &network, query)),
                1 => timed(&queries[..few], |query| ldk.find(query)),
                2 => timed(&queries[..few], |query| simple.dijkstra(query)),
                _ => timed(&queries[..few], |query| simple.astar(query)),
            };
            rounds[which].add(&times);
        }
    }
    let [ours, theirs @ ..] = &rounds;
    ensure!(ours.found == ours.asked, "no route in {} of {} queries", ours.asked - ours.found, ours.asked);
    for (theirs, (name, what)) in theirs.iter().zip([
        ("ldk", "find_route"),
        ("petgraph", "dijkstra, no bound"),
        ("petgraph", "astar, no bound"),
    ]) {
        for (metric, mine, other) in
            [("median_us", &ours.median, &theirs.median), ("p99_us", &ours.p99, &theirs.p99)]
        {
            let compared = Compared {
                bench: "routes",
                variant: variant(nodes),
                comparator_name: name,
                comparator_variant: what.to_owned(),
                metric,
                less_is_better: true,
                ours: mine.clone(),
                comparator: other.clone(),
                also: vec![
                    ("clock", json!("thread CPU time")),
                    ("wall_median_us", json!(median(&ours.wall_median).round())),
                    ("comparator_wall_median_us", json!(median(&theirs.wall_median).round())),
                    ("queries", json!(queries.len())),
                    ("comparator_queries", json!(few)),
                    ("comparator_found", json!(theirs.found as f64 / theirs.asked.max(1) as f64)),
                ],
                ..Compared::default()
            };
            compared.print(as_json);
        }
    }
    Ok(())
}

fn build(args: &Args, nodes: u32, as_json: bool) -> anyhow::Result<()> {
    let mut built: [Vec<Built>; 3] = Default::default();
    for round in 0..args.rounds {
        let order = [Which::Ours, Which::Ldk, Which::Petgraph];
        for at in 0..order.len() {
            let at = if round % 2 == 0 { at } else { order.len() - 1 - at };
            built[at].push(apart(order[at], nodes, args.seed)?);
        }
    }
    let [ours, theirs @ ..] = &built;
    for (name, theirs) in ["ldk", "petgraph"].into_iter().zip(theirs) {
        let figures = |built: &[Built], figure: fn(&Built) -> Option<f64>| -> Vec<f64> {
            built.iter().filter_map(figure).collect()
        };
        let metrics: [(&'static str, fn(&Built) -> Option<f64>); 3] = [
            ("build_ms", |built| Some(built.build_ms)),
            ("memory_mib", |built| Some(built.memory_mib)),
            ("changes_ms", |built| built.changes_ms),
        ];
        for (metric, figure) in metrics {
            if figures(theirs, figure).is_empty() {
                continue;
            }
            let compared = Compared {
                bench: "routes",
                variant: variant(nodes),
                comparator_name: name,
                comparator_variant: "graph".to_owned(),
                metric,
                less_is_better: true,
                ours: figures(ours, figure),
                comparator: figures(theirs, figure),
                ..Compared::default()
            };
            compared.print(as_json);
        }
    }
    Ok(())
}

fn apart(which: Which, nodes: u32, seed: u64) -> anyhow::Result<Built> {
    let name = clap::ValueEnum::to_possible_value(&which).context("every graph has a name")?;
    let output = Command::new(std::env::current_exe()?)
        .args(["build-graph", name.get_name(), "--nodes", &nodes.to_string(), "--seed", &seed.to_string()])
        .stderr(Stdio::inherit())
        .output()?;
    ensure!(output.status.success(), "building the graph failed: {}", output.status);
    Ok(serde_json::from_slice(&output.stdout)?)
}

/// Builds one graph and tells what it took, as JSON.
pub fn build_one(args: &BuildArgs) -> anyhow::Result<()> {
    let network = Network::new(args.nodes, args.nodes * DENSITY, args.seed);
    let built = match args.which {
        Which::Ours => {
            let pages = ours::pages(&network);
            weigh(|| Ok(ours::from_pages(&pages)), |graph| ours::change(graph, &network).map(Some))?
        }
        Which::Ldk => {
            let keys = ldk::keys(&network);
            weigh(|| ldk::Ldk::with_keys(&network, &keys), |graph| graph.change(&network).map(Some))?
        }
        Which::Petgraph => weigh(|| Ok(simple::Simple::build(&network)), |_| Ok(None))?,
    };
    println!("{}", serde_json::to_string(&built)?);
    Ok(())
}

/// Time and resident memory that `build` takes, and the time of `change`.
fn weigh<G>(
    build: impl FnOnce() -> anyhow::Result<G>,
    change: impl FnOnce(&mut G) -> anyhow::Result<Option<f64>>,
) -> anyhow::Result<Built> {
    let before = Usage::own()?;
    let start = Instant::now();
    let mut graph = build()?;
    let build_ms = start.elapsed().as_secs_f64() * 1e3;
    let memory_mib = Usage::own()?.rss_mib - before.rss_mib;
    let changes_ms = change(&mut graph)?;
    Ok(Built { build_ms, memory_mib, changes_ms })
}
