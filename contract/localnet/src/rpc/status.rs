//! How far a transaction has come.

use std::collections::HashSet;

use near_jsonrpc_primitives::types::transactions::RpcTransactionResponse;
use near_primitives::hash::CryptoHash;
use near_primitives::receipt::Receipt;
use near_primitives::transaction::{ExecutionStatus, SignedTransaction};
use near_primitives::views::{
    ExecutionOutcomeWithIdView, FinalExecutionOutcomeView, FinalExecutionOutcomeViewEnum,
    FinalExecutionOutcomeWithReceiptView, FinalExecutionStatus, ReceiptView, SignedTransactionView,
    TxExecutionStatus,
};

use crate::chain::{FINALITY, Shared};
use crate::error::Result;
use crate::store::{Store, StoredOutcome};

/// A transaction with all that has come of it so far.
pub(super) struct Progress {
    transaction: SignedTransaction,
    outcome: StoredOutcome,
    receipt_outcomes: Vec<StoredOutcome>,
    receipts: Vec<Receipt>,
    /// Whether a receipt that is not a refund has still to run.
    pending: bool,
    /// Whether anything has still to run.
    pending_refund: bool,
    final_height: u64,
}

impl Progress {
    /// Collects everything about a transaction, if it is in a block.
    pub(super) fn of(shared: &Shared, hash: &CryptoHash) -> Result<Option<Self>> {
        // Read first: what the store says can then only be newer.
        let final_height = shared.behind_head(FINALITY)?.block.height;
        let store = &shared.store;
        let Some(transaction) = store.transaction(hash)? else {
            return Ok(None);
        };
        let Some(outcome) = store.outcome(hash)? else {
            return Ok(None);
        };
        let mut progress = Self {
            transaction,
            outcome,
            receipt_outcomes: Vec::new(),
            receipts: Vec::new(),
            pending: false,
            pending_refund: false,
            final_height,
        };
        progress.collect(store)?;
        Ok(Some(progress))
    }

    /// Follows the receipts, each before those it made.
    fn collect(&mut self, store: &Store) -> Result<()> {
        let mut next: Vec<CryptoHash> = children(&self.outcome);
        let mut seen = HashSet::new();
        while let Some(id) = next.pop() {
            if !seen.insert(id) {
                continue;
            }
            let receipt = store.receipt(&id)?;
            match store.outcome(&id)? {
                Some(outcome) => {
                    next.extend(children(&outcome));
                    self.receipt_outcomes.push(outcome);
                }
                None if receipt.as_ref().is_some_and(|r| r.predecessor_id().is_system()) => {
                    self.pending_refund = true;
                }
                None => self.pending = true,
            }
            self.receipts.extend(receipt);
        }
        Ok(())
    }

    /// How far the transaction has come.
    pub(super) fn reached(&self) -> TxExecutionStatus {
        let included_final = self.outcome.height <= self.final_height;
        let latest = self.receipt_outcomes.iter().map(|outcome| outcome.height).max();
        let all_final = latest.is_none_or(|height| height <= self.final_height);
        match (self.pending, included_final) {
            (true, false) => TxExecutionStatus::Included,
            (true, true) => TxExecutionStatus::IncludedFinal,
            (false, false) => TxExecutionStatus::ExecutedOptimistic,
            (false, true) if all_final && !self.pending_refund => TxExecutionStatus::Final,
            (false, true) => TxExecutionStatus::Executed,
        }
    }

    /// Whether the transaction has come as far as asked.
    pub(super) fn satisfies(&self, wanted: &TxExecutionStatus) -> bool {
        use TxExecutionStatus as Status;
        let reached = self.reached();
        match wanted {
            Status::None | Status::Included => true,
            Status::ExecutedOptimistic => !self.pending,
            Status::IncludedFinal => {
                matches!(reached, Status::IncludedFinal | Status::Executed | Status::Final)
            }
            Status::Executed => matches!(reached, Status::Executed | Status::Final),
            Status::Final => matches!(reached, Status::Final),
        }
    }

    /// The answer of `tx` and its kin.
    pub(super) fn response(self, with_receipts: bool) -> RpcTransactionResponse {
        let final_execution_status = self.reached();
        let outcome = if with_receipts {
            let receipts = self.receipts.iter().cloned().map(ReceiptView::from).collect();
            let final_outcome = self.final_outcome();
            FinalExecutionOutcomeViewEnum::FinalExecutionOutcomeWithReceipt(
                FinalExecutionOutcomeWithReceiptView { final_outcome, receipts },
            )
        } else {
            FinalExecutionOutcomeViewEnum::FinalExecutionOutcome(self.final_outcome())
        };
        RpcTransactionResponse { final_execution_outcome: Some(outcome), final_execution_status }
    }

    /// The answer of `broadcast_tx_commit`.
    pub(super) fn final_outcome(self) -> FinalExecutionOutcomeView {
        let status = self.result();
        FinalExecutionOutcomeView {
            status,
            transaction: SignedTransactionView::from(self.transaction),
            transaction_outcome: ExecutionOutcomeWithIdView::from(self.outcome.outcome),
            receipts_outcome: self
                .receipt_outcomes
                .into_iter()
                .map(|outcome| ExecutionOutcomeWithIdView::from(outcome.outcome))
                .collect(),
        }
    }

    /// Follows the receipts that stand for the result, to their end.
    fn result(&self) -> FinalExecutionStatus {
        let mut current = &self.outcome;
        loop {
            match &current.outcome.outcome_with_id.outcome.status {
                ExecutionStatus::Unknown => return FinalExecutionStatus::NotStarted,
                ExecutionStatus::Failure(error) => {
                    return FinalExecutionStatus::Failure(error.clone());
                }
                ExecutionStatus::SuccessValue(value) => {
                    return FinalExecutionStatus::SuccessValue(value.clone());
                }
                ExecutionStatus::SuccessReceiptId(id) => {
                    let next = self.receipt_outcomes.iter().find(|o| o.outcome.id() == id);
                    match next {
                        Some(next) => current = next,
                        None => return FinalExecutionStatus::Started,
                    }
                }
            }
        }
    }
}

/// The receipts an execution made, the first one last.
fn children(outcome: &StoredOutcome) -> Vec<CryptoHash> {
    outcome.outcome.outcome_with_id.outcome.receipt_ids.iter().rev().copied().collect()
}
