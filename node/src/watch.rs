//! The core of a watchtower: guards channels of nodes that are away (protocol section 3, "On
//! chain", and section 9, "settle with an old state").
//!
//! What a node hands it is signed by others: the latest payment of each counterparty, and orders to
//! sever. So a tower cannot take or move anything, and needs nobody's trust to be used or to serve:
//! it checks every signature, brings to the contract what the contract does not know, and pays gas
//! for it with an account of its own. A tower that does nothing does no more harm than none.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use por_types::interface::{ChannelStatus, ChannelView, SubmitStateArgs, code};
use por_types::{ChannelId, ChannelState, DalekVerify, NodeKey, SeverOrder, Side, Signed, Totals};
use serde::{Deserialize, Serialize};

use crate::chain::{Call, Chain, ChainError, Intent};

/// Most channels that a tower guards: each costs less than 1 KB, and a view of the contract a round.
pub const MAX_GUARDED: usize = 4096;

/// What a node hands to a tower. Replaces nothing: of each channel and signer the highest total
/// counts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handed {
    /// Payments of counterparties, ready for the contract.
    #[serde(default)]
    pub states: Vec<SubmitStateArgs>,
    /// Orders that somebody signed and that are to reach the contract, whoever withholds them.
    #[serde(default)]
    pub orders: Vec<Signed<SeverOrder>>,
}

#[derive(Debug, thiserror::Error)]
pub enum WatchError {
    #[error(transparent)]
    Chain(#[from] ChainError),
    #[error("channel {0} is not on chain; hand over states of channels that are open")]
    Unknown(ChannelId),
    #[error("a statement about channel {0} is not signed by its side; do not trust who handed it over")]
    Forged(ChannelId),
    #[error("{MAX_GUARDED} channels are guarded already; use another tower")]
    Full,
}

/// What a round brought to the contract.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Round {
    /// Channels whose settlement was corrected.
    pub challenged: Vec<ChannelId>,
    /// Channels that were severed.
    pub severed: Vec<ChannelId>,
}

/// Guards channels through a chain client of its own.
pub struct Tower {
    chain: Chain,
    states: BTreeMap<(ChannelId, Side), Signed<ChannelState>>,
    orders: BTreeMap<ChannelId, Signed<SeverOrder>>,
}

impl Tower {
    /// `chain` needs a key: submitting costs gas.
    pub fn new(chain: Chain) -> Tower {
        Tower { chain, states: BTreeMap::new(), orders: BTreeMap::new() }
    }

    /// Takes what a node hands over. Everything is checked against the chain before any of it is
    /// taken.
    ///
    /// Errors: [`WatchError::Unknown`], [`WatchError::Forged`], [`WatchError::Full`], or of the chain.
    pub async fn take(&mut self, handed: Handed) -> Result<(), WatchError> {
        let network = self.chain.network().clone();
        for SubmitStateArgs { state, signer } in &handed.states {
            let channel = state.statement.channel;
            let view = self.known(channel).await?;
            if !state.verify(&network, &key_of(&view, *signer), &DalekVerify) {
                return Err(WatchError::Forged(channel));
            }
        }
        for order in &handed.orders {
            let SeverOrder { channel, signer, .. } = order.statement;
            let view = self.known(channel).await?;
            let side = signer == view.key_a || signer == view.key_b;
            if !side || !order.verify(&network, &signer, &DalekVerify) {
                return Err(WatchError::Forged(channel));
            }
        }
        self.keep(handed)
    }

    /// All that is guarded, for a store, or for a node that has lost its own.
    pub fn guarded(&self) -> Handed {
        let state = |(&(_, signer), state): (&(ChannelId, Side), &Signed<ChannelState>)| SubmitStateArgs {
            state: state.clone(),
            signer,
        };
        Handed {
            states: self.states.iter().map(state).collect(),
            orders: self.orders.values().cloned().collect(),
        }
    }

    /// Looks at every guarded channel once and submits what the contract does not know. Call it
    /// several times in a challenge window.
    ///
    /// Errors: of the chain; the next round tries again.
    pub async fn round(&mut self) -> Result<Round, ChainError> {
        let mut round = Round::default();
        for (channel, order) in self.orders.clone() {
            let view = self.chain.channel(channel).await?;
            if view.is_some_and(|view| severable(&view.status)) {
                match self.chain.sever(order).await {
                    Ok(_) => round.severed.push(channel),
                    Err(error) => known_already(error, code::NOT_SEVERABLE)?,
                }
            } else {
                self.orders.remove(&channel);
            }
        }
        for ((channel, signer), state) in self.states.clone() {
            let Some(view) = self.chain.channel(channel).await? else {
                self.states.remove(&(channel, signer));
                continue;
            };
            let known = match settling(&view) {
                Settling::No => continue,
                Settling::Over => {
                    self.states.remove(&(channel, signer));
                    continue;
                }
                Settling::With(totals) => totals,
            };
            if state.statement.totals.sent_by(signer) > known.sent_by(signer) {
                let call = Call::SubmitState(SubmitStateArgs { state, signer });
                match self.chain.call(Intent::new(call)).await {
                    Ok(_) => round.challenged.push(channel),
                    Err(error) => known_already(error, code::NOTHING_NEW)?,
                }
            }
        }
        Ok(round)
    }

    async fn known(&self, channel: ChannelId) -> Result<ChannelView, WatchError> {
        self.chain.channel(channel).await?.ok_or(WatchError::Unknown(channel))
    }

    fn keep(&mut self, handed: Handed) -> Result<(), WatchError> {
        for SubmitStateArgs { state, signer } in handed.states {
            let full = self.states.len() >= MAX_GUARDED;
            match self.states.entry((state.statement.channel, signer)) {
                Entry::Occupied(mut held) => {
                    let before = held.get().statement.totals.sent_by(signer);
                    if state.statement.totals.sent_by(signer) > before {
                        held.insert(state);
                    }
                }
                Entry::Vacant(_) if full => return Err(WatchError::Full),
                Entry::Vacant(free) => {
                    free.insert(state);
                }
            }
        }
        for order in handed.orders {
            let full = self.orders.len() >= MAX_GUARDED;
            match self.orders.entry(order.statement.channel) {
                Entry::Vacant(_) if full => return Err(WatchError::Full),
                entry => {
                    entry.or_insert(order);
                }
            }
        }
        Ok(())
    }
}

enum Settling {
    /// Evidence does not count yet.
    No,
    /// With these totals, as far as the contract knows.
    With(Totals),
    /// Nothing is left to guard.
    Over,
}

fn settling(view: &ChannelView) -> Settling {
    match &view.status {
        ChannelStatus::Proposed | ChannelStatus::Open => Settling::No,
        // Asked for by one side, which alone cannot close.
        ChannelStatus::Closing { confirmed: false, .. } => Settling::No,
        ChannelStatus::Closing { totals, .. } => Settling::With(view.totals.max(*totals)),
        ChannelStatus::Severed { .. } => Settling::With(view.totals),
        ChannelStatus::Closed { .. } | ChannelStatus::Cancelled => Settling::Over,
    }
}

fn severable(status: &ChannelStatus) -> bool {
    matches!(
        status,
        ChannelStatus::Open
            | ChannelStatus::Closing { .. }
            | ChannelStatus::Closed { bonds_until_ms: Some(_), severed: false, .. }
    )
}

fn key_of(view: &ChannelView, side: Side) -> NodeKey {
    match side {
        Side::A => view.key_a,
        Side::B => view.key_b,
    }
}

/// Somebody else was quicker, or the time is over: both are well.
fn known_already(error: ChainError, expected: &str) -> Result<(), ChainError> {
    let well = [expected, code::WINDOW_OVER, code::NOT_CLOSING];
    match &error {
        ChainError::Contract { code: Some(code), .. } if well.contains(&code.as_str()) => Ok(()),
        _ => Err(error),
    }
}
