//! A node with many connected channels on which nothing happens, in a process of its own. The
//! counterparties are nodes of this process.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use libp2p::Multiaddr;
use por_types::Side;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

use crate::figures::Compared;
use crate::net::{Node, channel, edge, secret};
use crate::process::Usage;

#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Connected counterparties, a channel with each.
    #[arg(long, default_value_t = 1_000)]
    channels: u32,
    /// How long nothing happens.
    #[arg(long, default_value_t = 300)]
    seconds: u64,
}

/// The node that idles.
#[derive(Clone, Debug, clap::Args)]
pub struct NodeArgs {
    #[arg(long)]
    channels: u32,
}

/// What the idle node tells: first where it listens, then that all are connected.
#[derive(Serialize, Deserialize)]
enum Told {
    Listening(Multiaddr),
    Ready,
}

/// The idle node has number 0, its counterparties those from 1 on.
pub async fn node(args: &NodeArgs) -> anyhow::Result<()> {
    let dir = tempfile::tempdir()?;
    let mut node = Node::start(0, Some(&dir.path().join("idle.redb"))).await?;
    let (mut edges, mut channels) = (Vec::new(), Vec::new());
    for number in 1..=args.channels {
        let peer = secret(number).public();
        edges.push(edge(number as usize, node.key, peer));
        channels.push(channel(number as usize, peer, Side::A)?);
    }
    node.know(edges, channels).await?;
    let ready = node.run(&[], args.channels as usize)?;
    println!("{}", serde_json::to_string(&Told::Listening(node.address.clone()))?);
    ready.await?;
    println!("{}", serde_json::to_string(&Told::Ready)?);
    // Until the parent closes stdin, or ends.
    tokio::task::spawn_blocking(|| std::io::Read::read(&mut std::io::stdin(), &mut [0])).await??;
    Ok(())
}

pub async fn run(args: &Args, as_json: bool) -> anyhow::Result<()> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["idle-node", "--channels", &args.channels.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn()?;
    let mut lines = BufReader::new(child.stdout.take().context("piped")?).lines();
    let first = lines.next_line().await?.context("the idle node has ended")?;
    let Told::Listening(address) = serde_json::from_str(&first)? else {
        anyhow::bail!("the idle node does not listen");
    };
    let hub = secret(0).public();
    let mut peers = Vec::new();
    for number in 1..=args.channels {
        let mut peer = Node::start(number, None).await?;
        let id = number as usize;
        peer.know(vec![edge(id, hub, peer.key)], vec![channel(id, hub, Side::B)?]).await?;
        let ready = peer.run(std::slice::from_ref(&address), 1)?;
        tokio::time::timeout(Duration::from_secs(60), ready).await.context("a peer does not connect")??;
        peers.push(peer);
    }
    let all = tokio::time::timeout(Duration::from_secs(60), lines.next_line()).await;
    all.context("the idle node does not see all its peers")??.context("the idle node has ended")?;
    let pid = child.id().context("the idle node has ended")?.to_string();
    let before = Usage::of(&pid)?;
    tokio::time::sleep(Duration::from_secs(args.seconds)).await;
    let after = Usage::of(&pid)?;
    ensure!(child.try_wait()?.is_none(), "the idle node has ended");
    let share = 100.0 * (after.cpu_s - before.cpu_s) / args.seconds.max(1) as f64;
    for (metric, ours) in [("rss_mib", after.rss_mib), ("cpu_percent", share)] {
        let line = Compared {
            bench: "idle",
            variant: format!("{} channels", args.channels),
            metric,
            less_is_better: true,
            ours: vec![ours],
            also: vec![("seconds", json!(args.seconds)), ("peak_mib", json!(after.peak_mib.round()))],
            ..Compared::default()
        };
        line.print(as_json);
    }
    drop(peers);
    Ok(())
}
