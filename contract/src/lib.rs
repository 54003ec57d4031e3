//! The contract of Proof of Response: nodes, their stake, and the channels between them.
//!
//! A call reads top to bottom in `entry/`: check the caller and the arguments, move money in
//! `books`, change records, write the change log, emit an event. Records live under
//! one-byte prefixes (`store`); nothing iterates over a collection that callers can grow
//! without bound. All arguments and answers are types of `por_types::interface`.

mod adjacency;
mod args;
mod books;
mod changelog;
mod channel;
mod config;
mod entry;
mod fail;
mod node;
mod store;
mod verify;

use near_sdk::{PanicOnDefault, near};
use por_types::interface::STATE_VERSION;

use books::Books;
use config::Config;

/// Root state, read and written by every call: small, of nearly constant size.
#[near(contract_state)]
#[derive(PanicOnDefault)]
pub struct Contract {
    /// First, so that a migration can tell what follows.
    version: u32,
    config: Config,
    books: Books,
    /// Nodes ever registered; the next index.
    nodes: u32,
    /// Channels ever proposed; the next id.
    channels: u64,
    /// Version of the graph: entries ever written to the change log.
    graph_version: u64,
}

const CURRENT: u32 = STATE_VERSION;
