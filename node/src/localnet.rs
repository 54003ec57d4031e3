//! A local chain with the contract on it, in this process: for `por localnet`, the demo and tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use near_account_id::AccountIdRef;
use near_crypto::{PublicKey, SecretKey};
use por_localnet::Localnet;
use por_types::interface::{NewArgs, Params};
use por_types::{AccountId, CONTRACT_WASM, NodeSecret, Yocto};

use crate::chain::{Chain, ChainConfig, ChainError, MemoryIntents, deploy, faucet};
use crate::config::{LOCALNET, NetworkConfig};
use crate::exit::{CliError, ExitCode};
use crate::keys::near_key_of;

/// What the contract's account holds at first: enough for its code and the change log's storage.
const CONTRACT_BALANCE: Yocto = Yocto::near(100);

/// Account of the contract, checked when this is compiled.
const CONTRACT: &AccountIdRef = AccountIdRef::new_or_panic("por.localnet");

/// How to run a local network.
#[derive(Clone, Debug)]
pub struct LocalNetworkConfig {
    /// Where the RPC listens; port 0 takes any free one.
    pub rpc_addr: SocketAddr,
    /// Where the chain is kept; `None` keeps it in memory.
    pub home: Option<PathBuf>,
    pub contract: AccountId,
    /// Time between blocks while nothing happens.
    pub block_time: Duration,
    pub params: Params,
    /// Whose node is the genesis anchor, from which others become attached (protocol section 7):
    /// the first node of the network. `None`: the chain's root account, which runs none.
    pub anchor: Option<AccountId>,
}

impl Default for LocalNetworkConfig {
    fn default() -> Self {
        LocalNetworkConfig {
            rpc_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            home: None,
            contract: CONTRACT.to_owned(),
            block_time: Duration::from_millis(600),
            params: local_params(),
            anchor: None,
        }
    }
}

/// Parameters with windows of seconds, for chains without real money.
pub fn local_params() -> Params {
    Params {
        // 10^-9 NEAR: a second of lateness costs a millionth of a NEAR.
        late_fee: Yocto(Yocto::ONE_NEAR.0 / 1_000_000_000),
        sever_penalty: Yocto::near(2),
        challenge_ms: 5_000,
        notice_ms: 2_000,
        min_stake: Yocto::near(1),
        activation_ms: 0,
        reimbursement_ms: 10_000,
        slash_bps: 1_000,
    }
}

/// A running local chain with the contract.
#[derive(Debug)]
pub struct LocalNetwork {
    chain: Localnet,
    contract: AccountId,
}

impl LocalNetwork {
    /// Starts the chain, and deploys the contract where there is none yet.
    ///
    /// Errors: [`ExitCode::PortInUse`]; [`ExitCode::ForeignVersion`] if the chain in `home` holds
    /// another contract at that account.
    pub async fn start(config: LocalNetworkConfig) -> Result<LocalNetwork, CliError> {
        let chain = Localnet::start(por_localnet::Config {
            home: config.home,
            rpc_addr: config.rpc_addr,
            chain_id: LOCALNET.to_owned(),
            block_time: config.block_time,
            ..por_localnet::Config::default()
        })
        .await
        .map_err(|error| start_error(&error))?;
        let network = LocalNetwork { chain, contract: config.contract };
        match network.connect(network.contract.clone(), None).await {
            Ok(_) => {}
            Err(ChainError::NoContract { .. }) => network.deploy(config.params, config.anchor).await?,
            Err(error) => return Err(error.into()),
        }
        Ok(network)
    }

    async fn deploy(&self, params: Params, anchor: Option<AccountId>) -> Result<(), CliError> {
        let urls = [self.rpc_url()];
        // Nobody's money is on a local chain: the key may be known to all.
        let mut seed = [0u8; 32];
        seed.copy_from_slice(blake3::hash(self.contract.as_bytes()).as_bytes());
        let key = near_key_of(&NodeSecret::from_seed(&seed))?;
        faucet(&urls, &self.contract, &key.public_key(), CONTRACT_BALANCE).await?;
        let (owner, _) = self.chain.root_account();
        let args = NewArgs {
            anchor,
            chain_id: LOCALNET.to_owned(),
            owner: owner.clone(),
            treasury: owner,
            params,
            test: true,
        };
        deploy(&urls, &self.contract, &key, CONTRACT_WASM, &args).await?;
        Ok(())
    }

    /// Where the RPC answers, as `http://host:port`.
    pub fn rpc_url(&self) -> String {
        self.chain.rpc_url()
    }

    pub fn contract(&self) -> &AccountId {
        &self.contract
    }

    /// What a node has to know to join; the content of a network FILE.
    pub fn network_config(&self) -> NetworkConfig {
        NetworkConfig {
            chain_id: LOCALNET.to_owned(),
            contract: self.contract.clone(),
            rpc_urls: vec![self.rpc_url()],
            boot_peers: Vec::new(),
        }
    }

    /// Creates `account` with `key`, or adds `amount` to it.
    pub async fn faucet(&self, account: &AccountId, key: &PublicKey, amount: Yocto) -> Result<(), CliError> {
        Ok(faucet(&[self.rpc_url()], account, key, amount).await?)
    }

    /// The contract, as `account` sees it. Intents do not outlive the handle.
    pub async fn connect(&self, account: AccountId, signer: Option<SecretKey>) -> Result<Chain, ChainError> {
        let config = ChainConfig::new(&self.network_config(), account, signer);
        Chain::connect(config, Arc::new(MemoryIntents::default())).await
    }

    /// Resolves when the chain has failed, with the reason.
    pub async fn failed(&self) -> String {
        self.chain.failed().await
    }

    /// Stops the chain in an orderly way.
    pub async fn shutdown(self) -> Result<(), CliError> {
        let stopped = self.chain.shutdown().await;
        stopped.map_err(|error| start_error(&error))
    }
}

fn start_error(error: &por_localnet::Error) -> CliError {
    match error {
        por_localnet::Error::Listen { addr, source } => {
            let mut failure = CliError::io(format!("listening on {addr}"), source);
            if failure.code == ExitCode::PortInUse {
                failure.fix = "stop what uses the port, or choose another one (0 takes any)".to_owned();
            }
            failure
        }
        por_localnet::Error::Malformed { .. } | por_localnet::Error::Store(_) => {
            CliError::new(ExitCode::CorruptStore, error.to_string(), "start with a new directory")
        }
        por_localnet::Error::OtherChain { .. } => {
            CliError::new(ExitCode::ForeignVersion, error.to_string(), "choose another directory")
        }
        por_localnet::Error::File { path, source } => {
            CliError::io(format!("using {}", path.display()), source)
        }
        other => CliError::new(
            ExitCode::Other,
            other.to_string(),
            "start it again, with a new directory if it has one",
        ),
    }
}
