//! Through real daemons: a local chain with the real contract, three nodes over TCP, a
//! server behind a relay, and the client's own daemon in front.
#![cfg(feature = "demo")]

#[path = "daemon/ends.rs"]
mod ends;
#[path = "daemon/world.rs"]
mod world;

use std::{fs, sync::Arc};

use por_fileshare::{
    budget::Budget,
    exit::Exit,
    fetch::{Limits, Session, Stop},
    get::{self, Place, Want},
    id::ContentId,
    landing::Landing,
    net::Daemon as Net,
    part::{Part, PartError, Span},
    store::{AddOptions, Store},
};
use por_node::keys::generate_node_key;
use por_types::{Terms, Yocto};
use world::{
    Daemon, MIB, PATIENCE, Server, World, begin, content, eventually, fetch, reachable, session, take_on,
    terms, want,
};

#[tokio::test(flavor = "multi_thread")]
async fn a_file_travels_through_a_relay_and_everybody_is_paid() {
    let world = World::start().await;
    let relay = world.node("relay", &[]).await;
    let reader = world.node("reader", &[&relay]).await;
    let owner = world.node("owner", &[&relay]).await;
    let first = reader.open_channel(&relay, Yocto::near(10)).await;
    let second = relay.open_channel(&owner, Yocto::near(10)).await;

    let store = Store::open(&world.path("store")).unwrap();
    let data = content(5 * MIB + 3);
    let id = store.add_reader(&data[..], AddOptions::default(), &mut |_| ()).unwrap().id;
    let server = Server::start(store, owner.by_home(), 7).await;
    reachable(&reader.by_home(), id).await;

    // The price is known to the yocto, and is what is paid.
    let paying = session(reader.by_home(), Some(Yocto::near(1)));
    let goal = get::locate(&paying, &want(id, &[])).await.unwrap();
    let asking = paying.budget.spent();
    let plan = get::plan(&paying, &goal, None).await.unwrap();
    assert_eq!((plan.costs.len(), plan.costs[0].node, plan.windows), (1, owner.key(), 6));
    let target = world.path("out");
    let place = Place { target: target.clone(), overwrite: false, share: None };
    get::fetch_to(&paying, &goal, &place).await.unwrap();
    assert!(fs::read(&target).unwrap() == data);
    assert_eq!(paying.budget.spent().checked_sub(asking).unwrap(), plan.at_most);
    assert!(plan.costs[0].server > Yocto(7 * 5 * u128::from(MIB)), "the owner's share");

    // Put while serving: announced and found without anybody's doing.
    let later = content(100_001);
    let other = server.store.add_reader(&later[..], AddOptions::default(), &mut |_| ()).unwrap().id;
    reachable(&reader.by_home(), other).await;
    let again = session(reader.by_home(), None);
    fetch(&again, &want(other, &[owner.key()]), &world.path("later")).await.unwrap();
    assert!(fs::read(world.path("later")).unwrap() == later);

    // What is not there, whom nobody knows, what is too dear.
    let absent = ContentId::file(blake3::hash(b"nobody has this"));
    let fail = async |max: Option<Yocto>, want: Want| {
        let session = session(reader.by_home(), max);
        fetch(&session, &want, &world.path("never")).await.unwrap_err().exit
    };
    assert_eq!(fail(None, want(absent, &[owner.key()])).await, Exit::NotFound);
    assert_eq!(fail(None, want(id, &[generate_node_key().public()])).await, Exit::NoRoute);
    assert_eq!(fail(Some(Yocto(1)), want(id, &[])).await, Exit::Budget);
    assert!(!world.path("never").exists());

    // A byte flipped in the store fails the get.
    let blob = fs::read_dir(world.path("store/blob")).unwrap().map(|found| found.unwrap().path());
    for path in blob {
        let mut bytes = fs::read(&path).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    assert_eq!(fail(None, want(id, &[])).await, Exit::VerificationFailed);
    assert!(!world.path("never").exists());
    server.end().await;

    // Both channels carry the same story: what the reader paid is what the others got.
    let total = |daemon: &Daemon, channel| {
        let node = daemon.client();
        async move {
            let channels = node.channels().await.unwrap();
            channels.into_iter().find(|info| info.channel == channel).unwrap()
        }
    };
    let paid = eventually("all exchanges end", || async {
        let (a, b) = (total(&reader, first).await, total(&owner, second).await);
        (a.unfinished == 0 && b.unfinished == 0).then_some((a, b))
    })
    .await;
    assert!(paid.0.balance_mine < Yocto::near(10) && paid.1.balance_mine > Yocto::near(5));
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn daemons_that_restart_in_the_middle_of_a_get_resume_it() {
    let world = World::start().await;
    let mut relay = world.node("relay", &[]).await;
    let mut reader = world.node("reader", &[&relay]).await;
    let owner = world.node("owner", &[&relay]).await;
    reader.open_channel(&relay, Yocto::near(10)).await;
    relay.open_channel(&owner, Yocto::near(10)).await;
    let store = Store::open(&world.path("store")).unwrap();
    let data = content(40 * MIB);
    let id = store.add_reader(&data[..], AddOptions::default(), &mut |_| ()).unwrap().id;
    let server = Server::start(store, owner.by_home(), 1).await;
    reachable(&reader.by_home(), id).await;

    let running = session(reader.by_home(), None);
    let get = begin(&running, id, world.path("out")).await;
    relay.stop().await;
    reader.stop().await;
    assert!(running.meter.get().0 < 40 * MIB, "in the middle");
    relay.start().await;
    reader.start().await;
    tokio::time::timeout(PATIENCE * 2, get).await.expect("it ends").expect("no panic").expect("it resumes");
    assert!(fs::read(world.path("out")).unwrap() == data);
    let answers = server.served.answers.load(std::sync::atomic::Ordering::Relaxed);
    assert!(answers >= 40, "{answers}");
    server.end().await;
    world.check_books().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_files_in_it_writes_downloads_by_itself() {
    let world = World::start().await;
    let owner = world.node("owner", &[]).await;
    let mut reader = world.node("reader", &[&owner]).await;
    reader.open_channel(&owner, Yocto::near(10)).await;
    let store = Store::open(&world.path("store")).unwrap();
    let data = content(20 * MIB + 5);
    let id = store.add_reader(&data[..], AddOptions::default(), &mut |_| ()).unwrap().id;
    let server = Server::start(store, owner.client(), 3).await;
    reachable(&reader.client(), id).await;
    let stop = take_on(&reader).await;
    let home = reader.home.data_dir().to_owned();
    let of_home = |max| {
        let limits = Limits { window: MIB, ..Limits::default() };
        let net = Net::of_home(&home).expect("a daemon");
        Arc::new(Session::new(Arc::new(net), Budget::new(max), limits, Stop::default()))
    };

    // The node takes on what is this user's and as it is named, and nothing else.
    let span = Span::whole(id, data.len() as u64);
    let target = world.path("out");
    let part = Part::open(&target, span, false).unwrap();
    let files = part.files().expect("paths that can be told");
    let landing = Landing::open(&home, &files).await.expect("taken on");
    // Whoever writes for it keeps later downloads out, also when its own command is gone.
    drop(part);
    assert!(matches!(Part::open(&target, span, false), Err(PartError::InUse(_))));
    drop(landing);
    let mut wrong = files.clone();
    wrong.data.inode += 1;
    assert!(Landing::open(&home, &wrong).await.is_none(), "another file");
    let mut wrong = files.clone();
    wrong.span.end -= 1;
    assert!(Landing::open(&home, &wrong).await.is_none(), "another length");
    let link = world.path("link");
    std::os::unix::fs::symlink(&files.data.path, &link).unwrap();
    let mut wrong = files.clone();
    wrong.data.path = link;
    assert!(Landing::open(&home, &wrong).await.is_none(), "a link");
    assert!(Landing::open(&world.path("elsewhere"), &files).await.is_none(), "no node");
    eventually("the file is free", || async { Part::open(&target, span, false).ok() }).await;

    // Verified, complete and paid to the yocto, over a restart of the node.
    let paying = of_home(Some(Yocto::near(1)));
    let get = begin(&paying, id, target.clone()).await;
    stop.set();
    reader.stop().await;
    reader.start().await;
    let stop = take_on(&reader).await;
    tokio::time::timeout(PATIENCE * 2, get).await.expect("it ends").expect("no panic").expect("it resumes");
    assert!(fs::read(&target).unwrap() == data);
    assert!(reader.client().status().await.unwrap().traffic.answered > 0, "the node itself asked");

    // What it says about money and providers reaches the command.
    let poor = of_home(Some(Yocto(1)));
    let failure = fetch(&poor, &want(id, &[]), &world.path("poor")).await.unwrap_err();
    assert_eq!(failure.exit, Exit::Budget);
    stop.set();
    server.end().await;
    world.check_books().await;
}

/// Who announces content chooses where it lies: behind a channel that costs a fifth of a NEAR per message, say.
/// Nothing of that is paid before somebody has agreed to it.
#[tokio::test(flavor = "multi_thread")]
async fn asking_is_not_dear_unless_it_is_allowed_to_be() {
    let world = World::start().await;
    let relay = world.node("relay", &[]).await;
    let reader = world.node("reader", &[&relay]).await;
    let owner = world.node("owner", &[&relay]).await;
    let first = reader.open_channel(&relay, Yocto::near(10)).await;
    let dear = Terms { base_fee: Yocto::millinear(200), ..terms() };
    relay.open_channel_with(&owner, Yocto::near(10), dear).await;
    let store = Store::open(&world.path("store")).unwrap();
    let data = content(100_000);
    let id = store.add_reader(&data[..], AddOptions::default(), &mut |_| ()).unwrap().id;
    let server = Server::start(store, owner.by_home(), 0).await;
    let quoting = Net::new(reader.by_home());
    eventually("there is a way", || async {
        use por_fileshare::net::Network as _;
        quoting.quote(owner.key(), "fileshare/stat/1", 100, 1000, Yocto::ZERO).await.ok()
    })
    .await;
    let balance = async || {
        let channels = reader.client().channels().await.unwrap();
        channels.into_iter().find(|info| info.channel == first).unwrap().balance_mine
    };
    let before = balance().await;
    let run = async |args: &[&str]| {
        let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_fileshare"));
        command.arg("--home").arg(reader.home.data_dir()).args(args).arg(id.to_string());
        command.args(["--from", &owner.peer_id()]).current_dir(world.folder.path()).kill_on_drop(true);
        let output =
            tokio::time::timeout(PATIENCE, command.output()).await.expect("it ends").expect("it runs");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    for args in
        [&["stat"][..], &["ls"], &["quote"], &["get"], &["get", "--yes"], &["get", "--dry-run"], &["cat"]]
    {
        let (code, told) = run(args).await;
        assert_eq!(code, Some(8), "{args:?}: {told}");
        assert!(told.contains("--max-ask"), "{args:?}: {told}");
        assert_eq!(balance().await, before, "{args:?}: nothing is paid");
    }
    let (code, told) = run(&["stat", "--max-ask", "0.5NEAR"]).await;
    assert_eq!(code, Some(0), "{told}");
    let after = eventually("the stat is paid", || async {
        let now = balance().await;
        (now < before).then_some(now)
    })
    .await;
    assert!(before.checked_sub(after).unwrap() < Yocto::millinear(300), "one stat");
    server.end().await;
    world.check_books().await;
}

/// A get whose own node goes away waits for it to come back, and says so while it waits.
#[tokio::test(flavor = "multi_thread")]
async fn that_the_own_node_is_gone_is_said_while_it_is_waited_for() {
    use tokio::io::{AsyncBufReadExt, BufReader};
    let world = World::start().await;
    let owner = world.node("owner", &[]).await;
    let mut reader = world.node("reader", &[&owner]).await;
    reader.open_channel(&owner, Yocto::near(10)).await;
    let store = Store::open(&world.path("store")).unwrap();
    let data = content(200 * MIB);
    let id = store.add_reader(&data[..], AddOptions::default(), &mut |_| ()).unwrap().id;
    let server = Server::start(store, owner.by_home(), 1).await;
    reachable(&reader.by_home(), id).await;
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_fileshare"));
    command.arg("--home").arg(reader.home.data_dir()).args(["get", "--yes", "--window", "1", "-o", "out"]);
    command.arg(id.to_string()).current_dir(world.folder.path()).kill_on_drop(true);
    let mut get = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let answered = reader.client().status().await.unwrap().traffic.answered;
    eventually("some of it is there", || async {
        let now = reader.client().status().await.unwrap().traffic.answered;
        (now > answered + 4).then_some(())
    })
    .await;
    reader.stop().await;
    let mut lines = BufReader::new(get.stderr.take().unwrap()).lines();
    let said = async {
        while let Some(line) = lines.next_line().await.unwrap() {
            if line.contains("own node does not answer") {
                return true;
            }
        }
        false
    };
    assert!(tokio::time::timeout(PATIENCE, said).await.expect("in time"), "it ended without a word");
    assert!(get.try_wait().unwrap().is_none(), "and waits");
    reader.start().await;
    let drain = async { while lines.next_line().await.unwrap().is_some() {} };
    let (ended, ()) =
        tokio::time::timeout(PATIENCE * 2, async { tokio::join!(get.wait(), drain) }).await.unwrap();
    assert_eq!(ended.unwrap().code(), Some(0));
    assert!(fs::read(world.path("out")).unwrap() == data);
    server.end().await;
}
