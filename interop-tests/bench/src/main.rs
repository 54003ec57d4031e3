//! Benchmarks, reported as ratios of what ran in turn in the same process on the same machine.
//! Absolute figures say more about the machine than about the code.

mod bulk;
mod figures;
mod gas;
mod idle;
mod ledger;
mod net;
mod ours;
mod overload;
mod plot;
mod process;
mod report;
mod requests;
mod routes;
mod sever;
mod sparse;
mod theirs;
mod usage;

use clap::{Parser, Subcommand};

/// The allocator of the daemon.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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
    /// The search for a cheapest route within a latency bound, against LDK's `find_route` (whose
    /// limit on CLTV deltas plays the bound) and petgraph (which has no bound), on the same random
    /// graphs; building a graph and applying 10,000 changes to it.
    Routes(routes::Args),
    /// Durable payments a second of a node with many channels, on its real store and without
    /// sockets, and its restart after a crash, by number of channels and of past payments.
    Ledger(ledger::Args),
    /// `fileshare get` of a large file, from disk to disk, verified and paid, direct and over two
    /// relays, each node a process; against iroh-blobs in two processes, and against a raw
    /// substream of libp2p as the ceiling.
    Bulk(bulk::Args),
    /// `fileshare put` and `get` of a large file that is nearly all holes, interrupted and resumed.
    Sparse(sparse::Args),
    /// Goodput, latencies, memory and fairness at multiples of what a server can carry: 999 clients
    /// on one connection beside a modest one on its own.
    Overload(overload::Args),
    /// Memory and CPU of a node with many connected channels on which nothing happens.
    Idle(idle::Args),
    #[command(hide = true)]
    IdleNode(idle::NodeArgs),
    /// Time from the decision to sever an edge until its upstream end has the proof.
    Sever(sever::Args),
    /// Draws the JSON lines of earlier runs as SVGs.
    Plot(plot::Args),
    #[command(hide = true)]
    BulkServe(bulk::ServeArgs),
    #[command(hide = true)]
    BulkGet(bulk::GetArgs),
    #[command(hide = true)]
    LedgerLife(ledger::LifeArgs),
    #[command(hide = true)]
    LedgerRestart(ledger::RestartArgs),
    #[command(hide = true)]
    BuildGraph(routes::BuildArgs),
}

#[derive(Clone, Debug, clap::Args)]
struct Gas {
    /// Nodes of the largest graph; opening it takes minutes.
    #[arg(long, default_value_t = 100_000)]
    large: u32,
}

fn main() -> std::process::ExitCode {
    // The nodes of `bulk` are processes of this program under the name of `fileshare`.
    let called = std::env::args_os().next().unwrap_or_default();
    if std::path::Path::new(&called).file_name().is_some_and(|name| name == bulk::FILESHARE) {
        return por_fileshare::cli::main();
    }
    match bench() {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("por-bench: {error:#}");
            std::process::ExitCode::FAILURE
        }
    }
}

fn bench() -> anyhow::Result<()> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    match args.bench {
        Bench::Gas(gas) => gas::run(gas.large, args.json),
        Bench::Requests(requests) => runtime.block_on(requests::run(&requests, args.json)),
        Bench::Routes(of_routes) => routes::run(&of_routes, args.json),
        Bench::Bulk(of_bulk) => runtime.block_on(bulk::run(&of_bulk, args.json)),
        Bench::Sparse(of_holes) => runtime.block_on(sparse::run(&of_holes, args.json)),
        Bench::Overload(of_load) => runtime.block_on(overload::run(&of_load, args.json)),
        Bench::Idle(of_idle) => runtime.block_on(idle::run(&of_idle, args.json)),
        Bench::IdleNode(node) => runtime.block_on(idle::node(&node)),
        Bench::Sever(of_severs) => runtime.block_on(sever::run(&of_severs, args.json)),
        Bench::Plot(of_plots) => plot::run(&of_plots),
        Bench::BulkServe(serve) => runtime.block_on(bulk::serve(&serve)),
        Bench::BulkGet(get) => runtime.block_on(bulk::get(&get)),
        Bench::Ledger(of_ledger) => ledger::run(&of_ledger, args.json),
        Bench::LedgerLife(life) => ledger::life(&life),
        Bench::LedgerRestart(restart) => ledger::restart(&restart),
        Bench::BuildGraph(graph) => routes::build_one(&graph),
    }
}
