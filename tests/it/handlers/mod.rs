//! The built-in handlers, each run by itself on a task that was really claimed.

mod community_request_available;
mod community_response_available;
mod create_conversation_summary;
mod customer;
mod every_handler;
mod intro_followup_check;
mod notify_expert_of_impact;
mod notify_user_of_priorities;
mod process_community_request;
mod process_community_response;
mod producers;
mod re_engagement_agents;
mod re_engagement_bouncer;
mod research_solution;
mod schedule_followup;
mod send_introduction;
mod solution_workflow_timeout;
mod update_user_profile;
mod verify_user;

use std::sync::Arc;

use serde_json::Value;
use task_processor::db::Database;
use task_processor::handler::Answer;
use task_processor::queue::Queue;
use task_processor::telemetry::metrics::Metrics;
use task_processor::{Outcome, Services, Task, handlers};

use crate::support::TestDb;

const USER: &str = "00000000-0000-4000-8000-0000000000a1";
const CONVERSATION: &str = "00000000-0000-4000-8000-0000000000c1";

/// A customer's database with one user, and what a handler gets to see of it.
struct Scene {
    db: TestDb,
    services: Services,
}

impl Scene {
    /// Nobody yet.
    async fn empty() -> Self {
        let db = TestDb::new().await;
        let config = db.config(&[]);
        let database = Database::new(&config.database).expect("a usable URL");
        let queue = Queue::new(database, "test", &config.worker, Arc::new(Metrics::new()));
        Self { db, services: Services::new(queue) }
    }

    /// Counts inserts before they happen, in `announced`: so does the customer's trigger that hands texts to the sender.
    async fn count_inserts_into(&self, table: &str) {
        self.db
            .execute(&format!(
                "create table announced (id uuid);
                create function announce() returns trigger language plpgsql as $$
                begin insert into announced values (new.id); return new; end $$;
                create trigger announce before insert on {table} for each row execute function announce()"
            ))
            .await;
    }

    /// A task about the user, claimed.
    async fn task(&self, task_type: &str, agent_type: &str, context: &Value) -> Task {
        let context = context.to_string().replace('\'', "''");
        self.db
            .execute(&format!(
                "insert into agent_tasks (task_type, agent_type, user_id, context_json, priority)
                values ('{task_type}', '{agent_type}', '{USER}', '{context}', 'high')"
            ))
            .await;
        let claimed = self.services.queue().claim(&[task_type.to_owned()], 10).await;
        let [claimed] = claimed.expect("a claim").try_into().expect("one due task");
        claimed.task.expect("a readable row")
    }

    /// One attempt at the task.
    async fn run(&self, task: &Task) -> Outcome {
        let outcome = handlers::all().run(task.clone(), self.services.clone()).await;
        outcome.expect("a handler for the type")
    }

    /// The rows of a query, as JSON.
    async fn json(&self, sql: &str) -> Value {
        self.db.value(&format!("select coalesce(jsonb_agg(to_jsonb(r)), '[]') from ({sql}) as r")).await
    }

    /// The priorities of all users, as far as a handler decides on them.
    async fn priorities(&self) -> Value {
        self.json(
            "select user_id, priority_rank, item_type, item_id, value_score, status from user_priorities",
        )
        .await
    }

    async fn count(&self, table: &str) -> i64 {
        self.db.value(&format!("select count(*) from {table}")).await
    }
}

/// The result of a success.
fn completed(outcome: Outcome) -> Value {
    match outcome.verdict {
        Answer::Complete(data) => data,
        other => panic!("not a success: {other:?}"),
    }
}

/// The message of a permanent failure.
fn failure(outcome: Outcome) -> String {
    match outcome.verdict {
        Answer::Fail(message) => message,
        other => panic!("not a permanent failure: {other:?}"),
    }
}

/// The message of a failure that is worth another attempt.
fn retryable(outcome: Outcome) -> String {
    match outcome.verdict {
        Answer::Retry(message) => message,
        other => panic!("not a retryable failure: {other:?}"),
    }
}
