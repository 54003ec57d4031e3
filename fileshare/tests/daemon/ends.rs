//! What is left of money and duties when a part of it all ends in the middle.

use std::{fs, sync::Arc, time::Duration};

use por_fileshare::{
    exit::Exit,
    fetch::Stop,
    landing::Landing,
    net::{Call, Daemon as Net, Network},
    part::{Part, Span},
    proto::{GET_APP, Pricing, Question, get_limit},
    serve::serve,
    store::{AddOptions, Store},
};
use por_node::sdk::AppPricing;
use por_types::Yocto;

use super::world::{MIB, Server, World, begin, content, eventually, reachable, session, take_on};

/// The node has paid, and pays on when it is back: nobody knows what became of it.
#[tokio::test(flavor = "multi_thread")]
async fn a_window_over_which_the_own_node_goes_away_counts_as_paid() {
    let world = World::start().await;
    let owner = world.node("owner", &[]).await;
    let reader = world.node("reader", &[&owner]).await;
    reader.open_channel(&owner, Yocto::near(10)).await;
    let store = Store::open(&world.path("store")).unwrap();
    let data = content(2 * MIB);
    let id = store.add_reader(&data[..], AddOptions::default(), &mut |_| ()).unwrap().id;
    let _silent = owner.client().serve(GET_APP, AppPricing::default(), 8).await.expect("serve");

    let stop = take_on(&reader).await;
    let part = Part::open(&world.path("out"), Span::whole(id, 2 * MIB), false).unwrap();
    let files = part.files().expect("paths that can be told");
    let landing = Landing::open(reader.home.data_dir(), &files).await.expect("taken on");
    let window = part.missing(2 * MIB).unwrap()[0];
    let (body, limit) = (Question::get(id, window).encode().unwrap(), get_limit(2 * MIB, window));
    let net = Net::new(reader.client());
    let quote =
        || async { net.quote(owner.key(), GET_APP, body.len() as u64, limit, Yocto::ZERO).await.ok() };
    let max_price = eventually("there is a way", quote).await;
    let call = Call {
        to: owner.key(),
        app: GET_APP,
        body: body.clone(),
        limit,
        server_price: Yocto::ZERO,
        max_price,
        deadline: Duration::from_secs(60),
    };
    let goes_away = async {
        eventually("it is paid", || async {
            let channels = owner.client().channels().await.ok()?;
            channels.iter().any(|info| info.unfinished > 0).then_some(())
        })
        .await;
        stop.set();
    };
    let (asked, ()) = tokio::join!(landing.fetch(&call, window), goes_away);
    let failure = asked.expect_err("no answer");
    assert_eq!((failure.exit, failure.spent), (Exit::Unreachable, max_price), "{failure}");
}

/// The node would acknowledge questions that nobody answers, and pay late for each.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_cannot_start_leaves_no_app_behind() {
    let world = World::start().await;
    let owner = world.node("owner", &[]).await;
    let store = Store::open(&world.path("store")).unwrap();
    fs::write(world.path("store/meta.redb"), b"no database").unwrap();
    let serving = serve(owner.by_home(), store, Pricing::default(), Stop::default(), Arc::default(), || ());
    assert_eq!(serving.await.unwrap_err().exit, Exit::CorruptStore);
    let apps = owner.client().status().await.unwrap().apps;
    assert!(apps.is_empty(), "{apps:?}");
}

/// What a node has acknowledged for its file server is answered before that leaves.
#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_stopped_leaves_no_question_unanswered() {
    let world = World::start().await;
    let owner = world.node("owner", &[]).await;
    let reader = world.node("reader", &[&owner]).await;
    reader.open_channel(&owner, Yocto::near(10)).await;
    let store = Store::open(&world.path("store")).unwrap();
    let data = content(100 * MIB);
    let id = store.add_reader(&data[..], AddOptions::default(), &mut |_| ()).unwrap().id;
    let server = Server::start(store, owner.by_home(), 1).await;
    reachable(&reader.by_home(), id).await;
    let running = session(reader.by_home(), None);
    let get = begin(&running, id, world.path("out")).await;
    server.end().await;
    assert!(running.meter.get().0 < 100 * MIB, "in the middle");
    running.stop.set();
    eventually("the owner has nothing left to answer", || async {
        let channels = owner.client().channels().await.ok()?;
        channels.iter().all(|info| info.unfinished == 0).then_some(())
    })
    .await;
    assert_eq!(get.await.expect("no panic").unwrap_err().exit, Exit::Interrupted);
}
