//! What is guarded, and what has to be done about it.

use std::collections::{BTreeMap, BTreeSet};

use futures::{StreamExt as _, stream};
use por_types::interface::{ChannelStatus, ChannelView, FinalizeArgs, SubmitStateArgs, code};
use por_types::{
    ChannelId, ChannelState, DalekVerify, Network, NodeKey, SeverOrder, Side, Signed, Totals, Yocto,
};

use super::{Handed, MAX_GUARDED, MAX_PER_NODE, WatchError};
use crate::chain::{Call, Chain, ChainError, Intent, Others};

/// How long after its window a severed channel is left to its own sides to finalize, milliseconds of
/// block time; they take at most 15 seconds when they are there.
const FINALIZE_AFTER_MS: u64 = 20_000;

/// Questions to all endpoints at the same time.
const LOOKS: usize = 4;

/// What a round brought to the contract.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Channels whose settlement was corrected.
    pub challenged: Vec<ChannelId>,
    /// Channels that were severed.
    pub severed: Vec<ChannelId>,
    /// Severed channels that were paid out.
    pub finalized: Vec<ChannelId>,
    /// Channels that could not be looked at, or for which a call failed: the next round tries again.
    pub failed: Vec<(ChannelId, ChainError)>,
}

/// The node keys of a channel's sides, which never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Ends {
    pub a: NodeKey,
    pub b: NodeKey,
}

impl Ends {
    pub fn of(view: &ChannelView) -> Ends {
        Ends { a: view.key_a, b: view.key_b }
    }

    pub fn key(&self, side: Side) -> NodeKey {
        match side {
            Side::A => self.a,
            Side::B => self.b,
        }
    }

    pub fn side(&self, key: &NodeKey) -> Option<Side> {
        match key {
            key if *key == self.a => Some(Side::A),
            key if *key == self.b => Some(Side::B),
            _ => None,
        }
    }
}

type States = BTreeMap<(ChannelId, Side), Signed<ChannelState>>;

/// Channels as the copy of the graph has them, `None` where it has none.
pub(super) type Views = BTreeMap<ChannelId, Option<ChannelView>>;

/// A page of what one node is given back: whose, after which channel, how many channels.
pub(super) type PageOf<'k> = (&'k NodeKey, Option<ChannelId>, usize);

/// Everything that is guarded. Plain data: no chain, no clock.
#[derive(Clone, Debug, Default)]
pub(super) struct Guarded {
    pub ends: BTreeMap<ChannelId, Ends>,
    /// By signer, who is not the one that handed it over.
    pub states: States,
    /// By signer, who handed it over itself.
    pub own: States,
    pub orders: BTreeMap<ChannelId, Signed<SeverOrder>>,
}

/// One call of the contract that is due.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Sever(Signed<SeverOrder>),
    Submit(SubmitStateArgs),
    Finalize(ChannelId),
}

impl Deed {
    pub fn channel(&self) -> ChannelId {
        match self {
            Deed::Sever(order) => order.statement.channel,
            Deed::Submit(args) => args.state.statement.channel,
            Deed::Finalize(channel) => *channel,
        }
    }
}

/// Asks all endpoints of those channels whose turn it is, at most this many questions. `None` if there is only one
/// endpoint, which is believed.
pub(super) async fn look<'o>(
    chain: &Chain,
    others: &'o mut Others,
    views: &Views,
    most: usize,
) -> Option<&'o mut Others> {
    if chain.is_alone() {
        return None;
    }
    others.know(views.iter().map(|(id, view)| (*id, view.as_ref())), chain.height_seen());
    let due = others.due_pages(most);
    let asked = stream::iter(due).map(|page| async move { (page, chain.shown(page).await) });
    let mut asked = asked.buffer_unordered(LOOKS);
    while let Some((page, shown)) = asked.next().await {
        others.take(page, &shown);
    }
    Some(others)
}

impl Guarded {
    /// Checks what `from` hands over (`None`: whoever it is) and keeps what is newer. Nothing is kept
    /// on an error. `views` are the channels that are not guarded yet, as the chain has them.
    pub fn take(
        &mut self,
        network: &Network,
        from: Option<&NodeKey>,
        handed: Handed,
        views: &BTreeMap<ChannelId, Ends>,
    ) -> Result<(), WatchError> {
        let mut next = self.clone();
        for SubmitStateArgs { state, signer } in handed.states {
            let ends = next.ends(state.statement.channel, views)?;
            check_state(network, &ends, &state, signer, from.map(|from| (from, signer.other())))?;
            raise(&mut next.states, state, signer);
        }
        for SubmitStateArgs { state, signer } in handed.own {
            let ends = next.ends(state.statement.channel, views)?;
            check_state(network, &ends, &state, signer, from.map(|from| (from, signer)))?;
            raise(&mut next.own, state, signer);
        }
        let signers: BTreeSet<NodeKey> = handed.orders.iter().map(|order| order.statement.signer).collect();
        for order in handed.orders {
            let SeverOrder { channel, signer, .. } = order.statement;
            let ends = next.ends(channel, views)?;
            if from.is_some_and(|from| ends.side(from).is_none()) {
                return Err(WatchError::NotYours(channel));
            }
            if ends.side(&signer).is_none() || !order.verify(network, &signer, &DalekVerify) {
                return Err(WatchError::Forged(channel));
            }
            next.orders.entry(channel).or_insert(order);
        }
        // Of an order it is not kept who handed it over: it counts to its signer.
        let counted = from.into_iter().chain(&signers);
        if next.ends.len() > MAX_GUARDED || counted.into_iter().any(|node| next.held_of(node) > MAX_PER_NODE)
        {
            return Err(WatchError::Full);
        }
        *self = next;
        Ok(())
    }

    /// Channels of which a node has handed over something, or signed an order. What its neighbours hand over takes
    /// none of its places.
    fn held_of(&self, node: &NodeKey) -> usize {
        self.ends.iter().filter(|(channel, ends)| self.is_of(**channel, ends, node)).count()
    }

    fn is_of(&self, channel: ChannelId, ends: &Ends, node: &NodeKey) -> bool {
        ends.side(node).is_some_and(|side| {
            self.states.contains_key(&(channel, side.other()))
                || self.own.contains_key(&(channel, side))
                || self.orders.get(&channel).is_some_and(|order| order.statement.signer == *node)
        })
    }

    fn holds(&self, channel: ChannelId) -> bool {
        let of = |side| [&self.states, &self.own].iter().any(|states| states.contains_key(&(channel, side)));
        self.orders.contains_key(&channel) || of(Side::A) || of(Side::B)
    }

    fn ends(&mut self, channel: ChannelId, views: &BTreeMap<ChannelId, Ends>) -> Result<Ends, WatchError> {
        let known = self.ends.get(&channel).or(views.get(&channel)).copied();
        let ends = known.ok_or(WatchError::Unknown(channel))?;
        self.ends.insert(channel, ends);
        Ok(ends)
    }

    /// Everything, or a page of what one node is given back. With the last channel of the page if
    /// there are more.
    pub fn handed(&self, of: Option<PageOf<'_>>) -> (Handed, Option<ChannelId>) {
        let wanted = |id: &ChannelId, ends: &Ends| match of {
            None => true,
            // No pages of what its neighbours have handed over.
            Some((key, after, _)) => self.is_of(*id, ends, key) && after.is_none_or(|after| *id > after),
        };
        let all: Vec<ChannelId> =
            self.ends.iter().filter(|(id, ends)| wanted(id, ends)).map(|(id, _)| *id).collect();
        let page = of.map_or(all.len(), |(.., limit)| limit).min(all.len());
        let ids: BTreeSet<ChannelId> = all.iter().take(page).copied().collect();
        let more = (page < all.len()).then(|| ids.last().copied()).flatten();
        // A node gets what others signed for it and what it signed itself.
        let mine = |id: &ChannelId, side: Side| {
            of.is_none_or(|(key, ..)| self.ends.get(id).is_some_and(|ends| ends.key(side) == *key))
        };
        let args = |(&(_, signer), state): (&(ChannelId, Side), &Signed<ChannelState>)| SubmitStateArgs {
            state: state.clone(),
            signer,
        };
        let states =
            self.states.iter().filter(|((id, signer), _)| ids.contains(id) && mine(id, signer.other()));
        let own = self.own.iter().filter(|((id, signer), _)| ids.contains(id) && mine(id, *signer));
        let orders = self.orders.iter().filter(|(id, _)| ids.contains(id));
        let handed = Handed {
            states: states.map(args).collect(),
            orders: orders.map(|(_, order)| order.clone()).collect(),
            own: own.map(args).collect(),
        };
        (handed, more)
    }

    /// What is due at this block time on a channel that the chain has like this.
    fn due(&self, channel: ChannelId, view: Option<&ChannelView>, now_ms: u64) -> Vec<Deed> {
        let mut deeds = Vec::new();
        if let Some(order) = self.orders.get(&channel)
            && view.is_some_and(|view| severable(&view.status))
        {
            deeds.push(Deed::Sever(order.clone()));
        }
        let known = view.map_or(Settling::Over, |view| settling(view, now_ms));
        for signer in [Side::A, Side::B] {
            let Some(state) = self.states.get(&(channel, signer)) else { continue };
            match known {
                Settling::With(totals) if state.statement.totals.sent_by(signer) > totals.sent_by(signer) => {
                    deeds.push(Deed::Submit(SubmitStateArgs { state: state.clone(), signer }));
                }
                _ => {}
            }
        }
        if view.is_some_and(|view| is_left(&view.status, now_ms)) {
            deeds.push(Deed::Finalize(channel));
        }
        deeds
    }

    /// What is due on channels, by how the chain in use has them and by what other endpoints show. Forgets what is
    /// of no use any more if they agree, or there are no others.
    pub fn deeds(&mut self, views: &Views, others: Option<&mut Others>, now_ms: u64) -> Vec<Deed> {
        let mut deeds = Vec::new();
        let mut others = others;
        for (channel, view) in views {
            deeds.extend(self.due(*channel, view.as_ref(), now_ms));
            let mut agree = true;
            if let Some(others) = &mut others {
                for view in others.act_on(*channel) {
                    for deed in self.due(*channel, Some(&view), now_ms) {
                        if !deeds.contains(&deed) {
                            deeds.push(deed);
                        }
                    }
                }
                agree = others.agree(*channel);
            }
            if agree {
                self.forget(*channel, view.as_ref());
            }
        }
        deeds
    }

    fn forget(&mut self, channel: ChannelId, view: Option<&ChannelView>) {
        if !view.is_some_and(|view| severable(&view.status)) {
            self.orders.remove(&channel);
        }
        if view.is_none_or(|view| settling(view, 0) == Settling::Over) {
            for signer in [Side::A, Side::B] {
                self.states.remove(&(channel, signer));
                self.own.remove(&(channel, signer));
            }
        }
        let severed = view.is_some_and(|view| matches!(view.status, ChannelStatus::Severed { .. }));
        if !severed && !self.holds(channel) {
            self.ends.remove(&channel);
        }
    }

    pub fn channels(&self) -> Vec<ChannelId> {
        self.ends.keys().copied().collect()
    }
}

/// `by`: who handed it over, and which side that must be.
fn check_state(
    network: &Network,
    ends: &Ends,
    state: &Signed<ChannelState>,
    signer: Side,
    by: Option<(&NodeKey, Side)>,
) -> Result<(), WatchError> {
    let channel = state.statement.channel;
    if by.is_some_and(|(from, side)| ends.key(side) != *from) {
        return Err(WatchError::NotYours(channel));
    }
    match state.verify(network, &ends.key(signer), &DalekVerify) {
        true => Ok(()),
        false => Err(WatchError::Forged(channel)),
    }
}

fn raise(states: &mut States, state: Signed<ChannelState>, signer: Side) {
    let key = (state.statement.channel, signer);
    // The signer's own total is what counts; the other one only shows which of two is newer.
    let totals = |state: &Signed<ChannelState>| {
        let totals = state.statement.totals;
        (totals.sent_by(signer), totals.sent_by(signer.other()))
    };
    if states.get(&key).is_none_or(|held| totals(&state) > totals(held)) {
        states.insert(key, state);
    }
}

/// The ends of the channels in `handed` that are not known yet; no more is asked once one is not of `from`.
pub(super) async fn look_up(
    chain: &Chain,
    known: &BTreeSet<ChannelId>,
    from: Option<&NodeKey>,
    handed: &Handed,
) -> Result<BTreeMap<ChannelId, Ends>, WatchError> {
    let states = handed.states.iter().chain(&handed.own).map(|args| args.state.statement.channel);
    let channels: BTreeSet<ChannelId> =
        states.chain(handed.orders.iter().map(|order| order.statement.channel)).collect();
    let mut found = BTreeMap::new();
    for channel in channels.difference(known) {
        let view = chain.channel(*channel).await?.ok_or(WatchError::Unknown(*channel))?;
        let ends = Ends::of(&view);
        if from.is_some_and(|from| ends.side(from).is_none()) {
            return Err(WatchError::NotYours(*channel));
        }
        found.insert(*channel, ends);
    }
    Ok(found)
}

/// Makes a call. False if somebody else was quicker, or the time is over: both are well.
pub(super) async fn carry_out(chain: &Chain, deed: Deed) -> Result<bool, ChainError> {
    let (result, expected) = match deed {
        Deed::Sever(order) => (chain.sever(order).await, code::NOT_SEVERABLE),
        Deed::Submit(args) => (chain.call(Intent::new(Call::SubmitState(args))).await, code::NOTHING_NEW),
        Deed::Finalize(channel) => {
            let args = FinalizeArgs { channel, witness: None };
            let call = Call::Finalize { args, attached: Yocto::ZERO };
            (chain.call(Intent::new(call)).await, code::NOTHING_TO_FINALIZE)
        }
    };
    let well = [expected, code::WINDOW_OVER, code::NOT_CLOSING, code::NO_CHANNEL];
    match result {
        Ok(_) => Ok(true),
        Err(error) if error.contract_code().is_some_and(|code| well.contains(&code)) => Ok(false),
        Err(error) => Err(error),
    }
}

impl Round {
    pub(super) fn note(&mut self, deed: &Deed) {
        match deed {
            Deed::Sever(order) => self.severed.push(order.statement.channel),
            Deed::Submit(args) => self.challenged.push(args.state.statement.channel),
            Deed::Finalize(channel) => self.finalized.push(*channel),
        }
    }
}

/// Guards channels through a chain client of its own.
pub struct Tower {
    chain: Chain,
    guarded: Guarded,
    others: Others,
}

impl Tower {
    /// `chain` needs a key: submitting costs gas.
    pub fn new(chain: Chain) -> Tower {
        let others = Others::new(&chain.config_found().params);
        Tower { chain, guarded: Guarded::default(), others }
    }

    /// Takes what a node hands over. Everything is checked against the chain before any of it is
    /// taken.
    ///
    /// Errors: [`WatchError::Unknown`], [`WatchError::Forged`], [`WatchError::Full`], or of the chain.
    pub async fn take(&mut self, handed: Handed) -> Result<(), WatchError> {
        let known = self.guarded.ends.keys().copied().collect();
        let ends = look_up(&self.chain, &known, None, &handed).await?;
        let network = self.chain.network().clone();
        self.guarded.take(&network, None, handed, &ends)
    }

    /// All that is guarded, for a store, or for a node that has lost its own.
    pub fn guarded(&self) -> Handed {
        self.guarded.handed(None).0
    }

    /// Looks at every guarded channel once and submits what the contract does not know. Call it
    /// several times in a challenge window. A channel that fails keeps none of the others waiting:
    /// see [`Round::failed`].
    ///
    /// Errors: the chain does not say what time it is; the next round tries again.
    pub async fn round(&mut self) -> Result<Round, ChainError> {
        let mut round = Round::default();
        let now_ms = self.chain.head().await?.time_ms;
        let mut views = Views::new();
        for channel in self.guarded.channels() {
            match self.chain.channel(channel).await {
                Ok(view) => drop(views.insert(channel, view)),
                Err(error) => round.failed.push((channel, error)),
            }
        }
        let others = look(&self.chain, &mut self.others, &views, usize::MAX).await;
        for deed in self.guarded.deeds(&views, others, now_ms) {
            match carry_out(&self.chain, deed.clone()).await {
                Ok(true) => round.note(&deed),
                Ok(false) => {}
                Err(error) => round.failed.push((deed.channel(), error)),
            }
        }
        Ok(round)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Settling {
    /// Evidence does not count yet.
    No,
    /// With these totals, as far as the contract knows.
    With(Totals),
    /// Nothing is left to guard.
    Over,
}

fn settling(view: &ChannelView, now_ms: u64) -> Settling {
    match &view.status {
        // Nothing is taken any more, though it is not paid out yet.
        ChannelStatus::Closing { confirmed: true, closes_ms: until, .. }
        | ChannelStatus::Severed { settles_ms: until, .. }
            if now_ms >= *until =>
        {
            Settling::No
        }
        ChannelStatus::Proposed | ChannelStatus::Open => Settling::No,
        // Asked for by one side, which alone cannot close.
        ChannelStatus::Closing { confirmed: false, .. } => Settling::No,
        ChannelStatus::Closing { totals, .. } => Settling::With(view.totals.max(*totals)),
        ChannelStatus::Severed { .. } => Settling::With(view.totals),
        ChannelStatus::Closed { .. } | ChannelStatus::Cancelled => Settling::Over,
    }
}

/// A severed channel whose sides have not taken what is theirs.
fn is_left(status: &ChannelStatus, now_ms: u64) -> bool {
    let ChannelStatus::Severed { settles_ms, .. } = status else { return false };
    now_ms >= settles_ms.saturating_add(FINALIZE_AFTER_MS)
}

fn severable(status: &ChannelStatus) -> bool {
    matches!(
        status,
        ChannelStatus::Open
            | ChannelStatus::Closing { .. }
            | ChannelStatus::Closed { bonds_until_ms: Some(_), severed: false, .. }
    )
}
