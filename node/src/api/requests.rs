//! Requests and quotes.

use std::time::Duration;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use por_types::ChannelId;

use super::params::{Pairs, Params, json, parse, usage};
use super::{Api, Result};
use crate::client::{ApiRequest, ApiResponse, Quote, headers};
use crate::runtime::other;

const MAX_AVOID: usize = 1024;
/// What a request may name.
const PARAMETERS: [&str; 8] =
    ["destination", "app", "response_limit", "server_price", "max_price", "deadline_ms", "avoid", "label"];

pub(super) async fn quote(
    State(api): State<Api>,
    body: std::result::Result<Bytes, BytesRejection>,
) -> Result<Json<Quote>> {
    let query = json(&body?)?;
    Ok(Json(api.daemon.requester.quote(&query).await?))
}

pub(super) async fn send(
    State(api): State<Api>,
    query: Pairs,
    body: std::result::Result<Bytes, BytesRejection>,
) -> Result<Response> {
    let request = read_request(&Params::read(query, &PARAMETERS)?, body?)?;
    let response = api.daemon.request(&request, api.stop.stopping()).await?;
    Ok(write_response(response)?)
}

fn read_request(params: &Params, body: Bytes) -> Result<ApiRequest> {
    let avoid = params.get::<String>("avoid")?.unwrap_or_default();
    let avoid: Vec<ChannelId> =
        avoid.split(',').filter(|id| !id.is_empty()).map(|id| parse("avoid", id)).collect::<Result<_>>()?;
    if avoid.len() > MAX_AVOID {
        return Err(usage(format!("at most {MAX_AVOID} channels can be avoided")));
    }
    let (destination, app) = (params.need("destination")?, params.need::<String>("app")?);
    let deadline = params.get("deadline_ms")?.map(Duration::from_millis);
    Ok(ApiRequest {
        server_price: params.get("server_price")?.unwrap_or_default(),
        max_price: params.get("max_price")?,
        deadline: deadline.unwrap_or(ApiRequest::DEFAULT_DEADLINE),
        avoid,
        label: params.get("label")?,
        ..ApiRequest::new(destination, app, body, params.need("response_limit")?)
    })
}

fn write_response(response: ApiResponse) -> std::result::Result<Response, crate::client::ClientError> {
    let receipt = borsh::to_vec(&response.receipt).map_err(|error| other(error.to_string()))?;
    let route: Vec<String> = response.route.iter().map(ChannelId::to_string).collect();
    let fields = [
        (headers::REQUEST_ID, response.request.to_string()),
        (headers::PRICE, response.price.to_string()),
        (headers::RECEIPT, BASE64.encode(receipt)),
        (headers::ROUTE, route.join(",")),
        (headers::ATTEMPTS, response.attempts.to_string()),
    ];
    binary(response.body, fields)
}

/// A binary answer with headers of the API.
pub(super) fn binary(
    body: Bytes,
    fields: impl IntoIterator<Item = (&'static str, String)>,
) -> std::result::Result<Response, crate::client::ClientError> {
    let mut response = ([(header::CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"))], body)
        .into_response();
    for (name, value) in fields {
        let value = HeaderValue::try_from(value).map_err(|error| other(error.to_string()))?;
        response.headers_mut().insert(HeaderName::from_static(name), value);
    }
    Ok(response)
}
