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
//! See `examples/ping_identify.rs` for a swarm that composes it with ping and identify.

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
    Control, Ended, EventStream, IncomingRequest, OutboundRequest, Outcome, PendingRequest, Progress,
    RequestError, RespondError, Serving, Stopped, WatchError,
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
}

/// Loads the store and makes the parts of a node.
///
/// `secret` must be the swarm's identity key: peers look up channels by it.
pub fn new(
    config: Config,
    secret: por_core::types::NodeSecret,
    store: impl Store,
) -> Result<(Behaviour, Control, Driver), Error> {
    driver::assemble(config, secret, Box::new(store))
}
