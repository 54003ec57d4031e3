//! What is fixed at initialisation, and its hard bounds (protocol section 2).

use borsh::{BorshDeserialize, BorshSerialize};
use por_types::interface::Params;
use por_types::{AccountId, Network, Yocto};

const SECOND: u64 = 1_000;
const HOUR: u64 = 3_600 * SECOND;
const DAY: u64 = 24 * HOUR;

/// Price of one byte of storage on NEAR.
const BYTE_PRICE: u128 = 10_000_000_000_000_000_000;

/// Bytes that a registration may add to storage: node record, both lookups and the node's
/// share of the adjacency.
const REGISTER_BYTES: u128 = 1_300;
/// Bytes that a channel may add to storage: its record, and at each end one page of a hub
/// and the mention of that page.
const CHANNEL_BYTES: u128 = 900;
/// Bytes that the ring of the change log takes once it is full, with the root state.
pub const RESERVED_BYTES: u128 = 90_000;

pub const REGISTER_STORAGE: Yocto = Yocto(REGISTER_BYTES * BYTE_PRICE);
pub const CHANNEL_STORAGE: Yocto = Yocto(CHANNEL_BYTES * BYTE_PRICE);

/// What the account must hold for `used` bytes and the ring of the change log.
pub fn storage_floor(used: u64) -> Yocto {
    Yocto((u128::from(used) + RESERVED_BYTES) * BYTE_PRICE)
}

#[derive(BorshSerialize, BorshDeserialize)]
pub struct Config {
    pub network: Network,
    pub owner: AccountId,
    pub treasury: AccountId,
    pub params: StoredParams,
    pub test: bool,
}

/// [`Params`] as stored.
#[derive(Clone, BorshSerialize, BorshDeserialize)]
pub struct StoredParams {
    pub late_fee: Yocto,
    pub sever_penalty: Yocto,
    pub challenge_ms: u64,
    pub notice_ms: u64,
    pub min_stake: Yocto,
    pub activation_ms: u64,
    pub reimbursement_ms: u64,
    pub slash_bps: u16,
}

impl StoredParams {
    /// Each side's part of the sever penalty.
    pub fn bond(&self) -> Yocto {
        Yocto(self.sever_penalty.0 / 2)
    }
}

impl From<Params> for StoredParams {
    fn from(p: Params) -> Self {
        StoredParams {
            late_fee: p.late_fee,
            sever_penalty: p.sever_penalty,
            challenge_ms: p.challenge_ms,
            notice_ms: p.notice_ms,
            min_stake: p.min_stake,
            activation_ms: p.activation_ms,
            reimbursement_ms: p.reimbursement_ms,
            slash_bps: p.slash_bps,
        }
    }
}

impl From<StoredParams> for Params {
    fn from(p: StoredParams) -> Self {
        Params {
            late_fee: p.late_fee,
            sever_penalty: p.sever_penalty,
            challenge_ms: p.challenge_ms,
            notice_ms: p.notice_ms,
            min_stake: p.min_stake,
            activation_ms: p.activation_ms,
            reimbursement_ms: p.reimbursement_ms,
            slash_bps: p.slash_bps,
        }
    }
}

/// What is wrong with `p`, if anything. A test network is free of all bounds but those that
/// keep sums within their types.
pub fn params_error(p: &Params, test: bool) -> Option<&'static str> {
    let durations = [p.challenge_ms, p.notice_ms, p.activation_ms, p.reimbursement_ms];
    if !p.sever_penalty.0.is_multiple_of(2) {
        return Some("sever_penalty must be even");
    }
    if p.slash_bps > 10_000 {
        return Some("slash_bps must be at most 10000");
    }
    if durations.iter().any(|ms| *ms > 3_650 * DAY) {
        return Some("durations must be at most ten years");
    }
    if [p.late_fee, p.sever_penalty, p.min_stake].iter().any(|amount| *amount > Yocto::near(1_000_000)) {
        return Some("amounts must be at most a million NEAR");
    }
    if test { None } else { bounds_error(p) }
}

fn bounds_error(p: &Params) -> Option<&'static str> {
    if p.late_fee > Yocto::millinear(1) {
        return Some("late_fee must be at most 0.001 NEAR a millisecond");
    }
    if !(Yocto::millinear(100)..=Yocto::near(1_000)).contains(&p.sever_penalty) {
        return Some("sever_penalty must be 0.1 to 1000 NEAR");
    }
    if !(HOUR..=30 * DAY).contains(&p.challenge_ms) {
        return Some("challenge_ms must be one hour to 30 days");
    }
    if !(60 * SECOND..=7 * DAY).contains(&p.notice_ms) {
        return Some("notice_ms must be one minute to 7 days");
    }
    if !(p.bond()..=Yocto::near(100_000)).contains(&p.min_stake) {
        return Some("min_stake must be half the penalty to 100000 NEAR");
    }
    if !(HOUR..=30 * DAY).contains(&p.activation_ms) {
        return Some("activation_ms must be one hour to 30 days");
    }
    if !(p.challenge_ms..=90 * DAY).contains(&p.reimbursement_ms) {
        return Some("reimbursement_ms must be the challenge window to 90 days");
    }
    if p.slash_bps > 5_000 {
        return Some("slash_bps must be at most 5000");
    }
    None
}
