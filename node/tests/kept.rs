//! The graph over outages and restarts.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "chain/proxy.rs"]
mod proxy;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use common::{Daemon, World, eventually, terms};
use por_node::chain::{Call, Intent};
use por_types::interface::ChannelArgs;
use por_types::{ChannelId, Yocto};
use proxy::{Mood, Proxy};

/// Waits until the node knows as many nodes and channels.
async fn knows(daemon: &Daemon, nodes: u32, channels: u32) {
    eventually(&format!("{nodes} nodes and {channels} channels"), || async {
        let status = daemon.client().status().await.expect("status");
        ((status.graph_nodes, status.graph_channels) == (nodes, channels)).then_some(())
    })
    .await;
}

/// Bob proposes a channel to a node that is away.
async fn propose(bob: &Daemon, to: &Daemon) -> ChannelId {
    let proposed = bob.client().propose_channel(&to.account, Yocto::near(1), terms()).await.expect("propose");
    proposed.channel.expect("the proposal's id")
}

/// He takes it back, and its record goes.
async fn withdraw(world: &World, bob: &Daemon, channel: ChannelId) {
    let chain = world.chain.connect(bob.account.clone(), Some(bob.keys().near.clone())).await.expect("chain");
    for call in [Call::CancelProposal(ChannelArgs { channel }), Call::ForgetChannel(ChannelArgs { channel })]
    {
        chain.call(Intent::new(call)).await.expect("it is withdrawn");
    }
}

/// To read a large graph anew at each start would take minutes.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_goes_on_from_the_graph_of_the_last_run() {
    let mut world = World::start().await;
    let bob = world.node("bob", &[]).await;
    let carol = world.node("carol", &[&bob]).await;
    let counting = Proxy::start(world.chain.rpc_url()).await;
    world.rpc_url = Some(counting.url());
    let mut alice = world.node("alice", &[&bob]).await;
    alice.open_channel(&bob, Yocto::near(10)).await;
    knows(&alice, 3, 1).await;
    alice.stop().await;
    bob.open_channel(&carol, Yocto::near(10)).await;

    let from_the_start = Arc::new(AtomicU64::new(0));
    let asked = from_the_start.clone();
    counting.lie(move |view, args, _| {
        // So small a graph is all in the log.
        if view == "changes" && args["since"] == 0 {
            asked.fetch_add(1, Ordering::SeqCst);
        }
    });
    alice.start().await;
    let echo = |incoming: por_node::sdk::Incoming| async move { incoming.body };
    let _echo = carol.node().serve("echo", Default::default(), 4, echo).await.expect("serve");
    let answer = alice.ask(&carol, "echo", b"over a channel of the time between").await;
    assert_eq!(&answer.body[..], b"over a channel of the time between");
    knows(&alice, 3, 2).await;
    assert_eq!(from_the_start.load(Ordering::SeqCst), 0, "nothing is read that was known");

    alice.stop().await;
    std::fs::write(alice.home().graph_file(), b"por graph 1\nand nothing of use").expect("written");
    alice.start().await;
    knows(&alice, 3, 2).await;
    assert!(from_the_start.load(Ordering::SeqCst) > 0, "all is read from the chain");

    // The chain seems to begin anew.
    alice.stop().await;
    let asked = Arc::new(AtomicU64::new(0));
    let from_the_start = asked.clone();
    counting.lie(move |view, args, value| match view {
        "changes" if args["since"] == 0 => _ = asked.fetch_add(1, Ordering::SeqCst),
        "changes" if asked.load(Ordering::SeqCst) == 0 => value["version"] = 0.into(),
        _ => {}
    });
    alice.start().await;
    knows(&alice, 3, 2).await;
    assert!(counting.spoiled() > 0 && from_the_start.load(Ordering::SeqCst) > 0);
    world.check_books().await;
}

/// Nobody says what became of a record that has gone: it would stay as it was known last, open for ever.
#[tokio::test(flavor = "multi_thread")]
async fn what_went_while_a_node_was_away_is_gone() {
    let mut world = World::start().await;
    let bob = world.node("bob", &[]).await;
    let mut carol = world.node("carol", &[&bob]).await;
    carol.stop().await;
    let sparing = Proxy::start(world.chain.rpc_url()).await;
    world.rpc_url = Some(sparing.url());
    let mut alice = world.node("alice", &[&bob]).await;

    let channel = propose(&bob, &carol).await;
    knows(&alice, 3, 1).await;
    sparing.turn(Mood::Limited);
    withdraw(&world, &bob, channel).await;
    eventually("nothing is heard", || async { (sparing.spoiled() > 0).then_some(()) }).await;
    sparing.turn(Mood::Honest);
    knows(&alice, 3, 0).await;

    let channel = propose(&bob, &carol).await;
    knows(&alice, 3, 1).await;
    alice.stop().await;
    withdraw(&world, &bob, channel).await;
    alice.start().await;
    knows(&alice, 3, 0).await;
}
