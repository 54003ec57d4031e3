//! File sharing over Proof of Response: put, get and the demo.
//!
//! A file is named by the BLAKE3 hash of its bytes ([`id::ContentId`]). It is
//! served in windows of at most 8 MiB, each a self-verifying slice of the hash
//! tree ([`mod@slice`]), so that a single paid request carries everything that its
//! receiver needs to check it, and windows may come from several providers at once.
//!
//! | module | what it does |
//! |---|---|
//! | [`id`] | content ids |
//! | [`tree`], [`mod@slice`], [`outboard`] | the hash tree: hashing, encoding, verifying |
//! | [`store`] | what this machine can serve |
//! | [`part`] | a download under way on disk, resumable after a crash |
//! | [`dir`] | directories |
//! | [`exit`] | exit codes, and errors that say what to do |

pub mod answer;
pub mod budget;
pub mod cli;
#[cfg(feature = "demo")]
pub mod demo;
pub mod dir;
pub mod exit;
pub mod fetch;
pub mod get;
pub mod holes;
pub mod id;
pub mod landing;
pub mod net;
pub mod node;
pub mod outboard;
pub mod part;
pub mod pool;
pub mod progress;
pub mod proto;
pub mod serve;
pub mod slice;
pub mod store;
pub mod tree;
