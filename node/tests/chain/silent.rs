//! Endpoints that take connections and never answer, or that answer only after the start.

use std::net::TcpListener;

use super::*;

/// Takes connections for as long as it lives: the system does, nobody reads them.
fn silent() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("port");
    let url = format!("http://{}", listener.local_addr().expect("addr"));
    (listener, url)
}

#[tokio::test(flavor = "multi_thread")]
async fn endpoints_that_never_answer_do_not_matter_beside_one_that_does() {
    let world = World::start().await;
    let alice = world.actor("alice.localnet").await;
    let ((_first, first), (_last, last)) = (silent(), silent());
    let config = ChainConfig { rpc_urls: vec![first, world.net.rpc_url(), last], ..world.config(&alice) };
    let patience = config.limits.try_timeout;
    let start = async {
        let chain = Chain::connect(config, Arc::new(MemoryIntents::default())).await.expect("connects");
        assert_eq!(chain.node(&alice.account).await.expect("view"), None);
        chain.clock().await.expect("clock");
    };
    tokio::time::timeout(patience, start).await.expect("nobody waits for who is silent");
}

#[tokio::test(flavor = "multi_thread")]
async fn where_nobody_answers_a_start_takes_the_time_of_one_try() {
    let world = World::start().await;
    let alice = world.actor("alice.localnet").await;
    let ((_first, first), (_last, last)) = (silent(), silent());
    let try_timeout = Duration::from_secs(2);
    let limits = RpcLimits { try_timeout, ..RpcLimits::default() };
    let config = ChainConfig { rpc_urls: vec![first.clone(), last.clone()], limits, ..world.config(&alice) };
    let connect = Chain::connect(config, Arc::new(MemoryIntents::default()));
    let connected = tokio::time::timeout(try_timeout * 2, connect).await.expect("gives up");
    let error = connected.map(drop).expect_err("nobody answers");
    let ChainError::Unreachable { reasons } = &error else { panic!("{error}") };
    assert!(reasons.contains(&first) && reasons.contains(&last), "{reasons}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_says_only_later_that_it_is_on_another_chain_does_not_count() {
    let world = World::start().await;
    let alice = world.actor("alice.localnet").await;
    let (other, right) =
        (proxy::Proxy::start(world.net.rpc_url()).await, proxy::Proxy::start(world.net.rpc_url()).await);
    other.turn(Mood::Limited);
    let limits = RpcLimits { rounds: 2, backoff: Duration::from_millis(10), ..RpcLimits::default() };
    let config = ChainConfig { rpc_urls: vec![other.url(), right.url()], limits, ..world.config(&alice) };
    let chain = Chain::connect(config, Arc::new(MemoryIntents::default())).await.expect("connects");
    other.lie(|question, _, answer| {
        if question == "status" {
            answer["chain_id"] = "elsewhere".into();
        }
    });
    right.turn(Mood::Limited);
    let error = chain.node(&alice.account).await.expect_err("there is no answer");
    let ChainError::Unreachable { reasons } = &error else { panic!("{error}") };
    assert!(reasons.contains("is on chain elsewhere"), "{reasons}");
    // It may have been set right.
    other.turn(Mood::Honest);
    assert_eq!(chain.node(&alice.account).await.expect("view"), None);
}
