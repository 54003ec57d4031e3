//! What the contract reads and writes by hand is what the interface's serde forms say.

use near_sdk::serde_json::{Value, from_str, json, to_value, to_vec};
use por_types::interface::*;
use por_types::{
    AccountId, ChannelId, ChannelState, CooperativeClose, Draw, Hash, NewTerms, NodeKey, RequestId,
    SeverOrder, SeverReason, Side, Signature, Signed, Terms, Totals, Yocto,
};
use serde::Serialize;

use crate::args::FromJson;
use crate::json::{Json, ToJson, parse, to_json};

const KEY: NodeKey = NodeKey([7; 32]);
const SIGNATURE: Signature = Signature([8; 64]);
const CHANNEL: ChannelId = ChannelId(u64::MAX);
const TOTALS: Totals = Totals { sent_a: Yocto(u128::MAX), sent_b: Yocto(0) };

fn account() -> AccountId {
    "a-node_1.por.test".parse().expect("account")
}

fn terms() -> Terms {
    Terms {
        rtt_ms: 1,
        bytes_per_s: u64::MAX,
        base_fee: Yocto(3),
        byte_fee: Yocto(4),
        heartbeat_ms: 5,
        grace_ms: 6,
        max_requests: u32::MAX,
        max_bytes: 8,
    }
}

fn params() -> Params {
    Params {
        late_fee: Yocto(1),
        sever_penalty: Yocto(2),
        challenge_ms: 3,
        notice_ms: 4,
        min_stake: Yocto(5),
        activation_ms: 6,
        reimbursement_ms: 7,
        slash_bps: u16::MAX,
    }
}

fn signed<T>(statement: T) -> Signed<T> {
    Signed { statement, signature: SIGNATURE }
}

fn order(reason: SeverReason) -> Signed<SeverOrder> {
    signed(SeverOrder { channel: CHANNEL, signer: KEY, reason, request: Some(RequestId([9; 32])) })
}

/// Read back from what serde writes, with a field that nobody knows.
fn reads<T: FromJson + Serialize + PartialEq + std::fmt::Debug>(value: T) {
    let mut written = to_value(&value).expect("serializes");
    written["unknown"] = json!([1, { "x": null }]);
    let parsed = parse(&to_vec(&written).expect("bytes")).expect("JSON");
    assert_eq!(T::read(parsed, "value"), value);
}

/// Written as serde writes it.
fn writes<T: ToJson + Serialize>(value: T) {
    let text = to_json(&value);
    assert_eq!(from_str::<Value>(&text).expect("JSON"), to_value(&value).expect("serializes"), "{text}");
}

#[test]
fn arguments_of_a_node_are_read_as_serde_writes_them() {
    for anchor in [None, Some(account())] {
        let chain_id = "a \"quoted\\ name\" \u{e9}\n".to_owned();
        let (owner, treasury) = (account(), account());
        reads(NewArgs { chain_id, owner, treasury, params: params(), anchor, test: true });
    }
    reads(RegisterArgs { node_key: KEY, proof: SIGNATURE });
    reads(UnstakeArgs { amount: Yocto(u128::MAX) });
    reads(PingArgs { through: account() });
    reads(SetParamsArgs { params: params() });
    reads(AnnounceUpgradeArgs { code_hash: Hash([5; 32]) });
    reads(MigrateArgs { limit: Some(3) });
    reads(WithdrawArgs { amount: None });
    reads(WithdrawArgs { amount: Some(Yocto(1)) });
    reads(AccountArgs { account: account() });
    reads(DowntimeArgs { account: account(), from_ms: 1, to_ms: u64::MAX });
    reads(KeyArgs { node_key: KEY });
    reads(PageArgs { from: 1, limit: 2 });
    reads(NeighboursArgs { index: 1, from: 2, limit: 3 });
    reads(ChangesArgs { since: 1, limit: 2 });
}

#[test]
fn arguments_of_a_channel_are_read_as_serde_writes_them() {
    reads(ProposeChannelArgs { counterparty: account(), terms: terms(), deposit: Yocto(1) });
    reads(ConfirmChannelArgs { channel: CHANNEL, terms: terms(), deposit: Yocto(1) });
    reads(ChannelArgs { channel: CHANNEL });
    reads(CloseArgs { channel: CHANNEL, totals: TOTALS });
    let state = ChannelState { channel: CHANNEL, totals: TOTALS, items: Hash([3; 32]) };
    reads(SubmitStateArgs { state: signed(state), signer: Side::B });
    for reason in [
        SeverReason::NoAck,
        SeverReason::MissedSync,
        SeverReason::UnpaidLateness,
        SeverReason::Disagreement,
        SeverReason::Loss,
        SeverReason::RefusedClose,
        SeverReason::Operator,
    ] {
        reads(SeverArgs { order: order(reason), witness: None });
    }
    let witness = Some(Witness { path: vec![0, 1, u32::MAX], closed: Some(Side::A) });
    reads(SeverArgs { order: order(SeverReason::Loss), witness: witness.clone() });
    reads(FinalizeArgs { channel: CHANNEL, witness: witness.clone() });
    reads(CheckArgs { witness });
}

#[test]
fn acts_of_both_sides_are_read_as_serde_writes_them() {
    let (channel, sequence, expires_ms, totals) = (CHANNEL, 1, 2, TOTALS);
    let (signature_a, signature_b) = (SIGNATURE, Signature([1; 64]));
    let close = CooperativeClose { channel, sequence, expires_ms, totals };
    reads(CloseSignedArgs { close, signature_a, signature_b });
    let draw = Draw { channel, sequence, expires_ms, totals, draw_a: Yocto(3), draw_b: Yocto(4) };
    reads(DrawArgs { draw, signature_a, signature_b });
    let act = NewTerms { channel, sequence, expires_ms, totals, terms: terms() };
    reads(ReplaceTermsArgs { act, signature_a, signature_b });
}

#[test]
fn the_network_is_written_as_serde_writes_it() {
    writes(ConfigView {
        state_version: 2,
        chain_id: "a \"quoted\\ name\"".to_owned(),
        owner: account(),
        treasury: account(),
        params: params(),
        test: false,
        graph_version: 1,
        nodes: 2,
        channels: 3,
        register_storage: Yocto(4),
        channel_storage: Yocto(5),
        check_deposit: Yocto(6),
        anchor: account(),
        attached_stake: Yocto(7),
        checks: 8,
        governance_notice_ms: 9,
        next_params: Some(NextParams { params: params(), from_ms: 1 }),
        next_code: Some(NextCode { code_hash: Hash([0; 32]), from_ms: 2 }),
    });
    writes(BooksView {
        balance: Yocto(u128::MAX),
        storage: Yocto(1),
        deposits: Yocto(2),
        stakes: Yocto(3),
        bonds: Yocto(4),
        escrow: Yocto(5),
        treasury: Yocto(6),
        withdrawable: Yocto(7),
        surplus: Yocto(8),
    });
    writes(vec![NeighbourView { index: 1, channels: 2 }]);
    writes(Some(AttachmentView { attached_since_ms: None, final_until_ms: 1 }));
    writes(DowntimeView { downtime_ms: 1, complete: true, final_until_ms: 2 });
    let head = CheckView { channel: CHANNEL, a: 1, b: 2, closed_ms: 3, reward: Yocto(4) };
    writes(ChecksView { checks: 1, waiting: 2, head: Some(head) });
}

#[test]
fn nodes_and_channels_are_written_as_serde_writes_them() {
    let node = NodeView {
        index: 1,
        account: account(),
        node_key: KEY,
        stake: Yocto(2),
        active_stake: Yocto(3),
        locked: Yocto(4),
        unstaking: Yocto(5),
        attached: true,
        attached_since_ms: Some(6),
    };
    let by = Side::A;
    for status in [
        ChannelStatus::Proposed,
        ChannelStatus::Open,
        ChannelStatus::Closing { by, totals: TOTALS, confirmed: true, closes_ms: 1 },
        ChannelStatus::Severed { by: Side::B, severed_ms: 1, settles_ms: 2 },
        ChannelStatus::Closed { paid_a: Yocto(1), paid_b: Yocto(2), bonds_until_ms: None, severed: false },
        ChannelStatus::Closed { paid_a: Yocto(1), paid_b: Yocto(2), bonds_until_ms: Some(3), severed: true },
        ChannelStatus::Cancelled,
    ] {
        let channel = ChannelView {
            channel: CHANNEL,
            a: account(),
            b: account(),
            key_a: KEY,
            key_b: KEY,
            deposit_a: Yocto(1),
            deposit_b: Yocto(2),
            drawn_a: Yocto(3),
            drawn_b: Yocto(4),
            bond: Yocto(5),
            totals: TOTALS,
            terms: terms(),
            sequence: 6,
            status,
        };
        let (nodes, channels) = (vec![node.clone(), node.clone()], vec![channel]);
        let gone = vec![ChangeKind::Node { index: 7 }, ChangeKind::Channel { channel: CHANNEL }];
        writes(ChangesView { version: 1, upto: 2, nodes, channels, gone, oldest: 3 });
    }
}

#[test]
fn what_is_not_json_or_no_argument_is_refused() {
    let deep = format!("{}1{}", "[".repeat(9), "]".repeat(9));
    for text in [
        "",
        " ",
        "{",
        "}",
        "{}x",
        "{\"a\"}",
        "{\"a\":}",
        "{\"a\":1,}",
        "[1,]",
        "[,1]",
        "01",
        "-1",
        "1.5",
        "1e3",
        "18446744073709551616",
        "nul",
        "\"\\x\"",
        "\"\\ud800\"",
        "\"\n\"",
        "\"open",
        "'a'",
        deep.as_str(),
    ] {
        assert_eq!(parse(text.as_bytes()), None, "{text}");
    }
    assert_eq!(parse(b"\"\xff\""), None);
    let list = vec![Json::Number(u64::MAX), Json::Text("\u{e9}/".to_owned())];
    assert_eq!(parse(b" [ 18446744073709551615 , \"\\u00e9\\/\" ] "), Some(Json::List(list)));
}
