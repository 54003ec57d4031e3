//! Proof of Response node: library (SDK) and the daemon por

pub mod chain;
pub mod client;
pub mod config;
pub mod exit;
pub mod graph;
pub mod home;
pub mod keys;
pub mod routes;
pub mod store;
pub mod swarm;
