//! Sets of nodes.

use borsh::{BorshDeserialize, BorshSerialize};

/// A set of node indices, a bit each.
#[derive(Clone, Default, BorshSerialize, BorshDeserialize)]
pub struct Bits {
    /// Index of the first byte, so that small sets are small.
    skipped: u32,
    bytes: Vec<u8>,
}

impl Bits {
    /// An empty set for indices below `nodes`.
    pub fn new(nodes: u32) -> Bits {
        Bits { skipped: 0, bytes: vec![0; (nodes as usize).div_ceil(8)] }
    }

    pub fn has(&self, node: u32) -> bool {
        let Some(at) = (node / 8).checked_sub(self.skipped) else { return false };
        self.bytes.get(at as usize).is_some_and(|byte| byte >> (node % 8) & 1 == 1)
    }

    /// Adds `node`, for which the set must be large enough.
    pub fn add(&mut self, node: u32) {
        let at = (node / 8).wrapping_sub(self.skipped) as usize;
        if let Some(byte) = self.bytes.get_mut(at) {
            *byte |= 1 << (node % 8);
        }
    }

    /// The members from `from` on, in order.
    pub fn from(&self, from: u32) -> impl Iterator<Item = u32> {
        let first = (from / 8).saturating_sub(self.skipped).min(self.bytes.len() as u32);
        let bytes = self.bytes[first as usize..].iter().zip(self.skipped + first..);
        bytes
            .filter(|(byte, _)| **byte != 0)
            .flat_map(move |(byte, at)| {
                (0..8).filter(move |bit| byte >> bit & 1 == 1).map(move |bit| at * 8 + bit)
            })
            .filter(move |node| *node >= from)
    }

    pub fn first(&self) -> Option<u32> {
        self.from(0).next()
    }

    /// Without the empty bytes at both ends.
    pub fn trimmed(&self) -> Bits {
        let start = self.bytes.iter().position(|byte| *byte != 0).unwrap_or(self.bytes.len());
        let end = self.bytes.iter().rposition(|byte| *byte != 0).map_or(start, |last| last + 1);
        Bits { skipped: self.skipped + start as u32, bytes: self.bytes[start..end].to_vec() }
    }

    /// Bytes that it takes in storage.
    pub fn size(&self) -> usize {
        self.bytes.len() + 8
    }
}
