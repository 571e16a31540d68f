//! What commands print: lines for people, or one JSON object for programs.

use std::fmt::Display;
use std::io::{BufRead, IsTerminal, Write};

use serde_json::Value;

/// Where a command's answer goes.
pub(super) struct Output {
    json: bool,
}

impl Output {
    pub(super) fn new(json: bool) -> Self {
        Self { json }
    }

    /// Prints the answer: `value` for programs, `text` for people.
    pub(super) fn answer(&self, value: &Value, text: impl Display) {
        let mut stdout = std::io::stdout().lock();
        let result = if self.json { writeln!(stdout, "{value}") } else { writeln!(stdout, "{text}") };
        // A reader that has gone away wants no more.
        let _ = result;
    }

    /// Says what is about to happen to how many rows, and asks unless that was answered beforehand.
    pub(super) fn confirm(&self, question: &str, yes: bool) -> anyhow::Result<bool> {
        if yes {
            return Ok(true);
        }
        if self.json || !std::io::stdin().is_terminal() {
            anyhow::bail!("{question} Repeat with --yes to do it.");
        }
        let mut stderr = std::io::stderr().lock();
        write!(stderr, "{question} [y/N] ")?;
        stderr.flush()?;
        let mut line = String::new();
        std::io::stdin().lock().read_line(&mut line)?;
        Ok(matches!(line.trim(), "y" | "Y" | "yes"))
    }
}

/// Prints a line to standard error.
pub(super) fn complain(message: &dyn Display) {
    let _ = writeln!(std::io::stderr(), "{message}");
}

/// Prints a line to standard output, for people.
pub(super) fn say(message: impl Display) {
    let _ = writeln!(std::io::stdout(), "{message}");
}
