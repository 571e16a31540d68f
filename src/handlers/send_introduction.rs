//! `send_introduction`: asks a connector by mail to make an introduction, with an address in copy that tells us of it.

#![expect(clippy::result_large_err, reason = "an outcome is the error here, and made once an attempt")]

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use uuid::Uuid;

use super::store::events::{self, About, NewEvent};
use super::store::intros::{self, Intro};
use super::store::users::User;
use super::{require, skipped};
use crate::clients::{Mail, MailError, Mailer};
use crate::handler::{Handler, Outcome};
use crate::queue::{NewTask, Task};
use crate::services::{Services, effect_key};

/// Asks a connector by mail to make an introduction.
pub(super) struct SendIntroduction;

const UNTIL_FOLLOWUP: Duration = Duration::from_hours(7 * 24);

/// Which introduction, and who is to make it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Input {
    intro_opportunity_id: Option<Uuid>,
    connector_user_id: Option<Uuid>,
    prospect_name: Option<String>,
    innovator_name: Option<String>,
}

/// A mail that is ready to go.
struct Letter {
    intro_id: Uuid,
    connector_id: Uuid,
    to: String,
    intro_email: String,
    subject: String,
    /// The mail up to where it names `intro_email`.
    opening: String,
}

impl Handler for SendIntroduction {
    const TASK_TYPE: &'static str = "send_introduction";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, services: Services) -> Outcome {
        introduce(input, &task, &services).await.into()
    }
}

async fn introduce(input: Input, task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    let intro_id = require::field(input.intro_opportunity_id.or(task.context_id), "introOpportunityId")?;
    let intro = require::found(intros::find(services, intro_id).await?, "Introduction", intro_id)?;
    if !intro.is_open() {
        return Ok(skipped(format!("Introduction is {}", intro.status)));
    }
    let connector_id = connector(&input, &intro, task)?;
    let connector = require::user(connector_id, services).await?;
    let mut letter = compose(input, &intro, (intro_id, connector_id), &connector, task, services)?;

    // Another task may have given it an address meanwhile.
    let intro_email = intros::schedule(services, intro_id, &letter.intro_email).await?;
    letter.intro_email = require::found(intro_email, "Introduction", intro_id)?;
    let event_id = match services.mailer() {
        Some(mailer) => {
            send(&letter, mailer, task, services).await?;
            None
        }
        None => Some(leave_to_others(&letter, task, services).await?),
    };
    services.queue().enqueue_one(followup(&letter)).await?;
    Ok(Outcome::complete(json!({
        "introOpportunityId": intro_id,
        "introEmail": letter.intro_email,
        "sent": event_id.is_none(),
        "leftToOthersAsEvent": event_id,
    })))
}

fn connector(input: &Input, intro: &Intro, task: &Task) -> Result<Uuid, Outcome> {
    let said = input.connector_user_id.or(task.user_id);
    match (intro.connector_id, said) {
        (Some(connector), Some(said)) if connector != said => {
            Err(Outcome::fail(format!("connectorUserId {said} is not the connector of the introduction")))
        }
        (connector, said) => require::field(connector.or(said), "connectorUserId"),
    }
}

#[expect(clippy::too_many_arguments, reason = "a letter is made of all of this")]
fn compose(
    input: Input,
    intro: &Intro,
    (intro_id, connector_id): (Uuid, Uuid),
    connector: &User,
    task: &Task,
    services: &Services,
) -> Result<Letter, Outcome> {
    let prospect = require::field(intro.prospect_name.clone().or(input.prospect_name), "prospectName")?;
    let prospect = one_line(&prospect);
    let innovator = intro.innovator_name.clone().or(input.innovator_name);
    let innovator = innovator.map_or_else(|| "a member of our network".to_owned(), |name| one_line(&name));
    let to = connector
        .email
        .clone()
        .ok_or_else(|| Outcome::fail(format!("users.email of the connector {connector_id} is missing")))?;
    let name = connector.first_name.as_deref().unwrap_or("there");
    let company = intro.prospect_company.as_deref().map(|company| format!(" at {}", one_line(company)));
    let unique = effect_key(task.id, "intro_email").simple();
    let intro_email =
        intro.email.clone().unwrap_or_else(|| format!("intro-{unique}@{}", services.intro_domain()));
    let opening = format!(
        "Hi {name},\n\nthank you for being open to introducing {prospect}{} to {innovator}.",
        company.unwrap_or_default()
    );
    let subject = format!("Introduction: {prospect} and {innovator}");
    Ok(Letter { intro_id, connector_id, to, intro_email, subject, opening })
}

impl Letter {
    fn text(&self) -> String {
        format!(
            "{}\n\nWhen you write to them, please put {} in copy, so that we know it has happened.\n\n\
             No pressure: if it no longer suits you, just answer this mail.\n",
            self.opening, self.intro_email
        )
    }
}

/// Once it is known to be sent it is not sent again. A process that dies in between sends it twice, under one Message-ID,
/// and so does a server that takes it and does not say so in time.
async fn send(letter: &Letter, mailer: &Mailer, task: &Task, services: &Services) -> Result<(), Outcome> {
    const EFFECT: &str = "sent";
    if events::find(services, effect_key(task.id, EFFECT)).await?.is_some() {
        return Ok(());
    }
    let mail = Mail {
        id: effect_key(task.id, "mail"),
        to: &letter.to,
        reply_to: &letter.intro_email,
        subject: &letter.subject,
        text: &letter.text(),
    };
    mailer.send(mail).await.map_err(|error| match error {
        MailError::Failed(_) => Outcome::retry(error),
        MailError::Address(_) | MailError::Refused(_) => Outcome::fail(error),
    })?;
    let payload = json!({
        "introId": letter.intro_id,
        "connectorUserId": letter.connector_id,
        "introEmail": letter.intro_email,
        "mailId": mail.id,
    });
    let about = About::IntroOpportunity(letter.intro_id);
    let event = NewEvent::of(task, EFFECT, "intro.email_sent", about, payload);
    Ok(events::publish(services, &event).await?)
}

/// Writes the mail as an event, for whoever sends mail here.
async fn leave_to_others(letter: &Letter, task: &Task, services: &Services) -> Result<Uuid, Outcome> {
    let payload = json!({
        "introId": letter.intro_id,
        "connectorUserId": letter.connector_id,
        "to": letter.to,
        "replyTo": letter.intro_email,
        "subject": letter.subject,
        "text": letter.text(),
    });
    let about = About::IntroOpportunity(letter.intro_id);
    let event = NewEvent::of(task, "event", "intro.email_requested", about, payload);
    events::publish(services, &event).await?;
    Ok(event.id)
}

fn followup(letter: &Letter) -> NewTask {
    NewTask {
        agent_type: "intro_handler".to_owned(),
        user_id: Some(letter.connector_id),
        context_id: Some(letter.intro_id),
        context_type: Some("intro_opportunity".to_owned()),
        delay: UNTIL_FOLLOWUP,
        created_by: Some("task_processor".to_owned()),
        unique_key: Some(format!("intro_followup_check:{}", letter.intro_id)),
        ..NewTask::new("intro_followup_check", json!({ "introId": letter.intro_id }))
    }
}

/// Names become part of a header.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}
