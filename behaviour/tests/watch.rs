//! Following requests that others have sent.

mod support;

use bytes::Bytes;
use futures::StreamExt;
use libp2p_por as por;
use por::por_core::types::{RequestId, Yocto};
use por::{Outcome, Progress, WatchError};
use support::{bounded, request, row, serve};

#[tokio::test]
async fn all_who_follow_a_request_are_told_how_it_ends() {
    let nodes = row(2).await;
    let mut serving = nodes[1].control.serve("echo", Default::default(), 1).await.expect("runs");
    let author = &nodes[0].control;
    let own = request(&nodes, Bytes::from_static(b"x"), 1, Yocto::ZERO);
    let pending = bounded("start", author.request(own)).await.expect("sent");
    let mut second = bounded("watch", author.watch(pending.id)).await.expect("it is open");
    let third = bounded("watch", author.watch(pending.id)).await.expect("it is open");
    drop(bounded("watch", author.watch(pending.id)).await.expect("it is open"));
    let incoming = bounded("incoming", serving.next()).await.expect("serving");
    incoming.respond(Bytes::from_static(b"y")).await.expect("runs");
    let ended = loop {
        match bounded("progress", second.next()).await.expect("the node runs") {
            Some(Progress::Done(outcome)) => break outcome,
            // The acknowledgement may have come before it was followed.
            Some(_) => {}
            None => panic!("no outcome"),
        }
    };
    assert!(matches!(ended, Outcome::Response { .. }), "{ended:?}");
    for request in [pending, third] {
        let outcome = bounded("outcome", request.outcome()).await.expect("the node runs");
        assert!(matches!(outcome, Outcome::Response { .. }), "{outcome:?}");
    }
}

#[tokio::test]
async fn who_follows_what_the_node_does_not_know_is_told_so() {
    let nodes = row(2).await;
    let author = &nodes[0].control;
    let unknown = bounded("watch", author.watch(RequestId([9; 32]))).await;
    assert_eq!(unknown.map(|request| request.id), Err(WatchError::Unknown));

    let _server = serve(&nodes[1], |body| body.clone()).await;
    let own = request(&nodes, Bytes::from_static(b"x"), 1, Yocto::ZERO);
    let pending = bounded("start", author.request(own)).await.expect("sent");
    let id = pending.id;
    let outcome = bounded("outcome", pending.outcome()).await.expect("runs");
    assert!(matches!(outcome, Outcome::Response { .. }), "{outcome:?}");
    let over = bounded("watch", author.watch(id)).await;
    assert_eq!(over.map(|request| request.id), Err(WatchError::Unknown));

    nodes[0].driver.abort();
    let stopped = bounded("watch", author.watch(id)).await;
    assert!(matches!(stopped, Err(WatchError::Stopped(_))), "{stopped:?}");
}
