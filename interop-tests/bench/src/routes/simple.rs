//! petgraph's Dijkstra and A* for the cheapest path. They know no second criterion, so they run
//! without the latency bound, and their answers break it.

use petgraph::algo::{astar, dijkstra};
use petgraph::graph::{NodeIndex, UnGraph};

use super::random::{Network, Query};

pub struct Simple {
    graph: UnGraph<(), u64>,
}

impl Simple {
    pub fn build(network: &Network) -> Simple {
        let mut graph = UnGraph::with_capacity(network.nodes as usize, network.channels.len());
        let places: Vec<NodeIndex> = (0..network.nodes).map(|_| graph.add_node(())).collect();
        for channel in &network.channels {
            graph.add_edge(places[channel.a as usize], places[channel.b as usize], channel.price());
        }
        Simple { graph }
    }

    pub fn dijkstra(&self, query: &Query) -> bool {
        let (from, to) = ends(query);
        dijkstra(&self.graph, from, Some(to), |edge| *edge.weight()).contains_key(&to)
    }

    pub fn astar(&self, query: &Query) -> bool {
        let (from, to) = ends(query);
        astar(&self.graph, from, |node| node == to, |edge| *edge.weight(), |_| 0).is_some()
    }
}

fn ends(query: &Query) -> (NodeIndex, NodeIndex) {
    (NodeIndex::new(query.from as usize), NodeIndex::new(query.to as usize))
}
