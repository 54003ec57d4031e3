//! Settings of a node: defaults, then `config.toml`, then `POR_*` variables, then flags.
//!
//! ```toml
//! account = "alice.testnet"
//!
//! [network]                       # the same table is a network FILE of `por init`
//! chain_id = "testnet"
//! contract = "por.alice.testnet"
//! rpc_urls = ["https://rpc.testnet.near.org"]
//! boot_peers = ["/dns4/example.org/tcp/7741/p2p/12D3KooW..."]
//!
//! [p2p]
//! listen = ["/ip4/0.0.0.0/tcp/7741"]
//! external = []                   # addresses to announce besides the observed ones
//! watchtowers = []                # get the latest states: /ip4/.../tcp/.../p2p/PEER
//!
//! [api]
//! listen = "127.0.0.1:7740"
//!
//! [policy]
//! auto_confirm = false            # confirm proposals of others without asking
//! confirm_accounts = []           # only from these; empty: from anyone
//! confirm_deposit = "0.01 NEAR"   # own deposit in such a channel, e.g. "0.5 NEAR"
//! late_top_up = "0.1 NEAR"        # most to add to deposits in 24 h, so that lateness can be passed on
//! forget_after_s = 3600           # how long a channel that is over stays on chain
//! checks = "own"                  # continue stalled partition checks: "own", "any" or "none"
//! pursuit_budget = "0"            # most to spend on asking a severed, silent neighbour over other routes
//! pursuit_requests = 16           # most such requests for one severed channel
//! pursuit_window_s = 3600         # a pursuit ends after this time; the budget is for as long
//! ```
//!
//! A variable is named after table and key: `POR_ACCOUNT`, `POR_NETWORK_RPC_URLS='["http://..."]'`,
//! `POR_P2P_LISTEN`, `POR_API_LISTEN`, `POR_POLICY_AUTO_CONFIRM`.

mod network;

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use figment::Figment;
use figment::providers::{Env, Format as _, Serialized, Toml};
use libp2p::Multiaddr;
use por_types::{AccountId, Network, Yocto};
use serde::{Deserialize, Serialize};

use crate::exit::{CliError, ExitCode};
use crate::home::Home;

pub use network::{LOCALNET, NetworkConfig};

/// Port for other nodes.
pub const DEFAULT_P2P_PORT: u16 = 7741;
/// Port of the local API.
pub const DEFAULT_API_PORT: u16 = 7740;
/// Port of the local chain's RPC.
pub const DEFAULT_LOCALNET_PORT: u16 = 3030;

/// First parts of variable names that are settings; other `POR_*` variables are left alone.
const TABLES: [&str; 4] = ["network", "p2p", "api", "policy"];

/// Longest file of settings, bytes.
const MAX_FILE: u64 = 1 << 20;
/// Most characters of what is wrong with one, which may quote a line of it.
const LONGEST_ERROR: usize = 500;

/// Settings of a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The NEAR account that owns the node.
    pub account: AccountId,
    pub network: NetworkConfig,
    #[serde(default)]
    pub p2p: P2pConfig,
    #[serde(default)]
    pub api: ApiConfig,
    #[serde(default)]
    pub policy: PolicyConfig,
}

/// How other nodes reach this one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct P2pConfig {
    /// Addresses to listen on; port 0 takes any free one.
    pub listen: Vec<Multiaddr>,
    /// Addresses to announce besides those that it listens on.
    pub external: Vec<Multiaddr>,
    /// Whether the addresses that it listens on are announced too. Set it to false where others cannot
    /// reach them: behind a forwarded port, a container, a tunnel.
    pub announce_listen: bool,
    /// Towers that get this node's latest states, see [`crate::watch`]; with `/p2p/PEER`.
    pub watchtowers: Vec<Multiaddr>,
}

impl Default for P2pConfig {
    fn default() -> Self {
        let any = Multiaddr::from(std::net::Ipv4Addr::UNSPECIFIED);
        P2pConfig {
            listen: vec![any.with(libp2p::multiaddr::Protocol::Tcp(DEFAULT_P2P_PORT))],
            external: Vec::new(),
            announce_listen: true,
            watchtowers: Vec::new(),
        }
    }
}

/// Where local clients reach the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ApiConfig {
    /// A loopback address; port 0 takes any free one.
    pub listen: SocketAddr,
}

impl Default for ApiConfig {
    fn default() -> Self {
        ApiConfig { listen: SocketAddr::from(([127, 0, 0, 1], DEFAULT_API_PORT)) }
    }
}

/// Own deposit in a channel that another proposes, unless the operator wants it otherwise: enough to pay for the
/// lateness of many requests at once until who causes it is found out.
pub const CONFIRM_DEPOSIT: Yocto = Yocto::millinear(10);

/// Most that is added to deposits in a day for the sake of lateness, unless the operator wants it otherwise: a tenth
/// of it pays for one late request for hours.
pub const LATE_TOP_UP: Yocto = Yocto::millinear(100);

/// What the daemon decides by itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PolicyConfig {
    /// Confirm channels that others propose.
    pub auto_confirm: bool,
    /// Only from these accounts; empty: from anyone.
    pub confirm_accounts: Vec<AccountId>,
    /// Own deposit in such a channel.
    #[serde(with = "human_amount")]
    pub confirm_deposit: Yocto,
    /// Most that is added within 24 h to own balances that late payments are about to use up while the next nodes
    /// pay for that lateness; 0 is off. Without, the edges to those have to be severed (protocol section 4).
    #[serde(with = "human_amount")]
    pub late_top_up: Yocto,
    /// How long a channel that is over stays on chain before this node, if it proposed it, takes
    /// the storage deposit back; seconds.
    pub forget_after_s: u64,
    /// Which partition checks to continue when nobody else does.
    pub checks: ChecksPolicy,
    /// Most to spend within a window on asking silent neighbours, whose channels this node has
    /// severed, over other routes (protocol section 6); 0 is off.
    #[serde(with = "human_amount")]
    pub pursuit_budget: Yocto,
    /// Most such requests for one severed channel.
    pub pursuit_requests: u32,
    /// After this long a pursuit ends; seconds.
    pub pursuit_window_s: u64,
}

impl Default for PolicyConfig {
    fn default() -> Self {
        PolicyConfig {
            auto_confirm: false,
            confirm_accounts: Vec::new(),
            confirm_deposit: CONFIRM_DEPOSIT,
            late_top_up: LATE_TOP_UP,
            forget_after_s: 3_600,
            checks: ChecksPolicy::Own,
            pursuit_budget: Yocto::ZERO,
            pursuit_requests: 16,
            pursuit_window_s: 3_600,
        }
    }
}

impl PolicyConfig {
    pub(crate) fn forget_after(&self) -> Duration {
        Duration::from_secs(self.forget_after_s)
    }

    /// What the protocol decides by itself.
    pub(crate) fn core(&self) -> por_core::Policy {
        let pursuit = por_core::Pursue {
            budget: self.pursuit_budget,
            max_requests: self.pursuit_requests,
            window_ms: self.pursuit_window_s.saturating_mul(1_000),
        };
        let pursuit = Some(pursuit).filter(|pursuit| !pursuit.budget.is_zero());
        por_core::Policy { pursuit, ..por_core::Policy::default() }
    }
}

/// Which pending partition checks a node continues (protocol section 7).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChecksPolicy {
    None,
    /// Those that its own closes and pings wait for.
    #[default]
    Own,
    /// All: who continues a check is paid for it.
    Any,
}

/// Values given on the command line; they win over file and environment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    pub account: Option<AccountId>,
    pub contract: Option<AccountId>,
    pub rpc_urls: Vec<String>,
    pub boot_peers: Vec<Multiaddr>,
    pub listen: Vec<Multiaddr>,
    pub external: Vec<Multiaddr>,
    pub watchtowers: Vec<Multiaddr>,
    pub api: Option<SocketAddr>,
    pub auto_confirm: Option<bool>,
}

impl Overrides {
    pub(crate) fn apply(self, config: &mut Config) {
        fn put<T>(slot: &mut T, value: Option<T>) {
            if let Some(value) = value {
                *slot = value;
            }
        }
        fn put_list<T>(slot: &mut Vec<T>, value: Vec<T>) {
            if !value.is_empty() {
                *slot = value;
            }
        }
        put(&mut config.account, self.account);
        put(&mut config.network.contract, self.contract);
        put_list(&mut config.network.rpc_urls, self.rpc_urls);
        put_list(&mut config.network.boot_peers, self.boot_peers);
        put_list(&mut config.p2p.listen, self.listen);
        put_list(&mut config.p2p.external, self.external);
        put_list(&mut config.p2p.watchtowers, self.watchtowers);
        put(&mut config.api.listen, self.api);
        put(&mut config.policy.auto_confirm, self.auto_confirm);
    }
}

impl Config {
    /// Settings for `account` on `network`, the rest as by default.
    pub fn new(account: AccountId, network: NetworkConfig) -> Config {
        Config {
            account,
            network,
            p2p: P2pConfig::default(),
            api: ApiConfig::default(),
            policy: PolicyConfig::default(),
        }
    }

    /// All layers for a home.
    ///
    /// Errors: [`ExitCode::NotFound`] if `por init` was not run there, [`ExitCode::Usage`] if a
    /// value is wrong.
    pub fn load(home: &Home, overrides: Overrides) -> Result<Config, CliError> {
        let path = home.config_file();
        if !path.exists() {
            return Err(CliError::new(
                ExitCode::NotFound,
                format!("there is no {}", path.display()),
                "run `por init` first, or name the right --home",
            ));
        }
        let env = Env::prefixed("POR_").filter_map(|key| env_key(key.as_str()).map(Into::into));
        Config::from_layers(&path, env, overrides)
    }

    fn from_layers(path: &Path, env: Env, overrides: Overrides) -> Result<Config, CliError> {
        let wrong = |error: String| {
            let what = error.replace('\n', "; ");
            let what = match what.char_indices().nth(LONGEST_ERROR) {
                Some((end, _)) => format!("{} ...", &what[..end]),
                None => what,
            };
            let what = format!("settings of {}: {what}", path.display());
            CliError::usage(what, "correct the file or the variable named")
        };
        check_file(path).map_err(|error| wrong(error.to_string()))?;
        let figment = Figment::new().merge(Toml::file_exact(path)).merge(env);
        let mut config: Config = figment.extract().map_err(|error| wrong(error.to_string()))?;
        overrides.apply(&mut config);
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), CliError> {
        self.network.check()?;
        if !self.api.listen.ip().is_loopback() {
            return Err(CliError::usage(
                format!("the local API must not listen on {}", self.api.listen),
                "use a loopback address such as 127.0.0.1:7740",
            ));
        }
        if self.p2p.listen.is_empty() {
            return Err(CliError::usage("p2p.listen is empty", "name at least one address to listen on"));
        }
        if let Some(addr) = self.p2p.listen.iter().find(|addr| !can_listen(addr)) {
            return Err(CliError::usage(
                format!("{addr} is no address to listen on"),
                "write it like /ip4/0.0.0.0/tcp/7741; names are for `external`",
            ));
        }
        if let Some(tower) =
            self.p2p.watchtowers.iter().find(|tower| crate::watch::wire::peer_of(tower).is_none())
        {
            return Err(CliError::usage(
                format!("watchtower {tower} names no peer"),
                "write it as `por watch` shows it, /ip4/.../tcp/.../p2p/PEER",
            ));
        }
        Ok(())
    }

    /// Chain and contract that everything signed is bound to.
    pub fn network(&self) -> Network {
        self.network.network()
    }

    /// The text of `config.toml`.
    pub fn to_toml(&self) -> Result<String, CliError> {
        toml::to_string(self).map_err(|error| {
            CliError::new(ExitCode::Other, format!("settings cannot be written: {error}"), "")
        })
    }

    /// Writes `config.toml`.
    pub fn save(&self, home: &Home) -> Result<(), CliError> {
        self.check()?;
        crate::home::write_secret(&home.config_file(), self.to_toml()?.as_bytes())
    }

    /// A figment of these settings, for programs that add layers of their own.
    pub fn figment(&self) -> Figment {
        Figment::from(Serialized::defaults(self))
    }
}

/// Whether settings can be read from this: a pipe would be waited for, and a device read without an end.
fn check_file(path: &Path) -> io::Result<()> {
    let there = std::fs::metadata(path)?;
    let why = match there.len() {
        _ if !there.is_file() => "it is no file",
        0..=MAX_FILE => return Ok(()),
        _ => "it is too long for settings",
    };
    Err(io::Error::new(io::ErrorKind::InvalidData, why))
}

/// Whether the transport can be bound to this: TCP on an IP address.
fn can_listen(addr: &Multiaddr) -> bool {
    use libp2p::multiaddr::Protocol;
    let mut parts = addr.iter();
    matches!(parts.next(), Some(Protocol::Ip4(_) | Protocol::Ip6(_)))
        && matches!(parts.next(), Some(Protocol::Tcp(_)))
        && parts.all(|part| matches!(part, Protocol::P2p(_)))
}

/// `P2P_LISTEN` is `p2p.listen`; `None` for variables that are no settings.
fn env_key(name: &str) -> Option<String> {
    let name = name.to_ascii_lowercase();
    if name == "account" {
        return Some(name);
    }
    let (table, key) = name.split_once('_')?;
    TABLES.contains(&table).then(|| format!("{table}.{key}"))
}

/// Amounts in settings: `0.5 NEAR`, `12 mNEAR`, or digits of yocto.
mod human_amount {
    use por_types::Yocto;
    use serde::{Deserializer, Serializer, de};

    pub fn serialize<S: Serializer>(amount: &Yocto, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(amount)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Yocto, D::Error> {
        struct Amount;
        impl de::Visitor<'_> for Amount {
            type Value = Yocto;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an amount such as \"0.5 NEAR\" or digits of yocto")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Yocto, E> {
                Yocto::parse_human(text).map_err(E::custom)
            }
            fn visit_u64<E: de::Error>(self, yocto: u64) -> Result<Yocto, E> {
                Ok(Yocto(yocto.into()))
            }
            fn visit_u128<E: de::Error>(self, yocto: u128) -> Result<Yocto, E> {
                Ok(Yocto(yocto))
            }
            fn visit_i64<E: de::Error>(self, yocto: i64) -> Result<Yocto, E> {
                u64::try_from(yocto).map(|yocto| Yocto(yocto.into())).map_err(E::custom)
            }
        }
        deserializer.deserialize_any(Amount)
    }
}

#[cfg(test)]
mod tests;
