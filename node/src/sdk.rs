//! A node inside a program: start it, send requests, serve apps.
//!
//! ```no_run
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! use por_node::config::Overrides;
//! use por_node::home::Home;
//! use por_node::keys::PasswordSource;
//! use por_node::sdk::{AppPricing, Node, NodeSetup};
//!
//! let setup = NodeSetup::load(Home::locate(None)?, Overrides::default(), &PasswordSource::default())?;
//! let mut node = Node::start(setup).await?;
//! let _echo = node.serve("echo", AppPricing::default(), 64, |request| async move { request.body }).await?;
//! node.stopped().await?;
//! # Ok(()) }
//! ```
//!
//! Such a program is the node of its home: no other may run there at the same time, and `por --home
//! HOME ...` talks to it. End it with [`Node::shutdown`].
//!
//! The daemon `por run` is this and nothing else: programs beside it use [`crate::client`] or plain
//! HTTP (docs/api.md). See `examples/echo.rs`.

use std::future::Future;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::{FutureExt as _, StreamExt as _};
use libp2p_por::{Exit, RespondError};
use por_types::interface::SubmitStateArgs;
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::alarm::failed;
use crate::api::ApiListener;
use crate::client::{ChannelInfo, Client, Status};
use crate::runtime::{self, Daemon, Stop, other, setup_error};
use crate::watch::Handed;

pub use crate::client::{
    ApiRequest as Request, ApiResponse as Response, ClientError as Error, ErrorCode, Quote, QuoteRequest,
};
pub use crate::keys::NodeSetup;
pub use bytes::Bytes;
pub use libp2p::Multiaddr;
pub use por_core::AppPricing;
pub use por_types::{AccountId, ChannelId, NodeKey, RequestId, Yocto};

/// Beginning of the names of apps whose bodies only author and destination can read.
pub use crate::seal::PREFIX as SEALED;

/// Handlers of one app that run at a time.
const MAX_HANDLERS: usize = 256;

/// A running node. Dropping it stops it in the background; [`Node::shutdown`] waits until it has
/// stopped and its home is free again.
pub struct Node {
    daemon: Arc<Daemon>,
    api_addr: SocketAddr,
    token: String,
    stop: Stop,
    running: Option<JoinHandle<Result<(), Error>>>,
}

/// A paid request that a handler has to answer.
#[derive(Clone, Debug)]
pub struct Incoming {
    pub id: RequestId,
    pub author: NodeKey,
    pub body: Bytes,
    /// The answer may not be longer, bytes.
    pub response_limit: u64,
    /// What the author pays for the answer, above the edges.
    pub server_price: Yocto,
}

impl Node {
    /// Starts the node of a home, which [`NodeSetup::load`] has taken for this process: opens its
    /// store, connects to the chain and to its peers, and answers local clients.
    ///
    /// Errors: `CorruptStore`, `PortInUse`, `DiskFull`, `Unreachable` or `Foreign` for the chain, `Retryable`
    /// while this machine's clock is wrong.
    /// Nothing keeps running after an error.
    pub async fn start(setup: NodeSetup) -> Result<Node, Error> {
        let token = setup.home.api_token().map_err(setup_error)?;
        let listener = ApiListener::bind(setup.config.api.listen).await?;
        let api_addr = listener.addr();
        let (daemon, mut supervisor) = runtime::start(&setup).await?;
        let (api, home, secret) = (daemon.clone(), setup.home.data_dir().to_owned(), token.clone());
        let stop = supervisor.stop_handle();
        let api_stop = stop.clone();
        supervisor
            .spawn(runtime::API_TASK, async move { listener.serve(api, &secret, home, api_stop).await });
        let lock = setup.lock;
        let running = tokio::spawn(async move {
            let result = supervisor.run().await;
            // Only now that the store is closed may another process have the home.
            drop(lock);
            result
        });
        Ok(Node { daemon, api_addr, token, stop, running: Some(running) })
    }

    /// The node's key: how others address it.
    pub fn key(&self) -> NodeKey {
        self.daemon.node_key
    }

    /// Addresses that other nodes can reach it at.
    pub fn listening(&self) -> Vec<Multiaddr> {
        self.daemon.swarm.listening().to_vec()
    }

    /// Where the local API answers.
    pub fn api_addr(&self) -> SocketAddr {
        self.api_addr
    }

    /// A client of this node's local API: chain actions, channels, provider records. Requests and
    /// their answers do not leave the process.
    pub fn client(&self) -> Client {
        Client::inside(&self.daemon, self.api_addr, self.token.clone())
    }

    /// Sends a request and waits for its signed response; takes other routes by itself within the
    /// request's price and deadline.
    ///
    /// Not to be dropped before it ends: what was sent stays under obligation, and its answer is paid for
    /// and not delivered. [`Request::deadline`] bounds the wait.
    pub async fn request(&self, request: Request) -> Result<Response, Error> {
        self.daemon.request(&request, self.stop.stopping()).await
    }

    /// Exact prices of the best routes.
    pub async fn quote(&self, query: &QuoteRequest) -> Result<Quote, Error> {
        self.daemon.requester.quote(query).await
    }

    pub async fn status(&self) -> Status {
        self.daemon.status().await
    }

    pub async fn channels(&self) -> Result<Vec<ChannelInfo>, Error> {
        self.daemon.channels.list().await
    }

    /// What a [`crate::watch::Tower`] needs to guard this node's channels while it is away: the
    /// latest payment of each counterparty, as it is on disk. Hand it over again after payments.
    pub async fn evidence(&self) -> Result<Handed, Error> {
        let channels =
            self.daemon.control.channels().await.map_err(|_| other("the node is shutting down"))?;
        let state = |channel: por_core::ChannelSnapshot| {
            let signer = channel.side.other();
            channel.their_payment.map(|state| SubmitStateArgs { state, signer })
        };
        Ok(Handed { states: channels.into_iter().filter_map(state).collect(), ..Handed::default() })
    }

    /// Serves an app with `handler` until the returned [`ServingApp`] is dropped or leaves. At most
    /// `max_queued` (1 if it is 0) unanswered requests are taken; each runs in a task of its own, at most 256 at a
    /// time. The others wait, and neighbours' requests are begun in turn. After a restart
    /// unanswered requests are delivered again, and after a crash also what was answered in the last moments
    /// ([`Incoming::id`] tells). A handler that panics, or whose answer is longer than the
    /// request's limit, has its request answered with an empty body, and the log says so: lateness would be paid
    /// for without an end. Bodies of apps whose
    /// name begins with [`SEALED`] are sealed on the way; the handler sees them open.
    ///
    /// Errors: `Usage` for a name that is empty or longer than 64 bytes.
    pub async fn serve<H, F>(
        &self,
        app: &str,
        pricing: AppPricing,
        max_queued: u32,
        handler: H,
    ) -> Result<ServingApp, Error>
    where
        H: Fn(Incoming) -> F + Send + Sync + 'static,
        F: Future<Output: Into<Bytes>> + Send + 'static,
    {
        let shown = self.daemon.apps.show(app, pricing)?;
        let serving = self.daemon.control.serve(app, pricing, max_queued.max(1)).await;
        let mut serving = serving.map_err(|_| other("the node is shutting down"))?;
        let exit = serving.exit();
        let (handler, opener) = (Arc::new(handler), self.daemon.opener.clone());
        let places = Arc::new(Semaphore::new(MAX_HANDLERS));
        let task = tokio::spawn(async move {
            // A place first: whose turn it is shows when there is one.
            while let Ok(place) = places.clone().acquire_owned().await
                && let Some(request) = serving.next().await
            {
                let (handler, opener, hand) = (handler.clone(), opener.clone(), shown.hand());
                tokio::spawn(async move {
                    let (_place, _hand) = (place, hand);
                    let Some(request) = opener.open(request).await else { return };
                    let incoming = Incoming {
                        id: request.id(),
                        author: request.author(),
                        body: request.body().clone(),
                        response_limit: request.response_limit(),
                        server_price: request.server_price(),
                    };
                    // Nobody would answer it later, and lateness is paid for as long.
                    let answer =
                        AssertUnwindSafe(async { handler(incoming).await.into() }).catch_unwind().await;
                    let answer = answer.unwrap_or_else(|panic| {
                        let what = failed("handler of an app", &*panic);
                        tracing::error!(request = %request.id(), what, "a request is answered with nothing");
                        Bytes::new()
                    });
                    let mut told = request.respond(answer).await;
                    if let Err(error @ RespondError::TooLarge { .. }) = &told {
                        tracing::error!(request = %request.id(), %error, "a request is answered with nothing");
                        told = request.respond(Bytes::new()).await;
                    }
                    if let Err(error) = told {
                        tracing::error!(request = %request.id(), %error, "a request stays unanswered");
                    }
                });
            }
        });
        Ok(ServingApp { task, exit })
    }

    /// Waits until the node has stopped: because a part of it failed, or after a shutdown. May be dropped and
    /// called again.
    pub async fn stopped(&mut self) -> Result<(), Error> {
        match self.running.as_mut() {
            Some(running) => {
                let result = running.await.unwrap_or_else(|error| Err(other(error.to_string())));
                self.running = None;
                result
            }
            None => Ok(()),
        }
    }

    /// Tells neighbours what has ended, for half a second at most, stops all tasks, makes everything durable and
    /// closes the store. A node that is dropped instead tells nobody: who keeps an answer for it severs the edge
    /// if it stays away.
    pub async fn shutdown(mut self) -> Result<(), Error> {
        self.daemon.take_leave().await;
        self.stop.stop();
        self.stopped().await
    }
}

impl std::fmt::Debug for Node {
    /// Without the API's token.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut node = f.debug_struct("Node");
        node.field("key", &self.key()).field("api_addr", &self.api_addr).finish_non_exhaustive()
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

/// An app that is being served; dropping it stops that: handlers that run go on, and what waits for one is
/// unanswered, and paid late for, until the app is served again. [`ServingApp::leave`] leaves nothing behind.
#[derive(Debug)]
pub struct ServingApp {
    task: JoinHandle<()>,
    exit: Exit,
}

impl ServingApp {
    /// Takes nothing more, and waits until all that was taken is answered: before a shutdown, or whenever the app
    /// is to go. Given up, as by a timeout, it is as if dropped. Nothing happens if somebody else serves the
    /// app by now.
    pub async fn leave(self) -> Result<(), Error> {
        self.exit.leave().await.map_err(|_| other("the node is shutting down"))
    }
}

impl Drop for ServingApp {
    fn drop(&mut self) {
        self.task.abort();
    }
}
