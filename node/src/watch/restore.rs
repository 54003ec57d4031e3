//! A node that has lost its disk gets its latest states back, and one whose store is older than what
//! its towers hold does not start.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use libp2p::Multiaddr;
use libp2p_por::Store as _;
use por_core::Write;
use por_core::recover::{self, Recovered};
use por_types::interface::{ChannelView, SubmitStateArgs};
use por_types::{AccountId, ChannelId, ChannelState, DalekVerify, NodeKey, NodeSecret, Side, Signed, Yocto};
use serde::Serialize;

use super::tower::Ends;
use super::wire::{Ask, Reply, TowerClient};
use super::{Handed, MAX_PER_NODE};
use crate::chain::{Chain, ChainConfig, MemoryIntents};
use crate::client::{ClientError, ErrorCode};
use crate::exit::{CliError, ExitCode};
use crate::graph::is_over;
use crate::keys::NodeSetup;
use crate::runtime::{other, setup_error as cli_error, store_error as runtime_error};
use crate::store::{NodeStore, StoreIdentity};

/// How long a starting node waits for its towers.
const CHECK_PATIENCE: Duration = Duration::from_secs(5);
/// Most pages that one tower may give.
const PAGES: usize = 64;
/// Most channels that the chain is asked about on the word of one tower, which holds no more of a node.
const QUESTIONS: usize = MAX_PER_NODE;

/// A channel of which towers had something.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct RestoredChannel {
    pub channel: ChannelId,
    pub peer_account: AccountId,
    /// Totals of the states that were given back: signed by this node, and by the other one.
    pub sent: Yocto,
    pub received: Yocto,
    /// The store had less.
    pub raised: bool,
}

/// Asks the towers for the latest states of the node's channels, and raises the store of the home to
/// them, making it if there is none. Never lowers anything: every statement is checked, and of each
/// channel the highest one counts, whatever tower it came from. The daemon must not run.
///
/// Errors: [`ExitCode::Usage`] without towers, [`ExitCode::Unreachable`] if none of them answers,
/// and those of the chain and of the store.
pub async fn restore(setup: NodeSetup, towers: &[Multiaddr]) -> Result<Vec<RestoredChannel>, CliError> {
    if towers.is_empty() {
        return Err(CliError::usage("no watchtower is known", "name one with --from, or in p2p.watchtowers"));
    }
    let NodeSetup { home, lock, config, keys } = setup;
    let network = config.network();
    let node = keys.node.public();
    let client = TowerClient::start(&keys.node).map_err(super::service::swarm_error)?;
    let given = ask_all(&client, towers).await?;
    let chain = ChainConfig::new(&config.network, config.account.clone(), None);
    let chain = Chain::connect(chain, Arc::new(MemoryIntents::default())).await?;
    let mut found = BTreeMap::new();
    for (tower, pages) in given {
        let mut asked = 0;
        for args in pages.into_iter().flat_map(|handed| handed.states.into_iter().chain(handed.own)) {
            if !add(&chain, &node, args, &mut found, &mut asked).await? {
                tracing::warn!(%tower, "the watchtower gives what cannot be this node's; the rest of it is left");
                break;
            }
        }
    }
    let kept: Vec<Recovered> = found.values().flatten().map(|(_, kept)| kept.clone()).collect();
    let identity = StoreIdentity { network, node_key: node };
    let path = home.store_file();
    let open = tokio::task::spawn_blocking(move || NodeStore::open(&path, &identity));
    let store = open.await.map_err(|error| CliError::new(ExitCode::Other, error.to_string(), ""))?;
    let store = store.map_err(store_error)?;
    let raised = raise(&store, &chain, node, &kept).await;
    store.close().await.map_err(store_error)?;
    drop(lock);
    let raised = raised?;
    let channels = found.into_values().flatten();
    Ok(channels.map(|(view, kept)| told(&view, &kept, raised.contains(&kept.channel))).collect())
}

fn told(view: &ChannelView, kept: &Recovered, raised: bool) -> RestoredChannel {
    let total = |state: &Option<Signed<ChannelState>>, side| {
        state.as_ref().map_or(Yocto::ZERO, |state| state.statement.totals.sent_by(side))
    };
    RestoredChannel {
        channel: kept.channel,
        peer_account: if kept.side == Side::A { view.b.clone() } else { view.a.clone() },
        sent: total(&kept.own, kept.side),
        received: total(&kept.theirs, kept.side.other()),
        raised,
    }
}

/// Refuses to go on with a store that is older than what a tower holds: an empty one, or a copy from
/// before the last payments. Called before anything is signed. A tower that does not answer in time
/// stops nothing: it may be gone for good, and the counterparty's own copy is checked with it.
///
/// Errors: [`ErrorCode::CorruptStore`], and those of the chain and of the store.
pub(crate) async fn check(
    secret: &NodeSecret,
    store: &NodeStore,
    chain: &Chain,
    towers: &[Multiaddr],
) -> Result<(), ClientError> {
    if towers.is_empty() {
        return Ok(());
    }
    let client = TowerClient::start(secret).map_err(|error| other(error.to_string()))?;
    let asked = towers.iter().map(|tower| tokio::time::timeout(CHECK_PATIENCE, pages(&client, tower)));
    let restored = store.restored().map_err(runtime_error)?;
    let known = recover::totals(restored.clone())
        .map_err(|error| ClientError::new(ErrorCode::CorruptStore, error.to_string(), ""))?;
    let mut found = Found::new();
    let node = secret.public();
    for (tower, given) in towers.iter().zip(futures::future::join_all(asked).await) {
        let pages = match given {
            Ok(Ok(pages)) => pages,
            Ok(Err(error)) => {
                tracing::warn!(%tower, error, "a watchtower cannot say whether it holds later states");
                continue;
            }
            Err(_) => {
                tracing::warn!(%tower, "a watchtower did not say in time whether it holds later states");
                continue;
            }
        };
        let states = |handed: Handed| {
            handed
                .own
                .into_iter()
                .map(|args| (true, args))
                .chain(handed.states.into_iter().map(|args| (false, args)))
        };
        let mut asked = 0;
        for (own, args) in pages.into_iter().flat_map(states) {
            let SubmitStateArgs { state, signer } = &args;
            let (mine, theirs) = known.get(&state.statement.channel).copied().unwrap_or_default();
            // Only what looks newer, and is signed by this node where it says so, is worth a question to the chain.
            if state.statement.totals.sent_by(*signer) <= if own { mine } else { theirs } {
                continue;
            }
            let forged = own && !state.verify(chain.network(), &node, &DalekVerify);
            if forged || !add(chain, &node, args, &mut found, &mut asked).await.map_err(cli_error)? {
                tracing::warn!(%tower, "the watchtower gives what cannot be this node's; the rest of it is left");
                break;
            }
        }
    }
    let kept: Vec<Recovered> = found.into_values().flatten().map(|(_, kept)| kept).collect();
    let writes = recover::recover(chain.network(), node, restored, &kept, 0);
    let writes = writes.map_err(|error| ClientError::new(ErrorCode::CorruptStore, error.to_string(), ""))?;
    let older: Vec<ChannelId> = raised(&writes, &kept);
    match older.first() {
        None => Ok(()),
        Some(channel) => Err(ClientError::new(
            ErrorCode::CorruptStore,
            format!(
                "the store is older than what a watchtower holds of channel {channel}, and of {} others",
                older.len() - 1
            ),
            "put back the latest copy of the store if there is one, else run `por watch restore`",
        )),
    }
}

/// The channels that the writes are about.
fn raised(writes: &[Write], kept: &[Recovered]) -> Vec<ChannelId> {
    let keys: Vec<&[u8]> = writes.iter().map(|write| &*write.key).collect();
    let channels = kept.iter().map(|kept| kept.channel);
    channels.filter(|channel| keys.contains(&channel.0.to_be_bytes().as_slice())).collect()
}

/// What the towers give; at least one has answered.
async fn ask_all<'t>(
    client: &TowerClient,
    towers: &'t [Multiaddr],
) -> Result<Vec<(&'t Multiaddr, Vec<Handed>)>, CliError> {
    let mut given = Vec::new();
    let mut failure = None;
    let mut answered = false;
    for tower in towers {
        match pages(client, tower).await {
            Ok(pages) => {
                answered = true;
                given.push((tower, pages));
            }
            Err(error) => {
                tracing::warn!(%tower, %error, "a watchtower gives nothing back");
                failure = Some(format!("{tower}: {error}"));
            }
        }
    }
    match failure {
        Some(error) if !answered => Err(CliError::new(
            ExitCode::Unreachable,
            error,
            "check the tower's address, and that `por watch` runs there",
        )),
        _ => Ok(given),
    }
}

async fn pages(client: &TowerClient, tower: &Multiaddr) -> Result<Vec<Handed>, String> {
    let mut pages = Vec::new();
    let mut after = None;
    while pages.len() < PAGES {
        match client.ask(tower, Ask::GiveBack { after }).await {
            Ok(Reply::Given { handed, more }) => {
                pages.push(handed);
                match more {
                    // Pages that do not go on would never end.
                    Some(more) if after.is_none_or(|after| more > after) => after = Some(more),
                    _ => return Ok(pages),
                }
            }
            Ok(Reply::Refused { why, .. }) => return Err(why),
            Ok(Reply::Kept {}) => return Err("the tower answers something else".to_owned()),
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(pages)
}

/// By channel; `None` for those that are not this node's or are over.
type Found = BTreeMap<ChannelId, Option<(ChannelView, Recovered)>>;

/// Adds a state if it is higher than what another tower gave. False if no honest tower would give it: it is not
/// rightly signed, of a channel of others, or of more channels than one holds of a node. `asked`: questions to the
/// chain on the word of this tower.
async fn add(
    chain: &Chain,
    node: &NodeKey,
    args: SubmitStateArgs,
    found: &mut Found,
    asked: &mut usize,
) -> Result<bool, CliError> {
    let SubmitStateArgs { state, signer } = args;
    let channel = state.statement.channel;
    if let Entry::Vacant(free) = found.entry(channel) {
        if *asked >= QUESTIONS {
            return Ok(false);
        }
        *asked += 1;
        let view = chain.channel(channel).await?;
        let foreign = view.as_ref().is_some_and(|view| Ends::of(view).side(node).is_none());
        let mine = view.filter(|view| !is_over(&view.status)).and_then(|view| {
            let ends = Ends::of(&view);
            let side = ends.side(node)?;
            let peer = ends.key(side.other());
            Some((view, Recovered { channel, peer, side, own: None, theirs: None }))
        });
        free.insert(mine);
        if foreign {
            return Ok(false);
        }
    }
    // Over, or gone: the tower has not looked since.
    let Some(Some((view, kept))) = found.get_mut(&channel) else { return Ok(true) };
    if !state.verify(chain.network(), &Ends::of(view).key(signer), &DalekVerify) {
        return Ok(false);
    }
    let slot = if signer == kept.side { &mut kept.own } else { &mut kept.theirs };
    let total = |state: &Signed<ChannelState>| state.statement.totals.sent_by(signer);
    if slot.as_ref().is_none_or(|held| total(&state) > total(held)) {
        *slot = Some(state);
    }
    Ok(true)
}

/// Writes what is higher than what the store has; the channels that it raised. Durable when it
/// returns.
async fn raise(
    store: &NodeStore,
    chain: &Chain,
    node: NodeKey,
    kept: &[Recovered],
) -> Result<Vec<ChannelId>, CliError> {
    let restored = store.restored().map_err(store_error)?;
    // More than any count of starts: seconds since 1970.
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let start = u32::try_from(since.as_secs()).unwrap_or(u32::MAX / 2);
    let writes = recover::recover(chain.network(), node, restored, kept, start).map_err(|error| {
        CliError::new(ExitCode::CorruptStore, error.to_string(), "move the store away and restore again")
    })?;
    let raised = raised(&writes, kept);
    if raised.is_empty() {
        return Ok(raised);
    }
    let mut ledger = store.ledger();
    ledger.submit(1, writes);
    let durable = std::future::poll_fn(|cx| ledger.poll_durable(cx)).await;
    durable.map_err(|error| {
        CliError::new(ExitCode::Other, error.to_string(), "repair the disk and try again")
    })?;
    Ok(raised)
}

fn store_error(error: crate::store::StoreError) -> CliError {
    crate::client::ClientError::new(error.code(), error.to_string(), "").into()
}
