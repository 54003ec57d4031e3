//! Daemons in one process over TCP loopback, on a local chain that runs the real contract.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use std::sync::Arc;
use std::time::Duration;

#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "chain/proxy.rs"]
mod proxy;

use common::{World, eventually, request, terms};
use parking_lot::Mutex;
use por_node::client::{Client, ErrorCode, QuoteRequest, What};
use por_node::sdk::{AppPricing, Bytes, Incoming, Node};
use por_types::interface::ChannelStatus;
use por_types::{Side, Yocto};
use tokio::sync::{Notify, Semaphore};

#[tokio::test(flavor = "multi_thread")]
async fn two_nodes_open_pay_close_and_settle() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    let channel = alice.open_channel(&bob, Yocto::near(10)).await;
    let pricing = AppPricing { base: Yocto(500), per_byte: Yocto::ZERO };
    let _echo =
        bob.node().serve("echo", pricing, 16, |incoming| async move { incoming.body }).await.expect("serve");

    // The quote is what is paid, to the yocto.
    let query = QuoteRequest {
        destination: bob.node().key(),
        app: None,
        body_len: 5,
        response_limit: 5,
        server_price: Yocto(500),
        max_latency_ms: None,
        alternatives: None,
    };
    let quote = alice.node().quote(&query).await.expect("quote");
    let edge = terms().price(5, 5).expect("price");
    assert_eq!(quote.routes[0].price, edge.checked_add(Yocto(500)).expect("sum"));
    let mut ask = request(&bob, "echo", b"hello");
    ask.server_price = Yocto(500);
    let answer = alice.node().request(ask.clone()).await.expect("answer");
    assert_eq!(&answer.body[..], b"hello");
    assert_eq!(answer.price, quote.routes[0].price);
    assert_eq!(answer.receipt.receipt.request, answer.request);
    assert_eq!(answer.route, vec![channel]);

    // Each failure has its kind, and costs nothing.
    let mut dear = ask.clone();
    dear.max_price = Some(Yocto(answer.price.0 - 1));
    assert_eq!(alice.node().request(dear).await.expect_err("too dear").code, ErrorCode::Budget);
    let unserved = request(&bob, "nothing", b"hello");
    let unserved = alice.node().request(unserved).await.expect_err("no app");
    assert_eq!((unserved.code, unserved.spent), (ErrorCode::NotFound, Yocto::ZERO));
    let mut nowhere = ask.clone();
    nowhere.destination = por_node::keys::generate_node_key().public();
    assert_eq!(alice.node().request(nowhere).await.expect_err("no node").code, ErrorCode::NoRoute);

    let info = eventually("the refund is counted", || async {
        let info = alice.channel(channel).await?;
        let spent = info.totals.sent_a.checked_sub(info.totals.sent_b).ok()?;
        // Less if the answer was late.
        (spent <= answer.price && info.unfinished == 0).then_some(info)
    })
    .await;
    assert_eq!((info.side, info.status), (Side::A, ChannelStatus::Open));

    alice.client().close_channel(channel).await.expect("close");
    for side in [&alice, &bob] {
        eventually("the channel closes and its bonds come back", || async {
            let info = side.channel(channel).await?;
            matches!(info.status, ChannelStatus::Closed { bonds_until_ms: None, .. }).then_some(())
        })
        .await;
    }
    let chain = world.observer().await;
    let bond = Yocto::near(1);
    let owed = |deposit: Yocto, sent: Yocto, received: Yocto| {
        deposit
            .checked_add(received)
            .and_then(|sum| sum.checked_sub(sent))
            .and_then(|sum| sum.checked_add(bond))
    };
    let (sent_a, sent_b) = (info.totals.sent_a, info.totals.sent_b);
    let alice_has = chain.withdrawable(&alice.account).await.expect("view");
    let bob_has = chain.withdrawable(&bob.account).await.expect("view");
    // Alice asked for the close, so she finalized it; its check needed nothing of her deposit.
    let check_deposit = chain.config().await.expect("config").check_deposit;
    let alice_is_owed = owed(Yocto::near(10), sent_a, sent_b).expect("sum");
    assert_eq!(alice_has, alice_is_owed.checked_add(check_deposit).expect("sum"));
    assert_eq!(bob_has, owed(Yocto::near(5), sent_b, sent_a).expect("sum"));
    let taken = bob.client().withdraw(None).await.expect("withdraw");
    assert_eq!(taken.amount, Some(bob_has));
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_restarts_in_the_middle_loses_nothing() {
    let world = World::start().await;
    let mut relay = world.node("relay", &[]).await;
    let mut author = world.node("author", &[&relay]).await;
    let mut server = world.node("server", &[&relay]).await;
    let first = author.open_channel(&relay, Yocto::near(10)).await;
    let second = relay.open_channel(&server, Yocto::near(10)).await;

    let gate = Arc::new(Semaphore::new(0));
    let held = gate.clone();
    let serving = server
        .node()
        .serve("echo", AppPricing::default(), 16, move |incoming| {
            let held = held.clone();
            async move {
                if incoming.body.starts_with(b"wait")
                    && let Ok(permit) = held.acquire().await
                {
                    permit.forget();
                }
                incoming.body
            }
        })
        .await
        .expect("serve");
    let answer = author.ask(&server, "echo", b"over the relay").await;
    assert_eq!(answer.route, vec![first, second]);

    let body = [b"wait".as_slice(), &[7; 100_000]].concat();
    let pending = author.node().request(request(&server, "echo", &body));
    let restarts = async {
        eventually("the request reaches the server's channel", || async {
            let busy = relay.channel(second).await.is_some_and(|info| info.unfinished > 0);
            busy.then_some(())
        })
        .await;
        relay.stop().await;
        relay.start().await;
        gate.add_permits(1);
    };
    let (answer, ()) = tokio::join!(pending, restarts);
    assert_eq!(answer.expect("the answer outlives the restart").body, Bytes::from(body));

    // Destination and author restart too; the ledgers stay the same on both ends.
    drop(serving);
    server.stop().await;
    server.start().await;
    author.stop().await;
    author.start().await;
    for (channel, one, other) in [(first, &author, &relay), (second, &relay, &server)] {
        eventually("both ends agree", || async {
            let (one, other) = (one.channel(channel).await?, other.channel(channel).await?);
            let agree = one.totals == other.totals && one.unfinished == 0 && other.unfinished == 0;
            agree.then_some(())
        })
        .await;
    }
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_right_after_the_start_waits_for_the_channels() {
    let world = World::start().await;
    let mut alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    alice.open_channel(&bob, Yocto::near(10)).await;
    let pricing = AppPricing::default();
    let _echo =
        bob.node().serve("echo", pricing, 16, |incoming| async move { incoming.body }).await.expect("serve");
    alice.ask(&bob, "echo", b"warm").await;
    for _ in 0..6 {
        alice.stop().await;
        alice.start().await;
        let answer = alice.node().request(request(&bob, "echo", b"at once")).await;
        assert_eq!(&answer.expect("an answer").body[..], b"at once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ends_of_a_channel_find_each_other_after_both_restarted() {
    let world = World::start().await;
    let mut alice = world.node("alice", &[]).await;
    let mut bob = world.node("bob", &[&alice]).await;
    let channel = alice.open_channel(&bob, Yocto::near(10)).await;
    for daemon in [&alice, &bob] {
        let file = daemon.home().peers_file();
        eventually("the other end's address is kept", || async {
            std::fs::read_to_string(&file).ok().filter(|text| !text.is_empty())
        })
        .await;
    }
    alice.stop().await;
    bob.stop().await;
    bob.forget_boot_peers();
    alice.start().await;
    bob.start().await;
    eventually("they are connected", || async { alice.channel(channel).await.filter(|info| info.connected) })
        .await;
}

/// A node without channels, whose boot peer is not there at its start, or goes away for a while.
#[tokio::test(flavor = "multi_thread")]
async fn who_is_alone_dials_its_boot_peers_again() {
    let world = World::start().await;
    let mut alice = world.node("alice", &[]).await;
    let mut bob = world.node("bob", &[&alice]).await;
    bob.stop().await;
    alice.stop().await;
    bob.start().await;
    for _ in 0..2 {
        alice.start().await;
        eventually("they are connected", || async {
            let peers = bob.client().peers().await.ok()?;
            peers.iter().any(|peer| peer.node_key == Some(alice.node().key()) && peer.connected).then_some(())
        })
        .await;
        alice.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_another_client_stopped_is_served_again() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    alice.open_channel(&bob, Yocto::near(10)).await;

    // As a program in the node's own process serves it, and another one takes it over and ends.
    let app = bob.client().serve("echo", AppPricing::default(), 8).await.expect("serve");
    let server = tokio::spawn(async move {
        loop {
            let incoming = app.next().await.expect("a request");
            app.respond(incoming.request, incoming.body).await.expect("respond");
        }
    });
    alice.ask(&bob, "echo", b"one").await;
    let other = Client::from_home(bob.home().data_dir()).expect("the daemon's address");
    other.serve("echo", AppPricing::default(), 8).await.expect("serve").stop().await.expect("stop");
    eventually("it is served again", || async {
        alice.node().request(request(&bob, "echo", b"two")).await.ok()
    })
    .await;
    server.abort();
}

/// Workers of one server all find its app gone when the daemon was restarted, and each brings it back.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_served_by_several_at_once_takes_requests() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    alice.open_channel(&bob, Yocto::near(10)).await;
    let client = bob.client();
    for _ in 0..100 {
        let served = (0..8).map(|_| {
            let client = client.clone();
            tokio::spawn(async move { client.serve("echo", AppPricing::default(), 8).await })
        });
        let served = futures::future::join_all(served).await;
        let app = served.into_iter().next().expect("several").expect("no panic").expect("serve");
        let server = tokio::spawn(async move {
            let incoming = app.next().await.expect("a request");
            app.respond(incoming.request, incoming.body).await.expect("respond");
        });
        let answer = tokio::time::timeout(Duration::from_secs(60), alice.ask(&bob, "echo", b"hello")).await;
        assert_eq!(&answer.expect("somebody takes it").body[..], b"hello");
        server.await.expect("it was answered");
    }
}

/// As a server finds it that was started again with its daemon.
#[tokio::test(flavor = "multi_thread")]
async fn an_app_that_is_served_anew_takes_what_waits_for_it() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    alice.open_channel(&bob, Yocto::near(10)).await;
    let client = bob.client();
    let serve = || client.serve("echo", AppPricing::default(), 8);
    let first = serve().await.expect("serve");
    let asked = async { alice.ask(&bob, "echo", b"hello").await };
    let served = async {
        first.next().await.expect("a request");
        for _ in 0..1_000 {
            let app = serve().await.expect("serve");
            let again = tokio::time::timeout(Duration::from_secs(60), app.next()).await;
            again.expect("it is delivered again").expect("a request");
        }
        let app = serve().await.expect("serve");
        let incoming = app.next().await.expect("a request");
        app.respond(incoming.request, incoming.body).await.expect("respond");
    };
    let (answer, ()) = tokio::join!(asked, served);
    assert_eq!(&answer.body[..], b"hello");
}

/// What nobody waits for is on disk after a stop as well: that a request was answered, above all.
#[tokio::test(flavor = "multi_thread")]
async fn what_was_answered_before_a_stop_is_not_asked_of_the_app_again() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let mut bob = world.node("bob", &[&alice]).await;
    alice.open_channel(&bob, Yocto::near(10)).await;
    let asked = Arc::new(Mutex::new(Vec::new()));
    for body in [&b"before"[..], b"after"] {
        let noted = asked.clone();
        let echo = move |incoming: Incoming| {
            noted.lock().push(incoming.body.clone());
            async move { incoming.body }
        };
        let _serving = bob.node().serve("echo", AppPricing::default(), 16, echo).await.expect("serve");
        alice.ask(&bob, "echo", body).await;
        bob.stop().await;
        bob.start().await;
    }
    assert_eq!(*asked.lock(), [&b"before"[..], b"after"]);
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn local_clients_serve_and_ask_over_http() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    alice.open_channel(&bob, Yocto::near(10)).await;

    // As programs beside the daemons find them.
    let asker = Client::from_home(alice.home().data_dir()).expect("the daemon's address");
    let server = Client::from_home(bob.home().data_dir()).expect("the daemon's address");
    let nothing = server.serve("upper case", AppPricing::default(), 0).await.expect_err("takes nothing");
    assert_eq!(nothing.code, ErrorCode::Usage, "{nothing}");
    let app = server.serve("upper case", AppPricing::default(), 8).await.expect("serve");
    let body = vec![b'x'; 300_000];
    let ask = request(&bob, "upper case", &body);
    let pending = asker.request(ask.clone());
    let serve = async {
        let incoming = app.next().await.expect("a request");
        assert_eq!(incoming.author, alice.node().key());
        assert_eq!(incoming.response_limit, body.len() as u64);
        let too_long = Bytes::from(vec![0; body.len() + 1]);
        let refused = app.respond(incoming.request, too_long).await.expect_err("longer than paid for");
        assert_eq!(refused.code, ErrorCode::Usage);
        app.respond(incoming.request, incoming.body.to_ascii_uppercase().into()).await.expect("respond");
    };
    let (answer, ()) = tokio::join!(pending, serve);
    assert_eq!(answer.expect("answer").body, vec![b'X'; 300_000]);

    let stranger = Client::new(alice.node().api_addr(), "not the token".into());
    assert_eq!(stranger.status().await.expect_err("wrong token").code, ErrorCode::WrongKey);
    let status = asker.status().await.expect("status");
    assert!(status.registered && status.connected_peers == 1 && status.traffic.answered == 1, "{status:?}");

    // A provider is found by the other node, and the announcement outlives a restart.
    let key = [9; 32];
    server.provide(&key).await.expect("announce");
    let found = eventually("the provider is found", || async {
        let found = asker.providers(&key, 1, Duration::from_secs(5)).await.expect("search");
        found.first().cloned()
    })
    .await;
    assert_eq!(found.node_key, bob.node().key());
    app.stop().await.expect("stop");
    assert_eq!(asker.request(ask).await.expect_err("no longer served").code, ErrorCode::NotFound);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_start_says_why() {
    let world = World::start().await;
    let mut alice = world.node("alice", &[]).await;
    let error = alice.home().lock().expect_err("the home is taken");
    assert_eq!(error.code, por_node::exit::ExitCode::Exists, "{error}");

    let elsewhere = alice.elsewhere(world.homes().join("elsewhere"));
    let other = elsewhere.setup();
    let error = Node::start(other).await.expect_err("the port is taken");
    assert_eq!(error.code, ErrorCode::PortInUse, "{error}");

    // Dropped without a word: the home is free once everything is durable.
    drop(alice.node.take());
    eventually("the home is free", || async { alice.home().lock().ok().map(drop) }).await;
    let gone = Client::from_home(alice.home().data_dir()).expect_err("the daemon has gone");
    assert_eq!(gone.code, ErrorCode::Unreachable);
    let store = alice.home().store_file();
    let mut bytes = std::fs::read(&store).expect("store");
    for byte in bytes.iter_mut().skip(64).step_by(97) {
        *byte ^= 0xff;
    }
    std::fs::write(&store, &bytes).expect("write");
    let error = Node::start(alice.setup()).await.expect_err("a damaged store");
    assert_eq!(error.code, ErrorCode::CorruptStore, "{error}");
    assert!(error.to_string().contains(&store.display().to_string()), "{error}");
}

/// Who gives a request up has paid for it all the same, and is told how much.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_that_is_given_up_says_what_it_costs() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    let channel = alice.open_channel(&bob, Yocto::near(10)).await;
    let pricing = AppPricing { base: Yocto(500), per_byte: Yocto::ZERO };
    let never = |_| std::future::pending::<Bytes>();
    let _slow = bob.node().serve("slow", pricing, 16, never).await.expect("serve");
    let mut ask = request(&bob, "slow", b"hello");
    ask.server_price = Yocto(500);
    ask.deadline = Duration::from_secs(2);
    let price = terms().price(5, 5).expect("price").checked_add(Yocto(500)).expect("sum");
    let http = Client::from_home(alice.home().data_dir()).expect("a daemon");
    let given_up = eventually("it is given up when it was sent", || async {
        let error = http.request(ask.clone()).await.expect_err("nobody answers");
        // Bob may not have been known yet.
        (error.code == ErrorCode::Deadline && !error.spent.is_zero()).then_some(error)
    })
    .await;
    assert_eq!(given_up.spent, price, "{given_up}");
    let [given_up] = given_up.requests[..] else { panic!("one was sent: {given_up:?}") };
    let info = alice.channel(channel).await.expect("channel");
    assert!(info.totals.sent_a >= price && info.unfinished > 0, "it stays under obligation");
    eventually("the news tell what becomes of it", || async {
        let news = http.news_within(0, Duration::from_secs(1)).await.expect("news");
        let of_it = |what: &What| matches!(what, What::Overdue { request } if *request == given_up);
        news.happenings.iter().any(|happening| of_it(&happening.what)).then_some(())
    })
    .await;
}

/// Who asks again after the restart pays a second time, and has to know it.
#[tokio::test(flavor = "multi_thread")]
async fn a_request_over_which_the_node_stops_says_what_it_costs() {
    let world = World::start().await;
    let mut alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    alice.open_channel(&bob, Yocto::near(10)).await;
    let pricing = AppPricing { base: Yocto(500), per_byte: Yocto::ZERO };
    let under_way = Arc::new(Semaphore::new(0));
    let taken = under_way.clone();
    let never = move |_| {
        taken.add_permits(1);
        std::future::pending::<Bytes>()
    };
    let _slow = bob.node().serve("slow", pricing, 16, never).await.expect("serve");
    let mut ask = request(&bob, "slow", b"hello");
    ask.server_price = Yocto(500);
    let price = terms().price(5, 5).expect("price").checked_add(Yocto(500)).expect("sum");
    let http = Client::from_home(alice.home().data_dir()).expect("a daemon");
    let asking = [http, alice.node().client()].map(|client| {
        let ask = ask.clone();
        tokio::spawn(async move { client.request(ask).await })
    });
    let both = under_way.acquire_many(2);
    drop(tokio::time::timeout(Duration::from_secs(20), both).await.expect("both are under way"));
    alice.stop().await;
    for asking in asking {
        let error = asking.await.expect("a task").expect_err("the node has stopped");
        assert_eq!((error.code, error.spent), (ErrorCode::Retryable, price), "{error}");
        assert_eq!(error.requests.len(), 1, "{error:?}");
    }
}

/// A bounty on an answer needs the request's id while there is none.
#[tokio::test(flavor = "multi_thread")]
async fn the_id_of_a_labelled_request_is_told_before_its_answer() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    alice.open_channel(&bob, Yocto::near(10)).await;
    let told = Arc::new(Notify::new());
    let _echo = bob.echo_when("echo", &told).await;
    // The way is known, and leaves no news.
    told.notify_one();
    alice.ask(&bob, "echo", b"without a label").await;

    let http = Client::from_home(alice.home().data_dir()).expect("a daemon");
    let mut ask = request(&bob, "echo", b"hello");
    ask.label = Some("j".repeat(65));
    let long = http.request(ask.clone()).await.expect_err("a label that is too long");
    assert_eq!(long.code, ErrorCode::Usage, "{long}");
    assert_eq!(http.news(0).await.expect("news").happenings, []);
    for (number, client) in [http.clone(), alice.node().client()].into_iter().enumerate() {
        let label = format!("job {number}");
        ask.label = Some(label.clone());
        let asking = client.request(ask.clone());
        let reads = async {
            let news = http.news_within(number as u64, Duration::from_secs(20)).await.expect("news");
            told.notify_one();
            news
        };
        let (answer, news) = tokio::join!(asking, reads);
        let answer = answer.expect("an answer");
        let [sent] = &news.happenings[..] else { panic!("one was sent: {news:?}") };
        assert_eq!(sent.what, What::Sent { request: answer.request, label, price: answer.price });
    }
}

/// What a node has seen of the chain it has seen after a restart too: an endpoint that has fallen behind
/// meanwhile is not believed, or the node would spend on channels that are gone.
#[tokio::test(flavor = "multi_thread")]
async fn a_restarted_node_takes_no_older_view_than_it_had() {
    let world = World::start().await;
    let mut alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    // Of before the channel: what the proxy will repeat.
    let proxy = proxy::Proxy::start(world.chain.rpc_url()).await;
    alice.follow_through(vec![proxy.url()]);
    alice.stop().await;
    alice.start().await;
    let before = alice.node().status().await.graph_version;
    alice.stop().await;
    alice.follow_through(vec![world.chain.rpc_url()]);
    alice.start().await;
    let channel = alice.open_channel(&bob, Yocto::near(10)).await;
    let after = alice.node().status().await.graph_version;
    assert!(after > before);
    alice.stop().await;

    proxy.turn(proxy::Mood::Frozen);
    alice.follow_through(vec![proxy.url()]);
    let error = Node::start(alice.setup()).await.expect_err("its only endpoint is behind");
    assert!(error.message.contains("lag behind"), "{error}");
    assert_eq!(error.code, ErrorCode::Unreachable);
    assert!(proxy.spoiled() > 0);

    proxy.turn(proxy::Mood::Honest);
    alice.start().await;
    let info = eventually("the channel is there", || alice.channel(channel)).await;
    assert_eq!(info.status, ChannelStatus::Open);
}

/// A handler with a defect costs its node no late payments: the request is answered all the same.
#[tokio::test(flavor = "multi_thread")]
async fn a_handler_with_a_defect_leaves_no_request_unanswered() {
    let world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let bob = world.node("bob", &[&alice]).await;
    let channel = alice.open_channel(&bob, Yocto::near(10)).await;
    let handler = |incoming: por_node::sdk::Incoming| async move {
        match &incoming.body[..] {
            b"bad" => panic!("a defect"),
            b"long" => Bytes::from_static(b"longer than what was paid for"),
            _ => incoming.body,
        }
    };
    let _app = bob.node().serve("brittle", AppPricing::default(), 16, handler).await.expect("serve");
    assert_eq!(&alice.ask(&bob, "brittle", b"good").await.body[..], b"good");
    assert!(alice.ask(&bob, "brittle", b"bad").await.body.is_empty());
    assert!(alice.ask(&bob, "brittle", b"long").await.body.is_empty());
    assert_eq!(&alice.ask(&bob, "brittle", b"fine").await.body[..], b"fine", "others go on");
    eventually("nothing is left open", || async {
        (bob.channel(channel).await?.unfinished == 0).then_some(())
    })
    .await;
}

/// Whoever asks for it wants to know what is wrong.
#[tokio::test(flavor = "multi_thread")]
async fn the_status_does_not_wait_for_a_chain_that_is_silent() {
    let mut world = World::start().await;
    let silent = proxy::Proxy::start(world.chain.rpc_url()).await;
    world.rpc_url = Some(silent.url());
    let alice = world.node("alice", &[]).await;
    silent.turn(proxy::Mood::Drip);
    // A view that nobody answers takes four times ten seconds.
    let status = tokio::time::timeout(Duration::from_secs(20), alice.client().status()).await;
    let status = status.expect("it does not wait").expect("status");
    assert!(status.registered && status.chain_error.is_some(), "{status:?}");
}
