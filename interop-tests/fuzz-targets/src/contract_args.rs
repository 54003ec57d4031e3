//! The contract's own reader of arguments against serde's of the same structs.

use std::cell::Cell;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};

use por_contract::host::{FromJson, Json, parse};
use por_types::interface::*;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

thread_local! {
    static REFUSING: Cell<bool> = const { Cell::new(false) };
}

/// The contract may be refusing a call right now, which it does by a panic.
pub(crate) fn refusing() -> bool {
    REFUSING.with(Cell::get)
}

/// Structs of arguments, by the first byte.
const READERS: [fn(&[u8]); 24] = [
    compare::<NewArgs>,
    compare::<RegisterArgs>,
    compare::<UnstakeArgs>,
    compare::<ProposeChannelArgs>,
    compare::<ConfirmChannelArgs>,
    compare::<ChannelArgs>,
    compare::<CloseArgs>,
    compare::<CloseSignedArgs>,
    compare::<SubmitStateArgs>,
    compare::<SeverArgs>,
    compare::<FinalizeArgs>,
    compare::<CheckArgs>,
    compare::<PingArgs>,
    compare::<DrawArgs>,
    compare::<ReplaceTermsArgs>,
    compare::<SetParamsArgs>,
    compare::<AnnounceUpgradeArgs>,
    compare::<MigrateArgs>,
    compare::<WithdrawArgs>,
    compare::<AccountArgs>,
    compare::<DowntimeArgs>,
    compare::<PageArgs>,
    compare::<NeighboursArgs>,
    compare::<ChangesArgs>,
];

/// The first byte names the struct, the rest is the text of a call's arguments.
///
/// What both read is equal. What only serde reads is not written the way serde writes it, or is
/// JSON that no argument needs. What only the contract reads names a field twice.
pub fn contract_args(data: &[u8]) {
    let Some((&kind, text)) = data.split_first() else { return };
    READERS[usize::from(kind) % READERS.len()](text);
}

fn compare<T>(text: &[u8])
where
    T: FromJson + DeserializeOwned + Serialize + PartialEq + Debug,
{
    let reference = serde_json::from_slice::<Value>(text).ok();
    let Some(parsed) = parse(text) else {
        let outside = reference.as_ref().is_none_or(|value| not_needed(value, text, 0));
        assert!(outside, "JSON that arguments may be is not read: {}", String::from_utf8_lossy(text));
        return;
    };
    let repeats = repeats(&parsed);
    let Some(reference) = reference else {
        panic!("read, but not JSON: {}", String::from_utf8_lossy(text));
    };
    assert!(repeats || value(&parsed) == reference, "{parsed:?} is not {reference}");
    let own = read::<T>(parsed);
    let serde = serde_json::from_slice::<T>(text);
    match (own, serde) {
        (Some(own), Ok(serde)) => {
            assert_eq!(own, serde);
            let written = serde_json::to_vec(&own).unwrap_or_default();
            assert_eq!(parse(&written).and_then(read::<T>), Some(own), "not read as serde writes it");
        }
        (Some(own), Err(error)) => assert!(repeats, "{own:?} is read, but serde says {error}"),
        (None, Ok(serde)) => {
            let usual = serde_json::to_value(&serde).unwrap_or_default();
            assert!(other_shape(&reference, &usual), "{serde:?} is refused");
        }
        (None, Err(_)) => {}
    }
}

/// As a call reads it; `None` where the call would stop.
fn read<T: FromJson>(json: Json) -> Option<T> {
    REFUSING.with(|flag| flag.set(true));
    let read = catch_unwind(AssertUnwindSafe(|| T::read(json, "the arguments"))).ok();
    REFUSING.with(|flag| flag.set(false));
    read
}

fn value(json: &Json) -> Value {
    match json {
        Json::Null => Value::Null,
        Json::Bool(value) => (*value).into(),
        Json::Number(value) => (*value).into(),
        Json::Text(value) => value.as_str().into(),
        Json::List(list) => list.iter().map(self::value).collect(),
        Json::Object(fields) => {
            Value::Object(fields.iter().map(|(name, field)| (name.clone(), self::value(field))).collect())
        }
    }
}

/// An object names a field twice; serde refuses such structs, the contract takes the first.
fn repeats(json: &Json) -> bool {
    match json {
        Json::List(list) => list.iter().any(repeats),
        Json::Object(fields) => {
            let twice = |(at, (name, _)): (usize, &(String, Json))| {
                fields[..at].iter().any(|(before, _)| before == name)
            };
            fields.iter().enumerate().any(twice) || fields.iter().any(|(_, field)| repeats(field))
        }
        _ => false,
    }
}

/// Numbers other than whole ones of 64 bits, deep nesting, and escapes of surrogates.
fn not_needed(value: &Value, text: &[u8], depth: u32) -> bool {
    let inside = match value {
        Value::Number(number) => !number.is_u64(),
        Value::Array(list) => depth >= 8 || list.iter().any(|value| not_needed(value, text, depth + 1)),
        Value::Object(map) => depth >= 8 || map.values().any(|value| not_needed(value, text, depth + 1)),
        _ => false,
    };
    // Which field of a repeated name it is cannot be seen any more, and neither is an escape.
    inside || text.windows(2).any(|pair| pair == b"\\u") || hidden(text)
}

/// A field that a later one of the same name hides may hold anything.
fn hidden(text: &[u8]) -> bool {
    struct Repeats(bool);
    impl<'de> serde::Deserialize<'de> for Repeats {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(Visitor)
        }
    }
    struct Visitor;
    impl<'de> serde::de::Visitor<'de> for Visitor {
        type Value = Repeats;
        fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("JSON")
        }
        fn visit_unit<E>(self) -> Result<Repeats, E> {
            Ok(Repeats(false))
        }
        fn visit_bool<E>(self, _: bool) -> Result<Repeats, E> {
            Ok(Repeats(false))
        }
        fn visit_u64<E>(self, _: u64) -> Result<Repeats, E> {
            Ok(Repeats(false))
        }
        fn visit_i64<E>(self, _: i64) -> Result<Repeats, E> {
            Ok(Repeats(false))
        }
        fn visit_f64<E>(self, _: f64) -> Result<Repeats, E> {
            Ok(Repeats(false))
        }
        fn visit_str<E>(self, _: &str) -> Result<Repeats, E> {
            Ok(Repeats(false))
        }
        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Repeats, A::Error> {
            let mut any = false;
            while let Some(Repeats(inside)) = list.next_element()? {
                any |= inside;
            }
            Ok(Repeats(any))
        }
        fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Repeats, A::Error> {
            let (mut names, mut any) = (std::collections::BTreeSet::new(), false);
            while let Some((name, Repeats(inside))) = map.next_entry::<String, Repeats>()? {
                any |= inside || !names.insert(name);
            }
            Ok(Repeats(any))
        }
    }
    serde_json::from_slice::<Repeats>(text).is_ok_and(|found| found.0)
}

/// Some part of `given` is of another kind than serde would write it: a struct as a list of its
/// fields, a name of a choice as an object.
fn other_shape(given: &Value, usual: &Value) -> bool {
    match (given, usual) {
        (Value::Object(given), Value::Object(usual)) => {
            usual.iter().any(|(name, usual)| given.get(name).is_some_and(|given| other_shape(given, usual)))
        }
        (Value::Array(given), Value::Array(usual)) => {
            given.iter().zip(usual).any(|(given, usual)| other_shape(given, usual))
        }
        (given, usual) => std::mem::discriminant(given) != std::mem::discriminant(usual),
    }
}
