//! A watchtower for a node that is away, on a local chain with the real contract.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "chain/proxy.rs"]
mod proxy;

use std::sync::Arc;

use common::{Daemon, World, eventually, request};
use por_node::chain::{Call, Chain, ChainConfig, Intent, MemoryIntents};
use por_node::keys::generate_near_key;
use por_node::sdk::AppPricing;
use por_node::watch::{Handed, Round, Tower, WatchError};
use por_types::interface::{ChannelStatus, FinalizeArgs};
use por_types::{AccountId, ChannelId, SeverOrder, SeverReason, Side, Yocto};
use proxy::{Proxy, shown_as};
use serde_json::json;

async fn tower(world: &World) -> Tower {
    tower_through(world, vec![world.chain.rpc_url()]).await
}

async fn tower_through(world: &World, rpc_urls: Vec<String>) -> Tower {
    let account: AccountId = "tower.localnet".parse().expect("account");
    let key = generate_near_key();
    world.chain.faucet(&account, &key.public_key(), Yocto::near(10)).await.expect("faucet");
    let mut network = world.chain.network_config();
    network.rpc_urls = rpc_urls;
    let config = ChainConfig::new(&network, account, Some(key));
    Tower::new(Chain::connect(config, Arc::new(MemoryIntents::default())).await.expect("chain"))
}

/// Rounds until the tower has done something; bounded.
async fn first_deed(tower: &mut Tower) -> Round {
    for _ in 0..600 {
        let round = tower.round().await.expect("round");
        if round != Round::default() {
            return round;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    panic!("the tower has not done anything");
}

/// Alice has paid Bob, who has handed his evidence over; then both have stopped.
async fn paid(world: &World) -> (Daemon, Daemon, ChannelId, Handed) {
    let mut alice = world.node("alice", &[]).await;
    let mut bob = world.node("bob", &[&alice]).await;
    let channel = alice.open_channel(&bob, Yocto::near(10)).await;
    let pricing = AppPricing { base: Yocto::millinear(500), per_byte: Yocto::ZERO };
    let serving = bob.node().serve("echo", pricing, 4, |incoming| async move { incoming.body }).await;
    let mut ask = request(&bob, "echo", b"worth half a NEAR");
    ask.server_price = Yocto::millinear(500);
    let answer = alice.node().request(ask).await.expect("answer");
    let handed = bob.node().evidence().await.expect("evidence");
    assert_eq!(handed.states.len(), 1);
    let bytes = serde_json::to_vec(&handed).expect("JSON").len();
    assert!(bytes <= 1024, "{bytes} bytes for one channel");
    drop(serving);
    alice.stop().await;
    bob.stop().await;
    // An attempt that came too early was paid for too, and refunded.
    assert!(handed.states[0].state.statement.totals.sent_a >= answer.price);
    (alice, bob, channel, handed)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tower_corrects_an_old_state_while_the_node_is_away() {
    let world = World::start().await;
    let (alice, bob, channel, handed) = paid(&world).await;
    let received = handed.states[0].state.statement.totals.sent_a;
    let mut tower = tower(&world).await;
    tower.take(handed).await.expect("good evidence");
    assert!(tower.round().await.expect("round").challenged.is_empty(), "an open channel needs nothing");

    // Alice leaves; the contract knows of no payment of hers.
    let (account, key) = (alice.account.clone(), alice.keys().near.clone());
    let cheat = world.chain.connect(account, Some(key)).await.expect("chain");
    let signer = alice.keys().node.public();
    let order = SeverOrder { channel, signer, reason: SeverReason::Operator, request: None };
    cheat.sever(alice.keys().node.sign(cheat.network(), order)).await.expect("sever");
    assert_eq!(first_deed(&mut tower).await.challenged, vec![channel]);
    assert!(tower.round().await.expect("round").challenged.is_empty(), "once is enough");

    let (totals, paid_a, paid_b) = eventually("the channel is settled", || async {
        let view = cheat.channel(channel).await.expect("view").expect("channel");
        if let ChannelStatus::Closed { paid_a, paid_b, .. } = view.status {
            return Some((view.totals, paid_a, paid_b));
        }
        let args = FinalizeArgs { channel, witness: None };
        // Refused until the window is over.
        let _ = cheat.call(Intent::new(Call::Finalize { args, attached: Yocto::ZERO })).await;
        None
    })
    .await;
    assert_eq!(totals.sent_a, received);
    let share = |side, deposit| totals.balance(side, deposit, Yocto::ZERO).expect("covered");
    assert_eq!(paid_a, share(Side::A, Yocto::near(10)));
    assert_eq!(paid_b, share(Side::B, Yocto::near(5)));
    assert!(world.observer().await.withdrawable(&bob.account).await.expect("view") >= paid_b);
    tower.round().await.expect("round");
    assert_eq!(tower.guarded(), Handed::default(), "nothing is left to guard");
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tower_brings_orders_and_refuses_forged_ones() {
    let world = World::start().await;
    let (alice, bob, channel, handed) = paid(&world).await;
    let mut tower = tower(&world).await;
    let network = world.observer().await.network().clone();
    let signer = alice.keys().node.public();
    let order = SeverOrder { channel, signer, reason: SeverReason::Operator, request: None };

    let mut forged = handed.clone();
    forged.states[0].state.statement.totals.sent_a = Yocto::near(9);
    let mut forged_order = Handed::default();
    forged_order.orders.push(bob.keys().node.sign(&network, order.clone()));
    for bad in [forged, forged_order] {
        assert!(matches!(tower.take(bad).await, Err(WatchError::Forged(id)) if id == channel));
    }
    assert_eq!(tower.guarded(), Handed::default());

    let orders = vec![alice.keys().node.sign(&network, order)];
    tower.take(Handed { orders, ..handed.clone() }).await.expect("good evidence");
    assert_eq!(tower.guarded().states, handed.states, "what was handed over can be given back");
    let mut round = first_deed(&mut tower).await;
    // The edge leaves with an old state, which is corrected as soon as it is seen.
    if round.challenged.is_empty() {
        round.challenged = first_deed(&mut tower).await.challenged;
    }
    assert_eq!((round.severed, round.challenged), (vec![channel], vec![channel]));
    let view = world.observer().await.channel(channel).await.expect("view").expect("channel");
    assert!(matches!(view.status, ChannelStatus::Severed { .. }));
    assert_eq!(view.totals.sent_a, handed.states[0].state.statement.totals.sent_a);
    assert_eq!(tower.round().await.expect("round"), Round::default());
}

/// One channel that its endpoint cannot show must not cost another one's owner what is due to him.
#[tokio::test(flavor = "multi_thread")]
async fn a_channel_that_fails_keeps_no_other_waiting() {
    let world = World::start().await;
    let mut alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    let carol = world.node("carol", &[&alice]).await;
    let hidden = alice.open_channel(&bob, Yocto::near(10)).await;
    let shown = alice.open_channel(&carol, Yocto::near(10)).await;
    assert!(hidden < shown, "a tower looks at the first one first");
    alice.stop().await;

    let blind = Proxy::start(world.chain.rpc_url()).await;
    let mut tower = tower_through(&world, vec![blind.url()]).await;
    let network = world.observer().await.network().clone();
    let signer = alice.keys().node.public();
    let order = |channel| SeverOrder { channel, signer, reason: SeverReason::Operator, request: None };
    let orders = [hidden, shown].map(|channel| alice.keys().node.sign(&network, order(channel))).into();
    tower.take(Handed { orders, ..Handed::default() }).await.expect("good orders");
    let id = json!(hidden);
    blind.lie(move |view, args, value| {
        if view == "channel" && args["channel"] == id {
            *value = json!("not a channel");
        }
    });
    let round = tower.round().await.expect("round");
    assert_eq!(round.severed, vec![shown]);
    let failed: Vec<ChannelId> = round.failed.iter().map(|(channel, _)| *channel).collect();
    assert_eq!(failed, vec![hidden]);
    blind.lie(|_, _, _| {});
    assert_eq!(tower.round().await.expect("round").severed, vec![hidden], "it is tried again");
}

/// A tower that follows the chain through an endpoint that lies and an honest one has Bob's evidence; Alice leaves with
/// an old state.
async fn corrected_though(status: impl Fn(&ChannelStatus) -> ChannelStatus + Send + Sync + 'static) {
    let world = World::start_with(|params| params.challenge_ms = 120_000).await;
    let (alice, _bob, channel, handed) = paid(&world).await;
    let received = handed.states[0].state.statement.totals.sent_a;
    let liar = Proxy::start(world.chain.rpc_url()).await;
    let mut tower = tower_through(&world, vec![liar.url(), world.chain.rpc_url()]).await;
    tower.take(handed.clone()).await.expect("good evidence");
    liar.lie(shown_as(json!(channel), move |record| {
        let shown = serde_json::from_value(record["status"].clone()).expect("a status");
        record["status"] = json!(status(&shown));
    }));
    for _ in 0..3 {
        assert!(tower.round().await.expect("round").challenged.is_empty(), "an open channel needs nothing");
        assert_eq!(
            tower.guarded().states,
            handed.states,
            "evidence is forgotten by the word of one endpoint"
        );
    }
    let cheat = world.chain.connect(alice.account.clone(), Some(alice.keys().near.clone())).await;
    let cheat = cheat.expect("chain");
    let signer = alice.keys().node.public();
    let order = SeverOrder { channel, signer, reason: SeverReason::Operator, request: None };
    cheat.sever(alice.keys().node.sign(cheat.network(), order)).await.expect("sever");
    assert_eq!(first_deed(&mut tower).await.challenged, vec![channel]);
    let view = cheat.channel(channel).await.expect("view").expect("channel");
    assert_eq!(view.totals.sent_a, received);
    assert!(liar.spoiled() > 0, "the endpoint was never asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tower_is_not_told_by_one_endpoint_that_a_channel_is_open() {
    corrected_though(|_| ChannelStatus::Open).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tower_is_not_told_by_one_endpoint_that_a_channel_is_over() {
    let (paid_a, paid_b) = (Yocto::near(10), Yocto::near(5));
    corrected_though(move |_| ChannelStatus::Closed { paid_a, paid_b, bonds_until_ms: None, severed: true })
        .await;
}
