//! The errors of this crate.

use std::path::PathBuf;

/// Why the chain could not be started, or had to stop.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file or directory of the home could not be used: check path and permissions.
    #[error("cannot use {path}: {source}")]
    File {
        /// The file or directory.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the home does not hold what it should: repair or remove it.
    #[error("{path} is not valid: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// The RPC address cannot be listened on: choose another one (port 0 takes any).
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address asked for.
        addr: std::net::SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The home was written for another chain: use another home.
    #[error("the home holds chain `{found}`, not `{wanted}`: choose another home")]
    OtherChain {
        /// The chain id found in the home.
        found: String,
        /// The chain id asked for.
        wanted: String,
    },
    /// The database of the home failed or is damaged: free some space, or start with a new home.
    #[error("the chain's database failed: {0}")]
    Store(String),
    /// The genesis holds something impossible.
    #[error("the genesis is not valid: {0}")]
    Genesis(String),
    /// A thread of the chain could not be started or has ended.
    #[error("the chain stopped: {0}")]
    Stopped(String),
    /// The state contradicts itself. This is a defect of the chain, or of its database.
    #[error("the chain's state is inconsistent: {0}")]
    Inconsistent(String),
}

impl Error {
    pub(crate) fn file(path: impl Into<PathBuf>) -> impl FnOnce(std::io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { path, source }
    }

    pub(crate) fn store(error: impl std::fmt::Display) -> Error {
        Error::Store(error.to_string())
    }

    pub(crate) fn inconsistent(what: impl std::fmt::Display) -> Error {
        Error::Inconsistent(what.to_string())
    }
}

/// The result of this crate's own functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;
