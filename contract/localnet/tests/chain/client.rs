//! A small client of the chain under test.

use std::sync::atomic::{AtomicU64, Ordering};

use near_crypto::{InMemorySigner, KeyType, PublicKey, SecretKey, Signer};
use near_jsonrpc_client::errors::JsonRpcError;
use near_jsonrpc_client::methods::{self, query, send_tx, tx};
use near_jsonrpc_client::{JsonRpcClient, MethodCallResult};
use near_jsonrpc_primitives::types::query::{QueryResponseKind, RpcQueryError};
use near_jsonrpc_primitives::types::transactions::{RpcTransactionError, RpcTransactionResponse};
use near_primitives::account::{AccessKey, Account, AccountContract};
use near_primitives::action::{
    Action, AddKeyAction, CreateAccountAction, DeployContractAction, FunctionCallAction, TransferAction,
};
use near_primitives::errors::{InvalidTxError, TxExecutionError};
use near_primitives::hash::CryptoHash;
use near_primitives::transaction::SignedTransaction;
use near_primitives::types::{AccountId, Balance, BlockReference, Finality, Gas};
use near_primitives::views::{
    AccountView, FinalExecutionOutcomeView, FinalExecutionStatus, QueryRequest, TxExecutionStatus,
};
use por_localnet::{Config, Localnet};
use serde_json::{Value, json};

pub const TGAS: u64 = 1_000_000_000_000;
/// The price of gas on the chain, and the least at which it is bought, in yocto.
pub const GAS_PRICE: u128 = 100_000_000;

pub fn near(amount: u128) -> Balance {
    Balance::from_near(amount)
}

pub fn id(name: &str) -> AccountId {
    name.parse().expect("a valid account id")
}

/// An account that signs, with its own count of nonces.
pub struct User {
    pub id: AccountId,
    pub key: SecretKey,
    nonce: AtomicU64,
}

pub struct Chain {
    pub localnet: Localnet,
    pub rpc: JsonRpcClient,
    names: AtomicU64,
}

impl Chain {
    pub async fn start() -> Self {
        Self::with(Config::default()).await
    }

    pub async fn with(config: Config) -> Self {
        let localnet = Localnet::start(config).await.expect("the chain starts");
        let rpc = JsonRpcClient::connect(localnet.rpc_url());
        Self { localnet, rpc, names: AtomicU64::new(0) }
    }

    /// A call of a method that the client library does not have.
    pub async fn raw(&self, method: &str, params: Value) -> Value {
        let body = json!({ "jsonrpc": "2.0", "id": "test", "method": method, "params": params });
        let answer = reqwest::Client::new()
            .post(self.localnet.rpc_url())
            .json(&body)
            .send()
            .await
            .expect("the node answers");
        answer.json().await.expect("the answer is JSON")
    }

    /// A new account with 100 NEAR from the faucet.
    pub async fn user(&self) -> User {
        let nth = self.names.fetch_add(1, Ordering::Relaxed);
        self.user_called(&format!("user{nth}.near")).await
    }

    pub async fn user_called(&self, name: &str) -> User {
        let key = SecretKey::from_seed(KeyType::ED25519, name);
        let answer = self.faucet(&id(name), &key.public_key(), near(100)).await;
        assert_eq!(answer["result"]["created"], true, "{answer}");
        self.sign_in(id(name), key).await
    }

    pub async fn faucet(&self, id: &AccountId, key: &PublicKey, amount: Balance) -> Value {
        let params = json!({ "account_id": id, "public_key": key, "amount": amount });
        self.raw("localnet_faucet", params).await
    }

    pub async fn sign_in(&self, id: AccountId, key: SecretKey) -> User {
        let nonce = self.nonce(&id, &key.public_key()).await;
        User { id, key, nonce: AtomicU64::new(nonce) }
    }

    pub async fn nonce(&self, id: &AccountId, key: &PublicKey) -> u64 {
        let request = QueryRequest::ViewAccessKey { account_id: id.clone(), public_key: key.clone() };
        match self.query(request).await.expect("the key exists").kind {
            QueryResponseKind::AccessKey(key) => key.nonce,
            other => panic!("unexpected {other:?}"),
        }
    }

    pub async fn query(
        &self,
        request: QueryRequest,
    ) -> MethodCallResult<query::RpcQueryResponse, RpcQueryError> {
        let block_reference = BlockReference::Finality(Finality::None);
        self.rpc.call(query::RpcQueryRequest { block_reference, request }).await
    }

    pub async fn account(&self, id: &AccountId) -> AccountView {
        self.find_account(id).await.expect("the account exists")
    }

    pub async fn find_account(&self, id: &AccountId) -> Option<AccountView> {
        match self.query(QueryRequest::ViewAccount { account_id: id.clone() }).await {
            Ok(response) => match response.kind {
                QueryResponseKind::ViewAccount(account) => Some(account),
                other => panic!("unexpected {other:?}"),
            },
            Err(error) => match error.handler_error() {
                Some(RpcQueryError::UnknownAccount { .. }) => None,
                _ => panic!("unexpected {error:?}"),
            },
        }
    }

    pub async fn balance(&self, id: &AccountId) -> u128 {
        self.account(id).await.amount.as_yoctonear()
    }

    pub async fn view(&self, contract: &AccountId, method: &str, args: &[u8]) -> Result<Vec<u8>, String> {
        let request = QueryRequest::CallFunction {
            account_id: contract.clone(),
            method_name: method.to_owned(),
            args: args.to_vec().into(),
        };
        match self.query(request).await {
            Ok(response) => match response.kind {
                QueryResponseKind::CallResult(result) => Ok(result.result),
                other => panic!("unexpected {other:?}"),
            },
            Err(error) => match error.handler_error() {
                Some(RpcQueryError::ContractExecutionError { vm_error, .. }) => Err(vm_error.clone()),
                Some(other) => Err(other.to_string()),
                None => panic!("unexpected {error:?}"),
            },
        }
    }

    pub async fn head(&self) -> (u64, CryptoHash) {
        let block_reference = BlockReference::Finality(Finality::None);
        let block = self
            .rpc
            .call(methods::block::RpcBlockRequest { block_reference })
            .await
            .expect("there is a head");
        (block.header.height, block.header.hash)
    }

    pub async fn sign(&self, user: &User, to: &AccountId, actions: Vec<Action>) -> SignedTransaction {
        let nonce = user.nonce.fetch_add(1, Ordering::Relaxed) + 1;
        self.sign_with(user, nonce, to, actions).await
    }

    pub async fn sign_with(
        &self,
        user: &User,
        nonce: u64,
        to: &AccountId,
        actions: Vec<Action>,
    ) -> SignedTransaction {
        let (_, block_hash) = self.head().await;
        signed(user, nonce, to, actions, block_hash)
    }

    /// Sends a transaction and waits until all of it is final.
    pub async fn send(
        &self,
        transaction: SignedTransaction,
    ) -> MethodCallResult<RpcTransactionResponse, RpcTransactionError> {
        let wait_until = TxExecutionStatus::Final;
        let request = send_tx::RpcSendTransactionRequest { signed_transaction: transaction, wait_until };
        self.rpc.call(request).await
    }

    /// Sends actions and waits until all that comes of them is final.
    pub async fn act(&self, user: &User, to: &AccountId, actions: Vec<Action>) -> FinalExecutionOutcomeView {
        let transaction = self.sign(user, to, actions).await;
        outcome(self.send(transaction).await.expect("the transaction is valid"))
    }

    /// Sends actions that must be refused, and returns why.
    pub async fn refused(&self, user: &User, to: &AccountId, actions: Vec<Action>) -> InvalidTxError {
        let transaction = self.sign(user, to, actions).await;
        invalid(self.send(transaction).await.expect_err("the transaction is invalid"))
    }

    /// A contract account that runs the code.
    pub async fn deploy(&self, name: &str, code: Vec<u8>) -> User {
        let user = self.user_called(name).await;
        let deploy = DeployContractAction { code };
        succeeded(&self.act(&user, &user.id, vec![deploy.into()]).await);
        user
    }

    pub async fn tx_status(
        &self,
        hash: CryptoHash,
        sender: &AccountId,
        wait_until: TxExecutionStatus,
    ) -> MethodCallResult<RpcTransactionResponse, RpcTransactionError> {
        let transaction_info =
            tx::TransactionInfo::TransactionId { tx_hash: hash, sender_account_id: sender.clone() };
        self.rpc.call(tx::RpcTransactionStatusRequest { transaction_info, wait_until }).await
    }
}

pub fn signed(
    user: &User,
    nonce: u64,
    to: &AccountId,
    actions: Vec<Action>,
    block_hash: CryptoHash,
) -> SignedTransaction {
    let signer: Signer = InMemorySigner::from_secret_key(user.id.clone(), user.key.clone());
    SignedTransaction::from_actions(nonce, user.id.clone(), to.clone(), &signer, actions, block_hash)
}

pub fn invalid(error: JsonRpcError<RpcTransactionError>) -> InvalidTxError {
    match error.handler_error() {
        Some(RpcTransactionError::InvalidTransaction { context }) => context.clone(),
        _ => panic!("unexpected {error:?}"),
    }
}

pub fn outcome(response: RpcTransactionResponse) -> FinalExecutionOutcomeView {
    response.final_execution_outcome.expect("it has run").into_outcome()
}

/// The value a transaction returned.
pub fn succeeded(outcome: &FinalExecutionOutcomeView) -> Vec<u8> {
    match &outcome.status {
        FinalExecutionStatus::SuccessValue(value) => value.clone(),
        other => panic!("unexpected {other:?}"),
    }
}

/// Why a transaction failed.
pub fn failed(outcome: &FinalExecutionOutcomeView) -> near_primitives::errors::ActionErrorKind {
    match &outcome.status {
        FinalExecutionStatus::Failure(TxExecutionError::ActionError(error)) => error.kind.clone(),
        other => panic!("unexpected {other:?}"),
    }
}

pub fn transfer(amount: Balance) -> Action {
    TransferAction { deposit: amount }.into()
}

pub fn create() -> Action {
    CreateAccountAction {}.into()
}

pub fn full_key(key: &PublicKey) -> Action {
    add_key(key, AccessKey::full_access())
}

pub fn add_key(key: &PublicKey, access_key: AccessKey) -> Action {
    AddKeyAction { public_key: key.clone(), access_key }.into()
}

pub fn call(method: &str, args: &[u8], tgas: u64, deposit: Balance) -> Action {
    FunctionCallAction {
        method_name: method.to_owned(),
        args: args.to_vec(),
        gas: Gas::from_gas(tgas * TGAS),
        deposit,
    }
    .into()
}

/// All tokens burnt by a transaction and what came of it.
pub fn burnt(outcome: &FinalExecutionOutcomeView) -> u128 {
    let all = std::iter::once(&outcome.transaction_outcome).chain(&outcome.receipts_outcome);
    all.map(|o| o.outcome.tokens_burnt.as_yoctonear()).sum()
}

/// An account record for a patch.
pub fn plain_account(amount: Balance) -> Account {
    Account::new(amount, Balance::ZERO, AccountContract::None, 182)
}

impl User {
    /// A signer with a key that the account may not have.
    pub fn pretend(id: &AccountId, key: SecretKey) -> Self {
        Self { id: id.clone(), key, nonce: AtomicU64::new(1) }
    }
}

impl Chain {
    pub async fn fast_forward(&self, delta_height: u64) {
        let request = methods::sandbox_fast_forward::RpcSandboxFastForwardRequest { delta_height };
        self.rpc.call(request).await.expect("heights are skipped");
    }

    pub async fn keys(&self, id: &AccountId) -> Vec<near_primitives::views::AccessKeyInfoView> {
        let request =
            QueryRequest::ViewAccessKeyList { account_id: id.clone(), after_key: None, limit: None };
        match self.query(request).await.expect("the account exists").kind {
            QueryResponseKind::AccessKeyList(list) => list.keys,
            other => panic!("unexpected {other:?}"),
        }
    }

    pub async fn allowance(&self, id: &AccountId, key: &PublicKey) -> Option<u128> {
        use near_primitives::views::AccessKeyPermissionView as Permission;
        let handle = key.into();
        let keys = self.keys(id).await;
        let info = keys.into_iter().find(|info| info.public_key == handle);
        match info.expect("the key exists").access_key.permission {
            Permission::FunctionCall { allowance, .. } => allowance.map(|a| a.as_yoctonear()),
            other => panic!("unexpected {other:?}"),
        }
    }
}
