//! iroh-blobs: from its store on disk to a file, over QUIC on loopback, without relays or
//! discovery.

use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use iroh::endpoint::presets;
use iroh::{Endpoint, EndpointAddr, EndpointId, RelayMode};
use iroh_blobs::api::blobs::{AddPathOptions, ExportMode, ExportOptions, ImportMode};
use iroh_blobs::store::fs::FsStore;
use iroh_blobs::{BlobFormat, BlobsProtocol, Hash};
use serde::{Deserialize, Serialize};

/// What a getter has to know.
#[derive(Serialize, Deserialize)]
struct Offer {
    id: EndpointId,
    address: SocketAddr,
    hash: Hash,
}

async fn endpoint() -> anyhow::Result<Endpoint> {
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    let builder = Endpoint::builder(presets::Minimal).relay_mode(RelayMode::Disabled).clear_ip_transports();
    let builder = builder.bind_addr(any).map_err(|error| anyhow!("iroh: {error}"))?;
    builder.bind().await.map_err(|error| anyhow!("iroh: {error}"))
}

/// Offers a file, referenced where it is, until `end`.
pub async fn serve(file: &Path, store: &Path, end: impl Future<Output = ()>) -> anyhow::Result<()> {
    let store = FsStore::load(store).await.map_err(|error| anyhow!("iroh-blobs: {error}"))?;
    let path = std::path::absolute(file)?;
    let add = AddPathOptions { path, format: BlobFormat::Raw, mode: ImportMode::TryReference };
    let tag = store.blobs().add_path_with_opts(add).await.map_err(|error| anyhow!("iroh-blobs: {error}"))?;
    let endpoint = endpoint().await?;
    let address = endpoint.bound_sockets().into_iter().next().context("iroh is bound to nothing")?;
    let offer = Offer { id: endpoint.id(), address, hash: tag.hash };
    let blobs = BlobsProtocol::new(&store, None);
    let router = iroh::protocol::Router::builder(endpoint).accept(iroh_blobs::ALPN, blobs).spawn();
    println!("{}", serde_json::to_string(&offer)?);
    end.await;
    router.shutdown().await?;
    Ok(())
}

/// Fetches what `offer` names into a store on disk and moves it from there to `target`: the
/// cheapest that its API has.
pub async fn get(offer: &str, store: &Path, target: &Path) -> anyhow::Result<()> {
    let offer: Offer = serde_json::from_str(offer)?;
    let store = FsStore::load(store).await.map_err(|error| anyhow!("iroh-blobs: {error}"))?;
    let endpoint = endpoint().await?;
    let address = EndpointAddr::new(offer.id).with_ip_addr(offer.address);
    let connection = endpoint.connect(address, iroh_blobs::ALPN).await?;
    store.remote().fetch(connection, offer.hash).await.map_err(|error| anyhow!("iroh-blobs: {error}"))?;
    let target = std::path::absolute(target)?;
    let export = ExportOptions { hash: offer.hash, mode: ExportMode::TryReference, target };
    store.blobs().export_with_opts(export).await.map_err(|error| anyhow!("iroh-blobs: {error}"))?;
    endpoint.close().await;
    store.shutdown().await.map_err(|error| anyhow!("iroh-blobs: {error}"))?;
    Ok(())
}
