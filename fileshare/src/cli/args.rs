//! The arguments of `fileshare`.

use std::{path::PathBuf, time::Duration};

use clap::{Args as ClapArgs, Parser, Subcommand};
use por_node::cli::NodeArgs;
use por_types::{NodeKey, Yocto};

use crate::{dir::Address, id::ContentId, net::parse_peer};

const AFTER: &str = "\
Exit codes: 0 ok, 1 other, 2 usage, 3 no route, 4 not found, 5 try again, 6 unreachable,
7 refused for good, 8 budget, 9 disk full, 10 deadline, 11 wrong key, 12 port in use,
13 exists, 14 corrupt store, 15 foreign version, 32 verification failed,
40 edge severed, 130 interrupted.";

/// Files by their hash, paid per byte, over Proof of Response.
///
/// `put` gives a file an id, `serve` offers what was put, `get` fetches by id from
/// whoever offers it, verifies every byte, and continues where it stopped. `get`,
/// `quote` and `serve` talk to the daemon that `por run` or `fileshare node` starts.
#[derive(Debug, Parser)]
#[command(name = "fileshare", version, after_help = AFTER)]
pub struct Args {
    /// Home of the daemon, as with `por --home` or POR_HOME; its folder `fileshare` holds the store.
    #[arg(long, global = true, value_name = "DIR")]
    pub home: Option<PathBuf>,
    /// The store, if not in the home.
    #[arg(long, global = true, env = "FILESHARE_STORE", value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Results as JSON on stdout; progress, notes and errors as JSON lines on stderr.
    #[arg(long, global = true)]
    pub json: bool,
    /// No progress.
    #[arg(long, short = 'Q', global = true)]
    pub quiet: bool,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Hash a file or directory into the store and pin it; prints its id.
    Put(Put),
    /// Fetch a file or directory.
    Get(Box<Get>),
    /// Fetch a file to stdout.
    Cat(Cat),
    /// List a directory.
    Ls(What),
    /// Show size, kind and providers of some content.
    Stat(What),
    /// Show what fetching would cost, per provider. Costs no more than asking them.
    Quote(What),
    /// Keep items from `gc`.
    #[command(subcommand)]
    Pin(Pin),
    /// Forget items. Files that were put without --copy stay where they are.
    Rm {
        #[arg(required = true, value_name = "ID")]
        ids: Vec<ContentId>,
    },
    /// Remove what is not pinned, and the litter of processes that died.
    Gc,
    /// Offer what is in the store until interrupted.
    Serve(Serve),
    /// Run the daemon, as `por run` does, with files in it: it serves the store by itself, and writes
    /// what this user's `get` asks for without a copy in between.
    Node(Node),
    /// Watch a file travel through paid relays, and what becomes of a server that dies: a local chain
    /// and five nodes, on this machine, in about a minute.
    #[cfg(feature = "demo")]
    Demo(crate::demo::Demo),
    /// Runs a node of the demo.
    #[cfg(feature = "demo")]
    #[command(name = crate::demo::cluster::NODE_COMMAND, hide = true)]
    DemoNode {
        /// Serve the store from within at this price.
        #[arg(long, value_name = "P/GiB", value_parser = parse_price)]
        price: Option<Yocto>,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Put {
    /// A file, a directory with -r, or - for stdin.
    #[arg(value_name = "PATH")]
    pub path: PathBuf,
    /// Put a directory with everything below it.
    #[arg(long, short)]
    pub recursive: bool,
    /// Print the id, but change nothing.
    #[arg(long, short = 'n')]
    pub only_hash: bool,
    /// Keep a copy in the store; otherwise the file must stay where and as it is.
    #[arg(long)]
    pub copy: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Get {
    /// ID, or ID/path for something in a directory.
    #[arg(value_name = "ID[/path]")]
    pub address: Address,
    /// Where to write; - for stdout. By default the last name of the path, or the id.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Only the bytes from A up to B (not included) of a file; either may be left out.
    #[arg(long, value_name = "A-B", value_parser = parse_range, allow_hyphen_values = true)]
    pub range: Option<(u64, Option<u64>)>,
    /// Only files of a directory that match: * and ? within a name, ** across names.
    #[arg(long, value_name = "GLOB")]
    pub include: Vec<String>,
    /// Show the price and stop.
    #[arg(long)]
    pub dry_run: bool,
    /// Replace what is there.
    #[arg(long)]
    pub overwrite: bool,
    /// Offer it to others afterwards, from where it was written.
    #[arg(long)]
    pub share: bool,
    /// End when stdin does, for programs that start a get of their own.
    #[arg(long, hide = true)]
    pub with_parent: bool,
    #[command(flatten)]
    pub pay: Pay,
    #[command(flatten)]
    pub ask: Ask,
}

#[derive(Debug, ClapArgs)]
pub struct Cat {
    /// ID, or ID/path for something in a directory.
    #[arg(value_name = "ID[/path]")]
    pub address: Address,
    /// Only the bytes from A up to B (not included); either may be left out.
    #[arg(long, value_name = "A-B", value_parser = parse_range, allow_hyphen_values = true)]
    pub range: Option<(u64, Option<u64>)>,
    #[command(flatten)]
    pub pay: Pay,
    #[command(flatten)]
    pub ask: Ask,
}

#[derive(Debug, ClapArgs)]
pub struct What {
    /// ID, or ID/path for something in a directory.
    #[arg(value_name = "ID[/path]")]
    pub address: Address,
    #[command(flatten)]
    pub ask: Ask,
}

/// What may be spent.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Pay {
    /// Most per GiB for a provider and the way to it, like `0.01NEAR/GiB`.
    #[arg(long, value_name = "P", value_parser = parse_price)]
    pub max_price: Option<Yocto>,
    /// Most to spend in all, like `0.5NEAR`. Without it the price is asked about.
    #[arg(long, value_name = "S", value_parser = parse_amount)]
    pub max_spend: Option<Yocto>,
    /// Do not ask: agree to the price that is shown, and to twice that if providers fail.
    #[arg(long, short)]
    pub yes: bool,
}

/// Whom to ask, and for how long.
#[derive(Clone, Debug, Default, ClapArgs)]
pub struct Ask {
    /// Ask this provider only (node key or peer id); may be repeated.
    #[arg(long, value_name = "PEER", value_parser = parse_peer)]
    pub from: Vec<NodeKey>,
    /// When to give up, like `90s` or `2h`. What was verified is kept.
    #[arg(long, value_name = "T", value_parser = humantime::parse_duration)]
    pub deadline: Option<Duration>,
    /// Most to spend on finding out who has it, what it is and what it costs, before a price is agreed to
    /// [default: 0.01NEAR].
    #[arg(long, value_name = "S", value_parser = parse_amount)]
    pub max_ask: Option<Yocto>,
    /// Windows in flight at a time.
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub in_flight: u16,
    /// MiB per window.
    #[arg(long, value_name = "MIB", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=8))]
    pub window: u8,
}

#[derive(Debug, Subcommand)]
pub enum Pin {
    /// Pin items of the store.
    Add {
        #[arg(required = true, value_name = "ID")]
        ids: Vec<ContentId>,
    },
    /// List what is pinned.
    Ls,
    /// Take pins away.
    Rm {
        #[arg(required = true, value_name = "ID")]
        ids: Vec<ContentId>,
    },
}

#[derive(Debug, ClapArgs)]
pub struct Serve {
    /// Price of what is served, like `0.01NEAR/GiB`.
    #[arg(long, value_name = "P/GiB", default_value = "0", value_parser = parse_price)]
    pub price: Yocto,
    /// End when stdin does, for programs that start a server of their own.
    #[arg(long, hide = true)]
    pub with_parent: bool,
}

#[derive(Debug, ClapArgs)]
pub struct Node {
    /// Price of what is served, like `0.01NEAR/GiB`.
    #[arg(long, value_name = "P/GiB", default_value = "0", value_parser = parse_price)]
    pub price: Yocto,
    /// File whose first line is the password of the keys [else POR_PASSWORD, else asked for].
    #[arg(long, value_name = "FILE")]
    pub password_file: Option<PathBuf>,
    /// As with `por run`: these override the settings of the home.
    #[command(flatten)]
    pub node: NodeArgs,
}

/// `0.01NEAR/GiB`, the unit of length optional.
fn parse_price(text: &str) -> Result<Yocto, String> {
    let lower = text.to_ascii_lowercase();
    let amount = lower.strip_suffix("/gib").unwrap_or(&lower);
    parse_amount(amount)
}

fn parse_amount(text: &str) -> Result<Yocto, String> {
    Yocto::parse_human(text).map_err(|error| error.to_string())
}

/// `A-B`, `A-` or `-B`.
fn parse_range(text: &str) -> Result<(u64, Option<u64>), String> {
    let wrong = || format!("'{text}' is not a range of bytes like 0-1024");
    let (start, end) = text.split_once('-').ok_or_else(wrong)?;
    let start = if start.is_empty() { 0 } else { start.parse().map_err(|_| wrong())? };
    let end = if end.is_empty() { None } else { Some(end.parse().map_err(|_| wrong())?) };
    if end.is_some_and(|end| end < start) {
        return Err(format!("the range '{text}' ends before it starts"));
    }
    Ok((start, end))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definitions_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn ranges() {
        assert_eq!(parse_range("5-10"), Ok((5, Some(10))));
        assert_eq!(parse_range("5-"), Ok((5, None)));
        assert_eq!(parse_range("-10"), Ok((0, Some(10))));
        assert_eq!(parse_range("7-7"), Ok((7, Some(7))));
        for wrong in ["", "5", "a-b", "9-5", "1-2-3", "99999999999999999999-"] {
            assert!(parse_range(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_range_without_a_start_is_no_option() {
        let id = "0".repeat(64);
        for command in ["get", "cat"] {
            let args = Args::try_parse_from(["fileshare", command, &id, "--range", "-10"]).expect("parses");
            let range = match args.command {
                Command::Get(get) => get.range,
                Command::Cat(cat) => cat.range,
                _ => None,
            };
            assert_eq!(range, Some((0, Some(10))));
        }
    }

    #[test]
    fn prices() {
        assert_eq!(parse_price("0.01NEAR/GiB"), Ok(Yocto::millinear(10)));
        assert_eq!(parse_price("0.01 near/gib"), Ok(Yocto::millinear(10)));
        assert_eq!(parse_price("0"), Ok(Yocto::ZERO));
        assert!(parse_price("cheap").is_err());
        assert!(parse_price("0.5").is_err(), "an amount needs its unit");
    }
}
