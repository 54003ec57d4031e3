//! How a block changes the state: transactions become receipts, receipts run.

use std::collections::VecDeque;
use std::sync::Arc;

use near_parameters::RuntimeConfig;
use near_primitives::errors::InvalidTxError;
use near_primitives::hash::CryptoHash;
use near_primitives::receipt::{
    ActionReceipt, DataReceipt, PromiseYieldTimeout, Receipt, ReceiptEnum, ReceiptV0, ReceivedData,
    VersionedActionReceipt, VersionedReceiptEnum,
};
use near_primitives::transaction::{
    ExecutionOutcome, ExecutionOutcomeWithId, ExecutionStatus, SignedTransaction, ValidatedTransaction,
};
use near_primitives::trie_key::TrieKey;
use near_primitives::types::{AccountId, Balance, BlockHeight, Gas};
use near_primitives::utils::{create_receipt_id_from_receipt_id, create_receipt_id_from_transaction};

use crate::error::{Error, Result};
use crate::fees::TransactionCost;
use crate::state::{Recorder, State};
use crate::validate::{Refusal, charge_transaction, check_transaction};
use crate::vm::Vm;

mod actions;
mod call;
mod delegate;
mod execute;
mod global;
mod refund;

pub(crate) use call::{ViewFailure, view_call};

/// The block in which transactions and receipts run.
pub(crate) struct BlockContext {
    pub(crate) height: BlockHeight,
    /// Nanoseconds since 1970.
    pub(crate) timestamp: u64,
    pub(crate) epoch_height: u64,
    pub(crate) random_seed: CryptoHash,
    /// Yocto for each unit of gas.
    pub(crate) gas_price: Balance,
    /// Receipts start as long as less than this was burnt.
    pub(crate) gas_limit: Gas,
    pub(crate) chain_id: Arc<str>,
    pub(crate) config: Arc<RuntimeConfig>,
    pub(crate) vm: Vm,
    /// The only validator and its stake.
    pub(crate) validator: Option<(AccountId, Balance)>,
}

/// What a block did besides changing the state.
#[derive(Default)]
pub(crate) struct Applied {
    pub(crate) included: Vec<SignedTransaction>,
    pub(crate) refused: Vec<(CryptoHash, InvalidTxError)>,
    pub(crate) outcomes: Vec<ExecutionOutcomeWithId>,
    /// Every receipt that came into being.
    pub(crate) receipts: Vec<Receipt>,
    pub(crate) burnt: Balance,
    /// Yocto that the protocol lends to contracts without balance.
    pub(crate) minted: Balance,
    pub(crate) gas_used: Gas,
}

/// Applies one block.
pub(crate) struct Runtime<'a> {
    block: &'a BlockContext,
    state: &'a mut State,
    applied: Applied,
    /// Receipts that run right behind the one that made them.
    instant: VecDeque<Receipt>,
    recorder: Recorder,
}

impl<'a> Runtime<'a> {
    pub(crate) fn new(block: &'a BlockContext, state: &'a mut State) -> Self {
        let recorder = Recorder::new(state.clone());
        Self { block, state, applied: Applied::default(), instant: VecDeque::new(), recorder }
    }

    /// Applies the transactions, then the receipts that have waited for this block.
    pub(crate) fn apply(mut self, transactions: Vec<SignedTransaction>) -> Result<Applied> {
        let waiting = self.state.queued_receipts()?;
        for receipt in self.convert_all(transactions)? {
            if self.is_full() {
                self.state.push_receipt(&receipt)?;
            } else {
                self.process(receipt)?;
            }
        }
        for _ in 0..waiting {
            if self.is_full() {
                break;
            }
            match self.state.pop_receipt()? {
                Some(receipt) => self.process(receipt)?,
                None => break,
            }
        }
        self.expire_yields()?;
        Ok(self.applied)
    }

    /// Whether the receipts that are left wait for the next block: its gas is used up, or its
    /// validators would have too much state to be shown.
    fn is_full(&self) -> bool {
        let proof_limit = self.block.config.witness_config.main_storage_proof_size_soft_limit;
        self.applied.gas_used >= self.block.gas_limit || self.recorder.bytes() as u64 > proof_limit
    }

    /// Charges the signers. Receipts to the signer itself are returned, as they run in
    /// this block; the others wait for the next one.
    fn convert_all(&mut self, transactions: Vec<SignedTransaction>) -> Result<Vec<Receipt>> {
        let mut local = Vec::new();
        for transaction in transactions {
            let hash = transaction.get_hash();
            match self.convert(transaction) {
                Ok(Some(receipt)) => local.push(receipt),
                Ok(None) => {}
                Err(Refusal::Invalid(error)) => self.applied.refused.push((hash, error)),
                Err(Refusal::Chain(error)) => return Err(error),
            }
        }
        Ok(local)
    }

    fn convert(&mut self, transaction: SignedTransaction) -> Result<Option<Receipt>, Refusal> {
        let block = self.block;
        let valid = check_transaction(&block.config, transaction)?;
        let cost = charge_transaction(self.state, &block.config, &valid, block.height, block.gas_price)?;
        let receipt = self.record_transaction(valid, &cost).map_err(Refusal::Chain)?;
        if receipt.predecessor_id() == receipt.receiver_id() {
            return Ok(Some(receipt));
        }
        self.state.push_receipt(&receipt).map_err(Refusal::Chain)?;
        Ok(None)
    }

    fn record_transaction(&mut self, valid: ValidatedTransaction, cost: &TransactionCost) -> Result<Receipt> {
        let signed = valid.into_signed_tx();
        let transaction = &signed.transaction;
        let id = signed.get_hash();
        let receipt_id = create_receipt_id_from_transaction(&id, self.block.height);
        let receipt = Receipt::V0(ReceiptV0 {
            predecessor_id: transaction.signer_id().clone(),
            receiver_id: transaction.receiver_id().clone(),
            receipt_id,
            receipt: ReceiptEnum::Action(ActionReceipt {
                signer_id: transaction.signer_id().clone(),
                signer_public_key: transaction.public_key().clone(),
                gas_price: cost.receipt_gas_price,
                output_data_receivers: Vec::new(),
                input_data_ids: Vec::new(),
                actions: transaction.actions().to_vec(),
            }),
        });
        let outcome = ExecutionOutcome {
            receipt_ids: vec![receipt_id],
            gas_burnt: cost.gas_burnt,
            compute_usage: Some(cost.gas_burnt.as_gas()),
            tokens_burnt: cost.burnt,
            executor_id: transaction.signer_id().clone(),
            status: ExecutionStatus::SuccessReceiptId(receipt_id),
            ..ExecutionOutcome::default()
        };
        self.burn(cost.burnt)?;
        self.use_gas(cost.gas_burnt);
        self.applied.outcomes.push(ExecutionOutcomeWithId { id, outcome });
        self.applied.receipts.push(receipt.clone());
        self.applied.included.push(signed);
        Ok(receipt)
    }

    fn burn(&mut self, amount: Balance) -> Result<()> {
        let burnt = self.applied.burnt.checked_add(amount);
        self.applied.burnt = burnt.ok_or_else(|| Error::inconsistent("burnt tokens overflow"))?;
        Ok(())
    }

    fn use_gas(&mut self, gas: Gas) {
        self.applied.gas_used = self.applied.gas_used.saturating_add(gas);
    }

    /// Runs a receipt and those that must run right behind it.
    fn process(&mut self, receipt: Receipt) -> Result<()> {
        self.process_one(receipt)?;
        while let Some(receipt) = self.instant.pop_front() {
            self.process_one(receipt)?;
        }
        Ok(())
    }

    fn process_one(&mut self, receipt: Receipt) -> Result<()> {
        match receipt.versioned_receipt() {
            VersionedReceiptEnum::Data(data) => self.receive_data(receipt.receiver_id(), &data),
            VersionedReceiptEnum::Action(action) => self.run_or_postpone(&receipt, &action),
            VersionedReceiptEnum::PromiseYield(action) => self.keep_yield(&receipt, &action),
            VersionedReceiptEnum::PromiseResume(data) => self.resume(receipt.receiver_id(), &data),
            VersionedReceiptEnum::GlobalContractDistribution(contract) => {
                self.install_global(&receipt, &contract)
            }
        }
    }

    /// Stores the result of a promise; runs the receipt that waited for it, if it now
    /// has all it needs.
    fn receive_data(&mut self, receiver: &AccountId, data: &DataReceipt) -> Result<()> {
        self.store_data(receiver, data)?;
        let receiver_id = receiver.clone();
        let waiting = TrieKey::PostponedReceiptId { receiver_id: receiver_id.clone(), data_id: data.data_id };
        let Some(receipt_id) = self.state.get::<CryptoHash>(&waiting)? else {
            return Ok(());
        };
        self.state.remove(&waiting);
        let count = TrieKey::PendingDataCount { receiver_id: receiver_id.clone(), receipt_id };
        let pending = self.state.get::<u32>(&count)?.unwrap_or(1);
        if pending > 1 {
            return self.state.set(&count, &(pending - 1));
        }
        self.state.remove(&count);
        let key = TrieKey::PostponedReceipt { receiver_id, receipt_id };
        let receipt: Receipt =
            self.state.get(&key)?.ok_or_else(|| Error::inconsistent("a waiting receipt is missing"))?;
        self.state.remove(&key);
        self.run(&receipt)
    }

    fn store_data(&mut self, receiver: &AccountId, data: &DataReceipt) -> Result<()> {
        let key = TrieKey::ReceivedData { receiver_id: receiver.clone(), data_id: data.data_id };
        self.state.set(&key, &ReceivedData { data: data.data.clone() })
    }

    fn run_or_postpone(&mut self, receipt: &Receipt, action: &VersionedActionReceipt<'_>) -> Result<()> {
        let (receiver_id, receipt_id) = (receipt.receiver_id().clone(), *receipt.receipt_id());
        let mut missing = 0u32;
        for data_id in action.input_data_ids() {
            let data = TrieKey::ReceivedData { receiver_id: receiver_id.clone(), data_id: *data_id };
            if self.state.get_raw(&data.to_vec()).is_some() {
                continue;
            }
            missing += 1;
            let key = TrieKey::PostponedReceiptId { receiver_id: receiver_id.clone(), data_id: *data_id };
            self.state.set(&key, &receipt_id)?;
        }
        if missing == 0 {
            return self.run(receipt);
        }
        let count = TrieKey::PendingDataCount { receiver_id: receiver_id.clone(), receipt_id };
        self.state.set(&count, &missing)?;
        self.state.set(&TrieKey::PostponedReceipt { receiver_id, receipt_id }, receipt)
    }

    fn keep_yield(&mut self, receipt: &Receipt, action: &VersionedActionReceipt<'_>) -> Result<()> {
        let [data_id] = action.input_data_ids() else {
            return Err(Error::inconsistent("a yielded receipt waits for one input"));
        };
        let key =
            TrieKey::PromiseYieldReceipt { receiver_id: receipt.receiver_id().clone(), data_id: *data_id };
        self.state.set(&key, receipt)
    }

    /// Runs a yielded receipt with the data it waited for, unless it has already run.
    fn resume(&mut self, receiver: &AccountId, data: &DataReceipt) -> Result<()> {
        let receiver_id = receiver.clone();
        let data_id = data.data_id;
        let key = TrieKey::PromiseYieldReceipt { receiver_id: receiver_id.clone(), data_id };
        let Some(receipt) = self.state.get::<Receipt>(&key)? else {
            return Ok(());
        };
        self.state.remove(&key);
        let by_data = TrieKey::DataIdToYieldId { receiver_id: receiver_id.clone(), data_id };
        if let Some(yield_id) = self.state.get(&by_data)? {
            self.state.remove(&by_data);
            self.state.remove(&TrieKey::YieldIdToDataId { receiver_id, yield_id });
        }
        self.store_data(receiver, data)?;
        self.run(&receipt)
    }

    /// Resumes without data the yielded promises whose time is over.
    fn expire_yields(&mut self) -> Result<()> {
        let mut indices = self.state.yields()?;
        let first = indices.first_index;
        while indices.len() > 0 {
            let key = TrieKey::PromiseYieldTimeout { index: indices.first_index };
            let Some(timeout) = self.state.get::<PromiseYieldTimeout>(&key)? else {
                return Err(Error::inconsistent("the time limit of a yielded promise is missing"));
            };
            if timeout.expires_at > self.block.height {
                break;
            }
            let nth = usize::try_from(indices.first_index - first).unwrap_or(usize::MAX);
            self.expire_yield(&timeout, nth)?;
            self.state.remove(&key);
            indices.first_index += 1;
        }
        if indices.first_index != first {
            self.state.set(&TrieKey::PromiseYieldIndices, &indices)?;
        }
        Ok(())
    }

    fn expire_yield(&mut self, timeout: &PromiseYieldTimeout, nth: usize) -> Result<()> {
        let key = TrieKey::PromiseYieldReceipt {
            receiver_id: timeout.account_id.clone(),
            data_id: timeout.data_id,
        };
        let Some(waiting) = self.state.get::<Receipt>(&key)? else {
            return Ok(());
        };
        let receipt_id = create_receipt_id_from_receipt_id(waiting.receipt_id(), self.block.height, nth);
        let receipt = Receipt::V0(ReceiptV0 {
            predecessor_id: timeout.account_id.clone(),
            receiver_id: timeout.account_id.clone(),
            receipt_id,
            receipt: ReceiptEnum::PromiseResume(DataReceipt { data_id: timeout.data_id, data: None }),
        });
        self.emit(receipt)
    }

    /// Sends a new receipt on its way.
    fn emit(&mut self, receipt: Receipt) -> Result<()> {
        self.applied.receipts.push(receipt.clone());
        if receipt.is_instant_receipt() {
            self.instant.push_back(receipt);
            return Ok(());
        }
        self.state.push_receipt(&receipt)
    }
}
