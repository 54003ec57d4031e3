//! What a download may spend: reserved before a question is sent, so that the limit
//! holds with any number of questions in flight.
//!
//! Until its user has agreed to a price, a download may spend next to nothing: whoever announces content
//! decides what the way to it costs, and finding out what is there takes questions that are paid for.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use por_types::Yocto;

use crate::exit::{Exit, Failure};

/// What may be spent on asking if nobody says otherwise: thousands of questions at usual fees.
pub const ASKING: Yocto = Yocto::millinear(10);

/// Money for one command.
#[derive(Debug)]
pub struct Budget {
    limits: Mutex<Limits>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug)]
struct Limits {
    /// Of everything.
    max: Option<Yocto>,
    /// Until a price is agreed to.
    asking: Option<Yocto>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    spent: Yocto,
    reserved: Yocto,
}

/// Money set aside for one question; returned when dropped, unless the question was sent: then nobody knows
/// what became of it, and all of it counts as spent.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    amount: Yocto,
    sent: bool,
}

impl Budget {
    /// At most `max` in all, for who has agreed to that already.
    pub fn new(max: Option<Yocto>) -> Arc<Self> {
        Arc::new(Budget { limits: Mutex::new(Limits { max, asking: None }), state: Mutex::default() })
    }

    /// The same, of which at most `asking` may be spent before [`Budget::agree`].
    pub fn asking(asking: Yocto, max: Option<Yocto>) -> Arc<Self> {
        let limits = Limits { max, asking: Some(asking) };
        Arc::new(Budget { limits: Mutex::new(limits), state: Mutex::default() })
    }

    /// The most that may be spent once its user has agreed; `None` for no limit.
    pub fn max(&self) -> Option<Yocto> {
        self.limits().max
    }

    /// Sets the limit once the price of everything is known.
    pub fn limit_to(&self, max: Yocto) {
        self.limits().max = Some(max);
    }

    /// The price is agreed to: from now on only the limit of everything holds.
    pub fn agree(&self) {
        self.limits().asking = None;
    }

    fn limits(&self) -> MutexGuard<'_, Limits> {
        self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn spent(&self) -> Yocto {
        self.lock().spent
    }

    /// Sets money aside.
    ///
    /// # Errors
    /// [`Exit::Budget`] if that is more than is left.
    pub fn reserve(self: &Arc<Self>, amount: Yocto) -> Result<Reservation, Failure> {
        let Limits { max, asking } = *self.limits();
        let mut state = self.lock();
        let total = Yocto::checked_sum([state.spent, state.reserved, amount]);
        let within = |limit: Option<Yocto>| {
            total.as_ref().is_ok_and(|total| limit.is_none_or(|limit| *total <= limit))
        };
        if !within(max) || !within(asking) {
            let (limit, what, fix) = if within(max) {
                (asking, "question", "allow more with --max-ask; nothing was agreed to yet")
            } else {
                (max, "window", "run it again with a higher --max-spend; it continues")
            };
            let limit = limit.unwrap_or(Yocto(u128::MAX));
            let what = format!(
                "the next {what} costs {} but of {} only {} are left",
                amount.to_near_string(),
                limit.to_near_string(),
                limit.saturating_sub(state.spent).saturating_sub(state.reserved).to_near_string(),
            );
            return Err(Failure::new(Exit::Budget, what, fix));
        }
        state.reserved = state.reserved.checked_add(amount).unwrap_or(Yocto(u128::MAX));
        Ok(Reservation { budget: Arc::clone(self), amount, sent: false })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reservation {
    /// What was set aside.
    pub const fn amount(&self) -> Yocto {
        self.amount
    }

    /// From now on the question may be paid for, whoever stops waiting for its answer.
    pub const fn sent(&mut self) {
        self.sent = true;
    }

    /// Books what was really paid; the rest is free again.
    pub fn spend(mut self, paid: Yocto) {
        self.sent = false;
        self.budget.lock().book(paid);
    }
}

impl State {
    fn book(&mut self, paid: Yocto) {
        self.spent = self.spent.checked_add(paid).unwrap_or(Yocto(u128::MAX));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.reserved = state.reserved.saturating_sub(self.amount);
        if self.sent {
            state.book(self.amount);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_flight_counts() {
        let budget = Budget::new(Some(Yocto(10)));
        let first = budget.reserve(Yocto(6)).unwrap();
        assert_eq!(budget.reserve(Yocto(5)).unwrap_err().exit, Exit::Budget);
        let second = budget.reserve(Yocto(4)).unwrap();
        first.spend(Yocto(5));
        assert_eq!(budget.spent(), Yocto(5));
        drop(second);
        assert!(budget.reserve(Yocto(6)).is_err());
        budget.reserve(Yocto(5)).unwrap().spend(Yocto(5));
        assert!(budget.reserve(Yocto(1)).is_err());
        assert!(budget.reserve(Yocto(0)).is_ok());
    }

    #[test]
    fn a_question_that_was_given_up_after_it_was_sent_counts() {
        let budget = Budget::new(Some(Yocto(10)));
        drop(budget.reserve(Yocto(6)).unwrap());
        assert_eq!(budget.spent(), Yocto(0));
        let mut given_up = budget.reserve(Yocto(6)).unwrap();
        given_up.sent();
        drop(given_up);
        assert_eq!(budget.spent(), Yocto(6));
        let mut answered = budget.reserve(Yocto(4)).unwrap();
        answered.sent();
        answered.spend(Yocto(1));
        assert_eq!(budget.spent(), Yocto(7));
        assert!(budget.reserve(Yocto(3)).is_ok() && budget.reserve(Yocto(4)).is_err());
    }

    #[test]
    fn little_is_spent_before_a_price_is_agreed_to() {
        let budget = Budget::asking(Yocto(10), None);
        budget.reserve(Yocto(9)).unwrap().spend(Yocto(9));
        let refused = budget.reserve(Yocto(2)).unwrap_err();
        assert!(refused.exit == Exit::Budget && refused.fix.contains("--max-ask"), "{refused}");
        assert_eq!(budget.max(), None, "prices are held against what may be spent in all");
        budget.limit_to(Yocto(100));
        budget.agree();
        budget.reserve(Yocto(91)).unwrap();
        assert!(budget.reserve(Yocto(92)).unwrap_err().fix.contains("--max-spend"));
        let poor = Budget::asking(Yocto(10), Some(Yocto(5)));
        assert!(poor.reserve(Yocto(6)).unwrap_err().fix.contains("--max-spend"));
    }

    #[test]
    fn no_limit_still_never_overflows() {
        let budget = Budget::new(None);
        let all = budget.reserve(Yocto(u128::MAX)).unwrap();
        assert_eq!(budget.reserve(Yocto(1)).unwrap_err().exit, Exit::Budget);
        drop(all);
        assert!(budget.reserve(Yocto(1)).is_ok());
    }
}
