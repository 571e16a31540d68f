//! `update_user_profile`: the fields on the list, with values that they take, and nothing else.

use serde_json::{Value, json};
use task_processor::{Outcome, Task};
use uuid::Uuid;

use super::customer::in_both_shapes_without_conversation;
use super::{Scene, failure, retryable};

async fn task(scene: &Scene, context: Value) -> Task {
    scene.task("update_user_profile", "bouncer", &context).await
}

/// What the handler answers to a field and a value.
async fn set(scene: &Scene, field: &str, value: &Value) -> Outcome {
    let task = task(scene, json!({ "field": field, "value": value, "source": "chat" })).await;
    scene.run(&task).await
}

async fn stored(scene: &Scene, field: &str) -> Value {
    scene.json(&format!("select {field} from users")).await[0][field].clone()
}

#[tokio::test]
async fn every_field_on_the_list_can_be_set_and_cleared() {
    in_both_shapes_without_conversation(async |scene, _| {
        for (field, value) in [
            ("email", json!("ada@example.com")),
            ("first_name", json!("Augusta")),
            ("last_name", json!("O'King")),
            ("company", json!("Analytical Engines")),
            ("title", json!("Countess")),
            ("linkedin_url", json!("https://linkedin.example/ada")),
            ("verified", json!(true)),
            ("expert_connector", json!(true)),
            ("expertise", json!(["maths", "poetry, \"fine\""])),
            ("quiet_hours_start", json!("22:30:00")),
            ("quiet_hours_end", json!("08:00:00")),
            ("timezone", json!("Europe/London")),
            ("response_pattern", json!({ "user_goal": "fly" })),
        ] {
            for value in [value, Value::Null] {
                assert_eq!(
                    set(&scene, field, &value).await,
                    Outcome::complete(json!({ "field": field, "value": value, "source": "chat" }))
                );
                assert_eq!(stored(&scene, field).await, value, "{field}");
            }
        }
    })
    .await;
}

#[tokio::test]
async fn that_one_address_was_proven_says_nothing_of_another() {
    in_both_shapes_without_conversation(async |scene, _| {
        scene.db.execute("update users set email = 'ada@example.com', email_verified = true").await;
        for (field, value, verified) in [
            ("title", json!("Countess"), true),
            ("email", json!("ada@example.com"), true),
            ("email", json!("other@example.com"), false),
            ("email", json!("ada@example.com"), false),
        ] {
            set(&scene, field, &value).await;
            assert_eq!(stored(&scene, "email_verified").await, verified, "{field} = {value}");
        }
        scene.db.execute("update users set email_verified = true").await;
        set(&scene, "email", &Value::Null).await;
        assert_eq!(stored(&scene, "email_verified").await, false);
    })
    .await;
}

#[tokio::test]
async fn the_row_tells_when_it_was_last_changed() {
    in_both_shapes_without_conversation(async |scene, _| {
        scene.db.execute("update users set updated_at = '2020-01-01'").await;
        set(&scene, "title", &json!("Countess")).await;
        assert!(scene.db.value::<bool>("select updated_at > now() - interval '1 minute' from users").await);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_attempt_leaves_the_same_profile_and_answers_the_same() {
    in_both_shapes_without_conversation(async |scene, _| {
        let task = task(&scene, json!({ "field": "expertise", "value": ["maths"] })).await;
        let first = scene.run(&task).await;
        assert_eq!(scene.run(&task).await, first);
        assert_eq!(stored(&scene, "expertise").await, json!(["maths"]));
    })
    .await;
}

#[tokio::test]
async fn another_users_profile_is_left_alone() {
    in_both_shapes_without_conversation(async |scene, _| {
        scene.db.execute("insert into users (phone_number, title) values ('+1666', 'Baron')").await;
        set(&scene, "title", &json!("Countess")).await;
        let titles = scene.json("select title from users order by title").await;
        assert_eq!(titles, json!([{ "title": "Baron" }, { "title": "Countess" }]));
    })
    .await;
}

#[tokio::test]
async fn a_field_that_is_not_on_the_list_fails_for_good() {
    in_both_shapes_without_conversation(async |scene, _| {
        for field in ["credit_balance", "phone_number", "Email", "email = '', title"] {
            assert_eq!(
                failure(set(&scene, field, &json!("x")).await),
                format!("Field '{field}' is not allowed to be updated")
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_missing_field_or_value_fails_for_good() {
    in_both_shapes_without_conversation(async |scene, _| {
        for context in [
            json!({}),
            json!({ "field": "title" }),
            json!({ "value": "x" }),
            json!({ "field": "", "value": "x" }),
            json!({ "field": null, "value": "x" }),
        ] {
            let task = task(&scene, context).await;
            assert_eq!(failure(scene.run(&task).await), "Missing field or value in context");
        }
    })
    .await;
}

#[tokio::test]
async fn a_value_of_the_wrong_type_fails_for_good_and_says_what_the_field_wants() {
    in_both_shapes_without_conversation(async |scene, _| {
        for (field, value, wanted) in [
            ("verified", json!("maybe"), "true or false"),
            ("expertise", json!("x"), "a list of texts"),
            ("quiet_hours_start", json!("25:99"), "a time of day such as \"22:30\""),
            ("email", json!({ "a": 1 }), "a text"),
        ] {
            assert_eq!(
                failure(set(&scene, field, &value).await),
                format!("Field '{field}' must be {wanted}, not {value}")
            );
        }
    })
    .await;
}

#[tokio::test]
async fn a_text_too_long_for_its_column_fails_for_good_and_names_the_field() {
    in_both_shapes_without_conversation(async |scene, _| {
        let message = failure(set(&scene, "timezone", &json!("x".repeat(51))).await);
        assert!(
            message.starts_with("Field 'timezone' cannot be set to this value:")
                && message.contains("too long"),
            "{message}"
        );
    })
    .await;
}

#[tokio::test]
async fn a_user_who_is_not_there_may_be_there_later_but_nobody_never_is() {
    in_both_shapes_without_conversation(async |scene, _| {
        let mut task = task(&scene, json!({ "field": "title", "value": "x" })).await;
        let stranger = Uuid::new_v4();
        task.user_id = Some(stranger);
        assert_eq!(retryable(scene.run(&task).await), format!("User {stranger} not found"));
        task.user_id = None;
        let message = failure(scene.run(&task).await);
        assert!(message.contains("user_id"), "{message}");
    })
    .await;
}
