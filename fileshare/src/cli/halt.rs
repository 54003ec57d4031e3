//! Interrupting what changes the store at its end: either nothing was changed, or its user learns what was.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::Notify;

use crate::exit::{Exit, Failure};

/// Time for the last step to come to its end.
const LEAVE: Duration = Duration::from_secs(5);

/// Where interrupted work stands still: it calls [`Halt::step`] while nothing is changed yet, and not any more
/// from then on. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Halt(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    state: Mutex<State>,
    held: Notify,
}

#[derive(Debug, Default)]
struct State {
    stopped: bool,
    /// Within [`Halt::waiting`].
    waiting: bool,
}

impl Halt {
    /// Does not return once the work was interrupted.
    pub fn step(&self) {
        self.enter(false);
    }

    /// Waits for somebody else, perhaps for ever.
    pub fn waiting<T>(&self, wait: impl FnOnce() -> T) -> T {
        self.enter(true);
        let come = wait();
        self.enter(false);
        come
    }

    fn enter(&self, waiting: bool) {
        let mut state = self.lock();
        if !state.stopped {
            state.waiting = waiting;
            return;
        }
        drop(state);
        self.0.held.notify_one();
        loop {
            std::thread::park();
        }
    }

    /// Runs work to its end, or until it is interrupted and stands still. What is done by then is done: to say
    /// that it was not would be wrong.
    ///
    /// # Errors
    /// Its own, and [`Exit::Interrupted`].
    pub async fn run<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
        interrupted: impl Future<Output = ()>,
        again: impl Future<Output = ()>,
    ) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        tokio::select! {
            biased;
            // First, so that it is heeded from the beginning.
            () = interrupted => {}
            done = &mut work => return done,
        }
        let waits = {
            let mut state = self.lock();
            state.stopped = true;
            state.waiting
        };
        if waits {
            return Err(nothing());
        }
        tokio::select! {
            biased;
            done = &mut work => done,
            () = self.0.held.notified() => Err(nothing()),
            () = again => Err(unknown()),
            () = tokio::time::sleep(LEAVE) => Err(unknown()),
        }
    }

    /// Whole at any time.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn nothing() -> Failure {
    Failure::new(Exit::Interrupted, "interrupted; nothing was put", "run the same command again")
}

fn unknown() -> Failure {
    let what = "interrupted at the very end; `fileshare pin ls` shows whether it was put";
    Failure::new(Exit::Interrupted, what, "run the same command again; what was put is not put twice")
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use super::*;

    /// Work on a thread of its own, which nothing waits for.
    async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
        let (give, given) = tokio::sync::oneshot::channel();
        std::thread::spawn(move || give.send(work()));
        given.await.map_err(|_| Failure::new(Exit::Other, "it panicked", ""))
    }

    #[tokio::test]
    async fn what_is_done_is_told_of() {
        let halt = Halt::default();
        assert_eq!(halt.run(ready(Ok(7)), ready(()), pending()).await, Ok(7));
        // The last step, which nothing interrupts.
        let (halt, last) = (Halt::default(), apart(|| 7));
        assert_eq!(halt.run(last, ready(()), pending()).await, Ok(7));
    }

    #[tokio::test]
    async fn nothing_is_done_after_it_was_said_so() {
        let halt = Halt::default();
        let its = halt.clone();
        let steps = apart(move || {
            loop {
                its.step();
            }
        });
        let ended: Result<(), Failure> = halt.run(steps, ready(()), pending()).await;
        assert_eq!(ended, Err(nothing()));

        let halt = Halt::default();
        let its = halt.clone();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let (come, comes) = std::sync::mpsc::channel::<()>();
        let (go_on, goes_on) = std::sync::mpsc::channel::<()>();
        let waits = apart(move || {
            its.waiting(|| {
                let _ = begin.send(());
                let _ = comes.recv();
            });
            drop(go_on);
        });
        let begun = async { begun.await.expect("it waits") };
        assert_eq!(halt.run(waits, begun, pending()).await, Err(nothing()));
        drop(come);
        // It tells when it stands still.
        halt.0.held.notified().await;
        assert_eq!(goes_on.try_recv(), Err(std::sync::mpsc::TryRecvError::Empty));
    }

    #[tokio::test]
    async fn who_does_not_wait_is_told_that_it_is_not_known() {
        let halt = Halt::default();
        assert_eq!(halt.run(pending::<Result<(), _>>(), ready(()), ready(())).await, Err(unknown()));
    }
}
