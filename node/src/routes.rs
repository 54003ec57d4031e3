//! Routes through the graph (protocol section 8): the cheapest within a latency bound, or the
//! quickest within a price bound, and alternatives to it. Prices are exact.

mod search;

use std::collections::HashSet;

use por_types::{ChannelId, Hop, MAX_HOPS, NodeKey, Yocto};

use crate::graph::Graph;

use search::{Bounds, Message, Search};

/// Most routes that one query may ask for.
pub const MAX_ALTERNATIVES: usize = 16;

/// What a route is to be best in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Goal {
    #[default]
    Cheapest,
    Quickest,
}

/// What a route has to carry, and within which bounds.
#[derive(Clone, Debug)]
pub struct RouteQuery {
    /// Bytes of the request's body.
    pub body_len: u64,
    /// Most bytes of the response.
    pub response_limit: u64,
    /// Bytes of other messages that may be under way on the edges at the same time. A relay takes a
    /// request only if its allowance covers what is on its way over the edge already (protocol
    /// section 5), so an author that asks for several things at once has to grant the time.
    pub beside: u64,
    /// What the destination's app asks, above the prices of the edges.
    pub server_price: Yocto,
    /// Longest time to the response, milliseconds: the sum of the edges' allowances.
    pub max_latency_ms: Option<u64>,
    /// Most that edges and server may cost together.
    pub max_price: Option<Yocto>,
    pub goal: Goal,
    /// Channels not to use.
    pub exclude: HashSet<ChannelId>,
    /// Nodes not to pass.
    pub exclude_nodes: HashSet<NodeKey>,
    /// Routes wanted, `1..=`[`MAX_ALTERNATIVES`].
    pub k: usize,
}

impl RouteQuery {
    /// The cheapest route without bounds.
    pub fn new(body_len: u64, response_limit: u64, server_price: Yocto) -> RouteQuery {
        RouteQuery {
            body_len,
            response_limit,
            beside: 0,
            server_price,
            max_latency_ms: None,
            max_price: None,
            goal: Goal::Cheapest,
            exclude: HashSet::new(),
            exclude_nodes: HashSet::new(),
            k: 1,
        }
    }
}

/// A way to the destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    pub hops: Vec<Hop>,
    /// All edges and the server's price: exactly what the author pays.
    pub price: Yocto,
    /// Time within which the response is due, milliseconds from sending.
    pub bound_ms: u64,
}

/// Why there is no route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RouteError {
    /// The graph does not have this node: check the key, or wait for the graph.
    #[error("node {0} is in no channel of the graph")]
    UnknownNode(NodeKey),
    /// A node does not send to itself over channels.
    #[error("source and destination are the same node")]
    Itself,
    /// Relax the bounds, or open a channel.
    #[error("no route of open channels carries the request within the bounds")]
    NoRoute,
    /// There are routes, but none within the price bound or the own channels' balance.
    #[error("the cheapest route costs {}, more than the bound or the channels' balance", cheapest.to_near_string())]
    TooDear { cheapest: Yocto },
    /// The bounds leave too many combinations: relax one of them.
    #[error("the search took too many steps")]
    TooComplex,
}

/// Routes from `from` to `to`, the best first: at least one, at most `query.k`.
///
/// `spendable` says what this node may spend on a channel of its own, `None` if the channel cannot
/// be used now; it is asked for the channels at `from` only.
pub fn find(
    graph: &Graph,
    from: &NodeKey,
    to: &NodeKey,
    query: &RouteQuery,
    spendable: &dyn Fn(ChannelId) -> Option<Yocto>,
) -> Result<Vec<Route>, RouteError> {
    if from == to {
        return Err(RouteError::Itself);
    }
    let place = |key: &NodeKey| graph.place_of(key).ok_or(RouteError::UnknownNode(*key));
    let (start, end) = (place(from)?, place(to)?);
    let message =
        Message { body_len: query.body_len, response_limit: query.response_limit, beside: query.beside };
    let bounds = Bounds {
        latency: query.max_latency_ms.unwrap_or(u64::MAX),
        price: query.max_price.map_or(u128::MAX, |price| price.0),
        hops: MAX_HOPS,
    };
    let search = Search::new(graph, message, query, start, end, spendable);
    let paths = search.best(bounds, query.k.clamp(1, MAX_ALTERNATIVES))?;
    if paths.is_empty() {
        return Err(why_none(&search, bounds, query, &message, graph));
    }
    Ok(paths.iter().filter_map(|path| route(graph, path, query, &message)).collect())
}

/// Tells a price bound that is too low from a destination that cannot be reached.
fn why_none(
    search: &Search<'_>,
    bounds: Bounds,
    query: &RouteQuery,
    message: &Message,
    graph: &Graph,
) -> RouteError {
    let free = search.ignoring_balance();
    match free.best(Bounds { price: u128::MAX, ..bounds }, 1) {
        Ok(paths) => match paths.first().and_then(|path| route(graph, path, query, message)) {
            Some(route) => RouteError::TooDear { cheapest: route.price },
            None => RouteError::NoRoute,
        },
        Err(error) => error,
    }
}

fn route(graph: &Graph, path: &[search::Step], query: &RouteQuery, message: &Message) -> Option<Route> {
    let mut hops = Vec::with_capacity(path.len());
    for step in path {
        let edge = graph.edge(step.channel)?;
        let quote = message.quote(&edge.view.terms)?;
        hops.push(Hop {
            channel: step.channel,
            to: graph.key_at(step.to),
            price: quote.price,
            allowance_ms: quote.allowance_ms,
        });
    }
    let edges = Yocto::checked_sum(hops.iter().map(|hop| hop.price)).ok()?;
    let price = edges.checked_add(query.server_price).ok()?;
    let bound_ms = hops.iter().fold(0u64, |sum, hop| sum.saturating_add(hop.allowance_ms));
    Some(Route { hops, price, bound_ms })
}

#[cfg(test)]
mod tests;
