//! A machine whose clock is wrong: shown by endpoints whose clocks and blocks are from another time.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "chain/proxy.rs"]
mod proxy;

use std::time::Duration;

use common::{Daemon, World, eventually};
use por_node::client::ErrorCode;
use por_node::exit::{CliError, ExitCode};
use por_node::sdk::Node;
use proxy::{Mood, Proxy};
use serde_json::json;

const HOUR: Duration = Duration::from_secs(3600);
/// By less than blocks may go back.
const MINUTES: Duration = Duration::from_secs(120);

/// Blocks are older than they are.
fn blocks_from_before(proxy: &Proxy, by: Duration) {
    proxy.lie(move |question, _, value| {
        if question == "block" {
            let time = value["header"]["timestamp"].as_u64().expect("a time") - by.as_nanos() as u64;
            value["header"]["timestamp"] = json!(time);
            value["header"]["timestamp_nanosec"] = json!(time.to_string());
        }
    });
}

/// A node in a home of its own that has not seen the chain yet, behind a proxy.
async fn newcomer(world: &World, proxy: &Proxy) -> Daemon {
    let mut alice = world.node("alice", &[]).await;
    alice.stop().await;
    let mut elsewhere = alice.elsewhere(world.homes().join("elsewhere"));
    elsewhere.home().create().expect("a home");
    elsewhere.follow_through(vec![proxy.url()]);
    elsewhere
}

/// What the clock is ahead by would be paid for as lateness, for everything that is under way.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_does_not_start_by_a_clock_that_is_ahead() {
    let world = World::start().await;
    let proxy = Proxy::start(world.chain.rpc_url()).await;
    let mut node = newcomer(&world, &proxy).await;
    blocks_from_before(&proxy, HOUR);
    proxy.set_back(HOUR);
    let error = Node::start(node.setup()).await.map(drop).expect_err("the clock is an hour ahead");
    assert_eq!(error.code, ErrorCode::Retryable, "{error}");
    assert!(error.message.contains("clock is 3") && error.message.contains("ahead"), "{error}");
    assert!(error.fix.contains("set this machine's clock"), "{error:?}");
    assert_eq!(CliError::from(error).code, ExitCode::Retryable);
    proxy.turn(Mood::Honest);
    proxy.set_back(Duration::ZERO);
    node.start().await;
    assert_eq!(node.client().status().await.expect("status").clock, None);
    node.stop().await;
}

/// Which the endpoints' own clocks tell from a wrong one.
#[tokio::test(flavor = "multi_thread")]
async fn a_chain_that_stands_still_keeps_no_node_from_starting() {
    let world = World::start().await;
    let proxy = Proxy::start(world.chain.rpc_url()).await;
    let mut node = newcomer(&world, &proxy).await;
    blocks_from_before(&proxy, HOUR);
    node.start().await;
    eventually("the status says so", || async {
        let said = node.client().status().await.expect("status").clock?;
        said.contains("the latest block is 3").then_some(())
    })
    .await;
    node.stop().await;
}

/// It has promises to keep, and its own time does not depend on the clock any more.
#[tokio::test(flavor = "multi_thread")]
async fn a_node_that_runs_tells_of_a_wrong_clock_and_goes_on() {
    let world = World::start().await;
    let proxy = Proxy::start(world.chain.rpc_url()).await;
    let mut node = newcomer(&world, &proxy).await;
    node.start().await;
    blocks_from_before(&proxy, MINUTES);
    proxy.set_back(MINUTES);
    eventually("the status says so", || async {
        let said = node.client().status().await.expect("status").clock?;
        said.contains("ahead of the chain's").then_some(())
    })
    .await;
    proxy.turn(Mood::Honest);
    proxy.set_back(Duration::ZERO);
    eventually("the clock is right again", || async {
        node.client().status().await.expect("status").clock.is_none().then_some(())
    })
    .await;
    node.stop().await;
}
