//! Tasks that live and die together.

use std::future::Future;
use std::time::Duration;

use tokio::sync::watch;
use tokio::task::JoinSet;

use super::{other, store_error};
use crate::client::ClientError;
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

/// Owns the daemon's tasks. The first one that ends, ends all.
pub(crate) struct Supervisor {
    tasks: JoinSet<(&'static str, Result<(), ClientError>)>,
    store: NodeStore,
    stop: watch::Sender<bool>,
}

impl Supervisor {
    pub(crate) fn new(store: NodeStore) -> Supervisor {
        Supervisor { tasks: JoinSet::new(), store, stop: watch::Sender::new(false) }
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
        self.tasks.spawn(async move { (name, task.await) });
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
            ended = self.tasks.join_next() => match ended {
                Some(Ok((_, Err(error)))) => Err(error),
                Some(Ok((name, Ok(())))) => Err(other(format!("the {name} has stopped"))),
                Some(Err(error)) => Err(other(format!("a task of the daemon failed: {error}"))),
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

    async fn farewell(&mut self) {
        while let Some(ended) = self.tasks.join_next().await {
            if ended.is_ok_and(|(name, _)| name == API_TASK) {
                return;
            }
        }
    }
}
