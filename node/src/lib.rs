//! Proof of Response node: library (SDK) and the daemon por

mod alarm;
mod api;
pub mod chain;
mod channels;
pub mod cli;
pub mod client;
pub mod config;
pub mod exit;
pub mod graph;
pub mod home;
pub mod keys;
#[cfg(feature = "localnet")]
pub mod localnet;
pub mod routes;
pub mod runtime;
pub mod sdk;
pub mod seal;
pub mod store;
pub mod swarm;
pub mod watch;
