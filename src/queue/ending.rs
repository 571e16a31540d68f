//! How an attempt ends: six verbs, and no way to combine their parts wrongly.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::content::{storable_json, storable_text};
use super::retry::LONGEST;
use super::task::Lease;

/// The six endings.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Done: `completed`.
    Complete,
    /// Failed with budget left: `pending` again, later.
    Retry,
    /// Failed for good: `failed`.
    Fail,
    /// Not now: `pending` again, later, at no cost.
    Snooze,
    /// Given back unfinished: `pending` again at once, at no cost.
    Release,
    /// No longer wanted: `cancelled`.
    Cancel,
}

impl Verb {
    /// As the ending's statement, the log's `action_type` and metrics spell it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Complete => "complete",
            Self::Retry => "retry",
            Self::Fail => "fail",
            Self::Snooze => "snooze",
            Self::Release => "release",
            Self::Cancel => "cancel",
        }
    }
}

/// What the database says to an ending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took effect.
    Accepted,
    /// It had taken effect before: the reply was lost.
    Already,
    /// Somebody else owns the task now. Nothing was written, and nothing more may be, for this attempt.
    Stale,
    /// Somebody holds the row at this moment. Nothing was written; ask again.
    Locked,
    /// The database refuses it in every form. Nothing was written; the lease is left to expire.
    Refused,
}

/// What a language model or another paid service cost an attempt.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Usage {
    /// The model's name.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<String>,
    /// Tokens read.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub input_tokens: Option<i32>,
    /// Tokens written.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_tokens: Option<i32>,
    /// US dollars.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_usd: Option<f64>,
    /// 0 to 1.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub quality_score: Option<f64>,
}

/// One attempt's ending, ready to be written.
#[derive(Clone, Debug, PartialEq)]
pub struct Ending {
    pub(super) lease: Lease,
    pub(super) verb: Verb,
    pub(super) delay: Option<Duration>,
    /// JSON text.
    pub(super) result: Option<String>,
    pub(super) error: Option<String>,
    pub(super) latency: Option<Duration>,
    pub(super) oversize: Option<i64>,
    pub(super) usage: Option<String>,
}

impl Ending {
    /// How many bytes of the handler's it carries.
    #[must_use]
    pub fn bytes(&self) -> usize {
        [&self.result, &self.error].into_iter().flatten().map(String::len).sum()
    }

    /// Done, with the handler's data.
    #[must_use]
    pub fn complete(lease: Lease, data: Value) -> Self {
        let data = if data.is_null() { json!({ "success": true }) } else { data };
        Self { result: Some(storable_json(data)), ..Self::of(lease, Verb::Complete) }
    }

    /// Failed; another attempt after `delay`, a year at the most, which spends a retry.
    #[must_use]
    pub fn retry(lease: Lease, error: &str, delay: Duration) -> Self {
        Self {
            error: Some(storable_text(error)),
            delay: Some(delay.min(LONGEST)),
            ..Self::of(lease, Verb::Retry)
        }
    }

    /// Failed for good.
    #[must_use]
    pub fn fail(lease: Lease, error: &str) -> Self {
        Self { error: Some(storable_text(error)), ..Self::of(lease, Verb::Fail) }
    }

    /// Another attempt after `delay`, a year at the most, which spends nothing.
    #[must_use]
    pub fn snooze(lease: Lease, delay: Duration, reason: &str) -> Self {
        let delay = delay.min(LONGEST);
        let note = json!({ "reason": storable_text(reason), "delaySeconds": delay.as_secs_f64() });
        Self { delay: Some(delay), result: Some(note.to_string()), ..Self::of(lease, Verb::Snooze) }
    }

    /// Given back unfinished; anybody may claim it at once.
    #[must_use]
    pub fn release(lease: Lease) -> Self {
        Self::of(lease, Verb::Release)
    }

    /// No longer wanted.
    #[must_use]
    pub fn cancel(lease: Lease, reason: &str) -> Self {
        let note = json!({ "reason": storable_text(reason) });
        Self { result: Some(note.to_string()), ..Self::of(lease, Verb::Cancel) }
    }

    /// With the handler's run time, for the log.
    #[must_use]
    pub fn after(mut self, latency: Duration) -> Self {
        self.latency = Some(latency);
        self
    }

    /// With the size of an input too large to be copied into the log.
    #[must_use]
    pub fn with_oversize(mut self, oversize: Option<i64>) -> Self {
        self.oversize = oversize;
        self
    }

    /// With what the attempt cost.
    #[must_use]
    pub fn with_usage(mut self, usage: Option<&Usage>) -> Self {
        self.usage = usage.and_then(|usage| serde_json::to_string(usage).ok());
        self
    }

    /// The attempt it ends.
    #[must_use]
    pub fn lease(&self) -> Lease {
        self.lease
    }

    /// Which of the six it is.
    #[must_use]
    pub fn verb(&self) -> Verb {
        self.verb
    }

    /// The same ending without what the attempt cost.
    pub(super) fn costless(&self) -> Self {
        Self { usage: None, ..self.clone() }
    }

    /// The same ending without anything Postgres could refuse, and with the reason why.
    pub(super) fn bare(&self, reason: &str) -> Self {
        let note = json!({ "note": format!("the result could not be stored: {reason}") });
        Self {
            result: self.result.is_some().then(|| note.to_string()),
            error: self.error.is_some().then(|| format!("the error could not be stored: {reason}")),
            oversize: Some(self.oversize.unwrap_or(0)),
            usage: None,
            ..self.clone()
        }
    }

    fn of(lease: Lease, verb: Verb) -> Self {
        Self {
            lease,
            verb,
            delay: None,
            result: None,
            error: None,
            latency: None,
            oversize: None,
            usage: None,
        }
    }
}
