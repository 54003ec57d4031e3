//! Whether a directory has room on its disk, before any of its files is fetched and paid for.
//!
//! What a file's holes are only a provider can tell, one file at a time. So they are asked for only where the
//! directory would not fit if all of it were data, and only the large files: small ones are fetched as data
//! anyway. What is certain to be data and does not fit is refused; what may not fit is told.

use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::{
    staging::{is_there, paths_of},
    tree::{FileJob, Tree, window_of},
};
use crate::{
    exit::Failure,
    fetch::Session,
    net::{Network, blocking},
    part::PartError,
};

/// Most files whose holes are asked for, the largest first.
const ASKED: usize = 64;

/// What is known of the space that a directory still needs, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Need {
    /// Data for sure.
    certain: u64,
    /// Data or holes.
    possible: u64,
}

impl Need {
    fn most(&self) -> u64 {
        self.certain.saturating_add(self.possible)
    }
}

/// Refuses a tree whose data has no room where its target is to be.
///
/// # Errors
/// [`crate::exit::Exit::DiskFull`]
pub(super) async fn check<N: Network>(
    session: &Session<N>,
    tree: &Tree,
    target: &Path,
) -> Result<(), Failure> {
    let folder = match target.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
        _ => Path::new(".").to_owned(),
    };
    // Not every file system can tell; then the files themselves will.
    let disk = blocking(move || rustix::fs::statvfs(&folder)).await?;
    let Ok(disk) = disk else { return Ok(()) };
    check_against(session, tree, target, disk.f_bavail.saturating_mul(disk.f_frsize)).await
}

async fn check_against<N: Network>(
    session: &Session<N>,
    tree: &Tree,
    target: &Path,
    free: u64,
) -> Result<(), Failure> {
    let mut missing = {
        let (tree, target) = (tree.clone(), target.to_owned());
        blocking(move || missing(&tree, &target)).await?
    };
    let limit = window_of(session);
    missing.sort_by_key(|(_, bytes)| std::cmp::Reverse(*bytes));
    let mut need = Need::default();
    for (job, bytes) in &missing {
        let part = if job.size > limit { &mut need.possible } else { &mut need.certain };
        *part = part.saturating_add(*bytes);
    }
    let large = missing.iter().filter(|(job, _)| job.size > limit).take(ASKED);
    for (job, bytes) in large {
        if need.most() <= free || need.certain > free {
            break;
        }
        // A provider that says nothing, or another size, is found out when the file is fetched.
        let Ok(found) = session.stat_any(job.id).await else { continue };
        let zeros = session.holes(job.id, found.size).await.bytes(found.size);
        need.possible = need.possible.saturating_sub(*bytes);
        need.certain = need.certain.saturating_add(bytes.saturating_sub(zeros));
    }
    match need.certain.checked_sub(free) {
        Some(short) if short > 0 => Err(PartError::DiskFull(target.to_owned(), short).into()),
        _ if need.most() > free => {
            let (most, named) = (need.most(), target.display());
            tracing::warn!("{named} needs up to {most} bytes and its disk has {free} free; holes need none");
            Ok(())
        }
        _ => Ok(()),
    }
}

/// Files that are not complete yet, with the bytes of them that have no place on the disk.
fn missing(tree: &Tree, target: &Path) -> Vec<(FileJob, u64)> {
    let mut missing = Vec::new();
    for job in tree.files() {
        let paths = paths_of(target, &job.path);
        if is_there(&paths.target, job.size) {
            continue;
        }
        let stored = paths.data.symlink_metadata().map_or(0, |data| data.blocks().saturating_mul(512));
        missing.push((job.clone(), job.size.saturating_sub(stored)));
    }
    missing
}

#[cfg(test)]
#[cfg(target_os = "linux")]
mod tests {
    use std::{
        fs::{self, File},
        os::unix::fs::FileExt,
        sync::Arc,
    };

    use super::*;
    use crate::{
        budget::Budget,
        dir::{TreeOptions, put_tree},
        exit::Exit,
        fetch::{Limits, Stop},
        get::{Goal, Want, locate},
        net::Local,
        store::Store,
    };

    const MIB: u64 = 1 << 20;

    /// A folder with a file of 3 MiB, one of 64 MiB that is a hole but for 1 MiB, and one of 40 MiB of data.
    async fn tree(dir: &Path) -> (Arc<Session<Local>>, Tree) {
        let folder = dir.join("folder");
        fs::create_dir(&folder).expect("made");
        fs::write(folder.join("small"), vec![1; 3 << 20]).expect("written");
        fs::write(folder.join("data"), vec![2; 40 << 20]).expect("written");
        let sparse = File::create(folder.join("sparse")).expect("made");
        sparse.set_len(64 * MIB).expect("set");
        sparse.write_all_at(&vec![3; 1 << 20], 9 * MIB).expect("written");
        sparse.sync_all().expect("synced");
        let store = Store::open(&dir.join("store")).expect("opens");
        let added = put_tree(&store, &folder, TreeOptions::default(), &mut |_| ()).expect("put");
        let net = Arc::new(Local::new(store));
        let session = Arc::new(Session::new(net, Budget::new(None), Limits::default(), Stop::default()));
        let want = Want {
            address: added.id.to_string().parse().expect("an address"),
            from: Vec::new(),
            range: None,
            include: Vec::new(),
        };
        let Goal::Tree(tree) = locate(&session, &want).await.expect("found") else { panic!("it is a tree") };
        (session, tree)
    }

    #[tokio::test]
    async fn data_that_does_not_fit_is_refused_and_holes_are_no_data() {
        let dir = tempfile::tempdir().expect("a folder");
        let (session, tree) = tree(dir.path()).await;
        let target = dir.path().join("target");
        let fits = async |free: u64| check_against(&session, &tree, &target, free).await;
        let failure = fits(43 * MIB).await.expect_err("44 MiB are data");
        assert_eq!(failure.exit, Exit::DiskFull, "{failure:?}");
        assert!(failure.what.contains("target"), "{failure:?}");
        // The map of the holes is in whole MiB at most.
        fits(46 * MIB).await.expect("the rest is a hole");
        fits(200 * MIB).await.expect("everything fits");
        assert!(!target.exists());
    }

    #[tokio::test]
    async fn what_is_there_needs_no_room() {
        let dir = tempfile::tempdir().expect("a folder");
        let (session, tree) = tree(dir.path()).await;
        let target = dir.path().join("target");
        let there = paths_of(&target, "data").target;
        fs::create_dir_all(there.parent().expect("a folder")).expect("made");
        fs::copy(dir.path().join("folder/data"), &there).expect("copied");
        check_against(&session, &tree, &target, 6 * MIB)
            .await
            .expect("small and the data of the sparse one fit");
        let begun = paths_of(&target, "small").data;
        fs::create_dir_all(begun.parent().expect("a folder")).expect("made");
        fs::write(&begun, vec![1; 2 << 20]).expect("written");
        File::open(&begun).expect("opens").sync_all().expect("synced");
        check_against(&session, &tree, &target, 4 * MIB).await.expect("a part of it is there");
        check_against(&session, &tree, &target, MIB).await.expect_err("the rest is not");
    }
}
