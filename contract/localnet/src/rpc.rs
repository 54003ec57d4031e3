//! NEAR's JSON-RPC over HTTP.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Bytes;
use axum::extract::{DefaultBodyLimit, State as Extract};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use near_crypto::SecretKey;
use near_jsonrpc_primitives::errors::{RpcError, RpcErrorKind};
use serde_json::{Value, json};
use tokio::sync::Semaphore;

use crate::chain::{Shared, Worker};

mod blocks;
mod node;
mod query;
mod sandbox;
mod status;
mod transactions;

/// Contract calls of queries that run at the same time.
const PARALLEL_VIEWS: usize = 8;

/// Everything a request may need.
pub(crate) struct Node {
    pub(crate) shared: Arc<Shared>,
    pub(crate) worker: Worker,
    pub(crate) node_key: SecretKey,
    pub(crate) addr: SocketAddr,
    /// How long a request waits for its transaction.
    pub(crate) patience: Duration,
    views: Arc<Semaphore>,
}

type Answer = Result<Value, RpcError>;

impl Node {
    pub(crate) fn new(
        shared: Arc<Shared>,
        worker: Worker,
        node_key: SecretKey,
        addr: SocketAddr,
        patience: Duration,
    ) -> Self {
        let views = Arc::new(Semaphore::new(PARALLEL_VIEWS));
        Self { shared, worker, node_key, addr, patience, views }
    }

    async fn call(&self, method: &str, params: Value) -> Answer {
        match method {
            "status" => node::status(self),
            "health" => node::health(self),
            "network_info" => Ok(node::network_info()),
            "validators" => node::validators(self, &params),
            "gas_price" => node::gas_price(self, params),
            "EXPERIMENTAL_genesis_config" | "genesis_config" => Ok(node::genesis_config(self)),
            "block" => blocks::block(self, params),
            "chunk" => blocks::chunk(self, params),
            "EXPERIMENTAL_receipt" | "receipt" => blocks::receipt(self, params),
            "query" => query::query(self, params).await,
            "broadcast_tx_async" => transactions::broadcast_async(self, params),
            "broadcast_tx_commit" => transactions::broadcast_commit(self, params).await,
            "send_tx" => transactions::send(self, params).await,
            "tx" => transactions::status(self, params, false).await,
            "tx_status" | "EXPERIMENTAL_tx_status" => transactions::status(self, params, true).await,
            "sandbox_patch_state" => sandbox::patch_state(self, params).await,
            "sandbox_fast_forward" => sandbox::fast_forward(self, params).await,
            "localnet_faucet" => sandbox::faucet(self, params).await,
            _ => Err(RpcError::method_not_found(method.to_owned())),
        }
    }
}

/// The routes: JSON-RPC by POST, and what monitoring asks for by GET.
pub(crate) fn router(node: Arc<Node>, max_body: usize) -> Router {
    Router::new()
        .route("/", post(handle))
        .route("/status", get(|Extract(node): Extract<Arc<Node>>| async move { plain(node::status(&node)) }))
        .route("/health", get(|Extract(node): Extract<Arc<Node>>| async move { plain(node::health(&node)) }))
        .layer(DefaultBodyLimit::max(max_body))
        .with_state(node)
}

fn plain(answer: Answer) -> Response {
    match answer {
        Ok(value) => axum::Json(value).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn handle(Extract(node): Extract<Arc<Node>>, body: Bytes) -> Response {
    let request: Value = match serde_json::from_slice(&body) {
        Ok(request) => request,
        Err(error) => return respond(Value::Null, Err(RpcError::parse_error(error.to_string()))),
    };
    let id = request.get("id").cloned().unwrap_or(Value::Null);
    let Some(method) = request.get("method").and_then(Value::as_str) else {
        let error = RpcError::parse_error("the request names no method".to_owned());
        return respond(id, Err(error));
    };
    let params = request.get("params").cloned().unwrap_or(Value::Null);
    let answer = node.call(method, params).await;
    if let Err(error) = &answer {
        tracing::debug!(method, %error, "request failed");
    }
    respond(id, answer)
}

/// The answer, with the HTTP status that NEAR's node gives it.
fn respond(id: Value, answer: Answer) -> Response {
    match answer {
        Ok(result) => axum::Json(json!({ "jsonrpc": "2.0", "id": id, "result": result })).into_response(),
        Err(error) => {
            let status = http_status(&error);
            let body = json!({ "jsonrpc": "2.0", "id": id, "error": error });
            (status, axum::Json(body)).into_response()
        }
    }
}

fn http_status(error: &RpcError) -> StatusCode {
    match &error.error_struct {
        Some(RpcErrorKind::RequestValidationError(_)) => StatusCode::BAD_REQUEST,
        Some(RpcErrorKind::InternalError(_)) => StatusCode::INTERNAL_SERVER_ERROR,
        Some(RpcErrorKind::HandlerError(error)) if error["name"] == "TIMEOUT_ERROR" => {
            StatusCode::REQUEST_TIMEOUT
        }
        _ => StatusCode::OK,
    }
}

fn parse<T: serde::de::DeserializeOwned>(params: Value) -> Result<T, RpcError> {
    serde_json::from_value(params)
        .map_err(|error| RpcError::parse_error(format!("Failed parsing args: {error}")))
}

fn to_value<T: serde::Serialize>(value: &T) -> Answer {
    serde_json::to_value(value).map_err(|error| RpcError::serialization_error(error.to_string()))
}

fn internal(error: impl std::fmt::Display) -> RpcError {
    RpcError::new_internal_error(None, error.to_string())
}
