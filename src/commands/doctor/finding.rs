//! One thing that is wrong, or worth knowing.

use std::fmt;

use serde::Serialize;

use crate::db::DbError;

/// How bad it is. The worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Tasks are not done, or done wrongly, until it is mended. The exit code is 1.
    Fault,
    /// Works, and costs something or hides something.
    Warning,
}

/// What a check found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// The check, for programs.
    pub(super) check: &'static str,
    pub(super) severity: Severity,
    /// What is the case.
    pub(super) what: String,
    /// What mends it: statements and commands.
    pub(super) remedy: String,
}

impl Finding {
    pub(super) fn fault(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, severity: Severity::Fault, what: what.into(), remedy: remedy.into() }
    }

    pub(super) fn warning(check: &'static str, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { check, severity: Severity::Warning, what: what.into(), remedy: remedy.into() }
    }

    /// A question that the database did not answer. It is not silently passed over.
    pub(super) fn unanswered(check: &'static str, error: &DbError) -> Self {
        Self::warning(
            check,
            format!("this could not be looked at: {error}"),
            "see the message; run `doctor` again",
        )
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Fault => "FAULT",
            Severity::Warning => "warning",
        };
        write!(f, "{severity:<7}  {}: {}\n         remedy: {}", self.check, self.what, self.remedy)
    }
}
