//! `por init`: settings and keys of a new node.

use near_crypto::SecretKey;
use por_types::{AccountId, Yocto};
use serde::Serialize;

use super::Context;
use super::args::InitArgs;
use super::output::facts;
use crate::chain::{Admin, ChainError, faucet};
use crate::config::{Config, NetworkConfig};
use crate::exit::{CliError, ExitCode};
use crate::home::Home;
use crate::keys::{Keys, generate_near_key, generate_node_key, implicit_account, import_near_cli};

/// What `init` made.
#[derive(Serialize)]
struct Made {
    node_key: String,
    peer_id: String,
    account: AccountId,
    near_key: String,
    /// For people: not every path is text.
    config: String,
    /// What the faucet gave.
    faucet: Option<Yocto>,
}

/// A home that `init` has not come to the end of, for an error or because it was interrupted: it is as before
/// then, or the next try would find its own keys. They guard nothing yet.
struct Unfinished<'a>(&'a Home);

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        for path in [self.0.node_key_file(), self.0.near_key_file(), self.0.config_file()] {
            let _ = std::fs::remove_file(path);
        }
    }
}

pub(super) async fn init(context: &Context, args: InitArgs) -> Result<(), CliError> {
    let home = &context.home;
    if home.config_file().exists() {
        return Err(CliError::new(
            ExitCode::Exists,
            format!("{} exists", home.config_file().display()),
            "edit it, or choose another --home",
        ));
    }
    let network = NetworkConfig::resolve(&args.network, args.contract)?;
    let (account, near) = near_identity(args.account, args.import_near.as_deref())?;
    let mut config = Config::new(account.clone(), network);
    args.node.overrides().apply(&mut config);
    let password = if args.encrypt { Some(context.password().get_new()?) } else { None };
    let keys = Keys { node: generate_node_key(), near, near_account: Some(account.clone()) };

    home.create()?;
    keys.save(home, password.as_ref().map(|password| password.as_str()))?;
    let unfinished = Unfinished(home);
    // Whatever can fail comes before the faucet pays.
    config.save(home)?;
    let faucet = pay(&config, &keys, args.faucet, args.import_near.is_some()).await?;
    std::mem::forget(unfinished);
    let made = Made {
        node_key: keys.node.public().to_string(),
        peer_id: peer_id(&keys)?,
        account,
        near_key: keys.near.public_key().to_string(),
        config: home.config_file().display().to_string(),
        faucet,
    };
    context.output.print(&made, |made| {
        let mut rows = vec![
            ("node key", made.node_key.clone()),
            ("peer id", made.peer_id.clone()),
            ("account", made.account.to_string()),
            ("near key", made.near_key.clone()),
            ("settings", made.config.clone()),
        ];
        if let Some(amount) = made.faucet {
            rows.push(("from the faucet", amount.to_near_string()));
        }
        facts(&rows)
    })
}

/// The NEAR account and its key: imported, or new.
fn near_identity(
    account: Option<AccountId>,
    import: Option<&std::path::Path>,
) -> Result<(AccountId, SecretKey), CliError> {
    let Some(path) = import else {
        let key = generate_near_key();
        let implicit = implicit_account(&key.public_key());
        let account = account
            .or(implicit)
            .ok_or_else(|| CliError::usage("which NEAR account?", "pass --account ACCOUNT"))?;
        return Ok((account, key));
    };
    let (owner, key) = import_near_cli(path)?;
    match account {
        Some(account) if account != owner => Err(CliError::new(
            ExitCode::WrongKey,
            format!("{} holds a key of {owner}, not of {account}", path.display()),
            "import the credentials of that account, or leave --account out",
        )),
        _ => Ok((owner, key)),
    }
}

/// Has the faucet of a local chain create and fund the account.
async fn pay(config: &Config, keys: &Keys, amount: Yocto, imported: bool) -> Result<Option<Yocto>, CliError> {
    if !config.network.is_local() || amount.is_zero() || imported {
        return Ok(None);
    }
    let failed = |error: ChainError| {
        let mut error = CliError::from(error);
        error.fix = "start `por localnet` first, or pass --faucet 0".to_owned();
        error
    };
    let account = &config.account;
    let admin = Admin::connect(&config.network, account.clone()).await.map_err(failed)?;
    // The faucet would pay into it, and the new key may not sign for it.
    if !admin.access_keys(account).await.map_err(failed)?.is_empty() {
        let what = format!("account {account} exists, with another key");
        let fix = "choose another --account, or import the account's key with --import-near";
        return Err(CliError::new(ExitCode::Exists, what, fix));
    }
    faucet(&config.network.rpc_urls, account, &keys.near.public_key(), amount).await.map_err(failed)?;
    Ok(Some(amount))
}

fn peer_id(keys: &Keys) -> Result<String, CliError> {
    let key = libp2p::identity::ed25519::PublicKey::try_from_bytes(&keys.node.public().0)
        .map_err(|error| CliError::new(ExitCode::WrongKey, error.to_string(), ""))?;
    Ok(libp2p::identity::PublicKey::from(key).to_peer_id().to_string())
}
