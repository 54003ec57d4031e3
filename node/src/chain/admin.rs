//! Putting the contract on a chain and governing it: single transactions, each checked by its
//! effect if its outcome gets lost.

use std::time::Duration;

use near_crypto::{PublicKey, SecretKey};
use near_jsonrpc_client::methods::send_tx::RpcSendTransactionRequest;
use near_jsonrpc_primitives::types::query::{QueryResponseKind, RpcQueryError};
use near_jsonrpc_primitives::types::transactions::{RpcTransactionError, RpcTransactionResponse};
use near_primitives::account::AccessKey as NearAccessKey;
use near_primitives::action::{
    Action, AddKeyAction, CreateAccountAction, DeleteKeyAction, DeployContractAction, TransferAction,
};
use near_primitives::hash::CryptoHash;
use near_primitives::types::{Balance, Finality};
use near_primitives::views::{AccessKeyPermissionView, QueryRequest, TxExecutionStatus};
use por_types::interface::{
    BooksView, CHECK_GAS, ChecksView, ConfigView, MigrateArgs, NewArgs, NextCode, method,
};
use por_types::{AccountId, Hash, Network, Yocto};
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::call::Call;
use super::error::ChainError;
use super::reader::Reader;
use super::rpc::{Head, Rpc, RpcFailure, RpcLimits, Skip};
use super::{CallOutcome, tx};
use crate::config::NetworkConfig;

/// Gas for the initialisation.
const INIT_GAS: u64 = 100_000_000_000_000;
/// Looks for the effect of a transaction whose outcome got lost, one second apart.
const LOOKS: u32 = 20;
/// Looks for a transfer that was just made, and the time between two.
const FUND_LOOKS: u32 = 100;
const FUND_PAUSE: Duration = Duration::from_millis(200);
/// Price of one byte of storage on NEAR.
const BYTE_PRICE: u128 = 10_000_000_000_000_000_000;
/// Storage that the contract reserves when it is initialised, and the account's own, bytes.
const RESERVED_BYTES: u128 = 92_000;
/// For the gas of deployment and initialisation.
const GAS_MONEY: Yocto = Yocto::millinear(200);

/// What the contract's account must hold before code of `code_len` bytes is deployed and
/// initialised.
pub fn deployment_cost(code_len: usize) -> Yocto {
    let storage = (code_len as u128 + RESERVED_BYTES).saturating_mul(BYTE_PRICE);
    Yocto(storage.saturating_add(GAS_MONEY.0))
}

/// An account as the chain shows it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccountInfo {
    pub balance: Yocto,
    /// SHA-256 of the code; `None` if there is none.
    pub code_hash: Option<Hash>,
    pub storage_bytes: u64,
}

/// A key of an account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct AccessKeyInfo {
    pub public_key: String,
    /// It may do everything that the account may, replacing its code included.
    pub full_access: bool,
}

/// What every version of the contract says of itself, present and future.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Governed {
    pub state_version: u32,
    pub chain_id: String,
    pub owner: AccountId,
    #[serde(default)]
    pub governance_notice_ms: u64,
    #[serde(default)]
    pub next_code: Option<NextCode>,
}

/// Acts for one account, once per call; nothing survives the process.
pub struct Admin {
    reader: Reader,
}

impl std::fmt::Debug for Admin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Admin").field("account", &self.reader.account).finish_non_exhaustive()
    }
}

impl Admin {
    /// Checks that the endpoints are on the network's chain; looks at no contract.
    ///
    /// Errors: [`ChainError::Unreachable`], [`ChainError::Foreign`].
    pub async fn connect(network: &NetworkConfig, account: AccountId) -> Result<Admin, ChainError> {
        Admin::open(&network.rpc_urls, network.network(), account).await
    }

    async fn open(urls: &[String], network: Network, account: AccountId) -> Result<Admin, ChainError> {
        let rpc = Rpc::new(urls, RpcLimits::default())?;
        rpc.check_chain_id(&network.chain_id).await?;
        Ok(Admin { reader: Reader { rpc, network, account } })
    }

    /// The final head of the chain.
    pub async fn head(&self) -> Result<Head, ChainError> {
        self.reader.rpc.head().await
    }

    /// `None` if there is no such account.
    pub async fn account(&self, account: &AccountId) -> Result<Option<AccountInfo>, ChainError> {
        let request = QueryRequest::ViewAccount { account_id: account.clone() };
        match self.query("view_account", request).await? {
            Some(QueryResponseKind::ViewAccount(view)) => Ok(Some(AccountInfo {
                balance: Yocto(view.amount.as_yoctonear()),
                code_hash: (view.code_hash != CryptoHash::default()).then_some(Hash(view.code_hash.0)),
                storage_bytes: view.storage_usage,
            })),
            Some(_) => Err(unreadable("view_account", "it is no account")),
            None => Ok(None),
        }
    }

    /// The account once it is final that it holds `need`: a transfer that was made just before may
    /// not be yet.
    ///
    /// Errors: [`ChainError::NoAccount`], [`ChainError::Funds`] after a bounded wait.
    pub async fn funded(&self, account: &AccountId, need: Yocto) -> Result<AccountInfo, ChainError> {
        let mut looks = 0;
        loop {
            let found = self.account(account).await?;
            match found {
                Some(info) if info.balance >= need => return Ok(info),
                None if looks >= FUND_LOOKS => {
                    let (account, chain_id) = (account.clone(), self.reader.network.chain_id.clone());
                    return Err(ChainError::NoAccount { account, chain_id });
                }
                Some(AccountInfo { balance: have, .. }) if looks >= FUND_LOOKS => {
                    return Err(ChainError::Funds { account: account.clone(), have, need });
                }
                _ => {}
            }
            looks += 1;
            tokio::time::sleep(FUND_PAUSE).await;
        }
    }

    /// All keys of an account; none if it does not exist.
    pub async fn access_keys(&self, account: &AccountId) -> Result<Vec<AccessKeyInfo>, ChainError> {
        let request =
            QueryRequest::ViewAccessKeyList { account_id: account.clone(), after_key: None, limit: None };
        match self.query("view_access_key_list", request).await? {
            Some(QueryResponseKind::AccessKeyList(list)) => Ok(list
                .keys
                .into_iter()
                .map(|key| AccessKeyInfo {
                    public_key: key.public_key.to_string(),
                    full_access: matches!(
                        key.access_key.permission,
                        AccessKeyPermissionView::FullAccess
                            | AccessKeyPermissionView::GasKeyFullAccess { .. }
                    ),
                })
                .collect()),
            Some(_) => Err(unreadable("view_access_key_list", "it is no list of keys")),
            None => Ok(Vec::new()),
        }
    }

    async fn query(
        &self,
        method: &str,
        request: QueryRequest,
    ) -> Result<Option<QueryResponseKind>, ChainError> {
        match self.reader.query(request, Finality::Final).await {
            Ok(response) => Ok(Some(response.kind)),
            Err(RpcFailure::Handler { error: RpcQueryError::UnknownAccount { .. }, .. }) => Ok(None),
            Err(RpcFailure::Handler { error, .. }) => Err(unreadable(method, &error.to_string())),
            Err(RpcFailure::Nobody(error)) => Err(error),
        }
    }

    /// What a contract of any version says of itself.
    pub async fn governed(&self) -> Result<Governed, ChainError> {
        self.reader.view(method::CONFIG, &json!({})).await
    }

    /// As [`super::Chain::config`].
    pub async fn config(&self) -> Result<ConfigView, ChainError> {
        self.reader.config().await
    }

    pub async fn books(&self) -> Result<BooksView, ChainError> {
        self.reader.view(method::BOOKS, &json!({})).await
    }

    pub async fn checks(&self) -> Result<ChecksView, ChainError> {
        self.reader.view(method::CHECKS, &json!({})).await
    }

    /// Deploys code to the own account and leaves its state alone.
    pub async fn deploy(&self, key: &SecretKey, code: &[u8]) -> Result<CallOutcome, ChainError> {
        let actions = vec![Action::DeployContract(DeployContractAction { code: code.to_vec() })];
        self.send_code(key, "deploy", actions, code).await
    }

    /// Deploys code to the own account and has it take over the present state, in one transaction.
    pub async fn replace(&self, key: &SecretKey, code: &[u8]) -> Result<CallOutcome, ChainError> {
        let args = json_of(&MigrateArgs::default())?;
        let actions = vec![
            Action::DeployContract(DeployContractAction { code: code.to_vec() }),
            tx::function_call(method::MIGRATE, args, CHECK_GAS, Yocto::ZERO),
        ];
        self.send_code(key, method::MIGRATE, actions, code).await
    }

    async fn send_code(
        &self,
        key: &SecretKey,
        what: &str,
        actions: Vec<Action>,
        code: &[u8],
    ) -> Result<CallOutcome, ChainError> {
        let account = self.reader.account.clone();
        let sent = self.send(key, &account, what, actions).await;
        self.settle(sent, async || self.has_code(&account, code).await).await
    }

    async fn has_code(&self, account: &AccountId, code: &[u8]) -> Result<bool, ChainError> {
        let hash = Hash(por_types::sha256(code));
        Ok(self.account(account).await?.is_some_and(|account| account.code_hash == Some(hash)))
    }

    /// Initialises the contract of the own account; with `code`, deploys that first, in the same
    /// transaction: the account ends up with the whole contract or with none.
    pub async fn init(
        &self,
        key: &SecretKey,
        code: Option<&[u8]>,
        args: &NewArgs,
    ) -> Result<CallOutcome, ChainError> {
        let deploy = code.map(|code| Action::DeployContract(DeployContractAction { code: code.to_vec() }));
        let new = tx::function_call(method::NEW, json_of(args)?, INIT_GAS, Yocto::ZERO);
        let actions = deploy.into_iter().chain([new]).collect();
        let account = self.reader.account.clone();
        let sent = self.send(key, &account, method::NEW, actions).await;
        let there = async || {
            let found = self.governed().await;
            Ok(found.is_ok_and(|found| found.chain_id == args.chain_id && found.owner == args.owner))
        };
        self.settle(sent, there).await
    }

    /// Transfers `amount` to `account`, which is created with `new_key` if one is given.
    pub async fn fund(
        &self,
        key: &SecretKey,
        account: &AccountId,
        new_key: Option<&PublicKey>,
        amount: Yocto,
    ) -> Result<CallOutcome, ChainError> {
        let transfer = Action::Transfer(TransferAction { deposit: Balance::from_yoctonear(amount.0) });
        let actions = match new_key {
            None => vec![transfer],
            Some(public_key) => vec![
                Action::CreateAccount(CreateAccountAction {}),
                transfer,
                Action::AddKey(Box::new(AddKeyAction {
                    public_key: public_key.clone(),
                    access_key: NearAccessKey::full_access(),
                })),
            ],
        };
        self.send(key, account, "transfer", actions).await
    }

    /// Deletes keys of the own account.
    pub async fn delete_keys(
        &self,
        key: &SecretKey,
        keys: Vec<PublicKey>,
    ) -> Result<CallOutcome, ChainError> {
        let delete = |public_key| Action::DeleteKey(Box::new(DeleteKeyAction { public_key }));
        let gone: Vec<String> = keys.iter().map(ToString::to_string).collect();
        let account = self.reader.account.clone();
        let sent = self.send(key, &account, "delete_key", keys.into_iter().map(delete).collect()).await;
        let there = async || {
            let left = self.access_keys(&account).await?;
            Ok(!left.iter().any(|key| gone.contains(&key.public_key)))
        };
        self.settle(sent, there).await
    }

    /// Makes a call of the contract; `there` tells whether it has had its effect.
    pub async fn call(
        &self,
        key: &SecretKey,
        call: &Call,
        there: impl AsyncFn() -> Result<bool, ChainError>,
    ) -> Result<CallOutcome, ChainError> {
        let contract = self.reader.network.contract.clone();
        let sent = self.send(key, &contract, call.method(), vec![tx::action(call)?]).await;
        self.settle(sent, there).await
    }

    /// Uploads code that was announced; the contract deploys it and takes over its own state.
    pub async fn upload(&self, key: &SecretKey, code: &[u8]) -> Result<CallOutcome, ChainError> {
        let contract = self.reader.network.contract.clone();
        let action = tx::function_call(method::UPGRADE, code.to_vec(), CHECK_GAS, Yocto::ZERO);
        let sent = self.send(key, &contract, method::UPGRADE, vec![action]).await;
        self.settle(sent, async || self.has_code(&contract, code).await).await
    }

    async fn send(
        &self,
        key: &SecretKey,
        receiver: &AccountId,
        what: &str,
        actions: Vec<Action>,
    ) -> Result<CallOutcome, ChainError> {
        let reader = &self.reader;
        let (head, used, _) = reader.nonce(key).await?;
        let nonce = used.saturating_add(1);
        let signed_transaction = tx::sign_actions(key, &reader.account, receiver, nonce, head.hash, actions);
        let request = RpcSendTransactionRequest { signed_transaction, wait_until: TxExecutionStatus::Final };
        let transient =
            |error: &RpcTransactionError| !matches!(error, RpcTransactionError::InvalidTransaction { .. });
        let accept = |response: RpcTransactionResponse| match response.final_execution_outcome {
            Some(outcome) if response.final_execution_status == TxExecutionStatus::Final => {
                Ok(outcome.into_outcome())
            }
            _ => Err(Skip::Old("the outcome is not final yet".to_owned())),
        };
        let timeout = reader.rpc.limits().transaction_timeout;
        match reader.rpc.ask(&request, timeout, transient, accept).await {
            Ok(view) => tx::outcome(what, &view),
            Err(RpcFailure::Handler {
                error: RpcTransactionError::InvalidTransaction { context },
                tries,
            }) => {
                let error = reader.rejected(&context, key);
                // An earlier try may have been taken: then its nonce is used.
                let lost = tries > 1 && matches!(error, ChainError::Rejected { .. });
                Err(if lost { undecided(what) } else { error })
            }
            Err(RpcFailure::Handler { .. } | RpcFailure::Nobody(ChainError::Lagging { .. })) => {
                Err(undecided(what))
            }
            Err(RpcFailure::Nobody(error)) => Err(error),
        }
    }

    /// Looks for the effect where the outcome is not known.
    async fn settle(
        &self,
        sent: Result<CallOutcome, ChainError>,
        there: impl AsyncFn() -> Result<bool, ChainError>,
    ) -> Result<CallOutcome, ChainError> {
        let Err(error @ (ChainError::Undecided { .. } | ChainError::Unreachable { .. })) = sent else {
            return sent;
        };
        for _ in 0..LOOKS {
            if there().await? {
                return Ok(CallOutcome { transaction: None, value: serde_json::Value::Null });
            }
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        Err(error)
    }
}

/// Deploys `code` to `contract`, whose full access key is `key`, and initialises it, in one
/// transaction: the account ends up with the whole contract or with none.
///
/// Errors: as [`super::Chain::call`].
pub async fn deploy(
    rpc_urls: &[String],
    contract: &AccountId,
    key: &SecretKey,
    code: &[u8],
    args: &NewArgs,
) -> Result<(), ChainError> {
    let network = Network { chain_id: args.chain_id.clone(), contract: contract.clone() };
    let admin = Admin::open(rpc_urls, network, contract.clone()).await?;
    admin.init(key, Some(code), args).await.map(drop)
}

fn json_of<T: Serialize>(args: &T) -> Result<Vec<u8>, ChainError> {
    serde_json::to_vec(args).map_err(|error| ChainError::Rejected { reason: error.to_string() })
}

fn undecided(what: &str) -> ChainError {
    ChainError::Undecided { method: what.to_owned(), transaction: None }
}

fn unreadable(method: &str, reason: &str) -> ChainError {
    ChainError::Answer { method: method.to_owned(), reason: reason.to_owned() }
}
