//! The demo: a handful of tasks that show what the queue does, and a check that each ended as announced.

use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::{Uuid, uuid};

use crate::commands::output::say;
use crate::db::Lane;
use crate::queue::{NewTask, Queue};

const ADA: Uuid = uuid!("00000000-0000-4000-8000-000000000001");
const BEN: Uuid = uuid!("00000000-0000-4000-8000-000000000002");

/// A task, what it shows, and the status in which it should end.
struct Demo {
    shows: &'static str,
    ends: &'static str,
    task: NewTask,
}

/// Adds the tasks and waits for their ends.
pub(super) async fn run(queue: &Queue) -> anyhow::Result<()> {
    let mut session = queue.database().session(Lane::Shared, Duration::from_secs(10)).await?;
    session.batch(include_str!("demo.sql")).await?;
    drop(session);
    let demos = demos();
    for Demo { shows, ends, task } in &demos {
        say(format!("  demo       {:<20} {shows}: ends {ends}", task.task_type));
    }
    say("");
    let tasks: Vec<NewTask> = demos.iter().map(|demo| demo.task.clone()).collect();
    let added = queue.enqueue(&tasks).await?;
    let mut surprises = 0;
    for (demo, added) in demos.iter().zip(added) {
        let status = end_of(queue, added.id).await?;
        if status != demo.ends {
            surprises += 1;
            say(format!(
                "  demo       {} ended {status}, not {}: {}",
                demo.task.task_type, demo.ends, added.id
            ));
        }
    }
    if surprises == 0 {
        say(format!("\n  demo       all {} tasks ended as announced\n", demos.len()));
    }
    Ok(())
}

async fn end_of(queue: &Queue, id: Uuid) -> anyhow::Result<String> {
    loop {
        let task = queue.get(id).await?.unwrap_or(Value::Null);
        match task["status"].as_str() {
            Some("pending" | "processing") => sleep(Duration::from_millis(500)).await,
            status => return Ok(status.unwrap_or("deleted").to_owned()),
        }
    }
}

fn demos() -> Vec<Demo> {
    let demo = |shows, ends, task| Demo { shows, ends, task };
    let echo =
        |context: Value| NewTask { created_by: Some("demo".to_owned()), ..NewTask::new("echo", context) };
    let of = |user, agent: &str, kind: &str, context| NewTask {
        user_id: Some(user),
        agent_type: agent.to_owned(),
        created_by: Some("demo".to_owned()),
        ..NewTask::new(kind, context)
    };
    let priority =
        |priority: &str| NewTask { priority: priority.to_owned(), ..echo(json!({ "priority": priority })) };
    vec![
        demo("the last of four", "completed", priority("low")),
        demo("the third of four", "completed", priority("medium")),
        demo("the second of four", "completed", priority("high")),
        demo("the first of four", "completed", priority("urgent")),
        demo("takes two seconds", "completed", echo(json!({ "sleep_ms": 2000 }))),
        demo(
            "due in five seconds",
            "completed",
            NewTask { delay: Duration::from_secs(5), ..echo(json!({ "scheduled": true })) },
        ),
        demo("fails twice, then succeeds", "completed", echo(json!({ "fail_times": 2 }))),
        demo("fails for good", "failed", echo(json!({ "fail_permanently": "no use in trying again" }))),
        demo(
            "publishes an event",
            "completed",
            of(
                ADA,
                "concierge",
                "research_solution",
                json!({ "description": "a caterer for forty", "urgency": "low" }),
            ),
        ),
        demo(
            "writes a message",
            "completed",
            of(ADA, "concierge", "schedule_followup", json!({ "reason": "the caterer" })),
        ),
        demo(
            "changes a user",
            "completed",
            of(
                BEN,
                "bouncer",
                "update_user_profile",
                json!({ "field": "company", "value": "Analytical Engines" }),
            ),
        ),
        demo(
            "nudges a new user",
            "completed",
            of(
                BEN,
                "bouncer",
                "re_engagement_check",
                json!({ "attemptCount": 1, "missing_fields": ["email"] }),
            ),
        ),
    ]
}
