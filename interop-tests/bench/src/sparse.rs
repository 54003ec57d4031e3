//! `fileshare put` and `get` of a large sparse file: interrupted, and resumed.

use std::fs::File;
use std::io::Read as _;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::bulk::ours::{NEAR, Network};

/// Bytes of data in each stretch.
const DATA: usize = 1 << 20;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Size of the file, GiB; what it takes on disk is 0.5 % of it for the hash tree, twice.
    #[arg(long, default_value_t = 50)]
    gib: u64,
    /// Stretches of data of a MiB, spread over the file.
    #[arg(long, default_value_t = 64)]
    stretches: u64,
    /// Interrupted when so much of it is there, percent; what is under way then still arrives.
    #[arg(long, default_value_t = 88, value_parser = clap::value_parser!(u64).range(1..100))]
    until: u64,
    /// Where the files are made. Default: the directory for temporary files.
    #[arg(long)]
    dir: Option<PathBuf>,
}

fn make(path: &Path, args: &Args) -> anyhow::Result<()> {
    let file = File::create_new(path)?;
    let size = args.gib << 30;
    file.set_len(size)?;
    let mut data = vec![0; DATA];
    for stretch in 0..args.stretches {
        blake3::Hasher::new().update(&stretch.to_le_bytes()).finalize_xof().fill(&mut data);
        file.write_all_at(&data, size / args.stretches * stretch)?;
    }
    Ok(file.sync_all()?)
}

/// Whether both files have the same stretches, and nothing else.
fn same(one: &Path, other: &Path, args: &Args) -> anyhow::Result<bool> {
    let (one, other) = (File::open(one)?, File::open(other)?);
    let size = args.gib << 30;
    let (mut a, mut b) = (vec![0; DATA], vec![0; DATA]);
    for stretch in 0..args.stretches {
        let at = size / args.stretches * stretch;
        one.read_exact_at(&mut a, at)?;
        other.read_exact_at(&mut b, at)?;
        if a != b {
            return Ok(false);
        }
    }
    Ok(other.metadata()?.len() == size)
}

/// How far a run of the command came.
struct Got {
    /// Until bytes beyond those of an earlier run had come, seconds.
    first: Option<f64>,
    seconds: f64,
    done: u64,
    complete: bool,
}

/// Runs `get`, and interrupts it once `until` bytes are there.
async fn get(mut command: Command, had: u64, until: Option<u64>) -> anyhow::Result<Got> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()?;
    let pid = child.id().context("it has ended")?;
    let mut lines = BufReader::new(child.stderr.take().context("piped")?).lines();
    let (mut first, mut done, mut complete, mut told) = (None, 0, false, String::new());
    while let Some(line) = lines.next_line().await? {
        let Ok(event) = serde_json::from_str::<Value>(&line) else { continue };
        if let Some(now) = event.get("done").and_then(Value::as_u64) {
            done = now;
            if now > had && first.is_none() {
                first = Some(start.elapsed().as_secs_f64());
            }
            if until.is_some_and(|until| now >= until) {
                let kill = std::process::Command::new("kill").args(["-INT", &pid.to_string()]).status()?;
                ensure!(kill.success(), "it cannot be interrupted");
            }
        }
        complete |= event.get("complete").and_then(Value::as_bool) == Some(true);
        told = line;
    }
    let status = child.wait().await?;
    ensure!(status.success() == complete, "ended with {status}: {told}");
    Ok(Got { first, seconds: start.elapsed().as_secs_f64(), done, complete })
}

pub async fn run(args: &Args, as_json: bool) -> anyhow::Result<()> {
    ensure!(args.gib > 0 && args.stretches > 0, "nothing to do");
    let dir = match &args.dir {
        Some(dir) => tempfile::tempdir_in(dir)?,
        None => tempfile::tempdir()?,
    };
    let (file, target) = (dir.path().join("file"), dir.path().join("copy"));
    make(&file, args)?;
    let network = Network::start(dir.path(), &file, false).await?;
    let (size, put_s) = (args.gib << 30, network.put_s);
    let first = get(network.get(NEAR, &target), 0, Some(size / 100 * args.until)).await?;
    ensure!(!first.complete, "it was over before it could be interrupted: take a larger file");
    tokio::time::sleep(Duration::from_millis(100)).await;
    let second = get(network.get(NEAR, &target), first.done, None).await?;
    ensure!(second.complete && same(&file, &target, args)?, "the copy differs from the file");
    let on_disk = std::fs::metadata(&target)?.blocks() * 512;
    let mut rest = String::new();
    File::open("/proc/loadavg").and_then(|mut file| file.read_to_string(&mut rest))?;
    network.stop().await?;
    let figures = json!({
        "bench": "sparse",
        "gib": args.gib,
        "data_mib": args.stretches,
        "put_s": put_s,
        "interrupted_at": first.done as f64 / size as f64,
        "until_interrupted_s": first.seconds,
        "resumed_after_s": second.first,
        "rest_s": second.seconds,
        "copy_on_disk_mib": on_disk >> 20,
        "load": rest.split(' ').next(),
    });
    println!("{}", if as_json { figures.to_string() } else { format!("{figures:#}") });
    Ok(())
}
