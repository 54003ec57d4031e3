//! Exit codes of the command line, and the error that carries one.

use std::{fmt, io};

/// What a command's exit code means; `por` and `fileshare` share the table.
pub use por_node::exit::{ExitCode as Exit, shown};
use por_node::{client::ClientError, exit::CliError};
use por_types::Yocto;

/// Why a command failed: one line what happened, one line how to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    /// What happened.
    pub what: String,
    /// What the user can do about it. Empty if nothing better than reading `what`.
    pub fix: String,
    /// Most that it has cost or may still cost: a request that was paid for and not answered in time.
    pub spent: Yocto,
}

impl Failure {
    pub fn new(exit: Exit, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Failure { exit, what: what.into(), fix: fix.into(), spent: Yocto::ZERO }
    }

    /// Puts what was being done in front of what went wrong.
    #[must_use]
    pub fn context(mut self, doing: impl fmt::Display) -> Self {
        self.what = format!("{doing}: {}", self.what);
        self
    }

    /// Classifies an error of the operating system.
    pub fn io(doing: impl fmt::Display, error: &io::Error) -> Self {
        let (exit, fix) = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                (Exit::DiskFull, "free some space and run the same command again; what is verified is kept")
            }
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => (Exit::NotFound, "check the path"),
            io::ErrorKind::AlreadyExists => {
                (Exit::Exists, "choose another output with -o, or pass --overwrite")
            }
            io::ErrorKind::PermissionDenied => (Exit::Other, "check who owns the path and its permissions"),
            io::ErrorKind::ReadOnlyFilesystem => {
                (Exit::Other, "choose a place that can be written to, or mount it for writing")
            }
            _ => (Exit::Other, "see to what the system says, and run the same command again"),
        };
        Failure::new(exit, format!("{doing}: {error}"), fix)
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        let error = error.in_two_lines();
        let spent = error.spent;
        Failure { spent, ..Failure::new(error.code.into(), error.message, error.fix) }
    }
}

impl From<CliError> for Failure {
    fn from(error: CliError) -> Self {
        Failure::new(error.code, error.message, error.fix)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)?;
        if !self.fix.is_empty() {
            write!(f, "\nfix: {}", self.fix)?;
        }
        Ok(())
    }
}

impl std::error::Error for Failure {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_never_just_other() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Failure::io("writing x", &full).exit, Exit::DiskFull);
    }

    #[test]
    fn every_error_of_the_system_has_a_fix() {
        use io::ErrorKind;
        for kind in [
            ErrorKind::ReadOnlyFilesystem,
            ErrorKind::PermissionDenied,
            ErrorKind::NotADirectory,
            ErrorKind::Other,
        ] {
            assert!(!Failure::io("writing x", &io::Error::from(kind)).fix.is_empty(), "{kind}");
        }
    }

    #[test]
    fn what_a_node_says_to_do_is_the_fix() {
        use por_node::client::ErrorCode;
        let failure =
            Failure::from(ClientError::new(ErrorCode::PortInUse, "port 1 is in use; take another", ""));
        assert_eq!((failure.what.as_str(), failure.fix.as_str()), ("port 1 is in use", "take another"));
    }

    #[test]
    fn display_is_one_line_what_and_one_line_fix() {
        let failure = Failure::new(Exit::Budget, "too dear", "raise --max-spend");
        assert_eq!(failure.to_string(), "too dear\nfix: raise --max-spend");
    }
}
