//! Starting and stopping a chain.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use near_crypto::{KeyType, PublicKey, SecretKey};
use near_parameters::RuntimeConfigStore;
use near_primitives::account::Account;
use near_primitives::hash::CryptoHash;
use near_primitives::types::{AccountId, Balance, Gas};
use near_primitives::version::PROTOCOL_VERSION;
use tokio::net::TcpListener;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use crate::chain::{Chain, Producer, Rules, Worker};
use crate::error::{Error, Result};
use crate::genesis::{Genesis, Home, InitOptions, MAX_REQUEST};
use crate::rpc::{Node, router};
use crate::store::Store;
use crate::vm::Vm;

/// The account that holds the tokens of a new chain.
const ROOT: &str = "test.near";
/// Times much further off cannot be represented.
const LONGEST_BLOCK_TIME: Duration = Duration::from_secs(366 * 24 * 3600);
/// Connections may take this long to end at shutdown.
const GRACE: Duration = Duration::from_secs(2);

/// How a chain is to run.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where the chain is kept; `None` keeps it in memory. A directory without a
    /// genesis is initialised first.
    pub home: Option<PathBuf>,
    /// Where the RPC listens; port 0 takes any free one.
    pub rpc_addr: SocketAddr,
    /// The name of the chain. A home that was made with another name is refused,
    /// unless [`Config::any_chain`] is set.
    pub chain_id: String,
    /// Takes over the name of the chain from the home.
    pub any_chain: bool,
    /// The time between blocks when nothing happens, and by which a skipped height
    /// advances the chain's clock. A waiting transaction is included at once.
    pub block_time: Duration,
    /// How long a request waits for its transaction before it reports a timeout.
    pub transaction_timeout: Duration,
    /// How many past blocks are kept, with transactions and outcomes.
    pub history: u64,
    /// Accounts of a new chain besides the root account: id, full access key, yocto.
    pub genesis_accounts: Vec<(AccountId, PublicKey, u128)>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            home: None,
            rpc_addr: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
            chain_id: "localnet".to_owned(),
            any_chain: false,
            block_time: Duration::from_millis(600),
            transaction_timeout: Duration::from_secs(20),
            history: 50_000,
            genesis_accounts: Vec::new(),
        }
    }
}

/// What a home, or its absence, provides.
struct Origin {
    genesis: Genesis,
    producer: Producer,
    node_key: SecretKey,
    database: Option<PathBuf>,
    max_request: usize,
}

fn root_id() -> Result<AccountId> {
    ROOT.parse().map_err(|_| Error::Genesis(format!("`{ROOT}` is no account id")))
}

impl Origin {
    fn load(config: &Config) -> Result<Self> {
        match &config.home {
            None => Self::in_memory(config),
            Some(path) => Self::from_home(config, &Home::new(path)),
        }
    }

    fn in_memory(config: &Config) -> Result<Self> {
        let secret_key = SecretKey::from_seed(KeyType::ED25519, ROOT);
        let account_id = root_id()?;
        let validator = (&account_id, &secret_key.public_key());
        let genesis = Genesis::new(&config.chain_id, validator, &config.genesis_accounts);
        Ok(Self {
            genesis,
            producer: Producer { account_id, secret_key },
            node_key: SecretKey::from_seed(KeyType::ED25519, "node"),
            database: None,
            max_request: MAX_REQUEST,
        })
    }

    fn from_home(config: &Config, home: &Home) -> Result<Self> {
        if !home.exists() {
            home.init(&InitOptions {
                chain_id: config.chain_id.clone(),
                account_id: root_id()?,
                seed: None,
                accounts: config.genesis_accounts.clone(),
            })?;
        }
        let genesis = home.genesis()?;
        if !config.any_chain && genesis.chain_id != config.chain_id {
            let (found, wanted) = (genesis.chain_id, config.chain_id.clone());
            return Err(Error::OtherChain { found, wanted });
        }
        Ok(Self {
            genesis,
            producer: home.producer()?,
            node_key: home.node_key()?,
            database: Some(home.database()?),
            max_request: home.max_request()?,
        })
    }

    fn rules(&self, config: &Config) -> Result<Rules> {
        let genesis = &self.genesis;
        let (state, _) = genesis.state()?;
        let stake = state.account(&self.producer.account_id)?.as_ref().map(Account::locked);
        let genesis_hash = genesis.hash(&state.root_after(&CryptoHash::default()));
        Ok(Rules {
            chain_id: genesis.chain_id.as_str().into(),
            producer: self.producer.clone(),
            config: RuntimeConfigStore::new(None).get_config(PROTOCOL_VERSION).clone(),
            vm: Vm::new(config.home.as_deref())?,
            block_time: config.block_time.clamp(Duration::from_millis(1), LONGEST_BLOCK_TIME),
            epoch_length: genesis.epoch_length,
            gas_price: genesis.min_gas_price,
            gas_limit: Gas::from_gas(genesis.gas_limit),
            validity: genesis.transaction_validity_period,
            history: config.history.max(1_000),
            genesis_height: genesis.genesis_height,
            genesis_hash,
            stake: stake.unwrap_or(Balance::ZERO),
            genesis_config: genesis.config()?,
        })
    }
}

/// A running chain. Dropping it stops it too, without waiting for open connections.
pub struct Localnet {
    addr: SocketAddr,
    chain_id: String,
    producer: Producer,
    node: Arc<Node>,
    stop: Option<oneshot::Sender<()>>,
    server: JoinHandle<std::io::Result<()>>,
}

impl std::fmt::Debug for Localnet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { addr, chain_id, .. } = self;
        f.debug_struct("Localnet").field("addr", addr).field("chain_id", chain_id).finish()
    }
}

impl Localnet {
    /// Starts a chain, or continues the one in the home. Returns once the RPC answers.
    ///
    /// # Errors
    /// When the address is taken, or the home cannot be used.
    pub async fn start(config: Config) -> Result<Localnet> {
        let addr = config.rpc_addr;
        let listener = TcpListener::bind(addr).await.map_err(|source| Error::Listen { addr, source })?;
        let addr = listener.local_addr().map_err(|source| Error::Listen { addr, source })?;
        let patience = config.transaction_timeout;
        let opening = tokio::task::spawn_blocking(move || {
            let origin = Origin::load(&config)?;
            let rules = origin.rules(&config)?;
            let store = Store::open(origin.database.as_deref())?;
            let chain = Chain::open(rules, &origin.genesis, store)?;
            Ok::<_, Error>((origin, chain))
        });
        let (origin, chain) = opening.await.map_err(|e| Error::Stopped(e.to_string()))??;
        let shared = chain.shared();
        let worker = Worker::start(chain)?;
        let node = Arc::new(Node::new(shared, worker, origin.node_key, addr, patience));

        let (stop, stopped) = oneshot::channel();
        let service = router(node.clone(), origin.max_request);
        let server = tokio::spawn(async move {
            axum::serve(listener, service)
                .with_graceful_shutdown(async {
                    // Also when the handle was dropped.
                    let _ = stopped.await;
                })
                .await
        });
        let chain_id = origin.genesis.chain_id;
        let producer = origin.producer;
        Ok(Localnet { addr, chain_id, producer, node, stop: Some(stop), server })
    }

    /// Where the RPC listens, as `http://host:port`.
    pub fn rpc_url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// Where the RPC listens.
    pub fn rpc_addr(&self) -> SocketAddr {
        self.addr
    }

    /// The name of the chain.
    pub fn chain_id(&self) -> &str {
        &self.chain_id
    }

    /// An account with many tokens, and its full access key.
    pub fn root_account(&self) -> (AccountId, SecretKey) {
        (self.producer.account_id.clone(), self.producer.secret_key.clone())
    }

    /// Finishes the block in the making, and stops.
    ///
    /// # Errors
    /// When the chain had already failed: the error says why.
    pub async fn shutdown(mut self) -> Result<()> {
        let node = self.node.clone();
        let ended = tokio::task::spawn_blocking(move || node.worker.stop()).await;
        ended.map_err(|error| Error::Stopped(error.to_string()))?;
        if let Some(stop) = self.stop.take() {
            // The server has ended already if nobody listens.
            let _ = stop.send(());
        }
        if tokio::time::timeout(GRACE, &mut self.server).await.is_err() {
            self.server.abort();
        }
        match self.node.shared.failure() {
            Some(failure) => Err(Error::Stopped(failure)),
            None => Ok(()),
        }
    }

    /// Resolves when the chain has failed, with the reason.
    pub async fn failed(&self) -> String {
        let mut head = self.node.shared.watch();
        loop {
            if let Some(failure) = self.node.shared.failure() {
                return failure;
            }
            if head.changed().await.is_err() {
                return "the chain ended".to_owned();
            }
        }
    }
}

impl Drop for Localnet {
    fn drop(&mut self) {
        self.server.abort();
        self.node.worker.ask_to_stop();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Block;
    use crate::store::{Commit, Resumed};

    /// Otherwise nothing that waits for time would end before the clock is there again.
    #[tokio::test]
    async fn time_goes_on_after_the_clock_was_set_back() {
        let dir = tempfile::tempdir().expect("a directory");
        let block_time = Duration::from_millis(10);
        let config = || Config { home: Some(dir.path().to_owned()), block_time, ..Config::default() };
        Localnet::start(config()).await.expect("starts").shutdown().await.expect("ends");
        // As it would be had the clock been an hour ahead.
        let store = Store::open(Some(&Home::new(dir.path()).database().expect("a home"))).expect("opens");
        let Resumed { head, clock_offset, .. } = store.resume().expect("readable").expect("a chain");
        let block = Block {
            height: head.height + 1,
            ordinal: head.ordinal + 1,
            prev_height: Some(head.height),
            prev_hash: head.hash,
            timestamp: head.timestamp + 3_600_000_000_000,
            ..head
        }
        .seal();
        let (transactions, outcomes, receipts, changes) = (&[], &[], &[], &[]);
        let commit =
            Commit { block: &block, transactions, outcomes, receipts, changes, clock_offset, keep_from: 0 };
        store.commit(&commit).expect("written");
        drop(store);

        let chain = Localnet::start(config()).await.expect("starts again");
        let mut head = chain.node.shared.watch();
        let passes = async {
            while chain.node.shared.head().expect("a block").block.timestamp < block.timestamp + 50_000_000 {
                head.changed().await.expect("it makes blocks");
            }
        };
        tokio::time::timeout(Duration::from_secs(20), passes).await.expect("time goes on");
        chain.shutdown().await.expect("ends");
    }
}
