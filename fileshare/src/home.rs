//! Where the daemon's home and the store are.

use std::path::{Path, PathBuf};

use crate::exit::{Exit, Failure};

/// The home that `por` uses as well: `--home`, else `POR_HOME`, else `por` in the user's
/// data folder (`XDG_DATA_HOME`, by default `~/.local/share`).
pub fn home(given: Option<&Path>) -> Result<PathBuf, Failure> {
    if let Some(given) = given {
        return Ok(given.to_owned());
    }
    let folder = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let data = folder("XDG_DATA_HOME").or_else(|| folder("HOME").map(|home| home.join(".local/share")));
    data.map(|data| data.join("por")).ok_or_else(|| {
        Failure::new(Exit::Usage, "there is no home directory to work in", "pass --home DIR or set POR_HOME")
    })
}

/// The store's folder within a home.
pub fn store_folder(home: &Path) -> PathBuf {
    home.join("fileshare")
}
