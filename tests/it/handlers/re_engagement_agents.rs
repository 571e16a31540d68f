//! `re_engagement_check` for the concierge and the innovator agent: they are told how things stand.

use serde_json::{Value, json};
use task_processor::{Outcome, Task};
use uuid::Uuid;

use super::customer::{Shape, in_both_shapes, in_both_shapes_without_conversation};
use super::{CONVERSATION, Scene, USER, failure};

async fn task(scene: &Scene, agent_type: &str) -> Task {
    scene.task("re_engagement_check", agent_type, &json!({ "reason": "quiet" })).await
}

/// What the agent was told, in the only message of its kind.
async fn told(scene: &Scene) -> Value {
    let sql = "select user_id, direction, status, content::jsonb from messages where role = 'system'";
    let messages = scene.json(sql).await;
    assert_eq!(messages.as_array().map(Vec::len), Some(1));
    assert_eq!(messages[0]["user_id"], USER);
    assert_eq!(messages[0]["direction"], "inbound");
    assert_eq!(messages[0]["status"], "pending");
    messages[0]["content"].clone()
}

/// A last message eight and a half days ago, four priorities of which three are active, and a goal.
async fn add_history(scene: &Scene) {
    scene
        .db
        .execute(&format!(
            "insert into messages (conversation_id, user_id, role, content, direction, created_at)
            select '{CONVERSATION}', '{USER}', 'user', 'hi', 'inbound', now() - days * interval '1 day'
            from unnest(array[8.5, 20]) as days;
            insert into user_priorities (user_id, priority_rank, item_type, item_id, status)
            select '{USER}', rank, 'x', gen_random_uuid(), case rank when 1 then 'dismissed' else 'active' end
            from generate_series(1, 4) as rank;
            update users set credit_balance = 40, response_pattern = '{{\"user_goal\": {{\"text\": \"fly\"}}}}'"
        ))
        .await;
}

async fn add_intros(scene: &Scene, shape: Shape) {
    for (number, status) in ["pending", "accepted", "open", "completed"].iter().enumerate() {
        scene.add_intro(shape, &Uuid::from_u128(number as u128).to_string(), status).await;
    }
    scene.db.execute(&format!("update intro_opportunities set innovator_id = '{USER}'")).await;
}

#[tokio::test]
async fn the_concierge_is_told_of_silence_priorities_and_goals() {
    in_both_shapes(async |scene, _| {
        add_history(&scene).await;
        let task = task(&scene, "concierge").await;
        assert_eq!(
            scene.run(&task).await,
            Outcome::complete(json!({ "systemMessageCreated": true, "daysSinceLastMessage": 8 }))
        );
        assert_eq!(
            told(&scene).await,
            json!({
                "type": "re_engagement_check",
                "daysSinceLastMessage": 8,
                "priorityCount": 3,
                "hasActiveGoals": true,
                "guidance": "Decide whether to reach out based on priorities, user goals, and conversation history. \
                    If messaging, be brief and value-focused.",
            })
        );
    })
    .await;
}

#[tokio::test]
async fn the_innovator_agent_is_told_of_introductions_and_credits_too() {
    in_both_shapes(async |scene, shape| {
        add_history(&scene).await;
        add_intros(&scene, shape).await;
        let task = task(&scene, "innovator").await;
        assert_eq!(
            scene.run(&task).await,
            Outcome::complete(json!({
                "systemMessageCreated": true, "daysSinceLastMessage": 8, "pendingIntroCount": 2,
            }))
        );
        assert_eq!(
            told(&scene).await,
            json!({
                "type": "re_engagement_check",
                "daysSinceLastMessage": 8,
                "priorityCount": 3,
                "hasActiveGoals": true,
                "pendingIntroCount": 2,
                "creditBalance": 40,
                "profileLastUpdated": null,
                "guidance": "Decide whether to reach out based on priorities, pending intros, profile updates needed, \
                    and conversation history. If messaging, be brief and ROI-focused.",
            })
        );
    })
    .await;
}

#[tokio::test]
async fn a_conversation_without_messages_has_been_silent_for_999_days() {
    in_both_shapes(async |scene, _| {
        let task = task(&scene, "concierge").await;
        scene.run(&task).await;
        let told = told(&scene).await;
        assert_eq!(told["daysSinceLastMessage"], 999);
        assert_eq!(told["priorityCount"], 0);
        assert_eq!(told["hasActiveGoals"], false);
    })
    .await;
}

#[tokio::test]
async fn more_than_five_priorities_count_as_five() {
    in_both_shapes(async |scene, _| {
        scene
            .db
            .execute(&format!(
                "insert into user_priorities (user_id, priority_rank, item_type, item_id)
            select '{USER}', rank, 'x', gen_random_uuid() from generate_series(1, 7) as rank"
            ))
            .await;
        let task = task(&scene, "concierge").await;
        scene.run(&task).await;
        assert_eq!(told(&scene).await["priorityCount"], 5);
    })
    .await;
}

#[tokio::test]
async fn a_customer_who_dates_the_profiles_of_innovators_has_the_date_told() {
    in_both_shapes(async |scene, _| {
        scene
            .db
            .execute(&format!(
                "create table innovators (user_id uuid, updated_at timestamptz);
            insert into innovators values ('{USER}', '2025-03-04T05:06:07Z')"
            ))
            .await;
        let task = task(&scene, "innovator").await;
        scene.run(&task).await;
        assert_eq!(told(&scene).await["profileLastUpdated"], "2025-03-04T05:06:07Z");
    })
    .await;
}

#[tokio::test]
async fn a_customer_whose_innovators_have_no_date_has_none_told() {
    in_both_shapes(async |scene, _| {
        scene.db.execute("create table innovators (user_id uuid, company_name text)").await;
        let task = task(&scene, "innovator").await;
        scene.run(&task).await;
        assert_eq!(told(&scene).await["profileLastUpdated"], Value::Null);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_attempt_tells_nothing_more_and_does_not_count_its_own_message() {
    in_both_shapes(async |scene, _| {
        scene.count_inserts_into("messages").await;
        for agent_type in ["concierge", "innovator"] {
            scene.db.execute("truncate messages, message_queue, announced").await;
            let task = task(&scene, agent_type).await;
            let first = scene.run(&task).await;
            assert_eq!(scene.run(&task).await, first, "{agent_type}");
            assert_eq!(scene.count("messages").await, 1, "{agent_type}");
            assert_eq!(scene.count("announced").await, 1, "{agent_type}: triggers ran once");
        }
    })
    .await;
}

#[tokio::test]
async fn neither_agent_is_sent_a_further_check() {
    in_both_shapes(async |scene, _| {
        for agent_type in ["concierge", "innovator"] {
            let task = task(&scene, agent_type).await;
            scene.run(&task).await;
        }
        assert_eq!(scene.count("agent_tasks").await, 2);
    })
    .await;
}

#[tokio::test]
async fn without_an_active_conversation_it_fails_for_good() {
    in_both_shapes_without_conversation(async |scene, _| {
        for agent_type in ["concierge", "innovator"] {
            let task = task(&scene, agent_type).await;
            assert_eq!(failure(scene.run(&task).await), "No active conversation found");
        }
    })
    .await;
}

#[tokio::test]
async fn a_task_about_nobody_fails_for_good_and_names_user_id() {
    in_both_shapes(async |scene, _| {
        let mut task = task(&scene, "concierge").await;
        task.user_id = None;
        let message = failure(scene.run(&task).await);
        assert!(message.contains("user_id"), "{message}");
    })
    .await;
}
