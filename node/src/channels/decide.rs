//! What to do about a channel, from the chain's record and the ledger alone.

use std::time::Duration;

use por_core::ChannelSnapshot;
use por_types::interface::{
    ChannelArgs, ChannelStatus, ChannelView, CloseArgs, ConfirmChannelArgs, FinalizeArgs, SubmitStateArgs,
};
use por_types::{AmountError, Side, Totals, Yocto};

use crate::chain::Call;
use crate::config::PolicyConfig;

/// Either side may finalize; the one that did not start waits this much longer, so that usually
/// only one transaction is paid for. Milliseconds of block time.
const SECOND_FINALIZER_MS: u64 = 15_000;

/// Everything that a decision rests on.
pub(super) struct Situation<'s> {
    pub view: &'s ChannelView,
    /// This node's side.
    pub side: Side,
    /// `None` if no payment was ever made.
    pub ledger: Option<&'s ChannelSnapshot>,
    /// The operator asked for a close.
    pub close_wanted: bool,
    /// Totals that this node stated in a request before.
    pub stated: Option<Totals>,
    /// How long nothing has been left to finalize, as far as this run has seen.
    pub over: Duration,
    /// Block time.
    pub now_ms: u64,
    pub policy: &'s PolicyConfig,
    /// Most that may be added to the deposit now; `None` while endpoints do not agree on the channel.
    pub top_up_most: Option<Yocto>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Action {
    Confirm { deposit: Yocto },
    TopUp { amount: Yocto },
    RequestClose(Totals),
    ConfirmClose(Totals),
    Evidence(Box<SubmitStateArgs>),
    Finalize,
    Forget,
}

impl Action {
    pub(super) const fn name(&self) -> &'static str {
        match self {
            Action::Confirm { .. } => "confirming the proposal",
            Action::TopUp { .. } => "adding to the deposit, from which lateness is paid,",
            Action::RequestClose(_) => "requesting the close",
            Action::ConfirmClose(_) => "confirming the close",
            Action::Evidence(_) => "submitting evidence",
            Action::Finalize => "finalizing",
            Action::Forget => "forgetting",
        }
    }

    /// The edge leaves the graph, whose partition check may need a deposit.
    pub(super) fn takes_edge(&self, view: &ChannelView) -> bool {
        *self == Action::Finalize && matches!(view.status, ChannelStatus::Closing { .. })
    }

    /// `check_deposit`: what to attach if the call [takes the edge](Action::takes_edge).
    pub(super) fn call(self, view: &ChannelView, check_deposit: Yocto) -> Result<Call, AmountError> {
        let attached = if self.takes_edge(view) { check_deposit } else { Yocto::ZERO };
        let channel = view.channel;
        Ok(match self {
            Action::Confirm { deposit } => {
                let args = ConfirmChannelArgs { channel, terms: view.terms.clone(), deposit };
                return Call::confirm(args, view.bond);
            }
            Action::TopUp { amount } => Call::TopUp { channel, amount },
            Action::RequestClose(totals) => Call::RequestClose(CloseArgs { channel, totals }),
            Action::ConfirmClose(totals) => Call::ConfirmClose(CloseArgs { channel, totals }),
            Action::Evidence(args) => Call::SubmitState(*args),
            Action::Finalize => Call::Finalize { args: FinalizeArgs { channel, witness: None }, attached },
            Action::Forget => Call::ForgetChannel(ChannelArgs { channel }),
        })
    }
}

/// The next step, if there is one to take now (protocol sections 3 and 6).
pub(super) fn decide(s: &Situation<'_>) -> Option<Action> {
    match &s.view.status {
        ChannelStatus::Proposed => confirm(s),
        ChannelStatus::Open if s.close_wanted && s.settled() => Some(Action::RequestClose(s.totals())),
        ChannelStatus::Open => {
            s.top_up_most.and_then(|most| s.top_up(most)).map(|amount| Action::TopUp { amount })
        }
        ChannelStatus::Closing { by, totals, confirmed: false, .. } => answer_close(s, *by, *totals),
        ChannelStatus::Closing { by, totals, closes_ms, .. } => {
            s.evidence(s.view.totals.max(*totals), *closes_ms).or_else(|| s.finalize(*closes_ms, *by))
        }
        ChannelStatus::Severed { by, settles_ms, .. } => {
            s.evidence(s.view.totals, *settles_ms).or_else(|| s.finalize(*settles_ms, *by))
        }
        ChannelStatus::Closed { bonds_until_ms: Some(until), .. } => s.finalize(*until, Side::A),
        ChannelStatus::Closed { bonds_until_ms: None, .. } | ChannelStatus::Cancelled => forget(s),
    }
}

/// The next step by what other endpoints show of the channel, of those that the contract refuses if it is not so:
/// the copy of the graph comes from one endpoint, and the time for evidence does not wait for the truth.
pub(super) fn for_others<'v>(
    s: &Situation<'_>,
    others: &'v [ChannelView],
) -> Option<(&'v ChannelView, Action)> {
    others.iter().find_map(|view| {
        let action = decide(&Situation { view, ..*s })?;
        matches!(action, Action::Evidence(_) | Action::Finalize).then_some((view, action))
    })
}

/// Proposals to this node are confirmed if the operator's policy says so.
fn confirm(s: &Situation<'_>) -> Option<Action> {
    let PolicyConfig { auto_confirm, confirm_accounts, confirm_deposit, .. } = s.policy;
    let welcome = confirm_accounts.is_empty() || confirm_accounts.contains(&s.view.a);
    (*auto_confirm && s.side == Side::B && welcome).then_some(Action::Confirm { deposit: *confirm_deposit })
}

/// The proposer gets the storage deposit back, so it is the one that removes the record; not at
/// once, so that the operator can look at it for a while.
fn forget(s: &Situation<'_>) -> Option<Action> {
    let due = s.side == Side::A && s.settled() && s.over >= s.policy.forget_after();
    due.then_some(Action::Forget)
}

/// A close was requested: confirm it if it takes nothing from this node, else state what is right.
fn answer_close(s: &Situation<'_>, by: Side, stated: Totals) -> Option<Action> {
    if !s.settled() {
        return None;
    }
    let right = s.totals();
    if by == s.side {
        return (stated != right && s.stated != Some(right)).then_some(Action::RequestClose(right));
    }
    let other = s.side.other();
    let fair =
        stated.sent_by(other) >= right.sent_by(other) && stated.sent_by(s.side) <= right.sent_by(s.side);
    if fair {
        return Some(Action::ConfirmClose(stated));
    }
    (s.stated != Some(right)).then_some(Action::RequestClose(right))
}

impl Situation<'_> {
    /// No exchange is without an outcome, so the totals will not move any more.
    fn settled(&self) -> bool {
        self.ledger.is_none_or(|ledger| ledger.unfinished == 0)
    }

    /// What to add to the own deposit, of at most this, so that lateness can be passed on.
    fn top_up(&self, most: Yocto) -> Option<Yocto> {
        let ledger = self.ledger?;
        let (deposit, drawn) = match self.side {
            Side::A => (self.view.deposit_a, self.view.drawn_a),
            Side::B => (self.view.deposit_b, self.view.drawn_b),
        };
        // By what the chain shows: the ledger may not have been told of it yet.
        let balance =
            ledger.totals.balance(self.side, deposit, drawn).ok()?.saturating_sub(ledger.pending_in);
        // No balance lasts if the rate is beyond all sense.
        super::topup::enough(balance, ledger.late_per_s, self.policy.late_top_up, most).ok().flatten()
    }

    /// The balance from which lateness is passed on is running out, and the limit allows no more to be added.
    pub(super) fn runs_dry(&self) -> bool {
        let Some(most) = self.top_up_most.filter(|_| self.view.status == ChannelStatus::Open) else {
            return false;
        };
        self.top_up(most).is_none() && self.top_up(Yocto(u128::MAX)).is_some()
    }

    fn totals(&self) -> Totals {
        self.ledger.map_or(self.view.totals, |ledger| ledger.totals.max(self.view.totals))
    }

    /// The counterparty's latest payment, if the chain knows less and still takes it: what comes to
    /// light after the window must not stand in the way of the end.
    fn evidence(&self, known: Totals, until_ms: u64) -> Option<Action> {
        if self.now_ms >= until_ms {
            return None;
        }
        let other = self.side.other();
        let state = self.ledger?.their_payment.as_ref()?;
        let proves_more = state.statement.totals.sent_by(other) > known.sent_by(other);
        proves_more
            .then(|| Action::Evidence(Box::new(SubmitStateArgs { state: state.clone(), signer: other })))
    }

    fn finalize(&self, from_ms: u64, first: Side) -> Option<Action> {
        let wait = if first == self.side { 0 } else { SECOND_FINALIZER_MS };
        (self.now_ms >= from_ms.saturating_add(wait)).then_some(Action::Finalize)
    }
}
