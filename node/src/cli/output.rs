//! Printing: JSON for programs, aligned tables for people.

use std::io::{self, Write as _};

use serde::Serialize;

use crate::exit::{CliError, shown};

#[derive(Clone, Copy, Debug)]
pub(super) struct Output {
    pub(super) json: bool,
}

impl Output {
    /// Prints `value` as JSON, or what `human` makes of it.
    pub(super) fn print<T: Serialize>(
        self,
        value: &T,
        human: impl FnOnce(&T) -> String,
    ) -> Result<(), CliError> {
        self.print_on(value, human).map(drop)
    }

    /// The same, of one of many: whether anybody still reads.
    pub(super) fn print_on<T: Serialize>(
        self,
        value: &T,
        human: impl FnOnce(&T) -> String,
    ) -> Result<bool, CliError> {
        let text = if self.json {
            serde_json::to_string(value)
                .map_err(|error| CliError::new(crate::exit::ExitCode::Other, error.to_string(), ""))?
        } else {
            human(value)
        };
        if text.is_empty() {
            return Ok(true);
        }
        let mut bytes = text.into_bytes();
        if bytes.last() != Some(&b'\n') {
            bytes.push(b'\n');
        }
        write_all(&bytes)
    }

    /// Writes bytes as they are.
    pub(super) fn bytes(self, bytes: &[u8]) -> Result<(), CliError> {
        write_all(bytes).map(drop)
    }
}

/// Whether anybody still reads: who has seen enough may close standard output.
fn write_all(bytes: &[u8]) -> Result<bool, CliError> {
    let mut out = io::stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        other => other.map(|()| true).map_err(|error| CliError::io("writing to standard output", &error)),
    }
}

/// Columns as wide as their widest cell. What strangers have named keeps to its cell.
pub(super) fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<_>> = rows.iter().map(|row| row.iter().map(|cell| shown(cell)).collect()).collect();
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&widths).map(|(cell, &width)| format!("{cell:<width$}"));
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned()
    };
    let mut lines = vec![line(head.to_vec())];
    lines.extend(rows.iter().map(|row| line(row.iter().map(|cell| &**cell).collect())));
    lines.join("\n")
}

/// `name  value` lines.
pub(super) fn facts(rows: &[(&str, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.len()).max().unwrap_or(0);
    rows.iter()
        .map(|(name, value)| format!("{name:<width$}  {}", shown(value)))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned() {
        let rows = [vec!["1".to_owned(), "open".to_owned()], vec!["100".to_owned(), "x".to_owned()]];
        assert_eq!(table(&["id", "state"], &rows), "id   state\n1    open\n100  x");
        let hostile = [vec!["a\n9".to_owned(), "\u{1b}[1A".to_owned()]];
        assert_eq!(table(&["id", "state"], &hostile), "id   state\na\u{fffd}9  \u{fffd}[1A");
        assert_eq!(facts(&[("tower", "\u{1b}[2J".into())]), "tower  \u{fffd}[2J");
        assert_eq!(facts(&[("a", "1".into()), ("long", "2".into())]), "a     1\nlong  2");
    }
}
