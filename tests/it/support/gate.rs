//! A handler that comes to its end when the test says so, not after a time.

use std::sync::Arc;

use serde_json::{Value, json};
use task_processor::handler::Registry;
use task_processor::queue::NewTask;
use task_processor::{Handler, Outcome, Services, Task, handlers};
use tokio::sync::Semaphore;

/// Tasks of its type wait here until they are let through.
#[derive(Clone)]
pub(crate) struct Gate(Arc<Semaphore>);

impl Gate {
    pub(crate) fn closed() -> Self {
        Self(Arc::new(Semaphore::new(0)))
    }

    /// Lets so many through, those that come later as well.
    pub(crate) fn open(&self, tasks: usize) {
        self.0.add_permits(tasks);
    }

    /// The built-in handlers, and this.
    pub(crate) fn among_all(&self) -> Registry {
        handlers::all().with(self.clone())
    }

    /// A task that waits here.
    pub(crate) fn task() -> NewTask {
        NewTask::new(Self::TASK_TYPE, json!({}))
    }
}

impl Handler for Gate {
    const TASK_TYPE: &'static str = "gate";
    type Input = Value;

    async fn run(&self, _input: Value, _task: Task, _services: Services) -> Outcome {
        self.0.acquire().await.expect("never closed").forget();
        Outcome::complete(json!({}))
    }
}
