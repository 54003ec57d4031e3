//! Which transactions and receipts are let in.

use near_parameters::RuntimeConfig;
use near_parameters::vm::LimitConfig;
use near_primitives::account::{AccessKey, AccessKeyPermission, Account, FunctionCallPermission};
use near_primitives::action::Action;
use near_primitives::errors::{
    ActionsValidationError, IntegerOverflowError, InvalidAccessKeyError, InvalidTxError,
    ReceiptValidationError,
};
use near_primitives::receipt::{Receipt, VersionedReceiptEnum};
use near_primitives::transaction::{SignedTransaction, Transaction, ValidatedTransaction};
use near_primitives::types::{AccountId, Balance, BlockHeight, Nonce, StorageUsage};
use near_primitives::version::PROTOCOL_VERSION;

use crate::fees::{self, TransactionCost};
use crate::state::State;

/// An account whose storage is no larger than this needs no balance for it, in bytes.
pub(crate) const FREE_STORAGE: StorageUsage = 770;

/// Why a transaction was not included.
pub(crate) enum Refusal {
    /// The transaction is at fault.
    Invalid(InvalidTxError),
    /// The chain is at fault.
    Chain(crate::Error),
}

impl From<InvalidTxError> for Refusal {
    fn from(error: InvalidTxError) -> Self {
        Refusal::Invalid(error)
    }
}

impl From<IntegerOverflowError> for Refusal {
    fn from(error: IntegerOverflowError) -> Self {
        Refusal::Invalid(error.into())
    }
}

fn unsupported(feature: &str) -> ActionsValidationError {
    ActionsValidationError::UnsupportedProtocolFeature {
        protocol_feature: format!("{feature} (not offered by this local chain)"),
        version: PROTOCOL_VERSION,
    }
}

/// Checks what does not depend on the state: size, signature, actions.
pub(crate) fn check_transaction(
    config: &RuntimeConfig,
    transaction: SignedTransaction,
) -> Result<ValidatedTransaction, InvalidTxError> {
    let valid =
        ValidatedTransaction::new(config, transaction, PROTOCOL_VERSION).map_err(|(error, _)| error)?;
    if valid.nonce().nonce_index().is_some() {
        return Err(InvalidTxError::ActionsValidation(unsupported("gas keys")));
    }
    check_actions(&config.wasm_config.limit_config, valid.actions())
        .map_err(InvalidTxError::ActionsValidation)?;
    Ok(valid)
}

/// Checks a list of actions against the protocol's limits.
pub(crate) fn check_actions(limits: &LimitConfig, actions: &[Action]) -> Result<(), ActionsValidationError> {
    if actions.len() as u64 > limits.max_actions_per_receipt {
        return Err(ActionsValidationError::TotalNumberOfActionsExceeded {
            total_number_of_actions: actions.len() as u64,
            limit: limits.max_actions_per_receipt,
        });
    }
    let deploys = actions.iter().filter(|action| is_deploy(action)).count() as u64;
    if deploys > limits.max_deploy_actions_per_receipt {
        return Err(ActionsValidationError::TotalNumberOfDeployActionsExceeded {
            number_of_deploy_actions: deploys,
            limit: limits.max_deploy_actions_per_receipt,
        });
    }
    for (index, action) in actions.iter().enumerate() {
        if matches!(action, Action::DeleteAccount(_)) && index + 1 != actions.len() {
            return Err(ActionsValidationError::DeleteActionMustBeFinal);
        }
        check_action(limits, action)?;
    }
    if actions.iter().filter(|action| action.is_delegate()).count() > 1 {
        return Err(ActionsValidationError::DelegateActionMustBeOnlyOne);
    }
    let gas = fees::total_prepaid_gas(actions).map_err(|_| ActionsValidationError::IntegerOverflow)?;
    if gas > limits.max_total_prepaid_gas {
        return Err(ActionsValidationError::TotalPrepaidGasExceeded {
            total_prepaid_gas: gas,
            limit: limits.max_total_prepaid_gas,
        });
    }
    Ok(())
}

fn is_deploy(action: &Action) -> bool {
    matches!(action, Action::DeployContract(_) | Action::DeployGlobalContract(_))
}

fn check_code_size(limits: &LimitConfig, size: usize) -> Result<(), ActionsValidationError> {
    let (size, limit) = (size as u64, limits.max_contract_size);
    if size > limit {
        return Err(ActionsValidationError::ContractSizeExceeded { size, limit });
    }
    Ok(())
}

fn check_action(limits: &LimitConfig, action: &Action) -> Result<(), ActionsValidationError> {
    match action {
        Action::CreateAccount(_)
        | Action::Transfer(_)
        | Action::DeleteKey(_)
        | Action::DeleteAccount(_)
        | Action::UseGlobalContract(_) => Ok(()),
        Action::DeployContract(deploy) => check_code_size(limits, deploy.code.len()),
        Action::DeployGlobalContract(deploy) => check_code_size(limits, deploy.code.len()),
        Action::FunctionCall(call) => check_call(limits, &call.method_name, &call.args, call.gas),
        Action::AddKey(add) => check_permission(limits, &add.access_key),
        Action::Delegate(signed) => check_actions(limits, &signed.delegate_action.get_actions()),
        Action::Stake(_) => Err(unsupported("staking")),
        Action::DelegateV2(_) => Err(unsupported("delegate actions of version 2")),
        Action::DeterministicStateInit(_) => Err(unsupported("deterministic accounts")),
        Action::UniversalStateInit(_) => Err(unsupported("universal accounts")),
        Action::TransferToGasKey(_) | Action::WithdrawFromGasKey(_) => Err(unsupported("gas keys")),
    }
}

fn check_call(
    limits: &LimitConfig,
    method: &str,
    args: &[u8],
    gas: near_primitives::types::Gas,
) -> Result<(), ActionsValidationError> {
    if gas.as_gas() == 0 {
        return Err(ActionsValidationError::FunctionCallZeroAttachedGas);
    }
    if method.is_empty() {
        return Err(ActionsValidationError::FunctionCallEmptyMethodName);
    }
    let (length, limit) = (method.len() as u64, limits.max_length_method_name);
    if length > limit {
        return Err(ActionsValidationError::FunctionCallMethodNameLengthExceeded { length, limit });
    }
    let (length, limit) = (args.len() as u64, limits.max_arguments_length);
    if length > limit {
        return Err(ActionsValidationError::FunctionCallArgumentsLengthExceeded { length, limit });
    }
    Ok(())
}

fn check_permission(limits: &LimitConfig, key: &AccessKey) -> Result<(), ActionsValidationError> {
    let permission = match &key.permission {
        AccessKeyPermission::FullAccess => return Ok(()),
        AccessKeyPermission::FunctionCall(permission) => permission,
        AccessKeyPermission::GasKeyFullAccess(_) | AccessKeyPermission::GasKeyFunctionCall(..) => {
            return Err(unsupported("gas keys"));
        }
    };
    if AccountId::validate(&permission.receiver_id).is_err() {
        return Err(ActionsValidationError::InvalidAccountId { account_id: permission.receiver_id.clone() });
    }
    let mut bytes = 0u64;
    for name in &permission.method_names {
        let (length, limit) = (name.len() as u64, limits.max_length_method_name);
        if length > limit {
            return Err(ActionsValidationError::AddKeyMethodNameLengthExceeded { length, limit });
        }
        bytes = bytes.saturating_add(length + 1);
    }
    let limit = limits.max_number_bytes_method_names;
    if bytes > limit {
        return Err(ActionsValidationError::AddKeyMethodNamesNumberOfBytesExceeded {
            total_number_of_bytes: bytes,
            limit,
        });
    }
    Ok(())
}

/// Checks a receipt that a contract or an action created.
pub(crate) fn check_receipt(limits: &LimitConfig, receipt: &Receipt) -> Result<(), ReceiptValidationError> {
    let size = borsh::object_length(receipt).unwrap_or(usize::MAX) as u64;
    let limit = limits.max_receipt_size;
    if size > limit {
        return Err(ReceiptValidationError::ReceiptSizeExceeded { size, limit });
    }
    let receipt = receipt.versioned_receipt();
    let (VersionedReceiptEnum::Action(action) | VersionedReceiptEnum::PromiseYield(action)) = receipt else {
        return Ok(());
    };
    let (inputs, limit) = (action.input_data_ids().len() as u64, limits.max_number_input_data_dependencies);
    if inputs > limit {
        return Err(ReceiptValidationError::NumberInputDataDependenciesExceeded {
            number_of_input_data_dependencies: inputs,
            limit,
        });
    }
    check_actions(limits, action.actions()).map_err(ReceiptValidationError::ActionsValidation)
}

/// The nonces a key may use at a height are below this.
pub(crate) fn nonce_limit(height: BlockHeight) -> Nonce {
    height.saturating_mul(AccessKey::ACCESS_KEY_NONCE_RANGE_MULTIPLIER)
}

/// The nonce a key starts with when it is added at a height.
pub(crate) fn first_nonce(height: BlockHeight) -> Nonce {
    nonce_limit(height.saturating_sub(1))
}

/// How much the account lacks to pay for its storage, if anything.
pub(crate) fn storage_shortfall(account: &Account, config: &RuntimeConfig) -> Option<Balance> {
    if account.storage_usage() <= FREE_STORAGE {
        return None;
    }
    let needed = config.storage_amount_per_byte().saturating_mul(u128::from(account.storage_usage()));
    let available = account.amount().saturating_add(account.locked());
    needed.checked_sub(available).filter(|missing| !missing.is_zero())
}

/// Checks signer, key, nonce and balance, and charges the signer.
pub(crate) fn charge_transaction(
    state: &mut State,
    config: &RuntimeConfig,
    valid: &ValidatedTransaction,
    height: BlockHeight,
    gas_price: Balance,
) -> Result<TransactionCost, Refusal> {
    let transaction = valid.to_tx();
    let (signer_id, public_key) = (transaction.signer_id(), transaction.public_key());
    let cost = fees::transaction_cost(config, transaction, gas_price)?;
    let Some(mut signer) = state.account(signer_id).map_err(Refusal::Chain)? else {
        return Err(InvalidTxError::SignerDoesNotExist { signer_id: signer_id.clone() }.into());
    };
    let Some(mut key) = state.access_key(signer_id, public_key).map_err(Refusal::Chain)? else {
        return Err(InvalidTxError::InvalidAccessKeyError(InvalidAccessKeyError::AccessKeyNotFound {
            account_id: signer_id.clone(),
            public_key: Box::new(public_key.clone()),
        })
        .into());
    };
    use_nonce(&mut key, transaction, height)?;
    let Some(rest) = signer.amount().checked_sub(cost.total) else {
        return Err(InvalidTxError::NotEnoughBalance {
            signer_id: signer_id.clone(),
            balance: signer.amount(),
            cost: cost.total,
        }
        .into());
    };
    signer.set_amount(rest);
    if let AccessKeyPermission::FunctionCall(permission) = &mut key.permission {
        spend_allowance(permission, transaction, cost.total)?;
    }
    if let Some(amount) = storage_shortfall(&signer, config) {
        return Err(InvalidTxError::LackBalanceForState { signer_id: signer_id.clone(), amount }.into());
    }
    if let AccessKeyPermission::FunctionCall(permission) = &key.permission {
        check_call_permission(permission, transaction.receiver_id(), transaction.actions())
            .map_err(InvalidTxError::InvalidAccessKeyError)?;
    }
    state.set_account(signer_id, &signer).map_err(Refusal::Chain)?;
    state.set_access_key(signer_id, public_key, &key).map_err(Refusal::Chain)?;
    Ok(cost)
}

fn use_nonce(
    key: &mut AccessKey,
    transaction: &Transaction,
    height: BlockHeight,
) -> Result<(), InvalidTxError> {
    use near_primitives::transaction::NonceMode;
    let tx_nonce = transaction.nonce().nonce();
    let follows = match transaction.nonce_mode() {
        NonceMode::Monotonic => tx_nonce > key.nonce,
        NonceMode::Strict => Some(tx_nonce) == key.nonce.checked_add(1),
    };
    if !follows {
        return Err(InvalidTxError::InvalidNonce { tx_nonce, ak_nonce: key.nonce });
    }
    let upper_bound = nonce_limit(height);
    if tx_nonce >= upper_bound {
        return Err(InvalidTxError::NonceTooLarge { tx_nonce, upper_bound });
    }
    key.nonce = tx_nonce;
    Ok(())
}

fn spend_allowance(
    permission: &mut FunctionCallPermission,
    transaction: &Transaction,
    cost: Balance,
) -> Result<(), InvalidTxError> {
    let Some(allowance) = permission.allowance else {
        return Ok(());
    };
    let Some(rest) = allowance.checked_sub(cost) else {
        return Err(InvalidTxError::InvalidAccessKeyError(InvalidAccessKeyError::NotEnoughAllowance {
            account_id: transaction.signer_id().clone(),
            public_key: Box::new(transaction.public_key().clone()),
            allowance,
            cost,
        }));
    };
    permission.allowance = Some(rest);
    Ok(())
}

/// Whether a function-call key may sign these actions.
pub(crate) fn check_call_permission(
    permission: &FunctionCallPermission,
    receiver: &AccountId,
    actions: &[Action],
) -> Result<(), InvalidAccessKeyError> {
    let [Action::FunctionCall(call)] = actions else {
        return Err(InvalidAccessKeyError::RequiresFullAccess);
    };
    if !call.deposit.is_zero() {
        return Err(InvalidAccessKeyError::DepositWithFunctionCall);
    }
    if receiver.as_str() != permission.receiver_id {
        return Err(InvalidAccessKeyError::ReceiverMismatch {
            tx_receiver: receiver.clone(),
            ak_receiver: permission.receiver_id.clone(),
        });
    }
    let names = &permission.method_names;
    if !names.is_empty() && !names.contains(&call.method_name) {
        return Err(InvalidAccessKeyError::MethodNameMismatch { method_name: call.method_name.clone() });
    }
    Ok(())
}
