//! The command line of `por`. Standard output carries data only; an error is two lines on standard
//! error, what happened and what to do, and the exit code of [`crate::exit::ExitCode`].

mod args;
mod contract;
mod init;
#[cfg(feature = "localnet")]
mod localnet;
mod news;
mod output;
mod request;
mod run;
mod tables;
mod verbs;
mod watch;

use std::ffi::OsString;
use std::path::PathBuf;

use clap::Parser as _;
use clap::error::ErrorKind;

use crate::client::Client;
use crate::exit::{CliError, ExitCode, tell};
use crate::home::Home;

pub use args::{Args, Command, NodeArgs};
use output::Output;

/// Runs `por` with the arguments of this process.
pub fn main() -> std::process::ExitCode {
    main_from(std::env::args_os()).into()
}

/// Runs `por` with the given arguments, the first being the name of the program. For programs that
/// carry `por` inside; call it from outside of any async runtime.
pub fn main_from(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    // Also for errors of the arguments themselves.
    let json = args.iter().any(|arg| arg == "--json");
    let result = match Args::try_parse_from(args) {
        Ok(args) => start(args),
        Err(error) if matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion) => {
            // Whoever closed standard output has read enough.
            let _ = error.print();
            return ExitCode::Ok;
        }
        Err(error) => Err(usage(&error)),
    };
    match result {
        Ok(()) => ExitCode::Ok,
        Err(error) => {
            if json {
                tell(error.to_json());
            } else {
                tell(&error);
            }
            error.code
        }
    }
}

fn usage(error: &clap::Error) -> CliError {
    let missing = [ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, ErrorKind::MissingSubcommand];
    if missing.contains(&error.kind()) {
        return CliError::usage("a command is missing", "see `por --help`");
    }
    let text = error.to_string();
    let what = text.split("\n\n").next().unwrap_or_default();
    let what = what.trim_start_matches("error: ").trim();
    CliError::usage(what, "see `por --help`")
}

fn start(args: Args) -> Result<(), CliError> {
    let runtime = crate::runtime::executor().build().map_err(|error| CliError::io("starting", &error))?;
    let result = runtime.block_on(dispatch(args));
    // Tasks that still wait for a peer or a disk must not hold the process up.
    runtime.shutdown_timeout(std::time::Duration::from_secs(2));
    result
}

/// What every command has at hand.
struct Context {
    home: Home,
    output: Output,
    log: Option<String>,
    password_file: Option<PathBuf>,
}

impl Context {
    fn client(&self) -> Result<Client, CliError> {
        Ok(Client::from_home(self.home.data_dir())?)
    }

    fn password(&self) -> crate::keys::PasswordSource {
        crate::keys::PasswordSource { file: self.password_file.clone() }
    }
}

async fn dispatch(args: Args) -> Result<(), CliError> {
    let context = Context {
        home: Home::locate(args.home.as_deref())?,
        output: Output { json: args.json },
        log: args.log,
        password_file: args.password_file,
    };
    // These end by a signal in their own, orderly way.
    match args.command {
        Command::Run(run) => return run::run(&context, run).await,
        Command::Watch(args) => return watch::watch(&context, args).await,
        Command::Localnet(local) => return run_localnet(&context, local).await,
        Command::News(args) if args.follow => return news::follow(&context, args.since).await,
        _ => {}
    }
    let fix = match &args.command {
        Command::Init(_) => "run the same command again; nothing was made",
        // The daemon and the chain go on with what they were asked for.
        _ => {
            "see `por status` and `por channel list` before you repeat it: what was asked for may still be done"
        }
    };
    tokio::select! {
        // First listened for: until then a signal ends the process with whatever it has begun to write.
        biased;
        _ = tokio::signal::ctrl_c() => Err(CliError::new(ExitCode::Interrupted, "interrupted", fix)),
        result = verb(&context, args.command) => result,
    }
}

async fn verb(context: &Context, command: Command) -> Result<(), CliError> {
    match command {
        Command::Init(args) => init::init(context, *args).await,
        Command::Register { stake } => verbs::register(context, stake).await,
        Command::Stake { amount } => verbs::stake(context, amount).await,
        Command::Unstake { amount } => verbs::unstake(context, amount).await,
        Command::Withdraw { amount } => verbs::withdraw(context, amount).await,
        Command::Status => verbs::status(context).await,
        Command::Peers => verbs::peers(context).await,
        Command::News(args) => news::news(context, args.since).await,
        Command::Channel { action } => verbs::channel(context, action).await,
        Command::Route(args) => request::route(context, args).await,
        Command::Request(args) => request::request(context, args).await,
        Command::Contract { action } => contract::contract(context, action).await,
        Command::Run(_) | Command::Watch(_) | Command::Localnet(_) => Ok(()),
    }
}

#[cfg(feature = "localnet")]
async fn run_localnet(context: &Context, args: args::LocalnetArgs) -> Result<(), CliError> {
    localnet::localnet(context, args).await
}

#[cfg(not(feature = "localnet"))]
async fn run_localnet(_context: &Context, _args: args::LocalnetArgs) -> Result<(), CliError> {
    Err(CliError::usage("this por was built without a local chain", "build it with `--features localnet`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_arguments_say_what_is_wrong() {
        let said = |args: &[&str]| usage(&Args::try_parse_from(args).expect_err("wrong")).message;
        assert_eq!(said(&["por"]), "a command is missing");
        assert_eq!(said(&["por", "channel"]), "a command is missing");
        assert!(said(&["por", "--bogus"]).contains("--bogus"));
        assert!(said(&["por", "stake", "much"]).contains("much"));
    }
}
