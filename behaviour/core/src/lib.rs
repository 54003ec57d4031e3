//! Proof of Response as a state machine: no sockets, no clock, no disk, no randomness.
//!
//! Feed [`Node::handle`] with the time and an [`Input`], then drain [`Node::poll`]:
//!
//! ```text
//!            Input                                Output
//!   Connected / Frame / Drained  ┌────────┐   Send / Disconnect      (to a connection)
//!   Command                  ──▶ │  Node  │ ──▶ Notify                (to the application)
//!   Persisted                    └────────┘   Persist                (to the store)
//!   Graph / Tick                              next_deadline()        (to the timer)
//! ```
//!
//! A `Send` or `Notify` that relies on a `Persist` is held back by the node until the matching
//! `Input::Persisted` arrives, so a driver only has to carry things out in order.

mod admission;
pub mod api;
mod author;
mod body;
pub mod codec;
mod destination;
mod edge;
mod fault;
mod flush;
mod graph;
mod job;
mod ledger;
mod node;
mod replies;
mod restore;
mod roots;
mod rows;
mod store;
mod streams;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
pub mod verified;
pub mod wire;

pub use api::{
    AppPricing, ChannelSnapshot, Command, ConnId, CoreConfig, Event, ExchangeId, GraphEdge, Input, Limits,
    MyChannel, Output, RejectReason, RestoreError, Restored, Row, SignedReceipt, Table, Time, Write,
};
pub use node::Node;
pub use por_types as types;
