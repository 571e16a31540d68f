//! `notify_expert_of_impact`: the expert gets a priority, and the answer's loop is closed.

use serde_json::json;
use task_processor::Task;
use uuid::Uuid;

use super::customer::in_both_shapes;
use super::{Scene, USER, completed, failure, retryable};

const RESPONSE: &str = "00000000-0000-4000-8000-0000000000e1";

fn response() -> String {
    let request = Uuid::from_u128(0xd1);
    format!(
        "insert into community_requests (id, requesting_agent_type, question) values ('{request}', 'concierge', 'q');
        insert into community_responses (id, request_id, user_id, response_text, verbatim_answer, status)
        values ('{RESPONSE}', '{request}', '{USER}', 'a', 'a', 'rewarded');"
    )
}

async fn task(scene: &Scene) -> Task {
    let context = json!({
        "responseId": RESPONSE, "requestId": Uuid::from_u128(0xd1), "impactDescription": "It named a vendor",
        "creditsAwarded": 25, "usefulnessScore": 8,
    });
    scene.task("notify_expert_of_impact", "account_manager", &context).await
}

#[tokio::test]
async fn the_expert_gets_a_priority_and_the_loop_is_closed() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&response()).await;
        let task = task(&scene).await;
        let expected = json!({ "responseId": RESPONSE, "priorityRank": 3, "valueScore": 70.0 });
        assert_eq!(completed(scene.run(&task).await), expected);
        assert_eq!(
            scene.priorities().await,
            json!([{
                "user_id": USER, "priority_rank": 3, "item_type": "expert_impact_notification",
                "item_id": RESPONSE, "value_score": 70.0, "status": "active",
            }])
        );
        let loops = "select status, closed_loop_message, closed_loop_at is not null as dated from community_responses";
        assert_eq!(
            scene.json(loops).await,
            json!([{ "status": "closed_loop", "closed_loop_message": "It named a vendor", "dated": true }])
        );
    })
    .await;
}

#[tokio::test]
async fn an_expert_who_is_being_told_already_is_skipped() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&response()).await;
        let (first, second) = (task(&scene).await, task(&scene).await);
        scene.run(&first).await;
        let skipped = json!({ "skipped": true, "reason": "Notification already exists" });
        assert_eq!(completed(scene.run(&second).await), skipped);
        assert_eq!(scene.count("user_priorities").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_attempt_answers_the_same_and_closes_the_loop_once() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&response()).await;
        let task = task(&scene).await;
        let first = scene.run(&task).await;
        let closed = "select closed_loop_at::text from community_responses";
        let when: String = scene.db.value(closed).await;
        assert_eq!(scene.run(&task).await, first);
        assert_eq!(scene.db.value::<String>(closed).await, when);
        scene.is_cut_off_anywhere(&task, &response()).await;
    })
    .await;
}

#[tokio::test]
async fn an_answer_or_a_user_who_is_not_there_may_be_there_later() {
    in_both_shapes(async |scene, _| {
        let mut task = task(&scene).await;
        assert_eq!(retryable(scene.run(&task).await), format!("Community response {RESPONSE} not found"));
        let stranger = Uuid::new_v4();
        task.user_id = Some(stranger);
        assert_eq!(retryable(scene.run(&task).await), format!("User {stranger} not found"));
    })
    .await;
}

#[tokio::test]
async fn wrong_input_fails_for_good_and_names_the_field() {
    in_both_shapes(async |scene, _| {
        for (context, field) in [
            (json!({}), "responseId is missing"),
            (json!({ "responseId": RESPONSE, "impactDescription": 5 }), "context_json: impactDescription:"),
        ] {
            let task = scene.task("notify_expert_of_impact", "account_manager", &context).await;
            let message = failure(scene.run(&task).await);
            assert!(message.starts_with(field), "{message}");
        }
        let mut task = task(&scene).await;
        task.user_id = None;
        assert!(failure(scene.run(&task).await).starts_with("user_id is missing"));
    })
    .await;
}
