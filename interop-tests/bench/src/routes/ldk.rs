//! LDK's `find_route`. Fees are the same numbers in millisatoshi (for a payment of 1,000,000 the
//! proportional part comes out as our byte fees), and its limit on the sum of the CLTV deltas
//! plays the latency bound. A single path, no penalties, no first hops.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::anyhow;
use lightning::bitcoin::Network as Chain;
use lightning::bitcoin::constants::ChainHash;
use lightning::bitcoin::secp256k1::{PublicKey, Secp256k1, SecretKey};
use lightning::ln::msgs::UnsignedChannelUpdate;
use lightning::routing::gossip::{NetworkGraph, NodeId};
use lightning::routing::router::{PaymentParameters, RouteParameters, find_route};
use lightning::routing::scoring::FixedPenaltyScorer;
use lightning::types::features::ChannelFeatures;
use lightning::util::logger::{Logger, Record};
use rand::Rng as _;

use super::CHANGES;
use super::random::{BODY, Channel, Network, Query};

struct Silent;

impl Logger for Silent {
    fn log(&self, _: Record<'_>) {}
}

static SILENT: Silent = Silent;

/// Amount of each payment, millisatoshi.
const AMOUNT: u64 = 1_000_000;
const FINAL_CLTV: u32 = 10;

pub struct Ldk {
    graph: NetworkGraph<&'static Silent>,
    keys: Vec<PublicKey>,
    scorer: FixedPenaltyScorer,
}

/// A valid key for each node.
pub fn keys(network: &Network) -> Vec<PublicKey> {
    let secp = Secp256k1::signing_only();
    let mut random = network.random(3);
    let mut key = || loop {
        if let Ok(secret) = SecretKey::from_slice(&random.random::<[u8; 32]>()) {
            return PublicKey::from_secret_key(&secp, &secret);
        }
    };
    (0..network.nodes).map(|_| key()).collect()
}

fn now() -> anyhow::Result<u32> {
    Ok(u32::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())?)
}

fn update(id: usize, channel: &Channel, direction: u8, timestamp: u32) -> UnsignedChannelUpdate {
    UnsignedChannelUpdate {
        chain_hash: ChainHash::using_genesis_block(Chain::Bitcoin),
        short_channel_id: id as u64,
        timestamp,
        message_flags: 1,
        channel_flags: direction,
        cltv_expiry_delta: channel.rtt_ms,
        htlc_minimum_msat: 0,
        htlc_maximum_msat: AMOUNT * 1_000,
        fee_base_msat: channel.base_fee,
        fee_proportional_millionths: channel.byte_fee * 2 * BODY as u32,
        excess_data: Vec::new(),
    }
}

impl Ldk {
    pub fn build(network: &Network) -> anyhow::Result<Ldk> {
        Ldk::with_keys(network, &keys(network))
    }

    pub fn with_keys(network: &Network, keys: &[PublicKey]) -> anyhow::Result<Ldk> {
        let graph = NetworkGraph::new(Chain::Bitcoin, &SILENT);
        let timestamp = now()?;
        for (id, channel) in network.channels.iter().enumerate() {
            let node = |place: u32| NodeId::from_pubkey(&keys[place as usize]);
            graph
                .add_channel_from_partial_announcement(
                    id as u64,
                    None,
                    timestamp.into(),
                    ChannelFeatures::empty(),
                    node(channel.a),
                    node(channel.b),
                )
                .map_err(|error| anyhow!("LDK: {}", error.err))?;
            for direction in [0, 1] {
                let update = update(id, channel, direction, timestamp);
                graph.update_channel_unsigned(&update).map_err(|error| anyhow!("LDK: {}", error.err))?;
            }
        }
        Ok(Ldk { graph, keys: keys.to_vec(), scorer: FixedPenaltyScorer::with_penalty(0) })
    }

    /// Milliseconds of new terms for as many channels, in both directions.
    pub fn change(&mut self, network: &Network) -> anyhow::Result<f64> {
        let mut random = network.random(2);
        let first = now()?;
        let updates: Vec<UnsignedChannelUpdate> = (0..CHANGES)
            .flat_map(|at| {
                let id = random.random_range(0..network.channels.len());
                let base_fee = random.random_range(1_000..50_000);
                let channel = Channel { base_fee, ..network.channels[id] };
                // Each update has to be later than the one before it.
                let timestamp = first + 1 + at as u32;
                [0, 1].map(|direction| update(id, &channel, direction, timestamp))
            })
            .collect();
        let start = Instant::now();
        for update in &updates {
            self.graph.update_channel_unsigned(update).map_err(|error| anyhow!("LDK: {}", error.err))?;
        }
        Ok(start.elapsed().as_secs_f64() * 1e3)
    }

    pub fn find(&self, query: &Query) -> bool {
        let payee = self.keys[query.to as usize];
        let mut parameters = PaymentParameters::from_node_id(payee, FINAL_CLTV);
        parameters.max_total_cltv_expiry_delta = query.bound_ms as u32 + FINAL_CLTV;
        parameters.max_path_count = 1;
        let mut route = RouteParameters::from_payment_params_and_value(parameters, AMOUNT);
        route.max_total_routing_fee_msat = None;
        let from = &self.keys[query.from as usize];
        find_route(from, &route, &self.graph, None, &SILENT, &self.scorer, &(), &[7; 32]).is_ok()
    }
}
