//! Nodes over TCP loopback on a local chain with the real contract.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use por_node::chain::Chain;
use por_node::client::{ChannelInfo, ErrorCode};
use por_node::config::Config;
use por_node::home::Home;
use por_node::keys::{Keys, generate_near_key, generate_node_key};
use por_node::localnet::{LocalNetwork, LocalNetworkConfig};
use por_node::sdk::{AppPricing, Incoming, Multiaddr, Node, NodeSetup, Request, ServingApp};
use por_types::interface::{ChannelStatus, Params};
use por_types::{AccountId, ChannelId, Terms, Yocto};
use tempfile::TempDir;
use tokio::sync::Notify;

/// Longest wait for anything that does not depend on the speed of this machine.
const PATIENCE: Duration = Duration::from_secs(60);

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

/// A local chain and the homes of its nodes.
pub struct World {
    pub chain: LocalNetwork,
    /// For nodes made from here on, see [`por_node::config::PolicyConfig`].
    pub forget_after_s: u64,
    /// For nodes made from here on.
    pub watchtowers: Vec<Multiaddr>,
    /// For nodes made from here on, if they do not ask the chain itself.
    pub rpc_url: Option<String>,
    dir: TempDir,
}

/// A node that can be stopped and started again.
pub struct Daemon {
    pub node: Option<Node>,
    pub account: AccountId,
    home: Home,
    config: Config,
    keys: Keys,
}

impl World {
    /// The node `alice` is the genesis anchor.
    pub async fn start() -> World {
        World::start_with(|_| ()).await
    }

    /// With other parameters of the contract.
    pub async fn start_with(change: impl FnOnce(&mut Params)) -> World {
        let mut config = LocalNetworkConfig {
            block_time: Duration::from_millis(100),
            anchor: Some("alice.localnet".parse().expect("account")),
            ..Default::default()
        };
        change(&mut config.params);
        let chain = LocalNetwork::start(config).await.expect("local chain");
        World {
            chain,
            forget_after_s: 3_600,
            watchtowers: Vec::new(),
            rpc_url: None,
            dir: tempfile::tempdir().expect("directory"),
        }
    }

    /// A registered, running node that knows the addresses of `boot`.
    pub async fn node(&self, name: &str, boot: &[&Daemon]) -> Daemon {
        let account: AccountId = format!("{name}.localnet").parse().expect("account");
        let mut config = Config::new(account.clone(), self.chain.network_config());
        config.p2p.listen = vec!["/ip4/127.0.0.1/tcp/0".parse().expect("address")];
        config.api.listen = "127.0.0.1:0".parse().expect("address");
        config.policy.auto_confirm = true;
        config.policy.confirm_deposit = Yocto::near(5);
        config.policy.forget_after_s = self.forget_after_s;
        config.p2p.watchtowers = self.watchtowers.clone();
        if let Some(url) = &self.rpc_url {
            config.network.rpc_urls = vec![url.clone()];
        }
        config.network.boot_peers = boot.iter().map(|daemon| daemon.address()).collect();
        let keys = Keys { node: generate_node_key(), near: generate_near_key(), near_account: None };
        self.chain.faucet(&account, &keys.near.public_key(), Yocto::near(100)).await.expect("faucet");
        let home = Home::at(self.dir.path().join(name));
        let mut daemon = Daemon { node: None, account, home, config, keys };
        daemon.start().await;
        daemon.client().register(Yocto::near(20)).await.expect("register");
        daemon
    }

    /// A place for homes.
    pub fn homes(&self) -> &std::path::Path {
        self.dir.path()
    }

    pub async fn observer(&self) -> Chain {
        self.chain.connect(self.chain.contract().clone(), None).await.expect("chain")
    }

    /// Every yocto of the contract belongs to somebody.
    pub async fn check_books(&self) {
        let books = self.observer().await.books().await.expect("books");
        let held = books.owed().and_then(|owed| owed.checked_add(books.surplus));
        assert_eq!(held, Ok(books.balance), "{books:?}");
    }
}

impl Daemon {
    pub fn node(&self) -> &Node {
        self.node.as_ref().expect("the node runs")
    }

    pub fn client(&self) -> por_node::client::Client {
        self.node().client()
    }

    pub fn keys(&self) -> &Keys {
        &self.keys
    }

    /// Waits until the contract counts the node as attached, or as not attached.
    pub async fn becomes_attached(&self, attached: bool) {
        let what = format!("{} becomes attached: {attached}", self.account);
        eventually(&what, || async {
            let status = self.client().status().await.expect("status");
            (status.attached == attached).then_some(())
        })
        .await;
    }

    pub fn home(&self) -> &Home {
        &self.home
    }

    pub fn setup(&self) -> NodeSetup {
        let lock = self.home.lock().expect("the home is free");
        NodeSetup { home: self.home.clone(), lock, config: self.config.clone(), keys: self.keys.clone() }
    }

    /// The same settings and keys in another home; not running.
    pub fn elsewhere(&self, home: std::path::PathBuf) -> Daemon {
        Daemon {
            node: None,
            account: self.account.clone(),
            home: Home::at(home),
            config: self.config.clone(),
            keys: self.keys.clone(),
        }
    }

    /// Settings from the next start on.
    pub fn config_mut(&mut self) -> &mut Config {
        &mut self.config
    }

    /// Follows the chain through these endpoints from the next start on.
    pub fn follow_through(&mut self, rpc_urls: Vec<String>) {
        self.config.network.rpc_urls = rpc_urls;
    }

    /// Starts without them from now on.
    pub fn forget_boot_peers(&mut self) {
        self.config.network.boot_peers.clear();
    }

    pub async fn start(&mut self) {
        let node = Node::start(self.setup()).await.expect("the node starts");
        // The same port after a restart, as a real node has.
        self.config.p2p.listen = node.listening();
        self.node = Some(node);
    }

    pub async fn stop(&mut self) {
        self.node.take().expect("the node runs").shutdown().await.expect("a clean end");
    }

    fn address(&self) -> Multiaddr {
        let node = self.node();
        let peer = libp2p_por::peer_id(&node.key()).expect("key");
        node.listening()[0].clone().with_p2p(peer).expect("address")
    }

    /// Opens a channel to a node that confirms by itself.
    pub async fn open_channel(&self, to: &Daemon, deposit: Yocto) -> ChannelId {
        let proposed = self.client().propose_channel(&to.account, deposit, terms()).await.expect("propose");
        let channel = proposed.channel.expect("the proposal's id");
        for side in [self, to] {
            eventually("the channel opens", || async {
                let info = side.channel(channel).await?;
                (info.status == ChannelStatus::Open && info.connected).then_some(())
            })
            .await;
        }
        channel
    }

    pub async fn channel(&self, channel: ChannelId) -> Option<ChannelInfo> {
        let channels = self.node().channels().await.expect("channels");
        channels.into_iter().find(|info| info.channel == channel)
    }

    /// Serves an app that answers with what it was asked, once it is told to, as often.
    pub async fn echo_when(&self, app: &str, told: &Arc<Notify>) -> ServingApp {
        let told = told.clone();
        let serve = move |incoming: Incoming| {
            let told = told.clone();
            async move {
                told.notified().await;
                incoming.body
            }
        };
        self.node().serve(app, AppPricing::default(), 16, serve).await.expect("serve")
    }

    /// Asks `to`, again while the graph does not reach so far yet.
    pub async fn ask(&self, to: &Daemon, app: &str, body: &[u8]) -> por_node::sdk::Response {
        eventually("an answer", || async {
            match self.node().request(request(to, app, body)).await {
                Ok(response) => Some(response),
                Err(error) if matches!(error.code, ErrorCode::NoRoute | ErrorCode::Unreachable) => None,
                Err(error) => panic!("{error}"),
            }
        })
        .await
    }
}

pub fn request(to: &Daemon, app: &str, body: &[u8]) -> Request {
    let asked = Request::new(to.node().key(), app, body.to_vec(), body.len() as u64);
    Request { deadline: Duration::from_secs(30), ..asked }
}

/// Waits until `look` finds something; bounded.
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
