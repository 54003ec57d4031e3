//! Routes for the protocol's pursuits of silent neighbours (protocol section 6).

use std::sync::Arc;

use futures::StreamExt as _;
use por_core::Event;

use super::{Daemon, other};
use crate::client::ClientError;

/// Runs for ever. What cannot be served now is asked for again.
pub(super) async fn run(daemon: Arc<Daemon>) -> Result<(), ClientError> {
    loop {
        let mut events =
            daemon.control.events().await.map_err(|_| other("the protocol driver has stopped"))?;
        while let Some(event) = events.next().await {
            let Event::Pursue { channel, peer, tries, most } = event else { continue };
            match daemon.requester.pursue(channel, peer, tries, most).await {
                Ok(()) => {}
                Err(error) => tracing::info!(%channel, %peer, %error, "no way to ask the peer yet"),
            }
        }
    }
}
