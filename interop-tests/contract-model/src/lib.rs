//! An independent model of the contract, and random sequences of calls that run on both.

pub mod compare;
pub mod generate;
pub mod host;
pub mod model;
pub mod report;
pub mod vm;
