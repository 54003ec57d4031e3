//! Proof of Response as a libp2p [`NetworkBehaviour`](libp2p_swarm::NetworkBehaviour).
//!
//! Every paid request that a neighbour acknowledges ends in a response signed by its destination.
//! The protocol itself, with payments, relaying and crash recovery, is the state machine of
//! [`por_core`]; this crate gives it substreams, time and a place to store its rows.
//!
//! ```text
//!  application ──▶ Control ──▶ ┌────────┐ ◀── Store
//!                              │ Driver │
//!  swarm ──▶ Behaviour         └────────┘
//!                │  creates        ▲  frames, past the swarm's event loop
//!                ▼                 ▼
//!             Handler ◀──── bounded link
//! ```
//!
//! - [`new`] gives three parts: the [`Behaviour`] goes into a swarm, the [`Driver`] is spawned on
//!   any executor, the [`Control`] is cloned to whoever sends or serves requests.
//! - Frames never pass through the swarm's event loop, only connections coming and going do. Signatures
//!   are checked in the driver's task.
//! - The crate needs no particular runtime and knows nothing of the chain: channels and the graph
//!   are told to it by [`Control::set_channels`] and [`Control::update_graph`].
//!
//! # In a swarm of one's own
//!
//! ```no_run
//! use futures::StreamExt;
//! use libp2p_por::{Config, MemoryStore, por_core};
//! # async fn example(
//! #     network: por_core::types::Network,
//! #     secret: por_core::types::NodeSecret,
//! #     edges: Vec<por_core::GraphEdge>,
//! #     channels: Vec<por_core::MyChannel>,
//! # ) -> Result<(), Box<dyn std::error::Error>> {
//! let (behaviour, control, driver) = libp2p_por::new(Config::new(network), secret, MemoryStore::default())?;
//! // `behaviour` is a field of the swarm's own behaviour; any executor takes the driver.
//! tokio::spawn(driver);
//! // As the chain has it, in this order at the start, and again whenever it changes:
//! control.set_late_fee(por_core::types::Yocto(1_000)).await?;
//! control.update_graph(7, 1_700_000_000_000, edges).await?;
//! control.set_channels(channels).await?;
//! // Severed edges have to reach the chain, whoever severed them.
//! let mut orders = control.orders().await?;
//! while let Some(order) = orders.next().await {
//!     println!("to be submitted: {order:?}");
//! }
//! # Ok(())
//! # }
//! ```
//!
//! What the swarm around it needs:
//!
//! | what | why |
//! |---|---|
//! | an ed25519 identity, the `secret` of [`new`] | channels name node keys, which are those of peer ids |
//! | addresses of counterparties: `Swarm::add_peer_address`, or a behaviour that finds them (Kademlia, identify) | they are dialled by their peer id, and again whenever they are lost, at what all behaviours know of them; [`Config::with_redial`] leaves dialling to you |
//! | ping, or another way to find dead connections | one that is gone without a word is noticed here only by what is missing on it, and that may cost an edge |
//! | limits of connections: two for each peer at least | both ends may dial at once; one of the two is used |
//! | limits of pending connections and of memory, as for any swarm | strangers are taken, and get one Hello; they take what any connection takes |
//! | a [`Store`] that keeps its word | payments are signed by what it says is durable; [`MemoryStore`] is for tests |
//!
//! The swarm, the driver and whoever holds a [`Control`] may end in any order: without the driver calls fail
//! with [`Stopped`] and the behaviour is idle; without the behaviour the driver goes on until the last
//! [`Control`] is gone.
//!
//! See `examples/ping_identify.rs` for a whole program, with ping and identify in the same swarm.

mod addresses;
mod answers;
mod behaviour;
mod config;
mod control;
mod deliveries;
mod driver;
mod handler;
mod link;
mod orders;
mod peer;
mod pending;
mod protocol;
mod store;
mod turns;
#[cfg(test)]
mod wakes;

pub use behaviour::{Behaviour, Event};
pub use config::Config;
pub use control::{
    Completion, Control, Ended, EventStream, Exit, IncomingRequest, OutboundRequest, Outcome, PendingRequest,
    Progress, RequestError, RespondError, Serving, Stopped, WatchError,
};
pub use driver::{Driver, DriverError};
pub use handler::{Failure, Handler};
pub use libp2p_identity::PeerId;
pub use orders::OrderStream;
pub use peer::{node_key, peer_id};
pub use por_core;
pub use por_core::wire::PROTOCOL_NAME;
pub use protocol::LaneError;
pub use store::{MemoryStore, Store, StoreError};
pub use turns::FairQueue;

/// Why the three parts could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(transparent)]
    Restore(#[from] por_core::RestoreError),
    /// Every peer would refuse them in Hello: see the ranges of [`por_core::Limits`].
    #[error("limits that every peer refuses: {0}")]
    Limits(por_core::wire::HelloError),
}

/// Loads the store and makes the parts of a node.
///
/// `secret` must be the swarm's identity key, an ed25519 one: peers look up channels by it.
///
/// # Errors
/// [`Error::Store`] and [`Error::Restore`] where the rows cannot be read: a node must not run without its
/// state. [`Error::Limits`] where the limits of `config` are out of their ranges.
pub fn new(
    config: Config,
    secret: por_core::types::NodeSecret,
    store: impl Store,
) -> Result<(Behaviour, Control, Driver), Error> {
    driver::assemble(config, secret, Box::new(store))
}
