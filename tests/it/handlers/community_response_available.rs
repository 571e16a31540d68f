//! `community_response_available`: an answer becomes the first of the asker's priorities.

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
        insert into community_responses (id, request_id, user_id, response_text, verbatim_answer)
        values ('{RESPONSE}', '{request}', '{USER}', 'a', 'a');"
    )
}

async fn task(scene: &Scene) -> Task {
    let context = json!({
        "responseId": RESPONSE, "requestId": Uuid::from_u128(0xd1), "expertUserId": USER,
        "responseSummary": "s", "eventId": Uuid::new_v4(),
    });
    scene.task("community_response_available", "account_manager", &context).await
}

#[tokio::test]
async fn an_answer_becomes_the_first_priority() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&response()).await;
        let task = task(&scene).await;
        let expected = json!({ "responseId": RESPONSE, "priorityRank": 1, "valueScore": 90.0 });
        assert_eq!(completed(scene.run(&task).await), expected);
        assert_eq!(
            scene.priorities().await,
            json!([{
                "user_id": USER, "priority_rank": 1, "item_type": "community_response", "item_id": RESPONSE,
                "value_score": 90.0, "status": "active",
            }])
        );
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_is_a_priority_already_is_skipped() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&response()).await;
        let (first, second) = (task(&scene).await, task(&scene).await);
        scene.run(&first).await;
        let skipped = json!({ "skipped": true, "reason": "Priority already exists" });
        assert_eq!(completed(scene.run(&second).await), skipped);
        assert_eq!(scene.count("user_priorities").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_attempt_answers_the_same_and_adds_nothing() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&response()).await;
        let task = task(&scene).await;
        let first = scene.run(&task).await;
        assert_eq!(scene.run(&task).await, first);
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
        for (context, field) in
            [(json!({}), "responseId is missing"), (json!({ "responseId": 5 }), "context_json: responseId:")]
        {
            let task = scene.task("community_response_available", "account_manager", &context).await;
            let message = failure(scene.run(&task).await);
            assert!(message.starts_with(field), "{message}");
        }
        let mut task = task(&scene).await;
        task.user_id = None;
        assert!(failure(scene.run(&task).await).starts_with("user_id is missing"));
    })
    .await;
}
