//! Proof of Response as a libp2p network behaviour
