//! What is left of money and duties when a part of it all ends in the middle.

use std::time::Duration;

use por_fileshare::{
    exit::Exit,
    landing::Landing,
    net::{Call, Daemon as Net, Network},
    part::{Part, Span},
    proto::{GET_APP, Question, get_limit},
    store::{AddOptions, Store},
};
use por_node::sdk::AppPricing;
use por_types::Yocto;

use super::world::{MIB, World, content, eventually, take_on};

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
