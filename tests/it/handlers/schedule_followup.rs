//! `schedule_followup`: one message to the user, if there is a conversation to send it in.

use serde_json::{Value, json};
use task_processor::{Outcome, Task};
use uuid::Uuid;

use super::customer::{Shape, in_both_shapes};
use super::{CONVERSATION, Scene, USER, failure, retryable};

async fn task(scene: &Scene, context: Value) -> Task {
    scene.task("schedule_followup", "concierge", &context).await
}

fn skipped() -> Outcome {
    Outcome::complete(json!({ "skipped": true, "reason": "No active conversation" }))
}

#[tokio::test]
async fn the_user_is_sent_a_message_in_the_active_conversation() {
    in_both_shapes(async |scene, shape| {
        scene.db.execute("update users set poc_agent_type = 'innovator'").await;
        let task = task(&scene, json!({ "reason": "the demo", "originalMessageId": "m-1" })).await;
        assert_eq!(
            scene.run(&task).await,
            Outcome::complete(json!({ "conversationId": CONVERSATION, "reason": "the demo" }))
        );
        let messages = "select conversation_id, user_id, role, content, direction, status from messages";
        assert_eq!(
            scene.json(messages).await,
            json!([{
                "conversation_id": CONVERSATION,
                "user_id": USER,
                "role": "innovator",
                "content": "Hey Ada, following up on: the demo",
                "direction": "outbound",
                "status": if shape == Shape::Notify { "queued_for_send" } else { "pending" },
            }])
        );
        if shape == Shape::Webhook {
            let calls = scene.json("select body -> 'record' ->> 'content' as text from net.calls").await;
            assert_eq!(calls, json!([{ "text": "Hey Ada, following up on: the demo" }]));
        }
    })
    .await;
}

#[tokio::test]
async fn a_user_without_name_and_agent_hears_from_the_concierge() {
    in_both_shapes(async |scene, _| {
        scene.db.execute("update users set first_name = ''").await;
        let task = task(&scene, json!({ "reason": "the demo" })).await;
        scene.run(&task).await;
        assert_eq!(
            scene.json("select role, content from messages").await,
            json!([{ "role": "concierge", "content": "Hey there, following up on: the demo" }])
        );
    })
    .await;
}

#[tokio::test]
async fn a_repeated_attempt_sends_nothing_more_and_answers_the_same() {
    in_both_shapes(async |scene, _| {
        scene.count_inserts_into("messages").await;
        let task = task(&scene, json!({ "reason": "the demo" })).await;
        let first = scene.run(&task).await;
        assert_eq!(scene.run(&task).await, first);
        assert_eq!(scene.count("messages").await, 1);
        assert_eq!(scene.count("announced").await, 1, "the text was handed to the sender once");
    })
    .await;
}

#[tokio::test]
async fn a_repeated_attempt_says_what_was_sent_whatever_has_become_of_the_conversation() {
    in_both_shapes(async |scene, _| {
        let task = task(&scene, json!({ "reason": "the demo" })).await;
        let first = scene.run(&task).await;
        scene.db.execute("update conversations set status = 'paused'").await;
        assert_eq!(scene.run(&task).await, first);
        assert_eq!(scene.count("messages").await, 1);
    })
    .await;
}

#[tokio::test]
async fn without_an_active_conversation_it_is_skipped() {
    in_both_shapes(async |scene, _| {
        scene.db.execute("update conversations set status = 'paused'").await;
        let task = task(&scene, json!({ "reason": "the demo" })).await;
        assert_eq!(scene.run(&task).await, skipped());
        assert_eq!(scene.count("messages").await, 0);
    })
    .await;
}

#[tokio::test]
async fn two_active_conversations_are_as_good_as_none() {
    in_both_shapes(async |scene, _| {
        scene
            .db
            .execute(&format!("insert into conversations (user_id, phone_number) values ('{USER}', '+1555')"))
            .await;
        let task = task(&scene, json!({ "reason": "the demo" })).await;
        assert_eq!(scene.run(&task).await, skipped());
    })
    .await;
}

#[tokio::test]
async fn a_task_without_a_reason_fails_for_good() {
    in_both_shapes(async |scene, _| {
        for context in [json!({}), json!({ "reason": "" })] {
            let task = task(&scene, context).await;
            assert_eq!(failure(scene.run(&task).await), "Missing followup reason in context");
        }
        let task = task(&scene, json!({ "reason": ["x"] })).await;
        let message = failure(scene.run(&task).await);
        assert!(message.starts_with("context_json: reason:"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_user_who_is_not_there_may_be_there_later_but_nobody_never_is() {
    in_both_shapes(async |scene, _| {
        let mut task = task(&scene, json!({ "reason": "the demo" })).await;
        let stranger = Uuid::new_v4();
        task.user_id = Some(stranger);
        assert_eq!(retryable(scene.run(&task).await), format!("User {stranger} not found"));
        task.user_id = None;
        let message = failure(scene.run(&task).await);
        assert!(message.contains("user_id"), "{message}");
    })
    .await;
}
