//! A NEAR chain in one process, running real wasm in NEAR's own VM and serving NEAR's JSON-RPC

use std::process::ExitCode;

fn main() -> ExitCode {
    por_localnet::cli::main()
}
