//! Where the password of encrypted key files comes from.

use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::exit::{CliError, ExitCode};
use crate::home::read_secret;

/// Variable that holds the password.
pub const PASSWORD_VAR: &str = "POR_PASSWORD";

/// Ways to get the password, the first that applies: file, variable, question on the terminal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PasswordSource {
    pub file: Option<PathBuf>,
}

pub(super) fn missing(path: &Path) -> CliError {
    CliError::new(
        ExitCode::WrongKey,
        format!("{} is encrypted and no password was given", path.display()),
        format!("set {PASSWORD_VAR} or pass --password-file FILE"),
    )
}

impl PasswordSource {
    /// The password if file or variable give one.
    pub fn given(&self) -> Result<Option<Zeroizing<String>>, CliError> {
        if let Some(path) = &self.file {
            return from_file(path).map(Some);
        }
        match std::env::var(PASSWORD_VAR) {
            Ok(password) if !password.is_empty() => Ok(Some(Zeroizing::new(password))),
            Ok(_) | Err(std::env::VarError::NotPresent) => Ok(None),
            Err(std::env::VarError::NotUnicode(_)) => {
                Err(CliError::new(ExitCode::WrongKey, format!("{PASSWORD_VAR} is not text"), "set it again"))
            }
        }
    }

    /// The password for existing keys; asks on the terminal where there is one.
    pub fn get(&self) -> Result<Zeroizing<String>, CliError> {
        if let Some(password) = self.given()? {
            return Ok(password);
        }
        if !std::io::stdin().is_terminal() {
            return Err(CliError::new(
                ExitCode::WrongKey,
                "the keys are encrypted and no password was given",
                format!("set {PASSWORD_VAR} or pass --password-file FILE"),
            ));
        }
        prompt("password: ")
    }

    /// The password for new keys, asked twice.
    pub fn get_new(&self) -> Result<Zeroizing<String>, CliError> {
        if let Some(password) = self.given()? {
            return Ok(password);
        }
        if !std::io::stdin().is_terminal() {
            return Err(CliError::usage(
                "no password to encrypt the keys with",
                format!("set {PASSWORD_VAR} or pass --password-file FILE"),
            ));
        }
        let first = prompt("new password: ")?;
        if first.is_empty() || *first != *prompt("again: ")? {
            return Err(CliError::usage("the passwords are empty or differ", "try again"));
        }
        Ok(first)
    }

    /// A closure that asks at most once.
    pub(super) fn once(&self) -> impl FnMut() -> Result<Zeroizing<String>, CliError> {
        let mut known: Option<Zeroizing<String>> = None;
        move || match &known {
            Some(password) => Ok(password.clone()),
            None => {
                let password = self.get()?;
                known = Some(password.clone());
                Ok(password)
            }
        }
    }
}

fn from_file(path: &Path) -> Result<Zeroizing<String>, CliError> {
    let bytes = read_secret(path)?;
    let text = std::str::from_utf8(&bytes).map_err(|_| {
        CliError::new(
            ExitCode::WrongKey,
            format!("{} is not text", path.display()),
            "write the password into it",
        )
    })?;
    let line = text.lines().next().unwrap_or_default();
    if line.is_empty() {
        return Err(CliError::new(
            ExitCode::WrongKey,
            format!("{} holds no password", path.display()),
            "write the password into its first line",
        ));
    }
    Ok(Zeroizing::new(line.to_owned()))
}

fn prompt(question: &str) -> Result<Zeroizing<String>, CliError> {
    rpassword::prompt_password(question)
        .map(Zeroizing::new)
        .map_err(|error| CliError::io("asking for the password", &error))
}
