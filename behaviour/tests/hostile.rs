//! Peers that break the protocol below the state machine: they are dropped, with the exact cause,
//! and nobody else notices.

mod support;

use std::convert::Infallible;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::core::Endpoint;
use libp2p::core::transport::PortUse;
use libp2p::core::upgrade::{DeniedUpgrade, ReadyUpgrade};
use libp2p::swarm::handler::ConnectionEvent;
use libp2p::swarm::{
    ConnectionDenied, ConnectionHandler, ConnectionHandlerEvent, ConnectionId, FromSwarm, NetworkBehaviour,
    Stream, SubstreamProtocol, SwarmEvent, ToSwarm,
};
use libp2p::{Multiaddr, PeerId, StreamProtocol};
use libp2p_por as por;
use libp2p_stream as stream;
use libp2p_swarm_test::SwarmExt;
use por::por_core::types::Network;
use por::por_core::wire::{Frame, Hello, Lane, Sync};
use por::por_core::{Limits, RejectReason, codec};
use por::{Config, MemoryStore};
use support::{IDLE, TestNode, account, bounded, join_row, network, request, serve};
use tokio::sync::{Notify, mpsc};

const PROTOCOL: StreamProtocol = StreamProtocol::new(por::PROTOCOL_NAME);

#[derive(NetworkBehaviour)]
#[behaviour(prelude = "libp2p_swarm::derive_prelude")]
struct Raw {
    opens: stream::Behaviour,
    accepts: Accepts,
}

/// Takes whatever the other side opens. (`libp2p_stream` drops the second of two that come at once.)
struct Accepts(mpsc::UnboundedSender<Stream>);

impl NetworkBehaviour for Accepts {
    type ConnectionHandler = Accepts;
    type ToSwarm = Infallible;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<Accepts, ConnectionDenied> {
        Ok(Accepts(self.0.clone()))
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        _: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<Accepts, ConnectionDenied> {
        Ok(Accepts(self.0.clone()))
    }

    fn on_swarm_event(&mut self, _: FromSwarm<'_>) {}

    fn on_connection_handler_event(&mut self, _: PeerId, _: ConnectionId, never: Infallible) {
        match never {}
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ToSwarm<Infallible, Infallible>> {
        Poll::Pending
    }
}

impl ConnectionHandler for Accepts {
    type FromBehaviour = Infallible;
    type ToBehaviour = Infallible;
    type InboundProtocol = ReadyUpgrade<StreamProtocol>;
    type OutboundProtocol = DeniedUpgrade;
    type InboundOpenInfo = ();
    type OutboundOpenInfo = ();

    fn listen_protocol(&self) -> SubstreamProtocol<ReadyUpgrade<StreamProtocol>> {
        SubstreamProtocol::new(ReadyUpgrade::new(PROTOCOL), ())
    }

    fn poll(&mut self, _: &mut Context<'_>) -> Poll<ConnectionHandlerEvent<DeniedUpgrade, (), Infallible>> {
        Poll::Pending
    }

    fn on_behaviour_event(&mut self, never: Infallible) {
        match never {}
    }

    fn on_connection_event(
        &mut self,
        event: ConnectionEvent<'_, ReadyUpgrade<StreamProtocol>, DeniedUpgrade>,
    ) {
        if let ConnectionEvent::FullyNegotiatedInbound(accepted) = event {
            let _ = self.0.send(accepted.protocol);
        }
    }
}

/// A peer that writes whatever it likes on the protocol's substreams.
struct Hostile {
    peer: PeerId,
    control: stream::Control,
    /// What the victim opens.
    accepted: mpsc::UnboundedReceiver<Stream>,
    hang_up: Arc<Notify>,
    hung_up: Arc<Notify>,
}

impl Hostile {
    /// Connects to `victim` and keeps the connection open.
    async fn connect(victim: &TestNode) -> Hostile {
        let (accepts, accepted) = mpsc::unbounded_channel();
        let raw = Raw { opens: stream::Behaviour::new(), accepts: Accepts(accepts) };
        let (mut swarm, _) = support::swarm(IDLE, |_| raw).await;
        let control = swarm.behaviour().opens.new_control();
        let hang_up = Arc::new(Notify::new());
        let hung_up = Arc::new(Notify::new());
        let (ordered, done) = (Arc::clone(&hang_up), Arc::clone(&hung_up));
        let peer = *swarm.local_peer_id();
        let connected = swarm.dial_and_wait(victim.address.clone());
        bounded("connect", connected).await;
        let victim = victim.peer;
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    event = swarm.select_next_some() => {
                        if matches!(event, SwarmEvent::ConnectionClosed { .. }) {
                            done.notify_one();
                        }
                    }
                    () = ordered.notified() => drop(swarm.disconnect_peer_id(victim)),
                }
            }
        });
        Hostile { peer, control, accepted, hang_up, hung_up }
    }

    async fn open(&mut self, victim: &TestNode) -> Stream {
        bounded("open", self.control.open_stream(victim.peer, PROTOCOL)).await.expect("accepted")
    }

    async fn write(&mut self, victim: &TestNode, bytes: &[u8]) -> Stream {
        let mut stream = self.open(victim).await;
        stream.write_all(bytes).await.expect("open");
        stream.flush().await.expect("open");
        stream
    }
}

fn hello(network: Network, lane: Lane) -> Vec<u8> {
    let mut bytes = BytesMut::new();
    codec::encode(&Frame::Hello(Hello::new(network, lane, &Limits::default())), &mut bytes);
    bytes.to_vec()
}

async fn failure(victim: &mut TestNode, peer: PeerId) -> String {
    let event = victim
        .event(|event| matches!(event, por::Event::Failed { peer: failed, .. } if *failed == peer))
        .await;
    match event {
        por::Event::Failed { failure, .. } => failure.to_string(),
        other => panic!("waited for Failed, got {other:?}"),
    }
}

/// The victim still serves others.
async fn assert_works(nodes: &[TestNode]) {
    let body = bytes::Bytes::from_static(b"still here");
    let pending = nodes[0]
        .control
        .request(request(nodes, body.clone(), 10, por::por_core::types::Yocto::ZERO))
        .await
        .expect("sent");
    match bounded("outcome", pending.outcome()).await.expect("runs") {
        por::Outcome::Response { body: answer, .. } => assert_eq!(answer, body),
        por::Outcome::Rejected { reason, .. } => panic!("rejected: {reason}"),
        por::Outcome::Severed { order, .. } => panic!("severed: {order:?}"),
    }
}

async fn victim_and_friend() -> Vec<TestNode> {
    let config = || Config::new(network()).with_redial(None).with_stall_timeout(Duration::from_millis(500));
    let mut nodes = vec![TestNode::start().await, TestNode::with(config(), MemoryStore::default()).await];
    join_row(&mut nodes).await;
    nodes
}

#[tokio::test]
async fn garbage_instead_of_hello() {
    let mut nodes = victim_and_friend().await;
    let _server = serve(&nodes[1], |body| body.clone()).await;
    let mut hostile = Hostile::connect(&nodes[1]).await;
    let _stream = hostile.write(&nodes[1], &[0, 0, 0, 4, 1, 0xff, 0xff, 0xff]).await;
    let why = failure(&mut nodes[1], hostile.peer).await;
    assert!(why.contains("malformed"), "{why}");
    assert_works(&nodes).await;
}

#[tokio::test]
async fn a_lane_that_does_not_begin_with_hello() {
    let mut nodes = victim_and_friend().await;
    let mut hostile = Hostile::connect(&nodes[1]).await;
    let mut bytes = BytesMut::new();
    codec::encode(
        &Frame::Done(por::por_core::wire::Done { exchanges: Vec::new(), receipts: Vec::new() }),
        &mut bytes,
    );
    let _stream = hostile.write(&nodes[1], &bytes).await;
    let why = failure(&mut nodes[1], hostile.peer).await;
    assert!(why.contains("Hello"), "{why}");
}

#[tokio::test]
async fn an_oversized_frame_is_refused_by_its_length_alone() {
    let mut nodes = victim_and_friend().await;
    let _server = serve(&nodes[1], |body| body.clone()).await;
    let mut hostile = Hostile::connect(&nodes[1]).await;
    let mut bytes = BytesMut::new();
    bytes.put_u32(u32::MAX);
    let _stream = hostile.write(&nodes[1], &bytes).await;
    let why = failure(&mut nodes[1], hostile.peer).await;
    assert!(why.contains("4294967295"), "{why}");
    assert_works(&nodes).await;
}

#[tokio::test]
async fn a_frame_that_never_ends_stalls_out() {
    let mut nodes = victim_and_friend().await;
    let mut hostile = Hostile::connect(&nodes[1]).await;
    let _stream = hostile.write(&nodes[1], &[0, 0, 1, 0, 1, 0xa1]).await;
    let why = failure(&mut nodes[1], hostile.peer).await;
    assert!(why.contains("stalled"), "{why}");
}

#[tokio::test]
async fn a_foreign_network_is_named() {
    let mut nodes = victim_and_friend().await;
    let mut hostile = Hostile::connect(&nodes[1]).await;
    let foreign = Network { chain_id: "mainnet".to_owned(), contract: account("other.near") };
    let _stream = hostile.write(&nodes[1], &hello(foreign, Lane::Control)).await;
    let why = failure(&mut nodes[1], hostile.peer).await;
    assert!(why.contains("mainnet") && why.contains("other.near"), "{why}");
}

#[tokio::test]
async fn another_version_is_named() {
    let mut nodes = victim_and_friend().await;
    let mut hostile = Hostile::connect(&nodes[1]).await;
    let mut bytes = BytesMut::new();
    let hello = Hello::new(network(), Lane::Control, &Limits::default());
    codec::encode(&Frame::Hello(Hello { version: 77, ..hello }), &mut bytes);
    let _stream = hostile.write(&nodes[1], &bytes).await;
    let why = failure(&mut nodes[1], hostile.peer).await;
    assert!(why.contains("77"), "{why}");
}

#[tokio::test]
async fn two_control_lanes_are_one_too_many() {
    let mut nodes = victim_and_friend().await;
    let mut hostile = Hostile::connect(&nodes[1]).await;
    let bytes = hello(network(), Lane::Control);
    let (mut first, mut second) = (hostile.open(&nodes[1]).await, hostile.open(&nodes[1]).await);
    first.write_all(&bytes).await.expect("open");
    second.write_all(&bytes).await.expect("open");
    let _ = futures::future::join(first.flush(), second.flush()).await;
    let why = failure(&mut nodes[1], hostile.peer).await;
    assert!(why.contains("twice"), "{why}");
}

#[tokio::test]
async fn more_substreams_than_lanes_are_reset() {
    let nodes = victim_and_friend().await;
    let _server = serve(&nodes[1], |body| body.clone()).await;
    let mut hostile = Hostile::connect(&nodes[1]).await;
    let mut open = Vec::new();
    for _ in 0..2 {
        open.push(hostile.open(&nodes[1]).await);
    }
    for _ in 0..20 {
        // Negotiated and then dropped by the victim: a read ends.
        let mut third = hostile.open(&nodes[1]).await;
        let mut byte = [0];
        let end = bounded("reset", third.read(&mut byte)).await;
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }
    drop(open);
    assert_works(&nodes).await;
}

/// The third node has read of its channel with the second before the second has: it asks nothing over it, and
/// can as soon as the second says that it sees it.
#[tokio::test]
async fn a_channel_is_used_once_both_ends_see_it() {
    let mut nodes = [TestNode::start().await, TestNode::start().await, TestNode::start().await];
    join_row(&mut nodes[..2]).await;
    let _server = serve(&nodes[1], |body| body.clone()).await;
    let keys = [nodes[2].key, nodes[1].key];
    let (mut edges, mut mine) = support::chain(&keys);
    let unseen = por::por_core::types::ChannelId(7);
    edges[0].channel = unseen;
    mine.iter_mut().flatten().for_each(|channel| channel.channel = unseen);
    nodes[2].control.update_graph(1, 1, edges.clone()).await.expect("runs");
    nodes[2].control.set_channels(mine[0].clone()).await.expect("runs");
    nodes[2].dial(&nodes[1]);
    let peer = nodes[1].peer;
    nodes[2].ready_with(peer).await;
    let mut order =
        request(&nodes[1..2], bytes::Bytes::from_static(b"x"), 1, por::por_core::types::Yocto::ZERO);
    order.route = vec![support::hop(unseen, nodes[1].key, 1, 1)];
    let refused = nodes[2].control.request(order.clone()).await;
    assert!(matches!(refused, Err(por::RequestError::Refused(RejectReason::Unreachable))), "{refused:?}");
    let (_, row) = support::chain(&[nodes[0].key, nodes[1].key]);
    let both = row[1].iter().chain(&mine[1]).cloned().collect();
    nodes[1].control.update_graph(2, 1, edges).await.expect("runs");
    nodes[1].control.set_channels(both).await.expect("runs");
    let pending = support::bounded("the channel is announced", async {
        loop {
            match nodes[2].control.request(order.clone()).await {
                Err(por::RequestError::Refused(RejectReason::Unreachable)) => tokio::task::yield_now().await,
                sent => return sent.expect("sent"),
            }
        }
    });
    let outcome = support::bounded("outcome", pending.await.outcome()).await.expect("runs");
    assert!(matches!(outcome, por::Outcome::Response { .. }), "{outcome:?}");
    for node in &mut nodes {
        while let Ok(event) = node.events.try_recv() {
            let fault = matches!(event, por::Event::Misbehaved { .. } | por::Event::PeerLost { .. });
            assert!(!fault, "{event:?}");
        }
    }
}

/// Begins a session, says so often, and breaks the protocol: the victim names the breach if it has read on
/// to the end.
fn last_words(times: usize) -> Vec<u8> {
    let sync = Sync { epoch: 1, complete: true, ..Sync::default() };
    let mut bytes = BytesMut::new();
    for _ in 0..times {
        codec::encode(&Frame::Sync(sync.clone()), &mut bytes);
    }
    bytes.extend(hello(network(), Lane::Control));
    bytes.to_vec()
}

async fn misbehaviour(victim: &mut TestNode, peer: PeerId) -> String {
    let event = victim
        .event(|event| matches!(event, por::Event::Misbehaved { peer: accused, .. } if *accused == peer))
        .await;
    match event {
        por::Event::Misbehaved { reason, .. } => reason,
        other => panic!("waited for Misbehaved, got {other:?}"),
    }
}

/// Else the last answer of a node that shuts down is lost until it returns.
#[tokio::test]
async fn what_a_peer_says_before_it_closes_its_lane_is_heard() {
    let mut nodes = victim_and_friend().await;
    let mut hostile = Hostile::connect(&nodes[1]).await;
    let mut control = hostile.open(&nodes[1]).await;
    control.write_all(&[hello(network(), Lane::Control), last_words(1)].concat()).await.expect("open");
    control.close().await.expect("open");
    let _bulk = hostile.write(&nodes[1], &hello(network(), Lane::Bulk)).await;
    let why = misbehaviour(&mut nodes[1], hostile.peer).await;
    assert!(why.contains("Hello inside"), "{why}");
}

async fn two_frames(mut lane: Stream) {
    for _ in 0..2 {
        let mut len = [0; 4];
        lane.read_exact(&mut len).await.expect("a length");
        let mut frame = vec![0; u32::from_be_bytes(len) as usize];
        lane.read_exact(&mut frame).await.expect("a frame");
    }
}

/// More than what waits for the driver on one connection, which has no turn meanwhile.
#[tokio::test]
async fn what_a_peer_says_before_it_hangs_up_is_heard() {
    let mut nodes = victim_and_friend().await;
    let mut hostile = Hostile::connect(&nodes[1]).await;
    let mut control = hostile.write(&nodes[1], &hello(network(), Lane::Control)).await;
    let _bulk = hostile.write(&nodes[1], &hello(network(), Lane::Bulk)).await;
    // The victim says Hello on both lanes, and more on one of them once it is ready.
    let mut lanes = Vec::new();
    for _ in 0..2 {
        let lane = bounded("a lane", hostile.accepted.recv()).await.expect("the swarm runs");
        lanes.push(Box::pin(two_frames(lane)));
    }
    let (_, _, _other) = bounded("a Sync", futures::future::select_all(lanes)).await;
    nodes[1].pause.set(true);
    control.write_all(&last_words(3_000)).await.expect("open");
    control.flush().await.expect("open");
    hostile.hang_up.notify_one();
    // The connection is gone on one side, and for the other has had the time to go.
    bounded("the end", hostile.hung_up.notified()).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    nodes[1].pause.set(false);
    let why = misbehaviour(&mut nodes[1], hostile.peer).await;
    assert!(why.contains("Hello inside"), "{why}");
}
