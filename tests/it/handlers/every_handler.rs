//! What holds for every handler: how its input is read, and what refusals of the database mean to it.

use serde_json::{Value, json};
use task_processor::Outcome;
use uuid::Uuid;

use super::customer::in_both_shapes;
use super::{Scene, completed, failure, retryable};

#[tokio::test]
async fn the_fields_of_an_input_have_names_and_are_not_read_from_an_array() {
    in_both_shapes(async |scene, _| {
        for (task_type, context) in [
            ("schedule_followup", json!(["call me"])),
            ("update_user_profile", json!(["title", "Countess", null])),
            ("schedule_followup", json!([])),
        ] {
            let task = scene.task(task_type, "concierge", &context).await;
            let message = failure(scene.run(&task).await);
            assert_eq!(message, "context_json: invalid type: sequence, expected an object");
        }
        assert_eq!(scene.count("messages").await, 0);
        assert_eq!(scene.db.value::<Option<String>>("select title from users").await, None);
    })
    .await;
}

#[tokio::test]
async fn an_echo_returns_whatever_it_is_given() {
    let scene = Scene::at_the_customers(super::customer::Shape::Notify).await;
    let switched_on = json!([5, 1, "no"]);
    for context in
        [json!({ "a": 1 }), switched_on, json!([]), json!("text"), json!(7), json!(true), Value::Null]
    {
        let task = scene.task("echo", "test", &context).await;
        assert_eq!(completed(scene.run(&task).await), context);
    }
    let task = scene.task("echo", "test", &json!({ "panic": "maybe" })).await;
    let message = failure(scene.run(&task).await);
    assert!(message.starts_with("context_json: panic: invalid type"), "{message}");
}

#[tokio::test]
async fn a_row_that_refers_to_one_that_is_not_there_yet_may_be_written_later_and_other_refusals_are_final() {
    let scene = Scene::empty().await;
    let refused = async |values: &str| {
        let sql = format!("insert into users (id, phone_number, referred_by) values ({values})");
        Outcome::from(scene.services.query(&sql, &[]).await.expect_err("refused"))
    };
    let message = retryable(refused("gen_random_uuid(), '+1', gen_random_uuid()").await);
    assert!(message.ends_with("(23503)"), "{message}");
    let own = Uuid::new_v4();
    scene.db.execute(&format!("insert into users (id, phone_number) values ('{own}', '+1')")).await;
    for (values, code) in [
        (format!("'{own}', '+2', null"), "(23505)"),
        ("gen_random_uuid(), null, null".to_owned(), "(23502)"),
        ("gen_random_uuid(), repeat('1', 21), null".to_owned(), "(22001)"),
    ] {
        let message = failure(refused(&values).await);
        assert!(message.ends_with(code), "{message}");
    }
}
