//! What callers of `/process-task` send: a task's id, or Supabase's Database Webhook envelope.

use serde_json::Value;
use uuid::Uuid;

/// A body of `/process-task`, understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Request {
    /// `{"task_id": …}`: this task, now, due or not.
    Now(Option<Uuid>),
    /// A webhook about a new task: this task, if it is due.
    Inserted(Option<Uuid>),
    /// A webhook about something else, and what.
    Ignored(String),
    /// No task is named.
    Missing,
}

impl Request {
    /// A malformed id is an id that nothing has: `None`.
    pub(super) fn parse(body: &Value) -> Self {
        if let Some(id) = body.get("task_id") {
            return match id {
                Value::Null => Self::Missing,
                id => Self::Now(uuid(id)),
            };
        }
        let (Some(kind), Some(table)) = (text(body, "type"), text(body, "table")) else {
            return Self::Missing;
        };
        if table != "agent_tasks" {
            return Self::Ignored(format!("{kind} on {table}"));
        }
        match (kind, body.get("record").and_then(|record| record.get("id"))) {
            ("INSERT", Some(id)) => Self::Inserted(uuid(id)),
            ("INSERT", None) => Self::Missing,
            _ => Self::Ignored(format!("{kind} on agent_tasks")),
        }
    }
}

fn text<'a>(body: &'a Value, field: &str) -> Option<&'a str> {
    body.get(field)?.as_str()
}

fn uuid(value: &Value) -> Option<Uuid> {
    Uuid::parse_str(value.as_str()?).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    const ID: &str = "0192f3a0-1111-7222-8333-444455556666";

    #[test]
    fn an_id_and_an_insert_name_a_task_and_everything_else_does_not() {
        let id = Uuid::parse_str(ID).ok();
        let webhook =
            |kind: &str, table: &str| json!({ "type": kind, "table": table, "record": { "id": ID } });
        assert_eq!(Request::parse(&json!({ "task_id": ID })), Request::Now(id));
        assert_eq!(Request::parse(&json!({ "task_id": "no-uuid" })), Request::Now(None));
        assert_eq!(Request::parse(&json!({ "task_id": 7 })), Request::Now(None));
        assert_eq!(Request::parse(&webhook("INSERT", "agent_tasks")), Request::Inserted(id));
        for (kind, table) in [("UPDATE", "agent_tasks"), ("DELETE", "agent_tasks"), ("INSERT", "users")] {
            assert!(matches!(Request::parse(&webhook(kind, table)), Request::Ignored(_)));
        }
        for body in [json!(null), json!({}), json!([]), json!({ "task_id": null }), json!("x")] {
            assert_eq!(Request::parse(&body), Request::Missing, "{body}");
        }
    }

    proptest! {
        #[test]
        fn no_body_makes_it_panic(body in ".*", key in "task_id|type|table|record|id") {
            let _ = Request::parse(&json!({ key: body.clone(), "type": body, "table": "agent_tasks" }));
        }
    }
}
