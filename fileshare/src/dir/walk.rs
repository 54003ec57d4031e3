//! Putting a directory of this machine into the store.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use super::{DirEntry, DirError, Directory, MAX_DEPTH, link_stays_inside};
use crate::{
    exit::{Exit, Failure},
    id::{ContentId, Kind},
    store::{AddOptions, Added, Staged, Store},
};

/// Items committed in one transaction. Each holds up to two open files.
const BATCH: usize = 128;

/// How [`put_tree`] treats the files it finds.
pub type TreeOptions = AddOptions;

/// Adds a directory with everything below it and pins it. Links are kept as links.
///
/// `progress` gets the bytes hashed since its last call.
///
/// # Errors
/// A link that leads out, a name that is not UTF-8, a device or socket; nothing is
/// pinned then.
pub fn put_tree(
    store: &Store,
    top: &Path,
    options: TreeOptions,
    progress: &mut dyn FnMut(u64),
) -> Result<Added, Failure> {
    let mut walk = Walk { store, options, progress, batch: Vec::new() };
    let (id, size) = walk.directory(top, 0)?;
    if !options.only_hash {
        store.commit(walk.batch, &[id])?;
    }
    Ok(Added { id, size })
}

struct Walk<'a> {
    store: &'a Store,
    options: TreeOptions,
    progress: &'a mut dyn FnMut(u64),
    batch: Vec<Staged>,
}

impl Walk<'_> {
    fn directory(&mut self, path: &Path, depth: usize) -> Result<(ContentId, u64), Failure> {
        if depth > MAX_DEPTH {
            return Err(Failure::from(DirError::TooDeep).context(path.display()));
        }
        let mut entries = Vec::new();
        let listing = fs::read_dir(path).map_err(|error| Failure::io(path.display(), &error))?;
        for found in listing {
            let found = found.map_err(|error| Failure::io(path.display(), &error))?;
            entries.push(self.entry(&found.path(), depth)?);
        }
        let in_path = |error: DirError| Failure::from(error).context(path.display());
        let directory = Directory::new(entries).map_err(in_path)?;
        let bytes = directory.encode().map_err(in_path)?;
        let staged = self.store.stage_bytes(Kind::Directory, bytes)?;
        let id = staged.id();
        self.keep(staged)?;
        Ok((id, directory.total()))
    }

    fn entry(&mut self, path: &Path, depth: usize) -> Result<DirEntry, Failure> {
        let name = utf8(path.file_name().map(PathBuf::from).unwrap_or_default())?;
        let metadata = fs::symlink_metadata(path).map_err(|error| Failure::io(path.display(), &error))?;
        if metadata.is_symlink() {
            return link(path, name, depth);
        }
        if metadata.is_dir() {
            let (hash, size) = self.directory(path, depth + 1)?;
            return Ok(DirEntry { name, size, hash, executable: false, symlink: None });
        }
        let staged = self.store.stage_file(path, self.options, self.progress)?;
        let entry = DirEntry {
            name,
            size: staged.size(),
            hash: staged.id(),
            executable: metadata.permissions().mode() & 0o111 != 0,
            symlink: None,
        };
        self.keep(staged)?;
        Ok(entry)
    }

    fn keep(&mut self, staged: Staged) -> Result<(), Failure> {
        if self.options.only_hash {
            return Ok(());
        }
        self.batch.push(staged);
        if self.batch.len() >= BATCH {
            let batch = std::mem::take(&mut self.batch);
            self.store.commit(batch, &[])?;
        }
        Ok(())
    }
}

fn link(path: &Path, name: String, depth: usize) -> Result<DirEntry, Failure> {
    let target = fs::read_link(path).map_err(|error| Failure::io(path.display(), &error))?;
    let target = utf8(target)?;
    if !link_stays_inside(&target, depth) {
        return Err(Failure::new(
            Exit::Usage,
            format!("{}: the symbolic link to '{target}' leads out of the directory", path.display()),
            "remove the link, or put what it leads to in its place",
        ));
    }
    Ok(DirEntry::symlink(name, target))
}

fn utf8(path: PathBuf) -> Result<String, Failure> {
    path.into_os_string().into_string().map_err(|name| {
        Failure::new(
            Exit::Usage,
            format!("the name {name:?} is not UTF-8"),
            "rename it; names travel as UTF-8 text",
        )
    })
}
