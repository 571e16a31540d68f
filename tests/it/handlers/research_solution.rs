//! `research_solution`: one event a task, and never an event about an event of its own.

use serde_json::{Value, json};
use task_processor::{Outcome, Task};
use uuid::Uuid;

use super::customer::in_both_shapes_without_conversation;
use super::{Scene, USER, failure, retryable};

async fn task(scene: &Scene, context: Value) -> Task {
    scene.task("research_solution", "concierge", &context).await
}

async fn events(scene: &Scene) -> Value {
    scene
        .json(
            "select id, event_type, aggregate_id, aggregate_type, payload, metadata, processed, version, created_by
            from events",
        )
        .await
}

#[tokio::test]
async fn the_event_carries_what_the_saga_needs() {
    in_both_shapes_without_conversation(async |scene, _| {
        let context = json!({
            "description": "find a CRM", "category": "sales", "urgency": "high", "conversationId": "c-7",
        });
        let task = task(&scene, context).await;
        let outcome = scene.run(&task).await;

        let events = events(&scene).await;
        let id = &events[0]["id"];
        assert_eq!(outcome, Outcome::complete(json!({ "eventId": id, "description": "find a CRM" })));
        assert_eq!(
            events,
            json!([{
                "id": id,
                "event_type": "user.inquiry.solution_needed",
                "aggregate_id": USER,
                "aggregate_type": "user",
                "payload": {
                    "userId": USER,
                    "conversationId": "c-7",
                    "requestDescription": "find a CRM",
                    "category": "sales",
                    "urgency": "high",
                    "taskId": task.id,
                },
                "metadata": { "source": "task_processor", "taskType": "research_solution" },
                "processed": false,
                "version": 1,
                "created_by": "task_processor",
            }])
        );
    })
    .await;
}

#[tokio::test]
async fn the_event_processors_name_for_the_description_is_understood_and_urgency_is_medium_by_default() {
    in_both_shapes_without_conversation(async |scene, _| {
        let task = task(&scene, json!({ "requestDescription": "find a CRM" })).await;
        scene.run(&task).await;
        let payload = &events(&scene).await[0]["payload"];
        assert_eq!(payload["requestDescription"], "find a CRM");
        assert_eq!(payload["urgency"], "medium");
    })
    .await;
}

#[tokio::test]
async fn a_repeated_attempt_publishes_nothing_more_and_answers_the_same() {
    in_both_shapes_without_conversation(async |scene, _| {
        scene.count_inserts_into("events").await;
        let task = task(&scene, json!({ "description": "find a CRM" })).await;
        let first = scene.run(&task).await;
        assert_eq!(scene.run(&task).await, first);
        assert_eq!(scene.count("events").await, 1);
        assert_eq!(scene.count("announced").await, 1, "triggers ran once");
    })
    .await;
}

#[tokio::test]
async fn a_task_made_of_our_own_event_publishes_no_second_one() {
    in_both_shapes_without_conversation(async |scene, _| {
        let first = task(&scene, json!({ "description": "find a CRM" })).await;
        scene.run(&first).await;
        let event_id = events(&scene).await[0]["id"].clone();
        let context = json!({ "requestDescription": "find a CRM", "eventId": event_id });
        let second = task(&scene, context).await;
        assert_eq!(
            scene.run(&second).await,
            Outcome::complete(json!({ "skipped": true, "reason": "already published" }))
        );
        assert_eq!(scene.count("events").await, 1);
    })
    .await;
}

#[tokio::test]
async fn an_event_with_a_task_id_is_taken_for_our_own_whoever_wrote_it() {
    in_both_shapes_without_conversation(async |scene, _| {
        let ours =
            insert_event(&scene, "user.inquiry.solution_needed", json!({ "taskId": Uuid::new_v4() })).await;
        let task = task(&scene, json!({ "description": "x", "eventId": ours })).await;
        assert_eq!(
            scene.run(&task).await,
            Outcome::complete(json!({ "skipped": true, "reason": "already published" }))
        );
    })
    .await;
}

#[tokio::test]
async fn a_task_made_of_somebody_elses_event_publishes_one() {
    in_both_shapes_without_conversation(async |scene, _| {
        let agents = insert_event(&scene, "user.inquiry.solution_needed", json!({})).await;
        let other = insert_event(&scene, "user.message.received", json!({ "taskId": Uuid::new_v4() })).await;
        for cause in [json!(agents), json!(other), json!(Uuid::new_v4()), json!("evt_17"), Value::Null] {
            let before = scene.count("events").await;
            let task = task(&scene, json!({ "description": "x", "eventId": cause })).await;
            scene.run(&task).await;
            assert_eq!(scene.count("events").await, before + 1, "eventId {cause}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_task_without_a_description_fails_for_good() {
    in_both_shapes_without_conversation(async |scene, _| {
        for context in [json!({}), json!({ "description": "" }), json!({ "description": null })] {
            let task = task(&scene, context).await;
            assert_eq!(failure(scene.run(&task).await), "Missing research description in context");
        }
        assert_eq!(scene.count("events").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_description_that_is_no_text_fails_for_good_and_is_named() {
    in_both_shapes_without_conversation(async |scene, _| {
        let task = task(&scene, json!({ "description": 5 })).await;
        let message = failure(scene.run(&task).await);
        assert!(message.starts_with("context_json: description:"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_task_about_nobody_fails_for_good_and_names_user_id() {
    in_both_shapes_without_conversation(async |scene, _| {
        let mut task = task(&scene, json!({ "description": "x" })).await;
        task.user_id = None;
        let message = failure(scene.run(&task).await);
        assert!(message.contains("user_id"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn an_event_too_large_for_the_customers_notification_fails_for_good() {
    in_both_shapes_without_conversation(async |scene, _| {
        scene
            .db
            .execute(
                "create function notify_agents() returns trigger language plpgsql as $$
                begin perform pg_notify('agent_events', new.payload::text); return new; end $$;
                create trigger notify_agents after insert on events for each row execute function notify_agents()",
            )
            .await;
        let task = task(&scene, json!({ "description": "x".repeat(8_000) })).await;
        let message = failure(scene.run(&task).await);
        assert!(message.contains("payload string too long"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_database_that_cannot_do_it_now_is_asked_again() {
    in_both_shapes_without_conversation(async |scene, _| {
        let task = task(&scene, json!({ "description": "x" })).await;
        scene.db.execute("drop table events").await;
        let message = retryable(scene.run(&task).await);
        assert!(message.contains("events"), "{message}");
    })
    .await;
}

async fn insert_event(scene: &Scene, event_type: &str, payload: Value) -> Uuid {
    scene
        .db
        .value(&format!(
            "insert into events (event_type, payload, created_by) values ('{event_type}', '{payload}', 'bouncer')
            returning id"
        ))
        .await
}
