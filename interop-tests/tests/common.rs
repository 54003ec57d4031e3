//! Nodes as processes of their own, on a local chain.

#[path = "common/link.rs"]
pub mod link;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use por_fileshare::demo::cluster::{Cluster, until};
use por_fileshare::demo::terms;
use por_types::{ChannelId, Terms, Yocto};
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

pub const DEPOSIT: Yocto = Yocto::near(5);
/// What the server asks for a GiB.
pub const GIB: Yocto = Yocto::millinear(10);
/// Longest that one command of a test may take.
pub const PATIENCE: Duration = Duration::from_secs(120);

pub fn exe() -> PathBuf {
    env!("CARGO_BIN_EXE_por-interop-fileshare").into()
}

/// `reader` – `relay` – `server`, with channels.
pub async fn row(dir: &Path) -> (Cluster, Vec<ChannelId>) {
    row_of(Cluster::start(exe(), dir, "reader").await.expect("a chain")).await
}

/// The same, made in a cluster that has nobody yet.
pub async fn row_of(mut cluster: Cluster) -> (Cluster, Vec<ChannelId>) {
    for name in ["reader", "relay", "server"] {
        cluster.add(name, Yocto::near(100)).await.expect("a node");
        cluster.member(name).client.register(Yocto::near(10)).await.expect("registered");
    }
    let first = cluster.open("reader", "relay", DEPOSIT, &terms(1)).await.expect("a channel");
    let second = cluster.open("relay", "server", DEPOSIT, &terms(1)).await.expect("a channel");
    cluster.settle_graph(2).await.expect("the graph");
    (cluster, vec![first, second])
}

/// Bytes that do not compress or repeat.
pub fn content(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend_from_slice(&state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}

/// Puts a file at the server; its id.
pub async fn put(cluster: &Cluster, file: &Path) -> String {
    let put = cluster.command("server").arg("put").arg(file).output().await.expect("put runs");
    assert!(put.status.success(), "{}", String::from_utf8_lossy(&put.stderr));
    String::from_utf8(put.stdout).expect("an id").trim().to_owned()
}

/// The process that serves what the server has, beside its daemon.
pub async fn offer(cluster: &Cluster) -> Child {
    let server = cluster
        .command("server")
        .args(["serve", "--price", &format!("{}/GiB", GIB.to_near_string())])
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("serve runs");
    serving(cluster).await;
    server
}

/// Waits until the server's daemon has the apps of files.
pub async fn serving(cluster: &Cluster) {
    let ready = || async {
        let status = cluster.member("server").status().await?;
        Ok((status.apps.len() >= 2).then_some(()))
    };
    until("the server", ready).await.expect("it serves");
}

/// Puts a file at the server and serves it; the id and the serving process.
pub async fn serve(cluster: &Cluster, file: &Path) -> (String, Child) {
    (put(cluster, file).await, offer(cluster).await)
}

pub fn get(cluster: &Cluster, id: &str, target: &Path) -> Child {
    get_from(cluster, None, id, target)
}

/// From this member, whoever else offers it.
pub fn get_from(cluster: &Cluster, from: Option<&str>, id: &str, target: &Path) -> Child {
    let mut command = cluster.command("reader");
    command.args(["--json", "get", id, "--yes", "--max-spend", "1NEAR", "--window", "1", "-o"]).arg(target);
    if let Some(name) = from {
        command.args(["--from", &cluster.member(name).key.to_string()]);
    }
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("get runs")
}

pub async fn end(mut child: Child) -> (i32, String) {
    end_of(&mut child).await
}

pub async fn end_of(child: &mut Child) -> (i32, String) {
    let mut said = String::new();
    let errors = child.stderr.take();
    let run = async {
        if let Some(errors) = errors {
            let mut lines = BufReader::new(errors).lines();
            while let Ok(Some(line)) = lines.next_line().await {
                said.push_str(&line);
                said.push('\n');
            }
        }
        child.wait().await.expect("it ends")
    };
    let status = tokio::time::timeout(PATIENCE, run).await.expect("get does not hang");
    (status.code().unwrap_or(-1), said)
}

/// Both ends of each channel agree, nothing is under way, and nothing was made or lost.
pub async fn assert_books(cluster: &Cluster, channels: &[ChannelId]) {
    for (id, (a, b)) in channels.iter().zip([("reader", "relay"), ("relay", "server")]) {
        let settled = || async {
            let (left, right) =
                (cluster.member(a).channel(*id).await?, cluster.member(b).channel(*id).await?);
            let (Some(left), Some(right)) = (left, right) else { return Ok(None) };
            let agreed = left.totals == right.totals && left.unfinished + right.unfinished == 0;
            Ok(agreed.then_some((left, right)))
        };
        let (left, right) = until("both ends of a channel to agree", settled).await.expect("they agree");
        assert_eq!(left.balance_mine, right.balance_theirs);
        assert_eq!(left.balance_theirs, right.balance_mine);
        let pot = DEPOSIT.checked_add(DEPOSIT).expect("small");
        assert_eq!(left.balance_mine.checked_add(left.balance_theirs), Ok(pot));
        assert!(left.balance_mine < DEPOSIT, "{a} has paid {b}");
    }
}

/// Waits until some of the file has arrived.
pub async fn under_way(target: &Path) {
    let part = target.with_extension("part");
    let some = || async {
        use std::os::unix::fs::MetadataExt;
        let written = std::fs::metadata(&part).is_ok_and(|metadata| metadata.blocks() > 0);
        Ok(written.then_some(()))
    };
    until("the first bytes", some).await.expect("they arrive");
}

/// With little patience, so that the test is soon over.
pub fn impatient(factor: u128) -> Terms {
    Terms { rtt_ms: 500, heartbeat_ms: 1_000, grace_ms: 4_000, ..terms(factor) }
}

/// `reader` – `relay` – `server`, and the dearer way `reader` – `other` – `server`.
pub async fn diamond(dir: &Path) -> (Cluster, Vec<ChannelId>) {
    let mut cluster = Cluster::start(exe(), dir, "reader").await.expect("a chain");
    for name in ["reader", "relay", "server", "other"] {
        cluster.add(name, Yocto::near(100)).await.expect("a node");
        cluster.member(name).client.register(Yocto::near(10)).await.expect("registered");
    }
    let mut channels = Vec::new();
    for (a, b, factor) in
        [("reader", "relay", 1), ("relay", "server", 1), ("reader", "other", 4), ("other", "server", 4)]
    {
        channels.push(cluster.open(a, b, DEPOSIT, &impatient(factor)).await.expect("a channel"));
    }
    cluster.settle_graph(4).await.expect("the graph");
    (cluster, channels)
}
