//! Requests of local clients: find a route, pay, wait, take another route.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use libp2p::PeerId;
use libp2p_por::{Completion, Control, Ended, OutboundRequest, Outcome, RequestError};
use parking_lot::Mutex;
use por_core::{ANSWER_LIMIT, RejectReason};
use por_types::{ChannelId, NodeKey, RequestId, Yocto};
use tokio::sync::watch;
use tokio::time::Instant;

use super::news::Bulletin;
use super::other;
use crate::client::{
    ApiRequest, ApiResponse, ClientError, ErrorCode, Quote, QuoteRequest, QuotedHop, QuotedRoute, What,
};
use crate::graph::{Graph, GraphVersion, SharedGraph};
use crate::routes::{self, MAX_ALTERNATIVES, Route, RouteError, RouteQuery};
use crate::seal;

/// Bytes of a pursuit's request.
const ANSWER_QUERY: u64 = 32;
/// Routes looked at before a request is given up as long as nothing changes.
const ALTERNATIVES: usize = 4;
/// A request stays acceptable for this long after the caller's deadline: clocks of nodes follow
/// block time, which lags.
const EXPIRY_MARGIN_MS: u64 = 60_000;
const MAX_EXPIRY_MS: u64 = 23 * 3600 * 1000;
/// How long a request waits for peers to come back or the graph to change.
const PATIENCE: Duration = Duration::from_secs(10);
const LOOK_AT_PEERS: &str = "see `por peers`, and whether its node runs";
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_millis(500));
/// Most times that the allowances are doubled because an edge had no time for the request.
const MAX_SLACK: u32 = 6;

/// Sends requests; shared by the API and the SDK.
pub(crate) struct Requester {
    node_key: NodeKey,
    control: Control,
    graph: SharedGraph,
    versions: watch::Receiver<GraphVersion>,
    connected: watch::Receiver<HashSet<PeerId>>,
    /// Whether the protocol knows this node's channels.
    told: watch::Receiver<bool>,
    /// Bytes of this node's own requests under way per channel: they need time on its edges.
    load: Arc<Mutex<HashMap<ChannelId, u64>>>,
    /// Where it is told what is sent under a label.
    news: Arc<Bulletin>,
}

/// What the attempts of a request have cost, beside an answer.
#[derive(Debug, Default)]
struct Costs {
    /// What severed paths did not refund.
    lost: Yocto,
    /// The price of the attempt under way: given up, it stays paid for and under obligation.
    under_way: Yocto,
    /// What these are for, in the order in which it was sent.
    requests: Vec<RequestId>,
}

impl Costs {
    /// The error of a request that has cost this.
    fn told_in(self, error: ClientError) -> ClientError {
        let sum = self.lost.checked_add(self.under_way).unwrap_or(Yocto(u128::MAX));
        error.having_spent(sum).having_sent(self.requests)
    }
}

/// An attempt under way. Given up before its end, it is among what has cost something.
struct Attempt<'a> {
    completion: Completion,
    costs: &'a Mutex<Costs>,
    ended: bool,
}

impl Attempt<'_> {
    async fn end(&mut self) -> Result<Ended, RequestError> {
        let ended = (&mut self.completion).await;
        // It is not known what becomes of it if the node stops meanwhile.
        if !matches!(ended, Err(RequestError::Stopped(_))) {
            self.costs.lock().under_way = Yocto::ZERO;
            self.ended = true;
        }
        ended
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.costs.lock().requests.extend(self.completion.id());
        }
    }
}

/// A route, and the graph that it was found in: to name a later one would be to say that its edges and prices
/// are those of that one.
struct Picked {
    route: Route,
    version: u64,
    /// Block time, milliseconds since 1970.
    now_ms: u64,
}

/// Why an attempt failed, and what follows.
struct Failure {
    error: ClientError,
    next: Next,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Next {
    /// Passes with time: until the deadline.
    Wait,
    /// May pass soon.
    WaitShortly,
    GiveUp,
}

impl Requester {
    pub(crate) fn new(
        node_key: NodeKey,
        control: Control,
        graph: SharedGraph,
        versions: watch::Receiver<GraphVersion>,
        connected: watch::Receiver<HashSet<PeerId>>,
        told: watch::Receiver<bool>,
        news: Arc<Bulletin>,
    ) -> Requester {
        Requester { node_key, control, graph, versions, connected, told, load: Arc::default(), news }
    }

    /// Gives a pursuit a route to `peer` for at most this price, another one with each try; not over
    /// `channel`, which was severed.
    pub(crate) async fn pursue(
        &self,
        channel: ChannelId,
        peer: NodeKey,
        tries: u32,
        most: Yocto,
    ) -> Result<(), ClientError> {
        let balances = self.balances().await?;
        let mut query = RouteQuery::new(ANSWER_QUERY, ANSWER_LIMIT, Yocto::ZERO);
        query.max_price = Some(most);
        query.exclude = HashSet::from([channel]).into_iter().collect();
        query.k = ALTERNATIVES;
        let (hops, version, now_ms) = {
            let graph = self.graph.read();
            let usable = |id| balances.get(&id).and_then(|own| own.connected.then_some(own.balance));
            let routes = routes::find(&graph, &self.node_key, &peer, &query, &usable);
            let mut routes = routes.map_err(|error| route_error(error, &peer))?;
            let turn = (tries as usize).checked_rem(routes.len()).unwrap_or_default();
            let route = if routes.is_empty() { None } else { Some(routes.swap_remove(turn)) };
            let hops = route.map(|route| route.hops).unwrap_or_default();
            (hops, graph.version(), graph.chain_time_ms())
        };
        if hops.is_empty() {
            return Err(route_error(RouteError::NoRoute, &peer));
        }
        let expires_ms = now_ms.saturating_add(EXPIRY_MARGIN_MS);
        self.control
            .pursue(channel, hops, version, expires_ms)
            .await
            .map_err(|_| other("the node is shutting down"))
    }

    /// Exact prices of the best routes, whatever this node's balances are.
    pub(crate) async fn quote(&self, q: &QuoteRequest) -> Result<Quote, ClientError> {
        self.graph_known(PATIENCE).await;
        let sealed = q.app.as_deref().is_some_and(seal::is_sealed);
        let wire = |len: u64| if sealed { seal::sealed_len(len) } else { len };
        let mut query = RouteQuery::new(wire(q.body_len), wire(q.response_limit), q.server_price);
        query.max_latency_ms = q.max_latency_ms;
        query.k = (q.alternatives.unwrap_or(1) as usize).clamp(1, MAX_ALTERNATIVES);
        let graph = self.graph.read();
        let anything = |_| Some(Yocto(u128::MAX));
        let routes = routes::find(&graph, &self.node_key, &q.destination, &query, &anything)
            .map_err(|error| route_error(error, &q.destination))?;
        let routes = carrying(&graph, routes, q.server_price)?;
        let routes = routes.into_iter().map(|route| quoted(self.node_key, route)).collect();
        Ok(Quote { routes, graph_version: graph.version() })
    }

    /// Sends a request until it is answered, within the caller's budget and deadline, or until `stopping` resolves
    /// since the node ends.
    pub(crate) async fn request(
        &self,
        r: &ApiRequest,
        stopping: impl Future<Output = ()>,
    ) -> Result<ApiResponse, ClientError> {
        if r.deadline.is_zero() {
            // It would be paid for, and nobody would wait for its answer.
            return Err(ClientError::new(
                ErrorCode::Deadline,
                "the deadline leaves no time",
                "allow more time",
            ));
        }
        let started = Instant::now();
        let last = Mutex::new(None);
        let costs = Mutex::new(Costs::default());
        // A deadline that cannot be represented is as good as none.
        let far = Duration::from_secs(366 * 24 * 3600);
        let deadline = started + r.deadline.min(far);
        let attempts = tokio::time::timeout_at(deadline, self.attempts(r, started, &last, &costs));
        let ended = tokio::select! {
            biased;
            ended = attempts => ended,
            // What is under way stays paid for: who asks again after the restart pays a second time.
            () = stopping => Ok(Err(stopped().error)),
        };
        let costs = costs.into_inner();
        match ended {
            Ok(Ok(response)) => {
                let price = response.price.checked_add(costs.lost).unwrap_or(Yocto(u128::MAX));
                Ok(ApiResponse { price, ..response })
            }
            Ok(Err(error)) => Err(costs.told_in(error)),
            Err(_) => Err(costs.told_in(match last.into_inner() {
                Some(ClientError { message, fix, .. }) => ClientError::new(
                    ErrorCode::Deadline,
                    format!("no answer within {} ms; last: {message}", r.deadline.as_millis()),
                    fix,
                ),
                None => ClientError::new(
                    ErrorCode::Deadline,
                    format!("no answer within {} ms", r.deadline.as_millis()),
                    "allow more time; a request that was paid for stays under obligation",
                ),
            })),
        }
    }

    async fn attempts(
        &self,
        r: &ApiRequest,
        started: Instant,
        last: &Mutex<Option<ClientError>>,
        costs: &Mutex<Costs>,
    ) -> Result<ApiResponse, ClientError> {
        self.channels_known(PATIENCE).await;
        let mut tried: HashSet<Vec<ChannelId>> = HashSet::new();
        let (mut attempts, mut slack, mut backoff) = (0, 0, BACKOFF.0);
        let (mut after, mut since) = (Next::WaitShortly, started);
        loop {
            let lost = costs.lock().lost;
            let failure = match self.pick(r, lost, &tried).await {
                Ok(Some(picked)) => {
                    tried.insert(channels(&picked.route));
                    attempts += 1;
                    match self.attempt(r, picked, slack, costs).await {
                        Ok(response) => return Ok(ApiResponse { attempts, ..response }),
                        Err(failure) if failure.next == Next::GiveUp => return Err(failure.error),
                        Err(failure) => {
                            tracing::debug!(error = %failure.error, attempts, "an attempt failed; another follows");
                            after = failure.next;
                            if failure.error.code == ErrorCode::Severed {
                                // It may have been under way for long: what comes instead has its own time.
                                since = Instant::now();
                            }
                            remember(last, failure.error);
                            continue;
                        }
                    }
                }
                // Every route was tried: wait, then try them again.
                Ok(None) => None,
                Err(failure) if failure.next == Next::GiveUp => {
                    // That the last route was severed says more than that there is no other.
                    let severed = last.lock().take().filter(|error| error.code == ErrorCode::Severed);
                    return Err(severed.unwrap_or(failure.error));
                }
                Err(failure) => Some(failure),
            };
            if let Some(failure) = failure {
                after = failure.next;
                remember(last, failure.error);
            }
            if after == Next::WaitShortly && since.elapsed() > PATIENCE {
                let error = last.lock().take();
                return Err(error.unwrap_or_else(|| other("no route could be used")));
            }
            tokio::time::sleep(backoff).await;
            backoff = (backoff * 2).min(BACKOFF.1);
            slack = (slack + 1).min(MAX_SLACK);
            tried.clear();
        }
    }

    /// The best route that was not tried; `None` if all were.
    async fn pick(
        &self,
        r: &ApiRequest,
        lost: Yocto,
        tried: &HashSet<Vec<ChannelId>>,
    ) -> Result<Option<Picked>, Failure> {
        let balances = self.balances().await.map_err(|error| Failure { error, next: Next::GiveUp })?;
        let mut query = RouteQuery::new(r.body.len() as u64, r.response_limit, r.server_price);
        // The caller's bound is for all attempts together.
        query.max_price = r.max_price.map(|max| max.saturating_sub(lost));
        query.exclude = r.avoid.iter().copied().collect();
        query.k = (tried.len() + 1).clamp(ALTERNATIVES, MAX_ALTERNATIVES);
        let graph = self.graph.read();
        let find = |spendable: &dyn Fn(ChannelId) -> Option<Yocto>| {
            routes::find(&graph, &self.node_key, &r.destination, &query, spendable)
        };
        let usable = |channel| balances.get(&channel).and_then(|own| own.connected.then_some(own.balance));
        match find(&usable) {
            Ok(routes) => {
                let routes = carrying(&graph, routes, r.server_price)
                    .map_err(|error| Failure { error, next: Next::GiveUp })?;
                let route = routes.into_iter().find(|route| !tried.contains(&channels(route)));
                let (version, now_ms) = (graph.version(), graph.chain_time_ms());
                Ok(route.map(|route| Picked { route, version, now_ms }))
            }
            Err(error) => {
                // With all its counterparties there, would there be a route? And over channels that the graph shows
                // and the protocol has not heard of yet?
                let if_connected = |channel| balances.get(&channel).map(|own| own.balance);
                let if_heard = |channel| if_connected(channel).or(Some(Yocto(u128::MAX)));
                let later = if find(&if_connected).is_ok() {
                    Some(("the counterparty of the channel that leads there is not connected", LOOK_AT_PEERS))
                } else if find(&if_heard).is_ok() {
                    Some(("the channel that leads there has just been opened", "repeat it in a moment"))
                } else {
                    None
                };
                let (error, next) = match later {
                    Some((what, fix)) => {
                        (ClientError::new(ErrorCode::Unreachable, what, fix), Next::WaitShortly)
                    }
                    None => (route_error(error, &r.destination), Next::GiveUp),
                };
                Err(Failure { error, next })
            }
        }
    }

    async fn attempt(
        &self,
        r: &ApiRequest,
        picked: Picked,
        slack: u32,
        costs: &Mutex<Costs>,
    ) -> Result<ApiResponse, Failure> {
        let Picked { route, version, now_ms } = picked;
        let path = channels(&route);
        let bytes = (r.body.len() as u64).saturating_add(r.response_limit);
        let load = Load::put(&self.load, path.clone(), bytes);
        let hops = self.allow_time(r, &route, slack);
        let lifetime = u64::try_from(r.deadline.as_millis()).unwrap_or(u64::MAX);
        let lifetime = lifetime.saturating_add(EXPIRY_MARGIN_MS).min(MAX_EXPIRY_MS);
        let begun = self.control.begin(OutboundRequest {
            destination: r.destination,
            app: r.app.clone(),
            body: r.body.clone(),
            response_limit: r.response_limit,
            server_price: r.server_price,
            expires_ms: now_ms.saturating_add(lifetime),
            graph_version: version,
            route: hops,
        });
        let completion = begun.await.map_err(|_| stopped())?;
        // If the caller's time is over before its end, this stays.
        costs.lock().under_way = route.price;
        let mut attempt = Attempt { completion, costs, ended: false };
        if let Some(label) = &r.label
            && let Ok((request, price)) = attempt.completion.started().await
        {
            self.news.push(What::Sent { request, label: label.clone(), price });
        }
        let Ended { id: request, price, outcome } = attempt.end().await.map_err(|error| match error {
            RequestError::Refused(reason) => rejected(reason),
            RequestError::Stopped(_) => stopped(),
            error => Failure { error: other(error.to_string()), next: Next::GiveUp },
        })?;
        drop(load);
        match outcome {
            Outcome::Response { receipt, body } => {
                Ok(ApiResponse { body, request, price, receipt, route: path, attempts: 1 })
            }
            Outcome::Severed { order, refund, late } => {
                let mut costs = costs.lock();
                let gone = price.saturating_sub(refund);
                costs.lost = costs.lost.checked_add(gone).unwrap_or(Yocto(u128::MAX));
                costs.requests.push(request);
                Err(severed(&order.statement, refund, late))
            }
            Outcome::Rejected { reason, .. } => Err(rejected(reason)),
        }
    }

    /// The route's hops with time for what this node has under way on the same edges, twice as
    /// much with each step of `slack`: others may load the edges too.
    fn allow_time(&self, r: &ApiRequest, route: &Route, slack: u32) -> Vec<por_types::Hop> {
        let graph = self.graph.read();
        let load = self.load.lock();
        let mut hops = route.hops.clone();
        for hop in &mut hops {
            let Some(edge) = graph.edge(hop.channel) else { continue };
            let ahead = load.get(&hop.channel).copied().unwrap_or(0);
            let loaded = edge.view.terms.allowance_ms(ahead, r.response_limit);
            hop.allowance_ms = hop.allowance_ms.max(loaded).saturating_mul(1 << slack.min(MAX_SLACK));
        }
        hops
    }

    async fn balances(&self) -> Result<HashMap<ChannelId, Own>, ClientError> {
        let balances = self.control.balances().await.map_err(|_| other("the node is shutting down"))?;
        let connected = self.connected.borrow();
        let own = |(channel, peer, balance)| {
            let connected = libp2p_por::peer_id(&peer).is_some_and(|peer| connected.contains(&peer));
            (channel, Own { balance, connected })
        };
        Ok(balances.into_iter().map(own).collect())
    }

    /// Waits until the graph has been read once and the protocol knows which of its channels are this
    /// node's: without them every route would seem to cost more than they hold.
    async fn channels_known(&self, longest: Duration) {
        let mut told = self.told.clone();
        // Without an answer of the chain there are no channels to use, and the route says so.
        let _ = tokio::time::timeout(longest, told.wait_for(|told| *told)).await;
    }

    /// Waits until the graph has been read once, so that a request right after the start does not
    /// fail for want of it.
    async fn graph_known(&self, longest: Duration) {
        let mut versions = self.versions.clone();
        let known = versions.wait_for(|news| news.height > 0);
        // Without an answer of the chain the graph is empty and says so.
        let _ = tokio::time::timeout(longest, known).await;
    }
}

/// Keeps the last error, but for a severed edge: that nothing could be sent after it says less.
fn remember(last: &Mutex<Option<ClientError>>, error: ClientError) {
    let mut last = last.lock();
    let severed = |error: &ClientError| error.code == ErrorCode::Severed;
    if last.as_ref().is_none_or(|last| !severed(last) || severed(&error)) {
        *last = Some(error);
    }
}

/// What this node has on a channel of its own.
struct Own {
    balance: Yocto,
    connected: bool,
}

/// Counts a request's bytes on the channels of its path until it is dropped.
struct Load {
    loads: Arc<Mutex<HashMap<ChannelId, u64>>>,
    path: Vec<ChannelId>,
    bytes: u64,
}

impl Load {
    fn put(loads: &Arc<Mutex<HashMap<ChannelId, u64>>>, path: Vec<ChannelId>, bytes: u64) -> Load {
        let mut all = loads.lock();
        for channel in &path {
            let load = all.entry(*channel).or_default();
            *load = load.saturating_add(bytes);
        }
        drop(all);
        Load { loads: loads.clone(), path, bytes }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        let mut all = self.loads.lock();
        for channel in &self.path {
            if let Some(load) = all.get_mut(channel) {
                *load = load.saturating_sub(self.bytes);
                if *load == 0 {
                    all.remove(channel);
                }
            }
        }
    }
}

/// Those of the routes that can ever carry the request: what is under way on a channel stays below the bond that
/// its ends would lose, and nodes are busy for as long as it would not.
///
/// Errors: `Budget` if that is none of them.
fn carrying(graph: &Graph, routes: Vec<Route>, server_price: Yocto) -> Result<Vec<Route>, ClientError> {
    let mut least = None;
    let total = routes.len();
    let routes: Vec<Route> = routes
        .into_iter()
        .filter(|route| {
            let weak = weak_channel(graph, route, server_price);
            least = least.or(weak);
            weak.is_none()
        })
        .collect();
    match least {
        Some((channel, bond)) if routes.is_empty() && total > 0 => {
            let what = format!(
                "channel {channel} on the way carries only requests worth less than its bond of {}",
                bond.to_near_string()
            );
            Err(ClientError::new(
                ErrorCode::Budget,
                what,
                "ask for less at a time, so that each request is worth less",
            ))
        }
        _ => Ok(routes),
    }
}

/// A channel of the route whose bond is not above what the request pays over it, and that bond.
fn weak_channel(graph: &Graph, route: &Route, server_price: Yocto) -> Option<(ChannelId, Yocto)> {
    let mut amount = server_price;
    for hop in route.hops.iter().rev() {
        amount = amount.checked_add(hop.price).unwrap_or(Yocto(u128::MAX));
        let bond = graph.edge(hop.channel).map(|edge| edge.view.bond)?;
        // Without a bond the network has no penalty: nothing to compare with.
        if !bond.is_zero() && amount >= bond {
            return Some((hop.channel, bond));
        }
    }
    None
}

fn channels(route: &Route) -> Vec<ChannelId> {
    route.hops.iter().map(|hop| hop.channel).collect()
}

fn quoted(from: NodeKey, route: Route) -> QuotedRoute {
    let mut from = from;
    let mut hops = Vec::with_capacity(route.hops.len());
    for hop in route.hops {
        hops.push(QuotedHop {
            channel: hop.channel,
            from,
            to: hop.to,
            price: hop.price,
            allowance_ms: hop.allowance_ms,
        });
        from = hop.to;
    }
    QuotedRoute { hops, price: route.price, bound_ms: route.bound_ms }
}

fn route_error(error: RouteError, destination: &NodeKey) -> ClientError {
    let (code, fix) = match error {
        RouteError::UnknownNode(_) | RouteError::NoRoute => {
            (ErrorCode::NoRoute, "open a channel that leads there, or relax the bounds")
        }
        RouteError::Itself => (ErrorCode::Usage, "name another destination"),
        RouteError::TooDear { .. } => (ErrorCode::Budget, "raise the price bound, or top up the channel"),
        RouteError::TooComplex => (ErrorCode::Retryable, "relax the bounds"),
    };
    ClientError::new(code, format!("{destination}: {error}"), fix)
}

fn rejected(reason: RejectReason) -> Failure {
    let (code, next, fix) = match reason {
        RejectReason::Busy => (ErrorCode::Retryable, Next::Wait, "try again later, or send fewer at a time"),
        RejectReason::Balance => (ErrorCode::Retryable, Next::WaitShortly, "try later, or another node"),
        RejectReason::NoEdge => (ErrorCode::NoRoute, Next::WaitShortly, "try again: the graph has changed"),
        RejectReason::Unreachable => (ErrorCode::Unreachable, Next::WaitShortly, "try again later"),
        RejectReason::Expired => (ErrorCode::Deadline, Next::WaitShortly, "try again"),
        RejectReason::NoApp => (ErrorCode::NotFound, Next::GiveUp, "ask a node that serves the app"),
        RejectReason::ServerPrice => (ErrorCode::Budget, Next::GiveUp, "offer a higher server price"),
        RejectReason::TooLarge => (ErrorCode::Usage, Next::GiveUp, "use smaller bodies and limits"),
        RejectReason::Abandoned => (ErrorCode::Retryable, Next::WaitShortly, "try again"),
        RejectReason::Invalid => (ErrorCode::Fatal, Next::GiveUp, "correct the request"),
    };
    let message = format!("the request was rejected and refunded: {reason}");
    Failure { error: ClientError::new(code, message, fix), next }
}

/// The guarantee's second outcome: the request goes over another route, if there is one.
fn severed(order: &por_types::SeverOrder, refund: Yocto, late: Yocto) -> Failure {
    let por_types::SeverOrder { channel, reason, .. } = order;
    let (refund, late) = (refund.to_near_string(), late.to_near_string());
    let message = format!(
        "channel {channel} of the path was severed ({reason:?}); {refund} came back, {late} for lateness"
    );
    let error = ClientError::new(ErrorCode::Severed, message, "send it again over another route");
    Failure { error, next: Next::WaitShortly }
}

fn stopped() -> Failure {
    let error = ClientError::new(ErrorCode::Retryable, "the node is shutting down", "start it again");
    Failure { error, next: Next::GiveUp }
}

#[cfg(test)]
mod tests;
