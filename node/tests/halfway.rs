//! What was refused, given up or overtaken half way leaves nothing behind.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "chain/proxy.rs"]
mod proxy;

use std::sync::Arc;
use std::time::Duration;

use common::{Daemon, World, eventually, request};
use por_node::chain::{Call, Intent};
use por_node::client::{ChannelInfo, ErrorCode};
use por_node::sdk::AppPricing;
use por_types::interface::{ChannelStatus, CloseArgs};
use por_types::{ChannelId, Side, Totals, Yocto};
use proxy::{Mood, Proxy};
use tokio::io::AsyncWriteExt as _;
use tokio::sync::Semaphore;

/// A node that could not answer an unfair close at first does so when the chain is there again: else the close
/// would wait for ever, and the deposits with it.
#[tokio::test(flavor = "multi_thread")]
async fn an_unfair_close_is_answered_after_an_outage() {
    let mut world = World::start().await;
    let mut alice = world.node("alice", &[]).await;
    let sparing = Proxy::start(world.chain.rpc_url()).await;
    world.rpc_url = Some(sparing.url());
    let bob = world.node("bob", &[&alice]).await;
    let channel = alice.open_channel(&bob, Yocto::near(10)).await;
    // Its pings would be refused as well.
    bob.becomes_attached(true).await;
    let echo = bob.node().serve("echo", AppPricing::default(), 8, |incoming| async move { incoming.body });
    let _echo = echo.await.expect("serve");
    alice.ask(&bob, "echo", b"hello").await;
    let right = eventually("nothing is under way", || async {
        bob.channel(channel).await.filter(|info| info.unfinished == 0).map(|info| info.totals)
    })
    .await;
    assert!(!right.sent_a.is_zero(), "alice has paid");
    alice.stop().await;

    sparing.turn(Mood::Keyless);
    let key = alice.keys().near.clone();
    let chain = world.chain.connect(alice.account.clone(), Some(key)).await.expect("chain");
    let nothing = CloseArgs { channel, totals: Totals::default() };
    chain.call(Intent::new(Call::RequestClose(nothing))).await.expect("alice says that she has paid nothing");
    // As often as a question is asked before it is given up.
    eventually("bob could not answer", || async { (sparing.spoiled() >= 4).then_some(()) }).await;
    sparing.turn(Mood::Honest);
    eventually("bob says what is right", || async {
        let view = chain.channel(channel).await.expect("view").expect("the channel");
        let ChannelStatus::Closing { by, totals, .. } = view.status else { return None };
        (by == Side::B && totals == right).then_some(())
    })
    .await;
}

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

/// What is provided again while it is being taken back is announced in the end, as the caller was told.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_said_to_be_provided_can_be_found() {
    let world = World::start().await;
    let bob = world.node("bob", &[]).await;
    let client = bob.client();
    let keys: Vec<[u8; 32]> = (0..64).map(|n| [n; 32]).collect();
    for key in &keys {
        let (provided, stopped) = tokio::join!(client.provide(key), client.stop_providing(key));
        provided.expect("provide");
        stopped.expect("stop");
        client.provide(key).await.expect("provide");
    }
    // Nobody has heard of any of it before.
    let alice = world.node("alice", &[&bob]).await;
    eventually("they are connected", || async {
        let peers = alice.client().peers().await.expect("peers");
        peers.iter().any(|peer| peer.connected).then_some(())
    })
    .await;
    for key in &keys {
        let found = eventually("bob provides it", || async {
            let found = alice.client().providers(key, 1, Duration::from_secs(5)).await.expect("providers");
            found.into_iter().next()
        })
        .await;
        assert_eq!(found.node_key, bob.node().key());
    }
}

/// What the node has on disk it does now, and not at its next start.
#[tokio::test(flavor = "multi_thread")]
async fn a_close_that_is_noted_is_carried_out_though_its_caller_has_gone() {
    let world = World::start().await;
    let mut alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    let mut channels = Vec::new();
    for _ in 0..8 {
        channels.push(alice.open_channel(&bob, Yocto::near(1)).await);
    }
    let token = std::fs::read_to_string(alice.home().data_dir().join("api-token")).expect("token");
    for (turn, channel) in (0..).zip(&channels) {
        let call = format!(
            "POST /v1/channels/{channel}/close HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\n\
             content-length: 0\r\n\r\n",
            token.trim()
        );
        let mut caller = tokio::net::TcpStream::connect(alice.node().api_addr()).await.expect("the API");
        caller.write_all(call.as_bytes()).await.expect("sent");
        // Some a little later than others.
        tokio::time::sleep(Duration::from_micros(turn / 4 * 200)).await;
        drop(caller);
    }
    // What was to be written before is on disk then.
    for key in 0..4 {
        alice.client().provide(&[key; 32]).await.expect("provide");
    }
    let before = closing(&alice).await;
    alice.stop().await;
    alice.start().await;
    eventually("the graph is read", || async {
        (alice.node().channels().await.expect("channels").len() == channels.len()).then_some(())
    })
    .await;
    assert_eq!(closing(&alice).await, before, "no other close begins with a restart");
}

/// Its channels that are to close, or do.
async fn closing(node: &Daemon) -> Vec<ChannelId> {
    let all = node.node().channels().await.expect("channels");
    let ends = |info: &&ChannelInfo| info.closing || info.status != ChannelStatus::Open;
    all.iter().filter(ends).map(|info| info.channel).collect()
}

/// A program that asks once and ends: were its server not told that the answer has come, it would keep that, find nobody
/// to take it, and sever an honest edge.
#[tokio::test(flavor = "multi_thread")]
async fn who_stops_right_after_an_answer_has_said_that_it_came() {
    let world = World::start().await;
    let mut alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    alice.open_channel(&bob, Yocto::near(1)).await;
    let echo = bob.node().serve("echo", AppPricing::default(), 8, |incoming| async move {
        String::from_utf8_lossy(&incoming.body).into_owned()
    });
    let _echo = echo.await.expect("serve");
    for round in 1..=5 {
        alice.ask(&bob, "echo", b"once").await;
        alice.stop().await;
        eventually("bob knows that it is over", || async {
            let served = bob.client().status().await.expect("status").traffic.served;
            (served == round).then_some(())
        })
        .await;
        alice.start().await;
    }
}

/// A program that ends serves to the end what it has taken, and nobody gets it a second time.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_leaves_when_it_has_answered_what_it_took() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    alice.open_channel(&bob, Yocto::near(10)).await;
    let (taken, gate) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (told, held) = (taken.clone(), gate.clone());
    let serving = bob.node().serve("echo", AppPricing::default(), 16, move |incoming| {
        told.add_permits(1);
        let held = held.clone();
        async move {
            held.acquire().await.expect("open").forget();
            incoming.body
        }
    });
    let serving = serving.await.expect("serve");
    let pending = alice.node().request(request(&bob, "echo", b"one"));
    let ends = async {
        taken.acquire().await.expect("open").forget();
        let apps = bob.node().status().await.apps;
        let shown: Vec<_> = apps.iter().map(|app| (app.app.as_str(), app.waiting, app.leased)).collect();
        assert_eq!(shown, [("echo", 0, 1)]);
        let mut leave = Box::pin(serving.leave());
        assert!(futures::poll!(leave.as_mut()).is_pending());
        let refused = alice.node().request(request(&bob, "echo", b"two")).await.expect_err("takes nothing");
        assert_eq!(refused.code, ErrorCode::NotFound, "{refused}");
        assert!(futures::poll!(leave.as_mut()).is_pending(), "one is in hand");
        gate.add_permits(1);
        tokio::time::timeout(Duration::from_secs(60), leave).await.expect("in time").expect("runs");
        eventually("it is shown no more", || async {
            bob.node().status().await.apps.is_empty().then_some(())
        })
        .await;
    };
    let (answer, ()) = tokio::join!(pending, ends);
    assert_eq!(&answer.expect("answered").body[..], b"one");
    assert_eq!(taken.available_permits(), 0, "nothing came twice");
}
