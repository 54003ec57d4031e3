//! `por run`: the daemon, in the foreground.

use std::io::IsTerminal as _;

use tracing_subscriber::EnvFilter;

use super::Context;
use super::args::RunArgs;
use crate::exit::CliError;
use crate::keys::NodeSetup;

pub(super) async fn run(context: &Context, args: RunArgs) -> Result<(), CliError> {
    // Kademlia calls it a failure when a node begins without peers.
    logging(context, "warn,libp2p_kad=error,por_node=info,libp2p_por=info")?;
    let password = context.password();
    let home = context.home.clone();
    // Deriving the key from a password takes a second of work.
    let load = tokio::task::spawn_blocking(move || NodeSetup::load(home, args.node.overrides(), &password));
    let setup =
        load.await.map_err(|error| CliError::new(crate::exit::ExitCode::Other, error.to_string(), ""))??;
    crate::runtime::run(setup, async {
        if let Err(error) = signal().await {
            tracing::error!(%error, "signals cannot be received");
        }
    })
    .await
}

/// Resolves at Ctrl-C or SIGTERM.
pub(super) async fn signal() -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::io("waiting for signals", &error);
    #[cfg(unix)]
    {
        use tokio::signal::unix::{SignalKind, signal};
        let mut terminate = signal(SignalKind::terminate()).map_err(failed)?;
        tokio::select! {
            result = tokio::signal::ctrl_c() => result.map_err(failed),
            _ = terminate.recv() => Ok(()),
        }
    }
    #[cfg(not(unix))]
    tokio::signal::ctrl_c().await.map_err(failed)
}

/// Logs to standard error.
pub(super) fn logging(context: &Context, default: &str) -> Result<(), CliError> {
    let filter = context.log.as_deref().unwrap_or(default);
    let filter = EnvFilter::try_new(filter).map_err(|error| {
        CliError::usage(format!("--log {filter}: {error}"), "write it like info or por_node=debug")
    })?;
    // A log that cannot be written ends nothing: told of on standard error too, the task that logs would panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    // A second subscriber in the same process is refused; the first one goes on.
    let _ = if context.output.json {
        builder.json().try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    Ok(())
}
