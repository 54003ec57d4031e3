//! `get` and `cat`: from an address to bytes on disk or on a stream.

mod room;
mod staging;
mod tree;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use bytes::Bytes;
use por_types::NodeKey;
use tokio::io::AsyncWrite;

use self::staging::Staging;
pub use self::tree::{FileJob, Tree};
use crate::{
    dir::{Address, DirEntry, Directory, MAX_LISTING},
    exit::{Exit, Failure},
    fetch::{Found, Plan, Session, Shapes},
    holes::Holes,
    id::ContentId,
    net::{Network, blocking},
    part::{Part, PartError, Paths, Span},
    store::Store,
};

/// What to get.
#[derive(Clone, Debug)]
pub struct Want {
    pub address: Address,
    /// Ask these providers only; empty to search.
    pub from: Vec<NodeKey>,
    /// Only these bytes of a file, `start..end`; no end means the file's.
    pub range: Option<(u64, Option<u64>)>,
    /// Only files of a directory that match one of these patterns; empty for all.
    pub include: Vec<String>,
}

/// Where it goes.
#[derive(Clone, Debug)]
pub struct Place {
    /// The file or directory to make.
    pub target: PathBuf,
    /// Replace what is there.
    pub overwrite: bool,
    /// Serve it afterwards from this store, where it lies.
    pub share: Option<Store>,
}

/// What an address leads to.
#[derive(Clone, Debug)]
pub enum Goal {
    /// Bytes of a file, its size proven.
    File { span: Span, executable: bool },
    /// A directory and everything below it.
    Tree(Tree),
}

impl Goal {
    /// Bytes of content.
    pub fn len(&self) -> u64 {
        match self {
            Goal::File { span, .. } => span.len(),
            Goal::Tree(tree) => tree.total(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Finds providers and follows the address to what it names. The entry is that of the
/// last directory on the way, if there is a way.
pub async fn resolve<N: Network>(
    session: &Session<N>,
    want: &Want,
) -> Result<(Found, Option<DirEntry>), Failure> {
    let address = &want.address;
    let mut found = session.discover(address.id, address.sure, &want.from).await?;
    let mut last = None;
    for name in &address.path {
        if !found.id.is_directory() {
            let what = format!("{} is a file and has no '{name}' in it", found.id);
            return Err(Failure::new(Exit::NotFound, what, "`fileshare ls ID` shows what is there"));
        }
        let directory = listing(session, &found).await?;
        let entry = directory.find(name).ok_or_else(|| {
            let what = format!("there is no '{name}' in {}", found.id);
            Failure::new(Exit::NotFound, what, "`fileshare ls ID` shows what is there")
        })?;
        if entry.symlink.is_some() {
            let what = format!("'{name}' is a symbolic link");
            return Err(Failure::new(Exit::Usage, what, "name the file it leads to, or get the directory"));
        }
        found = session.stat_any(entry.hash).await?;
        last = Some(entry.clone());
    }
    Ok((found, last))
}

/// Most bytes of one download. A size that somebody names costs him nothing, and the reader 24 bytes for each
/// window of it, before a price is known.
const MOST: u64 = 1 << 44;

fn within_bounds(goal: Goal) -> Result<Goal, Failure> {
    if goal.len() <= MOST {
        return Ok(goal);
    }
    let what = format!("it says that it has {} bytes, more than the {MOST} of one download", goal.len());
    Err(Failure::new(
        Exit::Usage,
        what,
        "get a part of it: --range of a file, --include or ID/path of a directory",
    ))
}

/// Finds out what there is to fetch.
///
/// # Errors
/// [`Exit::Usage`] if that is more than 16 TiB, whoever says so, and those of [`resolve`].
pub async fn locate<N: Network>(session: &Session<N>, want: &Want) -> Result<Goal, Failure> {
    let (found, entry) = resolve(session, want).await?;
    if found.id.is_directory() {
        if want.range.is_some() {
            return Err(Failure::new(Exit::Usage, "a directory has no byte range", "name a file: ID/path"));
        }
        return within_bounds(Goal::Tree(Tree::walk(session, found, &want.include).await?));
    }
    let (start, end) = want.range.unwrap_or((0, None));
    let span = Span::range(found.id, found.size, start, end.unwrap_or(found.size))?;
    let executable = entry.is_some_and(|entry| entry.executable) && span.is_whole();
    within_bounds(Goal::File { span, executable })
}

/// The directory that was found: its listing came with the stat, or is fetched.
pub async fn listing<N: Network>(session: &Session<N>, found: &Found) -> Result<Directory, Failure> {
    let bytes = match &found.listing {
        Some(listing) => listing.clone(),
        None if found.size > MAX_LISTING => return Err(crate::dir::DirError::TooLong.into()),
        None => {
            let mut shapes = Shapes::default();
            let span = Span::whole(found.id, found.size);
            shapes.add_span(&span, session.window_len(), |_| true, &Holes::default())?;
            session.plan(&shapes).await?;
            Bytes::from(session.bytes(found.id, found.size).await?)
        }
    };
    let directory = blocking(move || Directory::decode(&bytes)).await?;
    directory.map_err(|error| Failure::from(error).context(found.id))
}

/// What is left to fetch for a goal, given what is on disk already, and its price.
pub async fn plan<N: Network>(
    session: &Session<N>,
    goal: &Goal,
    place: Option<&Place>,
) -> Result<Plan, Failure> {
    let window_len = session.window_len();
    // Of a directory's files nobody has asked yet: they count as data.
    let holes = match goal {
        Goal::File { span, .. } => session.holes(span.id, span.size).await,
        Goal::Tree(_) => Arc::default(),
    };
    let (goal, place) = (goal.clone(), place.cloned());
    let shapes = blocking(move || match &goal {
        Goal::File { span, .. } => {
            let mut shapes = Shapes::default();
            let paths = place.as_ref().map(|place| Paths::beside(&place.target));
            add_missing(&mut shapes, span, paths, window_len, &holes)?;
            Ok(shapes)
        }
        Goal::Tree(tree) => {
            let mut shapes = Shapes::default();
            for file in tree.files() {
                let paths = place.as_ref().map(|place| staging::paths_of(&place.target, &file.path));
                if paths.as_ref().is_some_and(|paths| staging::is_there(&paths.target, file.size)) {
                    continue;
                }
                let span = Span::whole(file.id, file.size);
                add_missing(&mut shapes, &span, paths, window_len, &holes)?;
            }
            Ok::<_, Failure>(shapes)
        }
    });
    let shapes = shapes.await??;
    session.plan(&shapes).await
}

fn add_missing(
    shapes: &mut Shapes,
    span: &Span,
    paths: Option<Paths>,
    window_len: u64,
    holes: &Holes,
) -> Result<(), Failure> {
    let missing = paths.and_then(|paths| Part::peek(&paths, span));
    shapes.add_span(span, window_len, |unit| missing.as_ref().is_none_or(|missing| missing(unit)), holes)
}

/// Fetches a goal to disk. On any failure what was verified stays, to be continued.
pub async fn fetch_to<N: Network>(
    session: &Arc<Session<N>>,
    goal: &Goal,
    place: &Place,
) -> Result<(), Failure> {
    session.meter.add_total(goal.len());
    match goal {
        Goal::File { span, executable } => fetch_file(session, *span, *executable, place).await,
        Goal::Tree(tree) => fetch_tree(session, tree, place).await,
    }
}

/// Fetches a file in order to a stream.
pub async fn fetch_out<N: Network>(
    session: &Session<N>,
    goal: &Goal,
    out: &mut (impl AsyncWrite + Unpin),
) -> Result<(), Failure> {
    let Goal::File { span, .. } = goal else {
        let what = "a directory cannot be written to a stream";
        return Err(Failure::new(Exit::Usage, what, "name a file: ID/path, or choose an output with -o"));
    };
    session.meter.add_total(span.len());
    session.stream(span, out).await
}

async fn fetch_file<N: Network>(
    session: &Arc<Session<N>>,
    span: Span,
    executable: bool,
    place: &Place,
) -> Result<(), Failure> {
    let (target, overwrite) = (place.target.clone(), place.overwrite);
    let zeros = session.holes(span.id, span.size).await.bytes(span.size);
    let part = blocking(move || Part::open_sparse(&target, span, overwrite, zeros)).await??;
    let part = Arc::new(part);
    session.meter.add_done(part.done());
    session.fill(&part).await?;
    let place = place.clone();
    blocking(move || {
        // Every window's task has ended, so this is the only holder.
        let part = Arc::into_inner(part)
            .ok_or_else(|| Failure::new(Exit::Other, "internal error: the download is still in use", ""))?;
        finish_file(part, executable, &place)
    })
    .await?
}

fn finish_file(part: Part, executable: bool, place: &Place) -> Result<(), Failure> {
    let span = *part.span();
    let share = place.share.as_ref().filter(|_| span.is_whole());
    let mut outboard = share.map(Store::outboard_file).transpose()?;
    if executable {
        part.make_executable()?;
    }
    part.finish(place.overwrite, outboard.as_mut().map(tempfile::NamedTempFile::as_file_mut))?;
    if let (Some(store), Some(outboard)) = (share, outboard) {
        let staged = store.stage_verified(span.id, &place.target, outboard)?;
        store.commit(vec![staged], &[span.id])?;
    }
    Ok(())
}

async fn fetch_tree<N: Network>(
    session: &Arc<Session<N>>,
    tree: &Tree,
    place: &Place,
) -> Result<(), Failure> {
    room::check(session, tree, &place.target).await?;
    let staging = {
        let (tree, place) = (tree.clone(), place.clone());
        blocking(move || Staging::open(&tree, &place)).await??
    };
    let staging = Arc::new(staging);
    tree::fetch_files(session, tree, &staging).await?;
    let (tree, place) = (tree.clone(), place.clone());
    blocking(move || {
        staging.finish(&tree, &place)?;
        match &place.share {
            Some(store) => share_tree(store, &place.target, tree.id),
            None => Ok(()),
        }
    })
    .await?
}

/// Puts a directory that was just fetched, so that it can be served.
fn share_tree(store: &Store, target: &Path, id: ContentId) -> Result<(), Failure> {
    let added = crate::dir::put_tree(store, target, crate::dir::TreeOptions::default(), &mut |_| ())?;
    if added.id == id {
        return Ok(());
    }
    let what = format!("{} is now {}, not {id}", target.display(), added.id);
    Err(Failure::new(Exit::Other, what, "it holds other files as well; put what you want to share"))
}

/// Maps an error of a file's own to one that names the file.
pub(crate) fn named(path: &str) -> impl Fn(PartError) -> Failure {
    let path = crate::exit::shown(path).into_owned();
    move |error| Failure::from(error).context(&path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::id::Kind;

    #[test]
    fn a_size_that_nobody_can_mean_is_refused() {
        let id = ContentId::new(Kind::File, [7; 32]);
        let file = |span| Goal::File { span, executable: false };
        assert!(within_bounds(file(Span::whole(id, MOST))).is_ok());
        let refused = within_bounds(file(Span::whole(id, 1 << 62))).expect_err("too large");
        assert_eq!(refused.exit, Exit::Usage);
        let part = Span::range(id, 1 << 62, 1 << 61, (1 << 61) + 5).expect("a range");
        assert!(within_bounds(file(part)).is_ok(), "a part of it is as good as any");
    }
}
