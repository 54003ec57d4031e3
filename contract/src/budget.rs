//! What one call may still do before it has to leave the rest to another.

use near_sdk::env;
use por_types::AccountId;
use por_types::interface::{CHECK_GAS, MAX_INDICES};

use crate::config::check_bytes;

/// Kept for what follows a check in the call, and for saving the check.
const RESERVE_GAS: u64 = 15_000_000_000_000;
/// For each node of the network, whose bits may have to be saved.
const RESERVE_GAS_PER_NODE: u64 = 100_000_000;
// However many nodes there are, half of the gas is left for going on.
const _: () = assert!(RESERVE_GAS + MAX_INDICES as u64 * RESERVE_GAS_PER_NODE <= CHECK_GAS / 2);
/// NEAR lets a call touch 4 MB of state, keys and tree nodes included.
const MAX_BYTES: usize = 2_300_000;
/// NEAR lets a call log 16 KiB, and 100 times.
const MAX_LOGGED: usize = 12_000;
/// Bytes of an event with one entry, its account as long as can be. No event counts as less, so
/// that events of [`MAX_LOGGED`] bytes are fewer than NEAR allows.
pub const EVENT_LOG: usize = 200;

pub struct Budget {
    until_gas: u64,
    /// Who is paid for what this call does for checks, if anybody.
    pub paid: Option<AccountId>,
    pub bytes: usize,
    pub logged: usize,
}

impl Budget {
    pub fn of_call(nodes: u32, paid: Option<AccountId>) -> Budget {
        let reserve = RESERVE_GAS + u64::from(nodes) * RESERVE_GAS_PER_NODE;
        let until_gas = env::prepaid_gas().as_gas().saturating_sub(reserve);
        Budget { until_gas, paid, bytes: check_bytes(nodes), logged: 0 }
    }

    /// Whether another step fits, `read` bytes having been read apart from [`Budget::bytes`].
    pub fn lasts(&self, read: usize) -> bool {
        self.bytes + read < MAX_BYTES && self.logged < MAX_LOGGED && env::used_gas().as_gas() < self.until_gas
    }
}
