//! `por localnet`: a local chain with the contract, in the foreground.

use std::net::{Ipv4Addr, SocketAddr};

use serde::Serialize;

use super::Context;
use super::args::LocalnetArgs;
use super::output::facts;
use super::run::{logging, signal};
use crate::exit::{CliError, ExitCode};
use crate::localnet::{LocalNetwork, LocalNetworkConfig};

/// What runs, for those who join.
#[derive(Serialize)]
struct Running {
    rpc_url: String,
    contract: String,
    /// For people: not every path is text.
    network_file: String,
}

pub(super) async fn localnet(context: &Context, args: LocalnetArgs) -> Result<(), CliError> {
    logging(context, "warn")?;
    let network = LocalNetwork::start(LocalNetworkConfig {
        rpc_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, args.port)),
        home: args.data,
        contract: args.contract,
        anchor: args.anchor,
        block_time: args.block_time,
        ..LocalNetworkConfig::default()
    })
    .await?;
    let network_file = args.network_file.unwrap_or_else(|| context.home.data_dir().join("localnet.toml"));
    write_file(&network_file, &network.network_config().to_toml()?)?;
    let running = Running {
        rpc_url: network.rpc_url(),
        contract: network.contract().to_string(),
        network_file: network_file.display().to_string(),
    };
    context.output.print(&running, |running| {
        facts(&[
            ("rpc", running.rpc_url.clone()),
            ("contract", running.contract.clone()),
            ("network file", running.network_file.clone()),
        ])
    })?;
    tokio::select! {
        reason = network.failed() => {
            Err(CliError::new(ExitCode::Fatal, format!("the chain stopped: {reason}"), "start it again"))
        }
        result = signal() => {
            result?;
            network.shutdown().await
        }
    }
}

fn write_file(path: &std::path::Path, text: &str) -> Result<(), CliError> {
    let failed = |error: std::io::Error| CliError::io(format!("writing {}", path.display()), &error);
    if let Some(dir) = path.parent().filter(|dir| !dir.as_os_str().is_empty()) {
        std::fs::create_dir_all(dir).map_err(failed)?;
    }
    std::fs::write(path, text).map_err(failed)
}
