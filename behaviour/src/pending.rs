//! The two ends of a request of the local application: the driver tells, the caller listens. One
//! allocation for both, however much is told.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use por_core::RejectReason;
use por_core::types::{RequestId, Yocto};

use crate::control::{Ended, Outcome, Progress};

/// Progress of a request that nobody has read: what comes beyond it is only in the events.
const PROGRESS_QUEUE: usize = 64;

#[derive(Debug, Default)]
struct State {
    /// Its id and what was paid, or why it was not sent.
    start: Option<Result<(RequestId, Yocto), RejectReason>>,
    progress: VecDeque<Progress>,
    outcome: Option<Outcome>,
    /// Nothing more is told.
    ended: bool,
    /// Of who waits, and for what.
    waker: Option<(Waker, Awaited)>,
}

/// What the caller waits for. It is not woken for anything before: a wake-up costs more than what is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Awaited {
    Start,
    Progress,
    Outcome,
}

#[derive(Debug, Default)]
struct Slot(Mutex<State>);

impl Slot {
    /// A panicking holder cannot poison it for the other: the state is whole after each statement.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Tells of something, and wakes who waits for it or for what comes before it.
    fn tell(&self, told: Awaited, change: impl FnOnce(&mut State)) {
        let mut state = self.lock();
        change(&mut state);
        let waker = state.waker.take_if(|(_, awaited)| *awaited <= told);
        drop(state);
        if let Some((waker, _)) = waker {
            waker.wake();
        }
    }
}

/// The driver's end. Dropped without an outcome, the driver has ended.
#[derive(Debug)]
pub(crate) struct Teller(Arc<Slot>);

/// The caller's end.
#[derive(Debug)]
pub(crate) struct Listener(Arc<Slot>);

pub(crate) fn pair() -> (Teller, Listener) {
    let slot = Arc::new(Slot::default());
    (Teller(Arc::clone(&slot)), Listener(slot))
}

impl Teller {
    /// Nobody listens any more.
    pub fn is_alone(&self) -> bool {
        Arc::strong_count(&self.0) == 1
    }

    pub fn started(&self, request: RequestId, price: Yocto) {
        self.0.tell(Awaited::Start, |state| state.start = Some(Ok((request, price))));
    }

    pub fn refused(self, reason: RejectReason) {
        // The end: nobody waits for more.
        self.0.tell(Awaited::Outcome, |state| state.start = Some(Err(reason)));
    }

    /// May be missed by a caller that does not read.
    pub fn progress(&self, progress: Progress) {
        self.0.tell(Awaited::Progress, |state| {
            if state.progress.len() < PROGRESS_QUEUE {
                state.progress.push_back(progress);
            }
        });
    }

    /// Is never missed.
    pub fn finish(self, outcome: Outcome) {
        self.0.tell(Awaited::Outcome, |state| state.outcome = Some(outcome));
    }
}

impl Drop for Teller {
    fn drop(&mut self) {
        self.0.tell(Awaited::Outcome, |state| state.ended = true);
    }
}

impl Listener {
    /// The request's id, once it has started.
    pub fn id(&self) -> Option<RequestId> {
        self.0.lock().start?.ok().map(|(id, _)| id)
    }

    /// How the request has started, however often it is asked; `None` if the driver has ended before.
    pub fn poll_start(&self, cx: &mut Context<'_>) -> Poll<Option<Result<(RequestId, Yocto), RejectReason>>> {
        let mut state = self.0.lock();
        match state.start {
            Some(start) => Poll::Ready(Some(start)),
            None if state.ended => Poll::Ready(None),
            None => wait(&mut state, cx, Awaited::Start),
        }
    }

    /// What happens next, the outcome last; `None` if the driver has ended or all was told.
    pub fn poll_next(&self, cx: &mut Context<'_>) -> Poll<Option<Progress>> {
        let mut state = self.0.lock();
        if let Some(progress) = state.progress.pop_front() {
            return Poll::Ready(Some(progress));
        }
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(Some(Progress::Done(outcome))),
            None if state.ended => Poll::Ready(None),
            None => wait(&mut state, cx, Awaited::Progress),
        }
    }

    /// How the request has ended, whatever happens before, or why it was not sent; `None` if the driver has
    /// ended or the outcome was told.
    pub fn poll_end(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Ended, RejectReason>>> {
        let mut state = self.0.lock();
        match (state.start, state.outcome.take()) {
            (Some(Err(reason)), _) => Poll::Ready(Some(Err(reason))),
            (Some(Ok((id, price))), Some(outcome)) => Poll::Ready(Some(Ok(Ended { id, price, outcome }))),
            _ if state.ended => Poll::Ready(None),
            (_, outcome) => {
                state.outcome = outcome;
                wait(&mut state, cx, Awaited::Outcome)
            }
        }
    }

    /// The outcome, whatever happens before it; `None` if the driver has ended or it was told.
    pub fn poll_outcome(&self, cx: &mut Context<'_>) -> Poll<Option<Outcome>> {
        let mut state = self.0.lock();
        match state.outcome.take() {
            Some(outcome) => Poll::Ready(Some(outcome)),
            None if state.ended => Poll::Ready(None),
            None => wait(&mut state, cx, Awaited::Outcome),
        }
    }
}

fn wait<T>(state: &mut State, cx: &Context<'_>, awaited: Awaited) -> Poll<T> {
    match &mut state.waker {
        Some((waker, earlier)) => {
            waker.clone_from(cx.waker());
            *earlier = awaited;
        }
        none => *none = Some((cx.waker().clone(), awaited)),
    }
    Poll::Pending
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wakes::Wakes;

    fn outcome() -> Outcome {
        Outcome::Rejected { reason: RejectReason::Busy, refund: Yocto(1), invalid: None }
    }

    #[test]
    fn progress_is_bounded_and_the_outcome_comes_after_it() {
        let (teller, listener) = pair();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(listener.poll_start(&mut cx).is_pending());
        teller.started(RequestId([1; 32]), Yocto(2));
        assert_eq!(listener.poll_start(&mut cx), Poll::Ready(Some(Ok((RequestId([1; 32]), Yocto(2))))));
        for _ in 0..2 * PROGRESS_QUEUE {
            teller.progress(Progress::Overdue);
        }
        teller.finish(outcome());
        for _ in 0..PROGRESS_QUEUE {
            assert!(matches!(listener.poll_next(&mut cx), Poll::Ready(Some(Progress::Overdue))));
        }
        let last = listener.poll_next(&mut cx);
        assert!(matches!(last, Poll::Ready(Some(Progress::Done(Outcome::Rejected { .. })))));
        assert!(matches!(listener.poll_next(&mut cx), Poll::Ready(None)));
    }

    #[test]
    fn who_waits_for_the_outcome_is_not_woken_before_it() {
        let wakes = Arc::new(Wakes::default());
        let waker = Waker::from(Arc::clone(&wakes));
        let mut cx = Context::from_waker(&waker);
        let (id, price) = (RequestId([1; 32]), Yocto(2));

        let (teller, listener) = pair();
        assert!(listener.poll_end(&mut cx).is_pending());
        teller.started(id, price);
        teller.progress(Progress::Overdue);
        assert_eq!(wakes.take(), 0);
        assert!(listener.poll_end(&mut cx).is_pending());
        teller.finish(outcome());
        assert_eq!(wakes.take(), 1);
        let end = listener.poll_end(&mut cx);
        assert!(matches!(end, Poll::Ready(Some(Ok(Ended { id: i, price: p, .. }))) if i == id && p == price));

        let (teller, listener) = pair();
        teller.started(id, price);
        assert!(listener.poll_start(&mut cx).is_ready());
        assert!(listener.poll_outcome(&mut cx).is_pending());
        teller.progress(Progress::Overdue);
        assert_eq!(wakes.take(), 0);
        // Who asks for progress meanwhile is woken by it.
        assert!(listener.poll_next(&mut cx).is_ready());
        assert!(listener.poll_next(&mut cx).is_pending());
        teller.progress(Progress::Overdue);
        assert_eq!(wakes.take(), 1);
        assert!(listener.poll_outcome(&mut cx).is_pending());
        drop(teller);
        assert_eq!(wakes.take(), 1);
        assert!(matches!(listener.poll_outcome(&mut cx), Poll::Ready(None)));

        let (teller, listener) = pair();
        assert!(listener.poll_end(&mut cx).is_pending());
        teller.refused(RejectReason::Busy);
        assert_eq!(wakes.take(), 1);
        assert!(matches!(listener.poll_end(&mut cx), Poll::Ready(Some(Err(RejectReason::Busy)))));
    }

    #[test]
    fn each_end_learns_that_the_other_is_gone() {
        let (teller, listener) = pair();
        let mut cx = Context::from_waker(Waker::noop());
        assert!(!teller.is_alone());
        assert!(listener.poll_next(&mut cx).is_pending());
        drop(teller);
        assert!(matches!(listener.poll_next(&mut cx), Poll::Ready(None)));
        assert_eq!(listener.poll_start(&mut cx), Poll::Ready(None));
        let (teller, listener) = pair();
        drop(listener);
        assert!(teller.is_alone());
    }
}
