//! What a download covers, cut into units and windows.

use std::ops::Range;

use super::PartError;
use crate::{
    holes::Holes,
    id::{ContentId, ID_BYTES},
    slice::{MAX_WINDOW, Window, WindowError},
    tree::GROUP,
};

/// Bytes that one bit of the bitmaps stands for.
pub const UNIT: u64 = 1024 * 1024;
/// Bytes of a window of zeros that is asked for. It may have more, but whoever stops a download waits until
/// those in flight have been hashed.
const ZEROS: u64 = 256 * 1024 * 1024;
const _: () = assert!(ZEROS <= crate::slice::MAX_ZEROS);
pub(super) const MAGIC: [u8; 16] = *b"fileshare part 1";
/// Magic, id, size, start, end, BLAKE3 of all that.
pub(super) const HEADER: usize = 16 + ID_BYTES + 3 * 8 + 32;

/// What is being downloaded: `start..end` of content with `size` bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Span {
    pub id: ContentId,
    pub size: u64,
    pub start: u64,
    pub end: u64,
}

impl Span {
    pub fn whole(id: ContentId, size: u64) -> Self {
        Span { id, size, start: 0, end: size }
    }

    /// Bytes `start..end`, both offsets in the content.
    pub fn range(id: ContentId, size: u64, start: u64, end: u64) -> Result<Self, PartError> {
        if start > end || end > size {
            return Err(PartError::Range(start, end, size));
        }
        Ok(Span { id, size, start, end })
    }

    pub const fn len(&self) -> u64 {
        self.end - self.start
    }

    pub const fn is_empty(&self) -> bool {
        self.start == self.end
    }

    pub const fn is_whole(&self) -> bool {
        self.start == 0 && self.end == self.size
    }

    const fn first_unit(&self) -> u64 {
        self.start / UNIT
    }

    /// Empty content still has one unit: its window carries the proof.
    pub(super) fn units(&self) -> u64 {
        if self.is_empty() {
            return u64::from(self.size == 0);
        }
        self.end.div_ceil(UNIT) - self.first_unit()
    }

    /// The bytes of the span within this unit (counted from the first).
    pub(super) fn unit_bytes(&self, unit: u64) -> (u64, u64) {
        let from = (self.first_unit() + unit) * UNIT;
        (from.max(self.start), (from + UNIT).min(self.end))
    }

    /// The units that this window has bytes of.
    pub(super) fn units_of(&self, window: Window) -> Range<u64> {
        let end = window.end().div_ceil(UNIT).max(window.offset() / UNIT + 1);
        let units = |unit: u64| unit.saturating_sub(self.first_unit()).min(self.units());
        units(window.offset() / UNIT)..units(end)
    }

    /// Windows of at most `window_len` bytes that cover the units for which `missing`
    /// holds, in order. Window borders are multiples of `window_len`. Whole units that are holes are in
    /// windows of zeros of at most 256 MiB.
    pub fn windows(
        &self,
        window_len: u64,
        missing: impl Fn(u64) -> bool,
        holes: &Holes,
    ) -> Result<Vec<Window>, WindowError> {
        let step = (window_len.clamp(UNIT, MAX_WINDOW) / UNIT) * UNIT;
        let mut windows = Vec::new();
        let mut open: Option<(u64, u64, bool)> = None;
        for unit in (0..self.units()).filter(|unit| missing(*unit)) {
            let (from, to) = self.unit_bytes(unit);
            let whole = from.is_multiple_of(UNIT) && (to.is_multiple_of(UNIT) || to == self.size);
            let hole = whole && to > from && holes.contains(self.first_unit() + unit);
            let step = if hole { ZEROS } else { step };
            open = match open {
                Some((start, end, same)) if end == from && same == hole && from / step == start / step => {
                    Some((start, to, hole))
                }
                Some(done) => {
                    windows.push(self.aligned(done)?);
                    Some((from, to, hole))
                }
                None => Some((from, to, hole)),
            };
        }
        if let Some(last) = open {
            windows.push(self.aligned(last)?);
        }
        Ok(windows)
    }

    fn aligned(&self, (from, to, hole): (u64, u64, bool)) -> Result<Window, WindowError> {
        if hole {
            return Window::zeros(from, to - from, self.size);
        }
        let from = from / GROUP * GROUP;
        let to = to.next_multiple_of(GROUP).min(self.size);
        Window::new(from, to - from, self.size)
    }

    pub(super) fn header(&self) -> [u8; HEADER] {
        let mut header = [0; HEADER];
        header[..16].copy_from_slice(&MAGIC);
        header[16..16 + ID_BYTES].copy_from_slice(&self.id.to_bytes());
        let numbers = [self.size, self.start, self.end];
        for (at, number) in numbers.iter().enumerate() {
            let from = 16 + ID_BYTES + at * 8;
            header[from..from + 8].copy_from_slice(&number.to_le_bytes());
        }
        let hash = blake3::hash(&header[..HEADER - 32]);
        header[HEADER - 32..].copy_from_slice(hash.as_bytes());
        header
    }

    pub(super) fn parse(header: &[u8; HEADER]) -> Option<Self> {
        let (body, hash) = header.split_at(HEADER - 32);
        if blake3::hash(body) != *<&[u8; 32]>::try_from(hash).ok()? || body[..16] != MAGIC {
            return None;
        }
        let id = ContentId::from_bytes(&body[16..16 + ID_BYTES]).ok()?;
        let number = |at: usize| {
            let from = 16 + ID_BYTES + at * 8;
            let bytes = body[from..from + 8].try_into().ok()?;
            Some(u64::from_le_bytes(bytes))
        };
        Span::range(id, number(0)?, number(1)?, number(2)?).ok()
    }
}

/// A bitmap with one bit per unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits(pub(super) Vec<u8>);

impl Bits {
    pub(super) fn new(units: u64) -> Self {
        Bits(vec![0; units.div_ceil(8) as usize])
    }

    pub(super) fn get(&self, unit: u64) -> bool {
        self.0[(unit / 8) as usize] & (1 << (unit % 8)) != 0
    }

    /// Sets what is set in `other`, which is as long.
    pub(super) fn add(&mut self, other: &Bits) {
        self.0.iter_mut().zip(&other.0).for_each(|(own, other)| *own |= other);
    }

    pub(super) fn set(&mut self, unit: u64, to: bool) {
        let bit = 1 << (unit % 8);
        if to {
            self.0[(unit / 8) as usize] |= bit;
        } else {
            self.0[(unit / 8) as usize] &= !bit;
        }
    }
}
