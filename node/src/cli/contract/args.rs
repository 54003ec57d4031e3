//! Flags of `por contract`.

use std::path::PathBuf;

use clap::Subcommand;
use por_types::AccountId;

use super::params::ParamArgs;

#[derive(Debug, Subcommand)]
pub enum ContractAction {
    /// Put the contract's code on its account; `init` does both.
    Deploy(DeployArgs),
    /// Initialise the contract with the network's parameters; deploys first if there is no code.
    Init(Box<InitArgs>),
    /// Announce new code, and deploy it once its notice is over.
    Upgrade(UpgradeArgs),
    /// Show the network's parameters, or set them with notice.
    Params(Box<ParamsArgs>),
    /// Is it the contract it should be? Code, version, chain, parameters, keys, books, checks.
    Check(CheckArgs),
    /// Delete the keys of the contract's account: from then on code changes with notice only.
    Lock(LockArgs),
}

/// Which contract.
#[derive(Debug, clap::Args)]
pub struct TargetArgs {
    /// `localnet`, `testnet`, or the path of a network file [default: the network of --home].
    #[arg(long)]
    pub network: Option<String>,
    /// Account of the contract; needed unless the network file names it.
    #[arg(long)]
    pub contract: Option<AccountId>,
    /// RPC endpoint; may be repeated.
    #[arg(long, value_name = "URL")]
    pub rpc: Vec<String>,
}

/// Who pays for the contract's account.
#[derive(Debug, clap::Args)]
pub struct FundArgs {
    /// Credentials of the contract's account, as near-cli writes them.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Make a new key for the contract's account and write it to the --key file.
    #[arg(long)]
    pub new_key: bool,
    /// Credentials of an account that transfers what is missing for storage, and creates the
    /// contract's account if that is a new one below it. A local chain has a faucet for this.
    #[arg(long, value_name = "FILE")]
    pub funder: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct DeployArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub fund: FundArgs,
    /// Other code than the one this program carries.
    #[arg(long, value_name = "FILE")]
    pub code: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct InitArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    #[command(flatten)]
    pub fund: FundArgs,
    /// Other code than the one this program carries.
    #[arg(long, value_name = "FILE")]
    pub code: Option<PathBuf>,
    /// May change parameters and code, with notice [default: the contract's own account].
    #[arg(long)]
    pub owner: Option<AccountId>,
    /// Receives what is slashed and forfeited [default: the owner].
    #[arg(long)]
    pub treasury: Option<AccountId>,
    /// Account whose node is the genesis anchor, from which others become attached [default: the
    /// owner].
    #[arg(long)]
    pub anchor: Option<AccountId>,
    /// Lift the bounds on parameters and use windows of seconds; nodes refuse such a contract
    /// outside of a local chain.
    #[arg(long)]
    pub test: bool,
    #[command(flatten)]
    pub params: ParamArgs,
}

#[derive(Debug, clap::Args)]
pub struct UpgradeArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Credentials: of the owner to announce or cancel, of anyone to deploy what was announced, of
    /// the contract's account to bring a contract of an earlier version up to date.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// Other code than the one this program carries.
    #[arg(long, value_name = "FILE")]
    pub code: Option<PathBuf>,
    /// Take an announcement back.
    #[arg(long)]
    pub cancel: bool,
    /// Stay until the notice is over, however long it is.
    #[arg(long)]
    pub wait: bool,
}

#[derive(Debug, clap::Args)]
pub struct ParamsArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Credentials of the owner; needed to set something.
    #[arg(long, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Name another owner, at once.
    #[arg(long, value_name = "ACCOUNT")]
    pub owner: Option<AccountId>,
    /// Name another treasury, at once.
    #[arg(long, value_name = "ACCOUNT")]
    pub treasury: Option<AccountId>,
    #[command(flatten)]
    pub params: ParamArgs,
}

#[derive(Debug, clap::Args)]
pub struct CheckArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Compare with other code than the one this program carries.
    #[arg(long, value_name = "FILE")]
    pub code: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
pub struct LockArgs {
    #[command(flatten)]
    pub target: TargetArgs,
    /// Credentials of the contract's account.
    #[arg(long, value_name = "FILE")]
    pub key: PathBuf,
    /// There is no way back: say that you know.
    #[arg(long)]
    pub yes: bool,
}
