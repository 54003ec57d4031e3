//! Two daemons of which one sees the chain later than the other.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "chain/proxy.rs"]
mod proxy;

use std::time::Duration;

use common::{World, eventually, request};
use por_node::client::ErrorCode;
use por_node::sdk::AppPricing;
use por_types::Yocto;
use por_types::interface::ChannelStatus;
use proxy::{Mood, Proxy};

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
    let early = alice.node().request(ask.clone()).await.expect_err("bob does not see the deposit");
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
