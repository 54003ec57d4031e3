//! The receipts a contract asks for while it runs.

use near_crypto::PublicKey;
use near_primitives::action::Action;
use near_primitives::hash::CryptoHash;
use near_primitives::receipt::{
    ActionReceipt, ActionReceiptV2, DataReceiver, Receipt, ReceiptEnum, ReceiptV0,
};
use near_primitives::types::{AccountId, Balance, Gas};

/// One receipt in the making.
pub(crate) struct Draft {
    pub(crate) receiver: AccountId,
    pub(crate) refund_to: Option<AccountId>,
    pub(crate) output_data_receivers: Vec<DataReceiver>,
    pub(crate) input_data_ids: Vec<CryptoHash>,
    pub(crate) actions: Vec<Action>,
    pub(crate) is_yield: bool,
}

/// A call that takes a share of the gas the contract leaves over.
struct Weighted {
    receipt: usize,
    action: usize,
    weight: u64,
}

/// All receipts of one call.
#[derive(Default)]
pub(crate) struct Promises {
    drafts: Vec<Draft>,
    weighted: Vec<Weighted>,
}

/// Who the receipts come from.
pub(crate) struct Origin<'a> {
    pub(crate) predecessor: &'a AccountId,
    pub(crate) signer: &'a AccountId,
    pub(crate) signer_key: &'a PublicKey,
    /// The price at which the gas was bought.
    pub(crate) gas_price: Balance,
}

impl Promises {
    pub(crate) fn push(&mut self, receiver: AccountId, inputs: Vec<CryptoHash>, is_yield: bool) -> u64 {
        self.drafts.push(Draft {
            receiver,
            refund_to: None,
            output_data_receivers: Vec::new(),
            input_data_ids: inputs,
            actions: Vec::new(),
            is_yield,
        });
        self.drafts.len() as u64 - 1
    }

    pub(crate) fn get(&self, index: u64) -> Option<&Draft> {
        self.drafts.get(usize::try_from(index).ok()?)
    }

    pub(crate) fn get_mut(&mut self, index: u64) -> Option<&mut Draft> {
        self.drafts.get_mut(usize::try_from(index).ok()?)
    }

    /// Whether this call itself yielded a promise that waits for `data_id`.
    pub(crate) fn yields(&self, data_id: &CryptoHash) -> bool {
        self.drafts.iter().any(|draft| draft.is_yield && draft.input_data_ids.contains(data_id))
    }

    /// Adds an action. The VM only passes indices it was given.
    pub(crate) fn append(&mut self, index: u64, action: impl Into<Action>) {
        if let Some(draft) = self.get_mut(index) {
            draft.actions.push(action.into());
        }
    }

    /// Notes that the last action of the receipt shares in unused gas.
    pub(crate) fn weigh_last(&mut self, index: u64, weight: u64) {
        let Some(draft) = self.get(index) else { return };
        let Some(action) = draft.actions.len().checked_sub(1) else {
            return;
        };
        if weight > 0 {
            self.weighted.push(Weighted { receipt: index as usize, action, weight });
        }
    }

    /// Shares `unused` gas among the weighted calls; what does not divide goes to the
    /// last one. Returns how much was given away.
    pub(crate) fn share_gas(&mut self, unused: Gas) -> Gas {
        let total: u128 = self.weighted.iter().map(|call| u128::from(call.weight)).sum();
        if total == 0 {
            return Gas::ZERO;
        }
        let per_weight = u128::from(unused.as_gas()) / total;
        let mut left = unused.as_gas();
        let last = self.weighted.len() - 1;
        for (index, call) in self.weighted.iter().enumerate() {
            let share = u64::try_from(per_weight * u128::from(call.weight)).unwrap_or(left);
            let share = if index == last { left } else { share.min(left) };
            left -= share;
            let action = self.drafts.get_mut(call.receipt).and_then(|d| d.actions.get_mut(call.action));
            if let Some(Action::FunctionCall(action)) = action {
                action.gas = action.gas.saturating_add(Gas::from_gas(share));
            }
        }
        unused
    }

    /// The receipts, still without ids.
    pub(crate) fn into_receipts(self, origin: &Origin<'_>) -> Vec<Receipt> {
        self.drafts.into_iter().map(|draft| finish(draft, origin)).collect()
    }
}

fn finish(draft: Draft, origin: &Origin<'_>) -> Receipt {
    let (signer_id, signer_public_key) = (origin.signer.clone(), origin.signer_key.clone());
    let gas_price = origin.gas_price;
    let receipt = match draft.refund_to {
        None => {
            let receipt = ActionReceipt {
                signer_id,
                signer_public_key,
                gas_price,
                output_data_receivers: draft.output_data_receivers,
                input_data_ids: draft.input_data_ids,
                actions: draft.actions,
            };
            if draft.is_yield { ReceiptEnum::PromiseYield(receipt) } else { ReceiptEnum::Action(receipt) }
        }
        Some(refund_to) => {
            let receipt = ActionReceiptV2 {
                signer_id,
                refund_to: Some(refund_to),
                signer_public_key,
                gas_price,
                output_data_receivers: draft.output_data_receivers,
                input_data_ids: draft.input_data_ids,
                actions: draft.actions,
            };
            if draft.is_yield { ReceiptEnum::PromiseYieldV2(receipt) } else { ReceiptEnum::ActionV2(receipt) }
        }
    };
    Receipt::V0(ReceiptV0 {
        predecessor_id: origin.predecessor.clone(),
        receiver_id: draft.receiver,
        receipt_id: CryptoHash::default(),
        receipt,
    })
}
