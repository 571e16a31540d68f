//! Asks the language model, and turns what can go wrong into what is to become of the task.

#![expect(clippy::result_large_err, reason = "an outcome is the error here, and made once an attempt")]

use std::time::Duration;

use crate::clients::{Model, ModelError, Question, Reply};
use crate::handler::Outcome;
use crate::queue::{Task, Usage};
use crate::services::Services;

/// The first wait for a busy model that does not say how long; it doubles with each attempt.
const FIRST_WAIT: Duration = Duration::from_secs(30);
/// However long a busy model asks to be left alone, and however often it did.
const LONGEST_WAIT: Duration = Duration::from_mins(15);

/// The model, or the failure of a task that cannot be done without one.
pub(super) fn model(services: &Services) -> Result<&Model, Outcome> {
    services.model().ok_or_else(|| Outcome::fail("LLM_PROVIDER is not set: this task needs a language model"))
}

pub(super) async fn ask(model: &Model, task: &Task, question: Question<'_>) -> Result<Reply, Outcome> {
    model.ask(question).await.map_err(|error| match error {
        ModelError::Busy { retry_after, .. } => Outcome::snooze(wait(retry_after, task.attempt), error),
        ModelError::Refused(_) => Outcome::fail(error),
        ModelError::Denied(_) | ModelError::Failed(_) => Outcome::retry(error),
    })
}

/// What an answer cost, on top of what was spent before.
pub(super) fn spend(before: Option<Usage>, reply: &Reply) -> Usage {
    let before = before.unwrap_or_default();
    let sum = |before: Option<i32>, now: i32| Some(before.unwrap_or(0).saturating_add(now));
    Usage {
        model: Some(reply.model.clone()),
        input_tokens: sum(before.input_tokens, reply.input_tokens),
        output_tokens: sum(before.output_tokens, reply.output_tokens),
        cost_usd: reply.cost_usd.map(|cost| before.cost_usd.unwrap_or(0.0) + cost),
        quality_score: None,
    }
}

fn wait(asked: Option<Duration>, attempt: i32) -> Duration {
    let doublings = u32::try_from(attempt.saturating_sub(1)).unwrap_or(0).min(10);
    asked.unwrap_or(FIRST_WAIT * 2_u32.pow(doublings)).clamp(Duration::from_secs(1), LONGEST_WAIT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_model_is_left_alone_for_as_long_as_it_asks_within_reason() {
        let asked = |seconds| wait(Some(Duration::from_secs(seconds)), 1).as_secs();
        assert_eq!((asked(0), asked(7), asked(86_400)), (1, 7, 900));
    }

    #[test]
    fn a_busy_model_that_does_not_say_how_long_is_asked_ever_more_rarely() {
        let waits: Vec<u64> = (1..=7).map(|attempt| wait(None, attempt).as_secs()).collect();
        assert_eq!(waits, [30, 60, 120, 240, 480, 900, 900]);
        assert_eq!(wait(None, i32::MAX), LONGEST_WAIT);
        assert_eq!(wait(None, i32::MIN), FIRST_WAIT);
    }
}
