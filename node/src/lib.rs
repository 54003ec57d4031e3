//! Proof of Response node: library (SDK) and the daemon por

pub mod client;
pub mod store;
