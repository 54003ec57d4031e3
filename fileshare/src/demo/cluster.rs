//! A local chain and a few nodes as processes of their own, on loopback. For the demo and for tests
//! over processes.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use por_node::chain::Chain;
use por_node::client::{ActionResult, ChannelInfo, Client, Status};
use por_node::config::{Config, NetworkConfig, Overrides};
use por_node::exit::CliError;
use por_node::home::Home;
use por_node::keys::{self, Keys, NodeSetup, PasswordSource};
use por_node::localnet::{LocalNetwork, LocalNetworkConfig};
use por_node::sdk::Multiaddr;
use por_types::interface::ChannelStatus;
use por_types::{AccountId, ChannelId, NodeKey, Terms, Yocto};
use rustix::process::{Pid, Signal, kill_process};
use tokio::process::{Child, Command};

use crate::cli::Context;
use crate::exit::{Exit, Failure};

/// Longest wait for anything that the cluster does; it all takes seconds.
const PATIENCE: Duration = Duration::from_secs(120);

/// Name of the command by which the binary runs a node, not shown to users.
pub const NODE_COMMAND: &str = "__node";

/// One node: its home, its daemon, and the server that runs beside it.
#[derive(Debug)]
pub struct Member {
    pub name: String,
    pub account: AccountId,
    pub key: NodeKey,
    pub home: PathBuf,
    pub client: Client,
    pub process: Option<Child>,
}

/// The account of a member.
fn account(name: &str) -> Result<AccountId, Failure> {
    format!("{name}.localnet")
        .parse()
        .map_err(|error| Failure::new(Exit::Usage, format!("{name}: {error}"), "use lowercase letters"))
}

/// The chain and its nodes. Dropping it ends the processes.
#[derive(Debug)]
pub struct Cluster {
    exe: PathBuf,
    dir: PathBuf,
    local: LocalNetwork,
    pub members: Vec<Member>,
    /// Nodes that start from now on have files in them (`fileshare node`) at this price per GiB.
    pub files: Option<Yocto>,
}

impl Cluster {
    /// Starts a chain with the contract. `exe` is a binary with the command line of `fileshare`;
    /// the node named `first` is the one from which the others become attached.
    pub async fn start(exe: PathBuf, dir: &Path, first: &str) -> Result<Cluster, Failure> {
        let config = LocalNetworkConfig { anchor: Some(account(first)?), ..LocalNetworkConfig::default() };
        let local = LocalNetwork::start(config).await?;
        Ok(Cluster { exe, dir: dir.to_owned(), local, members: Vec::new(), files: None })
    }

    pub fn network(&self) -> NetworkConfig {
        self.local.network_config()
    }

    /// Views of the contract, without a key.
    pub async fn chain(&self) -> Result<Chain, Failure> {
        let observer = self.local.contract().clone();
        Ok(self.local.connect(observer, None).await.map_err(CliError::from)?)
    }

    pub fn member(&self, name: &str) -> &Member {
        let index = self.index(name);
        &self.members[index]
    }

    fn index(&self, name: &str) -> usize {
        // A wrong name is a mistake in the program that made the cluster.
        self.members.iter().position(|member| member.name == name).expect("a member of this cluster")
    }

    /// Makes a node with an account that holds `funds`, and starts its daemon.
    pub async fn add(&mut self, name: &str, funds: Yocto) -> Result<(), Failure> {
        let mut boot = Vec::new();
        for member in &self.members {
            boot.extend(member.addresses().await?);
        }
        self.add_over(name, funds, boot, true).await
    }

    /// The same for a node that knows the others by the addresses in `boot`, and that the others find
    /// by themselves only if it is to `announce` its own.
    pub async fn add_over(
        &mut self,
        name: &str,
        funds: Yocto,
        boot: Vec<Multiaddr>,
        announce: bool,
    ) -> Result<(), Failure> {
        let home = Home::at(self.dir.join(name));
        home.create()?;
        let account = account(name)?;
        let (node, near) = (keys::generate_node_key(), keys::generate_near_key());
        let keys = Keys { node, near, near_account: Some(account.clone()) };
        keys.save(&home, None)?;
        let mut network = self.network();
        network.boot_peers.extend(boot);
        let mut config = Config::new(account.clone(), network);
        config.p2p.announce_listen = announce;
        let any = "/ip4/127.0.0.1/tcp/0".parse();
        config.p2p.listen = vec![any.map_err(|_| Failure::new(Exit::Other, "no such address", ""))?];
        config.api.listen = ([127, 0, 0, 1], 0).into();
        config.save(&home)?;
        self.local.faucet(&account, &keys.near.public_key(), funds).await?;
        let mut member = Member {
            name: name.to_owned(),
            account,
            key: keys.node.public(),
            home: home.data_dir().to_owned(),
            client: Client::new(([127, 0, 0, 1], 1).into(), String::new()),
            process: None,
        };
        member.run(&self.exe, self.files).await?;
        // A node that is started again is found where it was.
        config.p2p.listen = bound(&member.status().await?)?;
        config.save(&home)?;
        self.members.push(member);
        Ok(())
    }

    /// Opens a channel between two members and waits until both can use it.
    pub async fn open(&self, a: &str, b: &str, deposit: Yocto, terms: &Terms) -> Result<ChannelId, Failure> {
        let (a, b) = (self.member(a), self.member(b));
        let proposed = a.client.propose_channel(&b.account, deposit, terms.clone()).await?;
        let channel = named(&proposed)?;
        b.client.confirm_channel(channel, deposit, Some(terms.clone())).await?;
        for side in [a, b] {
            side.wait_channel(channel, |info| info.status == ChannelStatus::Open && info.connected).await?;
        }
        Ok(channel)
    }

    /// Waits until all members know the same, whole graph.
    pub async fn settle_graph(&self, channels: usize) -> Result<(), Failure> {
        for member in &self.members {
            let what = format!("{}: the graph", member.name);
            until(&what, || async {
                let status = member.client.status().await?;
                Ok((status.graph_channels as usize >= channels).then_some(()))
            })
            .await?;
        }
        Ok(())
    }

    /// Who has this key.
    pub fn name_of(&self, key: &NodeKey) -> Option<&str> {
        self.members.iter().find(|member| member.key == *key).map(|member| member.name.as_str())
    }

    /// Stops a daemon's process where it is; its connections stay.
    pub fn freeze(&self, name: &str) -> Result<(), Failure> {
        self.signal(name, Signal::STOP)
    }

    /// Lets a frozen daemon go on.
    pub fn thaw(&self, name: &str) -> Result<(), Failure> {
        self.signal(name, Signal::CONT)
    }

    fn signal(&self, name: &str, signal: Signal) -> Result<(), Failure> {
        let process = self.member(name).process.as_ref().and_then(Child::id);
        let pid = process.and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw);
        let pid = pid.ok_or_else(|| Failure::new(Exit::Other, format!("{name} does not run"), ""))?;
        kill_process(pid, signal).map_err(|error| Failure::io("a signal to a node", &error.into()))
    }

    /// Kills a daemon as a crash would.
    pub async fn kill(&mut self, name: &str) -> Result<(), Failure> {
        let index = self.index(name);
        if let Some(mut process) = self.members[index].process.take() {
            process.kill().await.map_err(|error| Failure::io("stopping a node", &error))?;
        }
        Ok(())
    }

    /// Starts a killed daemon again.
    pub async fn revive(&mut self, name: &str) -> Result<(), Failure> {
        let index = self.index(name);
        let exe = self.exe.clone();
        let files = self.files;
        self.members[index].run(&exe, files).await
    }

    /// A command line of this binary for a member's daemon.
    pub fn command(&self, name: &str) -> Command {
        let member = self.member(name);
        let mut command = clean(&self.exe);
        command.arg("--home").arg(&member.home);
        command
    }

    /// Ends all processes and the chain.
    pub async fn stop(mut self) -> Result<(), Failure> {
        for member in &mut self.members {
            if let Some(mut process) = member.process.take() {
                let _ = process.kill().await;
            }
        }
        Ok(self.local.shutdown().await?)
    }
}

impl Member {
    async fn run(&mut self, exe: &Path, files: Option<Yocto>) -> Result<(), Failure> {
        let log = self.home.join("log");
        let failed = |error: &std::io::Error| Failure::io("starting a node", error);
        let file = File::options().create(true).append(true).open(&log).map_err(|error| failed(&error))?;
        let errors = file.try_clone().map_err(|error| failed(&error))?;
        let _ = std::fs::remove_file(self.home.join(por_node::client::ADDR_FILE));
        let mut command = clean(exe);
        command.arg("--home").arg(&self.home).arg(NODE_COMMAND);
        if let Some(price) = files {
            command.arg("--price").arg(price.to_near_string());
        }
        // Stays open as long as this process lives.
        command.stdin(Stdio::piped()).stdout(file).stderr(errors);
        let mut process = command.spawn().map_err(|error| failed(&error))?;
        let (name, home) = (self.name.clone(), self.home.clone());
        let what = format!("{name}: its daemon");
        let started = until(&what, || {
            let ended = process.try_wait();
            let home = &home;
            async move {
                if let Ok(Some(status)) = ended {
                    return Err(died(home, status));
                }
                let Ok(client) = Client::from_home(home) else { return Ok(None) };
                Ok(client.status().await.is_ok().then_some(client))
            }
        });
        self.client = started.await?;
        self.process = Some(process);
        Ok(())
    }

    pub async fn status(&self) -> Result<Status, Failure> {
        Ok(self.client.status().await?)
    }

    /// Addresses with the peer id, for others to dial.
    pub async fn addresses(&self) -> Result<Vec<Multiaddr>, Failure> {
        let status = self.status().await?;
        let whole = status.listening.iter().map(|address| {
            let text = if address.contains("/p2p/") {
                address.clone()
            } else {
                format!("{address}/p2p/{}", status.peer_id)
            };
            text.parse().map_err(|_| Failure::new(Exit::Other, format!("not an address: {text}"), ""))
        });
        whole.collect()
    }

    pub async fn channel(&self, channel: ChannelId) -> Result<Option<ChannelInfo>, Failure> {
        Ok(self.client.channels().await?.into_iter().find(|info| info.channel == channel))
    }

    pub async fn wait_channel(
        &self,
        channel: ChannelId,
        wanted: impl Fn(&ChannelInfo) -> bool,
    ) -> Result<ChannelInfo, Failure> {
        until(&format!("{}: channel {channel}", self.name), || async {
            Ok(self.channel(channel).await?.filter(|info| wanted(info)))
        })
        .await
    }
}

/// The daemon of a member, in this process, until it is told to end or its parent is gone.
pub(crate) async fn run_node(context: &Context, price: Option<Yocto>) -> Result<(), Failure> {
    let parent_gone = crate::cli::parent_gone();
    let password = PasswordSource::default();
    if let Some(price) = price {
        let settings = Overrides::default();
        return crate::cli::run_node(context, &password, settings, price, parent_gone).await;
    }
    let setup = NodeSetup::load(Home::at(&context.home), Overrides::default(), &password)?;
    Ok(por_node::runtime::run(setup, parent_gone).await?)
}

/// Addresses that a daemon is bound to, without its peer id.
fn bound(status: &Status) -> Result<Vec<Multiaddr>, Failure> {
    let plain = status.listening.iter().map(|address| {
        let text = address.split("/p2p/").next().unwrap_or_default();
        text.parse().map_err(|_| Failure::new(Exit::Other, format!("not an address: {text}"), ""))
    });
    plain.collect()
}

/// The channel that an action made.
fn named(result: &ActionResult) -> Result<ChannelId, Failure> {
    result
        .channel
        .ok_or_else(|| Failure::new(Exit::Other, "the contract named no channel", "report this as a defect"))
}

/// A command with an environment that has no settings of the user's own nodes.
fn clean(exe: &Path) -> Command {
    let mut command = Command::new(exe);
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("POR_") {
            command.env_remove(name);
        }
    }
    command.kill_on_drop(true);
    command
}

fn died(home: &Path, status: std::process::ExitStatus) -> Failure {
    let log = std::fs::read_to_string(home.join("log")).unwrap_or_default();
    let lines = || log.lines().rev().filter(|line| !line.trim().is_empty());
    let said = lines().find_map(|line| line.strip_prefix("fileshare: "));
    let last = said.or_else(|| lines().next()).unwrap_or("its log is empty").to_owned();
    let exit = Exit::ALL.into_iter().find(|exit| Some(i32::from(exit.code())) == status.code());
    Failure::new(
        exit.filter(|exit| *exit != Exit::Ok).unwrap_or(Exit::Other),
        format!("a node ended with {status}: {last}"),
        format!("run the demo with --keep DIR, and read {}", home.join("log").display()),
    )
}

/// Asks again until there is an answer, for at most two minutes.
pub async fn until<T, F>(what: &str, mut ask: impl FnMut() -> F) -> Result<T, Failure>
where
    F: Future<Output = Result<Option<T>, Failure>>,
{
    let wait = async {
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(25)).await;
        }
    };
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(result) => result,
        Err(_) => Err(Failure::new(
            Exit::Deadline,
            format!("{what} did not come within two minutes"),
            "read the logs of the nodes",
        )),
    }
}
