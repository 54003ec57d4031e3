//! Money on a local chain.

use near_crypto::PublicKey;
use near_jsonrpc_client::methods;
use por_types::{AccountId, Yocto};

use super::error::ChainError;
use super::rpc::{Rpc, RpcFailure, RpcLimits};

/// Creates `account` with `key` on a local chain, or adds `amount` to it.
///
/// Errors: [`ChainError::Unreachable`]; [`ChainError::Rejected`] if the chain has no faucet.
pub async fn faucet(
    rpc_urls: &[String],
    account: &AccountId,
    key: &PublicKey,
    amount: Yocto,
) -> Result<(), ChainError> {
    let rpc = Rpc::new(rpc_urls, RpcLimits::default())?;
    let params = serde_json::json!({
        "account_id": account,
        "public_key": key,
        "amount": amount,
    });
    let request = methods::any::request::<Result<serde_json::Value, ()>>("localnet_faucet", params);
    let answer = rpc.ask(&request, rpc.limits().try_timeout, |_| false, |_| Ok(())).await;
    answer.map_err(|failure| match failure {
        RpcFailure::Nobody(error) => error,
        RpcFailure::Handler { .. } => {
            ChainError::Rejected { reason: "this chain has no faucet".to_owned() }
        }
    })
}
