use libp2p_por::{Config, Driver, MemoryStore};
use por_types::{Network, NodeSecret};

use super::*;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(3_600);
const PATIENCE: Duration = Duration::from_secs(20);

/// The apps of a node without a network.
fn apps() -> (Apps, Control, Driver) {
    let network = Network { chain_id: "localnet".into(), contract: "por.test".parse().expect("account") };
    let secret = NodeSecret::from_seed(&[1; 32]);
    let config = Config::new(network.clone());
    let (_, control, driver) =
        libp2p_por::new(config, secret.clone(), MemoryStore::default()).expect("a node");
    (Apps::new(control.clone(), Opener::new(network, secret), Alarm::default()), control, driver)
}

async fn soon<T>(what: &str, wait: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, wait).await {
        Ok(done) => done,
        Err(_) => panic!("{what}: nothing within {PATIENCE:?}"),
    }
}

/// The code with which a poll ends.
fn poll(apps: &Apps) -> tokio::task::JoinHandle<ErrorCode> {
    let apps = apps.clone();
    tokio::spawn(async move {
        match apps.next("echo", LONG).await {
            Ok(_) => panic!("nobody has asked"),
            Err(error) => error.code,
        }
    })
}

/// A poll that begins as the app is stopped, or served anew, must not wait at the queue that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn no_poll_stays_with_an_app_that_has_left_its_place() {
    let (apps, _, driver) = apps();
    let driver = tokio::spawn(driver);
    for round in 0..50_000 {
        apps.serve("echo", AppPricing::default(), 8).await.expect("serve");
        let polls = [poll(&apps), poll(&apps), poll(&apps)];
        // Polls begin at different times beside it.
        for _ in 0..round % 512 {
            std::hint::spin_loop();
        }
        apps.stop("echo");
        for poll in polls {
            assert_eq!(soon("the poll ends", poll).await.expect("no panic"), ErrorCode::NotFound);
        }
    }
    driver.abort();
}

#[tokio::test]
async fn a_poll_ends_when_another_server_has_the_app() {
    let (apps, control, driver) = apps();
    let driver = tokio::spawn(driver);
    apps.serve("echo", AppPricing::default(), 8).await.expect("serve");
    let poll = poll(&apps);
    let _handler = control.serve("echo", AppPricing::default(), 8).await.expect("serve");
    assert_eq!(soon("the poll ends", poll).await.expect("no panic"), ErrorCode::NotFound);
    assert!(apps.status().await.is_empty(), "it is not served here");
    driver.abort();
}

#[tokio::test]
async fn a_poll_ends_with_the_node() {
    let (apps, _, driver) = apps();
    let driver = tokio::spawn(driver);
    apps.serve("echo", AppPricing::default(), 8).await.expect("serve");
    let poll = poll(&apps);
    driver.abort();
    assert_eq!(soon("the poll ends", poll).await.expect("no panic"), ErrorCode::NotFound);
    let again = apps.serve("echo", AppPricing::default(), 8).await.expect_err("nobody delivers anything");
    assert_eq!(again.code, ErrorCode::Other);
}
