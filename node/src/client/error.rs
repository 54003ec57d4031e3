//! What a client of the daemon can be told went wrong.

use std::fmt;

use por_types::{RequestId, Yocto};
use serde::{Deserialize, Serialize};

/// Kind of a failure. Each kind is one row of the exit code table of the command line tools, so
/// that a script, an app over HTTP and a Rust program tell failures apart the same way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ErrorCode {
    /// None of the others.
    Other,
    /// The caller's arguments are wrong: correct them.
    Usage,
    /// No route to the destination within the latency bound: open a channel or relax the bound.
    NoRoute,
    /// No such app, request, channel or account.
    NotFound,
    /// The other side is busy or out of balance: try again later.
    Retryable,
    /// Daemon, RPC endpoint or peer cannot be reached.
    Unreachable,
    /// Refused for good: the same call will be refused again.
    Fatal,
    /// The price is above what the caller allows, or funds do not cover it.
    Budget,
    /// The disk is full; nothing was lost, free some space and start again.
    DiskFull,
    /// No outcome within the caller's deadline.
    Deadline,
    /// Wrong token, key or password.
    WrongKey,
    /// The address to listen on is taken.
    PortInUse,
    /// It exists already.
    Exists,
    /// The store is damaged or belongs to another node.
    CorruptStore,
    /// The contract or a peer speaks another version, or belongs to another chain.
    Foreign,
    /// Bytes do not match their signature or hash.
    Verification,
    /// An edge of the path was severed.
    Severed,
}

impl ErrorCode {
    /// Every kind, in the order of the table.
    pub const ALL: [ErrorCode; 17] = [
        ErrorCode::Other,
        ErrorCode::Usage,
        ErrorCode::NoRoute,
        ErrorCode::NotFound,
        ErrorCode::Retryable,
        ErrorCode::Unreachable,
        ErrorCode::Fatal,
        ErrorCode::Budget,
        ErrorCode::DiskFull,
        ErrorCode::Deadline,
        ErrorCode::WrongKey,
        ErrorCode::PortInUse,
        ErrorCode::Exists,
        ErrorCode::CorruptStore,
        ErrorCode::Foreign,
        ErrorCode::Verification,
        ErrorCode::Severed,
    ];

    /// The process exit code of a command that ends with this failure.
    pub const fn exit_code(self) -> u8 {
        match self {
            ErrorCode::Other => 1,
            ErrorCode::Usage => 2,
            ErrorCode::NoRoute => 3,
            ErrorCode::NotFound => 4,
            ErrorCode::Retryable => 5,
            ErrorCode::Unreachable => 6,
            ErrorCode::Fatal => 7,
            ErrorCode::Budget => 8,
            ErrorCode::DiskFull => 9,
            ErrorCode::Deadline => 10,
            ErrorCode::WrongKey => 11,
            ErrorCode::PortInUse => 12,
            ErrorCode::Exists => 13,
            ErrorCode::CorruptStore => 14,
            ErrorCode::Foreign => 15,
            ErrorCode::Verification => 32,
            ErrorCode::Severed => 40,
        }
    }

    /// The name in the `code` field of the API's errors.
    pub const fn name(self) -> &'static str {
        match self {
            ErrorCode::Other => "other",
            ErrorCode::Usage => "usage",
            ErrorCode::NoRoute => "no-route",
            ErrorCode::NotFound => "not-found",
            ErrorCode::Retryable => "retryable",
            ErrorCode::Unreachable => "unreachable",
            ErrorCode::Fatal => "fatal",
            ErrorCode::Budget => "budget",
            ErrorCode::DiskFull => "disk-full",
            ErrorCode::Deadline => "deadline",
            ErrorCode::WrongKey => "wrong-key",
            ErrorCode::PortInUse => "port-in-use",
            ErrorCode::Exists => "exists",
            ErrorCode::CorruptStore => "corrupt-store",
            ErrorCode::Foreign => "foreign",
            ErrorCode::Verification => "verification",
            ErrorCode::Severed => "severed",
        }
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A failed call: what happened, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}{}{fix}", if fix.is_empty() { "" } else { "; " })]
pub struct ClientError {
    pub code: ErrorCode,
    pub message: String,
    /// What the caller can do; may be empty.
    pub fix: String,
    /// Most that a request without an answer has cost or may still cost: it was paid for and not refunded. Zero as
    /// well where nobody knows, for the daemon died over a request without `max_price`.
    pub spent: Yocto,
    /// Ids of what was sent for a request without an answer and not refunded in full, in this order: attempts over
    /// severed edges, and the one that had no outcome. What becomes of them is in the daemon's news.
    pub requests: Vec<RequestId>,
}

impl ClientError {
    pub fn new(code: ErrorCode, message: impl Into<String>, fix: impl Into<String>) -> ClientError {
        ClientError {
            code,
            message: message.into(),
            fix: fix.into(),
            spent: Yocto::ZERO,
            requests: Vec::new(),
        }
    }

    /// Many messages say what to do after a semicolon: that becomes the fix, where there is none.
    #[must_use]
    pub fn in_two_lines(mut self) -> ClientError {
        if self.fix.is_empty()
            && let Some((what, advice)) = self.message.rsplit_once("; ")
        {
            (self.message, self.fix) = (what.to_owned(), advice.to_owned());
        }
        self
    }

    /// The same, of a request that has cost as much.
    #[must_use]
    pub fn having_spent(self, spent: Yocto) -> ClientError {
        ClientError { spent, ..self }
    }

    /// The same, after these were sent.
    #[must_use]
    pub fn having_sent(self, requests: Vec<RequestId>) -> ClientError {
        ClientError { requests, ..self }
    }
}

/// Body of every failed answer of the API.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    pub error: String,
    #[serde(default)]
    pub fix: String,
    pub code: ErrorCode,
    /// [`ErrorCode::exit_code`], for scripts.
    pub exit: u8,
    /// See [`ClientError::spent`]; left out if nothing is.
    #[serde(default, skip_serializing_if = "nothing")]
    pub spent: Yocto,
    /// See [`ClientError::requests`]; left out if there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<RequestId>,
}

fn nothing(amount: &Yocto) -> bool {
    amount.is_zero()
}

impl From<&ClientError> for ErrorBody {
    fn from(error: &ClientError) -> Self {
        ErrorBody {
            error: error.message.clone(),
            fix: error.fix.clone(),
            code: error.code,
            exit: error.code.exit_code(),
            spent: error.spent,
            requests: error.requests.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_what_json_says_and_exit_codes_are_distinct() {
        let mut seen = std::collections::BTreeSet::new();
        for code in ErrorCode::ALL {
            let json = serde_json::to_string(&code).expect("unit variants serialize");
            assert_eq!(json, format!("{:?}", code.name()));
            assert!(seen.insert(code.exit_code()), "{code} shares its exit code");
        }
    }
}
