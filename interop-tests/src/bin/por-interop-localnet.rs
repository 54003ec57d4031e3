//! The local chain as a program of this package, so that its tests always find it built.

use std::process::ExitCode;

fn main() -> ExitCode {
    por_localnet::cli::main()
}
