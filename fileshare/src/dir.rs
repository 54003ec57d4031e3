//! Directories: a canonical DAG-CBOR list of their entries.
//!
//! A listing names each entry's content by its own id, so directories nest and equal
//! files are one item. The listing comes from strangers: names and links are checked
//! here, in one place, so that nothing made from one lies outside of the output.

mod walk;

use serde::{Deserialize, Serialize};

pub use self::walk::{TreeOptions, put_tree};
use crate::{
    exit::{Exit, Failure},
    id::{ContentId, IdError, Kind},
};

/// Longest listing that is written or read, in bytes.
pub const MAX_LISTING: u64 = 16 * 1024 * 1024;
/// Deepest nesting of directories.
pub const MAX_DEPTH: usize = 128;
/// Longest name, in bytes.
pub const MAX_NAME: usize = 255;
/// Longest target of a symbolic link, in bytes.
pub const MAX_LINK: usize = 4095;

/// Why bytes are not a listing that can be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DirError {
    #[error("the listing is not canonical DAG-CBOR of a directory: {0}")]
    Malformed(String),
    #[error("the listing has more than {MAX_LISTING} bytes")]
    TooLong,
    #[error("'{0}' cannot be the name of a file here")]
    Name(String),
    #[error("the name '{0}' occurs twice")]
    Twice(String),
    #[error("the symbolic link '{name}' to '{target}' leads out of the directory")]
    Escapes { name: String, target: String },
    #[error("the entry '{0}' contradicts itself")]
    Inconsistent(String),
    #[error("directories are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error(transparent)]
    Id(#[from] IdError),
}

impl From<DirError> for Failure {
    fn from(error: DirError) -> Self {
        let fix = "whoever made this directory must make it again";
        Failure::new(Exit::VerificationFailed, error.to_string(), fix)
    }
}

/// One entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct DirEntry {
    pub name: String,
    /// Bytes of the file, of the link's target, or of all files below a directory.
    pub size: u64,
    /// The content: a file, a listing, or the target of a link as bytes.
    pub hash: ContentId,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub executable: bool,
    /// The target, if this is a symbolic link.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub symlink: Option<String>,
}

/// The same as it is encoded.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Wire {
    name: String,
    size: u64,
    hash: cid::Cid,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    executable: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    symlink: Option<String>,
}

impl DirEntry {
    /// A symbolic link to `target`.
    pub fn symlink(name: String, target: String) -> Self {
        DirEntry {
            name,
            size: target.len() as u64,
            hash: ContentId::file(blake3::hash(target.as_bytes())),
            executable: false,
            symlink: Some(target),
        }
    }

    fn check(&self) -> Result<(), DirError> {
        if !is_name(&self.name) {
            return Err(DirError::Name(self.name.chars().take(100).collect()));
        }
        let inconsistent = || DirError::Inconsistent(self.name.clone());
        let Some(target) = &self.symlink else {
            let executable_directory = self.executable && self.hash.is_directory();
            return (!executable_directory).then_some(()).ok_or_else(inconsistent);
        };
        if *self != DirEntry::symlink(self.name.clone(), target.clone()) {
            return Err(inconsistent());
        }
        Ok(())
    }
}

/// Whether a name can be that of a file in exactly this directory.
pub fn is_name(name: &str) -> bool {
    let special = matches!(name, "" | "." | "..");
    !special && name.len() <= MAX_NAME && !name.contains(['/', '\0'])
}

/// Whether a link with this target, `depth` directories below the top, stays below the
/// top whatever else is there.
///
/// `..` is allowed in front only: behind another name it would depend on where that
/// name leads, and links upon links could climb out.
pub fn link_stays_inside(target: &str, depth: usize) -> bool {
    let relative = !target.starts_with('/') && !target.is_empty();
    let parts: Vec<&str> = target.split('/').filter(|part| !matches!(*part, "" | ".")).collect();
    let up = parts.iter().take_while(|part| **part == "..").count();
    let down = &parts[up..];
    let plain = !target.contains('\0') && !down.contains(&"..");
    relative && plain && target.len() <= MAX_LINK && up <= depth
}

/// A directory's listing: sorted by name, every entry checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Directory {
    entries: Vec<DirEntry>,
}

impl Directory {
    /// Sorts and checks the entries.
    pub fn new(mut entries: Vec<DirEntry>) -> Result<Self, DirError> {
        entries.sort_by(|a, b| a.name.cmp(&b.name));
        if let Some(pair) = entries.windows(2).find(|pair| pair[0].name == pair[1].name) {
            return Err(DirError::Twice(pair[0].name.clone()));
        }
        entries.iter().try_for_each(DirEntry::check)?;
        Ok(Directory { entries })
    }

    pub fn entries(&self) -> &[DirEntry] {
        &self.entries
    }

    pub fn find(&self, name: &str) -> Option<&DirEntry> {
        let at = self.entries.binary_search_by(|entry| entry.name.as_str().cmp(name));
        at.ok().and_then(|at| self.entries.get(at))
    }

    /// Bytes of all files below.
    pub fn total(&self) -> u64 {
        let sizes = self.entries.iter().map(|entry| entry.size);
        sizes.fold(0, u64::saturating_add)
    }

    /// The ids of the entries' contents. Links have none of their own.
    pub fn ids(&self) -> impl Iterator<Item = ContentId> + '_ {
        let content = self.entries.iter().filter(|entry| entry.symlink.is_none());
        content.map(|entry| entry.hash)
    }

    /// The canonical bytes, whose hash is the directory's id.
    pub fn encode(&self) -> Result<Vec<u8>, DirError> {
        let wire: Vec<Wire> = self
            .entries
            .iter()
            .map(|entry| Wire {
                name: entry.name.clone(),
                size: entry.size,
                hash: entry.hash.to_cid(),
                executable: entry.executable,
                symlink: entry.symlink.clone(),
            })
            .collect();
        let bytes =
            serde_ipld_dagcbor::to_vec(&wire).map_err(|error| DirError::Malformed(error.to_string()))?;
        if bytes.len() as u64 > MAX_LISTING {
            return Err(DirError::TooLong);
        }
        Ok(bytes)
    }

    /// Reads a listing. Only the canonical form of valid entries is accepted.
    pub fn decode(bytes: &[u8]) -> Result<Self, DirError> {
        if bytes.len() as u64 > MAX_LISTING {
            return Err(DirError::TooLong);
        }
        let wire: Vec<Wire> =
            serde_ipld_dagcbor::from_slice(bytes).map_err(|error| DirError::Malformed(error.to_string()))?;
        let entries = wire
            .into_iter()
            .map(|wire| {
                Ok(DirEntry {
                    name: wire.name,
                    size: wire.size,
                    hash: ContentId::from_cid(&wire.hash)?,
                    executable: wire.executable,
                    symlink: wire.symlink,
                })
            })
            .collect::<Result<Vec<_>, IdError>>()?;
        let directory = Directory::new(entries)?;
        if directory.encode()? != bytes {
            return Err(DirError::Malformed("another order or form".into()));
        }
        Ok(directory)
    }

    /// The listing's id.
    pub fn id(&self) -> Result<ContentId, DirError> {
        let hash = blake3::hash(&self.encode()?);
        Ok(ContentId::new(Kind::Directory, *hash.as_bytes()))
    }
}

/// `ID` or `ID/path` as users write it. A slash says that 64 hex digits are a directory's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    pub id: ContentId,
    /// Whether the id says what it is; 64 hex digits do not.
    pub sure: bool,
    /// Names from the directory `id` downwards; none for `id` itself.
    pub path: Vec<String>,
}

impl std::str::FromStr for Address {
    type Err = IdError;

    fn from_str(text: &str) -> Result<Self, IdError> {
        let (id, path, slash) = text.split_once('/').map_or((text, "", false), |(id, path)| (id, path, true));
        let mut sure = id.trim().len() != 64;
        let mut id: ContentId = id.parse()?;
        let path: Vec<String> = path.split('/').filter(|part| !part.is_empty()).map(str::to_owned).collect();
        if let Some(bad) = path.iter().find(|part| !is_name(part)) {
            return Err(IdError::NotAnId(bad.clone()));
        }
        // Only a directory has a path.
        if !path.is_empty() || (slash && !sure) {
            sure = true;
            id = ContentId::new(Kind::Directory, *id.hash());
        }
        Ok(Address { id, sure, path })
    }
}

/// Whether `path` (with `/` between names) matches a pattern: `*` and `?` within a name,
/// `**` across names. A pattern without `/` matches the last name at any depth.
pub fn glob_matches(pattern: &str, path: &str) -> bool {
    if !pattern.contains('/') && !pattern.contains("**") {
        let name = path.rsplit('/').next().unwrap_or(path);
        return glob(pattern.as_bytes(), name.as_bytes());
    }
    glob(pattern.trim_start_matches('/').as_bytes(), path.as_bytes())
}

/// Positions of the pattern reached so far, advanced byte by byte: no backtracking, so
/// no pattern takes longer than pattern times path.
fn glob(pattern: &[u8], path: &[u8]) -> bool {
    let mut at = vec![false; pattern.len() + 1];
    at[0] = true;
    skip_stars(pattern, &mut at, true);
    for &byte in path {
        let mut next = vec![false; pattern.len() + 1];
        for (position, _) in at.iter().enumerate().filter(|(_, reached)| **reached) {
            match pattern.get(position) {
                Some(b'*') if byte != b'/' || is_double(pattern, position) => next[position] = true,
                Some(b'?') if byte != b'/' => next[position + 1] = true,
                Some(&literal) if literal == byte && literal != b'*' => next[position + 1] = true,
                _ => (),
            }
        }
        skip_stars(pattern, &mut next, byte == b'/');
        at = next;
    }
    at[pattern.len()]
}

fn is_double(pattern: &[u8], star: usize) -> bool {
    pattern.get(star + 1) == Some(&b'*') || (star > 0 && pattern.get(star - 1) == Some(&b'*'))
}

/// A star also stands for nothing, and `**/` for no directory at all.
fn skip_stars(pattern: &[u8], at: &mut [bool], name_starts: bool) {
    for position in 0..pattern.len() {
        if !at[position] || pattern[position] != b'*' {
            continue;
        }
        at[position + 1] = true;
        let opens = position == 0 || pattern[position - 1] == b'/';
        if opens && name_starts && pattern[position..].starts_with(b"**/") {
            at[position + 3] = true;
        }
    }
}
