//! A server that dies with a request in its hands: late payments, a severed edge, its proof, and
//! the reimbursement by the contract.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use std::time::Duration;

use common::{Daemon, World, eventually, request, terms};
use por_node::client::ErrorCode;
use por_node::sdk::AppPricing;
use por_types::interface::ChannelStatus;
use por_types::{ChannelId, Terms, Yocto};

/// Half the penalty on a local chain.
const BOND: Yocto = Yocto::near(1);

/// Short enough for a test, long enough for a busy machine.
fn strict() -> Terms {
    Terms { rtt_ms: 100, heartbeat_ms: 300, grace_ms: 2_000, ..terms() }
}

async fn open(from: &Daemon, to: &Daemon) -> ChannelId {
    let proposed =
        from.client().propose_channel(&to.account, Yocto::near(10), strict()).await.expect("propose");
    let channel = proposed.channel.expect("the proposal's id");
    for side in [from, to] {
        eventually("the channel opens", || async {
            let info = side.channel(channel).await?;
            (info.status == ChannelStatus::Open && info.connected).then_some(())
        })
        .await;
    }
    channel
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_server_is_severed_paid_late_for_and_charged() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let relay = world.node("relay", &[&alice]).await;
    let mut server = world.node("server", &[&relay]).await;
    let first = open(&alice, &relay).await;
    let second = open(&relay, &server).await;
    relay.becomes_attached(true).await;
    let serving = server
        .node()
        .serve("slow", AppPricing::default(), 16, |_| std::future::pending::<por_node::sdk::Bytes>())
        .await
        .expect("serve");

    let mut ask = request(&server, "slow", b"hello");
    ask.deadline = Duration::from_secs(50);
    let (answer, ()) = tokio::join!(
        eventually("the graph reaches the server", || async {
            match alice.node().request(ask.clone()).await {
                Err(error) if error.code == ErrorCode::Unreachable => None,
                Err(error) if error.code == ErrorCode::NoRoute => None,
                other => Some(other),
            }
        }),
        async {
            eventually("the server has the request", || async {
                (server.channel(second).await?.unfinished == 1).then_some(())
            })
            .await;
            drop(serving);
            server.stop().await;
        }
    );
    let error = answer.expect_err("nobody answers");
    assert_eq!(error.code, ErrorCode::Severed, "{error}");
    let edge = strict().price(5, 5).expect("price");
    assert_eq!(error.spent, edge, "the edges behind the severed one came back");

    let chain = world.observer().await;
    let view = chain.channel(second).await.expect("view").expect("known");
    assert!(matches!(
        view.status,
        ChannelStatus::Severed { .. } | ChannelStatus::Closed { severed: true, .. }
    ));
    eventually("the relay is reimbursed", || async {
        (chain.withdrawable(&relay.account).await.expect("view") >= BOND).then_some(())
    })
    .await;

    // What Alice is out of pocket is the price of the first edge, less what lateness brought her.
    let info = eventually("both ends agree", || async {
        let (mine, theirs) = (alice.channel(first).await?, relay.channel(first).await?);
        (mine.unfinished + theirs.unfinished == 0 && mine.totals == theirs.totals).then_some(mine)
    })
    .await;
    let late = eventually("late payments are counted", || async {
        let late = alice.client().status().await.ok()?.traffic.got_late;
        (!late.is_zero()).then_some(late)
    })
    .await;
    let paid = info.totals.sent_a.0 as i128 - info.totals.sent_b.0 as i128;
    assert_eq!(paid, edge.0 as i128 - late.0 as i128);
    let relayed = relay.client().status().await.expect("status").traffic;
    assert_eq!((relayed.paid_late, relayed.severed), (late, 1));
    world.check_books().await;
}
