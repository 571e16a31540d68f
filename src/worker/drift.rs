//! Notices that the process is not given the CPU: Cloud Run takes it away between requests unless it is told not to.

use std::time::Duration;

/// A wait that takes so much longer than planned was no matter of a busy machine.
const TOLERANCE: Duration = Duration::from_secs(5);

/// What the loop knows of its own lateness.
#[derive(Default)]
pub(super) struct Drift {
    told: bool,
}

impl Drift {
    /// The loop was to wait for `planned` and came back after `took`. Says so, once, if that is far too late.
    pub(super) fn waited(&mut self, planned: Duration, took: Duration) {
        if !self.is_news(planned, took) {
            return;
        }
        tracing::warn!(
            planned_s = planned.as_secs(),
            took_s = took.as_secs(),
            "the polling loop was held up: is the CPU throttled? On Cloud Run deploy with --no-cpu-throttling"
        );
    }

    fn is_news(&mut self, planned: Duration, took: Duration) -> bool {
        let late = took > planned.saturating_add(TOLERANCE.max(planned / 2));
        let news = late && !self.told;
        self.told |= late;
        news
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wait_of_half_as_long_again_is_told_once_and_a_little_lateness_never() {
        let seconds = Duration::from_secs;
        let mut drift = Drift::default();
        for (planned, took) in [(30, 30), (30, 45), (0, 5), (1, 6), (600, 900)] {
            assert!(!drift.is_news(seconds(planned), seconds(took)), "{planned} s took {took} s");
        }
        assert!(drift.is_news(seconds(30), seconds(46)));
        assert!(!drift.is_news(seconds(30), seconds(460)), "once is enough");
        assert!(Drift::default().is_news(seconds(1), seconds(7)));
        assert!(!Drift::default().is_news(Duration::MAX, seconds(7)));
    }
}
