//! Transactions whose fate an endpoint misjudges, forgets or does not tell: each takes effect at most once,
//! and is not lost without a word.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::*;

/// Of which the contract's state does not tell whether it was made.
const STAKE: Call = Call::Stake { amount: Yocto::millinear(10) };

/// A registered actor, with a stake of 1 NEAR, and a client that talks to the proxy alone.
async fn behind_a_proxy(world: &World) -> (Actor, Chain, proxy::Proxy, ChainConfig) {
    let alice = world.actor("alice.localnet").await;
    let chain = world.chain(&alice).await;
    register(&chain, &alice, Yocto::near(1)).await;
    let proxy = proxy::Proxy::start(world.net.rpc_url()).await;
    let limits = RpcLimits { rounds: 2, backoff: Duration::from_millis(10), ..RpcLimits::default() };
    let config = ChainConfig { rpc_urls: vec![proxy.url()], limits, ..world.config(&alice) };
    (alice, chain, proxy, config)
}

/// The records that a crash leaves right after a call: signed and stored, and sent if `sent`.
async fn left_by_a_crash(config: &ChainConfig, sent: bool) -> Vec<(IntentId, Vec<u8>)> {
    let records = Arc::new(Mutex::new(Vec::new()));
    let store = Arc::new(Crashing { records: records.clone(), hang_after_put: !sent });
    let patience = Duration::from_secs(if sent { 60 } else { 1 });
    let config = ChainConfig { call_timeout: patience, ..config.clone() };
    let chain = Chain::connect(config, store).await.expect("connects");
    let outcome = chain.call(Intent::new(STAKE)).await;
    assert_eq!(outcome.is_ok(), sent, "{outcome:?}");
    let records = records.lock().clone();
    assert_eq!(records.len(), 1);
    records
}

/// Waits until a restarted client has done with what an earlier run left.
async fn taken_up(config: &ChainConfig, left: Vec<(IntentId, Vec<u8>)>) -> Chain {
    let (removed, mut finished) = tokio::sync::mpsc::unbounded_channel();
    let id = left[0].0;
    let store = Arc::new(Restarted(left, MemoryIntents::default(), removed));
    let chain = Chain::connect(config.clone(), store).await.expect("connects");
    let done = tokio::time::timeout(Duration::from_secs(60), finished.recv()).await.expect("in time");
    assert_eq!(done, Some(id));
    chain
}

/// More blocks than a transaction is valid for.
async fn forward(world: &World) {
    let forward = serde_json::json!({
        "jsonrpc": "2.0", "id": 1, "method": "sandbox_fast_forward", "params": { "delta_height": 200 }
    });
    let forwarded = reqwest::Client::new().post(world.net.rpc_url()).json(&forward).send().await;
    assert!(forwarded.expect("answers").status().is_success());
}

/// A node that was away for days: its transaction had its effect, and no endpoint remembers it. That it is
/// too old to be sent again does not mean that it never was.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_all_have_forgotten_is_not_made_again() {
    let world = World::start().await;
    let (_, chain, proxy, config) = behind_a_proxy(&world).await;
    let left = left_by_a_crash(&config, true).await;
    assert_eq!(stake_of(&chain).await, Yocto::millinear(1_010));
    proxy.turn(Mood::Forgetful);
    taken_up(&config, left).await;
    assert!(proxy.spoiled() > 0, "it was asked");
    assert_eq!(stake_of(&chain).await, Yocto::millinear(1_010), "once");
}

/// The same, of a transaction that was never sent: its nonce is free, so it is made anew.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_too_old_and_was_never_sent_is_made_anew() {
    let world = World::start().await;
    let (_, chain, _proxy, config) = behind_a_proxy(&world).await;
    let left = left_by_a_crash(&config, false).await;
    forward(&world).await;
    taken_up(&config, left).await;
    assert_eq!(stake_of(&chain).await, Yocto::millinear(1_010), "once");
}

/// What balances load may send a transaction twice and pass on the second answer.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_of_what_was_sent_twice_on_the_way_makes_no_second_call() {
    let world = World::start().await;
    let (_, chain, proxy, config) = behind_a_proxy(&world).await;
    let behind = Chain::connect(config, Arc::new(MemoryIntents::default())).await.expect("connects");
    proxy.turn(Mood::Twice);
    behind.call(Intent::new(STAKE)).await.expect("it was made");
    assert!(proxy.spoiled() > 0);
    assert_eq!(stake_of(&chain).await, Yocto::millinear(1_010), "once");
}

/// One endpoint takes a transaction and is gone before it answers; the other is behind, knows nothing of it, and
/// refuses it in that mood. It gets to the chain once the other has been asked `times` questions, and the other goes on
/// like that for `more`.
async fn refused_elsewhere(mood: Mood, times: u64, more: u64) {
    // Until then the blocks for which a transaction is valid must not be over.
    let slow = LocalNetworkConfig { block_time: Duration::from_secs(1), ..Default::default() };
    let world = World { net: LocalNetwork::start(slow).await.expect("local chain") };
    let (_, chain, behind, config) = behind_a_proxy(&world).await;
    let takes = proxy::Proxy::start(world.net.rpc_url()).await;
    let config = ChainConfig { rpc_urls: vec![takes.url(), behind.url()], ..config };
    let caller = Chain::connect(config, Arc::new(MemoryIntents::default())).await.expect("connects");
    behind.turn(mood);
    // What it names from now on is the height at which it stays.
    let status = serde_json::json!({ "jsonrpc": "2.0", "id": 1, "method": "status", "params": [] });
    let asked = reqwest::Client::new().post(behind.url()).json(&status).send().await.expect("answers");
    let status: serde_json::Value = asked.json().await.expect("JSON");
    let stays = status["result"]["sync_info"]["latest_block_height"].as_u64().expect("a height");
    let patience = Instant::now() + Duration::from_secs(60);
    while caller.head().await.expect("the first endpoint's").height <= stays {
        assert!(Instant::now() < patience, "the chain goes on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    takes.turn(Mood::Taking);
    let made = tokio::spawn(async move { caller.call(Intent::new(STAKE)).await });
    while behind.spoiled() < times && !made.is_finished() {
        assert!(Instant::now() < patience, "the second endpoint is asked");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    while !takes.let_go().await {
        assert!(Instant::now() < patience, "it gets to the chain");
    }
    let until = behind.spoiled() + more;
    while behind.spoiled() < until && !made.is_finished() {
        assert!(Instant::now() < patience, "the second endpoint is asked on");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    behind.turn(Mood::Honest);
    takes.turn(Mood::Honest);
    made.await.expect("no panic").expect("it was made");
    assert_eq!(stake_of(&chain).await, Yocto::millinear(1_010), "once");
}

/// Who has not seen the block on which it was signed says that it is too old, and that its nonce is free; but it
/// is on its way, and another one would be a second stake.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_is_behind_does_not_say_that_a_transaction_is_dead() {
    // Before, two of each look, of which there are six, and one for the nonce.
    refused_elsewhere(Mood::Behind, 15, 0).await;
}

/// It has come to the chain when the nonce is asked for, and nobody knows it yet.
#[tokio::test(flavor = "multi_thread")]
async fn a_transaction_that_is_known_a_moment_later_was_made() {
    refused_elsewhere(Mood::Behind, 15, 4).await;
}

/// Who is told that it has failed makes it again.
#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_elsewhere_does_not_say_that_a_transaction_is_dead() {
    refused_elsewhere(Mood::Poor, 4, 0).await;
}

/// While one call waits for the chain, others that give up are told that they were never sent; and are not.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_was_not_signed_in_time_is_taken_back() {
    let world = World::start().await;
    let (_, chain, proxy, config) = behind_a_proxy(&world).await;
    let config = ChainConfig { call_timeout: Duration::from_secs(2), ..config };
    let behind = Chain::connect(config, Arc::new(MemoryIntents::default())).await.expect("connects");
    proxy.turn(Mood::Deaf);
    let first = behind.call(Intent::new(STAKE)).await.expect_err("it is under way");
    assert!(matches!(&first, ChainError::Undecided { .. }), "{first}");
    let second = behind.call(Intent::new(Call::Stake { amount: Yocto::near(1) })).await.expect_err("waits");
    assert!(second.is_transient(), "{second}");
    assert!(!matches!(&second, ChainError::Undecided { .. }), "it was never signed: {second}");
    assert_eq!(CliError::from(second).code, ExitCode::Retryable);
    proxy.turn(Mood::Honest);
    // Calls are made in their order: after this one nothing older is to come.
    let patience = Instant::now() + Duration::from_secs(60);
    while behind.call(Intent::new(Call::Stake { amount: Yocto::millinear(1) })).await.is_err() {
        assert!(Instant::now() < patience, "the chain is back");
    }
    assert_eq!(stake_of(&chain).await, Yocto::millinear(1_011));
}

/// An endpoint that answers at once and says nothing is not asked as fast as it answers.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_never_knows_is_not_asked_without_a_pause() {
    let world = World::start().await;
    let (_, _, proxy, config) = behind_a_proxy(&world).await;
    let config = ChainConfig { call_timeout: Duration::from_secs(3), ..config };
    let behind = Chain::connect(config, Arc::new(MemoryIntents::default())).await.expect("connects");
    proxy.turn(Mood::Hasty);
    let error = behind.call(Intent::new(STAKE)).await.expect_err("nobody knows");
    assert!(matches!(&error, ChainError::Undecided { .. }), "{error}");
    assert!((1..=20).contains(&proxy.spoiled()), "asked {} times in 3 s", proxy.spoiled());
}

/// An outage while a call has to be signed anew does not lose the call.
#[tokio::test(flavor = "multi_thread")]
async fn a_call_outlives_an_outage_while_it_is_signed_anew() {
    let world = World::start().await;
    let (_, chain, proxy, config) = behind_a_proxy(&world).await;
    let left = left_by_a_crash(&config, false).await;
    forward(&world).await;
    proxy.turn(Mood::Headless);
    let mut finished = tokio::spawn(async move { taken_up(&config, left).await });
    let patience = Instant::now() + Duration::from_secs(60);
    // Both rounds of the first try have failed.
    while proxy.spoiled() < 3 && !finished.is_finished() {
        assert!(Instant::now() < patience, "the chain's head is asked for");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    proxy.turn(Mood::Honest);
    (&mut finished).await.expect("taken up");
    assert_eq!(stake_of(&chain).await, Yocto::millinear(1_010), "it was not given up");
}
