//! `por contract params` and `upgrade`: what the owner may do, with notice.

use std::time::Duration;

use near_crypto::SecretKey;
use por_types::interface::{
    AccountArgs, AnnounceUpgradeArgs, ConfigView, MigrateArgs, NextCode, NextParams, Params, STATE_VERSION,
    SetParamsArgs,
};
use por_types::{AccountId, Hash};
use serde::Serialize;

use super::args::{ParamsArgs, UpgradeArgs};
use super::{code, credentials, foreign, hash_of, key_of, params as parameters, target};
use crate::chain::{Admin, Call, ChainError, Governed};
use crate::cli::Context;
use crate::cli::output::facts;
use crate::cli::tables::time;
use crate::exit::{CliError, ExitCode};

/// A notice up to this long is waited for.
const SHORT_NOTICE_MS: u64 = 60_000;
/// Calls that convert state of an earlier version.
const MIGRATIONS: u32 = 10_000;

/// What `params` shows.
#[derive(Serialize)]
struct Shown {
    contract: AccountId,
    chain_id: String,
    test: bool,
    owner: AccountId,
    treasury: AccountId,
    anchor: AccountId,
    governance_notice_ms: u64,
    params: Params,
    next_params: Option<NextParams>,
    next_code: Option<NextCode>,
    /// Of what was set.
    transactions: Vec<String>,
}

pub(super) async fn params(context: &Context, args: ParamsArgs) -> Result<(), CliError> {
    let network = target(context, &args.target)?;
    let contract = &network.contract;
    let sets = args.params.any() || args.owner.is_some() || args.treasury.is_some();
    let mut admin = Admin::connect(&network, contract.clone()).await?;
    let governed = admin.governed().await.map_err(|error| foreign(contract, error))?;
    current(&governed, contract)?;
    let mut config = admin.config().await?;
    let mut transactions = Vec::new();
    if sets {
        let path = args.key.as_deref().ok_or_else(|| {
            CliError::usage("only the owner can set parameters", "pass --key with the owner's credentials")
        })?;
        let key = key_of(path, &config.owner, "the owner")?;
        admin = Admin::connect(&network, config.owner.clone()).await?;
        transactions = set(&admin, &key, &config, &args).await?;
        config = admin.config().await?;
    }
    let shown = Shown {
        contract: contract.clone(),
        chain_id: config.chain_id,
        test: config.test,
        owner: config.owner,
        treasury: config.treasury,
        anchor: config.anchor,
        governance_notice_ms: config.governance_notice_ms,
        params: config.params,
        next_params: config.next_params,
        next_code: config.next_code,
        transactions,
    };
    context.output.print(&shown, table)
}

async fn set(
    admin: &Admin,
    key: &SecretKey,
    config: &ConfigView,
    args: &ParamsArgs,
) -> Result<Vec<String>, CliError> {
    let mut done = Vec::new();
    if args.params.any() {
        // A change that waits already is what this one builds on: setting replaces it.
        let base = config.next_params.as_ref().map_or(&config.params, |next| &next.params);
        let params = args.params.over(base.clone())?;
        parameters::check(&params, config.test)?;
        let call = Call::SetParams(SetParamsArgs { params: params.clone() });
        let there = async || {
            let config = admin.config().await?;
            Ok(config.next_params.map_or(config.params, |next| next.params) == params)
        };
        done.push(admin.call(key, &call, there).await?.transaction);
    }
    if let Some(treasury) = &args.treasury {
        exists(admin, treasury, config).await?;
        let call = Call::SetTreasury(AccountArgs { account: treasury.clone() });
        let there = async || Ok(admin.config().await?.treasury == *treasury);
        done.push(admin.call(key, &call, there).await?.transaction);
    }
    // Last: afterwards this key may do nothing any more.
    if let Some(owner) = &args.owner {
        exists(admin, owner, config).await?;
        let call = Call::SetOwner(AccountArgs { account: owner.clone() });
        let there = async || Ok(admin.config().await?.owner == *owner);
        done.push(admin.call(key, &call, there).await?.transaction);
    }
    Ok(done.into_iter().flatten().collect())
}

async fn exists(admin: &Admin, account: &AccountId, config: &ConfigView) -> Result<(), CliError> {
    match admin.account(account).await? {
        Some(_) => Ok(()),
        None => {
            Err(ChainError::NoAccount { account: account.clone(), chain_id: config.chain_id.clone() }.into())
        }
    }
}

/// This program knows the interface of its own version only.
fn current(governed: &Governed, contract: &AccountId) -> Result<(), CliError> {
    if governed.state_version == STATE_VERSION {
        return Ok(());
    }
    Err(CliError::new(
        ExitCode::ForeignVersion,
        format!(
            "the contract {contract} has version {}, this program speaks version {STATE_VERSION}",
            governed.state_version
        ),
        "use the program of that version, or `por contract upgrade`",
    ))
}

fn table(shown: &Shown) -> String {
    let notice = Duration::from_millis(shown.governance_notice_ms);
    let mut rows = vec![
        ("contract", format!("{} on {}", shown.contract, shown.chain_id)),
        ("owner", shown.owner.to_string()),
        ("treasury", shown.treasury.to_string()),
        ("anchor", shown.anchor.to_string()),
        ("changes after", humantime::format_duration(notice).to_string()),
    ];
    if let Some(next) = &shown.next_code {
        rows.push(("announced code", format!("{} from {}", next.code_hash, time(next.from_ms))));
    }
    for transaction in &shown.transactions {
        rows.push(("transaction", transaction.clone()));
    }
    let mut text = format!("{}\n{}", facts(&rows), parameters::table(&shown.params));
    if let Some(next) = &shown.next_params {
        text += &format!("\nfrom {}:\n{}", time(next.from_ms), parameters::table(&next.params));
    }
    text
}

/// Where an upgrade stands.
#[derive(Serialize)]
struct Upgraded {
    contract: AccountId,
    code_hash: Hash,
    /// `unchanged`, `announced`, `deployed` or `cancelled`.
    state: &'static str,
    /// When announced code may be deployed: block time, milliseconds.
    from_ms: Option<u64>,
    transaction: Option<String>,
}

pub(super) async fn upgrade(context: &Context, args: UpgradeArgs) -> Result<(), CliError> {
    let network = target(context, &args.target)?;
    let contract = network.contract.clone();
    let code = code(args.code.as_deref())?;
    let code_hash = hash_of(&code);
    let (signer, key) = credentials(&args.key)?;
    let admin = Admin::connect(&network, signer.clone()).await?;
    let governed = admin.governed().await.map_err(|error| foreign(&contract, error))?;
    let act = Act { admin, signer, key, contract, governed, code, code_hash };
    let done = if args.cancel { act.cancel().await? } else { act.upgrade(args.wait).await? };
    context.output.print(&done, |done| {
        let mut rows = vec![
            ("contract", done.contract.to_string()),
            ("code hash", done.code_hash.to_string()),
            ("state", done.state.to_owned()),
        ];
        if let Some(from) = done.from_ms {
            rows.push(("deploy from", format!("{}; run this again then", time(from))));
        }
        if let Some(transaction) = &done.transaction {
            rows.push(("transaction", transaction.clone()));
        }
        facts(&rows)
    })
}

struct Act {
    admin: Admin,
    signer: AccountId,
    key: SecretKey,
    contract: AccountId,
    governed: Governed,
    code: Vec<u8>,
    code_hash: Hash,
}

impl Act {
    fn done(&self, state: &'static str, from_ms: Option<u64>, transaction: Option<String>) -> Upgraded {
        let (contract, code_hash) = (self.contract.clone(), self.code_hash);
        Upgraded { contract, code_hash, state, from_ms, transaction }
    }

    async fn upgrade(&self, wait: bool) -> Result<Upgraded, CliError> {
        let account = self.admin.account(&self.contract).await?;
        if account.is_some_and(|account| account.code_hash == Some(self.code_hash)) {
            self.migrate().await?;
            return Ok(self.done("unchanged", None, None));
        }
        if self.governed.state_version < 2 {
            return self.take_over().await;
        }
        let announced = self.announced(self.governed.next_code.as_ref());
        let (from_ms, transaction) = match announced {
            Some(from_ms) => (from_ms, None),
            None => self.announce().await?,
        };
        let left = from_ms.saturating_sub(self.admin.head().await?.time_ms);
        if left > SHORT_NOTICE_MS && !wait {
            return Ok(self.done("announced", Some(from_ms), transaction));
        }
        self.wait_until(from_ms).await?;
        let outcome = self.admin.upload(&self.key, &self.code).await?;
        self.migrate().await?;
        Ok(self.done("deployed", None, outcome.transaction))
    }

    fn announced(&self, next: Option<&NextCode>) -> Option<u64> {
        next.filter(|next| next.code_hash == self.code_hash).map(|next| next.from_ms)
    }

    async fn announce(&self) -> Result<(u64, Option<String>), CliError> {
        self.by_owner()?;
        let call = Call::AnnounceUpgrade(AnnounceUpgradeArgs { code_hash: self.code_hash });
        let there = async || {
            let governed = self.admin.governed().await?;
            Ok(self.announced(governed.next_code.as_ref()).is_some())
        };
        let outcome = self.admin.call(&self.key, &call, there).await?;
        let governed = self.admin.governed().await?;
        let from_ms = self.announced(governed.next_code.as_ref()).ok_or_else(|| {
            CliError::new(ExitCode::Retryable, "another upgrade was announced meanwhile", "run it again")
        })?;
        Ok((from_ms, outcome.transaction))
    }

    async fn wait_until(&self, from_ms: u64) -> Result<(), CliError> {
        loop {
            let left = from_ms.saturating_sub(self.admin.head().await?.time_ms);
            if left == 0 {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(left.clamp(100, SHORT_NOTICE_MS))).await;
        }
    }

    async fn cancel(&self) -> Result<Upgraded, CliError> {
        self.by_owner()?;
        let Some(next) = &self.governed.next_code else {
            return Err(CliError::new(
                ExitCode::NotFound,
                "no upgrade is announced",
                "see `por contract params`",
            ));
        };
        let there = async || Ok(self.admin.governed().await?.next_code.is_none());
        let outcome = self.admin.call(&self.key, &Call::CancelUpgrade, there).await?;
        Ok(Upgraded {
            contract: self.contract.clone(),
            code_hash: next.code_hash,
            state: "cancelled",
            from_ms: None,
            transaction: outcome.transaction,
        })
    }

    fn by_owner(&self) -> Result<(), CliError> {
        if self.signer == self.governed.owner {
            return Ok(());
        }
        Err(CliError::new(
            ExitCode::WrongKey,
            format!("the key is {}'s, the contract's owner is {}", self.signer, self.governed.owner),
            format!("pass --key with the credentials of {}", self.governed.owner),
        ))
    }

    /// The first version had no announcements: its account's key replaces the code.
    async fn take_over(&self) -> Result<Upgraded, CliError> {
        if self.signer != self.contract {
            return Err(CliError::new(
                ExitCode::WrongKey,
                format!("version {} of the contract has no upgrades by notice", self.governed.state_version),
                format!("pass --key with the credentials of {}", self.contract),
            ));
        }
        let outcome = self.admin.replace(&self.key, &self.code).await?;
        self.migrate().await?;
        Ok(self.done("deployed", None, outcome.transaction))
    }

    /// Converts what one call could not.
    async fn migrate(&self) -> Result<(), CliError> {
        for _ in 0..MIGRATIONS {
            let error = match self.admin.governed().await {
                Ok(_) => return Ok(()),
                Err(error) => error,
            };
            if !matches!(error, ChainError::Contract { .. }) {
                return Err(error.into());
            }
            let call = Call::Migrate(MigrateArgs::default());
            let there = async || Ok(self.admin.governed().await.is_ok());
            self.admin.call(&self.key, &call, there).await?;
        }
        Err(CliError::new(
            ExitCode::Retryable,
            format!("the state of {} is not converted yet", self.contract),
            "run it again",
        ))
    }
}
