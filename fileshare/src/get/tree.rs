//! A directory with everything below it: walked, checked, and fetched.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use futures::{StreamExt, stream};

use super::{listing, staging::Staging};
use crate::{
    dir::{DirError, Directory, MAX_DEPTH, glob_matches, link_stays_inside},
    exit::{Exit, Failure},
    fetch::{Found, Session},
    id::ContentId,
    net::{Network, blocking},
    part::Span,
    slice::MAX_WINDOW,
};

/// Most files and directories of one download.
const MAX_ENTRIES: usize = 1_000_000;
/// Most bytes of their paths.
const MAX_NAMES: usize = 256 << 20;
/// Listings asked for at a time.
const LISTINGS: usize = 8;
/// Files under way at a time; their windows share the windows in flight.
const FILES: usize = 8;

/// A file to fetch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileJob {
    /// Names from the top, with `/` between them; each was checked.
    pub path: String,
    pub id: ContentId,
    pub size: u64,
    pub executable: bool,
}

/// A directory, flattened.
#[derive(Clone, Debug)]
pub struct Tree {
    pub id: ContentId,
    files: Vec<FileJob>,
    /// Paths of directories, parents first.
    folders: Vec<String>,
    /// Paths and targets of links.
    links: Vec<(String, String)>,
    /// What was included, for telling downloads apart.
    pub(super) include: Vec<String>,
}

impl Tree {
    /// Bytes of all files.
    pub fn total(&self) -> u64 {
        self.files.iter().map(|file| file.size).fold(0, u64::saturating_add)
    }

    pub fn files(&self) -> &[FileJob] {
        &self.files
    }

    pub fn folders(&self) -> &[String] {
        &self.folders
    }

    pub fn links(&self) -> &[(String, String)] {
        &self.links
    }

    /// Reads the listings of everything below.
    pub async fn walk<N: Network>(
        session: &Session<N>,
        top: Found,
        include: &[String],
    ) -> Result<Self, Failure> {
        let mut tree = Tree {
            id: top.id,
            files: Vec::new(),
            folders: Vec::new(),
            links: Vec::new(),
            include: include.to_vec(),
        };
        let mut bounds = Bounds::default();
        let top = listing(session, &top).await?;
        let mut level = tree.take("", &top, 0, &mut bounds)?;
        for depth in 1.. {
            if level.is_empty() {
                break;
            }
            if depth > MAX_DEPTH {
                return Err(DirError::TooDeep.into());
            }
            // One by one as they come: somebody else's directory decides how many there are.
            let mut listings = stream::iter(std::mem::take(&mut level))
                .map(|(path, id)| async move {
                    let found = session.stat_any(id).await?;
                    Ok::<_, Failure>((path, listing(session, &found).await?))
                })
                .buffered(LISTINGS);
            while let Some(read) = listings.next().await {
                let (path, directory) = read?;
                level.extend(tree.take(&path, &directory, depth, &mut bounds)?);
            }
        }
        tree.drop_unused_folders();
        Ok(tree)
    }

    /// Takes the entries of the directory at `folder`; returns the directories among them.
    fn take(
        &mut self,
        folder: &str,
        directory: &Directory,
        depth: usize,
        bounds: &mut Bounds,
    ) -> Result<Vec<(String, ContentId)>, Failure> {
        let mut below = Vec::new();
        for entry in directory.entries() {
            let path =
                if folder.is_empty() { entry.name.clone() } else { format!("{folder}/{}", entry.name) };
            if let Some(target) = &entry.symlink {
                if !link_stays_inside(target, depth) {
                    let (name, target) = (path, target.clone());
                    return Err(DirError::Escapes { name, target }.into());
                }
                if self.included(&path) {
                    bounds.note(&path)?;
                    self.links.push((path, target.clone()));
                }
            } else if entry.hash.is_directory() {
                bounds.note(&path)?;
                self.folders.push(path.clone());
                below.push((path, entry.hash));
            } else if self.included(&path) {
                bounds.note(&path)?;
                let (id, size, executable) = (entry.hash, entry.size, entry.executable);
                self.files.push(FileJob { path, id, size, executable });
            }
        }
        Ok(below)
    }

    fn included(&self, path: &str) -> bool {
        self.include.is_empty() || self.include.iter().any(|pattern| glob_matches(pattern, path))
    }

    /// With patterns, only directories that hold something included are made.
    fn drop_unused_folders(&mut self) {
        if self.include.is_empty() {
            return;
        }
        let mut used = std::collections::HashSet::new();
        let paths = self.files.iter().map(|file| &file.path).chain(self.links.iter().map(|(path, _)| path));
        for path in paths {
            used.extend(path.match_indices('/').map(|(at, _)| path[..at].to_owned()));
        }
        self.folders.retain(|folder| used.contains(folder));
    }
}

/// What is kept of a tree, which one short listing can name many times over.
#[derive(Debug, Default)]
struct Bounds {
    entries: usize,
    /// Bytes of all paths.
    names: usize,
}

impl Bounds {
    fn note(&mut self, path: &str) -> Result<(), Failure> {
        self.entries += 1;
        self.names = self.names.saturating_add(path.len());
        let what = match self {
            Bounds { entries, .. } if *entries > MAX_ENTRIES => format!("more than {MAX_ENTRIES} entries"),
            Bounds { names, .. } if *names > MAX_NAMES => format!("more than {MAX_NAMES} bytes of paths"),
            _ => return Ok(()),
        };
        let what = format!("the directory holds {what}");
        Err(Failure::new(Exit::Fatal, what, "get its parts one by one: ID/path"))
    }
}

/// Fetches every file of a tree that is not there yet.
pub(super) async fn fetch_files<N: Network>(
    session: &Arc<Session<N>>,
    tree: &Tree,
    staging: &Arc<Staging>,
) -> Result<(), Failure> {
    let mut first: Option<Failure> = None;
    let failed = AtomicBool::new(false);
    let jobs = stream::iter(tree.files().to_vec())
        .take_while(|_| std::future::ready(!session.stop.is_set() && !failed.load(Ordering::Relaxed)))
        .map(|job| fetch_one(session, staging, job, &failed))
        .buffer_unordered(FILES);
    let mut jobs = std::pin::pin!(jobs);
    while let Some(result) = jobs.next().await {
        if let Err(failure) = result {
            // What is in flight for other files is paid for: it arrives and is kept.
            failed.store(true, Ordering::Relaxed);
            first.get_or_insert(failure);
        }
    }
    match first {
        Some(failure) => Err(failure),
        None if session.stop.is_set() => Err(crate::fetch::Stop::failure()),
        None => Ok(()),
    }
}

/// Files up to this size are fetched in one window, as data.
pub(super) fn window_of<N: Network>(session: &Session<N>) -> u64 {
    MAX_WINDOW.min(session.limits.window)
}

async fn fetch_one<N: Network>(
    session: &Arc<Session<N>>,
    staging: &Arc<Staging>,
    job: FileJob,
    failed: &AtomicBool,
) -> Result<(), Failure> {
    if staging.has(&job) {
        session.meter.add_done(job.size);
        return Ok(());
    }
    // The listing's author may have lied about the size. One window finds that out by
    // itself; of a longer file the first gigabytes might verify nevertheless.
    if job.size > window_of(session) {
        let proven = session.stat_any(job.id).await?.size;
        if proven != job.size {
            return Err(DirError::Inconsistent(job.path).into());
        }
    }
    let zeros = session.holes(job.id, job.size).await.bytes(job.size);
    let part = {
        let (staging, job) = (Arc::clone(staging), job.clone());
        blocking(move || staging.part(&job, Span::whole(job.id, job.size), zeros)).await??
    };
    let part = Arc::new(part);
    session.meter.add_done(part.done());
    let filled = session.fill_until(&part, failed).await;
    filled.map_err(|failure| failure.context(crate::exit::shown(&job.path)))?;
    blocking(move || {
        let part = Arc::into_inner(part)
            .ok_or_else(|| Failure::new(Exit::Other, "internal error: the download is still in use", ""))?;
        if job.executable {
            part.make_executable()?;
        }
        part.finish(true, None).map_err(Failure::from)
    })
    .await?
}

/// A path of a tree below a folder of this machine. Names were checked one by one.
pub(super) fn relative(folder: &Path, path: &str) -> PathBuf {
    path.split('/').fold(folder.to_owned(), |at, name| at.join(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_and_their_paths_are_bounded() {
        let mut bounds = Bounds { entries: MAX_ENTRIES - 1, names: 0 };
        bounds.note("last").expect("room");
        assert!(bounds.note("one more").is_err());
        let mut bounds = Bounds { entries: 1, names: MAX_NAMES - 4 };
        bounds.note("last").expect("room");
        assert!(bounds.note("x").is_err());
    }
}
