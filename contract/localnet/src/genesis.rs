//! The first state of the chain.

use std::collections::BTreeMap;

use near_crypto::PublicKey;
use near_primitives::account::{AccessKey, Account, AccountContract};
use near_primitives::hash::CryptoHash;
use near_primitives::state_record::StateRecord;
use near_primitives::trie_key::TrieKey;
use near_primitives::types::{AccountId, Balance, BlockHeight};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::state::State;

mod home;

pub(crate) use home::MAX_REQUEST;
pub use home::{Home, InitOptions};

/// What the producer of blocks holds in staked tokens.
const VALIDATOR_STAKE: Balance = Balance::from_near(50_000_000);
/// What it holds besides.
const VALIDATOR_BALANCE: Balance = Balance::from_near(1_000_000_000);
/// Storage of an account with one full access key, in bytes.
const ACCOUNT_WITH_KEY: u64 = 182;

/// Yocto for a unit of gas.
pub(crate) const GAS_PRICE: u128 = 100_000_000;

/// What `genesis.json` says, as far as it matters here.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Genesis {
    pub(crate) chain_id: String,
    #[serde(default)]
    pub(crate) genesis_height: BlockHeight,
    /// RFC 3339.
    #[serde(default)]
    pub(crate) genesis_time: String,
    #[serde(default = "default_epoch_length")]
    pub(crate) epoch_length: u64,
    #[serde(default = "default_gas_limit")]
    pub(crate) gas_limit: u64,
    #[serde(default = "default_gas_price")]
    pub(crate) min_gas_price: Balance,
    #[serde(default = "default_validity")]
    pub(crate) transaction_validity_period: u64,
    #[serde(default)]
    pub(crate) total_supply: Balance,
    #[serde(default)]
    pub(crate) validators: Vec<Validator>,
    pub(crate) records: Vec<StateRecord>,
    /// What other programs keep in the file.
    #[serde(flatten)]
    pub(crate) rest: BTreeMap<String, serde_json::Value>,
}

/// Who produces blocks.
#[derive(Clone, Serialize, Deserialize)]
pub(crate) struct Validator {
    pub(crate) account_id: AccountId,
    pub(crate) public_key: PublicKey,
    pub(crate) amount: Balance,
}

fn default_epoch_length() -> u64 {
    500
}

fn default_gas_limit() -> u64 {
    1_000_000_000_000_000
}

fn default_gas_price() -> Balance {
    Balance::from_yoctonear(GAS_PRICE)
}

fn default_validity() -> u64 {
    100
}

/// What programs that read a genesis expect in it, though it has no effect here.
fn other_parameters() -> BTreeMap<String, serde_json::Value> {
    let parameters = serde_json::json!({
        "protocol_version": near_primitives::version::PROTOCOL_VERSION,
        "num_block_producer_seats": 1,
        "dynamic_resharding": false,
        "protocol_upgrade_stake_threshold": [4, 5],
        "max_gas_price": "10000000000000000000000",
        "block_producer_kickout_threshold": 0,
        "chunk_producer_kickout_threshold": 0,
        "online_min_threshold": [9, 10],
        "online_max_threshold": [99, 100],
        "gas_price_adjustment_rate": [0, 1],
        "protocol_reward_rate": [0, 1],
        "max_inflation_rate": [0, 1],
        "num_blocks_per_year": 31_536_000,
        "protocol_treasury_account": "test.near",
        "fishermen_threshold": "10000000000000000000000000",
        "minimum_stake_divisor": 10,
    });
    match parameters {
        serde_json::Value::Object(fields) => fields.into_iter().collect(),
        _ => BTreeMap::new(),
    }
}

fn account_records(id: &AccountId, key: &PublicKey, amount: Balance, locked: Balance) -> [StateRecord; 2] {
    [
        StateRecord::Account {
            account_id: id.clone(),
            account: Account::new(amount, locked, AccountContract::None, ACCOUNT_WITH_KEY),
        },
        StateRecord::AccessKey {
            account_id: id.clone(),
            public_key: key.into(),
            access_key: AccessKey::full_access(),
        },
    ]
}

impl Genesis {
    /// A genesis with one validator and the given accounts.
    pub(crate) fn new(
        chain_id: &str,
        validator: (&AccountId, &PublicKey),
        accounts: &[(AccountId, PublicKey, u128)],
    ) -> Self {
        let (id, key) = validator;
        let mut records = account_records(id, key, VALIDATOR_BALANCE, VALIDATOR_STAKE).to_vec();
        for (id, key, amount) in accounts {
            let amount = Balance::from_yoctonear(*amount);
            records.extend(account_records(id, key, amount, Balance::ZERO));
        }
        let mut genesis = Self {
            chain_id: chain_id.to_owned(),
            genesis_height: 0,
            genesis_time: String::new(),
            epoch_length: default_epoch_length(),
            gas_limit: default_gas_limit(),
            min_gas_price: default_gas_price(),
            transaction_validity_period: default_validity(),
            total_supply: Balance::ZERO,
            validators: vec![Validator {
                account_id: id.clone(),
                public_key: key.clone(),
                amount: VALIDATOR_STAKE,
            }],
            records,
            rest: other_parameters(),
        };
        genesis.total_supply = genesis.supply();
        genesis
    }

    /// The parameters without the records, as JSON.
    pub(crate) fn config(&self) -> Result<serde_json::Value> {
        let without = Self { records: Vec::new(), ..self.clone() };
        let mut value = serde_json::to_value(&without).map_err(|e| Error::Genesis(e.to_string()))?;
        if let Some(fields) = value.as_object_mut() {
            fields.remove("records");
        }
        Ok(value)
    }

    /// The sum of all balances.
    fn supply(&self) -> Balance {
        self.records.iter().fold(Balance::ZERO, |sum, record| match record {
            StateRecord::Account { account, .. } => {
                sum.saturating_add(account.amount()).saturating_add(account.locked())
            }
            _ => sum,
        })
    }

    /// The state, and the sum of all balances in it.
    pub(crate) fn state(&self) -> Result<(State, Balance)> {
        if self.epoch_length == 0 || self.gas_limit == 0 {
            return Err(Error::Genesis("epoch_length and gas_limit must not be 0".to_owned()));
        }
        let mut state = State::default();
        for record in &self.records {
            apply_record(&mut state, record)?;
        }
        Ok((state.clone(), total_supply(&state)?))
    }

    /// A digest of everything that determines the first state.
    pub(crate) fn hash(&self, state_root: &CryptoHash) -> CryptoHash {
        let numbers = [self.genesis_height, self.epoch_length, self.gas_limit];
        CryptoHash::hash_borsh((&self.chain_id, &self.genesis_time, numbers, state_root))
    }
}

/// The sum of all balances, liquid and locked.
pub(crate) fn total_supply(state: &State) -> Result<Balance> {
    let mut sum = Balance::ZERO;
    for entry in state.accounts() {
        let (_, account) = entry?;
        sum = sum
            .checked_add(account.amount())
            .and_then(|sum| sum.checked_add(account.locked()))
            .ok_or_else(|| Error::Genesis("the balances overflow".to_owned()))?;
    }
    Ok(sum)
}

/// Writes a record into the state, whatever was there: also for patches.
pub(crate) fn apply_record(state: &mut State, record: &StateRecord) -> Result<()> {
    match record {
        StateRecord::Account { account_id, account } => state.set_account(account_id, account),
        StateRecord::Data { account_id, data_key, value } => {
            let key: &Vec<u8> = data_key;
            let value: &Vec<u8> = value;
            let key = TrieKey::ContractData { account_id: account_id.clone(), key: key.clone() };
            state.set_raw(key.to_vec(), value.as_slice());
            Ok(())
        }
        StateRecord::Contract { account_id, code } => {
            let key = TrieKey::ContractCode { account_id: account_id.clone() };
            state.set_raw(key.to_vec(), code.as_slice());
            set_code_hash(state, account_id, code)
        }
        StateRecord::AccessKey { account_id, public_key, access_key } => {
            state.set_access_key(account_id, public_key.clone(), access_key)
        }
        StateRecord::PostponedReceipt(_)
        | StateRecord::ReceivedData { .. }
        | StateRecord::DelayedReceipt(_)
        | StateRecord::GasKeyNonce { .. } => Err(Error::Genesis(
            "records of receipts, of received data and of gas keys are not offered".to_owned(),
        )),
    }
}

/// An account whose record does not name the code gets its hash all the same.
fn set_code_hash(state: &mut State, id: &AccountId, code: &[u8]) -> Result<()> {
    let Some(mut account) = state.account(id)? else {
        return Ok(());
    };
    account
        .set_contract(AccountContract::Local(CryptoHash::hash_bytes(code)))
        .map_err(Error::inconsistent)?;
    state.set_account(id, &account)
}
