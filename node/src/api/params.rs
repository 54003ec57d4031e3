//! Reading what callers send; every mistake is named.

use std::collections::HashMap;
use std::str::FromStr;

use axum::body::Bytes;
use axum::extract::Query;
use serde::de::DeserializeOwned;

use super::errors::ApiError;
use crate::client::{ClientError, ErrorCode};

pub(super) fn usage(message: impl Into<String>) -> ApiError {
    ClientError::new(ErrorCode::Usage, message, "see docs/api.md").into()
}

/// The query part of a URL, as it comes.
pub(super) type Pairs = Query<Vec<(String, String)>>;

/// The query part of a URL.
pub(super) struct Params(HashMap<String, String>);

impl Params {
    /// Errors: a name that is not one of `known`, or that comes twice. Who misspells the most that a request
    /// may cost must not have it sent without a bound.
    pub(super) fn read(query: Pairs, known: &[&str]) -> Result<Params, ApiError> {
        let mut params = HashMap::new();
        for (name, text) in query.0 {
            if !known.contains(&name.as_str()) {
                return Err(usage(format!("there is no parameter {name:?} here")));
            }
            if params.contains_key(&name) {
                return Err(usage(format!("parameter {name} comes twice")));
            }
            params.insert(name, text);
        }
        Ok(Params(params))
    }

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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_misspelt_is_refused() {
        let read = |text: &str| {
            let uri = format!("/v1/requests?{text}").parse().expect("uri");
            let query = Query::try_from_uri(&uri).expect("any query is pairs");
            Params::read(query, &["app", "max_price"]).map_err(|error| error.0)
        };
        let params = read("app=a%20b&max_price=7").expect("both are known");
        assert_eq!(params.need::<String>("app").ok().as_deref(), Some("a b"));
        assert_eq!(params.get::<u64>("max_price").ok().flatten(), Some(7));
        for wrong in ["app=a&maxprice=7", "app=a&max_price=7&max_price=700", "app=a&=", "app=a&%ff=1"] {
            let error = read(wrong).map(drop).expect_err(wrong);
            assert_eq!(error.code, ErrorCode::Usage, "{wrong}: {error}");
        }
    }

    /// A withdrawal without an amount is of everything.
    #[test]
    fn what_is_misspelt_in_a_body_is_refused() {
        use crate::client::{AmountBody, ConfirmBody, QuoteRequest, ServeRequest, WithdrawBody};
        fn refused<T: DeserializeOwned>(body: &'static str) {
            let error = json::<T>(&Bytes::from_static(body.as_bytes())).map(drop).map_err(|error| error.0);
            let error = error.expect_err(body);
            assert_eq!(error.code, ErrorCode::Usage, "{body}: {error}");
        }
        refused::<WithdrawBody>(r#"{"amout":"5"}"#);
        refused::<AmountBody>(r#"{"amount":"5","deposit":"5"}"#);
        refused::<ServeRequest>(r#"{"max_queued":1,"price":"5"}"#);
        refused::<ConfirmBody>(r#"{"deposit":"5","term":{}}"#);
        let key = por_types::NodeKey([1; 32]);
        let quote = format!(r#"{{"destination":"{key}","body_len":1,"response_limit":1,"max_latency":5}}"#);
        assert!(json::<QuoteRequest>(&Bytes::from(quote)).is_err());
    }
}
