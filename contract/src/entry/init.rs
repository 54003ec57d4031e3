//! Initialisation.

use near_sdk::{env, near};
use por_types::interface::{NewArgs, code};
use por_types::{MAX_CHAIN_ID_LEN, Network, Yocto};

use super::account;
use crate::args::args;
use crate::books::Books;
use crate::config::{Config, Governance, storage_floor};
use crate::fail::{fail, require};
use crate::flow::Flow;
use crate::{CURRENT, Contract, ContractExt};

#[near]
impl Contract {
    /// Initialises the contract, once. The account must already hold what the code and the
    /// ring of the change log take in storage.
    #[init]
    pub fn new() -> Self {
        let NewArgs { chain_id, owner, treasury, params, anchor, test } = args();
        let plain = chain_id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
        require!(
            plain && (1..=MAX_CHAIN_ID_LEN).contains(&chain_id.len()),
            code::ARGUMENT,
            "chain_id must be 1 to {MAX_CHAIN_ID_LEN} letters, digits, `-`, `_` or `.`"
        );
        if let Some(error) = params.out_of_bounds(test) {
            fail!(code::PARAMS, "{error}");
        }
        let balance = Yocto(env::account_balance().as_yoctonear());
        let floor = storage_floor(env::storage_usage());
        require!(
            balance >= floor,
            code::DEPOSIT,
            "the account holds {balance} yocto but its storage will take {floor}; transfer the rest first"
        );
        let contract = account(env::current_account_id().as_str());
        Contract {
            version: CURRENT,
            governance: Governance {
                anchor: anchor.unwrap_or_else(|| owner.clone()),
                next_params: None,
                next_code: None,
            },
            flow: Flow::new(),
            config: Config {
                network: Network { chain_id, contract },
                owner,
                treasury,
                params: params.into(),
                test,
            },
            books: Books::new(balance),
            nodes: 0,
            channels: 0,
            graph_version: 0,
        }
    }
}
