//! Burning what a receipt used, and returning the rest.

use near_parameters::ActionCosts;
use near_primitives::receipt::{Receipt, VersionedActionReceipt};
use near_primitives::types::{Balance, Gas};

use super::BlockContext;
use super::execute::{ActionResult, overflow};
use crate::error::{Error, Result};
use crate::fees::{self, add_balance, add_gas, gas_to_balance};

/// Adds refund receipts to the result and returns the tokens burnt for gas.
///
/// Gas was bought at the receipt's price; it is burnt at the price of the block, and
/// the difference returned. Creating an account burns at least a fixed amount.
pub(super) fn settle(
    block: &BlockContext,
    receipt: &Receipt,
    action: &VersionedActionReceipt<'_>,
    result: &mut ActionResult,
) -> Result<Balance> {
    let deposit = fees::total_deposit(action.actions()).map_err(overflow)?;
    let failed = result.result.is_err();
    if receipt.predecessor_id().is_system() {
        // A refund costs nothing; one that cannot be delivered is burnt.
        result.gas_burnt = Gas::ZERO;
        result.gas_used = Gas::ZERO;
        return Ok(if failed { deposit } else { Balance::ZERO });
    }
    if failed && !deposit.is_zero() {
        let to = receipt.balance_refund_receiver();
        result.receipts.push(Receipt::new_balance_refund(to, deposit));
    }
    let bought = bought_gas(block, receipt, action)?;
    let unused = bought
        .checked_sub(result.gas_used)
        .ok_or_else(|| Error::inconsistent("a receipt used more gas than was bought"))?;
    let bought_at = action.gas_price();
    let burn_at = block.gas_price.min(bought_at);
    let mut burnt = gas_to_balance(burn_at, result.gas_burnt).map_err(overflow)?;
    let paid = gas_to_balance(bought_at, result.gas_burnt).map_err(overflow)?;
    burnt = add_balance(burnt, creation_charge(block, burn_at, result)?).map_err(overflow)?.min(paid);

    let surplus = paid.saturating_sub(burnt);
    let unused = gas_to_balance(bought_at, unused).map_err(overflow)?;
    let refund = add_balance(unused, surplus).map_err(overflow)?;
    if !refund.is_zero() {
        let key = action.signer_public_key().clone();
        result.receipts.push(Receipt::new_gas_refund(action.signer_id(), refund, key));
    }
    Ok(burnt)
}

/// All gas that was bought for the receipt.
fn bought_gas(block: &BlockContext, receipt: &Receipt, action: &VersionedActionReceipt<'_>) -> Result<Gas> {
    let config = &block.config;
    let actions = action.actions();
    let mut gas = fees::prepaid_gas(actions).map_err(overflow)?;
    gas = add_gas(gas, fees::prepaid_send_fees(config, actions).map_err(overflow)?).map_err(overflow)?;
    gas = add_gas(gas, fees::exec_fees(config, actions, receipt.receiver_id()).map_err(overflow)?)
        .map_err(overflow)?;
    add_gas(gas, config.fees.fee(ActionCosts::new_action_receipt).exec_fee().gas).map_err(overflow)
}

/// What creating accounts burns beyond the price of its gas.
fn creation_charge(block: &BlockContext, burn_at: Balance, result: &ActionResult) -> Result<Balance> {
    let gas = block.config.fees.fee(ActionCosts::create_account).exec_fee().gas;
    let covered = gas_to_balance(burn_at, gas).map_err(overflow)?;
    let missing = block.config.account_creation_charge.saturating_sub(covered);
    Ok(missing.saturating_mul(u128::from(result.accounts_created)))
}
