//! Exit codes of the command line tools, and the error that carries one.

use std::borrow::Cow;
use std::io::Write as _;
use std::{fmt, io};

use crate::client::{ClientError, ErrorCode};

/// What a command's exit code means; `por` and `fileshare` share the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum ExitCode {
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

impl ExitCode {
    /// Every code, by number.
    pub const ALL: [ExitCode; 19] = [
        ExitCode::Ok,
        ExitCode::Other,
        ExitCode::Usage,
        ExitCode::NoRoute,
        ExitCode::NotFound,
        ExitCode::Retryable,
        ExitCode::Unreachable,
        ExitCode::Fatal,
        ExitCode::Budget,
        ExitCode::DiskFull,
        ExitCode::Deadline,
        ExitCode::WrongKey,
        ExitCode::PortInUse,
        ExitCode::Exists,
        ExitCode::CorruptStore,
        ExitCode::ForeignVersion,
        ExitCode::VerificationFailed,
        ExitCode::EdgeSevered,
        ExitCode::Interrupted,
    ];

    /// The number that the process exits with.
    pub const fn code(self) -> u8 {
        self as u8
    }

    /// The name that `--json` shows; the same as in the local API where that has the failure.
    pub const fn name(self) -> &'static str {
        match self {
            ExitCode::Ok => "ok",
            ExitCode::Other => "other",
            ExitCode::Usage => "usage",
            ExitCode::NoRoute => "no-route",
            ExitCode::NotFound => "not-found",
            ExitCode::Retryable => "retryable",
            ExitCode::Unreachable => "unreachable",
            ExitCode::Fatal => "fatal",
            ExitCode::Budget => "budget",
            ExitCode::DiskFull => "disk-full",
            ExitCode::Deadline => "deadline",
            ExitCode::WrongKey => "wrong-key",
            ExitCode::PortInUse => "port-in-use",
            ExitCode::Exists => "exists",
            ExitCode::CorruptStore => "corrupt-store",
            ExitCode::ForeignVersion => "foreign",
            ExitCode::VerificationFailed => "verification",
            ExitCode::EdgeSevered => "severed",
            ExitCode::Interrupted => "interrupted",
        }
    }
}

impl From<ExitCode> for std::process::ExitCode {
    fn from(code: ExitCode) -> Self {
        std::process::ExitCode::from(code.code())
    }
}

impl From<ErrorCode> for ExitCode {
    fn from(code: ErrorCode) -> ExitCode {
        match code {
            ErrorCode::Other => ExitCode::Other,
            ErrorCode::Usage => ExitCode::Usage,
            ErrorCode::NoRoute => ExitCode::NoRoute,
            ErrorCode::NotFound => ExitCode::NotFound,
            ErrorCode::Retryable => ExitCode::Retryable,
            ErrorCode::Unreachable => ExitCode::Unreachable,
            ErrorCode::Fatal => ExitCode::Fatal,
            ErrorCode::Budget => ExitCode::Budget,
            ErrorCode::DiskFull => ExitCode::DiskFull,
            ErrorCode::Deadline => ExitCode::Deadline,
            ErrorCode::WrongKey => ExitCode::WrongKey,
            ErrorCode::PortInUse => ExitCode::PortInUse,
            ErrorCode::Exists => ExitCode::Exists,
            ErrorCode::CorruptStore => ExitCode::CorruptStore,
            ErrorCode::Foreign => ExitCode::ForeignVersion,
            ErrorCode::Verification => ExitCode::VerificationFailed,
            ErrorCode::Severed => ExitCode::EdgeSevered,
        }
    }
}

/// Why a command failed: one line says what happened, one what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CliError {
    pub code: ExitCode,
    pub message: String,
    /// What the user can do; may be empty.
    pub fix: String,
}

impl CliError {
    pub fn new(code: ExitCode, message: impl Into<String>, fix: impl Into<String>) -> CliError {
        CliError { code, message: message.into(), fix: fix.into() }
    }

    pub fn usage(message: impl Into<String>, fix: impl Into<String>) -> CliError {
        CliError::new(ExitCode::Usage, message, fix)
    }

    /// An error of the operating system while doing something to a file or socket.
    pub fn io(doing: impl fmt::Display, error: &io::Error) -> CliError {
        let (code, fix) = match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded | io::ErrorKind::FileTooLarge => {
                (ExitCode::DiskFull, "free some space and start again; nothing was lost")
            }
            io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => (ExitCode::NotFound, "check the path"),
            io::ErrorKind::AlreadyExists => (ExitCode::Exists, "choose another path"),
            io::ErrorKind::AddrInUse => {
                (ExitCode::PortInUse, "stop the program that uses the port, or choose another port")
            }
            io::ErrorKind::PermissionDenied => {
                (ExitCode::Other, "check who owns the path and its permissions")
            }
            io::ErrorKind::ReadOnlyFilesystem => {
                (ExitCode::Other, "choose a place that can be written to, or mount it for writing")
            }
            _ => (ExitCode::Other, "see to what the system says, and run the same command again"),
        };
        CliError::new(code, format!("{doing}: {error}"), fix)
    }

    /// The form that `--json` prints on standard error.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": self.message,
            "fix": self.fix,
            "code": self.code.name(),
            "exit": self.code.code(),
        })
    }
}

impl fmt::Display for CliError {
    /// `error: ...`, and `fix: ...` on a second line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "error: {}", one_line(&self.message))?;
        if !self.fix.is_empty() {
            write!(f, "\nfix: {}", one_line(&self.fix))?;
        }
        Ok(())
    }
}

/// Writes a line to standard error. `eprintln!` would end the process, or the part of it that speaks, where
/// whoever read that has gone or its disk is full; nothing may depend on being heard.
pub fn tell(line: impl fmt::Display) {
    let _ = io::stderr().lock().write_all(format!("{line}\n").as_bytes());
}

fn one_line(text: &str) -> String {
    shown(&text.split_whitespace().collect::<Vec<_>>().join(" ")).into_owned()
}

/// A text for people that strangers chose, or a part of: nothing in it moves a terminal's cursor, or
/// makes it read otherwise than it is written.
pub fn shown(text: &str) -> Cow<'_, str> {
    // Besides controls the marks that turn the direction of what follows.
    let hidden = |c: char| {
        c.is_control()
            || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    if text.chars().any(hidden) {
        Cow::Owned(text.chars().map(|c| if hidden(c) { '\u{fffd}' } else { c }).collect())
    } else {
        Cow::Borrowed(text)
    }
}

impl std::error::Error for CliError {}

impl From<ClientError> for CliError {
    fn from(error: ClientError) -> CliError {
        let ClientError { code, mut message, fix, spent, requests } = error.in_two_lines();
        if !spent.is_zero() {
            let of: Vec<String> = requests.iter().map(|request| format!(" {request}")).collect();
            let of = if of.is_empty() { String::new() } else { format!(" for request{}", of.join(",")) };
            message.push_str(&format!(" ({} paid and not refunded{of})", spent.to_near_string()));
        }
        CliError { code: code.into(), message, fix }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_name_moves_no_cursor() {
        assert_eq!(shown("caf\u{e9}/\u{1b}[2J\u{202e}txt.\n"), "caf\u{e9}/\u{fffd}[2J\u{fffd}txt.\u{fffd}");
        assert!(matches!(shown("plain"), Cow::Borrowed("plain")));
    }

    #[test]
    fn codes_are_those_of_the_table() {
        let codes: Vec<u8> = ExitCode::ALL.iter().map(|exit| exit.code()).collect();
        assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 32, 40, 130]);
    }

    #[test]
    fn the_api_and_the_command_line_agree() {
        for code in ErrorCode::ALL {
            let exit = ExitCode::from(code);
            assert_eq!((exit.code(), exit.name()), (code.exit_code(), code.name()));
        }
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
            assert!(!CliError::io("writing x", &io::Error::from(kind)).fix.is_empty(), "{kind}");
        }
    }

    #[test]
    fn an_error_is_one_line_and_its_fix_another() {
        let error = CliError::usage("bad\nthing", "do  this");
        assert_eq!(error.to_string(), "error: bad thing\nfix: do this");
        assert_eq!(CliError::usage("bad", "").to_string(), "error: bad");
        let hostile = CliError::usage("the tower says: \u{1b}[2Jall is well\u{7}", "");
        assert_eq!(hostile.to_string(), "error: the tower says: \u{fffd}[2Jall is well\u{fffd}");
        let joined = ClientError::new(ErrorCode::PortInUse, "port 1 is in use; take another", "");
        assert_eq!(CliError::from(joined).to_string(), "error: port 1 is in use\nfix: take another");
    }
}
