//! Tasks on their way into the table: as columns, and what the database made of them.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use tokio_postgres::Row;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::QueueError;
use super::enqueue::{Enqueued, Invalid, NewTask};
use crate::db::{DbError, Param};

/// Tasks that one call may add.
pub const MAX_BATCH: usize = 1_000;

/// A task that was found fit, and its input as JSON text.
#[derive(Clone, Copy)]
pub(super) struct Fit<'a> {
    pub(super) task: &'a NewTask,
    pub(super) context: &'a str,
}

/// The parameters of `enqueue.sql`, one element a task.
pub(super) struct Columns<'a> {
    ids: Vec<Uuid>,
    task_types: Vec<&'a str>,
    agent_types: Vec<&'a str>,
    user_ids: Vec<Option<Uuid>>,
    context_ids: Vec<Option<Uuid>>,
    context_types: Vec<Option<&'a str>>,
    times: Vec<Option<DateTime<Utc>>>,
    priorities: Vec<&'a str>,
    max_retries: Vec<Option<i32>>,
    contexts: Vec<&'a str>,
    creators: Vec<Option<&'a str>>,
    keys: Vec<Option<&'a str>>,
    timeouts: Vec<Option<i32>>,
    delays: Vec<f64>,
}

impl<'a> Columns<'a> {
    pub(super) fn of(fit: &[Fit<'a>]) -> Self {
        fn column<'a, T>(fit: &[Fit<'a>], value: impl Fn(&'a NewTask) -> T) -> Vec<T> {
            fit.iter().map(|fit| value(fit.task)).collect()
        }
        Self {
            ids: column(fit, |_| Uuid::now_v7()),
            task_types: column(fit, |task| task.task_type.as_str()),
            agent_types: column(fit, |task| task.agent_type.as_str()),
            user_ids: column(fit, |task| task.user_id),
            context_ids: column(fit, |task| task.context_id),
            context_types: column(fit, |task| task.context_type.as_deref()),
            times: column(fit, |task| task.scheduled_for),
            priorities: column(fit, |task| task.priority.as_str()),
            max_retries: column(fit, |task| task.max_retries),
            contexts: fit.iter().map(|fit| fit.context).collect(),
            creators: column(fit, |task| task.created_by.as_deref()),
            keys: column(fit, |task| task.unique_key.as_deref()),
            timeouts: column(fit, |task| task.timeout_seconds),
            delays: column(fit, |task| task.delay.as_secs_f64()),
        }
    }

    pub(super) fn params(&self) -> [Param<'_>; 14] {
        [
            (&self.ids, Type::UUID_ARRAY),
            (&self.task_types, Type::TEXT_ARRAY),
            (&self.agent_types, Type::TEXT_ARRAY),
            (&self.user_ids, Type::UUID_ARRAY),
            (&self.context_ids, Type::UUID_ARRAY),
            (&self.context_types, Type::TEXT_ARRAY),
            (&self.times, Type::TIMESTAMPTZ_ARRAY),
            (&self.priorities, Type::TEXT_ARRAY),
            (&self.max_retries, Type::INT4_ARRAY),
            (&self.contexts, Type::TEXT_ARRAY),
            (&self.creators, Type::TEXT_ARRAY),
            (&self.keys, Type::TEXT_ARRAY),
            (&self.timeouts, Type::INT4_ARRAY),
            (&self.delays, Type::FLOAT8_ARRAY),
        ]
    }
}

/// A row that was inserted and is not there.
pub(super) fn untaken() -> Invalid {
    Invalid { field: "task", reason: "was not taken: a trigger of the database leaves it out".into() }
}

/// What became of each task, in the order given. One is missing where somebody else has just added the same key, or
/// where a trigger has left it out.
pub(super) fn answers(rows: &[Row]) -> Result<Vec<Option<Enqueued>>, DbError> {
    rows.iter()
        .map(|row| {
            let (id, existed): (Option<Uuid>, bool) = (row.try_get(0)?, row.try_get(1)?);
            Ok(id.map(|id| Enqueued { id, existed }))
        })
        .collect()
}

/// The tasks of one call, until the fate of each is known.
pub(super) struct Batch<'a> {
    tasks: &'a [NewTask],
    contexts: Vec<String>,
    enqueued: Vec<Option<Enqueued>>,
    missing: Vec<usize>,
}

impl<'a> Batch<'a> {
    pub(super) fn new(tasks: &'a [NewTask]) -> Result<Self, Invalid> {
        if tasks.is_empty() || tasks.len() > MAX_BATCH {
            return Err(Invalid {
                field: "tasks",
                reason: format!("must be 1 to {MAX_BATCH}, not {}", tasks.len()),
            });
        }
        let mut keys = HashSet::new();
        if tasks.iter().filter_map(|task| task.unique_key.as_ref()).any(|key| !keys.insert(key)) {
            return Err(Invalid { field: "unique_key", reason: "appears twice in one call".into() });
        }
        let contexts = tasks.iter().map(NewTask::check).collect::<Result<_, _>>()?;
        Ok(Self { tasks, contexts, enqueued: vec![None; tasks.len()], missing: (0..tasks.len()).collect() })
    }

    /// Those whose fate is not known.
    pub(super) fn columns(&self) -> Columns<'_> {
        let fit = |index: &usize| Fit { task: &self.tasks[*index], context: &self.contexts[*index] };
        Columns::of(&self.missing.iter().map(fit).collect::<Vec<_>>())
    }

    /// Takes the database's answer to [`Batch::columns`]: whether all is known now.
    pub(super) fn learn(&mut self, rows: &[Row]) -> Result<bool, QueueError> {
        for (index, answer) in self.missing.iter().zip(answers(rows)?) {
            self.enqueued[*index] = answer;
        }
        self.missing.retain(|index| self.enqueued[*index].is_none());
        // Another try may find a key, and nothing else.
        if self.missing.iter().any(|index| self.tasks[*index].unique_key.is_none()) {
            return Err(untaken().into());
        }
        Ok(self.missing.is_empty())
    }

    pub(super) fn answers(self) -> Vec<Enqueued> {
        self.enqueued.into_iter().flatten().collect()
    }
}
