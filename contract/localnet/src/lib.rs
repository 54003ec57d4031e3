//! A NEAR chain in one process: any contract's wasm in NEAR's own virtual machine with
//! the gas prices of protocol 88, and NEAR's JSON-RPC in front.
//!
//! One validator makes all blocks of the one shard, at once when there is something to
//! do and otherwise in regular intervals. Transactions, receipts, promises, refunds,
//! storage staking and access keys follow the protocol. Left out, and refused with
//! `UnsupportedProtocolFeature`: staking, gas keys, delegate actions of version 2, and
//! accounts named by their initial state. The hashes of blocks and state are this
//! chain's own.
//!
//! ```no_run
//! # async fn example() -> Result<(), por_localnet::Error> {
//! let chain = por_localnet::Localnet::start(por_localnet::Config::default()).await?;
//! println!("{}", chain.rpc_url());
//! let (root, key) = chain.root_account();
//! # let _ = (root, key);
//! chain.shutdown().await
//! # }
//! ```
//!
//! Besides NEAR's methods, the RPC offers `sandbox_patch_state`, `sandbox_fast_forward`
//! and `localnet_faucet {account_id, public_key, amount}`, which creates an account, or
//! tops it up, with new tokens (`amount`: yocto as a decimal string) and answers
//! `{account_id, balance, created}` once a block contains it.

mod chain;
pub mod cli;
mod error;
mod fees;
mod genesis;
mod localnet;
mod rpc;
mod runtime;
mod state;
mod store;
mod validate;
mod vm;

pub use error::{Error, Result};
pub use genesis::{Home, InitOptions};
pub use localnet::{Config, Localnet};
