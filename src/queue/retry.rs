//! What a failure costs: another attempt after 1, 2, 4 … minutes, or the end.

use std::time::Duration;

/// The longest wait: doubling a minute for thirty retries would end after the next ice age.
pub(super) const LONGEST: Duration = Duration::from_hours(24 * 365);

/// How often a task is retried, and how soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RetryRule {
    /// Retries, not attempts: 3 means at most four attempts, 0 means one.
    pub max_retries: u32,
    /// The wait before the first retry; it doubles with each.
    pub base: Duration,
}

/// What becomes of a task whose attempt failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Another attempt, after this wait.
    After(Duration),
    /// No retry is left.
    Never,
}

/// Decides what a failure costs a task that has failed `retry_count` times before.
#[must_use]
pub fn retry_or_fail(rule: RetryRule, retry_count: u32) -> Retry {
    if retry_count >= rule.max_retries {
        return Retry::Never;
    }
    let factor = 2_u32.checked_pow(retry_count).unwrap_or(u32::MAX);
    Retry::After(rule.base.checked_mul(factor).unwrap_or(LONGEST).min(LONGEST))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failing_task_is_retried_after_one_two_and_four_minutes_and_then_given_up() {
        let rule = RetryRule { max_retries: 3, base: Duration::from_mins(1) };
        let decisions: Vec<Retry> = (0..5).map(|failures| retry_or_fail(rule, failures)).collect();
        let minutes = |minutes| Retry::After(Duration::from_mins(minutes));
        assert_eq!(decisions, [minutes(1), minutes(2), minutes(4), Retry::Never, Retry::Never]);
    }

    #[test]
    fn no_retries_means_one_attempt() {
        let rule = RetryRule { max_retries: 0, base: Duration::from_mins(1) };
        assert_eq!(retry_or_fail(rule, 0), Retry::Never);
    }

    #[test]
    fn a_wait_is_never_longer_than_a_year() {
        let rule = RetryRule { max_retries: u32::MAX, base: Duration::from_hours(24) };
        assert_eq!(retry_or_fail(rule, 4_000), Retry::After(LONGEST));
    }
}
