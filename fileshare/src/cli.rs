//! The command line: stdout carries data or ids only, everything else goes to stderr.

mod args;
mod get;
mod halt;
mod local;
mod network;

use std::{borrow::Cow, io::IsTerminal, path::PathBuf, process::ExitCode};

use clap::{Parser, error::ErrorKind};
use por_node::{exit::tell, home::Home};
use serde::Serialize;

pub use self::args::{Args, Command};
#[cfg(feature = "demo")]
pub(crate) use self::network::{ended, parent_gone, run_node};
use crate::{
    exit::{Exit, Failure, shown},
    fetch::Stop,
    progress::{self, Style},
    store::Store,
};

/// Most characters of what went wrong.
const LONGEST: usize = 2000;

/// The store's folder within a home.
pub const STORE_FOLDER: &str = "fileshare";

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let args = match Args::try_parse() {
        Ok(args) => args,
        Err(error) if !error.use_stderr() => {
            let _ = error.print();
            return Exit::Ok.into();
        }
        // Also for errors of the arguments themselves.
        Err(error) => return report(&usage(&error), std::env::args_os().any(|arg| arg == "--json")),
    };
    let daemon = matches!(args.command, Command::Node(_));
    // Kademlia calls it a failure when a node begins without peers.
    let running = "warn,libp2p_kad=error,por_node=info,libp2p_por=info,por_fileshare=info";
    start_log(if daemon { running } else { "warn" });
    let json = args.json;
    let runtime = match por_node::runtime::executor().build() {
        Ok(runtime) => runtime,
        Err(error) => return report(&Failure::io("starting", &error), json),
    };
    let result = runtime.block_on(run(args));
    // Blocking work that was given up must not keep the process alive.
    runtime.shutdown_background();
    match result {
        Ok(()) => Exit::Ok.into(),
        Err(failure) => report(&failure, json),
    }
}

/// Wrong arguments, in one line and one line what to do.
fn usage(error: &clap::Error) -> Failure {
    let fix = "see `fileshare --help`, or --help after a command";
    let missing = [ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand, ErrorKind::MissingSubcommand]
        .contains(&error.kind());
    if missing {
        return Failure::new(Exit::Usage, "a command is missing", fix);
    }
    let text = error.to_string();
    let what = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
    Failure::new(Exit::Usage, what.split_whitespace().collect::<Vec<_>>().join(" "), fix)
}

/// Runs one command to its end.
pub async fn run(args: Args) -> Result<(), Failure> {
    let context = Context::new(&args)?;
    match args.command {
        Command::Put(put) => local::put(&context, put).await,
        Command::Get(get) => get::get(&context, get).await,
        Command::Cat(cat) => get::cat(&context, cat).await,
        Command::Ls(what) => network::ls(&context, what).await,
        Command::Stat(what) => network::stat(&context, what).await,
        Command::Quote(what) => network::quote(&context, what).await,
        Command::Pin(pin) => local::pin(&context, pin).await,
        Command::Rm { ids } => local::rm(&context, ids).await,
        Command::Gc => local::gc(&context).await,
        Command::Serve(serve) => network::serve(&context, serve).await,
        #[cfg(feature = "demo")]
        Command::Demo(demo) => crate::demo::run(&context, demo).await,
        Command::Node(node) => network::node(&context, node).await,
        #[cfg(feature = "demo")]
        Command::DemoNode { price } => crate::demo::cluster::run_node(&context, price).await,
    }
}

/// What every command needs.
pub(crate) struct Context {
    /// As it was named; settings may lie elsewhere than data.
    pub home_flag: Option<PathBuf>,
    pub home: PathBuf,
    pub store_folder: PathBuf,
    pub json: bool,
    pub style: Style,
    pub stop: Stop,
}

impl Context {
    fn new(args: &Args) -> Result<Self, Failure> {
        let home = Home::locate(args.home.as_deref())?.data_dir().to_owned();
        let store_folder = args.store.clone().unwrap_or_else(|| home.join(STORE_FOLDER));
        let style = Style::choose(args.json, args.quiet);
        let home_flag = args.home.clone();
        Ok(Context { home_flag, home, store_folder, json: args.json, style, stop: Stop::default() })
    }

    /// The store, made if there is none.
    pub async fn store(&self) -> Result<Store, Failure> {
        let folder = self.store_folder.clone();
        Ok(crate::net::blocking(move || Store::open(&folder)).await??)
    }

    /// A line for people on stderr; as an event with `--json`.
    pub fn say(&self, text: &str) {
        if self.json {
            progress::event(&serde_json::json!({ "event": "note", "text": text }));
        } else {
            text.lines().for_each(|line| tell(shown(line)));
        }
    }

    /// A result: JSON on stdout with `--json`, the text otherwise.
    pub fn print(&self, text: &str, json: &impl Serialize) -> Result<(), Failure> {
        let line = if self.json {
            serde_json::to_string(json).map_err(|error| Failure::new(Exit::Other, error.to_string(), ""))?
        } else {
            text.to_owned()
        };
        print_line(&line)
    }
}

/// A line on stdout. Whoever closed it has read enough.
pub(crate) fn print_line(line: &str) -> Result<(), Failure> {
    use std::io::Write;
    let mut out = std::io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => Err(Failure::io("output", &error)),
        _ => Ok(()),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    event: &'static str,
    error: &'a str,
    fix: &'a str,
    code: &'static str,
    exit: u8,
}

fn report(failure: &Failure, json: bool) -> ExitCode {
    if json {
        progress::event(&Report {
            event: "error",
            error: &failure.what,
            fix: &failure.fix,
            code: failure.exit.name(),
            exit: failure.exit.code(),
        });
    } else {
        // Names in it may be of a listing that strangers made.
        tell(format_args!("fileshare: {}", shown(&shortened(&failure.what))));
        if !failure.fix.is_empty() {
            tell(format_args!("fix: {}", shown(&failure.fix)));
        }
    }
    failure.exit.into()
}

/// Names may be as long as a listing.
fn shortened(text: &str) -> Cow<'_, str> {
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => Cow::Owned(format!("{} ...", &text[..end])),
        None => Cow::Borrowed(text),
    }
}

/// Logs go to stderr, `default` unless `FILESHARE_LOG` says otherwise.
fn start_log(default: &str) {
    let filter = tracing_subscriber::EnvFilter::try_from_env("FILESHARE_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new(default));
    // A log that cannot be written ends nothing: told of on standard error too, the task that logs would panic.
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    // Files are read without a terminal's colours.
    let _ = builder.with_ansi(std::io::stderr().is_terminal()).try_init();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wrong_arguments_are_one_line_and_a_fix() {
        for args in [
            vec!["fileshare"],
            vec!["fileshare", "pin"],
            vec!["fileshare", "--bogus"],
            vec!["fileshare", "get", "no id"],
            vec!["fileshare", "serve", "--price", "cheap"],
            vec!["fileshare", "put"],
        ] {
            let failure = usage(&Args::try_parse_from(&args).expect_err("wrong"));
            assert_eq!(failure.exit, Exit::Usage, "{args:?}");
            assert!(
                !failure.what.contains('\n') && !failure.what.contains("Usage"),
                "{args:?}: {}",
                failure.what
            );
            assert!(!failure.what.is_empty() && failure.fix.contains("--help"), "{args:?}");
        }
        let none = usage(&Args::try_parse_from(["fileshare"]).expect_err("no command"));
        assert_eq!(none.what, "a command is missing");
    }
}
