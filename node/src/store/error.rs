use std::path::{Path, PathBuf};

use crate::client::ErrorCode;

/// Why the store cannot be used. All but [`StoreError::InUse`] and [`StoreError::Busy`] stop the
/// node: it must never go on with money it cannot write down.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    #[error(
        "the store {} is damaged ({cause}); put back its latest copy, never an older one: \
         payments since then would be lost", path.display()
    )]
    Damaged { path: PathBuf, cause: String },
    #[error("the store {} is not this node's: {found}; start with the home it belongs to", path.display())]
    Foreign { path: PathBuf, found: String },
    #[error("the store {} is open in another process; stop the other daemon, or use it", path.display())]
    InUse { path: PathBuf },
    #[error("no space left for the store {}; free some and start again, nothing was lost", path.display())]
    DiskFull { path: PathBuf },
    #[error(
        "the store {} cannot be read or written: {cause}; check the disk, then start again: what was \
         promised before is on it", path.display()
    )]
    Io { path: PathBuf, cause: String },
    #[error("the disk cannot keep up: {bytes} bytes wait to be written")]
    Busy { bytes: usize },
    #[error("the store is closed")]
    Closed,
}

impl StoreError {
    /// The row of the exit code table.
    pub fn code(&self) -> ErrorCode {
        match self {
            StoreError::Damaged { .. } | StoreError::Foreign { .. } => ErrorCode::CorruptStore,
            StoreError::InUse { .. } => ErrorCode::Exists,
            StoreError::DiskFull { .. } => ErrorCode::DiskFull,
            StoreError::Busy { .. } => ErrorCode::Retryable,
            StoreError::Io { .. } | StoreError::Closed => ErrorCode::Other,
        }
    }

    pub(super) fn damaged(path: &Path, cause: impl Into<String>) -> StoreError {
        StoreError::Damaged { path: path.to_owned(), cause: cause.into() }
    }

    pub(super) fn foreign(path: &Path, found: impl Into<String>) -> StoreError {
        StoreError::Foreign { path: path.to_owned(), found: found.into() }
    }

    pub(super) fn io(path: &Path, error: &std::io::Error) -> StoreError {
        use std::io::ErrorKind;
        match error.kind() {
            ErrorKind::StorageFull | ErrorKind::QuotaExceeded | ErrorKind::FileTooLarge => {
                StoreError::DiskFull { path: path.to_owned() }
            }
            // Pages that should be there are not.
            ErrorKind::UnexpectedEof | ErrorKind::InvalidData => StoreError::damaged(path, error.to_string()),
            _ => StoreError::Io { path: path.to_owned(), cause: error.to_string() },
        }
    }

    pub(super) fn from_redb(path: &Path, error: redb::Error) -> StoreError {
        match error {
            redb::Error::Io(error) => StoreError::io(path, &error),
            // The database refuses everything after a failure of the disk.
            redb::Error::PreviousIo => {
                StoreError::Io { path: path.to_owned(), cause: "an earlier access has failed".to_owned() }
            }
            redb::Error::DatabaseAlreadyOpen => StoreError::InUse { path: path.to_owned() },
            redb::Error::UpgradeRequired(_) => {
                StoreError::foreign(path, "it was written by another version of the database")
            }
            other => StoreError::damaged(path, other.to_string()),
        }
    }
}
