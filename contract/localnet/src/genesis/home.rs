//! The directory of a chain: configuration, genesis, keys, data.

use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use near_crypto::{KeyFile, KeyType, SecretKey};
use near_primitives::types::AccountId;
use near_primitives::utils::from_timestamp;
use serde_json::{Value, json};

use super::Genesis;
use crate::chain::Producer;
use crate::error::{Error, Result};

/// JSON-RPC requests are no larger than this by default, in bytes.
pub(crate) const MAX_REQUEST: usize = 10 * 1024 * 1024;
/// And never larger than this.
const MAX_REQUEST_EVER: usize = 256 * 1024 * 1024;

/// The directory of a chain.
#[derive(Debug, Clone)]
pub struct Home {
    path: PathBuf,
}

/// How a new home is to be made.
#[derive(Debug, Clone)]
pub struct InitOptions {
    /// The name of the chain.
    pub chain_id: String,
    /// Who makes the blocks, and holds the tokens.
    pub account_id: AccountId,
    /// Derives the keys from this text; random keys otherwise.
    pub seed: Option<String>,
    /// Further accounts: id, full access key, yocto.
    pub accounts: Vec<(AccountId, near_crypto::PublicKey, u128)>,
}

impl Home {
    /// The directory at `path`, which need not exist.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// Whether the directory has been initialised.
    pub fn exists(&self) -> bool {
        self.file("genesis.json").exists()
    }

    /// Writes `config.json`, `genesis.json`, `validator_key.json` and `node_key.json`.
    /// A home that has them is left as it is.
    ///
    /// # Errors
    /// When the files cannot be written.
    pub fn init(&self, options: &InitOptions) -> Result<()> {
        if self.exists() {
            tracing::info!(home = %self.path.display(), "the home exists and is kept");
            return Ok(());
        }
        std::fs::create_dir_all(self.path.join("data")).map_err(Error::file(&self.path))?;
        let key = |purpose: &str| match &options.seed {
            Some(seed) => SecretKey::from_seed(KeyType::ED25519, &format!("{seed}{purpose}")),
            None => SecretKey::from_random(KeyType::ED25519),
        };
        let validator = key("");
        let public_key = validator.public_key();
        let accounts = &options.accounts;
        let mut genesis = Genesis::new(&options.chain_id, (&options.account_id, &public_key), accounts);
        genesis.genesis_time = now();
        self.write_key("validator_key.json", &options.account_id, validator)?;
        let node: AccountId =
            "node".parse().map_err(|_| Error::Genesis("`node` is no account id".to_owned()))?;
        self.write_key("node_key.json", &node, key("-node"))?;
        self.write_json("config.json", &default_config())?;
        let genesis = serde_json::to_value(&genesis).map_err(|e| Error::Genesis(e.to_string()))?;
        // Last, as it marks the home as complete.
        self.write_json("genesis.json", &genesis)
    }

    fn write_json(&self, name: &str, value: &Value) -> Result<()> {
        let path = self.file(name);
        let mut text = format!("{value:#}");
        text.push('\n');
        let partial = path.with_extension("partial");
        std::fs::write(&partial, text).map_err(Error::file(&partial))?;
        std::fs::rename(&partial, &path).map_err(Error::file(path))
    }

    fn write_key(&self, name: &str, account_id: &AccountId, secret_key: SecretKey) -> Result<()> {
        let path = self.file(name);
        let file =
            KeyFile { account_id: account_id.clone(), public_key: secret_key.public_key(), secret_key };
        if path.exists() {
            std::fs::remove_file(&path).map_err(Error::file(&path))?;
        }
        file.write_to_file(&path).map_err(Error::file(path))
    }

    fn read_key(&self, name: &str) -> Result<KeyFile> {
        let path = self.file(name);
        KeyFile::from_file(&path).map_err(|source| match source.kind() {
            std::io::ErrorKind::InvalidData => Error::Malformed { path, reason: source.to_string() },
            _ => Error::File { path, source },
        })
    }

    fn read_json<T: serde::de::DeserializeOwned>(&self, name: &str) -> Result<T> {
        let path = self.file(name);
        let text = std::fs::read(&path).map_err(Error::file(&path))?;
        serde_json::from_slice(&text).map_err(|error| Error::Malformed { path, reason: error.to_string() })
    }

    pub(crate) fn genesis(&self) -> Result<Genesis> {
        self.read_json("genesis.json")
    }

    pub(crate) fn producer(&self) -> Result<Producer> {
        let key = self.read_key("validator_key.json")?;
        Ok(Producer { account_id: key.account_id, secret_key: key.secret_key })
    }

    pub(crate) fn node_key(&self) -> Result<SecretKey> {
        Ok(self.read_key("node_key.json")?.secret_key)
    }

    /// The largest request that the configuration allows, in bytes.
    pub(crate) fn max_request(&self) -> Result<usize> {
        let config: Value = self.read_json("config.json")?;
        let wanted = config.pointer("/rpc/limits_config/json_payload_max_size");
        let wanted = wanted.and_then(Value::as_u64).and_then(|size| usize::try_from(size).ok());
        Ok(wanted.unwrap_or(MAX_REQUEST).min(MAX_REQUEST_EVER))
    }

    /// The RPC address that the configuration names, if it does.
    pub(crate) fn rpc_addr(&self) -> Result<Option<std::net::SocketAddr>> {
        let config: Value = self.read_json("config.json")?;
        let Some(addr) = config.pointer("/rpc/addr").and_then(Value::as_str) else {
            return Ok(None);
        };
        let invalid = |error: std::net::AddrParseError| Error::Malformed {
            path: self.file("config.json"),
            reason: format!("rpc.addr: {error}"),
        };
        addr.parse().map(Some).map_err(invalid)
    }

    /// Where the database lies; its directory exists afterwards.
    pub(crate) fn database(&self) -> Result<PathBuf> {
        let data = self.path.join("data");
        std::fs::create_dir_all(&data).map_err(Error::file(&data))?;
        Ok(data.join("chain.redb"))
    }
}

fn now() -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let nanos = u64::try_from(since.as_nanos()).unwrap_or(0);
    from_timestamp(nanos).format("%Y-%m-%dT%H:%M:%S%.9fZ").to_string()
}

fn default_config() -> Value {
    json!({
        "genesis_file": "genesis.json",
        "validator_key_file": "validator_key.json",
        "node_key_file": "node_key.json",
        "rpc": {
            "addr": "127.0.0.1:3030",
            "limits_config": { "json_payload_max_size": MAX_REQUEST },
        },
        "network": { "addr": "127.0.0.1:24567" },
        "store": { "path": "data" },
    })
}
