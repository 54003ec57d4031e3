//! What transactions and receipts cost outside the VM.

use near_parameters::{
    ActionCosts, Fee, RuntimeConfig, RuntimeFeesConfig, SignatureKind, transfer_exec_fee, transfer_send_fee,
};
use near_primitives::account::AccessKeyPermission;
use near_primitives::action::Action;
use near_primitives::errors::IntegerOverflowError;
use near_primitives::transaction::Transaction;
use near_primitives::types::{AccountId, Balance, Gas};

type Overflow = IntegerOverflowError;

/// What a transaction costs its signer.
#[derive(Debug, Clone)]
pub(crate) struct TransactionCost {
    /// Gas burnt by turning the transaction into a receipt.
    pub(crate) gas_burnt: Gas,
    /// What that gas costs.
    pub(crate) burnt: Balance,
    /// The price at which the gas attached to the receipt is bought.
    pub(crate) receipt_gas_price: Balance,
    /// Everything: burnt gas, bought gas, deposits.
    pub(crate) total: Balance,
}

/// Price times amount of gas.
pub(crate) fn gas_to_balance(price: Balance, gas: Gas) -> Result<Balance, Overflow> {
    price.checked_mul(u128::from(gas.as_gas())).ok_or(IntegerOverflowError)
}

pub(crate) fn add_gas(a: Gas, b: Gas) -> Result<Gas, Overflow> {
    a.checked_add(b).ok_or(IntegerOverflowError)
}

pub(crate) fn add_balance(a: Balance, b: Balance) -> Result<Balance, Overflow> {
    a.checked_add(b).ok_or(IntegerOverflowError)
}

/// The sum of what the actions carry along, including those inside delegated ones:
/// whoever sends the delegated action pays for those too.
pub(crate) fn total_deposit(actions: &[Action]) -> Result<Balance, Overflow> {
    actions.iter().try_fold(Balance::ZERO, |sum, action| {
        let deposit = match action {
            Action::Delegate(signed) => total_deposit(&signed.delegate_action.get_actions())?,
            _ => action.get_deposit_balance(),
        };
        add_balance(sum, deposit)
    })
}

/// The sum of the gas attached to function calls.
pub(crate) fn total_prepaid_gas(actions: &[Action]) -> Result<Gas, Overflow> {
    actions.iter().try_fold(Gas::ZERO, |sum, action| add_gas(sum, action.get_prepaid_gas()))
}

/// Which side of a fee is asked for.
#[derive(Clone, Copy)]
enum Side {
    Send { to_self: bool },
    Exec,
}

impl Side {
    fn of(self, fee: &Fee) -> Gas {
        match self {
            Side::Send { to_self } => fee.send_fee(to_self).gas,
            Side::Exec => fee.exec_fee().gas,
        }
    }
}

/// Base fee plus a fee for each byte.
fn sized(
    fees: &RuntimeFeesConfig,
    side: Side,
    base: ActionCosts,
    byte: ActionCosts,
    bytes: usize,
) -> Result<Gas, Overflow> {
    let per_byte = side.of(fees.fee(byte)).checked_mul(bytes as u64).ok_or(IntegerOverflowError)?;
    add_gas(side.of(fees.fee(base)), per_byte)
}

fn action_fee(
    config: &RuntimeConfig,
    side: Side,
    action: &Action,
    receiver: &AccountId,
) -> Result<Gas, Overflow> {
    let fees = &config.fees;
    let simple = |cost| Ok(side.of(fees.fee(cost)));
    match action {
        Action::CreateAccount(_) => simple(ActionCosts::create_account),
        Action::DeployContract(deploy) => sized(
            fees,
            side,
            ActionCosts::deploy_contract_base,
            ActionCosts::deploy_contract_byte,
            deploy.code.len(),
        ),
        Action::FunctionCall(call) => sized(
            fees,
            side,
            ActionCosts::function_call_base,
            ActionCosts::function_call_byte,
            call.method_name.len() + call.args.len(),
        ),
        Action::Transfer(_) => Ok(transfer_fee(config, side, receiver)),
        Action::Stake(_) => simple(ActionCosts::stake),
        Action::AddKey(add) => match &add.access_key.permission {
            AccessKeyPermission::FunctionCall(permission) => sized(
                fees,
                side,
                ActionCosts::add_function_call_key_base,
                ActionCosts::add_function_call_key_byte,
                // Method names are stored with a terminating zero.
                permission.method_names.iter().map(|name| name.len() + 1).sum(),
            ),
            _ => simple(ActionCosts::add_full_access_key),
        },
        Action::DeleteKey(_) => simple(ActionCosts::delete_key),
        Action::DeleteAccount(_) => simple(ActionCosts::delete_account),
        Action::Delegate(_) => simple(ActionCosts::delegate),
        Action::DeployGlobalContract(deploy) => sized(
            fees,
            side,
            ActionCosts::deploy_global_contract_base,
            ActionCosts::deploy_global_contract_byte,
            deploy.code.len(),
        ),
        Action::UseGlobalContract(using) => sized(
            fees,
            side,
            ActionCosts::use_global_contract_base,
            ActionCosts::use_global_contract_byte,
            using.contract_identifier.len(),
        ),
        // Refused by validation before any fee is asked for.
        Action::DeterministicStateInit(_)
        | Action::TransferToGasKey(_)
        | Action::WithdrawFromGasKey(_)
        | Action::DelegateV2(_)
        | Action::UniversalStateInit(_) => Ok(Gas::ZERO),
    }
}

fn transfer_fee(config: &RuntimeConfig, side: Side, receiver: &AccountId) -> Gas {
    let eth = config.wasm_config.eth_implicit_accounts;
    let universal = config.wasm_config.universal_accounts;
    let kind = receiver.get_account_type();
    match side {
        Side::Send { to_self } => transfer_send_fee(&config.fees, to_self, eth, universal, kind).gas,
        Side::Exec => transfer_exec_fee(&config.fees, eth, universal, kind).gas,
    }
}

/// The gas burnt by the sender of the actions, without the receipt's own fee.
///
/// A delegated action's inner actions are sent by its sender and paid in advance,
/// see [`prepaid_send_fees`].
pub(crate) fn send_fees(
    config: &RuntimeConfig,
    actions: &[Action],
    sender: &AccountId,
    receiver: &AccountId,
) -> Result<Gas, Overflow> {
    let side = Side::Send { to_self: sender == receiver };
    actions
        .iter()
        .try_fold(Gas::ZERO, |sum, action| add_gas(sum, action_fee(config, side, action, receiver)?))
}

/// The gas needed to execute one action, without what a function call burns.
pub(crate) fn exec_fee(
    config: &RuntimeConfig,
    action: &Action,
    receiver: &AccountId,
) -> Result<Gas, Overflow> {
    action_fee(config, Side::Exec, action, receiver)
}

/// The gas needed to execute the actions, including those inside delegated ones.
pub(crate) fn exec_fees(
    config: &RuntimeConfig,
    actions: &[Action],
    receiver: &AccountId,
) -> Result<Gas, Overflow> {
    actions.iter().try_fold(Gas::ZERO, |sum, action| {
        let mut fee = exec_fee(config, action, receiver)?;
        if let Action::Delegate(signed) = action {
            let inner = signed.delegate_action.get_actions();
            let receiver = &signed.delegate_action.receiver_id;
            fee = add_gas(fee, exec_fees(config, &inner, receiver)?)?;
            fee = add_gas(fee, config.fees.fee(ActionCosts::new_action_receipt).exec_fee().gas)?;
        }
        add_gas(sum, fee)
    })
}

/// The gas attached to calls, including those inside delegated actions.
pub(crate) fn prepaid_gas(actions: &[Action]) -> Result<Gas, Overflow> {
    actions.iter().try_fold(Gas::ZERO, |sum, action| match action {
        Action::Delegate(signed) => {
            let inner = signed.delegate_action.get_actions();
            add_gas(sum, total_prepaid_gas(&inner)?)
        }
        _ => add_gas(sum, action.get_prepaid_gas()),
    })
}

/// What sending the inner actions of delegated ones will burn.
pub(crate) fn prepaid_send_fees(config: &RuntimeConfig, actions: &[Action]) -> Result<Gas, Overflow> {
    actions.iter().try_fold(Gas::ZERO, |sum, action| {
        let Action::Delegate(signed) = action else {
            return Ok(sum);
        };
        let delegate = &signed.delegate_action;
        let inner = delegate.get_actions();
        let to_self = delegate.sender_id == delegate.receiver_id;
        let fee = send_fees(config, &inner, &delegate.sender_id, &delegate.receiver_id)?;
        let receipt = config.fees.fee(ActionCosts::new_action_receipt).send_fee(to_self).gas;
        add_gas(sum, add_gas(fee, receipt)?)
    })
}

/// What a transaction will cost its signer at the given gas price.
pub(crate) fn transaction_cost(
    config: &RuntimeConfig,
    transaction: &Transaction,
    gas_price: Balance,
) -> Result<TransactionCost, Overflow> {
    let (signer, receiver) = (transaction.signer_id(), transaction.receiver_id());
    let actions = transaction.actions();
    let receipt_fee = config.fees.fee(ActionCosts::new_action_receipt);
    let mut gas_burnt = receipt_fee.send_fee(signer == receiver).gas;
    gas_burnt = add_gas(gas_burnt, send_fees(config, actions, signer, receiver)?)?;
    let kind = if transaction.public_key().key_type().is_post_quantum() {
        SignatureKind::MlDsa65
    } else {
        SignatureKind::Ed25519
    };
    gas_burnt = add_gas(gas_burnt, config.fees.signature_verification_costs[kind].gas)?;

    let mut bought = add_gas(prepaid_gas(actions)?, receipt_fee.exec_fee().gas)?;
    bought = add_gas(bought, prepaid_send_fees(config, actions)?)?;
    bought = add_gas(bought, exec_fees(config, actions, receiver)?)?;

    let receipt_gas_price = gas_price.max(config.min_gas_purchase_price);
    let burnt = gas_to_balance(gas_price, gas_burnt)?;
    let mut total = add_balance(burnt, gas_to_balance(receipt_gas_price, bought)?)?;
    total = add_balance(total, total_deposit(actions)?)?;
    Ok(TransactionCost { gas_burnt, burnt, receipt_gas_price, total })
}
