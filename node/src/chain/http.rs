//! One question to one endpoint: JSON-RPC over HTTP, bounded in bytes. Its caller bounds the time.

use near_jsonrpc_client::errors::{JsonRpcError, JsonRpcServerError};
use near_jsonrpc_client::methods::{self, RpcMethod};
use near_jsonrpc_primitives::message::{Broken, Message, decoded_to_parsed};
use parking_lot::Mutex;

/// Longest answer that is read, bytes: some ten times a full page of the change log, and more than the
/// code of any contract takes.
pub(super) const MAX_ANSWER: usize = 8 << 20;

/// An RPC endpoint.
pub(super) struct Endpoint {
    pub(super) url: String,
    http: reqwest::Client,
    /// The chain that it has to be on and has not shown yet that it is.
    expected: Mutex<Option<String>>,
}

/// Why it is not known that an endpoint is on the expected chain.
pub(super) enum Unproven {
    /// It is on another one.
    Foreign(String),
    /// It did not say.
    Silent(String),
}

/// An answer, and what time it was where it comes from.
pub(super) struct Answered<T> {
    pub(super) answer: T,
    /// The server's clock, milliseconds since 1970, if it tells (most do, to the second).
    pub(super) date_ms: Option<u64>,
}

/// Why a question has no answer.
pub(super) enum Unanswered<E> {
    /// The endpoint took the question and refuses it.
    Handler(E),
    /// Anything else, in words.
    Failed(String),
}

impl Endpoint {
    pub(super) fn new(url: String, http: reqwest::Client) -> Endpoint {
        Endpoint { url, http, expected: Mutex::default() }
    }

    /// From now on no answer counts before it has said that it is on this chain.
    pub(super) fn expect_chain(&self, chain_id: &str) {
        *self.expected.lock() = Some(chain_id.to_owned());
    }

    /// It has said that it is on the expected chain, or none is expected.
    pub(super) fn is_proven(&self) -> bool {
        self.expected.lock().is_none()
    }

    /// Has it say which chain it is on, if it has not yet.
    pub(super) async fn prove(&self) -> Result<(), Unproven> {
        let Some(expected) = self.expected.lock().clone() else { return Ok(()) };
        let status = self.ask(&methods::status::RpcStatusRequest).await;
        let found = match status {
            Ok(Answered { answer, .. }) => answer.chain_id,
            Err(Unanswered::Handler(error)) => return Err(Unproven::Silent(error.to_string())),
            Err(Unanswered::Failed(reason)) => return Err(Unproven::Silent(reason)),
        };
        if found != expected {
            let reason = format!("the RPC endpoint {} is on chain {found}, not on {expected}", self.url);
            return Err(Unproven::Foreign(reason));
        }
        *self.expected.lock() = None;
        Ok(())
    }

    pub(super) async fn call<M: RpcMethod>(
        &self,
        request: &M,
    ) -> Result<Answered<M::Response>, Unanswered<M::Error>> {
        match self.prove().await {
            Ok(()) => self.ask(request).await,
            Err(Unproven::Foreign(reason) | Unproven::Silent(reason)) => Err(Unanswered::Failed(reason)),
        }
    }

    async fn ask<M: RpcMethod>(&self, request: &M) -> Result<Answered<M::Response>, Unanswered<M::Error>> {
        let failed = |error: &dyn std::fmt::Display| Unanswered::Failed(error.to_string());
        let question = methods::to_json(request).map_err(|error| failed(&error))?;
        let sent = self.http.post(&self.url).json(&question).send().await;
        let response = sent.map_err(|error| Unanswered::Failed(describe(&error)))?;
        let status = response.status();
        if status != reqwest::StatusCode::OK {
            return Err(Unanswered::Failed(format!("it answers with HTTP status {status}")));
        }
        let date = response.headers().get(reqwest::header::DATE).and_then(|date| date.to_str().ok());
        let date = date.and_then(|date| httpdate::parse_http_date(date).ok());
        let date_ms = date.map(super::clock::millis);
        let body = read(response).await.map_err(Unanswered::Failed)?;
        let message = decoded_to_parsed(serde_json::from_slice(&body));
        let message = message.map_err(|broken| Unanswered::Failed(unlike(&broken)))?;
        let Message::Response(response) = message else {
            return Err(Unanswered::Failed("it is no answer of JSON-RPC".to_owned()));
        };
        let result = response.result.map_err(|error| refused(error.into()))?;
        match M::parse_handler_response(result) {
            Ok(Ok(answer)) => Ok(Answered { answer, date_ms }),
            Ok(Err(error)) => Err(Unanswered::Handler(error)),
            Err(error) => Err(failed(&error)),
        }
    }
}

/// The body, as long as it is not too long.
async fn read(mut response: reqwest::Response) -> Result<Vec<u8>, String> {
    let mut body = Vec::new();
    while let Some(chunk) = response.chunk().await.map_err(|error| describe(&error))? {
        if body.len() + chunk.len() > MAX_ANSWER {
            return Err(format!("its answer is longer than {MAX_ANSWER} bytes"));
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body)
}

/// The cause that says most; reqwest hides it behind "error sending request".
fn describe(error: &reqwest::Error) -> String {
    if error.is_connect() {
        return "cannot connect".to_owned();
    }
    let mut cause: &dyn std::error::Error = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause.to_string()
}

fn unlike(broken: &Broken) -> String {
    match broken {
        Broken::Unmatched(_) => "it is no answer of JSON-RPC".to_owned(),
        Broken::SyntaxError(error) => format!("it is no JSON: {error}"),
    }
}

fn refused<E>(error: JsonRpcError<E>) -> Unanswered<E> {
    Unanswered::Failed(match error {
        JsonRpcError::ServerError(JsonRpcServerError::HandlerError(error)) => {
            return Unanswered::Handler(error);
        }
        JsonRpcError::ServerError(JsonRpcServerError::RequestValidationError(error)) => format!("{error:?}"),
        JsonRpcError::ServerError(JsonRpcServerError::InternalError { info }) => {
            info.unwrap_or_else(|| "internal error".to_owned())
        }
        JsonRpcError::ServerError(JsonRpcServerError::NonContextualError(error)) => error.to_string(),
        JsonRpcError::ServerError(JsonRpcServerError::ResponseStatusError(error)) => error.to_string(),
        JsonRpcError::TransportError(error) => error.to_string(),
    })
}
