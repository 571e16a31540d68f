//! `community_request_available`: a question becomes an expert's priority, by what the expert knows and has answered.

use serde_json::{Value, json};
use task_processor::Task;
use uuid::Uuid;

use super::customer::in_both_shapes;
use super::{Scene, USER, completed, failure, retryable};

const REQUEST: &str = "00000000-0000-4000-8000-0000000000d1";

fn request() -> String {
    format!(
        "insert into community_requests (id, requesting_agent_type, question, expertise_needed)
        values ('{REQUEST}', 'solution_saga', 'Which CRM?', '{{CRM,sales}}');"
    )
}

async fn task(scene: &Scene, expertise: Value) -> Task {
    let context = json!({
        "requestId": REQUEST, "question": "Which CRM?", "category": "sales", "expertiseNeeded": expertise,
    });
    scene.task("community_request_available", "account_manager", &context).await
}

/// Answers that the user gave before, with these scores, the oldest first.
async fn add_answers(scene: &Scene, scores: &[Option<i32>]) {
    for (day, score) in scores.iter().enumerate() {
        let score = score.map_or("null".to_owned(), |score| score.to_string());
        let sql = format!(
            "insert into community_responses
                (request_id, user_id, response_text, verbatim_answer, usefulness_score, created_at)
            values ('{REQUEST}', '{USER}', 'a', 'a', {score}, now() - interval '1 year' + {day} * interval '1 day')"
        );
        scene.db.execute(&sql).await;
    }
}

#[tokio::test]
async fn the_rank_follows_from_what_the_expert_knows_and_has_answered_before() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&request()).await;
        let good = Some(7);
        for (expertise, answers, score, rank) in [
            (json!([]), &[][..], 50, 3),
            (json!(["crm"]), &[], 65, 2),
            (json!(["crm", "SALES"]), &[], 80, 1),
            (json!([]), &[Some(6)], 60, 3),
            (json!([]), &[good, good], 70, 2),
            // Of six answers the oldest no longer counts.
            (json!([]), &[good, None, None, None, None, None], 60, 3),
            (json!(["crm", "sales"]), &[good, good, good, good], 100, 1),
        ] {
            scene.db.execute("truncate community_responses, user_priorities").await;
            scene.db.execute("update users set expertise = '{Crm,Sales,Law}'").await;
            add_answers(&scene, answers).await;
            let task = task(&scene, expertise.clone()).await;
            let result = completed(scene.run(&task).await);
            assert_eq!(result["valueScore"].as_f64(), Some(f64::from(score)), "{expertise} {answers:?}");
            assert_eq!(result["priorityRank"], rank, "{expertise} {answers:?}");
            assert_eq!(result["matchingExpertise"], expertise.as_array().map_or(0, Vec::len));
            assert_eq!(
                scene.priorities().await,
                json!([{
                    "user_id": USER, "priority_rank": rank, "item_type": "community_request", "item_id": REQUEST,
                    "value_score": f64::from(score), "status": "active",
                }])
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_task_that_does_not_say_what_is_needed_goes_by_the_request() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&format!("{} update users set expertise = '{{crm}}'", request())).await;
        let task = task(&scene, Value::Null).await;
        assert_eq!(completed(scene.run(&task).await)["matchingExpertise"], 1);
    })
    .await;
}

#[tokio::test]
async fn a_question_that_is_a_priority_already_is_skipped() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&request()).await;
        let first = task(&scene, json!([])).await;
        let second = task(&scene, json!(["law"])).await;
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
        scene.db.execute(&request()).await;
        let task = task(&scene, json!([])).await;
        let first = scene.run(&task).await;
        assert_eq!(scene.run(&task).await, first);
        scene.is_cut_off_anywhere(&task, &request()).await;
    })
    .await;
}

#[tokio::test]
async fn a_request_or_a_user_who_is_not_there_may_be_there_later() {
    in_both_shapes(async |scene, _| {
        let mut task = task(&scene, json!([])).await;
        assert_eq!(retryable(scene.run(&task).await), format!("Community request {REQUEST} not found"));
        scene.db.execute(&request()).await;
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
            (json!({}), "requestId is missing"),
            (json!({ "requestId": "x" }), "context_json: requestId:"),
            (json!({ "requestId": REQUEST, "expertiseNeeded": "law" }), "context_json: expertiseNeeded:"),
        ] {
            let task = scene.task("community_request_available", "account_manager", &context).await;
            let message = failure(scene.run(&task).await);
            assert!(message.starts_with(field), "{message}");
        }
        let mut task = task(&scene, json!([])).await;
        task.user_id = None;
        assert!(failure(scene.run(&task).await).starts_with("user_id is missing"));
    })
    .await;
}
