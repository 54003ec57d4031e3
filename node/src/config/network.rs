//! Which chain and contract a node belongs to.

use std::path::Path;

use libp2p::Multiaddr;
use por_types::{AccountId, MAX_CHAIN_ID_LEN, Network};
use serde::{Deserialize, Serialize};

use crate::config::DEFAULT_LOCALNET_PORT;
use crate::exit::CliError;

/// Chain id of the local chain.
pub const LOCALNET: &str = "localnet";
/// Chain id that the sandbox of NEAR's own tools uses.
const SANDBOX: &str = "sandbox";

/// A network: the `[network]` table of `config.toml`, and the whole of a network FILE, which
/// `por localnet` writes and `por init --network FILE` reads.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NetworkConfig {
    /// NEAR chain id: `mainnet`, `testnet`, `localnet` ...; endpoints of another chain are refused.
    pub chain_id: String,
    /// Account of the contract.
    pub contract: AccountId,
    /// JSON-RPC endpoints, tried in this order.
    pub rpc_urls: Vec<String>,
    /// Nodes to learn addresses from.
    #[serde(default)]
    pub boot_peers: Vec<Multiaddr>,
}

impl NetworkConfig {
    /// The built-in network of that name, with `contract`.
    pub fn named(name: &str, contract: AccountId) -> Option<NetworkConfig> {
        let rpc_urls = match name {
            LOCALNET => vec![format!("http://127.0.0.1:{DEFAULT_LOCALNET_PORT}")],
            "testnet" => {
                vec!["https://rpc.testnet.near.org".to_owned(), "https://test.rpc.fastnear.com".to_owned()]
            }
            _ => return None,
        };
        Some(NetworkConfig { chain_id: name.to_owned(), contract, rpc_urls, boot_peers: Vec::new() })
    }

    /// A name, or the path of a network FILE. `contract` is needed with a name and wins over the
    /// file's.
    pub fn resolve(network: &str, contract: Option<AccountId>) -> Result<NetworkConfig, CliError> {
        if matches!(network, LOCALNET | "testnet") {
            let contract = contract.ok_or_else(|| {
                CliError::usage(
                    format!("which contract on {network}?"),
                    "pass --contract ACCOUNT, or --network FILE as `por localnet` writes it",
                )
            })?;
            let found = NetworkConfig::named(network, contract);
            return found
                .ok_or_else(|| CliError::usage("unknown network", "use localnet, testnet or a FILE"));
        }
        let mut config = NetworkConfig::read(Path::new(network))?;
        if let Some(contract) = contract {
            config.contract = contract;
        }
        Ok(config)
    }

    /// Reads a network FILE.
    pub fn read(path: &Path) -> Result<NetworkConfig, CliError> {
        let text = std::fs::read_to_string(path).map_err(|error| {
            let mut failure = CliError::io(format!("reading network {}", path.display()), &error);
            failure.fix = "use localnet, testnet, or the path of a network file".to_owned();
            failure
        })?;
        let config: NetworkConfig = toml::from_str(&text).map_err(|error| {
            CliError::usage(
                format!("network {}: {}", path.display(), error.message()),
                "a network file has chain_id, contract, rpc_urls and boot_peers",
            )
        })?;
        config.check()?;
        Ok(config)
    }

    /// The text of a network FILE.
    pub fn to_toml(&self) -> Result<String, CliError> {
        toml::to_string(self)
            .map_err(|error| CliError::usage(format!("network cannot be written: {error}"), ""))
    }

    pub(super) fn check(&self) -> Result<(), CliError> {
        if self.chain_id.is_empty() || self.chain_id.len() > MAX_CHAIN_ID_LEN {
            return Err(CliError::usage(
                format!("chain_id must have 1 to {MAX_CHAIN_ID_LEN} bytes"),
                "use the chain id that the RPC's status shows",
            ));
        }
        if self.rpc_urls.is_empty() {
            return Err(CliError::usage("network.rpc_urls is empty", "name at least one RPC endpoint"));
        }
        for url in &self.rpc_urls {
            let parsed = reqwest::Url::parse(url);
            if !parsed.is_ok_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
                return Err(CliError::usage(
                    format!("{url:?} is no RPC endpoint"),
                    "write it like https://rpc.testnet.near.org",
                ));
            }
        }
        if let Some(addr) = self.boot_peers.iter().find(|addr| crate::swarm::boot_peer(addr).is_err()) {
            return Err(CliError::usage(
                format!("boot peer {addr} names no peer"),
                "write it like /ip4/203.0.113.5/tcp/7741/p2p/PEER_ID",
            ));
        }
        Ok(())
    }

    /// Chain and contract that everything signed is bound to.
    pub fn network(&self) -> Network {
        Network { chain_id: self.chain_id.clone(), contract: self.contract.clone() }
    }

    /// True where contracts with lifted bounds are accepted: chains that hold no real money.
    pub fn is_local(&self) -> bool {
        self.chain_id == LOCALNET || self.chain_id == SANDBOX
    }
}
