//! What the files of a download under way are called.

use std::{
    ffi::OsString,
    os::unix::ffi::{OsStrExt, OsStringExt},
    path::{Path, PathBuf},
};

/// Longest name that file systems take, in bytes.
const NAME_MAX: usize = 255;
/// The longest of what is put behind a name.
const LONGEST_SUFFIX: usize = ".part.state".len();
/// Hex digits that stand for what is left out of a long name.
const DIGITS: usize = 16;

/// Where a download becomes what.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Paths {
    /// The file to be.
    pub target: PathBuf,
    /// Its content so far.
    pub data: PathBuf,
    /// What is known of it.
    pub state: PathBuf,
}

impl Paths {
    /// `NAME.part` and `NAME.part.state` beside the target.
    pub fn beside(target: &Path) -> Self {
        Paths {
            target: target.to_owned(),
            data: with_suffix(target, ".part"),
            state: with_suffix(target, ".part.state"),
        }
    }

    /// In a folder of its own, under a name that `key` alone decides: in the target's folder all names
    /// belong to strangers.
    pub fn within(folder: &Path, key: &str, target: PathBuf) -> Self {
        let name = blake3::hash(key.as_bytes()).to_hex();
        let own = Paths::beside(&folder.join(name.as_str()));
        Paths { target, ..own }
    }
}

/// `NAME` + `suffix`. A name with no room for it is cut, and told from others by its hash.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().as_bytes();
    if name.len() + LONGEST_SUFFIX <= NAME_MAX {
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(suffix);
        // Not pushed to the whole: it may end with a slash.
        return path.with_file_name(name);
    }
    let mut end = NAME_MAX - LONGEST_SUFFIX - DIGITS - 1;
    // Not within a character.
    while end > 0 && name[end] & 0xc0 == 0x80 {
        end -= 1;
    }
    let mut short = OsString::from_vec(name[..end].to_vec());
    short.push("~");
    short.push(&blake3::hash(name).to_hex()[..DIGITS]);
    short.push(suffix);
    path.with_file_name(short)
}
