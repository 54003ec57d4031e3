//! The contract of Proof of Response: nodes, their stake, the channels between them, and the
//! check for a partition whenever a channel leaves the graph.
//!
//! A call reads top to bottom in `entry/`: check the caller and the arguments, move money in
//! `books`, change records, write the change log, emit an event. What a partition check depends
//! on goes through `flow`, which keeps one order of events; `check` finds the smaller side of a
//! partition, makes it reimburse the larger one and cuts it off. Records live under one-byte
//! prefixes (`store`); nothing iterates over a collection that callers can grow without bound,
//! except where the work can be continued by a later call. All arguments and answers are types
//! of `por_types::interface`; the choices behind are in docs/decisions/contract.md.

mod adjacency;
mod answers;
mod args;
mod bits;
mod books;
mod budget;
mod changelog;
mod channel;
mod check;
mod config;
mod entry;
mod fail;
mod flow;
mod indices;
mod json;
#[cfg(test)]
mod json_tests;
mod node;
mod penalties;
mod purse;
mod store;
mod verify;
mod weights;

use near_sdk::{PanicOnDefault, near};
use por_types::interface::STATE_VERSION;

use books::Books;
use config::{Config, Governance};
use flow::Flow;

/// Root state, read and written by every call: small, of nearly constant size.
#[near(contract_state)]
#[derive(PanicOnDefault)]
pub struct Contract {
    /// First, so that a migration can tell what follows.
    version: u32,
    config: Config,
    books: Books,
    /// Indices that nodes have or had; the next new one.
    nodes: u32,
    /// Channels ever proposed; the next id.
    channels: u64,
    /// Version of the graph: entries ever written to the change log.
    graph_version: u64,
    // From here on state version 2.
    governance: Governance,
    flow: Flow,
}

const CURRENT: u32 = STATE_VERSION;

/// How a call reads the bytes of its arguments, for tests that compare it with serde.
#[cfg(not(target_family = "wasm"))]
pub mod host {
    pub use crate::args::FromJson;
    pub use crate::json::{Json, parse};
}
