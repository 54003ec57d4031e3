//! Contracts: calls, promises, gas, storage and failures.

use near_jsonrpc_client::methods;
use near_primitives::errors::{
    ActionErrorKind, ActionsValidationError, CompilationError, FunctionCallError, InvalidTxError,
    MethodResolveError,
};
use near_primitives::hash::CryptoHash;
use near_primitives::types::{AccountId, Balance, BlockId, BlockReference};
use near_primitives::utils::{create_receipt_id_from_receipt_id, create_receipt_id_from_transaction};
use near_primitives::views::{FinalExecutionOutcomeView, TxExecutionStatus};

use crate::client::*;

/// The wasm of the contract beside this file.
pub fn counter() -> Vec<u8> {
    wat::parse_str(include_str!("contract.wat")).expect("the contract is valid text")
}

const FREE: Balance = Balance::ZERO;

fn execution_error(outcome: &FinalExecutionOutcomeView) -> String {
    match failed(outcome) {
        ActionErrorKind::FunctionCallError(FunctionCallError::ExecutionError(text)) => text,
        other => panic!("unexpected {other:?}"),
    }
}

fn number(bytes: &[u8]) -> u64 {
    u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
}

async fn count(chain: &Chain, contract: &AccountId) -> u8 {
    chain.view(contract, "get", b"").await.expect("the contract counts")[0]
}

#[tokio::test]
async fn a_call_changes_the_state_and_logs() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    assert_eq!(count(&chain, &contract.id).await, 0);
    let storage = chain.account(&contract.id).await.storage_usage;
    let outcome = chain.act(&alice, &contract.id, vec![call("add", b"", 30, near(2))]).await;
    succeeded(&outcome);
    assert_eq!(outcome.receipts_outcome[0].outcome.logs, ["add"]);
    assert_eq!(count(&chain, &contract.id).await, 1);
    let account = chain.account(&contract.id).await;
    // The record takes 40 bytes, its key 7, its value 1.
    assert_eq!(account.storage_usage, storage + 48);
    assert_eq!(chain.balance(&alice.id).await, near(98).as_yoctonear() - burnt(&outcome));
    let used = chain.view(&contract.id, "usage", b"").await.expect("a view");
    assert_eq!(number(&used), account.storage_usage);
}

#[tokio::test]
async fn unused_gas_is_returned_and_gas_burnt_at_the_chains_price() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let outcome = chain.act(&alice, &contract.id, vec![call("add", b"", 300, FREE)]).await;
    let all = std::iter::once(&outcome.transaction_outcome).chain(&outcome.receipts_outcome);
    let gas: u128 = all.map(|o| u128::from(o.outcome.gas_burnt.as_gas())).sum();
    assert_eq!(burnt(&outcome), gas * GAS_PRICE);
    assert_eq!(chain.balance(&alice.id).await, near(100).as_yoctonear() - burnt(&outcome));
    // A small call costs between one and five Tgas.
    assert!((u128::from(TGAS)..5 * u128::from(TGAS)).contains(&gas), "{gas}");
}

#[tokio::test]
async fn a_failing_contract_changes_nothing_and_returns_the_deposit() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let before = chain.balance(&contract.id).await;
    let outcome = chain.act(&alice, &contract.id, vec![call("fail", b"", 30, near(5))]).await;
    assert_eq!(execution_error(&outcome), "Smart contract panicked: failed on purpose");
    assert_eq!(count(&chain, &contract.id).await, 0);
    assert_eq!(chain.balance(&contract.id).await, before);
    assert_eq!(chain.balance(&alice.id).await, near(100).as_yoctonear() - burnt(&outcome));
}

#[tokio::test]
async fn a_batch_fails_as_a_whole() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let actions = vec![transfer(near(1)), call("add", b"", 30, FREE), call("fail", b"", 30, FREE)];
    let outcome = chain.act(&alice, &contract.id, actions).await;
    execution_error(&outcome);
    assert_eq!(count(&chain, &contract.id).await, 0);
    assert_eq!(chain.balance(&alice.id).await, near(100).as_yoctonear() - burnt(&outcome));
}

#[tokio::test]
async fn a_call_stops_when_its_gas_is_used_up() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let outcome = chain.act(&alice, &contract.id, vec![call("spin", b"", 10, FREE)]).await;
    assert_eq!(execution_error(&outcome), "Exceeded the prepaid gas.");
    let gas = outcome.receipts_outcome[0].outcome.gas_burnt.as_gas();
    assert!((10 * TGAS..12 * TGAS).contains(&gas), "{gas}");
    let error = chain.view(&contract.id, "spin", b"").await.expect_err("a view has a limit too");
    assert!(error.contains("GasLimitExceeded") || error.contains("GasExceeded"), "{error}");
}

#[tokio::test]
async fn missing_methods_and_contracts_are_reported() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let outcome = chain.act(&alice, &contract.id, vec![call("nothing", b"", 30, FREE)]).await;
    let error = FunctionCallError::MethodResolveError(MethodResolveError::MethodNotFound);
    assert_eq!(failed(&outcome), ActionErrorKind::FunctionCallError(error));
    let outcome = chain.act(&alice, &alice.id, vec![call("get", b"", 30, FREE)]).await;
    let error = CompilationError::CodeDoesNotExist { account_id: alice.id.clone() };
    let error = FunctionCallError::CompilationError(error);
    assert_eq!(failed(&outcome), ActionErrorKind::FunctionCallError(error));

    let error = chain.view(&contract.id, "nothing", b"").await.expect_err("no method");
    assert!(error.contains("MethodResolveError(MethodNotFound)"), "{error}");
    let error = chain.view(&alice.id, "get", b"").await.expect_err("no contract");
    assert!(error.contains("CodeDoesNotExist"), "{error}");
    let error = chain.view(&id("missing.near"), "get", b"").await.expect_err("no account");
    assert!(error.contains("does not exist"), "{error}");
    let error = chain.view(&contract.id, "add", b"").await.expect_err("views change nothing");
    assert!(error.contains("ProhibitedInView"), "{error}");
}

#[tokio::test]
async fn code_that_is_not_wasm_fails_when_called() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", b"not wasm".to_vec()).await;
    let outcome = chain.act(&contract, &contract.id, vec![call("get", b"", 30, FREE)]).await;
    let error = failed(&outcome);
    assert!(
        matches!(error, ActionErrorKind::FunctionCallError(FunctionCallError::CompilationError(_))),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_callback_learns_what_became_of_its_promise() {
    let chain = Chain::start().await;
    let first = chain.deploy("first.near", counter()).await;
    let second = chain.deploy("second.near", counter()).await;
    let alice = chain.user().await;
    let target = second.id.as_bytes();
    let outcome = chain.act(&alice, &first.id, vec![call("relay", target, 100, FREE)]).await;
    assert_eq!(succeeded(&outcome), b"yes");
    assert_eq!(count(&chain, &second.id).await, 1);
    assert_eq!(count(&chain, &first.id).await, 1);
    assert_eq!(chain.balance(&alice.id).await, near(100).as_yoctonear() - burnt(&outcome));

    let (first_before, second_before) = (chain.balance(&first.id).await, chain.balance(&second.id).await);
    let outcome = chain.act(&alice, &first.id, vec![call("relay_fail", target, 100, FREE)]).await;
    assert_eq!(succeeded(&outcome), b"no");
    assert_eq!(count(&chain, &second.id).await, 1);
    assert_eq!(count(&chain, &first.id).await, 2);
    // The NEAR that went along came back.
    assert_eq!(chain.balance(&first.id).await, first_before);
    assert_eq!(chain.balance(&second.id).await, second_before);

    let gone = b"missing.near";
    let outcome = chain.act(&alice, &first.id, vec![call("relay", gone, 100, FREE)]).await;
    assert_eq!(succeeded(&outcome), b"no");
}

#[tokio::test]
async fn promises_can_follow_each_other_deep_down() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let outcome = chain.act(&alice, &contract.id, vec![call("deep", &[40], 1_000, FREE)]).await;
    assert_eq!(succeeded(&outcome), b"yes");
    let calls = outcome.receipts_outcome.iter().filter(|o| o.outcome.executor_id == contract.id);
    assert_eq!(calls.count(), 41);
    assert_eq!(chain.balance(&alice.id).await, near(100).as_yoctonear() - burnt(&outcome));
}

#[tokio::test]
async fn gas_that_is_left_goes_to_weighted_calls() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let outcome = chain.act(&alice, &contract.id, vec![call("share", b"", 100, FREE)]).await;
    let given = number(&succeeded(&outcome));
    // Three quarters of what two receipts leave of 100 Tgas.
    assert!((65 * TGAS..75 * TGAS).contains(&given), "{given}");
    assert_eq!(chain.balance(&alice.id).await, near(100).as_yoctonear() - burnt(&outcome));
}

#[tokio::test]
async fn storage_must_be_paid_for() {
    let chain = Chain::start().await;
    // 100 NEAR pay for 10 MB; this one has just enough for its code.
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let (balance, usage) = {
        let account = chain.account(&contract.id).await;
        (account.amount.as_yoctonear(), u128::from(account.storage_usage))
    };
    let spare = balance - usage * 10u128.pow(19) - near(1).as_yoctonear() / 2;
    let spend = vec![transfer(Balance::from_yoctonear(spare))];
    succeeded(&chain.act(&contract, &alice.id, spend).await);

    let outcome = chain.act(&alice, &contract.id, vec![call("hoard", b"a", 100, FREE)]).await;
    let error = failed(&outcome);
    assert!(matches!(error, ActionErrorKind::LackBalanceForState { .. }), "{error:?}");
    assert_eq!(number(&chain.view(&contract.id, "usage", b"").await.expect("a view")), usage as u64);
    let outcome = chain.act(&alice, &contract.id, vec![call("hoard", b"a", 100, near(1))]).await;
    succeeded(&outcome);
}

#[tokio::test]
async fn a_contract_pays_out() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let before = chain.balance(&contract.id).await;
    let actions = vec![call("pay", alice.id.as_bytes(), 30, FREE)];
    let outcome = chain.act(&alice, &contract.id, actions).await;
    succeeded(&outcome);
    assert_eq!(chain.balance(&contract.id).await, before - near(1).as_yoctonear());
    assert_eq!(chain.balance(&alice.id).await, near(101).as_yoctonear() - burnt(&outcome));
    // To an account that does not exist: the NEAR comes back to the contract.
    let actions = vec![call("pay", b"missing.near", 30, FREE)];
    chain.act(&alice, &contract.id, actions).await;
    assert_eq!(chain.balance(&contract.id).await, before - near(1).as_yoctonear());
}

#[tokio::test]
async fn a_yielded_promise_waits_for_its_data_or_its_end() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let wait = async || {
        let transaction = chain.sign(&alice, &contract.id, vec![call("wait", b"", 100, FREE)]).await;
        let hash = transaction.get_hash();
        let request = near_jsonrpc_client::methods::send_tx::RpcSendTransactionRequest {
            signed_transaction: transaction,
            wait_until: TxExecutionStatus::IncludedFinal,
        };
        chain.rpc.call(request).await.expect("the transaction is valid");
        hash
    };
    let done = async |hash| {
        let status = chain.tx_status(hash, &alice.id, TxExecutionStatus::Final).await;
        succeeded(&outcome(status.expect("it ran")))
    };

    let hash = wait().await;
    let resume = async || {
        let resumed = chain.act(&alice, &contract.id, vec![call("resume", b"", 100, FREE)]).await;
        succeeded(&resumed)
    };
    assert_eq!(resume().await, [1]);
    assert_eq!(done(hash).await, b"yes");
    // It can be resumed only once.
    assert_eq!(resume().await, [0]);

    let hash = wait().await;
    chain.fast_forward(201).await;
    assert_eq!(done(hash).await, b"no");
    assert_eq!(resume().await, [0]);
}

#[tokio::test]
async fn every_call_has_its_own_random_seed() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let mut seeds = std::collections::HashSet::new();
    for _ in 0..3 {
        let outcome = chain.act(&alice, &contract.id, vec![call("random", b"", 30, FREE)]).await;
        seeds.insert(succeeded(&outcome));
    }
    assert_eq!(seeds.len(), 3);
}

#[tokio::test]
async fn accounts_can_share_a_global_contract() {
    use near_primitives::action::{
        DeployGlobalContractAction, GlobalContractDeployMode, GlobalContractIdentifier,
        UseGlobalContractAction,
    };
    let chain = Chain::start().await;
    let (alice, bob) = (chain.user().await, chain.user().await);
    let code = counter();
    let price = code.len() as u128 * 10u128.pow(20);
    let use_it = |id: GlobalContractIdentifier| {
        let action = UseGlobalContractAction { contract_identifier: id };
        near_primitives::action::Action::UseGlobalContract(Box::new(action))
    };
    let shared = GlobalContractIdentifier::AccountId(alice.id.clone());
    let missing = failed(&chain.act(&bob, &bob.id, vec![use_it(shared.clone())]).await);
    assert!(matches!(missing, ActionErrorKind::GlobalContractDoesNotExist { .. }), "{missing:?}");
    let deploy =
        DeployGlobalContractAction { code: code.into(), deploy_mode: GlobalContractDeployMode::AccountId };
    let before = chain.balance(&alice.id).await;
    let outcome = chain.act(&alice, &alice.id, vec![deploy.into()]).await;
    succeeded(&outcome);
    assert_eq!(chain.balance(&alice.id).await, before - burnt(&outcome));
    assert!(burnt(&outcome) > price);
    succeeded(&chain.act(&bob, &bob.id, vec![use_it(shared)]).await);
    succeeded(&chain.act(&alice, &bob.id, vec![call("add", b"", 30, FREE)]).await);
    assert_eq!(count(&chain, &bob.id).await, 1);
}

/// A contract with 62 values of 64 KiB, 4,063,232 bytes together.
async fn hoard(chain: &Chain) -> (User, AccountId) {
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    for key in 0..62 {
        succeeded(&chain.act(&alice, &contract.id, vec![call("hoard", &[key], 50, FREE)]).await);
    }
    (alice, contract.id)
}

#[tokio::test]
async fn a_receipt_may_touch_four_megabytes_of_state() {
    let chain = Chain::start().await;
    let (alice, contract) = hoard(&chain).await;
    let survey = |keys: u8| call("survey", &[keys], 400, FREE);
    succeeded(&chain.act(&alice, &contract, vec![survey(60)]).await);
    // What was touched once is not counted again.
    succeeded(&chain.act(&alice, &contract, vec![survey(60), survey(60)]).await);
    let error = execution_error(&chain.act(&alice, &contract, vec![survey(62)]).await);
    assert!(error.contains("storage proof"), "{error}");
    // Two calls of one receipt count together, and so do the values that writes replace.
    let writes: Vec<_> = (60..62).map(|key| call("hoard", &[key], 50, FREE)).collect();
    let both = [vec![survey(60)], writes.clone()].concat();
    let error = execution_error(&chain.act(&alice, &contract, both).await);
    assert!(error.contains("storage proof"), "{error}");
    succeeded(&chain.act(&alice, &contract, writes).await);
    // A query proves nothing to anybody.
    chain.view(&contract, "survey", &[62]).await.expect("queries have no such limit");
}

#[tokio::test]
async fn what_a_receipt_wrote_itself_needs_no_proof() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let outcome = chain.act(&alice, &contract.id, vec![call("rewrite", &[62], 900, FREE)]).await;
    succeeded(&outcome);
}

#[tokio::test]
async fn removals_count_two_thousand_bytes_each() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let scrub = |times: u16| call("scrub", &times.to_le_bytes(), 900, FREE);
    // The nodes on the way to the key leave room for almost two thousand of them.
    succeeded(&chain.act(&alice, &contract.id, vec![scrub(1_990)]).await);
    let error = execution_error(&chain.act(&alice, &contract.id, vec![scrub(2_001)]).await);
    assert!(error.contains("storage proof"), "{error}");
}

#[tokio::test]
async fn a_call_may_burn_a_thousand_teragas_and_no_more_can_be_attached() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let outcome = chain.act(&alice, &contract.id, vec![call("spin", b"", 1_000, FREE)]).await;
    assert!(execution_error(&outcome).contains("gas"), "the loop never ends");
    let burnt = outcome.receipts_outcome[0].outcome.gas_burnt.as_gas();
    assert!(burnt >= 1_000 * TGAS, "{burnt}");
    let actions = vec![call("add", b"", 600, FREE), call("add", b"", 401, FREE)];
    let error = chain.refused(&alice, &contract.id, actions).await;
    let InvalidTxError::ActionsValidation(ActionsValidationError::TotalPrepaidGasExceeded { limit, .. }) =
        error
    else {
        panic!("unexpected {error:?}");
    };
    assert_eq!(limit.as_gas(), 1_000 * TGAS);
}

/// The block of an outcome.
async fn height_of(chain: &Chain, hash: CryptoHash) -> u64 {
    let block_reference = BlockReference::BlockId(BlockId::Hash(hash));
    let request = methods::block::RpcBlockRequest { block_reference };
    chain.rpc.call(request).await.expect("a block").header.height
}

#[tokio::test]
async fn ids_are_those_that_near_computes() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", counter()).await;
    let alice = chain.user().await;
    let target = contract.id.as_bytes();
    let outcome = chain.act(&alice, &contract.id, vec![call("relay", target, 100, FREE)]).await;
    let transaction = &outcome.transaction_outcome;
    let height = height_of(&chain, transaction.block_hash).await;
    let first = create_receipt_id_from_transaction(&transaction.id, height);
    assert_eq!(transaction.outcome.receipt_ids, [first]);
    let call = &outcome.receipts_outcome[0];
    assert_eq!(call.id, first);
    let height = height_of(&chain, call.block_hash).await;
    // The call, its callback, and the refund of gas.
    let children: Vec<_> = (0..3).map(|nth| create_receipt_id_from_receipt_id(&first, height, nth)).collect();
    assert_eq!(call.outcome.receipt_ids, children);
}
