//! A node key is the ed25519 key of a libp2p identity.

use libp2p_identity::{PeerId, PublicKey, ed25519};
use por_core::types::NodeKey;

/// Multihash code `identity`: the peer id holds the public key itself.
const IDENTITY: u64 = 0;

/// The node key behind a peer id; `None` if its key is not ed25519 (or only a hash of the key is
/// known), in which case it cannot be a node.
pub fn node_key(peer: &PeerId) -> Option<NodeKey> {
    let multihash = peer.as_ref();
    if multihash.code() != IDENTITY {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(multihash.digest()).ok()?;
    Some(NodeKey(key.try_into_ed25519().ok()?.to_bytes()))
}

/// The peer id of a node; `None` if the bytes are not a point of the curve.
pub fn peer_id(node: &NodeKey) -> Option<PeerId> {
    let key = ed25519::PublicKey::try_from_bytes(node.as_bytes()).ok()?;
    Some(PublicKey::from(key).to_peer_id())
}

#[cfg(test)]
mod tests {
    use libp2p_identity::Keypair;

    use super::*;

    #[test]
    fn peer_ids_and_node_keys_are_the_same_thing() {
        let pair = Keypair::generate_ed25519();
        let peer = pair.public().to_peer_id();
        let key = node_key(&peer).expect("ed25519");
        assert_eq!(peer_id(&key), Some(peer));
    }

    #[test]
    fn a_hashed_peer_id_names_no_node() {
        let hashed = multihash_of_another_kind();
        assert_eq!(node_key(&hashed), None);
    }

    fn multihash_of_another_kind() -> PeerId {
        // sha2-256 (0x12) of 32 bytes, as RSA and ECDSA identities have it.
        let mut bytes = vec![0x12, 32];
        bytes.extend([7; 32]);
        PeerId::from_bytes(&bytes).expect("well-formed")
    }
}
