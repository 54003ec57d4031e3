//! `por-sim crash` without the contract's VM, which takes long to build.

use std::process::ExitCode;

use clap::Parser;
use por_worlds::crash::{Crash, run};

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    crash: Crash,
}

fn main() -> anyhow::Result<ExitCode> {
    Ok(if run(&Args::parse().crash)? { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}
