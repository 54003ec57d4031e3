//! When bytes count as kept.

use std::{fs::File, io, os::unix::fs::FileExt};

use super::{BITMAPS_AT, Part, PartError, Progress, io_at};

impl Part {
    /// Syncs what has been written and only then marks it as durable.
    ///
    /// Where that fails, the system may have dropped what it could not write, shows it all the same, and says
    /// so once only. So nothing counts as written that is not durable, and nothing more is taken in: a later
    /// [`Part::open`] fetches it anew.
    pub fn checkpoint(&self) -> Result<(), PartError> {
        let written = self.bits.lock().written.clone();
        if self.bits.lock().durable == written {
            return Ok(());
        }
        self.sync(File::sync_data)?;
        let mark = || {
            self.state.sync_data()?;
            let mut progress = self.bits.lock();
            progress.durable.add(&written);
            self.state.write_all_at(&progress.durable.0, BITMAPS_AT)?;
            drop(progress);
            self.state.sync_data()
        };
        mark().map_err(|error| self.lose(error)).map_err(io_at(&self.paths.state))
    }

    /// Syncs the data.
    pub(super) fn sync(&self, sync: impl FnOnce(&File) -> io::Result<()>) -> Result<(), PartError> {
        self.check_kept(&self.bits.lock())?;
        sync(&self.data).map_err(|error| self.lose(error)).map_err(io_at(&self.paths.data))
    }

    pub(super) fn check_kept(&self, progress: &Progress) -> Result<(), PartError> {
        if progress.lost { Err(PartError::Lost(self.paths.data.clone())) } else { Ok(()) }
    }

    /// Forgets what is not durable.
    fn lose(&self, error: io::Error) -> io::Error {
        let mut progress = self.bits.lock();
        progress.lost = true;
        progress.written = progress.durable.clone();
        let units = (0..self.span.units()).filter(|unit| progress.durable.get(*unit));
        progress.done = units.map(|unit| self.span.unit_bytes(unit)).map(|(from, to)| to - from).sum();
        let all = 0..self.span.units();
        let bitmap = progress.written.0.len() as u64;
        // Perhaps the same disk, but other blocks of it.
        let told = self.store(&progress.written, all, bitmap).is_ok() && self.state.sync_data().is_ok();
        if !told {
            tracing::warn!(path = %self.paths.state.display(), "cannot be written: remove it before the download goes on");
        }
        error
    }
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;

    use bao_tree::io::outboard::PreOrderMemOutboard;
    use bytes::Bytes;

    use super::*;
    use crate::{
        id::ContentId,
        part::{Span, UNIT},
        slice::{self, Verified, Window},
        tree::BLOCK,
    };

    /// Takes what is written and cannot be synced.
    fn bad_disk() -> File {
        OpenOptions::new().read(true).write(true).open("/dev/null").unwrap()
    }

    fn content() -> (Vec<u8>, PreOrderMemOutboard, Span) {
        let data: Vec<u8> = (0..4 * UNIT).map(|at| (at * 7 / 3) as u8).collect();
        let outboard = PreOrderMemOutboard::create(&data, BLOCK);
        let span = Span::whole(ContentId::file(outboard.root), data.len() as u64);
        (data, outboard, span)
    }

    #[test]
    fn what_the_disk_did_not_keep_is_fetched_anew() {
        let (data, outboard, span) = content();
        let fetch = |window: Window| -> Verified {
            let encoded = slice::encode(&data[..], &outboard, window).unwrap();
            slice::decode(outboard.root, span.size, window, &Bytes::from(encoded)).unwrap()
        };
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        for at_the_end in [false, true] {
            let mut part = Part::open(&target, span, false).unwrap();
            let windows = part.missing(UNIT).unwrap();
            part.write(&fetch(windows[0])).unwrap();
            part.checkpoint().unwrap();
            let rest = if at_the_end { &windows[1..] } else { &windows[1..2] };
            rest.iter().for_each(|window| assert!(part.write(&fetch(*window)).is_ok()));
            let good = std::mem::replace(&mut part.data, bad_disk());
            if at_the_end {
                assert!(matches!(part.sync(File::sync_all), Err(PartError::Io { .. })));
            } else {
                assert!(matches!(part.checkpoint(), Err(PartError::Io { .. })));
            }
            // The system says it once. From then on it shows bytes that are nowhere.
            part.data = good;
            assert_eq!(part.done(), UNIT);
            assert!(matches!(part.write(&fetch(windows[2])), Err(PartError::Lost(_))));
            assert!(part.checkpoint().is_ok(), "nothing is new");
            assert!(!part.is_complete());
            drop(part);
            let part = Part::open(&target, span, false).unwrap();
            assert_eq!((part.done(), part.rehashed()), (UNIT, 0));
            assert_eq!(part.missing(4 * UNIT).unwrap(), [Window::new(UNIT, 3 * UNIT, span.size).unwrap()]);
            part.discard();
        }
    }
}
