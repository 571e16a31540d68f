//! `verify_user`: what is proven is written down, a person is asked, and nobody is let in.

use serde_json::{Value, json};
use task_processor::Task;
use uuid::Uuid;

use super::customer::in_both_shapes;
use super::{Scene, USER, completed, failure, retryable};

async fn task(scene: &Scene, context: &Value) -> Task {
    scene.task("verify_user", "bouncer", context).await
}

async fn user(scene: &Scene) -> Value {
    scene.json("select email, email_verified, verified, linkedin_url from users").await[0].clone()
}

async fn events(scene: &Scene) -> Value {
    scene
        .json(
            "select event_type, aggregate_id, aggregate_type, payload - 'onboarding_completed_at' as payload,
                payload ? 'onboarding_completed_at' as dated from events",
        )
        .await
}

/// An address of so many characters.
fn profile_url(length: usize) -> String {
    format!("{:x<length$}", "https://www.linkedin.com/in/")
}

/// All that a person needs to know to let the user in.
fn profile() -> String {
    "update users set last_name = 'L', company = 'C', title = 'T';".to_owned()
}

#[tokio::test]
async fn a_proven_address_of_a_complete_profile_is_ready_for_approval_and_approves_nothing() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&profile()).await;
        scene.db.execute("update users set email = 'said@example.com'").await;
        let task = task(&scene, &json!({ "email": "sent@example.com", "verificationType": "email" })).await;
        let expected = json!({
            "verificationType": "email", "emailVerified": true, "event": "user.onboarding_info_complete",
        });
        assert_eq!(completed(scene.run(&task).await), expected);
        assert_eq!(
            user(&scene).await,
            json!({ "email": "sent@example.com", "email_verified": true, "verified": false, "linkedin_url": null })
        );
        assert_eq!(
            events(&scene).await,
            json!([{
                "event_type": "user.onboarding_info_complete", "aggregate_id": USER, "aggregate_type": "user",
                "payload": { "userId": USER, "ready_for_manual_approval": true }, "dated": true,
            }])
        );
    })
    .await;
}

#[tokio::test]
async fn a_proven_address_of_an_incomplete_profile_is_pending() {
    in_both_shapes(async |scene, _| {
        let task = task(&scene, &json!({ "email": "sent@example.com", "verification_type": "email" })).await;
        assert_eq!(completed(scene.run(&task).await)["event"], "user.verification.pending");
        assert_eq!(user(&scene).await["email_verified"], true);
        assert_eq!(
            events(&scene).await[0]["payload"],
            json!({
                "userId": USER, "verificationType": "email", "email": "sent@example.com", "linkedinUrl": null,
                "emailVerified": true,
            })
        );
    })
    .await;
}

#[tokio::test]
async fn what_a_user_only_says_is_written_down_and_proves_nothing() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&profile()).await;
        let url = "https://www.linkedin.com/in/ada";
        let task = task(&scene, &json!({ "email": "said@example.com", "linkedin_url": url })).await;
        assert_eq!(completed(scene.run(&task).await)["event"], "user.verification.pending");
        assert_eq!(
            user(&scene).await,
            json!({ "email": "said@example.com", "email_verified": false, "verified": false, "linkedin_url": url })
        );
    })
    .await;
}

#[tokio::test]
async fn what_a_user_only_says_does_not_replace_what_was_proven() {
    in_both_shapes(async |scene, _| {
        scene.db.execute("update users set email = 'proven@example.com', email_verified = true").await;
        let task = task(&scene, &json!({ "email": "said@example.com" })).await;
        scene.run(&task).await;
        let user = user(&scene).await;
        assert_eq!((&user["email"], &user["email_verified"]), (&json!("proven@example.com"), &json!(true)));
    })
    .await;
}

#[tokio::test]
async fn a_profile_at_linkedin_is_written_down_for_a_person_to_look_at() {
    in_both_shapes(async |scene, _| {
        let context = json!({ "linkedinUrl": "linkedin.com/in/ada", "verificationType": "linkedin" });
        let task = task(&scene, &context).await;
        assert_eq!(completed(scene.run(&task).await)["event"], "user.verification.pending");
        assert_eq!(user(&scene).await["linkedin_url"], "linkedin.com/in/ada");
        assert_eq!(user(&scene).await["verified"], false);
    })
    .await;
}

#[tokio::test]
async fn the_address_of_a_profile_may_be_as_long_as_its_column() {
    in_both_shapes(async |scene, _| {
        let task = task(&scene, &json!({ "linkedin_url": profile_url(500) })).await;
        completed(scene.run(&task).await);
        assert_eq!(user(&scene).await["linkedin_url"], profile_url(500));
    })
    .await;
}

#[tokio::test]
async fn a_task_that_says_nothing_asks_a_person() {
    in_both_shapes(async |scene, _| {
        let task = task(&scene, &json!({})).await;
        assert_eq!(completed(scene.run(&task).await)["verificationType"], "manual");
        assert_eq!(events(&scene).await[0]["event_type"], "user.verification.pending");
    })
    .await;
}

#[tokio::test]
async fn a_user_who_was_let_in_is_skipped() {
    in_both_shapes(async |scene, _| {
        scene.db.execute("update users set verified = true").await;
        let task = task(&scene, &json!({ "email": "sent@example.com", "verificationType": "email" })).await;
        let expected = json!({ "skipped": true, "reason": "User already verified" });
        assert_eq!(completed(scene.run(&task).await), expected);
        assert_eq!(user(&scene).await["email"], Value::Null);
        assert_eq!(scene.count("events").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_repeated_attempt_answers_the_same_and_announces_once() {
    in_both_shapes(async |scene, _| {
        scene.db.execute(&profile()).await;
        let task = task(&scene, &json!({ "email": "sent@example.com", "verificationType": "email" })).await;
        let first = scene.run(&task).await;
        // Somebody has let the user in meanwhile, and the profile has changed.
        scene.db.execute("update users set verified = true, title = null").await;
        assert_eq!(scene.run(&task).await, first);
        assert_eq!(scene.count("events").await, 1);
        scene.is_cut_off_anywhere(&task, &profile()).await;
    })
    .await;
}

#[tokio::test]
async fn wrong_input_fails_for_good_and_names_the_field() {
    in_both_shapes(async |scene, _| {
        for (context, message) in [
            (json!({ "verificationType": "email" }), "email is missing"),
            (json!({ "verificationType": "linkedin" }), "linkedin_url is missing"),
            (json!({ "verificationType": "blood" }), "verificationType \"blood\" is none of"),
            (json!({ "email": "ada" }), "email is not an e-mail address"),
            (json!({ "email": "ada@home" }), "email is not an e-mail address"),
            (json!({ "email": "a b@example.com" }), "email is not an e-mail address"),
            (json!({ "email": "a@example.com\nBcc: x@example.com" }), "email is not an e-mail address"),
            (json!({ "email": "x".repeat(256) }), "email has 256 characters"),
            (
                json!({ "linkedin_url": "https://evil.example/linkedin.com" }),
                "linkedin_url is not the address",
            ),
            (json!({ "linkedin_url": "javascript://linkedin.com" }), "linkedin_url is not the address"),
            (json!({ "linkedin_url": profile_url(501) }), "linkedin_url has 501 characters, at most 500 fit"),
            (json!({ "email": 5 }), "context_json: email:"),
        ] {
            let task = task(&scene, &context).await;
            let said = failure(scene.run(&task).await);
            assert!(said.starts_with(message), "{context}: {said}");
        }
        let mut task = task(&scene, &json!({})).await;
        let stranger = Uuid::new_v4();
        task.user_id = Some(stranger);
        assert_eq!(retryable(scene.run(&task).await), format!("User {stranger} not found"));
        task.user_id = None;
        assert!(failure(scene.run(&task).await).starts_with("user_id is missing"));
        assert_eq!(scene.count("events").await, 0);
    })
    .await;
}
