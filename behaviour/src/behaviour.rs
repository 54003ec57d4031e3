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
use libp2p_swarm::behaviour::{ConnectionClosed, ConnectionEstablished, DialFailure};
use libp2p_swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p_swarm::{
    CloseConnection, ConnectionDenied, ConnectionId, FromSwarm, NetworkBehaviour, NotifyHandler, THandler,
    THandlerInEvent, THandlerOutEvent, ToSwarm,
};
use por_core::ConnId;
use por_core::types::NodeKey;

use crate::config::Config;
use crate::handler::{Failure, FromBehaviour, Handler, ToBehaviour};
use crate::link::{FromHandler, Shared};
use crate::peer::{node_key, peer_id};

/// What happens to peers. Requests and payments are told by [`crate::Control`], not here.
#[derive(Debug)]
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

/// Redialling of a peer that is wanted and not connected.
#[derive(Debug)]
struct Redial {
    delay: Duration,
    due: Instant,
}

/// The [`NetworkBehaviour`]. Invariant: `connections` holds exactly the established connections, and
/// a handler exists for each of them.
pub struct Behaviour {
    config: Arc<Config>,
    pub(crate) shared: Arc<Shared>,
    pub(crate) to_driver: mpsc::Sender<FromHandler>,
    from_driver: mpsc::Receiver<Event>,
    wanted: Arc<HashSet<NodeKey>>,
    connections: HashMap<PeerId, HashSet<ConnectionId>>,
    redials: HashMap<PeerId, Redial>,
    timer: Option<Delay>,
    next_conn: u64,
    actions: VecDeque<ToSwarm<Event, FromBehaviour>>,
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
            connections: HashMap::new(),
            redials: HashMap::new(),
            timer: None,
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
        let new = self.shared.wanted();
        if Arc::ptr_eq(&new, &self.wanted) {
            return;
        }
        let old = std::mem::replace(&mut self.wanted, new);
        let wanted = Arc::clone(&self.wanted);
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
                self.schedule(peer, Duration::ZERO);
            } else {
                self.redials.remove(&peer);
            }
        }
    }

    fn is_wanted(&self, peer: &PeerId) -> bool {
        node_key(peer).is_some_and(|node| self.wanted.contains(&node))
    }

    /// Plans the next dial of a peer, if dialling is this behaviour's business.
    fn schedule(&mut self, peer: PeerId, wait: Duration) {
        let Some((first, _)) = self.config.redial else { return };
        let due = Instant::now() + wait;
        let redial = self.redials.entry(peer).or_insert(Redial { delay: first, due });
        redial.due = due;
        self.timer = None;
    }

    /// After a failure or a loss: twice the last delay.
    fn back_off(&mut self, peer: PeerId) {
        let Some((first, longest)) = self.config.redial else { return };
        if !self.is_wanted(&peer) || self.connections.contains_key(&peer) {
            return;
        }
        let now = Instant::now();
        let redial = self.redials.entry(peer).or_insert(Redial { delay: first, due: now });
        redial.due = now + redial.delay;
        redial.delay = (redial.delay * 2).min(longest);
        self.timer = None;
    }

    fn poll_redials(&mut self, cx: &mut Context<'_>) {
        loop {
            let now = Instant::now();
            let due: Vec<PeerId> =
                self.redials.iter().filter(|(_, redial)| redial.due <= now).map(|(peer, _)| *peer).collect();
            for peer in due {
                self.dial(peer);
            }
            let Some(next) = self.redials.values().map(|redial| redial.due).min() else { return };
            let wait = next.saturating_duration_since(now);
            let timer = self.timer.get_or_insert_with(|| Delay::new(wait));
            if Pin::new(timer).poll(cx).is_pending() {
                return;
            }
            self.timer = None;
        }
    }

    fn dial(&mut self, peer: PeerId) {
        if self.connections.contains_key(&peer) {
            self.redials.remove(&peer);
            return;
        }
        self.back_off(peer);
        let opts = DialOpts::peer_id(peer).condition(PeerCondition::DisconnectedAndNotDialing).build();
        self.actions.push_back(ToSwarm::Dial { opts });
    }

    fn on_closed(&mut self, closed: ConnectionClosed<'_>) {
        let ConnectionClosed { peer_id, connection_id, .. } = closed;
        if let Some(connections) = self.connections.get_mut(&peer_id) {
            connections.remove(&connection_id);
            if connections.is_empty() {
                self.connections.remove(&peer_id);
                self.back_off(peer_id);
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
                self.redials.remove(&peer_id);
                // `wanted` may have changed since the handler was made.
                let event = FromBehaviour::Wanted(self.is_wanted(&peer_id));
                let handler = NotifyHandler::One(connection_id);
                self.actions.push_back(ToSwarm::NotifyHandler { peer_id, handler, event });
            }
            FromSwarm::ConnectionClosed(closed) => self.on_closed(closed),
            // The next delay has been planned with the dial; this only makes sure that there is one.
            FromSwarm::DialFailure(DialFailure { peer_id: Some(peer), .. })
                if !self.redials.contains_key(&peer) =>
            {
                self.back_off(peer);
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
            ToBehaviour::Ready => return,
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
