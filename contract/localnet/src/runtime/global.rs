//! Contracts that many accounts share.

use near_primitives::account::AccountContract;
use near_primitives::action::{
    DeployGlobalContractAction, GlobalContractDeployMode, GlobalContractIdentifier,
};
use near_primitives::errors::ActionErrorKind;
use near_primitives::hash::CryptoHash;
use near_primitives::receipt::{GlobalContractDistributionReceipt, Receipt};
use near_primitives::transaction::{ExecutionOutcome, ExecutionOutcomeWithId, ExecutionStatus};
use near_primitives::trie_key::{GlobalContractCodeIdentifier, TrieKey};
use near_primitives::types::ShardId;

use super::Runtime;
use super::actions::{change_storage, existing};
use super::execute::{ActionResult, Running};
use crate::error::{Error, Result};

fn code_key(id: &GlobalContractIdentifier) -> TrieKey {
    let identifier = match id {
        GlobalContractIdentifier::CodeHash(hash) => GlobalContractCodeIdentifier::CodeHash(*hash),
        GlobalContractIdentifier::AccountId(id) => GlobalContractCodeIdentifier::AccountId(id.clone()),
    };
    TrieKey::GlobalContractCode { identifier }
}

impl Runtime<'_> {
    /// Burns the price of the code's storage and sends the code on its way.
    pub(super) fn deploy_global(
        &mut self,
        running: &mut Running<'_>,
        deploy: &DeployGlobalContractAction,
        result: &mut ActionResult,
    ) -> Result<()> {
        let account_id = running.account_id().clone();
        let storage = &self.block.config.fees.storage_usage_config;
        let price = storage.global_contract_storage_amount_per_byte.saturating_mul(deploy.code.len() as u128);
        let account = existing(running)?;
        let Some(rest) = account.amount().checked_sub(price) else {
            let amount = price.saturating_sub(account.amount());
            result.fail(ActionErrorKind::LackBalanceForState { account_id, amount });
            return Ok(());
        };
        account.set_amount(rest);
        result.burnt =
            result.burnt.checked_add(price).ok_or_else(|| Error::inconsistent("burnt tokens overflow"))?;
        let id = match deploy.deploy_mode {
            GlobalContractDeployMode::CodeHash => {
                GlobalContractIdentifier::CodeHash(CryptoHash::hash_bytes(&deploy.code))
            }
            GlobalContractDeployMode::AccountId => GlobalContractIdentifier::AccountId(account_id.clone()),
        };
        let contract = GlobalContractDistributionReceipt::new(
            id,
            ShardId::new(0),
            Vec::new(),
            deploy.code.clone(),
            self.block.height,
        );
        result.receipts.push(Receipt::new_global_contract_distribution(account_id, contract));
        Ok(())
    }

    /// Makes the code available.
    pub(super) fn install_global(
        &mut self,
        receipt: &Receipt,
        contract: &GlobalContractDistributionReceipt,
    ) -> Result<()> {
        let code = contract.code();
        self.state.set_raw(code_key(contract.id()).to_vec(), code.clone());
        self.block.vm.compile(&self.block.config, CryptoHash::hash_bytes(code), code);
        let outcome = ExecutionOutcome {
            executor_id: receipt.receiver_id().clone(),
            status: ExecutionStatus::SuccessValue(Vec::new()),
            ..ExecutionOutcome::default()
        };
        self.applied.outcomes.push(ExecutionOutcomeWithId { id: *receipt.receipt_id(), outcome });
        Ok(())
    }

    pub(super) fn use_global(
        &mut self,
        running: &mut Running<'_>,
        id: &GlobalContractIdentifier,
        result: &mut ActionResult,
    ) -> Result<()> {
        if self.state.get_raw(&code_key(id).to_vec()).is_none() {
            let identifier = id.clone();
            result.fail(ActionErrorKind::GlobalContractDoesNotExist { identifier });
            return Ok(());
        }
        let account_id = running.account_id().clone();
        let account = existing(running)?;
        self.clear_contract(&account_id, account)?;
        let contract = match id {
            GlobalContractIdentifier::CodeHash(hash) => AccountContract::Global(*hash),
            GlobalContractIdentifier::AccountId(id) => AccountContract::GlobalByAccount(id.clone()),
        };
        change_storage(account, contract.identifier_storage_usage(), 0)?;
        account.set_contract(contract).map_err(Error::inconsistent)
    }
}
