//! The chain: it makes blocks on its own thread; queries read finished blocks.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use near_parameters::RuntimeConfig;
use near_primitives::account::{AccessKey, Account, AccountContract};
use near_primitives::errors::InvalidTxError;
use near_primitives::hash::CryptoHash;
use near_primitives::merkle::merklize;
use near_primitives::state_record::StateRecord;
use near_primitives::transaction::{
    ExecutionOutcomeWithId, ExecutionOutcomeWithIdAndProof, SignedTransaction,
};
use near_primitives::types::{Balance, BlockHeight, Gas};
use parking_lot::RwLock;
use tokio::sync::watch;

use crate::error::{Error, Result};
use crate::genesis::{self, Genesis};
use crate::runtime::{Applied, BlockContext, Runtime};
use crate::state::{Change, State};
use crate::store::{Commit, Resumed, Store, StoredOutcome};
use crate::vm::Vm;

mod block;
mod worker;

pub(crate) use block::{Block, FINALITY, Producer};
pub(crate) use worker::{Command, Faucet, Fauceted, Worker};

/// States kept for queries about past blocks.
const RECENT_STATES: usize = 600;
/// A clock that is behind the last block by this was set back, in nanoseconds.
const SET_BACK: u64 = 1_000_000_000;
/// Latest time that can be leapt to, in nanoseconds since 1970: in the year 2262. Beyond twice that blocks have no
/// time.
const LATEST: u64 = i64::MAX as u64;

/// A block with the state it left.
#[derive(Clone)]
pub(crate) struct Snapshot {
    pub(crate) block: Block,
    pub(crate) state: State,
}

/// What does not change while the chain runs.
pub(crate) struct Rules {
    pub(crate) chain_id: Arc<str>,
    pub(crate) producer: Producer,
    pub(crate) config: Arc<RuntimeConfig>,
    pub(crate) vm: Vm,
    pub(crate) block_time: Duration,
    pub(crate) epoch_length: u64,
    pub(crate) gas_price: Balance,
    pub(crate) gas_limit: Gas,
    pub(crate) validity: u64,
    pub(crate) history: u64,
    pub(crate) genesis_height: BlockHeight,
    pub(crate) genesis_hash: CryptoHash,
    pub(crate) stake: Balance,
    /// The genesis without its records, as JSON.
    pub(crate) genesis_config: serde_json::Value,
}

impl Rules {
    /// The circumstances under which a block is made, or a query answered as of it.
    pub(crate) fn context(&self, height: BlockHeight, timestamp: u64, seed: CryptoHash) -> BlockContext {
        BlockContext {
            height,
            timestamp,
            epoch_height: self.epoch(height),
            random_seed: seed,
            gas_price: self.gas_price,
            gas_limit: self.gas_limit,
            chain_id: self.chain_id.clone(),
            config: self.config.clone(),
            vm: self.vm.clone(),
            validator: Some((self.producer.account_id.clone(), self.stake)),
        }
    }

    fn epoch(&self, height: BlockHeight) -> u64 {
        1 + height.saturating_sub(self.genesis_height) / self.epoch_length
    }

    /// The height at which the epoch of `height` began.
    pub(crate) fn epoch_start(&self, height: BlockHeight) -> BlockHeight {
        let past = height.saturating_sub(self.genesis_height) % self.epoch_length;
        height - past
    }
}

/// What queries read.
pub(crate) struct Shared {
    pub(crate) rules: Rules,
    pub(crate) store: Store,
    pub(crate) started: Instant,
    recent: RwLock<BTreeMap<BlockHeight, Arc<Snapshot>>>,
    head: watch::Sender<BlockHeight>,
    /// Why the chain stopped, once it has.
    failure: RwLock<Option<String>>,
}

impl Shared {
    pub(crate) fn head(&self) -> Result<Arc<Snapshot>> {
        let recent = self.recent.read();
        let (_, head) =
            recent.last_key_value().ok_or_else(|| Error::Stopped("it has no block".to_owned()))?;
        Ok(head.clone())
    }

    pub(crate) fn snapshot(&self, height: BlockHeight) -> Option<Arc<Snapshot>> {
        self.recent.read().get(&height).cloned()
    }

    /// The block so many blocks behind the head, or the oldest one.
    pub(crate) fn behind_head(&self, blocks: u64) -> Result<Arc<Snapshot>> {
        let recent = self.recent.read();
        let blocks = usize::try_from(blocks).unwrap_or(usize::MAX);
        let found = recent.values().rev().nth(blocks).or_else(|| recent.values().next());
        found.cloned().ok_or_else(|| Error::Stopped("it has no block".to_owned()))
    }

    /// Reports each new head.
    pub(crate) fn watch(&self) -> watch::Receiver<BlockHeight> {
        self.head.subscribe()
    }

    pub(crate) fn failure(&self) -> Option<String> {
        self.failure.read().clone()
    }

    fn fail(&self, reason: String) {
        tracing::error!(%reason, "the chain stopped");
        *self.failure.write() = Some(reason);
        self.head.send_modify(|_| {});
    }

    fn publish(&self, snapshot: Snapshot) {
        let height = snapshot.block.height;
        let mut recent = self.recent.write();
        recent.insert(height, Arc::new(snapshot));
        while recent.len() > RECENT_STATES {
            recent.pop_first();
        }
        drop(recent);
        self.head.send_replace(height);
    }
}

/// The chain's one writer.
pub(crate) struct Chain {
    shared: Arc<Shared>,
    state: State,
    head: Block,
    /// Nanoseconds by which the chain's clock runs ahead of the machine's.
    clock_offset: u64,
    /// Blocks up to this height are made without waiting.
    hurry_until: BlockHeight,
}

/// What a block is to contain.
#[derive(Default)]
pub(crate) struct Work {
    pub(crate) transactions: Vec<SignedTransaction>,
    /// Heights to skip.
    pub(crate) skip: u64,
}

impl Chain {
    /// Continues the chain in the store, or begins it with the genesis.
    pub(crate) fn open(rules: Rules, genesis: &Genesis, store: Store) -> Result<Self> {
        let resumed = store.resume()?;
        let (state, head, clock_offset, is_new) = match resumed {
            Some(Resumed { head, clock_offset, state }) => {
                (State::from_entries(state.into_iter()), head, clock_offset, false)
            }
            None => {
                let (state, head) = first_block(&rules, genesis)?;
                (state, head, 0, true)
            }
        };
        let shared = Arc::new(Shared {
            rules,
            store,
            started: Instant::now(),
            recent: RwLock::default(),
            head: watch::Sender::new(head.height),
            failure: RwLock::default(),
        });
        let hurry_until = head.height + FINALITY;
        let mut chain = Self { shared, state, head, clock_offset, hurry_until };
        let changes = chain.state.take_changes();
        if is_new {
            chain.commit(&[], &[], &[], &changes)?;
        }
        chain.shared.publish(Snapshot { block: chain.head.clone(), state: chain.state.clone() });
        Ok(chain)
    }

    pub(crate) fn shared(&self) -> Arc<Shared> {
        self.shared.clone()
    }

    /// Whether the next block should follow at once: something waits to run, or to
    /// become final.
    fn is_busy(&self) -> Result<bool> {
        Ok(self.head.height < self.hurry_until || self.state.queued_receipts()? > 0)
    }

    /// Why a transaction cannot be valid in the next block, judging by its block hash.
    fn check_age(&self, transaction: &SignedTransaction) -> Result<Option<InvalidTxError>> {
        let known = self.shared.store.height_of(transaction.transaction.block_hash())?;
        let oldest = self.head.height.saturating_sub(self.shared.rules.validity);
        Ok(match known {
            Some(height) if height >= oldest => None,
            _ => Some(InvalidTxError::Expired),
        })
    }

    /// By how much the machine's clock was set back since the last block, in nanoseconds: the chain's time goes on
    /// instead of standing still until the clock is there again. Less than a second is left to the clock.
    fn set_back(&self) -> u64 {
        let by = self.head.timestamp.saturating_sub(now().saturating_add(self.clock_offset));
        if by < SET_BACK { 0 } else { by }
    }

    /// The time after this many more blocks, in nanoseconds since 1970; `None` if no block can have it.
    fn time_after(&self, blocks: u64) -> Option<u64> {
        let leap = u128::from(blocks).checked_mul(self.shared.rules.block_time.as_nanos())?;
        let time = now().saturating_add(self.clock_offset).max(self.head.timestamp);
        time.checked_add(u64::try_from(leap).ok()?).filter(|time| *time <= LATEST)
    }

    /// Makes one block.
    fn produce(&mut self, work: Work) -> Result<Vec<(CryptoHash, InvalidTxError)>> {
        let rules = &self.shared.rules;
        let height = self.head.height.saturating_add(1).saturating_add(work.skip);
        let skipped = u128::from(work.skip) * rules.block_time.as_nanos();
        let skipped = u64::try_from(skipped).unwrap_or(u64::MAX);
        self.clock_offset = self.clock_offset.saturating_add(skipped);
        let earliest = self.head.timestamp.saturating_add(1);
        self.clock_offset = self.clock_offset.saturating_add(self.set_back());
        let timestamp = now().saturating_add(self.clock_offset).max(earliest);
        let seed = CryptoHash::hash_borsh((self.head.random_value, height));
        let context = rules.context(height, timestamp, seed);
        let work_pending = !work.transactions.is_empty();
        let mut applied = Runtime::new(&context, &mut self.state).apply(work.transactions)?;
        let refused = std::mem::take(&mut applied.refused);
        // Clients base what they do next on final blocks, also after a leap in time.
        let is_active = work_pending || work.skip > 0 || !applied.outcomes.is_empty();
        self.append(context, applied, is_active)?;
        Ok(refused)
    }

    fn append(&mut self, context: BlockContext, applied: Applied, is_active: bool) -> Result<()> {
        let hashes: Vec<Vec<CryptoHash>> =
            applied.outcomes.iter().map(ExecutionOutcomeWithId::to_hashes).collect();
        let (outcome_root, proofs) = merklize(&hashes);
        let is_changed = is_active || self.state.has_changes();
        let block = self.next_block(&context, &applied, outcome_root)?;
        let outcomes: Vec<StoredOutcome> = applied
            .outcomes
            .into_iter()
            .zip(proofs)
            .map(|(outcome_with_id, proof)| StoredOutcome {
                height: block.height,
                outcome: ExecutionOutcomeWithIdAndProof { proof, block_hash: block.hash, outcome_with_id },
            })
            .collect();
        let changes = self.state.take_changes();
        self.head = block;
        self.commit(&applied.included, &outcomes, &applied.receipts, &changes)?;
        if is_changed {
            self.hurry_until = self.head.height + FINALITY;
        }
        self.shared.publish(Snapshot { block: self.head.clone(), state: self.state.clone() });
        Ok(())
    }

    fn next_block(
        &self,
        context: &BlockContext,
        applied: &Applied,
        outcome_root: CryptoHash,
    ) -> Result<Block> {
        let parent = &self.head;
        let total_supply = parent
            .total_supply
            .checked_add(applied.minted)
            .and_then(|supply| supply.checked_sub(applied.burnt))
            .ok_or_else(|| Error::inconsistent("more was burnt than exists"))?;
        let last_final = self.shared.behind_head(FINALITY - 1)?;
        Ok(Block {
            height: context.height,
            hash: CryptoHash::default(),
            prev_height: Some(parent.height),
            prev_hash: parent.hash,
            ordinal: parent.ordinal + 1,
            timestamp: context.timestamp,
            epoch_height: context.epoch_height,
            random_value: context.random_seed,
            gas_price: context.gas_price,
            gas_used: applied.gas_used,
            gas_limit: context.gas_limit,
            burnt: applied.burnt,
            total_supply,
            prev_state_root: parent.state_root,
            state_root: self.state.root_after(&parent.state_root),
            outcome_root,
            last_final: last_final.block.hash,
            last_final_height: last_final.block.height,
            transactions: applied.included.iter().map(SignedTransaction::get_hash).collect(),
            receipts: applied.receipts.iter().map(|receipt| *receipt.receipt_id()).collect(),
            outcomes: applied.outcomes.iter().map(|outcome| outcome.id).collect(),
        }
        .seal())
    }

    fn commit(
        &self,
        transactions: &[SignedTransaction],
        outcomes: &[StoredOutcome],
        receipts: &[near_primitives::receipt::Receipt],
        changes: &[Change],
    ) -> Result<()> {
        let keep_from = self.head.ordinal.saturating_sub(self.shared.rules.history);
        self.shared.store.commit(&Commit {
            block: &self.head,
            transactions,
            outcomes,
            receipts,
            changes,
            clock_offset: self.clock_offset,
            keep_from,
        })
    }

    /// Writes records into the state; all or none.
    fn patch(&mut self, records: &[StateRecord]) -> Result<()> {
        let before = self.state.clone();
        let patched = self.try_patch(records);
        if patched.is_err() {
            self.state = before;
        }
        patched
    }

    fn try_patch(&mut self, records: &[StateRecord]) -> Result<()> {
        let is_account = |record: &&StateRecord| matches!(record, StateRecord::Account { .. });
        let before = genesis::total_supply(&self.state)?;
        // Accounts first, as code changes them.
        for record in records.iter().filter(is_account) {
            genesis::apply_record(&mut self.state, record)?;
        }
        for record in records.iter().filter(|record| !is_account(record)) {
            genesis::apply_record(&mut self.state, record)?;
        }
        let after = genesis::total_supply(&self.state)?;
        let supply = self.head.total_supply.checked_add(after).and_then(|s| s.checked_sub(before));
        self.head.total_supply = supply.ok_or_else(|| Error::Genesis("the balances overflow".to_owned()))?;
        Ok(())
    }

    /// Creates or tops up an account with new tokens.
    fn mint(&mut self, faucet: &Faucet) -> Result<Fauceted> {
        let config = self.shared.rules.config.clone();
        let overflow = || Error::Genesis("the amount is too large".to_owned());
        let supply = self.head.total_supply.checked_add(faucet.amount).ok_or_else(overflow)?;
        let found = self.state.account(&faucet.account_id)?;
        let created = found.is_none();
        let storage = config.fees.storage_usage_config.num_bytes_account;
        let mut account = found
            .unwrap_or_else(|| Account::new(Balance::ZERO, Balance::ZERO, AccountContract::None, storage));
        let amount = account.amount().checked_add(faucet.amount).ok_or_else(overflow)?;
        if created {
            let key = AccessKey {
                nonce: crate::validate::first_nonce(self.head.height + 1),
                ..AccessKey::full_access()
            };
            let handle: near_crypto::PublicKeyHandle = (&faucet.public_key).into();
            let key_bytes = borsh::object_length(&key).map_err(Error::inconsistent)? as u64;
            let extra = config.fees.storage_usage_config.num_extra_bytes_record;
            account.set_storage_usage(storage + handle.trie_id_len() as u64 + key_bytes + extra);
            self.state.set_access_key(&faucet.account_id, handle, &key)?;
        }
        account.set_amount(amount);
        self.state.set_account(&faucet.account_id, &account)?;
        self.head.total_supply = supply;
        Ok(Fauceted { account_id: faucet.account_id.clone(), balance: amount, created })
    }
}

fn first_block(rules: &Rules, genesis: &Genesis) -> Result<(State, Block)> {
    let (state, total_supply) = genesis.state()?;
    let state_root = state.root_after(&CryptoHash::default());
    let block = Block {
        height: rules.genesis_height,
        hash: CryptoHash::default(),
        prev_height: None,
        prev_hash: CryptoHash::default(),
        ordinal: 1,
        timestamp: now(),
        epoch_height: 1,
        random_value: rules.genesis_hash,
        gas_price: rules.gas_price,
        gas_used: Gas::ZERO,
        gas_limit: rules.gas_limit,
        burnt: Balance::ZERO,
        total_supply,
        prev_state_root: CryptoHash::default(),
        state_root,
        outcome_root: CryptoHash::default(),
        last_final: CryptoHash::default(),
        last_final_height: rules.genesis_height,
        transactions: Vec::new(),
        receipts: Vec::new(),
        outcomes: Vec::new(),
    };
    Ok((state, block.seal()))
}

/// Nanoseconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}
