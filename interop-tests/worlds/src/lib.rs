//! Whole networks of the protocol core in virtual time, and what must hold in them.

pub mod crash;
pub mod faults;
pub mod timelines;
