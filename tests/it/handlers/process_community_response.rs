//! `process_community_response`: an answer is judged, a useful one is rewarded, and the search learns of it.

use serde_json::{Value, json};
use task_processor::Task;
use task_processor::handler::Answer;
use uuid::Uuid;

use super::customer::in_both_shapes;
use super::{Scene, USER, completed, failure, retryable};
use crate::support::{FakeModel, Says, eventually};

const REQUEST: &str = "00000000-0000-4000-8000-0000000000d1";
const RESPONSE: &str = "00000000-0000-4000-8000-0000000000e1";
const WORKFLOW: &str = "00000000-0000-4000-8000-0000000000f1";
const EXPERT: &str = "00000000-0000-4000-8000-0000000000a2";
const EIGHT: &str = r#"{"usefulness_score": 8, "impact_description": "It named a vendor"}"#;

fn answer() -> String {
    format!(
        "insert into users (id, phone_number) values ('{EXPERT}', '+1556');
        insert into solution_workflows (id, user_id, request_description, current_step, community_insights)
        values ('{WORKFLOW}', '{USER}', 'find a CRM', 'awaiting_experts', '[{{\"responseId\": \"another\"}}]');
        insert into community_requests (id, requesting_agent_type, question, context_id)
        values ('{REQUEST}', 'solution_saga', 'Which CRM?', '{WORKFLOW}');
        insert into community_responses (id, request_id, user_id, response_text, verbatim_answer)
        values ('{RESPONSE}', '{REQUEST}', '{EXPERT}', 'Take Acme', 'id take acme, honestly');"
    )
}

async fn task(scene: &Scene) -> Task {
    let context = json!({ "responseId": RESPONSE, "requestId": REQUEST, "eventId": Uuid::new_v4() });
    let mut task = scene.task("process_community_response", "solution_saga", &context).await;
    task.context_id = WORKFLOW.parse().ok();
    task
}

async fn insights(scene: &Scene) -> Value {
    let insights: Value = scene.db.value("select community_insights - 0 from solution_workflows").await;
    insights
}

#[tokio::test]
async fn a_useful_answer_is_rewarded_and_the_search_learns_of_it() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&answer()).await;
        let model = FakeModel::start([Says::Text(EIGHT)]).await;
        let scene = scene.with_clients(&model.vars("anthropic"));
        let task = task(&scene).await;
        let outcome = scene.run(&task).await;
        let usage = outcome.usage.clone().expect("what the model cost");
        assert_eq!(usage.model.as_deref(), Some("test-model-20260101"));
        assert_eq!((usage.input_tokens, usage.output_tokens), (Some(1000), Some(100)));
        assert!((usage.cost_usd.expect("a cost") - 0.0045).abs() < 1e-9);
        assert_eq!(
            completed(outcome),
            json!({
                "responseId": RESPONSE, "usefulnessScore": 8, "creditsAwarded": true,
                "impactDescription": "It named a vendor",
            })
        );
        let response = "select usefulness_score, impact_description, credits_awarded, status,
                credited_at is not null as credited from community_responses";
        assert_eq!(
            scene.json(response).await,
            json!([{
                "usefulness_score": 8, "impact_description": "It named a vendor", "credits_awarded": 25,
                "status": "rewarded", "credited": true,
            }])
        );
        let credit =
            "select user_id, event_type, amount, reference_type, reference_id, idempotency_key, processed
            from credit_events";
        assert_eq!(
            scene.json(credit).await,
            json!([{
                "user_id": EXPERT, "event_type": "community_response", "amount": 25,
                "reference_type": "community_response", "reference_id": RESPONSE,
                "idempotency_key": format!("community_response_{RESPONSE}"), "processed": true,
            }])
        );
        let balance = format!("select credit_balance from users where id = '{EXPERT}'");
        assert_eq!(scene.db.value::<i32>(&balance).await, 25, "the customer's trigger counted it");
        let insights = insights(&scene).await;
        assert!(insights[0]["evaluatedAt"].is_string());
        assert_eq!(insights[0]["expertId"], EXPERT);
        assert_eq!(insights[0]["summary"], "Take Acme");
        assert_eq!(insights[0]["usefulnessScore"], 8);
    })
    .await;
}

#[tokio::test]
async fn the_model_sees_what_there_is_to_judge_by_and_the_expert_hears_of_the_reward_a_day_later() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&answer()).await;
        let model = FakeModel::start([Says::Text(EIGHT)]).await;
        let scene = scene.with_clients(&model.vars("anthropic"));
        let task = task(&scene).await;
        scene.run(&task).await;
        let news = "select agent_type, user_id, context_id, context_type, priority, context_json,
                scheduled_for > now() + interval '23 hours' as tomorrow
            from agent_tasks where task_type = 'notify_expert_of_impact'";
        assert_eq!(
            scene.json(news).await,
            json!([{
                "agent_type": "account_manager", "user_id": EXPERT, "context_id": RESPONSE,
                "context_type": "community_response", "priority": "low", "tomorrow": true,
                "context_json": {
                    "responseId": RESPONSE, "requestId": REQUEST, "impactDescription": "It named a vendor",
                    "creditsAwarded": 25, "usefulnessScore": 8,
                },
            }])
        );
        let asked = model.asked();
        let material = asked[0].body["messages"][0]["content"].as_str().expect("a text");
        for part in ["find a CRM", "Which CRM?", "id take acme, honestly"] {
            assert!(material.contains(part), "{material}");
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_little_use_and_one_that_could_not_be_judged_are_noted_and_not_rewarded() {
    in_both_shapes(async |scene, _| {
        let model =
            FakeModel::start([Says::Text(r#"{"usefulness_score": 6}"#), Says::Text("eight, I think")]).await;
        let scene = scene.with_clients(&model.vars("openai-compatible"));
        for score in [6, 5] {
            scene.db.execute("truncate users, agent_tasks cascade").await;
            scene.db.execute(&format!("insert into users (id, phone_number) values ('{USER}', '+1')")).await;
            scene.db.execute(&answer()).await;
            let task = task(&scene).await;
            let outcome = scene.run(&task).await;
            assert!(outcome.usage.is_some());
            let result = completed(outcome);
            assert_eq!(result["usefulnessScore"], score);
            assert_eq!(result["creditsAwarded"], false);
            assert_eq!(scene.count("credit_events").await, 0);
            assert_eq!(scene.count("agent_tasks").await, 1);
            assert_eq!(insights(&scene).await[0]["usefulnessScore"], score);
            let status: String = scene.db.value("select status from community_responses").await;
            assert_eq!(status, "provided");
        }
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_was_judged_is_not_judged_again_and_needs_no_model() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&answer()).await;
        scene.db.execute("update community_responses set usefulness_score = 10").await;
        let task = task(&scene).await;
        let outcome = scene.run(&task).await;
        assert!(outcome.usage.is_none());
        assert_eq!(completed(outcome)["usefulnessScore"], 10);
        assert_eq!(scene.db.value::<i32>("select amount from credit_events").await, 45);
    })
    .await;
}

#[tokio::test]
async fn of_two_tasks_that_judge_an_answer_the_first_decides() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&answer()).await;
        let model = FakeModel::start([Says::WhenTold(EIGHT)]).await;
        let scene = scene.with_clients(&model.vars("anthropic"));
        let task = task(&scene).await;
        let meanwhile = async {
            eventually("the model is asked", async || !model.asked().is_empty()).await;
            let other =
                "update community_responses set usefulness_score = 4, impact_description = 'Too general'";
            scene.db.execute(other).await;
            model.tell();
        };
        let (outcome, ()) = tokio::join!(scene.run(&task), meanwhile);
        assert!(outcome.usage.is_some(), "it has cost something all the same");
        assert_eq!(
            completed(outcome),
            json!({
                "responseId": RESPONSE, "usefulnessScore": 4, "creditsAwarded": false,
                "impactDescription": "Too general",
            })
        );
        let response = "select usefulness_score, impact_description, status from community_responses";
        assert_eq!(
            scene.json(response).await,
            json!([{ "usefulness_score": 4, "impact_description": "Too general", "status": "provided" }])
        );
        assert_eq!(scene.count("credit_events").await, 0);
        assert_eq!(insights(&scene).await[0]["usefulnessScore"], 4);
        assert_eq!(model.asked().len(), 1);
    })
    .await;
}

#[tokio::test]
async fn without_a_model_an_unjudged_answer_fails_for_good_and_names_the_variable() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&answer()).await;
        let task = task(&scene).await;
        let message = failure(scene.run(&task).await);
        assert!(message.starts_with("LLM_PROVIDER is not set"), "{message}");
    })
    .await;
}

#[tokio::test]
async fn a_busy_model_puts_the_task_off_and_a_broken_one_costs_a_retry() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&answer()).await;
        let script = [
            Says::Later(429, "20"),
            Says::Status(503),
            Says::Raw("<html>"),
            Says::Status(401),
            Says::Status(400),
        ];
        let model = FakeModel::start(script).await;
        let scene = scene.with_clients(&model.vars("anthropic"));
        let task = task(&scene).await;
        for seconds in [20, 30] {
            let Answer::Snooze(delay, _) = scene.run(&task).await.verdict else { panic!("not put off") };
            assert_eq!(delay.as_secs(), seconds);
        }
        retryable(scene.run(&task).await);
        retryable(scene.run(&task).await);
        failure(scene.run(&task).await);
        assert_eq!(scene.count("credit_events").await, 0);
    })
    .await;
}

#[tokio::test]
async fn an_attempt_cut_off_anywhere_and_repeated_rewards_once() {
    in_both_shapes(async |scene, _| {
        let model = FakeModel::start([Says::Text(EIGHT)]).await;
        let scene = scene.with_clients(&model.vars("anthropic"));
        let task = task(&scene).await;
        scene.is_cut_off_anywhere(&task, &answer()).await;
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_may_be_there_later() {
    in_both_shapes(async |scene, _| {
        let task = task(&scene).await;
        assert_eq!(retryable(scene.run(&task).await), format!("Solution workflow {WORKFLOW} not found"));
        scene.db.execute(&answer()).await;
        let mut other = task.clone();
        let stranger = Uuid::new_v4();
        other.context["responseId"] = json!(stranger);
        assert_eq!(retryable(scene.run(&other).await), format!("Community response {stranger} not found"));
        let mut other = task;
        other.context["requestId"] = json!(stranger);
        assert_eq!(retryable(scene.run(&other).await), format!("Community request {stranger} not found"));
    })
    .await;
}

#[tokio::test]
async fn wrong_input_fails_for_good_and_names_the_field() {
    in_both_shapes(async |scene, _| {
        let task = task(&scene).await;
        for field in ["responseId", "requestId"] {
            let mut other = task.clone();
            other.context[field] = Value::Null;
            assert_eq!(failure(scene.run(&other).await), format!("{field} is missing in context_json"));
            other.context[field] = json!("x");
            let message = failure(scene.run(&other).await);
            assert!(message.starts_with(&format!("context_json: {field}:")), "{message}");
        }
        let mut other = task;
        other.context_id = None;
        assert!(failure(scene.run(&other).await).starts_with("context_id is missing"));
    })
    .await;
}
