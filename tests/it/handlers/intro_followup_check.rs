//! `intro_followup_check`: an introduction that was made is closed, else its connector is asked; questions are passed on.

use serde_json::{Value, json};
use task_processor::Task;
use uuid::Uuid;

use super::customer::{Shape, in_both_shapes};
use super::{CONVERSATION, Scene, USER, completed, failure, retryable};

const INTRO: &str = "00000000-0000-4000-8000-0000000000b1";
const ASKER: &str = "00000000-0000-4000-8000-0000000000a2";

async fn check(scene: &Scene) -> Task {
    scene.task("intro_followup_check", "intro_handler", &json!({ "introId": INTRO })).await
}

async fn question(scene: &Scene) -> Task {
    let context = json!({
        "introId": INTRO, "userQuestion": "Did Tony answer?", "conversationId": CONVERSATION,
        "eventId": Uuid::new_v4(),
    });
    scene.task("intro_followup_check", "account_manager", &context).await
}

async fn told(scene: &Scene) -> Value {
    let messages = scene.json("select role, direction, user_id, content::jsonb from messages").await;
    assert_eq!(messages.as_array().map(Vec::len), Some(1));
    assert_eq!(messages[0]["role"], "system");
    assert_eq!(messages[0]["direction"], "inbound");
    assert_eq!(messages[0]["user_id"], USER);
    messages[0]["content"].clone()
}

#[tokio::test]
async fn an_introduction_that_was_made_is_closed_and_nobody_is_asked() {
    in_both_shapes(async |scene, shape| {
        scene.add_intro(shape, INTRO, "accepted").await;
        scene.db.execute("update intro_opportunities set intro_completed_at = now()").await;
        for _ in 0..2 {
            let task = check(&scene).await;
            let expected = json!({ "introId": INTRO, "closed": true, "status": "completed" });
            assert_eq!(completed(scene.run(&task).await), expected);
            let status: String = scene.db.value("select status from intro_opportunities").await;
            assert_eq!(status, "completed");
        }
        assert_eq!(scene.count("messages").await, 0);
    })
    .await;
}

#[tokio::test]
async fn the_connector_of_an_introduction_under_way_is_asked_by_their_agent() {
    in_both_shapes(async |scene, shape| {
        scene.add_intro(shape, INTRO, "accepted").await;
        let mut task = check(&scene).await;
        // Not whomever the task happens to name.
        task.user_id = None;
        let expected = json!({ "introId": INTRO, "connectorAsked": true, "handedTo": "conversation" });
        assert_eq!(completed(scene.run(&task).await), expected);
        let told = told(&scene).await;
        assert_eq!(told["type"], "intro_followup_check");
        assert_eq!(told["intro"]["prospectName"], "Tony Katz", "whatever the columns are called");
        assert_eq!(told["intro"]["innovatorName"], "Rob");
    })
    .await;
}

#[tokio::test]
async fn about_an_introduction_that_was_given_up_nobody_is_asked() {
    in_both_shapes(async |scene, shape| {
        for (number, status) in ["rejected", "declined", "cancelled", "paused", "removed"].iter().enumerate()
        {
            let id = Uuid::from_u128(number as u128).to_string();
            scene.add_intro(shape, &id, status).await;
            let task = scene.task("intro_followup_check", "intro_handler", &json!({ "introId": id })).await;
            let reason = format!("Introduction is {status}");
            assert_eq!(completed(scene.run(&task).await), json!({ "skipped": true, "reason": reason }));
        }
        assert_eq!(scene.count("messages").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_question_is_passed_on_with_what_is_known_of_the_introduction() {
    in_both_shapes(async |scene, shape| {
        scene.add_intro(shape, INTRO, "accepted").await;
        let task = question(&scene).await;
        let expected = json!({ "introId": INTRO, "questionRouted": true, "handedTo": "conversation" });
        assert_eq!(completed(scene.run(&task).await), expected);
        let told = told(&scene).await;
        assert_eq!(told["type"], "intro_question");
        assert_eq!(told["userQuestion"], "Did Tony answer?");
        assert_eq!(told["intro"]["status"], "accepted");
    })
    .await;
}

#[tokio::test]
async fn a_question_about_no_introduction_or_one_that_is_gone_is_passed_on_too() {
    in_both_shapes(async |scene, _| {
        for intro in [Value::Null, json!(INTRO)] {
            scene.db.execute("truncate messages cascade").await;
            let context = json!({ "introId": intro, "userQuestion": "Whom do you know at Hulu?" });
            let task = scene.task("intro_followup_check", "account_manager", &context).await;
            assert_eq!(completed(scene.run(&task).await)["questionRouted"], true);
            assert_eq!(told(&scene).await["intro"], Value::Null);
        }
    })
    .await;
}

#[tokio::test]
async fn a_repeated_attempt_answers_the_same_and_asks_once() {
    in_both_shapes(async |scene, shape| {
        let (column, names) = match shape {
            Shape::Notify => ("first_name, last_name", "'Tony', 'Katz'"),
            Shape::Webhook => ("prospect_name", "'Tony Katz'"),
        };
        let setup = format!(
            "insert into intro_opportunities (id, connector_user_id, {column}) values ('{INTRO}', '{USER}', {names});"
        );
        scene.db.execute(&setup).await;
        for task in [check(&scene).await, question(&scene).await] {
            let first = scene.run(&task).await;
            assert_eq!(scene.run(&task).await, first);
            scene.is_cut_off_anywhere(&task, &setup).await;
        }
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_may_be_there_later_and_wrong_input_fails_for_good() {
    in_both_shapes(async |scene, _| {
        let task = check(&scene).await;
        assert_eq!(retryable(scene.run(&task).await), format!("Introduction {INTRO} not found"));
        for (context, field) in [
            (json!({}), "introId is missing"),
            (json!({ "introId": 7 }), "context_json: introId:"),
            (json!({ "introId": INTRO, "userQuestion": {} }), "context_json: userQuestion:"),
        ] {
            let mut task = task.clone();
            task.context = context;
            let message = failure(scene.run(&task).await);
            assert!(message.starts_with(field), "{message}");
        }
        let mut task = question(&scene).await;
        task.user_id = ASKER.parse().ok();
        assert_eq!(retryable(scene.run(&task).await), format!("User {ASKER} not found"));
        task.user_id = None;
        assert!(failure(scene.run(&task).await).starts_with("user_id is missing"));
    })
    .await;
}
