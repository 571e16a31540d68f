//! `re_engagement_check` for the bouncer: two attempts a day apart, then the conversation is paused.

use serde_json::{Value, json};
use task_processor::{Outcome, Task};
use uuid::Uuid;

use super::customer::in_both_shapes;
use super::{CONVERSATION, Scene, USER, failure, retryable};

async fn task(scene: &Scene, context: Value) -> Task {
    scene.task("re_engagement_check", "bouncer", &context).await
}

async fn attempt(scene: &Scene, attempt_count: i64) -> Task {
    task(scene, json!({ "attemptCount": attempt_count })).await
}

fn skipped(reason: &str) -> Outcome {
    Outcome::complete(json!({ "skipped": true, "reason": reason }))
}

fn sent(attempt_count: i64) -> Outcome {
    Outcome::complete(json!({ "attemptCount": attempt_count, "messageSent": true }))
}

/// The checks that were added by a check.
async fn next_checks(scene: &Scene) -> Value {
    scene
        .json(
            "select agent_type, user_id, context_id, context_type, priority, status, context_json, unique_key, created_by,
                round(extract(epoch from scheduled_for - created_at) / 3600) as hours
            from agent_tasks where created_by = 'task_processor'",
        )
        .await
}

async fn insert_inbound(scene: &Scene, when: &str) {
    scene
        .db
        .execute(&format!(
            "insert into messages (conversation_id, user_id, role, content, direction, created_at)
            values ('{CONVERSATION}', '{USER}', 'user', 'hi', 'inbound', {when})"
        ))
        .await;
}

#[tokio::test]
async fn the_agent_is_told_by_an_inbound_system_message() {
    in_both_shapes(async |scene, _| {
        let context = json!({
            "current_step": "email",
            "missing_fields": ["email", "company"],
            "last_interaction_at": "2025-10-01T00:00:00Z",
        });
        let task = task(&scene, context).await;
        assert_eq!(scene.run(&task).await, sent(1));
        let messages = "select conversation_id, user_id, role, direction, status, content::jsonb from messages";
        assert_eq!(
            scene.json(messages).await,
            json!([{
                "conversation_id": CONVERSATION,
                "user_id": USER,
                "role": "system",
                "direction": "inbound",
                "status": "pending",
                "content": {
                    "type": "re_engagement_check",
                    "attemptCount": 1,
                    "lastInteractionAt": "2025-10-01T00:00:00Z",
                    "currentStep": "email",
                    "missingFields": ["email", "company"],
                    "guidance":
                        "Soft tone. Ask if they still want to proceed. Do not list all missing fields. Keep line moving.",
                },
            }])
        );
    })
    .await;
}

#[tokio::test]
async fn the_next_check_comes_a_day_later_with_the_same_context_and_a_higher_count() {
    in_both_shapes(async |scene, _| {
        let mut task = task(&scene, json!({ "current_step": "email", "extra": [1] })).await;
        task.context_id = Some(CONVERSATION.parse().unwrap());
        task.context_type = Some("conversation".to_owned());
        scene.run(&task).await;
        assert_eq!(
            next_checks(&scene).await,
            json!([{
                "agent_type": "bouncer",
                "user_id": USER,
                "context_id": CONVERSATION,
                "context_type": "conversation",
                "priority": "high",
                "status": "pending",
                "context_json": { "current_step": "email", "extra": [1], "attemptCount": 2 },
                "unique_key": format!("re_engagement_check:{}", task.id),
                "created_by": "task_processor",
                "hours": 24,
            }])
        );
    })
    .await;
}

#[tokio::test]
async fn a_silent_user_is_asked_twice_and_then_the_conversation_is_paused() {
    in_both_shapes(async |scene, _| {
        let mut task = attempt(&scene, 1).await;
        for expected in [sent(1), sent(2), Outcome::complete(json!({ "paused": true, "attemptCount": 3 }))] {
            assert_eq!(scene.run(&task).await, expected);
            if let Some(next) = the_day_after(&scene).await {
                task = next;
            }
        }
        assert_eq!(scene.count("messages").await, 2);
        assert_eq!(scene.count("agent_tasks").await, 3);
        assert_eq!(scene.json("select status from conversations").await, json!([{ "status": "paused" }]));
    })
    .await;
}

#[tokio::test]
async fn a_user_who_answers_the_first_message_is_not_asked_again() {
    in_both_shapes(async |scene, _| {
        let first = attempt(&scene, 1).await;
        scene.run(&first).await;
        insert_inbound(&scene, "now()").await;
        let second = the_day_after(&scene).await.expect("a second check");
        assert_eq!(scene.run(&second).await, skipped("User has responded"));
    })
    .await;
}

#[tokio::test]
async fn a_repeated_attempt_does_not_take_its_own_message_for_an_answer_and_does_all_once() {
    in_both_shapes(async |scene, _| {
        scene.count_inserts_into("messages").await;
        let task = attempt(&scene, 1).await;
        assert_eq!(scene.run(&task).await, sent(1));
        assert_eq!(scene.run(&task).await, sent(1));
        assert_eq!(scene.count("messages").await, 1);
        assert_eq!(scene.count("announced").await, 1, "triggers ran once");
        assert_eq!(scene.count("agent_tasks").await, 2);
    })
    .await;
}

#[tokio::test]
async fn an_attempt_cut_off_after_its_message_schedules_the_next_check_when_repeated() {
    in_both_shapes(async |scene, _| {
        let task = attempt(&scene, 1).await;
        scene.run(&task).await;
        scene.db.execute("delete from agent_tasks where unique_key is not null").await;
        assert_eq!(scene.run(&task).await, sent(1));
        assert_eq!(next_checks(&scene).await.as_array().map(Vec::len), Some(1));
        assert_eq!(scene.count("messages").await, 1);
    })
    .await;
}

#[tokio::test]
async fn an_attempt_cut_off_after_the_pause_still_answers_that_it_paused() {
    in_both_shapes(async |scene, _| {
        let task = attempt(&scene, 3).await;
        let paused = Outcome::complete(json!({ "paused": true, "attemptCount": 3 }));
        assert_eq!(scene.run(&task).await, paused);
        assert_eq!(scene.run(&task).await, paused);
        assert_eq!(scene.count("messages").await, 0);
        assert_eq!(scene.count("agent_tasks").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_verified_user_is_left_alone() {
    in_both_shapes(async |scene, _| {
        scene.db.execute("update users set verified = true").await;
        let task = attempt(&scene, 1).await;
        assert_eq!(scene.run(&task).await, skipped("User already verified"));
        assert_eq!(scene.count("messages").await, 0);
    })
    .await;
}

#[tokio::test]
async fn only_what_came_in_since_the_task_was_made_is_an_answer() {
    in_both_shapes(async |scene, _| {
        insert_inbound(&scene, "now() - interval '1 hour'").await;
        let first = attempt(&scene, 1).await;
        assert_eq!(scene.run(&first).await, sent(1));
        let second = attempt(&scene, 1).await;
        insert_inbound(&scene, "now()").await;
        assert_eq!(scene.run(&second).await, skipped("User has responded"));
    })
    .await;
}

#[tokio::test]
async fn without_an_active_conversation_it_is_tried_again() {
    in_both_shapes(async |scene, _| {
        scene.db.execute("update conversations set status = 'completed'").await;
        for attempt_count in [1, 3] {
            let task = attempt(&scene, attempt_count).await;
            assert_eq!(retryable(scene.run(&task).await), "No active conversation found");
        }
    })
    .await;
}

#[tokio::test]
async fn an_agent_without_a_check_of_its_own_gets_the_bouncers() {
    in_both_shapes(async |scene, _| {
        let context = json!({ "reason": "quarter", "trigger": "scheduled_review" });
        let task = scene.task("re_engagement_check", "account_manager", &context).await;
        assert_eq!(scene.run(&task).await, sent(1));
        assert_eq!(next_checks(&scene).await[0]["agent_type"], "account_manager");
    })
    .await;
}

#[tokio::test]
async fn a_count_below_one_counts_as_the_first_attempt() {
    in_both_shapes(async |scene, _| {
        let task = attempt(&scene, -5).await;
        assert_eq!(scene.run(&task).await, sent(1));
    })
    .await;
}

#[tokio::test]
async fn a_context_of_the_wrong_shape_fails_for_good_and_names_the_field() {
    in_both_shapes(async |scene, _| {
        for (field, value) in
            [("attemptCount", json!("two")), ("missing_fields", json!("email")), ("current_step", json!(1))]
        {
            let task = task(&scene, json!({ field: value })).await;
            let message = failure(scene.run(&task).await);
            assert!(message.starts_with(&format!("context_json: {field}:")), "{message}");
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_who_is_not_there_may_be_there_later_but_nobody_never_is() {
    in_both_shapes(async |scene, _| {
        let mut task = attempt(&scene, 1).await;
        let stranger = Uuid::new_v4();
        task.user_id = Some(stranger);
        assert_eq!(retryable(scene.run(&task).await), format!("User {stranger} not found"));
        task.user_id = None;
        let message = failure(scene.run(&task).await);
        assert!(message.contains("user_id"), "{message}");
    })
    .await;
}

/// Makes the next check due, and claims it.
async fn the_day_after(scene: &Scene) -> Option<Task> {
    scene.db.execute("update agent_tasks set scheduled_for = now() where status = 'pending'").await;
    let claimed = scene.services.queue().claim(&["re_engagement_check".to_owned()], 10).await;
    let claimed = claimed.expect("a claim").pop();
    claimed.map(|claimed| claimed.task.expect("a readable row"))
}
