//! Deletes what ended long ago, only where an operator asked for it.
//!
//! No index knows what is old: every task would pay for it, and most of all those of people who delete nothing. A table is
//! swept instead, a strip of pages at a time, so that a step costs the same however many rows are young, and wherever
//! the old ones lie.

use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::stubborn::is_for_the_rows;
use super::{Queue, deadline};
use crate::db::{DbError, Lane, Param};

/// What is looked at in one step: 4 MB.
const STRIP: i64 = 512;
/// What is deleted in one step: small enough to hold no lock for long.
const BATCH: i64 = 1_000;
/// Where more pages are passed over, the table as a whole is in trouble, or locked: the next round may find it mended.
const MOST_PASSED_OVER: u64 = 1_000;
/// A step that took no longer would not have taken too long for twice as much.
const QUICK: Duration = Duration::from_secs(1);

/// Rows that can be deleted once they are old.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Prunable {
    /// Tasks that have ended; pending and running ones never.
    Tasks,
    /// This processor's rows of `agent_actions_log`.
    LogRows,
}

impl Prunable {
    fn table(self) -> &'static str {
        match self {
            Self::Tasks => "agent_tasks",
            Self::LogRows => "agent_actions_log",
        }
    }

    fn sql(self) -> String {
        let (old, lock) = match self {
            Self::Tasks => {
                ("status in ('completed', 'failed', 'cancelled') and completed_at", "for update skip locked")
            }
            // Nobody changes these.
            Self::LogRows => ("agent_type = 'task_processor' and created_at", ""),
        };
        include_str!("prune.sql").replace("TABLE", self.table()).replace("OLD", old).replace("LOCK", lock)
    }
}

/// A round through a table. It begins anywhere, so that processes that live for a short time come everywhere, too.
#[derive(Debug)]
pub struct Sweep {
    what: Prunable,
    age: Duration,
    /// Of the table, in pages; what is added meanwhile is young.
    pages: i64,
    next: i64,
    to_go: i64,
    batch: i64,
    /// Pages with rows that cannot be deleted.
    passed_over: u64,
}

/// What one step did.
struct Step {
    /// No other process is at it.
    ours: bool,
    rows: i64,
    last_page: Option<i64>,
}

impl Queue {
    /// Begins a round through what is older than `age`.
    pub async fn sweep(&self, what: Prunable, age: Duration) -> Result<Sweep, DbError> {
        let sql = "select pg_relation_size($1::text::regclass) / current_setting('block_size')::int8";
        let table = what.table();
        let answer = self.db.query(Lane::Shared, deadline::PRUNE, sql, &[(&table, Type::TEXT)]).await?;
        let pages: i64 = answer[0].try_get(0)?;
        let anywhere = i64::from(Uuid::new_v4().as_fields().0) % pages.max(1);
        Ok(Sweep { what, age, pages, next: anywhere, to_go: pages, batch: BATCH, passed_over: 0 })
    }

    /// Deletes a small batch: how many rows. A page with rows that cannot be deleted is passed over.
    pub async fn prune(&self, sweep: &mut Sweep) -> Result<i64, DbError> {
        let began = Instant::now();
        match self.prune_strip(sweep).await {
            Ok(step) => {
                sweep.swept(&step);
                if began.elapsed() < QUICK {
                    sweep.batch = (sweep.batch * 2).min(BATCH);
                }
                Ok(step.rows)
            }
            Err(error) if is_for_the_rows(&error) || error.is_too_slow() => {
                sweep.refused(&error);
                Ok(0)
            }
            Err(error) => Err(error),
        }
    }

    async fn prune_strip(&self, sweep: &Sweep) -> Result<Step, DbError> {
        let seconds = sweep.age.as_secs_f64();
        let (from, before) = (format!("({},0)", sweep.next), format!("({},0)", sweep.strip_end()));
        let params: [Param<'_>; 4] = [
            (&seconds, Type::FLOAT8),
            (&from, Type::TEXT),
            (&before, Type::TEXT),
            (&sweep.batch, Type::INT8),
        ];
        let answer = self.db.query(Lane::Shared, deadline::PRUNE, &sweep.what.sql(), &params).await?;
        let row = &answer[0];
        Ok(Step { ours: row.try_get(0)?, rows: row.try_get(1)?, last_page: row.try_get(2)? })
    }
}

impl Sweep {
    /// There is nothing left to do, or another process does it.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.to_go <= 0
    }

    /// As much smaller as the batch: what is refused by itself is then on the page that is passed over.
    fn strip_end(&self) -> i64 {
        let strip = (STRIP * self.batch / BATCH).max(1);
        (self.next + strip.min(self.to_go)).min(self.pages)
    }

    fn go_on_at(&mut self, page: i64) {
        self.to_go -= page - self.next;
        self.next = if page < self.pages { page } else { 0 };
    }

    fn swept(&mut self, step: &Step) {
        match step.last_page {
            _ if !step.ours => self.to_go = 0,
            // There may be more behind it.
            Some(page) if step.rows == self.batch => self.go_on_at(page),
            _ => self.go_on_at(self.strip_end()),
        }
    }

    /// The next step is for half as much: rows with large values take long to delete, and one that another table refers to
    /// must keep no others but those behind it on its page.
    fn refused(&mut self, error: &DbError) {
        if self.batch > 1 {
            self.batch /= 2;
            return;
        }
        if self.passed_over == 0 {
            tracing::warn!(table = self.what.table(), page = self.next, %error, "some old rows cannot be deleted");
        }
        self.passed_over += 1;
        self.go_on_at(self.next + 1);
        if self.passed_over == MOST_PASSED_OVER {
            self.to_go = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sweep(pages: i64, next: i64) -> Sweep {
        let (what, age) = (Prunable::Tasks, Duration::ZERO);
        Sweep { what, age, pages, next, to_go: pages, batch: BATCH, passed_over: 0 }
    }

    fn step(rows: i64, last_page: i64) -> Step {
        Step { ours: true, rows, last_page: (rows > 0).then_some(last_page) }
    }

    #[test]
    fn a_round_comes_to_every_page_once_wherever_it_begins() {
        for (pages, next) in [(1, 0), (STRIP, 7), (3 * STRIP + 5, STRIP + 1), (3 * STRIP, 3 * STRIP - 1)] {
            let mut sweep = sweep(pages, next);
            let mut seen = vec![0; usize::try_from(pages).expect("few")];
            while !sweep.is_over() {
                for page in sweep.next..sweep.strip_end() {
                    seen[usize::try_from(page).expect("few")] += 1;
                }
                sweep.swept(&step(0, 0));
            }
            assert!(seen.iter().all(|times| *times == 1), "{pages} from {next}: {seen:?}");
        }
        assert!(sweep(0, 0).is_over(), "an empty table");
    }

    #[test]
    fn a_full_batch_goes_on_where_it_ended_and_another_process_is_left_to_it() {
        let mut sweep = sweep(10 * STRIP, 0);
        sweep.swept(&step(BATCH, 30));
        assert_eq!((sweep.next, sweep.to_go), (30, 10 * STRIP - 30));
        sweep.swept(&step(BATCH - 1, 40));
        assert_eq!(sweep.next, 30 + STRIP);
        sweep.swept(&Step { ours: false, rows: 0, last_page: None });
        assert!(sweep.is_over());
    }

    #[test]
    fn what_cannot_be_deleted_costs_its_page_and_no_other() {
        let mut sweep = sweep(10 * STRIP, 5);
        let refusal = DbError::Timeout(Duration::ZERO);
        let tries = (1..).take_while(|_| {
            sweep.refused(&refusal);
            sweep.next == 5
        });
        assert_eq!((tries.count(), sweep.next, sweep.passed_over), (9, 6, 1));
        for _ in 1..MOST_PASSED_OVER {
            assert_eq!(sweep.strip_end() - sweep.next, 1, "what is refused is on this page");
            sweep.refused(&refusal);
        }
        assert!(sweep.is_over(), "the table is in trouble");
    }
}
