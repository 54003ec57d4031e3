//! `fileshare` over daemons of their own: `near` – `server`, and `far` – `first` – `second` –
//! `server`.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use por_fileshare::demo::cluster::{Cluster, until};
use por_fileshare::exit::Failure;
use por_fileshare::id::ContentId;
use por_types::{Terms, Yocto};
use tokio::io::AsyncReadExt as _;
use tokio::process::{Child, Command};

use crate::process::{self, Usage};

/// As the program is called to be `fileshare`.
pub const NAME: &str = "fileshare";

const SERVER: &str = "server";
pub const NEAR: &[&str] = &["near", SERVER];
pub const FAR: &[&str] = &["far", "first", "second", SERVER];

pub struct Network {
    cluster: Cluster,
    /// Where the server is a program beside its daemon.
    serving: Option<Child>,
    id: String,
    /// What putting the file took, seconds.
    pub put_s: f64,
}

fn terms() -> Terms {
    Terms {
        rtt_ms: 10_000,
        bytes_per_s: 100_000_000,
        base_fee: Yocto(1_000_000_000_000_000_000),
        byte_fee: Yocto(Yocto::millinear(1).0 >> 30),
        heartbeat_ms: 1_000,
        grace_ms: 15_000,
        max_requests: 1_000,
        max_bytes: 1 << 30,
    }
}

fn told(failure: Failure) -> anyhow::Error {
    anyhow!("{failure:?}")
}

/// This program under the name of `fileshare`.
fn exe(dir: &Path) -> anyhow::Result<PathBuf> {
    let exe = dir.join(NAME);
    std::os::unix::fs::symlink(std::env::current_exe()?, &exe)?;
    Ok(exe)
}

impl Network {
    /// `separate`: daemons without files in them, a server and a getter beside them.
    pub async fn start(dir: &Path, file: &Path, separate: bool) -> anyhow::Result<Network> {
        let mut cluster = Cluster::start(exe(dir)?, dir, SERVER).await.map_err(told)?;
        cluster.files = (!separate).then_some(Yocto::millinear(10));
        for name in [SERVER, "second", "first", "near", "far"] {
            cluster.add(name, Yocto::near(200)).await.map_err(told)?;
            let client = &cluster.member(name).client;
            client.register(Yocto::near(20)).await.map_err(|error| anyhow!("{error}"))?;
        }
        let mut channels = 0;
        for row in [NEAR, FAR] {
            for pair in row.windows(2) {
                cluster.open(pair[0], pair[1], Yocto::near(20), &terms()).await.map_err(told)?;
                channels += 1;
            }
        }
        cluster.settle_graph(channels).await.map_err(told)?;
        let start = Instant::now();
        let put = cluster.command(SERVER).arg("put").arg(file).output().await?;
        ensure!(put.status.success(), "put: {}", String::from_utf8_lossy(&put.stderr));
        let put_s = start.elapsed().as_secs_f64();
        let id = String::from_utf8(put.stdout)?.trim().to_owned();
        let serve = || quiet(cluster.command(SERVER).args(["serve", "--price", "0.01NEAR/GiB"])).spawn();
        let serving = if separate { Some(serve()?) } else { None };
        let hash = *id.parse::<ContentId>().map_err(|error| anyhow!("{error}"))?.hash();
        for row in [NEAR, FAR] {
            let client = &cluster.member(row[0]).client;
            let found = || async {
                let found = client.providers(&hash, 1, Duration::from_secs(1)).await?;
                Ok((!found.is_empty()).then_some(()))
            };
            until("the server's announcement", found).await.map_err(told)?;
        }
        Ok(Network { cluster, serving, id, put_s })
    }

    /// The command that gets the file by way of `row`'s first node.
    pub fn get(&self, row: &[&str], target: &Path) -> Command {
        let mut command = self.cluster.command(row[0]);
        let get = ["--json", "get", &self.id, "--yes", "--max-spend", "5NEAR", "--overwrite", "-o"];
        quiet(command.args(get).arg(target));
        command
    }

    /// The processes that run all the time: each node's daemon, and a server beside its own.
    pub fn processes(&self, row: &[&str]) -> anyhow::Result<Vec<(String, u32)>> {
        let daemon = |name: &&str| {
            let process = self.cluster.member(name).process.as_ref();
            let pid = process.and_then(Child::id).with_context(|| format!("{name} has ended"))?;
            anyhow::Ok((format!("daemon {name}"), pid))
        };
        let mut all: Vec<(String, u32)> = row.iter().map(daemon).collect::<anyhow::Result<_>>()?;
        if let Some(serving) = &self.serving {
            all.push(("serve".to_owned(), serving.id().context("serve has ended")?));
        }
        Ok(all)
    }

    /// What the node at the start of `row` has paid so far over its channels.
    pub async fn paid(&self, row: &[&str]) -> anyhow::Result<u128> {
        let channels =
            self.cluster.member(row[0]).client.channels().await.map_err(|error| anyhow!("{error}"))?;
        let deposit = Yocto::near(20).0;
        Ok(channels.iter().map(|channel| deposit.saturating_sub(channel.balance_mine.0)).sum())
    }

    pub async fn stop(mut self) -> anyhow::Result<()> {
        if let Some(serving) = &mut self.serving {
            serving.kill().await?;
        }
        self.cluster.stop().await.map_err(told)
    }
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped())
}

/// What a command and the processes that worked for it took.
#[derive(Clone, Debug, Default)]
pub struct Run {
    pub seconds: f64,
    pub cpu_s: f64,
    /// The most memory that each process has ever had, MiB.
    pub peaks: Vec<(String, f64)>,
}

/// Runs a command to its end, together with processes that serve it.
pub async fn run(name: &str, mut command: Command, servers: &[(String, u32)]) -> anyhow::Result<Run> {
    let before = cpu(servers)?;
    let children = process::ended_children_s()?;
    for (_, pid) in servers {
        process::forget_peak(*pid);
    }
    let start = Instant::now();
    let mut child = command.kill_on_drop(true).spawn()?;
    let pid = child.id().context("it has just begun")?.to_string();
    let mut errors = child.stderr.take().context("piped")?;
    let said = tokio::spawn(async move {
        let mut text = Vec::new();
        let _ = errors.read_to_end(&mut text).await;
        text
    });
    let mut peak = 0.0f64;
    let status = loop {
        match tokio::time::timeout(std::time::Duration::from_millis(20), child.wait()).await {
            Ok(status) => break status?,
            // It may end while it is looked at.
            Err(_) => peak = Usage::of(&pid).map_or(peak, |usage| peak.max(usage.peak_mib)),
        }
    };
    let seconds = start.elapsed().as_secs_f64();
    let said = String::from_utf8_lossy(&said.await?).into_owned();
    ensure!(status.success(), "{name} failed with {status}: {said}");
    let mut peaks = vec![(name.to_owned(), peak)];
    for (name, pid) in servers {
        peaks.push((name.clone(), Usage::of(&pid.to_string())?.peak_mib));
    }
    let cpu_s = cpu(servers)? - before + process::ended_children_s()? - children;
    Ok(Run { seconds, cpu_s, peaks })
}

fn cpu(servers: &[(String, u32)]) -> anyhow::Result<f64> {
    servers.iter().map(|(_, pid)| Ok(Usage::of(&pid.to_string())?.cpu_s)).sum()
}
