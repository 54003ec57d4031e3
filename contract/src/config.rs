//! What is fixed at initialisation (protocol section 2).

use borsh::{BorshDeserialize, BorshSerialize};
use near_sdk::env;
use por_types::interface::Params;
use por_types::{AccountId, Network, Yocto};

use crate::Contract;

const DAY: u64 = 24 * 3_600 * 1_000;

/// Price of one byte of storage on NEAR.
const BYTE_PRICE: u128 = 10_000_000_000_000_000_000;

/// Bytes that a registration may add to storage: node record, both lookups, the node's
/// share of the graph and of the weights, changes of its stake that wait.
const REGISTER_BYTES: u128 = 3_300;
/// Bytes of what is kept of an index for good once its first node has left: that it is free, or from
/// when on it is another's.
const INDEX_BYTES: u128 = 100;
/// Bytes that a channel may add to storage: its record, at each end one page of a hub and the
/// mention of that page, its penalty, its place in the queue, a small side that it cut off.
const CHANNEL_BYTES: u128 = 1_400;
/// Bytes of a purse: an account of 64 letters and an amount.
const PURSE_BYTES: u128 = 200;
/// A side that is cut off is within [`CHANNEL_BYTES`] up to this size.
const SMALL_CUT: usize = 136;
/// Bytes that the ring of the change log takes once it is full, with the root state.
pub const RESERVED_BYTES: u128 = 90_000;

pub const REGISTER_STORAGE: Yocto = Yocto(REGISTER_BYTES * BYTE_PRICE);
pub const INDEX_STORAGE: Yocto = Yocto(INDEX_BYTES * BYTE_PRICE);
pub const CHANNEL_STORAGE: Yocto = Yocto(CHANNEL_BYTES * BYTE_PRICE);

pub const PURSE_STORAGE: Yocto = Yocto(PURSE_BYTES * BYTE_PRICE);
/// What those who continue checks are paid for gas: NEAR's lowest price, so that nobody gains
/// by burning more than it takes.
pub const GAS_PRICE: Yocto = Yocto(100_000_000);
/// Notice before changes of parameters or code take effect; a test network has its own.
pub const GOVERNANCE_NOTICE_MS: u64 = 14 * DAY;

/// Deposits for checks count nodes and penalties in steps of this: a closer attaches what it has read
/// some blocks before, and who adds some in between must not make that too little.
const STEP: u32 = 256;

/// Bytes of the records of a check: two halves with two bits a node each, the smaller side.
pub fn check_bytes(nodes: u32) -> usize {
    nodes as usize * 5 / 8
}

/// Deposit for the records of a check.
pub fn check_storage(nodes: u32) -> Yocto {
    Yocto((check_bytes(nodes.next_multiple_of(STEP)) as u128 + 2_000) * BYTE_PRICE)
}

/// Deposit for the gas of those who continue a check: what cutting off half of the network burns, and
/// what `penalties` that are listed burn, each claimed from one end and paid to the other.
pub fn crank_deposit(nodes: u32, penalties: u64) -> Yocto {
    let nodes = u128::from(nodes.next_multiple_of(STEP));
    let penalties = u128::from(penalties.max(1).next_multiple_of(u64::from(STEP)));
    let of_nodes = nodes * 20_000_000_000_000_000_000;
    Yocto(Yocto::millinear(10).0 + of_nodes + penalties * 150_000_000_000_000_000_000)
}

/// Deposit for keeping a cut-off side of `size` bytes; nothing if it is small.
pub fn cut_storage(size: usize) -> Yocto {
    if size <= SMALL_CUT { Yocto::ZERO } else { Yocto((size as u128 + 200) * BYTE_PRICE) }
}

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

/// What the owner decides, and what waits for its notice.
#[derive(BorshSerialize, BorshDeserialize)]
pub struct Governance {
    /// The node of this account is the genesis anchor.
    pub anchor: AccountId,
    /// Parameters, and the block time from which they are in force.
    pub next_params: Option<(StoredParams, u64)>,
    /// SHA-256 of announced code, and the block time from which it may be deployed.
    pub next_code: Option<([u8; 32], u64)>,
}

impl Contract {
    /// The parameters in force now.
    pub(crate) fn params(&self) -> &StoredParams {
        match &self.governance.next_params {
            Some((next, from_ms)) if env::block_timestamp_ms() >= *from_ms => next,
            _ => &self.config.params,
        }
    }

    pub(crate) fn governance_notice_ms(&self) -> u64 {
        if self.config.test { self.params().notice_ms } else { GOVERNANCE_NOTICE_MS }
    }
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
