//! Benchmarks, reported as ratios of what ran in turn in the same process on the same machine.
//! Absolute figures say more about the machine than about the code.

mod gas;
mod ours;
mod report;
mod requests;
mod theirs;
mod usage;

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
    Requests(requests::Requests),
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

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match args.bench {
        Bench::Gas(gas) => gas::run(gas.large, args.json),
        Bench::Requests(requests) => runtime.block_on(requests::run(&requests, args.json)),
    }
}
