//! The chain's state: NEAR's trie keys and values over an ordered map.
//!
//! Keys and values are byte for byte those of NEAR's trie. The map shares
//! structure between copies, so a copy costs nothing: each block keeps one for
//! queries, and each receipt starts from one to return to when it fails.

use std::borrow::Borrow;
use std::sync::Arc;

use borsh::{BorshDeserialize, BorshSerialize};
use imbl::{OrdMap, OrdSet};
use near_crypto::PublicKeyHandle;
use near_primitives::account::{AccessKey, Account, AccountContract};
use near_primitives::hash::CryptoHash;
use near_primitives::receipt::{DelayedReceiptIndices, PromiseYieldIndices, Receipt};
use near_primitives::trie_key::{GlobalContractCodeIdentifier, TrieKey, trie_key_parsers};
use near_primitives::types::AccountId;

use crate::error::{Error, Result};

mod recorder;
mod trie_path;

pub(crate) use recorder::Recorder;

type Bytes = Arc<[u8]>;
/// A key that was written, with its value, or that was removed.
pub(crate) type Change = (Bytes, Option<Bytes>);

/// One version of the state, cheap to copy.
#[derive(Clone, Default)]
pub(crate) struct State {
    map: OrdMap<Bytes, Bytes>,
    /// Keys written since [`State::take_changes`], for the store.
    dirty: OrdSet<Bytes>,
}

impl State {
    /// The state read back from the store.
    pub(crate) fn from_entries(entries: impl Iterator<Item = (Vec<u8>, Vec<u8>)>) -> Self {
        let map = entries.map(|(key, value)| (Bytes::from(key), Bytes::from(value))).collect();
        Self { map, dirty: OrdSet::new() }
    }

    /// Whether anything was written since the last block.
    pub(crate) fn has_changes(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// The keys changed since the last call, with their new values.
    pub(crate) fn take_changes(&mut self) -> Vec<Change> {
        let dirty = std::mem::take(&mut self.dirty);
        dirty
            .into_iter()
            .map(|key| {
                let value = self.map.get(&key).cloned();
                (key, value)
            })
            .collect()
    }

    pub(crate) fn get_raw(&self, key: &[u8]) -> Option<&Bytes> {
        self.map.get(key)
    }

    pub(crate) fn set_raw(&mut self, key: Vec<u8>, value: impl Into<Bytes>) -> Option<Bytes> {
        let key = Bytes::from(key);
        self.dirty.insert(key.clone());
        self.map.insert(key, value.into())
    }

    pub(crate) fn remove_raw(&mut self, key: &[u8]) -> Option<Bytes> {
        let (key, value) = self.map.remove_with_key(key)?;
        self.dirty.insert(key);
        Some(value)
    }

    pub(crate) fn get<T: BorshDeserialize>(&self, key: &TrieKey) -> Result<Option<T>> {
        let Some(bytes) = self.map.get(key.to_vec().as_slice()) else {
            return Ok(None);
        };
        let value =
            T::try_from_slice(bytes).map_err(|error| Error::inconsistent(format!("{key:?}: {error}")))?;
        Ok(Some(value))
    }

    pub(crate) fn set<T: BorshSerialize>(&mut self, key: &TrieKey, value: &T) -> Result<()> {
        let bytes = borsh::to_vec(value).map_err(Error::inconsistent)?;
        self.set_raw(key.to_vec(), bytes);
        Ok(())
    }

    pub(crate) fn remove(&mut self, key: &TrieKey) -> Option<Bytes> {
        self.remove_raw(&key.to_vec())
    }

    /// All entries whose key starts with `prefix`, in order, from `after` (excluded) on.
    pub(crate) fn range<'a>(
        &'a self,
        prefix: &'a [u8],
        after: Option<&[u8]>,
    ) -> impl Iterator<Item = (&'a [u8], &'a [u8])> + 'a {
        let start = after.map_or_else(|| prefix.to_vec(), |after| [after, &[0]].concat());
        let start = Bytes::from(start);
        self.map
            .range(start..)
            .map(|(key, value)| (Borrow::<[u8]>::borrow(key), Borrow::<[u8]>::borrow(value)))
            .take_while(move |(key, _)| key.starts_with(prefix))
    }

    pub(crate) fn account(&self, id: &AccountId) -> Result<Option<Account>> {
        self.get(&TrieKey::Account { account_id: id.clone() })
    }

    pub(crate) fn set_account(&mut self, id: &AccountId, account: &Account) -> Result<()> {
        self.set(&TrieKey::Account { account_id: id.clone() }, account)
    }

    pub(crate) fn access_key(
        &self,
        id: &AccountId,
        key: impl Into<PublicKeyHandle>,
    ) -> Result<Option<AccessKey>> {
        self.get(&TrieKey::access_key(id.clone(), key))
    }

    pub(crate) fn set_access_key(
        &mut self,
        id: &AccountId,
        key: impl Into<PublicKeyHandle>,
        access_key: &AccessKey,
    ) -> Result<()> {
        self.set(&TrieKey::access_key(id.clone(), key), access_key)
    }

    pub(crate) fn remove_access_key(&mut self, id: &AccountId, key: impl Into<PublicKeyHandle>) {
        self.remove(&TrieKey::access_key(id.clone(), key));
    }

    /// All accounts, in order of their ids.
    pub(crate) fn accounts(&self) -> impl Iterator<Item = Result<(AccountId, Account)>> + '_ {
        const ACCOUNTS: &[u8] = &[near_primitives::trie_key::col::ACCOUNT];
        self.range(ACCOUNTS, None).map(|(key, value)| {
            let id = trie_key_parsers::parse_account_id_from_account_key(key).map_err(Error::inconsistent)?;
            let account = Account::try_from_slice(value).map_err(Error::inconsistent)?;
            Ok((id, account))
        })
    }

    /// Deletes everything that belongs to the account.
    pub(crate) fn remove_account(&mut self, id: &AccountId) {
        self.remove(&TrieKey::Account { account_id: id.clone() });
        self.remove(&TrieKey::ContractCode { account_id: id.clone() });
        for prefix in [
            trie_key_parsers::get_raw_prefix_for_access_keys(id),
            trie_key_parsers::get_raw_prefix_for_contract_data(id, &[]),
        ] {
            let keys: Vec<Vec<u8>> = self.range(&prefix, None).map(|(k, _)| k.to_vec()).collect();
            for key in keys {
                self.remove_raw(&key);
            }
        }
    }

    /// The code the account runs, whether its own or a global contract's.
    pub(crate) fn contract_code(&self, id: &AccountId, contract: &AccountContract) -> Option<Bytes> {
        let key = match contract {
            AccountContract::None => return None,
            AccountContract::Local(_) => TrieKey::ContractCode { account_id: id.clone() },
            AccountContract::Global(hash) => {
                TrieKey::GlobalContractCode { identifier: GlobalContractCodeIdentifier::CodeHash(*hash) }
            }
            AccountContract::GlobalByAccount(owner) => TrieKey::GlobalContractCode {
                identifier: GlobalContractCodeIdentifier::AccountId(owner.clone()),
            },
        };
        self.get_raw(&key.to_vec()).cloned()
    }

    fn queue(&self) -> Result<DelayedReceiptIndices> {
        Ok(self.get(&TrieKey::DelayedReceiptIndices)?.unwrap_or_default())
    }

    /// How many receipts wait for a coming block.
    pub(crate) fn queued_receipts(&self) -> Result<u64> {
        Ok(self.queue()?.len())
    }

    /// Appends a receipt to those that wait for a coming block.
    pub(crate) fn push_receipt(&mut self, receipt: &Receipt) -> Result<()> {
        let mut queue = self.queue()?;
        let index = queue.next_available_index;
        queue.next_available_index += 1;
        self.set(&TrieKey::DelayedReceipt { index }, receipt)?;
        self.set(&TrieKey::DelayedReceiptIndices, &queue)
    }

    /// Takes the receipt that has waited longest.
    pub(crate) fn pop_receipt(&mut self) -> Result<Option<Receipt>> {
        let mut queue = self.queue()?;
        if queue.len() == 0 {
            return Ok(None);
        }
        let key = TrieKey::DelayedReceipt { index: queue.first_index };
        let receipt = self.get(&key)?.ok_or_else(|| Error::inconsistent("a queued receipt is missing"))?;
        self.remove(&key);
        queue.first_index += 1;
        self.set(&TrieKey::DelayedReceiptIndices, &queue)?;
        Ok(Some(receipt))
    }

    pub(crate) fn yields(&self) -> Result<PromiseYieldIndices> {
        Ok(self.get(&TrieKey::PromiseYieldIndices)?.unwrap_or_default())
    }

    /// A digest that changes with every write: not NEAR's Merkle root.
    pub(crate) fn root_after(&self, previous: &CryptoHash) -> CryptoHash {
        let changes: Vec<(&[u8], Option<&[u8]>)> = self
            .dirty
            .iter()
            .map(|key| (Borrow::<[u8]>::borrow(key), self.map.get(key).map(Borrow::<[u8]>::borrow)))
            .collect();
        if changes.is_empty() { *previous } else { CryptoHash::hash_borsh((previous, changes)) }
    }
}
