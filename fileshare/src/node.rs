//! A node with files in it: the daemon of `por run`, `serve`, and the downloads of this user's
//! commands, all in one process. Bodies pass from the protocol to the file and back without a socket
//! between them.

use std::sync::Arc;

use por_node::{keys::NodeSetup, sdk::Node};

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
    let landings = match landing::listen(&home) {
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
    };
    stop.set();
    if let Some(landings) = landings {
        let ended = landings.await;
        ended.map_err(|error| Failure::new(Exit::Other, format!("internal error: {error}"), ""))?;
    }
    if !stopped {
        node.shutdown().await?;
    }
    result.map(|()| served)
}
