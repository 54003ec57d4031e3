//! Who may call.

use std::net::IpAddr;
use std::sync::Arc;

use axum::extract::{ConnectInfo, Request, State};
use axum::http::header::{AUTHORIZATION, CONTENT_TYPE, HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use futures::FutureExt as _;

use super::Api;
use super::door::Guest;
use super::errors::ApiError;
use crate::client::{ClientError, ErrorCode};

pub(super) async fn admit(State(api): State<Api>, request: Request, next: Next) -> Response {
    if let Err(error) = check(request.headers(), &api.token) {
        return ApiError(error).into_response();
    }
    if let Some(ConnectInfo(guest)) = request.extensions().get::<ConnectInfo<Guest>>() {
        guest.is_known();
    }
    let Ok(_permit) = Arc::clone(&api.calls).try_acquire_owned() else {
        let error = ClientError::new(ErrorCode::Retryable, "too many calls at once", "try again later");
        return ApiError(error).into_response();
    };
    let mut answer = std::pin::pin!(next.run(request));
    tokio::select! {
        biased;
        response = &mut answer => readable(response),
        // Long polls must not outlive the daemon.
        () = api.stop.stopping() => {
            // A request knows what it has cost once it is told too, which may be since the look before.
            if let Some(response) = answer.as_mut().now_or_never() {
                return readable(response);
            }
            let fix = "start it again, and see what it has done before you repeat a call that changes something";
            let error = ClientError::new(ErrorCode::Retryable, "the daemon is stopping", fix);
            ApiError(error).into_response()
        }
    }
}

/// What is refused before any call of the API has seen it, such as a path that is no text, fails like all else.
fn readable(response: Response) -> Response {
    let is_json = |kind: &HeaderValue| kind.as_bytes().starts_with(b"application/json");
    let status = response.status();
    if !status.is_client_error() || response.headers().get(CONTENT_TYPE).is_some_and(is_json) {
        return response;
    }
    let what = format!("the call cannot be read ({status})");
    ApiError(ClientError::new(ErrorCode::Usage, what, "see docs/api.md")).into_response()
}

fn check(headers: &HeaderMap, token: &blake3::Hash) -> Result<(), ClientError> {
    if !headers.get(HOST).is_some_and(is_loopback) {
        let message = "the Host header names no loopback address";
        return Err(ClientError::new(ErrorCode::WrongKey, message, "call the API as 127.0.0.1 or localhost"));
    }
    if headers.contains_key(ORIGIN) {
        let message = "calls from web pages are not taken";
        return Err(ClientError::new(
            ErrorCode::WrongKey,
            message,
            "call from a program, without an Origin header",
        ));
    }
    let given = headers.get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let given = given.strip_prefix(b"Bearer ").unwrap_or_default();
    // Hashes compare in constant time.
    if blake3::hash(given) != *token {
        return Err(ClientError::new(
            ErrorCode::WrongKey,
            "the token is missing or wrong",
            "send `Authorization: Bearer TOKEN` with the content of HOME/api-token",
        ));
    }
    Ok(())
}

fn is_loopback(host: &HeaderValue) -> bool {
    let Ok(host) = host.to_str() else { return false };
    let name = match host.strip_prefix('[') {
        Some(v6) => v6.split(']').next().unwrap_or_default(),
        None => host.split(':').next().unwrap_or_default(),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|&(name, value)| {
                (axum::http::HeaderName::from_static(name), HeaderValue::from_static(value))
            })
            .collect()
    }

    #[test]
    fn only_loopback_names_with_the_token_and_no_web_page() {
        let token = blake3::hash(b"secret");
        let ok = |pairs: &[(&'static str, &'static str)]| check(&headers(pairs), &token).is_ok();
        let auth = ("authorization", "Bearer secret");
        assert!(ok(&[("host", "127.0.0.1:7740"), auth]));
        assert!(ok(&[("host", "localhost"), auth]));
        assert!(ok(&[("host", "[::1]:7740"), auth]));
        assert!(!ok(&[("host", "attacker.example:7740"), auth]));
        assert!(!ok(&[("host", "localhost.attacker.example"), auth]));
        assert!(!ok(&[auth]));
        assert!(!ok(&[("host", "127.0.0.1"), auth, ("origin", "http://attacker.example")]));
        assert!(!ok(&[("host", "127.0.0.1"), ("authorization", "Bearer secre")]));
        assert!(!ok(&[("host", "127.0.0.1"), ("authorization", "secret")]));
        assert!(!ok(&[("host", "127.0.0.1")]));
    }
}
