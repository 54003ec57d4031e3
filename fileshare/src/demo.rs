//! `fileshare demo`: a file travels through paid relays, on a local chain with the real contract and
//! five nodes in processes of their own; then a server dies, and nobody who waits for it is left with
//! nothing.

mod books;
pub mod cluster;
mod second;
mod tell;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use clap::Args;
use por_types::{ChannelId, Terms, Yocto};
use serde::Deserialize;
use serde_json::json;
use tokio::io::{AsyncBufReadExt, BufReader};
use tokio::process::Child;

use self::books::ChannelBook;
use self::cluster::{Cluster, until};
use self::tell::Tell;
use crate::cli::Context;
use crate::exit::{Exit, Failure};
use crate::progress::bytes;

/// What to show.
#[derive(Debug, Args)]
pub struct Demo {
    /// File that is shared in the first act; by default this program's own executable.
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Keep everything that the nodes wrote in this new folder.
    #[arg(long, value_name = "DIR")]
    pub keep: Option<PathBuf>,
}

/// Neighbours, from the reader to the server; the last two edges are the dearer way round.
const EDGES: [(&str, &str, u128); 5] =
    [("alice", "bob", 2), ("bob", "carol", 1), ("carol", "dave", 1), ("bob", "erin", 4), ("erin", "dave", 4)];
const NAMES: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];
const READER: &str = "alice";
const SERVER: &str = "dave";

/// What each account gets at first, stakes, and puts into each of its channels.
const FUNDS: Yocto = Yocto::near(100);
const STAKE: Yocto = Yocto::near(20);
const DEPOSIT: Yocto = Yocto::near(10);
/// What an edge of factor 1 asks for a GiB.
const GIB_PRICE: Yocto = Yocto::millinear(10);
/// Server's price: 0.02 NEAR a GiB.
const SERVER_PRICE: &str = "0.02NEAR/GiB";
/// Most that the reader agrees to spend.
const MAX_SPEND: &str = "9NEAR";

/// Terms of an edge; `factor` makes one dearer than another.
pub fn terms(factor: u128) -> Terms {
    Terms {
        rtt_ms: 1_000,
        bytes_per_s: 50_000_000,
        base_fee: Yocto(factor * 1_000_000_000_000_000_000),
        byte_fee: Yocto(factor * (GIB_PRICE.0 >> 30)),
        heartbeat_ms: 1_000,
        grace_ms: 15_000,
        max_requests: 1_000,
        max_bytes: 1 << 30,
    }
}

/// Runs the demo to its end.
pub(crate) async fn run(context: &Context, demo: Demo) -> Result<(), Failure> {
    let mut scratch = Scratch::new(demo.keep)?;
    let exe = std::env::current_exe().map_err(|error| Failure::io("finding this program", &error))?;
    let file = demo.file.unwrap_or_else(|| exe.clone());
    let file = file.canonicalize().map_err(|error| Failure::io(file.display(), &error))?;
    let tell = Tell::new(context.json);
    let result = tokio::select! {
        result = play(&tell, exe, &file, scratch.path()) => result,
        () = crate::cli::ended() => Err(interrupted()),
        () = hung_up() => Err(interrupted()),
    };
    let result = result.map_err(|failure| match failure.exit {
        Exit::DiskFull => Failure {
            fix: "free some space, or have the demo write elsewhere with --keep DIR".to_owned(),
            ..failure
        },
        _ => failure,
    });
    if let (Err(_), Scratch::Kept(dir)) = (&result, &scratch) {
        tell.note(&format!("what the nodes wrote is in {}", dir.display()));
    }
    scratch.remove().await;
    result
}

fn interrupted() -> Failure {
    Failure::new(Exit::Interrupted, "interrupted", "run it again; it begins anew")
}

/// Returns when the terminal is closed, unless that is to be ignored (`nohup`).
async fn hung_up() {
    use tokio::signal::unix::{SignalKind, signal};
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    if !ignores_hangup(&status)
        && let Ok(mut hangup) = signal(SignalKind::hangup())
    {
        hangup.recv().await;
        return;
    }
    std::future::pending().await
}

/// Whether a process with this status ignores signal 1. Where that cannot be known it does not.
fn ignores_hangup(status: &str) -> bool {
    let mask = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
    mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok()).is_some_and(|mask| mask & 1 != 0)
}

/// Names of temporary folders begin with this.
const PREFIX: &str = "por-demo-";
/// The file in a temporary folder that its demo holds.
const LOCK: &str = "demo.lock";
/// How long killed nodes may take to let go of their files.
const LET_GO: Duration = Duration::from_secs(5);

/// Where the nodes live: removed at the end unless it is to be kept.
enum Scratch {
    Temporary { dir: Option<tempfile::TempDir>, path: PathBuf, _lock: std::fs::File },
    Kept(PathBuf),
}

impl Scratch {
    fn new(keep: Option<PathBuf>) -> Result<Scratch, Failure> {
        let Some(dir) = keep else {
            sweep(&std::env::temp_dir());
            return Scratch::temporary().map_err(|error| Failure::io("making a temporary folder", &error));
        };
        std::fs::create_dir(&dir).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                let what = format!("{} exists already", dir.display());
                Failure::new(Exit::Exists, what, "name a folder that is not there yet")
            }
            _ => Failure::io(dir.display(), &error),
        })?;
        let dir = dir.canonicalize().map_err(|error| Failure::io(dir.display(), &error))?;
        Ok(Scratch::Kept(dir))
    }

    fn temporary() -> std::io::Result<Scratch> {
        let dir = tempfile::Builder::new().prefix(PREFIX).tempdir()?;
        let lock = std::fs::File::create(dir.path().join(LOCK))?;
        lock.lock()?;
        Ok(Scratch::Temporary { path: dir.path().to_owned(), dir: Some(dir), _lock: lock })
    }

    fn path(&self) -> &Path {
        match self {
            Scratch::Temporary { path, .. } => path,
            Scratch::Kept(dir) => dir,
        }
    }

    /// Removes what is temporary, when the nodes that were killed have let go of it.
    async fn remove(&mut self) {
        let Scratch::Temporary { dir, path, .. } = self else { return };
        // From here on this does it, not the drop.
        let _ = dir.take().map(tempfile::TempDir::keep);
        let deadline = tokio::time::Instant::now() + LET_GO;
        while std::fs::remove_dir_all(&*path).is_err() && path.exists() {
            if tokio::time::Instant::now() > deadline {
                return;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Removes the folders of demos that were killed: those whose lock nobody holds.
fn sweep(temporary: &Path) {
    let Ok(found) = std::fs::read_dir(temporary) else { return };
    for entry in found.flatten() {
        let ours = entry.file_name().to_string_lossy().starts_with(PREFIX);
        let Ok(lock) = std::fs::File::open(entry.path().join(LOCK)) else { continue };
        // A demo that starts right now may not have taken it yet.
        let age = lock.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
        let old = matches!(age, Ok(Ok(age)) if age > Duration::from_secs(60));
        if ours && old && lock.try_lock().is_ok() {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

async fn play(tell: &Tell, exe: PathBuf, file: &Path, dir: &Path) -> Result<(), Failure> {
    let (mut cluster, surplus) = stage(tell, exe, dir).await?;
    let channels = open_channels(tell, &cluster).await?;
    let (id, serving) = put(tell, &cluster, file).await?;
    let (spent, speed) = get(tell, &cluster, &id, file, dir).await?;
    let mut books = read_books(&cluster, &channels).await?;
    tell.earnings(&books, &nodes(&books)?, READER, SERVER);
    settle(tell, &cluster, &channels).await?;
    books = read_books(&cluster, &channels).await?;
    prove(tell, &cluster, &books, spent, surplus).await?;
    let opening = second::Opening { dir, channels, speed, serving, surplus };
    second::play(tell, &mut cluster, opening).await?;
    cluster.stop().await
}

/// Chain, accounts, daemons, stakes.
async fn stage(tell: &Tell, exe: PathBuf, dir: &Path) -> Result<(Cluster, Yocto), Failure> {
    tell.step(
        "A chain",
        "A NEAR chain starts in this process, with the real contract on it. The contract holds the\n\
         money of every channel and pays out what both ends have signed.",
    );
    let mut cluster = Cluster::start(exe, dir, NAMES[0]).await?;
    let network = cluster.network();
    let surplus = books::read(&cluster.chain().await?).await?.surplus;
    let rpc = network.rpc_urls.first().cloned().unwrap_or_default();
    tell.fact(
        &format!("contract {} on {}, RPC at {rpc}", network.contract, network.chain_id),
        json!({ "network": network }),
    );

    tell.step(
        "Five nodes",
        "Each is a process of its own with an account of 100 NEAR and a stake of 20 NEAR in the\n\
         contract. Alice wants a file, Dave has it. They are not neighbours.",
    );
    for name in NAMES {
        cluster.add(name, FUNDS).await?;
        let member = cluster.member(name);
        let status = member.status().await?;
        let listening = status.listening.first().cloned().unwrap_or_default();
        tell.fact(
            &format!("{name:<6} {}  {listening}", short(&status.node_key.to_string())),
            json!({ "node": name, "account": member.account, "node_key": status.node_key, "listening": listening }),
        );
    }
    for name in NAMES {
        cluster.member(name).client.register(STAKE).await?;
    }
    Ok((cluster, surplus))
}

async fn open_channels(tell: &Tell, cluster: &Cluster) -> Result<Vec<ChannelId>, Failure> {
    tell.step(
        "Channels",
        "Neighbours open payment channels: each puts 10 NEAR into the contract, and from then on\n\
         they pay each other with signatures alone. Each edge has its price; the way over Erin is\n\
         dearer.\n\n\
         \x20   alice ──── bob ──── carol ──── dave\n\
         \x20                 └───── erin ──────┘",
    );
    let mut channels = Vec::new();
    for (a, b, factor) in EDGES {
        let channel = cluster.open(a, b, DEPOSIT, &terms(factor)).await?;
        tell.fact(
            &format!(
                "channel {channel}: {a} – {b}, {} per GiB",
                Yocto(GIB_PRICE.0 * factor).to_near_string()
            ),
            json!({ "channel": channel, "a": a, "b": b, "deposit": DEPOSIT, "terms": terms(factor) }),
        );
        channels.push(channel);
    }
    cluster.settle_graph(EDGES.len()).await?;
    Ok(channels)
}

#[derive(Deserialize)]
struct Put {
    id: String,
}

async fn put(tell: &Tell, cluster: &Cluster, file: &Path) -> Result<(String, Child), Failure> {
    let len = std::fs::metadata(file).map_err(|error| Failure::io(file.display(), &error))?.len();
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    tell.step(
        "Dave puts a file",
        &format!(
            "{name}, {}. Its id is the root of its hash tree, so whoever fetches it can check every byte.",
            bytes(len)
        ),
    );
    let id = put_file(cluster, SERVER, file).await?;
    let server = serve(cluster, SERVER, SERVER_PRICE).await?;
    tell.fact(&format!("id {id}"), json!({ "id": id, "size": len, "name": name }));
    tell.fact(
        &format!("dave serves it for {SERVER_PRICE}"),
        json!({ "server": SERVER, "price": SERVER_PRICE }),
    );
    Ok((id, server))
}

/// Puts a file into the store of a node; its id.
async fn put_file(cluster: &Cluster, name: &str, file: &Path) -> Result<String, Failure> {
    let output = cluster
        .command(name)
        .args(["--json", "put"])
        .arg(file)
        .output()
        .await
        .map_err(|error| Failure::io("fileshare put", &error))?;
    if !output.status.success() {
        return Err(failed("fileshare put", &String::from_utf8_lossy(&output.stderr)));
    }
    let put: Put = serde_json::from_slice(&output.stdout)
        .map_err(|error| Failure::new(Exit::Other, format!("fileshare put: {error}"), ""))?;
    Ok(put.id)
}

/// Starts the file server of a node, and waits until the daemon has its apps.
async fn serve(cluster: &Cluster, name: &str, price: &str) -> Result<Child, Failure> {
    let log = std::fs::File::create(cluster.member(name).home.join("serve.log"))
        .map_err(|error| Failure::io("fileshare serve", &error))?;
    let server = cluster
        .command(name)
        .args(["serve", "--with-parent", "--price", price])
        // Stays open as long as this process lives.
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(log)
        .spawn()
        .map_err(|error| Failure::io("fileshare serve", &error))?;
    until(&format!("{name}: its file server"), || async {
        let status = cluster.member(name).status().await?;
        Ok((status.apps.len() >= 2).then_some(()))
    })
    .await?;
    Ok(server)
}

/// What the lines of `fileshare --json get` say.
#[derive(Deserialize)]
struct Line {
    event: String,
    #[serde(default)]
    done: u64,
    #[serde(default)]
    total: u64,
    #[serde(default)]
    spent: Option<Yocto>,
}

/// What the get cost, and how fast it was, bytes a second.
async fn get(
    tell: &Tell,
    cluster: &Cluster,
    id: &str,
    file: &Path,
    dir: &Path,
) -> Result<(Yocto, u64), Failure> {
    tell.step(
        "Alice gets it",
        "She finds Dave through the network's directory, asks for his price, and sends requests along\n\
         the cheapest way. With each request she pays Bob for the whole way; Bob keeps the price of\n\
         his edge and pays Carol, Carol pays Dave. Dave signs each answer, and every relay checks it\n\
         before it passes it on.",
    );
    let target = dir.join("received");
    let started = std::time::Instant::now();
    let mut child = cluster
        .command(READER)
        .args(["--json", "get", id, "--with-parent", "--yes", "--max-spend", MAX_SPEND, "-o"])
        .arg(&target)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| Failure::io("fileshare get", &error))?;
    // Waiting for the child would close it.
    let _parent = child.stdin.take();
    let (mut spent, mut last) = (None, String::new());
    if let Some(errors) = child.stderr.take() {
        let mut lines = BufReader::new(errors).lines();
        while let Ok(Some(text)) = lines.next_line().await {
            if let Ok(line) = serde_json::from_str::<Line>(&text) {
                tell.progress(line.done, line.total, line.spent);
                if line.event == "summary" {
                    spent = line.spent;
                }
            }
            last = text;
        }
    }
    let status = child.wait().await.map_err(|error| Failure::io("fileshare get", &error))?;
    if !status.success() {
        return Err(failed("fileshare get", &last));
    }
    let spent = spent.ok_or_else(|| Failure::new(Exit::Other, "fileshare get told no price", ""))?;
    let elapsed = started.elapsed();
    let (one, other) = (file.to_owned(), target);
    let same = crate::net::blocking(move || same_bytes(&one, &other)).await??;
    if !same {
        return Err(Failure::new(
            Exit::VerificationFailed,
            "what arrived is not what was put",
            "report this as a defect",
        ));
    }
    tell.fact(
        &format!(
            "arrived and verified in {:.1} s, byte for byte what Dave put; paid {}",
            elapsed.as_secs_f64(),
            spent.to_near_string()
        ),
        json!({ "verified": true, "seconds": elapsed.as_secs_f64(), "spent": spent }),
    );
    let len = std::fs::metadata(file).map_err(|error| Failure::io(file.display(), &error))?.len();
    let millis = elapsed.as_millis().clamp(1, u128::from(u32::MAX)) as u64;
    Ok((spent, len.saturating_mul(1000) / millis))
}

/// Compares two files without trusting any hash that took part in the transfer.
fn same_bytes(one: &Path, other: &Path) -> Result<bool, Failure> {
    use std::io::Read;
    let open = |path: &Path| std::fs::File::open(path).map_err(|error| Failure::io(path.display(), &error));
    let (mut left, mut right) = (open(one)?, open(other)?);
    let (mut a, mut b) = (vec![0; 1 << 20], Vec::new());
    loop {
        let count = left.read(&mut a).map_err(|error| Failure::io(one.display(), &error))?;
        b.clear();
        // At the end of the first file the second must end too: ask it for one byte more.
        let wanted = if count == 0 { 1 } else { count as u64 };
        (&mut right)
            .take(wanted)
            .read_to_end(&mut b)
            .map_err(|error| Failure::io(other.display(), &error))?;
        if a[..count] != b[..] {
            return Ok(false);
        }
        if count == 0 {
            return Ok(true);
        }
    }
}

async fn read_books(cluster: &Cluster, channels: &[ChannelId]) -> Result<Vec<ChannelBook>, Failure> {
    let mut books = Vec::new();
    for (id, (a, b, _)) in channels.iter().zip(EDGES) {
        books.push(books::channel(cluster, *id, a, b).await?);
    }
    Ok(books)
}

fn nodes(channels: &[ChannelBook]) -> Result<Vec<books::NodeBook>, Failure> {
    NAMES.iter().map(|name| books::node(name, channels)).collect()
}

/// Closes all channels with both ends' agreement, and has everything paid out.
async fn settle(tell: &Tell, cluster: &Cluster, channels: &[ChannelId]) -> Result<(), Failure> {
    tell.step(
        "Settlement on chain",
        "Both ends of each channel tell the contract their totals; they agree, so it pays out after a\n\
         short notice in which either could still prove a later payment.",
    );
    for (id, (a, _, _)) in channels.iter().zip(EDGES) {
        cluster.member(a).client.close_channel(*id).await?;
    }
    for (id, (a, b, _)) in channels.iter().zip(EDGES) {
        for side in [a, b] {
            let closed = |info: &por_node::client::ChannelInfo| {
                matches!(info.status, por_types::interface::ChannelStatus::Closed { .. })
            };
            cluster.member(side).wait_channel(*id, closed).await?;
        }
    }
    for name in NAMES {
        cluster.member(name).client.withdraw(None).await?;
    }
    tell.fact("all channels are closed and paid out", json!({ "closed": channels }));
    Ok(())
}

async fn prove(
    tell: &Tell,
    cluster: &Cluster,
    channels: &[ChannelBook],
    spent: Yocto,
    surplus: Yocto,
) -> Result<(), Failure> {
    let chain = cluster.chain().await?;
    let mut nodes = nodes(channels)?;
    for node in &mut nodes {
        let account = &cluster.member(&node.name).account;
        node.wallet = chain.balance(account).await.map_err(por_node::exit::CliError::from)?;
    }
    let checks = books::checks(&chain, channels, &nodes, READER, spent, surplus).await?;
    tell.step("The books", "Every line is exact, to the yocto (10^-24 NEAR).");
    let bond = cluster.member(READER).channel(channels[0].channel).await?.map(|info| info.bond);
    let held = format!(
        "In the contract are still the stakes, and for a while yet a bond of {} of each side of each channel.",
        bond.unwrap_or_default().to_near_string()
    );
    tell.books(channels, &nodes, &checks, &held);
    if checks.iter().all(books::Check::holds) {
        return Ok(());
    }
    Err(Failure::new(Exit::Fatal, "the books do not balance", "report this as a defect"))
}

/// What a command with `--json` says when it fails.
#[derive(Deserialize)]
struct Reported {
    error: String,
    fix: String,
    exit: u8,
}

fn failed(what: &str, output: &str) -> Failure {
    let last = output.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("it said nothing");
    let logs = "run the demo with --keep DIR and read the logs of the nodes";
    let Ok(Reported { error, fix, exit }) = serde_json::from_str(last) else {
        return Failure::new(Exit::Other, format!("{what}: {last}"), logs);
    };
    let exit = Exit::ALL.into_iter().find(|known| known.code() == exit).unwrap_or(Exit::Other);
    Failure::new(exit, format!("{what}: {error}"), if fix.is_empty() { logs.to_owned() } else { fix })
}

fn short(key: &str) -> String {
    key.chars().take(20).chain("…".chars()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_command_is_told_in_words_and_with_its_exit_code() {
        let json = r#"{"event":"error","error":"no space","fix":"free some","code":"disk-full","exit":9}"#;
        let failure = failed("fileshare get", &format!("something\n{json}\n"));
        assert_eq!(failure, Failure::new(Exit::DiskFull, "fileshare get: no space", "free some"));
        assert_eq!(failed("fileshare get", "killed\n").what, "fileshare get: killed");
    }

    #[test]
    fn hangups_are_ignored_if_they_were() {
        assert!(ignores_hangup("Name:\tx\nSigIgn:\t0000000000001001\n"));
        assert!(!ignores_hangup("SigIgn:\t0000000000001000\n"));
        assert!(!ignores_hangup(""));
    }

    #[tokio::test]
    async fn a_folder_that_is_there_is_not_taken_and_a_temporary_one_is_removed() {
        let there = tempfile::tempdir().expect("a folder");
        let refused = Scratch::new(Some(there.path().to_owned())).err().expect("it exists");
        assert_eq!(refused.exit, Exit::Exists);
        assert!(!refused.fix.contains("--overwrite"), "{}", refused.fix);
        let mut scratch = Scratch::new(None).expect("temporary");
        let path = scratch.path().to_owned();
        std::fs::write(path.join("file"), "x").expect("written");
        // Another demo leaves it alone.
        sweep(&std::env::temp_dir());
        assert!(path.join("file").exists());
        scratch.remove().await;
        assert!(!path.exists());
    }

    #[test]
    fn folders_of_killed_demos_are_removed() {
        let temporary = tempfile::tempdir().expect("a folder");
        let old = std::time::SystemTime::now() - Duration::from_secs(120);
        let folder = |name: &str, time| {
            let folder = temporary.path().join(name);
            std::fs::create_dir(&folder).expect("made");
            let lock = std::fs::File::create(folder.join(LOCK)).expect("made");
            lock.set_modified(time).expect("set");
            (folder, lock)
        };
        let (killed, lock) = folder("por-demo-killed", old);
        drop(lock);
        let (running, held) = folder("por-demo-running", old);
        held.lock().expect("held");
        let (foreign, _file) = folder("something", old);
        let (young, _file) = folder("por-demo-young", std::time::SystemTime::now());
        sweep(temporary.path());
        assert!(!killed.exists() && running.exists() && foreign.exists() && young.exists());
    }
}
