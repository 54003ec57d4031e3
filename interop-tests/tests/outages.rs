//! Nodes, servers and gets are killed, stopped and started again at random, in the middle of gets over a relay:
//! whatever comes down with whatever else, the files arrive, nobody is severed and the books balance.
//!
//! `POR_SEED` names the first seed, `POR_ROUNDS` how many outages there are, `POR_KEEP` a folder that is kept, with the
//! logs of the nodes in it.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;

use std::path::{Path, PathBuf};
use std::time::Duration;

use common::{GIB, assert_books, content, end_of, exe, get, offer, put, row_of, serving};
use por_fileshare::demo::cluster::Cluster;
use por_types::ChannelId;
use rand::prelude::*;
use tokio::process::Child;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Of each of two runs: with files in the nodes, and with a file server beside its daemon.
const ROUNDS: u32 = 8;
const SEED: u64 = 1;
const NAMES: [&str; 3] = ["reader", "relay", "server"];
/// Exit codes of a get that may be tried again.
const AGAIN: [i32; 5] = [3, 4, 5, 6, 10];
/// Tries of a get with nothing going on around it.
const TRIES: u32 = 3;

#[derive(Debug)]
enum Outage {
    /// Killed one after the other, and started again in an order of its own.
    Nodes {
        killed: Vec<&'static str>,
        revived: Vec<&'static str>,
    },
    /// Stopped for a time that the grace covers.
    Frozen {
        name: &'static str,
        ms: u64,
    },
    /// The program that serves the files, beside its daemon.
    Server,
    Get,
}

/// A get under way.
struct Get {
    /// How it has ended and what it said; `None` if it was killed.
    end: JoinHandle<Option<(i32, String)>>,
    kill: oneshot::Sender<()>,
}

impl Get {
    fn start(mut child: Child) -> Get {
        let (kill, killed) = oneshot::channel();
        let end = tokio::spawn(async move {
            let ended = tokio::select! {
                end = end_of(&mut child) => Some(end),
                Ok(()) = killed => None,
            };
            if ended.is_none() {
                child.kill().await.expect("killed");
            }
            ended
        });
        Get { end, kill }
    }
}

struct Run {
    rng: StdRng,
    cluster: Cluster,
    channels: Vec<ChannelId>,
    dir: PathBuf,
    bytes: Vec<u8>,
    id: String,
    /// Beside its daemon, unless the nodes have files in them.
    server: Option<Child>,
    get: Option<Get>,
    fetched: u32,
}

impl Run {
    async fn start(seed: u64, dir: PathBuf) -> Run {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut cluster = Cluster::start(exe(), &dir, "reader").await.expect("a chain");
        cluster.files = seed.is_multiple_of(2).then_some(GIB);
        let (cluster, channels) = row_of(cluster).await;
        let bytes = content(rng.random_range(1..64) << 20);
        let file = dir.join("file");
        std::fs::write(&file, &bytes).expect("written");
        let id = put(&cluster, &file).await;
        let server = match cluster.files {
            Some(_) => None,
            None => Some(offer(&cluster).await),
        };
        serving(&cluster).await;
        Run { rng, cluster, channels, dir, bytes, id, server, get: None, fetched: 0 }
    }

    fn target(&self) -> PathBuf {
        self.dir.join("copy")
    }

    fn choose(&mut self) -> Outage {
        match self.rng.random_range(0..8) {
            0 => Outage::Get,
            1 => Outage::Server,
            2 | 3 => {
                let name = *NAMES.choose(&mut self.rng).expect("some");
                Outage::Frozen { name, ms: self.rng.random_range(10..3_000) }
            }
            _ => {
                let several = self.rng.random_range(1..=NAMES.len());
                let killed: Vec<_> = NAMES.choose_multiple(&mut self.rng, several).copied().collect();
                let mut revived = killed.clone();
                revived.shuffle(&mut self.rng);
                Outage::Nodes { killed, revived }
            }
        }
    }

    async fn pause(&mut self, most_ms: u64) {
        let pause = self.rng.random_range(0..most_ms);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }

    async fn play(&mut self, outage: &Outage) {
        match outage {
            Outage::Nodes { killed, revived } => {
                for name in killed {
                    self.cluster.kill(name).await.expect("killed");
                    self.pause(100).await;
                }
                for name in revived {
                    self.cluster.revive(name).await.expect("started again");
                    self.pause(100).await;
                }
            }
            Outage::Frozen { name, ms } => {
                self.cluster.freeze(name).expect("stopped");
                tokio::time::sleep(Duration::from_millis(*ms)).await;
                self.cluster.thaw(name).expect("goes on");
            }
            Outage::Server => {
                let Some(mut server) = self.server.take() else { return };
                server.kill().await.expect("killed");
                self.pause(500).await;
                self.server = Some(offer(&self.cluster).await);
            }
            Outage::Get => {
                let Some(Get { end, kill }) = self.get.take() else { return };
                let _ = kill.send(());
                self.look_at(end.await.expect("it ends in time"));
            }
        }
    }

    /// Begins a get if none is under way, and looks at the one that has ended.
    async fn go_on(&mut self) {
        if self.get.as_ref().is_some_and(|get| get.end.is_finished()) {
            self.finish().await;
        }
        if self.get.is_none() {
            self.get = Some(Get::start(get(&self.cluster, &self.id, &self.target())));
        }
    }

    /// Waits for the get that is under way. True if the file has arrived.
    async fn finish(&mut self) -> bool {
        let Some(get) = self.get.take() else { return false };
        let end = get.end.await.expect("it ends in time");
        self.look_at(end)
    }

    fn look_at(&mut self, end: Option<(i32, String)>) -> bool {
        let target = self.target();
        match end {
            // Perhaps at its very end.
            None if !target.exists() => return false,
            None | Some((0, _)) => {}
            Some((code, said)) => {
                assert!(AGAIN.contains(&code), "exit {code}: {said}");
                println!("  a get ended with {code}: {}", said.lines().last().unwrap_or_default());
                assert!(!target.exists(), "an unfinished get leaves no file under the final name");
                return false;
            }
        }
        assert!(std::fs::read(&target).expect("the file") == self.bytes, "byte for byte the same");
        std::fs::remove_file(&target).expect("removed");
        self.fetched += 1;
        true
    }

    /// With nothing going on any more.
    async fn come_to_rest(mut self) {
        serving(&self.cluster).await;
        let mut arrived = false;
        for _ in 0..TRIES {
            self.go_on().await;
            arrived = self.finish().await;
            if arrived {
                break;
            }
        }
        assert!(arrived, "it arrives once nothing is in its way");
        assert_books(&self.cluster, &self.channels).await;
        for name in NAMES {
            let status = self.cluster.member(name).status().await.expect("status");
            assert_eq!(status.traffic.severed, 0, "{name}");
        }
        println!("{} files of {} bytes have arrived", self.fetched, self.bytes.len());
        self.cluster.stop().await.expect("stopped");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_comes_down_the_files_arrive_and_the_books_balance() {
    let number = |name, or| match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name} is a number")),
        Err(_) => or,
    };
    let (first, rounds) = (number("POR_SEED", SEED), number("POR_ROUNDS", u64::from(ROUNDS)));
    for seed in first..first + 2 {
        println!("seed {seed}");
        let dir = tempfile::tempdir().expect("a folder");
        let kept = std::env::var_os("POR_KEEP").map(|kept| Path::new(&kept).join(seed.to_string()));
        let mut run = Run::start(seed, kept.unwrap_or_else(|| dir.path().to_owned())).await;
        for round in 0..rounds {
            run.go_on().await;
            run.pause(1_500).await;
            let outage = run.choose();
            println!("{round}: {outage:?}");
            run.play(&outage).await;
        }
        run.come_to_rest().await;
    }
}
