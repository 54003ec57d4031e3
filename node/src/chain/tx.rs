//! Transactions: signing, bytes, and what their outcomes mean.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use near_crypto::SecretKey;
use near_primitives::action::{Action, FunctionCallAction};
use near_primitives::errors::{ActionErrorKind, FunctionCallError, InvalidTxError, TxExecutionError};
use near_primitives::hash::CryptoHash;
use near_primitives::transaction::{SignedTransaction, Transaction, TransactionV0};
use near_primitives::types::{Balance, Gas};
use near_primitives::views::{FinalExecutionOutcomeView, FinalExecutionStatus};
use por_types::interface::error_code;
use por_types::{AccountId, Yocto};

use super::CallOutcome;
use super::call::Call;
use super::error::ChainError;
use super::intent::SentTx;
use super::reader::Reader;

/// Signs actions for `receiver`.
pub(crate) fn sign_actions(
    key: &SecretKey,
    signer: &AccountId,
    receiver: &AccountId,
    nonce: u64,
    block: CryptoHash,
    actions: Vec<Action>,
) -> SignedTransaction {
    let transaction = Transaction::V0(TransactionV0 {
        signer_id: signer.clone(),
        public_key: key.public_key(),
        nonce,
        receiver_id: receiver.clone(),
        block_hash: block,
        actions,
    });
    let (hash, _) = transaction.get_hash_and_size();
    SignedTransaction::new(key.sign(hash.as_ref()), transaction)
}

/// The action that makes a call.
pub(super) fn action(call: &Call) -> Result<Action, ChainError> {
    let args = call.args().map_err(|error| ChainError::Rejected { reason: error.to_string() })?;
    Ok(function_call(call.method(), args, call.gas(), call.attached()))
}

pub(crate) fn function_call(method: &str, args: Vec<u8>, gas: u64, attached: Yocto) -> Action {
    Action::FunctionCall(Box::new(FunctionCallAction {
        method_name: method.to_owned(),
        args,
        gas: Gas::from_gas(gas),
        deposit: Balance::from_yoctonear(attached.0),
    }))
}

impl SentTx {
    pub(super) fn of(transaction: &SignedTransaction, height: u64) -> Result<SentTx, ChainError> {
        let bytes =
            borsh::to_vec(transaction).map_err(|error| ChainError::Rejected { reason: error.to_string() })?;
        Ok(SentTx {
            hash: transaction.get_hash().to_string(),
            nonce: transaction.transaction.nonce().nonce(),
            height,
            bytes: BASE64.encode(bytes),
        })
    }

    pub(super) fn transaction(&self) -> Result<SignedTransaction, ChainError> {
        let bytes = BASE64.decode(&self.bytes).ok();
        bytes
            .and_then(|bytes| borsh::from_slice(&bytes).ok())
            .ok_or_else(|| ChainError::Store(format!("transaction {} is damaged", self.hash)))
    }
}

/// What a final outcome says about the call.
pub(super) fn outcome(method: &str, view: &FinalExecutionOutcomeView) -> Result<CallOutcome, ChainError> {
    match &view.status {
        FinalExecutionStatus::SuccessValue(bytes) => {
            let value = if bytes.is_empty() {
                serde_json::Value::Null
            } else {
                serde_json::from_slice(bytes).map_err(|error| ChainError::Answer {
                    method: method.to_owned(),
                    reason: error.to_string(),
                })?
            };
            Ok(CallOutcome { transaction: Some(view.transaction.hash.to_string()), value })
        }
        FinalExecutionStatus::Failure(failure) => Err(failed(method, failure)),
        FinalExecutionStatus::NotStarted | FinalExecutionStatus::Started => Err(ChainError::Undecided {
            method: method.to_owned(),
            transaction: Some(view.transaction.hash.to_string()),
        }),
    }
}

fn failed(method: &str, failure: &TxExecutionError) -> ChainError {
    let action = match failure {
        TxExecutionError::InvalidTxError(error) => {
            return ChainError::Rejected { reason: error.to_string() };
        }
        TxExecutionError::ActionError(action) => action,
    };
    let text = match &action.kind {
        ActionErrorKind::FunctionCallError(FunctionCallError::ExecutionError(text)) => text.clone(),
        other => other.to_string(),
    };
    ChainError::Contract {
        method: method.to_owned(),
        code: error_code(&text).map(str::to_owned),
        message: panic_message(&text),
    }
}

/// The contract's own words in a failure of the VM.
pub(super) fn panic_message(text: &str) -> String {
    let text = match error_code(text).and_then(|code| text.find(code).map(|at| (at, code.len()))) {
        Some((at, length)) => text[at + length..].trim_start_matches(": "),
        None => text.trim_start_matches("Smart contract panicked: "),
    };
    let end = text.find("\\n").or_else(|| text.find('\n')).unwrap_or(text.len());
    text[..end].trim_end_matches([')', '"', '\\', '}', ' ']).to_owned()
}

impl Reader {
    /// What a refusal by the chain means for the caller.
    pub(super) fn rejected(&self, error: &InvalidTxError, key: &SecretKey) -> ChainError {
        match error {
            InvalidTxError::NotEnoughBalance { signer_id, balance, cost } => ChainError::Funds {
                account: signer_id.clone(),
                have: Yocto(balance.as_yoctonear()),
                need: Yocto(cost.as_yoctonear()),
            },
            InvalidTxError::SignerDoesNotExist { signer_id } => {
                ChainError::NoAccount { account: signer_id.clone(), chain_id: self.network.chain_id.clone() }
            }
            InvalidTxError::InvalidAccessKeyError(_) | InvalidTxError::InvalidSignature => {
                ChainError::NoKey { account: self.account.clone(), key: key.public_key().to_string() }
            }
            other => ChainError::Rejected { reason: other.to_string() },
        }
    }
}
