//! Registration and stake (protocol section 2).

use near_sdk::near;
use por_types::interface::{Event, RegisterArgs, RegisteredEvent, StakeChangedEvent, UnstakeArgs, code};
use por_types::{RegistrationProof, Yocto};

use super::{caller, now_ms};
use crate::answers::{answer, emit};
use crate::args::args;
use crate::books::{Part, Purse};
use crate::config::REGISTER_STORAGE;
use crate::fail::require;
use crate::flow::Op;
use crate::node::NodeRecord;
use crate::store::{self, Table};
use crate::verify::check_signature;
use crate::{Contract, ContractExt};

#[near]
impl Contract {
    /// Binds the caller's account to `node_key`, whose secret signs for it from now on.
    /// Returns the node's index.
    #[payable]
    pub fn register(&mut self) {
        let RegisterArgs { node_key, proof } = args();
        let account = caller();
        require!(
            Self::node_index(&account).is_none(),
            code::ACCOUNT_TAKEN,
            "{account} has a node; use another account for another node"
        );
        require!(
            Self::node_index_by_key(&node_key).is_none(),
            code::KEY_TAKEN,
            "{node_key} belongs to another account; use a fresh key"
        );
        require!(!node_key.is_weak(), code::WEAK_KEY, "anybody can sign for {node_key}; use a fresh key");
        let statement = RegistrationProof { account: account.clone(), node_key };
        check_signature(&self.config.network, &node_key, &statement, &proof);

        let mut purse = Purse::attached();
        purse.pay(&mut self.books, Part::Storage, REGISTER_STORAGE, "storage deposit");
        let stake = purse.rest(&mut self.books, Part::Stakes);
        let index = self.take_index();
        Self::save_node(index, &NodeRecord::new(account.clone(), node_key));
        store::write(Table::Accounts, account.as_bytes(), &index);
        store::write(Table::Keys, &node_key.0, &index);
        if account == self.governance.anchor {
            self.flow.anchor = Some(index);
            self.with_node(index, |node, _| node.attached_since_ms = Some(now_ms()));
        }
        if !stake.is_zero() {
            self.submit_stake(index, stake);
        }
        self.log_node(index);
        emit(&Event::Registered(vec![RegisteredEvent { account, node_key, index }]));
        answer(&index);
    }

    /// Removes the caller's node, which has nothing left here; its storage deposit is
    /// withdrawable. Its index, key and account are free.
    pub fn unregister(&mut self) {
        let account = caller();
        let index = Self::caller_index(&account);
        let mut node = Self::load_node(index);
        let clock_ms = self.clock_ms();
        node.advance(&mut self.books, clock_ms);
        require!(
            node.is_unused() && self.flow.anchor != Some(index),
            code::IN_USE,
            "the node still has channels, stake, money or pending changes; end those first"
        );
        // Without stake it weighs nothing, and without channels no check under way knows it.
        self.with_node(index, |node, _| node.detach(clock_ms));
        for (table, key) in [
            (Table::Accounts, account.as_bytes()),
            (Table::Keys, &node.key.0[..]),
            (Table::Nodes, &index.to_le_bytes()[..]),
        ] {
            store::remove(table, key);
        }
        let returned = self.vacate_index(index);
        self.credit(&account, returned, Part::Storage);
        self.log_node(index);
    }

    /// Adds what is attached to the caller's stake; it weighs after the activation delay.
    #[payable]
    pub fn stake(&mut self) {
        let index = Self::caller_index(&caller());
        let amount = Purse::attached().rest(&mut self.books, Part::Stakes);
        require!(!amount.is_zero(), code::DEPOSIT, "nothing is attached; attach the stake to add");
        self.submit_stake(index, amount);
        self.stake_changed(index);
    }

    /// Withdraws stake. It weighs nothing at once, stays chargeable for the reimbursement
    /// window, and is withdrawable after it.
    pub fn unstake(&mut self) {
        let UnstakeArgs { amount } = args();
        let index = Self::caller_index(&caller());
        require!(!amount.is_zero(), code::ARGUMENT, "amount is zero; name how much to unstake");
        let params = self.params().clone();
        let release_ms = now_ms() + params.reimbursement_ms;
        self.with_node(index, |node, _| node.require_unstakeable(amount, release_ms, &params));
        self.submit(Op::Unstake { node: index, amount, release_ms });
        self.stake_changed(index);
    }
}

impl Contract {
    fn submit_stake(&mut self, index: u32, amount: Yocto) {
        let active_at_ms = now_ms() + self.params().activation_ms;
        self.with_node(index, |node, _| node.require_stakeable(active_at_ms));
        self.submit(Op::Stake { node: index, amount, active_at_ms });
    }

    fn stake_changed(&mut self, index: u32) {
        self.log_node(index);
        let node = Self::load_node(index);
        let (stake, unstaking) = (node.usable_stake(), node.unstaking());
        emit(&Event::StakeChanged(vec![StakeChangedEvent { account: node.account, stake, unstaking }]));
    }
}
