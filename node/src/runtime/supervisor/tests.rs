use std::sync::Arc;

use futures::future::BoxFuture;
use por_types::{AccountId, Network, NodeKey, Yocto};

use super::*;
use crate::chain::{Call, Chain, ChainConfig, ChainError, Intent, IntentId, IntentStore};
use crate::keys::generate_near_key;
use crate::localnet::{LocalNetwork, LocalNetworkConfig};
use crate::store::{AppTable, StoreError, StoreIdentity};

fn store(dir: &tempfile::TempDir) -> NodeStore {
    let contract: AccountId = "por.localnet".parse().expect("account");
    let network = Network { chain_id: "localnet".to_owned(), contract };
    let identity = StoreIdentity { network, node_key: NodeKey([7; 32]) };
    NodeStore::open(&dir.path().join("por.redb"), &identity).expect("opens")
}

#[tokio::test]
async fn a_task_that_panics_stops_the_daemon_with_its_name_and_closes_the_store() {
    let dir = tempfile::tempdir().expect("directory");
    let store = store(&dir);
    let mut supervisor = Supervisor::new(store.clone());
    supervisor.spawn("quiet part", std::future::pending());
    supervisor.spawn("loud part", async { panic!("two and two are {}", 5) });
    let error = supervisor.run().await.expect_err("a part is missing");
    assert_eq!(error.code, ErrorCode::Other);
    assert_eq!(error.message, "the loud part has failed: two and two are 5");
    assert!(!error.fix.is_empty());
    let late = store.put(AppTable::Metadata, b"late", Vec::new()).await;
    assert!(matches!(late, Err(StoreError::Closed)), "{late:?}");
}

#[tokio::test]
async fn a_task_that_ends_stops_the_daemon_and_a_stop_is_no_failure() {
    let dir = tempfile::tempdir().expect("directory");
    let store = store(&dir);
    let mut supervisor = Supervisor::new(store.clone());
    supervisor.spawn("short part", async { Ok(()) });
    let error = supervisor.run().await.expect_err("a part is missing");
    assert_eq!(error.message, "the short part has stopped");
    let mut supervisor = Supervisor::new(store);
    supervisor.spawn("quiet part", std::future::pending());
    supervisor.stop_handle().stop();
    supervisor.run().await.expect("it was asked for");
}

#[tokio::test]
async fn an_alarm_stops_the_daemon() {
    let dir = tempfile::tempdir().expect("directory");
    let mut supervisor = Supervisor::new(store(&dir));
    let alarm = Alarm::default();
    supervisor.heed(alarm.clone());
    tokio::spawn(alarm.guard("queue of an app", async { panic!("no more") }));
    let error = supervisor.run().await.expect_err("nobody takes requests");
    assert_eq!(error.message, "the queue of an app has failed: no more");
}

/// Where intents are kept, with a defect.
struct Defect;

impl IntentStore for Defect {
    fn put(&self, _: IntentId, _: Vec<u8>) -> BoxFuture<'_, Result<(), String>> {
        panic!("a defect");
    }

    fn remove(&self, _: IntentId) -> BoxFuture<'_, Result<(), String>> {
        Box::pin(async { Ok(()) })
    }

    fn load(&self) -> Result<Vec<(IntentId, Vec<u8>)>, String> {
        Ok(Vec::new())
    }
}

/// A daemon that goes on without it would never sever, close or show evidence again.
#[tokio::test(flavor = "multi_thread")]
async fn a_daemon_whose_chain_sender_panics_stops() {
    let net = LocalNetwork::start(LocalNetworkConfig::default()).await.expect("local chain");
    let account: AccountId = "alice.localnet".parse().expect("account");
    let key = generate_near_key();
    net.faucet(&account, &key.public_key(), Yocto::near(5)).await.expect("faucet");
    let config = ChainConfig::new(&net.network_config(), account, Some(key));
    let chain = Chain::connect(config, Arc::new(Defect)).await.expect("connects");
    let dir = tempfile::tempdir().expect("directory");
    let mut supervisor = Supervisor::new(store(&dir));
    let sending = chain.clone().keep_sending();
    supervisor.spawn("chain sender", async move { Err(sending.await.into()) });
    let running = tokio::spawn(supervisor.run());
    for _ in 0..2 {
        let call = chain.call(Intent::new(Call::Unregister)).await.expect_err("nobody sends it");
        assert!(matches!(&call, ChainError::Broken { reason } if reason.contains("a defect")), "{call}");
    }
    let error = running.await.expect("no panic").expect_err("the daemon stops");
    assert_eq!(error.code, ErrorCode::Other);
    assert!(error.message.contains("a defect"), "{error}");
    assert!(error.fix.contains("nothing is lost"), "{error:?}");
}
