//! A node's side: its latest states go to its towers after they have changed.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p::Multiaddr;
use por_core::ChannelSnapshot;
use por_types::interface::SubmitStateArgs;
use por_types::{ChannelId, ChannelState, Hash, Totals};
use tokio::task::JoinSet;

use super::Handed;
use super::wire::{Ask, PAGE, Reply, TowerClient};
use crate::alarm::failed;
use crate::client::{ClientError, TowerStatus};
use crate::graph::is_over;
use crate::runtime::{Daemon, failure, other};

/// Changes within this time go together: on a local chain, and elsewhere.
const DEBOUNCE: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(5));
/// What a tower has acknowledged goes to it again after this, on a local chain and elsewhere: it may have lost
/// its disk since, and has no way to say so. Far below any challenge window.
const AGAIN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(600));
/// First and longest wait after a failure.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What a tower has of a channel: both totals, and whether an order came along.
type Kept = HashMap<ChannelId, (Totals, bool)>;

/// Hands over for as long as the node runs; a tower that fails is asked again and stops nothing.
pub(crate) async fn keep_handing_over(
    daemon: Arc<Daemon>,
    towers: Vec<Multiaddr>,
    local: bool,
) -> Result<(), ClientError> {
    if towers.is_empty() {
        return std::future::pending().await;
    }
    let client = TowerClient::start(&daemon.secret).map_err(|error| other(error.to_string()))?;
    let (debounce, again) = if local { (DEBOUNCE.0, AGAIN.0) } else { (DEBOUNCE.1, AGAIN.1) };
    let mut tasks = JoinSet::new();
    for tower in towers {
        tasks.spawn(hand_to(daemon.clone(), client.clone(), tower, debounce, again));
    }
    match tasks.join_next().await {
        Some(Ok(error)) => Err(error),
        Some(Err(error)) => Err(match error.try_into_panic() {
            Ok(panic) => failure(failed("task that hands over to a watchtower", &*panic)),
            Err(error) => other(error.to_string()),
        }),
        None => Ok(()),
    }
}

/// Ends only when the node does.
async fn hand_to(
    daemon: Arc<Daemon>,
    client: TowerClient,
    tower: Multiaddr,
    debounce: Duration,
    again: Duration,
) -> ClientError {
    let mut kept = Kept::new();
    let mut begun = Instant::now();
    let mut wait = BACKOFF.0;
    loop {
        if begun.elapsed() >= again {
            kept.clear();
            begun = Instant::now();
        }
        let Ok(snapshots) = daemon.control.channels().await else {
            return other("the protocol driver has stopped");
        };
        let fresh = fresh(&daemon, snapshots, &mut kept);
        let behind = fresh.len();
        let result = hand_over(&daemon, &client, &tower, fresh, &mut kept).await;
        let status = TowerStatus {
            address: tower.to_string(),
            channels: count(kept.len()),
            behind: if result.is_ok() { 0 } else { count(behind) },
            error: result.as_ref().err().cloned(),
        };
        let before = daemon.towers.lock().insert(tower.clone(), status);
        match result {
            Ok(()) => {
                wait = BACKOFF.0;
                tokio::time::sleep(debounce).await;
            }
            // No tower would ever get anything again.
            Err(_) if client.has_stopped() => {
                return failure("the client of watchtowers has failed".to_owned());
            }
            Err(error) => {
                if before.is_none_or(|before| before.error.is_none()) {
                    tracing::warn!(%tower, %error, "a watchtower has not got the latest states");
                }
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(BACKOFF.1);
            }
        }
    }
}

fn count(len: usize) -> u32 {
    u32::try_from(len).unwrap_or(u32::MAX)
}

/// Channels of which the tower does not have the latest states.
fn fresh(daemon: &Daemon, snapshots: Vec<ChannelSnapshot>, kept: &mut Kept) -> Vec<ChannelSnapshot> {
    let graph = daemon.graph.read();
    let there = |channel: &ChannelId| graph.edge(*channel).is_some_and(|edge| !is_over(&edge.view.status));
    kept.retain(|channel, _| there(channel));
    let orders = daemon.orders.lock();
    let changed = |snapshot: &ChannelSnapshot| {
        let now = (snapshot.totals, orders.contains_key(&snapshot.channel));
        now != (Totals::default(), false) && kept.get(&snapshot.channel) != Some(&now)
    };
    snapshots.into_iter().filter(|snapshot| there(&snapshot.channel) && changed(snapshot)).collect()
}

async fn hand_over(
    daemon: &Daemon,
    client: &TowerClient,
    tower: &Multiaddr,
    fresh: Vec<ChannelSnapshot>,
    kept: &mut Kept,
) -> Result<(), String> {
    if !fresh.is_empty() {
        // The node may have signed what is not on its disk yet. A tower that has more than the disk would keep
        // the node from starting again.
        daemon.store.settled().await.map_err(|error| error.to_string())?;
    }
    for page in fresh.chunks(PAGE) {
        let handed = handed(daemon, page);
        let with_order: Vec<ChannelId> = handed.orders.iter().map(|order| order.statement.channel).collect();
        match client.ask(tower, Ask::HandOver(handed)).await {
            Ok(Reply::Kept {}) => {}
            Ok(Reply::Refused { why, .. }) => return Err(why),
            Ok(Reply::Given { .. }) => return Err("the tower answers something else".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
        let now = |s: &ChannelSnapshot| (s.channel, (s.totals, with_order.contains(&s.channel)));
        kept.extend(page.iter().map(now));
    }
    Ok(())
}

/// What a tower needs of these channels.
fn handed(daemon: &Daemon, channels: &[ChannelSnapshot]) -> Handed {
    let mut handed = Handed::default();
    for ChannelSnapshot { channel, side, totals, their_payment, .. } in channels {
        if let Some(state) = their_payment {
            handed.states.push(SubmitStateArgs { state: state.clone(), signer: side.other() });
        }
        // Names no more than this node has signed before, so it gives nobody anything new.
        let state = ChannelState { channel: *channel, totals: *totals, items: Hash([0; 32]) };
        let state = daemon.secret.sign(&daemon.network, state);
        handed.own.push(SubmitStateArgs { state, signer: *side });
        handed.orders.extend(daemon.orders.lock().get(channel).cloned());
    }
    handed
}
