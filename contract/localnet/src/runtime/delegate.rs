//! Actions that one account signs and another pays for.

use near_parameters::ActionCosts;
use near_primitives::account::AccessKeyPermission;
use near_primitives::action::delegate::{DelegateAction, SignedDelegateAction};
use near_primitives::errors::{ActionErrorKind, InvalidAccessKeyError};
use near_primitives::hash::CryptoHash;
use near_primitives::receipt::{ActionReceipt, Receipt, ReceiptEnum, ReceiptV0};

use super::Runtime;
use super::execute::{ActionResult, Running, overflow};
use crate::error::Result;
use crate::fees::{self, add_gas};
use crate::validate::{check_call_permission, nonce_limit};

impl Runtime<'_> {
    pub(super) fn delegate(
        &mut self,
        running: &Running<'_>,
        signed: &SignedDelegateAction,
        result: &mut ActionResult,
    ) -> Result<()> {
        let delegate = &signed.delegate_action;
        if let Err(kind) = self.check_delegate(running, signed) {
            result.fail(kind);
            return Ok(());
        }
        if let Some(kind) = self.use_delegate_key(delegate)? {
            result.fail(kind);
            return Ok(());
        }
        let config = &self.block.config;
        let actions = delegate.get_actions();
        let outer = std::slice::from_ref(&running.action.actions()[running.index]);
        let send = fees::prepaid_send_fees(config, outer).map_err(overflow)?;
        let mut attached = fees::prepaid_gas(&actions).map_err(overflow)?;
        let exec = fees::exec_fees(config, &actions, &delegate.receiver_id).map_err(overflow)?;
        attached = add_gas(attached, exec).map_err(overflow)?;
        let receipt = config.fees.fee(ActionCosts::new_action_receipt).exec_fee().gas;
        attached = add_gas(attached, receipt).map_err(overflow)?;
        result.burn_gas(send).map_err(overflow)?;
        result.gas_used = add_gas(result.gas_used, attached).map_err(overflow)?;
        result.receipts.push(Receipt::V0(ReceiptV0 {
            predecessor_id: delegate.sender_id.clone(),
            receiver_id: delegate.receiver_id.clone(),
            receipt_id: CryptoHash::default(),
            receipt: ReceiptEnum::Action(ActionReceipt {
                signer_id: running.action.signer_id().clone(),
                signer_public_key: running.action.signer_public_key().clone(),
                gas_price: running.action.gas_price(),
                output_data_receivers: Vec::new(),
                input_data_ids: Vec::new(),
                actions,
            }),
        }));
        Ok(())
    }

    fn check_delegate(
        &self,
        running: &Running<'_>,
        signed: &SignedDelegateAction,
    ) -> Result<(), ActionErrorKind> {
        let delegate = &signed.delegate_action;
        if !signed.verify() {
            return Err(ActionErrorKind::DelegateActionInvalidSignature);
        }
        if self.block.height > delegate.max_block_height {
            return Err(ActionErrorKind::DelegateActionExpired);
        }
        if delegate.sender_id != *running.account_id() {
            return Err(ActionErrorKind::DelegateActionSenderDoesNotMatchTxReceiver {
                sender_id: delegate.sender_id.clone(),
                receiver_id: running.account_id().clone(),
            });
        }
        Ok(())
    }

    /// Checks the sender's key and uses up its nonce; returns why it may not be used.
    fn use_delegate_key(&mut self, delegate: &DelegateAction) -> Result<Option<ActionErrorKind>> {
        let (sender, public_key) = (&delegate.sender_id, &delegate.public_key);
        let Some(mut key) = self.state.access_key(sender, public_key)? else {
            let error = InvalidAccessKeyError::AccessKeyNotFound {
                account_id: sender.clone(),
                public_key: Box::new(public_key.clone()),
            };
            return Ok(Some(ActionErrorKind::DelegateActionAccessKeyError(error)));
        };
        let delegate_nonce = delegate.nonce;
        if delegate_nonce <= key.nonce {
            let ak_nonce = key.nonce;
            return Ok(Some(ActionErrorKind::DelegateActionInvalidNonce { delegate_nonce, ak_nonce }));
        }
        let upper_bound = nonce_limit(self.block.height);
        if delegate_nonce >= upper_bound {
            return Ok(Some(ActionErrorKind::DelegateActionNonceTooLarge { delegate_nonce, upper_bound }));
        }
        key.nonce = delegate_nonce;
        if let AccessKeyPermission::FunctionCall(permission) = &key.permission
            && let Err(error) =
                check_call_permission(permission, &delegate.receiver_id, &delegate.get_actions())
        {
            return Ok(Some(ActionErrorKind::DelegateActionAccessKeyError(error)));
        }
        self.state.set_access_key(sender, public_key, &key)?;
        Ok(None)
    }
}
