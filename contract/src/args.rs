//! A call's arguments, read as the interface's argument structs.

use near_sdk::env;
use por_types::interface::{
    AccountArgs, AnnounceUpgradeArgs, ChangesArgs, ChannelArgs, CheckArgs, CloseArgs, CloseSignedArgs,
    ConfirmChannelArgs, DowntimeArgs, DrawArgs, FinalizeArgs, KeyArgs, MigrateArgs, NeighboursArgs, NewArgs,
    PageArgs, Params, PingArgs, ProposeChannelArgs, RegisterArgs, ReplaceTermsArgs, SetParamsArgs, SeverArgs,
    SubmitStateArgs, UnstakeArgs, WithdrawArgs, WithdrawnEvent, Witness, code,
};
use por_types::{
    AccountId, ChannelId, ChannelState, CooperativeClose, Draw, Hash, NewTerms, NodeKey, RequestId,
    SeverOrder, SeverReason, Side, Signature, Signed, Terms, Totals, Yocto,
};

use crate::fail::fail;
use crate::json::{Json, parse};

/// The arguments of this call; stops if they are not what `T` says.
pub fn args<T: FromJson>() -> T {
    let input = env::input().unwrap_or_default();
    let Some(value) = parse(&input) else {
        fail!(code::ARGUMENT, "the arguments are not JSON; send an object");
    };
    T::read(value, "the arguments")
}

fn wrong(name: &str, expected: &str) -> ! {
    fail!(code::ARGUMENT, "{name}: expected {expected}; check the arguments")
}

/// What arguments are made of.
pub trait FromJson: Sized {
    /// Reads `value`, the field `name`; stops if it is something else.
    fn read(value: Json, name: &str) -> Self;

    /// The value of a field that is not there.
    fn missing(name: &str) -> Self {
        wrong(name, "a value, but it is missing")
    }
}

/// Fields of an object that is read as a struct. Unknown ones are ignored.
pub struct Fields(Vec<(String, Json)>);

impl Fields {
    fn of(value: Json, name: &str) -> Fields {
        match value {
            Json::Object(fields) => Fields(fields),
            _ => wrong(name, "an object"),
        }
    }

    fn find(&mut self, name: &str) -> Option<Json> {
        let at = self.0.iter().position(|(field, _)| field == name)?;
        Some(self.0.swap_remove(at).1)
    }

    fn take<T: FromJson>(&mut self, name: &str) -> T {
        match self.find(name) {
            Some(value) => T::read(value, name),
            None => T::missing(name),
        }
    }
}

macro_rules! arguments {
    ($($name:ident $(<$inner:ty>)? { $($field:ident),* })*) => {$(
        impl FromJson for $name $(<$inner>)? {
            fn read(value: Json, name: &str) -> Self {
                let mut fields = Fields::of(value, name);
                $name { $($field: fields.take(stringify!($field))),* }
            }
        }
    )*};
}

arguments! {
    NewArgs { chain_id, owner, treasury, params, anchor, test }
    Params {
        late_fee, sever_penalty, challenge_ms, notice_ms, min_stake, activation_ms, reimbursement_ms,
        slash_bps
    }
    RegisterArgs { node_key, proof }
    UnstakeArgs { amount }
    ProposeChannelArgs { counterparty, terms, deposit }
    ConfirmChannelArgs { channel, terms, deposit }
    Terms { rtt_ms, bytes_per_s, base_fee, byte_fee, heartbeat_ms, grace_ms, max_requests, max_bytes }
    ChannelArgs { channel }
    CloseArgs { channel, totals }
    Totals { sent_a, sent_b }
    CloseSignedArgs { close, signature_a, signature_b }
    CooperativeClose { channel, sequence, expires_ms, totals }
    SubmitStateArgs { state, signer }
    ChannelState { channel, totals, items }
    SeverArgs { order, witness }
    SeverOrder { channel, signer, reason, request }
    FinalizeArgs { channel, witness }
    CheckArgs { witness }
    Witness { path, closed }
    PingArgs { through }
    DrawArgs { draw, signature_a, signature_b }
    Draw { channel, sequence, expires_ms, totals, draw_a, draw_b }
    ReplaceTermsArgs { act, signature_a, signature_b }
    NewTerms { channel, sequence, expires_ms, totals, terms }
    SetParamsArgs { params }
    AnnounceUpgradeArgs { code_hash }
    MigrateArgs { limit }
    WithdrawArgs { amount }
    WithdrawnEvent { account, amount }
    AccountArgs { account }
    DowntimeArgs { account, from_ms, to_ms }
    KeyArgs { node_key }
    PageArgs { from, limit }
    NeighboursArgs { index, from, limit }
    ChangesArgs { since, limit }
}

impl<T: FromJson> FromJson for Signed<T> {
    fn read(value: Json, name: &str) -> Self {
        let mut fields = Fields::of(value, name);
        Signed { statement: fields.take("statement"), signature: fields.take("signature") }
    }
}

fn number(value: &Json, name: &str, max: u64) -> u64 {
    match value {
        Json::Number(number) if *number <= max => *number,
        _ => wrong(name, "a whole number in range"),
    }
}

impl FromJson for u16 {
    fn read(value: Json, name: &str) -> Self {
        number(&value, name, u64::from(u16::MAX)) as u16
    }
}

impl FromJson for u32 {
    fn read(value: Json, name: &str) -> Self {
        number(&value, name, u64::from(u32::MAX)) as u32
    }
}

impl FromJson for u64 {
    fn read(value: Json, name: &str) -> Self {
        number(&value, name, u64::MAX)
    }
}

impl FromJson for ChannelId {
    fn read(value: Json, name: &str) -> Self {
        ChannelId(u64::read(value, name))
    }
}

impl FromJson for bool {
    fn read(value: Json, name: &str) -> Self {
        match value {
            Json::Bool(value) => value,
            _ => wrong(name, "true or false"),
        }
    }

    fn missing(_: &str) -> Self {
        false
    }
}

impl FromJson for String {
    fn read(value: Json, name: &str) -> Self {
        match value {
            Json::Text(text) => text,
            _ => wrong(name, "a string"),
        }
    }
}

impl<T: FromJson> FromJson for Option<T> {
    fn read(value: Json, name: &str) -> Self {
        if value == Json::Null { None } else { Some(T::read(value, name)) }
    }

    fn missing(_: &str) -> Self {
        None
    }
}

impl<T: FromJson> FromJson for Vec<T> {
    fn read(value: Json, name: &str) -> Self {
        match value {
            Json::List(list) => list.into_iter().map(|value| T::read(value, name)).collect(),
            _ => wrong(name, "a list"),
        }
    }

    fn missing(_: &str) -> Self {
        Vec::new()
    }
}

macro_rules! from_text {
    ($($name:ty: $expected:literal,)*) => {$(
        impl FromJson for $name {
            fn read(value: Json, name: &str) -> Self {
                match String::read(value, name).parse() {
                    Ok(value) => value,
                    Err(_) => wrong(name, $expected),
                }
            }
        }
    )*};
}

from_text! {
    Yocto: "yoctoNEAR as a string of digits",
    AccountId: "an account",
    NodeKey: "`ed25519:` and base58 of 32 bytes",
    Signature: "`ed25519:` and base58 of 64 bytes",
    Hash: "base58 of 32 bytes",
    RequestId: "base58 of 32 bytes",
}

impl FromJson for Side {
    fn read(value: Json, name: &str) -> Self {
        match String::read(value, name).as_str() {
            "a" => Side::A,
            "b" => Side::B,
            _ => wrong(name, "`a` or `b`"),
        }
    }
}

impl FromJson for SeverReason {
    fn read(value: Json, name: &str) -> Self {
        match String::read(value, name).as_str() {
            "no-ack" => SeverReason::NoAck,
            "missed-sync" => SeverReason::MissedSync,
            "unpaid-lateness" => SeverReason::UnpaidLateness,
            "disagreement" => SeverReason::Disagreement,
            "loss" => SeverReason::Loss,
            "refused-close" => SeverReason::RefusedClose,
            "operator" => SeverReason::Operator,
            _ => wrong(name, "a reason"),
        }
    }
}
