use super::*;
use crate::localnet::{LocalNetwork, LocalNetworkConfig};

async fn chain() -> LocalNetwork {
    LocalNetwork::start(LocalNetworkConfig::default()).await.expect("local chain")
}

/// Lets some ten minutes pass on it.
async fn forward(chain: &LocalNetwork) {
    let request = serde_json::json!({
        "jsonrpc": "2.0", "id": 1, "method": "sandbox_fast_forward", "params": { "delta_height": 1_000 }
    });
    let sent = reqwest::Client::new().post(chain.rpc_url()).json(&request).send().await;
    assert!(sent.expect("answers").status().is_success());
}

/// By such a block time a node would let its time for evidence go by.
#[tokio::test(flavor = "multi_thread")]
async fn a_block_from_the_future_is_not_taken() {
    let (fast, right) = (chain().await, chain().await);
    forward(&fast).await;
    let alone = || Rpc::new(&[fast.rpc_url()], RpcLimits::default()).expect("client");
    let error = alone().head().await.expect_err("it is from the future");
    assert!(
        matches!(&error, ChainError::Answer { reason, .. } if reason.contains("after this machine's time"))
    );
    alone().for_tests(true).head().await.expect("tests let time pass");
    let both = Rpc::new(&[fast.rpc_url(), right.rpc_url()], RpcLimits::default()).expect("client");
    let head = both.head().await.expect("the other one's");
    assert!(head.time_ms <= both.present.now_ms(), "{head:?}");
    // The endpoints' own clocks say that this machine's is right.
    assert_eq!(alone().clock().await, Ok(ClockState::Right));
}
