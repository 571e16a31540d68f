//! `notify_user_of_priorities`: the user's agent is told what is worth the user's attention; the user is not.

use serde_json::{Value, json};
use task_processor::Task;
use uuid::Uuid;

use super::customer::{Shape, in_both_shapes};
use super::{CONVERSATION, Scene, USER, completed, failure, retryable};

async fn task(scene: &Scene, context: &Value) -> Task {
    scene.task("notify_user_of_priorities", "concierge", context).await
}

/// Four active priorities, the second best first, and three that are none any more.
fn priorities() -> String {
    format!(
        "insert into user_priorities
            (id, user_id, priority_rank, item_type, item_id, value_score, status, expires_at)
        select ('00000000-0000-4000-8000-00000000e00' || rank)::uuid, '{USER}', rank, 'community_request', ('00000000-0000-4000-8000-00000000d00' || rank)::uuid, score,
            status, now() + expires
        from (values
            (2, 80.5, 'active', null), (1, 95, 'active', interval '1 day'), (3, 80, 'active', null),
            (4, null, 'active', null), (5, 99, 'actioned', null), (6, 99, 'active', interval '-1 second'),
            (7, 99, 'presented', null)
        ) as p (rank, score, status, expires);"
    )
}

/// What the agent was told, in the only message there is.
async fn told(scene: &Scene) -> Value {
    let messages = scene
        .json("select role, direction, status, conversation_id, user_id, content::jsonb from messages")
        .await;
    assert_eq!(messages.as_array().map(Vec::len), Some(1));
    assert_eq!(messages[0]["role"], "system");
    assert_eq!(messages[0]["direction"], "inbound");
    assert_eq!(messages[0]["status"], "pending", "nobody sends it to the user");
    assert_eq!(messages[0]["conversation_id"], CONVERSATION);
    messages[0]["content"].clone()
}

#[tokio::test]
async fn the_agent_is_told_the_active_priorities_best_first_and_they_count_as_presented() {
    in_both_shapes(async |scene, shape| {
        scene.db.execute(&priorities()).await;
        let context = json!({ "priorities": [], "itemCount": 4, "maxScore": 95, "createdBy": "account_manager" });
        let task = task(&scene, &context).await;
        let expected = json!({ "handedTo": "conversation", "priorityCount": 4, "urgentCount": 2 });
        assert_eq!(completed(scene.run(&task).await), expected);
        let told = told(&scene).await;
        let ranks: Vec<&Value> =
            told["priorities"].as_array().expect("a list").iter().map(|item| &item["rank"]).collect();
        assert_eq!(ranks, [1, 2, 3, 4]);
        assert_eq!(told["priorities"][0]["itemId"], "00000000-0000-4000-8000-00000000d001");
        assert_eq!(told["priorities"][0]["valueScore"], 95.0);
        assert_eq!(told["type"], "notify_user_of_priorities");
        assert_eq!(told["context"], context, "what the agent said itself is passed on");

        let sql = "select string_agg(priority_rank || ' ' || status, ', ' order by priority_rank) from user_priorities";
        let statuses: String = scene.db.value(sql).await;
        assert_eq!(
            statuses,
            "1 presented, 2 presented, 3 presented, 4 presented, 5 actioned, 6 active, 7 presented"
        );
        assert_eq!(scene.count("user_priorities where presented_at is not null").await, 4);
        if shape == Shape::Notify {
            assert_eq!(scene.count("user_priorities where presentation_count = 1").await, 4);
        }
    })
    .await;
}

#[tokio::test]
async fn what_was_shown_twice_without_an_answer_goes_to_sleep() {
    in_both_shapes(async |scene, shape| {
        if shape == Shape::Webhook {
            return; // This one does not count.
        }
        scene.db.execute(&priorities()).await;
        scene.db.execute("update user_priorities set presentation_count = priority_rank").await;
        let task = task(&scene, &json!({})).await;
        assert_eq!(completed(scene.run(&task).await)["priorityCount"], 1);
        assert_eq!(scene.count("user_priorities where status = 'dormant'").await, 4);
        assert_eq!(told(&scene).await["priorities"][0]["rank"], 1);
    })
    .await;
}

#[tokio::test]
async fn more_than_ten_are_no_priorities() {
    in_both_shapes(async |scene, _| {
        let sql = format!(
            "insert into user_priorities (user_id, priority_rank, item_type, item_id)
            select '{USER}', rank, 'x', gen_random_uuid() from generate_series(1, 12) as rank"
        );
        scene.db.execute(&sql).await;
        let task = task(&scene, &json!({})).await;
        assert_eq!(completed(scene.run(&task).await)["priorityCount"], 10);
        assert_eq!(scene.count("user_priorities where status = 'active'").await, 2);
    })
    .await;
}

#[tokio::test]
async fn without_priorities_only_a_reason_that_is_news_is_passed_on() {
    in_both_shapes(async |scene, _| {
        for context in [json!({}), json!({ "reason": "urgent_priorities_detected", "urgentCount": 2 })] {
            let task = task(&scene, &context).await;
            let skipped = json!({ "skipped": true, "reason": "No active priorities" });
            assert_eq!(completed(scene.run(&task).await), skipped);
            assert_eq!(scene.count("messages").await, 0);
        }
        let context = json!({ "reason": "intro_completed", "creditsAwarded": 50, "introId": Uuid::new_v4() });
        let task = task(&scene, &context).await;
        assert_eq!(completed(scene.run(&task).await)["priorityCount"], 0);
        let told = told(&scene).await;
        assert_eq!(told["reason"], "intro_completed");
        assert_eq!(told["context"]["creditsAwarded"], 50);
    })
    .await;
}

#[tokio::test]
async fn without_a_conversation_the_finding_waits_in_the_message_queue() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&priorities()).await;
        scene.db.execute("update conversations set status = 'paused'").await;
        scene.db.execute("update users set poc_agent_type = 'innovator'").await;
        let task = task(&scene, &json!({})).await;
        assert_eq!(completed(scene.run(&task).await)["handedTo"], "message_queue");
        let queue = "select user_id, agent_id, message_data ->> 'type' as type, priority, status,
                requires_fresh_context, conversation_context_id, final_message, scheduled_for <= now() as due
            from message_queue";
        assert_eq!(
            scene.json(queue).await,
            json!([{
                "user_id": USER, "agent_id": "innovator", "type": "notify_user_of_priorities",
                "priority": "high", "status": "queued", "requires_fresh_context": true,
                "conversation_context_id": null, "final_message": null, "due": true,
            }])
        );
        assert_eq!(scene.count("messages").await, 0);
        // The conversation may go on before another attempt is made: it is told nothing twice.
        scene.db.execute("update conversations set status = 'active'").await;
        assert_eq!(completed(scene.run(&task).await)["handedTo"], "message_queue");
        assert_eq!(scene.count("messages").await, 0);
    })
    .await;
}

#[tokio::test]
async fn of_two_active_conversations_the_one_named_is_told() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&priorities()).await;
        let second = format!("insert into conversations (user_id, phone_number) values ('{USER}', '+1555')");
        scene.db.execute(&second).await;
        let context = json!({ "reason": "x", "conversationId": CONVERSATION });
        let task = task(&scene, &context).await;
        assert_eq!(completed(scene.run(&task).await)["handedTo"], "conversation");
        told(&scene).await;
    })
    .await;
}

#[tokio::test]
async fn a_repeated_attempt_tells_nothing_more_and_answers_the_same() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&priorities()).await;
        scene.count_inserts_into("messages").await;
        let task = task(&scene, &json!({})).await;
        let first = scene.run(&task).await;
        assert_eq!(scene.run(&task).await, first);
        assert_eq!(scene.count("announced").await, 1, "triggers ran once");
        scene.is_cut_off_anywhere(&task, &priorities()).await;
    })
    .await;
}

#[tokio::test]
async fn a_task_about_nobody_or_a_stranger_and_wrong_input() {
    in_both_shapes(async |scene, _| {
        let mut task = task(&scene, &json!({})).await;
        let stranger = Uuid::new_v4();
        task.user_id = Some(stranger);
        assert_eq!(retryable(scene.run(&task).await), format!("User {stranger} not found"));
        task.context = json!({ "conversationId": "x" });
        let message = failure(scene.run(&task).await);
        assert!(message.starts_with("context_json: conversationId:"), "{message}");
        (task.context, task.user_id) = (json!({}), None);
        assert!(failure(scene.run(&task).await).starts_with("user_id is missing"));
    })
    .await;
}
