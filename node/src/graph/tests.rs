use por_types::interface::{ChangeKind, ChangesView};
use por_types::{Side, Terms, Totals, Yocto};

use super::*;

fn key(byte: u8) -> NodeKey {
    NodeKey([byte; 32])
}

pub(super) fn node(index: u8) -> NodeView {
    NodeView {
        index: index.into(),
        account: format!("n{index}.localnet").parse().expect("account"),
        node_key: key(index),
        stake: Yocto::ZERO,
        active_stake: Yocto::ZERO,
        locked: Yocto::ZERO,
        unstaking: Yocto::ZERO,
        attached: false,
        attached_since_ms: None,
    }
}

fn terms() -> Terms {
    Terms {
        rtt_ms: 100,
        bytes_per_s: 1000,
        base_fee: Yocto(1),
        byte_fee: Yocto(1),
        heartbeat_ms: 1000,
        grace_ms: 1000,
        max_requests: 1,
        max_bytes: 1000,
    }
}

pub(super) fn channel(id: u64, a: u8, b: u8, status: ChannelStatus) -> ChannelView {
    ChannelView {
        channel: ChannelId(id),
        a: node(a).account,
        b: node(b).account,
        key_a: key(a),
        key_b: key(b),
        deposit_a: Yocto(10),
        deposit_b: Yocto(10),
        drawn_a: Yocto::ZERO,
        drawn_b: Yocto::ZERO,
        bond: Yocto(5),
        totals: Totals::default(),
        terms: terms(),
        sequence: 0,
        status,
    }
}

pub(super) fn page(version: u64, upto: u64, nodes: Vec<NodeView>, channels: Vec<ChannelView>) -> ChangesView {
    ChangesView { version, upto, nodes, channels, gone: Vec::new(), oldest: 1 }
}

fn neighbours(graph: &Graph, of: u8) -> Vec<NodeKey> {
    let at = graph.place_of(&key(of)).expect("known");
    let mut keys: Vec<NodeKey> = graph.links_of(at).iter().map(|link| graph.key_at(link.to)).collect();
    keys.sort();
    keys
}

#[test]
fn changes_bring_the_graph_from_version_to_version() {
    let mut graph = Graph::default();
    let nodes = vec![node(1), node(2), node(3)];
    let open = |id, a, b| channel(id, a, b, ChannelStatus::Open);
    let changed = graph.apply(&page(6, 5, nodes, vec![open(0, 1, 2), open(1, 2, 3)])).expect("applies");
    assert_eq!((changed.len(), graph.version()), (2, 5));
    assert_eq!(neighbours(&graph, 2), [key(1), key(3)]);
    assert_eq!(graph.node(&key(2)).expect("known").index, 2);
    assert_eq!(graph.node_at(3).expect("known").node_key, key(3));
    assert_eq!(graph.node_of_account(&node(1).account).expect("known").node_key, key(1));

    let severed = ChannelStatus::Severed { by: Side::A, severed_ms: 1, settles_ms: 2 };
    let changed = graph.apply(&page(7, 7, vec![], vec![channel(0, 1, 2, severed)])).expect("applies");
    assert!(!changed[0].open);
    assert_eq!(neighbours(&graph, 2), [key(3)]);
    assert_eq!(neighbours(&graph, 1), []);
    assert_eq!(graph.channels_of(&key(1)).len(), 1, "still on record");
}

#[test]
fn an_edge_leaves_with_the_confirmation_of_its_close() {
    let mut graph = Graph::default();
    let closing = |confirmed| ChannelStatus::Closing {
        by: Side::A,
        totals: Totals::default(),
        confirmed,
        closes_ms: 0,
    };
    graph.apply(&page(1, 1, vec![], vec![channel(0, 1, 2, closing(false))])).expect("applies");
    assert!(graph.edge(ChannelId(0)).expect("known").open, "a request binds nobody");
    graph.apply(&page(2, 2, vec![], vec![channel(0, 1, 2, closing(true))])).expect("applies");
    assert!(!graph.edge(ChannelId(0)).expect("known").open);
    assert_eq!(neighbours(&graph, 1), []);
}

#[test]
fn answers_that_go_back_or_leave_a_gap_change_nothing() {
    let mut graph = Graph::default();
    graph.apply(&page(5, 5, vec![node(1)], vec![])).expect("applies");
    let back = graph.apply(&page(4, 4, vec![node(2)], vec![]));
    assert_eq!(back, Err(GraphError::Backwards { have: 5, found: 4 }));
    let gap = graph.apply(&ChangesView { oldest: 7, ..page(9, 5, vec![], vec![]) });
    assert_eq!(gap, Err(GraphError::Behind { have: 5, oldest: 7 }));
    assert_eq!((graph.version(), graph.node_count()), (5, 1));
    graph.observe_block(10, 100);
    graph.observe_block(9, 90);
    assert_eq!((graph.height(), graph.chain_time_ms()), (10, 100));
}

#[test]
fn pages_and_changes_lead_to_the_same_graph() {
    let channels = [channel(0, 1, 2, ChannelStatus::Open), channel(1, 2, 9, ChannelStatus::Open)];
    let mut graph = Graph::from_pages(3, &[node(1), node(2)], &channels);
    // Node 9 registered while the pages were read: its channel is there before it.
    assert!(graph.node(&key(9)).is_none());
    assert_eq!(neighbours(&graph, 2), [key(1), key(9)]);
    graph.apply(&page(4, 4, vec![node(9)], vec![])).expect("applies");
    assert_eq!(graph.node(&key(9)).expect("known").index, 9);
}

/// Node 1 leaves and comes back elsewhere, node 2 gets its index: in any order, in one page or two.
#[test]
fn an_index_that_is_used_again_is_the_new_nodes() {
    let at = |index: u32, name: u8| NodeView { index, ..node(name) };
    let (moved, new) = (at(9, 1), at(1, 2));
    let pages = [
        vec![vec![moved.clone(), new.clone()]],
        vec![vec![new.clone(), moved.clone()]],
        vec![vec![moved.clone()], vec![new.clone()]],
        vec![vec![new.clone()], vec![moved.clone()]],
    ];
    for nodes in pages {
        let mut graph = Graph::from_pages(0, &[node(1)], &[]);
        for (version, nodes) in (1..).zip(nodes) {
            graph.apply(&page(version, version, nodes, vec![])).expect("applies");
        }
        assert_eq!((graph.node_at(1), graph.node_at(9)), (Some(&new), Some(&moved)));
        assert_eq!((graph.node(&key(1)), graph.node(&key(2))), (Some(&moved), Some(&new)));
        assert_eq!(graph.node_count(), 2);
    }
    // It only leaves: that shows when another has its index.
    let mut graph = Graph::from_pages(0, &[node(1)], &[]);
    graph.apply(&page(1, 1, vec![new.clone()], vec![])).expect("applies");
    assert_eq!((graph.node(&key(1)), graph.node_of_account(&node(1).account)), (None, None));
    assert_eq!((graph.node_at(1), graph.node_count()), (Some(&new), 1));
}

/// What ended and went while nobody looked is known by its name only.
#[test]
fn what_is_gone_leaves() {
    let channels = [channel(0, 1, 2, ChannelStatus::Open), channel(1, 2, 3, ChannelStatus::Open)];
    let mut graph = Graph::from_pages(1, &[node(1), node(2), node(3)], &channels);
    let unknown = [ChangeKind::Node { index: 7 }, ChangeKind::Channel { channel: ChannelId(7) }];
    let gone = [ChangeKind::Node { index: 1 }, ChangeKind::Channel { channel: ChannelId(0) }];
    let gone = gone.into_iter().chain(unknown).collect();
    let changed = graph.apply(&ChangesView { gone, ..page(5, 5, vec![], vec![]) }).expect("applies");
    let edges: Vec<(ChannelId, bool)> = changed.iter().map(|edge| (edge.channel, edge.open)).collect();
    assert_eq!(edges, [(ChannelId(0), false)], "whoever is told of changes hears that it has left");
    assert!(graph.edge(ChannelId(0)).is_none() && graph.node_at(1).is_none());
    assert_eq!((graph.node(&key(1)), graph.node_of_account(&node(1).account)), (None, None));
    assert_eq!((graph.version(), graph.node_count(), graph.channel_count()), (5, 2, 1));
    assert_eq!(neighbours(&graph, 2), [key(3)]);
    // It came back elsewhere, and that is on the same page as that it had left.
    let back = NodeView { index: 9, ..node(2) };
    let gone = vec![ChangeKind::Node { index: 2 }];
    graph.apply(&ChangesView { gone, ..page(6, 6, vec![back.clone()], vec![]) }).expect("applies");
    assert_eq!((graph.node(&key(2)), graph.node_at(2)), (Some(&back), None));
}

#[test]
fn a_forgotten_channel_leaves_and_the_others_stay() {
    let mut graph = Graph::default();
    let channels: Vec<ChannelView> =
        (0..4).map(|id| channel(id, 1, 2 + id as u8, ChannelStatus::Open)).collect();
    graph.apply(&page(1, 1, vec![], channels)).expect("applies");
    graph.forget(ChannelId(1));
    graph.forget(ChannelId(1));
    assert_eq!((graph.channel_count(), neighbours(&graph, 1)), (3, vec![key(2), key(4), key(5)]));
    assert_eq!(neighbours(&graph, 3), []);
    assert_eq!(neighbours(&graph, 5), [key(1)], "it took the place of the one that left");
    assert_eq!(graph.edge(ChannelId(3)).expect("known").view.channel, ChannelId(3));
    assert!(graph.edge(ChannelId(1)).is_none());
    // What comes later still finds its place.
    let severed = ChannelStatus::Severed { by: Side::A, severed_ms: 1, settles_ms: 2 };
    graph.apply(&page(2, 2, vec![], vec![channel(3, 1, 5, severed)])).expect("applies");
    assert_eq!(neighbours(&graph, 1), [key(2), key(4)]);
    graph.forget(ChannelId(3));
    assert_eq!((graph.channel_count(), neighbours(&graph, 1)), (2, vec![key(2), key(4)]));
}
