//! Nodes that start while no endpoint of the chain answers.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "chain/proxy.rs"]
mod proxy;

use std::sync::Arc;

use common::{Daemon, World, eventually, request};
use por_node::client::ErrorCode;
use por_node::sdk::{AppPricing, Incoming, Node};
use por_types::{ChannelId, Yocto};
use proxy::{Mood, Proxy};
use tokio::sync::Notify;

/// Longer than any test.
const CHALLENGE_MS: u64 = 600_000;

/// `alice`, and `bob` who follows the chain through an endpoint of his own.
async fn pair() -> (World, Daemon, Daemon, Proxy, ChannelId) {
    let mut world = World::start_with(|params| params.challenge_ms = CHALLENGE_MS).await;
    let alice = world.node("alice", &[]).await;
    let endpoint = Proxy::start(world.chain.rpc_url()).await;
    world.rpc_url = Some(endpoint.url());
    let bob = world.node("bob", &[&alice]).await;
    let channel = alice.open_channel(&bob, Yocto::near(1)).await;
    (world, alice, bob, endpoint, channel)
}

/// What was asked before the restart is answered; what is asked then is refused, until the chain is read.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_starts_without_the_chain_keeps_its_promises() {
    let (world, alice, mut bob, endpoint, channel) = pair().await;
    let never = Arc::new(Notify::new());
    let _silent = bob.echo_when("echo", &never).await;
    let before = alice.node().request(request(&bob, "echo", b"before"));
    let mut before = std::pin::pin!(before);
    let taken = eventually("bob has the request", || async {
        (bob.channel(channel).await?.unfinished == 1).then_some(())
    });
    tokio::select! {
        answer = &mut before => panic!("nobody has answered: {answer:?}"),
        () = taken => {}
    }
    bob.stop().await;
    endpoint.turn(Mood::Page);
    bob.start().await;
    let answer = |incoming: Incoming| async move { incoming.body };
    let _echo = bob.node().serve("echo", AppPricing::default(), 16, answer).await.expect("serve");
    assert_eq!(&before.await.expect("answer").body[..], b"before");
    let after = alice.node().request(request(&bob, "echo", b"after")).await.expect_err("nothing new");
    assert_eq!(after.spent, Yocto::ZERO, "{after}");
    let status = bob.client().status().await.expect("status");
    assert!(status.chain_error.is_some() && status.graph_channels == 0, "{status:?}");

    endpoint.turn(Mood::Honest);
    eventually("bob follows the chain again", || async {
        let status = bob.client().status().await.expect("status");
        (status.chain_error.is_none() && status.graph_channels == 1).then_some(())
    })
    .await;
    assert_eq!(&alice.ask(&bob, "echo", b"after").await.body[..], b"after");
    let _other = alice.node().serve("echo", AppPricing::default(), 16, answer).await.expect("serve");
    assert_eq!(&bob.ask(&alice, "echo", b"by the graph").await.body[..], b"by the graph");
    world.check_books().await;
}

/// Other endpoints may be of another chain, and who never knew anything has nothing to go on by.
#[tokio::test(flavor = "multi_thread")]
async fn what_other_endpoints_said_is_not_gone_on_by() {
    let (world, _alice, mut bob, endpoint, _) = pair().await;
    bob.stop().await;
    endpoint.turn(Mood::Page);
    let known = vec![endpoint.url()];
    let other = Proxy::start(world.chain.rpc_url()).await;
    other.turn(Mood::Page);
    bob.follow_through(vec![other.url()]);
    let error = Node::start(bob.setup()).await.expect_err("it knows nothing from there");
    assert_eq!(error.code, ErrorCode::Unreachable, "{error}");
    bob.follow_through(known);
    let new = bob.elsewhere(world.homes().join("elsewhere"));
    let error = Node::start(new.setup()).await.expect_err("it knows nothing at all");
    assert_eq!(error.code, ErrorCode::Unreachable, "{error}");
    bob.start().await;
}
