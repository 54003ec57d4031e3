//! What the swarm is composed of, and its bounds.

use std::num::NonZeroUsize;
use std::time::Duration;

use libp2p::connection_limits::{self, ConnectionLimits};
use libp2p::identity::Keypair;
use libp2p::kad::store::{MemoryStore, MemoryStoreConfig};
use libp2p::kad::{self, StoreInserts};
use libp2p::swarm::NetworkBehaviour;
use libp2p::{StreamProtocol, identify, ping};

use super::{IDENTIFY_PROTOCOL, KAD_PROTOCOL};

/// How long other nodes keep a provider record.
pub(crate) const PROVIDER_TTL: Duration = Duration::from_secs(3600);
/// How often this node announces what it provides.
const ANNOUNCE_INTERVAL: Duration = Duration::from_secs(20 * 60);
/// Most provider keys of this node.
pub(crate) const MAX_PROVIDED: usize = 1 << 16;
/// Most provider keys of others that are kept, besides.
pub(super) const MAX_FOREIGN: usize = 1 << 16;
/// Most providers of one key.
pub(super) const MAX_PER_KEY: usize = 20;

/// Limits come first: a connection above them is refused before anything is allocated for it.
#[derive(NetworkBehaviour)]
pub(crate) struct NodeBehaviour {
    pub limits: connection_limits::Behaviour,
    pub por: libp2p_por::Behaviour,
    pub kad: kad::Behaviour<MemoryStore>,
    pub identify: identify::Behaviour,
    pub ping: ping::Behaviour,
}

impl NodeBehaviour {
    pub(crate) fn new(key: &Keypair, por: libp2p_por::Behaviour, hide_listen: bool) -> NodeBehaviour {
        let limits = ConnectionLimits::default()
            .with_max_pending_incoming(Some(64))
            .with_max_pending_outgoing(Some(128))
            .with_max_established_incoming(Some(512))
            .with_max_established_outgoing(Some(512))
            .with_max_established_per_peer(Some(4));
        let agent = format!("por-node/{}", env!("CARGO_PKG_VERSION"));
        let identify = identify::Config::new(IDENTIFY_PROTOCOL.to_owned(), key.public())
            .with_agent_version(agent)
            .with_hide_listen_addrs(hide_listen)
            .with_push_listen_addr_updates(true);
        NodeBehaviour {
            limits: connection_limits::Behaviour::new(limits),
            por,
            kad: kademlia(key),
            identify: identify::Behaviour::new(identify),
            ping: ping::Behaviour::default(),
        }
    }
}

pub(super) fn kademlia(key: &Keypair) -> kad::Behaviour<MemoryStore> {
    let local = key.public().to_peer_id();
    let store = MemoryStoreConfig {
        // Only provider records are used; see `FilterBoth` below.
        max_records: 1,
        max_value_bytes: 1,
        max_providers_per_key: MAX_PER_KEY,
        // Others' keys take no place of this node's own.
        max_provided_keys: MAX_PROVIDED + MAX_FOREIGN,
    };
    let mut config = kad::Config::new(StreamProtocol::new(KAD_PROTOCOL));
    config
        .set_record_filtering(StoreInserts::FilterBoth)
        .set_provider_record_ttl(Some(PROVIDER_TTL))
        .set_provider_publication_interval(Some(ANNOUNCE_INTERVAL))
        .set_query_timeout(Duration::from_secs(30))
        .set_replication_factor(NonZeroUsize::new(20).unwrap_or(NonZeroUsize::MIN))
        .set_max_packet_size(64 << 10);
    let mut kad = kad::Behaviour::with_config(local, MemoryStore::with_config(local, store), config);
    // Every node answers lookups; deciding by confirmed external addresses would leave a private
    // network without servers.
    kad.set_mode(Some(kad::Mode::Server));
    kad
}
