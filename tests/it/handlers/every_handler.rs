//! What holds for every handler: what refusals of the database mean to it.

use task_processor::Outcome;
use uuid::Uuid;

use super::{Scene, failure, retryable};

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
