//! Records in the contract's storage: borsh under a one-byte prefix and a fixed-size key.

use borsh::{BorshDeserialize, BorshSerialize};
use near_sdk::env;
use por_types::interface::code;

use crate::fail::fail;

/// What a record is. The discriminant is the key's first byte (`STATE` starts with `S`, which
/// is not among them).
#[derive(Clone, Copy)]
#[repr(u8)]
pub enum Table {
    /// `u32` index -> node record.
    Nodes = b'n',
    /// account -> `u32` index.
    Accounts = b'a',
    /// node key -> `u32` index.
    Keys = b'k',
    /// `u64` id -> channel record.
    Channels = b'c',
    /// `u32` chunk of the ring -> change log entries.
    Log = b'l',
    /// `u32` group -> adjacency of its nodes.
    Groups = b'g',
    /// (`u32` hub, `u32` group) -> neighbours of the hub in that group.
    Pages = b'p',
}

fn key_of(table: Table, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + 1);
    bytes.push(table as u8);
    bytes.extend_from_slice(key);
    bytes
}

pub fn read<T: BorshDeserialize>(table: Table, key: &[u8]) -> Option<T> {
    let bytes = env::storage_read(&key_of(table, key))?;
    match T::try_from_slice(&bytes) {
        Ok(value) => Some(value),
        Err(_) => fail!(code::STATE_VERSION, "a record is of another version; call migrate"),
    }
}

pub fn write<T: BorshSerialize>(table: Table, key: &[u8], value: &T) {
    match borsh::to_vec(value) {
        Ok(bytes) => env::storage_write(&key_of(table, key), &bytes),
        Err(_) => fail!(code::OVERFLOW, "a record does not serialize; report this"),
    };
}

pub fn remove(table: Table, key: &[u8]) {
    env::storage_remove(&key_of(table, key));
}
