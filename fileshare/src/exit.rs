//! Exit codes of the command line, and the error that carries one.

use std::{fmt, io};

/// What a command's exit code means. `por` and `fileshare` share this table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    Other = 1,
    Usage = 2,
    NoRoute = 3,
    NotFound = 4,
    Retryable = 5,
    Unreachable = 6,
    Fatal = 7,
    Budget = 8,
    DiskFull = 9,
    Deadline = 10,
    WrongKey = 11,
    PortInUse = 12,
    Exists = 13,
    CorruptStore = 14,
    ForeignVersion = 15,
    VerificationFailed = 32,
    EdgeSevered = 40,
    Interrupted = 130,
}

impl Exit {
    /// Every code, in the order of its number.
    pub const ALL: [Exit; 19] = [
        Exit::Ok,
        Exit::Other,
        Exit::Usage,
        Exit::NoRoute,
        Exit::NotFound,
        Exit::Retryable,
        Exit::Unreachable,
        Exit::Fatal,
        Exit::Budget,
        Exit::DiskFull,
        Exit::Deadline,
        Exit::WrongKey,
        Exit::PortInUse,
        Exit::Exists,
        Exit::CorruptStore,
        Exit::ForeignVersion,
        Exit::VerificationFailed,
        Exit::EdgeSevered,
        Exit::Interrupted,
    ];

    /// The number the process exits with.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The name that `--json` shows.
    pub const fn name(self) -> &'static str {
        match self {
            Exit::Ok => "ok",
            Exit::Other => "other",
            Exit::Usage => "usage",
            Exit::NoRoute => "no-route",
            Exit::NotFound => "not-found",
            Exit::Retryable => "retryable",
            Exit::Unreachable => "unreachable",
            Exit::Fatal => "fatal",
            Exit::Budget => "budget",
            Exit::DiskFull => "disk-full",
            Exit::Deadline => "deadline",
            Exit::WrongKey => "wrong-key",
            Exit::PortInUse => "port-in-use",
            Exit::Exists => "exists",
            Exit::CorruptStore => "corrupt-store",
            Exit::ForeignVersion => "foreign-version",
            Exit::VerificationFailed => "verification-failed",
            Exit::EdgeSevered => "edge-severed",
            Exit::Interrupted => "interrupted",
        }
    }
}

impl From<Exit> for std::process::ExitCode {
    fn from(exit: Exit) -> Self {
        std::process::ExitCode::from(exit.code())
    }
}

/// Why a command failed: one line what happened, one line how to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub exit: Exit,
    /// What happened.
    pub what: String,
    /// What the user can do about it. Empty if nothing better than reading `what`.
    pub fix: String,
}

impl Failure {
    pub fn new(exit: Exit, what: impl Into<String>, fix: impl Into<String>) -> Self {
        Failure { exit, what: what.into(), fix: fix.into() }
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
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                (Exit::DiskFull, "free some space and run the same command again; what is verified is kept")
            }
            io::ErrorKind::NotFound => (Exit::NotFound, "check the path"),
            io::ErrorKind::AlreadyExists => {
                (Exit::Exists, "choose another output with -o, or pass --overwrite")
            }
            io::ErrorKind::PermissionDenied => (Exit::Other, "check who owns the path and its permissions"),
            _ => (Exit::Other, ""),
        };
        Failure::new(exit, format!("{doing}: {error}"), fix)
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
    fn codes_are_those_of_the_table() {
        let codes: Vec<u8> = Exit::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 32, 40, 130]);
    }

    #[test]
    fn a_full_disk_is_never_just_other() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        assert_eq!(Failure::io("writing x", &full).exit, Exit::DiskFull);
    }

    #[test]
    fn display_is_one_line_what_and_one_line_fix() {
        let failure = Failure::new(Exit::Budget, "too dear", "raise --max-spend");
        assert_eq!(failure.to_string(), "too dear\nfix: raise --max-spend");
    }
}
