//! The node: blocks, status, errors, patches, restarts, and the command line.

use std::process::{Command, Stdio};
use std::time::Duration;

use near_crypto::{KeyType, SecretKey};
use near_jsonrpc_client::errors::{JsonRpcError, JsonRpcServerError};
use near_jsonrpc_client::methods;
use near_jsonrpc_primitives::types::blocks::RpcBlockError;
use near_jsonrpc_primitives::types::chunks::ChunkReference;
use near_jsonrpc_primitives::types::query::RpcQueryError;
use near_jsonrpc_primitives::types::transactions::RpcTransactionError;
use near_primitives::hash::CryptoHash;
use near_primitives::state_record::StateRecord;
use near_primitives::types::{Balance, BlockId, BlockReference, Finality, ShardId};
use near_primitives::views::{QueryRequest, TxExecutionStatus};
use por_localnet::{Config, Error, Localnet};
use serde_json::json;

use crate::client::*;

async fn block(chain: &Chain, reference: BlockReference) -> near_primitives::views::BlockView {
    let request = methods::block::RpcBlockRequest { block_reference: reference };
    chain.rpc.call(request).await.expect("the block exists")
}

#[tokio::test]
async fn the_node_describes_itself_and_its_blocks() {
    let chain = Chain::start().await;
    let alice = chain.user().await;
    let status = chain.rpc.call(methods::status::RpcStatusRequest).await.expect("a status");
    assert_eq!(status.chain_id, "localnet");
    assert_eq!(status.protocol_version, 88);
    assert_eq!(status.validator_account_id, Some(id("test.near")));
    chain.rpc.call(methods::health::RpcHealthRequest).await.expect("healthy");
    chain.rpc.call(methods::network_info::RpcNetworkInfoRequest).await.expect("no network");
    let price = methods::gas_price::RpcGasPriceRequest { block_id: None };
    let price = chain.rpc.call(price).await.expect("a price");
    assert_eq!(price.gas_price.as_yoctonear(), GAS_PRICE);
    let epoch = near_primitives::types::EpochReference::Latest;
    let validators = methods::validators::RpcValidatorRequest { epoch_reference: epoch };
    let validators = chain.rpc.call(validators).await.expect("a validator");
    assert_eq!(validators.current_validators[0].account_id, id("test.near"));

    let outcome = chain.act(&alice, &id("test.near"), vec![transfer(near(1))]).await;
    let hash = outcome.transaction_outcome.block_hash;
    let found = block(&chain, BlockReference::BlockId(BlockId::Hash(hash))).await;
    assert_eq!(found.header.hash, hash);
    let again = block(&chain, BlockReference::BlockId(BlockId::Height(found.header.height))).await;
    assert_eq!(again.header.hash, hash);
    let parent = BlockReference::BlockId(BlockId::Hash(found.header.prev_hash));
    assert_eq!(block(&chain, parent).await.header.height, found.header.height - 1);
    for chunk_reference in [
        ChunkReference::ChunkHash { chunk_id: found.chunks[0].chunk_hash },
        ChunkReference::BlockShardId { block_id: BlockId::Hash(hash), shard_id: ShardId::new(0) },
    ] {
        let request = methods::chunk::RpcChunkRequest { chunk_reference };
        let chunk = chain.rpc.call(request).await.expect("the chunk exists");
        assert_eq!(chunk.transactions.len(), 1);
        assert_eq!(chunk.transactions[0].hash, outcome.transaction.hash);
    }
    // Two blocks follow at once, which make the transaction final.
    let last = block(&chain, BlockReference::Finality(Finality::Final)).await;
    assert!(last.header.height >= found.header.height);
}

#[tokio::test]
async fn blocks_follow_in_intervals_and_outcomes_have_proofs() {
    let block_time = Duration::from_millis(20);
    let chain = Chain::with(Config { block_time, ..Config::default() }).await;
    let (height, _) = chain.head().await;
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while chain.head().await.0 < height + 5 {
        assert!(tokio::time::Instant::now() < deadline, "no blocks are made");
        tokio::time::sleep(block_time).await;
    }
    let alice = chain.user().await;
    let outcome = chain.act(&alice, &id("test.near"), vec![transfer(near(1))]).await;
    for part in std::iter::once(&outcome.transaction_outcome).chain(&outcome.receipts_outcome) {
        let reference = BlockReference::BlockId(BlockId::Hash(part.block_hash));
        let header = block(&chain, reference).await.header;
        let leaf = CryptoHash::hash_borsh(part.to_hashes());
        assert!(near_primitives::merkle::verify_hash(header.outcome_root, &part.proof, leaf));
    }
}

#[tokio::test]
async fn a_chain_may_wait_for_work_without_an_end() {
    let chain = Chain::with(Config { block_time: Duration::MAX, ..Config::default() }).await;
    let before = chain.head().await.0;
    chain.deploy("contract.near", crate::contracts::counter()).await;
    assert!(chain.head().await.0 > before);
}

#[tokio::test]
async fn errors_have_the_shapes_that_clients_know() {
    let chain = Chain::start().await;
    let alice = chain.user().await;
    let reference = BlockReference::BlockId(BlockId::Height(1_000_000));
    let request = methods::block::RpcBlockRequest { block_reference: reference.clone() };
    let error = chain.rpc.call(request).await.expect_err("no such block");
    assert!(matches!(error.handler_error(), Some(RpcBlockError::UnknownBlock { .. })), "{error:?}");
    let request = methods::query::RpcQueryRequest {
        block_reference: reference,
        request: QueryRequest::ViewAccount { account_id: alice.id.clone() },
    };
    let error = chain.rpc.call(request).await.expect_err("no such block");
    assert!(matches!(error.handler_error(), Some(RpcQueryError::UnknownBlock { .. })), "{error:?}");

    let public_key = SecretKey::from_seed(KeyType::ED25519, "other").public_key();
    let request = QueryRequest::ViewAccessKey { account_id: alice.id.clone(), public_key };
    let error = chain.query(request).await.expect_err("no such key");
    assert!(matches!(error.handler_error(), Some(RpcQueryError::UnknownAccessKey { .. })), "{error:?}");
    let error = chain.query(QueryRequest::ViewCode { account_id: alice.id.clone() }).await;
    let error = error.expect_err("no code");
    assert!(matches!(error.handler_error(), Some(RpcQueryError::NoContractCode { .. })), "{error:?}");
    let error = chain.tx_status(CryptoHash::default(), &alice.id, TxExecutionStatus::Final).await;
    let error = error.expect_err("no such transaction");
    assert!(
        matches!(error.handler_error(), Some(RpcTransactionError::UnknownTransaction { .. })),
        "{error:?}"
    );

    let answer = chain.raw("no_such_method", json!({})).await;
    assert_eq!(answer["error"]["name"], "REQUEST_VALIDATION_ERROR", "{answer}");
    assert_eq!(answer["error"]["cause"]["name"], "METHOD_NOT_FOUND", "{answer}");
    let answer = chain.raw("query", json!({ "request_type": "view_account" })).await;
    assert_eq!(answer["error"]["cause"]["name"], "PARSE_ERROR", "{answer}");
    let answer = chain.raw("broadcast_tx_commit", json!(["AAAA"])).await;
    assert_eq!(answer["error"]["cause"]["name"], "PARSE_ERROR", "{answer}");
}

#[tokio::test]
async fn old_states_can_be_queried_by_block() {
    let chain = Chain::start().await;
    let (alice, bob) = (chain.user().await, chain.user().await);
    let (height, _) = chain.head().await;
    chain.act(&alice, &bob.id, vec![transfer(near(1))]).await;
    let request = methods::query::RpcQueryRequest {
        block_reference: BlockReference::BlockId(BlockId::Height(height)),
        request: QueryRequest::ViewAccount { account_id: bob.id.clone() },
    };
    let response = chain.rpc.call(request).await.expect("the block is recent");
    assert_eq!(response.block_height, height);
    let near_jsonrpc_primitives::types::query::QueryResponseKind::ViewAccount(account) = response.kind else {
        panic!("not an account")
    };
    assert_eq!(account.amount, near(100));
    assert_eq!(chain.balance(&bob.id).await, near(101).as_yoctonear());
}

#[tokio::test]
async fn the_faucet_creates_and_tops_up() {
    let chain = Chain::start().await;
    let key = SecretKey::from_seed(KeyType::ED25519, "faucet");
    let name = id("top-level-name");
    let first = chain.faucet(&name, &key.public_key(), near(5)).await;
    assert_eq!(first["result"]["created"], true);
    assert_eq!(first["result"]["balance"], near(5).as_yoctonear().to_string());
    let second = chain.faucet(&name, &key.public_key(), near(2)).await;
    assert_eq!(second["result"]["created"], false);
    assert_eq!(second["result"]["balance"], near(7).as_yoctonear().to_string());
    let user = chain.sign_in(name, key).await;
    succeeded(&chain.act(&user, &id("test.near"), vec![transfer(near(1))]).await);
    let invalid = chain.raw("localnet_faucet", json!({ "account_id": "UPPER" })).await;
    assert_eq!(invalid["error"]["cause"]["name"], "PARSE_ERROR", "{invalid}");
    let too_much = chain.faucet(&user.id, &user.key.public_key(), Balance::MAX).await;
    assert!(too_much["error"].is_object(), "{too_much}");
}

#[tokio::test]
async fn patches_change_the_state() {
    let chain = Chain::start().await;
    let contract = chain.deploy("contract.near", crate::contracts::counter()).await;
    let key = SecretKey::from_seed(KeyType::ED25519, "patched");
    let records = vec![
        StateRecord::AccessKey {
            account_id: id("patched.near"),
            public_key: key.public_key().into(),
            access_key: near_primitives::account::AccessKey::full_access(),
        },
        StateRecord::Account { account_id: id("patched.near"), account: plain_account(near(7)) },
        StateRecord::Data {
            account_id: contract.id.clone(),
            data_key: b"counter".to_vec().into(),
            value: vec![9].into(),
        },
    ];
    for _ in 0..2 {
        let records = records.clone();
        let request = methods::sandbox_patch_state::RpcSandboxPatchStateRequest { records };
        chain.rpc.call(request).await.expect("the state is patched");
    }
    assert_eq!(chain.view(&contract.id, "get", b"").await, Ok(vec![9]));
    let user = chain.sign_in(id("patched.near"), key).await;
    succeeded(&chain.act(&user, &contract.id, vec![transfer(near(1))]).await);
}

#[tokio::test]
async fn skipped_heights_advance_the_clock() {
    let block_time = Duration::from_millis(600);
    let chain = Chain::with(Config { block_time, ..Config::default() }).await;
    let contract = chain.deploy("contract.near", crate::contracts::counter()).await;
    let time = async || {
        let bytes = chain.view(&contract.id, "time", b"").await.expect("a time");
        u64::from_le_bytes(bytes.try_into().expect("eight bytes"))
    };
    let (height, before) = (chain.head().await.0, time().await);
    chain.fast_forward(1_000).await;
    assert!(chain.head().await.0 >= height + 1_000);
    let advanced = Duration::from_nanos(time().await - before);
    assert!(advanced >= Duration::from_secs(599), "{advanced:?}");
    let request = methods::block::RpcBlockRequest {
        block_reference: BlockReference::BlockId(BlockId::Height(height + 500)),
    };
    chain.rpc.call(request).await.expect_err("the height was skipped");
}

#[tokio::test]
async fn a_leap_in_time_becomes_final_by_itself() {
    // No block is due by time while the test runs.
    let chain = Chain::with(Config { block_time: Duration::from_secs(3_600), ..Config::default() }).await;
    let height = chain.head().await.0;
    chain.fast_forward(1_000).await;
    let mut last = 0;
    for _ in 0..500 {
        last = block(&chain, BlockReference::Finality(Finality::Final)).await.header.height;
        if last >= height + 1_000 {
            return;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("the last final block is still at {last}");
}

/// The history has an end by the number of blocks, not by heights.
#[tokio::test]
async fn what_was_before_a_leap_in_time_is_still_known() {
    let chain = Chain::start().await;
    let alice = chain.user().await;
    let before = chain.act(&alice, &id("test.near"), vec![transfer(near(1))]).await;
    chain.fast_forward(1_000_000).await;
    for _ in 0..5 {
        succeeded(&chain.act(&alice, &id("test.near"), vec![transfer(near(1))]).await);
    }
    let hash = before.transaction.hash;
    let status = chain.tx_status(hash, &alice.id, TxExecutionStatus::Final).await;
    succeeded(&outcome(status.expect("the transaction is remembered")));
    let reference = BlockReference::BlockId(BlockId::Hash(before.transaction_outcome.block_hash));
    block(&chain, reference).await;
}

/// Beyond them no block would have a time of its own, now and after every restart.
#[tokio::test]
async fn leaps_end_where_time_does() {
    let chain = Chain::start().await;
    let delta_height = 1_000_000_000;
    let mut leaps = 0;
    loop {
        let request = methods::sandbox_fast_forward::RpcSandboxFastForwardRequest { delta_height };
        if chain.rpc.call(request).await.is_err() {
            break;
        }
        leaps += 1;
        assert!(leaps < 100, "that is 1,900 years");
    }
    assert!(leaps > 0, "19 years from now");
    let latest = async || block(&chain, BlockReference::Finality(Finality::None)).await.header;
    let before = latest().await;
    let alice = chain.user().await;
    succeeded(&chain.act(&alice, &id("test.near"), vec![transfer(near(1))]).await);
    let after = latest().await;
    assert!(after.height > before.height && after.timestamp > before.timestamp, "time stands still");
}

#[tokio::test]
async fn waiting_has_an_end() {
    let transaction_timeout = Duration::from_millis(300);
    let chain = Chain::with(Config { transaction_timeout, ..Config::default() }).await;
    let contract = chain.deploy("contract.near", crate::contracts::counter()).await;
    let actions = vec![call("wait", b"", 100, Balance::ZERO)];
    let transaction = chain.sign(&contract, &contract.id, actions).await;
    let error = chain.send(transaction).await.expect_err("nobody resumes it");
    assert!(
        matches!(
            error,
            JsonRpcError::ServerError(JsonRpcServerError::ResponseStatusError(
                near_jsonrpc_client::errors::JsonRpcServerResponseStatusError::TimeoutError
            ))
        ),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_chain_continues_where_it_stopped() {
    let dir = tempfile::tempdir().expect("a directory");
    let config = || Config { home: Some(dir.path().join("home")), ..Config::default() };
    let (contract, height, hash) = {
        let chain = Chain::with(config()).await;
        let contract = chain.deploy("contract.near", crate::contracts::counter()).await;
        let actions = vec![call("add", b"", 30, Balance::ZERO)];
        let outcome = chain.act(&contract, &contract.id, actions).await;
        let (height, _) = chain.head().await;
        chain.localnet.shutdown().await.expect("a clean end");
        (contract, height, outcome.transaction.hash)
    };
    let chain = Chain::with(config()).await;
    assert!(chain.head().await.0 >= height);
    assert_eq!(chain.view(&contract.id, "get", b"").await, Ok(vec![1]));
    let status = chain.tx_status(hash, &contract.id, TxExecutionStatus::Final).await;
    succeeded(&outcome(status.expect("the transaction is remembered")));
    let contract = chain.sign_in(contract.id, contract.key).await;
    let actions = vec![call("add", b"", 30, Balance::ZERO)];
    succeeded(&chain.act(&contract, &contract.id, actions).await);
    assert_eq!(chain.view(&contract.id, "get", b"").await, Ok(vec![2]));
    chain.localnet.shutdown().await.expect("a clean end");

    let other = Config { chain_id: "other".to_owned(), ..config() };
    let error = Localnet::start(other).await.expect_err("another chain");
    assert!(matches!(error, Error::OtherChain { .. }), "{error}");
}

#[tokio::test]
async fn a_taken_address_is_an_error() {
    let chain = Chain::start().await;
    let rpc_addr = chain.localnet.rpc_addr();
    let error = Localnet::start(Config { rpc_addr, ..Config::default() }).await;
    let error = error.expect_err("the address is taken");
    assert!(matches!(error, Error::Listen { .. }), "{error}");
    assert_eq!(error.to_string().lines().count(), 1);
}

/// Ends the process at the end of a test.
struct Running(std::process::Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn the_program_initialises_and_runs_a_home() {
    use std::io::{BufRead, BufReader};
    let program = env!("CARGO_BIN_EXE_por-localnet");
    let dir = tempfile::tempdir().expect("a directory");
    let home = dir.path().to_str().expect("a readable path");
    let init = Command::new(program).args(["--home", home, "init", "--fast"]).status();
    assert!(init.expect("it runs").success());
    for file in ["config.json", "genesis.json", "validator_key.json", "node_key.json"] {
        assert!(dir.path().join(file).exists(), "{file}");
    }
    let run = ["--home", home, "run", "--rpc-addr", "127.0.0.1:0", "--network-addr", "127.0.0.1:0"];
    let child = Command::new(program).args(run).stdout(Stdio::piped()).spawn();
    let mut child = Running(child.expect("it runs"));
    let stdout = child.0.stdout.take().expect("its output");
    let url = BufReader::new(stdout).lines().next().expect("a line").expect("readable");
    let status = reqwest::get(format!("{url}/status")).await.expect("it answers");
    let status: serde_json::Value = status.json().await.expect("JSON");
    assert_eq!(status["chain_id"], "localnet");

    let missing = Command::new(program).args(["--home", "/nonexistent", "run"]).output();
    let missing = missing.expect("it runs");
    assert!(!missing.status.success());
    assert_eq!(String::from_utf8_lossy(&missing.stderr).lines().count(), 1);
}
