//! Partial downloads: whatever interrupts them, nothing is trusted that was not
//! verified, nothing verified is fetched again, and the target appears only whole.

use std::{fs, os::unix::fs::FileExt, path::Path};

use bao_tree::io::outboard::PreOrderMemOutboard;
use bytes::Bytes;
use por_fileshare::{
    exit::{Exit, Failure},
    id::ContentId,
    part::{Part, PartError, Span, UNIT},
    slice::{self, Verified, Window},
    store::{AddOptions, Store},
    tree::{BLOCK, GROUP},
};
use proptest::prelude::*;

struct Source {
    data: Vec<u8>,
    outboard: PreOrderMemOutboard,
}

impl Source {
    fn new(size: u64) -> Self {
        let mut data = vec![0; size as usize];
        blake3::Hasher::new().update(&size.to_le_bytes()).finalize_xof().fill(&mut data);
        let outboard = PreOrderMemOutboard::create(&data, BLOCK);
        Source { data, outboard }
    }

    fn id(&self) -> ContentId {
        ContentId::file(self.outboard.root)
    }

    fn size(&self) -> u64 {
        self.data.len() as u64
    }

    fn span(&self) -> Span {
        Span::whole(self.id(), self.size())
    }

    fn fetch(&self, window: Window) -> Verified {
        let encoded = slice::encode(&self.data[..], &self.outboard, window).unwrap();
        let root = self.outboard.root;
        slice::decode(root, self.size(), window, &Bytes::from(encoded)).unwrap()
    }

    fn fill(&self, part: &Part) {
        for window in part.missing(2 * UNIT).unwrap() {
            part.write(&self.fetch(window)).unwrap();
        }
    }
}

fn names(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|found| found.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn every_size_arrives_whole_and_leaves_no_litter() {
    for size in [0, 1, GROUP, UNIT - 1, UNIT, UNIT + 1, 2 * UNIT, 4 * UNIT, 4 * UNIT + 3] {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::new(size);
        let target = folder.path().join("file");
        let part = Part::open(&target, source.span(), false).unwrap();
        assert!(!part.is_complete(), "size {size}");
        assert!(!part.missing(4 * UNIT).unwrap().is_empty());
        source.fill(&part);
        assert_eq!(part.done(), size);
        part.finish(false, None).unwrap();
        assert_eq!(fs::read(&target).unwrap(), source.data, "size {size}");
        assert_eq!(names(folder.path()), ["file"]);
    }
}

/// Whoever has looked for the target before it got its name does not fetch it once more.
#[test]
fn who_waits_for_a_download_to_finish_finds_it_finished() {
    let source = Source::new(100);
    for round in 0..100 {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        let part = Part::open(&target, source.span(), false).unwrap();
        source.fill(&part);
        let wait = || loop {
            match Part::open(&target, source.span(), false) {
                Err(PartError::InUse(_)) => {}
                other => return other,
            }
        };
        std::thread::scope(|scope| {
            let others: Vec<_> = (0..4).map(|_| scope.spawn(wait)).collect();
            part.finish(false, None).unwrap();
            for other in others {
                let found = other.join().unwrap();
                assert!(matches!(found, Err(PartError::Exists(_))), "round {round}: {found:?}");
            }
        });
        assert_eq!(names(folder.path()), ["file"]);
    }
}

#[test]
fn an_incomplete_download_has_no_name() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::new(3 * UNIT);
    let target = folder.path().join("file");
    let part = Part::open(&target, source.span(), false).unwrap();
    let windows = part.missing(UNIT).unwrap();
    part.write(&source.fetch(windows[1])).unwrap();
    let error = part.finish(false, None).unwrap_err();
    assert!(matches!(error, PartError::Incomplete { missing, .. } if missing == 2 * UNIT));
    assert!(!target.exists());
    // An empty file is as incomplete as any other before its proof.
    let empty = Source::new(0);
    let part = Part::open(&folder.path().join("empty"), empty.span(), false).unwrap();
    assert!(matches!(part.finish(false, None), Err(PartError::Incomplete { .. })));
}

#[test]
fn durable_units_are_not_hashed_again_and_written_ones_are() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::new(4 * UNIT);
    let target = folder.path().join("file");
    let part = Part::open(&target, source.span(), false).unwrap();
    let windows = part.missing(UNIT).unwrap();
    part.write(&source.fetch(windows[0])).unwrap();
    part.checkpoint().unwrap();
    part.write(&source.fetch(windows[1])).unwrap();
    part.write(&source.fetch(windows[2])).unwrap();
    drop(part);
    // As after a power loss: one of the units that were not synced never made it.
    let file = fs::OpenOptions::new().write(true).open(folder.path().join("file.part")).unwrap();
    file.write_all_at(&[0; 4096], windows[1].offset()).unwrap();
    let part = Part::open(&target, source.span(), false).unwrap();
    assert_eq!(part.missing(UNIT).unwrap(), [windows[1], windows[3]]);
    assert_eq!(part.done(), 2 * UNIT);
    source.fill(&part);
    part.finish(false, None).unwrap();
    assert_eq!(fs::read(&target).unwrap(), source.data);
}

#[test]
fn a_damaged_state_starts_over() {
    let source = Source::new(2 * UNIT);
    let damages: [fn(&Path); 3] = [
        |folder| {
            let state = fs::OpenOptions::new().write(true).open(folder.join("file.part.state")).unwrap();
            state.write_all_at(b"nonsense", 20).unwrap();
        },
        |folder| fs::write(folder.join("file.part"), b"short").unwrap(),
        |folder| fs::remove_file(folder.join("file.part")).unwrap(),
    ];
    for damage in damages {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("file");
        let part = Part::open(&target, source.span(), false).unwrap();
        source.fill(&part);
        part.checkpoint().unwrap();
        drop(part);
        damage(folder.path());
        let part = Part::open(&target, source.span(), false).unwrap();
        assert_eq!(part.done(), 0);
        source.fill(&part);
        part.finish(false, None).unwrap();
        assert_eq!(fs::read(&target).unwrap(), source.data);
    }
}

#[test]
fn existing_files_and_other_downloads_are_not_replaced_unasked() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("file");
    let (one, two) = (Source::new(UNIT), Source::new(UNIT + 1));
    let part = Part::open(&target, one.span(), false).unwrap();
    let busy = Part::open(&target, one.span(), false).unwrap_err();
    assert_eq!(Failure::from(busy).exit, Exit::Retryable);
    drop(part);
    let other = Part::open(&target, two.span(), false).unwrap_err();
    assert!(matches!(other, PartError::OtherDownload { .. }));
    let part = Part::open(&target, two.span(), true).unwrap();
    source_to(&two, part, &target, true);
    let exists = Part::open(&target, one.span(), false).unwrap_err();
    assert_eq!(Failure::from(exists).exit, Exit::Exists);
    let part = Part::open(&target, one.span(), true).unwrap();
    assert_eq!(fs::read(&target).unwrap(), two.data, "kept until the end");
    source_to(&one, part, &target, true);
    // A file that appears meanwhile is not replaced either.
    fs::remove_file(&target).unwrap();
    let part = Part::open(&target, one.span(), false).unwrap();
    one.fill(&part);
    fs::write(&target, b"mine").unwrap();
    assert!(matches!(part.finish(false, None), Err(PartError::Exists(_))));
    assert_eq!(fs::read(&target).unwrap(), b"mine");
}

fn source_to(source: &Source, part: Part, target: &Path, overwrite: bool) {
    source.fill(&part);
    part.finish(overwrite, None).unwrap();
    assert_eq!(fs::read(target).unwrap(), source.data);
}

#[test]
fn more_than_the_disk_holds_is_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let id = ContentId::file(blake3::hash(b"big"));
    let target = folder.path().join("file");
    // Sparse files may have this length; the disk does not have the room.
    let error = Part::open(&target, Span::whole(id, 1 << 43), false).unwrap_err();
    assert_eq!(Failure::from(error).exit, Exit::DiskFull);
    assert_eq!(names(folder.path()), Vec::<String>::new());
}

#[test]
fn a_finished_download_is_served_without_hashing_it_again() {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::open(&folder.path().join("store")).unwrap();
    let source = Source::new(3 * UNIT + 17);
    let target = folder.path().join("file");
    let part = Part::open(&target, source.span(), false).unwrap();
    source.fill(&part);
    let mut outboard = store.outboard_file().unwrap();
    part.finish(false, Some(outboard.as_file_mut())).unwrap();
    let staged = store.stage_verified(source.id(), &target, outboard).unwrap();
    store.commit(vec![staged], &[]).unwrap();
    let item = store.item(&store.need(&source.id()).unwrap()).unwrap();
    assert_eq!(item.read_all().unwrap(), source.data);
    let put = store.add_file(&target, AddOptions::default(), &mut |_| ()).unwrap();
    assert_eq!(put.id, source.id());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn resumes_after_being_dropped_anywhere(
        size in 0..6 * UNIT,
        window in 1..4u64,
        steps in prop::collection::vec((any::<prop::sample::Index>(), 0..4u8), 0..12),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let source = Source::new(size);
        let target = folder.path().join("file");
        let mut part = Part::open(&target, source.span(), false).unwrap();
        for (pick, action) in steps {
            let missing = part.missing(window * UNIT).unwrap();
            let done = part.done();
            match action {
                0 => part.checkpoint().unwrap(),
                1 => {
                    drop(part);
                    part = Part::open(&target, source.span(), false).unwrap();
                    prop_assert_eq!(part.done(), done, "all that was written is kept");
                }
                _ if !missing.is_empty() => {
                    let window = missing[pick.index(missing.len())];
                    let new = part.write(&source.fetch(window)).unwrap();
                    prop_assert_eq!(new, window.len());
                }
                _ => (),
            }
        }
        source.fill(&part);
        part.finish(false, None).unwrap();
        prop_assert_eq!(fs::read(&target).unwrap(), source.data);
        prop_assert_eq!(names(folder.path()), ["file"]);
    }

    #[test]
    fn ranges_are_exact(size in 1..4 * UNIT, a: u64, b: u64, resume: bool) {
        let (a, b) = (a % (size + 1), b % (size + 1));
        let (start, end) = (a.min(b), a.max(b));
        let folder = tempfile::tempdir().unwrap();
        let source = Source::new(size);
        let target = folder.path().join("file");
        let span = Span::range(source.id(), size, start, end).unwrap();
        let mut part = Part::open(&target, span, false).unwrap();
        let windows = part.missing(2 * UNIT).unwrap();
        let fetched: u64 = windows.iter().map(Window::len).sum();
        prop_assert!(fetched <= (end - start) + 2 * GROUP, "no more than the groups it touches");
        if resume && let Some(first) = windows.first() {
            part.write(&source.fetch(*first)).unwrap();
            part.checkpoint().unwrap();
            drop(part);
            part = Part::open(&target, span, false).unwrap();
            prop_assert_eq!(part.missing(2 * UNIT).unwrap(), &windows[1..]);
        }
        source.fill(&part);
        part.finish(false, None).unwrap();
        let expected = &source.data[start as usize..end as usize];
        prop_assert_eq!(fs::read(&target).unwrap(), expected);
    }
}

/// Other programs call their own unfinished files `NAME.part` too.
#[test]
fn files_of_others_are_not_taken_for_a_partial_download() {
    let source = Source::new(2 * UNIT);
    for (name, content) in [
        ("file.part", vec![1; 100]),
        ("file.part", vec![2; 2 * UNIT as usize]),
        ("file.part.state", vec![3; 9]),
    ] {
        let folder = tempfile::tempdir().unwrap();
        let (target, theirs) = (folder.path().join("file"), folder.path().join(name));
        fs::write(&theirs, &content).unwrap();
        let error = Part::open(&target, source.span(), false).unwrap_err();
        assert_eq!(Failure::from(error).exit, Exit::Exists);
        assert!(fs::read(&theirs).unwrap() == content, "{name} is as it was");
        assert_eq!(names(folder.path()), [name], "and nothing was left beside it");
        let part = Part::open(&target, source.span(), true).unwrap();
        source.fill(&part);
        part.finish(true, None).unwrap();
        assert!(fs::read(&target).unwrap() == source.data);
        assert_eq!(names(folder.path()), ["file"]);
    }
}

/// A name may be as long as the file system takes, with no room for what is put behind it.
#[test]
fn the_longest_names_have_partial_downloads_too() {
    let folder = tempfile::tempdir().unwrap();
    let source = Source::new(2 * UNIT);
    for name in ["n".repeat(255), "\u{e9}".repeat(127), "n".repeat(245)] {
        let target = folder.path().join(&name);
        let part = Part::open(&target, source.span(), false).unwrap();
        part.write(&source.fetch(part.missing(UNIT).unwrap()[0])).unwrap();
        drop(part);
        let part = Part::open(&target, source.span(), false).unwrap();
        assert_eq!(part.done(), UNIT, "it is found again");
        source.fill(&part);
        part.finish(false, None).unwrap();
        assert!(fs::read(&target).unwrap() == source.data);
    }
    assert_eq!(names(folder.path()).len(), 3);
}
