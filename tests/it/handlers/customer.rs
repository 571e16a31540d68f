//! The customer's database in both of its shapes, and attempts that are cut off anywhere in it.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use serde_json::Value;
use task_processor::clients::Clients;
use task_processor::{Outcome, Task};

use super::{CONVERSATION, Scene, USER};
use crate::support::TestDb;

/// What the customer's trigger does with a message to a user.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Shape {
    /// It notifies the sender and marks the message as `queued_for_send`.
    Notify,
    /// It calls the sender by `net.http_post`, and the message stays pending.
    Webhook,
}

/// What tasks leave their marks in, those that refer to others first.
const TABLES: [&str; 11] = [
    "message_queue",
    "messages",
    "conversations",
    "events",
    "user_priorities",
    "intro_opportunities",
    "solution_workflows",
    "community_responses",
    "community_requests",
    "credit_events",
    "users",
];

/// Makes the customer's database of a migrated one.
pub(crate) async fn adopt(db: &TestDb, shape: Shape) {
    db.execute(include_str!("customer.sql")).await;
    db.execute(match shape {
        Shape::Notify => include_str!("customer_notify.sql"),
        Shape::Webhook => include_str!("customer_webhook.sql"),
    })
    .await;
}

/// Runs a test on both shapes.
pub(super) async fn in_both_shapes(test: impl AsyncFn(Scene, Shape)) {
    for shape in [Shape::Notify, Shape::Webhook] {
        eprintln!("in the shape {shape:?}");
        test(Scene::at_the_customers(shape).await, shape).await;
    }
}

/// The same, for a user who has none.
pub(super) async fn in_both_shapes_without_conversation(test: impl AsyncFn(Scene, Shape)) {
    in_both_shapes(async |scene, shape| {
        scene.db.execute("delete from conversations").await;
        test(scene, shape).await;
    })
    .await;
}

/// One user with one active conversation.
fn people() -> String {
    format!(
        "insert into users (id, phone_number, first_name) values ('{USER}', '+1555', 'Ada');
        insert into conversations (id, user_id, phone_number) values ('{CONVERSATION}', '{USER}', '+1555');"
    )
}

impl Scene {
    /// The customer's database, with one user who has one active conversation.
    pub(super) async fn at_the_customers(shape: Shape) -> Self {
        let scene = Self::empty().await;
        adopt(&scene.db, shape).await;
        scene.db.execute(&people()).await;
        scene
    }

    /// With a language model, a mail server, or whatever else the variables name.
    pub(super) fn with_clients(self, vars: &[(&str, &str)]) -> Self {
        let clients = Clients::new(&self.db.config(vars)).expect("usable clients");
        Self { services: self.services.with_clients(clients), ..self }
    }

    /// An introduction that the user is to make, whatever the shape calls the columns.
    pub(super) async fn add_intro(&self, shape: Shape, id: &str, status: &str) {
        let (columns, names) = match shape {
            Shape::Notify => ("first_name, last_name", "'Tony', 'Katz'"),
            Shape::Webhook => ("prospect_name", "'Tony Katz'"),
        };
        self.db
            .execute(&format!(
                "insert into intro_opportunities (id, connector_user_id, innovator_name, status, {columns})
                values ('{id}', '{USER}', 'Rob', '{status}', {names})"
            ))
            .await;
    }

    /// What the tables hold: times are told apart from nulls only.
    async fn world(&self) -> Value {
        let mut parts: Vec<String> = TABLES
            .iter()
            .map(|table| format!("select '{table}' as name, to_jsonb(t) as fields from {table} t"))
            .collect();
        parts.push(
            "select 'agent_tasks', jsonb_build_object('type', task_type, 'agent', agent_type, 'user', user_id,
                'context', context_json, 'about', context_id, 'priority', priority, 'key', unique_key)
            from agent_tasks"
                .to_owned(),
        );
        if self.db.value("select to_regclass('net.calls') is not null").await {
            parts.push("select 'net.calls', body from net.calls".to_owned());
        }
        let time = r"\d{4}-\d\d-\d\dT[0-9:.]+(Z|\+00:00)";
        self.json(&format!(
            "select name, regexp_replace(fields::text, '{time}', 'T', 'g') as fields
            from ({}) as rows order by 1, 2",
            parts.join(" union all ")
        ))
        .await
    }

    async fn begin_anew(&self, setup: &str) {
        let calls: bool = self.db.value("select to_regclass('net.calls') is not null").await;
        let tables = ["agent_tasks"].into_iter().chain(TABLES).chain(calls.then_some("net.calls"));
        let emptied: Vec<String> = tables.map(|table| format!("delete from {table};")).collect();
        let emptied = emptied.concat();
        self.db.execute(&format!("{emptied}{}{setup}", people())).await;
    }

    /// Cuts an attempt off at each of its awaits in turn, lets another one run, and finds what a single one leaves.
    pub(super) async fn is_cut_off_anywhere(&self, task: &Task, setup: &str) {
        self.begin_anew(setup).await;
        let before = self.world().await;
        let outcome = self.run(task).await;
        let after = self.world().await;
        assert_ne!(before, after, "the task has an effect: {outcome:?}");
        self.run(task).await;
        assert_eq!(self.world().await, after, "after a second attempt");
        for polls in 1.. {
            self.begin_anew(setup).await;
            let done = cut_after(polls, self.run(task)).await;
            self.run(task).await;
            assert_eq!(self.world().await, after, "cut off at await {polls}, and run again");
            if done.is_some() {
                assert!(polls > 3, "nothing was cut off");
                return;
            }
        }
    }
}

/// Lets a future come so far and drops it, as a timeout or the death of the process would.
async fn cut_after(polls: usize, attempt: impl Future<Output = Outcome>) -> Option<Outcome> {
    let mut attempt = pin!(attempt);
    let mut left = polls;
    poll_fn(move |context| {
        if left == 0 {
            return Poll::Ready(None);
        }
        left -= 1;
        attempt.as_mut().poll(context).map(Some)
    })
    .await
}
