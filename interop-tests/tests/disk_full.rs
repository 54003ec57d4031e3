//! Nodes whose disk is full in the middle of a get: they stop and say so, and go on where they were
//! once there is space.
//!
//! The disk is a limit on the size of the process' files, which needs no rights and holds for one
//! process: beyond it a write fails with EFBIG where a full disk gives ENOSPC.
#![cfg(target_os = "linux")]

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use std::path::Path;
use std::process::Command;

use common::{PATIENCE, assert_books, content, end, get, row, serve, under_way};
use por_fileshare::demo::cluster::Cluster;
use por_node::exit::ExitCode;

/// Room in every file beyond what its log has by now, bytes.
const ROOM: u64 = 16 << 10;

/// From now on no file of this node grows beyond its log's size and a little more. The exit code with
/// which it ends and what it says then.
async fn fill(cluster: &mut Cluster, name: &str) -> (i32, String) {
    let member = cluster.members.iter_mut().find(|member| member.name == name).expect("a member");
    let log = member.home.join("log");
    let said_before = std::fs::metadata(&log).expect("a log").len();
    let mut process = member.process.take().expect("it runs");
    let pid = process.id().expect("it runs").to_string();
    let limit = format!("--fsize={}", said_before + ROOM);
    let limited = Command::new("prlimit").args(["--pid", &pid, &limit]).status().expect("prlimit runs");
    assert!(limited.success(), "{limited}");
    let status = tokio::time::timeout(PATIENCE, process.wait()).await.expect("it stops").expect("status");
    let said = std::fs::read_to_string(&log).expect("a log");
    (status.code().unwrap_or(-1), said[said_before as usize..].to_owned())
}

fn assert_says_what_and_how(said: &str, home: &Path) {
    let lines: Vec<&str> = said.lines().collect();
    let error = lines.iter().position(|line| line.starts_with("fileshare: no space left for")).expect(said);
    assert!(lines[error].contains(&home.display().to_string()), "{said}");
    assert!(lines[error + 1].starts_with("fix: free some and start again"), "{said}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_stops_a_node_and_loses_nothing() {
    let dir = tempfile::tempdir().expect("a folder");
    let (mut cluster, channels) = row(dir.path()).await;
    let file = dir.path().join("file");
    let bytes = content(96 << 20);
    std::fs::write(&file, &bytes).expect("written");
    let (id, _server) = serve(&cluster, &file).await;
    let target = dir.path().join("copy");
    let mut running = tokio::spawn(end(get(&cluster, &id, &target)));
    for name in ["relay", "reader"] {
        under_way(&target).await;
        let (code, said) = fill(&mut cluster, name).await;
        assert_eq!(code, i32::from(ExitCode::DiskFull.code()), "{name}: {said}");
        assert_says_what_and_how(&said, &cluster.member(name).home);
        assert!(!target.exists(), "{name} stopped in the middle of the get");
        cluster.revive(name).await.expect("started again");
    }
    let (mut code, mut said) = (&mut running).await.expect("no panic");
    for _ in 0..10 {
        if code == 0 {
            break;
        }
        // The command may give up while its daemon is away; what it has is kept.
        assert!([3, 4, 5, 6, 10].contains(&code), "exit {code}: {said}");
        (code, said) = end(get(&cluster, &id, &target)).await;
    }
    assert_eq!(code, 0, "{said}");
    assert!(std::fs::read(&target).expect("the file") == bytes, "byte for byte the same");
    assert_books(&cluster, &channels).await;
    for name in ["reader", "relay", "server"] {
        let status = cluster.member(name).status().await.expect("status");
        assert_eq!(status.traffic.severed, 0, "{name}");
    }
    cluster.stop().await.expect("stopped");
}
