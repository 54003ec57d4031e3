//! What can go wrong with the chain, and what to do about it.

use por_types::interface::code;
use por_types::{AccountId, Yocto};

use crate::client::{ClientError, ErrorCode};
use crate::exit::CliError;

/// A failed view or call.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ChainError {
    /// No endpoint gave an answer in time.
    #[error("no RPC endpoint answers: {reasons}")]
    Unreachable { reasons: String },
    /// Every endpoint is behind what was seen before.
    #[error("all RPC endpoints lag behind what was seen before, in {what}")]
    Lagging { what: String },
    /// Another chain, another version of the contract, or a test contract where real money is.
    #[error("{reason}")]
    Foreign { reason: String },
    /// There is no contract at the account.
    #[error("{contract} holds no contract")]
    NoContract { contract: AccountId },
    /// The contract refused the call; nothing has changed but the gas spent.
    #[error("the contract refuses {method}: {message}")]
    Contract {
        method: String,
        /// One of [`por_types::interface::code`], `None` for a failure of the VM itself.
        code: Option<String>,
        message: String,
    },
    /// The chain refused the transaction; nothing has changed.
    #[error("the chain refuses the transaction: {reason}")]
    Rejected { reason: String },
    /// The account cannot pay for the call.
    #[error("{account} has {} and the call needs {}", have.to_near_string(), need.to_near_string())]
    Funds { account: AccountId, have: Yocto, need: Yocto },
    #[error("account {account} does not exist on {chain_id}")]
    NoAccount { account: AccountId, chain_id: String },
    /// The account does not know the key, or the key may not do this.
    #[error("key {key} may not sign for {account}")]
    NoKey { account: AccountId, key: String },
    /// The call is on its way and its outcome not known yet. It is not lost: it is stored and
    /// pursued, also after a restart.
    #[error("the outcome of {method} is not known yet{}", transaction.as_ref().map(|hash| format!(" (transaction {hash})")).unwrap_or_default())]
    Undecided { method: String, transaction: Option<String> },
    /// Earlier calls have taken so long that this one was neither signed nor stored; it never will be.
    #[error("{method} was not sent: an earlier call waits for the chain")]
    Unsent { method: String },
    /// A transaction with this call took its nonce, and no endpoint remembers its outcome.
    #[error("the outcome of {method} is forgotten by all endpoints (transaction {transaction})")]
    Forgotten { method: String, transaction: String },
    /// The store of intents failed; nothing was sent.
    #[error("the intent could not be stored: {0}")]
    Store(String),
    /// An endpoint's answer does not have the form that it should.
    #[error("the answer to {method} cannot be read: {reason}")]
    Answer { method: String, reason: String },
    /// The chain was opened without a key.
    #[error("there is no key to sign with")]
    ReadOnly,
    /// The task that sends transactions has ended.
    #[error("the node is shutting down")]
    Stopped,
    /// The task that sends transactions has failed; what it had signed is stored.
    #[error("no transaction can be sent any more: {reason}")]
    Broken { reason: String },
}

impl ChainError {
    /// The contract's stable code, see [`por_types::interface::code`].
    pub fn contract_code(&self) -> Option<&str> {
        match self {
            ChainError::Contract { code, .. } => code.as_deref(),
            _ => None,
        }
    }

    /// True if the same call may succeed later without anybody doing anything.
    pub fn is_transient(&self) -> bool {
        matches!(
            self,
            ChainError::Unreachable { .. }
                | ChainError::Lagging { .. }
                | ChainError::Undecided { .. }
                | ChainError::Unsent { .. }
        ) || matches!(
            self.contract_code(),
            Some(code::TOO_EARLY | code::CHECKS_PENDING | code::TOO_MANY_PENDING)
        )
    }

    /// True if the call has had no effect and never will: not if nobody knows.
    pub(crate) fn has_changed_nothing(&self) -> bool {
        match self {
            ChainError::Undecided { .. }
            | ChainError::Forgotten { .. }
            | ChainError::Answer { .. }
            | ChainError::Stopped
            | ChainError::Broken { .. } => false,
            // What is signed is pursued until the chain can be reached: this was not.
            ChainError::Unreachable { .. }
            | ChainError::Lagging { .. }
            | ChainError::Foreign { .. }
            | ChainError::NoContract { .. }
            | ChainError::Contract { .. }
            | ChainError::Rejected { .. }
            | ChainError::Funds { .. }
            | ChainError::NoAccount { .. }
            | ChainError::NoKey { .. }
            | ChainError::Unsent { .. }
            | ChainError::Store(_)
            | ChainError::ReadOnly => true,
        }
    }

    /// The row of the exit code table.
    pub fn error_code(&self) -> ErrorCode {
        match self {
            ChainError::Unreachable { .. } | ChainError::Lagging { .. } => ErrorCode::Unreachable,
            ChainError::Foreign { .. } | ChainError::Answer { .. } => ErrorCode::Foreign,
            ChainError::NoContract { .. } | ChainError::NoAccount { .. } => ErrorCode::NotFound,
            ChainError::Contract { code, .. } => contract_error_code(code.as_deref()),
            ChainError::Rejected { .. } => ErrorCode::Fatal,
            ChainError::Funds { .. } => ErrorCode::Budget,
            ChainError::NoKey { .. } | ChainError::ReadOnly => ErrorCode::WrongKey,
            ChainError::Undecided { .. } | ChainError::Unsent { .. } | ChainError::Stopped => {
                ErrorCode::Retryable
            }
            ChainError::Forgotten { .. } => ErrorCode::Fatal,
            ChainError::Broken { .. } => ErrorCode::Other,
            ChainError::Store(cause) if is_full(cause) => ErrorCode::DiskFull,
            ChainError::Store(_) => ErrorCode::CorruptStore,
        }
    }

    /// What the user can do; may be empty where the message says it.
    pub fn fix(&self) -> &'static str {
        match self {
            ChainError::Unreachable { .. } => "check network.rpc_urls and the connection",
            ChainError::Lagging { .. } => "wait, or add another endpoint to network.rpc_urls",
            ChainError::Foreign { .. } => "check chain id and contract, or update this program",
            ChainError::NoContract { .. } => {
                "check the contract's account (--contract, or network.contract in config.toml) and the network"
            }
            ChainError::Contract { .. } => "correct what it says and repeat the call",
            ChainError::Rejected { .. } => "correct what it says and repeat the call",
            ChainError::Funds { .. } => "transfer NEAR to the account, or use a smaller amount",
            ChainError::NoAccount { .. } => "create and fund the account first",
            ChainError::NoKey { .. } => "add the key to the account, or import the account's own key",
            ChainError::Undecided { .. } => "do not repeat it; look at the status in a moment",
            ChainError::Unsent { .. } => "see `por status` and the log, and repeat it when the chain answers",
            ChainError::Forgotten { .. } => "look at the account's state before you repeat it",
            ChainError::Store(_) => "check disk space and the store, then repeat the call",
            ChainError::Answer { .. } => "use another endpoint in network.rpc_urls",
            ChainError::ReadOnly => "run `por init`, or import a key",
            ChainError::Stopped | ChainError::Broken { .. } => "start the daemon again; nothing is lost",
        }
    }
}

/// Whether the store of intents had no space. It speaks in words: those of
/// [`crate::store::StoreError::DiskFull`].
fn is_full(cause: &str) -> bool {
    cause.starts_with("no space left")
}

fn contract_error_code(contract: Option<&str>) -> ErrorCode {
    match contract {
        Some(code::NO_CHANNEL | code::NOT_REGISTERED) => ErrorCode::NotFound,
        Some(code::ACCOUNT_TAKEN | code::KEY_TAKEN) => ErrorCode::Exists,
        Some(code::DEPOSIT | code::STAKE_TOO_LOW | code::STAKE_LOCKED | code::WITHDRAWABLE) => {
            ErrorCode::Budget
        }
        Some(code::TOO_EARLY | code::CHECKS_PENDING | code::TOO_MANY_PENDING) => ErrorCode::Retryable,
        Some(code::ARGUMENT | code::PARAMS) => ErrorCode::Usage,
        Some(code::STATE_VERSION) => ErrorCode::Foreign,
        Some(code::SIGNATURE | code::WEAK_KEY) => ErrorCode::WrongKey,
        _ => ErrorCode::Fatal,
    }
}

/// The contract names amounts in yoctoNEAR, as machines do: with `Yocto` of more than 15 digits in NEAR.
fn in_near(text: &str) -> String {
    let mut told = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let digits = &rest[start..];
        let end = digits.find(|c: char| !c.is_ascii_digit()).unwrap_or(digits.len());
        // Nothing that is a part of a name or of another number.
        let part = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        // A dot may be the sentence's.
        let after = digits[end..].strip_prefix('.').unwrap_or(&digits[end..]);
        let alone = !rest[..start].ends_with(part) && !after.starts_with(part);
        told.push_str(&rest[..start]);
        match digits[..end].parse::<u128>() {
            Ok(amount) if alone && end > 15 => {
                told.push_str(&Yocto(amount).to_near_string());
                rest = digits[end..].strip_prefix(" yocto").unwrap_or(&digits[end..]);
            }
            _ => {
                told.push_str(&digits[..end]);
                rest = &digits[end..];
            }
        }
    }
    told + rest
}

impl From<ChainError> for ClientError {
    fn from(error: ChainError) -> ClientError {
        let code = error.error_code();
        let message = match &error {
            ChainError::Contract { .. } => in_near(&error.to_string()),
            _ => error.to_string(),
        };
        // The contract says what happened and, after a semicolon, what to do.
        match (&error, message.rsplit_once("; ")) {
            (ChainError::Contract { .. }, Some((what, fix))) => ClientError::new(code, what, fix),
            _ => ClientError::new(code, message, error.fix()),
        }
    }
}

impl From<ChainError> for CliError {
    fn from(error: ChainError) -> CliError {
        ClientError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    #[test]
    fn people_are_told_of_near() {
        let said = "alice.near has 5250000000000000000000000 yocto withdrawable; ask for at most that";
        assert_eq!(in_near(said), "alice.near has 5.25 NEAR withdrawable; ask for at most that");
        let said =
            "1 yocto attached, of which 1 are left for the bond of 2000000000000000000000000; attach more";
        assert_eq!(
            in_near(said),
            "1 yocto attached, of which 1 are left for the bond of 2 NEAR; attach more"
        );
        for other in [
            "channel 7 closes at 1763878130000",
            "a1234567890123456789.near",
            "1234567890123456789.near",
            "9999999999999999999999999999999999999999999",
            "",
        ] {
            assert_eq!(in_near(other), other);
        }
    }

    #[test]
    fn a_full_disk_is_not_a_damaged_store() {
        let of = |error: StoreError| ChainError::Store(error.to_string()).error_code();
        assert_eq!(of(StoreError::DiskFull { path: "por.redb".into() }), ErrorCode::DiskFull);
        let damaged = StoreError::Damaged { path: "por.redb".into(), cause: "no space left".into() };
        assert_eq!(of(damaged), ErrorCode::CorruptStore);
    }
}
