//! `process_community_request`: a question is put to the experts, unless somebody has asked it already.

use serde_json::{Value, json};
use task_processor::Task;
use uuid::Uuid;

use super::customer::in_both_shapes;
use super::{Scene, USER, completed, failure, retryable};

const EXISTING: &str = "00000000-0000-4000-8000-0000000000d1";

fn context() -> Value {
    json!({
        "requestingAgentType": "solution_saga",
        "requestingUserId": USER,
        "contextId": Uuid::from_u128(0xf1),
        "contextType": "solution_workflow",
        "question": "Which CRM?",
        "category": "sales",
        "expertiseNeeded": ["crm", "sales"],
        "requesterContext": "Q1 rollout",
        "requestSummary": "CRM advice",
    })
}

async fn task(scene: &Scene, context: &Value) -> Task {
    scene.task("process_community_request", "agent_of_humans", context).await
}

/// Users 1 to 7 know about both, user 8 about one, user 9 is not verified, and the asker knows about both, too. The last
/// three are the most active.
fn experts() -> String {
    format!(
        "insert into users (id, phone_number, verified, expertise, last_active_at)
        select ('00000000-0000-4000-8000-00000000000' || n)::uuid, '+1' || n, n < 9,
            case n when 8 then '{{Sales}}' else '{{CRM,Sales}}' end::text[], case when n >= 8 then now() end
        from generate_series(1, 9) as n;
        update users set verified = true, expertise = '{{crm,sales}}', last_active_at = now() where id = '{USER}';"
    )
}

fn expert(number: usize) -> String {
    format!("00000000-0000-4000-8000-00000000000{number}")
}

async fn events(scene: &Scene) -> Value {
    scene.json("select event_type, aggregate_id, aggregate_type, payload, created_by from events").await
}

#[tokio::test]
async fn the_best_five_experts_are_asked_and_the_request_is_announced() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&experts()).await;
        let task = task(&scene, &context()).await;
        let result = completed(scene.run(&task).await);
        let asked: Vec<String> = (1..=5).map(expert).collect();
        let id = result["requestId"].clone();
        assert_eq!(result, json!({ "requestId": id, "expertsNotified": 5, "expertUserIds": asked }));

        let request = "select requesting_agent_type, requesting_user_id, context_id, context_type, question, category,
                expertise_needed, target_user_ids, status, requester_context, desired_outcome, urgency,
                request_summary, expires_at - created_at between interval '6 days 23 h' and interval '7 days 1 h' as week
            from community_requests";
        assert_eq!(
            scene.json(request).await,
            json!([{
                "requesting_agent_type": "solution_saga", "requesting_user_id": USER,
                "context_id": Uuid::from_u128(0xf1), "context_type": "solution_workflow",
                "question": "Which CRM?", "category": "sales", "expertise_needed": ["crm", "sales"],
                "target_user_ids": asked, "status": "open", "requester_context": "Q1 rollout",
                "desired_outcome": "backchannel", "urgency": "medium", "request_summary": "CRM advice", "week": true,
            }])
        );
        let payload = json!({
            "requestId": id, "expertsNotified": 5, "expertUserIds": asked, "question": "Which CRM?",
            "category": "sales",
        });
        assert_eq!(
            events(&scene).await,
            json!([{
                "event_type": "community.request_routed", "aggregate_id": id,
                "aggregate_type": "community_request", "payload": payload, "created_by": "task_processor",
            }])
        );
        let tasks = "select agent_type, user_id, context_id, context_type, priority, status, context_json,
                scheduled_for <= now() as due
            from agent_tasks where task_type = 'community_request_available' order by user_id";
        let tasks = scene.json(tasks).await;
        assert_eq!(tasks.as_array().map(Vec::len), Some(5));
        assert_eq!(
            tasks[1],
            json!({
                "agent_type": "account_manager", "user_id": expert(2), "context_id": id,
                "context_type": "community_request", "priority": "medium", "status": "pending", "due": true,
                "context_json": {
                    "requestId": id, "question": "Which CRM?", "category": "sales",
                    "expertiseNeeded": ["crm", "sales"], "requesterContext": "Q1 rollout",
                    "desiredOutcome": "backchannel", "urgency": "medium", "requestSummary": "CRM advice",
                    "contextId": Uuid::from_u128(0xf1), "contextType": "solution_workflow",
                },
            })
        );
    })
    .await;
}

#[tokio::test]
async fn the_experts_tasks_are_such_as_their_handler_does() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&experts()).await;
        let first = task(&scene, &context()).await;
        scene.run(&first).await;
        let claimed = scene.services.queue().claim(&["community_request_available".to_owned()], 10).await;
        let claimed = claimed.expect("a claim");
        assert_eq!(claimed.len(), 5);
        for claimed in claimed {
            let task = claimed.task.expect("a readable row");
            assert_eq!(completed(scene.run(&task).await)["priorityRank"], 1);
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_open_already_is_joined() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&experts()).await;
        let existing = format!(
            "insert into community_requests (id, requesting_agent_type, question, category, expertise_needed)
            values ('{EXISTING}', 'concierge', 'CRMs?', 'sales', '{{CRM}}')"
        );
        scene.db.execute(&existing).await;
        let cause = Uuid::new_v4();
        let mut context = context();
        context["eventId"] = json!(cause);
        let task = task(&scene, &context).await;
        let expected = json!({ "attached": true, "existingRequestId": EXISTING });
        assert_eq!(completed(scene.run(&task).await), expected);
        assert_eq!(
            events(&scene).await,
            json!([{
                "event_type": "community.request_attached", "aggregate_id": EXISTING,
                "aggregate_type": "community_request", "created_by": "task_processor",
                "payload": { "existingRequestId": EXISTING, "newEventId": cause, "question": "Which CRM?" },
            }])
        );
        assert_eq!(scene.count("community_requests").await, 1);
        assert_eq!(scene.count("agent_tasks").await, 1, "nobody is asked again");
        // What it joined may be closed by the time of another attempt.
        scene.db.execute("update community_requests set status = 'closed'").await;
        assert_eq!(completed(scene.run(&task).await), expected);
        assert_eq!(scene.count("events").await, 1);
    })
    .await;
}

#[tokio::test]
async fn a_request_that_is_closed_old_or_about_something_else_is_not_joined() {
    in_both_shapes(async |scene, _| {
        scene
            .db
            .execute(
                "insert into community_requests
                    (requesting_agent_type, question, category, expertise_needed, status, created_at)
                values
                    ('x', 'closed', 'sales', '{crm}', 'closed', now()),
                    ('x', 'old', 'sales', '{crm}', 'open', now() - interval '8 days'),
                    ('x', 'category', 'law', '{crm}', 'open', now()),
                    ('x', 'no category', null, '{crm}', 'open', now()),
                    ('x', 'expertise', 'sales', '{law}', 'open', now()),
                    ('x', 'no expertise', 'sales', null, 'open', now())",
            )
            .await;
        let mut uncategorised = context();
        uncategorised["category"] = Value::Null;
        for (context, requests) in [(context(), 7), (uncategorised, 8)] {
            let task = task(&scene, &context).await;
            assert_eq!(completed(scene.run(&task).await)["attached"], Value::Null, "{context}");
            assert_eq!(scene.count("community_requests").await, requests);
        }
    })
    .await;
}

#[tokio::test]
async fn a_request_for_which_nobody_is_an_expert_is_kept_and_says_so() {
    in_both_shapes(async |scene, _| {
        let task = task(&scene, &context()).await;
        let result = completed(scene.run(&task).await);
        assert_eq!(result["expertsNotified"], 0);
        let events = events(&scene).await;
        assert_eq!(events[0]["event_type"], "community.no_experts_found");
        assert_eq!(events[0]["payload"]["expertiseNeeded"], json!(["crm", "sales"]));
        assert_eq!(events.as_array().map(Vec::len), Some(1));
        assert_eq!(scene.count("community_requests where status = 'open'").await, 1);
        assert_eq!(scene.count("agent_tasks").await, 1);
    })
    .await;
}

#[tokio::test]
async fn what_the_task_does_not_say_is_taken_from_its_row_and_a_long_question_still_fits_an_event() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&experts()).await;
        let question = "ß\"".repeat(20_000);
        let context = json!({ "question": question, "expertiseNeeded": ["CRM"], "urgency": "high" });
        let mut task = task(&scene, &context).await;
        task.context_id = Some(Uuid::from_u128(7));
        scene.run(&task).await;
        let request =
            "select requesting_agent_type, requesting_user_id, context_id, urgency, length(question)
            from community_requests";
        assert_eq!(
            scene.json(request).await,
            json!([{
                "requesting_agent_type": "agent_of_humans", "requesting_user_id": USER,
                "context_id": Uuid::from_u128(7), "urgency": "high", "length": 40_000,
            }])
        );
        assert_eq!(scene.count("events").await, 1);
    })
    .await;
}

#[tokio::test]
async fn an_attempt_cut_off_anywhere_and_repeated_asks_everybody_once() {
    in_both_shapes(async |scene, _| {
        let task = task(&scene, &context()).await;
        scene.is_cut_off_anywhere(&task, &experts()).await;
    })
    .await;
}

#[tokio::test]
async fn an_asker_who_is_not_there_may_be_there_later() {
    in_both_shapes(async |scene, _| {
        let stranger = Uuid::new_v4();
        let mut context = context();
        context["requestingUserId"] = json!(stranger);
        let task = task(&scene, &context).await;
        assert_eq!(retryable(scene.run(&task).await), format!("User {stranger} not found"));
        scene.db.execute(&format!("insert into users (id, phone_number) values ('{stranger}', '+2')")).await;
        completed(scene.run(&task).await);
        let asker: Uuid = scene.db.value("select requesting_user_id from community_requests").await;
        assert_eq!(asker, stranger);
    })
    .await;
}

#[tokio::test]
async fn wrong_input_fails_for_good_and_names_the_field() {
    in_both_shapes(async |scene, _| {
        let long = "x".repeat(101);
        for (field, value, message) in [
            ("question", json!(null), "question is missing"),
            ("question", json!(" "), "question is missing"),
            ("question", json!(["x"]), "context_json: question:"),
            ("category", json!(long), "category has 101 characters, at most 100 fit"),
            ("requestSummary", json!(long), "requestSummary has 101 characters"),
            ("requestingAgentType", json!(long), "requestingAgentType has 101 characters, at most 50"),
            ("contextId", json!("x"), "context_json: contextId:"),
            ("expertiseNeeded", json!([5]), "context_json: expertiseNeeded[0]:"),
        ] {
            let mut context = context();
            context[field] = value;
            let task = task(&scene, &context).await;
            let said = failure(scene.run(&task).await);
            assert!(said.starts_with(message), "{said}");
        }
        assert_eq!(scene.count("community_requests").await, 0);
    })
    .await;
}
