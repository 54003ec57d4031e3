//! Verbs and flags.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Parser, Subcommand};
use libp2p::{Multiaddr, PeerId};
use por_types::{AccountId, ChannelId, NodeKey, Terms, Yocto};

use super::contract::ContractAction;
use crate::config::{DEFAULT_LOCALNET_PORT, Overrides};

/// Proof of Response node.
#[derive(Debug, Parser)]
#[command(name = "por", version, max_term_width = 100)]
pub struct Args {
    /// Directory with everything of this node [env: POR_HOME; default: XDG directories].
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// Print JSON, errors too.
    #[arg(long, global = true)]
    pub json: bool,
    /// What to log, e.g. `info` or `por_node=debug` (standard error).
    #[arg(long, global = true, value_name = "FILTER", env = "POR_LOG")]
    pub log: Option<String>,
    /// File whose first line is the password of the keys [else POR_PASSWORD, else asked for].
    #[arg(long, global = true, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make settings and keys.
    Init(Box<InitArgs>),
    /// Run the daemon.
    Run(RunArgs),
    /// Register the node's key with the contract.
    Register {
        /// Stake to start with, above the storage deposit.
        #[arg(long, value_parser = amount, default_value = "0")]
        stake: Yocto,
    },
    /// Add to the node's stake.
    Stake {
        #[arg(value_parser = amount)]
        amount: Yocto,
    },
    /// Withdraw stake; it is free after the reimbursement window.
    Unstake {
        #[arg(value_parser = amount)]
        amount: Yocto,
    },
    /// Pay withdrawable money out to the node's account.
    Withdraw {
        /// Everything if left out.
        #[arg(value_parser = amount)]
        amount: Option<Yocto>,
    },
    /// What the daemon is doing.
    Status,
    /// Known and connected peers.
    Peers,
    /// Late payments, severed edges and proofs since the daemon's start, the latest 1024.
    News(NewsArgs),
    /// Channels with other nodes.
    Channel {
        #[command(subcommand)]
        action: ChannelAction,
    },
    /// Quote routes to a node.
    Route(RouteArgs),
    /// Send a request and print its response.
    Request(RequestArgs),
    /// Run a watchtower, which guards channels of nodes that are away; or get states back from one.
    Watch(WatchArgs),
    /// Deploy, govern and check the contract.
    Contract {
        #[command(subcommand)]
        action: ContractAction,
    },
    /// Run a local chain with the contract.
    Localnet(LocalnetArgs),
}

#[derive(Debug, clap::Args)]
pub struct InitArgs {
    /// `localnet`, `testnet`, or the path of a network file.
    #[arg(long)]
    pub network: String,
    /// Account of the contract; needed unless the network file names it.
    #[arg(long)]
    pub contract: Option<AccountId>,
    /// The node's NEAR account [default: the implicit account of its key].
    #[arg(long)]
    pub account: Option<AccountId>,
    /// Credentials that near-cli wrote (~/.near-credentials/NETWORK/ACCOUNT.json).
    #[arg(long, value_name = "FILE")]
    pub import_near: Option<PathBuf>,
    /// Encrypt the keys with a password.
    #[arg(long)]
    pub encrypt: bool,
    /// Money from the faucet of a local chain; 0 for none.
    #[arg(long, value_parser = amount, default_value = "100 NEAR")]
    pub faucet: Yocto,
    #[command(flatten)]
    pub node: NodeArgs,
}

/// Settings that `init` writes and `run` overrides.
#[derive(Debug, Default, clap::Args)]
pub struct NodeArgs {
    /// Address for other nodes, e.g. /ip4/0.0.0.0/tcp/7741; may be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    pub listen: Vec<Multiaddr>,
    /// Address to announce to others; may be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    pub external: Vec<Multiaddr>,
    /// Loopback address of the local API, e.g. 127.0.0.1:7740.
    #[arg(long, value_name = "ADDR")]
    pub api: Option<SocketAddr>,
    /// RPC endpoint; may be repeated.
    #[arg(long, value_name = "URL")]
    pub rpc: Vec<String>,
    /// Node to learn addresses from; may be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    pub boot: Vec<Multiaddr>,
    /// Watchtower that gets the latest states, /ip4/.../tcp/.../p2p/PEER; may be repeated.
    #[arg(long, value_name = "MULTIADDR")]
    pub watchtower: Vec<Multiaddr>,
    /// Confirm channels that others propose.
    #[arg(long)]
    pub auto_confirm: bool,
}

impl NodeArgs {
    pub fn overrides(self) -> Overrides {
        Overrides {
            account: None,
            contract: None,
            rpc_urls: self.rpc,
            boot_peers: self.boot,
            listen: self.listen,
            external: self.external,
            watchtowers: self.watchtower,
            api: self.api,
            auto_confirm: self.auto_confirm.then_some(true),
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct RunArgs {
    #[command(flatten)]
    pub node: NodeArgs,
}

#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct WatchArgs {
    #[command(subcommand)]
    pub action: Option<WatchAction>,
    #[command(flatten)]
    pub node: NodeArgs,
}

#[derive(Debug, Subcommand)]
pub enum WatchAction {
    /// Get the latest states of this node's channels back, after its disk was lost. Keys and settings
    /// must be there, the daemon must not run.
    Restore {
        /// Tower to ask, /ip4/.../tcp/.../p2p/PEER; may be repeated [default: p2p.watchtowers].
        #[arg(long, value_name = "MULTIADDR")]
        from: Vec<Multiaddr>,
    },
}

#[derive(Debug, Subcommand)]
pub enum ChannelAction {
    /// Propose a channel to another node's account.
    Propose {
        account: AccountId,
        /// Own deposit: what can be spent over the channel.
        #[arg(long, value_parser = amount)]
        deposit: Yocto,
        #[command(flatten)]
        terms: TermsArgs,
    },
    /// Withdraw an own proposal.
    Cancel { channel: ChannelId },
    /// Confirm a proposal of another node.
    Confirm {
        channel: ChannelId,
        /// Own deposit: what lateness is paid from, and what can be spent over the channel [default: 0.01 NEAR].
        #[arg(long, value_parser = amount)]
        deposit: Option<Yocto>,
    },
    /// This node's channels.
    List,
    /// Add to the own deposit.
    TopUp {
        channel: ChannelId,
        #[arg(value_parser = amount)]
        amount: Yocto,
    },
    /// Close together with the other side.
    Close { channel: ChannelId },
    /// End a channel without the other side, at the price of both bonds.
    ///
    /// For a neighbour that is gone for good and confirms no close. Deposits are paid out when the time in which
    /// it can show payments is over.
    Sever {
        channel: ChannelId,
        /// Lose the bond.
        #[arg(long)]
        yes: bool,
    },
}

/// What both ends promise.
#[derive(Debug, clap::Args)]
pub struct TermsArgs {
    /// Promised round trip, milliseconds.
    #[arg(long, default_value_t = 200)]
    pub rtt_ms: u32,
    /// Promised throughput, bytes per second.
    #[arg(long, default_value_t = 10_000_000)]
    pub bytes_per_s: u64,
    /// Price of each message.
    #[arg(long, value_parser = amount, default_value = "0.000001 NEAR")]
    pub base_fee: Yocto,
    /// Price of each byte of request and of response limit.
    #[arg(long, value_parser = amount, default_value = "100000000000")]
    pub byte_fee: Yocto,
    /// Interval of syncs while requests are outstanding, milliseconds.
    #[arg(long, default_value_t = 1000)]
    pub heartbeat_ms: u32,
    /// How late a sync may be, milliseconds; a node that is away for longer with requests in hand
    /// is severed.
    #[arg(long, default_value_t = 15_000)]
    pub grace_ms: u32,
    /// Most unanswered requests per direction.
    #[arg(long, default_value_t = 256)]
    pub max_requests: u32,
    /// Most bytes of unanswered requests per direction.
    #[arg(long, default_value_t = 64 << 20)]
    pub max_bytes: u64,
}

impl From<TermsArgs> for Terms {
    fn from(args: TermsArgs) -> Terms {
        Terms {
            rtt_ms: args.rtt_ms,
            bytes_per_s: args.bytes_per_s,
            base_fee: args.base_fee,
            byte_fee: args.byte_fee,
            heartbeat_ms: args.heartbeat_ms,
            grace_ms: args.grace_ms,
            max_requests: args.max_requests,
            max_bytes: args.max_bytes,
        }
    }
}

#[derive(Debug, clap::Args)]
pub struct RouteArgs {
    /// Node key (ed25519:...) or peer id.
    #[arg(value_parser = node_key)]
    pub destination: NodeKey,
    /// Bytes of the request's body.
    #[arg(long, default_value_t = 0)]
    pub body_len: u64,
    /// Most bytes of the response.
    #[arg(long, default_value_t = 65_536)]
    pub response_limit: u64,
    /// What the app asks.
    #[arg(long, value_parser = amount, default_value = "0")]
    pub server_price: Yocto,
    /// Longest time to the response, milliseconds.
    #[arg(long)]
    pub max_latency_ms: Option<u64>,
    /// Routes wanted.
    #[arg(long, default_value_t = 1)]
    pub alternatives: u32,
}

#[derive(Debug, clap::Args)]
pub struct RequestArgs {
    /// Node key (ed25519:...) or peer id.
    #[arg(value_parser = node_key)]
    pub destination: NodeKey,
    /// App at the destination.
    pub app: String,
    /// File with the body, `-` for standard input; no body if left out.
    pub body: Option<PathBuf>,
    /// Where the response goes [default: standard output].
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Most bytes of the response; each is paid for.
    #[arg(long, default_value_t = 65_536)]
    pub response_limit: u64,
    /// What the app asks.
    #[arg(long, value_parser = amount, default_value = "0")]
    pub server_price: Yocto,
    /// Most that edges and app may cost together.
    #[arg(long, value_parser = amount)]
    pub max_price: Option<Yocto>,
    /// Time for all attempts together, e.g. `30s`.
    #[arg(long, value_parser = duration, default_value = "60s")]
    pub deadline: Duration,
    /// Name under which `por news` tells the request's id as soon as it is sent.
    #[arg(long)]
    pub label: Option<String>,
}

#[derive(Debug, clap::Args)]
pub struct NewsArgs {
    /// Only from this number on.
    #[arg(long, default_value_t = 0)]
    pub since: u64,
    /// Wait for more until interrupted; with `--json` one line each.
    #[arg(long)]
    pub follow: bool,
}

#[derive(Debug, clap::Args)]
pub struct LocalnetArgs {
    /// Port of the RPC on 127.0.0.1; 0 for any free one.
    #[arg(long, default_value_t = DEFAULT_LOCALNET_PORT)]
    pub port: u16,
    /// Directory to keep the chain in [default: memory].
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Account of the contract.
    #[arg(long, default_value = "por.localnet")]
    pub contract: AccountId,
    /// Account whose node is the genesis anchor: the first one, from which others become attached.
    #[arg(long)]
    pub anchor: Option<AccountId>,
    /// Where to write the network file for `por init --network FILE`.
    #[arg(long, value_name = "FILE")]
    pub network_file: Option<PathBuf>,
    /// Time between blocks while nothing happens.
    #[arg(long, value_parser = duration, default_value = "600ms")]
    pub block_time: Duration,
}

pub(super) fn amount(text: &str) -> Result<Yocto, String> {
    Yocto::parse_human(text).map_err(|error| error.to_string())
}

pub(super) fn duration(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|error| error.to_string())
}

/// A node key, or the libp2p peer id that contains it.
fn node_key(text: &str) -> Result<NodeKey, String> {
    if text.starts_with("ed25519:") {
        return text.parse().map_err(|error: por_types::IdError| error.to_string());
    }
    let peer: PeerId = text.parse().map_err(|_| "write a node key (ed25519:...) or a peer id".to_owned())?;
    // The identity of a small key is the key itself, in protobuf.
    let key = libp2p::identity::PublicKey::try_decode_protobuf(peer.as_ref().digest());
    let key = key.ok().and_then(|key| key.try_into_ed25519().ok());
    key.map(|key| NodeKey(key.to_bytes())).ok_or_else(|| "this peer id is not that of a node".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }

    #[test]
    fn a_node_is_named_by_its_key_or_peer_id() {
        let pair = libp2p::identity::Keypair::generate_ed25519();
        let key = pair.public().try_into_ed25519().expect("ed25519").to_bytes();
        let peer = pair.public().to_peer_id();
        assert_eq!(node_key(&peer.to_string()), Ok(NodeKey(key)));
        assert_eq!(node_key(&NodeKey(key).to_string()), Ok(NodeKey(key)));
        assert!(node_key("alice").is_err());
        assert!(node_key("ed25519:0").is_err());
    }
}
