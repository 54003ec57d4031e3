//! `por watch`: a watchtower, and getting states back from one.

use libp2p::Multiaddr;

use super::Context;
use super::args::{WatchAction, WatchArgs};
use super::run::{logging, signal};
use crate::config::Overrides;
use crate::exit::{CliError, ExitCode};
use crate::keys::NodeSetup;
use crate::watch::{RestoredChannel, restore, service};

pub(super) async fn watch(context: &Context, args: WatchArgs) -> Result<(), CliError> {
    logging(context, "warn,por_node=info")?;
    match args.action {
        Some(WatchAction::Restore { from }) => give_back(context, from).await,
        None => {
            let setup = load(context, args.node.overrides()).await?;
            let stop = async {
                if let Err(error) = signal().await {
                    tracing::error!(%error, "signals cannot be received");
                }
            };
            service::run(setup, stop).await
        }
    }
}

async fn load(context: &Context, overrides: Overrides) -> Result<NodeSetup, CliError> {
    let (home, password) = (context.home.clone(), context.password());
    // Deriving the key from a password takes a second of work.
    let load = tokio::task::spawn_blocking(move || NodeSetup::load(home, overrides, &password));
    load.await.map_err(|error| CliError::new(ExitCode::Other, error.to_string(), ""))?
}

async fn give_back(context: &Context, from: Vec<Multiaddr>) -> Result<(), CliError> {
    let setup = load(context, Overrides::default()).await?;
    let towers = if from.is_empty() { setup.config.p2p.watchtowers.clone() } else { from };
    let channels = tokio::select! {
        biased;
        _ = tokio::signal::ctrl_c() => {
            return Err(CliError::new(ExitCode::Interrupted, "interrupted", "run the same command again"));
        }
        result = restore(setup, &towers) => result?,
    };
    context.output.print(&channels, |channels| table(channels))
}

fn table(channels: &[RestoredChannel]) -> String {
    if channels.is_empty() {
        return "the towers have no channel of this node that is open".to_owned();
    }
    let line = |channel: &RestoredChannel| {
        format!(
            "channel {} with {}: paid {}, got {}{}",
            channel.channel,
            channel.peer_account,
            channel.sent.to_near_string(),
            channel.received.to_near_string(),
            if channel.raised { "" } else { " (known already)" }
        )
    };
    channels.iter().map(line).collect::<Vec<_>>().join("\n")
}
