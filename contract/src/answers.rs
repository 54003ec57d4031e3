//! What views answer and events say, written as the interface's structs.

use near_sdk::env;
use por_types::interface::{
    AttachedEvent, AttachmentView, BooksView, ChangeKind, ChangesView, ChannelChangedEvent, ChannelStatus,
    ChannelView, CheckView, CheckedEvent, ChecksView, ConfigView, CutOffEvent, DowntimeView, EVENT_STANDARD,
    EVENT_VERSION, Event, GovernedEvent, NeighbourView, NextCode, NextParams, NodeView, Params,
    RegisteredEvent, ReimbursedEvent, StakeChangedEvent, StateSubmittedEvent, WithdrawnEvent,
};
use por_types::{Terms, Totals};

use crate::json::{ToJson, to_json, write_object};

/// Answers the call.
pub fn answer(value: &dyn ToJson) {
    env::value_return(to_json(value).as_bytes());
}

/// Emits a NEP-297 event.
pub fn emit(event: &Event) {
    let (name, data): (&str, &dyn ToJson) = match event {
        Event::Registered(data) => ("registered", data),
        Event::StakeChanged(data) => ("stake_changed", data),
        Event::ChannelChanged(data) => ("channel_changed", data),
        Event::StateSubmitted(data) => ("state_submitted", data),
        Event::Withdrawn(data) => ("withdrawn", data),
        Event::Checked(data) => ("checked", data),
        Event::Reimbursed(data) => ("reimbursed", data),
        Event::Attached(data) => ("attached", data),
        Event::CutOff(data) => ("cut_off", data),
        Event::Governed(data) => ("governed", data),
    };
    let mut line = String::from("EVENT_JSON:");
    let fields: [(&str, &dyn ToJson); 4] =
        [("standard", &EVENT_STANDARD), ("version", &EVENT_VERSION), ("event", &name), ("data", data)];
    write_object(&mut line, &fields);
    env::log_str(&line);
}

macro_rules! answers {
    ($($name:ident { $($field:ident),* })*) => {$(
        impl ToJson for $name {
            fn write(&self, out: &mut String) {
                let $name { $($field),* } = self;
                write_object(out, &[$((stringify!($field), $field)),*]);
            }
        }
    )*};
}

answers! {
    ConfigView {
        state_version, chain_id, owner, treasury, params, test, graph_version, nodes, channels,
        register_storage, channel_storage, check_deposit, anchor, attached_stake, checks,
        governance_notice_ms, next_params, next_code
    }
    Params {
        late_fee, sever_penalty, challenge_ms, notice_ms, min_stake, activation_ms, reimbursement_ms,
        slash_bps
    }
    NextParams { params, from_ms }
    NextCode { code_hash, from_ms }
    NodeView {
        index, account, node_key, stake, active_stake, locked, unstaking, attached, attached_since_ms
    }
    ChannelView {
        channel, a, b, key_a, key_b, deposit_a, deposit_b, drawn_a, drawn_b, bond, totals, terms, sequence,
        status
    }
    Terms { rtt_ms, bytes_per_s, base_fee, byte_fee, heartbeat_ms, grace_ms, max_requests, max_bytes }
    Totals { sent_a, sent_b }
    ChangesView { version, upto, nodes, channels, gone, oldest }
    NeighbourView { index, channels }
    BooksView { balance, storage, deposits, stakes, bonds, escrow, treasury, withdrawable, surplus }
    AttachmentView { attached_since_ms, final_until_ms }
    DowntimeView { downtime_ms, complete, final_until_ms }
    ChecksView { checks, waiting, head }
    CheckView { channel, a, b, closed_ms, reward }
    RegisteredEvent { account, node_key, index }
    StakeChangedEvent { account, stake, unstaking }
    ChannelChangedEvent { channel, status, deposit_a, deposit_b }
    StateSubmittedEvent { channel, totals }
    WithdrawnEvent { account, amount }
    CheckedEvent { channel, partition, cut_off }
    ReimbursedEvent { channel, account, amount }
    AttachedEvent { account, attached }
    CutOffEvent { index, charged, slashed }
    GovernedEvent { act, from_ms }
}

impl ToJson for ChangeKind {
    fn write(&self, out: &mut String) {
        match self {
            ChangeKind::Node { index } => write_object(out, &[("change", &"node"), ("index", index)]),
            ChangeKind::Channel { channel } => {
                write_object(out, &[("change", &"channel"), ("channel", channel)]);
            }
        }
    }
}

impl ToJson for ChannelStatus {
    fn write(&self, out: &mut String) {
        match self {
            ChannelStatus::Proposed => write_object(out, &[("state", &"proposed")]),
            ChannelStatus::Open => write_object(out, &[("state", &"open")]),
            ChannelStatus::Closing { by, totals, confirmed, closes_ms } => write_object(
                out,
                &[
                    ("state", &"closing"),
                    ("by", by),
                    ("totals", totals),
                    ("confirmed", confirmed),
                    ("closes_ms", closes_ms),
                ],
            ),
            ChannelStatus::Severed { by, severed_ms, settles_ms } => write_object(
                out,
                &[("state", &"severed"), ("by", by), ("severed_ms", severed_ms), ("settles_ms", settles_ms)],
            ),
            ChannelStatus::Closed { paid_a, paid_b, bonds_until_ms, severed } => write_object(
                out,
                &[
                    ("state", &"closed"),
                    ("paid_a", paid_a),
                    ("paid_b", paid_b),
                    ("bonds_until_ms", bonds_until_ms),
                    ("severed", severed),
                ],
            ),
            ChannelStatus::Cancelled => write_object(out, &[("state", &"cancelled")]),
        }
    }
}
