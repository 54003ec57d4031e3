//! Paid requests between swarms: direct, relayed, big, many, interrupted.

mod support;

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use libp2p_por as por;
use por::por_core::types::{ChannelId, Yocto};
use por::por_core::{AppPricing, RejectReason};
use por::{Outcome, Progress, RequestError};
use support::{DEPOSIT, TestNode, bounded, join_row, request, row, serve, terms};

fn pattern(len: usize, seed: u8) -> Bytes {
    (0..len)
        .map(|i| (i as u64).wrapping_mul(2_654_435_761).to_le_bytes()[2] ^ seed)
        .collect::<Vec<_>>()
        .into()
}

async fn response(nodes: &[TestNode], body: Bytes, limit: u64) -> Bytes {
    let pending = bounded("start", nodes[0].control.request(request(nodes, body, limit, Yocto::ZERO)))
        .await
        .expect("sent");
    match bounded("outcome", pending.outcome()).await.expect("runs") {
        Outcome::Response { body, .. } => body,
        Outcome::Rejected { reason, .. } => panic!("rejected: {reason}"),
        Outcome::Severed { order, .. } => panic!("severed: {order:?}"),
    }
}

/// Both ends of every channel agree, and what one has lost the other has won.
async fn assert_books(nodes: &[TestNode]) {
    for (index, pair) in nodes.windows(2).enumerate() {
        let id = ChannelId(index as u64);
        let settled = async {
            loop {
                let left = pair[0].control.channel(id).await.expect("runs").expect("known");
                let right = pair[1].control.channel(id).await.expect("runs").expect("known");
                if left.totals == right.totals && left.unfinished == 0 && right.unfinished == 0 {
                    return (left, right);
                }
                tokio::task::yield_now().await;
            }
        };
        let (left, right) = bounded("books", settled).await;
        assert_eq!(left.balance_mine, right.balance_theirs);
        assert_eq!(left.balance_theirs, right.balance_mine);
        let pot = DEPOSIT.checked_add(DEPOSIT).expect("small");
        assert_eq!(left.balance_mine.checked_add(left.balance_theirs), Ok(pot));
    }
}

#[tokio::test]
async fn neighbours_exchange_a_request_and_a_response() {
    let nodes = row(2).await;
    let _server = serve(&nodes[1], |body| body.clone()).await;
    assert_eq!(response(&nodes, pattern(300, 1), 500).await, pattern(300, 1));
    assert_books(&nodes).await;
    let spent = terms().price(300, 500).expect("small");
    let left = nodes[0].control.channel(ChannelId(0)).await.expect("runs").expect("known");
    assert_eq!(left.totals.sent_a, spent, "the price is the quote, to the yocto");
}

#[tokio::test]
async fn two_relays_earn_their_edges() {
    let nodes = row(4).await;
    let _server = serve(&nodes[3], |body| body.clone()).await;
    assert_eq!(response(&nodes, pattern(1000, 2), 1000).await, pattern(1000, 2));
    assert_books(&nodes).await;
    let price = terms().price(1000, 1000).expect("small");
    for (index, edges) in [3u128, 2, 1].into_iter().enumerate() {
        let channel =
            nodes[index].control.channel(ChannelId(index as u64)).await.expect("runs").expect("known");
        assert_eq!(channel.totals.sent_a, price.checked_mul(edges).expect("small"));
    }
}

#[tokio::test]
async fn empty_bodies_travel() {
    let nodes = row(3).await;
    let _server = serve(&nodes[2], |_| Bytes::new()).await;
    assert_eq!(response(&nodes, Bytes::new(), 0).await, Bytes::new());
    assert_books(&nodes).await;
}

#[tokio::test]
async fn big_bodies_travel_both_ways_through_relays() {
    let nodes = row(4).await;
    let _server = serve(&nodes[3], |body| pattern(body.len() + 1, 9)).await;
    let body = pattern(8 << 20, 3);
    let answer = response(&nodes, body.clone(), (8 << 20) + 1).await;
    assert_eq!(answer, pattern((8 << 20) + 1, 9));
    assert_books(&nodes).await;
}

#[tokio::test]
async fn a_thousand_requests_at_once_are_all_answered() {
    let nodes = row(3).await;
    let _server = serve(&nodes[2], |body| body.clone()).await;
    let mut all: FuturesUnordered<_> =
        (0..1000u32).map(|i| response(&nodes, Bytes::from(i.to_be_bytes().to_vec()), 4)).collect();
    let mut sum = 0u64;
    while let Some(body) = all.next().await {
        sum += u64::from(u32::from_be_bytes(body[..].try_into().expect("four bytes")));
    }
    assert_eq!(sum, 499_500);
    drop(all);
    assert_books(&nodes).await;
}

#[tokio::test]
async fn simultaneous_dials_leave_one_working_session() {
    let mut nodes = vec![TestNode::start().await, TestNode::start().await];
    // Both directions at once, before either knows of the channel.
    nodes[0].dial(&nodes[1]);
    nodes[1].dial(&nodes[0]);
    let (edges, mine) = support::chain(&[nodes[0].key, nodes[1].key]);
    for (node, channels) in nodes.iter().zip(mine) {
        node.control.update_graph(1, 1, edges.clone()).await.expect("runs");
        node.control.set_channels(channels).await.expect("runs");
    }
    let peers = [nodes[0].peer, nodes[1].peer];
    nodes[0].ready_with(peers[1]).await;
    nodes[1].ready_with(peers[0]).await;
    let _server = serve(&nodes[1], |body| body.clone()).await;
    for i in 0..20 {
        assert_eq!(response(&nodes, pattern(20_000, i), 20_000).await, pattern(20_000, i));
    }
    assert_books(&nodes).await;
}

#[tokio::test]
async fn an_app_that_nobody_serves_is_rejected_with_a_refund() {
    let nodes = row(3).await;
    let pending =
        nodes[0].control.request(request(&nodes, pattern(10, 0), 10, Yocto::ZERO)).await.expect("sent");
    let price = pending.price;
    match bounded("outcome", pending.outcome()).await.expect("runs") {
        Outcome::Rejected { reason, refund, .. } => {
            assert_eq!(reason, RejectReason::NoApp);
            assert_eq!(refund, price, "all of it comes back");
        }
        outcome => panic!("nobody could have answered: {outcome:?}"),
    }
    assert_books(&nodes).await;
    let left = nodes[0].control.channel(ChannelId(0)).await.expect("runs").expect("known");
    assert_eq!(left.balance_mine, DEPOSIT);
}

#[tokio::test]
async fn a_server_that_asks_for_more_rejects() {
    let nodes = row(2).await;
    let pricing = AppPricing { base: Yocto(5_000), per_byte: Yocto(2) };
    let mut serving = nodes[1].control.serve("echo", pricing, 10).await.expect("runs");
    let asked = pricing.price(10, 10).expect("small");
    let cheap = asked.checked_sub(Yocto(1)).expect("positive");
    let pending = nodes[0].control.request(request(&nodes, pattern(10, 0), 10, cheap)).await.expect("sent");
    match bounded("outcome", pending.outcome()).await.expect("runs") {
        Outcome::Rejected { reason, .. } => assert_eq!(reason, RejectReason::ServerPrice),
        outcome => panic!("answered below its price: {outcome:?}"),
    }
    let pending = nodes[0].control.request(request(&nodes, pattern(10, 0), 10, asked)).await.expect("sent");
    let incoming = bounded("incoming", serving.next()).await.expect("serving");
    assert_eq!(incoming.server_price(), asked);
    assert_eq!(incoming.author(), nodes[0].key);
    incoming.respond(Bytes::from_static(b"ok")).await.expect("runs");
    assert!(matches!(bounded("outcome", pending.outcome()).await, Ok(Outcome::Response { .. })));
    assert_books(&nodes).await;
}

#[tokio::test]
async fn a_full_serving_queue_is_busy() {
    let nodes = row(2).await;
    let mut serving = nodes[1].control.serve("echo", AppPricing::default(), 1).await.expect("runs");
    let first = nodes[0].control.request(request(&nodes, pattern(1, 0), 8, Yocto::ZERO)).await.expect("sent");
    let incoming = bounded("incoming", serving.next()).await.expect("serving");
    let second =
        nodes[0].control.request(request(&nodes, pattern(1, 0), 8, Yocto::ZERO)).await.expect("sent");
    match bounded("second", second.outcome()).await.expect("runs") {
        Outcome::Rejected { reason, .. } => assert_eq!(reason, RejectReason::Busy),
        outcome => panic!("the queue has room for one: {outcome:?}"),
    }
    incoming.respond(Bytes::from_static(b"one")).await.expect("runs");
    assert!(matches!(bounded("first", first.outcome()).await, Ok(Outcome::Response { .. })));
}

/// More answers than the driver takes at once are on their way to it when another server takes over.
#[tokio::test]
async fn what_one_server_has_answered_is_not_given_to_the_next() {
    const ANSWERED: usize = 300;
    let nodes = row(2).await;
    let mut serving = nodes[1].control.serve("echo", AppPricing::default(), 1_000).await.expect("runs");
    let mut open = Vec::new();
    for _ in 0..ANSWERED {
        let request = request(&nodes, pattern(1, 0), 8, Yocto::ZERO);
        open.push(bounded("start", nodes[0].control.request(request)).await.expect("sent"));
    }
    let mut incoming = Vec::new();
    for _ in 0..ANSWERED {
        incoming.push(bounded("incoming", serving.next()).await.expect("serving"));
    }
    for request in &incoming {
        request.respond(Bytes::from_static(b"first")).await.expect("runs");
        // Only the first one counts.
        request.respond(Bytes::from_static(b"second")).await.expect("runs");
    }
    let mut next = nodes[1].control.serve("echo", AppPricing::default(), 1_000).await.expect("runs");
    for request in open {
        match bounded("outcome", request.outcome()).await.expect("runs") {
            Outcome::Response { body, .. } => assert_eq!(body, b"first".as_slice()),
            outcome => panic!("not answered: {outcome:?}"),
        }
    }
    let own = nodes[0].control.request(request(&nodes, pattern(2, 0), 8, Yocto::ZERO)).await.expect("sent");
    let delivered = bounded("incoming", next.next()).await.expect("serving");
    assert_eq!(delivered.id(), own.id, "a request that was answered is delivered again");
}

#[tokio::test]
async fn a_response_over_the_limit_is_refused_at_once() {
    let nodes = row(2).await;
    let mut serving = nodes[1].control.serve("echo", AppPricing::default(), 1).await.expect("runs");
    let pending =
        nodes[0].control.request(request(&nodes, pattern(1, 0), 8, Yocto::ZERO)).await.expect("sent");
    let incoming = bounded("incoming", serving.next()).await.expect("serving");
    let error = incoming.respond(pattern(9, 0)).await.expect_err("nine is more than eight");
    assert_eq!(error, por::RespondError::TooLarge { len: 9, limit: 8 });
    incoming.respond(pattern(8, 0)).await.expect("runs");
    assert!(matches!(bounded("outcome", pending.outcome()).await, Ok(Outcome::Response { .. })));
}

#[tokio::test]
async fn an_unconnected_first_hop_refuses_and_takes_no_money() {
    let nodes = vec![TestNode::start().await, TestNode::start().await];
    let (edges, mine) = support::chain(&[nodes[0].key, nodes[1].key]);
    for (node, channels) in nodes.iter().zip(mine) {
        node.control.update_graph(1, 1, edges.clone()).await.expect("runs");
        node.control.set_channels(channels).await.expect("runs");
    }
    let refused = nodes[0].control.request(request(&nodes, pattern(1, 0), 8, Yocto::ZERO)).await;
    assert!(matches!(refused, Err(RequestError::Refused(RejectReason::Unreachable))), "{refused:?}");
    let left = nodes[0].control.channel(ChannelId(0)).await.expect("runs").expect("known");
    assert_eq!(left.balance_mine, DEPOSIT);
}

#[tokio::test]
async fn a_lost_connection_in_mid_transfer_is_resumed() {
    let mut nodes = row(2).await;
    let _server = serve(&nodes[1], |_| pattern(8 << 20, 7)).await;
    let mut pending =
        nodes[0].control.request(request(&nodes, pattern(1, 0), 8 << 20, Yocto::ZERO)).await.expect("sent");
    assert!(bounded("ack", pending.acked()).await.expect("runs"));
    let peers = [nodes[0].peer, nodes[1].peer];
    nodes[0].cut(peers[1]).await;
    nodes[1].dial(&nodes[0]);
    nodes[0].ready_with(peers[1]).await;
    let mut acked_again = 0;
    let body = loop {
        match bounded("progress", pending.next()).await.expect("runs") {
            Some(Progress::Done(Outcome::Response { body, .. })) => break body,
            Some(Progress::Done(outcome)) => panic!("{outcome:?}"),
            Some(_) => acked_again += 1,
            None => panic!("no outcome"),
        }
    };
    assert!(acked_again <= 1);
    assert_eq!(body, pattern(8 << 20, 7));
    assert_books(&nodes).await;
}

#[tokio::test]
async fn calls_fail_once_the_driver_is_gone() {
    let nodes = row(2).await;
    let pending = {
        let _serving = nodes[1].control.serve("echo", AppPricing::default(), 1).await.expect("runs");
        nodes[0].control.request(request(&nodes, pattern(1, 0), 8, Yocto::ZERO)).await.expect("sent")
    };
    nodes[0].driver.abort();
    assert!(bounded("pending", pending.outcome()).await.is_err());
    let refused = nodes[0].control.request(request(&nodes, pattern(1, 0), 8, Yocto::ZERO)).await;
    assert!(matches!(refused, Err(RequestError::Stopped(_))));
    assert!(nodes[0].control.channels().await.is_err());
}

#[tokio::test]
async fn a_peer_that_vanishes_leaves_the_request_open_and_the_money_accounted_for() {
    let mut nodes = vec![TestNode::start().await, TestNode::start().await];
    join_row(&mut nodes).await;
    let _serving = nodes[1].control.serve("echo", AppPricing::default(), 5).await.expect("runs");
    let mut pending =
        nodes[0].control.request(request(&nodes, pattern(1, 0), 8, Yocto::ZERO)).await.expect("sent");
    assert!(bounded("ack", pending.acked()).await.expect("runs"));
    let gone = nodes.pop().expect("two");
    gone.swarm.abort();
    gone.driver.abort();
    nodes[0].event(|event| matches!(event, por::Event::PeerLost { .. })).await;
    let left = nodes[0].control.channel(ChannelId(0)).await.expect("runs").expect("known");
    assert_eq!(left.unfinished, 1);
    assert_eq!(left.pending_out, pending.price);
}
