//! The network, its nodes and the terms of their channels.

use por_core::types::{Network, NodeSecret, Terms, Yocto};

pub fn network() -> Network {
    Network { chain_id: "localnet".into(), contract: "por.test.near".parse().unwrap() }
}

pub fn terms() -> Terms {
    Terms {
        rtt_ms: 100,
        bytes_per_s: 1000,
        base_fee: Yocto(100),
        byte_fee: Yocto(1),
        heartbeat_ms: 1000,
        grace_ms: 1000,
        max_requests: 8,
        max_bytes: 1 << 20,
    }
}

pub fn secret(n: u8) -> NodeSecret {
    NodeSecret::from_seed(&[n; 32])
}
