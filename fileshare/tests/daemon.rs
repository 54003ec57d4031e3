//! Through real daemons: a local chain with the real contract, three nodes over TCP, a
//! server behind a relay, and the client's own daemon in front.
#![cfg(feature = "demo")]

use std::{
    fs,
    future::Future,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use por_fileshare::{
    budget::Budget,
    exit::{Exit, Failure},
    fetch::{Limits, Session, Stop},
    get::{self, Place, Want},
    id::ContentId,
    landing::{self, Landing},
    net::Daemon as Net,
    part::{Part, PartError, Span},
    proto::Pricing,
    serve::{Served, serve},
    store::{AddOptions, Store},
};
use por_node::{
    client::Client,
    config::Config,
    home::Home,
    keys::{Keys, generate_near_key, generate_node_key},
    localnet::{LocalNetwork, LocalNetworkConfig},
    sdk::{Multiaddr, Node, NodeSetup},
};
use por_types::{AccountId, ChannelId, NodeKey, Terms, Yocto, interface::ChannelStatus};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(60);
const MIB: u64 = 1 << 20;

fn terms() -> Terms {
    Terms {
        rtt_ms: 2_000,
        bytes_per_s: 50_000_000,
        base_fee: Yocto(1_000_000),
        byte_fee: Yocto(3),
        heartbeat_ms: 1_000,
        grace_ms: 30_000,
        max_requests: 256,
        max_bytes: 256 << 20,
    }
}

/// A node that can be stopped and started again.
struct Daemon {
    node: Option<Node>,
    account: AccountId,
    home: Home,
    config: Config,
    keys: Keys,
}

struct World {
    chain: LocalNetwork,
    folder: TempDir,
}

impl World {
    async fn start() -> World {
        let config = LocalNetworkConfig { block_time: Duration::from_millis(100), ..Default::default() };
        let chain = LocalNetwork::start(config).await.expect("local chain");
        World { chain, folder: tempfile::tempdir().expect("directory") }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    async fn node(&self, name: &str, boot: &[&Daemon]) -> Daemon {
        let account: AccountId = format!("{name}.localnet").parse().expect("account");
        let mut config = Config::new(account.clone(), self.chain.network_config());
        config.p2p.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("address")];
        config.api.listen = "127.0.0.1:0".parse().expect("address");
        config.policy.auto_confirm = true;
        config.policy.confirm_deposit = Yocto::near(5);
        config.network.boot_peers = boot.iter().map(|daemon| daemon.address()).collect();
        let keys = Keys { node: generate_node_key(), near: generate_near_key(), near_account: None };
        self.chain.faucet(&account, &keys.near.public_key(), Yocto::near(100)).await.expect("faucet");
        let home = Home::at(self.path(name));
        let mut daemon = Daemon { node: None, account, home, config, keys };
        daemon.start().await;
        daemon.client().register(Yocto::near(20)).await.expect("register");
        daemon
    }

    /// The books of the contract add up to the yocto.
    async fn check_books(&self) {
        let chain = self.chain.connect(self.chain.contract().clone(), None).await.expect("chain");
        let books = chain.books().await.expect("books");
        let parts = [
            books.storage,
            books.deposits,
            books.stakes,
            books.bonds,
            books.escrow,
            books.treasury,
            books.withdrawable,
            books.surplus,
        ];
        assert_eq!(Yocto::checked_sum(parts).expect("sum"), books.balance, "{books:?}");
    }
}

impl Daemon {
    fn node(&self) -> &Node {
        self.node.as_ref().expect("the node runs")
    }

    fn key(&self) -> NodeKey {
        self.node().key()
    }

    fn client(&self) -> Client {
        self.node().client()
    }

    /// As other processes find it.
    fn by_home(&self) -> Client {
        Client::from_home(self.home.data_dir()).expect("a running daemon")
    }

    async fn start(&mut self) {
        let lock = self.home.lock().expect("the home is free");
        let (home, config, keys) = (self.home.clone(), self.config.clone(), self.keys.clone());
        let node = Node::start(NodeSetup { home, lock, config, keys }).await.expect("the node starts");
        self.config.p2p.listen = node.listening();
        self.node = Some(node);
    }

    async fn stop(&mut self) {
        self.node.take().expect("the node runs").shutdown().await.expect("a clean end");
    }

    fn address(&self) -> Multiaddr {
        let node = self.node();
        let peer = self.peer_id();
        node.listening()[0].clone().with_p2p(peer.parse().expect("peer id")).expect("address")
    }

    /// The libp2p peer id of the node's key, as `por status` shows it.
    fn peer_id(&self) -> String {
        let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        bytes.extend_from_slice(&self.key().0);
        bs58::encode(bytes).into_string()
    }

    async fn open_channel(&self, to: &Daemon, deposit: Yocto) -> ChannelId {
        self.open_channel_with(to, deposit, terms()).await
    }

    async fn open_channel_with(&self, to: &Daemon, deposit: Yocto, terms: Terms) -> ChannelId {
        let proposed = self.client().propose_channel(&to.account, deposit, terms).await.expect("propose");
        let channel = proposed.channel.expect("the proposal's id");
        for side in [self, to] {
            eventually("the channel opens", || async {
                let channels = side.node().channels().await.expect("channels");
                let info = channels.into_iter().find(|info| info.channel == channel)?;
                (info.status == ChannelStatus::Open && info.connected).then_some(())
            })
            .await;
        }
        channel
    }
}

async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
    let deadline = tokio::time::Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(tokio::time::Instant::now() < deadline, "{what}: nothing within {PATIENCE:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A store that is served through a daemon until this is dropped.
struct Server {
    store: Store,
    stop: Stop,
    served: Arc<Served>,
    task: tokio::task::JoinHandle<Result<(), Failure>>,
}

impl Server {
    async fn start(store: Store, client: Client, per_byte: u128) -> Server {
        let (stop, served) = (Stop::default(), Arc::new(Served::default()));
        let pricing = Pricing { base: Yocto::ZERO, per_byte: Yocto(per_byte) };
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let serving = serve(client, store.clone(), pricing, stop.clone(), Arc::clone(&served), move || {
            let _ = ready.send(());
        });
        let task = tokio::spawn(serving);
        is_ready.await.expect("the server is ready");
        Server { store, stop, served, task }
    }

    async fn end(self) {
        self.stop.set();
        self.task.await.expect("no panic").expect("a clean end");
    }
}

fn content(size: u64) -> Vec<u8> {
    let mut data = vec![0; size as usize];
    blake3::Hasher::new().update(&size.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

fn want(id: ContentId, from: &[NodeKey]) -> Want {
    Want { address: id.to_string().parse().unwrap(), from: from.to_vec(), range: None, include: vec![] }
}

fn session(client: Client, max: Option<Yocto>) -> Arc<Session<Net>> {
    let limits = Limits { window: MIB, ..Limits::default() };
    Arc::new(Session::new(Arc::new(Net::new(client)), Budget::new(max), limits, Stop::default()))
}

async fn fetch(session: &Arc<Session<Net>>, want: &Want, target: &Path) -> Result<(), Failure> {
    let place = Place { target: target.to_owned(), overwrite: false, share: None };
    let goal = get::locate(session, want).await?;
    get::plan(session, &goal, Some(&place)).await?;
    get::fetch_to(session, &goal, &place).await
}

/// The route is known to the client: announcements and channels have spread.
async fn reachable(client: &Client, id: ContentId) {
    eventually("the content is found", || async {
        let session = session(client.clone(), None);
        match get::locate(&session, &want(id, &[])).await {
            Ok(_) => Some(()),
            Err(failure) => {
                let passing = matches!(
                    failure.exit,
                    Exit::NotFound | Exit::NoRoute | Exit::Unreachable | Exit::Retryable
                );
                assert!(passing, "{failure}");
                None
            }
        }
    })
    .await;
}

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
    let (fetching, target) = (Arc::clone(&running), world.path("out"));
    let get = tokio::spawn(async move { fetch(&fetching, &want(id, &[]), &target).await });
    eventually("some of it is there", || async { (running.meter.get().0 > 4 * MIB).then_some(()) }).await;
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

/// A node that takes downloads on until this is dropped.
async fn take_on(daemon: &Daemon) -> Stop {
    let (stop, net) = (Stop::default(), Net::new(daemon.client()));
    let service = landing::listen(daemon.home.data_dir()).expect("a socket");
    tokio::spawn(service.run(net, stop.clone()));
    stop
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
    let (fetching, to) = (Arc::clone(&paying), target.clone());
    let get = tokio::spawn(async move { fetch(&fetching, &want(id, &[]), &to).await });
    eventually("some of it is there", || async { (paying.meter.get().0 > 2 * MIB).then_some(()) }).await;
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
