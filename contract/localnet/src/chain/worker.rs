//! The thread that makes blocks, and what can be asked of it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, TrySendError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use near_crypto::PublicKey;
use near_primitives::errors::InvalidTxError;
use near_primitives::hash::CryptoHash;
use near_primitives::state_record::StateRecord;
use near_primitives::transaction::SignedTransaction;
use near_primitives::types::{AccountId, Balance};
use tokio::sync::oneshot;

use super::{Chain, Shared, Work};
use crate::error::{Error, Result};
use crate::vm::STACK_BYTES;

/// Commands that may wait.
const QUEUE: usize = 1024;
/// Transactions of one block.
const TRANSACTIONS: usize = 512;

/// What became of a transaction: whether it is in a block.
pub(crate) type Submitted = std::result::Result<(), InvalidTxError>;

/// New tokens for an account.
pub(crate) struct Faucet {
    pub(crate) account_id: AccountId,
    /// The full access key of the account, if it has to be created.
    pub(crate) public_key: PublicKey,
    pub(crate) amount: Balance,
}

/// What the faucet did.
pub(crate) struct Fauceted {
    pub(crate) account_id: AccountId,
    /// What the account now holds.
    pub(crate) balance: Balance,
    pub(crate) created: bool,
}

/// What can be asked of the chain. Answers come when a block contains what was asked.
pub(crate) enum Command {
    Submit { transaction: Box<SignedTransaction>, reply: Option<oneshot::Sender<Submitted>> },
    Patch { records: Vec<StateRecord>, reply: oneshot::Sender<Result<(), String>> },
    FastForward { blocks: u64, reply: oneshot::Sender<Result<(), String>> },
    Faucet { faucet: Box<Faucet>, reply: oneshot::Sender<Result<Fauceted, String>> },
    Stop,
}

/// The handle of the thread.
pub(crate) struct Worker {
    commands: SyncSender<Command>,
    thread: parking_lot::Mutex<Option<JoinHandle<()>>>,
}

impl Worker {
    pub(crate) fn start(chain: Chain) -> Result<Self> {
        let (commands, receiver) = sync_channel(QUEUE);
        let thread = std::thread::Builder::new()
            .name("localnet-chain".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let shared = chain.shared();
                let _report = Report(shared.clone());
                if let Err(error) = run(chain, &receiver) {
                    shared.fail(error.to_string());
                }
            })
            .map_err(|error| Error::Stopped(error.to_string()))?;
        Ok(Self { commands, thread: parking_lot::Mutex::new(Some(thread)) })
    }

    /// Hands a command over, unless too many wait.
    pub(crate) fn send(&self, command: Command) -> Result<()> {
        self.commands.try_send(command).map_err(|error| match error {
            TrySendError::Full(_) => Error::Stopped("too many requests wait, try again".to_owned()),
            TrySendError::Disconnected(_) => Error::Stopped("it no longer makes blocks".to_owned()),
        })
    }

    /// Lets the thread end by itself, soon.
    pub(crate) fn ask_to_stop(&self) {
        // A full queue ends it too, as soon as the last handle is gone.
        let _ = self.commands.try_send(Command::Stop);
    }

    /// Lets the block in the making be finished, and ends the thread.
    pub(crate) fn stop(&self) {
        let Some(thread) = self.thread.lock().take() else {
            return;
        };
        // If the queue is full, the thread takes from it until there is room.
        let _ = self.commands.send(Command::Stop);
        let _ = thread.join();
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Tells waiting queries when the thread ends by a panic.
struct Report(Arc<Shared>);

impl Drop for Report {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.fail("its thread panicked".to_owned());
        }
    }
}

/// Those who wait for one block.
#[derive(Default)]
struct Batch {
    work: Work,
    /// Who asked for each transaction.
    submitters: HashMap<CryptoHash, Vec<oneshot::Sender<Submitted>>>,
    /// Answers to give once the block is made.
    done: Vec<Box<dyn FnOnce() + Send>>,
    stop: bool,
}

fn run(mut chain: Chain, commands: &Receiver<Command>) -> Result<()> {
    let block_time = chain.shared.rules.block_time;
    let mut next = Instant::now() + block_time;
    loop {
        let mut batch = gather(&mut chain, commands, next)?;
        if batch.stop {
            return Ok(());
        }
        next = Instant::now() + block_time;
        // Clients that send several at once do not wait for their order.
        batch.work.transactions.sort_by_key(|t| t.transaction.nonce().nonce());
        let refused = chain.produce(batch.work)?;
        answer(batch.submitters, refused);
        for done in batch.done {
            done();
        }
    }
}

fn answer(
    mut submitters: HashMap<CryptoHash, Vec<oneshot::Sender<Submitted>>>,
    refused: Vec<(CryptoHash, InvalidTxError)>,
) {
    for (hash, error) in refused {
        for reply in submitters.remove(&hash).unwrap_or_default() {
            // Who asked may have gone: the same below.
            let _ = reply.send(Err(error.clone()));
        }
    }
    for reply in submitters.into_values().flatten() {
        let _ = reply.send(Ok(()));
    }
}

/// Waits until a block is due, or something asks for one.
fn gather(chain: &mut Chain, commands: &Receiver<Command>, due: Instant) -> Result<Batch> {
    let mut batch = Batch::default();
    let mut wait =
        if chain.is_busy()? { Duration::ZERO } else { due.saturating_duration_since(Instant::now()) };
    loop {
        match commands.recv_timeout(wait) {
            Ok(command) => batch.take(chain, command)?,
            Err(RecvTimeoutError::Timeout) => return Ok(batch),
            Err(RecvTimeoutError::Disconnected) => batch.stop = true,
        }
        // Skipped heights separate what came before from what comes after.
        if batch.stop || batch.work.skip > 0 || batch.work.transactions.len() >= TRANSACTIONS {
            return Ok(batch);
        }
        if batch.is_wanted() {
            wait = Duration::ZERO;
        } else if !wait.is_zero() {
            wait = due.saturating_duration_since(Instant::now());
        }
    }
}

impl Batch {
    /// Whether someone waits for the block.
    fn is_wanted(&self) -> bool {
        !self.work.transactions.is_empty() || !self.done.is_empty()
    }

    fn take(&mut self, chain: &mut Chain, command: Command) -> Result<()> {
        match command {
            Command::Submit { transaction, reply } => self.submit(chain, *transaction, reply),
            Command::Patch { records, reply } => {
                match chain.patch(&records) {
                    Ok(()) => self.done.push(Box::new(move || {
                        let _ = reply.send(Ok(()));
                    })),
                    Err(error) => {
                        let _ = reply.send(Err(error.to_string()));
                    }
                }
                Ok(())
            }
            Command::FastForward { blocks, reply } => {
                if chain.time_after(blocks).is_none() {
                    let _ = reply.send(Err("the chain's time would be beyond the year 2262".to_owned()));
                    return Ok(());
                }
                // The block itself is one of those asked for.
                self.work.skip = blocks.saturating_sub(1);
                self.done.push(Box::new(move || {
                    let _ = reply.send(Ok(()));
                }));
                Ok(())
            }
            Command::Faucet { faucet, reply } => {
                match chain.mint(&faucet) {
                    Ok(done) => self.done.push(Box::new(move || {
                        let _ = reply.send(Ok(done));
                    })),
                    Err(error) => {
                        let _ = reply.send(Err(error.to_string()));
                    }
                }
                Ok(())
            }
            Command::Stop => {
                self.stop = true;
                Ok(())
            }
        }
    }

    /// Puts a transaction into the block, unless it is old or already there.
    fn submit(
        &mut self,
        chain: &Chain,
        transaction: SignedTransaction,
        reply: Option<oneshot::Sender<Submitted>>,
    ) -> Result<()> {
        let hash = transaction.get_hash();
        let respond = |reply: Option<oneshot::Sender<Submitted>>, answer| {
            if let Some(reply) = reply {
                let _ = reply.send(answer);
            }
        };
        if chain.shared.store.transaction(&hash)?.is_some() {
            respond(reply, Ok(()));
            return Ok(());
        }
        if let Some(error) = chain.check_age(&transaction)? {
            respond(reply, Err(error));
            return Ok(());
        }
        if let Some(others) = self.submitters.get_mut(&hash) {
            others.extend(reply);
            return Ok(());
        }
        self.submitters.insert(hash, reply.into_iter().collect());
        self.work.transactions.push(transaction);
        Ok(())
    }
}
