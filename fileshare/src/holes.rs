//! Holes of sparse files: found before hashing and serving, kept by copies and downloads.
//!
//! A hole is a property of the file on disk, and only a hint: what a hole stands for is proven by the hash
//! tree like everything else. A file system without holes has none.

use std::{fs::File, io, os::unix::fs::FileExt};

use crate::part::UNIT;

/// Bytes written at a time where a hole cannot be made.
const PIECE: usize = 1 << 20;

/// The next stretch of data at or after `at`; `None` if only a hole follows.
pub fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
    if at >= size {
        return Ok(None);
    }
    imp::next_data(file, at, size)
}

/// Whether nothing is stored in `at..end`.
pub fn is_hole(file: &File, at: u64, end: u64, size: u64) -> io::Result<bool> {
    Ok(next_data(file, at, size)?.is_none_or(|(start, _)| start >= end))
}

/// Makes a hole, or writes zeros where the file system has none. What lay there is gone for good, also after a
/// crash of the machine.
pub fn make_hole(file: &File, at: u64, len: u64) -> io::Result<()> {
    let end = at.saturating_add(len);
    if is_hole(file, at, end, end).unwrap_or(false) {
        return Ok(());
    }
    if imp::punch(file, at, len)? {
        return file.sync_data();
    }
    let zeros = vec![0; PIECE];
    let mut at = at;
    while at < end {
        let some = (end - at).min(PIECE as u64) as usize;
        file.write_all_at(&zeros[..some], at)?;
        at += some as u64;
    }
    file.sync_data()
}

/// Units (of 1 MiB) of some content that are holes: runs of first unit and count, ascending, apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Holes(Vec<(u64, u64)>);

impl Holes {
    /// The runs that a provider told, as far as they make sense for content of `size` bytes.
    pub fn new(runs: Vec<(u64, u64)>, size: u64) -> Holes {
        let mut past = 0;
        let units = size.div_ceil(UNIT);
        let sensible = |&(first, count): &(u64, u64)| {
            let end = first.checked_add(count).filter(|end| *end <= units && first >= past && count > 0);
            past = end.unwrap_or(past);
            end.is_some()
        };
        let mut runs = runs;
        runs.retain(sensible);
        Holes(runs)
    }

    pub fn contains(&self, unit: u64) -> bool {
        let after = self.0.partition_point(|(first, _)| *first <= unit);
        let run = after.checked_sub(1).and_then(|at| self.0.get(at));
        run.is_some_and(|(first, count)| unit - first < *count)
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes in holes of content of `size` bytes.
    pub fn bytes(&self, size: u64) -> u64 {
        let end = |first: u64, count: u64| (first + count).saturating_mul(UNIT).min(size);
        // They may have been told for more than this: one hash can be listed with several sizes.
        let start = |first: u64| first.saturating_mul(UNIT);
        let bytes = |&(first, count): &(u64, u64)| end(first, count).saturating_sub(start(first));
        self.0.iter().map(bytes).sum()
    }

    /// Whole units of `file` that are holes, from unit `from` on: at most `most` runs, and where to go on.
    pub fn of_file(file: &File, size: u64, from: u64, most: usize) -> io::Result<(Holes, Option<u64>)> {
        let (mut runs, mut unit) = (Vec::new(), from);
        let units = size.div_ceil(UNIT);
        while unit < units {
            if runs.len() == most {
                return Ok((Holes(runs), Some(unit)));
            }
            let (start, end) = next_data(file, unit * UNIT, size)?.unwrap_or((size, size));
            let hole_end = if start >= size { units } else { start / UNIT };
            if hole_end > unit {
                runs.push((unit, hole_end - unit));
            }
            unit = end.div_ceil(UNIT).max(hole_end).max(unit + 1);
        }
        Ok((Holes(runs), None))
    }

    pub fn runs(&self) -> &[(u64, u64)] {
        &self.0
    }
}

#[cfg(target_os = "linux")]
mod imp {
    use std::{fs::File, io};

    use rustix::{
        fs::{FallocateFlags, SeekFrom, fallocate, seek},
        io::Errno,
    };

    pub fn next_data(file: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
        let start = match seek(file, SeekFrom::Data(at)) {
            Ok(start) => start,
            Err(Errno::NXIO) => return Ok(None),
            // A file system that cannot tell: all of it is data.
            Err(Errno::INVAL | Errno::NOTSUP) => return Ok(Some((at, size))),
            Err(error) => return Err(error.into()),
        };
        if start >= size {
            return Ok(None);
        }
        let end = seek(file, SeekFrom::Hole(start)).unwrap_or(size);
        Ok(Some((start, end.clamp(start, size))))
    }

    /// False where the file system cannot.
    pub fn punch(file: &File, at: u64, len: u64) -> io::Result<bool> {
        match fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, at, len) {
            Ok(()) => Ok(true),
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::INVAL) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(not(target_os = "linux"))]
mod imp {
    use std::{fs::File, io};

    pub fn next_data(_: &File, at: u64, size: u64) -> io::Result<Option<(u64, u64)>> {
        Ok(Some((at, size)))
    }

    pub fn punch(_: &File, _: u64, _: u64) -> io::Result<bool> {
        Ok(false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_that_make_no_sense_are_dropped() {
        let size = 10 * UNIT + 1;
        let holes = Holes::new(vec![(0, 2), (1, 3), (4, 0), (5, 2), (9, 2), (10, 2), (u64::MAX, 2)], size);
        assert_eq!(holes.runs(), [(0, 2), (5, 2), (9, 2)]);
        let units: Vec<u64> = (0..12).filter(|unit| holes.contains(*unit)).collect();
        assert_eq!(units, [0, 1, 5, 6, 9, 10]);
        assert_eq!(holes.bytes(size), 5 * UNIT + 1);
        assert_eq!(holes.bytes(5), 5, "of less than they were told for");
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn holes_are_found_a_few_at_a_time_and_made_again() {
        let file = tempfile::tempfile().unwrap();
        let size = 64 * UNIT;
        file.set_len(size).unwrap();
        for unit in [3, 4, 20, 63] {
            file.write_all_at(&[7; 4096], unit * UNIT + 5000).unwrap();
        }
        let (first, more) = Holes::of_file(&file, size, 0, 2).unwrap();
        assert_eq!((first.runs(), more), (&[(0, 3), (5, 15)][..], Some(21)));
        let (rest, more) = Holes::of_file(&file, size, 21, 2).unwrap();
        assert_eq!((rest.runs(), more), (&[(21, 42)][..], None));
        make_hole(&file, 3 * UNIT, 2 * UNIT).unwrap();
        let (all, _) = Holes::of_file(&file, size, 0, 9).unwrap();
        assert_eq!(all.runs(), [(0, 20), (21, 42)]);
        assert_eq!(file.metadata().unwrap().len(), size);
    }
}
