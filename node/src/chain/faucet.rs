//! Money on a local chain.

use std::time::Duration;

use near_crypto::PublicKey;
use por_types::{AccountId, Yocto};
use serde_json::{Value, json};

use super::error::ChainError;

/// Looks at the final block, and the time between two.
const LOOKS: u32 = 200;
const PAUSE: Duration = Duration::from_millis(100);
/// The answer comes with the block that holds the money.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Creates `account` with `key` on a local chain, or adds `amount` to it. Not a method that real
/// chains have.
///
/// Errors: [`ChainError::Unreachable`]; [`ChainError::Rejected`] if the chain has no faucet.
pub async fn faucet(
    rpc_urls: &[String],
    account: &AccountId,
    key: &PublicKey,
    amount: Yocto,
) -> Result<(), ChainError> {
    let unreachable = |error: reqwest::Error| ChainError::Unreachable { reasons: error.to_string() };
    let http = reqwest::Client::builder().timeout(TIMEOUT).build().map_err(unreachable)?;
    let params = json!({ "account_id": account, "public_key": key, "amount": amount });
    let request = json!({ "jsonrpc": "2.0", "id": "faucet", "method": "localnet_faucet", "params": params });
    let mut reasons = Vec::new();
    for url in rpc_urls {
        let sent = http.post(url).json(&request).send().await;
        let answer: Value = match sent {
            Ok(response) => response.json().await.unwrap_or(Value::Null),
            Err(error) if error.is_connect() => {
                reasons.push(format!("{url}: cannot connect"));
                continue;
            }
            // It may have been carried out: asking another one could pay twice.
            Err(error) => return Err(unreachable(error)),
        };
        if answer.get("result").is_some_and(|result| !result.is_null()) {
            let there = tokio::time::timeout(TIMEOUT, exists(&http, url, account)).await;
            return there.unwrap_or_else(|_| Err(not_seen()));
        }
        let error = answer.get("error");
        let no_method = error.is_some_and(|error| error["code"] == -32601);
        return Err(ChainError::Rejected {
            reason: match error {
                Some(error) if !no_method => format!("the faucet says: {error}"),
                _ => format!("{url} has no faucet"),
            },
        });
    }
    Err(ChainError::Unreachable { reasons: reasons.join("; ") })
}

/// Waits until the account is there in the final block: views are of that one, and the faucet
/// answers earlier.
async fn exists(http: &reqwest::Client, url: &str, account: &AccountId) -> Result<(), ChainError> {
    let params = json!({ "request_type": "view_account", "finality": "final", "account_id": account });
    let request = json!({ "jsonrpc": "2.0", "id": "faucet", "method": "query", "params": params });
    for _ in 0..LOOKS {
        let sent = http.post(url).json(&request).send().await;
        let answer: Value = match sent {
            Ok(response) => response.json().await.unwrap_or(Value::Null),
            Err(_) => Value::Null,
        };
        if answer["result"]["amount"].is_string() {
            return Ok(());
        }
        tokio::time::sleep(PAUSE).await;
    }
    Err(not_seen())
}

fn not_seen() -> ChainError {
    ChainError::Undecided { method: "faucet".to_owned(), transaction: None }
}
