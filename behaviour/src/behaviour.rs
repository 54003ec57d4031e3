//! The part that lives in the swarm: makes handlers, keeps counterparties connected, tells what
//! happens to connections.

use std::collections::{HashMap, HashSet, VecDeque};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use futures::channel::mpsc;
use futures::{Future, StreamExt};
use futures_timer::Delay;
use libp2p_core::transport::PortUse;
use libp2p_core::{Endpoint, Multiaddr};
use libp2p_identity::PeerId;
use libp2p_swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure, NewExternalAddrOfPeer};
use libp2p_swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p_swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use por_core::ConnId;
use por_core::types::NodeKey;

use crate::addresses::Addresses;
use crate::config::Config;
use crate::handler::{Failure, FromBehaviour, Handler, ToBehaviour};
use crate::link::{FromHandler, Shared};
use crate::peer::{node_key, peer_id};

/// What happens to peers. Requests and payments are told by [`crate::Control`], not here. While the swarm is
/// not polled, no more than 256 of the driver's wait: what comes then is lost, with a warning.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Both ends have agreed on all states and unfinished exchanges: requests flow.
    PeerReady { peer: PeerId },
    /// No connection with the peer is left on which the protocol runs.
    PeerLost { peer: PeerId },
    /// The protocol cannot run, or no longer runs, on this connection.
    Failed { peer: PeerId, connection: ConnectionId, failure: Failure },
    /// The peer broke the protocol and is being disconnected.
    Misbehaved { peer: PeerId, reason: String },
}

/// Redialling of a wanted peer, from a loss or a failure until the protocol runs on a connection with it:
/// a connection on which it fails does not make the next one come sooner.
#[derive(Debug)]
struct Redial {
    delay: Duration,
    /// `None` while there is a connection.
    due: Option<Instant>,
}

/// The [`NetworkBehaviour`]. Invariant: `connections` holds exactly the established connections, and
/// a handler exists for each of them.
pub struct Behaviour {
    config: Arc<Config>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) to_driver: mpsc::Sender<FromHandler>,
    from_driver: mpsc::Receiver<Event>,
    wanted: Arc<HashSet<NodeKey>>,
    addresses: Addresses,
    connections: HashMap<PeerId, HashSet<ConnectionId>>,
    redials: HashMap<PeerId, Redial>,
    timer: Option<Delay>,
    /// The driver has ended, and handlers were told.
    stopped: bool,
    next_conn: u64,
    actions: VecDeque<ToSwarm<Event, FromBehaviour>>,
}

impl std::fmt::Debug for Behaviour {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Behaviour")
            .field("wanted", &self.wanted)
            .field("connections", &self.connections)
            .field("redials", &self.redials)
            .finish_non_exhaustive()
    }
}

impl Behaviour {
    pub(crate) fn new(
        config: Arc<Config>,
        shared: Arc<Shared>,
        to_driver: mpsc::Sender<FromHandler>,
        from_driver: mpsc::Receiver<Event>,
    ) -> Behaviour {
        Behaviour {
            config,
            shared,
            to_driver,
            from_driver,
            wanted: Arc::default(),
            addresses: Addresses::default(),
            connections: HashMap::new(),
            redials: HashMap::new(),
            timer: None,
            stopped: false,
            next_conn: 0,
            actions: VecDeque::new(),
        }
    }

    fn handler(&mut self, peer: &PeerId) -> Handler {
        self.next_conn += 1;
        let node = node_key(peer);
        let wanted = node.is_some_and(|node| self.wanted.contains(&node));
        Handler::new(
            ConnId(self.next_conn),
            node,
            Arc::clone(&self.config),
            Arc::clone(&self.shared),
            self.to_driver.clone(),
            wanted,
        )
    }

    /// Tells handlers what has changed, and dials who is missing.
    fn update_wanted(&mut self) {
        if self.shared.is_stopped() {
            return self.stop();
        }
        let new = self.shared.wanted();
        if Arc::ptr_eq(&new, &self.wanted) {
            return;
        }
        let old = std::mem::replace(&mut self.wanted, new);
        let wanted = Arc::clone(&self.wanted);
        self.addresses.want(&wanted.iter().filter_map(peer_id).collect());
        for node in wanted.symmetric_difference(&old) {
            let Some(peer) = peer_id(node) else { continue };
            let now_wanted = wanted.contains(node);
            for connection in self.connections.get(&peer).into_iter().flatten() {
                self.actions.push_back(ToSwarm::NotifyHandler {
                    peer_id: peer,
                    handler: NotifyHandler::One(*connection),
                    event: FromBehaviour::Wanted(now_wanted),
                });
            }
            if now_wanted {
                self.dial_now(peer);
            } else {
                self.redials.remove(&peer);
            }
        }
    }

    /// Without a driver there is nothing to do with anybody. Every handler finds out once it is woken.
    fn stop(&mut self) {
        if std::mem::replace(&mut self.stopped, true) {
            return;
        }
        self.wanted = Arc::default();
        self.redials.clear();
        self.timer = None;
        for (peer, connections) in &self.connections {
            self.actions.extend(connections.iter().map(|connection| ToSwarm::NotifyHandler {
                peer_id: *peer,
                handler: NotifyHandler::One(*connection),
                event: FromBehaviour::Wanted(false),
            }));
        }
    }

    fn is_wanted(&self, peer: &PeerId) -> bool {
        node_key(peer).is_some_and(|node| self.wanted.contains(&node))
    }

    /// The redialling of a peer, if that is this behaviour's business and there is no connection.
    fn redial(&mut self, peer: PeerId) -> Option<&mut Redial> {
        let (first, _) = self.config.redial?;
        if !self.is_wanted(&peer) || self.connections.contains_key(&peer) {
            return None;
        }
        // When it is due is about to change.
        self.timer = None;
        Some(self.redials.entry(peer).or_insert(Redial { delay: first, due: None }))
    }

    fn dial_now(&mut self, peer: PeerId) {
        if let Some(redial) = self.redial(peer) {
            redial.due = Some(Instant::now());
        }
    }

    /// After a loss or a failure.
    fn dial_later(&mut self, peer: PeerId) {
        if let Some(redial) = self.redial(peer) {
            redial.due = Some(Instant::now() + redial.delay);
        }
    }

    fn poll_redials(&mut self, cx: &mut Context<'_>) {
        loop {
            let now = Instant::now();
            let due: Vec<PeerId> = self
                .redials
                .iter()
                .filter(|(_, redial)| redial.due.is_some_and(|due| due <= now))
                .map(|(peer, _)| *peer)
                .collect();
            for peer in due {
                self.dial(peer);
            }
            let Some(next) = self.redials.values().filter_map(|redial| redial.due).min() else { return };
            let wait = next.saturating_duration_since(now);
            let timer = self.timer.get_or_insert_with(|| Delay::new(wait));
            if Pin::new(timer).poll(cx).is_pending() {
                return;
            }
            self.timer = None;
        }
    }

    fn dial(&mut self, peer: PeerId) {
        // The next one is planned already: nothing may come of this one. It waits twice as long.
        self.dial_later(peer);
        let longest = self.config.redial.map_or(Duration::MAX, |(_, longest)| longest);
        let Some(redial) = self.redial(peer) else {
            // Connected, or not wanted any more.
            self.redials.remove(&peer);
            return;
        };
        redial.delay = redial.delay.saturating_mul(2).min(longest);
        let opts = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build();
        self.actions.push_back(ToSwarm::Dial { opts });
    }

    fn on_closed(&mut self, closed: ConnectionClosed<'_>) {
        let ConnectionClosed { peer_id, connection_id, .. } = closed;
        if let Some(connections) = self.connections.get_mut(&peer_id) {
            connections.remove(&connection_id);
            if connections.is_empty() {
                self.connections.remove(&peer_id);
                self.dial_later(peer_id);
            }
        }
    }
}

impl NetworkBehaviour for Behaviour {
    type ConnectionHandler = Handler;
    type ToSwarm = Event;

    fn handle_established_inbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: &Multiaddr,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer))
    }

    /// A counterparty is dialled where the swarm was told that it is, whoever dials.
    fn handle_pending_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: Option<PeerId>,
        _: &[Multiaddr],
        _: Endpoint,
    ) -> Result<Vec<Multiaddr>, ConnectionDenied> {
        Ok(peer.map(|peer| self.addresses.of(&peer)).unwrap_or_default())
    }

    fn handle_established_outbound_connection(
        &mut self,
        _: ConnectionId,
        peer: PeerId,
        _: &Multiaddr,
        _: Endpoint,
        _: PortUse,
    ) -> Result<THandler<Self>, ConnectionDenied> {
        Ok(self.handler(&peer))
    }

    fn on_swarm_event(&mut self, event: FromSwarm<'_>) {
        match event {
            FromSwarm::ConnectionEstablished(ConnectionEstablished { peer_id, connection_id, .. }) => {
                self.connections.entry(peer_id).or_default().insert(connection_id);
                if let Some(redial) = self.redials.get_mut(&peer_id) {
                    redial.due = None;
                }
                // `wanted` may have changed since the handler was made.
                let event = FromBehaviour::Wanted(self.is_wanted(&peer_id));
                let handler = NotifyHandler::One(connection_id);
                self.actions.push_back(ToSwarm::NotifyHandler { peer_id, handler, event });
            }
            FromSwarm::ConnectionClosed(closed) => self.on_closed(closed),
            FromSwarm::NewExternalAddrOfPeer(NewExternalAddrOfPeer { peer_id, addr }) => {
                self.addresses.add(peer_id, addr.clone());
            }
            // The next delay has been planned with the dial; this only makes sure that there is one.
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), .. })
                if self.redials.get(&peer).is_none_or(|redial| redial.due.is_none()) =>
            {
                self.dial_later(peer);
            }
            _ => {}
        }
    }

    fn on_connection_handler_event(
        &mut self,
        peer: PeerId,
        connection: ConnectionId,
        event: THandlerOutEvent<Self>,
    ) {
        let (failure, close) = match event {
            ToBehaviour::Ready => {
                self.redials.remove(&peer);
                return;
            }
            ToBehaviour::Close(failure) => (failure, true),
            // A fresh connection may do better; with the others nothing would change.
            ToBehaviour::Unusable(failure) => {
                let may_pass =
                    matches!(failure, Failure::Handshake | Failure::Substream(_) | Failure::Lane(_));
                let close = may_pass && self.is_wanted(&peer);
                (failure, close)
            }
        };
        if close {
            self.actions.push_back(ToSwarm::CloseConnection {
                peer_id: peer,
                connection: CloseConnection::One(connection),
            });
        }
        self.actions.push_back(ToSwarm::GenerateEvent(Event::Failed { peer, connection, failure }));
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<ToSwarm<Event, THandlerInEvent<Self>>> {
        self.shared.register_behaviour(cx.waker());
        self.update_wanted();
        self.poll_redials(cx);
        if let Some(action) = self.actions.pop_front() {
            return Poll::Ready(action);
        }
        match self.from_driver.poll_next_unpin(cx) {
            Poll::Ready(Some(event)) => Poll::Ready(ToSwarm::GenerateEvent(event)),
            // The driver has ended: its events are over, the swarm goes on without it.
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use libp2p_core::ConnectedPoint;
    use libp2p_core::transport::TransportError;
    use libp2p_swarm::DialError;
    use por_core::types::{Network, NodeSecret};

    use super::*;
    use crate::driver::{Driver, assemble};
    use crate::{Control, MemoryStore};

    const FIRST: Duration = Duration::from_millis(10);
    const LONGEST: Duration = Duration::from_millis(40);

    fn parts() -> (Behaviour, Control, Driver) {
        let network =
            Network { chain_id: "test".to_owned(), contract: "por.test".parse().expect("an account") };
        let config = Config::new(network).with_redial(Some((FIRST, LONGEST)));
        let secret = NodeSecret::from_seed(&[1; 32]);
        assemble(config, secret, Box::new(MemoryStore::default())).expect("an empty store loads")
    }

    /// All that it wants now.
    fn actions(behaviour: &mut Behaviour) -> Vec<ToSwarm<Event, FromBehaviour>> {
        let mut cx = Context::from_waker(Waker::noop());
        let mut actions = Vec::new();
        while let Poll::Ready(action) = behaviour.poll(&mut cx) {
            actions.push(action);
        }
        actions
    }

    fn dials(behaviour: &mut Behaviour) -> bool {
        actions(behaviour).iter().any(|action| matches!(action, ToSwarm::Dial { .. }))
    }

    fn peer() -> (NodeKey, PeerId) {
        let node = NodeSecret::from_seed(&[2; 32]).public();
        (node, peer_id(&node).expect("a key"))
    }

    fn establish(behaviour: &mut Behaviour, connection_id: ConnectionId) {
        let event = ConnectionEstablished {
            peer_id: peer().1,
            connection_id,
            endpoint: &ConnectedPoint::Listener {
                local_addr: Multiaddr::empty(),
                send_back_addr: Multiaddr::empty(),
            },
            failed_addresses: &[],
            other_established: 0,
        };
        behaviour.on_swarm_event(FromSwarm::ConnectionEstablished(event));
    }

    fn close(behaviour: &mut Behaviour, connection_id: ConnectionId) {
        let event = ConnectionClosed {
            peer_id: peer().1,
            connection_id,
            endpoint: &ConnectedPoint::Listener {
                local_addr: Multiaddr::empty(),
                send_back_addr: Multiaddr::empty(),
            },
            cause: None,
            remaining_established: 0,
        };
        behaviour.on_swarm_event(FromSwarm::ConnectionClosed(event));
    }

    /// A connection on which `told` happens, and which then closes. Dialled at once the next time, whatever
    /// the delay; that is returned.
    fn delay_after(behaviour: &mut Behaviour, number: usize, told: ToBehaviour) -> Duration {
        let connection = ConnectionId::new_unchecked(number);
        establish(behaviour, connection);
        assert!(!dials(behaviour), "it is connected");
        behaviour.on_connection_handler_event(peer().1, connection, told);
        close(behaviour, connection);
        let delay = behaviour.redials[&peer().1].delay;
        assert!(behaviour.redials[&peer().1].due.is_some());
        behaviour.dial_now(peer().1);
        assert!(dials(behaviour));
        delay
    }

    #[test]
    fn a_peer_on_which_the_protocol_always_fails_is_dialled_ever_more_slowly() {
        let (mut behaviour, _control, _driver) = parts();
        behaviour.shared.want([peer().0].into());
        assert!(dials(&mut behaviour));
        let fails = || ToBehaviour::Unusable(Failure::NoHello);
        let delays: Vec<Duration> = (0..3).map(|n| delay_after(&mut behaviour, n, fails())).collect();
        assert_eq!(delays, [2 * FIRST, LONGEST, LONGEST]);
        assert_eq!(delay_after(&mut behaviour, 3, ToBehaviour::Ready), FIRST, "it has worked");
        assert_eq!(delay_after(&mut behaviour, 4, fails()), 2 * FIRST);
    }

    #[test]
    fn a_counterparty_is_dialled_at_the_addresses_that_the_swarm_was_told_also_after_a_failure() {
        let (mut behaviour, _control, _driver) = parts();
        let (node, peer) = peer();
        let addr: Multiaddr = "/ip4/127.0.0.1/tcp/1".parse().expect("an address");
        // Before it is known that there is a channel with it.
        let told = NewExternalAddrOfPeer { peer_id: peer, addr: &addr };
        behaviour.on_swarm_event(FromSwarm::NewExternalAddrOfPeer(told));
        behaviour.shared.want([node].into());
        assert!(dials(&mut behaviour));
        let connection = ConnectionId::new_unchecked(1);
        let whole = addr.clone().with_p2p(peer).expect("no peer yet");
        let found = |behaviour: &mut Behaviour| {
            behaviour
                .handle_pending_outbound_connection(connection, Some(peer), &[], Endpoint::Dialer)
                .expect("not denied")
        };
        assert_eq!(found(&mut behaviour), std::slice::from_ref(&whole));
        let refused = TransportError::Other(std::io::ErrorKind::ConnectionRefused.into());
        let error = DialError::Transport(vec![(whole.clone(), refused)]);
        let failure = DialFailure { peer_id: Some(peer), error: &error, connection_id: connection };
        behaviour.on_swarm_event(FromSwarm::DialFailure(failure));
        assert_eq!(found(&mut behaviour), [whole], "it may come back there");
    }

    #[test]
    fn without_a_driver_nobody_is_dialled_and_every_handler_is_told() {
        let (mut behaviour, _control, driver) = parts();
        behaviour.shared.want([peer().0].into());
        assert!(dials(&mut behaviour));
        let connection = ConnectionId::new_unchecked(1);
        establish(&mut behaviour, connection);
        actions(&mut behaviour);
        drop(driver);
        let told = actions(&mut behaviour);
        let is_told = |action: &ToSwarm<Event, FromBehaviour>| {
            matches!(
                action,
                ToSwarm::NotifyHandler { handler: NotifyHandler::One(one), event: FromBehaviour::Wanted(false), .. }
                    if *one == connection
            )
        };
        assert!(told.iter().any(is_told), "an idle one would not notice: {told:?}");
        close(&mut behaviour, connection);
        assert!(!dials(&mut behaviour));
        assert!(behaviour.redials.is_empty(), "{:?}", behaviour.redials);
    }
}
