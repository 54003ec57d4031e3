//! Questions about accounts, keys, code and contracts.

use std::num::NonZeroU32;
use std::sync::Arc;

use borsh::BorshDeserialize;
use near_crypto::{PublicKey, PublicKeyHandle};
use near_jsonrpc_primitives::errors::RpcError;
use near_jsonrpc_primitives::types::query::{
    QueryResponseKind, RpcQueryError, RpcQueryRequest, RpcQueryResponse,
};
use near_primitives::account::{AccessKey, Account, AccountContract};
use near_primitives::hash::CryptoHash;
use near_primitives::trie_key::{GlobalContractCodeIdentifier, TrieKey, trie_key_parsers};
use near_primitives::types::{AccountId, StoreKey};
use near_primitives::views::{
    AccessKeyInfoView, AccessKeyList, CallResult, ContractCodeView, QueryRequest, StateItem, ViewStateResult,
};
use serde_json::{Value, json};
use tokio::sync::oneshot;

use super::{Answer, Node, parse, to_value};
use crate::chain::Snapshot;
use crate::error::Error;
use crate::runtime::{ViewFailure, view_call};
use crate::vm::STACK_BYTES;

/// State larger than this is only shown in pages, in bytes.
const VIEWABLE_STATE: u64 = 50_000;

/// A query and the block as of which it is answered.
struct Query {
    snapshot: Arc<Snapshot>,
}

type Found<T> = Result<T, RpcQueryError>;

pub(super) async fn query(node: &Node, params: Value) -> Answer {
    let request: RpcQueryRequest = parse(params)?;
    let snapshot = match find(node, &request) {
        Ok(snapshot) => snapshot,
        Err(error) => return Err(RpcError::from(error)),
    };
    let query = Query { snapshot };
    let (height, hash) = (query.snapshot.block.height, query.snapshot.block.hash);
    match query.answer(node, request.request).await {
        Ok(kind) => to_value(&RpcQueryResponse { kind, block_height: height, block_hash: hash }),
        Err(error) => as_result(error),
    }
}

/// Two kinds of failure are reported as results, as NEAR's node does for old clients.
fn as_result(error: RpcQueryError) -> Answer {
    let (text, height, hash) = match error {
        RpcQueryError::ContractExecutionError { vm_error, block_height, block_hash, .. } => {
            (vm_error, block_height, block_hash)
        }
        RpcQueryError::UnknownAccessKey { public_key, block_height, block_hash } => {
            let text = format!("access key {public_key} does not exist while viewing");
            (text, block_height, block_hash)
        }
        other => return Err(RpcError::from(other)),
    };
    Ok(json!({ "error": text, "logs": [], "block_height": height, "block_hash": hash }))
}

fn find(node: &Node, request: &RpcQueryRequest) -> Found<Arc<Snapshot>> {
    let reference = &request.block_reference;
    let unknown = || RpcQueryError::UnknownBlock { block_reference: reference.clone() };
    let height = node.resolve(reference).map_err(broken)?.ok_or_else(unknown)?;
    if let Some(snapshot) = node.shared.snapshot(height) {
        return Ok(snapshot);
    }
    match node.shared.store.block(height).map_err(broken)? {
        Some(block) => {
            Err(RpcQueryError::GarbageCollectedBlock { block_height: block.height, block_hash: block.hash })
        }
        None => Err(unknown()),
    }
}

fn broken(error: Error) -> RpcQueryError {
    RpcQueryError::InternalError { error_message: error.to_string() }
}

impl Query {
    async fn answer(&self, node: &Node, request: QueryRequest) -> Found<QueryResponseKind> {
        match request {
            QueryRequest::ViewAccount { account_id } => {
                Ok(QueryResponseKind::ViewAccount(self.account(&account_id)?.into()))
            }
            QueryRequest::ViewCode { account_id } => self.code(&account_id),
            QueryRequest::ViewState { account_id, prefix, after_key, limit, .. } => {
                self.state(&account_id, &prefix, after_key.as_ref(), limit)
            }
            QueryRequest::ViewAccessKey { account_id, public_key } => {
                self.access_key(&account_id, public_key)
            }
            QueryRequest::ViewAccessKeyList { account_id, after_key, limit } => {
                self.access_keys(&account_id, after_key.as_ref(), limit)
            }
            QueryRequest::ViewGasKeyNonces { public_key, .. } => Err(RpcQueryError::UnknownGasKey {
                public_key,
                block_height: self.snapshot.block.height,
                block_hash: self.snapshot.block.hash,
            }),
            QueryRequest::CallFunction { account_id, method_name, args } => {
                self.call(node, account_id, method_name, args.into()).await
            }
            QueryRequest::ViewGlobalContractCode { code_hash } => {
                self.global_code(GlobalContractCodeIdentifier::CodeHash(code_hash))
            }
            QueryRequest::ViewGlobalContractCodeByAccountId { account_id } => {
                self.global_code(GlobalContractCodeIdentifier::AccountId(account_id))
            }
        }
    }

    fn account(&self, id: &AccountId) -> Found<Account> {
        let found = self.snapshot.state.account(id).map_err(broken)?;
        found.ok_or_else(|| RpcQueryError::UnknownAccount {
            requested_account_id: id.clone(),
            block_height: self.snapshot.block.height,
            block_hash: self.snapshot.block.hash,
        })
    }

    fn code(&self, id: &AccountId) -> Found<QueryResponseKind> {
        let account = self.account(id)?;
        let code = self.snapshot.state.contract_code(id, &account.contract());
        let code = code.ok_or_else(|| RpcQueryError::NoContractCode {
            contract_account_id: id.clone(),
            block_height: self.snapshot.block.height,
            block_hash: self.snapshot.block.hash,
        })?;
        Ok(code_view(&code))
    }

    fn global_code(&self, identifier: GlobalContractCodeIdentifier) -> Found<QueryResponseKind> {
        let key = TrieKey::GlobalContractCode { identifier: identifier.clone() };
        let code = self.snapshot.state.get_raw(&key.to_vec());
        let code = code.ok_or_else(|| RpcQueryError::NoGlobalContractCode {
            identifier: identifier.into(),
            block_height: self.snapshot.block.height,
            block_hash: self.snapshot.block.hash,
        })?;
        Ok(code_view(code))
    }

    fn state(
        &self,
        id: &AccountId,
        prefix: &[u8],
        after: Option<&StoreKey>,
        limit: Option<NonZeroU32>,
    ) -> Found<QueryResponseKind> {
        let account = self.account(id)?;
        let state = &self.snapshot.state;
        if limit.is_none() {
            let code = match &*account.contract() {
                local @ AccountContract::Local(_) => state.contract_code(id, local),
                _ => None,
            };
            let code = code.map_or(0, |code| code.len() as u64);
            if account.storage_usage().saturating_sub(code) > VIEWABLE_STATE {
                return Err(RpcQueryError::TooLargeContractState {
                    contract_account_id: id.clone(),
                    block_height: self.snapshot.block.height,
                    block_hash: self.snapshot.block.hash,
                });
            }
        }
        let base = trie_key_parsers::get_raw_prefix_for_contract_data(id, &[]);
        let whole = [base.as_slice(), prefix].concat();
        let after = after.map(|after| [base.as_slice(), after.as_slice()].concat());
        let most = limit.map_or(usize::MAX, |limit| limit.get() as usize);
        let mut entries = state.range(&whole, after.as_deref());
        let values: Vec<StateItem> = entries
            .by_ref()
            .take(most)
            .map(|(key, value)| StateItem {
                key: key[base.len()..].to_vec().into(),
                value: value.to_vec().into(),
            })
            .collect();
        let more = entries.next().is_some();
        let last_key = values.last().filter(|_| more).map(|item| item.key.clone());
        Ok(QueryResponseKind::ViewState(ViewStateResult { values, proof: Vec::new(), last_key }))
    }

    fn access_key(&self, id: &AccountId, public_key: PublicKey) -> Found<QueryResponseKind> {
        let found = self.snapshot.state.access_key(id, &public_key).map_err(broken)?;
        let key = found.ok_or_else(|| RpcQueryError::UnknownAccessKey {
            public_key,
            block_height: self.snapshot.block.height,
            block_hash: self.snapshot.block.hash,
        })?;
        Ok(QueryResponseKind::AccessKey(key.into()))
    }

    fn access_keys(
        &self,
        id: &AccountId,
        after: Option<&PublicKeyHandle>,
        limit: Option<NonZeroU32>,
    ) -> Found<QueryResponseKind> {
        self.account(id)?;
        let prefix = trie_key_parsers::get_raw_prefix_for_access_keys(id);
        let after = after.map(|key| TrieKey::access_key(id.clone(), key.clone()).to_vec());
        let most = limit.map_or(usize::MAX, |limit| limit.get() as usize);
        let mut entries = self.snapshot.state.range(&prefix, after.as_deref());
        let keys = entries
            .by_ref()
            .take(most)
            .map(|(key, value)| {
                let handle = PublicKeyHandle::try_from_slice(&key[prefix.len()..])?;
                let key = AccessKey::try_from_slice(value)?;
                Ok(AccessKeyInfoView::new(handle, key.into()))
            })
            .collect::<std::io::Result<Vec<_>>>()
            .map_err(|error| broken(Error::inconsistent(error)))?;
        let more = entries.next().is_some();
        let last_key = keys.last().filter(|_| more).map(|info| info.public_key.clone());
        Ok(QueryResponseKind::AccessKeyList(AccessKeyList { keys, last_key }))
    }

    /// Runs the method on a thread of its own, so that neither blocks nor other
    /// requests wait for it.
    async fn call(
        &self,
        node: &Node,
        account_id: AccountId,
        method: String,
        args: Vec<u8>,
    ) -> Found<QueryResponseKind> {
        let account = self.account(&account_id)?;
        let stopped = |_| broken(Error::Stopped("the call was abandoned".to_owned()));
        let permit =
            node.views.clone().acquire_owned().await.map_err(|e| broken(Error::Stopped(e.to_string())))?;
        let (reply, answer) = oneshot::channel();
        let (shared, snapshot) = (node.shared.clone(), self.snapshot.clone());
        std::thread::Builder::new()
            .name("localnet-view".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || {
                let _permit = permit;
                let block = &snapshot.block;
                let context = shared.rules.context(block.height, block.timestamp, block.random_value);
                let mut state = snapshot.state.clone();
                let result = view_call(&context, &mut state, &account_id, &account, &method, &args);
                // The client may have gone.
                let _ = reply.send(result);
            })
            .map_err(|error| broken(Error::Stopped(error.to_string())))?;
        match answer.await.map_err(stopped)? {
            Ok((result, logs)) => Ok(QueryResponseKind::CallResult(CallResult { result, logs })),
            Err(ViewFailure::Contract { text, error }) => Err(RpcQueryError::ContractExecutionError {
                vm_error: text,
                error,
                block_height: self.snapshot.block.height,
                block_hash: self.snapshot.block.hash,
            }),
            Err(ViewFailure::Chain(error)) => Err(broken(error)),
        }
    }
}

fn code_view(code: &[u8]) -> QueryResponseKind {
    let hash = CryptoHash::hash_bytes(code);
    QueryResponseKind::ViewCode(ContractCodeView { code: code.to_vec(), hash })
}
