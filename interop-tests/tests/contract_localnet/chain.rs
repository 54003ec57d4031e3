//! A local chain with the contract on it, through its RPC.

use std::collections::BTreeMap;
use std::time::Duration;

use near_crypto::{InMemorySigner, KeyType, SecretKey, Signer};
use near_jsonrpc_client::JsonRpcClient;
use near_jsonrpc_client::methods::block::RpcBlockRequest;
use near_jsonrpc_client::methods::query::RpcQueryRequest;
use near_jsonrpc_client::methods::sandbox_fast_forward::RpcSandboxFastForwardRequest;
use near_jsonrpc_client::methods::send_tx::RpcSendTransactionRequest;
use near_jsonrpc_primitives::types::query::QueryResponseKind;
use near_primitives::action::{Action, DeployContractAction, FunctionCallAction};
use near_primitives::errors::{ActionErrorKind, FunctionCallError, TxExecutionError};
use near_primitives::hash::CryptoHash;
use near_primitives::transaction::SignedTransaction;
use near_primitives::types::{AccountId as NearId, Balance, BlockId, BlockReference, Finality, Gas};
use near_primitives::views::{
    ExecutionOutcomeWithIdView, ExecutionStatusView, FinalExecutionOutcomeView, QueryRequest,
    TxExecutionStatus,
};
use por_contract_model::generate::MAX_NAMES;
use por_contract_model::host::{Executed, Host};
use por_contract_model::vm::{CONTRACT, Done, wasm};
use por_localnet::{Config, Localnet};
use por_types::interface::{NewArgs, method};
use por_types::{AccountId, Yocto};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::runtime::Runtime;

/// Time between blocks, and by which a skipped height advances the clock. States of 600 blocks can
/// be asked for: a comparison has to be done in that time.
const BLOCK_MS: u64 = 20;
/// Yocto of each account but the contract's: enough for all that the generator attaches.
const WEALTH: u128 = 10_000_000 * Yocto::ONE_NEAR.0;
const OWNER: &str = "owner.test";
const TGAS: u64 = 1_000_000_000_000;

/// What a block's views see.
#[derive(Clone, Copy)]
struct Point {
    hash: CryptoHash,
    height: u64,
    ms: u64,
}

pub struct Chain {
    runtime: Runtime,
    // Runs as long as it is held.
    _localnet: Localnet,
    rpc: JsonRpcClient,
    key: SecretKey,
    nonces: BTreeMap<NearId, u64>,
    at: Point,
    received: BTreeMap<AccountId, u128>,
}

fn near_id(name: &str) -> NearId {
    name.parse().expect("account id")
}

/// Why a call failed: what the contract said, or the chain in its place.
fn message(error: &TxExecutionError) -> String {
    match error {
        TxExecutionError::ActionError(action) => match &action.kind {
            ActionErrorKind::FunctionCallError(FunctionCallError::ExecutionError(message)) => message.clone(),
            other => panic!("the call failed in an unexpected way: {other:?}"),
        },
        other => panic!("the transaction failed: {other:?}"),
    }
}

impl Chain {
    /// The contract is deployed, not initialised.
    pub fn start() -> Chain {
        let runtime = Runtime::new().expect("a runtime starts");
        let key = SecretKey::from_seed(KeyType::ED25519, "everybody");
        let nodes = (0..MAX_NAMES).map(|index| format!("n{index}.test"));
        let names = nodes.chain([OWNER, "treasury.test"].map(str::to_owned));
        let mut genesis_accounts: Vec<_> =
            names.map(|name| (near_id(&name), key.public_key(), WEALTH)).collect();
        genesis_accounts.push((near_id(CONTRACT), key.public_key(), Yocto::near(20).0));
        let block_time = Duration::from_millis(BLOCK_MS);
        let config = Config { block_time, genesis_accounts, ..Config::default() };
        let localnet = runtime.block_on(Localnet::start(config)).expect("the chain starts");
        let rpc = JsonRpcClient::connect(localnet.rpc_url());
        let at = Point { hash: CryptoHash::default(), height: 0, ms: 0 };
        let nonces = BTreeMap::new();
        let received = BTreeMap::new();
        let mut chain = Chain { runtime, _localnet: localnet, rpc, key, nonces, at, received };
        chain.at = chain.point(BlockReference::Finality(Finality::None));
        let code = DeployContractAction { code: wasm() };
        let deployed = chain.send(&near_id(CONTRACT), code.into());
        assert!(
            deployed.receipts_outcome.iter().all(|receipt| failure(receipt).is_none()),
            "the contract is not deployed: {deployed:?}"
        );
        chain.at = chain.point(BlockReference::Finality(Finality::None));
        chain
    }

    fn point(&self, block_reference: BlockReference) -> Point {
        let request = RpcBlockRequest { block_reference };
        let block = self.runtime.block_on(self.rpc.call(request)).expect("the block");
        let header = block.header;
        Point { hash: header.hash, height: header.height, ms: header.timestamp_nanosec / 1_000_000 }
    }

    /// Signs, sends and waits until all that comes of it is final.
    fn send(&mut self, who: &NearId, action: Action) -> FinalExecutionOutcomeView {
        let nonce = self.nonces.entry(who.clone()).or_default();
        *nonce += 1;
        let signer: Signer = InMemorySigner::from_secret_key(who.clone(), self.key.clone());
        let (nonce, to, at) = (*nonce, near_id(CONTRACT), self.at.hash);
        let signed_transaction =
            SignedTransaction::from_actions(nonce, who.clone(), to, &signer, vec![action], at);
        let wait_until = TxExecutionStatus::Final;
        let request = RpcSendTransactionRequest { signed_transaction, wait_until };
        let sent = self.runtime.block_on(self.rpc.call(request)).expect("the transaction is valid");
        sent.final_execution_outcome.expect("it is final").into_outcome()
    }

    fn query(&self, block: BlockReference, request: QueryRequest) -> QueryResponseKind {
        let request = RpcQueryRequest { block_reference: block, request };
        self.runtime.block_on(self.rpc.call(request)).expect("the query is answered").kind
    }

    fn balance_at(&self, block: BlockReference, account_id: NearId) -> u128 {
        match self.query(block, QueryRequest::ViewAccount { account_id }) {
            QueryResponseKind::ViewAccount(account) => account.amount.as_yoctonear(),
            other => panic!("unexpected {other:?}"),
        }
    }

    fn here(&self) -> BlockReference {
        BlockReference::BlockId(BlockId::Height(self.at.height))
    }

    fn newest_balance(&self, account_id: &NearId) -> u128 {
        self.balance_at(BlockReference::Finality(Finality::None), account_id.clone())
    }

    fn point_of(&self, receipt: &ExecutionOutcomeWithIdView) -> Point {
        self.point(BlockReference::BlockId(BlockId::Hash(receipt.block_hash)))
    }

    /// A call, and the receipts that ran on the contract, the call itself first.
    fn call(&mut self, who: &NearId, call: FunctionCallAction) -> (FinalExecutionOutcomeView, Executed) {
        let outcome = self.send(who, call.into());
        let on_contract =
            outcome.receipts_outcome.iter().filter(|receipt| receipt.outcome.executor_id == CONTRACT);
        let on_contract: Vec<_> = on_contract.collect();
        let (Some(first), Some(last)) = (on_contract.first(), on_contract.last()) else {
            panic!("the call did not run: {outcome:?}");
        };
        let at_ms = self.point_of(first).ms;
        self.at = self.point_of(last);
        for later in &on_contract[1..] {
            assert!(failure(later).is_none(), "a callback failed: {later:?}");
        }
        let result = match failure(first) {
            Some(error) => Err(message(error)),
            None => Ok(Done {
                value: Value::Null,
                logs: first.outcome.logs.clone(),
                gas: first.outcome.gas_burnt.as_gas(),
            }),
        };
        (outcome, Executed { at_ms, result })
    }
}

fn failure(receipt: &ExecutionOutcomeWithIdView) -> Option<&TxExecutionError> {
    match &receipt.outcome.status {
        ExecutionStatusView::Failure(error) => Some(error),
        ExecutionStatusView::Unknown => panic!("a receipt has not run: {receipt:?}"),
        ExecutionStatusView::SuccessValue(_) | ExecutionStatusView::SuccessReceiptId(_) => None,
    }
}

/// All that was paid for gas.
fn burnt(outcome: &FinalExecutionOutcomeView) -> u128 {
    let all = std::iter::once(&outcome.transaction_outcome).chain(&outcome.receipts_outcome);
    all.map(|part| part.outcome.tokens_burnt.as_yoctonear()).sum()
}

impl Host for Chain {
    fn start(&mut self, args: &NewArgs) -> u128 {
        let before = self.newest_balance(&near_id(CONTRACT));
        let args = serde_json::to_vec(args).expect("arguments");
        let call = FunctionCallAction {
            method_name: method::NEW.to_owned(),
            args,
            gas: Gas::from_gas(300 * TGAS),
            deposit: Balance::ZERO,
        };
        // Not by the contract's account, which would pay for the gas.
        let (_, executed) = self.call(&near_id(OWNER), call);
        executed.result.expect("the contract is initialised");
        before
    }

    fn now_ms(&self) -> u64 {
        self.at.ms
    }

    fn wait_until(&mut self, time_ms: u64) {
        let delta_height = time_ms.saturating_sub(self.at.ms).div_ceil(BLOCK_MS);
        if delta_height > 0 {
            let request = RpcSandboxFastForwardRequest { delta_height: delta_height + 1 };
            self.runtime.block_on(self.rpc.call(request)).expect("heights are skipped");
            self.at = self.point(BlockReference::Finality(Finality::None));
        }
    }

    fn delay_ms(&self) -> u64 {
        60_000
    }

    fn execute(
        &mut self,
        who: &AccountId,
        method: &str,
        input: Vec<u8>,
        attached: Yocto,
        tgas: u64,
    ) -> Executed {
        let signer = near_id(who.as_str());
        let call = FunctionCallAction {
            method_name: method.to_owned(),
            args: input,
            gas: Gas::from_gas(tgas * TGAS),
            deposit: Balance::from_yoctonear(attached.0),
        };
        let withdraws = method == method::WITHDRAW;
        let before = if withdraws { self.newest_balance(&signer) } else { 0 };
        let (outcome, executed) = self.call(&signer, call);
        if withdraws && executed.result.is_ok() {
            let after = self.newest_balance(&signer) + burnt(&outcome);
            let gained = after.checked_sub(before).expect("a withdrawal costs nothing but its gas");
            *self.received.entry(who.clone()).or_default() += gained;
        }
        executed
    }

    fn view<T: DeserializeOwned>(&mut self, method: &str, args: &impl Serialize) -> T {
        let args = serde_json::to_vec(args).expect("arguments");
        let account_id = near_id(CONTRACT);
        let request =
            QueryRequest::CallFunction { account_id, method_name: method.to_owned(), args: args.into() };
        match self.query(self.here(), request) {
            QueryResponseKind::CallResult(answer) => {
                serde_json::from_slice(&answer.result).expect("answer of the interface")
            }
            other => panic!("unexpected {other:?}"),
        }
    }

    fn balance(&mut self) -> u128 {
        self.balance_at(self.here(), near_id(CONTRACT))
    }

    fn received(&self, who: &AccountId) -> Option<u128> {
        self.received.get(who).copied()
    }
}
