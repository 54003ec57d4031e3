//! Apps that are served by local clients, and provider records.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use por_core::AppPricing;

use super::params::{Pairs, Params, json, key, parse};
use super::requests::binary;
use super::{Api, Result};
use crate::client::{Provider, ServeRequest, headers};

/// Longest long poll.
pub(super) const MAX_WAIT_MS: u64 = 60_000;

pub(super) async fn serve(
    State(api): State<Api>,
    Path(app): Path<String>,
    body: std::result::Result<Bytes, BytesRejection>,
) -> Result<StatusCode> {
    let ServeRequest { base, per_byte, max_queued } = json(&body?)?;
    api.daemon.apps.serve(&app, AppPricing { base, per_byte }, max_queued).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn stop(State(api): State<Api>, Path(app): Path<String>) -> StatusCode {
    api.daemon.apps.stop(&app);
    StatusCode::NO_CONTENT
}

pub(super) async fn next(State(api): State<Api>, Path(app): Path<String>, query: Pairs) -> Result<Response> {
    let wait = Params::read(query, &["wait_ms"])?.get("wait_ms")?.unwrap_or(0).min(MAX_WAIT_MS);
    let Some(request) = api.daemon.apps.next(&app, Duration::from_millis(wait)).await? else {
        return Ok(StatusCode::NO_CONTENT.into_response());
    };
    let fields = [
        (headers::REQUEST_ID, request.id().to_string()),
        (headers::AUTHOR, request.author().to_string()),
        (headers::RESPONSE_LIMIT, request.response_limit().to_string()),
        (headers::SERVER_PRICE, request.server_price().to_string()),
    ];
    Ok(binary(request.body().clone(), fields)?)
}

pub(super) async fn respond(
    State(api): State<Api>,
    Path((app, request)): Path<(String, String)>,
    body: std::result::Result<Bytes, BytesRejection>,
) -> Result<StatusCode> {
    let request = parse("request", &request)?;
    api.daemon.apps.respond(&app, request, body?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn providers(
    State(api): State<Api>,
    Path(text): Path<String>,
    query: Pairs,
) -> Result<Json<Vec<Provider>>> {
    let params = Params::read(query, &["limit", "wait_ms"])?;
    let limit = params.get("limit")?.unwrap_or(20);
    let wait = Duration::from_millis(params.get("wait_ms")?.unwrap_or(5_000));
    Ok(Json(api.daemon.providers(key(&text)?, limit, wait).await?))
}

pub(super) async fn provide(State(api): State<Api>, Path(text): Path<String>) -> Result<StatusCode> {
    api.daemon.provide(key(&text)?).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn stop_providing(State(api): State<Api>, Path(text): Path<String>) -> Result<StatusCode> {
    api.daemon.stop_providing(key(&text)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
