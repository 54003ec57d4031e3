//! A server that dies with a request in its hands: late payments, a severed edge, its proof, and
//! the reimbursement by the contract.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "chain/proxy.rs"]
mod proxy;

use std::sync::Arc;
use std::time::Duration;

use common::{Daemon, World, eventually, request, terms};
use por_node::client::ErrorCode;
use por_node::sdk::{AppPricing, Incoming, Node, ServingApp};
use por_types::interface::{ChannelStatus, ChannelView};
use por_types::{ChannelId, SeverOrder, SeverReason, Side, Terms, Yocto};
use proxy::{Lie, Mood, Proxy, shown_as};
use serde_json::json;
use tokio::sync::{Notify, Semaphore};

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

/// An edge that is said to be severed and is still there is severed once more: it would be paid for, and its
/// bond come back to who went silent.
#[tokio::test(flavor = "multi_thread")]
async fn an_order_that_an_endpoint_only_pretends_to_pass_on_gets_to_the_chain() {
    let mut world = World::start().await;
    let mut server = world.node("server", &[]).await;
    let proxy = Proxy::start(world.chain.rpc_url()).await;
    world.rpc_url = Some(proxy.url());
    let alice = world.node("alice", &[&server]).await;
    let channel = open(&alice, &server).await;
    let serving = server
        .node()
        .serve("slow", AppPricing::default(), 16, |_| std::future::pending::<por_node::sdk::Bytes>())
        .await
        .expect("serve");
    // Nothing of hers is left to be sent but the order.
    alice.becomes_attached(true).await;
    let mut ask = request(&server, "slow", b"hello");
    ask.deadline = Duration::from_secs(50);
    let severed = async {
        eventually("the server has the request", || async {
            (server.channel(channel).await?.unfinished == 1).then_some(())
        })
        .await;
        proxy.turn(Mood::Pretending);
        drop(serving);
        server.stop().await;
        let chain = world.observer().await;
        eventually("the edge is severed on chain", || async {
            let view = chain.channel(channel).await.expect("view").expect("known");
            (!matches!(view.status, ChannelStatus::Open)).then_some(())
        })
        .await;
    };
    let (answer, ()) = tokio::join!(alice.node().request(ask), severed);
    answer.expect_err("nobody answers");
    assert!(proxy.spoiled() > 0, "the endpoint was never asked");
}

/// For a channel that has left the graph a node signs orders itself, where something is under way; so that one
/// endpoint says so is not enough where another one does not.
#[tokio::test(flavor = "multi_thread")]
async fn an_edge_that_one_endpoint_calls_severed_stays_while_another_shows_it() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let server = world.node("server", &[&alice]).await;
    let liar = Proxy::start(world.chain.rpc_url()).await;
    let mut relay = world.node("relay", &[&alice, &server]).await;
    relay.stop().await;
    relay.follow_through(vec![liar.url(), world.chain.rpc_url()]);
    relay.start().await;
    let (first, second) = (open(&alice, &relay).await, open(&relay, &server).await);
    let answer = Arc::new(Notify::new());
    let _slow = server.echo_when("slow", &answer).await;
    let chain = world.observer().await;
    let view = chain.channel(second).await.expect("view").expect("open");
    let lied = async {
        eventually("the server has the request", || async {
            (server.channel(second).await?.unfinished == 1).then_some(())
        })
        .await;
        let gone = ChannelStatus::Severed { by: Side::B, severed_ms: 1, settles_ms: u64::MAX >> 20 };
        let gone = json!(ChannelView { status: gone, ..view });
        liar.lie(move |question, args, value| match question {
            "changes" => {
                let since = args["since"].as_u64().unwrap_or_default();
                (value["upto"], value["version"]) = (json!(since + 1), json!(since + 1));
                (value["nodes"], value["channels"]) = (json!([]), json!([gone]));
            }
            "channel" => *value = gone.clone(),
            _ => {}
        });
        eventually("the relay hears the lie", || async {
            let info = relay.channel(second).await?;
            matches!(info.status, ChannelStatus::Severed { .. }).then_some(())
        })
        .await;
        // Long enough for what it signs to reach the chain, if it does.
        for _ in 0..20 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            let there = chain.channel(second).await.expect("view").expect("known");
            assert_eq!(there.status, ChannelStatus::Open, "the relay has severed an honest edge");
        }
        answer.notify_one();
    };
    let (response, ()) = tokio::join!(alice.ask(&server, "slow", b"hello"), lied);
    assert_eq!(&response.body[..], b"hello");
    for (node, channel) in [(&alice, first), (&server, second)] {
        let info = node.channel(channel).await.expect("the channel");
        assert_eq!(info.status, ChannelStatus::Open, "{info:?}");
    }
    world.check_books().await;
}

async fn echo(node: &Daemon) -> ServingApp {
    let serving =
        node.node().serve("echo", AppPricing::default(), 16, |incoming| async move { incoming.body });
    serving.await.expect("serve")
}

/// Alice has paid Bob, who follows the chain through an endpoint that lies from here on, and an honest one.
async fn paid_to_the_deceived(world: &World) -> (Daemon, Daemon, ChannelId, Yocto, Proxy) {
    let alice = world.node("alice", &[]).await;
    let mut bob = world.node("bob", &[&alice]).await;
    let liar = Proxy::start(world.chain.rpc_url()).await;
    bob.stop().await;
    bob.follow_through(vec![liar.url(), world.chain.rpc_url()]);
    bob.start().await;
    let channel = open(&alice, &bob).await;
    let _serving = echo(&bob).await;
    alice.ask(&bob, "echo", b"hello").await;
    let paid = eventually("the books agree", || async {
        let (mine, theirs) = (alice.channel(channel).await?, bob.channel(channel).await?);
        (mine.unfinished + theirs.unfinished == 0 && mine.totals == theirs.totals).then_some(mine.totals)
    })
    .await;
    assert!(!paid.sent_a.is_zero());
    (alice, bob, channel, paid.sent_a, liar)
}

/// Alice leaves with an old state, by the key of her account alone.
async fn leave(world: &World, alice: &mut Daemon, channel: ChannelId) {
    alice.stop().await;
    let cheat = world.chain.connect(alice.account.clone(), Some(alice.keys().near.clone())).await;
    let cheat = cheat.expect("chain");
    let signer = alice.keys().node.public();
    let order = SeverOrder { channel, signer, reason: SeverReason::Operator, request: None };
    cheat.sever(alice.keys().node.sign(cheat.network(), order)).await.expect("sever");
}

async fn evidence_comes_though(lie: impl FnOnce(ChannelId, Yocto) -> Lie) {
    let world = World::start_with(|params| params.challenge_ms = 120_000).await;
    let (mut alice, bob, channel, paid, liar) = paid_to_the_deceived(&world).await;
    liar.lie(lie(channel, paid));
    leave(&world, &mut alice, channel).await;
    let chain = world.observer().await;
    eventually("the evidence is on chain", || async {
        let view = chain.channel(channel).await.expect("view").expect("known");
        assert!(matches!(view.status, ChannelStatus::Severed { .. }), "{view:?}");
        (view.totals.sent_a == paid).then_some(())
    })
    .await;
    assert!(liar.spoiled() > 0, "the endpoint was never asked");
    drop(bob);
    world.check_books().await;
}

/// Evidence has its time, which nobody must let go by because an endpoint hides that it runs.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_comes_though_the_endpoint_in_use_hides_that_it_is_time() {
    let lie = |channel, _| shown_as(json!(channel), |record| record["status"] = json!(ChannelStatus::Open));
    evidence_comes_though(lie).await;
}

/// Nor because one says that the contract knows of all payments already.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_comes_though_the_endpoint_in_use_says_that_it_is_there() {
    let lie =
        |channel, paid| shown_as(json!(channel), move |record| record["totals"]["sent_a"] = json!(paid));
    evidence_comes_though(lie).await;
}

/// Nor because one says that all is over.
#[tokio::test(flavor = "multi_thread")]
async fn evidence_comes_though_the_endpoint_in_use_says_that_all_is_over() {
    let over = ChannelStatus::Closed {
        paid_a: Yocto::near(1),
        paid_b: Yocto::near(1),
        bonds_until_ms: None,
        severed: true,
    };
    let lie = move |channel, _| {
        shown_as(json!(channel), move |record| {
            if record["status"]["state"] != "open" {
                record["status"] = json!(over);
            }
        })
    };
    evidence_comes_though(lie).await;
}

/// A node's books are raised to what the contract knows, which cannot be taken back: nobody pays twice because one
/// endpoint says so.
#[tokio::test(flavor = "multi_thread")]
async fn totals_that_one_endpoint_makes_up_are_not_paid() {
    let world = World::start().await;
    let (alice, mut bob, channel, paid, liar) = paid_to_the_deceived(&world).await;
    let lie = |record: &mut serde_json::Value| {
        record["totals"] = json!({ "sent_a": Yocto::near(9), "sent_b": Yocto::near(4) });
    };
    liar.lie(shown_as(json!(channel), lie));
    // A start reads the records of its own channels.
    bob.stop().await;
    bob.start().await;
    let before = alice.channel(channel).await.expect("the channel").totals;
    assert_eq!(before.sent_a, paid);
    let _serving = echo(&bob).await;
    alice.ask(&bob, "echo", b"hello").await;
    bob.client().close_channel(channel).await.expect("asks for the close");
    let chain = world.observer().await;
    let settled = eventually("the channel closes", || async {
        let view = chain.channel(channel).await.expect("view").expect("known");
        matches!(view.status, ChannelStatus::Closed { .. }).then_some(view.totals)
    })
    .await;
    assert!(liar.spoiled() > 0, "the endpoint was never asked");
    let most = Yocto::millinear(1);
    assert!(settled.sent_a < most && settled.sent_b < most, "{settled:?}");
    world.check_books().await;
}

/// What is paid over a channel is worth what lies behind it: nothing is taken on over one of which an endpoint makes
/// more up.
#[tokio::test(flavor = "multi_thread")]
async fn a_deposit_that_one_endpoint_makes_up_buys_nothing() {
    let world = World::start().await;
    let (alice, mut bob, channel, _, liar) = paid_to_the_deceived(&world).await;
    liar.lie(shown_as(json!(channel), |record| record["deposit_a"] = json!(Yocto::near(1_000))));
    bob.stop().await;
    bob.start().await;
    let _serving = echo(&bob).await;
    let refused = eventually("the payment is not taken", || async {
        let info = bob.channel(channel).await?;
        assert!(info.deposit_theirs == Yocto::near(10) || info.deposit_theirs == Yocto::near(1_000));
        alice.node().request(request(&bob, "echo", b"hello")).await.err()
    })
    .await;
    assert!(liar.spoiled() > 0, "the endpoint was never asked: {refused}");
    liar.lie(|_, _, _| ());
    bob.stop().await;
    bob.start().await;
    let _serving = echo(&bob).await;
    alice.ask(&bob, "echo", b"hello").await;
    world.check_books().await;
}

/// Nobody is under obligation, so nobody severs by himself; without this the deposit would stay where it is.
#[tokio::test(flavor = "multi_thread")]
async fn an_operator_ends_a_channel_with_a_neighbour_that_is_gone() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let mut bob = world.node("bob", &[&alice]).await;
    let channel = alice.open_channel(&bob, Yocto::near(10)).await;
    bob.stop().await;
    let client = alice.client();
    client.close_channel(channel).await.expect("asked for");
    let status = || async { alice.channel(channel).await.map(|info| info.status) };
    eventually("the close is requested", || async {
        matches!(status().await?, ChannelStatus::Closing { confirmed: false, .. }).then_some(())
    })
    .await;
    client.sever_channel(channel).await.expect("severed");
    assert!(matches!(status().await, Some(ChannelStatus::Severed { .. })));
    let again = client.sever_channel(channel).await.expect_err("once");
    assert_eq!(again.code, ErrorCode::Usage, "{again}");
    let unknown = client.sever_channel(ChannelId(77)).await.expect_err("none");
    assert_eq!(unknown.code, ErrorCode::NotFound, "{unknown}");
    let paid = eventually("deposits are paid out", || async {
        match status().await? {
            ChannelStatus::Closed { paid_a, severed: true, .. } => Some(paid_a),
            _ => None,
        }
    })
    .await;
    assert_eq!(paid, Yocto::near(10));
    let withdrawable = client.status().await.expect("status").withdrawable;
    assert!(withdrawable >= paid, "{withdrawable}");
    world.check_books().await;
}

fn asks_for_lateness(fee: Yocto) -> impl Fn(&str, &serde_json::Value, &mut serde_json::Value) {
    move |question, _, answer| {
        if question == "config" {
            answer["params"]["late_fee"] = json!(fee.to_string());
        }
    }
}

/// Where nothing is known from before, nobody is believed alone; nor is what was not believed known the next time.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_without_anything_to_go_by_needs_endpoints_that_agree() {
    let world = World::start().await;
    let mut bob = world.node("bob", &[]).await;
    let liar = Proxy::start(world.chain.rpc_url()).await;
    bob.stop().await;
    bob.follow_through(vec![liar.url(), world.chain.rpc_url()]);
    liar.lie(asks_for_lateness(Yocto::near(1)));
    for _ in 0..2 {
        let refused = Node::start(bob.setup()).await.expect_err("one of two says so");
        assert_eq!(refused.code, ErrorCode::Unreachable, "{refused}");
    }
    liar.lie(|_, _, _| ());
    bob.start().await;
}

/// Nor is lateness paid for at a rate that only one of them knows: a start is no exception.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_fee_that_one_endpoint_makes_up_is_not_paid() {
    let world = World::start().await;
    let (alice, mut bob, _, _, liar) = paid_to_the_deceived(&world).await;
    // So much that a request just about fits below the bond.
    let made_up = Yocto(BOND.0 / 10_000);
    liar.lie(asks_for_lateness(made_up));
    bob.stop().await;
    bob.start().await;
    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let slow = move |incoming: Incoming| {
        let held = held.clone();
        async move {
            held.acquire().await.expect("open").forget();
            incoming.body
        }
    };
    let _serving = bob.node().serve("echo", AppPricing::default(), 8, slow).await.expect("serve");
    let pending = alice.node().request(request(&bob, "echo", b"hello"));
    let is_late = async {
        let paid = eventually("it is late", || async {
            let paid = bob.node().status().await.traffic.paid_late;
            (!paid.is_zero()).then_some(paid)
        })
        .await;
        gate.add_permits(1);
        paid
    };
    let (answer, paid) = tokio::join!(pending, is_late);
    answer.expect("answered");
    assert!(liar.spoiled() > 0, "the endpoint was never asked");
    assert!(paid < made_up, "{paid} for some milliseconds");
    world.check_books().await;
}

/// Late payments that are passed on use up the balance that they come from, though nothing is lost: who cannot pay any
/// more has to sever the next edge.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_adds_to_the_balance_that_lateness_is_passed_on_from() {
    // So much that what is in the channel lasts for some seconds, and what may be open for 2.4 s is below the bond.
    let per_s = Yocto::millinear(350);
    let world = World::start_with(|params| params.late_fee = Yocto(per_s.0 / 1_000)).await;
    let alice = world.node("alice", &[]).await;
    let mut relay = world.node("relay", &[&alice]).await;
    relay.config_mut().policy.late_top_up = Yocto::near(20);
    relay.stop().await;
    relay.start().await;
    let server = world.node("server", &[&relay]).await;
    let first = open(&alice, &relay).await;
    let second = open(&relay, &server).await;
    // Who is late pays for it.
    server.client().top_up_channel(second, Yocto::near(40)).await.expect("top up");
    let told = Arc::new(Notify::new());
    let _serving = server.echo_when("slow", &told).await;

    let before = relay.channel(first).await.expect("open").deposit_mine;
    let mut ask = request(&server, "slow", b"hello");
    ask.deadline = Duration::from_secs(120);
    let answered = eventually("the graph reaches the server", || async {
        match alice.node().request(ask.clone()).await {
            Err(error) if matches!(error.code, ErrorCode::Unreachable | ErrorCode::NoRoute) => None,
            other => Some(other),
        }
    });
    let used_up = async {
        eventually("more is passed on than there was", || async {
            let paid = relay.node().status().await.traffic.paid_late;
            (paid > before).then_some(())
        })
        .await;
        told.notify_one();
    };
    let (answer, ()) = tokio::join!(answered, used_up);
    answer.expect("answered: nobody was severed");
    let info = relay.channel(first).await.expect("open");
    let added = info.deposit_mine.checked_sub(before).expect("added");
    assert!(!added.is_zero() && added <= Yocto::near(20), "{added}");
    assert_eq!(info.status, ChannelStatus::Open);
    world.check_books().await;
}
