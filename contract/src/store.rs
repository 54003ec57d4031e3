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
    /// `u32` group -> links of its nodes, packed.
    Groups = b'h',
    /// `u32` hub -> bounds of its pages; (`u32` hub, `u32` bound) -> links of one page.
    Pages = b'v',
    /// `u32` group -> weights of its attached nodes.
    Weights = b'w',
    /// `u64` -> stake that becomes active, in order of time.
    Ripening = b'r',
    /// `u64` -> operation that waits for checks.
    Queue = b'q',
    /// The check under way, its search, its smaller side: one record each.
    Job = b'j',
    Search = b's',
    Side = b'd',
    /// `u64` channel -> the smaller side that its cooperative close cut off.
    Cuts = b'x',
    /// `u64` -> penalty, in order.
    Penalties = b'y',
    /// account without a node -> what it may withdraw.
    Purses = b'u',
    /// `u64` -> index whose node has left, in order of time; without a number, which of them exist.
    Vacant = b'f',
    /// `u32` index that another node had before -> from when on it is its present node's.
    Tenures = b't',
    /// Progress of a migration.
    Migration = b'm',
    /// The graph of state version 1.
    OldGroups = b'g',
    OldPages = b'p',
}

fn key_of(table: Table, key: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(key.len() + 1);
    bytes.push(table as u8);
    bytes.extend_from_slice(key);
    bytes
}

pub fn read_bytes(table: Table, key: &[u8]) -> Option<Vec<u8>> {
    env::storage_read(&key_of(table, key))
}

pub fn write_bytes(table: Table, key: &[u8], bytes: &[u8]) {
    env::storage_write(&key_of(table, key), bytes);
}

pub fn read<T: BorshDeserialize>(table: Table, key: &[u8]) -> Option<T> {
    let bytes = read_bytes(table, key)?;
    match T::try_from_slice(&bytes) {
        Ok(value) => Some(value),
        Err(_) => fail!(code::STATE_VERSION, "a record is of another version; call migrate"),
    }
}

/// Reads a record to which a later state version has added fields that begin as `added` zero
/// bytes.
pub fn read_grown<T: BorshDeserialize>(table: Table, key: &[u8], added: usize) -> Option<T> {
    let mut bytes = read_bytes(table, key)?;
    if let Ok(value) = T::try_from_slice(&bytes) {
        return Some(value);
    }
    bytes.resize(bytes.len() + added, 0);
    match T::try_from_slice(&bytes) {
        Ok(value) => Some(value),
        Err(_) => fail!(code::STATE_VERSION, "a record is of another version; call migrate"),
    }
}

pub fn write<T: BorshSerialize>(table: Table, key: &[u8], value: &T) {
    match borsh::to_vec(value) {
        Ok(bytes) => write_bytes(table, key, &bytes),
        Err(_) => fail!(code::OVERFLOW, "a record does not serialize; report this"),
    };
}

pub fn remove(table: Table, key: &[u8]) {
    env::storage_remove(&key_of(table, key));
}

/// Reads a record and removes it.
pub fn take<T: BorshDeserialize>(table: Table, key: &[u8]) -> Option<T> {
    let value = read(table, key)?;
    remove(table, key);
    Some(value)
}

/// Numbers of the records of a table that is a queue: `first..next` exist, but for holes.
#[derive(Clone, Copy, Default, BorshSerialize, BorshDeserialize)]
pub struct Span {
    pub first: u64,
    pub next: u64,
}

impl Span {
    pub fn is_empty(self) -> bool {
        self.first == self.next
    }

    pub fn len(self) -> u64 {
        self.next - self.first
    }

    /// Appends a record and answers its number.
    pub fn push<T: BorshSerialize>(&mut self, table: Table, value: &T) -> u64 {
        let at = self.next;
        write(table, &at.to_le_bytes(), value);
        self.next += 1;
        at
    }

    pub fn front<T: BorshDeserialize>(self, table: Table) -> Option<T> {
        if self.is_empty() { None } else { read(table, &self.first.to_le_bytes()) }
    }

    pub fn pop(&mut self, table: Table) {
        remove(table, &self.first.to_le_bytes());
        self.first += 1;
    }
}
