//! The one owner of the access key's nonce. Calls are signed and sent one after the other; each is
//! stored before it is sent and left in the store until its outcome is final, so that a crash at
//! any point neither loses it nor has it take effect twice.

mod effect;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use near_crypto::SecretKey;
use near_jsonrpc_client::methods::send_tx::RpcSendTransactionRequest;
use near_jsonrpc_client::methods::tx::RpcTransactionStatusRequest;
use near_jsonrpc_primitives::types::transactions::{
    RpcTransactionError, RpcTransactionResponse, TransactionInfo,
};
use near_primitives::errors::InvalidTxError;
use near_primitives::hash::CryptoHash;
use near_primitives::views::{FinalExecutionOutcomeView, TxExecutionStatus};
use por_types::AccountId;
use tokio::sync::{mpsc, oneshot};

use super::error::ChainError;
use super::intent::{Intent, IntentRecord, IntentStore, SentTx};
use super::reader::Reader;
use super::rpc::{RpcFailure, Skip};
use super::{CallOutcome, tx};

use effect::Effect;

/// Wait between looks at a transaction whose fate is open.
const LOOK_AGAIN: Duration = Duration::from_millis(500);
/// Wait after all endpoints failed while a transaction's fate is open.
const RECONNECT: Duration = Duration::from_secs(2);
/// Times that a call is signed anew because its transaction cannot take effect any more.
const MAX_SIGNINGS: u32 = 5;
/// Times that a transaction is looked for which the chain says was overtaken.
const LOOKS: u32 = 6;

/// Blocks of an outcome that are looked at, of as many as an endpoint may name.
const MAX_BLOCKS: usize = 16;

/// An intent and who waits for its outcome.
pub(super) struct Job {
    pub(super) intent: Intent,
    pub(super) turn: Turn,
    pub(super) reply: oneshot::Sender<Result<CallOutcome, ChainError>>,
}

/// Whether a queued intent is begun or taken back: whoever says so first decides.
#[derive(Clone, Debug, Default)]
pub(super) struct Turn(Arc<AtomicBool>);

impl Turn {
    /// False if it was decided before: begun, for who takes it back, or taken back, for who begins.
    pub(super) fn decide(&self) -> bool {
        !self.0.swap(true, Ordering::AcqRel)
    }
}

pub(super) struct Sender {
    reader: Arc<Reader>,
    key: SecretKey,
    store: Arc<dyn IntentStore>,
    /// Highest nonce signed in this run.
    nonce: u64,
    /// What an earlier run left unfinished.
    unfinished: Vec<IntentRecord>,
}

/// Where a transaction that was sent has ended.
enum Fate {
    Final(Box<FinalExecutionOutcomeView>),
    /// It can never take effect; the reason.
    Dead(InvalidTxError),
    /// Its nonce is taken and nobody knows by which transaction.
    Overtaken,
}

/// How one try at getting a transaction through ended.
enum Push {
    Outcome(Box<FinalExecutionOutcomeView>),
    /// An endpoint has it; the outcome is not final yet.
    Waiting,
    Invalid {
        error: InvalidTxError,
        tries: u32,
    },
    Failed(ChainError),
}

impl Sender {
    pub(super) fn new(
        reader: Arc<Reader>,
        key: SecretKey,
        store: Arc<dyn IntentStore>,
    ) -> Result<Sender, ChainError> {
        let mut unfinished = Vec::new();
        for (id, bytes) in store.load().map_err(ChainError::Store)? {
            let record: IntentRecord = serde_json::from_slice(&bytes).map_err(|error| {
                ChainError::Store(format!("intent {} cannot be read: {error}", hex::encode(id.0)))
            })?;
            unfinished.push(record);
        }
        unfinished.sort_by_key(|record| record.sent.nonce);
        Ok(Sender { reader, key, store, nonce: 0, unfinished })
    }

    /// Finishes what an earlier run left, then serves jobs until every [`super::Chain`] is gone.
    pub(super) async fn run(mut self, mut jobs: mpsc::Receiver<Job>) {
        for record in std::mem::take(&mut self.unfinished) {
            let method = record.intent.call.method();
            match self.pursue(record.clone(), false).await {
                Ok(_) => tracing::info!(method, transaction = record.sent.hash, "finished an earlier call"),
                Err(error) => tracing::warn!(method, %error, "an earlier call failed"),
            }
        }
        while let Some(job) = jobs.recv().await {
            if !job.turn.decide() {
                continue;
            }
            let outcome = self.carry_out(job.intent).await;
            // Nobody may be waiting any more; the effect is on chain all the same.
            let _ = job.reply.send(outcome);
        }
    }

    async fn carry_out(&mut self, intent: Intent) -> Result<CallOutcome, ChainError> {
        let record = self.sign(intent).await?;
        self.pursue(record, true).await
    }

    /// Signs a call with the next nonce and stores it.
    async fn sign(&mut self, intent: Intent) -> Result<IntentRecord, ChainError> {
        let action = tx::action(&intent.call)?;
        let (head, used, end) = self.reader.nonce(&self.key).await?;
        // What was signed beyond the end, on the word of an endpoint, can never be taken.
        let signed = if self.nonce < end { self.nonce } else { 0 };
        let nonce = used.max(signed).saturating_add(1);
        let Reader { account, network, .. } = &*self.reader;
        let signed = tx::sign_actions(&self.key, account, &network.contract, nonce, head.hash, vec![action]);
        let record = IntentRecord { intent, sent: SentTx::of(&signed, head.height)? };
        let bytes = serde_json::to_vec(&record).map_err(|error| ChainError::Store(error.to_string()))?;
        self.store.put(record.intent.id, bytes).await.map_err(ChainError::Store)?;
        self.nonce = nonce;
        Ok(record)
    }

    /// Brings a signed intent to its final outcome. `fresh`: it has never been sent.
    async fn pursue(&mut self, mut record: IntentRecord, mut fresh: bool) -> Result<CallOutcome, ChainError> {
        let id = record.intent.id;
        let method = record.intent.call.method();
        let mut signings = 0;
        let outcome = loop {
            let again = match self.fate(&record.sent, fresh).await? {
                Fate::Final(view) => {
                    self.see(&view).await;
                    break tx::outcome(method, &view);
                }
                Fate::Dead(error) if resign_helps(&error) && signings < MAX_SIGNINGS => {
                    self.reader.rpc.pass_over();
                    true
                }
                Fate::Dead(error) => {
                    // Whoever repeats the call is to have another opinion.
                    self.reader.rpc.pass_over();
                    break Err(self.reader.rejected(&error, &self.key));
                }
                Fate::Overtaken => match self.effect(&record).await {
                    Effect::There => {
                        break Ok(CallOutcome { transaction: None, value: serde_json::Value::Null });
                    }
                    Effect::Missing if signings < MAX_SIGNINGS => true,
                    Effect::Missing | Effect::Unknown => false,
                },
            };
            if !again {
                let transaction = record.sent.hash.clone();
                break Err(ChainError::Forgotten { method: method.to_owned(), transaction });
            }
            signings += 1;
            record = match self.sign_again(&record.intent).await {
                Ok(record) => record,
                // What is stored stays: the next run takes it up.
                Err(error @ ChainError::Store(_)) => return Err(error),
                Err(error) => break Err(error),
            };
            fresh = true;
        };
        if matches!(outcome, Err(ChainError::Undecided { .. })) {
            return outcome;
        }
        if let Err(error) = self.store.remove(id).await {
            tracing::error!(error, method, "a finished intent stays in the store");
        }
        outcome
    }

    /// Signs a stored call anew, once the chain can be reached: it is not given up for an outage.
    async fn sign_again(&mut self, intent: &Intent) -> Result<IntentRecord, ChainError> {
        loop {
            match self.sign(intent.clone()).await {
                // With an endpoint that makes no sense as with none.
                Err(error) if error.is_transient() || matches!(error, ChainError::Answer { .. }) => {
                    tracing::warn!(method = intent.call.method(), %error, "waiting for the chain");
                    tokio::time::sleep(RECONNECT).await;
                }
                other => return other,
            }
        }
    }

    /// Makes sure that views from here on show the outcome, also those of an endpoint that lags.
    async fn see(&self, view: &FinalExecutionOutcomeView) {
        let mut blocks: Vec<CryptoHash> =
            view.receipts_outcome.iter().map(|receipt| receipt.block_hash).collect();
        blocks.push(view.transaction_outcome.block_hash);
        blocks.sort_unstable();
        blocks.dedup();
        blocks.truncate(MAX_BLOCKS);
        for block in blocks {
            if let Err(error) = self.reader.rpc.rise_to(block).await {
                tracing::debug!(%block, %error, "a block of an outcome cannot be read");
            }
        }
    }

    /// Sends a transaction, again and again if need be, until its fate is certain. Sending the
    /// same bytes twice has one effect, since a nonce is used once.
    async fn fate(&self, sent: &SentTx, fresh: bool) -> Result<Fate, ChainError> {
        let transaction = sent.transaction()?;
        let mut looks = 0;
        let mut first = fresh;
        loop {
            let push = if first || looks > 0 { None } else { self.look_up(sent).await? };
            let push = match push {
                Some(push) => push,
                None => self.send(&transaction).await,
            };
            match push {
                Push::Outcome(view) => return Ok(Fate::Final(view)),
                Push::Waiting => {
                    // One that never says how it ended must not keep the others from being asked.
                    self.reader.rpc.pass_over();
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Push::Failed(error) => {
                    tracing::warn!(transaction = sent.hash, %error, "waiting for the chain");
                    tokio::time::sleep(RECONNECT).await;
                }
                // Where nobody else may have it there is nothing to wait for.
                Push::Invalid { error, tries }
                    if may_be_itself(&error) || (may_be_behind(&error) && !(first && tries == 1)) =>
                {
                    match self.look_up(sent).await? {
                        Some(Push::Outcome(view)) => return Ok(Fate::Final(view)),
                        // The first endpoint that ever saw it refused it, and does not know it: it is
                        // nowhere else. One that knows it has sent it twice, as what balances load may.
                        None if first && tries == 1 => return Ok(Fate::Dead(error)),
                        _ => {}
                    }
                    looks += 1;
                    if looks >= LOOKS {
                        match self.is_spent(sent, &error).await {
                            Some(true) => return self.overtaken(sent).await,
                            Some(false) => return Ok(Fate::Dead(error)),
                            None => tokio::time::sleep(RECONNECT).await,
                        }
                    }
                    // Another one may know more of it, or take it.
                    self.reader.rpc.pass_over();
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
                Push::Invalid { error, tries: 1 } if first => return Ok(Fate::Dead(error)),
                Push::Invalid { error, .. } if passes(&error) => tokio::time::sleep(RECONNECT).await,
                Push::Invalid { error, .. } => return Ok(Fate::Dead(error)),
            }
            first = false;
        }
    }

    /// The nonce is used: by another transaction, or by this one, which has come to the chain since it was looked for.
    /// Who shows the nonce may not be the one that is asked, and may know the transaction a moment later.
    async fn overtaken(&self, sent: &SentTx) -> Result<Fate, ChainError> {
        let (request, hash) = status_of(sent, &self.reader.account)?;
        for _ in 0..LOOKS {
            let answers = self.reader.rpc.ask_all(&request, self.reader.rpc.limits().try_timeout).await;
            let mut found = answers.into_iter().filter_map(|(_, response)| match reached(response, hash) {
                Ok(Push::Outcome(view)) => Some(view),
                _ => None,
            });
            if let Some(view) = found.next() {
                return Ok(Fate::Final(view));
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
        Ok(Fate::Overtaken)
    }

    /// Whether the nonce of a transaction that nobody knows and that was refused for this is used: then it
    /// may have had its effect long ago. `None`: nobody says.
    ///
    /// That a transaction is too old is judged before its nonce is, so it says nothing about that.
    /// Nor need it be: who is behind, and has not seen the block on which it was signed, says the same.
    async fn is_spent(&self, sent: &SentTx, refused_for: &InvalidTxError) -> Option<bool> {
        match refused_for {
            InvalidTxError::InvalidNonce { .. } => Some(true),
            _ => self.reader.is_used(&self.key, sent.nonce, sent.height).await,
        }
    }

    async fn send(&self, transaction: &near_primitives::transaction::SignedTransaction) -> Push {
        let request = RpcSendTransactionRequest {
            signed_transaction: transaction.clone(),
            wait_until: TxExecutionStatus::Final,
        };
        let timeout = self.reader.rpc.limits().transaction_timeout;
        let hash = transaction.get_hash();
        push(self.reader.rpc.ask(&request, timeout, transient, |response| reached(response, hash)).await)
    }

    /// The transaction as the chain knows it; `None` if it does not.
    async fn look_up(&self, sent: &SentTx) -> Result<Option<Push>, ChainError> {
        let (request, tx_hash) = status_of(sent, &self.reader.account)?;
        let timeout = self.reader.rpc.limits().transaction_timeout;
        let accept = |response| reached(response, tx_hash);
        match self.reader.rpc.ask(&request, timeout, transient, accept).await {
            Err(RpcFailure::Handler { error: RpcTransactionError::UnknownTransaction { .. }, .. }) => {
                Ok(None)
            }
            other => Ok(Some(push(other))),
        }
    }
}

/// The question for a transaction's outcome, and its hash.
fn status_of(
    sent: &SentTx,
    account: &AccountId,
) -> Result<(RpcTransactionStatusRequest, CryptoHash), ChainError> {
    let hash = sent.hash.parse();
    let tx_hash = hash.map_err(|_| ChainError::Store(format!("{:?} is no transaction hash", sent.hash)))?;
    let sender_account_id = account.clone();
    let transaction_info = TransactionInfo::TransactionId { tx_hash, sender_account_id };
    Ok((RpcTransactionStatusRequest { transaction_info, wait_until: TxExecutionStatus::Final }, tx_hash))
}

/// How far an endpoint says that the transaction with this hash has come.
fn reached(response: RpcTransactionResponse, hash: CryptoHash) -> Result<Push, Skip> {
    match (response.final_execution_status, response.final_execution_outcome) {
        (TxExecutionStatus::Final, Some(outcome)) => {
            let outcome = outcome.into_outcome();
            if outcome.transaction.hash != hash {
                return Err(Skip::Bad("tells of another transaction than asked for".to_owned()));
            }
            Ok(Push::Outcome(Box::new(outcome)))
        }
        _ => Ok(Push::Waiting),
    }
}

fn push(answer: Result<Push, RpcFailure<RpcTransactionError>>) -> Push {
    match answer {
        Ok(push) => push,
        Err(RpcFailure::Handler { error: RpcTransactionError::InvalidTransaction { context }, tries }) => {
            Push::Invalid { error: context, tries }
        }
        Err(RpcFailure::Handler { .. }) => Push::Waiting,
        Err(RpcFailure::Nobody(error)) => Push::Failed(error),
    }
}

/// Errors after which another endpoint may do better.
fn transient(error: &RpcTransactionError) -> bool {
    matches!(
        error,
        RpcTransactionError::DoesNotTrackShard
            | RpcTransactionError::RequestRouted { .. }
            | RpcTransactionError::InternalError { .. }
    )
}

/// A new signature, with a new nonce and block, can mend this.
fn resign_helps(error: &InvalidTxError) -> bool {
    matches!(
        error,
        InvalidTxError::InvalidNonce { .. } | InvalidTxError::NonceTooLarge { .. } | InvalidTxError::Expired
    )
}

/// A transaction that has been included is refused like this when it is sent again.
fn may_be_itself(error: &InvalidTxError) -> bool {
    matches!(error, InvalidTxError::InvalidNonce { .. } | InvalidTxError::Expired)
}

/// So says who has not seen what the account was given, also of what another endpoint has taken.
fn may_be_behind(error: &InvalidTxError) -> bool {
    matches!(error, InvalidTxError::NotEnoughBalance { .. } | InvalidTxError::LackBalanceForState { .. })
}

/// Passes by itself.
fn passes(error: &InvalidTxError) -> bool {
    matches!(error, InvalidTxError::ShardCongested { .. } | InvalidTxError::ShardStuck { .. })
}
