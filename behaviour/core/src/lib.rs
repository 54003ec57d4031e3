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
//!
//! # A request's way through the modules
//!
//! | step | at | module |
//! |---|---|---|
//! | checked, paid for, signed with its flush | author | `author` |
//! | framed, written, released | every node | `flush`, `store`, `rows` |
//! | checked against author, payment, graph, terms and limits | next node | `admission`, `exposure`, `ledger`, `graph`, `roots` |
//! | passed on | relay | `admission`, `job` |
//! | given to the app, answered, signed with its flush | destination | `destination` |
//! | refused further on: asked again, over a parallel channel too | relay | `replies`, `parallel` |
//! | verified and passed on, or refunded | every node back | `replies` |
//! | late: synced, paid, watched | every node | `guarantee`, `rhythm` |
//! | kept for an upstream node that is away or does not take it | every node back | `hold` |
//! | an edge severed, its proof passed on | every node back | `sever` |
//! | the silent neighbour asked over other routes | who has severed it | `pursuit` |
//! | big bodies, both ways, verified as they pass | every node | `streams`, `body`, [`verified`] |
//! | connections lost, processes restarted | every node | `sync`, `restore` |
//!
//! # What always holds
//!
//! - Own totals are the sum of items owed; a payment is never signed beyond the balance, and what
//!   may have to be refunded is never spent (`ledger`).
//! - A request is admitted only while everything accounted for stays within what its payer signed,
//!   so repetitions and reordering cost nothing.
//! - Whatever is sent can be made again from the rows alone: sessions regenerate, they never replay
//!   queues. Frames for a peer without an open session are dropped, not kept.
//! - A request is one job under its id from admission to Done; connections come and go beneath it.
//! - Each step that moves money on two edges is one batch: a relay's admission with its own payment,
//!   its refund with the one it got.
//!
//! An author is told an outcome before its row is deleted, and an app gets a request again after a
//! crash until its answer is stored: both may be told twice across a crash, never not at all.

mod ack;
mod admission;
pub mod api;
mod author;
mod body;
mod channels;
pub mod codec;
mod destination;
mod edge;
mod exposure;
mod fault;
mod fee;
mod flush;
mod graph;
mod guarantee;
mod hold;
mod job;
mod jobs;
mod ledger;
mod makeup;
mod node;
mod pace;
mod parallel;
mod proofs;
mod pursuit;
pub mod recover;
mod replies;
mod restore;
mod rhythm;
mod roots;
mod rows;
mod sever;
mod stall;
mod statements;
mod store;
mod streams;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod trip;
pub mod verified;
pub mod wire;

pub use api::{
    ANSWER_APP, ANSWER_LIMIT, AppPricing, ChannelSnapshot, Command, ConnId, CoreConfig, Event, ExchangeId,
    GraphEdge, HeldAnswer, Input, Limits, MyChannel, OrderPace, Output, Patience, Policy, Pursue, PursuitEnd,
    RejectReason, RestoreError, Restored, Row, RowKey, SignedReceipt, Table, Time, Write,
};
pub use node::Node;
pub use por_types as types;
