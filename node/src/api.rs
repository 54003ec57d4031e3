//! The local API: HTTP/1.1 on a loopback address, for apps and tools on the same machine
//! (docs/api.md).
//!
//! Access: a bearer token that only the daemon's user can read; compared in constant time. Against
//! web pages in the user's browser: the `Host` must be a loopback name (DNS rebinding), and
//! requests with an `Origin` are refused. Who has no token cannot stay, see [`door`].

mod apps;
mod chain;
mod door;
mod errors;
mod guard;
mod params;
mod requests;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::http::Uri;
use axum::routing::{delete, get, post, put};
use axum::{Json, Router, middleware};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;

use crate::client::{ADDR_FILE, ChannelInfo, ClientError, ErrorCode, GraphInfo, News, PeerInfo, Status};
use crate::runtime::{Daemon, Stop};
use door::{Door, Guest};
use errors::ApiError;

/// Calls in progress at once, long polls included.
const MAX_CALLS: usize = 1024;
/// Largest body of a call that carries JSON.
const MAX_JSON: usize = 64 << 10;

type Result<T> = std::result::Result<T, ApiError>;

/// What every call works with.
#[derive(Clone)]
pub(crate) struct Api {
    daemon: Arc<Daemon>,
    token: Arc<blake3::Hash>,
    calls: Arc<Semaphore>,
    stop: Stop,
}

/// The bound socket; not yet answering.
pub(crate) struct ApiListener {
    listener: TcpListener,
    addr: SocketAddr,
}

impl ApiListener {
    /// Errors: [`ErrorCode::PortInUse`].
    pub(crate) async fn bind(addr: SocketAddr) -> std::result::Result<ApiListener, ClientError> {
        let failed = |error: std::io::Error| match error.kind() {
            std::io::ErrorKind::AddrInUse => ClientError::new(
                ErrorCode::PortInUse,
                format!("the API's address {addr} is in use"),
                "stop the program that uses it, or set api.listen to another port",
            ),
            _ => {
                let what = format!("the API cannot listen on {addr}: {error}");
                ClientError::new(ErrorCode::Other, what, "set api.listen to an address of this machine")
            }
        };
        let listener = TcpListener::bind(addr).await.map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(ApiListener { listener, addr })
    }

    pub(crate) fn addr(&self) -> SocketAddr {
        self.addr
    }

    /// Answers calls until the daemon stops. The address is in the home's file while this runs.
    pub(crate) async fn serve(
        self,
        daemon: Arc<Daemon>,
        token: &str,
        home: PathBuf,
        stop: Stop,
    ) -> std::result::Result<(), ClientError> {
        let _file = AddrFile::write(&home, self.addr)?;
        let calls = Arc::new(Semaphore::new(MAX_CALLS));
        let token = Arc::new(blake3::hash(token.as_bytes()));
        let app = router(Api { daemon, token, calls, stop: stop.clone() });
        axum::serve(Door::new(self.listener), app.into_make_service_with_connect_info::<Guest>())
            .with_graceful_shutdown(async move { stop.stopping().await })
            .await
            .map_err(|error| ClientError::new(ErrorCode::Other, format!("the API has stopped: {error}"), ""))
    }
}

/// The file that tells local clients where the daemon is; removed with it.
struct AddrFile {
    path: PathBuf,
    content: String,
}

impl AddrFile {
    fn write(home: &Path, addr: SocketAddr) -> std::result::Result<AddrFile, ClientError> {
        let path = home.join(ADDR_FILE);
        let content = addr.to_string();
        crate::home::write_secret(&path, content.as_bytes()).map_err(crate::runtime::setup_error)?;
        Ok(AddrFile { path, content })
    }
}

impl Drop for AddrFile {
    fn drop(&mut self) {
        // Another daemon may have taken the home over.
        if std::fs::read_to_string(&self.path).is_ok_and(|content| content == self.content) {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn router(api: Api) -> Router {
    // Bodies of requests and responses are as large as the protocol takes them.
    let max_body = usize::try_from(api.daemon.limits.max_body).unwrap_or(usize::MAX);
    let binary = Router::new()
        .route("/v1/requests", post(requests::send))
        .route("/v1/apps/{app}/responses/{request}", post(apps::respond))
        .layer(DefaultBodyLimit::max(max_body));
    let json = Router::new()
        .route("/v1/status", get(status))
        .route("/v1/news", get(news))
        .route("/v1/peers", get(peers))
        .route("/v1/channels", get(channels))
        .route("/v1/graph", get(graph))
        .route("/v1/quote", post(requests::quote))
        .route("/v1/apps/{app}/serve", post(apps::serve))
        .route("/v1/apps/{app}", delete(apps::stop))
        .route("/v1/apps/{app}/next", get(apps::next))
        .route("/v1/providers/{key}", get(apps::providers))
        .route("/v1/providers/{key}", put(apps::provide).delete(apps::stop_providing))
        .route("/v1/chain/{action}", post(chain::account_action))
        .route("/v1/channels/propose", post(chain::propose))
        .route("/v1/channels/{channel}/{action}", post(chain::channel_action))
        .layer(DefaultBodyLimit::max(MAX_JSON));
    binary
        .merge(json)
        .fallback(other)
        .method_not_allowed_fallback(other)
        .layer(middleware::from_fn_with_state(api.clone(), guard::admit))
        .with_state(api)
}

async fn other(uri: Uri) -> ApiError {
    unknown(uri.path())
}

fn unknown(path: &str) -> ApiError {
    let fix = if path.starts_with("/v1/apps/") {
        "see docs/api.md; a slash in an app's name is %2F in the path"
    } else {
        "see docs/api.md"
    };
    ClientError::new(ErrorCode::NotFound, "the API has no such call", fix).into()
}

async fn status(State(api): State<Api>) -> Json<Status> {
    Json(api.daemon.status().await)
}

/// `since`: number of the first happening wanted; `wait_ms`: how long to wait for it.
async fn news(State(api): State<Api>, query: params::Pairs) -> Result<Json<News>> {
    let params = params::Params::read(query, &["since", "wait_ms"])?;
    let since = params.get("since")?.unwrap_or(0);
    let wait = Duration::from_millis(params.get("wait_ms")?.unwrap_or(0).min(apps::MAX_WAIT_MS));
    tokio::select! {
        () = api.stop.stopping() => {}
        () = api.daemon.news.there_is(since, wait) => {}
    }
    Ok(Json(api.daemon.news.since(since)))
}

async fn peers(State(api): State<Api>) -> Result<Json<Vec<PeerInfo>>> {
    Ok(Json(api.daemon.peers().await?))
}

async fn channels(State(api): State<Api>) -> Result<Json<Vec<ChannelInfo>>> {
    Ok(Json(api.daemon.channels.list().await?))
}

async fn graph(State(api): State<Api>) -> Json<GraphInfo> {
    Json(api.daemon.graph_info())
}
