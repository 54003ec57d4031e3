//! Reading what callers send; every mistake is named.

use std::collections::HashMap;
use std::str::FromStr;

use axum::body::Bytes;
use serde::de::DeserializeOwned;

use super::errors::ApiError;
use crate::client::{ClientError, ErrorCode};

pub(super) fn usage(message: impl Into<String>) -> ApiError {
    ClientError::new(ErrorCode::Usage, message, "see docs/api.md").into()
}

/// The query part of a URL.
pub(super) struct Params(pub(super) HashMap<String, String>);

impl Params {
    pub(super) fn need<T: FromStr>(&self, name: &str) -> Result<T, ApiError> {
        self.get(name)?.ok_or_else(|| usage(format!("parameter {name} is missing")))
    }

    pub(super) fn get<T: FromStr>(&self, name: &str) -> Result<Option<T>, ApiError> {
        self.0.get(name).map(|text| parse(name, text)).transpose()
    }
}

pub(super) fn parse<T: FromStr>(name: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|_| usage(format!("{name} {text:?} cannot be read")))
}

/// 64 hex digits.
pub(super) fn key(text: &str) -> Result<[u8; 32], ApiError> {
    let mut key = [0; 32];
    hex::decode_to_slice(text, &mut key).map_err(|_| usage("a provider key has 64 hex digits"))?;
    Ok(key)
}

/// A body of JSON; an empty one is `{}`.
pub(super) fn json<T: DeserializeOwned>(body: &Bytes) -> Result<T, ApiError> {
    let bytes: &[u8] = if body.is_empty() { b"{}" } else { body };
    serde_json::from_slice(bytes).map_err(|error| usage(format!("the body: {error}")))
}
