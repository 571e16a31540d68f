//! `send_introduction`: the connector gets a mail, by us or by others, and is asked a week later.

use serde_json::{Value, json};
use task_processor::Task;
use uuid::Uuid;

use super::customer::{Shape, in_both_shapes};
use super::{Scene, USER, completed, failure, retryable};
use crate::support::FakeSmtp;

const INTRO: &str = "00000000-0000-4000-8000-0000000000b1";

async fn task(scene: &Scene) -> Task {
    let context = json!({
        "introOpportunityId": INTRO, "connectorUserId": USER, "prospectName": "Tony", "innovatorName": "Rob",
    });
    scene.task("send_introduction", "intro_handler", &context).await
}

fn connector(shape: Shape) -> String {
    let (columns, names) = match shape {
        Shape::Notify => ("first_name, last_name", "'Tony', 'Katz'"),
        Shape::Webhook => ("prospect_name", "'Tony Katz'"),
    };
    format!(
        "update users set email = 'ada@example.com';
        insert into intro_opportunities (id, connector_user_id, prospect_company, innovator_name, status, {columns})
        values ('{INTRO}', '{USER}', 'IAB', 'Rob', 'accepted', {names});"
    )
}

async fn address(scene: &Scene) -> String {
    scene.db.value("select intro_email from intro_opportunities where intro_scheduled_at is not null").await
}

async fn followups(scene: &Scene) -> Value {
    scene
        .json(
            "select agent_type, user_id, context_id, context_type, context_json,
                scheduled_for between now() + interval '6 days 23 hours' and now() + interval '7 days' as week
            from agent_tasks where task_type = 'intro_followup_check'",
        )
        .await
}

#[tokio::test]
async fn the_connector_is_sent_a_mail_with_an_address_of_its_own_and_asked_a_week_later() {
    in_both_shapes(async |scene, shape| {
        scene.db.execute(&connector(shape)).await;
        let smtp = FakeSmtp::start("250 ok").await;
        let scene = scene.with_clients(&smtp.vars());
        let task = task(&scene).await;
        let result = completed(scene.run(&task).await);
        let address = address(&scene).await;
        assert_eq!(
            result,
            json!({
                "introOpportunityId": INTRO, "introEmail": address, "sent": true, "leftToOthersAsEvent": null,
            })
        );
        assert!(address.starts_with("intro-") && address.ends_with("@intro.yachtparty.xyz"), "{address}");
        let mails = smtp.mails();
        assert_eq!(mails.len(), 1);
        for part in [
            "To: ada@example.com",
            &format!("Reply-To: {address}"),
            "From: Yachtparty <hello@example.com>",
            "Subject: Introduction: Tony Katz and Rob",
            "Hi Ada,",
            "Tony Katz at IAB",
        ] {
            assert!(mails[0].contains(part), "{part} in {}", mails[0]);
        }
        assert_eq!(
            followups(&scene).await,
            json!([{
                "agent_type": "intro_handler", "user_id": USER, "context_id": INTRO,
                "context_type": "intro_opportunity", "context_json": { "introId": INTRO }, "week": true,
            }])
        );
        let first = completed(scene.run(&task).await);
        assert_eq!(first, result, "a repeated attempt answers the same");
        assert_eq!(smtp.mails().len(), 1, "and sends nothing more");
    })
    .await;
}

#[tokio::test]
async fn a_mail_server_that_never_answers_the_goodbye_is_sent_the_mail_once() {
    in_both_shapes(async |scene, shape| {
        scene.db.execute(&connector(shape)).await;
        let smtp = FakeSmtp::without_goodbye().await;
        let scene = scene.with_clients(&smtp.vars());
        let task = task(&scene).await;
        for _ in 0..2 {
            assert_eq!(completed(scene.run(&task).await)["sent"], true);
            assert_eq!(smtp.mails().len(), 1);
        }
    })
    .await;
}

#[tokio::test]
async fn without_a_mail_server_the_mail_is_left_to_others_as_an_event_and_the_result_says_so() {
    in_both_shapes(async |scene, shape| {
        scene.db.execute(&connector(shape)).await;
        let scene = scene.with_clients(&[("INTRO_EMAIL_DOMAIN", "in.example.org")]);
        let task = task(&scene).await;
        let result = completed(scene.run(&task).await);
        let address = address(&scene).await;
        assert!(address.ends_with("@in.example.org"), "{address}");
        let events =
            scene.json("select id, event_type, aggregate_id, aggregate_type, payload from events").await;
        let text = events[0]["payload"]["text"].clone();
        assert_eq!(
            events,
            json!([{
                "id": result["leftToOthersAsEvent"], "event_type": "intro.email_requested",
                "aggregate_id": INTRO, "aggregate_type": "intro_opportunity",
                "payload": {
                    "introId": INTRO, "connectorUserId": USER, "to": "ada@example.com", "replyTo": address,
                    "subject": "Introduction: Tony Katz and Rob", "text": text,
                },
            }])
        );
        assert_eq!(result["sent"], false);
        assert_eq!(followups(&scene).await.as_array().map(Vec::len), Some(1));
    })
    .await;
}

#[tokio::test]
async fn an_introduction_that_has_an_address_keeps_it() {
    in_both_shapes(async |scene, shape| {
        scene.db.execute(&connector(shape)).await;
        scene.db.execute("update intro_opportunities set intro_email = 'intro-1@example.com'").await;
        let task = task(&scene).await;
        assert_eq!(completed(scene.run(&task).await)["introEmail"], "intro-1@example.com");
        assert_eq!(address(&scene).await, "intro-1@example.com");
    })
    .await;
}

#[tokio::test]
async fn an_address_that_another_task_has_given_it_meanwhile_is_the_one_in_the_mail() {
    in_both_shapes(async |scene, shape| {
        scene.db.execute(&connector(shape)).await;
        let smtp = FakeSmtp::start("250 ok").await;
        let scene = scene.with_clients(&smtp.vars());
        let task = task(&scene).await;
        scene.db.execute("begin; update intro_opportunities set intro_email = 'intro-1@example.com'").await;
        let meanwhile = async {
            let waits = "select exists (
                select from pg_locks where not granted and pg_backend_pid() = any (pg_blocking_pids(pid))
            )";
            scene.db.eventually("the task waits for the other one", waits).await;
            scene.db.execute("commit").await;
        };
        let (outcome, ()) = tokio::join!(scene.run(&task), meanwhile);
        assert_eq!(completed(outcome)["introEmail"], "intro-1@example.com");
        let mails = smtp.mails();
        assert!(mails[0].contains("Reply-To: intro-1@example.com"), "{}", mails[0]);
        assert!(mails[0].contains("please put intro-1@example.com in copy"), "{}", mails[0]);
    })
    .await;
}

#[tokio::test]
async fn an_introduction_that_was_made_or_given_up_is_skipped() {
    in_both_shapes(async |scene, shape| {
        scene.db.execute(&connector(shape)).await;
        // Nobody has told its status yet.
        scene.db.execute("update intro_opportunities set intro_completed_at = now()").await;
        let made = task(&scene).await;
        let expected = json!({ "skipped": true, "reason": "Introduction is completed" });
        assert_eq!(completed(scene.run(&made).await), expected);
        scene.db.execute("update intro_opportunities set intro_completed_at = null").await;
        for status in ["completed", "cancelled", "rejected"] {
            scene.db.execute(&format!("update intro_opportunities set status = '{status}'")).await;
            let task = task(&scene).await;
            let reason = format!("Introduction is {status}");
            assert_eq!(completed(scene.run(&task).await), json!({ "skipped": true, "reason": reason }));
        }
        assert_eq!(scene.count("events").await, 0);
    })
    .await;
}

#[tokio::test]
async fn a_mail_server_that_is_busy_or_away_costs_a_retry_and_one_that_refuses_the_mail_is_final() {
    in_both_shapes(async |scene, shape| {
        scene.db.execute(&connector(shape)).await;
        let task = task(&scene).await;
        let Scene { db, services } = scene;
        let mut scene = Scene { db, services };
        for (answer, final_) in
            [("451 try later", false), ("530 authentication required", false), ("550 who?", true)]
        {
            let smtp = FakeSmtp::start(answer).await;
            scene = scene.with_clients(&smtp.vars());
            let outcome = scene.run(&task).await;
            let message = if final_ { failure(outcome) } else { retryable(outcome) };
            assert!(message.starts_with("the mail server"), "{message}");
        }
        scene = scene
            .with_clients(&[("SMTP_URL", "smtp://me:hunter2@127.0.0.1:1"), ("MAIL_FROM", "a@example.com")]);
        let message = retryable(scene.run(&task).await);
        assert!(!message.contains("hunter2"), "{message}");
        assert_eq!(scene.count("events").await, 0);
        assert_eq!(followups(&scene).await, json!([]));
    })
    .await;
}

#[tokio::test]
async fn an_attempt_cut_off_anywhere_and_repeated_acts_once() {
    in_both_shapes(async |scene, shape| {
        let task = task(&scene).await;
        scene.is_cut_off_anywhere(&task, &connector(shape)).await;
        let smtp = FakeSmtp::start("250 ok").await;
        let scene = scene.with_clients(&smtp.vars());
        scene.is_cut_off_anywhere(&task, &connector(shape)).await;
        let ids: std::collections::BTreeSet<String> = smtp
            .mails()
            .iter()
            .filter_map(|mail| mail.lines().find(|line| line.starts_with("Message-ID:")).map(str::to_owned))
            .collect();
        assert_eq!(ids.len(), 1, "a mail that was sent twice is known to be the same: {ids:?}");
    })
    .await;
}

#[tokio::test]
async fn what_is_not_there_may_be_there_later_and_wrong_input_fails_for_good() {
    in_both_shapes(async |scene, shape| {
        let task = task(&scene).await;
        assert_eq!(retryable(scene.run(&task).await), format!("Introduction {INTRO} not found"));
        scene.db.execute(&connector(shape)).await;
        for (field, value, message) in [
            ("introOpportunityId", Value::Null, "introOpportunityId is missing"),
            ("introOpportunityId", json!("x"), "context_json: introOpportunityId:"),
            ("connectorUserId", json!(Uuid::nil()), "connectorUserId 00000000"),
        ] {
            let mut task = task.clone();
            task.context[field] = value;
            let said = failure(scene.run(&task).await);
            assert!(said.starts_with(message), "{said}");
        }
        scene.db.execute("update users set email = null").await;
        let said = failure(scene.run(&task).await);
        assert_eq!(said, format!("users.email of the connector {USER} is missing"));
        scene.db.execute("update users set email = 'nonsense'").await;
        let smtp = FakeSmtp::start("250 ok").await;
        let scene = scene.with_clients(&smtp.vars());
        assert_eq!(failure(scene.run(&task).await), "to is not an e-mail address");
    })
    .await;
}
