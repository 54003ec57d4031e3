//! Entry points, one file per group.

mod attach;
mod check;
mod close;
mod init;
mod open;
mod settle;
mod stake;
mod views;
mod withdraw;

use near_sdk::env;
use por_types::AccountId;
use por_types::interface::{EVENT_STANDARD, EVENT_VERSION, Event, code};
use serde::Serialize;

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

#[derive(Serialize)]
struct Nep297<'a> {
    standard: &'a str,
    version: &'a str,
    #[serde(flatten)]
    event: &'a Event,
}

/// Emits a NEP-297 event.
pub(crate) fn emit(event: &Event) {
    let line = to_json(&Nep297 { standard: EVENT_STANDARD, version: EVENT_VERSION, event });
    env::log_str(&format!("EVENT_JSON:{}", String::from_utf8_lossy(&line)));
}

fn to_json(value: &impl Serialize) -> Vec<u8> {
    match near_sdk::serde_json::to_vec(value) {
        Ok(json) => json,
        Err(_) => fail!(code::OVERFLOW, "an answer does not serialize; report this"),
    }
}
