//! The node's secrets: its node key (libp2p identity and signer of every statement) and the NEAR
//! key that signs transactions, each in a file of its own, mode 0600.
//!
//! A key file is JSON, as near-cli writes it (`account_id`, `public_key`, `private_key`), or that
//! JSON encrypted with a passphrase in the age format.

mod password;

use std::path::Path;
use std::str::FromStr;

use near_crypto::{KeyType, PublicKey, SecretKey};
use por_types::{AccountId, NodeSecret};
use rand::RngCore as _;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::config::{Config, Overrides};
use crate::exit::{CliError, ExitCode};
use crate::home::{Home, HomeLock, create_secret, exists, read_secret};

pub use password::PasswordSource;

const AGE_HEADER: &[u8] = b"age-encryption.org/v1";

/// Everything that a daemon needs besides its store: where it lives, how it is set up, its keys.
pub struct NodeSetup {
    pub home: Home,
    /// Held for as long as the daemon runs.
    pub lock: HomeLock,
    pub config: Config,
    pub keys: Keys,
}

impl NodeSetup {
    /// Settings and keys of a home, which this process owns from now on.
    ///
    /// Errors: as [`Config::load`], [`Home::lock`] and [`Keys::load`].
    pub fn load(home: Home, overrides: Overrides, password: &PasswordSource) -> Result<NodeSetup, CliError> {
        let config = Config::load(&home, overrides)?;
        let lock = home.lock()?;
        let keys = Keys::load(&home, password)?;
        if let Some(account) = keys.near_account.as_ref().filter(|account| **account != config.account) {
            return Err(CliError::new(
                ExitCode::WrongKey,
                format!(
                    "{} is a key of {account}, not of {}",
                    home.near_key_file().display(),
                    config.account
                ),
                "set `account` in config.toml, or import the key of that account",
            ));
        }
        Ok(NodeSetup { home, lock, config, keys })
    }
}

impl std::fmt::Debug for NodeSetup {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("NodeSetup").field("home", &self.home).field("keys", &self.keys).finish()
    }
}

/// A node's two keys.
#[derive(Clone)]
pub struct Keys {
    pub node: NodeSecret,
    /// Signs the node's transactions.
    pub near: SecretKey,
    /// The account that the key file names.
    pub near_account: Option<AccountId>,
}

impl std::fmt::Debug for Keys {
    /// Public halves only.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Keys")
            .field("node", &self.node.public())
            .field("near", &self.near.public_key().to_string())
            .finish()
    }
}

/// The JSON of a key file. near-cli writes `private_key`, other tools `secret_key`.
#[derive(Serialize, Deserialize)]
struct KeyFile {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    account_id: Option<AccountId>,
    public_key: String,
    #[serde(alias = "secret_key")]
    private_key: String,
}

impl Drop for KeyFile {
    fn drop(&mut self) {
        self.private_key.zeroize();
    }
}

/// A new node key.
pub fn generate_node_key() -> NodeSecret {
    let mut seed = Zeroizing::new([0u8; 32]);
    rand::rng().fill_bytes(&mut *seed);
    NodeSecret::from_seed(&seed)
}

/// A new NEAR key.
pub fn generate_near_key() -> SecretKey {
    SecretKey::from_random(KeyType::ED25519)
}

/// The implicit account of a NEAR key: 64 hex digits of the public key.
pub fn implicit_account(key: &PublicKey) -> Option<AccountId> {
    match key {
        PublicKey::ED25519(key) => hex::encode(key.0).parse().ok(),
        _ => None,
    }
}

impl Keys {
    /// Reads both keys of a home. The password is asked for only if a file is encrypted, once.
    ///
    /// Errors: [`ExitCode::WrongKey`] for a wrong password, a damaged file, or one that others can
    /// read; [`ExitCode::NotFound`] if there is none.
    pub fn load(home: &Home, password: &PasswordSource) -> Result<Keys, CliError> {
        let mut password = password.once();
        let node = read_key_file(&home.node_key_file(), &mut password)?;
        let near = read_key_file(&home.near_key_file(), &mut password)?;
        let node = node_secret(&home.node_key_file(), &node)?;
        let (near, near_account) = near_secret(&home.near_key_file(), &near)?;
        Ok(Keys { node, near, near_account })
    }

    /// Writes both keys, encrypted if there is a password. Never replaces a key.
    pub fn save(&self, home: &Home, password: Option<&str>) -> Result<(), CliError> {
        for path in [home.node_key_file(), home.near_key_file()] {
            if path.exists() {
                return Err(exists(&path));
            }
        }
        let node = near_key_of(&self.node)?;
        write_key_file(&home.node_key_file(), None, &node, password)?;
        let near = write_key_file(&home.near_key_file(), self.near_account.as_ref(), &self.near, password);
        near.inspect_err(|_| {
            // One key alone would stand in the way of the next try.
            let _ = std::fs::remove_file(home.node_key_file());
        })
    }
}

/// Reads a key that near-cli wrote (`~/.near-credentials/NETWORK/ACCOUNT.json`).
pub fn import_near_cli(path: &Path) -> Result<(AccountId, SecretKey), CliError> {
    // near-cli leaves these files readable by the group; the copy made here is not.
    let content = std::fs::read(path)
        .map(Zeroizing::new)
        .map_err(|error| CliError::io(format!("reading {}", path.display()), &error))?;
    let file = parse_key_file(path, content, &mut || Err(password::missing(path)))?;
    let (key, account) = near_secret(path, &file)?;
    let from_name = || path.file_stem()?.to_str()?.parse().ok();
    let account = account.or_else(from_name).ok_or_else(|| {
        CliError::new(
            ExitCode::WrongKey,
            format!("{} does not say whose key it is", path.display()),
            "name the file ACCOUNT.json, as near-cli does",
        )
    })?;
    Ok((account, key))
}

/// Writes a key as near-cli does, readable by its owner only. Never replaces a file.
pub(crate) fn save_near_cli(path: &Path, account: &AccountId, key: &SecretKey) -> Result<(), CliError> {
    if path.exists() {
        return Err(CliError::new(
            ExitCode::Exists,
            format!("{} exists", path.display()),
            "name another file, or leave --new-key out",
        ));
    }
    write_key_file(path, Some(account), key, None)
}

/// The same key as NEAR's tools write it: seed and public key.
pub(crate) fn near_key_of(secret: &NodeSecret) -> Result<SecretKey, CliError> {
    let seed = Zeroizing::new(secret.seed());
    let mut pair = Zeroizing::new([0u8; 64]);
    pair[..32].copy_from_slice(&*seed);
    pair[32..].copy_from_slice(&secret.public().0);
    let text = Zeroizing::new(format!("ed25519:{}", bs58::encode(&*pair).into_string()));
    SecretKey::from_str(&text).map_err(|error| CliError::new(ExitCode::WrongKey, error.to_string(), ""))
}

fn damaged(path: &Path, why: impl std::fmt::Display) -> CliError {
    CliError::new(
        ExitCode::WrongKey,
        format!("{} is no usable key file: {why}", path.display()),
        "restore the file from a backup",
    )
}

fn node_secret(path: &Path, file: &KeyFile) -> Result<NodeSecret, CliError> {
    let text = file.private_key.strip_prefix("ed25519:").ok_or_else(|| damaged(path, "not ed25519"))?;
    let bytes = Zeroizing::new(bs58::decode(text).into_vec().map_err(|_| damaged(path, "not base58"))?);
    // Both the 32-byte seed and NEAR's 64 bytes (seed and public key) are accepted.
    let seed: &[u8; 32] = bytes
        .first_chunk()
        .filter(|_| matches!(bytes.len(), 32 | 64))
        .ok_or_else(|| damaged(path, "a key has 32 or 64 bytes"))?;
    let secret = NodeSecret::from_seed(seed);
    if secret.public().to_string() != file.public_key {
        return Err(damaged(path, "public_key is not that of private_key"));
    }
    Ok(secret)
}

fn near_secret(path: &Path, file: &KeyFile) -> Result<(SecretKey, Option<AccountId>), CliError> {
    let key =
        SecretKey::from_str(&file.private_key).map_err(|_| damaged(path, "private_key is malformed"))?;
    if key.public_key().to_string() != file.public_key {
        return Err(damaged(path, "public_key is not that of private_key"));
    }
    Ok((key, file.account_id.clone()))
}

fn write_key_file(
    path: &Path,
    account: Option<&AccountId>,
    key: &SecretKey,
    password: Option<&str>,
) -> Result<(), CliError> {
    let file = KeyFile {
        account_id: account.cloned(),
        public_key: key.public_key().to_string(),
        private_key: key.to_string(),
    };
    let json = Zeroizing::new(serde_json::to_vec_pretty(&file).map_err(|error| damaged(path, error))?);
    match password {
        None => create_secret(path, &json),
        Some(password) => {
            let recipient =
                age::scrypt::Recipient::new(age::secrecy::SecretString::from(password.to_owned()));
            let sealed = age::encrypt(&recipient, &json).map_err(|error| {
                CliError::new(ExitCode::Other, format!("encrypting {}: {error}", path.display()), "")
            })?;
            create_secret(path, &sealed)
        }
    }
}

fn read_key_file(
    path: &Path,
    password: &mut dyn FnMut() -> Result<Zeroizing<String>, CliError>,
) -> Result<KeyFile, CliError> {
    let content = read_secret(path).map_err(|mut error| {
        if error.code == ExitCode::NotFound {
            error.fix = "run `por init` first, or name the right --home".to_owned();
        }
        error
    })?;
    parse_key_file(path, content, password)
}

fn parse_key_file(
    path: &Path,
    content: Zeroizing<Vec<u8>>,
    password: &mut dyn FnMut() -> Result<Zeroizing<String>, CliError>,
) -> Result<KeyFile, CliError> {
    let json = if content.starts_with(AGE_HEADER) {
        let password = password()?;
        let identity = age::scrypt::Identity::new(age::secrecy::SecretString::from(password.as_str()));
        Zeroizing::new(age::decrypt(&identity, &content).map_err(|error| wrong_password(path, &error))?)
    } else {
        content
    };
    serde_json::from_slice(&json).map_err(|_| damaged(path, "its content is not that of a key file"))
}

fn wrong_password(path: &Path, error: &age::DecryptError) -> CliError {
    let (message, fix) = match error {
        age::DecryptError::DecryptionFailed
        | age::DecryptError::KeyDecryptionFailed
        | age::DecryptError::NoMatchingKeys => {
            (format!("wrong password for {}", path.display()), "give the password that `por init` was given")
        }
        other => {
            (format!("{} cannot be decrypted: {other}", path.display()), "restore the file from a backup")
        }
    };
    CliError::new(ExitCode::WrongKey, message, fix)
}

#[cfg(test)]
mod tests;
