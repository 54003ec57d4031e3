//! Calls for measurements on large states, and such states themselves.

use std::collections::HashMap;

use near_parameters::ActionCosts;
use por_types::Yocto;
use serde_json::Value;

use super::{Done, Vm};

impl Vm {
    /// What the contract has stored, by key: for states that too many calls would take to make. The
    /// account is not charged for what is changed here.
    pub fn stored(&mut self) -> &mut HashMap<Vec<u8>, Vec<u8>> {
        &mut self.ext.fake_trie
    }

    /// A call that must succeed. Nothing is kept for undoing it, which makes it cheap on a large
    /// state, and promises are not delivered.
    ///
    /// # Panics
    /// If the contract refuses the call.
    pub fn trusted(&mut self, who: &str, method: &str, args: &Value, deposit: Yocto) -> Done {
        let input = serde_json::to_vec(args).expect("arguments");
        self.height += 1;
        let context = self.context(who, input, deposit.0, false);
        self.ext.action_log.clear();
        let outcome = self.run(method, &context);
        if let Some(error) = &outcome.aborted {
            panic!("{who} calls {method} with {args}: {error}");
        }
        self.finish(outcome)
    }

    /// What NEAR charges for the receipt of a call, besides what the VM burns.
    pub fn receipt_gas(&self, method: &str, args: usize) -> u64 {
        let bytes = (method.len() + args) as u64;
        let both = |cost: ActionCosts| {
            let fee = self.fees.fee(cost);
            fee.send_fee(false).gas.as_gas() + fee.exec_fee().gas.as_gas()
        };
        both(ActionCosts::new_action_receipt)
            + both(ActionCosts::function_call_base)
            + bytes * both(ActionCosts::function_call_byte)
    }
}
