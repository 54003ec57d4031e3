//! Continuing partition checks.

use near_sdk::near;
use por_types::interface::{CheckArgs, code};

use super::caller;
use crate::answers::answer;
use crate::args::args;
use crate::budget::Budget;
use crate::fail::require;
use crate::{Contract, ContractExt};

#[near]
impl Contract {
    /// Continues pending checks as far as the gas lasts, for a reward. Returns how many are
    /// still pending.
    pub fn check(&mut self) {
        let CheckArgs { witness } = args();
        require!(!self.flow.is_idle(), code::NO_CHECK, "no check is pending; there is nothing to do");
        let mut budget = Budget::of_call(self.nodes, Some(caller()));
        self.pump(witness, &mut budget);
        answer(&self.flow.checks);
    }
}
