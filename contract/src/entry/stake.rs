//! Registration and stake (protocol section 2).

use near_sdk::near;
use por_types::RegistrationProof;
use por_types::interface::{Event, RegisterArgs, RegisteredEvent, StakeChangedEvent, UnstakeArgs, code};

use super::{caller, emit, now_ms};
use crate::args::args;
use crate::books::{Part, Purse};
use crate::config::REGISTER_STORAGE;
use crate::fail::require;
use crate::node::NodeRecord;
use crate::store::{self, Table};
use crate::verify::check_signature;
use crate::{Contract, ContractExt};

#[near]
impl Contract {
    /// Binds the caller's account to `node_key`, whose secret signs for it from now on.
    /// Returns the node's index.
    #[payable]
    pub fn register(&mut self) -> u32 {
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
        let index = self.nodes;
        self.nodes += 1;
        let mut node = NodeRecord::new(account.clone(), node_key);
        if !stake.is_zero() {
            node.add_stake(stake, now_ms() + self.config.params.activation_ms);
        }
        Self::save_node(index, &node);
        store::write(Table::Accounts, account.as_bytes(), &index);
        store::write(Table::Keys, &node_key.0, &index);
        self.log_node(index);
        emit(&Event::Registered(vec![RegisteredEvent { account, node_key, index }]));
        index
    }

    /// Adds what is attached to the caller's stake; it weighs after the activation delay.
    #[payable]
    pub fn stake(&mut self) {
        let index = Self::caller_index(&caller());
        let amount = Purse::attached().rest(&mut self.books, Part::Stakes);
        require!(!amount.is_zero(), code::DEPOSIT, "nothing is attached; attach the stake to add");
        let now = now_ms();
        let active_at = now + self.config.params.activation_ms;
        self.with_node(index, now, |node, _| node.add_stake(amount, active_at));
        self.stake_changed(index);
    }

    /// Withdraws stake. It weighs nothing at once, stays chargeable for the reimbursement
    /// window, and is withdrawable after it.
    pub fn unstake(&mut self) {
        let UnstakeArgs { amount } = args();
        let index = Self::caller_index(&caller());
        require!(!amount.is_zero(), code::ARGUMENT, "amount is zero; name how much to unstake");
        let now = now_ms();
        let params = self.config.params.clone();
        let release = now + params.reimbursement_ms;
        self.with_node(index, now, |node, _| node.unstake(amount, release, &params));
        self.stake_changed(index);
    }
}

impl Contract {
    fn stake_changed(&mut self, index: u32) {
        self.log_node(index);
        let node = Self::load_node(index);
        let (stake, unstaking) = (node.stake(), node.unstaking());
        emit(&Event::StakeChanged(vec![StakeChangedEvent { account: node.account, stake, unstaking }]));
    }
}
