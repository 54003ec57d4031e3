//! Servers that come and go.

mod support;

use bytes::Bytes;
use futures::StreamExt;
use libp2p_por as por;
use por::por_core::types::Yocto;
use por::por_core::{AppPricing, RejectReason};
use por::{Outcome, PendingRequest};
use support::{TestNode, bounded, request, row};

async fn send(nodes: &[TestNode]) -> PendingRequest {
    let request = request(nodes, Bytes::from_static(b"x"), 1, Yocto::ZERO);
    bounded("start", nodes[0].control.request(request)).await.expect("sent")
}

async fn assert_nobody_serves(nodes: &[TestNode]) {
    let outcome = bounded("outcome", async {
        let mut pending = send(nodes).await;
        assert!(!pending.acked().await.expect("runs"), "nobody serves, and the node is under obligation");
        pending.outcome().await.expect("runs")
    });
    let outcome = outcome.await;
    assert!(matches!(outcome, Outcome::Rejected { reason: RejectReason::NoApp, .. }), "{outcome:?}");
}

/// As a timeout or a `select` would.
#[tokio::test]
async fn a_call_of_serve_that_was_given_up_obliges_nobody() {
    let nodes = row(2).await;
    let control = &nodes[1].control;
    let mut call = Box::pin(control.serve("echo", AppPricing::default(), 10));
    assert!(futures::poll!(call.as_mut()).is_pending());
    // The driver has answered it once it answers what came after it.
    bounded("channels", control.channels()).await.expect("runs");
    drop(call);
    assert_nobody_serves(&nodes).await;
}

#[tokio::test]
async fn a_call_of_serve_that_was_given_up_at_once_ends_no_other_server() {
    let nodes = row(2).await;
    let control = &nodes[1].control;
    let mut serving = control.serve("echo", AppPricing::default(), 10).await.expect("runs");
    let mut call = Box::pin(control.serve("echo", AppPricing::default(), 10));
    assert!(futures::poll!(call.as_mut()).is_pending());
    drop(call);
    let pending = send(&nodes).await;
    let incoming = bounded("incoming", serving.next()).await.expect("the first one serves on");
    incoming.respond(Bytes::from_static(b"y")).await.expect("runs");
    let outcome = bounded("outcome", pending.outcome()).await.expect("runs");
    assert!(matches!(outcome, Outcome::Response { .. }), "{outcome:?}");
}

/// However busy the driver is: nothing that is dropped can wait for a place in a queue.
#[tokio::test]
async fn a_server_that_is_dropped_while_the_queue_is_full_obliges_nobody() {
    let nodes = row(2).await;
    let control = &nodes[1].control;
    let serving = control.serve("echo", AppPricing::default(), 10).await.expect("runs");
    // The driver shares this thread: it takes nothing out meanwhile.
    let mut calls = Vec::new();
    for _ in 0..1_000 {
        let mut call = Box::pin(control.channels());
        assert!(futures::poll!(call.as_mut()).is_pending());
        calls.push(call);
    }
    drop(serving);
    for call in calls {
        bounded("channels", call).await.expect("runs");
    }
    assert_nobody_serves(&nodes).await;
}

/// A server that leaves: nothing more is acknowledged, and what is gets its answer.
#[tokio::test]
async fn a_server_that_takes_no_more_answers_what_is_left() {
    let nodes = row(2).await;
    let control = &nodes[1].control;
    let first = control.serve("echo", AppPricing::default(), 10).await.expect("runs");
    let mut pending = send(&nodes).await;
    assert!(bounded("acked", pending.acked()).await.expect("runs"));
    assert_eq!(bounded("count", control.unanswered("echo")).await, Ok(1));
    let mut last = control.serve("echo", AppPricing::default(), 0).await.expect("runs");
    drop(first);
    assert_nobody_serves(&nodes).await;
    let incoming = bounded("incoming", last.next()).await.expect("delivered again");
    incoming.respond(Bytes::from_static(b"y")).await.expect("runs");
    let outcome = bounded("outcome", pending.outcome()).await.expect("runs");
    assert!(matches!(outcome, Outcome::Response { .. }), "{outcome:?}");
    assert_eq!(bounded("count", control.unanswered("echo")).await, Ok(0));
    assert_nobody_serves(&nodes).await;
}

/// It goes on with what it has in hand, which nobody gets a second time.
#[tokio::test]
async fn a_server_leaves_when_it_has_answered_what_it_took() {
    let nodes = row(2).await;
    let control = &nodes[1].control;
    let mut serving = control.serve("echo", AppPricing::default(), 10).await.expect("runs");
    let exit = serving.exit();
    let pending = send(&nodes).await;
    let incoming = bounded("incoming", serving.next()).await.expect("taken");
    let mut leave = Box::pin(exit.leave());
    assert!(futures::poll!(leave.as_mut()).is_pending());
    assert_nobody_serves(&nodes).await;
    assert!(futures::poll!(leave.as_mut()).is_pending(), "one is in hand");
    incoming.respond(Bytes::from_static(b"y")).await.expect("runs");
    bounded("leave", leave).await.expect("runs");
    let outcome = bounded("outcome", pending.outcome()).await.expect("runs");
    assert!(matches!(outcome, Outcome::Response { .. }), "{outcome:?}");
    // Not after another one has taken its place.
    let mut next = control.serve("echo", AppPricing::default(), 10).await.expect("runs");
    assert!(bounded("the end", serving.next()).await.is_none(), "nothing came twice");
    bounded("leave", exit.leave()).await.expect("runs");
    let pending = send(&nodes).await;
    let incoming = bounded("incoming", next.next()).await.expect("taken");
    // A server that is dropped keeps nobody waiting.
    let exit = next.exit();
    let mut leave = Box::pin(exit.leave());
    assert!(futures::poll!(leave.as_mut()).is_pending());
    drop(next);
    bounded("leave", leave).await.expect("runs");
    incoming.respond(Bytes::from_static(b"y")).await.expect("runs");
    bounded("outcome", pending.outcome()).await.expect("runs");
}
