//! Endpoints that lie or are broken: each ends in a clear error after bounded time and memory, and where another
//! one is good the node goes on with that.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::proxy::{Mood, Proxy};
use super::*;

/// Longest time that a lie may take to be found out, on a slow machine.
const SOON: Duration = Duration::from_secs(60);

/// A client of the proxy alone, and one that asks the proxy first and then an honest endpoint.
struct Two {
    alone: Chain,
    both: Chain,
}

async fn clients(world: &World, actor: &Actor, proxy: &Proxy) -> Two {
    proxy.turn(Mood::Honest);
    let limits = RpcLimits {
        rounds: 2,
        backoff: Duration::from_millis(10),
        try_timeout: Duration::from_secs(2),
        ..RpcLimits::default()
    };
    let config = ChainConfig { rpc_urls: vec![proxy.url()], limits, ..world.config(actor) };
    let both = ChainConfig { rpc_urls: vec![proxy.url(), world.net.rpc_url()], ..config.clone() };
    let connect = |config| async { Chain::connect(config, Arc::new(MemoryIntents::default())).await };
    Two { alone: connect(config).await.expect("connects"), both: connect(both).await.expect("connects") }
}

/// A chain with a channel between two nodes; the first node's actor.
async fn with_a_channel() -> (World, Actor) {
    let world = World::start().await;
    let (alice, bob) = (world.actor("alice.localnet").await, world.actor("bob.localnet").await);
    let (a, b) = (world.chain(&alice).await, world.chain(&bob).await);
    register(&a, &alice, Yocto::near(5)).await;
    register(&b, &bob, Yocto::near(5)).await;
    propose(&a, &bob.account).await.expect("proposes");
    (world, alice)
}

async fn soon<T>(what: &str, work: impl Future<Output = T>) -> T {
    let within = tokio::time::timeout(SOON, work).await;
    within.unwrap_or_else(|_| panic!("{what}: not within {SOON:?}"))
}

type View = fn(&str, &Value, &mut Value);

/// What no contract answers; each is asked for when the graph is read from its beginning.
const LIES: &[(&str, View)] = &[
    ("a page that brings nobody nearer", |view, args, value| {
        if view == "changes" {
            (value["upto"], value["version"]) = (args["since"].clone(), json!(u64::MAX >> 20));
            (value["nodes"], value["channels"]) = (json!([]), json!([]));
        }
    }),
    ("pages of one change each", |view, args, value| {
        if view == "changes" {
            let since = args["since"].as_u64().unwrap_or_default();
            (value["upto"], value["version"]) = (json!(since + 1), json!(since + 50_000));
            (value["nodes"], value["channels"]) = (json!([]), json!([]));
        }
    }),
    ("the highest version", |view, _, value| {
        if view == "changes" {
            value["version"] = json!(u64::MAX);
        }
    }),
    ("more nodes and channels than there are, to be read one by one", |view, _, value| match view {
        "changes" => (value["oldest"], value["version"]) = (json!(5_000), json!(6_000)),
        "config" => {
            (value["nodes"], value["channels"]) = (json!(u64::MAX), json!(u64::MAX));
            value["graph_version"] = json!(6_000);
        }
        "nodes" | "channels" => *value = json!([]),
        _ => {}
    }),
    ("a page with other channels than asked for", |view, _, value| match view {
        "changes" => {
            (value["oldest"], value["version"], value["upto"]) = (json!(5_000), json!(6_000), json!(0))
        }
        "config" => value["graph_version"] = json!(6_000),
        "channels" => value[0]["channel"] = json!(1_000),
        _ => {}
    }),
    ("the highest fees", |view, _, value| {
        if view == "changes" {
            value["channels"][0]["terms"]["base_fee"] = json!(u128::MAX.to_string());
        }
    }),
    ("the highest amounts", |view, _, value| {
        if view == "changes" {
            value["channels"][0]["deposit_a"] = json!(u128::MAX.to_string());
        }
    }),
    ("something else", |view, _, value| {
        if view == "changes" {
            *value = json!({ "version": "many" });
        }
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn what_no_contract_answers_is_an_error_or_asked_of_the_next() {
    let (world, alice) = with_a_channel().await;
    let proxy = Proxy::start(world.net.rpc_url()).await;
    for (what, lie) in LIES {
        let Two { alone, both } = clients(&world, &alice, &proxy).await;
        proxy.lie(lie);
        let mut sync = GraphSync::new(alone);
        let error = soon(what, sync.step()).await.expect_err(what);
        assert!(matches!(&error, ChainError::Answer { .. }), "{what}: {error}");
        assert_eq!(CliError::from(error).code, ExitCode::ForeignVersion, "{what}");
        let mut sync = GraphSync::new(both);
        let step = soon(what, sync.step()).await.unwrap_or_else(|error| panic!("{what}: {error}"));
        assert_eq!((step.edges.len(), sync.graph().read().node_count()), (1, 2), "{what}");
        assert!(proxy.spoiled() > 0, "{what}: it was never asked");
    }
}

/// Each page is as it should be, and there is always one more.
#[tokio::test(flavor = "multi_thread")]
async fn a_step_ends_where_the_log_ended_when_it_began() {
    let (world, alice) = with_a_channel().await;
    let proxy = Proxy::start(world.net.rpc_url()).await;
    let Two { alone, .. } = clients(&world, &alice, &proxy).await;
    proxy.lie(|view, args, value| {
        if view == "changes" {
            let since = args["since"].as_u64().unwrap_or_default();
            (value["upto"], value["version"]) = (json!(since + 100), json!(since + 101));
            (value["nodes"], value["channels"]) = (json!([]), json!([]));
        }
    });
    let mut sync = GraphSync::new(alone);
    let step = soon("pages without end", sync.step()).await.expect("as far as it goes");
    assert!(step.version <= 300, "{step:?}");
    assert!(proxy.spoiled() < 10, "{} pages", proxy.spoiled());
}

/// What is wrongly said to be asked for is not attached to a call, nor are late fees paid by it.
#[tokio::test(flavor = "multi_thread")]
async fn a_configuration_that_no_contract_has_is_not_taken() {
    let (world, alice) = with_a_channel().await;
    let proxy = Proxy::start(world.net.rpc_url()).await;
    for (field, number) in [("/check_deposit", u128::MAX), ("/params/late_fee", u128::MAX)] {
        let Two { alone, both } = clients(&world, &alice, &proxy).await;
        proxy.lie(move |view, _, value| {
            if view == "config" {
                *value.pointer_mut(field).expect("the field") = json!(number.to_string());
            }
        });
        let error = soon(field, alone.config()).await.expect_err(field);
        assert!(
            matches!(&error, ChainError::Answer { method, .. } if method == "config"),
            "{field}: {error}"
        );
        let config = soon(field, both.config()).await.expect("the other one's");
        assert!(config.check_deposit < Yocto::near(1) && config.params.late_fee < Yocto::near(1), "{field}");
    }
}

/// A nonce that no block has room for would be signed, and every call after it refused.
#[tokio::test(flavor = "multi_thread")]
async fn a_giant_nonce_is_not_signed() {
    let (world, alice) = with_a_channel().await;
    let proxy = Proxy::start(world.net.rpc_url()).await;
    let Two { alone, both } = clients(&world, &alice, &proxy).await;
    let before = stake_of(&both).await;
    let stake = || Intent::new(Call::Stake { amount: Yocto(1) });
    for nonce in [u64::MAX, u64::MAX - 1, 1 << 60] {
        proxy.lie(move |question, _, value| {
            if question == "view_access_key" {
                value["nonce"] = json!(nonce);
            }
        });
        let error = soon("alone", alone.call(stake())).await.expect_err("nobody says a nonce");
        assert!(error.is_transient(), "{error}");
        soon("both", both.call(stake())).await.expect("the other one does");
        assert!(proxy.spoiled() > 0, "it was never asked");
    }
    proxy.turn(Mood::Honest);
    soon("later", alone.call(stake())).await.expect("the nonce is as it was");
    assert_eq!(stake_of(&both).await, before.checked_add(Yocto(4)).expect("small"));
}

#[tokio::test(flavor = "multi_thread")]
async fn bodies_without_an_end_are_cut_off() {
    let (world, alice) = with_a_channel().await;
    let proxy = Proxy::start(world.net.rpc_url()).await;
    for mood in [Mood::Drip, Mood::Endless] {
        let Two { alone, both } = clients(&world, &alice, &proxy).await;
        proxy.turn(mood);
        let error = soon("alone", alone.head()).await.expect_err("there is no answer");
        assert!(matches!(&error, ChainError::Unreachable { .. }), "{mood:?}: {error}");
        assert_eq!(CliError::from(error).code, ExitCode::Unreachable, "{mood:?}");
        soon("both", both.head()).await.expect("the other one answers");
        assert!(proxy.spoiled() > 0, "{mood:?}: it was never asked");
    }
    // Three times what is read, and what sockets hold.
    assert!(proxy.poured() < 100 << 20, "{} MiB were taken", proxy.poured() >> 20);
}

/// Said to be gone by one endpoint, the account is looked for at the others.
#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_one_endpoint_is_asked_of_the_next() {
    let (world, alice) = with_a_channel().await;
    let proxy = Proxy::start(world.net.rpc_url()).await;
    let Two { alone, both } = clients(&world, &alice, &proxy).await;
    proxy.turn(Mood::Empty);
    let error = soon("alone", alone.node(&alice.account)).await.expect_err("nobody else is asked");
    assert!(matches!(&error, ChainError::NoContract { .. }), "{error}");
    assert!(soon("both", both.node(&alice.account)).await.expect("the other one knows").is_some());
    soon("both", both.call(Intent::new(Call::Stake { amount: Yocto(1) }))).await.expect("and takes calls");
    assert!(proxy.spoiled() > 1, "it was never asked");
}

/// It takes transactions, and never says how they end.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_never_knows_keeps_nobody_from_the_others() {
    let (world, alice) = with_a_channel().await;
    let proxy = Proxy::start(world.net.rpc_url()).await;
    let Two { both, .. } = clients(&world, &alice, &proxy).await;
    let before = stake_of(&both).await;
    proxy.turn(Mood::Hasty);
    soon("both", both.call(Intent::new(Call::Stake { amount: Yocto(1) })))
        .await
        .expect("the other one takes it");
    assert!(proxy.spoiled() > 0, "it was never asked");
    assert_eq!(stake_of(&both).await, before.checked_add(Yocto(1)).expect("small"), "once");
}

/// Alone, an endpoint is believed how high the chain is. When others are back, they are not old for ever.
#[tokio::test(flavor = "multi_thread")]
async fn heights_that_one_invented_while_it_was_alone_are_forgotten() {
    let (world, alice) = with_a_channel().await;
    let (liar, honest) = (Proxy::start(world.net.rpc_url()).await, Proxy::start(world.net.rpc_url()).await);
    let limits = RpcLimits { rounds: 2, backoff: Duration::from_millis(10), ..RpcLimits::default() };
    let config = ChainConfig { rpc_urls: vec![liar.url(), honest.url()], limits, ..world.config(&alice) };
    let chain = Chain::connect(config, Arc::new(MemoryIntents::default())).await.expect("connects");
    liar.turn(Mood::Ahead);
    honest.turn(Mood::Limited);
    assert!(chain.head().await.expect("the only one").height > 1_000_000_000);
    liar.turn(Mood::Limited);
    honest.turn(Mood::Honest);
    let begun = Instant::now();
    while chain.head().await.is_err() {
        assert!(begun.elapsed() < SOON, "the honest one is old for ever");
    }
    assert!(chain.head().await.expect("head").height < 1_000_000_000);
    soon("calls", chain.call(Intent::new(Call::Stake { amount: Yocto(1) }))).await.expect("calls go on");
}

/// Of a graph that is read anew half way it is known what time it was.
#[tokio::test(flavor = "multi_thread")]
async fn a_reading_that_breaks_off_forgets_no_time() {
    let (world, alice) = with_a_channel().await;
    let proxy = Proxy::start(world.net.rpc_url()).await;
    let Two { alone, .. } = clients(&world, &alice, &proxy).await;
    let mut sync = GraphSync::new(alone);
    let first = sync.step().await.expect("honest");
    proxy.lie(|view, _, value| {
        if view == "changes" {
            (value["oldest"], value["version"], value["upto"]) =
                (json!(5_000), json!(6_000), value["upto"].clone());
            (value["nodes"], value["channels"]) = (json!([]), json!([]));
        }
    });
    let error = soon("it never gets there", sync.step()).await.expect_err("the log does not reach back");
    assert!(matches!(&error, ChainError::Answer { .. }), "{error}");
    let graph = sync.graph();
    assert_eq!((graph.read().node_count(), graph.read().channel_count()), (2, 1), "it was read");
    assert!(graph.read().height() > 0 && graph.read().chain_time_ms() >= first.chain_time_ms);
}

#[tokio::test(flavor = "multi_thread")]
async fn block_times_do_not_go_back() {
    let (world, alice) = with_a_channel().await;
    let proxy = Proxy::start(world.net.rpc_url()).await;
    let Two { alone, both } = clients(&world, &alice, &proxy).await;
    let before = (alone.head().await.expect("honest"), both.head().await.expect("honest"));
    proxy.lie(|question, _, value| {
        if question == "block" {
            value["header"]["timestamp"] = json!(1_000_000);
        }
    });
    let error = soon("alone", alone.head()).await.expect_err("it is from 1970");
    assert!(matches!(&error, ChainError::Lagging { .. }), "{error}");
    assert!(soon("both", both.head()).await.expect("the other one's").time_ms >= before.1.time_ms);
    assert!(proxy.spoiled() > 0, "it was never asked");
    proxy.turn(Mood::Honest);
    assert!(alone.head().await.expect("honest again").time_ms >= before.0.time_ms);
}

/// Within the contract's bounds it costs a fortune too.
#[tokio::test(flavor = "multi_thread")]
async fn a_late_fee_is_not_taken_from_one_of_several() {
    let (world, alice) = with_a_channel().await;
    let proxy = Proxy::start(world.net.rpc_url()).await;
    let Two { alone, both } = clients(&world, &alice, &proxy).await;
    let fee = both.config().await.expect("honest").params.late_fee;
    proxy.lie(|view, _, value| {
        if view == "config" {
            value["params"]["late_fee"] = json!(Yocto::near(1).to_string());
        }
    });
    let lie = soon("both", both.config()).await.expect("it could be true").params.late_fee;
    assert_eq!(lie, Yocto::near(1));
    assert!(!both.agrees_on_late_fee(lie).await, "one of two says so");
    assert!(alone.agrees_on_late_fee(lie).await, "it is the only one");
    proxy.turn(Mood::Honest);
    assert!(both.agrees_on_late_fee(fee).await);
    proxy.turn(Mood::Limited);
    assert!(both.agrees_on_late_fee(fee).await, "the other one is there");
}
