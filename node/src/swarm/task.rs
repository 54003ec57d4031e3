//! The swarm's event loop.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use libp2p::core::ConnectedPoint;
use libp2p::kad::{
    self, GetClosestPeersOk, GetProvidersOk, InboundRequest, ProviderRecord, QueryId, QueryResult,
    store::RecordStore as _,
};
use libp2p::multiaddr::Protocol;
use libp2p::swarm::SwarmEvent;
use libp2p::swarm::dial_opts::{DialOpts, PeerCondition};
use libp2p::{Multiaddr, PeerId, Swarm, identify, ping};
use tokio::sync::{mpsc, watch};

use super::announce::{Announcements, record_key};
use super::behaviour::{NodeBehaviour, NodeBehaviourEvent};
use super::boot::Boot;
use super::foreign::ForeignKeys;
use super::remembered::Remembered;
use super::{Command, KAD_PROTOCOL};
use crate::alarm::Alarm;
use crate::client::PeerInfo;

/// Most addresses taken from one peer's word.
const MAX_ADDRESSES: usize = 16;
/// Most peers whose descriptions are kept.
const MAX_PEERS: usize = 4096;
/// Time between lookups of the same peer.
const LOOKUP_INTERVAL: Duration = Duration::from_secs(5);

/// What is known of a peer.
#[derive(Default)]
struct Peer {
    addresses: Vec<Multiaddr>,
    agent: Option<String>,
    rtt: Option<Duration>,
    /// Established connections.
    connections: u32,
    /// Where it was dialled with success last.
    dialled: Option<Multiaddr>,
}

/// Runs the swarm; ends when all [`super::SwarmHandle`]s are gone.
#[must_use = "the swarm does nothing unless its task is run"]
pub struct SwarmTask {
    swarm: Swarm<NodeBehaviour>,
    commands: mpsc::Receiver<Command>,
    connected: watch::Sender<HashSet<PeerId>>,
    peers: HashMap<PeerId, Peer>,
    counterparties: HashSet<PeerId>,
    announcements: Announcements,
    searches: HashMap<QueryId, mpsc::Sender<PeerId>>,
    lookups: HashMap<QueryId, PeerId>,
    looked_up: HashMap<PeerId, Instant>,
    foreign: ForeignKeys,
    remembered: Remembered,
    boot: Boot,
    alarm: Alarm,
}

impl SwarmTask {
    pub(super) fn new(
        swarm: Swarm<NodeBehaviour>,
        commands: mpsc::Receiver<Command>,
        connected: watch::Sender<HashSet<PeerId>>,
        remembered: Remembered,
        boot: Boot,
        alarm: Alarm,
    ) -> SwarmTask {
        SwarmTask {
            swarm,
            commands,
            connected,
            peers: HashMap::new(),
            counterparties: HashSet::new(),
            announcements: Announcements::default(),
            searches: HashMap::new(),
            lookups: HashMap::new(),
            looked_up: HashMap::new(),
            foreign: ForeignKeys::default(),
            remembered,
            boot,
            alarm,
        }
    }

    /// Raised when the task of a connection has failed.
    pub(crate) fn alarm(&self) -> Alarm {
        self.alarm.clone()
    }

    pub async fn run(mut self) {
        loop {
            let alone = self.connected.borrow().is_empty();
            tokio::select! {
                event = self.swarm.select_next_some() => self.on_event(event),
                command = self.commands.recv() => match command {
                    Some(command) => self.on_command(command),
                    None => return,
                },
                () = self.announcements.due() => {
                    self.announcements.announce_again(&mut self.swarm.behaviour_mut().kad);
                }
                () = self.boot.due(), if alone => self.boot.dial(&mut self.swarm),
            }
        }
    }

    fn on_command(&mut self, command: Command) {
        match command {
            Command::Counterparties(peers) => self.set_counterparties(peers),
            Command::Provide { key, done } => {
                let local = *self.swarm.local_peer_id();
                let kad = &mut self.swarm.behaviour_mut().kad;
                // The caller may have gone; the announcement stands.
                let _ = done.send(self.announcements.provide(kad, local, key));
            }
            Command::StopProviding { key } => {
                self.announcements.stop(&mut self.swarm.behaviour_mut().kad, &key);
            }
            Command::Providers { key, found } => {
                let query = self.swarm.behaviour_mut().kad.get_providers(record_key(&key));
                self.searches.insert(query, found);
            }
            Command::Peers { reply } => {
                let _ = reply.send(self.describe_peers());
            }
        }
    }

    fn set_counterparties(&mut self, peers: HashSet<PeerId>) {
        let limits = &mut self.swarm.behaviour_mut().limits;
        for gone in self.counterparties.difference(&peers) {
            limits.remove_peer_id(gone);
        }
        for new in peers.difference(&self.counterparties) {
            limits.bypass_peer_id(new);
        }
        self.looked_up.retain(|peer, _| peers.contains(peer));
        let new: Vec<PeerId> = peers.difference(&self.counterparties).copied().collect();
        self.counterparties = peers;
        for peer in new {
            self.remember(peer);
        }
    }

    /// Keeps a counterparty's addresses for the next start: first the one that it was reached at.
    fn remember(&mut self, id: PeerId) {
        let Some(peer) = self.peers.get(&id) else { return };
        if peer.connections == 0 || !self.counterparties.contains(&id) {
            return;
        }
        let mut addresses: Vec<Multiaddr> = Vec::new();
        for address in peer.dialled.iter().chain(&peer.addresses) {
            let plain = without_peer(address);
            if !addresses.contains(&plain) {
                addresses.push(plain);
            }
        }
        self.remembered.put(id, addresses, &self.counterparties);
    }

    fn describe_peers(&self) -> Vec<PeerInfo> {
        let describe = |(id, peer): (&PeerId, &Peer)| PeerInfo {
            peer_id: id.to_string(),
            node_key: libp2p_por::node_key(id),
            connected: peer.connections > 0,
            addresses: peer.addresses.iter().map(Multiaddr::to_string).collect(),
            agent: peer.agent.clone(),
            rtt_us: peer.rtt.map(|rtt| u64::try_from(rtt.as_micros()).unwrap_or(u64::MAX)),
        };
        let mut peers: Vec<PeerInfo> = self.peers.iter().map(describe).collect();
        peers.sort_by(|a, b| a.peer_id.cmp(&b.peer_id));
        peers
    }

    fn on_event(&mut self, event: SwarmEvent<NodeBehaviourEvent>) {
        match event {
            SwarmEvent::ConnectionEstablished { peer_id, endpoint, .. } => {
                let peer = self.peers.entry(peer_id).or_default();
                peer.connections = peer.connections.saturating_add(1);
                if let ConnectedPoint::Dialer { address, .. } = endpoint {
                    peer.dialled = Some(address);
                }
                self.remember(peer_id);
                self.connected.send_if_modified(|connected| connected.insert(peer_id));
            }
            SwarmEvent::ConnectionClosed { peer_id, num_established, .. } => {
                if let Some(peer) = self.peers.get_mut(&peer_id) {
                    peer.connections = num_established;
                }
                if num_established == 0 {
                    self.connected.send_if_modified(|connected| connected.remove(&peer_id));
                    if self.connected.borrow().is_empty() {
                        self.announcements.on_alone();
                        self.boot.on_alone();
                    }
                    self.forget_some();
                }
            }
            SwarmEvent::OutgoingConnectionError { peer_id: Some(peer), error, .. } => {
                tracing::debug!(%peer, %error, "dial failed");
                self.look_up(peer);
            }
            SwarmEvent::Behaviour(event) => self.on_behaviour(event),
            _ => {}
        }
    }

    fn on_behaviour(&mut self, event: NodeBehaviourEvent) {
        match event {
            NodeBehaviourEvent::Identify(identify::Event::Received { peer_id, info, .. }) => {
                self.on_identified(peer_id, info);
            }
            NodeBehaviourEvent::Ping(ping::Event { peer, result: Ok(rtt), .. }) => {
                if let Some(peer) = self.peers.get_mut(&peer) {
                    peer.rtt = Some(rtt);
                }
            }
            NodeBehaviourEvent::Kad(kad::Event::InboundRequest {
                request: InboundRequest::AddProvider { record: Some(record) },
            }) => self.on_provider_record(record),
            NodeBehaviourEvent::Kad(kad::Event::RoutingUpdated { peer, .. }) => self.hear(&peer),
            NodeBehaviourEvent::Kad(kad::Event::OutboundQueryProgressed { id, result, step, .. }) => {
                self.on_query(id, result, step.last);
            }
            NodeBehaviourEvent::Por(libp2p_por::Event::Misbehaved { peer, reason }) => {
                tracing::warn!(%peer, reason, "peer broke the protocol and was disconnected");
            }
            NodeBehaviourEvent::Por(libp2p_por::Event::Failed { peer, failure, .. }) => {
                tracing::info!(%peer, ?failure, "protocol ended on a connection");
            }
            NodeBehaviourEvent::Por(event) => tracing::debug!(?event, "protocol"),
            _ => {}
        }
    }

    fn on_identified(&mut self, peer_id: PeerId, info: identify::Info) {
        let serves_kad = info.protocols.iter().any(|protocol| protocol.as_ref() == KAD_PROTOCOL);
        let addresses: Vec<Multiaddr> = info.listen_addrs.into_iter().take(MAX_ADDRESSES).collect();
        if serves_kad {
            for address in &addresses {
                self.swarm.behaviour_mut().kad.add_address(&peer_id, address.clone());
            }
        }
        self.hear(&peer_id);
        let peer = self.peers.entry(peer_id).or_default();
        // Of a peer that names new ones all the time only the latest are dialled, and told to others.
        let before = std::mem::replace(&mut peer.addresses, addresses);
        // It is shown on terminals.
        peer.agent = Some(info.agent_version.chars().filter(|c| !c.is_control()).take(64).collect());
        for gone in before.iter().filter(|gone| !peer.addresses.contains(gone)) {
            self.swarm.behaviour_mut().kad.remove_address(&peer_id, gone);
        }
        self.remember(peer_id);
    }

    /// Whoever is connected and has a place in Kademlia's table can be told what this node provides.
    fn hear(&mut self, peer: &PeerId) {
        if !self.swarm.is_connected(peer) {
            return;
        }
        let bucket = self.swarm.behaviour_mut().kad.kbucket(*peer);
        if bucket.is_some_and(|bucket| bucket.iter().any(|entry| entry.node.key.preimage() == peer)) {
            self.announcements.on_listener();
        }
    }

    /// Provider records are kept only for providers that are nodes, and in bounded number.
    fn on_provider_record(&mut self, mut record: ProviderRecord) {
        let (key, provider, now) = (record.key.clone(), record.provider, Instant::now());
        let mut expired = Vec::new();
        let room = self.foreign.is_room(&key, &provider, now, &mut expired);
        let local = *self.swarm.local_peer_id();
        let store = self.swarm.behaviour_mut().kad.store_mut();
        for key in expired {
            for gone in store.providers(&key).into_iter().filter(|record| record.provider != local) {
                store.remove_provider(&key, &gone.provider);
            }
        }
        if !room || key.as_ref().len() != 32 || libp2p_por::node_key(&provider).is_none() {
            tracing::debug!(%provider, room, "provider record refused");
            return;
        }
        record.addresses.truncate(MAX_ADDRESSES);
        if store.add_provider(record).is_ok() {
            self.foreign.note(key, provider, now);
        }
    }

    fn on_query(&mut self, id: QueryId, result: QueryResult, last: bool) {
        match result {
            QueryResult::GetProviders(Ok(GetProvidersOk::FoundProviders { providers, .. })) => {
                if let Some(found) = self.searches.get(&id) {
                    for provider in providers {
                        // A full queue means that the caller has more than it asked for.
                        let _ = found.try_send(provider);
                    }
                    if found.is_closed()
                        && let Some(mut query) = self.swarm.behaviour_mut().kad.query_mut(&id)
                    {
                        query.finish();
                    }
                }
            }
            QueryResult::GetClosestPeers(result) => {
                let peers = match result {
                    Ok(GetClosestPeersOk { peers, .. })
                    | Err(kad::GetClosestPeersError::Timeout { peers, .. }) => peers,
                };
                if let Some(wanted) = self.lookups.get(&id).copied()
                    && let Some(found) = peers.into_iter().find(|peer| peer.peer_id == wanted)
                {
                    self.dial_found(wanted, found.addrs);
                }
            }
            _ => {}
        }
        if last {
            self.searches.remove(&id);
            self.lookups.remove(&id);
            self.announcements.on_ended(&mut self.swarm.behaviour_mut().kad, id);
        }
    }

    /// Asks the network where a counterparty is that no known address reaches.
    fn look_up(&mut self, peer: PeerId) {
        let now = Instant::now();
        let recent = self.looked_up.get(&peer).is_some_and(|last| now < *last + LOOKUP_INTERVAL);
        if recent || !self.counterparties.contains(&peer) || self.swarm.is_connected(&peer) {
            return;
        }
        self.looked_up.insert(peer, now);
        self.dial_found(peer, self.remembered.of(&peer));
        let query = self.swarm.behaviour_mut().kad.get_closest_peers(peer);
        self.lookups.insert(query, peer);
    }

    fn dial_found(&mut self, peer: PeerId, mut addresses: Vec<Multiaddr>) {
        addresses.truncate(MAX_ADDRESSES);
        if addresses.is_empty() || self.swarm.is_connected(&peer) {
            return;
        }
        for address in &addresses {
            self.swarm.add_peer_address(peer, address.clone());
        }
        let condition = PeerCondition::DisconnectedAndNotDialing;
        let opts = DialOpts::peer_id(peer).addresses(addresses).condition(condition).build();
        if let Err(error) = self.swarm.dial(opts) {
            tracing::debug!(%peer, %error, "found peer cannot be dialled");
        }
    }

    /// Keeps the number of peers that are remembered without a connection in bounds.
    fn forget_some(&mut self) {
        if self.peers.len() > MAX_PEERS {
            self.peers.retain(|_, peer| peer.connections > 0);
        }
    }
}

fn without_peer(address: &Multiaddr) -> Multiaddr {
    address.iter().filter(|part| !matches!(part, Protocol::P2p(_))).collect()
}
