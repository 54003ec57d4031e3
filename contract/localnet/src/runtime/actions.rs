//! What each action does to its receiver.

use near_primitives::account::id::AccountType;
use near_primitives::account::{AccessKey, AccessKeyPermission, Account, AccountContract};
use near_primitives::action::{
    Action, AddKeyAction, DeleteAccountAction, DeployContractAction, TransferAction,
};
use near_primitives::errors::ActionErrorKind;
use near_primitives::hash::CryptoHash;
use near_primitives::receipt::Receipt;
use near_primitives::trie_key::TrieKey;
use near_primitives::types::{AccountId, Balance, StorageUsage};

use super::Runtime;
use super::execute::{ActionResult, Running};
use crate::error::{Error, Result};
use crate::validate::first_nonce;

use near_crypto::{PublicKey, PublicKeyHandle};

impl Runtime<'_> {
    /// Runs one action. Failures of the action are left in the result.
    pub(super) fn run_action(
        &mut self,
        running: &mut Running<'_>,
        action: &Action,
        result: &mut ActionResult,
    ) -> Result<()> {
        if let Err(kind) = self.check_existence(running, action) {
            result.fail(kind);
            return Ok(());
        }
        if let Err(kind) = check_actor(running, action) {
            result.fail(kind);
            return Ok(());
        }
        match action {
            Action::CreateAccount(_) => {
                self.create_account(running, result);
                Ok(())
            }
            Action::DeployContract(deploy) => self.deploy(running, deploy),
            Action::FunctionCall(call) => self.call(running, call, result),
            Action::Transfer(transfer) => self.transfer(running, transfer, result),
            Action::AddKey(add) => self.add_key(running, add, result),
            Action::DeleteKey(delete) => self.delete_key(running, &delete.public_key, result),
            Action::DeleteAccount(delete) => self.delete_account(running, delete, result),
            Action::Delegate(signed) => self.delegate(running, signed, result),
            Action::DeployGlobalContract(deploy) => self.deploy_global(running, deploy, result),
            Action::UseGlobalContract(using) => self.use_global(running, &using.contract_identifier, result),
            Action::Stake(_)
            | Action::DeterministicStateInit(_)
            | Action::TransferToGasKey(_)
            | Action::WithdrawFromGasKey(_)
            | Action::DelegateV2(_)
            | Action::UniversalStateInit(_) => {
                Err(Error::inconsistent("an action that validation refuses was run"))
            }
        }
    }

    fn check_existence(&self, running: &Running<'_>, action: &Action) -> Result<(), ActionErrorKind> {
        let account_id = running.account_id().clone();
        match (action, &running.account) {
            (Action::CreateAccount(_), Some(_)) => Err(ActionErrorKind::AccountAlreadyExists { account_id }),
            (Action::CreateAccount(_), None) => {
                if account_id.get_account_type().is_implicit() {
                    return Err(ActionErrorKind::OnlyImplicitAccountCreationAllowed { account_id });
                }
                Ok(())
            }
            (_, Some(_)) => Ok(()),
            (Action::Transfer(_), None) if self.may_create_implicitly(running) => Ok(()),
            (_, None) => Err(ActionErrorKind::AccountDoesNotExist { account_id }),
        }
    }

    /// Whether a transfer to a missing account creates it.
    fn may_create_implicitly(&self, running: &Running<'_>) -> bool {
        let alone = running.action.actions().len() == 1;
        let kind = running.account_id().get_account_type();
        alone && !running.is_refund() && kind == AccountType::NearImplicitAccount
    }

    fn create_account(&self, running: &mut Running<'_>, result: &mut ActionResult) {
        let rules = &self.block.config.account_creation_config;
        let account_id = running.account_id().clone();
        let predecessor_id = running.receipt.predecessor_id().clone();
        if account_id.is_top_level() {
            let short = account_id.len() < usize::from(rules.min_allowed_top_level_account_length);
            if short && predecessor_id != rules.registrar_account_id {
                result.fail(ActionErrorKind::CreateAccountOnlyByRegistrar {
                    account_id,
                    registrar_account_id: rules.registrar_account_id.clone(),
                    predecessor_id,
                });
                return;
            }
        } else if !account_id.is_sub_account_of(&predecessor_id) {
            result.fail(ActionErrorKind::CreateAccountNotAllowed { account_id, predecessor_id });
            return;
        }
        running.actor = account_id;
        running.account = Some(self.new_account(Balance::ZERO, 0));
        result.accounts_created += 1;
    }

    fn new_account(&self, amount: Balance, extra_storage: StorageUsage) -> Account {
        let storage = self.block.config.fees.storage_usage_config.num_bytes_account;
        Account::new(amount, Balance::ZERO, AccountContract::None, storage + extra_storage)
    }

    fn transfer(
        &mut self,
        running: &mut Running<'_>,
        transfer: &TransferAction,
        result: &mut ActionResult,
    ) -> Result<()> {
        let account_id = running.account_id().clone();
        let Some(account) = &mut running.account else {
            result.accounts_created += 1;
            running.account = Some(self.create_implicit(&account_id, transfer.deposit)?);
            return Ok(());
        };
        deposit(account, transfer.deposit)?;
        let signer_key = running.action.signer_public_key();
        if running.is_refund() && *running.action.signer_id() == account_id {
            self.refund_allowance(&account_id, signer_key, transfer.deposit)?;
        }
        Ok(())
    }

    /// Creates the account that a public key names.
    fn create_implicit(&mut self, id: &AccountId, amount: Balance) -> Result<Account> {
        let public_key = PublicKey::from_near_implicit_account(id).map_err(Error::inconsistent)?;
        let mut access_key = AccessKey::full_access();
        access_key.nonce = first_nonce(self.block.height);
        let storage = self.key_storage(&public_key, &access_key)?;
        self.state.set_access_key(id, &public_key, &access_key)?;
        Ok(self.new_account(amount, storage))
    }

    /// A gas refund also restores the allowance of the key that paid.
    fn refund_allowance(&mut self, id: &AccountId, public_key: &PublicKey, amount: Balance) -> Result<()> {
        let Some(mut key) = self.state.access_key(id, public_key)? else {
            return Ok(());
        };
        let AccessKeyPermission::FunctionCall(permission) = &mut key.permission else {
            return Ok(());
        };
        let Some(allowance) = &mut permission.allowance else {
            return Ok(());
        };
        *allowance = allowance.saturating_add(amount);
        self.state.set_access_key(id, public_key, &key)
    }

    /// The bytes of storage that a key takes.
    fn key_storage(&self, public_key: impl Into<PublicKeyHandle>, key: &AccessKey) -> Result<StorageUsage> {
        let handle: PublicKeyHandle = public_key.into();
        let key = borsh::object_length(key).map_err(Error::inconsistent)?;
        let extra = self.block.config.fees.storage_usage_config.num_extra_bytes_record;
        Ok(handle.trie_id_len() as u64 + key as u64 + extra)
    }

    fn add_key(
        &mut self,
        running: &mut Running<'_>,
        add: &AddKeyAction,
        result: &mut ActionResult,
    ) -> Result<()> {
        let account_id = running.account_id().clone();
        if self.state.access_key(&account_id, &add.public_key)?.is_some() {
            let public_key = Box::new(add.public_key.clone());
            result.fail(ActionErrorKind::AddKeyAlreadyExists { account_id, public_key });
            return Ok(());
        }
        let mut key = add.access_key.clone();
        key.nonce = first_nonce(self.block.height);
        let storage = self.key_storage(&add.public_key, &key)?;
        self.state.set_access_key(&account_id, &add.public_key, &key)?;
        change_storage(existing(running)?, storage, 0)
    }

    fn delete_key(
        &mut self,
        running: &mut Running<'_>,
        public_key: &PublicKey,
        result: &mut ActionResult,
    ) -> Result<()> {
        let account_id = running.account_id().clone();
        let Some(key) = self.state.access_key(&account_id, public_key)? else {
            let public_key = Box::new(public_key.clone());
            result.fail(ActionErrorKind::DeleteKeyDoesNotExist { account_id, public_key });
            return Ok(());
        };
        let storage = self.key_storage(public_key, &key)?;
        self.state.remove_access_key(&account_id, public_key);
        // An account made by hand may count less than its keys take.
        let account = existing(running)?;
        account.set_storage_usage(account.storage_usage().saturating_sub(storage));
        Ok(())
    }

    fn deploy(&mut self, running: &mut Running<'_>, deploy: &DeployContractAction) -> Result<()> {
        let account_id = running.account_id().clone();
        let account = existing(running)?;
        self.clear_contract(&account_id, account)?;
        let hash = CryptoHash::hash_bytes(&deploy.code);
        change_storage(account, deploy.code.len() as u64, 0)?;
        account.set_contract(AccountContract::Local(hash)).map_err(Error::inconsistent)?;
        let key = TrieKey::ContractCode { account_id }.to_vec();
        self.state.set_raw(key, deploy.code.as_slice());
        self.block.vm.compile(&self.block.config, hash, &deploy.code);
        Ok(())
    }

    /// Takes the account's contract away, with the storage it uses.
    pub(super) fn clear_contract(&mut self, id: &AccountId, account: &mut Account) -> Result<()> {
        let contract = account.contract().into_owned();
        let freed = match &contract {
            AccountContract::None => return Ok(()),
            AccountContract::Local(_) => {
                let code = self.state.remove(&TrieKey::ContractCode { account_id: id.clone() });
                code.map_or(0, |code| code.len() as u64)
            }
            other => other.identifier_storage_usage(),
        };
        account.set_storage_usage(account.storage_usage().saturating_sub(freed));
        account.set_contract(AccountContract::None).map_err(Error::inconsistent)
    }

    fn delete_account(
        &mut self,
        running: &mut Running<'_>,
        delete: &DeleteAccountAction,
        result: &mut ActionResult,
    ) -> Result<()> {
        let account_id = running.account_id().clone();
        let account = existing(running)?;
        let contract = account.contract().into_owned();
        let code = match &contract {
            AccountContract::Local(_) => {
                self.state.contract_code(&account_id, &contract).map_or(0, |code| code.len() as u64)
            }
            other => other.identifier_storage_usage(),
        };
        let storage = account.storage_usage().saturating_sub(code);
        if storage > Account::MAX_ACCOUNT_DELETION_STORAGE_USAGE {
            result.fail(ActionErrorKind::DeleteAccountWithLargeState { account_id });
            return Ok(());
        }
        if !account.amount().is_zero() {
            let refund = Receipt::new_balance_refund(&delete.beneficiary_id, account.amount());
            result.receipts.push(refund);
        }
        self.state.remove_account(&account_id);
        running.actor = running.receipt.predecessor_id().clone();
        running.account = None;
        Ok(())
    }
}

/// Whether the actor may do this to the account.
fn check_actor(running: &Running<'_>, action: &Action) -> Result<(), ActionErrorKind> {
    let only_itself = matches!(
        action,
        Action::DeployContract(_)
            | Action::AddKey(_)
            | Action::DeleteKey(_)
            | Action::DeleteAccount(_)
            | Action::DeployGlobalContract(_)
            | Action::UseGlobalContract(_)
    );
    let account_id = running.account_id().clone();
    if only_itself && running.actor != account_id {
        let actor_id = running.actor.clone();
        return Err(ActionErrorKind::ActorNoPermission { account_id, actor_id });
    }
    let locked = running.account.as_ref().is_some_and(|account| !account.locked().is_zero());
    if matches!(action, Action::DeleteAccount(_)) && locked {
        return Err(ActionErrorKind::DeleteAccountStaking { account_id });
    }
    Ok(())
}

/// The account the action runs on, whose existence was checked.
pub(super) fn existing<'a>(running: &'a mut Running<'_>) -> Result<&'a mut Account> {
    running.account.as_mut().ok_or_else(|| Error::inconsistent("an action lost its account"))
}

pub(super) fn deposit(account: &mut Account, amount: Balance) -> Result<()> {
    let sum = account.amount().checked_add(amount);
    account.set_amount(sum.ok_or_else(|| Error::inconsistent("an account's balance overflows"))?);
    Ok(())
}

pub(super) fn change_storage(account: &mut Account, more: u64, less: u64) -> Result<()> {
    let usage = account.storage_usage().checked_add(more).and_then(|sum| sum.checked_sub(less));
    account.set_storage_usage(usage.ok_or_else(|| Error::inconsistent("storage usage overflows"))?);
    Ok(())
}
