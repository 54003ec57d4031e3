//! The channel manager: what the chain says about this node's channels, and what the ledger says,
//! brought together.
//!
//! It works level-triggered: every pass looks at the chain's state and the ledger and derives what
//! is to be done next, so a crash at any instant loses nothing and repeats nothing that matters.
//! Only channels that are open at a final block are spent on.

mod decide;
mod floors;
mod leaving;
mod questions;
mod rests;
mod start;
#[cfg(test)]
mod tests;
mod topup;

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use libp2p_por::Control;
use parking_lot::Mutex;
use por_core::{ChannelSnapshot, MyChannel};
use por_types::interface::{ChannelStatus, ChannelView, code};
use por_types::{AmountError, ChannelId, NodeKey, Side, Yocto};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

use crate::alarm::failed;
use crate::chain::{Chain, ChainError, Intent, Others, Page, Shown};
use crate::client::{ChannelInfo, ClientError, ErrorCode};
use crate::config::PolicyConfig;
use crate::graph::{SharedGraph, is_over};
use crate::runtime::{Known, failure};
use crate::store::{AppTable, NodeStore};
use crate::swarm::SwarmHandle;

use decide::{Action, Situation, decide};
use floors::Floors;
use leaving::Leaving;
use rests::Rests;
use topup::TopUps;

/// Passes happen at every change of the graph and at least this often, for what depends on time.
const PASS_INTERVAL: Duration = Duration::from_millis(500);
/// First and longest wait after a call that failed.
const BACKOFF: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// What the manager works with.
#[derive(Clone)]
pub(crate) struct Parts {
    pub node_key: NodeKey,
    pub policy: PolicyConfig,
    pub control: Control,
    pub chain: Chain,
    pub graph: SharedGraph,
    pub store: NodeStore,
    pub swarm: SwarmHandle,
}

/// This node's channels; cheap to clone.
#[derive(Clone)]
pub(crate) struct Channels {
    parts: Arc<Parts>,
    /// Channels that the operator asked to close; also in the store.
    closing: Arc<Mutex<BTreeSet<ChannelId>>>,
    /// Wakes the manager.
    nudge: Arc<Notify>,
    /// Whether the protocol was told of the channels that a read graph has.
    told: Arc<watch::Sender<bool>>,
}

impl Channels {
    /// Reads which closes were asked for before a restart.
    pub(crate) fn load(parts: Parts) -> Result<Channels, ClientError> {
        let rows = parts.store.list(AppTable::Closing).map_err(store_error)?;
        let ids = rows.into_iter().filter_map(|(key, _)| Some(u64::from_be_bytes(key.try_into().ok()?)));
        let closing = ids.map(ChannelId).collect();
        Ok(Channels {
            parts: Arc::new(parts),
            closing: Arc::new(Mutex::new(closing)),
            nudge: Arc::new(Notify::new()),
            told: Arc::new(watch::Sender::new(false)),
        })
    }

    /// Becomes true when the protocol knows this node's channels: requests before that find none.
    pub(crate) fn told(&self) -> watch::Receiver<bool> {
        self.told.subscribe()
    }

    /// Asks for a cooperative close; the rest happens by itself, also after restarts.
    ///
    /// Errors: `NotFound` if it is not an open channel of this node.
    pub(crate) async fn close(&self, channel: ChannelId) -> Result<(), ClientError> {
        self.check_in_use(channel)?;
        let channels = self.clone();
        // To its end, also if the caller goes: what is on disk would else be done at the next start.
        let noted = tokio::spawn(async move {
            let key = channel.0.to_be_bytes();
            channels.parts.store.put(AppTable::Closing, &key, Vec::new()).await.map_err(store_error)?;
            channels.closing.lock().insert(channel);
            channels.nudge.notify_one();
            Ok(())
        });
        noted.await.map_err(|_| stopped())?
    }

    /// Severs a channel without the other side, at the price of both bonds. The order is on disk before it is
    /// shown to anybody; the rest happens by itself, also after restarts.
    ///
    /// Errors: as of [`Channels::close`]; `Retryable` while the protocol does not know its channels yet.
    pub(crate) async fn sever(&self, channel: ChannelId) -> Result<(), ClientError> {
        self.check_in_use(channel)?;
        if !*self.told.borrow() {
            let what = "the node has not read its channels from the chain yet";
            return Err(ClientError::new(
                ErrorCode::Retryable,
                what,
                "try again in a moment; see `por status`",
            ));
        }
        self.parts.control.sever(channel).await.map_err(|_| stopped())
    }

    /// Whether a channel of this node is one that can be ended.
    pub(crate) fn check_in_use(&self, channel: ChannelId) -> Result<(), ClientError> {
        let mine = self.views().into_iter().find(|view| view.channel == channel);
        let (code, what, fix) = match mine.map(|view| view.status) {
            Some(ChannelStatus::Open | ChannelStatus::Closing { .. }) => return Ok(()),
            Some(ChannelStatus::Proposed) => (ErrorCode::Usage, "only proposed", "use `por channel cancel`"),
            Some(_) => (ErrorCode::Usage, "closed already", "see `por channel list`"),
            None => (ErrorCode::NotFound, "not one of this node's", "see `por channel list`"),
        };
        Err(ClientError::new(code, format!("channel {channel} is {what}"), fix))
    }

    /// All channels of this node with the ledger's state.
    pub(crate) async fn list(&self) -> Result<Vec<ChannelInfo>, ClientError> {
        let ledger = self.ledger().await?;
        let connected = self.parts.swarm.connected();
        let is_connected =
            |key: &NodeKey| libp2p_por::peer_id(key).is_some_and(|peer| connected.borrow().contains(&peer));
        let mut channels: Vec<ChannelInfo> = self
            .views()
            .into_iter()
            .map(|view| {
                let peer = if self.side(&view) == Side::A { view.key_b } else { view.key_a };
                self.info(&view, ledger.get(&view.channel), is_connected(&peer))
            })
            .collect();
        channels.sort_by_key(|info| info.channel);
        Ok(channels)
    }

    /// Runs for ever. With what was `known` before it starts without the chain.
    pub(crate) async fn run(
        self,
        mut versions: tokio::sync::watch::Receiver<crate::graph::GraphVersion>,
        known: Option<Known>,
    ) -> Result<(), ClientError> {
        let mut manager = Manager::new(self, known)?;
        let mut timer = tokio::time::interval(PASS_INTERVAL);
        timer.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            manager.pass().await?;
            let nudge = manager.channels.nudge.clone();
            tokio::select! {
                changed = versions.changed() => if changed.is_err() {
                    return Err(ClientError::new(ErrorCode::Other, "the graph is no longer followed", ""));
                },
                () = nudge.notified() => {}
                _ = timer.tick() => {}
                Some(done) = manager.calls.join_next() => manager.on_done(done).await?,
                Some(looked) = manager.looks.join_next() => manager.on_looked(looked)?,
                Some(answer) = manager.leaving.questions.next() => manager.leaving.take(&answer?),
                Some(answer) = manager.floors.questions.next() => manager.floors.take(&answer?),
            }
        }
    }

    /// This node's channels in the graph.
    pub(crate) fn views(&self) -> Vec<ChannelView> {
        self.parts.graph.read().channels_of(&self.parts.node_key).into_iter().cloned().collect()
    }

    fn side(&self, view: &ChannelView) -> Side {
        if view.key_a == self.parts.node_key { Side::A } else { Side::B }
    }

    async fn ledger(&self) -> Result<HashMap<ChannelId, ChannelSnapshot>, ClientError> {
        let snapshots = self.parts.control.channels().await.map_err(|_| stopped())?;
        Ok(snapshots.into_iter().map(|snapshot| (snapshot.channel, snapshot)).collect())
    }

    fn info(&self, view: &ChannelView, ledger: Option<&ChannelSnapshot>, connected: bool) -> ChannelInfo {
        let mine = my_channel(view, self.side(view), false);
        let totals = ledger.map_or(view.totals, |ledger| ledger.totals);
        let balance = |side: Side, deposit, drawn| totals.balance(side, deposit, drawn).unwrap_or_default();
        let (side, other) = (mine.side, mine.side.other());
        let closing = self.closing.lock().contains(&view.channel) && view.status == ChannelStatus::Open;
        ChannelInfo {
            channel: view.channel,
            peer: mine.peer,
            peer_account: mine.peer_account,
            side,
            status: view.status.clone(),
            terms: view.terms.clone(),
            deposit_mine: mine.deposit_mine,
            deposit_theirs: mine.deposit_theirs,
            bond: view.bond,
            totals,
            balance_mine: balance(side, mine.deposit_mine, mine.drawn_mine),
            balance_theirs: balance(other, mine.deposit_theirs, mine.drawn_theirs),
            pending_out: ledger.map(|ledger| ledger.pending_out).unwrap_or_default(),
            pending_in: ledger.map(|ledger| ledger.pending_in).unwrap_or_default(),
            unfinished: ledger.map_or(0, |ledger| ledger.unfinished),
            connected,
            closing: closing || matches!(view.status, ChannelStatus::Closing { .. }),
        }
    }
}

/// A call that has ended.
struct Done {
    channel: ChannelId,
    action: Action,
    /// Derived from what only some endpoints show.
    by_others: bool,
    result: Result<(), ChainError>,
}

/// State of the passes.
struct Manager {
    channels: Channels,
    calls: JoinSet<Done>,
    /// Channels with a call under way.
    busy: HashSet<ChannelId>,
    rests: Rests,
    /// What the protocol was told last.
    told: Option<Vec<MyChannel>>,
    /// When the channels that this node has used are asked for again, while the graph is not read; `None` once
    /// they are known.
    ask_again: Option<Instant>,
    /// What an earlier run knew, until the protocol was told of it.
    known: Option<Known>,
    /// Totals that were stated in a close request that reached the contract, so that a disagreement does not go
    /// back and forth on chain.
    stated: HashMap<ChannelId, por_types::Totals>,
    leaving: Leaving,
    floors: Floors,
    top_ups: TopUps,
    /// What all endpoints show of this node's channels, and the question that is under way.
    others: Others,
    looks: JoinSet<(Page, Vec<Shown>)>,
    /// Since when this run has seen that a channel is over.
    over: HashMap<ChannelId, Instant>,
}

impl Manager {
    fn new(channels: Channels, known: Option<Known>) -> Result<Manager, ClientError> {
        let Parts { chain, store, policy, .. } = &*channels.parts;
        let others = Others::new(&chain.config_found().params);
        let top_ups = TopUps::load(store.clone(), policy.late_top_up)?;
        Ok(Manager {
            channels,
            calls: JoinSet::new(),
            busy: HashSet::new(),
            rests: Rests::default(),
            told: None,
            ask_again: Some(Instant::now()),
            known,
            stated: HashMap::new(),
            leaving: Leaving::default(),
            floors: Floors::default(),
            top_ups,
            others,
            looks: JoinSet::new(),
            over: HashMap::new(),
        })
    }

    async fn pass(&mut self) -> Result<(), ClientError> {
        let read = self.channels.parts.graph.read().height() > 0;
        let mut views = self.channels.views();
        // The protocol takes a channel that is missing for gone: it is told of the whole set or of none.
        let ledger = self.channels.ledger().await?;
        self.look_at_others(&views);
        self.floors.check(&self.channels.parts.chain, &mut views, &ledger);
        if read && self.tell_protocol(&views, &ledger, true).await? {
            self.channels.told.send_replace(true);
            self.ask_again = None;
        }
        if let Some(known) = self.known.take()
            && self.told.is_none()
        {
            self.tell_known(&known, &ledger).await?;
        }
        if self.ask_again.is_some_and(|time| time <= Instant::now()) {
            self.tell_used(&ledger).await?;
        }
        let now_ms = self.channels.parts.graph.read().chain_time_ms();
        for view in &views {
            if self.busy.contains(&view.channel) {
                continue;
            }
            let waits =
                |rests: &Rests, action: &Action| rests.waits(view.channel, action.name(), Instant::now());
            let over = is_over(&view.status);
            let over = over.then(|| self.over.entry(view.channel).or_insert_with(Instant::now).elapsed());
            let side = self.channels.side(view);
            let deposit = if side == Side::A { view.deposit_a } else { view.deposit_b };
            let trusted = !self.others.doubt_use(view.channel);
            let situation = Situation {
                view,
                side,
                ledger: ledger.get(&view.channel),
                close_wanted: self.channels.closing.lock().contains(&view.channel),
                stated: self.stated.get(&view.channel).copied(),
                over: over.unwrap_or_default(),
                now_ms,
                policy: &self.channels.parts.policy,
                top_up_most: trusted.then(|| self.top_ups.most(view.channel, deposit)),
            };
            if let Some(action) = decide(&situation) {
                if waits(&self.rests, &action) {
                    continue;
                }
                if let Action::TopUp { amount } = action {
                    self.top_ups.note(view.channel, deposit, amount).await?;
                }
                self.carry_out(view, action, false);
                continue;
            }
            if situation.runs_dry() {
                self.top_ups.tell_used_up(view.channel);
            }
            let others = self.others.act_on(view.channel);
            if let Some((view, action)) = decide::for_others(&situation, &others)
                && !waits(&self.rests, &action)
            {
                self.carry_out(view, action, true);
            }
        }
        self.forget_closed(&views).await
    }

    /// Asks all endpoints of some of the channels, if it is time.
    fn look_at_others(&mut self, views: &[ChannelView]) {
        let chain = &self.channels.parts.chain;
        if chain.is_alone() {
            return;
        }
        let known = views.iter().map(|view| (view.channel, Some(view)));
        self.others.know(known, chain.height_seen());
        if self.looks.is_empty()
            && let Some(page) = self.others.due_pages(1).pop()
        {
            let chain = chain.clone();
            self.looks.spawn(async move { (page, chain.shown(page).await) });
        }
    }

    fn on_looked(
        &mut self,
        looked: Result<(Page, Vec<Shown>), tokio::task::JoinError>,
    ) -> Result<(), ClientError> {
        let (page, shown) = looked.map_err(|error| {
            let what = error.try_into_panic().map(|panic| failed("channel manager's look", &*panic));
            failure(what.unwrap_or_else(|_| "a look of the channel manager has stopped".to_owned()))
        })?;
        self.others.take(page, &shown);
        Ok(())
    }

    /// Tells the protocol of the channels that it has used already, before the graph is read: what is unfinished
    /// over them goes on.
    async fn tell_used(&mut self, ledger: &HashMap<ChannelId, ChannelSnapshot>) -> Result<(), ClientError> {
        let parts = &self.channels.parts;
        let used = ledger.keys().copied().collect();
        let read = async {
            let time_ms = parts.chain.head().await?.time_ms;
            Ok::<_, ChainError>((time_ms, start::read(&parts.chain, used, parts.node_key).await?))
        };
        match read.await {
            Ok((_, views)) if views.is_empty() => self.ask_again = None,
            Ok((time_ms, mut views)) => {
                self.floors.check(&self.channels.parts.chain, &mut views, ledger);
                self.tell_graph(time_ms, &views).await?;
                let told = self.tell_protocol(&views, ledger, true).await?;
                self.ask_again = (!told).then(|| Instant::now() + BACKOFF.0);
            }
            Err(error) => {
                tracing::warn!(%error, "the channels of this node cannot be read yet");
                self.ask_again = Some(Instant::now() + BACKOFF.0);
            }
        }
        Ok(())
    }

    /// Tells the protocol what an earlier run knew, if all channels of the ledger are in it: what became of another
    /// one only the chain can say. What is owed over them goes on. Nothing new is taken on: whoever has severed a
    /// channel meanwhile would pay with what is worth nothing.
    async fn tell_known(
        &mut self,
        known: &Known,
        ledger: &HashMap<ChannelId, ChannelSnapshot>,
    ) -> Result<(), ClientError> {
        let views = &known.channels;
        if ledger.keys().all(|id| views.iter().any(|view| view.channel == *id)) {
            self.tell_graph(known.time_ms, views).await?;
            self.tell_protocol(&floors::lowered(views, ledger), ledger, false).await?;
        }
        Ok(())
    }

    /// Edges come first: a request over a channel that is known and has no edge would be refused. Of version 0:
    /// whatever the graph says comes after it.
    async fn tell_graph(&self, time_ms: u64, views: &[ChannelView]) -> Result<(), ClientError> {
        let told = self.channels.parts.control.update_graph(0, time_ms, start::edges(views)).await;
        told.map_err(|_| stopped())
    }

    /// Tells the protocol which channels may be used, new requests only over those that this run has `seen`, and
    /// the swarm whom to stay connected with. False if it cannot be told yet.
    async fn tell_protocol(
        &mut self,
        views: &[ChannelView],
        ledger: &HashMap<ChannelId, ChannelSnapshot>,
        seen: bool,
    ) -> Result<bool, ClientError> {
        let closing = self.channels.closing.lock().clone();
        let usable = |view: &&ChannelView| {
            matches!(
                view.status,
                ChannelStatus::Open | ChannelStatus::Closing { .. } | ChannelStatus::Severed { .. }
            )
        };
        let mut mine: Vec<MyChannel> = views
            .iter()
            .filter(usable)
            .map(|view| {
                let id = view.channel;
                let open = seen && view.status == ChannelStatus::Open && !closing.contains(&id);
                let open = open && !self.others.doubt_use(id);
                my_channel(view, self.channels.side(view), open)
            })
            .collect();
        mine.sort_by_key(|channel| channel.channel);
        let chain = &self.channels.parts.chain;
        if !self.leaving.check(chain, &mut mine, self.told.as_deref(), ledger) {
            return Ok(false);
        }
        if self.told.as_ref() == Some(&mine) {
            return Ok(true);
        }
        let peers = mine.iter().filter_map(|channel| libp2p_por::peer_id(&channel.peer)).collect();
        let swarm = &self.channels.parts.swarm;
        swarm.set_counterparties(peers).await.map_err(|_| stopped())?;
        self.channels.parts.control.set_channels(mine.clone()).await.map_err(|_| stopped())?;
        self.told = Some(mine);
        Ok(true)
    }

    fn carry_out(&mut self, view: &ChannelView, action: Action, by_others: bool) {
        let (channel, name) = (view.channel, action.name());
        tracing::info!(%channel, "{name}");
        self.busy.insert(channel);
        let parts = self.channels.parts.clone();
        let view = view.clone();
        self.calls.spawn(async move {
            let forgets = action == Action::Forget;
            let mut result = make(&parts.chain, &view, action.clone()).await;
            let gone = result.as_ref().err().and_then(ChainError::contract_code) == Some(code::NO_CHANNEL);
            if gone || (forgets && result.is_ok()) {
                // The change log does not speak of records that are no more.
                parts.graph.write().forget(channel);
                result = Ok(());
            }
            Done { channel, action, by_others, result }
        });
    }

    async fn on_done(&mut self, done: Result<Done, tokio::task::JoinError>) -> Result<(), ClientError> {
        // Derived again it would fail again, and the channel with it: evidence has its time.
        let Done { channel, action, by_others, result } = done.map_err(|error| {
            let what = error.try_into_panic().map(|panic| failed("channel manager's call", &*panic));
            failure(what.unwrap_or_else(|_| "a call of the channel manager has stopped".to_owned()))
        })?;
        self.busy.remove(&channel);
        // What never reached the contract is said again: the other side waits for it.
        let settled = match &result {
            Ok(()) => true,
            Err(error) => error.contract_code().is_some() && !error.is_transient(),
        };
        if let (Action::RequestClose(totals), true) = (&action, settled) {
            self.stated.insert(channel, *totals);
        }
        let refused = result.as_ref().err().is_some_and(ChainError::has_changed_nothing);
        if matches!(action, Action::TopUp { .. }) && refused {
            self.top_ups.take_back(channel).await?;
        }
        let name = action.name();
        match result {
            Ok(()) => self.rests.made(channel, name, Instant::now()),
            // Those that showed it were wrong; what is due by the others does not wait for that.
            Err(error) if by_others => tracing::warn!(%channel, %error, "{name} by another endpoint failed"),
            Err(error) => {
                tracing::warn!(%channel, %error, "{name} failed");
                self.rests.failed(channel, name, Instant::now());
            }
        }
        Ok(())
    }

    /// A close that is done needs no reminder.
    async fn forget_closed(&mut self, views: &[ChannelView]) -> Result<(), ClientError> {
        let known = |channel| views.iter().any(|view| view.channel == channel);
        self.over.retain(|channel, _| known(*channel));
        self.rests.keep(known);
        let done: Vec<ChannelId> = views
            .iter()
            .filter(|view| matches!(view.status, ChannelStatus::Closed { .. } | ChannelStatus::Cancelled))
            .map(|view| view.channel)
            .filter(|channel| self.channels.closing.lock().contains(channel))
            .collect();
        for channel in done {
            let key = channel.0.to_be_bytes();
            self.channels.parts.store.delete(AppTable::Closing, &key).await.map_err(store_error)?;
            self.channels.closing.lock().remove(&channel);
        }
        Ok(())
    }
}

async fn make(chain: &Chain, view: &ChannelView, action: Action) -> Result<(), ChainError> {
    let deposit = if action.takes_edge(view) { chain.config().await?.check_deposit } else { Yocto::ZERO };
    let rejected = |error: AmountError| ChainError::Rejected { reason: error.to_string() };
    let call = action.call(view, deposit).map_err(rejected)?;
    chain.call(Intent::new(call)).await.map(drop)
}

/// The chain's record of a channel as the protocol takes it.
fn my_channel(view: &ChannelView, side: Side, open: bool) -> MyChannel {
    let mine_is_a = side == Side::A;
    let pick = |a, b| if mine_is_a { (a, b) } else { (b, a) };
    let (deposit_mine, deposit_theirs) = pick(view.deposit_a, view.deposit_b);
    let (drawn_mine, drawn_theirs) = pick(view.drawn_a, view.drawn_b);
    MyChannel {
        channel: view.channel,
        peer: if mine_is_a { view.key_b } else { view.key_a },
        peer_account: if mine_is_a { view.b.clone() } else { view.a.clone() },
        side,
        deposit_mine,
        deposit_theirs,
        drawn_mine,
        drawn_theirs,
        bond: view.bond,
        floors: view.totals,
        terms: view.terms.clone(),
        open,
        gone: !matches!(
            view.status,
            ChannelStatus::Proposed | ChannelStatus::Open | ChannelStatus::Closing { .. }
        ),
    }
}

fn store_error(error: crate::store::StoreError) -> ClientError {
    ClientError::new(error.code(), error.to_string(), "")
}

fn stopped() -> ClientError {
    ClientError::new(ErrorCode::Retryable, "the node is shutting down", "start it again")
}
