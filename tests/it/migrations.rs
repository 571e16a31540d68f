//! Migrations: on nothing, on a customer's tables, again, and by several processes at once.

use task_processor::db::{Database, SchemaState, migrate, schema_state};

use crate::support::TestDb;

fn database(db: &TestDb) -> Database {
    Database::new(&db.config(&[]).database).expect("a usable URL")
}

#[tokio::test]
async fn an_empty_database_becomes_current() {
    let db = TestDb::empty().await;
    let database = database(&db);
    assert_eq!(schema_state(&database).await.unwrap(), SchemaState::Empty);
    assert!(!migrate(&database).await.unwrap().applied.is_empty());
    assert_eq!(schema_state(&database).await.unwrap(), SchemaState::Current);
}
