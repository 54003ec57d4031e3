//! SeverOrders on their way to the chain, and the late fee on its way from there (protocol
//! sections 5 and 6).

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use por_types::interface::code;
use por_types::{SeverOrder, Signed, Yocto};
use tokio::task::{JoinError, JoinSet};

use super::{Daemon, failure, other};
use crate::alarm::failed;
use crate::chain::{Chain, ChainError};
use crate::client::{ClientError, ErrorCode};

/// First and longest wait after a call that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How long the graph may take to show what a call has changed, before the call is made again: on a local
/// chain, and elsewhere.
const SHOWN: (Duration, Duration) = (Duration::from_secs(5), Duration::from_secs(60));

/// How long others' orders are left to their signers: on a local chain, and elsewhere.
const PATIENCE: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(20));

/// Between two looks at the late fee: on a local chain, and elsewhere.
const FEE_INTERVAL: (Duration, Duration) = (Duration::from_secs(2), Duration::from_secs(60));

/// How often endpoints are asked at a start until they agree.
const FEE_TRIES: u32 = 3;

/// Brings each order to the chain. Runs for ever.
pub(super) async fn run(daemon: Arc<Daemon>, local: bool) -> Result<(), ClientError> {
    let stopped = || other("the protocol driver has stopped");
    let mut orders = daemon.control.orders().await.map_err(|_| stopped())?;
    let patience = if local { PATIENCE.0 } else { PATIENCE.1 };
    let shown_within = if local { SHOWN.0 } else { SHOWN.1 };
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            order = orders.next() => match order {
                Some(order) => drop(calls.spawn(bring(daemon.clone(), order, patience, shown_within))),
                None => return Err(stopped()),
            },
            // An order that nobody brings is an edge that stays, and is paid for.
            Some(done) = calls.join_next() => done.map_err(|error| failure(bringing(error)))?,
        }
    }
}

fn bringing(error: JoinError) -> String {
    let name = "task that brings orders to the chain";
    error.try_into_panic().map_or_else(|_| format!("the {name} has stopped"), |panic| failed(name, &*panic))
}

/// Submits an order until the chain shows that the edge has left.
async fn bring(daemon: Arc<Daemon>, order: Signed<SeverOrder>, patience: Duration, shown_within: Duration) {
    let channel = order.statement.channel;
    if order.statement.signer != daemon.node_key {
        tokio::time::sleep(patience).await;
    }
    daemon.orders.lock().insert(channel, order.clone());
    let mut wait = BACKOFF.0;
    while is_in_graph(&daemon, channel) {
        match daemon.chain.sever(order.clone()).await {
            // That it is there is one endpoint's word; that the edge has left is what counts.
            Ok(_) => shown(&daemon, channel, shown_within).await,
            Err(error) if is_over(&error) => break,
            Err(error) => {
                tracing::warn!(%channel, %error, "a SeverOrder has to wait");
                tokio::time::sleep(wait).await;
                wait = (wait * 2).min(BACKOFF.1);
            }
        }
    }
    daemon.orders.lock().remove(&channel);
    daemon.sync_now.notify_one();
}

/// Until the graph shows that an order has had its effect, or for long enough.
async fn shown(daemon: &Daemon, channel: por_types::ChannelId, within: Duration) {
    let mut versions = daemon.versions.clone();
    daemon.sync_now.notify_one();
    let gone = async { while is_in_graph(daemon, channel) && versions.changed().await.is_ok() {} };
    if tokio::time::timeout(within, gone).await.is_err() {
        tracing::warn!(%channel, "a SeverOrder is said to be on chain, and the channel is still in the graph");
    }
}

/// True also for a channel of which the graph was not read yet: the chain decides.
fn is_in_graph(daemon: &Daemon, channel: por_types::ChannelId) -> bool {
    use por_types::interface::ChannelStatus::{Closing, Open};
    let graph = daemon.graph.read();
    let edge = graph.edge(channel);
    edge.is_none_or(|edge| matches!(edge.view.status, Open | Closing { .. }))
}

/// Somebody else was first, or the channel is closed and gone.
fn is_over(error: &ChainError) -> bool {
    matches!(error.contract_code(), Some(code::NOT_SEVERABLE | code::NO_CHANNEL | code::NOT_REGISTERED))
}

/// What lateness costs, where nothing is known from an earlier run: what a start found, if other endpoints say so too.
///
/// Errors: `Unreachable` if no more of them do than do not.
pub(super) async fn agree_on_fee(chain: &Chain) -> Result<Yocto, ClientError> {
    let fee = chain.config_found().params.late_fee;
    for attempt in 0..FEE_TRIES {
        if attempt > 0 {
            tokio::time::sleep(FEE_INTERVAL.0).await;
        }
        if chain.agrees_on_late_fee(fee).await {
            return Ok(fee);
        }
    }
    let message = format!("endpoints do not agree that lateness costs {fee} yocto a millisecond");
    let fix =
        "see that all of network.rpc_urls answer, and remove one that says something else than the others";
    Err(ClientError::new(ErrorCode::Unreachable, message, fix))
}

/// Tells the protocol what lateness costs, whenever that changes from what it was at the start. Runs for ever.
pub(super) async fn follow_fee(daemon: Arc<Daemon>, local: bool) -> Result<(), ClientError> {
    let interval = if local { FEE_INTERVAL.0 } else { FEE_INTERVAL.1 };
    loop {
        let told = *daemon.late_fee.lock();
        match daemon.chain.config().await {
            Ok(config) if told != config.params.late_fee => {
                let fee = config.params.late_fee;
                // Lateness is paid for at this rate, and what was signed is paid.
                if !daemon.chain.agrees_on_late_fee(fee).await {
                    tracing::error!(%fee, "an endpoint says another late fee than the others; it stays as it is");
                    tokio::time::sleep(interval).await;
                    continue;
                }
                let set = daemon.control.set_late_fee(fee).await;
                set.map_err(|_| other("the protocol driver has stopped"))?;
                *daemon.late_fee.lock() = fee;
            }
            Ok(_) => {}
            Err(error) => tracing::debug!(%error, "the late fee cannot be read"),
        }
        tokio::time::sleep(interval).await;
    }
}
