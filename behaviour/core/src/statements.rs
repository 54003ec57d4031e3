//! Hashes of what authors and destinations sign, made of bytes that are there already.

use borsh::BorshSerialize;
use por_types::{
    Hash, Invalid, InvalidReason, Network, NodeKey, RequestHead, RequestId, ResponseReceipt, Statement,
    Yocto, sha256,
};

/// What comes before a statement in the bytes that are signed: a leaf's tag, domain, purpose, network.
/// The layouts are those of [`por_types::leaf_hash`] and [`Statement::signed_bytes`].
#[derive(Clone, Debug)]
pub(crate) struct Statements {
    request: Vec<u8>,
    receipt: Vec<u8>,
    invalid: Vec<u8>,
    /// One statement with what comes before it.
    scratch: Vec<u8>,
}

impl Statements {
    pub fn new(network: &Network) -> Statements {
        let key = NodeKey([0; 32]);
        let head = RequestHead {
            author: key,
            nonce: 0,
            destination: key,
            app: String::new(),
            body_hash: Hash([0; 32]),
            body_len: 0,
            response_limit: 0,
            expires_ms: 0,
            graph_version: 0,
            server_price: Yocto::ZERO,
            route: Vec::new(),
        };
        let receipt = ResponseReceipt { request: RequestId([0; 32]), body_len: 0, body_hash: Hash([0; 32]) };
        let invalid = Invalid { request: receipt.request, signer: key, reason: InvalidReason::Refused };
        Statements {
            request: before(&head, network),
            receipt: before(&receipt, network),
            invalid: before(&invalid, network),
            scratch: Vec::new(),
        }
    }

    /// Id of a request, and its leaf in the author's flush. `head`: borsh bytes of its head.
    pub fn request(&mut self, head: &[u8]) -> (RequestId, Hash) {
        self.scratch.clone_from(&self.request);
        self.scratch.extend_from_slice(head);
        (RequestId(sha256(&self.scratch[1..])), Hash(sha256(&self.scratch)))
    }

    /// Leaf of a receipt in the destination's flush.
    pub fn receipt(&mut self, receipt: &ResponseReceipt) -> Hash {
        self.scratch.clone_from(&self.receipt);
        self.leaf(receipt)
    }

    /// Leaf of a rejection in its signer's flush.
    pub fn invalid(&mut self, invalid: &Invalid) -> Hash {
        self.scratch.clone_from(&self.invalid);
        self.leaf(invalid)
    }

    fn leaf(&mut self, statement: &impl BorshSerialize) -> Hash {
        // Memory cannot refuse a write.
        let written = borsh::to_writer(&mut self.scratch, statement);
        debug_assert!(written.is_ok());
        Hash(sha256(&self.scratch))
    }
}

fn before<S: Statement + BorshSerialize>(statement: &S, network: &Network) -> Vec<u8> {
    let mut bytes = vec![0];
    bytes.extend(statement.signed_bytes(network));
    let own = borsh::object_length(statement).unwrap_or_default();
    bytes.truncate(bytes.len().saturating_sub(own));
    bytes
}

#[cfg(test)]
mod tests {
    use por_types::{ChannelId, Hop, leaf_hash};
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// The same hashes as those of the statements themselves.
        #[test]
        fn hashes_are_those_of_the_signed_bytes(
            seed in any::<[u8; 32]>(),
            numbers in any::<[u64; 4]>(),
            app in "[a-z/]{0,20}",
            hops in prop::collection::vec((any::<u64>(), any::<u128>()), 0..6),
        ) {
            let contract = "por.test.near".parse().expect("an account");
            let network = Network { chain_id: app.clone(), contract };
            let mut statements = Statements::new(&network);
            let [nonce, body_len, response_limit, expires_ms] = numbers;
            let hop = |(channel, price)| Hop {
                channel: ChannelId(channel),
                to: NodeKey(seed),
                price: Yocto(price),
                allowance_ms: nonce,
            };
            let head = RequestHead {
                author: NodeKey(seed),
                nonce,
                destination: NodeKey(seed),
                app,
                body_hash: Hash(seed),
                body_len,
                response_limit,
                expires_ms,
                graph_version: 7,
                server_price: Yocto(5),
                route: hops.into_iter().map(hop).collect(),
            };
            let bytes = borsh::to_vec(&head).expect("memory takes it");
            let (id, leaf) = statements.request(&bytes);
            prop_assert_eq!(id, head.id(&network));
            prop_assert_eq!(leaf, leaf_hash(&head.signed_bytes(&network)));
            let receipt = ResponseReceipt { request: id, body_len, body_hash: Hash(seed) };
            prop_assert_eq!(statements.receipt(&receipt), leaf_hash(&receipt.signed_bytes(&network)));
            let invalid = Invalid { request: id, signer: NodeKey(seed), reason: InvalidReason::Underpaid };
            prop_assert_eq!(statements.invalid(&invalid), leaf_hash(&invalid.signed_bytes(&network)));
        }
    }
}
