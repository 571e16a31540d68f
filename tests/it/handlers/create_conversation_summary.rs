//! `create_conversation_summary`: what was said since the last summary becomes part of the next one.

use serde_json::{Value, json};
use task_processor::Task;
use task_processor::handler::Answer;
use uuid::Uuid;

use super::customer::in_both_shapes;
use super::{CONVERSATION, Scene, USER, completed, failure, retryable};
use crate::support::{FakeModel, Says, eventually};

async fn task(scene: &Scene) -> Task {
    let mut task = scene
        .task("create_conversation_summary", "system", &json!({ "conversation_id": CONVERSATION }))
        .await;
    task.user_id = None;
    task
}

/// Messages `first` to `last`, a second apart; every tenth is for the agent.
fn messages(first: u32, last: u32) -> String {
    format!(
        "insert into messages (id, conversation_id, user_id, role, content, direction, created_at)
        select ('00000000-0000-4000-8000-' || lpad(n::text, 12, '0'))::uuid, '{CONVERSATION}', '{USER}',
            case when n % 10 = 0 then 'system' else 'user' end, 'line ' || n || '.', 'inbound',
            '2026-01-01'::timestamptz + n * interval '1 s'
        from generate_series({first}, {last}) as n;"
    )
}

fn id(number: u32) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

async fn conversation(scene: &Scene) -> Value {
    scene.json("select conversation_summary, last_summary_message_id from conversations").await[0].clone()
}

#[tokio::test]
async fn new_messages_are_summarised_together_with_the_summary_so_far() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&messages(1, 25)).await;
        let old = format!(
            "update conversations set conversation_summary = 'Ada wants a CRM.', last_summary_message_id = '{}'",
            id(15)
        );
        scene.db.execute(&old).await;
        let model = FakeModel::start([Says::Text(" Ada still wants a CRM.\n")]).await;
        let scene = scene.with_clients(&model.vars("anthropic"));
        let task = task(&scene).await;
        let outcome = scene.run(&task).await;
        assert_eq!(outcome.usage.clone().expect("what it cost").input_tokens, Some(1000));
        assert_eq!(
            completed(outcome),
            json!({
                "conversationId": CONVERSATION, "messagesSummarised": 9, "lastMessageId": id(25), "words": 5,
            })
        );
        assert_eq!(
            conversation(&scene).await,
            json!({ "conversation_summary": "Ada still wants a CRM.", "last_summary_message_id": id(25) })
        );
        let asked = model.asked();
        let material = asked[0].body["messages"][0]["content"].as_str().expect("a text");
        for part in ["Ada wants a CRM.", "user: line 16.", "user: line 25."] {
            assert!(material.contains(part), "{part} in {material}");
        }
        for part in ["line 15.", "line 20."] {
            assert!(!material.contains(part), "{part}: summarised already, or for the agent only");
        }
    })
    .await;
}

#[tokio::test]
async fn a_long_backlog_is_summarised_part_by_part_and_all_of_it_is_paid_for() {
    in_both_shapes(async |scene, _| {
        let task = task(&scene).await;
        scene.db.execute(&messages(1, 450)).await;
        let model = FakeModel::start([Says::Text("one"), Says::Text("two"), Says::Text("three")]).await;
        let scene = scene.with_clients(&model.vars("openai-compatible"));
        let outcome = scene.run(&task).await;
        let usage = outcome.usage.clone().expect("what it cost");
        assert_eq!((usage.input_tokens, usage.output_tokens), (Some(3000), Some(300)));
        assert!((usage.cost_usd.expect("a cost") - 0.0135).abs() < 1e-9);
        assert_eq!(completed(outcome)["messagesSummarised"], 405);
        assert_eq!(conversation(&scene).await["conversation_summary"], "three");
        let second = model.asked()[1].body["messages"][1]["content"].as_str().unwrap_or_default().to_owned();
        assert!(second.contains("<summary>\none\n"), "{second}");
    })
    .await;
}

#[tokio::test]
async fn a_summary_is_kept_to_two_hundred_words() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&messages(1, 2)).await;
        let long: &'static str = Box::leak("word ".repeat(300).into_boxed_str());
        let model = FakeModel::start([Says::Text(long)]).await;
        let scene = scene.with_clients(&model.vars("anthropic"));
        let task = task(&scene).await;
        scene.run(&task).await;
        let summary =
            conversation(&scene).await["conversation_summary"].as_str().unwrap_or_default().to_owned();
        assert_eq!(summary.matches("word").count(), 200);
    })
    .await;
}

#[tokio::test]
async fn without_anything_new_or_with_news_for_the_agent_only_no_model_is_needed() {
    in_both_shapes(async |scene, _| {
        let skipped = json!({ "skipped": true, "reason": "No new messages" });
        let first = task(&scene).await;
        assert_eq!(completed(scene.run(&first).await), skipped);
        scene.db.execute(&messages(10, 10)).await;
        let second = task(&scene).await;
        assert_eq!(completed(scene.run(&second).await), skipped);
        assert_eq!(
            conversation(&scene).await["last_summary_message_id"],
            id(10),
            "nor is it looked at again"
        );
    })
    .await;
}

#[tokio::test]
async fn messages_without_a_date_come_first_and_are_summarised_and_paid_for_once() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&messages(1, 3)).await;
        let undated = "update messages set created_at = null where content = 'line 3.'";
        scene.db.execute(undated).await;
        let model = FakeModel::start([Says::Text("one"), Says::Text("two"), Says::Status(400)]).await;
        let scene = scene.with_clients(&model.vars("anthropic"));
        let first = task(&scene).await;
        assert_eq!(completed(scene.run(&first).await)["lastMessageId"], id(2));
        let material =
            model.asked()[0].body["messages"][0]["content"].as_str().unwrap_or_default().to_owned();
        assert!(material.contains("line 3.\nuser: line 1.\nuser: line 2."), "{material}");
        // The last one of a summary may have lost its date, or never had one.
        scene.db.execute(&messages(4, 4)).await;
        scene.db.execute("update messages set created_at = null").await;
        let second = task(&scene).await;
        assert_eq!(completed(scene.run(&second).await)["messagesSummarised"], 2);
        assert_eq!(model.asked().len(), 2);
        assert_eq!(conversation(&scene).await["last_summary_message_id"], id(4));
    })
    .await;
}

#[tokio::test]
async fn without_a_model_it_fails_for_good_and_names_the_variable() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&messages(1, 2)).await;
        let task = task(&scene).await;
        let message = failure(scene.run(&task).await);
        assert!(message.starts_with("LLM_PROVIDER is not set"), "{message}");
        assert_eq!(conversation(&scene).await["last_summary_message_id"], Value::Null);
    })
    .await;
}

#[tokio::test]
async fn a_busy_model_puts_the_task_off_and_what_was_summarised_before_is_kept_and_paid_for() {
    in_both_shapes(async |scene, _| {
        let task = task(&scene).await;
        scene.db.execute(&messages(1, 250)).await;
        let model = FakeModel::start([Says::Text("one"), Says::Later(529, "86400")]).await;
        let scene = scene.with_clients(&model.vars("anthropic"));
        let outcome = scene.run(&task).await;
        assert_eq!(outcome.usage.expect("what the first part cost").input_tokens, Some(1000));
        let Answer::Snooze(delay, _) = outcome.verdict else { panic!("not put off") };
        assert_eq!(delay.as_secs(), 900, "a day is too long");
        assert_eq!(
            conversation(&scene).await,
            json!({ "conversation_summary": "one", "last_summary_message_id": id(200) })
        );
    })
    .await;
}

#[tokio::test]
async fn a_summary_that_somebody_else_wrote_meanwhile_is_not_overwritten() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&messages(1, 3)).await;
        let model = FakeModel::start([Says::WhenTold("late")]).await;
        let scene = scene.with_clients(&model.vars("anthropic"));
        let task = task(&scene).await;
        let meanwhile = async {
            eventually("the model is asked", async || !model.asked().is_empty()).await;
            let sql = format!(
                "update conversations set conversation_summary = 'early', last_summary_message_id = '{}'",
                id(2)
            );
            scene.db.execute(&sql).await;
            model.tell();
        };
        let (outcome, ()) = tokio::join!(scene.run(&task), meanwhile);
        assert!(outcome.usage.is_some(), "it has cost something all the same");
        let expected = json!({ "skipped": true, "reason": "Summarised by another task" });
        assert_eq!(completed(outcome), expected);
        assert_eq!(conversation(&scene).await["conversation_summary"], "early");
    })
    .await;
}

#[tokio::test]
async fn an_attempt_cut_off_anywhere_and_repeated_summarises_to_the_end() {
    in_both_shapes(async |scene, _| {
        let model = FakeModel::start([Says::Text("Ada wants a CRM.")]).await;
        let scene = scene.with_clients(&model.vars("anthropic"));
        let task = task(&scene).await;
        scene.is_cut_off_anywhere(&task, &messages(1, 5)).await;
    })
    .await;
}

#[tokio::test]
async fn a_conversation_that_is_not_there_may_be_there_later_and_wrong_input_fails_for_good() {
    in_both_shapes(async |scene, _| {
        let mut task = task(&scene).await;
        let stranger = Uuid::new_v4();
        task.context = json!({ "conversation_id": stranger });
        assert_eq!(retryable(scene.run(&task).await), format!("Conversation {stranger} not found"));
        for (context, field) in [
            (json!({}), "conversation_id is missing"),
            (json!({ "conversation_id": 5 }), "context_json: conversation_id:"),
        ] {
            task.context = context;
            let message = failure(scene.run(&task).await);
            assert!(message.starts_with(field), "{message}");
        }
    })
    .await;
}
