//! End-to-end tests of Proof of Response over real processes and a real contract

pub mod sandbox;
