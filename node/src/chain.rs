//! The contract, through NEAR's JSON-RPC: typed views at final blocks, and calls that take effect
//! exactly once.

mod admin;
mod call;
mod error;
mod faucet;
mod intent;
mod rpc;
mod sender;
mod tx;

use std::sync::Arc;
use std::time::Duration;

use near_crypto::SecretKey;
use near_jsonrpc_client::methods::query::{RpcQueryError, RpcQueryRequest, RpcQueryResponse};
use near_jsonrpc_primitives::types::query::QueryResponseKind;
use near_primitives::types::{BlockReference, Finality};
use near_primitives::views::QueryRequest;
use por_types::interface::{
    AccountArgs, AttachmentView, BooksView, ChangesArgs, ChangesView, ChannelArgs, ChannelView, ChecksView,
    ConfigView, DowntimeArgs, DowntimeView, KeyArgs, NodeView, PageArgs, STATE_VERSION, SeverArgs,
    error_code, method,
};
use por_types::{AccountId, ChannelId, Network, NodeKey, SeverOrder, Signed, Yocto};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot};

use crate::config::NetworkConfig;

pub use admin::{AccessKeyInfo, AccountInfo, Admin, Governed, deploy, deployment_cost};
pub use call::Call;
pub use error::ChainError;
pub use faucet::faucet;
pub use intent::{Intent, IntentId, IntentStore, MemoryIntents};
pub use rpc::{Head, RpcLimits};

use rpc::{Rpc, RpcFailure, Skip};
use sender::{Job, Sender, Turn};

/// Calls that may wait for their turn to be signed.
const QUEUE: usize = 256;

/// How to reach the contract.
#[derive(Clone)]
pub struct ChainConfig {
    /// Chain and contract; endpoints of another chain are refused.
    pub network: Network,
    /// JSON-RPC endpoints, tried in this order.
    pub rpc_urls: Vec<String>,
    /// The node's account.
    pub account: AccountId,
    /// Signs the node's transactions; `None` for views only.
    pub signer: Option<SecretKey>,
    /// Accept contracts with lifted bounds; only where no real money is.
    pub allow_test: bool,
    pub limits: RpcLimits,
    /// Time of a final block that an earlier run has seen, milliseconds since 1970: whoever shows an earlier
    /// one as the latest has fallen behind.
    pub seen_ms: u64,
    /// How long [`Chain::call`] waits for an outcome before it says that it is not known yet.
    pub call_timeout: Duration,
}

impl ChainConfig {
    pub fn new(network: &NetworkConfig, account: AccountId, signer: Option<SecretKey>) -> ChainConfig {
        ChainConfig {
            network: network.network(),
            rpc_urls: network.rpc_urls.clone(),
            account,
            signer,
            allow_test: network.is_local(),
            limits: RpcLimits::default(),
            seen_ms: 0,
            call_timeout: Duration::from_secs(120),
        }
    }
}

/// Outcome of a call that succeeded, final on chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CallOutcome {
    /// Hash of the transaction; `None` if the effect was found on chain instead.
    pub transaction: Option<String>,
    /// What the method returned; null for nothing.
    pub value: serde_json::Value,
}

/// The contract on its chain. Cheap to clone.
#[derive(Clone)]
pub struct Chain {
    reader: Arc<Reader>,
    /// The contract's configuration when this was connected.
    found: Arc<ConfigView>,
    jobs: Option<mpsc::Sender<Job>>,
    call_timeout: Duration,
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("network", &self.reader.network).finish_non_exhaustive()
    }
}

/// What views need.
struct Reader {
    rpc: Rpc,
    network: Network,
    account: AccountId,
}

impl Chain {
    /// Connects, checks that chain and contract are the expected ones, and takes up the intents
    /// that an earlier run left unfinished.
    ///
    /// Errors: [`ChainError::Unreachable`], [`ChainError::Lagging`], [`ChainError::Foreign`],
    /// [`ChainError::NoContract`], [`ChainError::Store`].
    pub async fn connect(config: ChainConfig, intents: Arc<dyn IntentStore>) -> Result<Chain, ChainError> {
        let rpc = Rpc::new(&config.rpc_urls, config.limits)?.after(config.seen_ms);
        let reader = Arc::new(Reader { rpc, network: config.network, account: config.account });
        reader.rpc.check_chain_id(&reader.network.chain_id).await?;
        if config.seen_ms > 0 {
            // From here on nothing is taken that is older than this head.
            reader.rpc.head().await?;
        }
        let found = reader.check_contract(config.allow_test).await?;
        let jobs = match config.signer {
            None => None,
            Some(key) => {
                let (jobs, queue) = mpsc::channel(QUEUE);
                let sender = Sender::new(reader.clone(), key, intents)?;
                tokio::spawn(sender.run(queue));
                Some(jobs)
            }
        };
        Ok(Chain { reader, found: Arc::new(found), jobs, call_timeout: config.call_timeout })
    }

    /// Chain and contract.
    pub fn network(&self) -> &Network {
        &self.reader.network
    }

    /// The node's account.
    pub fn account(&self) -> &AccountId {
        &self.reader.account
    }

    /// The final head of the chain.
    pub async fn head(&self) -> Result<Head, ChainError> {
        self.reader.rpc.head().await
    }

    /// Any view of the contract, at a final block.
    pub async fn view<A: Serialize, T: DeserializeOwned>(
        &self,
        method: &str,
        args: &A,
    ) -> Result<T, ChainError> {
        self.reader.view(method, args).await
    }

    pub async fn config(&self) -> Result<ConfigView, ChainError> {
        self.reader.config().await
    }

    /// The contract's configuration as it was when this was connected.
    pub fn config_found(&self) -> &ConfigView {
        &self.found
    }

    pub async fn node(&self, account: &AccountId) -> Result<Option<NodeView>, ChainError> {
        self.view(method::NODE, &AccountArgs { account: account.clone() }).await
    }

    pub async fn node_by_key(&self, node_key: NodeKey) -> Result<Option<NodeView>, ChainError> {
        self.view(method::NODE_BY_KEY, &KeyArgs { node_key }).await
    }

    pub async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelView>, ChainError> {
        self.view(method::CHANNEL, &ChannelArgs { channel }).await
    }

    /// Nodes with index `from..from + limit`.
    pub async fn nodes(&self, from: u64, limit: u32) -> Result<Vec<NodeView>, ChainError> {
        self.view(method::NODES, &PageArgs { from, limit }).await
    }

    /// Channels with id `from..from + limit` that exist.
    pub async fn channels(&self, from: u64, limit: u32) -> Result<Vec<ChannelView>, ChainError> {
        self.view(method::CHANNELS, &PageArgs { from, limit }).await
    }

    /// What changed after version `since`.
    pub async fn changes(&self, since: u64, limit: u32) -> Result<ChangesView, ChainError> {
        self.view(method::CHANGES, &ChangesArgs { since, limit }).await
    }

    /// What `account` could withdraw now.
    pub async fn withdrawable(&self, account: &AccountId) -> Result<Yocto, ChainError> {
        self.view(method::WITHDRAWABLE, &AccountArgs { account: account.clone() }).await
    }

    /// Since when a node is attached, and up to when that is final (protocol section 7).
    pub async fn attachment(&self, account: &AccountId) -> Result<Option<AttachmentView>, ChainError> {
        self.view(method::ATTACHMENT, &AccountArgs { account: account.clone() }).await
    }

    /// How long a node was not attached between two block times, milliseconds.
    pub async fn downtime(
        &self,
        account: &AccountId,
        from_ms: u64,
        to_ms: u64,
    ) -> Result<Option<DowntimeView>, ChainError> {
        self.view(method::DOWNTIME, &DowntimeArgs { account: account.clone(), from_ms, to_ms }).await
    }

    /// Partition checks that are not finished.
    pub async fn checks(&self) -> Result<ChecksView, ChainError> {
        self.view(method::CHECKS, &serde_json::json!({})).await
    }

    pub async fn books(&self) -> Result<BooksView, ChainError> {
        self.view(method::BOOKS, &serde_json::json!({})).await
    }

    /// What the account holds on the chain itself, `None` if it does not exist.
    pub async fn balance(&self, account: &AccountId) -> Result<Option<Yocto>, ChainError> {
        self.reader.balance(account).await
    }

    /// Brings a SeverOrder to the chain, with what a partition check may need (protocol section 6).
    ///
    /// Errors: as [`Chain::call`]; the contract's `E_NOT_SEVERABLE` means that it is there already.
    pub async fn sever(&self, order: Signed<SeverOrder>) -> Result<CallOutcome, ChainError> {
        let attached = self.config().await?.check_deposit;
        let args = SeverArgs { order, witness: None };
        self.call(Intent::new(Call::Sever { args, attached })).await
    }

    /// Carries out an intent: stored before it is sent, sent again if it is lost, final when this
    /// returns. Dropping the future does not take the intent back.
    ///
    /// Errors: [`ChainError::Contract`] if the contract refuses, [`ChainError::Funds`],
    /// [`ChainError::NoKey`], [`ChainError::Rejected`], [`ChainError::Unreachable`] if nothing was
    /// sent; after the call timeout [`ChainError::Undecided`] if it is still pursued, and
    /// [`ChainError::Unsent`] if its turn had not come: then it is taken back.
    pub async fn call(&self, intent: Intent) -> Result<CallOutcome, ChainError> {
        let jobs = self.jobs.as_ref().ok_or(ChainError::ReadOnly)?;
        let method = intent.call.method().to_owned();
        let (reply, outcome) = oneshot::channel();
        let turn = Turn::default();
        let job = Job { intent, turn: turn.clone(), reply };
        let wait = async {
            jobs.send(job).await.map_err(|_| ChainError::Stopped)?;
            outcome.await.map_err(|_| ChainError::Stopped)?
        };
        match tokio::time::timeout(self.call_timeout, wait).await {
            Ok(outcome) => outcome,
            Err(_) if turn.decide() => Err(ChainError::Unsent { method }),
            Err(_) => Err(ChainError::Undecided { method, transaction: None }),
        }
    }
}

impl Reader {
    /// The configuration of the contract, if it is the expected one.
    async fn check_contract(&self, allow_test: bool) -> Result<ConfigView, ChainError> {
        // Only these fields: a foreign version may have changed all others.
        #[derive(serde::Deserialize)]
        struct Versioned {
            state_version: u32,
        }
        let foreign = |reason: String| ChainError::Foreign { reason };
        let contract = &self.network.contract;
        let found: Result<Versioned, ChainError> = self.view(method::CONFIG, &serde_json::json!({})).await;
        let found = found.map_err(|error| match error {
            ChainError::Answer { .. } | ChainError::Contract { .. } => {
                foreign(format!("{contract} is no Proof of Response contract"))
            }
            other => other,
        })?;
        if found.state_version != STATE_VERSION {
            return Err(foreign(format!(
                "the contract {contract} has version {}, this program speaks version {STATE_VERSION}",
                found.state_version
            )));
        }
        let config = self.config().await?;
        if config.chain_id != self.network.chain_id {
            return Err(foreign(format!(
                "the contract {contract} was made for chain {}, not for {}",
                config.chain_id, self.network.chain_id
            )));
        }
        if config.test && !allow_test {
            return Err(foreign(format!(
                "the contract {contract} is a test contract with lifted bounds; real money is not safe in it"
            )));
        }
        Ok(config)
    }

    async fn config(&self) -> Result<ConfigView, ChainError> {
        self.view(method::CONFIG, &serde_json::json!({})).await
    }

    async fn view<A: Serialize, T: DeserializeOwned>(&self, method: &str, args: &A) -> Result<T, ChainError> {
        let unreadable = |reason: String| ChainError::Answer { method: method.to_owned(), reason };
        let args = serde_json::to_vec(args).map_err(|error| unreadable(error.to_string()))?;
        let request = QueryRequest::CallFunction {
            account_id: self.network.contract.clone(),
            method_name: method.to_owned(),
            args: args.into(),
        };
        let response = self.query(request, Finality::Final).await.map_err(|failure| match failure {
            RpcFailure::Nobody(error) => error,
            RpcFailure::Handler { error, .. } => self.view_error(method, error),
        })?;
        match response.kind {
            QueryResponseKind::CallResult(result) => {
                serde_json::from_slice(&result.result).map_err(|error| unreadable(error.to_string()))
            }
            _ => Err(unreadable("it is no result of a view".to_owned())),
        }
    }

    fn view_error(&self, method: &str, error: RpcQueryError) -> ChainError {
        match error {
            RpcQueryError::UnknownAccount { .. } | RpcQueryError::NoContractCode { .. } => {
                ChainError::NoContract { contract: self.network.contract.clone() }
            }
            RpcQueryError::ContractExecutionError { vm_error, .. } => {
                if vm_error.contains("CodeDoesNotExist") {
                    return ChainError::NoContract { contract: self.network.contract.clone() };
                }
                ChainError::Contract {
                    method: method.to_owned(),
                    code: error_code(&vm_error).map(str::to_owned),
                    message: tx::panic_message(&vm_error),
                }
            }
            other => ChainError::Answer { method: method.to_owned(), reason: other.to_string() },
        }
    }

    async fn balance(&self, account: &AccountId) -> Result<Option<Yocto>, ChainError> {
        let request = QueryRequest::ViewAccount { account_id: account.clone() };
        match self.query(request, Finality::Final).await {
            Ok(RpcQueryResponse { kind: QueryResponseKind::ViewAccount(view), .. }) => {
                Ok(Some(Yocto(view.amount.as_yoctonear())))
            }
            Ok(_) => Err(ChainError::Answer {
                method: "view_account".to_owned(),
                reason: "it is no account".to_owned(),
            }),
            Err(RpcFailure::Handler { error: RpcQueryError::UnknownAccount { .. }, .. }) => Ok(None),
            Err(RpcFailure::Handler { error, .. }) => {
                Err(ChainError::Answer { method: "view_account".to_owned(), reason: error.to_string() })
            }
            Err(RpcFailure::Nobody(error)) => Err(error),
        }
    }

    /// Last nonce used by a key of the account.
    async fn key_nonce(&self, key: &SecretKey) -> Result<u64, ChainError> {
        let Reader { account, network, .. } = self;
        let public_key = key.public_key();
        let request =
            QueryRequest::ViewAccessKey { account_id: account.clone(), public_key: public_key.clone() };
        let no_key = || ChainError::NoKey { account: account.clone(), key: public_key.to_string() };
        match self.query(request, Finality::None).await {
            Ok(response) => match response.kind {
                QueryResponseKind::AccessKey(view) => Ok(view.nonce),
                _ => Err(ChainError::Answer {
                    method: "view_access_key".to_owned(),
                    reason: "it is no access key".to_owned(),
                }),
            },
            Err(RpcFailure::Handler { error, .. }) => Err(match error {
                RpcQueryError::UnknownAccessKey { .. } => match self.balance(account).await? {
                    Some(_) => no_key(),
                    None => {
                        ChainError::NoAccount { account: account.clone(), chain_id: network.chain_id.clone() }
                    }
                },
                RpcQueryError::UnknownAccount { .. } => {
                    ChainError::NoAccount { account: account.clone(), chain_id: network.chain_id.clone() }
                }
                other => {
                    ChainError::Answer { method: "view_access_key".to_owned(), reason: other.to_string() }
                }
            }),
            Err(RpcFailure::Nobody(error)) => Err(error),
        }
    }

    /// The highest nonce that any endpoint says the key has used at a final block; `None` if none says.
    async fn highest_nonce(&self, key: &SecretKey) -> Option<u64> {
        let request = RpcQueryRequest {
            block_reference: BlockReference::Finality(Finality::Final),
            request: QueryRequest::ViewAccessKey {
                account_id: self.account.clone(),
                public_key: key.public_key(),
            },
        };
        let answers = self.rpc.ask_all(&request, self.rpc.limits().try_timeout).await;
        let nonce = |(_, answer): (&str, RpcQueryResponse)| match answer.kind {
            QueryResponseKind::AccessKey(view) => Some(view.nonce),
            _ => None,
        };
        answers.into_iter().filter_map(nonce).max()
    }

    async fn query(
        &self,
        request: QueryRequest,
        finality: Finality,
    ) -> Result<RpcQueryResponse, RpcFailure<RpcQueryError>> {
        // Only final answers are held against each other: optimistic ones may be rolled back.
        let is_final = finality == Finality::Final;
        let request = RpcQueryRequest { block_reference: BlockReference::Finality(finality), request };
        let floor = self.rpc.floor();
        let transient = |error: &RpcQueryError| {
            matches!(
                error,
                RpcQueryError::NoSyncedBlocks
                    | RpcQueryError::UnavailableShard { .. }
                    | RpcQueryError::GarbageCollectedBlock { .. }
                    | RpcQueryError::UnknownBlock { .. }
                    | RpcQueryError::InternalError { .. }
            )
        };
        let accept = |response: RpcQueryResponse| {
            if is_final {
                self.rpc.rise(floor, response.block_height)?;
            } else if response.block_height < floor {
                return Err(Skip(format!("is at block {}, behind {floor}", response.block_height)));
            }
            Ok(response)
        };
        self.rpc.ask(&request, self.rpc.limits().try_timeout, transient, accept).await
    }
}
