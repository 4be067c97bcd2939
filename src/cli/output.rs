//! What a command prints: tables for people, JSON for programs, errors on standard error.

use std::io::{self, Write};

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::api::client::ClientError;

/// Wharf itself failed.
pub(crate) const EXIT_FAILURE: u8 = 1;
/// The command line is wrong.
pub(crate) const EXIT_USAGE: u8 = 2;

/// Why a command did not do what was asked: shown as `wharf: what` and a line that begins with
/// `hint:`.
#[derive(Debug)]
pub(crate) struct Failure {
    pub(crate) exit: u8,
    pub(crate) what: String,
    pub(crate) hint: Option<String>,
}

/// How every command ends: with an exit code or a failure.
pub(crate) type Outcome = Result<u8, Failure>;

#[allow(clippy::needless_pass_by_value, reason = "callers hand over what they have: errors, texts")]
impl Failure {
    /// A failure without a hint.
    pub(crate) fn new(what: impl ToString) -> Self {
        Self { exit: EXIT_FAILURE, what: what.to_string(), hint: None }
    }

    /// The command line asks for something that cannot be.
    pub(crate) fn usage(what: impl ToString) -> Self {
        Self { exit: EXIT_USAGE, ..Self::new(what) }
    }

    /// The same with what to do about it.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl ToString) -> Self {
        self.hint = Some(hint.to_string());
        self
    }

    /// The same with this exit code.
    #[must_use]
    pub(crate) fn exit(mut self, exit: u8) -> Self {
        self.exit = exit;
        self
    }

    /// Prints it and gives its exit code.
    pub(crate) fn report(&self) -> u8 {
        let mut stderr = io::stderr().lock();
        let _ = writeln!(stderr, "wharf: {}", self.what);
        if let Some(hint) = &self.hint {
            let _ = writeln!(stderr, "hint: {hint}");
        }
        self.exit
    }
}

/// Any error fails a command. `Failure` is no `Error` itself, so that this can be.
impl<E: std::error::Error + 'static> From<E> for Failure {
    fn from(error: E) -> Self {
        let error: &(dyn std::error::Error + 'static) = &error;
        match error.downcast_ref::<ClientError>() {
            Some(client) => Self { hint: client.hint(), ..Self::new(client) },
            None => Self::new(error),
        }
    }
}

/// Prints a line; a reader that has gone (`wharf ps | head -1`) is no error.
pub(crate) fn line(text: &str) -> Result<(), Failure> {
    finish(writeln!(io::stdout().lock(), "{text}"))
}

/// Prints JSON, indented.
pub(crate) fn json<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    line(&serde_json::to_string_pretty(value)?)
}

/// Prints a listing: JSON if asked for, else the table.
pub(crate) fn listing<T: Serialize + ?Sized>(
    as_json: bool,
    value: &T,
    table: impl FnOnce() -> String,
) -> Outcome {
    if as_json {
        json(value)?;
    } else {
        line(&table())?;
    }
    Ok(0)
}

fn finish(written: io::Result<()>) -> Result<(), Failure> {
    match written {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

/// Rows under headings, columns aligned, no borders. A heading that begins with `>` is that of
/// numbers, which stand to the right.
pub(crate) fn table<const N: usize>(headings: [&str; N], rows: Vec<[String; N]>) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.map(|heading| heading.trim_start_matches('>')));
    table.add_rows(rows);
    for (column, heading) in table.column_iter_mut().zip(headings) {
        column.set_padding((0, 2));
        if heading.starts_with('>') {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    trimmed(&table.to_string())
}

/// Names and values, one pair a line: how one object is shown.
pub(crate) fn facts(pairs: &[(&str, String)]) -> String {
    let width = pairs.iter().map(|(name, _)| name.len()).max().unwrap_or(0) + 2;
    let lines = pairs.iter().map(|(name, value)| {
        // Further lines of a value stand under its first.
        let value = value.replace('\n', &format!("\n{:width$}", ""));
        format!("{:<width$}{value}", format!("{name}:"))
    });
    trimmed(&lines.collect::<Vec<_>>().join("\n"))
}

fn trimmed(text: &str) -> String {
    text.lines().map(str::trim_end).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_align_and_numbers_stand_to_the_right() {
        let rows = vec![
            ["web".to_owned(), "7".to_owned(), "up".to_owned()],
            ["database".to_owned(), "1,234".to_owned(), "up".to_owned()],
        ];
        insta::assert_snapshot!(table(["NAME", ">FRAMES", "STATE"], rows), @r"
        NAME      FRAMES  STATE
        web            7  up
        database   1,234  up
        ");
    }

    #[test]
    fn further_lines_of_a_fact_stand_under_its_first() {
        let text =
            facts(&[("name", "web".to_owned()), ("addresses", "10.0.0.2\nfd00::2".to_owned())]);
        insta::assert_snapshot!(text, @r"
        name:      web
        addresses: 10.0.0.2
                   fd00::2
        ");
    }

    #[test]
    fn any_error_becomes_a_failure_with_exit_code_one() {
        let failure = Failure::from("x".parse::<u8>().unwrap_err());
        assert_eq!((failure.exit, failure.what.as_str()), (1, "invalid digit found in string"));
    }
}
