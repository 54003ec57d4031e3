//! `por contract deploy`, `init` and `lock`: what needs the key of the contract's account.

use near_crypto::{PublicKey, SecretKey};
use por_types::interface::{NewArgs, Params};
use por_types::{AccountId, Hash, Yocto};
use serde::Serialize;

use super::args::{DeployArgs, FundArgs, InitArgs, LockArgs};
use super::{code, credentials, foreign, hash_of, key_of, params, target};
use crate::chain::{AccountInfo, Admin, ChainError, deployment_cost, faucet};
use crate::cli::Context;
use crate::cli::output::facts;
use crate::config::NetworkConfig;
use crate::exit::{CliError, ExitCode};
use crate::keys::{generate_near_key, save_near_cli};

/// What `deploy` did.
#[derive(Serialize)]
struct Deployed {
    contract: AccountId,
    code_hash: Hash,
    code_bytes: usize,
    /// What was transferred to the account for its storage.
    funded: Yocto,
    /// `None` if the code was there already.
    transaction: Option<String>,
    changed: bool,
}

/// What `init` did.
#[derive(Serialize)]
struct Initialised {
    #[serde(flatten)]
    deployed: Deployed,
    chain_id: String,
    owner: AccountId,
    treasury: AccountId,
    anchor: AccountId,
    test: bool,
    params: Params,
}

/// A contract's account that can pay for its code.
struct Ready {
    admin: Admin,
    key: SecretKey,
    account: AccountInfo,
    funded: Yocto,
}

pub(super) async fn deploy(context: &Context, args: DeployArgs) -> Result<(), CliError> {
    let network = target(context, &args.target)?;
    let code = code(args.code.as_deref())?;
    let ready = prepare(&network, &args.fund, code.len()).await?;
    let deployed = put(&network, &ready, &code).await?;
    context.output.print(&deployed, |deployed| {
        let text = deployed_facts(deployed);
        let next = "next\x20     por contract init; until then anyone could initialise it";
        if deployed.changed { format!("{text}\n{next}") } else { text }
    })
}

async fn put(network: &NetworkConfig, ready: &Ready, code: &[u8]) -> Result<Deployed, CliError> {
    let hash = hash_of(code);
    let there = ready.account.code_hash;
    if there.is_some_and(|there| there != hash) {
        return Err(other_code(&network.contract));
    }
    let transaction = match there {
        Some(_) => None,
        None => ready.admin.deploy(&ready.key, code).await?.transaction,
    };
    Ok(Deployed {
        contract: network.contract.clone(),
        code_hash: hash,
        code_bytes: code.len(),
        funded: ready.funded,
        transaction,
        changed: there.is_none(),
    })
}

fn other_code(contract: &AccountId) -> CliError {
    CliError::new(
        ExitCode::Exists,
        format!("{contract} holds other code"),
        "run `por contract upgrade`, or choose another account",
    )
}

pub(super) async fn init(context: &Context, args: InitArgs) -> Result<(), CliError> {
    let network = target(context, &args.target)?;
    let code = code(args.code.as_deref())?;
    let base = if args.test { params::test() } else { params::production() };
    let params = args.params.over(base)?;
    params::check(&params, args.test)?;
    if args.test && !network.is_local() {
        return Err(CliError::usage(
            format!("nodes refuse a test contract on {}", network.chain_id),
            "leave --test out",
        ));
    }
    let owner = args.owner.unwrap_or_else(|| network.contract.clone());
    let new = NewArgs {
        chain_id: network.chain_id.clone(),
        treasury: args.treasury.unwrap_or_else(|| owner.clone()),
        anchor: args.anchor.or_else(|| Some(owner.clone())),
        owner,
        params,
        test: args.test,
    };
    let ready = prepare(&network, &args.fund, code.len()).await?;
    known(&ready.admin, &network, [&new.owner, &new.treasury]).await?;
    let deployed = initialise(&network, &ready, &code, &new).await?;
    let anchor = new.anchor.clone().unwrap_or_else(|| new.owner.clone());
    let NewArgs { chain_id, owner, treasury, test, params, .. } = new;
    let done = Initialised { deployed, chain_id, owner, treasury, anchor, test, params };
    context.output.print(&done, |done| {
        let who = facts(&[
            ("owner", done.owner.to_string()),
            ("treasury", done.treasury.to_string()),
            ("anchor", done.anchor.to_string()),
        ]);
        format!("{}\n{who}\n{}", deployed_facts(&done.deployed), params::table(&done.params))
    })
}

/// Initialises what is there, or deploys and initialises in one transaction.
async fn initialise(
    network: &NetworkConfig,
    ready: &Ready,
    code: &[u8],
    new: &NewArgs,
) -> Result<Deployed, CliError> {
    let hash = hash_of(code);
    match ready.account.code_hash {
        Some(there) if there != hash => return Err(other_code(&network.contract)),
        Some(_) if ready.admin.governed().await.is_ok() => {
            return Err(CliError::new(
                ExitCode::Exists,
                format!("{} is initialised", network.contract),
                "look at it with `por contract check`",
            ));
        }
        _ => {}
    }
    let fresh = ready.account.code_hash.is_none();
    let outcome = ready.admin.init(&ready.key, fresh.then_some(code), new).await?;
    Ok(Deployed {
        contract: network.contract.clone(),
        code_hash: hash,
        code_bytes: code.len(),
        funded: ready.funded,
        transaction: outcome.transaction,
        changed: true,
    })
}

/// A mistyped account could never be corrected: nobody would hold its key.
async fn known<const N: usize>(
    admin: &Admin,
    network: &NetworkConfig,
    accounts: [&AccountId; N],
) -> Result<(), CliError> {
    for account in accounts {
        if admin.account(account).await?.is_none() {
            return Err(ChainError::NoAccount {
                account: account.clone(),
                chain_id: network.chain_id.clone(),
            }
            .into());
        }
    }
    Ok(())
}

/// The contract's account with enough money for the code, created and funded if need be.
async fn prepare(network: &NetworkConfig, args: &FundArgs, code_len: usize) -> Result<Ready, CliError> {
    let contract = &network.contract;
    let admin = Admin::connect(network, contract.clone()).await?;
    let found = admin.account(contract).await?;
    let key = contract_key(network, args, found.is_some())?;
    let have = found.as_ref().map(|account| account.balance).unwrap_or_default();
    let code_there = found.as_ref().is_some_and(|account| account.code_hash.is_some());
    let need = if code_there { Yocto::ZERO } else { deployment_cost(code_len) };
    let missing = need.saturating_sub(have);
    if !missing.is_zero() || found.is_none() {
        let new_key = found.is_none().then(|| key.public_key());
        fund(network, args, missing, &key.public_key(), new_key.as_ref()).await?;
    }
    // A faucet answers before the block that holds its transfer is final.
    let account = admin.funded(contract, need).await?;
    Ok(Ready { admin, key, account, funded: missing })
}

/// The key that signs for the contract's account: its own, or a new one for a new account.
fn contract_key(network: &NetworkConfig, args: &FundArgs, exists: bool) -> Result<SecretKey, CliError> {
    let contract = &network.contract;
    if !args.new_key {
        return key_of(&args.key, contract, "the contract");
    }
    if exists {
        return Err(CliError::new(
            ExitCode::Exists,
            format!("account {contract} exists, a new key would not be one of its keys"),
            "pass its credentials with --key, without --new-key",
        ));
    }
    match &args.funder {
        Some(path) => drop(credentials(path)?),
        None if network.is_local() => {}
        None => return Err(nobody_pays(network, true, Yocto::ZERO)),
    }
    let key = generate_near_key();
    save_near_cli(&args.key, contract, &key)?;
    Ok(key)
}

async fn fund(
    network: &NetworkConfig,
    args: &FundArgs,
    amount: Yocto,
    key: &PublicKey,
    new_key: Option<&PublicKey>,
) -> Result<(), CliError> {
    let contract = &network.contract;
    if let Some(path) = &args.funder {
        let (funder, funder_key) = credentials(path)?;
        let admin = Admin::connect(network, funder).await?;
        admin.fund(&funder_key, contract, new_key, amount).await?;
        return Ok(());
    }
    if network.is_local() {
        return Ok(faucet(&network.rpc_urls, contract, key, amount).await?);
    }
    Err(nobody_pays(network, new_key.is_some(), amount))
}

fn nobody_pays(network: &NetworkConfig, new: bool, amount: Yocto) -> CliError {
    let NetworkConfig { contract, chain_id, .. } = network;
    if new {
        let what = format!("account {contract} does not exist on {chain_id}");
        let fix = "pass --funder FILE with credentials of the account above it, or create it first";
        return CliError::new(ExitCode::NotFound, what, fix);
    }
    let amount = amount.to_near_string();
    CliError::new(
        ExitCode::Budget,
        format!("{contract} lacks {amount} for the contract's storage"),
        format!("transfer {amount} to it, or pass --funder FILE with credentials of an account that has it"),
    )
}

fn deployed_facts(deployed: &Deployed) -> String {
    let mut rows = vec![
        ("contract", deployed.contract.to_string()),
        ("code hash", deployed.code_hash.to_string()),
        ("code", format!("{} bytes", deployed.code_bytes)),
    ];
    if !deployed.funded.is_zero() {
        rows.push(("funded", deployed.funded.to_near_string()));
    }
    match &deployed.transaction {
        Some(transaction) => rows.push(("transaction", transaction.clone())),
        None if !deployed.changed => rows.push(("unchanged", "the code was there".to_owned())),
        None => {}
    }
    facts(&rows)
}

/// What `lock` did.
#[derive(Serialize)]
struct Locked {
    contract: AccountId,
    deleted: Vec<String>,
}

pub(super) async fn lock(context: &Context, args: LockArgs) -> Result<(), CliError> {
    let network = target(context, &args.target)?;
    let key = key_of(&args.key, &network.contract, "the contract")?;
    let admin = Admin::connect(&network, network.contract.clone()).await?;
    let governed = admin.governed().await.map_err(|error| foreign(&network.contract, error))?;
    if !args.yes {
        return Err(CliError::usage(
            format!("without keys the code of {} changes only by its owner, with notice", network.contract),
            "pass --yes if that is what you want",
        ));
    }
    if governed.owner == network.contract {
        return Err(CliError::usage(
            format!("{} is its own owner: without keys nobody could govern it", network.contract),
            "name another owner first: `por contract params --owner ACCOUNT`",
        ));
    }
    let keys = admin.access_keys(&network.contract).await?;
    let deleted: Vec<String> = keys.iter().map(|key| key.public_key.clone()).collect();
    let parsed: Result<Vec<PublicKey>, _> = deleted.iter().map(|key| key.parse()).collect();
    let mut parsed = parsed.map_err(|error: near_crypto::ParseKeyError| {
        CliError::new(ExitCode::Other, error.to_string(), "delete the keys with the tool that made them")
    })?;
    // The one that signs goes last.
    parsed.sort_by_key(|other| *other == key.public_key());
    if !parsed.is_empty() {
        admin.delete_keys(&key, parsed).await?;
    }
    let locked = Locked { contract: network.contract, deleted };
    context.output.print(&locked, |locked| {
        let rows: Vec<(&str, String)> = locked.deleted.iter().map(|key| ("deleted", key.clone())).collect();
        facts(&[vec![("contract", locked.contract.to_string())], rows].concat())
    })
}
