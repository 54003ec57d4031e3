//! Money leaves the contract only here, and only to the caller.

use near_sdk::{Gas, NearToken, env, near};
use por_types::interface::{Event, WithdrawArgs, WithdrawnEvent, code};
use por_types::{AccountId, Yocto};

use super::caller;
use crate::answers::{answer, emit};
use crate::args::args;
use crate::books::Part;
use crate::fail::{OrStop, require};
use crate::json::to_json;
use crate::{Contract, ContractExt};

/// Enough for the callback that restores a failed transfer.
const CALLBACK_GAS: Gas = Gas::from_tgas(10);
/// A transfer answers with nothing.
const MAX_RESULT: usize = 64;

#[near]
impl Contract {
    /// Transfers withdrawable money to the caller, all of it unless `amount` says how much.
    /// The treasury's account also takes the treasury.
    pub fn withdraw(&mut self) {
        let WithdrawArgs { amount } = args();
        let account = caller();
        let available = self.available(&account);
        let amount = amount.unwrap_or(available);
        require!(
            !amount.is_zero() && amount <= available,
            code::WITHDRAWABLE,
            "{account} has {available} yocto withdrawable; ask for at most that"
        );
        self.take(&account, amount);
        emit(&Event::Withdrawn(vec![WithdrawnEvent { account: account.clone(), amount }]));
        let transfer = env::promise_batch_create(&env::predecessor_account_id());
        env::promise_batch_action_transfer(transfer, NearToken::from_yoctonear(amount.0));
        let callback = env::promise_batch_then(transfer, &env::current_account_id());
        let args = to_json(&WithdrawnEvent { account, amount });
        env::promise_batch_action_function_call(
            callback,
            "on_withdrawn",
            args.as_bytes(),
            NearToken::ZERO,
            CALLBACK_GAS,
        );
        env::promise_return(callback);
    }

    /// After the transfer: what could not be delivered is withdrawable again. Returns whether
    /// the money arrived.
    #[private]
    pub fn on_withdrawn(&mut self) {
        let WithdrawnEvent { account, amount } = args();
        if env::promise_result_checked(0, MAX_RESULT).is_ok() {
            return answer(&true);
        }
        if self.is_treasury(&account) {
            self.books.credit(Part::Treasury, amount);
        } else {
            self.books.credit(Part::Storage, amount);
            self.credit(&account, amount, Part::Storage);
        }
        answer(&false);
    }
}

impl Contract {
    fn is_treasury(&self, name: &AccountId) -> bool {
        *name == self.config.treasury
    }

    /// What `name` could withdraw now.
    pub(super) fn available(&self, name: &AccountId) -> Yocto {
        let node = Self::node_index(name).map(Self::load_node);
        let own = node.map_or(Yocto::ZERO, |node| node.withdrawable_at(self.clock_ms()));
        let treasury = if self.is_treasury(name) { self.books.treasury() } else { Yocto::ZERO };
        Yocto::checked_sum([own, treasury, Self::purse_available(name)]).or_stop()
    }

    /// Takes `amount`, which is available, out of the node's part first.
    fn take(&mut self, name: &AccountId, amount: Yocto) {
        let mut left = amount;
        if let Some(index) = Self::node_index(name) {
            self.with_node(index, |node, books| {
                let own = node.withdrawable.min(left);
                node.withdrawable = node.withdrawable.checked_sub(own).or_stop();
                books.debit(Part::Withdrawable, own);
                left = left.checked_sub(own).or_stop();
            });
        }
        self.take_from_purse(name, &mut left);
        if left.is_zero() {
            return;
        }
        require!(
            self.is_treasury(name) && left <= self.books.treasury(),
            code::WITHDRAWABLE,
            "the last {left} yocto are the storage of what is owed; withdraw all or less"
        );
        self.books.debit(Part::Treasury, left);
    }
}
