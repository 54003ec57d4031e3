//! What a node of a large network has to do: find routes, follow the graph, call the chain, and be late.
//!
//! The graph, the search and the pages of the change log are the node's own; a sample of requests is sent
//! over routes that the search found, by the real protocol core in virtual time, each node of those routes
//! being a host of its own. What people do (channels that come and go, nodes that fail) is assumed, and is
//! in the options and in the output.

mod network;
mod sample;

use anyhow::{Context as _, ensure};
use cpu_time::ThreadTime;
use por_core::testing::Rng;
use por_node::graph::Graph;
use por_node::routes::{self, Goal, Route, RouteQuery};
use por_types::{ChannelId, Yocto};
use serde::Serialize;

use network::Network;
use sample::Sample;

/// Bytes of each request and of its response.
pub const BODY: u64 = 256;
const DAY_S: u64 = 24 * 3600;

#[derive(clap::Args)]
pub struct Scale {
    /// Nodes; may be repeated. Each network has five channels for each node.
    #[arg(long, default_values_t = [1_000, 10_000, 100_000])]
    nodes: Vec<u32>,
    /// Routes that are searched for, the latency bound active.
    #[arg(long, default_value_t = 200)]
    routes: usize,
    /// Of them, as many requests are sent, one after the other within `--spread`.
    #[arg(long, default_value_t = 100)]
    requests: usize,
    /// Virtual time in which they are sent, milliseconds.
    #[arg(long, default_value_t = 60_000)]
    spread: u64,
    /// Of 1000 nodes on those routes, so many fall silent once they have taken a request on.
    #[arg(long, default_value_t = 50)]
    silent: u32,
    /// Of 1000 channels, so many are opened anew and so many closed on a day.
    #[arg(long, default_value_t = 10)]
    churn: u64,
    /// Seconds between looks at the chain.
    #[arg(long, default_value_t = 1)]
    poll: u64,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One JSON line for each network.
    #[arg(long)]
    json: bool,
}

/// Figures of one network.
#[derive(Debug, Serialize)]
struct Figures {
    nodes: u32,
    channels: usize,
    seed: u64,
    /// CPU time of a search for a cheapest route within a bound that the cheapest of all breaks.
    route_median_us: f64,
    route_p99_us: f64,
    hops_mean: f64,
    sync: Sync,
    chain: Calls,
    late: Sample,
}

/// What a node reads of the chain, bytes of RPC answers (a view's result is a list of decimal numbers).
#[derive(Debug, Serialize)]
struct Sync {
    /// Once, to begin with.
    first_read_bytes: u64,
    first_read_calls: u64,
    /// Changes of a day, and answers that say that nothing has changed.
    changes_bytes_a_day: u64,
    idle_bytes_a_day: u64,
}

#[derive(Debug, Serialize)]
struct Calls {
    /// Views of one node: each look reads the head and the change log.
    views_a_day: u64,
    /// Transactions of all nodes together, and of one on average: two for a channel that opens, three for one
    /// that closes in agreement, and one for each sever of the sample if every request were one of a day.
    transactions_a_day: u64,
    transactions_of_a_node_a_day: f64,
}

pub fn run(args: &Scale) -> anyhow::Result<bool> {
    ensure!(args.poll > 0 && args.routes > 0, "nothing to do");
    let mut sound = true;
    for &nodes in &args.nodes {
        ensure!(nodes >= 10, "a network has at least ten nodes");
        let network = Network::new(nodes, args.seed);
        let graph = network.graph();
        let (found, times) = find_routes(args, &network, &graph)?;
        let late = sample::run(args, &network, &found)?;
        sound &= late.violations == 0;
        let severed = late.severs;
        let figures = Figures {
            nodes,
            channels: network.channels.len(),
            seed: args.seed,
            route_median_us: quantile(&times, 0.5),
            route_p99_us: quantile(&times, 0.99),
            hops_mean: found.iter().map(|route| route.hops.len()).sum::<usize>() as f64 / found.len() as f64,
            sync: sync(args, &network)?,
            chain: calls(args, &network, severed),
            late,
        };
        print(&figures, args.json)?;
    }
    Ok(sound)
}

fn quantile(times: &[f64], share: f64) -> f64 {
    let mut sorted = times.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(0.0)
}

/// Routes between random nodes, and microseconds of the search of each. The bound is half way between the
/// quickest route's time and the cheapest route's.
fn find_routes(args: &Scale, network: &Network, graph: &Graph) -> anyhow::Result<(Vec<Route>, Vec<f64>)> {
    let mut rng = Rng::new(args.seed.wrapping_add(1));
    let rich = |_: ChannelId| Some(Yocto(u128::MAX));
    let query =
        |bound, goal| RouteQuery { max_latency_ms: bound, goal, ..RouteQuery::new(BODY, BODY, Yocto(50)) };
    let (mut routes, mut times) = (Vec::new(), Vec::new());
    for _ in 0..args.routes * 100 {
        if routes.len() == args.routes {
            break;
        }
        let nodes = u64::from(network.nodes);
        let (from, to) = (rng.below(nodes) as u32, rng.below(nodes) as u32);
        if from == to {
            continue;
        }
        let (start, end) = (network.key(from), network.key(to));
        let best = |query: &RouteQuery| -> anyhow::Result<Route> {
            routes::find(graph, &start, &end, query, &rich)?.into_iter().next().context("a route")
        };
        let quickest = best(&query(None, Goal::Quickest))?.bound_ms;
        let cheapest = best(&query(None, Goal::Cheapest))?.bound_ms;
        let bound = (quickest + cheapest) / 2;
        if bound >= cheapest {
            continue;
        }
        let began = ThreadTime::now();
        let route = best(&query(Some(bound), Goal::Cheapest))?;
        times.push(began.elapsed().as_secs_f64() * 1e6);
        routes.push(route);
    }
    ensure!(!routes.is_empty(), "no pair of nodes has a cheapest route that is not the quickest");
    Ok((routes, times))
}

/// Bytes of a view's result as NEAR's RPC writes it: the JSON, as a list of the numbers of its bytes.
fn rpc_len(value: &impl Serialize) -> anyhow::Result<u64> {
    let bytes = serde_json::to_vec(value)?;
    let digits = |byte: &u8| {
        if *byte >= 100 {
            4
        } else if *byte >= 10 {
            3
        } else {
            2
        }
    };
    Ok(bytes.iter().map(digits).sum())
}

fn sync(args: &Scale, network: &Network) -> anyhow::Result<Sync> {
    let (mut first_read_bytes, mut first_read_calls) = (0, 0);
    for page in network.node_pages() {
        first_read_bytes += rpc_len(&page)?;
        first_read_calls += 1;
    }
    for page in network.channel_pages() {
        first_read_bytes += rpc_len(&page)?;
        first_read_calls += 1;
    }
    let changed = network.channels.len() as u64 * args.churn * 2 / 1000;
    let looks = DAY_S / args.poll;
    // Changes are spread over the day: a look brings those since the last one.
    let mut rng = Rng::new(args.seed.wrapping_add(2));
    let mut counts = vec![0u32; usize::try_from(looks)?];
    for _ in 0..changed {
        let look = usize::try_from(rng.below(looks))?;
        counts[look] += 1;
    }
    let (mut changes_bytes_a_day, mut idle) = (0, 0);
    let mut version = 1;
    for count in counts {
        if count == 0 {
            idle += 1;
            continue;
        }
        let page = network.changes(&mut rng, version, count);
        version += u64::from(count);
        changes_bytes_a_day += rpc_len(&page)?;
    }
    let nothing = network.changes(&mut rng, version, 0);
    Ok(Sync {
        first_read_bytes,
        first_read_calls,
        changes_bytes_a_day,
        idle_bytes_a_day: idle * rpc_len(&nothing)?,
    })
}

fn calls(args: &Scale, network: &Network, severs: u64) -> Calls {
    let changed = network.channels.len() as u64 * args.churn / 1000;
    let transactions_a_day = changed * 2 + changed * 3 + severs;
    Calls {
        views_a_day: DAY_S / args.poll * 2,
        transactions_a_day,
        transactions_of_a_node_a_day: transactions_a_day as f64 / f64::from(network.nodes),
    }
}

fn print(figures: &Figures, json: bool) -> anyhow::Result<()> {
    if json {
        println!("{}", serde_json::to_string(figures)?);
        return Ok(());
    }
    let Figures { nodes, channels, sync, chain, late, .. } = figures;
    println!("{nodes} nodes, {channels} channels, seed {}", figures.seed);
    println!("  route          {:.0} us, p99 {:.0} us", figures.route_median_us, figures.route_p99_us);
    println!("  hops           {:.1}", figures.hops_mean);
    println!("  first read     {} calls, {} KiB", sync.first_read_calls, sync.first_read_bytes >> 10);
    let day = (sync.changes_bytes_a_day >> 10, sync.idle_bytes_a_day >> 10);
    println!("  following it   {} KiB of changes and {} KiB of nothing new a day", day.0, day.1);
    println!("  chain          {} views a day of a node", chain.views_a_day);
    println!("  transactions   {} a day", chain.transactions_a_day);
    println!("  requests       {} over {} hosts", late.requests, late.hosts);
    println!("    answered     {}, {} of them late by {} ms", late.answered, late.late, late.late_ms);
    println!(
        "    severed      {} requests, {} edges, {} silent hosts",
        late.severed, late.severs, late.silent
    );
    println!("    otherwise    {} rejected, {} refused", late.rejected, late.refused);
    println!("    violations   {}", late.violations);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_network_ends_all_its_requests() {
        let args = Scale {
            nodes: vec![150],
            routes: 12,
            requests: 12,
            spread: 3_000,
            silent: 100,
            churn: 10,
            poll: 60,
            seed: 3,
            json: true,
        };
        assert!(run(&args).expect("a simulation"), "a request has no outcome");
    }

    #[test]
    fn a_view_costs_what_the_rpc_writes() {
        // "7" is the bytes 34, 55, 34: `34,55,34,`.
        assert_eq!(rpc_len(&"7").expect("JSON"), 9);
    }
}
