//! The contract, through NEAR's JSON-RPC: typed views at final blocks, and calls that take effect
//! exactly once.

mod admin;
mod call;
mod clock;
mod error;
mod faucet;
mod http;
mod intent;
mod others;
mod reader;
mod rpc;
mod sender;
mod sound;
mod tx;

use std::sync::Arc;
use std::time::Duration;

use near_crypto::SecretKey;
use por_types::interface::{
    AccountArgs, AttachmentView, BooksView, ChangesArgs, ChangesView, ChannelView, ChecksView, ConfigView,
    DowntimeArgs, DowntimeView, KeyArgs, MAX_PAGE, NodeView, PageArgs, SeverArgs, method,
};
use por_types::{AccountId, ChannelId, Network, NodeKey, SeverOrder, Signed, Yocto};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::AbortHandle;

use crate::alarm::Alarm;
use crate::config::NetworkConfig;

pub use admin::{AccessKeyInfo, AccountInfo, Admin, Governed, deploy, deployment_cost};
pub use call::Call;
pub(crate) use clock::now_ms;
pub use clock::{CLOCK_TOLERANCE, ClockState};
pub use error::ChainError;
pub use faucet::faucet;
pub use intent::{Intent, IntentId, IntentStore, MemoryIntents};
pub use rpc::{Head, RpcLimits};

pub(crate) use others::{Others, Page, Shown, agree_on_totals, pages};
pub(crate) use sound::MAX_RECORDS;

use reader::Reader;
use rpc::Skip;
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
    sending: Option<Sending>,
    call_timeout: Duration,
    allow_test: bool,
    seen_ms: u64,
}

/// The task that signs and sends, as callers see it.
#[derive(Clone)]
struct Sending {
    jobs: mpsc::Sender<Job>,
    alarm: Alarm,
    task: AbortHandle,
    /// Closes when the task has ended.
    ended: watch::Receiver<()>,
}

impl Sending {
    fn start(sender: Sender) -> Sending {
        let (jobs, queue) = mpsc::channel(QUEUE);
        let (end, ended) = watch::channel(());
        let alarm = Alarm::default();
        let guarded = alarm.clone().guard("chain sender", sender.run(queue));
        let task = tokio::spawn(async move {
            guarded.await;
            drop(end);
        });
        Sending { jobs, alarm, task: task.abort_handle(), ended }
    }

    /// Why a call that the task has let go is not carried out.
    async fn gone(&self) -> ChainError {
        // The alarm is raised after the task has let everything go.
        let _ = self.ended.clone().wait_for(|()| false).await;
        self.alarm.now().map_or(ChainError::Stopped, |reason| ChainError::Broken { reason })
    }
}

impl std::fmt::Debug for Chain {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Chain").field("network", &self.reader.network).finish_non_exhaustive()
    }
}

impl Chain {
    /// Connects, checks that chain and contract are the expected ones, and takes up the intents
    /// that an earlier run left unfinished.
    ///
    /// Errors: [`ChainError::Unreachable`], [`ChainError::Lagging`], [`ChainError::Foreign`],
    /// [`ChainError::NoContract`], [`ChainError::Store`].
    pub async fn connect(config: ChainConfig, intents: Arc<dyn IntentStore>) -> Result<Chain, ChainError> {
        let reader = Arc::new(Reader::new(&config)?);
        let found = reader.check(config.seen_ms, config.allow_test).await?;
        Chain::with(reader, config, intents, found)
    }

    /// The same without asking anybody: `found` is the contract's configuration as the same endpoints have shown
    /// it before. [`Chain::check`] makes up for it.
    pub(crate) fn resume(
        config: ChainConfig,
        intents: Arc<dyn IntentStore>,
        found: ConfigView,
    ) -> Result<Chain, ChainError> {
        Chain::with(Arc::new(Reader::new(&config)?), config, intents, found)
    }

    fn with(
        reader: Arc<Reader>,
        config: ChainConfig,
        intents: Arc<dyn IntentStore>,
        found: ConfigView,
    ) -> Result<Chain, ChainError> {
        let ChainConfig { signer, allow_test, seen_ms, call_timeout, .. } = config;
        let sending = match signer {
            None => None,
            Some(key) => Some(Sending::start(Sender::new(reader.clone(), key, intents)?)),
        };
        Ok(Chain { reader, found: Arc::new(found), sending, call_timeout, allow_test, seen_ms })
    }

    /// Checks what [`Chain::connect`] checks.
    pub(crate) async fn check(&self) -> Result<(), ChainError> {
        self.reader.check(self.seen_ms, self.allow_test).await.map(drop)
    }

    /// Resolves when no call can be made any more, for a defect in the task that sends them; never by
    /// itself. Whoever runs for long stops then: what was signed is stored, and the next run goes on with it.
    pub async fn failed(&self) -> ChainError {
        match &self.sending {
            Some(sending) => ChainError::Broken { reason: sending.alarm.raised().await },
            None => std::future::pending().await,
        }
    }

    /// The same; when it is dropped the task that sends ends, whatever it is at.
    pub(crate) async fn keep_sending(self) -> ChainError {
        struct End(Chain);
        impl Drop for End {
            fn drop(&mut self) {
                self.0.stop_sending();
            }
        }
        let chain = End(self);
        chain.0.failed().await
    }

    /// Ends the task that sends, whatever it is at: what it has signed is stored.
    pub(crate) fn stop_sending(&self) {
        if let Some(sending) = &self.sending {
            sending.task.abort();
        }
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

    /// This machine's clock beside the chain's: local time must not go on by a wrong one (protocol section 5).
    ///
    /// Errors: [`ChainError::Unreachable`] if no endpoint shows what time it is.
    pub async fn clock(&self) -> Result<ClockState, ChainError> {
        self.reader.rpc.clock().await
    }

    /// Whether the key may sign for the account.
    ///
    /// Errors: [`ChainError::NoKey`], [`ChainError::NoAccount`], and those of an outage.
    pub(crate) async fn check_key(&self, key: &SecretKey) -> Result<(), ChainError> {
        self.reader.nonce(key).await.map(drop)
    }

    /// Any view of the contract, at a final block.
    pub async fn view<A: Serialize, T: DeserializeOwned>(
        &self,
        method: &str,
        args: &A,
    ) -> Result<T, ChainError> {
        self.reader.view(method, args).await
    }

    /// The contract's configuration.
    ///
    /// Errors, here and for all views that follow: those of an outage, and [`ChainError::Answer`] if no
    /// endpoint's answer can be one of the contract.
    pub async fn config(&self) -> Result<ConfigView, ChainError> {
        self.reader.sound_config().await
    }

    /// The contract's configuration as it was when this was connected.
    pub fn config_found(&self) -> &ConfigView {
        &self.found
    }

    pub async fn node(&self, account: &AccountId) -> Result<Option<NodeView>, ChainError> {
        let sound = |found: &Option<NodeView>| match found {
            Some(node) if node.account == *account => sound::node(node),
            Some(node) => Err(Skip::Bad(format!("answers with node {} for {account}", node.account))),
            None => Ok(()),
        };
        self.reader.sound_view(method::NODE, &AccountArgs { account: account.clone() }, sound).await
    }

    pub async fn node_by_key(&self, node_key: NodeKey) -> Result<Option<NodeView>, ChainError> {
        let sound = |found: &Option<NodeView>| match found {
            Some(node) if node.node_key == node_key => sound::node(node),
            Some(node) => Err(Skip::Bad(format!("answers with node {} for {node_key}", node.node_key))),
            None => Ok(()),
        };
        self.reader.sound_view(method::NODE_BY_KEY, &KeyArgs { node_key }, sound).await
    }

    pub async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelView>, ChainError> {
        self.reader.channel(channel).await
    }

    /// What each endpoint at the head of the chain shows of a page of channels; nothing if there is only one, which
    /// is believed.
    pub(crate) async fn shown(&self, page: Page) -> Vec<Shown> {
        self.reader.shown(page).await
    }

    /// There is one endpoint, which is believed.
    pub(crate) fn is_alone(&self) -> bool {
        self.reader.rpc.is_alone()
    }

    /// The highest final block that an answer was of.
    pub(crate) fn height_seen(&self) -> u64 {
        self.reader.rpc.floor()
    }

    /// Whether more than half of the endpoints at the head of the chain say that this is the late fee; asks
    /// all of them. True if there is only one, which is believed.
    pub async fn agrees_on_late_fee(&self, fee: Yocto) -> bool {
        self.reader.agrees_on_late_fee(fee).await
    }

    /// Nodes with index `from..from + limit`.
    pub async fn nodes(&self, from: u64, limit: u32) -> Result<Vec<NodeView>, ChainError> {
        let sound = |page: &Vec<NodeView>| sound::nodes(from, limit, page);
        self.reader.sound_view(method::NODES, &PageArgs { from, limit }, sound).await
    }

    /// Channels with id `from..from + limit` that exist.
    pub async fn channels(&self, from: u64, limit: u32) -> Result<Vec<ChannelView>, ChainError> {
        let sound = |page: &Vec<ChannelView>| sound::channels(from, limit, page);
        self.reader.sound_view(method::CHANNELS, &PageArgs { from, limit }, sound).await
    }

    /// What changed after version `since`; at most [`por_types::interface::MAX_PAGE`] changes.
    pub async fn changes(&self, since: u64, limit: u32) -> Result<ChangesView, ChainError> {
        let sound = |page: &ChangesView| sound::changes(since, limit.min(MAX_PAGE), page);
        self.reader.sound_view(method::CHANGES, &ChangesArgs { since, limit }, sound).await
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
    /// sent, [`ChainError::Broken`]; after the call timeout [`ChainError::Undecided`] if it is still pursued, and
    /// [`ChainError::Unsent`] if its turn had not come: then it is taken back.
    pub async fn call(&self, intent: Intent) -> Result<CallOutcome, ChainError> {
        let sending = self.sending.as_ref().ok_or(ChainError::ReadOnly)?;
        let method = intent.call.method().to_owned();
        let (reply, outcome) = oneshot::channel();
        let turn = Turn::default();
        let job = Job { intent, turn: turn.clone(), reply };
        let wait = async {
            let taken = sending.jobs.send(job).await.is_ok();
            match outcome.await {
                Ok(outcome) if taken => outcome,
                _ => Err(sending.gone().await),
            }
        };
        match tokio::time::timeout(self.call_timeout, wait).await {
            Ok(outcome) => outcome,
            Err(_) if turn.decide() => Err(ChainError::Unsent { method }),
            Err(_) => Err(ChainError::Undecided { method, transaction: None }),
        }
    }
}
