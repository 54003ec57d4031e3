//! The way to a daemon in the same process: its parts are called where the API would call them, so
//! that bodies are handed over and not copied.

use std::sync::{Arc, Weak};
use std::time::Duration;

use bytes::Bytes;
use por_core::AppPricing;
use por_types::RequestId;

use super::{ApiIncoming, ApiRequest, ApiResponse, ClientError, ErrorCode, Provider, Quote, QuoteRequest};
use crate::runtime::Daemon;

/// Does not keep the daemon alive: a client may outlive it, and its home must become free.
#[derive(Clone)]
pub(super) struct Inside(Weak<Daemon>);

impl std::fmt::Debug for Inside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Inside")
    }
}

impl Inside {
    pub(super) fn new(daemon: &Arc<Daemon>) -> Inside {
        Inside(Arc::downgrade(daemon))
    }

    fn daemon(&self) -> Result<Arc<Daemon>, ClientError> {
        self.0.upgrade().ok_or_else(|| {
            ClientError::new(ErrorCode::Unreachable, "the node of this process has stopped", "start it again")
        })
    }

    pub(super) async fn quote(&self, query: &QuoteRequest) -> Result<Quote, ClientError> {
        self.daemon()?.requester.quote(query).await
    }

    pub(super) async fn request(&self, request: &ApiRequest) -> Result<ApiResponse, ClientError> {
        // It ends with the protocol, and is told so by that.
        self.daemon()?.request(request, std::future::pending()).await
    }

    pub(super) async fn providers(
        &self,
        key: [u8; 32],
        limit: usize,
        wait: Duration,
    ) -> Result<Vec<Provider>, ClientError> {
        self.daemon()?.providers(key, limit, wait).await
    }

    pub(super) async fn provide(&self, key: [u8; 32]) -> Result<(), ClientError> {
        self.daemon()?.provide(key).await
    }

    pub(super) async fn stop_providing(&self, key: [u8; 32]) -> Result<(), ClientError> {
        self.daemon()?.stop_providing(key).await
    }

    pub(super) async fn serve(&self, app: &str, pricing: AppPricing, queued: u32) -> Result<(), ClientError> {
        self.daemon()?.apps.serve(app, pricing, queued).await
    }

    pub(super) async fn next(&self, app: &str, wait: Duration) -> Result<Option<ApiIncoming>, ClientError> {
        let next = self.daemon()?.apps.next(app, wait).await?;
        Ok(next.map(|request| ApiIncoming {
            request: request.id(),
            author: request.author(),
            body: request.body().clone(),
            response_limit: request.response_limit(),
            server_price: request.server_price(),
        }))
    }

    pub(super) async fn respond(&self, app: &str, id: RequestId, body: Bytes) -> Result<(), ClientError> {
        self.daemon()?.apps.respond(app, id, body).await
    }

    pub(super) fn stop(&self, app: &str) -> Result<(), ClientError> {
        self.daemon()?.apps.stop(app);
        Ok(())
    }
}
