//! What a download may spend: reserved before a question is sent, so that the limit
//! holds with any number of questions in flight.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use por_types::Yocto;

use crate::exit::{Exit, Failure};

/// Money for one command.
#[derive(Debug)]
pub struct Budget {
    max: Mutex<Option<Yocto>>,
    state: Mutex<State>,
}

#[derive(Clone, Copy, Debug, Default)]
struct State {
    spent: Yocto,
    reserved: Yocto,
}

/// Money set aside for one question; returned when dropped.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    amount: Yocto,
}

impl Budget {
    pub fn new(max: Option<Yocto>) -> Arc<Self> {
        Arc::new(Budget { max: Mutex::new(max), state: Mutex::default() })
    }

    /// The most that may be spent; `None` for no limit.
    pub fn max(&self) -> Option<Yocto> {
        *self.max.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sets the limit once the price of everything is known.
    pub fn limit_to(&self, max: Yocto) {
        *self.max.lock().unwrap_or_else(PoisonError::into_inner) = Some(max);
    }

    pub fn spent(&self) -> Yocto {
        self.lock().spent
    }

    /// Sets money aside.
    ///
    /// # Errors
    /// [`Exit::Budget`] if that is more than is left.
    pub fn reserve(self: &Arc<Self>, amount: Yocto) -> Result<Reservation, Failure> {
        let max = self.max();
        let mut state = self.lock();
        let total = Yocto::checked_sum([state.spent, state.reserved, amount]);
        let fits = total.as_ref().is_ok_and(|total| max.is_none_or(|max| *total <= max));
        if !fits {
            let max = max.unwrap_or(Yocto(u128::MAX));
            let what = format!(
                "the next window costs {} but of {} only {} are left",
                amount.to_near_string(),
                max.to_near_string(),
                max.saturating_sub(state.spent).saturating_sub(state.reserved).to_near_string(),
            );
            return Err(Failure::new(
                Exit::Budget,
                what,
                "run it again with a higher --max-spend; it continues",
            ));
        }
        state.reserved = state.reserved.checked_add(amount).unwrap_or(Yocto(u128::MAX));
        Ok(Reservation { budget: Arc::clone(self), amount })
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

    /// Books what was really paid; the rest is free again.
    pub fn spend(self, paid: Yocto) {
        let mut state = self.budget.lock();
        state.spent = state.spent.checked_add(paid).unwrap_or(Yocto(u128::MAX));
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut state = self.budget.lock();
        state.reserved = state.reserved.saturating_sub(self.amount);
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
    fn no_limit_still_never_overflows() {
        let budget = Budget::new(None);
        let all = budget.reserve(Yocto(u128::MAX)).unwrap();
        assert_eq!(budget.reserve(Yocto(1)).unwrap_err().exit, Exit::Budget);
        drop(all);
        assert!(budget.reserve(Yocto(1)).is_ok());
    }
}
