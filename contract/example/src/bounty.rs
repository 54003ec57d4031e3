//! The states of a bounty and the ways between them. No chain in here: the entry points
//! bring time and answers, and move the money that a step says is owed.

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::{AccountId, AmountError, NodeKey, RequestId, Yocto};

use crate::interface::{BountyView, CHECK_TIMEOUT_MS, GIVE_UP_MS, Outcome, STORAGE, Stage, code};

/// Why a step was not taken: a code of the interface, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: &'static str,
    pub advice: &'static str,
}

fn refuse<T>(code: &'static str, advice: &'static str) -> Result<T, Refusal> {
    Err(Refusal { code, advice })
}

impl From<AmountError> for Refusal {
    fn from(_: AmountError) -> Self {
        Refusal { code: code::OVERFLOW, advice: "a sum does not fit; report this" }
    }
}

/// What the Proof of Response contract said about the server's node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attached {
    pub attached: bool,
    /// Whether the node is the one whose receipts the bounty takes.
    pub right_key: bool,
    /// Block time up to which it is certain.
    pub final_until_ms: u64,
}

/// What it said about the time since then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Downtime {
    /// Milliseconds within the asked time in which the node was cut off.
    pub isolated_ms: u64,
    pub final_until_ms: u64,
}

/// One bounty, as stored.
#[derive(Clone, Debug, PartialEq, Eq, BorshSerialize, BorshDeserialize)]
pub struct Bounty {
    pub request: RequestId,
    pub client: AccountId,
    pub server: AccountId,
    pub node_key: NodeKey,
    pub reward: Yocto,
    pub collateral: Yocto,
    pub answer_ms: u64,
    pub show_body: bool,
    pub stage: Stage,
    /// Acceptances so far, so that a late answer is known as such.
    pub attempts: u32,
    pub owed_client: Yocto,
    pub owed_server: Yocto,
    /// Payments whose fate is not known yet.
    pub paying: u32,
}

impl Bounty {
    /// All money in here, without what is being paid out.
    pub fn held(&self) -> Result<Yocto, AmountError> {
        let own = match self.stage {
            Stage::Offered => STORAGE.checked_add(self.reward)?,
            Stage::Checking { .. } | Stage::Active { .. } => {
                STORAGE.checked_add(self.reward)?.checked_add(self.collateral)?
            }
            Stage::Done { .. } => Yocto::ZERO,
        };
        own.checked_add(self.owed_client)?.checked_add(self.owed_server)
    }

    /// Whether nothing is left to do.
    pub fn is_over(&self) -> bool {
        let owed = self.owed_client.is_zero() && self.owed_server.is_zero();
        matches!(self.stage, Stage::Done { .. }) && owed && self.paying == 0
    }

    /// The client takes its offer back, unless the server is bound already.
    pub fn cancel(&mut self) -> Result<(), Refusal> {
        match self.stage {
            Stage::Offered => {}
            Stage::Checking { .. } => self.owe_server(self.collateral)?,
            Stage::Active { .. } => {
                return refuse(code::STATE, "the server has accepted; wait for its answer");
            }
            Stage::Done { .. } => return refuse(code::STATE, "it is decided; collect"),
        }
        self.owe_client(self.reward.checked_add(STORAGE)?)?;
        self.end(Outcome::Cancelled);
        Ok(())
    }

    /// The server's collateral has come. Returns the number of this attempt.
    pub fn accept(&mut self, now_ms: u64) -> Result<u32, Refusal> {
        if self.stage != Stage::Offered {
            return refuse(code::STATE, "it is not on offer");
        }
        let Some(attempt) = self.attempts.checked_add(1) else {
            return refuse(code::STATE, "it was tried too often");
        };
        self.attempts = attempt;
        self.stage = Stage::Checking { attempt, started_ms: now_ms };
        Ok(attempt)
    }

    /// The answer to an acceptance: binds the server if its node is certainly attached, else
    /// gives its collateral back. `None` stands for no answer. Returns whether it is bound.
    pub fn judge_acceptance(&mut self, attempt: u32, answer: Option<Attached>) -> Result<bool, Refusal> {
        let Stage::Checking { attempt: current, started_ms } = self.stage else {
            return Ok(false);
        };
        if attempt != current {
            return Ok(false);
        }
        // The attachment as of `final_until_ms` is certain: no check that is still to be applied
        // can end it before. So whatever downtime is counted from then on began after it.
        let bound = answer
            .filter(|answer| answer.attached && answer.right_key && answer.final_until_ms >= started_ms);
        match bound {
            Some(Attached { final_until_ms: since_ms, .. }) => {
                let deadline_ms = since_ms.saturating_add(self.answer_ms);
                self.stage = Stage::Active { since_ms, deadline_ms };
            }
            None => {
                self.owe_server(self.collateral)?;
                self.stage = Stage::Offered;
            }
        }
        Ok(bound.is_some())
    }

    /// Gives the collateral of an acceptance back that got no answer.
    pub fn release(&mut self, now_ms: u64) -> Result<(), Refusal> {
        let Stage::Checking { started_ms, .. } = self.stage else {
            return refuse(code::STATE, "no acceptance waits");
        };
        if now_ms < started_ms.saturating_add(CHECK_TIMEOUT_MS) {
            return refuse(code::TOO_EARLY, "wait for ten minutes after the acceptance");
        }
        self.owe_server(self.collateral)?;
        self.stage = Stage::Offered;
        Ok(())
    }

    /// A receipt can be shown at this time.
    pub fn check_claimable(&self, now_ms: u64) -> Result<(), Refusal> {
        match self.stage {
            Stage::Active { deadline_ms, .. } if now_ms < deadline_ms => Ok(()),
            Stage::Active { .. } => refuse(code::TOO_LATE, "the deadline has passed; settle"),
            _ => refuse(code::STATE, "only an accepted bounty can be claimed"),
        }
    }

    /// The response was shown.
    pub fn answered(&mut self, now_ms: u64) -> Result<(), Refusal> {
        self.check_claimable(now_ms)?;
        self.owe_server(self.reward.checked_add(self.collateral)?)?;
        self.owe_client(STORAGE)?;
        self.end(Outcome::Answered);
        Ok(())
    }

    /// The time about which to ask the Proof of Response contract: from, to.
    pub fn asked_time(&self, now_ms: u64) -> Result<(u64, u64), Refusal> {
        match self.stage {
            Stage::Active { since_ms, deadline_ms } => Ok((since_ms, now_ms.min(deadline_ms))),
            _ => refuse(code::STATE, "only an accepted bounty can be settled"),
        }
    }

    /// The answer about the time up to `asked_to_ms`; `None` stands for no answer. Returns the
    /// outcome, if it is decided now.
    ///
    /// Isolation decides at once. That there was none is known only when the deadline has
    /// passed and every check up to it is applied; if that never happens, time decides.
    pub fn judge_downtime(
        &mut self,
        asked_to_ms: u64,
        answer: Option<Downtime>,
        now_ms: u64,
    ) -> Result<Option<Outcome>, Refusal> {
        let Stage::Active { deadline_ms, .. } = self.stage else {
            return Ok(None);
        };
        let whole = |answer: Downtime| asked_to_ms >= deadline_ms && answer.final_until_ms >= deadline_ms;
        if answer.is_some_and(|answer| answer.isolated_ms > 0) {
            let all = self.reward.checked_add(self.collateral)?.checked_add(STORAGE)?;
            self.owe_client(all)?;
            self.end(Outcome::Isolated);
            Ok(Some(Outcome::Isolated))
        } else if answer.is_some_and(whole) || now_ms >= deadline_ms.saturating_add(GIVE_UP_MS) {
            self.owe_client(self.reward.checked_add(STORAGE)?)?;
            self.owe_server(self.collateral)?;
            self.end(Outcome::Expired);
            Ok(Some(Outcome::Expired))
        } else {
            Ok(None)
        }
    }

    /// Takes what is owed, to be paid: client, server.
    pub fn collect(&mut self) -> Result<(Yocto, Yocto), Refusal> {
        let owed = (self.owed_client, self.owed_server);
        let payments = [owed.0, owed.1].iter().filter(|amount| !amount.is_zero()).count();
        if payments == 0 {
            return refuse(code::NOTHING_OWED, "nothing is owed now");
        }
        // At most two: the count fits.
        self.paying = self.paying.saturating_add(payments as u32);
        self.owed_client = Yocto::ZERO;
        self.owed_server = Yocto::ZERO;
        Ok(owed)
    }

    /// A payment has arrived, or is owed again. An empty one changes nothing.
    pub fn paid(&mut self, to_client: bool, amount: Yocto, arrived: bool) -> Result<(), Refusal> {
        if amount.is_zero() {
            return Ok(());
        }
        self.paying = self.paying.saturating_sub(1);
        match (arrived, to_client) {
            (true, _) => Ok(()),
            (false, true) => self.owe_client(amount),
            (false, false) => self.owe_server(amount),
        }
    }

    fn owe_client(&mut self, amount: Yocto) -> Result<(), Refusal> {
        self.owed_client = self.owed_client.checked_add(amount)?;
        Ok(())
    }

    fn owe_server(&mut self, amount: Yocto) -> Result<(), Refusal> {
        self.owed_server = self.owed_server.checked_add(amount)?;
        Ok(())
    }

    fn end(&mut self, outcome: Outcome) {
        self.stage = Stage::Done { outcome };
    }

    pub fn view(self) -> BountyView {
        BountyView {
            request: self.request,
            client: self.client,
            server: self.server,
            node_key: self.node_key,
            reward: self.reward,
            collateral: self.collateral,
            answer_ms: self.answer_ms,
            show_body: self.show_body,
            stage: self.stage,
            owed_client: self.owed_client,
            owed_server: self.owed_server,
        }
    }
}
