//! Which connections are kept, and how long.

mod support;

use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt;
use libp2p_por as por;
use por::por_core::MyChannel;
use por::por_core::types::Yocto;
use por::{Config, MemoryStore, Outcome};
use support::{TestNode, bounded, chain, join_row, network, request};

/// A connection that nothing keeps is closed after it.
const IDLE: Duration = Duration::from_millis(100);

/// Two neighbours, connected and ready, that keep no connection for nothing.
async fn neighbours() -> Vec<TestNode> {
    let mut nodes = Vec::new();
    for _ in 0..2 {
        let config = Config::new(network()).with_redial(None);
        nodes.push(TestNode::with_idle(config, MemoryStore::default(), IDLE).await);
    }
    join_row(&mut nodes).await;
    nodes
}

/// Both ends read from the chain what has become of their channel.
async fn change(nodes: &[TestNode], change: impl Fn(&mut MyChannel)) {
    let (_, mine) = chain(&[nodes[0].key, nodes[1].key]);
    for (node, mut channels) in nodes.iter().zip(mine) {
        channels.iter_mut().for_each(&change);
        bounded("channels", node.control.set_channels(channels)).await.expect("runs");
    }
}

/// Both ends would lose their bonds if it did not: nobody dials again for a channel that closes.
#[tokio::test]
async fn a_connection_outlives_the_announcement_that_its_channel_closes() {
    let mut nodes = neighbours().await;
    let mut serving = nodes[1].control.serve("echo", Default::default(), 1).await.expect("runs");
    let mut pending = nodes[0]
        .control
        .request(request(&nodes, Bytes::from_static(b"x"), 1, Yocto::ZERO))
        .await
        .expect("sent");
    assert!(bounded("ack", pending.acked()).await.expect("runs"));
    let incoming = bounded("incoming", serving.next()).await.expect("serving");

    change(&nodes, |channel| channel.open = false).await;
    let lost = nodes[0].event(|event| matches!(event, por::Event::PeerLost { .. }));
    let lost = tokio::time::timeout(5 * IDLE, lost).await;
    assert!(lost.is_err(), "the connection was given up with a request under way");
    incoming.respond(Bytes::from_static(b"y")).await.expect("runs");
    let outcome = bounded("outcome", pending.outcome()).await.expect("runs");
    assert!(matches!(outcome, Outcome::Response { .. }), "{outcome:?}");

    change(&nodes, |channel| (channel.open, channel.gone) = (false, true)).await;
    nodes[0].event(|event| matches!(event, por::Event::PeerLost { .. })).await;
}
