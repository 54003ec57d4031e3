//! A node with files in it: the daemon of `por run`, `serve`, and the downloads of this user's
//! commands, all in one process. Bodies pass from the protocol to the file and back without a socket
//! between them.

use std::sync::Arc;

use por_node::{keys::NodeSetup, sdk::Node};
use tokio::task::{JoinError, JoinHandle};

use crate::{
    exit::{Exit, Failure},
    fetch::Stop,
    landing,
    net::Daemon,
    proto::Pricing,
    serve::{self, Served, ServerLock},
    store::Store,
};

/// What the node does with files.
#[derive(Debug)]
pub struct Files {
    /// What is served.
    pub store: Store,
    pub pricing: Pricing,
}

/// Runs the node of a home with files in it until `stop` is set or a part of it fails. Calls `ready`
/// with the number of ids that are announced, once questions can come in.
///
/// # Errors
/// As [`Node::start`] and [`serve::serve`].
pub async fn run(
    setup: NodeSetup,
    files: Files,
    stop: Stop,
    ready: impl FnOnce(u64) + Send,
) -> Result<Arc<Served>, Failure> {
    let home = setup.home.data_dir().to_owned();
    let _server = ServerLock::take(&home)?;
    let mut node = Node::start(setup).await?;
    let client = node.client();
    let mut landings = match landing::listen(&home) {
        Ok(service) => Some(tokio::spawn(service.run(Daemon::new(client.clone()), stop.clone()))),
        Err(error) => {
            tracing::warn!(%error, "downloads go through the local API: no socket in {}", home.display());
            None
        }
    };
    let served = Arc::new(Served::default());
    let counters = Arc::clone(&served);
    let told = move || ready(counters.announced.load(std::sync::atomic::Ordering::Relaxed));
    let serving = serve::serve(client, files.store, files.pricing, stop.clone(), Arc::clone(&served), told);
    let mut serving = std::pin::pin!(serving);
    let (result, stopped) = tokio::select! {
        result = &mut serving => (result, false),
        stopped = node.stopped() => (stopped.map_err(Failure::from), true),
        failure = failing(&mut landings) => (Err(failure), false),
    };
    stop.set();
    let landed = match landings {
        Some(landings) => landings.await.map_err(|error| broken(&error)),
        None => Ok(()),
    };
    if !stopped {
        // Whatever else has failed: the store is closed in good order.
        node.shutdown().await?;
    }
    result?;
    landed?;
    Ok(served)
}

/// Why the downloads' task has failed; does not resolve as long as it runs, or once it was told to stop.
async fn failing(landings: &mut Option<JoinHandle<()>>) -> Failure {
    if let Some(task) = landings {
        let ended = task.await;
        *landings = None;
        if let Err(error) = ended {
            return broken(&error);
        }
    }
    std::future::pending().await
}

fn broken(error: &JoinError) -> Failure {
    Failure::new(
        Exit::Other,
        format!("internal error: {error}"),
        "start it again; nothing that was signed is lost",
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn a_task_of_downloads_that_panics_is_heard_and_one_that_was_stopped_is_none() {
        let mut failed = Some(tokio::spawn(async { panic!("out of luck") }));
        let failure = failing(&mut failed).await;
        assert_eq!(failure.exit, Exit::Other);
        assert!(failure.what.contains("out of luck") && !failure.fix.is_empty(), "{failure:?}");
        assert!(failed.is_none(), "it is not waited for once more");
        for mut quiet in [Some(tokio::spawn(async {})), None] {
            let heard = tokio::time::timeout(Duration::from_millis(50), failing(&mut quiet)).await;
            assert!(heard.is_err(), "nothing has failed");
        }
    }
}
