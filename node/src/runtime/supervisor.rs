//! Tasks that live and die together.

use std::collections::HashMap;
use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::{Id, JoinError, JoinSet};

use super::store_error;
use crate::alarm::{self, Alarm};
use crate::client::{ClientError, ErrorCode};
use crate::store::NodeStore;

/// Time for calls under way to be answered when the daemon stops.
const FAREWELL: Duration = Duration::from_secs(1);

/// Asks the supervisor to stop, and tells who wants to know; cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Sender<bool>);

impl Stop {
    pub(crate) fn stop(&self) {
        self.0.send_replace(true);
    }

    /// Resolves once the daemon is to stop.
    pub(crate) async fn stopping(&self) {
        // The sender is part of `self`, so this cannot fail.
        let _ = self.0.subscribe().wait_for(|stop| *stop).await;
    }
}

/// Name of the task that is waited for at the end.
pub(crate) const API_TASK: &str = "API";

type Ended = Result<(Id, Result<(), ClientError>), JoinError>;

/// Owns the daemon's tasks. The first one that ends, ends all.
pub(crate) struct Supervisor {
    tasks: JoinSet<Result<(), ClientError>>,
    names: HashMap<Id, &'static str>,
    store: NodeStore,
    stop: watch::Sender<bool>,
}

impl Supervisor {
    pub(crate) fn new(store: NodeStore) -> Supervisor {
        Supervisor { tasks: JoinSet::new(), names: HashMap::new(), store, stop: watch::Sender::new(false) }
    }

    pub(crate) fn stop_handle(&self) -> Stop {
        Stop(self.stop.clone())
    }

    /// Runs a task that is not supposed to end.
    pub(crate) fn spawn(
        &mut self,
        name: &'static str,
        task: impl Future<Output = Result<(), ClientError>> + Send + 'static,
    ) {
        let id = self.tasks.spawn(task).id();
        self.names.insert(id, name);
    }

    /// Has a panic of the tasks that the alarm is for stop the daemon.
    pub(crate) fn heed(&mut self, alarm: Alarm) {
        self.spawn("alarm", async move { Err(failure(alarm.raised().await)) });
    }

    /// Until a task ends or a stop is asked for; then ends all tasks and closes the store.
    ///
    /// Errors: why the first task ended, or why the store could not be closed.
    pub(crate) async fn run(mut self) -> Result<(), ClientError> {
        let mut stop = self.stop.subscribe();
        let result = tokio::select! {
            // A stop that was asked for comes first: the API ends by itself then, in good order.
            biased;
            _ = stop.wait_for(|stop| *stop) => Ok(()),
            ended = self.tasks.join_next_with_id() => match ended {
                // It was asked for just now, and the API was quicker than this task.
                Some(Ok((_, Ok(())))) if *self.stop.borrow() => Ok(()),
                Some(ended) => Err(self.why(ended)),
                None => Ok(()),
            },
        };
        if let Err(error) = &result {
            tracing::error!(%error, "the daemon stops");
        }
        self.stop.send_replace(true);
        // The API ends by itself and lets its callers know.
        let _ = tokio::time::timeout(FAREWELL, self.farewell()).await;
        self.tasks.shutdown().await;
        // A failure of the store is the cause of whatever task ended first.
        self.store.close().await.map_err(store_error)?;
        result
    }

    fn why(&self, ended: Ended) -> ClientError {
        match ended {
            Ok((_, Err(error))) => error,
            Ok((id, Ok(()))) => failure(format!("the {} has stopped", self.name(id))),
            Err(error) => {
                let name = self.name(error.id());
                failure(match error.try_into_panic() {
                    Ok(panic) => alarm::failed(name, &*panic),
                    Err(_) => format!("the {name} has stopped"),
                })
            }
        }
    }

    fn name(&self, task: Id) -> &'static str {
        self.names.get(&task).copied().unwrap_or("daemon")
    }

    async fn farewell(&mut self) {
        while let Some(ended) = self.tasks.join_next_with_id().await {
            if ended.is_ok_and(|(id, _)| self.name(id) == API_TASK) {
                return;
            }
        }
    }
}

/// A defect of this program, after which a part of it is missing.
pub(crate) fn failure(what: String) -> ClientError {
    ClientError::new(ErrorCode::Other, what, "start it again; nothing that was signed is lost")
}

#[cfg(test)]
mod tests;
