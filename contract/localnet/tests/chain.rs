//! The chain as near-jsonrpc-client sees it.

#[path = "chain/accounts.rs"]
mod accounts;
#[path = "chain/client.rs"]
mod client;
#[path = "chain/contracts.rs"]
mod contracts;
#[path = "chain/node.rs"]
mod node;
#[path = "chain/supply.rs"]
mod supply;
