//! The ledger: durable payments a second and the time of a restart, by number of channels and by
//! history. Each life of the node is a process of its own that ends by a crash.

mod hub;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::figures::{Compared, median};
use crate::process::Usage;
use hub::{Hub, Start};

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Channels of the node; may be repeated. The first is what the others are compared with.
    #[arg(long, default_values_t = [1, 100, 10_000])]
    channels: Vec<usize>,
    /// Payments of each figure.
    #[arg(long, default_value_t = 20_000)]
    payments: u64,
    /// Payments that the node with the most channels has behind it before it crashes.
    #[arg(long, default_value_t = 1_000_000)]
    past: u64,
    /// Payments in flight.
    #[arg(long, default_value_t = 64)]
    inflight: u64,
    /// Rounds of each, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where the stores are made; a disk, not memory. Default: the directory for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// A node's life: pays, then crashes.
#[derive(Clone, Debug, clap::Args)]
pub struct LifeArgs {
    #[arg(long)]
    store: PathBuf,
    #[arg(long)]
    channels: usize,
    #[arg(long)]
    payments: u64,
    #[arg(long)]
    past: u64,
    #[arg(long)]
    inflight: u64,
}

/// A restart: opens the store and tells what that took.
#[derive(Clone, Debug, clap::Args)]
pub struct RestartArgs {
    #[arg(long)]
    store: PathBuf,
    #[arg(long)]
    channels: usize,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Life {
    /// Payments a second over one channel, before and after the past payments.
    one: f64,
    one_after: f64,
    /// Over all channels in turn, before them.
    all: f64,
    /// Of making the past payments.
    filling: f64,
    store_mib: f64,
    cpu_s: f64,
    peak_mib: f64,
}

#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
struct Restart {
    start: Start,
    /// From the process's first instruction of its own to a node that is ready to connect.
    total_ms: f64,
    peak_mib: f64,
}

pub fn run(args: &Args, as_json: bool) -> anyhow::Result<()> {
    ensure!(args.channels.iter().all(|&count| count > 0), "a node needs a channel");
    let most = args.channels.iter().copied().max().context("--channels is empty")?;
    let mut lives: Vec<Vec<(Life, Restart)>> = vec![Vec::new(); args.channels.len()];
    for round in 0..args.rounds {
        for at in 0..args.channels.len() {
            let at = if round % 2 == 0 { at } else { args.channels.len() - 1 - at };
            // A payment a channel, so that each has something to restore.
            let channels = args.channels[at];
            lives[at].push(life_and_restart(args, channels, channels as u64)?);
        }
    }
    for (lived, &channels) in lives.iter().zip(&args.channels) {
        print(args, channels, lived, (args.channels[0], &lives[0]), as_json);
    }
    // Once is enough: making the past is the longest part by far.
    print_past(args, most, &life_and_restart(args, most, args.past)?, as_json);
    Ok(())
}

fn life_and_restart(args: &Args, channels: usize, past: u64) -> anyhow::Result<(Life, Restart)> {
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let store = dir.path().join("ledger.redb");
    let channels = channels.to_string();
    let life = child(
        "ledger-life",
        &store,
        &[
            ("--channels", channels.clone()),
            ("--payments", args.payments.to_string()),
            ("--past", past.to_string()),
            ("--inflight", args.inflight.to_string()),
        ],
    )?;
    let restart = child("ledger-restart", &store, &[("--channels", channels)])?;
    Ok((life, restart))
}

/// Runs a hidden subcommand; its last line is its figures. It may end by a crash after that.
fn child<T: for<'de> Deserialize<'de>>(
    name: &str,
    store: &Path,
    options: &[(&str, String)],
) -> anyhow::Result<T> {
    let mut command = Command::new(std::env::current_exe()?);
    command.arg(name).arg("--store").arg(store).stderr(Stdio::inherit());
    for (option, value) in options {
        command.arg(option).arg(value);
    }
    let output = command.output()?;
    let text = String::from_utf8(output.stdout)?;
    let line = text.lines().last().with_context(|| format!("{name} told nothing: {}", output.status))?;
    Ok(serde_json::from_str(line)?)
}

pub fn life(args: &LifeArgs) -> anyhow::Result<()> {
    let (mut hub, _) = Hub::start(&args.store, args.channels)?;
    hub.connect()?;
    let one = hub.measure(args.payments, args.inflight, 1)?;
    let all = hub.measure(args.payments, args.inflight, args.channels)?;
    let filling = Instant::now();
    let each = args.past.div_ceil(args.channels as u64);
    hub.fill(each)?;
    let filling = (each * args.channels as u64) as f64 / filling.elapsed().as_secs_f64();
    let one_after = hub.measure(args.payments, args.inflight, 1)?;
    let usage = Usage::own()?;
    let life = Life {
        one,
        one_after,
        all,
        filling,
        store_mib: std::fs::metadata(&args.store)?.len() as f64 / 1024.0 / 1024.0,
        cpu_s: usage.cpu_s,
        peak_mib: usage.peak_mib,
    };
    println!("{}", serde_json::to_string(&life)?);
    // A crash: nothing is closed, the database has to be repaired.
    std::process::abort()
}

pub fn restart(args: &RestartArgs) -> anyhow::Result<()> {
    let began = Instant::now();
    let (hub, start) = Hub::start(&args.store, args.channels)?;
    let total_ms = began.elapsed().as_secs_f64() * 1e3;
    let restart = Restart { start, total_ms, peak_mib: Usage::own()?.peak_mib };
    drop(hub);
    println!("{}", serde_json::to_string(&restart)?);
    Ok(())
}

fn print(
    args: &Args,
    channels: usize,
    lives: &[(Life, Restart)],
    (base_channels, base): (usize, &[(Life, Restart)]),
    as_json: bool,
) {
    let rates = |lives: &[(Life, Restart)], figure: fn(&Life) -> f64| -> Vec<f64> {
        lives.iter().map(|(life, _)| figure(life)).collect()
    };
    let largest = |figure: fn(&Life) -> f64| rates(lives, figure).into_iter().fold(0.0, f64::max);
    let row = |variant: String, comparator_variant: String, figure: fn(&Life) -> f64| Compared {
        bench: "ledger",
        variant,
        comparator_name: "itself",
        comparator_variant,
        inflight: usize::try_from(args.inflight).ok(),
        metric: "rps",
        ours: rates(lives, figure),
        comparator: rates(base, figure),
        ..Compared::default()
    };
    let one = row(format!("1 of {channels} channels"), format!("1 of {base_channels}"), |life| life.one);
    let also = vec![
        ("cpu_s", json!(largest(|life| life.cpu_s))),
        ("peak_mib", json!(largest(|life| life.peak_mib))),
    ];
    Compared { also, ..one }.print(as_json);
    row(format!("{channels} channels in turn"), format!("{base_channels} in turn"), |life| life.all)
        .print(as_json);
    let variant = format!("restart after a crash, {channels} channels");
    print_restart(variant, lives, as_json);
}

fn print_past(args: &Args, channels: usize, lived: &(Life, Restart), as_json: bool) {
    let after = Compared {
        bench: "ledger",
        variant: format!("1 of {channels} channels after {} payments", args.past),
        comparator_name: "itself",
        comparator_variant: "before them".to_owned(),
        inflight: usize::try_from(args.inflight).ok(),
        metric: "rps",
        ours: vec![lived.0.one_after],
        comparator: vec![lived.0.one],
        also: vec![("filled_at_rps", json!(lived.0.filling.round()))],
        ..Compared::default()
    };
    after.print(as_json);
    let variant = format!("restart after a crash, {channels} channels, {} past payments", args.past);
    print_restart(variant, std::slice::from_ref(lived), as_json);
}

fn print_restart(variant: String, lives: &[(Life, Restart)], as_json: bool) {
    let figures = |figure: fn(&(Life, Restart)) -> f64| -> Vec<f64> { lives.iter().map(figure).collect() };
    let middle = |figure| json!(median(&figures(figure)).round());
    let row = Compared {
        bench: "ledger",
        variant,
        metric: "restart_ms",
        less_is_better: true,
        ours: figures(|(_, restart)| restart.total_ms),
        also: vec![
            ("open_ms", middle(|(_, restart)| restart.start.open_ms)),
            ("load_ms", middle(|(_, restart)| restart.start.load_ms)),
            ("ready_ms", middle(|(_, restart)| restart.start.ready_ms)),
            ("store_mib", middle(|(life, _)| life.store_mib)),
            ("peak_mib", middle(|(_, restart)| restart.peak_mib)),
        ],
        ..Compared::default()
    };
    row.print(as_json);
}
