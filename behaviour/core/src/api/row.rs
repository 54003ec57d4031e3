//! What the store is given, and gives back.

use std::borrow::Borrow;
use std::fmt;
use std::ops::Deref;

use smallvec::SmallVec;

/// A table of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Table {
    /// Totals and signatures per channel. Key: channel id, big endian.
    Channels = 1,
    /// Unfinished exchanges of all roles.
    Exchanges = 2,
    /// Counters.
    Meta = 3,
}

/// A row's key within its table, any bytes; those of this crate take no allocation.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct RowKey(SmallVec<[u8; 40]>);

impl RowKey {
    /// Parts, one after the other.
    pub(crate) fn of(parts: &[&[u8]]) -> RowKey {
        let mut key = RowKey::default();
        parts.iter().for_each(|part| key.0.extend_from_slice(part));
        key
    }
}

impl From<&[u8]> for RowKey {
    fn from(bytes: &[u8]) -> RowKey {
        RowKey(SmallVec::from_slice(bytes))
    }
}

impl From<Vec<u8>> for RowKey {
    fn from(bytes: Vec<u8>) -> RowKey {
        RowKey(SmallVec::from_vec(bytes))
    }
}

impl Deref for RowKey {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for RowKey {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Order and hashes are those of the bytes.
impl Borrow<[u8]> for RowKey {
    fn borrow(&self) -> &[u8] {
        &self.0
    }
}

/// In hexadecimal.
impl fmt::Display for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for RowKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RowKey({self})")
    }
}

/// One row to write, or to delete where `value` is `None`. Rows are opaque to the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    pub table: Table,
    pub key: RowKey,
    pub value: Option<Vec<u8>>,
}

/// One row as loaded at start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    pub table: Table,
    pub key: RowKey,
    pub value: Vec<u8>,
}
