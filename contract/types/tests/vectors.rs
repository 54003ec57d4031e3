//! Golden vectors: `vectors/*.json` hold, in hex, every statement's bytes, hash and signature,
//! Merkle paths of flushes, and settlements, so that an implementation in another language can
//! check itself. This test regenerates and compares them; `UPDATE_VECTORS=1` rewrites them,
//! which changes the protocol.

use std::path::PathBuf;

use ed25519_dalek::{Signer, SigningKey, Verifier};
use por_types::*;
use serde::Serialize;
use serde_json::{Value, json};

fn network() -> Network {
    Network { chain_id: "testnet".into(), contract: account("por.example.testnet") }
}

fn account(name: &str) -> AccountId {
    name.parse().expect("account")
}

fn seed(number: u8) -> [u8; 32] {
    [number; 32]
}

fn key(number: u8) -> NodeKey {
    NodeKey(SigningKey::from_bytes(&seed(number)).verifying_key().to_bytes())
}

fn hash(byte: u8) -> Hash {
    Hash([byte; 32])
}

fn compare(name: &str, generated: Value) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    if std::env::var_os("UPDATE_VECTORS").is_some() {
        let text = serde_json::to_string_pretty(&generated).expect("JSON") + "\n";
        std::fs::write(&path, &text).expect("vectors are written");
    }
    assert!(
        committed(name) == generated,
        "{name} differs from what this code produces: the protocol's bytes changed"
    );
}

/// One statement, its bytes, and the signature of the node with secret seed `signer` x 32.
fn vector<T: Statement + Serialize>(name: &str, signer: u8, statement: T) -> Value {
    let signed = statement.signed_bytes(&network());
    let secret = SigningKey::from_bytes(&seed(signer));
    json!({
        "name": name,
        "purpose": T::PURPOSE as u8,
        "value": statement,
        "borsh": hex::encode(borsh::to_vec(&statement).expect("borsh")),
        "signed_bytes": hex::encode(&signed),
        "sha256": hex::encode(statement.digest(&network())),
        "signer_seed": hex::encode(seed(signer)),
        "signer_key": hex::encode(key(signer).0),
        "signature": hex::encode(secret.sign(&signed).to_bytes()),
    })
}

fn terms() -> Terms {
    Terms {
        rtt_ms: 200,
        bytes_per_s: 1_000_000,
        base_fee: Yocto(1_000_000_000_000_000_000),
        byte_fee: Yocto(2_000_000_000_000),
        heartbeat_ms: 1_000,
        grace_ms: 3_000,
        max_requests: 64,
        max_bytes: 1 << 26,
    }
}

fn totals() -> Totals {
    Totals { sent_a: Yocto::millinear(1_250), sent_b: Yocto(u128::MAX) }
}

fn request(nonce: u64) -> RequestHead {
    let hop = |channel, to, price, allowance_ms| Hop {
        channel: ChannelId(channel),
        to: key(to),
        price: Yocto(price),
        allowance_ms,
    };
    RequestHead {
        author: key(1),
        nonce,
        destination: key(3),
        app: "files".into(),
        body_hash: hash(0xb0),
        body_len: 40,
        response_limit: 1 << 20,
        expires_ms: 1_800_000_000_000,
        graph_version: 7,
        server_price: Yocto(5),
        route: vec![hop(4, 2, 300, 400), hop(9, 3, 200, 200)],
    }
}

fn receipt(byte: u8) -> ResponseReceipt {
    ResponseReceipt { request: RequestId([byte; 32]), body_len: 1_024, body_hash: hash(0xc0) }
}

fn payment_vectors() -> Vec<Value> {
    let channel = ChannelId(42);
    let item = |byte, amount, kind| Item { request: RequestId([byte; 32]), amount: Yocto(amount), kind };
    let items = Items {
        channel,
        payer: Side::A,
        items: vec![
            item(1, 505, ItemKind::Request),
            item(2, 17, ItemKind::Refund),
            item(3, 1_000, ItemKind::Late),
        ],
    };
    let paid = ChannelState { channel, totals: totals(), items: items.hash(&network()) };
    let empty = Items { channel, payer: Side::B, items: Vec::new() };
    let synced = ChannelState { channel, totals: Totals::default(), items: hash(0) };
    vec![
        vector("items", 1, items),
        vector("items, none", 2, empty),
        vector("payment by its payer", 1, paid.clone()),
        vector("the same payment counter-signed", 2, paid),
        vector("state that pays for nothing", 2, synced),
    ]
}

fn rejection(n: u8) -> Invalid {
    Invalid { request: RequestId([n; 32]), signer: key(2), reason: InvalidReason::Underpaid }
}

fn request_vectors() -> Vec<Value> {
    let mut request_vector = vector("request", 1, request(77));
    request_vector["request_id"] = json!(request(77).id(&network()).to_string());
    vec![
        request_vector,
        vector("response receipt", 3, receipt(8)),
        vector("rejection of an invalid request", 2, rejection(9)),
    ]
}

fn act_vectors() -> Vec<Value> {
    let (channel, expires_ms) = (ChannelId(u64::MAX), 1_800_000_000_000);
    let registration = RegistrationProof { account: account("alice.testnet"), node_key: key(1) };
    let draw =
        Draw { channel, sequence: 1, expires_ms, totals: totals(), draw_a: Yocto(1), draw_b: Yocto::near(2) };
    let new_terms = NewTerms { channel, sequence: 2, expires_ms, totals: totals(), terms: terms() };
    let close = CooperativeClose { channel, sequence: 3, expires_ms, totals: totals() };
    let request = Some(RequestId([7; 32]));
    let order = SeverOrder { channel, signer: key(2), reason: SeverReason::MissedSync, request };
    let plain = SeverOrder { channel, signer: key(1), reason: SeverReason::Operator, request: None };
    vec![
        vector("registration", 1, registration),
        vector("draw", 1, draw),
        vector("new terms", 1, new_terms),
        vector("cooperative close, side a", 1, close.clone()),
        vector("cooperative close, side b", 2, close),
        vector("sever order", 2, order),
        vector("sever order without a request", 1, plain),
    ]
}

fn statements() -> Value {
    let mut vectors = payment_vectors();
    vectors.extend(request_vectors());
    vectors.extend(act_vectors());
    json!({
        "about": "signed_bytes = \"por/statement1\" ++ purpose (u8) ++ borsh(network) ++ borsh(value); \
                  signatures are ed25519 (RFC 8032) by the key of signer_seed",
        "network": network(),
        "network_borsh": hex::encode(borsh::to_vec(&network()).expect("borsh")),
        "statements": vectors,
    })
}

/// A flush of these statements: leaves, root, the one signature, and every path.
fn flush<S: Statement + FlushOf>(name: &str, signer: u8, statements: &[S]) -> Value {
    let leaves: Vec<Hash> = statements.iter().map(|s| leaf_hash(&s.signed_bytes(&network()))).collect();
    let tree = FlushTree::new(leaves.clone()).expect("tree");
    let signed = FlushRoot::<S>::new(tree.root(), tree.leaves()).signed_bytes(&network());
    let signature = Signature(SigningKey::from_bytes(&seed(signer)).sign(&signed).to_bytes());
    let proofs: Vec<Value> = (0..tree.leaves())
        .map(|index| {
            let proof = tree.proof(index, signature).expect("proof");
            assert!(proof.verify(&network(), &key(signer), &statements[index as usize], &Dalek));
            json!({
                "index": index,
                "path": proof.path.iter().map(|hash| hex::encode(hash.0)).collect::<Vec<_>>(),
                "borsh": hex::encode(borsh::to_vec(&proof).expect("borsh")),
            })
        })
        .collect();
    json!({
        "name": name,
        "signer_key": hex::encode(key(signer).0),
        "leaves": leaves.iter().map(|hash| hex::encode(hash.0)).collect::<Vec<_>>(),
        "root": hex::encode(tree.root().0),
        "root_signed_bytes": hex::encode(signed),
        "signature": hex::encode(signature.0),
        "proofs": proofs,
    })
}

struct Dalek;

impl Verify for Dalek {
    fn verify(&self, key: &NodeKey, message: &[u8], signature: &Signature) -> bool {
        let key = ed25519_dalek::VerifyingKey::from_bytes(&key.0).expect("key");
        key.verify(message, &ed25519_dalek::Signature::from_bytes(&signature.0)).is_ok()
    }
}

fn flushes() -> Value {
    let requests = |count: u64| (0..count).map(request).collect::<Vec<_>>();
    let receipts = |count: u8| (0..count).map(receipt).collect::<Vec<_>>();
    let rejections = |count: u8| (0..count).map(rejection).collect::<Vec<_>>();
    json!({
        "about": "leaf = sha256(0x00 ++ signed_bytes), node = sha256(0x01 ++ left ++ right), a node without \
                  sibling moves up unchanged; the signature is over the root's signed bytes",
        "flushes": [
            flush("one request", 1, &requests(1)),
            flush("two requests", 1, &requests(2)),
            flush("three requests", 1, &requests(3)),
            flush("one receipt", 3, &receipts(1)),
            flush("five receipts", 3, &receipts(5)),
            flush("eight receipts", 3, &receipts(8)),
            flush("eleven receipts", 3, &receipts(11)),
            flush("three rejections", 2, &rejections(3)),
        ],
    })
}

fn settlements() -> Value {
    let case = |name: &str, funds: [u128; 4], sent: [u128; 2]| {
        let funds = Funds {
            deposit_a: Yocto(funds[0]),
            deposit_b: Yocto(funds[1]),
            drawn_a: Yocto(funds[2]),
            drawn_b: Yocto(funds[3]),
        };
        let totals = Totals { sent_a: Yocto(sent[0]), sent_b: Yocto(sent[1]) };
        let paid = funds.settle(totals).expect("settles");
        json!({
            "name": name,
            "deposit_a": funds.deposit_a, "deposit_b": funds.deposit_b,
            "drawn_a": funds.drawn_a, "drawn_b": funds.drawn_b,
            "sent_a": totals.sent_a, "sent_b": totals.sent_b,
            "paid_a": paid.a, "paid_b": paid.b,
        })
    };
    json!({
        "about": "paid_a = deposit_a - drawn_a - sent_a + sent_b clamped to 0..pot, paid_b = pot - paid_a",
        "settlements": [
            case("nothing paid", [10, 4, 0, 0], [0, 0]),
            case("paid one way", [10, 4, 0, 0], [3, 0]),
            case("totals beyond the deposits", [10, 4, 0, 0], [109, 105]),
            case("a overdraws", [10, 4, 0, 0], [11, 0]),
            case("b overdraws", [10, 4, 0, 0], [0, 5]),
            case("after draws", [10, 4, 3, 1], [2, 0]),
            case("earnings drawn", [10, 4, 0, 9], [6, 0]),
            case("largest totals", [10, 4, 0, 0], [u128::MAX, u128::MAX]),
            case("largest total of b", [10, 4, 0, 0], [0, u128::MAX]),
            case("largest deposit", [u128::MAX, 0, 0, 0], [1, u128::MAX]),
        ],
    })
}

#[test]
fn statements_match_the_golden_vectors() {
    compare("statements.json", statements());
}

#[test]
fn flushes_match_the_golden_vectors() {
    compare("flushes.json", flushes());
}

#[test]
fn settlements_match_the_golden_vectors() {
    compare("settlements.json", settlements());
}

fn committed(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("vectors").join(name);
    serde_json::from_str(&std::fs::read_to_string(path).expect("vectors exist")).expect("JSON")
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("hex")).expect("hex")
}

/// The vectors hold by their own description, computed here without the statements' code.
#[test]
fn committed_statements_verify_by_their_description() {
    let file = committed("statements.json");
    let network = bytes(&file["network_borsh"]);
    let mut names = std::collections::BTreeSet::new();
    for vector in file["statements"].as_array().expect("list") {
        let mut expected = b"por/statement1".to_vec();
        expected.push(u8::try_from(vector["purpose"].as_u64().expect("number")).expect("byte"));
        expected.extend_from_slice(&network);
        expected.extend(bytes(&vector["borsh"]));
        let signed = bytes(&vector["signed_bytes"]);
        assert_eq!(signed, expected);
        assert_eq!(bytes(&vector["sha256"]), sha256(&signed));
        let key: [u8; 32] = bytes(&vector["signer_key"]).try_into().expect("key");
        let signature: [u8; 64] = bytes(&vector["signature"]).try_into().expect("signature");
        let key = ed25519_dalek::VerifyingKey::from_bytes(&key).expect("key");
        key.verify(&signed, &ed25519_dalek::Signature::from_bytes(&signature)).expect("signature");
        assert!(names.insert(vector["name"].to_string()), "names are unique");
    }
    // Every purpose but the two flush roots, which the other file has.
    let purposes: std::collections::BTreeSet<u64> =
        file["statements"].as_array().expect("list").iter().filter_map(|v| v["purpose"].as_u64()).collect();
    assert_eq!(purposes.into_iter().collect::<Vec<_>>(), [1, 2, 3, 4, 5, 8, 9, 10, 11, 12]);
}

/// The layout of one statement, written out by hand.
#[test]
fn a_channel_state_is_laid_out_as_documented() {
    let state = ChannelState {
        channel: ChannelId(0x0102),
        totals: Totals { sent_a: Yocto(3), sent_b: Yocto(4) },
        items: hash(5),
    };
    let mut expected = b"por/statement1".to_vec();
    expected.push(2);
    expected.extend(7u32.to_le_bytes());
    expected.extend(b"testnet");
    expected.extend(19u32.to_le_bytes());
    expected.extend(b"por.example.testnet");
    expected.extend(0x0102u64.to_le_bytes());
    expected.extend(3u128.to_le_bytes());
    expected.extend(4u128.to_le_bytes());
    expected.extend([5; 32]);
    assert_eq!(state.signed_bytes(&network()), expected);
}
