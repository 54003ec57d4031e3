//! The first corpus of each target: real frames, rows and arguments.

use bytes::BytesMut;
use por_core::codec::encode;
use por_core::wire::{Frame, Late, LateItem, Severed};
use por_types::{
    ChannelId, ChannelState, CooperativeClose, Draw, Hash, Hop, Items, NewTerms, NodeSecret, SeverOrder,
    SeverReason, Side, Totals, Yocto,
};
use serde_json::{Value, json};

use crate::{exchange, records};

/// Largest seed, bytes: small inputs are mutated faster.
const MAX_SEED: usize = 4 << 10;

/// Name and bytes of every seed of a target.
pub fn of(target: &str) -> Vec<(String, Vec<u8>)> {
    let mut seeds = match target {
        "frame" => frame_seeds(),
        "core" => core_seeds(),
        "records" => records_seeds(),
        "contract_args" => contract_args_seeds(),
        _ => Vec::new(),
    };
    seeds.retain(|(_, bytes)| bytes.len() <= MAX_SEED);
    seeds
}

fn kind(frame: &Frame) -> &'static str {
    match frame {
        Frame::Hello(_) => "hello",
        Frame::Sync(_) => "sync",
        Frame::Request(_) => "request",
        Frame::Ack(_) => "ack",
        Frame::Reject(_) => "reject",
        Frame::Response(_) => "response",
        Frame::Done(_) => "done",
        Frame::Credit(_) => "credit",
        Frame::Fragment(_) => "fragment",
        Frame::Late(_) => "late",
        Frame::Severed(_) => "severed",
    }
}

/// Three frames of each type, cut where they are long, and a stream of several.
fn frame_seeds() -> Vec<(String, Vec<u8>)> {
    let mut frames = exchange::frames();
    frames.extend(penalties());
    let mut seeds: Vec<(String, Vec<u8>)> = Vec::new();
    let mut stream = vec![6];
    for frame in &frames {
        let mut bytes = BytesMut::new();
        encode(frame, &mut bytes);
        if stream.len() + bytes.len() < 2_000 {
            stream.extend_from_slice(&bytes);
        }
        let name = kind(frame);
        let before = seeds.iter().filter(|(seed, _)| seed.starts_with(name)).count();
        if before < 3 {
            let mut seed = vec![255];
            // A long frame is shown by its fragment's first bytes.
            seed.extend_from_slice(&bytes[..bytes.len().min(MAX_SEED - 1)]);
            seeds.push((format!("{name}-{before}"), seed));
        }
    }
    seeds.push(("stream".into(), stream));
    seeds.push(("empty-channels".into(), empty_channels()));
    seeds
}

/// A Sync whose list of channels is long and empty.
fn empty_channels() -> Vec<u8> {
    let mut payload = b"\xa2\x65epoch\x01\x68channels\x99\x0f\x00".to_vec();
    payload.resize(payload.len() + 0x0f00, 0xa0);
    let mut seed = vec![255];
    seed.extend((payload.len() as u32 + 1).to_be_bytes());
    seed.push(2);
    seed.extend(payload);
    seed
}

fn payment(secret: &NodeSecret) -> por_types::Signed<ChannelState> {
    let totals = Totals { sent_a: Yocto(1_000), sent_b: Yocto(u128::MAX) };
    secret.sign(&network(), ChannelState { channel: ChannelId(3), totals, items: Hash([7; 32]) })
}

fn network() -> por_types::Network {
    por_core::testing::World::network()
}

fn order(secret: &NodeSecret) -> SeverOrder {
    SeverOrder { channel: ChannelId(3), signer: secret.public(), reason: SeverReason::NoAck, request: None }
}

fn penalties() -> Vec<Frame> {
    let secret = NodeSecret::from_seed(&[9; 32]);
    let exchanges = vec![por_core::ExchangeId(1), por_core::ExchangeId(u64::MAX)];
    let order = secret.sign(&network(), order(&secret));
    vec![
        Frame::Late(Late { payment: payment(&secret), resent: false, items: late_items(&exchanges) }),
        Frame::Severed(Severed {
            order,
            payment: Some(payment(&secret)),
            resent: true,
            items: late_items(&exchanges),
        }),
    ]
}

fn core_seeds() -> Vec<(String, Vec<u8>)> {
    let scripts: [(&str, &[u8]); 16] = [
        ("small", &[1, 0, 0, 0, 0, 1, 1, 0, 5, 50]),
        ("big", &[2, 0, 0, 0, 0x33, 0, 0, 0x55, 5, 200]),
        ("tight", &[3, 1, 0, 0, 0x11, 0, 1, 0x33, 0, 4, 0x22, 5, 100]),
        ("slow-disk", &[4, 2, 0, 0, 0x11, 4, 30, 7, 1, 4, 80, 0, 1, 0x11]),
        ("slow-links", &[5, 4, 0, 0, 0x35, 4, 200, 9, 0, 4, 100, 9, 1]),
        ("bonds", &[6, 8, 0, 0, 0x55, 0, 0, 0x55, 0, 0, 0x55, 5, 9]),
        ("caps", &[7, 16, 0, 2, 0, 0, 2, 0, 0, 2, 0, 0, 2, 0, 0, 2, 0, 5, 9]),
        ("relay-crashes", &[8, 0, 0, 0, 0x33, 6, 40, 7, 1, 4, 200, 7, 1, 5, 9]),
        ("planned-crash", &[9, 0, 8, 1, 30, 0, 0, 0x33, 0, 1, 0, 8, 0, 90, 5, 60]),
        ("cuts", &[10, 32, 10, 0xff, 0, 0, 0x33, 0, 1, 0x33, 5, 20, 11, 0, 5, 0]),
        ("everything", &[11, 35, 10, 0x5b, 0, 0, 0x14, 0, 1, 0x41, 9, 1, 7, 0, 5, 9, 0, 3, 0x22]),
        ("both-ways", &[12, 0, 0, 0, 0x33, 0, 1, 0x33, 0, 4, 0x33, 6, 60, 7, 2, 6, 30, 7, 0, 5, 20]),
        ("stalls", &[13, 0, 0, 0, 0x33, 240, 1, 60, 4, 30, 0, 1, 0x22, 241, 2, 200, 5, 90]),
        ("late-reading", &[14, 64, 0, 0, 0x33, 6, 40, 7, 1, 4, 200, 0, 1, 0x22, 7, 2, 5, 90]),
        ("late-fees", &[144, 64, 0, 0, 0x33, 4, 40, 7, 2, 4, 200, 0, 1, 0x22, 241, 1, 60, 5, 90]),
        ("lagging-views", &[15, 0xe0, 0, 0, 0x33, 4, 90, 0, 1, 0x11, 9, 0, 240, 0, 90, 7, 1, 5, 90]),
    ];
    scripts.into_iter().map(|(name, script)| (name.to_owned(), script.to_vec())).collect()
}

fn borsh_of<T: borsh::BorshSerialize>(kind: u8, value: &T) -> Vec<u8> {
    let mut bytes = vec![kind];
    bytes.extend(borsh::to_vec(value).unwrap_or_default());
    bytes
}

fn records_seeds() -> Vec<(String, Vec<u8>)> {
    let mut seeds = Vec::new();
    let mut add = |name: String, bytes: Vec<u8>| seeds.push((name, bytes));
    for (number, snapshot) in (0u8..).zip(records::snapshots()) {
        let small: Vec<_> = snapshot.rows.iter().filter(|row| row.value.len() < 1_500).cloned().collect();
        let mut bytes = vec![records::ROWS | number];
        bytes.extend(records::write_rows(&small));
        bytes.truncate(MAX_SEED);
        add(format!("rows-{number}"), bytes);
        let edits = [number, number, 0, 40, 255, 7, number + 1, 3, 1, 0, 0, 0];
        let mut damage = vec![records::DAMAGE | number];
        damage.extend_from_slice(&edits);
        add(format!("damage-{number}"), damage);
    }
    let secret = NodeSecret::from_seed(&[9; 32]);
    add("payment".into(), borsh_of(2, &payment(&secret)));
    add("order".into(), borsh_of(6, &secret.sign(&network(), order(&secret))));
    add("items".into(), borsh_of(8, &Items { channel: ChannelId(3), payer: Side::B, items: Vec::new() }));
    let hop = Hop { channel: ChannelId(3), to: secret.public(), price: Yocto(7), allowance_ms: 9 };
    add("hops".into(), borsh_of(10, &vec![hop.clone(), hop]));
    add("network".into(), borsh_of(12, &network()));
    let (channel, sequence, expires_ms) = (ChannelId(3), 1, 2);
    let totals = Totals::default();
    add("close".into(), borsh_of(13, &CooperativeClose { channel, sequence, expires_ms, totals }));
    let draw = Draw { channel, sequence, expires_ms, totals, draw_a: Yocto(1), draw_b: Yocto(2) };
    add("draw".into(), borsh_of(14, &draw));
    let terms = por_core::testing::Options::new(0).terms;
    add("terms".into(), borsh_of(15, &NewTerms { channel, sequence, expires_ms, totals, terms }));
    for frame in exchange::frames() {
        if let Frame::Request(request) = &frame
            && let Some(item) = request.requests.first()
        {
            let mut head = vec![0];
            head.extend_from_slice(&item.head);
            add("head".into(), head);
            add("proof".into(), borsh_of(3, &item.proof));
        }
        if let Frame::Response(response) = &frame
            && let Some(item) = response.responses.first()
        {
            add("receipt".into(), borsh_of(5, &item.receipt));
        }
    }
    seeds
}

fn contract_args_seeds() -> Vec<(String, Vec<u8>)> {
    let secret = NodeSecret::from_seed(&[9; 32]);
    let (key, signature) = (json!(secret.public()), json!(payment(&secret).signature));
    let terms = json!(por_core::testing::Options::new(0).terms);
    let params = json!({
        "late_fee": "1", "sever_penalty": "2000000000000000000000000", "challenge_ms": 3, "notice_ms": 4,
        "min_stake": "5", "activation_ms": 6, "reimbursement_ms": 7, "slash_bps": 8,
    });
    let totals = json!({"sent_a": "340282366920938463463374607431768211455", "sent_b": "0"});
    let act = |rest: Value| {
        let mut act = json!({"channel": 7, "sequence": 1, "expires_ms": 18446744073709551615u64});
        act["totals"] = totals.clone();
        if let (Value::Object(act), Value::Object(rest)) = (&mut act, rest) {
            act.extend(rest);
        }
        act
    };
    let witness = json!({"path": [0, 1, 4294967295u32], "closed": "a"});
    let order = json!(secret.sign(&network(), order(&secret)));
    let list = [
        (
            "new",
            json!({"chain_id": "a \"b\\c\" \u{e9}\n", "owner": "o.near", "treasury": "t.near",
            "params": params, "anchor": null, "test": true}),
        ),
        ("register", json!({"node_key": key, "proof": signature})),
        ("unstake", json!({"amount": "17"})),
        ("propose", json!({"counterparty": "b.near", "terms": terms, "deposit": "1"})),
        ("confirm", json!({"channel": 1, "terms": terms, "deposit": "1"})),
        ("channel", json!({"channel": 18446744073709551615u64})),
        ("close", json!({"channel": 1, "totals": totals})),
        (
            "close-signed",
            json!({"close": act(json!({})), "signature_a": signature, "signature_b": signature}),
        ),
        ("submit-state", json!({"state": payment(&secret), "signer": "b"})),
        ("sever", json!({"order": order, "witness": witness})),
        ("finalize", json!({"channel": 1, "witness": witness})),
        ("check", json!({"witness": null})),
        ("ping", json!({"through": "b.near"})),
        (
            "draw",
            json!({"draw": act(json!({"draw_a": "1", "draw_b": "2"})), "signature_a": signature,
            "signature_b": signature}),
        ),
        (
            "terms",
            json!({"act": act(json!({"terms": terms})), "signature_a": signature,
            "signature_b": signature}),
        ),
        ("params", json!({"params": params})),
        ("upgrade", json!({"code_hash": Hash([5; 32])})),
        ("migrate", json!({"limit": 3})),
        ("withdraw", json!({"amount": null, "unknown": [1, {"x": null}, "\u{1}"]})),
        ("account", json!({"account": "a-b_c.near"})),
        ("downtime", json!({"account": "a.near", "from_ms": 0, "to_ms": 9})),
        ("page", json!({"from": 0, "limit": 100})),
        ("neighbours", json!({"index": 0, "from": 1, "limit": 2})),
        ("changes", json!({"since": 0, "limit": 2})),
    ];
    let seed = |(number, (name, value)): (u8, (&str, Value))| {
        let mut bytes = vec![number];
        bytes.extend(value.to_string().into_bytes());
        (name.to_owned(), bytes)
    };
    (0..).zip(list).map(seed).collect()
}

fn late_items(exchanges: &[por_core::ExchangeId]) -> Vec<LateItem> {
    let item = |exchange: &por_core::ExchangeId| LateItem {
        exchange: *exchange,
        amount: por_core::types::Yocto(5),
        total: por_core::types::Yocto(9),
    };
    exchanges.iter().map(item).collect()
}
