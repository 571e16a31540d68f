//! What a handler is: a type that does one `task_type`.

mod context;

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::db::DbError;
use crate::queue::{QueueError, Task, Usage};
use crate::services::Services;
use context::Context;

/// Does the tasks of one type. The future may be dropped at any await: on a timeout, a cancellation or a shutdown.
///
/// ```
/// use serde_json::json;
/// use task_processor::{Handler, Outcome, Services, Task};
///
/// /// Greets somebody.
/// struct Greet;
///
/// #[derive(serde::Deserialize)]
/// struct Input {
///     name: String,
/// }
///
/// impl Handler for Greet {
///     const TASK_TYPE: &'static str = "greet";
///     type Input = Input;
///
///     async fn run(&self, input: Input, _task: Task, _services: Services) -> Outcome {
///         Outcome::complete(json!({ "greeting": format!("Hello, {}!", input.name) }))
///     }
/// }
/// ```
pub trait Handler: Send + Sync + 'static {
    /// The `task_type` it does.
    const TASK_TYPE: &'static str;
    /// What `context_json` must hold. A task that holds something else fails for good, naming the field. Its
    /// own fields are read from an object only, not from an array.
    type Input: DeserializeOwned + Send;

    /// Makes one attempt.
    fn run(&self, input: Self::Input, task: Task, services: Services)
    -> impl Future<Output = Outcome> + Send;
}

/// A handler's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcome {
    /// What is to become of the task.
    pub verdict: Answer,
    /// What the attempt cost.
    pub usage: Option<Usage>,
}

/// What is to become of the task.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Done, with this result.
    Complete(Value),
    /// Failed; try again while the budget lasts.
    Retry(String),
    /// Failed; no attempt would do better.
    Fail(String),
    /// Not now: again after this time, at no cost.
    Snooze(Duration, String),
    /// No longer wanted.
    Cancel(String),
}

#[expect(clippy::needless_pass_by_value, reason = "an error is handed in, not lent: `Outcome::retry(error)`")]
impl Outcome {
    /// Done, with a result.
    #[must_use]
    pub fn complete(data: Value) -> Self {
        Answer::Complete(data).into()
    }

    /// Failed; another attempt may do better.
    #[must_use]
    pub fn retry(error: impl ToString) -> Self {
        Answer::Retry(error.to_string()).into()
    }

    /// Failed; no attempt would do better.
    #[must_use]
    pub fn fail(error: impl ToString) -> Self {
        Answer::Fail(error.to_string()).into()
    }

    /// Not now: again after `delay`, at no cost.
    #[must_use]
    pub fn snooze(delay: Duration, reason: impl ToString) -> Self {
        Answer::Snooze(delay, reason.to_string()).into()
    }

    /// No longer wanted.
    #[must_use]
    pub fn cancel(reason: impl ToString) -> Self {
        Answer::Cancel(reason.to_string()).into()
    }

    /// With what the attempt cost, if it did.
    #[must_use]
    pub fn with_usage(mut self, usage: impl Into<Option<Usage>>) -> Self {
        self.usage = usage.into();
        self
    }
}

impl From<Answer> for Outcome {
    fn from(verdict: Answer) -> Self {
        Self { verdict, usage: None }
    }
}

/// Lets handlers write `?` in a helper that answers `Result<Outcome, Outcome>`. An error of the database is retryable,
/// unless it refused the values: no attempt would do better with the same ones.
impl From<DbError> for Outcome {
    fn from(error: DbError) -> Self {
        if error.is_content() { Self::fail(error) } else { Self::retry(error) }
    }
}

/// The same for further tasks that a handler adds.
impl From<QueueError> for Outcome {
    fn from(error: QueueError) -> Self {
        match error {
            QueueError::Invalid(invalid) => Self::fail(invalid),
            QueueError::Database(error) => error.into(),
        }
    }
}

/// The answer of such a helper, whichever way it ended.
impl From<Result<Outcome, Outcome>> for Outcome {
    fn from(result: Result<Outcome, Outcome>) -> Self {
        result.unwrap_or_else(|outcome| outcome)
    }
}

type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// A handler whose input type is no longer known.
pub(crate) trait AnyHandler: Send + Sync {
    fn run(self: Arc<Self>, task: Task, services: Services) -> BoxFuture<Outcome>;
}

impl<H: Handler> AnyHandler for H {
    fn run(self: Arc<Self>, task: Task, services: Services) -> BoxFuture<Outcome> {
        Box::pin(async move {
            match serde_path_to_error::deserialize(Context(&task.context)) {
                Ok(input) => Handler::run(&*self, input, task, services).await,
                Err(error) => Outcome::fail(format!("context_json: {error}")),
            }
        })
    }
}

/// All handlers of a process, by `task_type`.
#[derive(Clone, Default)]
pub struct Registry {
    handlers: BTreeMap<&'static str, Arc<dyn AnyHandler>>,
}

impl Registry {
    /// Without handlers.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// With one more. A second handler for a type replaces the first: an embedding program may override a built-in.
    #[must_use]
    pub fn with<H: Handler>(mut self, handler: H) -> Self {
        self.handlers.insert(H::TASK_TYPE, Arc::new(handler));
        self
    }

    /// The task types that can be done, sorted.
    #[must_use]
    pub fn task_types(&self) -> Vec<String> {
        self.handlers.keys().map(|name| (*name).to_owned()).collect()
    }

    /// Makes one attempt at a task, outside any worker: without timeout, and without ending the task. `None`: no handler
    /// knows its type.
    pub async fn run(&self, task: Task, services: Services) -> Option<Outcome> {
        let handler = self.get(&task.task_type)?;
        Some(handler.run(task, services).await)
    }

    pub(crate) fn get(&self, task_type: &str) -> Option<Arc<dyn AnyHandler>> {
        self.handlers.get(task_type).cloned()
    }
}
