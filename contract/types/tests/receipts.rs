//! What the verifier of response receipts accepts, and everything that it must not.
#![cfg(all(feature = "body", feature = "dalek"))]

use por_types::*;

fn network(contract: &str) -> Network {
    Network { chain_id: "testnet".into(), contract: contract.parse().expect("account") }
}

fn secret(number: u8) -> NodeSecret {
    NodeSecret::from_seed(&[number; 32])
}

fn head(destination: NodeKey) -> RequestHead {
    RequestHead {
        author: secret(1).public(),
        nonce: 7,
        destination,
        app: "echo".into(),
        body_hash: Hash([3; 32]),
        body_len: 10,
        response_limit: 1_000,
        expires_ms: 99,
        graph_version: 5,
        server_price: Yocto(1),
        route: vec![Hop { channel: ChannelId(0), to: destination, price: Yocto(1), allowance_ms: 10 }],
    }
}

fn receipt(request: RequestId, body: &[u8]) -> ResponseReceipt {
    let body_hash = Hash(*blake3::hash(body).as_bytes());
    ResponseReceipt { request, body_len: body.len() as u64, body_hash }
}

/// Receipts of one flush under one signature.
fn flush(network: &Network, signer: &NodeSecret, receipts: &[ResponseReceipt]) -> Vec<SignedReceipt> {
    let leaves = receipts.iter().map(|receipt| leaf_hash(&receipt.signed_bytes(network))).collect();
    let tree = FlushTree::new(leaves).expect("a flush");
    let root = FlushRoot::<ResponseReceipt>::new(tree.root(), tree.leaves());
    let signature = signer.sign(network, root).signature;
    let signed = |(index, receipt): (u32, &ResponseReceipt)| SignedReceipt {
        receipt: receipt.clone(),
        proof: tree.proof(index, signature).expect("a leaf"),
    };
    (0u32..).zip(receipts).map(signed).collect()
}

#[test]
fn every_receipt_of_a_flush_shows_its_own_answer() {
    let (network, server) = (network("por.near"), secret(2));
    for count in [1, 2, 3, 7, 64] {
        let heads: Vec<_> = (0..count).map(|nonce| RequestHead { nonce, ..head(server.public()) }).collect();
        let bodies: Vec<_> = (0..count).map(|n| vec![n as u8; n as usize * 37]).collect();
        let receipts: Vec<_> =
            heads.iter().zip(&bodies).map(|(head, body)| receipt(head.id(&network), body)).collect();
        let signed = flush(&network, &server, &receipts);
        for ((signed, head), body) in signed.iter().zip(&heads).zip(&bodies) {
            let id = head.id(&network);
            assert_eq!(signed.verify(&network, &server.public(), &id, &DalekVerify), Ok(()));
            let expected = if body.len() > 1_000 { Err(ReceiptError::TooLong) } else { Ok(()) };
            assert_eq!(signed.verify_for(&network, head, &DalekVerify), expected);
            assert_eq!(signed.verify_body(body), Ok(()));
        }
    }
}

#[test]
fn a_receipt_shows_nothing_else() {
    let (here, server) = (network("por.near"), secret(2));
    let head = head(server.public());
    let id = head.id(&here);
    let other = RequestHead { nonce: 8, ..head.clone() }.id(&here);
    let body = b"the answer".as_slice();
    let both = flush(&here, &server, &[receipt(id, body), receipt(other, b"another")]);
    let good = &both[0];
    let check = |signed: &SignedReceipt| signed.verify(&here, &server.public(), &id, &DalekVerify);
    assert_eq!(check(good), Ok(()));

    assert_eq!(check(&both[1]), Err(ReceiptError::OtherRequest));
    // Another request's receipt under this one's path, and the other way round.
    let mixed = SignedReceipt { receipt: good.receipt.clone(), proof: both[1].proof.clone() };
    assert_eq!(check(&mixed), Err(ReceiptError::Signature));
    let renamed = ResponseReceipt { request: id, ..both[1].receipt.clone() };
    let renamed = SignedReceipt { receipt: renamed, proof: both[1].proof.clone() };
    assert_eq!(check(&renamed), Err(ReceiptError::Signature));

    let shorter = ResponseReceipt { body_len: good.receipt.body_len - 1, ..good.receipt.clone() };
    let shorter = SignedReceipt { receipt: shorter, proof: good.proof.clone() };
    assert_eq!(check(&shorter), Err(ReceiptError::Signature));
    let longer_path = [good.proof.path.clone(), vec![Hash([0; 32])]].concat();
    for proof in [
        FlushProof { path: Vec::new(), ..good.proof.clone() },
        FlushProof { path: longer_path, ..good.proof.clone() },
        FlushProof { index: 1, ..good.proof.clone() },
        FlushProof { leaves: 1, ..good.proof.clone() },
        FlushProof { leaves: 0, ..good.proof.clone() },
        FlushProof { leaves: u32::MAX, ..good.proof.clone() },
        FlushProof { signature: Signature([0; 64]), ..good.proof.clone() },
    ] {
        let forged = SignedReceipt { receipt: good.receipt.clone(), proof };
        assert_eq!(check(&forged), Err(ReceiptError::Signature), "{forged:?}");
    }

    // Signed by somebody else, for another contract, as another kind of statement.
    let by_relay = &flush(&here, &secret(3), &[receipt(id, body)])[0];
    assert_eq!(check(by_relay), Err(ReceiptError::Signature));
    let elsewhere = &flush(&network("other.near"), &server, &[receipt(id, body)])[0];
    assert_eq!(check(elsewhere), Err(ReceiptError::Signature));
    let plain = server.sign(&here, good.receipt.clone()).signature;
    let plain = FlushProof { index: 0, leaves: 1, path: Vec::new(), signature: plain };
    let plain = SignedReceipt { receipt: good.receipt.clone(), proof: plain };
    assert_eq!(check(&plain), Err(ReceiptError::Signature));

    assert_eq!(good.verify_body(b"the answe"), Err(ReceiptError::BodyLength));
    assert_eq!(good.verify_body(b"the Answer"), Err(ReceiptError::BodyHash));
}

#[test]
fn keys_that_anybody_can_sign_for_are_refused() {
    struct Gullible;
    impl Verify for Gullible {
        fn verify(&self, _: &NodeKey, _: &[u8], _: &Signature) -> bool {
            true
        }
    }
    let network = network("por.near");
    let weak = NodeKey([0; 32]);
    let id = head(weak).id(&network);
    let signed = &flush(&network, &secret(2), &[receipt(id, b"")])[0];
    assert_eq!(signed.verify(&network, &weak, &id, &Gullible), Err(ReceiptError::WeakKey));
}
