//! Calling contracts, in receipts and in queries.

use std::rc::Rc;

use near_primitives::account::{Account, AccountContract};
use near_primitives::action::FunctionCallAction;
use near_primitives::config::ViewConfig;
use near_primitives::errors::{ActionErrorKind, FunctionCallError};
use near_primitives::hash::CryptoHash;
use near_primitives::profile_data_v3::ProfileDataV3;
use near_primitives::types::{AccountId, Balance, Gas};
use near_primitives::utils::create_random_seed;
use near_vm_runner::logic::types::PromiseResult;
use near_vm_runner::logic::{ReturnData, VMContext, VMOutcome};

use super::actions::existing;
use super::execute::{ActionResult, Running, code_hash, overflow};
use super::{BlockContext, Runtime};
use crate::error::{Error, Result};
use crate::fees::{add_balance, add_gas};
use crate::state::{Recorder, State};
use crate::vm::{Call, CallExternal, Origin, Scope, call_error, no_contract};

impl Runtime<'_> {
    pub(super) fn call(
        &mut self,
        running: &mut Running<'_>,
        call: &FunctionCallAction,
        result: &mut ActionResult,
    ) -> Result<()> {
        let account_id = running.account_id().clone();
        let account = existing(running)?.clone();
        let contract = account.contract().into_owned();
        let Some(code) = self.state.contract_code(&account_id, &contract) else {
            result.fail(ActionErrorKind::FunctionCallError(no_contract(&account_id)));
            return Ok(());
        };
        let context = self.call_context(running, call, &account);
        let config = &self.block.config;
        let code_hash = code_hash(&contract, &code);
        let max_gas = config.wasm_config.limit_config.max_gas_burnt;
        let wanted = Call { code_hash, code, method: &call.method_name, max_gas };
        let scope = scope(self.block, &account_id, running.action_hash);
        let mut external = CallExternal::new(scope, self.state, &mut self.recorder, running.proof_before);
        let outcome = self.block.vm.run(config, wanted, &mut external, &context)?;
        let (promises, resumed) = external.finish();

        result.logs.extend(outcome.logs.iter().cloned());
        result.gas_burnt = add_gas(result.gas_burnt, outcome.burnt_gas).map_err(overflow)?;
        result.gas_used = add_gas(result.gas_used, outcome.used_gas).map_err(overflow)?;
        result.profile.merge(&ProfileDataV3 {
            actions_profile: outcome.profile.actions_profile,
            wasm_ext_profile: outcome.profile.wasm_ext_profile,
            wasm_gas: outcome.profile.wasm_gas,
        });
        if let Some(error) = outcome.aborted {
            result.fail(ActionErrorKind::FunctionCallError(call_error(error, &account_id)));
            return Ok(());
        }
        apply_outcome(existing(running)?, &outcome);
        result.minted = add_balance(result.minted, outcome.subsidized_amount).map_err(overflow)?;

        let mut promises = promises;
        let given = promises.share_gas(call.gas.saturating_sub(outcome.used_gas));
        result.gas_used = add_gas(result.gas_used, given).map_err(overflow)?;
        let origin = Origin {
            predecessor: &account_id,
            signer: running.action.signer_id(),
            signer_key: running.action.signer_public_key(),
            gas_price: running.action.gas_price(),
        };
        result.receipts.extend(promises.into_receipts(&origin));
        result.receipts.extend(resumed);
        result.result = Ok(outcome.return_data);
        Ok(())
    }

    fn call_context(&self, running: &Running<'_>, call: &FunctionCallAction, account: &Account) -> VMContext {
        let promise_results = running.inputs.iter().map(|input| match input {
            Some(data) => PromiseResult::Successful(Rc::from(data.as_slice())),
            None => PromiseResult::Failed,
        });
        let outputs = running.action.output_data_receivers().iter();
        let output_data_receivers = if running.is_last() {
            outputs.map(|output| output.receiver_id.clone()).collect()
        } else {
            Vec::new()
        };
        VMContext {
            current_account_id: running.account_id().clone(),
            signer_account_id: running.action.signer_id().clone(),
            // Encoding a key into memory cannot fail.
            signer_account_pk: borsh::to_vec(running.action.signer_public_key()).unwrap_or_default(),
            predecessor_account_id: running.receipt.predecessor_id().clone(),
            refund_to_account_id: running.receipt.balance_refund_receiver().clone(),
            input: Rc::from(call.args.as_slice()),
            promise_results: promise_results.collect(),
            block_height: self.block.height,
            block_timestamp: self.block.timestamp,
            epoch_height: self.block.epoch_height,
            account_balance: account.amount(),
            account_locked_balance: account.locked(),
            storage_usage: account.storage_usage(),
            account_contract: account.contract().into_owned(),
            attached_deposit: call.deposit,
            prepaid_gas: call.gas,
            random_seed: create_random_seed(running.action_hash, self.block.random_seed),
            view_config: None,
            output_data_receivers,
        }
    }
}

fn scope<'a>(block: &'a BlockContext, account_id: &'a AccountId, action_hash: CryptoHash) -> Scope<'a> {
    Scope {
        account_id,
        action_hash,
        height: block.height,
        chain_id: &block.chain_id,
        yield_timeout: block.config.wasm_config.limit_config.yield_timeout_length_in_blocks,
        validator: block.validator.as_ref(),
    }
}

fn apply_outcome(account: &mut Account, outcome: &VMOutcome) {
    account.set_amount(outcome.balance);
    account.set_storage_usage(outcome.storage_usage);
}

/// Why a query could not call a method.
pub(crate) enum ViewFailure {
    /// The contract, or its absence, is at fault: as text and as recorded on chain.
    Contract { text: String, error: FunctionCallError },
    /// The chain is at fault.
    Chain(Error),
}

/// Calls a method without changing anything.
pub(crate) fn view_call(
    block: &BlockContext,
    state: &mut State,
    account_id: &AccountId,
    account: &Account,
    method: &str,
    args: &[u8],
) -> Result<(Vec<u8>, Vec<String>), ViewFailure> {
    let contract: AccountContract = account.contract().into_owned();
    let failure = |debug: String, error| ViewFailure::Contract {
        text: format!("wasm execution failed with error: {debug}"),
        error,
    };
    let Some(code) = state.contract_code(account_id, &contract) else {
        let error = no_contract(account_id);
        return Err(failure(format!("{error:?}"), error));
    };
    let max_gas_burnt = max_view_gas(block);
    let action_hash = CryptoHash::hash_bytes(account_id.as_bytes());
    let context = VMContext {
        current_account_id: account_id.clone(),
        signer_account_id: account_id.clone(),
        signer_account_pk: Vec::new(),
        predecessor_account_id: account_id.clone(),
        refund_to_account_id: account_id.clone(),
        input: Rc::from(args),
        promise_results: Vec::new().into(),
        block_height: block.height,
        block_timestamp: block.timestamp,
        epoch_height: block.epoch_height,
        account_balance: account.amount(),
        account_locked_balance: account.locked(),
        storage_usage: account.storage_usage(),
        account_contract: contract.clone(),
        attached_deposit: Balance::ZERO,
        prepaid_gas: max_gas_burnt,
        random_seed: create_random_seed(action_hash, block.random_seed),
        view_config: Some(ViewConfig { max_gas_burnt }),
        output_data_receivers: Vec::new(),
    };
    let wanted = Call { code_hash: code_hash(&contract, &code), code, method, max_gas: max_gas_burnt };
    let mut recorder = Recorder::for_query(state.clone());
    let mut external = CallExternal::new(scope(block, account_id, action_hash), state, &mut recorder, 0);
    let outcome = block.vm.run(&block.config, wanted, &mut external, &context).map_err(ViewFailure::Chain)?;
    if let Some(error) = outcome.aborted {
        return Err(failure(format!("{error:?}"), call_error(error, account_id)));
    }
    let value = match outcome.return_data {
        ReturnData::Value(value) => value,
        ReturnData::ReceiptIndex(_) | ReturnData::None => Vec::new(),
    };
    Ok((value, outcome.logs))
}

/// The gas a query may burn: that of a real node by default.
fn max_view_gas(block: &BlockContext) -> Gas {
    /// What public nodes allow.
    const MAX_VIEW_GAS: Gas = Gas::from_teragas(300);
    MAX_VIEW_GAS.min(block.config.wasm_config.limit_config.max_gas_burnt)
}
