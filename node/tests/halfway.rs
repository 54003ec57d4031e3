//! What was refused, given up or overtaken half way leaves nothing behind.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "chain/proxy.rs"]
mod proxy;

use common::{World, eventually};
use por_types::Yocto;
use proxy::{Mood, Proxy};

/// Who is told of an error does it again: here, a second deposit.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_made_is_no_error_whatever_the_endpoint_does_then() {
    let mut world = World::start().await;
    let sparing = Proxy::start(world.chain.rpc_url()).await;
    world.rpc_url = Some(sparing.url());
    let alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    let channel = alice.open_channel(&bob, Yocto::near(10)).await;
    sparing.turn(Mood::Feeless);
    eventually("the endpoint refuses", || async { (sparing.spoiled() > 0).then_some(()) }).await;
    let made = alice.client().top_up_channel(channel, Yocto::near(1)).await.expect("it is on chain");
    assert!(made.transaction.is_some(), "{made:?}");
    let view = world.observer().await.channel(channel).await.expect("view").expect("the channel");
    assert_eq!(view.deposit_a, Yocto::near(11));
}
