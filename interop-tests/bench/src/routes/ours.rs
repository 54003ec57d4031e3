//! The node's own graph and search.

use std::time::Instant;

use anyhow::{Context as _, ensure};
use por_node::graph::Graph;
use por_node::routes::{self, Goal, RouteQuery};
use por_types::interface::{ChangesView, ChannelStatus, ChannelView, NodeView};
use por_types::{ChannelId, Terms, Totals, Yocto};
use rand::Rng as _;

use super::CHANGES;
use super::random::{BODY, Channel, Network, Query};

/// The contract's pages.
pub struct Pages {
    nodes: Vec<NodeView>,
    channels: Vec<ChannelView>,
}

fn terms(channel: &Channel) -> Terms {
    Terms {
        rtt_ms: channel.rtt_ms.into(),
        bytes_per_s: 100_000_000,
        base_fee: Yocto(channel.base_fee.into()),
        byte_fee: Yocto(channel.byte_fee.into()),
        heartbeat_ms: 1_000,
        grace_ms: 1_000,
        max_requests: 1_000,
        max_bytes: 1 << 30,
    }
}

fn view(network: &Network, id: usize, channel: &Channel) -> ChannelView {
    let account = |node: u32| format!("node-{node}.bench").parse().expect("a valid account");
    ChannelView {
        channel: ChannelId(id as u64),
        a: account(channel.a),
        b: account(channel.b),
        key_a: network.key(channel.a),
        key_b: network.key(channel.b),
        deposit_a: Yocto::near(1),
        deposit_b: Yocto::near(1),
        drawn_a: Yocto::ZERO,
        drawn_b: Yocto::ZERO,
        bond: Yocto::near(1),
        totals: Totals::default(),
        terms: terms(channel),
        sequence: 0,
        status: ChannelStatus::Open,
    }
}

pub fn pages(network: &Network) -> Pages {
    let node = |index: u32| NodeView {
        index,
        account: format!("node-{index}.bench").parse().expect("a valid account"),
        node_key: network.key(index),
        stake: Yocto::near(1),
        active_stake: Yocto::near(1),
        locked: Yocto::ZERO,
        unstaking: Yocto::ZERO,
        attached: true,
        attached_since_ms: Some(1),
    };
    let channels = network.channels.iter().enumerate();
    Pages {
        nodes: (0..network.nodes).map(node).collect(),
        channels: channels.map(|(id, channel)| view(network, id, channel)).collect(),
    }
}

pub fn from_pages(pages: &Pages) -> Graph {
    Graph::from_pages(1, &pages.nodes, &pages.channels)
}

pub fn build(network: &Network) -> Graph {
    from_pages(&pages(network))
}

/// Milliseconds of applying changes of as many channels, of all kinds: new terms, severed, open
/// again, as pages of the change log bring them.
pub fn change(graph: &mut Graph, network: &Network) -> anyhow::Result<f64> {
    let mut random = network.random(2);
    let views: Vec<ChannelView> = (0..CHANGES)
        .map(|_| {
            let id = random.random_range(0..network.channels.len());
            let mut view = view(network, id, &network.channels[id]);
            view.terms.base_fee = Yocto(random.random_range(1_000..50_000));
            if random.random_bool(0.1) {
                view.status = ChannelStatus::Cancelled;
            }
            view
        })
        .collect();
    let pages = views.chunks(100).zip(2..).map(|(channels, version)| ChangesView {
        version,
        upto: version,
        nodes: Vec::new(),
        channels: channels.to_vec(),
        gone: Vec::new(),
        oldest: 1,
    });
    let pages: Vec<ChangesView> = pages.collect();
    let start = Instant::now();
    for page in &pages {
        graph.apply(page)?;
    }
    Ok(start.elapsed().as_secs_f64() * 1e3)
}

fn query(bound_ms: Option<u64>, goal: Goal) -> RouteQuery {
    RouteQuery { max_latency_ms: bound_ms, goal, ..RouteQuery::new(BODY, BODY, Yocto::ZERO) }
}

/// Queries between random nodes, each bound to half way between the quickest route's time and the
/// cheapest route's: the cheapest route is never the answer.
pub fn queries(graph: &Graph, network: &Network, count: usize) -> anyhow::Result<Vec<Query>> {
    let mut random = network.random(1);
    let rich = |_: ChannelId| Some(Yocto(u128::MAX));
    let mut queries = Vec::with_capacity(count);
    for _ in 0..count.saturating_mul(100) {
        let (from, to) = (random.random_range(0..network.nodes), random.random_range(0..network.nodes));
        if from == to {
            continue;
        }
        let (start, end) = (network.key(from), network.key(to));
        let bound = |goal| -> anyhow::Result<u64> {
            let routes = routes::find(graph, &start, &end, &query(None, goal), &rich)?;
            Ok(routes.first().context("a route")?.bound_ms)
        };
        let (quickest, cheapest) = (bound(Goal::Quickest)?, bound(Goal::Cheapest)?);
        let bound_ms = (quickest + cheapest) / 2;
        if bound_ms < cheapest {
            queries.push(Query { from, to, bound_ms });
        }
        if queries.len() == count {
            return Ok(queries);
        }
    }
    ensure!(queries.len() == count, "too few pairs of nodes whose cheapest route is not the quickest");
    Ok(queries)
}

pub fn find(graph: &Graph, network: &Network, ask: &Query) -> bool {
    let rich = |_: ChannelId| Some(Yocto(u128::MAX));
    let query = query(Some(ask.bound_ms), Goal::Cheapest);
    routes::find(graph, &network.key(ask.from), &network.key(ask.to), &query, &rich).is_ok()
}
