//! Daemons keep themselves attached, continue checks that stand still, and clear up what is over.

#[allow(dead_code, reason = "each test binary uses its part")]
mod common;
#[allow(dead_code, reason = "each test binary uses its part")]
#[path = "chain/proxy.rs"]
mod proxy;

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use common::{Daemon, World, eventually};
use near_crypto::SecretKey;
use near_jsonrpc_client::{JsonRpcClient, methods};
use near_primitives::action::{Action, FunctionCallAction};
use near_primitives::transaction::{SignedTransaction, Transaction, TransactionV0};
use near_primitives::types::{Balance, BlockReference, Finality, Gas};
use near_primitives::views::{FinalExecutionStatus, QueryRequest, TxExecutionStatus};
use por_node::chain::Chain;
use por_types::interface::{ChannelStatus, SeverArgs, method};
use por_types::{ChannelId, SeverOrder, SeverReason, Yocto};

/// So little that a partition check cannot even begin in the call.
const SHORT_OF_GAS: u64 = 14_000_000_000_000;

/// Severs a channel in the name of `by`, in a call whose check has to be continued by others.
async fn sever_without_check(world: &World, by: &Daemon, channel: ChannelId, deposit: Yocto) {
    let network = world.chain.network_config();
    let (signer, reason) = (by.keys().node.public(), SeverReason::Operator);
    let statement = SeverOrder { channel, signer, reason, request: None };
    let order = by.keys().node.sign(&network.network(), statement);
    let args = serde_json::to_vec(&SeverArgs { order, witness: None }).expect("JSON");
    let action = Action::FunctionCall(Box::new(FunctionCallAction {
        method_name: method::SEVER.to_owned(),
        args,
        gas: Gas::from_gas(SHORT_OF_GAS),
        deposit: Balance::from_yoctonear(deposit.0),
    }));
    let client = JsonRpcClient::connect(&network.rpc_urls[0]);
    let transaction = sign(&client, world, &by.keys().near, by, action).await;
    let request = methods::send_tx::RpcSendTransactionRequest {
        signed_transaction: transaction,
        wait_until: TxExecutionStatus::Final,
    };
    let response = client.call(request).await.expect("the chain takes it");
    let outcome = response.final_execution_outcome.expect("final").into_outcome();
    assert!(matches!(outcome.status, FinalExecutionStatus::SuccessValue(_)), "{:?}", outcome.status);
}

async fn sign(
    client: &JsonRpcClient,
    world: &World,
    key: &SecretKey,
    by: &Daemon,
    action: Action,
) -> SignedTransaction {
    let request = methods::query::RpcQueryRequest {
        block_reference: BlockReference::Finality(Finality::None),
        request: QueryRequest::ViewAccessKey { account_id: by.account.clone(), public_key: key.public_key() },
    };
    let view = client.call(request).await.expect("view");
    let near_jsonrpc_primitives::types::query::QueryResponseKind::AccessKey(access) = view.kind else {
        panic!("no access key: {:?}", view.kind)
    };
    let transaction = Transaction::V0(TransactionV0 {
        signer_id: by.account.clone(),
        public_key: key.public_key(),
        nonce: access.nonce + 1,
        receiver_id: world.chain.contract().clone(),
        block_hash: view.block_hash,
        actions: vec![action],
    });
    let (hash, _) = transaction.get_hash_and_size();
    SignedTransaction::new(key.sign(hash.as_ref()), transaction)
}

async fn status_of(chain: &Chain, channel: ChannelId) -> Option<ChannelStatus> {
    Some(chain.channel(channel).await.expect("view")?.status)
}

#[tokio::test(flavor = "multi_thread")]
async fn nodes_attach_themselves_are_cut_off_and_come_back() {
    let mut world = World::start().await;
    world.forget_after_s = 0;
    let chain = world.observer().await;
    let alice = world.node("alice", &[]).await;
    alice.becomes_attached(true).await;
    let bob = world.node("bob", &[&alice]).await;
    let carol = world.node("carol", &[&alice]).await;
    // Carol's neighbour is not attached yet: she has to wait for him.
    let far = bob.open_channel(&carol, Yocto::near(5)).await;
    assert!(!carol.client().status().await.expect("status").attached, "through nobody");
    let near = alice.open_channel(&bob, Yocto::near(5)).await;
    bob.becomes_attached(true).await;
    carol.becomes_attached(true).await;

    let stake = chain.node(&carol.account).await.expect("view").expect("registered").stake;
    let config = chain.config().await.expect("config");
    sever_without_check(&world, &bob, far, config.check_deposit).await;
    // The daemons at its ends see that nobody continues it.
    carol.becomes_attached(false).await;
    assert!(bob.client().status().await.expect("status").attached);
    assert_eq!(chain.checks().await.expect("view").checks, 0);
    let left = chain.node(&carol.account).await.expect("view").expect("registered").stake;
    // Reimbursement of half a penalty first, then the slash.
    let bond = config.params.bond();
    let after = stake.0 - bond.0;
    assert_eq!(left.0, after - after * u128::from(config.params.slash_bps) / 10_000);

    // Nobody asks for it: paid out, released and removed from the chain, and from the list.
    eventually("the severed channel is over", || async {
        status_of(&chain, far).await.is_none().then_some(())
    })
    .await;
    for end in [&bob, &carol] {
        eventually("the daemon knows", || async { end.channel(far).await.is_none().then_some(()) }).await;
    }
    assert_eq!(status_of(&chain, near).await, Some(ChannelStatus::Open));

    bob.open_channel(&carol, Yocto::near(5)).await;
    carol.becomes_attached(true).await;
    world.check_books().await;
}

/// A ping that the contract refuses costs its gas all the same.
#[tokio::test(flavor = "multi_thread")]
async fn an_endpoint_that_calls_a_node_unattached_does_not_have_it_ping_without_end() {
    let mut world = World::start().await;
    let alice = world.node("alice", &[]).await;
    let proxy = proxy::Proxy::start(world.chain.rpc_url()).await;
    world.rpc_url = Some(proxy.url());
    let bob = world.node("bob", &[&alice]).await;
    alice.open_channel(&bob, Yocto::near(5)).await;
    bob.becomes_attached(true).await;

    let pings: Arc<Mutex<Vec<Instant>>> = Arc::default();
    let (noted, account) = (pings.clone(), bob.account.to_string());
    proxy.lie(move |question, asks, answer| match question {
        "node" if asks["account"] == account => answer["attached"] = serde_json::json!(false),
        "send_tx" => {
            let sent = BASE64.decode(asks["signed_tx_base64"].as_str().expect("text")).expect("base64");
            if sent.windows(4).any(|part| part == b"ping") {
                noted.lock().expect("no panic").push(Instant::now());
            }
        }
        _ => {}
    });
    let times = eventually("bob pings", || async {
        let times = pings.lock().expect("no panic").clone();
        (times.len() >= 6).then_some(times)
    })
    .await;
    // Each time he waits twice as long as the time before, from half a second on.
    let rest = times[5] - times[4];
    assert!(rest >= Duration::from_secs(4), "{rest:?}: {times:?}");
}
