//! `enqueue`: add a task.

use anyhow::Context;
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;

use super::output::Output;
use crate::queue::{NewTask, Queue};

/// Options of `enqueue`.
#[derive(clap::Args)]
pub(super) struct Args {
    /// The task's type.
    task_type: String,
    /// Its input, a JSON value.
    #[arg(default_value = "{}")]
    context: String,
    /// urgent, high, medium or low.
    #[arg(long, default_value = "medium")]
    priority: String,
    /// Due this many seconds from now.
    #[arg(long, conflicts_with = "at")]
    delay: Option<u64>,
    /// Due at this time, RFC 3339.
    #[arg(long)]
    at: Option<DateTime<Utc>>,
    /// The user it is about.
    #[arg(long)]
    user: Option<Uuid>,
    /// The agent that asks for it.
    #[arg(long, default_value = "system")]
    agent: String,
    /// At most one task ever has this key.
    #[arg(long)]
    unique_key: Option<String>,
    /// Retries; absent, the type's or the process's default.
    #[arg(long)]
    max_retries: Option<i32>,
    /// Run time of an attempt, in seconds.
    #[arg(long)]
    timeout: Option<i32>,
}

pub(super) async fn run(args: Args, queue: &Queue, output: &Output) -> anyhow::Result<i32> {
    let context: Value = serde_json::from_str(&args.context).context("the input is not valid JSON")?;
    let task = NewTask {
        priority: args.priority,
        scheduled_for: args.at,
        delay: Duration::from_secs(args.delay.unwrap_or(0)),
        user_id: args.user,
        agent_type: args.agent,
        unique_key: args.unique_key,
        max_retries: args.max_retries,
        timeout_seconds: args.timeout,
        created_by: Some("cli".to_owned()),
        ..NewTask::new(args.task_type, context)
    };
    let enqueued = queue.enqueue_one(task).await?;
    output.answer(&json!({ "id": enqueued.id, "existed": enqueued.existed }), enqueued.id);
    Ok(0)
}
