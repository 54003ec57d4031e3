//! How one action receipt runs, and what it leaves behind.

use near_parameters::ActionCosts;
use near_primitives::account::{Account, AccountContract};
use near_primitives::errors::{ActionError, ActionErrorKind, IntegerOverflowError};
use near_primitives::hash::CryptoHash;
use near_primitives::profile_data_v3::ProfileDataV3;
use near_primitives::receipt::{
    DataReceipt, Receipt, ReceiptEnum, ReceiptV0, ReceivedData, VersionedActionReceipt, VersionedReceiptEnum,
};
use near_primitives::transaction::{
    ExecutionMetadata, ExecutionOutcome, ExecutionOutcomeWithId, ExecutionStatus,
};
use near_primitives::trie_key::TrieKey;
use near_primitives::types::{AccountId, Balance, Gas};
use near_primitives::utils::{create_action_hash_from_receipt_id, create_receipt_id_from_receipt_id};
use near_vm_runner::logic::ReturnData;

use super::{Runtime, refund};
use crate::error::{Error, Result};
use crate::fees::{self, add_gas};
use crate::validate::{check_receipt, storage_shortfall};

/// What actions have done so far.
pub(super) struct ActionResult {
    pub(super) gas_burnt: Gas,
    /// Burnt gas plus what was attached to new receipts.
    pub(super) gas_used: Gas,
    pub(super) result: Result<ReturnData, ActionError>,
    pub(super) logs: Vec<String>,
    pub(super) receipts: Vec<Receipt>,
    pub(super) accounts_created: u64,
    /// Burnt besides gas, taken from the account.
    pub(super) burnt: Balance,
    pub(super) minted: Balance,
    /// Where the contracts' gas went.
    pub(super) profile: ProfileDataV3,
}

impl ActionResult {
    pub(super) fn new() -> Self {
        Self {
            gas_burnt: Gas::ZERO,
            gas_used: Gas::ZERO,
            result: Ok(ReturnData::None),
            logs: Vec::new(),
            receipts: Vec::new(),
            accounts_created: 0,
            burnt: Balance::ZERO,
            minted: Balance::ZERO,
            profile: ProfileDataV3::new(),
        }
    }

    /// Adds gas that is burnt, and so also used.
    pub(super) fn burn_gas(&mut self, gas: Gas) -> Result<(), IntegerOverflowError> {
        self.gas_burnt = add_gas(self.gas_burnt, gas)?;
        self.gas_used = add_gas(self.gas_used, gas)?;
        Ok(())
    }

    pub(super) fn fail(&mut self, kind: ActionErrorKind) {
        self.result = Err(ActionError { index: None, kind });
    }

    /// What a failed receipt keeps: burnt gas and logs.
    fn forget_effects(&mut self) {
        self.receipts.clear();
        self.gas_used = self.gas_burnt;
        self.accounts_created = 0;
        self.burnt = Balance::ZERO;
        self.minted = Balance::ZERO;
    }
}

/// The receipt that runs, with what changes from action to action.
pub(super) struct Running<'a> {
    pub(super) receipt: &'a Receipt,
    pub(super) action: &'a VersionedActionReceipt<'a>,
    pub(super) inputs: Vec<Option<Vec<u8>>>,
    /// The receiver, as far as it exists.
    pub(super) account: Option<Account>,
    /// In whose name the actions run: changes when the account is created.
    pub(super) actor: AccountId,
    pub(super) index: usize,
    pub(super) action_hash: CryptoHash,
    /// The size of the block's storage proof before the receipt, in bytes.
    pub(super) proof_before: usize,
}

impl Running<'_> {
    pub(super) fn account_id(&self) -> &AccountId {
        self.receipt.receiver_id()
    }

    pub(super) fn is_last(&self) -> bool {
        self.index + 1 == self.action.actions().len()
    }

    pub(super) fn is_refund(&self) -> bool {
        self.receipt.predecessor_id().is_system()
    }
}

pub(super) fn overflow(_: IntegerOverflowError) -> Error {
    Error::inconsistent("gas or tokens overflow")
}

impl Runtime<'_> {
    /// Runs an action receipt whose inputs are all there.
    pub(super) fn run(&mut self, receipt: &Receipt) -> Result<()> {
        let versioned = receipt.versioned_receipt();
        let (VersionedReceiptEnum::Action(action) | VersionedReceiptEnum::PromiseYield(action)) = &versioned
        else {
            return Err(Error::inconsistent("only receipts with actions can run"));
        };
        let inputs = self.take_inputs(receipt.receiver_id(), action)?;
        let before = self.state.clone();
        let mut running = Running {
            receipt,
            action,
            inputs,
            account: self.state.account(receipt.receiver_id())?,
            actor: receipt.predecessor_id().clone(),
            index: 0,
            action_hash: CryptoHash::default(),
            proof_before: self.recorder.start_receipt(receipt.receiver_id()),
        };
        let mut result = self.run_actions(&mut running)?;
        if result.result.is_ok() {
            self.settle_account(&running, &mut result)?;
        }
        if result.result.is_err() {
            *self.state = before;
            result.forget_effects();
        }
        self.finish(receipt, action, result)
    }

    fn take_inputs(
        &mut self,
        receiver: &AccountId,
        action: &VersionedActionReceipt<'_>,
    ) -> Result<Vec<Option<Vec<u8>>>> {
        let mut inputs = Vec::with_capacity(action.input_data_ids().len());
        for data_id in action.input_data_ids() {
            let key = TrieKey::ReceivedData { receiver_id: receiver.clone(), data_id: *data_id };
            let data: ReceivedData = self
                .state
                .get(&key)?
                .ok_or_else(|| Error::inconsistent("the input of a receipt is missing"))?;
            self.state.remove(&key);
            inputs.push(data.data);
        }
        Ok(inputs)
    }

    fn run_actions(&mut self, running: &mut Running<'_>) -> Result<ActionResult> {
        let config = self.block.config.clone();
        let mut result = ActionResult::new();
        result.burn_gas(config.fees.fee(ActionCosts::new_action_receipt).exec_fee().gas).map_err(overflow)?;
        for (index, action) in running.action.actions().iter().enumerate() {
            running.index = index;
            running.action_hash =
                create_action_hash_from_receipt_id(running.receipt.receipt_id(), self.block.height, index);
            let fee = fees::exec_fee(&config, action, running.account_id()).map_err(overflow)?;
            result.burn_gas(fee).map_err(overflow)?;
            let first_new = result.receipts.len();
            self.run_action(running, action, &mut result)?;
            if let Ok(ReturnData::ReceiptIndex(at)) = &mut result.result {
                // The contract counts only the receipts of its own call.
                *at += first_new as u64;
            }
            let limits = &config.wasm_config.limit_config;
            if result.result.is_ok()
                && let Err(error) =
                    result.receipts[first_new..].iter().try_for_each(|r| check_receipt(limits, r))
            {
                result.fail(ActionErrorKind::NewReceiptValidationError(error));
            }
            if let Err(error) = &mut result.result {
                error.index = Some(index as u64);
                break;
            }
        }
        Ok(result)
    }

    /// Checks that the account can pay for its storage, and stores it.
    fn settle_account(&mut self, running: &Running<'_>, result: &mut ActionResult) -> Result<()> {
        let Some(account) = &running.account else {
            return Ok(());
        };
        match storage_shortfall(account, &self.block.config) {
            Some(amount) => {
                let account_id = running.account_id().clone();
                result.fail(ActionErrorKind::LackBalanceForState { account_id, amount });
                Ok(())
            }
            None => self.state.set_account(running.account_id(), account),
        }
    }

    /// Refunds, sends results and new receipts, and records the outcome.
    fn finish(
        &mut self,
        receipt: &Receipt,
        action: &VersionedActionReceipt<'_>,
        mut result: ActionResult,
    ) -> Result<()> {
        let mut tokens_burnt = refund::settle(self.block, receipt, action, &mut result)?;
        tokens_burnt = fees::add_balance(tokens_burnt, result.burnt).map_err(overflow)?;
        self.burn(tokens_burnt)?;
        let minted = fees::add_balance(self.applied.minted, result.minted).map_err(overflow)?;
        self.applied.minted = minted;
        self.use_gas(result.gas_burnt);
        send_results(receipt.receiver_id(), action, &mut result)?;

        let height = self.block.height;
        let new_id = |index: usize| create_receipt_id_from_receipt_id(receipt.receipt_id(), height, index);
        let status = match result.result {
            Ok(ReturnData::ReceiptIndex(index)) => ExecutionStatus::SuccessReceiptId(new_id(index as usize)),
            Ok(ReturnData::Value(value)) => ExecutionStatus::SuccessValue(value),
            Ok(ReturnData::None) => ExecutionStatus::SuccessValue(Vec::new()),
            Err(error) => ExecutionStatus::Failure(error.into()),
        };
        let mut receipt_ids = Vec::new();
        for (index, mut new) in result.receipts.into_iter().enumerate() {
            new.set_receipt_id(new_id(index));
            let is_data = matches!(new.receipt(), ReceiptEnum::Data(_) | ReceiptEnum::PromiseResume(_));
            if !is_data {
                receipt_ids.push(new_id(index));
            }
            self.emit(new)?;
        }
        let outcome = ExecutionOutcome {
            logs: result.logs,
            receipt_ids,
            gas_burnt: result.gas_burnt,
            compute_usage: Some(result.gas_burnt.as_gas()),
            tokens_burnt,
            executor_id: receipt.receiver_id().clone(),
            status,
            metadata: ExecutionMetadata::V3(Box::new(result.profile)),
        };
        self.applied.outcomes.push(ExecutionOutcomeWithId { id: *receipt.receipt_id(), outcome });
        Ok(())
    }
}

/// Passes the result on to the receipts that wait for it, or lets the receipt that was
/// returned do so.
fn send_results(
    from: &AccountId,
    action: &VersionedActionReceipt<'_>,
    result: &mut ActionResult,
) -> Result<()> {
    let receivers = action.output_data_receivers();
    if receivers.is_empty() {
        return Ok(());
    }
    if let Ok(ReturnData::ReceiptIndex(index)) = &result.result {
        let returned = usize::try_from(*index).ok().and_then(|at| result.receipts.get_mut(at));
        let outputs = match returned.map(Receipt::receipt_mut) {
            Some(ReceiptEnum::Action(new) | ReceiptEnum::PromiseYield(new)) => &mut new.output_data_receivers,
            Some(ReceiptEnum::ActionV2(new) | ReceiptEnum::PromiseYieldV2(new)) => {
                &mut new.output_data_receivers
            }
            _ => return Err(Error::inconsistent("the returned receipt does not exist")),
        };
        outputs.extend_from_slice(receivers);
        return Ok(());
    }
    let data = match &result.result {
        Ok(ReturnData::Value(value)) => Some(value.clone()),
        Ok(_) => Some(Vec::new()),
        Err(_) => None,
    };
    result.receipts.extend(receivers.iter().map(|to| {
        Receipt::V0(ReceiptV0 {
            predecessor_id: from.clone(),
            receiver_id: to.receiver_id.clone(),
            receipt_id: CryptoHash::default(),
            receipt: ReceiptEnum::Data(DataReceipt { data_id: to.data_id, data: data.clone() }),
        })
    }));
    Ok(())
}

/// The hash under which a contract's code is compiled and found.
pub(super) fn code_hash(contract: &AccountContract, code: &[u8]) -> CryptoHash {
    match contract {
        AccountContract::Local(hash) | AccountContract::Global(hash) => *hash,
        AccountContract::None | AccountContract::GlobalByAccount(_) => CryptoHash::hash_bytes(code),
    }
}
