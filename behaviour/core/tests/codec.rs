//! Frames on the wire: every one round-trips, nothing a peer sends makes the decoder panic or hold
//! more than one frame.

#[path = "support/rig.rs"]
mod rig;

use bytes::{Bytes, BytesMut};
use por_core::codec::{self, Decoder, WireError};
use por_core::types::{
    ChannelId, FlushProof, Hash, Invalid, InvalidReason, RequestId, ResponseReceipt, SeverOrder, SeverReason,
    Signature, Yocto,
};
use por_core::wire::*;
use por_core::*;
use proptest::prelude::*;
use rig::*;

fn round_trip(frame: &Frame) -> Frame {
    let mut bytes = BytesMut::new();
    codec::encode(frame, &mut bytes);
    let mut decoder = Decoder::new(1 << 24);
    // In two parts, with the next frame behind it.
    let rest = bytes.split_off(bytes.len() / 2);
    assert_eq!(decoder.decode(&mut bytes), Ok(None));
    bytes.unsplit(rest);
    codec::encode(frame, &mut bytes);
    let first = decoder.decode(&mut bytes).unwrap().expect("complete");
    assert_eq!(decoder.decode(&mut bytes).unwrap().expect("complete"), first);
    assert!(bytes.is_empty());
    first
}

fn hash() -> impl Strategy<Value = Hash> {
    any::<[u8; 32]>().prop_map(Hash)
}

fn proof() -> impl Strategy<Value = FlushProof> {
    (any::<u32>(), any::<u32>(), prop::collection::vec(hash(), 0..17), any::<[u8; 32]>()).prop_map(
        |(index, leaves, path, half)| {
            let mut signature = [0; 64];
            signature[..32].copy_from_slice(&half);
            FlushProof { index, leaves, path, signature: Signature(signature) }
        },
    )
}

fn payment() -> impl Strategy<Value = types::Signed<types::ChannelState>> {
    (any::<u64>(), any::<u128>(), any::<u128>(), hash())
        .prop_map(|(id, a, b, items)| state(&secret(1), types::ChannelId(id), Yocto(a), Yocto(b), items))
}

fn body() -> impl Strategy<Value = Option<Bytes>> {
    prop::option::of(prop::collection::vec(any::<u8>(), 0..500).prop_map(Bytes::from))
}

fn receipt() -> impl Strategy<Value = SignedReceipt> {
    (hash(), any::<u64>(), hash(), proof()).prop_map(|(id, body_len, body_hash, proof)| SignedReceipt {
        receipt: ResponseReceipt { request: RequestId(id.0), body_len, body_hash },
        proof,
    })
}

fn late_items(exchanges: Vec<ExchangeId>) -> Vec<LateItem> {
    let item = |exchange| LateItem { exchange, amount: Yocto(3), total: Yocto(7) };
    exchanges.into_iter().map(item).collect()
}

fn exchanges() -> impl Strategy<Value = Vec<ExchangeId>> {
    prop::collection::vec(any::<u64>().prop_map(ExchangeId), 0..50)
}

fn sync() -> impl Strategy<Value = Frame> {
    let channel = (prop::option::of(payment()), prop::option::of(payment()))
        .prop_map(|(own, theirs)| SyncChannel { own, theirs });
    let known = (any::<u64>(), hash(), any::<bool>(), any::<u64>()).prop_map(|(n, id, acked, body_bytes)| {
        SyncExchange { exchange: ExchangeId(n), request: RequestId(id.0), acked, body_bytes, credit: n }
    });
    let seen = (any::<u64>(), any::<u128>())
        .prop_map(|(channel, deposit)| SeenChannel { channel: ChannelId(channel), deposit: Yocto(deposit) });
    let channels = prop::collection::vec(channel, 0..4);
    let lists = (channels, prop::collection::vec(known, 0..4), prop::collection::vec(seen, 0..4));
    (any::<u64>(), any::<u64>(), lists, any::<bool>()).prop_map(
        |(epoch, answers, (channels, known, seen), complete)| {
            Frame::Sync(Sync { epoch, answers, channels, known, complete, seen })
        },
    )
}

fn request() -> impl Strategy<Value = Frame> {
    let head = prop::collection::vec(any::<u8>(), 0..300).prop_map(Bytes::from);
    let item = (any::<u64>(), any::<u8>(), head, proof(), body()).prop_map(|(n, hop, head, proof, body)| {
        let channel = n.is_multiple_of(3).then_some(IN);
        RequestItem { exchange: ExchangeId(n), hop, head, proof, body, again: n % 2 == 0, channel }
    });
    (prop::option::of(payment()), any::<bool>(), prop::collection::vec(item, 0..4))
        .prop_map(|(payment, resent, requests)| Frame::Request(Request { payment, resent, requests }))
}

fn part() -> impl Strategy<Value = Part> {
    prop_oneof![Just(Part::RequestBody), Just(Part::ResponseBody)]
}

fn frame() -> impl Strategy<Value = Frame> {
    let receipts = || prop::collection::vec(payment(), 0..3);
    let ack =
        (receipts(), exchanges()).prop_map(|(receipts, exchanges)| Frame::Ack(Ack { receipts, exchanges }));
    let done =
        (receipts(), exchanges()).prop_map(|(receipts, exchanges)| Frame::Done(Done { receipts, exchanges }));
    let rejection = (any::<u64>(), hash(), any::<bool>()).prop_map(|(n, id, proven)| {
        let statement = Invalid {
            request: RequestId(id.0),
            signer: secret(1).public(),
            reason: InvalidReason::Underpaid,
        };
        let invalid = proven.then(|| signed_invalid(&secret(1), statement));
        Rejection { exchange: ExchangeId(n), reason: RejectReason::Balance, invalid }
    });
    let reject = (prop::option::of(payment()), any::<bool>(), prop::collection::vec(rejection, 0..4))
        .prop_map(|(payment, resent, rejections)| Frame::Reject(Reject { payment, resent, rejections }));
    let item = (any::<u64>(), receipt(), any::<bool>(), body()).prop_map(|(n, receipt, resume, body)| {
        ResponseItem {
            exchange: ExchangeId(n),
            receipt,
            resume,
            body,
            late: n.is_multiple_of(3).then_some(LateDue { amount: Yocto(n.into()), total: Yocto(u128::MAX) }),
        }
    });
    let response =
        (prop::option::of(payment()), prop::collection::vec(item, 0..4)).prop_map(|(payment, responses)| {
            Frame::Response(Response { resent: payment.is_none(), payment, responses })
        });
    let credit = (any::<u64>(), part(), hash(), any::<u64>(), any::<Option<u64>>()).prop_map(
        |(n, part, body, up_to, from)| {
            Frame::Credit(Credit { exchange: ExchangeId(n), part, body, up_to, from })
        },
    );
    let data = prop::collection::vec(any::<u8>(), 1..2000).prop_map(Bytes::from);
    let fragment = (any::<u64>(), part(), 0..u64::MAX / 2, data).prop_map(|(n, part, offset, data)| {
        Frame::Fragment(Fragment { exchange: ExchangeId(n), part, offset, data })
    });
    let late = (payment(), exchanges(), any::<bool>()).prop_map(|(payment, exchanges, resent)| {
        Frame::Late(Late { payment, resent, items: late_items(exchanges) })
    });
    let severed = (exchanges(), prop::option::of(payment())).prop_map(|(exchanges, payment)| {
        let order =
            SeverOrder { channel: IN, signer: secret(1).public(), reason: SeverReason::NoAck, request: None };
        let order = secret(1).sign(&network(), order);
        Frame::Severed(Severed { order, resent: payment.is_none(), payment, items: late_items(exchanges) })
    });
    let hello = any::<bool>().prop_map(|bulk| {
        let lane = if bulk { Lane::Bulk } else { Lane::Control };
        Frame::Hello(Hello::new(network(), lane, &Limits::default()))
    });
    prop_oneof![sync(), request(), ack, done, reject, response, credit, fragment, late, severed, hello]
}

proptest! {
    #[test]
    fn every_frame_round_trips(frame in frame()) {
        prop_assert_eq!(round_trip(&frame), frame);
    }

    #[test]
    fn random_bytes_are_an_error_or_wait_for_more(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        let mut src = BytesMut::from(&bytes[..]);
        let before = src.len();
        let _ = Decoder::new(4096).decode(&mut src);
        prop_assert!(src.len() <= before);
    }

    #[test]
    fn random_payloads_of_every_type_do_not_panic(
        kind in 0u8..16,
        payload in prop::collection::vec(any::<u8>(), 0..600),
    ) {
        let mut src = BytesMut::from(&(payload.len() as u32 + 1).to_be_bytes()[..]);
        src.extend_from_slice(&[kind]);
        src.extend_from_slice(&payload);
        let _ = Decoder::new(4096).decode(&mut src);
    }

    #[test]
    fn changed_frames_do_not_panic(frame in frame(), at in any::<prop::sample::Index>(), to in any::<u8>()) {
        let mut bytes = BytesMut::new();
        codec::encode(&frame, &mut bytes);
        let index = at.index(bytes.len());
        bytes[index] = to;
        let _ = Decoder::new(1 << 20).decode(&mut bytes);
    }
}

/// Aims a frame at exchanges that exist.
fn aim(frame: Frame, exchange: ExchangeId) -> Frame {
    match frame {
        Frame::Ack(ack) => Frame::Ack(Ack { exchanges: vec![exchange], ..ack }),
        Frame::Done(done) => Frame::Done(Done { exchanges: vec![exchange], ..done }),
        Frame::Credit(credit) => Frame::Credit(Credit { exchange, ..credit }),
        Frame::Fragment(fragment) => Frame::Fragment(Fragment { exchange, ..fragment }),
        Frame::Response(mut response) => {
            response.responses.iter_mut().for_each(|item| item.exchange = exchange);
            Frame::Response(response)
        }
        Frame::Reject(mut reject) => {
            reject.rejections.iter_mut().for_each(|item| item.exchange = exchange);
            Frame::Reject(reject)
        }
        Frame::Request(mut request) => {
            request.requests.iter_mut().for_each(|item| item.exchange = exchange);
            Frame::Request(request)
        }
        other => other,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever two peers send, the node neither panics nor pays, and goes on working for them.
    #[test]
    fn random_frames_cost_the_node_nothing(
        frames in prop::collection::vec((frame(), any::<bool>(), any::<bool>()), 1..30),
    ) {
        let mut rig = Rig::new();
        let (id, request) = rig.relayed(b"question", 100);
        for (frame, from_up, aimed) in frames {
            let (peer, exchange) = match from_up {
                true => (rig.up.public(), ExchangeId(1)),
                false => (rig.down.public(), request.exchange),
            };
            let frame = if aimed { aim(frame, exchange) } else { frame };
            rig.frame(peer, frame);
            if rig.disconnected.contains(&peer) {
                rig.disconnected.clear();
                rig.reconnect(peer);
            }
        }
        let paid = rig.node.channel(OUT).unwrap();
        prop_assert_eq!(paid.totals.sent_b, Yocto::ZERO);
        prop_assert_eq!(rig.node.channel(IN).unwrap().totals.sent_b, Yocto::ZERO);
        // The upstream peer may have given its request up with a Done; else it is answered still.
        let (up, down) = (rig.up.public(), rig.down.public());
        rig.reconnect(up);
        rig.reconnect(down);
        if rig.node.unfinished() > 0 {
            let item = rig.response(id, request.exchange, b"answer");
            rig.respond(item);
            let answered = rig.responses_up_got().iter().any(|item| item.body.as_deref() == Some(&b"answer"[..]));
            prop_assert!(answered);
        }
    }
}

fn raw(kind: u8, payload: &[u8]) -> BytesMut {
    let mut src = BytesMut::from(&(payload.len() as u32 + 1).to_be_bytes()[..]);
    src.extend_from_slice(&[kind]);
    src.extend_from_slice(payload);
    src
}

#[test]
fn a_length_over_the_limit_is_refused_before_anything_is_held_for_it() {
    let mut src = BytesMut::from(&[0xff, 0xff, 0xff, 0xff, 9][..]);
    let result = Decoder::new(1 << 20).decode(&mut src);
    assert_eq!(result, Err(WireError::TooLong { len: u32::MAX, max: 1 << 20 }));
    let mut src = BytesMut::from(&[0, 0x10, 0, 0, 9][..]);
    assert_eq!(Decoder::new(1 << 20).decode(&mut src), Ok(None));
    assert!(src.capacity() < 4096, "nothing is reserved for what has not arrived");
}

#[test]
fn unknown_types_empty_frames_and_trailing_bytes_are_errors() {
    assert_eq!(Decoder::new(100).decode(&mut raw(99, &[])), Err(WireError::UnknownType(99)));
    assert_eq!(Decoder::new(100).decode(&mut BytesMut::from(&[0, 0, 0, 0][..])), Err(WireError::Empty));
    let mut bytes = BytesMut::new();
    codec::encode(&Frame::Ack(Ack { receipts: vec![], exchanges: vec![] }), &mut bytes);
    let mut payload = bytes[5..].to_vec();
    payload.push(0);
    let result = Decoder::new(100).decode(&mut raw(4, &payload));
    assert!(matches!(result, Err(WireError::Malformed { frame: "Ack", .. })), "{result:?}");
}

#[test]
fn unknown_fields_are_ignored_and_deep_nesting_is_refused() {
    // {"exchanges": [], "receipts": [], "later": 7}
    let known = b"\xa3\x69exchanges\x80\x68receipts\x80\x65later\x07";
    let frame = Decoder::new(100).decode(&mut raw(4, known)).unwrap();
    assert_eq!(frame, Some(Frame::Ack(Ack { receipts: vec![], exchanges: vec![] })));
    let mut deep = b"\xa3\x69exchanges\x80\x68receipts\x80\x65later".to_vec();
    deep.extend([0x81; 100_000]);
    deep.push(0);
    let result = Decoder::new(1 << 20).decode(&mut raw(4, &deep));
    assert!(matches!(result, Err(WireError::Malformed { .. })), "{result:?}");
}

#[test]
fn a_claimed_count_beyond_the_frame_allocates_nothing() {
    // 2^60 exchanges are announced, none follows.
    let payload = b"\xa2\x68receipts\x80\x69exchanges\x9b\x10\0\0\0\0\0\0\0";
    let result = Decoder::new(100).decode(&mut raw(4, payload));
    assert!(matches!(result, Err(WireError::Malformed { .. })), "{result:?}");
}

#[test]
fn a_list_of_empty_items_is_refused_before_it_takes_memory() {
    // {"epoch": 1, "channels": [{}, {}, ...]}: a byte each, and hundreds in memory.
    let sync = |count: u16| {
        let mut payload = b"\xa2\x65epoch\x01\x68channels\x99".to_vec();
        payload.extend(count.to_be_bytes());
        payload.extend(std::iter::repeat_n(0xa0, count.into()));
        Decoder::new(1 << 20).decode(&mut raw(2, &payload))
    };
    assert!(matches!(sync(1024), Ok(Some(Frame::Sync(_)))));
    let result = sync(1025);
    assert!(matches!(result, Err(WireError::Malformed { frame: "Sync", .. })), "{result:?}");
}

#[test]
fn a_hello_of_another_network_or_version_is_refused() {
    let good = Hello::new(network(), Lane::Control, &Limits::default());
    assert_eq!(good.check(&network()), Ok(()));
    let foreign = types::Network { chain_id: "testnet".into(), ..network() };
    assert!(matches!(good.check(&foreign), Err(HelloError::Network { .. })));
    let old = Hello { version: 9, ..good.clone() };
    assert_eq!(old.check(&network()), Err(HelloError::Version(9)));
    let tiny = Hello { window: 10, ..good };
    assert!(matches!(tiny.check(&network()), Err(HelloError::Limits { .. })));
}

/// Held for want of credit, a fragment holds the buffer that it came in: what surrounds it there must not
/// be many times its size.
#[test]
fn a_small_fragment_does_not_hold_the_buffer_that_it_came_in() {
    let mut wire = BytesMut::new();
    // Taken without a word.
    let exchanges = (0..100_000).map(|number| ExchangeId(u64::MAX - number)).collect();
    let junk = Frame::Done(Done { exchanges, receipts: vec![] });
    let fragment = |exchange| {
        let data = bytes::Bytes::from(vec![7; 16 << 10]);
        Frame::Fragment(Fragment {
            exchange: ExchangeId(exchange),
            part: Part::ResponseBody,
            offset: 0,
            data,
        })
    };
    let mut expected = 0;
    for exchange in 0..8 {
        codec::encode(&junk, &mut wire);
        codec::encode(&fragment(exchange), &mut wire);
        // What flows on at once is no better.
        for _ in 0..6 {
            codec::encode(&fragment(1 << 20), &mut wire);
        }
        expected += 1;
    }
    let (mut buffer, mut decoder, mut held) = (BytesMut::new(), codec::Decoder::new(1 << 20), Vec::new());
    for read in wire.freeze().chunks(128 << 10) {
        buffer.extend_from_slice(read);
        while let Some(frame) = decoder.decode(&mut buffer).expect("frames") {
            if let Frame::Fragment(fragment) = frame
                && fragment.exchange.0 < 1 << 20
            {
                held.push(fragment.data);
            }
        }
    }
    assert_eq!(held.len(), expected);
    assert!(held.iter().all(bytes::Bytes::is_unique));
}

/// Where fragments are most of what comes, they are not copied.
#[test]
fn a_large_fragment_is_not_copied() {
    let mut buffer = BytesMut::new();
    let data = bytes::Bytes::from(vec![7; 64 << 10]);
    let fragment = Fragment { exchange: ExchangeId(1), part: Part::ResponseBody, offset: 0, data };
    let mut wire = BytesMut::new();
    for _ in 0..3 {
        codec::encode(&Frame::Fragment(fragment.clone()), &mut wire);
    }
    buffer.extend_from_slice(&wire);
    let start = buffer.as_ptr().addr()..buffer.as_ptr().addr() + buffer.len();
    let mut decoder = codec::Decoder::new(1 << 20);
    while let Some(frame) = decoder.decode(&mut buffer).expect("frames") {
        let Frame::Fragment(found) = frame else { panic!("{frame:?}") };
        assert_eq!(found, fragment);
        assert!(start.contains(&found.data.as_ptr().addr()));
    }
}
