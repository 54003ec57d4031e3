//! near-workspaces, unmodified, against the local chain or a given sandbox node.

use near_workspaces::network::Sandbox;
use near_workspaces::operations::Function;
use near_workspaces::types::{Gas, KeyType, NearToken, SecretKey};
use near_workspaces::{AccessKey, Contract, Worker};
use por_interop::sandbox::with_sandbox;

/// A contract that counts, calls others and panics.
fn contract_wasm() -> Vec<u8> {
    let text = include_str!("../../contract/localnet/tests/chain/contract.wat");
    wat::parse_str(text).expect("the contract is valid text")
}

async fn start() -> Worker<Sandbox> {
    near_workspaces::sandbox().await.expect("near-workspaces starts its node")
}

async fn deploy(worker: &Worker<Sandbox>) -> Contract {
    worker.dev_deploy(&contract_wasm()).await.expect("the contract is deployed")
}

async fn count(contract: &Contract) -> u8 {
    contract.view("get").await.expect("the contract counts").result[0]
}

const GAS: Gas = Gas::from_tgas(50);

#[test]
fn accounts() {
    with_sandbox("accounts", || async {
        let worker = start().await;
        let alice = worker.dev_create_account().await.expect("an account");
        let bob = worker.dev_create_tla().await.expect("a top-level account");
        let hundred = NearToken::from_near(100);
        assert_eq!(alice.view_account().await.expect("it exists").balance, hundred);

        let sent = NearToken::from_near(3);
        let outcome = alice.transfer_near(bob.id(), sent).await.expect("sent");
        assert!(outcome.is_success(), "{outcome:?}");
        let balance = bob.view_account().await.expect("it exists").balance;
        assert_eq!(balance, hundred.saturating_add(sent));
        let left = alice.view_account().await.expect("it exists").balance;
        assert!(left < hundred.saturating_sub(sent));

        let child = alice.create_subaccount("child").initial_balance(NearToken::from_near(10));
        let child = child.transact().await.expect("sent").into_result().expect("created");
        assert_eq!(child.id().as_str(), format!("child.{}", alice.id()));
        let again = alice.create_subaccount("child").initial_balance(NearToken::from_near(1));
        assert!(again.transact().await.expect("sent").into_result().is_err());

        let key = SecretKey::from_random(KeyType::ED25519).public_key();
        let permission = AccessKey::function_call_access(bob.id(), &["add"], None);
        let batch = child.batch(child.id()).add_key(key.clone(), permission);
        batch.transact().await.expect("sent").into_result().expect("the key is added");
        assert_eq!(child.view_access_keys().await.expect("keys").len(), 2);
        child.view_access_key(&key).await.expect("the key exists");
        let other = SecretKey::from_random(KeyType::ED25519).public_key();
        assert!(child.view_access_key(&other).await.is_err());

        let deleted = child.delete_account(alice.id()).await.expect("sent");
        assert!(deleted.is_success(), "{deleted:?}");
        let missing = "nobody.test.near".parse().expect("an account id");
        assert!(worker.view_account(&missing).await.is_err());
        let lost = alice.transfer_near(&missing, sent).await.expect("sent");
        assert!(lost.is_failure(), "{lost:?}");
    });
}

#[test]
fn contracts() {
    with_sandbox("contracts", || async {
        let worker = start().await;
        let (first, second) = (deploy(&worker).await, deploy(&worker).await);
        let alice = worker.dev_create_account().await.expect("an account");

        let outcome = alice.call(first.id(), "add").gas(GAS).transact().await.expect("sent");
        assert_eq!(outcome.logs(), ["add"]);
        assert!(outcome.total_gas_burnt.as_gas() > 0);
        assert_eq!(count(&first).await, 1);

        let failure = alice.call(first.id(), "fail").gas(GAS).transact().await.expect("sent");
        let failure = failure.into_result().expect_err("the contract panics").to_string();
        assert!(failure.contains("failed on purpose"), "{failure}");
        assert_eq!(count(&first).await, 1);

        let relay = alice.call(first.id(), "relay").args(second.id().as_bytes().to_vec());
        let relay = relay.max_gas().transact().await.expect("sent");
        assert_eq!(relay.raw_bytes().expect("it succeeds"), b"yes");
        assert_eq!((count(&first).await, count(&second).await), (2, 1));

        let batch = alice.batch(first.id());
        let batch = batch.call(Function::new("add").gas(GAS)).call(Function::new("add").gas(GAS));
        batch.transact().await.expect("sent").into_result().expect("both calls succeed");
        assert_eq!(count(&first).await, 4);

        let status = alice.call(first.id(), "add").gas(GAS).transact_async().await.expect("sent");
        assert!(status.await.expect("it runs").is_success());
        assert_eq!(count(&first).await, 5);

        assert_eq!(first.view_code().await.expect("its code"), contract_wasm());
        let state = first.view_state().await.expect("its state");
        assert_eq!(state.get(b"counter".as_slice()), Some(&vec![5]));
        let error = first.view("nothing").await.expect_err("no such method").to_string();
        assert!(!error.is_empty());
    });
}

#[test]
fn chain() {
    with_sandbox("chain", || async {
        let worker = start().await;
        let contract = deploy(&worker).await;
        worker.patch_state(contract.id(), b"counter", &[42]).await.expect("patched");
        assert_eq!(count(&contract).await, 42);

        let before = worker.view_block().await.expect("a block");
        worker.fast_forward(500).await.expect("heights are skipped");
        let after = worker.view_block().await.expect("a block");
        assert!(after.height() >= before.height() + 500);
        assert!(after.timestamp() > before.timestamp());
        let by_hash = worker.view_block().block_hash(*after.hash()).await.expect("a block");
        assert_eq!(by_hash.height(), after.height());
        let chunk = worker.view_chunk().block_hash_and_shard(*after.hash(), 0);
        assert_eq!(chunk.await.expect("a chunk").header.chunk_hash, after.chunks()[0].chunk_hash);
        assert!(worker.gas_price().await.expect("a price") > NearToken::from_yoctonear(0));

        let alice = worker.dev_create_account().await.expect("an account");
        // The first call lets near-workspaces learn the nonce, which the others count up.
        // Their arguments differ so that no two can be the same transaction.
        let call = |nth: u8| alice.call(contract.id(), "add").args(vec![nth]).gas(GAS).transact();
        call(0).await.expect("sent").into_result().expect("it succeeds");
        let calls = (1..10).map(call);
        for outcome in futures_of(calls).await {
            assert!(outcome.is_success(), "{outcome:?}");
        }
        assert_eq!(count(&contract).await, 52);
    });
}

/// Runs all at once and returns what they gave.
async fn futures_of<F>(futures: impl Iterator<Item = F>) -> Vec<near_workspaces::result::ExecutionFinalResult>
where
    F: Future<Output = near_workspaces::Result<near_workspaces::result::ExecutionFinalResult>>
        + Send
        + 'static,
{
    let tasks: Vec<_> = futures.map(tokio::spawn).collect();
    let mut outcomes = Vec::new();
    for task in tasks {
        outcomes.push(task.await.expect("no panic").expect("sent"));
    }
    outcomes
}
