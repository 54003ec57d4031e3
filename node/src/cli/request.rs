//! `por route` and `por request`.

use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;

use super::args::{RequestArgs, RouteArgs};
use super::{Context, tables};
use crate::client::{ApiRequest, ApiResponse, QuoteRequest};
use crate::exit::{CliError, ExitCode};

pub(super) async fn route(context: &Context, args: RouteArgs) -> Result<(), CliError> {
    let query = QuoteRequest {
        destination: args.destination,
        app: None,
        body_len: args.body_len,
        response_limit: args.response_limit,
        server_price: args.server_price,
        max_latency_ms: args.max_latency_ms,
        alternatives: Some(args.alternatives),
    };
    let quote = context.client()?.quote(&query).await?;
    context.output.print(&quote, tables::quote)
}

pub(super) async fn request(context: &Context, args: RequestArgs) -> Result<(), CliError> {
    let client = context.client()?;
    let limit = por_core::Limits::default().max_body;
    let source = args.body.clone();
    let body = tokio::task::spawn_blocking(move || read_body(source.as_deref(), limit));
    let body = body.await.map_err(|error| CliError::new(ExitCode::Other, error.to_string(), ""))??;
    // Before anything is paid for what could not be written.
    let target = args.output.as_deref().map(Target::open).transpose()?;
    let response = client
        .request(ApiRequest {
            server_price: args.server_price,
            max_price: args.max_price,
            deadline: args.deadline,
            label: args.label,
            ..ApiRequest::new(args.destination, args.app, body, args.response_limit)
        })
        .await?;
    let written = match target {
        Some(target) => target.fill(&response.body),
        None => Ok(()),
    };
    let written = written.and_then(|()| match (context.output.json, args.output.is_none()) {
        (true, with_body) => context.output.print(&to_json(&response, with_body), |_| String::new()),
        (false, true) => context.output.bytes(&response.body),
        (false, false) => Ok(()),
    });
    // It is not kept anywhere else.
    written.map_err(|error| CliError {
        message: format!("{}; the response was paid for, {}", error.message, response.price.to_near_string()),
        fix: "see that there is room for it, and ask again: that is paid for as well".to_owned(),
        ..error
    })
}

/// Reads the body; refuses early what no node would take.
fn read_body(source: Option<&Path>, limit: u64) -> Result<Bytes, CliError> {
    let Some(path) = source else { return Ok(Bytes::new()) };
    let failed = |error: &std::io::Error| CliError::io(format!("reading {}", path.display()), error);
    let input: Box<dyn Read> = if path == Path::new("-") {
        Box::new(std::io::stdin())
    } else {
        Box::new(std::fs::File::open(path).map_err(|error| failed(&error))?)
    };
    let mut body = Vec::new();
    input.take(limit.saturating_add(1)).read_to_end(&mut body).map_err(|error| failed(&error))?;
    if body.len() as u64 > limit {
        return Err(CliError::usage(
            format!("the body is longer than {limit} bytes"),
            "split it into several requests",
        ));
    }
    Ok(body.into())
}

/// A file for the response. One that was made for it goes if there is none.
struct Target<'a> {
    path: &'a Path,
    file: File,
    is_new: bool,
    filled: bool,
}

impl Target<'_> {
    fn open(path: &Path) -> Result<Target<'_>, CliError> {
        let is_new = !path.exists();
        let file = OpenOptions::new().write(true).create(true).truncate(false).open(path);
        let file = file.map_err(|error| failed_to_write(path, &error))?;
        Ok(Target { path, file, is_new, filled: false })
    }

    fn fill(mut self, body: &[u8]) -> Result<(), CliError> {
        // What has begun to be written stays, so that nothing of a paid response is lost.
        self.filled = true;
        // Not every target has a length: a pipe has none.
        let _ = self.file.set_len(0);
        self.file.write_all(body).map_err(|error| failed_to_write(self.path, &error))
    }
}

impl Drop for Target<'_> {
    fn drop(&mut self) {
        if self.is_new && !self.filled {
            let _ = std::fs::remove_file(self.path);
        }
    }
}

fn failed_to_write(path: &Path, error: &std::io::Error) -> CliError {
    CliError::io(format!("writing {}", path.display()), error)
}

fn to_json(response: &ApiResponse, with_body: bool) -> serde_json::Value {
    let receipt = borsh::to_vec(&response.receipt).map(|bytes| BASE64.encode(bytes)).unwrap_or_default();
    let mut json = serde_json::json!({
        "request": response.request,
        "price": response.price,
        "route": response.route,
        "attempts": response.attempts,
        "body_len": response.body.len(),
        "receipt": receipt,
    });
    if with_body {
        json["body"] = BASE64.encode(&response.body).into();
    }
    json
}
