//! Adds a task in a transaction of your own: an order and the task to confirm it come into being together, or not at all.

use std::error::Error;

use serde_json::json;
use task_processor::queue::{NewTask, enqueue_in};
use tokio_postgres::{Client, NoTls};
use uuid::Uuid;

/// The task's id.
async fn order(client: &mut Client, item: &str) -> Result<Uuid, Box<dyn Error>> {
    let transaction = client.transaction().await?;
    let row = transaction.query_one("insert into orders (item) values ($1) returning id", &[&item]).await?;
    let number: i64 = row.get(0);
    let confirm = NewTask {
        unique_key: Some(format!("confirm-order-{number}")),
        ..NewTask::new("confirm_order", json!({ "order": number }))
    };
    let added = enqueue_in(&transaction, &[confirm]).await?;
    transaction.commit().await?;
    Ok(added[0].id)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let url = std::env::args().nth(1).ok_or("which database? Name its URL")?;
    let (mut client, connection) = tokio_postgres::connect(&url, NoTls).await?;
    tokio::spawn(connection);
    order(&mut client, "a book").await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use task_processor::testing::TestDatabase;

    use super::*;

    const ORDERS: &str = "
        create table orders (id bigint generated always as identity primary key, item text not null check (item <> ''))";

    #[tokio::test]
    async fn an_order_and_its_task_are_added_together_or_not_at_all() {
        let db = TestDatabase::new().await;
        db.execute(ORDERS).await;
        let (mut client, connection) = tokio_postgres::connect(db.url(), NoTls).await.expect("a connection");
        tokio::spawn(connection);

        let id = order(&mut client, "a book").await.expect("an order");
        let task = db.queue().get(id).await.expect("an answer").expect("a task");
        assert_eq!(task["context_json"], json!({ "order": 1 }));

        let transaction = client.transaction().await.expect("a transaction");
        let task = NewTask::new("confirm_order", json!({ "order": 2 }));
        let lost = enqueue_in(&transaction, &[task]).await.expect("a task")[0].id;
        transaction.rollback().await.expect("an answer");
        assert!(db.queue().get(lost).await.expect("an answer").is_none());
    }
}
