//! The second act: the server dies in the middle of two gets.
//!
//! Everything that is told is read from the daemons' news, their channels, and the contract's views.

mod gets;
mod reckon;
mod watch;

use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::try_join_all;
use por_node::client::ChannelInfo;
use por_types::interface::{ChannelStatus, ChannelView};
use por_types::{ChannelId, Terms, Yocto};
use serde_json::json;
use tokio::process::Child;

use self::gets::Getting;
use self::reckon::Before;
use super::cluster::{Cluster, until};
use super::tell::Tell;
use super::{DEPOSIT, EDGES, NAMES, READER, SERVER};
use crate::exit::{Exit, Failure};
use crate::progress::bytes;

/// Has the file too, and is one of the two neighbours of the server.
const OTHER_SERVER: &str = "carol";
/// The other neighbour, who wants the file as well.
const OTHER_READER: &str = "erin";
/// Price of the second provider.
const OTHER_PRICE: &str = "0.02NEAR/GiB";
/// Indices of the server's edges, and who is at the other end.
const DOOMED: [(usize, &str); 2] = [(2, "carol"), (4, "erin")];
/// Who is still there afterwards.
const ALIVE: [&str; 4] = ["alice", "bob", "carol", "erin"];

/// A get of the second act takes about this long, judged by the first act's, so that a server can
/// die in the middle of it. Seconds.
const GET_SECONDS: u64 = 3;
const SIZES: (u64, u64) = (32 << 20, 384 << 20);
/// How long what the server's neighbours wait for has to stay the same before the kill.
const STILL: Duration = Duration::from_millis(400);
/// Gets that may end before the server could be caught with requests in its hands.
const ATTEMPTS: u32 = 3;

/// What the first act leaves behind.
pub(super) struct Opening<'a> {
    pub dir: &'a Path,
    /// Of the first act, all closed.
    pub channels: Vec<ChannelId>,
    /// Bytes a second of the first act's get.
    pub speed: u64,
    pub serving: Child,
    pub surplus: Yocto,
}

/// Terms with little patience: for a show that is over in seconds.
fn terms(factor: u128) -> Terms {
    Terms { rtt_ms: 500, heartbeat_ms: 1_000, grace_ms: 4_000, ..super::terms(factor) }
}

/// Plays the act to its end.
pub(super) async fn play(tell: &Tell, cluster: &mut Cluster, opening: Opening<'_>) -> Result<(), Failure> {
    let Opening { dir, channels: old, speed, mut serving, surplus } = opening;
    let channels = open(tell, cluster).await?;
    let file = dir.join("weights");
    let len = (GET_SECONDS * speed).clamp(SIZES.0, SIZES.1) >> 20 << 20;
    let (id, _other_server) = offer(tell, cluster, &file, len).await?;
    clear(cluster, &old).await?;
    let before = Before::read(cluster, &channels).await?;
    let (gets, killed) = strike(tell, cluster, &channels, &id, dir, &mut serving).await?;
    let seen = watch::watch(tell, cluster, &channels, gets, &before, &killed, &file).await?;
    settle(tell, cluster, &channels).await?;
    reckon::prove(tell, cluster, &channels, &before, seen, surplus).await
}

async fn open(tell: &Tell, cluster: &Cluster) -> Result<Vec<ChannelId>, Failure> {
    let Terms { heartbeat_ms, grace_ms, .. } = terms(1);
    tell.step(
        "Second act: new channels",
        &format!(
            "The same edges again, on terms with less patience than one would use elsewhere, so that this is\n\
             soon over: who owes an answer syncs every {heartbeat_ms} ms, and may be silent {grace_ms} ms longer. Each\n\
             side of a channel leaves a bond; it is lost if the channel is severed. Everybody becomes\n\
             attached: part of the network as the contract sees it."
        ),
    );
    let mut channels = Vec::new();
    for (a, b, factor) in EDGES {
        channels.push(cluster.open(a, b, DEPOSIT, &terms(factor)).await?);
    }
    for name in NAMES {
        until(&format!("{name}: the graph and attachment"), || async {
            let member = cluster.member(name);
            let open = member.client.graph().await?.edges.iter().filter(|edge| edge.open).count();
            let attached = member.status().await?.attached;
            Ok((open >= EDGES.len() && attached).then_some(()))
        })
        .await?;
    }
    let bond = view(cluster, channels[0]).await?.bond;
    let ids: Vec<String> = channels.iter().map(ToString::to_string).collect();
    tell.fact(
        &format!("channels {}, a bond of {} on each side", ids.join(", "), bond.to_near_string()),
        json!({ "channels": channels, "bond": bond, "terms": terms(1) }),
    );
    Ok(channels)
}

/// A channel as the contract has it.
async fn view(cluster: &Cluster, channel: ChannelId) -> Result<ChannelView, Failure> {
    let found = cluster.chain().await?.channel(channel).await.map_err(por_node::exit::CliError::from)?;
    found
        .ok_or_else(|| Failure::new(Exit::Other, format!("the contract does not know channel {channel}"), ""))
}

/// Dave and Carol put the same file, and both readers have found both of them.
async fn offer(tell: &Tell, cluster: &Cluster, file: &Path, len: u64) -> Result<(String, Child), Failure> {
    tell.step(
        "Two providers",
        &format!(
            "Dave puts another file, {}, and Carol puts the same one. Its id is its hash, so they need not\n\
             know of each other.",
            bytes(len)
        ),
    );
    let path = file.to_owned();
    crate::net::blocking(move || write_random(&path, len)).await??;
    let mut ids = Vec::new();
    for name in [SERVER, OTHER_SERVER] {
        ids.push(super::put_file(cluster, name, file).await?);
    }
    let id = ids[0].clone();
    let serving = super::serve(cluster, OTHER_SERVER, OTHER_PRICE).await?;
    tell.fact(&format!("id {id}"), json!({ "id": id, "size": len, "same": ids[0] == ids[1] }));
    for reader in [READER, OTHER_READER] {
        let costs = until(&format!("{reader}: two providers"), || async {
            Ok(gets::quotes(cluster, reader, &id).await?.filter(|costs| costs.len() == 2))
        })
        .await?;
        for cost in costs {
            let provider = cluster.name_of(&cost.node).unwrap_or("somebody").to_owned();
            tell.fact(
                &format!("{reader:<6} would pay {} to get it from {provider}", cost.total.to_near_string()),
                json!({ "reader": reader, "provider": provider, "price": cost.total }),
            );
        }
    }
    Ok((id, serving))
}

/// Bytes that do not compress or repeat.
fn write_random(path: &Path, len: u64) -> Result<(), Failure> {
    use std::io::Write;
    let failed = |error: std::io::Error| Failure::io(path.display(), &error);
    let mut file = std::fs::File::create(path).map_err(failed)?;
    let mut stream = blake3::Hasher::new().update(&len.to_le_bytes()).finalize_xof();
    let mut block = vec![0; 1 << 20];
    for _ in 0..len >> 20 {
        stream.fill(&mut block);
        file.write_all(&block).map_err(failed)?;
    }
    Ok(())
}

/// Waits until the bonds of the first act's channels are back, and has everything paid out: what can
/// be withdrawn from here on came from this act.
async fn clear(cluster: &Cluster, old: &[ChannelId]) -> Result<(), Failure> {
    for channel in old {
        until(&format!("the bonds of channel {channel}"), || async {
            let status = view(cluster, *channel).await?.status;
            Ok(matches!(status, ChannelStatus::Closed { bonds_until_ms: None, .. }).then_some(()))
        })
        .await?;
    }
    try_join_all(NAMES.map(|name| cluster.member(name).client.withdraw(None))).await?;
    Ok(())
}

/// The moment of the kill.
pub(super) struct Killed {
    /// Clock of this machine, milliseconds since 1970.
    at_ms: u64,
}

/// Starts both gets, and kills the server while it owes answers to both of its neighbours.
async fn strike(
    tell: &Tell,
    cluster: &mut Cluster,
    channels: &[ChannelId],
    id: &str,
    dir: &Path,
    serving: &mut Child,
) -> Result<(Vec<Getting>, Killed), Failure> {
    tell.step(
        "The server dies",
        "Alice and Erin get the file, both from both providers. In the middle of it Dave is stopped for\n\
         a moment, so that it is certain that he owes answers to Carol, for Alice, and to Erin; then\n\
         kill -9, and he does not come back.",
    );
    for attempt in 1..=ATTEMPTS {
        let targets = [READER, OTHER_READER].map(|name| (name, target(dir, name, attempt)));
        let mut gets = Vec::new();
        for (name, path) in targets {
            gets.push(Getting::start(cluster, name, id, path)?);
        }
        let held = caught(cluster, channels, &mut gets).await?;
        let Some(held) = held else {
            cluster.thaw(SERVER)?;
            for get in &mut gets {
                get.end().await?;
            }
            continue;
        };
        let arrived: Vec<u64> = gets.iter().map(Getting::arrived).collect();
        cluster.kill(SERVER).await?;
        let killed = Killed { at_ms: watch::now_ms() };
        // The whole machine is gone, and the file server with it.
        let _ = serving.kill().await;
        for (get, arrived) in gets.iter().zip(arrived) {
            tell.fact(
                &format!("{:<6} has {} of it on disk", get.name, bytes(arrived)),
                json!({ "reader": get.name, "arrived": arrived }),
            );
        }
        for ((_, neighbour), held) in DOOMED.iter().zip(held) {
            tell.fact(
                &format!("dave owes {neighbour} answers to {}", watch::requests_of(held)),
                json!({ "neighbour": neighbour, "unanswered": held }),
            );
        }
        return Ok((gets, killed));
    }
    Err(Failure::new(
        Exit::Other,
        "the gets were over before the server could be killed",
        "run the demo again on a machine that is less busy",
    ))
}

fn target(dir: &Path, name: &str, attempt: u32) -> PathBuf {
    dir.join(format!("received-by-{name}-{attempt}"))
}

/// Stops the server while it has requests of both neighbours: how many of each. `None` if a get
/// ended before.
async fn caught(
    cluster: &Cluster,
    channels: &[ChannelId],
    gets: &mut [Getting],
) -> Result<Option<[u32; 2]>, Failure> {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(60);
    let mut frozen = false;
    let mut still: Option<([u32; 2], tokio::time::Instant)> = None;
    while tokio::time::Instant::now() < deadline {
        let mut over = false;
        for get in gets.iter_mut() {
            over |= get.is_over()?;
        }
        if over {
            return Ok(None);
        }
        let held = unanswered(cluster, channels).await?;
        let busy = held.iter().all(|count| *count > 0);
        if !frozen {
            if busy && gets.iter().all(|get| get.arrived() > 0) {
                cluster.freeze(SERVER)?;
                frozen = true;
            }
            continue;
        }
        match still {
            Some((same, since)) if same == held && busy => {
                if since.elapsed() >= STILL {
                    return Ok(Some(held));
                }
            }
            _ => still = Some((held, tokio::time::Instant::now())),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(None)
}

/// Requests that the server's neighbours wait for at its edges.
async fn unanswered(cluster: &Cluster, channels: &[ChannelId]) -> Result<[u32; 2], Failure> {
    let mut counts = [0; 2];
    for (count, (edge, name)) in counts.iter_mut().zip(DOOMED) {
        let info = cluster.member(name).channel(channels[edge]).await?;
        *count = info.map_or(0, |info| info.unfinished);
    }
    Ok(counts)
}

/// Closes what is left, and waits until all channels are paid out.
async fn settle(tell: &Tell, cluster: &Cluster, channels: &[ChannelId]) -> Result<(), Failure> {
    tell.step(
        "Settlement",
        "The channels that are left are closed by both ends. Those of Dave are settled by what the\n\
         contract was shown in the challenge window: he is not there to show what he was paid, nor\n\
         has he a watchtower that would do it for him (`por watch`).",
    );
    let doomed = |index: usize| DOOMED.iter().any(|(edge, _)| *edge == index);
    for (index, (a, _, _)) in EDGES.iter().enumerate() {
        if !doomed(index) {
            cluster.member(a).client.close_channel(channels[index]).await?;
        }
    }
    for (channel, (a, b, _)) in channels.iter().zip(EDGES) {
        // As the contract has it, and as the ends that are there see it.
        until(&format!("channel {channel} to be paid out"), || async {
            let status = view(cluster, *channel).await?.status;
            Ok(matches!(status, ChannelStatus::Closed { .. }).then_some(()))
        })
        .await?;
        for side in [a, b].into_iter().filter(|side| *side != SERVER) {
            let closed = |info: &ChannelInfo| matches!(info.status, ChannelStatus::Closed { .. });
            cluster.member(side).wait_channel(*channel, closed).await?;
        }
    }
    tell.fact("all channels are paid out", json!({ "closed": channels }));
    Ok(())
}
