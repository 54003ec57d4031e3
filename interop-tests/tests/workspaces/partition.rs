//! Partitions: who is cut off, who pays, and what cannot change that.

use por_interop::sandbox::with_sandbox;
use por_types::interface::{ChecksView, code, method};
use por_types::{ChannelId, Yocto};
use serde_json::json;

use crate::NEAR;
use crate::net::{self, ANCHOR, LITTLE_GAS, Net, order, refused};

const ONE: Yocto = Yocto::near(1);

/// A chain of nodes, each attached through the one before, the anchor first.
async fn chain(names: &[&str]) -> (Net, Vec<ChannelId>) {
    let mut net = Net::with_nodes(names).await;
    net.pass(net::ACTIVATION_MS).await;
    let mut channels = Vec::new();
    for pair in names.windows(2) {
        channels.push(net.open(pair[0], pair[1], ONE, ONE).await);
        net.ping(pair[1], pair[0]).await;
    }
    (net, channels)
}

#[test]
fn a_wrong_witness_changes_nothing() {
    with_sandbox("partition::a_wrong_witness_changes_nothing", || async {
        let (mut net, channels) = chain(&[ANCHOR, "alice", "bob", "carol"]).await;
        let ring = net.open("carol", "alice", ONE, ONE).await;
        // Alice, Bob and Carol are a ring: no side is closed when one of its edges goes.
        let args = json!({ "order": order(&net, "bob", channels[1]), "witness": { "closed": "b" } });
        net.act("alice", method::SEVER, args).await.expect("sever");
        assert!(net.node("bob").await.attached && net.node("carol").await.attached);
        // No path is left from Carol to Alice but the edge that goes; made-up ones are no help.
        let index = |node: por_types::interface::NodeView| node.index;
        let (alice, carol) = (index(net.node("alice").await), index(net.node("carol").await));
        let path = vec![carol, 99, alice];
        let args = json!({ "order": order(&net, "alice", ring), "witness": { "path": path } });
        net.act("bob", method::SEVER, args).await.expect("sever");
        assert!(!net.node("bob").await.attached && !net.node("carol").await.attached);
        assert!(net.node("alice").await.attached);
    });
}

/// A puppet that stays connected to the faulty node goes down with it, and neither can attach
/// itself in a component of its own.
#[test]
fn sock_puppets_pay_along_and_stay_unattached() {
    with_sandbox("partition::sock_puppets_pay_along_and_stay_unattached", || async {
        let (mut net, channels) = chain(&[ANCHOR, "alice", "dave", "puppet"]).await;
        let before = net.withdrawable("alice").await;
        net.sever(ANCHOR, "alice", channels[1]).await;
        for name in ["dave", "puppet"] {
            assert!(!net.node(name).await.attached);
        }
        // Dave pays Alice's half of the penalty, then a twentieth of what each has left.
        assert_eq!(net.withdrawable("alice").await.checked_sub(before), Ok(ONE));
        assert_eq!(net.node("dave").await.stake, Yocto(4 * NEAR - 4 * NEAR / 20));
        assert_eq!(net.node("puppet").await.stake, Yocto(5 * NEAR - 5 * NEAR / 20));
        for (name, through) in [("dave", "puppet"), ("puppet", "dave")] {
            let args = json!({ "through": net.account(through) });
            refused(net.act(name, method::PING, args).await, code::NOT_ATTACHED);
        }
    });
}

/// A check that does not fit in its call is paid for in advance, and anybody may finish it.
#[test]
fn a_check_waits_for_anybody_to_continue_it() {
    with_sandbox("partition::a_check_waits_for_anybody_to_continue_it", || async {
        let (mut net, channels) = chain(&[ANCHOR, "alice", "bob"]).await;
        refused(net.act("alice", method::CHECK, json!({})).await, code::NO_CHECK);
        let args = json!({ "order": order(&net, "alice", channels[1]) });
        let unpaid = net.call_with_gas("alice", method::SEVER, args, Yocto::ZERO, LITTLE_GAS).await;
        refused(unpaid, code::DEPOSIT);

        net.sever_and_leave(ANCHOR, "alice", channels[1]).await;
        let (closed_ms, _) = net.severed(channels[1]).await;
        let checks: ChecksView = net.view(method::CHECKS, json!({})).await;
        let head = checks.head.expect("a check");
        assert_eq!((checks.checks, head.channel, head.closed_ms), (1, channels[1], closed_ms));
        assert!(net.node("bob").await.attached, "nothing is known yet");
        assert_eq!(net.attachment("bob").await.final_until_ms, closed_ms);
        // What is asked for meanwhile waits too.
        net.open("alice", "bob", ONE, ONE).await;
        net.pass(30_000).await;

        net.check("bob").await;
        let closed: ChecksView = net.view(method::CHECKS, json!({})).await;
        assert_eq!((closed.checks, closed.waiting, closed.head), (0, 0, None));
        // As of the close there was no other edge.
        assert!(!net.node("bob").await.attached);
        let until = net.attachment("bob").await.final_until_ms;
        let from = closed_ms + 1;
        assert_eq!(net.downtime("bob", from, until).await, until - from);
        net.ping("bob", "alice").await;
        let again = json!({ "through": net.account("alice") });
        refused(net.act("bob", method::PING, again).await, code::ATTACHED);
    });
}
