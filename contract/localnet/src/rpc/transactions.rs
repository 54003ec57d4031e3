//! Sending transactions, and waiting for them.

use std::time::Duration;

use near_jsonrpc_primitives::errors::RpcError;
use near_jsonrpc_primitives::types::transactions::{
    RpcSendTransactionRequest, RpcTransactionError, RpcTransactionResponse, RpcTransactionStatusRequest,
    TimeoutErrorCause, TransactionInfo,
};
use near_primitives::hash::CryptoHash;
use near_primitives::transaction::SignedTransaction;
use near_primitives::views::TxExecutionStatus;
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use super::status::Progress;
use super::{Answer, Node, internal, parse, to_value};
use crate::chain::Command;

/// Blocks to wait for a transaction that nobody knows.
const BLOCKS_FOR_UNKNOWN: u64 = 2;

/// A signed transaction: alone in a list, or as a field.
fn signed_transaction(params: Value) -> Result<SignedTransaction, RpcError> {
    match params {
        Value::Array(mut list) if list.len() == 1 => parse(list.swap_remove(0)),
        Value::Object(mut fields) => parse(fields.remove("signed_tx_base64").unwrap_or(Value::Null)),
        _ => Err(RpcError::parse_error("expected one signed transaction".to_owned())),
    }
}

fn failed(debug_info: impl std::fmt::Display) -> RpcTransactionError {
    RpcTransactionError::InternalError { debug_info: debug_info.to_string() }
}

pub(super) fn broadcast_async(node: &Node, params: Value) -> Answer {
    let transaction = Box::new(signed_transaction(params)?);
    let hash = transaction.get_hash();
    node.worker.send(Command::Submit { transaction, reply: None }).map_err(internal)?;
    Ok(json!(hash))
}

pub(super) async fn broadcast_commit(node: &Node, params: Value) -> Answer {
    let transaction = signed_transaction(params)?;
    let progress = submit_and_wait(node, transaction, &TxExecutionStatus::default()).await?;
    to_value(&progress.final_outcome())
}

pub(super) async fn send(node: &Node, params: Value) -> Answer {
    let request = match params {
        Value::Array(_) => RpcSendTransactionRequest {
            signed_transaction: signed_transaction(params)?,
            wait_until: TxExecutionStatus::default(),
        },
        params => parse(params)?,
    };
    if matches!(request.wait_until, TxExecutionStatus::None) {
        let transaction = Box::new(request.signed_transaction);
        node.worker.send(Command::Submit { transaction, reply: None }).map_err(failed)?;
        return to_value(&RpcTransactionResponse {
            final_execution_outcome: None,
            final_execution_status: TxExecutionStatus::None,
        });
    }
    let progress = submit_and_wait(node, request.signed_transaction, &request.wait_until).await?;
    to_value(&progress.response(false))
}

async fn submit_and_wait(
    node: &Node,
    transaction: SignedTransaction,
    wanted: &TxExecutionStatus,
) -> Result<Progress, RpcTransactionError> {
    let deadline = Instant::now() + node.patience;
    let hash = transaction.get_hash();
    let (reply, answer) = oneshot::channel();
    let command = Command::Submit { transaction: Box::new(transaction), reply: Some(reply) };
    node.worker.send(command).map_err(failed)?;
    match timeout_at(deadline, answer).await {
        Ok(Ok(Ok(()))) => wait(node, hash, wanted, deadline).await,
        Ok(Ok(Err(context))) => Err(RpcTransactionError::InvalidTransaction { context }),
        Ok(Err(_)) => Err(failed(reason(node))),
        Err(_) => Err(RpcTransactionError::TimeoutError(Some(TimeoutErrorCause::NotObserved))),
    }
}

fn reason(node: &Node) -> String {
    node.shared.failure().unwrap_or_else(|| "the chain is shutting down".to_owned())
}

/// Waits until a transaction has come as far as wanted.
async fn wait(
    node: &Node,
    hash: CryptoHash,
    wanted: &TxExecutionStatus,
    deadline: Instant,
) -> Result<Progress, RpcTransactionError> {
    let mut head = node.shared.watch();
    let first = *head.borrow();
    loop {
        let height = *head.borrow_and_update();
        let progress = Progress::of(&node.shared, &hash).map_err(failed)?;
        let unknown = progress.is_none();
        if let Some(progress) = progress
            && progress.satisfies(wanted)
        {
            return Ok(progress);
        }
        if let Some(failure) = node.shared.failure() {
            return Err(failed(failure));
        }
        let requested_transaction_hash = hash;
        if unknown && height >= first + BLOCKS_FOR_UNKNOWN {
            return Err(RpcTransactionError::UnknownTransaction { requested_transaction_hash });
        }
        match timeout_at(deadline, head.changed()).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => return Err(failed(reason(node))),
            Err(_) => return Err(timed_out(node, hash)),
        }
    }
}

fn timed_out(node: &Node, hash: CryptoHash) -> RpcTransactionError {
    let cause = match Progress::of(&node.shared, &hash) {
        Ok(Some(progress)) => TimeoutErrorCause::Pending { status: Box::new(progress.response(false)) },
        Ok(None) => TimeoutErrorCause::NotObserved,
        Err(error) => TimeoutErrorCause::Error { debug_info: error.to_string() },
    };
    RpcTransactionError::TimeoutError(Some(cause))
}

pub(super) async fn status(node: &Node, params: Value, with_receipts: bool) -> Answer {
    let request = match params {
        // The old form: hash and sender.
        Value::Array(list) if list.len() == 2 => RpcTransactionStatusRequest {
            transaction_info: parse(json!({ "tx_hash": list[0], "sender_account_id": list[1] }))?,
            wait_until: TxExecutionStatus::default(),
        },
        Value::Array(_) => {
            let signed_tx = signed_transaction(params)?;
            let transaction_info = TransactionInfo::Transaction { signed_tx };
            RpcTransactionStatusRequest { transaction_info, wait_until: TxExecutionStatus::default() }
        }
        params => parse(params)?,
    };
    let (hash, _) = request.transaction_info.to_tx_hash_and_account();
    // A status is asked for again and again: it should not hold the client up for long
    // when it wants no more than what there is.
    let patience = match request.wait_until {
        TxExecutionStatus::None => node.patience.min(Duration::from_secs(1)),
        _ => node.patience,
    };
    let progress = wait(node, hash, &request.wait_until, Instant::now() + patience).await?;
    to_value(&progress.response(with_receipts))
}
