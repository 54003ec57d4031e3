//! Where a node keeps its files.
//!
//! `--home DIR` (or `POR_HOME`) puts everything into one directory. Otherwise settings and keys
//! are in `$XDG_CONFIG_HOME/por` and what the daemon writes in `$XDG_DATA_HOME/por`:
//!
//! | file | where | what |
//! |---|---|---|
//! | `config.toml` | config | settings, see [`crate::config`] |
//! | `node.key`, `near.key` | config | secrets, mode 0600, see [`crate::keys`] |
//! | `por.redb`, `por.journal` | data | ledger and everything else that must survive |
//! | `api-addr`, `api-token` | data | how local clients reach the running daemon |
//! | `peers` | data | where counterparties were reached last |
//! | `graph` | data | the graph as it was read from the chain |
//! | `lock` | data | held by the one daemon that owns the home |

use std::fs::{File, OpenOptions, TryLockError};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use rand::RngCore as _;
use tempfile::{NamedTempFile, PersistError};
use zeroize::Zeroizing;

use crate::client::TOKEN_FILE;
use crate::exit::{CliError, ExitCode};

/// Longest secret file that is read, bytes.
const MAX_SECRET: u64 = 64 << 10;

/// The directories of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Home {
    config: PathBuf,
    data: PathBuf,
}

impl Home {
    /// Everything in `dir`.
    pub fn at(dir: impl Into<PathBuf>) -> Home {
        let dir = dir.into();
        Home { config: dir.clone(), data: dir }
    }

    /// `flag` if given, else `POR_HOME`, else the XDG directories of the user.
    pub fn locate(flag: Option<&Path>) -> Result<Home, CliError> {
        Home::locate_with(flag, |name| std::env::var_os(name).map(PathBuf::from))
    }

    fn locate_with(flag: Option<&Path>, var: impl Fn(&str) -> Option<PathBuf>) -> Result<Home, CliError> {
        if let Some(dir) = flag {
            return Ok(Home::at(dir));
        }
        if let Some(dir) = var("POR_HOME").filter(|dir| !dir.as_os_str().is_empty()) {
            return Ok(Home::at(dir));
        }
        // The XDG specification has relative paths ignored.
        let base = |name: &str, default: &str| {
            var(name)
                .filter(|dir| dir.is_absolute())
                .or_else(|| Some(var("HOME").filter(|dir| dir.is_absolute())?.join(default)))
                .map(|dir| dir.join("por"))
                .ok_or_else(|| CliError::usage("neither HOME nor XDG directories are set", "pass --home DIR"))
        };
        Ok(Home { config: base("XDG_CONFIG_HOME", ".config")?, data: base("XDG_DATA_HOME", ".local/share")? })
    }

    /// Directory of settings and keys.
    pub fn config_dir(&self) -> &Path {
        &self.config
    }

    /// Directory of what the daemon writes; what [`crate::client::Client::from_home`] takes.
    pub fn data_dir(&self) -> &Path {
        &self.data
    }

    pub fn config_file(&self) -> PathBuf {
        self.config.join("config.toml")
    }

    pub fn node_key_file(&self) -> PathBuf {
        self.config.join("node.key")
    }

    pub fn near_key_file(&self) -> PathBuf {
        self.config.join("near.key")
    }

    pub fn store_file(&self) -> PathBuf {
        self.data.join("por.redb")
    }

    /// Where counterparties were reached last.
    pub fn peers_file(&self) -> PathBuf {
        self.data.join("peers")
    }

    /// The graph as it was read from the chain.
    pub fn graph_file(&self) -> PathBuf {
        self.data.join("graph")
    }

    pub fn api_token_file(&self) -> PathBuf {
        self.data.join(TOKEN_FILE)
    }

    /// Creates the directories, readable by the user alone.
    pub fn create(&self) -> Result<(), CliError> {
        for dir in [&self.config, &self.data] {
            create_private_dir(dir)
                .map_err(|error| CliError::io(format!("creating {}", dir.display()), &error))?;
        }
        Ok(())
    }

    /// Takes the home for this process; freed when the lock is dropped or the process ends.
    ///
    /// Errors: [`ExitCode::Exists`] if another process holds it.
    pub fn lock(&self) -> Result<HomeLock, CliError> {
        self.create()?;
        let path = self.data.join("lock");
        let failed = |error: &io::Error| CliError::io(format!("locking {}", path.display()), error);
        let file = open_lock(&path).map_err(|error| failed(&error))?;
        match file.try_lock() {
            Ok(()) => Ok(HomeLock { _file: file }),
            Err(TryLockError::WouldBlock) => Err(CliError::new(
                ExitCode::Exists,
                format!("another daemon owns {}", self.data.display()),
                "use the running daemon, stop it, or choose another --home",
            )),
            Err(TryLockError::Error(error)) => Err(failed(&error)),
        }
    }

    /// The token that local clients present; made at first use.
    pub fn api_token(&self) -> Result<String, CliError> {
        let path = self.api_token_file();
        if !path.exists() {
            let mut bytes = Zeroizing::new([0u8; 32]);
            rand::rng().fill_bytes(&mut *bytes);
            write_secret(&path, hex::encode(*bytes).as_bytes())?;
        }
        let text = read_secret(&path)?;
        let token = std::str::from_utf8(&text).map(str::trim).unwrap_or_default();
        if token.len() < 32 || !token.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(CliError::new(
                ExitCode::WrongKey,
                format!("{} holds no token", path.display()),
                "remove the file; the daemon makes a new one",
            ));
        }
        Ok(token.to_owned())
    }
}

/// Proof that this process owns a home.
#[derive(Debug)]
pub struct HomeLock {
    _file: File,
}

fn create_private_dir(dir: &Path) -> io::Result<()> {
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(dir)
}

/// Nobody else may open it: whoever can, can hold its lock.
fn open_lock(path: &Path) -> io::Result<File> {
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file = options.open(path)?;
    #[cfg(unix)]
    file.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(file)
}

/// Writes a file that only the user can read. Replaces an existing one in one step, so that a
/// crash leaves the old or the new content.
pub fn write_secret(path: &Path, content: &[u8]) -> Result<(), CliError> {
    let written = write_private(path, content, |file| file.persist(path));
    written.map_err(|error| CliError::io(format!("writing {}", path.display()), &error))
}

/// The same for a file that is not there yet: an existing one is never replaced.
///
/// Errors: also [`ExitCode::Exists`].
pub(crate) fn create_secret(path: &Path, content: &[u8]) -> Result<(), CliError> {
    let written = write_private(path, content, |file| file.persist_noclobber(path));
    written.map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => exists(path),
        _ => CliError::io(format!("writing {}", path.display()), &error),
    })
}

pub(crate) fn exists(path: &Path) -> CliError {
    CliError::new(
        ExitCode::Exists,
        format!("{} exists", path.display()),
        "keep it, or move it away if you really want another one",
    )
}

fn write_private(
    path: &Path,
    content: &[u8],
    persist: impl FnOnce(NamedTempFile) -> Result<File, PersistError>,
) -> io::Result<()> {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    create_private_dir(dir)?;
    // tempfile creates with mode 0600.
    let mut file = NamedTempFile::new_in(dir)?;
    file.write_all(content)?;
    file.as_file().sync_all()?;
    persist(file).map_err(|error| error.error)?;
    File::open(dir)?.sync_all()
}

/// Reads a secret. Refuses files that others can read: the secret is no secret any more.
pub fn read_secret(path: &Path) -> Result<Zeroizing<Vec<u8>>, CliError> {
    let failed = |error: &io::Error| CliError::io(format!("reading {}", path.display()), error);
    let file = File::open(path).map_err(|error| failed(&error))?;
    let metadata = file.metadata().map_err(|error| failed(&error))?;
    check_private(path, &metadata)?;
    let mut content = Zeroizing::new(Vec::new());
    file.take(MAX_SECRET).read_to_end(&mut content).map_err(|error| failed(&error))?;
    Ok(content)
}

#[cfg(unix)]
fn check_private(path: &Path, metadata: &std::fs::Metadata) -> Result<(), CliError> {
    use std::os::unix::fs::PermissionsExt as _;
    let mode = metadata.permissions().mode() & 0o777;
    if mode & 0o077 == 0 {
        return Ok(());
    }
    Err(CliError::new(
        ExitCode::WrongKey,
        format!("others can read the secret in {} (mode {mode:03o})", path.display()),
        format!("run `chmod 600 {}`; if others use this machine, replace the key", path.display()),
    ))
}

#[cfg(not(unix))]
fn check_private(_path: &Path, _metadata: &std::fs::Metadata) -> Result<(), CliError> {
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn locate(vars: &[(&str, &str)]) -> Result<Home, CliError> {
        Home::locate_with(None, |name| {
            vars.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
        })
    }

    #[test]
    fn xdg_directories_unless_a_home_is_named() {
        let home = locate(&[("HOME", "/u"), ("XDG_DATA_HOME", "/d")]).expect("found");
        assert_eq!(home.config_file(), Path::new("/u/.config/por/config.toml"));
        assert_eq!(home.store_file(), Path::new("/d/por/por.redb"));
        let relative = locate(&[("HOME", "/u"), ("XDG_CONFIG_HOME", "rel")]).expect("found");
        assert_eq!(relative.config_dir(), Path::new("/u/.config/por"));
        assert_eq!(locate(&[("POR_HOME", "/p"), ("HOME", "/u")]).expect("found"), Home::at("/p"));
        assert_eq!(locate(&[]).expect_err("no home").code, ExitCode::Usage);
        assert_eq!(Home::locate(Some(Path::new("/x"))).expect("flag"), Home::at("/x"));
    }

    #[test]
    fn one_process_owns_a_home() {
        let dir = tempfile::tempdir().expect("tempdir");
        let home = Home::at(dir.path().join("h"));
        let lock = home.lock().expect("first");
        assert_eq!(home.lock().expect_err("second").code, ExitCode::Exists);
        drop(lock);
        home.lock().expect("free again");
    }

    /// Whoever can open the file can hold its lock, and keep the daemon from starting.
    #[cfg(unix)]
    #[test]
    fn nobody_else_can_take_the_lock() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("tempdir");
        let home = Home::at(dir.path());
        let path = dir.path().join("lock");
        for _ in 0..2 {
            drop(home.lock().expect("free"));
            let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
            // As an earlier version left it.
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("chmod");
        }
    }

    #[cfg(unix)]
    #[test]
    fn secrets_are_private_and_refused_when_they_are_not() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().expect("tempdir");
        let path = dir.path().join("sub/secret");
        write_secret(&path, b"old").expect("written");
        write_secret(&path, b"new").expect("replaced");
        assert_eq!(read_secret(&path).expect("read").as_slice(), b"new");
        let mode = std::fs::metadata(&path).expect("metadata").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        for open in [0o640, 0o604] {
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(open)).expect("chmod");
            assert_eq!(read_secret(&path).expect_err("readable by others").code, ExitCode::WrongKey);
        }
    }

    #[test]
    fn the_token_stays() {
        let dir = tempfile::tempdir().expect("tempdir");
        let home = Home::at(dir.path());
        let token = home.api_token().expect("made");
        assert_eq!(token.len(), 64);
        assert_eq!(home.api_token().expect("read"), token);
        write_secret(&home.api_token_file(), b"").expect("emptied");
        assert_eq!(home.api_token().expect_err("no token").code, ExitCode::WrongKey);
    }
}
