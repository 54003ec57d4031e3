//! Two daemons of which one sees the chain later than the other.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "chain/proxy.rs"]
mod proxy;

use std::sync::Arc;
use std::time::Duration;

use common::{World, eventually, request};
use por_node::client::ErrorCode;
use por_node::sdk::{AppPricing, Incoming};
use por_types::Yocto;
use por_types::interface::ChannelStatus;
use proxy::{Mood, Proxy};
use tokio::sync::Notify;

/// What is paid out of a deposit that the other end's endpoint does not show yet it would have to refuse.
#[tokio::test(flavor = "multi_thread")]
async fn a_top_up_is_spent_once_the_other_end_sees_it() {
    let mut world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let behind = Proxy::start(world.chain.rpc_url()).await;
    world.rpc_url = Some(behind.url());
    let bob = world.node("bob", &[&alice]).await;
    let half = Yocto(Yocto::near(1).0 / 2);
    let channel = alice.open_channel(&bob, half).await;
    let pricing = AppPricing { base: half, per_byte: Yocto::ZERO };
    let _echo =
        bob.node().serve("echo", pricing, 16, |incoming| async move { incoming.body }).await.expect("serve");

    behind.turn(Mood::Limited);
    alice.client().top_up_channel(channel, Yocto::near(5)).await.expect("top up");
    eventually("alice sees her deposit", || async {
        alice.channel(channel).await.filter(|info| info.balance_mine > Yocto::near(5))
    })
    .await;
    let mut ask = request(&bob, "echo", b"hello");
    ask.server_price = half;
    ask.deadline = Duration::from_secs(3);
    let early = eventually("her protocol knows of the deposit", || async {
        let early = alice.node().request(ask.clone()).await.expect_err("bob does not see the deposit");
        (early.code != ErrorCode::Budget).then_some(early)
    })
    .await;
    assert!(
        matches!(
            early.code,
            ErrorCode::NoRoute | ErrorCode::Unreachable | ErrorCode::Deadline | ErrorCode::Retryable
        ),
        "{early:?}"
    );
    let info = alice.channel(channel).await.expect("the channel");
    assert_eq!((info.totals.sent_a, &info.status), (Yocto::ZERO, &ChannelStatus::Open), "{info:?}");
    assert!(behind.spoiled() > 0, "the endpoint was never asked while it took no questions");

    behind.turn(Mood::Honest);
    ask.deadline = Duration::from_secs(30);
    let answer =
        eventually("bob sees the deposit", || async { alice.node().request(ask.clone()).await.ok() }).await;
    assert_eq!(&answer.body[..], b"hello");
    for side in [&alice, &bob] {
        let info = side.channel(channel).await.expect("the channel");
        assert_eq!(info.status, ChannelStatus::Open, "{info:?}");
    }
    world.check_books().await;
}

/// What lateness costs is known from the start, however the endpoint answers later: who did not pay for it would
/// be severed.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_knows_the_late_fee_from_its_start() {
    let mut world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let sparing = Proxy::start(world.chain.rpc_url()).await;
    world.rpc_url = Some(sparing.url());
    let mut bob = world.node("bob", &[&alice]).await;
    let channel = alice.open_channel(&bob, Yocto::near(1)).await;
    bob.stop().await;
    sparing.turn(Mood::Feeless);
    bob.start().await;
    let answer = Arc::new(Notify::new());
    let _echo = bob.echo_when("echo", &answer).await;
    let asked = async { alice.ask(&bob, "echo", b"hello").await };
    let late = async {
        eventually("bob pays for being late", || async {
            let info = alice.channel(channel).await?;
            (!info.totals.sent_b.is_zero()).then_some(())
        })
        .await;
        assert!(sparing.spoiled() > 0, "the parameters were not asked for again");
        answer.notify_one();
    };
    let (response, ()) = tokio::join!(asked, late);
    assert_eq!(&response.body[..], b"hello");
}

/// The graph of a large network takes minutes to be read. A node that starts answers its neighbours meanwhile.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_has_not_read_the_graph_answers_what_it_has_taken_on() {
    let mut world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let slow = Proxy::start(world.chain.rpc_url()).await;
    world.rpc_url = Some(slow.url());
    let mut bob = world.node("bob", &[&alice]).await;
    let channel = alice.open_channel(&bob, Yocto::near(1)).await;
    let (taken, mut takes) = tokio::sync::mpsc::unbounded_channel();
    let never = move |_: Incoming| {
        let taken = taken.clone();
        async move {
            let _ = taken.send(());
            std::future::pending::<por_node::sdk::Bytes>().await
        }
    };
    let _silent = bob.node().serve("echo", AppPricing::default(), 16, never).await.expect("serve");
    let ask = request(&bob, "echo", b"hello");
    let asked = eventually("an answer", || async {
        match alice.node().request(ask.clone()).await {
            Ok(response) => Some(response),
            // Before the graph shows the channel.
            Err(error) if matches!(error.code, ErrorCode::NoRoute | ErrorCode::Unreachable) => None,
            Err(error) => panic!("{error}"),
        }
    });
    let restart = async {
        takes.recv().await.expect("the request");
        bob.stop().await;
        slow.turn(Mood::Graphless);
        bob.start().await;
        let answer = |incoming: Incoming| async move { incoming.body };
        bob.node().serve("echo", AppPricing::default(), 16, answer).await.expect("serve")
    };
    let (response, _echo) = tokio::join!(asked, restart);
    assert_eq!(&response.body[..], b"hello");
    assert!(slow.spoiled() > 0, "the graph was not asked for");
    let status = alice.channel(channel).await.expect("the channel").status;
    assert_eq!(status, ChannelStatus::Open);
}
