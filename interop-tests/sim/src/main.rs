//! Deterministic simulation of Proof of Response: the real protocol core in virtual time.

mod attack;
mod contract;
mod scale;

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use por_core::testing::scenario::{self, Setup};
use por_core::testing::{Faults, Report};
use por_worlds::{crash, faults, timelines};
use serde::Serialize;

#[derive(Parser)]
#[command(name = "por-sim", about = "Deterministic simulation of Proof of Response")]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Runs small worlds with broken connections, repeated frames and crashes, and audits each.
    Smoke(Smoke),
    /// Runs random calls on the contract's wasm and on an independent model of it, side by side.
    Contract(contract::Contract),
    /// Plays one request over a path with exact delays, message by message.
    Timelines(timelines::Timelines),
    /// Plays what adversaries do, and what they get.
    Attack(attack::Attack),
    /// Crashes a host before each of its outputs, one run per crash, and looks what was lost.
    Crash(crash::Crash),
    /// Runs networks with crashes, broken links and hostile hosts, and judges every request.
    Faults(faults::Faults),
    /// What a node of a network of 1,000 to 100,000 nodes has to do: routes, sync, chain, lateness.
    Scale(scale::Scale),
}

#[derive(clap::Args)]
struct Smoke {
    /// Number of worlds.
    #[arg(long, default_value_t = 100)]
    seeds: u64,
    /// First seed.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON line at the end instead of text.
    #[arg(long)]
    json: bool,
}

#[derive(Default, Serialize)]
struct Summary {
    seeds: u64,
    requests: u64,
    responses: u64,
    rejected: u64,
    refused: u64,
    never_started: u64,
    crashes: u64,
    violations: u64,
    seed: u64,
}

impl Summary {
    fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.requests += report.requests;
        self.responses += report.responses;
        self.rejected += report.rejected;
        self.refused += report.refused;
        self.never_started += report.never_started;
        self.crashes += report.crashes;
        self.violations += report.violations.len() as u64;
    }
}

/// Each seed has its own mix of faults, so that every kind is met alone and with the others; some
/// have tight limits.
fn setup(seed: u64) -> Setup {
    let on = |bit: u32, rate: u32| if seed >> bit & 1 == 1 { rate } else { 0 };
    let faults = Faults { crash: on(0, 4), cut: on(1, 6), duplicate: on(2, 40), second: on(3, 300) };
    let setup = Setup::new(faults);
    if seed >> 4 & 3 == 3 { setup.tight() } else { setup }
}

fn smoke(args: &Smoke) -> anyhow::Result<bool> {
    let mut summary = Summary { seed: args.seed, ..Summary::default() };
    for seed in args.seed..args.seed.saturating_add(args.seeds) {
        let report = scenario::random(seed, &setup(seed)).audit();
        summary.add(&report);
        for violation in &report.violations {
            eprintln!("seed {seed}: {violation}");
        }
    }
    if args.json {
        println!("{}", serde_json::to_string(&summary)?);
    } else {
        let Summary { seeds, requests, responses, rejected, refused, never_started, crashes, .. } = summary;
        println!("{seeds} worlds from seed {}: {requests} requests, {crashes} crashes", args.seed);
        println!("  answered and paid      {responses}");
        println!("  rejected and refunded  {rejected}");
        println!("  refused by the author  {refused}");
        println!("  lost before the start  {never_started}");
        println!("  violations             {}", summary.violations);
    }
    Ok(summary.violations == 0)
}

fn main() -> anyhow::Result<ExitCode> {
    let ok = match Args::parse().command {
        Command::Smoke(args) => smoke(&args)?,
        Command::Contract(args) => contract::run(&args)?,
        Command::Timelines(args) => timelines::run(&args)?,
        Command::Attack(args) => attack::run(&args)?,
        Command::Crash(args) => crash::run(&args)?,
        Command::Faults(args) => faults::run(&args)?,
        Command::Scale(args) => scale::run(&args)?,
    };
    Ok(if ok { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
