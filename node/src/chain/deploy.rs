//! Putting the contract on a chain.

use near_crypto::SecretKey;
use near_jsonrpc_client::methods::send_tx::RpcSendTransactionRequest;
use near_jsonrpc_primitives::types::transactions::{RpcTransactionError, RpcTransactionResponse};
use near_primitives::action::{Action, DeployContractAction};
use near_primitives::views::TxExecutionStatus;
use por_types::interface::{NewArgs, method};
use por_types::{AccountId, Network, Yocto};

use super::error::ChainError;
use super::rpc::{Rpc, RpcFailure, RpcLimits, Skip};
use super::{Reader, tx};

/// Gas for the initialisation.
const INIT_GAS: u64 = 100_000_000_000_000;

/// Deploys `code` to `contract`, whose full access key is `key`, and initialises it, in one
/// transaction: the account ends up with the whole contract or with none.
///
/// Errors: as [`super::Chain::call`].
pub async fn deploy(
    rpc_urls: &[String],
    contract: &AccountId,
    key: &SecretKey,
    code: &[u8],
    args: &NewArgs,
) -> Result<(), ChainError> {
    let reader = Reader {
        rpc: Rpc::new(rpc_urls, RpcLimits::default())?,
        network: Network { chain_id: args.chain_id.clone(), contract: contract.clone() },
        account: contract.clone(),
    };
    reader.rpc.check_chain_id(&args.chain_id).await?;
    let json =
        serde_json::to_vec(args).map_err(|error| ChainError::Rejected { reason: error.to_string() })?;
    let head = reader.rpc.head().await?;
    let nonce = reader.key_nonce(key).await?.saturating_add(1);
    let actions = vec![
        Action::DeployContract(DeployContractAction { code: code.to_vec() }),
        tx::function_call(method::NEW, json, INIT_GAS, Yocto::ZERO),
    ];
    let signed_transaction = tx::sign_actions(key, contract, contract, nonce, head.hash, actions);
    let request = RpcSendTransactionRequest { signed_transaction, wait_until: TxExecutionStatus::Final };
    let transient =
        |error: &RpcTransactionError| !matches!(error, RpcTransactionError::InvalidTransaction { .. });
    let accept = |response: RpcTransactionResponse| match response.final_execution_outcome {
        Some(outcome) if response.final_execution_status == TxExecutionStatus::Final => {
            Ok(outcome.into_outcome())
        }
        _ => Err(Skip("the outcome is not final yet".to_owned())),
    };
    let timeout = reader.rpc.limits().transaction_timeout;
    match reader.rpc.ask(&request, timeout, transient, accept).await {
        Ok(view) => tx::outcome(method::NEW, &view).map(drop),
        Err(RpcFailure::Handler { error: RpcTransactionError::InvalidTransaction { context }, .. }) => {
            Err(reader.rejected(&context, key))
        }
        Err(RpcFailure::Handler { error, .. }) => Err(ChainError::Rejected { reason: error.to_string() }),
        Err(RpcFailure::Nobody(error)) => Err(error),
    }
}
