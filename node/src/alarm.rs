//! Tasks beside those of the supervisor: their panic is heard, and stops the node.
//!
//! The executor catches the panic of a task that nobody waits for, and all else goes on as if nothing was
//! amiss: transactions would never be sent again, an app's requests never answered, and each of them costs
//! money for as long as nobody looks.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::watch;

/// Raised by the first task that fails; cheap to clone.
#[derive(Clone, Debug, Default)]
pub(crate) struct Alarm(Arc<watch::Sender<Option<String>>>);

impl Alarm {
    /// Runs a task that may end by itself; if it panics the alarm is raised.
    pub(crate) async fn guard(self, name: &'static str, task: impl Future<Output = ()>) {
        if let Err(panic) = AssertUnwindSafe(task).catch_unwind().await {
            self.raise(failed(name, &*panic));
        }
    }

    fn raise(&self, what: String) {
        self.0.send_if_modified(|raised| {
            let first = raised.is_none();
            raised.get_or_insert(what);
            first
        });
    }

    /// Resolves once a task has failed, with which one and why.
    pub(crate) async fn raised(&self) -> String {
        let mut raised = self.0.subscribe();
        // The sender is part of `self`, so this cannot fail.
        let what = raised.wait_for(Option::is_some).await.ok().and_then(|what| what.clone());
        what.unwrap_or_default()
    }

    /// What has failed already, if anything.
    pub(crate) fn now(&self) -> Option<String> {
        self.0.borrow().clone()
    }
}

/// What to say of a task that has panicked.
pub(crate) fn failed(name: &str, panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    format!("the {name} has failed: {}", text.unwrap_or("it does not say why"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_first_panic_is_told_and_an_end_is_none() {
        let alarm = Alarm::default();
        alarm.clone().guard("first task", async {}).await;
        assert_eq!(alarm.now(), None);
        let (one, two) = (alarm.clone(), alarm.clone());
        tokio::spawn(one.guard("second task", async { panic!("nothing is {}", "left") }))
            .await
            .expect("caught");
        tokio::spawn(two.guard("third task", async { panic!("late") })).await.expect("caught");
        assert_eq!(alarm.raised().await, "the second task has failed: nothing is left");
    }
}
