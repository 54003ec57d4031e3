//! The bodies of the fuzz targets: each takes any bytes and panics on what must not be.
//!
//! `interop-tests/fuzz` runs them under libFuzzer, `tests/corpus.rs` replays the committed corpus
//! in an ordinary test run (docs/testing.md).

mod allocated;
mod contract_args;
mod exchange;
mod frame;
mod nodes;
mod records;
pub mod seeds;

pub use contract_args::contract_args;
pub use frame::frame;
pub use nodes::core;
pub use records::records;

/// A target by its name.
pub type Target = fn(&[u8]);

/// All targets; each has a corpus of its name.
pub const TARGETS: [(&str, Target); 4] =
    [("frame", frame), ("core", core), ("records", records), ("contract_args", contract_args)];

/// Makes every panic end the process, except those by which the contract refuses a call. For the
/// fuzzer, whose own hook knows no exception.
pub fn abort_on_panic() {
    let default = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |info| {
        if !contract_args::refusing() {
            default(info);
            std::process::abort();
        }
    }));
}
