use std::future::pending;

use libp2p_por::{Config, MemoryStore};
use por_core::{GraphEdge, MyChannel};
use por_types::interface::{ChannelStatus, ChannelView};
use por_types::{Network, NodeSecret, Side, Terms, Totals};

use super::*;
use crate::graph::Graph;

const CHANNEL: ChannelId = ChannelId(1);

fn key(seed: u8) -> NodeKey {
    NodeSecret::from_seed(&[seed; 32]).public()
}

fn terms(base_fee: u128) -> Terms {
    Terms {
        rtt_ms: 100,
        bytes_per_s: 1_000_000,
        base_fee: Yocto(base_fee),
        byte_fee: Yocto(1),
        heartbeat_ms: 100,
        grace_ms: 100,
        max_requests: 16,
        max_bytes: 1 << 20,
    }
}

fn view(base_fee: u128) -> ChannelView {
    ChannelView {
        channel: CHANNEL,
        a: "a.test".parse().expect("account"),
        b: "b.test".parse().expect("account"),
        key_a: key(1),
        key_b: key(2),
        deposit_a: Yocto::near(1),
        deposit_b: Yocto::near(1),
        drawn_a: Yocto::ZERO,
        drawn_b: Yocto::ZERO,
        bond: Yocto::near(1),
        totals: Totals::default(),
        terms: terms(base_fee),
        sequence: 0,
        status: ChannelStatus::Open,
    }
}

fn mine() -> MyChannel {
    MyChannel {
        channel: CHANNEL,
        peer: key(2),
        peer_account: "b.test".parse().expect("account"),
        side: Side::A,
        deposit_mine: Yocto::near(1),
        deposit_theirs: Yocto::near(1),
        drawn_mine: Yocto::ZERO,
        drawn_theirs: Yocto::ZERO,
        bond: Yocto::near(1),
        floors: Totals::default(),
        terms: terms(1),
        open: true,
        gone: false,
    }
}

fn request() -> ApiRequest {
    ApiRequest { deadline: Duration::from_millis(10), ..ApiRequest::new(key(2), "echo", "hello", 5) }
}

/// What lives as long as a requester does.
type Alive = (watch::Sender<GraphVersion>, watch::Sender<HashSet<libp2p::PeerId>>, watch::Sender<bool>);

/// A node whose counterparty is said to be connected, and never answers.
fn lone() -> (Arc<Requester>, Control, SharedGraph, Alive) {
    let network = Network { chain_id: "localnet".into(), contract: "por.test".parse().expect("account") };
    let secret = NodeSecret::from_seed(&[1; 32]);
    let (behaviour, control, driver) =
        libp2p_por::new(Config::new(network), secret, MemoryStore::default()).expect("a node");
    tokio::spawn(async move {
        let _behaviour = behaviour;
        driver.await
    });
    let graph = SharedGraph::default();
    let known = GraphVersion { height: 1, ..GraphVersion::default() };
    let (graph_seen, versions) = watch::channel(known);
    let peer = libp2p_por::peer_id(&key(2)).expect("peer");
    let (there, connected) = watch::channel(HashSet::from([peer]));
    let (heard, told) = watch::channel(true);
    let requester =
        Requester::new(key(1), control.clone(), graph.clone(), versions, connected, told, Arc::default());
    let requester = Arc::new(requester);
    (requester, control, graph, (graph_seen, there, heard))
}

/// The graph shows a new channel a moment before the protocol knows of it.
#[tokio::test]
async fn a_channel_that_was_just_opened_is_waited_for() {
    let (requester, _control, graph, _alive) = lone();
    *graph.write() = Graph::from_pages(1, &[], &[view(1)]);
    let error = requester.request(&request(), pending()).await.expect_err("nobody is there");
    assert_eq!(error.code, ErrorCode::Deadline, "{error}");
    assert!(error.to_string().contains("has just been opened"), "{error}");
}

/// Nodes take no more under way on a channel than its bond makes good: such a request would find them busy for ever.
#[tokio::test]
async fn a_request_worth_a_bond_is_refused_at_once() {
    let (requester, control, graph, _alive) = lone();
    control.set_channels(vec![mine()]).await.expect("channels");
    *graph.write() = Graph::from_pages(1, &[], &[ChannelView { deposit_a: Yocto::near(9), ..view(1) }]);
    let worth = |server_price| ApiRequest { server_price, max_price: None, ..request() };
    let error = carried(&requester, worth(Yocto::near(1))).await;
    assert_eq!(error.code, ErrorCode::Budget, "{error}");
    assert!(error.message.contains("bond of 1 NEAR"), "{error}");
    assert!(!carried(&requester, worth(Yocto::millinear(999))).await.message.contains("bond"));
}

/// What a quote says of a request; where there is one, a message without a reason.
async fn carried(requester: &Requester, r: ApiRequest) -> ClientError {
    let query = QuoteRequest {
        destination: r.destination,
        app: None,
        body_len: r.body.len() as u64,
        response_limit: r.response_limit,
        server_price: r.server_price,
        max_latency_ms: None,
        alternatives: None,
    };
    requester.quote(&query).await.err().unwrap_or_else(|| other("it is carried"))
}

/// It would be paid for, and nobody would wait for its answer.
#[tokio::test]
async fn without_time_nothing_is_sent() {
    let (requester, control, graph, _alive) = lone();
    control.set_channels(vec![mine()]).await.expect("channels");
    *graph.write() = Graph::from_pages(1, &[], &[view(1)]);
    let error = requester.request(&ApiRequest { deadline: Duration::ZERO, ..request() }, pending()).await;
    let error = error.expect_err("no time");
    assert_eq!((error.code, error.spent), (ErrorCode::Deadline, Yocto::ZERO), "{error}");
    let channels = control.balances().await.expect("runs");
    assert_eq!(channels[0].2, Yocto::near(1), "nothing is set aside");
}

/// A request that names a later version of the graph than its prices are of says something wrong, and is refused
/// for good.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_route_is_of_the_version_that_is_named() {
    let (requester, control, graph, _alive) = lone();
    control.set_channels(vec![mine()]).await.expect("channels");
    for round in 0..200_u64 {
        let mut asked = None;
        for (version, base_fee) in [(2 * round + 1, 1), (2 * round + 2, 1_000)] {
            let fresh = Graph::from_pages(version, &[], &[view(base_fee)]);
            let edge =
                GraphEdge { channel: CHANNEL, a: key(1), b: key(2), terms: terms(base_fee), open: true };
            control.update_graph(version, 1, vec![edge]).await.expect("graph");
            // It becomes dear at some moment of the request.
            for _ in 0..round % 64 * 50 {
                std::hint::spin_loop();
            }
            *graph.write() = fresh;
            if asked.is_none() {
                let requester = requester.clone();
                asked = Some(tokio::spawn(async move { requester.request(&request(), pending()).await }));
            }
        }
        let ended = asked.expect("asked").await.expect("no panic");
        let error = ended.expect_err("nobody is there");
        assert_ne!(error.code, ErrorCode::Fatal, "{error}, in round {round}");
    }
}
