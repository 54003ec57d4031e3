//! A directory under way: `NAME.part` holds what is there, complete files under their
//! own names; `NAME.part.files` the incomplete ones, under names that nobody else chose;
//! `NAME.part.state` says what it is. The directory gets its name at the end.

use std::{
    fs::{self, File},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use super::{
    Place, named,
    tree::{FileJob, Tree, relative},
};
use crate::{
    exit::Failure,
    part::{Part, PartError, Paths, Span, lock_state, rename_new, sync_dir, with_suffix},
};

const MAGIC: &str = "fileshare directory 2\n";

/// The folder that a tree is collected in.
fn folder_of(target: &Path) -> PathBuf {
    with_suffix(target, ".part")
}

/// The folder of its incomplete files.
fn files_of(target: &Path) -> PathBuf {
    with_suffix(target, ".part.files")
}

/// Where a file of a tree becomes complete, when the tree's target is this.
pub(super) fn paths_of(target: &Path, path: &str) -> Paths {
    Paths::within(&files_of(target), path, relative(&folder_of(target), path))
}

/// Whether a complete file lies there. Complete files are the only ones that get their
/// own names within a staging folder.
pub(super) fn is_there(path: &Path, size: u64) -> bool {
    path.symlink_metadata().is_ok_and(|metadata| metadata.is_file() && metadata.len() == size)
}

/// The locked staging folder of one download.
#[derive(Debug)]
pub(super) struct Staging {
    target: PathBuf,
    folder: PathBuf,
    state_path: PathBuf,
    _state: File,
}

impl Staging {
    /// Makes or takes up the folder, with all its directories.
    pub fn open(tree: &Tree, place: &Place) -> Result<Self, Failure> {
        let target = &place.target;
        match target.symlink_metadata() {
            // Nothing would give it the name at the end.
            Ok(there) if place.overwrite && !there.is_dir() => {
                return Err(PartError::NoFolder(target.clone()).into());
            }
            Ok(_) if !place.overwrite => return Err(PartError::Exists(target.clone()).into()),
            _ => {}
        }
        let (folder, state_path) = (folder_of(target), with_suffix(target, ".part.state"));
        let files = files_of(target);
        let mut state = lock_state(&state_path, target, place.overwrite)?;
        let expected = description(tree);
        let mut found = String::new();
        let io_at = |path: &Path| {
            let path = path.to_owned();
            move |error: io::Error| Failure::io(path.display(), &error)
        };
        // Not UTF-8, hence not a directory's: the state of a file's download, say.
        let readable = (&state).take(1 << 20).read_to_string(&mut found).is_ok();
        if !(readable && found == expected) {
            let free = |path: &Path| path.symlink_metadata().is_err();
            let fresh = readable && found.is_empty() && free(&folder) && free(&files);
            if !fresh && !place.overwrite {
                let id = found.lines().nth(1).unwrap_or("something else").to_owned();
                return Err(PartError::OtherDownload { path: folder, id }.into());
            }
            remove(&folder).map_err(io_at(&folder))?;
            remove(&files).map_err(io_at(&files))?;
            state.set_len(0).map_err(io_at(&state_path))?;
            io::Seek::rewind(&mut state).map_err(io_at(&state_path))?;
            state.write_all(expected.as_bytes()).map_err(io_at(&state_path))?;
            state.sync_all().map_err(io_at(&state_path))?;
        }
        for path in [folder.clone(), files]
            .into_iter()
            .chain(tree.folders().iter().map(|path| relative(&folder, path)))
        {
            make_folder(&path).map_err(io_at(&path))?;
        }
        Ok(Staging { target: target.clone(), folder, state_path, _state: state })
    }

    pub fn has(&self, job: &FileJob) -> bool {
        is_there(&relative(&self.folder, &job.path), job.size)
    }

    pub fn part(&self, job: &FileJob, span: Span, zeros: u64) -> Result<Part, Failure> {
        let paths = paths_of(&self.target, &job.path);
        Part::open_at(paths, span, true, zeros).map_err(named(&job.path))
    }

    /// Adds the links and gives the directory its name.
    pub fn finish(&self, tree: &Tree, place: &Place) -> Result<(), Failure> {
        for file in tree.files() {
            if !self.has(file) {
                return Err(PartError::Incomplete { missing: file.size, total: tree.total() }.into());
            }
        }
        for (path, target) in tree.links() {
            let path = relative(&self.folder, path);
            make_link(&path, target).map_err(|error| Failure::io(path.display(), &error))?;
        }
        if place.overwrite && place.target.symlink_metadata().is_ok_and(|metadata| metadata.is_dir()) {
            merge(&self.folder, &place.target)?;
        } else {
            rename_new(&self.folder, &place.target)?;
        }
        let _ = remove(&files_of(&self.target));
        let _ = fs::remove_file(&self.state_path);
        sync_dir(&place.target);
        Ok(())
    }
}

fn description(tree: &Tree) -> String {
    let mut text = format!("{MAGIC}{}\n", tree.id);
    for pattern in &tree.include {
        text.push_str(&pattern.escape_default().to_string());
        text.push('\n');
    }
    text
}

fn remove(folder: &Path) -> io::Result<()> {
    let removed = match folder.symlink_metadata() {
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(folder),
        Ok(_) => fs::remove_file(folder),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Makes a directory, or finds one: never through a link.
fn make_folder(path: &Path) -> io::Result<()> {
    match fs::create_dir(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let is_folder = path.symlink_metadata()?.is_dir();
            if is_folder { Ok(()) } else { Err(error) }
        }
        other => other,
    }
}

fn make_link(path: &Path, target: &str) -> io::Result<()> {
    match std::os::unix::fs::symlink(target, path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            let same = fs::read_link(path).is_ok_and(|found| found == Path::new(target));
            if same { Ok(()) } else { Err(error) }
        }
        other => other,
    }
}

/// Moves everything into a directory that exists, replacing files of the same names and
/// leaving others alone.
fn merge(from: &Path, to: &Path) -> Result<(), Failure> {
    let listing = fs::read_dir(from).map_err(|error| Failure::io(from.display(), &error))?;
    for found in listing {
        let found = found.map_err(|error| Failure::io(from.display(), &error))?;
        let (source, target) = (found.path(), to.join(found.file_name()));
        let is_folder = source.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
        if is_folder && target.symlink_metadata().is_ok() {
            make_folder(&target).map_err(|error| Failure::io(target.display(), &error))?;
            merge(&source, &target)?;
        } else {
            fs::rename(&source, &target).map_err(|error| Failure::io(target.display(), &error))?;
        }
    }
    fs::remove_dir(from).map_err(|error| Failure::io(from.display(), &error))
}
