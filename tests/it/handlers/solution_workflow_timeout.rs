//! `solution_workflow_timeout`: an overdue search is brought to its end; what one has found is handed over.

use serde_json::{Value, json};
use task_processor::Task;
use uuid::Uuid;

use super::customer::in_both_shapes;
use super::{CONVERSATION, Scene, USER, completed, failure, retryable};

const WORKFLOW: &str = "00000000-0000-4000-8000-0000000000f1";

/// With two insights of use, one of little, and one match.
fn workflow() -> String {
    let insight = |expert, score| json!({ "responseId": Uuid::new_v4(), "expertId": expert, "summary": format!("says {expert}"), "usefulnessScore": score });
    let insights = json!([insight("a", 7), insight("b", 6), insight("c", 9)]);
    format!(
        "insert into solution_workflows
            (id, user_id, request_description, current_step, community_insights, matched_innovators)
        values ('{WORKFLOW}', '{USER}', 'find a CRM', 'awaiting_experts', '{insights}', '[{{\"name\": \"Acme\"}}]');"
    )
}

async fn overdue(scene: &Scene) -> Task {
    let context = json!({ "workflowId": WORKFLOW, "step": "expert_responses_timeout" });
    scene.task("solution_workflow_timeout", "solution_saga", &context).await
}

async fn delivery(scene: &Scene) -> Task {
    let context = json!({
        "workflowId": WORKFLOW, "requestDescription": "find a CRM", "findings": { "matchedInnovators": [] },
        "conversationId": CONVERSATION, "eventId": Uuid::new_v4(),
    });
    scene.task("solution_workflow_timeout", "concierge", &context).await
}

async fn events(scene: &Scene) -> Value {
    scene
        .json(
            "select event_type, aggregate_id, aggregate_type, payload - 'completedAt' as payload from events",
        )
        .await
}

#[tokio::test]
async fn an_overdue_search_ends_and_passes_its_recommendations_on() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&workflow()).await;
        let task = overdue(&scene).await;
        let expected =
            json!({ "workflowId": WORKFLOW, "completed": true, "qualityThresholdMet": true, "recommendations": 2 });
        assert_eq!(completed(scene.run(&task).await), expected);
        assert_eq!(
            events(&scene).await,
            json!([{
                "event_type": "solution.research_complete", "aggregate_id": WORKFLOW,
                "aggregate_type": "solution_workflow",
                "payload": {
                    "workflowId": WORKFLOW, "userId": USER, "requestDescription": "find a CRM",
                    "findings": {
                        "matchedInnovators": [{ "name": "Acme" }],
                        "communityInsights": [
                            { "expertId": "c", "recommendation": "says c" },
                            { "expertId": "a", "recommendation": "says a" },
                        ],
                        "expertRecommendations": [],
                        "qualityThresholdMet": true,
                    },
                },
            }])
        );
        let workflow = "select status, current_step, quality_threshold_met, completed_at is not null as ended
            from solution_workflows";
        assert_eq!(
            scene.json(workflow).await,
            json!([{
                "status": "completed", "current_step": "complete", "quality_threshold_met": true, "ended": true,
            }])
        );
    })
    .await;
}

#[tokio::test]
async fn a_search_that_found_nothing_ends_too_and_says_so() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&workflow()).await;
        scene
            .db
            .execute("update solution_workflows set community_insights = null, matched_innovators = '[]'")
            .await;
        let task = overdue(&scene).await;
        let result = completed(scene.run(&task).await);
        assert_eq!((&result["qualityThresholdMet"], &result["recommendations"]), (&json!(false), &json!(0)));
        let status: String =
            scene.db.value("select status || quality_threshold_met from solution_workflows").await;
        assert_eq!(status, "completedfalse");
    })
    .await;
}

#[tokio::test]
async fn findings_too_large_for_the_customers_notification_are_cut_to_the_best() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&workflow()).await;
        scene
            .db
            .execute(
                "update solution_workflows set request_description = repeat('ü', 20000), community_insights = (
                    select jsonb_agg(jsonb_build_object('expertId', n, 'usefulnessScore', n, 'summary', repeat('é', 900)))
                    from generate_series(1, 10) as n
                ), expert_recommendations = to_jsonb(repeat('x', 9000))",
            )
            .await;
        let task = overdue(&scene).await;
        assert_eq!(completed(scene.run(&task).await)["completed"], true);
        let insights = &events(&scene).await[0]["payload"]["findings"]["communityInsights"];
        assert_eq!(insights[0]["expertId"], 10);
        assert!(insights.as_array().is_some_and(|insights| insights.len() > 1), "{insights}");
    })
    .await;
}

#[tokio::test]
async fn recommendations_are_one_list_of_which_those_that_fit_are_passed_on() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&workflow()).await;
        for (stored, passed_on) in [
            (json!([{ "name": "Acme" }, "x".repeat(9_000), "Bolt"]), json!([{ "name": "Acme" }, "Bolt"])),
            (json!({ "name": "Acme" }), json!([{ "name": "Acme" }])),
            (Value::Null, json!([])),
        ] {
            let sql = format!(
                "delete from events;
                update solution_workflows set status = 'in_progress', expert_recommendations = '{stored}'"
            );
            scene.db.execute(&sql).await;
            let task = overdue(&scene).await;
            completed(scene.run(&task).await);
            let events = events(&scene).await;
            assert_eq!(events[0]["payload"]["findings"]["expertRecommendations"], passed_on);
        }
    })
    .await;
}

#[tokio::test]
async fn a_search_that_has_ended_is_left_alone() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&workflow()).await;
        for status in ["completed", "cancelled"] {
            scene.db.execute(&format!("update solution_workflows set status = '{status}'")).await;
            let task = overdue(&scene).await;
            let reason = format!("Workflow is already {status}");
            assert_eq!(completed(scene.run(&task).await), json!({ "skipped": true, "reason": reason }));
        }
        assert_eq!(scene.count("events").await, 0);
    })
    .await;
}

#[tokio::test]
async fn findings_are_handed_to_the_agent_of_the_conversation() {
    in_both_shapes(async |scene, _| {
        let task = delivery(&scene).await;
        let expected = json!({ "workflowId": WORKFLOW, "delivered": true, "handedTo": "conversation" });
        assert_eq!(completed(scene.run(&task).await), expected);
        let messages =
            scene.json("select role, direction, conversation_id, content::jsonb from messages").await;
        assert_eq!(messages[0]["role"], "system");
        assert_eq!(messages[0]["direction"], "inbound");
        assert_eq!(messages[0]["conversation_id"], CONVERSATION);
        assert_eq!(messages[0]["content"]["type"], "solution_research_complete");
        assert_eq!(messages[0]["content"]["findings"], json!({ "matchedInnovators": [] }));
        assert_eq!(messages[0]["content"]["requestDescription"], "find a CRM");
        assert_eq!(scene.count("events").await, 0, "the event-processor would make a task of one");
    })
    .await;
}

#[tokio::test]
async fn findings_for_a_conversation_that_is_over_or_somebody_elses_wait_in_the_message_queue() {
    in_both_shapes(async |scene, _| {
        scene
            .db
            .execute(
                "insert into users (id, phone_number) values ('00000000-0000-4000-8000-0000000000a9', '+9');
                update conversations set user_id = '00000000-0000-4000-8000-0000000000a9'",
            )
            .await;
        let task = delivery(&scene).await;
        assert_eq!(completed(scene.run(&task).await)["handedTo"], "message_queue");
        assert_eq!(scene.count("messages").await, 0);
        assert_eq!(scene.count("message_queue").await, 1);
        // It may have become the user's again before another attempt is made: nothing is handed over twice.
        scene.db.execute(&format!("update conversations set user_id = '{USER}'")).await;
        assert_eq!(completed(scene.run(&task).await)["handedTo"], "message_queue");
        assert_eq!(scene.count("messages").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_attempt_answers_the_same_and_acts_once() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&workflow()).await;
        scene.count_inserts_into("messages").await;
        let tasks = [overdue(&scene).await, delivery(&scene).await];
        for task in &tasks {
            let first = scene.run(task).await;
            assert_eq!(scene.run(task).await, first);
        }
        assert_eq!(scene.count("announced").await, 1, "triggers ran once");
        for task in &tasks {
            scene.is_cut_off_anywhere(task, &workflow()).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_may_be_there_later_and_wrong_input_fails_for_good() {
    in_both_shapes(async |scene, _| {
        let task = overdue(&scene).await;
        assert_eq!(retryable(scene.run(&task).await), format!("Solution workflow {WORKFLOW} not found"));
        for (context, field) in [
            (json!({}), "workflowId is missing"),
            (json!({ "workflowId": "x" }), "context_json: workflowId:"),
        ] {
            let mut task = task.clone();
            task.context = context;
            let message = failure(scene.run(&task).await);
            assert!(message.starts_with(field), "{message}");
        }
        let mut task = delivery(&scene).await;
        task.user_id = None;
        assert!(failure(scene.run(&task).await).starts_with("user_id is missing"));
        let stranger = Uuid::new_v4();
        task.user_id = Some(stranger);
        assert_eq!(retryable(scene.run(&task).await), format!("User {stranger} not found"));
    })
    .await;
}
