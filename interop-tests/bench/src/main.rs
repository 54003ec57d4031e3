//! Benchmarks, reported as ratios of what ran in turn in the same process on the same machine.
//! Absolute figures say more about the machine than about the code.

mod gas;
mod ours;
mod report;
mod theirs;

use clap::{Parser, Subcommand};

/// Benchmarks of Proof of Response against unpaid protocols.
#[derive(Debug, Parser)]
#[command(name = "por-bench", version)]
struct Args {
    /// One JSON object a line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    bench: Bench,
}

#[derive(Debug, Subcommand)]
enum Bench {
    /// 256-byte requests and responses: ours paid, signed and durable, direct and over two relays,
    /// against libp2p's request-response, unpaid and direct. All nodes in this process, over TCP on
    /// loopback.
    Requests(Requests),
    /// Gas of every call of the contract, and of severs with their partition checks on large
    /// graphs, in NEAR's own VM.
    Gas(Gas),
}

#[derive(Clone, Debug, clap::Args)]
struct Gas {
    /// Nodes of the largest graph; opening it takes minutes.
    #[arg(long, default_value_t = 100_000)]
    large: u32,
}

#[derive(Clone, Debug, clap::Args)]
struct Requests {
    /// Requests in flight; may be repeated.
    #[arg(long, default_values_t = [1, 64, 1024])]
    inflight: Vec<usize>,
    /// Rounds of each, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Requests of each round per request in flight; at least 2000 in all.
    #[arg(long, default_value_t = 20)]
    depth: usize,
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match args.bench {
        Bench::Gas(gas) => gas::run(gas.large, args.json),
        Bench::Requests(requests) => runtime.block_on(run(&requests, args.json)),
    }
}

async fn run(args: &Requests, json: bool) -> anyhow::Result<()> {
    let direct = ours::Row::start(2).await?;
    let relayed = ours::Row::start(4).await?;
    let theirs = theirs::Pair::start().await?;
    for &inflight in &args.inflight {
        let count = (inflight * args.depth).max(2000);
        let mut figures = report::Figures::default();
        for round in 0..args.rounds {
            // A B C, C B A, ...: drift of the machine meets all alike.
            let order = if round % 2 == 0 { [0, 1, 2] } else { [2, 1, 0] };
            for which in order {
                match which {
                    0 => figures.theirs.push(theirs.measure(count, inflight).await?),
                    1 => figures.direct.push(direct.measure(count, inflight).await?),
                    _ => figures.relayed.push(relayed.measure(count, inflight).await?),
                }
            }
        }
        figures.print(inflight, json);
    }
    Ok(())
}

/// Bytes of each request and response.
const BODY: usize = 256;
