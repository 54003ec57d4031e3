//! Entry points, one file per group.

mod act;
mod attach;
mod check;
mod close;
mod govern;
mod init;
mod migrate;
mod open;
mod settle;
mod stake;
mod views;
mod withdraw;

use near_sdk::env;
use por_types::AccountId;
use por_types::interface::code;

use crate::fail::fail;

/// Block time, milliseconds since 1970.
fn now_ms() -> u64 {
    env::block_timestamp_ms()
}

/// The caller, as the rest of the project writes accounts. near-sdk has an older type.
fn caller() -> AccountId {
    account(env::predecessor_account_id().as_str())
}

fn account(name: &str) -> AccountId {
    match name.parse() {
        Ok(account) => account,
        Err(_) => fail!(code::ARGUMENT, "{name} is not an account"),
    }
}
