//! `por-sim faults` without the contract's VM, which takes long to build.

use clap::Parser;
use por_worlds::faults;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    faults: faults::Faults,
}

fn main() -> anyhow::Result<()> {
    anyhow::ensure!(faults::run(&Args::parse().faults)?, "not sound");
    Ok(())
}
