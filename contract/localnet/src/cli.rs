//! The command line: what near-sandbox calls, and `serve` for people.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use near_primitives::types::AccountId;

use crate::error::{Error, Result};
use crate::{Config, Home, InitOptions, Localnet};

/// A NEAR chain in one process.
#[derive(Parser)]
#[command(name = "por-localnet", version)]
struct Cli {
    /// Directory of the chain (without it, `serve` keeps the chain in memory).
    #[arg(long, global = true)]
    home: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Write configuration, genesis and keys of a new chain into the home.
    Init(Init),
    /// Run the chain of an initialised home.
    Run(Run),
    /// Run a chain, initialising the home if there is one and it is empty.
    Serve(Serve),
}

#[derive(Args)]
struct Init {
    /// Accepted, as other nodes have it: initialising is always fast.
    #[arg(long)]
    fast: bool,
    /// Name of the chain.
    #[arg(long, default_value = "localnet")]
    chain_id: String,
    /// Account that makes the blocks and holds the tokens.
    #[arg(long, default_value = "test.near")]
    account_id: AccountId,
    /// Derive the keys from this text.
    #[arg(long)]
    test_seed: Option<String>,
}

#[derive(Args)]
struct Run {
    /// Where the RPC listens.
    #[arg(long)]
    rpc_addr: Option<SocketAddr>,
    /// Accepted, as other nodes have it: this chain has no network.
    #[arg(long)]
    network_addr: Option<String>,
    /// Milliseconds between blocks when nothing happens.
    #[arg(long, default_value_t = 600)]
    block_time: u64,
}

#[derive(Args)]
struct Serve {
    /// Where the RPC listens.
    #[arg(long, default_value = "127.0.0.1:3030")]
    rpc_addr: SocketAddr,
    /// Name of a new chain.
    #[arg(long, default_value = "localnet")]
    chain_id: String,
    /// Milliseconds between blocks when nothing happens.
    #[arg(long, default_value_t = 600)]
    block_time: u64,
}

/// Runs the command that the process was started with.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    start_logging();
    match execute(cli) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let _ = writeln!(std::io::stderr(), "por-localnet: {error}");
            ExitCode::FAILURE
        }
    }
}

fn start_logging() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn"));
    // Fails only if the program that embeds this has its own logging.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    // A log that cannot be written ends nothing: told of on standard error too, the thread that logs would panic.
    let _ = builder.log_internal_errors(false).try_init();
}

fn execute(cli: Cli) -> Result<()> {
    let no_home = || Error::Genesis("say where the chain is to live: --home DIR".to_owned());
    match cli.command {
        Command::Init(init) => {
            let home = Home::new(cli.home.ok_or_else(no_home)?);
            home.init(&InitOptions {
                chain_id: init.chain_id,
                account_id: init.account_id,
                seed: init.test_seed,
                accounts: Vec::new(),
            })
        }
        Command::Run(run) => {
            let path = cli.home.ok_or_else(no_home)?;
            let home = Home::new(&path);
            let addr = match run.rpc_addr {
                Some(addr) => Some(addr),
                None => home.rpc_addr()?,
            };
            let config = Config {
                home: Some(path),
                rpc_addr: addr.unwrap_or(Config::default().rpc_addr),
                any_chain: true,
                block_time: Duration::from_millis(run.block_time),
                ..Config::default()
            };
            // Without a genesis there is nothing to run.
            home.genesis()?;
            block_on(serve(config))
        }
        Command::Serve(serving) => block_on(serve(Config {
            home: cli.home,
            rpc_addr: serving.rpc_addr,
            chain_id: serving.chain_id,
            block_time: Duration::from_millis(serving.block_time),
            ..Config::default()
        })),
    }
}

fn block_on(future: impl Future<Output = Result<()>>) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .map_err(|error| Error::Stopped(error.to_string()))?;
    runtime.block_on(future)
}

async fn serve(config: Config) -> Result<()> {
    let chain = Localnet::start(config).await?;
    // The chain runs on if nobody wants to know.
    let _ = writeln!(std::io::stdout(), "{}", chain.rpc_url());
    tokio::select! {
        reason = chain.failed() => Err(Error::Stopped(reason)),
        signal = interrupted() => {
            signal.map_err(|error| Error::Stopped(error.to_string()))?;
            chain.shutdown().await
        }
    }
}

/// Waits for Ctrl-C or a request to terminate.
async fn interrupted() -> std::io::Result<()> {
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result,
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await
}
