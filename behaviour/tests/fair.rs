//! A neighbour that asks for much does not keep another one waiting.

mod support;

use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use futures::StreamExt;
use futures::task::AtomicWaker;
use libp2p_por as por;
use por::por_core::types::{ChannelId, NodeKey, Yocto};
use por::por_core::{AppPricing, RejectReason, Restored, Write};
use por::{Config, MemoryStore, OutboundRequest, Outcome, PendingRequest, Store, StoreError};
use support::{TestNode, bounded, hop, join_row, network, request, row};
use tokio::sync::watch;

const PLACES: u32 = 90;

/// From the last node of the row to the one before it.
fn backwards(nodes: &[TestNode]) -> OutboundRequest {
    let (server, channel) = (nodes.len() - 2, ChannelId(nodes.len() as u64 - 2));
    let route = vec![hop(channel, nodes[server].key, 100, 100)];
    OutboundRequest {
        destination: nodes[server].key,
        route,
        ..request(&nodes[..2], Bytes::from(vec![2; 100]), 100, Yocto::ZERO)
    }
}

async fn send(node: &TestNode, request: OutboundRequest) -> PendingRequest {
    bounded("start", node.control.request(request)).await.expect("sent")
}

/// Sends `count` requests at once; those that the server has acknowledged, and the outcomes of the others.
async fn flood(nodes: &[TestNode], count: u32) -> (Vec<PendingRequest>, Vec<Outcome>) {
    let (mut open, mut refused) = (Vec::new(), Vec::new());
    let mut all = Vec::new();
    for _ in 0..count {
        let body = Bytes::from(vec![1; 100]);
        all.push(send(&nodes[0], request(nodes, body, 100, Yocto::ZERO)).await);
    }
    for mut request in all {
        match bounded("answer", request.acked()).await.expect("runs") {
            true => open.push(request),
            false => refused.push(bounded("outcome", request.outcome()).await.expect("runs")),
        }
    }
    (open, refused)
}

/// The authors of the next requests that the app is given, all of which are answered.
async fn answer(serving: &mut por::Serving, count: usize) -> Vec<NodeKey> {
    let mut authors = Vec::new();
    for _ in 0..count {
        let request = bounded("delivery", serving.next()).await.expect("serves");
        authors.push(request.author());
        request.respond(request.body().clone()).await.expect("runs");
    }
    authors
}

#[tokio::test]
async fn a_modest_neighbour_is_served_before_the_rest_of_a_greedy_one() {
    let nodes = row(3).await;
    let server = &nodes[1];
    let mut serving = server.control.serve("echo", AppPricing::default(), PLACES).await.expect("runs");
    let (greedy, refused) = flood(&nodes[..2], PLACES).await;
    // Eight places for each one that is left: the last tenth is nobody's alone.
    assert_eq!(greedy.len(), 80);
    let busy = |outcome: &Outcome| matches!(outcome, Outcome::Rejected { reason: RejectReason::Busy, .. });
    assert!(refused.iter().all(busy), "{refused:?}");

    let mut modest = send(&nodes[2], backwards(&nodes)).await;
    assert!(bounded("answer", modest.acked()).await.expect("runs"), "there is a place for it");
    let first = answer(&mut serving, 2).await;
    assert!(first.contains(&nodes[2].key), "80 were waiting, and it was not served next: {first:?}");
    let done = bounded("outcome", modest.outcome()).await.expect("runs");
    assert!(matches!(done, Outcome::Response { .. }), "{done:?}");

    answer(&mut serving, greedy.len() - 1).await;
    for request in greedy {
        let done = bounded("outcome", request.outcome()).await.expect("runs");
        assert!(matches!(done, Outcome::Response { .. }), "{done:?}");
    }
}

/// Requests that a server has not begun when it goes are served in turn by the next one.
#[tokio::test]
async fn turns_hold_for_what_is_delivered_again() {
    let nodes = row(3).await;
    let server = &nodes[1];
    let serving = server.control.serve("echo", AppPricing::default(), PLACES).await.expect("runs");
    let (greedy, _) = flood(&nodes[..2], 40).await;
    let mut modest = send(&nodes[2], backwards(&nodes)).await;
    assert!(bounded("answer", modest.acked()).await.expect("runs"));
    drop(serving);
    let mut serving = server.control.serve("echo", AppPricing::default(), PLACES).await.expect("runs");
    let first = bounded("delivery", serving.next()).await.expect("serves");
    // By now all 41 are delivered: the driver does so in one round.
    first.respond(first.body().clone()).await.expect("runs");
    let mut authors = vec![first.author()];
    authors.extend(answer(&mut serving, greedy.len()).await);
    let place = authors.iter().position(|author| *author == nodes[2].key).expect("it is served");
    assert!(place <= 2, "it was served as number {place} of {}", authors.len());
}

/// A disk that can stand still: what is submitted is seen, and durable when it goes on.
struct Stalling {
    memory: MemoryStore,
    disk: Arc<Disk>,
}

struct Disk {
    stalled: watch::Sender<bool>,
    /// Keys of the rows of each batch.
    submitted: watch::Sender<Vec<Vec<Vec<u8>>>>,
    driver: AtomicWaker,
}

impl Store for Stalling {
    fn load(&mut self) -> Result<Restored, StoreError> {
        self.memory.load()
    }

    fn submit(&mut self, batch: u64, writes: Vec<Write>) {
        let keys = writes.iter().map(|write| write.key.to_vec()).collect();
        self.memory.submit(batch, writes);
        self.disk.submitted.send_modify(|submitted| submitted.push(keys));
    }

    fn poll_durable(&mut self, cx: &mut Context<'_>) -> Poll<Result<u64, StoreError>> {
        self.disk.driver.register(cx.waker());
        match *self.disk.stalled.borrow() {
            true => Poll::Pending,
            false => self.memory.poll_durable(cx),
        }
    }
}

impl Disk {
    fn stall(&self, stalled: bool) {
        self.stalled.send_replace(stalled);
        self.driver.wake();
    }

    fn has(&self, request: &PendingRequest) -> bool {
        self.submitted.borrow().iter().flatten().any(|key| key.starts_with(&request.id.0))
    }

    /// Until `wanted` holds of the batches.
    async fn until(&self, what: &str, wanted: impl FnMut(&Vec<Vec<Vec<u8>>>) -> bool) {
        let mut submitted = self.submitted.subscribe();
        bounded(what, submitted.wait_for(wanted)).await.expect("the disk is there");
    }
}

/// Batches of others wait for the disk: that is their doing, and a neighbour that asks for little is
/// taken in all the same.
#[tokio::test]
async fn a_modest_neighbour_does_not_wait_for_the_disk_to_take_what_others_sent() {
    let disk = Arc::new(Disk {
        stalled: watch::Sender::new(false),
        submitted: watch::Sender::default(),
        driver: AtomicWaker::new(),
    });
    let store = Stalling { memory: MemoryStore::default(), disk: Arc::clone(&disk) };
    let server = TestNode::with(Config::new(network()).with_redial(None), store).await;
    let mut nodes = vec![TestNode::start().await, server, TestNode::start().await];
    join_row(&mut nodes).await;
    let mut serving = nodes[1].control.serve("echo", AppPricing::default(), 1_000).await.expect("runs");

    let greedily = || request(&nodes[..2], Bytes::from(vec![1; 100]), 100, Yocto::ZERO);
    let mut open = Vec::new();
    for _ in 0..40 {
        open.push(send(&nodes[0], greedily()).await);
    }
    answer(&mut serving, open.len()).await;
    for request in open.drain(..) {
        bounded("outcome", request.outcome()).await.expect("runs");
    }
    disk.stall(true);
    let before = disk.submitted.borrow().len();
    // Two batches: as much as may be under way.
    for batches in 1..=2 {
        open.push(send(&nodes[0], greedily()).await);
        disk.until("a batch", |submitted| submitted.len() >= before + batches).await;
    }
    let late = send(&nodes[0], greedily()).await;
    let modest = send(&nodes[2], backwards(&nodes)).await;
    disk.until("the modest one's batch", |submitted| {
        submitted.iter().flatten().any(|key| key.starts_with(&modest.id.0))
    })
    .await;
    assert!(!disk.has(&late), "who has filled the disk waits for it");

    disk.stall(false);
    open.extend([late, modest]);
    answer(&mut serving, open.len()).await;
    for request in open {
        let done = bounded("outcome", request.outcome()).await.expect("runs");
        assert!(matches!(done, Outcome::Response { .. }), "{done:?}");
    }
}
