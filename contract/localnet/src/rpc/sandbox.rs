//! What no real chain offers: patches, skipped time, and tokens for everyone.

use std::time::Duration;

use near_crypto::PublicKey;
use near_jsonrpc_primitives::errors::RpcError;
use near_jsonrpc_primitives::types::sandbox::{
    RpcSandboxFastForwardError, RpcSandboxFastForwardRequest, RpcSandboxPatchStateError,
    RpcSandboxPatchStateRequest,
};
use near_primitives::types::{AccountId, Balance};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{Answer, Node, internal, parse};
use crate::chain::{Command, Faucet};

/// How long a change may take.
const PATIENCE: Duration = Duration::from_secs(60);
/// Heights that can be skipped at once.
const MAX_SKIP: u64 = 1_000_000_000;

/// Hands a command to the chain and waits until a block contains its effect.
async fn ask<T>(
    node: &Node,
    command: Command,
    answer: oneshot::Receiver<Result<T, String>>,
) -> Result<T, String> {
    node.worker.send(command).map_err(|error| error.to_string())?;
    match timeout(PATIENCE, answer).await {
        Ok(Ok(answer)) => answer,
        Ok(Err(_)) => Err(node.shared.failure().unwrap_or_else(|| "the chain stopped".to_owned())),
        Err(_) => Err("the chain took too long".to_owned()),
    }
}

pub(super) async fn patch_state(node: &Node, params: Value) -> Answer {
    let RpcSandboxPatchStateRequest { records } = parse(params)?;
    let (reply, answer) = oneshot::channel();
    match ask(node, Command::Patch { records, reply }, answer).await {
        Ok(()) => Ok(json!({})),
        Err(error_message) => Err(RpcSandboxPatchStateError::InternalError { error_message }.into()),
    }
}

pub(super) async fn fast_forward(node: &Node, params: Value) -> Answer {
    let RpcSandboxFastForwardRequest { delta_height: blocks } = parse(params)?;
    let failed = |error_message| RpcSandboxFastForwardError::InternalError { error_message };
    if blocks > MAX_SKIP {
        return Err(failed(format!("at most {MAX_SKIP} heights can be skipped at once")).into());
    }
    let (reply, answer) = oneshot::channel();
    match ask(node, Command::FastForward { blocks, reply }, answer).await {
        Ok(()) => Ok(json!({})),
        Err(error) => Err(failed(error).into()),
    }
}

#[derive(serde::Deserialize)]
struct FaucetRequest {
    account_id: AccountId,
    public_key: PublicKey,
    amount: Balance,
}

pub(super) async fn faucet(node: &Node, params: Value) -> Answer {
    let request: FaucetRequest = match params {
        Value::Array(mut list) if list.len() == 1 => parse(list.swap_remove(0))?,
        params => parse(params)?,
    };
    if request.account_id.is_system() {
        return Err(RpcError::parse_error("`system` cannot hold tokens".to_owned()));
    }
    let faucet = Box::new(Faucet {
        account_id: request.account_id,
        public_key: request.public_key,
        amount: request.amount,
    });
    let (reply, answer) = oneshot::channel();
    let done = ask(node, Command::Faucet { faucet, reply }, answer).await.map_err(internal)?;
    Ok(json!({
        "account_id": done.account_id,
        "balance": done.balance,
        "created": done.created,
    }))
}
