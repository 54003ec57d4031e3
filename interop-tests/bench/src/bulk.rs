//! A large file from disk to disk, one process per node, on loopback.

mod blobs;
pub mod ours;
mod stream;

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, ensure};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::{Child, Command};

use crate::figures::Compared;
use ours::{FAR, NEAR, Network, Run, run as run_command};

pub use ours::NAME as FILESHARE;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Size of the file, MiB.
    #[arg(long, default_value_t = 1024)]
    mib: u64,
    /// Rounds of each, in turn.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Where files and stores are made; needs four times the file. Default: the directory for
    /// temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Nodes of `por run` with a server and a getter beside them, instead of `fileshare node`.
    #[arg(long)]
    separate: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Other {
    Blobs,
    Stream,
}

/// Serves a file until stdin is closed; tells on stdout where.
#[derive(Clone, Debug, clap::Args)]
pub struct ServeArgs {
    other: Other,
    #[arg(long)]
    file: PathBuf,
    #[arg(long)]
    store: PathBuf,
}

#[derive(Clone, Debug, clap::Args)]
pub struct GetArgs {
    other: Other,
    #[arg(long)]
    offer: String,
    #[arg(long)]
    store: PathBuf,
    #[arg(long)]
    target: PathBuf,
}

pub async fn serve(args: &ServeArgs) -> anyhow::Result<()> {
    let (ended, end) = tokio::sync::oneshot::channel::<()>();
    // The parent holds the other end of stdin and never writes.
    std::thread::spawn(move || {
        let _ = std::io::Read::read(&mut std::io::stdin(), &mut [0]);
        drop(ended);
    });
    let end = async {
        let _ = end.await;
    };
    match args.other {
        Other::Blobs => blobs::serve(&args.file, &args.store, end).await,
        Other::Stream => stream::serve(&args.file, end).await,
    }
}

pub async fn get(args: &GetArgs) -> anyhow::Result<()> {
    match args.other {
        Other::Blobs => blobs::get(&args.offer, &args.store, &args.target).await,
        Other::Stream => stream::get(&args.offer, &args.target).await,
    }
}

/// A serving process of another implementation.
struct Server {
    other: Other,
    child: Child,
    offer: String,
}

impl Server {
    async fn start(other: Other, dir: &Path, file: &Path) -> anyhow::Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bulk-serve", name(other), "--file"]).arg(file);
        command.arg("--store").arg(dir.join(format!("{}-server", name(other))));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
        let mut child = command.spawn()?;
        let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
        let offer = lines.next_line().await?.with_context(|| format!("{} does not serve", name(other)))?;
        Ok(Server { other, child, offer })
    }

    async fn get(&self, dir: &Path, target: &Path) -> anyhow::Result<Run> {
        let store = dir.join(format!("{}-getter", name(self.other)));
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["bulk-get", name(self.other), "--offer", &self.offer]);
        command.arg("--store").arg(&store).arg("--target").arg(target);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        let server = ("serve".to_owned(), self.child.id().context("the server has ended")?);
        let run = run_command("get", command, &[server]).await?;
        if store.exists() {
            std::fs::remove_dir_all(&store)?;
        }
        Ok(run)
    }
}

fn name(other: Other) -> &'static str {
    match other {
        Other::Blobs => "blobs",
        Other::Stream => "stream",
    }
}

/// Bytes that neither compress nor repeat, on disk; their hash.
fn make_file(path: &Path, mib: u64) -> anyhow::Result<blake3::Hash> {
    let mut file = std::fs::File::create(path)?;
    let mut hasher = blake3::Hasher::new();
    let mut reader = blake3::Hasher::new().update(b"por-bench bulk").finalize_xof();
    let mut piece = vec![0; 1 << 20];
    for _ in 0..mib {
        reader.fill(&mut piece);
        hasher.update(&piece);
        file.write_all(&piece)?;
    }
    file.sync_all()?;
    Ok(hasher.finalize())
}

fn hash_of(path: &Path) -> anyhow::Result<blake3::Hash> {
    let mut hasher = blake3::Hasher::new();
    let file = std::fs::File::open(path).with_context(|| format!("nothing at {}", path.display()))?;
    hasher.update_reader(file)?;
    Ok(hasher.finalize())
}

/// Runs of the four, by round.
#[derive(Default)]
struct Runs {
    near: Vec<Run>,
    far: Vec<Run>,
    blobs: Vec<Run>,
    stream: Vec<Run>,
}

pub async fn run(args: &Args, as_json: bool) -> anyhow::Result<()> {
    ensure!(args.mib > 0 && args.rounds > 0, "nothing to do");
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let (file, target) = (dir.path().join("file"), dir.path().join("copy"));
    let hash = make_file(&file, args.mib)?;
    let network = Network::start(dir.path(), &file, args.separate).await?;
    let blobs = Server::start(Other::Blobs, dir.path(), &file).await?;
    let stream = Server::start(Other::Stream, dir.path(), &file).await?;
    let mut runs = Runs::default();
    for round in 0..args.rounds {
        let order = if round % 2 == 0 { [0, 1, 2, 3] } else { [3, 2, 1, 0] };
        for which in order {
            match which {
                0 => runs.near.push(ours_once(&network, NEAR, &target).await?),
                1 => runs.blobs.push(blobs.get(dir.path(), &target).await?),
                2 => runs.far.push(ours_once(&network, FAR, &target).await?),
                _ => runs.stream.push(stream.get(dir.path(), &target).await?),
            }
            ensure!(hash_of(&target)? == hash, "the copy differs from the file");
            std::fs::remove_file(&target)?;
        }
    }
    network.stop().await?;
    print(args.mib, &runs, as_json);
    Ok(())
}

async fn ours_once(network: &Network, row: &[&str], target: &Path) -> anyhow::Result<Run> {
    let before = network.paid(row).await?;
    let run = run_command("get", network.get(row, target), &network.processes(row)?).await?;
    ensure!(network.paid(row).await? > before, "the file was not paid for");
    Ok(run)
}

fn print(mib: u64, runs: &Runs, as_json: bool) {
    let bytes = (mib << 20) as f64;
    let rate = |runs: &[Run]| runs.iter().map(|run| bytes / 1e6 / run.seconds).collect::<Vec<f64>>();
    let cpu = |runs: &[Run]| crate::figures::median(&runs.iter().map(|run| run.cpu_s).collect::<Vec<f64>>());
    for (variant, ours) in [("direct", &runs.near), ("relay2", &runs.far)] {
        for (comparator_name, theirs) in [("iroh-blobs", &runs.blobs), ("libp2p-stream", &runs.stream)] {
            let compared = Compared {
                bench: "bulk",
                variant: variant.to_owned(),
                comparator_name,
                comparator_variant: "direct".to_owned(),
                metric: "mb_per_s",
                ours: rate(ours),
                comparator: rate(theirs),
                also: vec![
                    ("mib", json!(mib)),
                    ("cpu_s", json!(cpu(ours))),
                    ("comparator_cpu_s", json!(cpu(theirs))),
                    ("peak_mib", json!(peaks(ours))),
                    ("comparator_peak_mib", json!(peaks(theirs))),
                ],
                ..Compared::default()
            };
            compared.print(as_json);
        }
    }
}

/// The most memory that each process had in any of the runs, MiB.
fn peaks(runs: &[Run]) -> BTreeMap<&str, f64> {
    let mut all = BTreeMap::new();
    for (name, peak) in runs.iter().flat_map(|run| run.peaks.iter()) {
        let most: &mut f64 = all.entry(name.as_str()).or_default();
        *most = most.max(peak.round());
    }
    all
}
