//! Nodes with real daemons on a local chain, and file servers beside them.

use std::{
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
    landing,
    net::Daemon as Net,
    proto::Pricing,
    serve::{Served, serve},
    store::Store,
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

pub const PATIENCE: Duration = Duration::from_secs(60);
pub const MIB: u64 = 1 << 20;

pub fn terms() -> Terms {
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
pub struct Daemon {
    pub node: Option<Node>,
    pub account: AccountId,
    pub home: Home,
    pub config: Config,
    pub keys: Keys,
}

pub struct World {
    pub chain: LocalNetwork,
    pub folder: TempDir,
}

impl World {
    pub async fn start() -> World {
        let config = LocalNetworkConfig { block_time: Duration::from_millis(100), ..Default::default() };
        let chain = LocalNetwork::start(config).await.expect("local chain");
        World { chain, folder: tempfile::tempdir().expect("directory") }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub async fn node(&self, name: &str, boot: &[&Daemon]) -> Daemon {
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
    pub async fn check_books(&self) {
        let chain = self.chain.connect(self.chain.contract().clone(), None).await.expect("chain");
        let books = chain.books().await.expect("books");
        let held = books.owed().and_then(|owed| owed.checked_add(books.surplus));
        assert_eq!(held, Ok(books.balance), "{books:?}");
    }
}

impl Daemon {
    pub fn node(&self) -> &Node {
        self.node.as_ref().expect("the node runs")
    }

    pub fn key(&self) -> NodeKey {
        self.node().key()
    }

    pub fn client(&self) -> Client {
        self.node().client()
    }

    /// As other processes find it.
    pub fn by_home(&self) -> Client {
        Client::from_home(self.home.data_dir()).expect("a running daemon")
    }

    pub async fn start(&mut self) {
        let lock = self.home.lock().expect("the home is free");
        let (home, config, keys) = (self.home.clone(), self.config.clone(), self.keys.clone());
        let node = Node::start(NodeSetup { home, lock, config, keys }).await.expect("the node starts");
        self.config.p2p.listen = node.listening();
        self.node = Some(node);
    }

    pub async fn stop(&mut self) {
        self.node.take().expect("the node runs").shutdown().await.expect("a clean end");
    }

    pub fn address(&self) -> Multiaddr {
        let node = self.node();
        let peer = self.peer_id();
        node.listening()[0].clone().with_p2p(peer.parse().expect("peer id")).expect("address")
    }

    /// The libp2p peer id of the node's key, as `por status` shows it.
    pub fn peer_id(&self) -> String {
        let mut bytes = vec![0x00, 0x24, 0x08, 0x01, 0x12, 0x20];
        bytes.extend_from_slice(&self.key().0);
        bs58::encode(bytes).into_string()
    }

    pub async fn open_channel(&self, to: &Daemon, deposit: Yocto) -> ChannelId {
        self.open_channel_with(to, deposit, terms()).await
    }

    pub async fn open_channel_with(&self, to: &Daemon, deposit: Yocto, terms: Terms) -> ChannelId {
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

pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut look: impl FnMut() -> F) -> T {
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
pub struct Server {
    pub store: Store,
    pub stop: Stop,
    pub served: Arc<Served>,
    pub task: tokio::task::JoinHandle<Result<(), Failure>>,
}

impl Server {
    pub async fn start(store: Store, client: Client, per_byte: u128) -> Server {
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

    pub async fn end(self) {
        self.stop.set();
        self.task.await.expect("no panic").expect("a clean end");
    }
}

pub fn content(size: u64) -> Vec<u8> {
    let mut data = vec![0; size as usize];
    blake3::Hasher::new().update(&size.to_le_bytes()).finalize_xof().fill(&mut data);
    data
}

pub fn want(id: ContentId, from: &[NodeKey]) -> Want {
    Want { address: id.to_string().parse().unwrap(), from: from.to_vec(), range: None, include: vec![] }
}

pub fn session(client: Client, max: Option<Yocto>) -> Arc<Session<Net>> {
    let limits = Limits { window: MIB, ..Limits::default() };
    Arc::new(Session::new(Arc::new(Net::new(client)), Budget::new(max), limits, Stop::default()))
}

pub async fn fetch(session: &Arc<Session<Net>>, want: &Want, target: &Path) -> Result<(), Failure> {
    let place = Place { target: target.to_owned(), overwrite: false, share: None };
    let goal = get::locate(session, want).await?;
    get::plan(session, &goal, Some(&place)).await?;
    get::fetch_to(session, &goal, &place).await
}

/// Begins a get and waits until some of it is there.
pub async fn begin(
    session: &Arc<Session<Net>>,
    id: ContentId,
    target: PathBuf,
) -> tokio::task::JoinHandle<Result<(), Failure>> {
    let fetching = Arc::clone(session);
    let get = tokio::spawn(async move { fetch(&fetching, &want(id, &[]), &target).await });
    eventually("some of it is there", || async { (session.meter.get().0 > 2 * MIB).then_some(()) }).await;
    get
}

/// The route is known to the client: announcements and channels have spread.
pub async fn reachable(client: &Client, id: ContentId) {
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

/// A node that takes downloads on until this is dropped.
pub async fn take_on(daemon: &Daemon) -> Stop {
    let (stop, net) = (Stop::default(), Net::new(daemon.client()));
    let service = landing::listen(daemon.home.data_dir()).expect("a socket");
    tokio::spawn(service.run(net, stop.clone()));
    stop
}
