//! SeverOrders reach whoever takes them to the chain.

mod support;

use futures::StreamExt;
use libp2p_por as por;
use por::por_core::types::ChannelId;
use support::{TestNode, bounded, row};

async fn sever(node: &TestNode) {
    bounded("sever", node.control.sever(ChannelId(0))).await.expect("runs");
    // The order was made in the turn in which this was asked for, at the latest.
    bounded("channels", node.control.channels()).await.expect("runs");
}

#[tokio::test]
async fn an_order_that_one_reader_has_not_read_goes_to_the_next() {
    let nodes = row(2).await;
    let control = &nodes[0].control;
    let unread = control.orders().await.expect("runs");
    sever(&nodes[0]).await;
    drop(unread);
    // Nor is one lost with a call that is given up once it was answered.
    let mut call = Box::pin(control.orders());
    assert!(futures::poll!(call.as_mut()).is_pending());
    bounded("channels", control.channels()).await.expect("runs");
    drop(call);
    let mut next = control.orders().await.expect("runs");
    let order = bounded("the order", next.next()).await.expect("the driver runs");
    assert_eq!(order.statement.channel, ChannelId(0));
}

#[tokio::test]
async fn the_last_reader_gets_what_the_one_before_it_has_not_read() {
    let nodes = row(2).await;
    let control = &nodes[0].control;
    let mut first = control.orders().await.expect("runs");
    sever(&nodes[0]).await;
    let mut second = control.orders().await.expect("runs");
    assert!(bounded("the order", second.next()).await.is_some());
    assert!(bounded("the end", first.next()).await.is_none(), "nobody submits it twice");
    nodes[0].driver.abort();
    assert!(bounded("the end", second.next()).await.is_none());
}
