//! What the owner decides. Nothing here moves money of users; parameters and code wait for
//! their notice (docs/decisions/contract.md).

use near_sdk::{Gas, NearToken, env, near};
use por_types::interface::{
    AccountArgs, AnnounceUpgradeArgs, Event, GovernedEvent, SetParamsArgs, code, method,
};

use super::{caller, now_ms};
use crate::answers::emit;
use crate::args::args;
use crate::fail::{fail, require};
use crate::{Contract, ContractExt};

/// Enough for a migration of the root state; what is left to convert is continued by calls.
const MIGRATE_GAS: Gas = Gas::from_tgas(100);

fn governed(act: &str, from_ms: u64) {
    emit(&Event::Governed(vec![GovernedEvent { act: act.to_owned(), from_ms }]));
}

#[near]
impl Contract {
    /// Announces parameters; in force after the notice. Replaces what was announced before.
    pub fn set_params(&mut self) {
        self.require_owner();
        let SetParamsArgs { params } = args();
        if let Some(error) = params.out_of_bounds(self.config.test) {
            fail!(code::PARAMS, "{error}");
        }
        let from_ms = now_ms() + self.governance_notice_ms();
        self.config.params = self.params().clone();
        self.governance.next_params = Some((params.into(), from_ms));
        governed(method::SET_PARAMS, from_ms);
    }

    pub fn set_owner(&mut self) {
        self.require_owner();
        let AccountArgs { account } = args();
        self.config.owner = account;
        governed(method::SET_OWNER, now_ms());
    }

    pub fn set_treasury(&mut self) {
        self.require_owner();
        let AccountArgs { account } = args();
        self.config.treasury = account;
        governed(method::SET_TREASURY, now_ms());
    }

    /// Announces code by its hash; deployable after the notice.
    pub fn announce_upgrade(&mut self) {
        self.require_owner();
        let AnnounceUpgradeArgs { code_hash } = args();
        let from_ms = now_ms() + self.governance_notice_ms();
        self.governance.next_code = Some((code_hash.0, from_ms));
        governed(method::ANNOUNCE_UPGRADE, from_ms);
    }

    pub fn cancel_upgrade(&mut self) {
        self.require_owner();
        require!(
            self.governance.next_code.take().is_some(),
            code::NOT_ANNOUNCED,
            "no code was announced; there is nothing to cancel"
        );
        governed(method::CANCEL_UPGRADE, now_ms());
    }

    /// Deploys announced code, which is the input of this call, and lets it migrate the state.
    /// By anyone, after the notice.
    pub fn upgrade(&mut self) {
        let input = env::input().unwrap_or_default();
        let Some((hash, from_ms)) = self.governance.next_code else {
            fail!(code::NOT_ANNOUNCED, "no code was announced; the owner has to announce it");
        };
        require!(
            env::sha256_array(&input) == hash,
            code::NOT_ANNOUNCED,
            "this is not the code that was announced; send the file with the announced SHA-256"
        );
        let now = now_ms();
        require!(
            now >= from_ms,
            code::TOO_EARLY,
            "the code may be deployed from {from_ms} ms on and it is {now}; call again then"
        );
        self.governance.next_code = None;
        governed(method::UPGRADE, now);
        let batch = env::promise_batch_create(&env::current_account_id());
        env::promise_batch_action_deploy_contract(batch, &input);
        env::promise_batch_action_function_call(batch, method::MIGRATE, b"{}", NearToken::ZERO, MIGRATE_GAS);
        env::promise_return(batch);
    }
}

impl Contract {
    fn require_owner(&self) {
        let caller = caller();
        require!(
            caller == self.config.owner,
            code::NOT_ALLOWED,
            "only the owner, {}, may do this",
            self.config.owner
        );
    }
}
