//! `por contract`: putting the contract on a chain, governing it, checking it.

mod args;
mod check;
mod deploy;
mod govern;
mod params;

use std::path::Path;

use near_crypto::SecretKey;
use por_types::{AccountId, CONTRACT_WASM, Hash, sha256};

use super::Context;
use crate::chain::ChainError;
use crate::config::{Config, NetworkConfig, Overrides};
use crate::exit::{CliError, ExitCode};
use crate::keys::import_near_cli;

pub use args::ContractAction;
use args::TargetArgs;

pub(super) async fn contract(context: &Context, action: ContractAction) -> Result<(), CliError> {
    match action {
        ContractAction::Deploy(args) => deploy::deploy(context, args).await,
        ContractAction::Init(args) => deploy::init(context, *args).await,
        ContractAction::Upgrade(args) => govern::upgrade(context, args).await,
        ContractAction::Params(args) => govern::params(context, *args).await,
        ContractAction::Check(args) => check::check(context, args).await,
        ContractAction::Lock(args) => deploy::lock(context, args).await,
    }
}

/// The network that flags name; without any, that of the home.
fn target(context: &Context, args: &TargetArgs) -> Result<NetworkConfig, CliError> {
    let mut network = match &args.network {
        Some(name) => NetworkConfig::resolve(name, args.contract.clone())?,
        None => Config::load(&context.home, Overrides::default()).map(|config| config.network).map_err(
            |mut error| {
                if error.code == ExitCode::NotFound {
                    error = CliError::usage(
                        "which network?",
                        "pass --network localnet, testnet or a FILE, or the --home of a node",
                    );
                }
                error
            },
        )?,
    };
    if let Some(contract) = &args.contract {
        network.contract = contract.clone();
    }
    if !args.rpc.is_empty() {
        network.rpc_urls = args.rpc.clone();
    }
    Ok(network)
}

/// The code to deploy: a file, or what this program carries.
fn code(file: Option<&Path>) -> Result<Vec<u8>, CliError> {
    let Some(path) = file else { return Ok(CONTRACT_WASM.to_vec()) };
    let code =
        std::fs::read(path).map_err(|error| CliError::io(format!("reading {}", path.display()), &error))?;
    if !code.starts_with(b"\0asm") {
        return Err(CliError::usage(format!("{} is no wasm", path.display()), "name the built contract"));
    }
    Ok(code)
}

fn hash_of(code: &[u8]) -> Hash {
    Hash(sha256(code))
}

/// Account and key of a credentials file.
fn credentials(path: &Path) -> Result<(AccountId, SecretKey), CliError> {
    import_near_cli(path)
}

/// The key of the account that has to act.
fn key_of(path: &Path, account: &AccountId, role: &str) -> Result<SecretKey, CliError> {
    let (owner, key) = credentials(path)?;
    if owner != *account {
        return Err(CliError::new(
            ExitCode::WrongKey,
            format!("{} holds a key of {owner}, but {role} is {account}", path.display()),
            format!("pass --key with the credentials of {account}"),
        ));
    }
    Ok(key)
}

/// There is an account, but nothing that speaks for itself as this contract does.
fn foreign(contract: &AccountId, error: ChainError) -> CliError {
    match error {
        ChainError::NoContract { .. } => CliError::new(
            ExitCode::NotFound,
            format!("{contract} holds no contract"),
            "run `por contract init`, or name the right --contract",
        ),
        ChainError::Answer { .. } | ChainError::Contract { .. } => CliError::new(
            ExitCode::ForeignVersion,
            format!("the contract of {contract} is not initialised, or no Proof of Response contract"),
            "run `por contract init`, or name the right --contract",
        ),
        other => other.into(),
    }
}
