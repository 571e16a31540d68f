//! `verify_user`: writes down what a user says or has proven, and asks a person to let them in. It lets nobody in.

#![expect(clippy::result_large_err, reason = "an outcome is the error here, and made once an attempt")]

use serde::Deserialize;
use serde_json::json;
use url::Url;

use super::store::events::{self, About, NewEvent};
use super::store::verification::{self, Identity, Standing};
use super::{require, skipped};
use crate::handler::{Handler, Outcome};
use crate::queue::Task;
use crate::services::{Services, effect_key};

/// Writes down what a user says or has proven, and asks a person to let them in.
pub(super) struct VerifyUser;

/// What the user says. With `verificationType` `email`, whoever adds the task vouches that the address has written to us.
#[derive(Deserialize)]
pub(super) struct Input {
    email: Option<String>,
    #[serde(alias = "linkedinUrl")]
    linkedin_url: Option<String>,
    #[serde(alias = "verificationType")]
    verification_type: Option<String>,
}

impl Handler for VerifyUser {
    const TASK_TYPE: &'static str = "verify_user";
    type Input = Input;

    async fn run(&self, input: Input, task: Task, services: Services) -> Outcome {
        verify(input, &task, &services).await.into()
    }
}

async fn verify(input: Input, task: &Task, services: &Services) -> Result<Outcome, Outcome> {
    const EFFECT: &str = "event";
    let user_id = require::user_id(task)?;
    let email = require::optional_text(input.email, "email", 255)?;
    let linkedin_url = require::optional_text(input.linkedin_url, "linkedin_url", 500)?;
    let kind = input.verification_type.as_deref().filter(|kind| !kind.is_empty()).unwrap_or("manual");
    let identity = Identity {
        email: email.as_deref(),
        email_is_proven: kind == "email",
        linkedin_url: linkedin_url.as_deref(),
    };
    check(&identity, kind)?;

    let published = events::find(services, effect_key(task.id, EFFECT)).await?;
    if published.is_none() && require::user(user_id, services).await?.verified {
        return Ok(skipped("User already verified"));
    }
    let standing = verification::record(services, user_id, &identity).await?;
    let standing = standing.ok_or_else(|| require::user_not_found(user_id))?;
    let event_type = match published {
        Some((event_type, _)) => event_type,
        None => {
            let event_type = event_type(&standing);
            let payload = if standing.is_complete() {
                json!({
                    "userId": user_id,
                    "onboarding_completed_at": chrono::Utc::now(),
                    "ready_for_manual_approval": true,
                })
            } else {
                json!({
                    "userId": user_id,
                    "verificationType": kind,
                    "email": identity.email,
                    "linkedinUrl": identity.linkedin_url,
                    "emailVerified": standing.email_verified,
                })
            };
            let event = NewEvent::of(task, EFFECT, event_type, About::User(user_id), payload);
            events::publish(services, &event).await?;
            event_type.to_owned()
        }
    };
    Ok(Outcome::complete(json!({
        "verificationType": kind,
        "emailVerified": standing.email_verified,
        "event": event_type,
    })))
}

fn check(identity: &Identity<'_>, kind: &str) -> Result<(), Outcome> {
    if identity.email.is_some_and(|email| !is_address(email)) {
        return Err(Outcome::fail("email is not an e-mail address"));
    }
    if identity.linkedin_url.is_some_and(|url| !is_linkedin(url)) {
        return Err(Outcome::fail("linkedin_url is not the address of a LinkedIn profile"));
    }
    match kind {
        "email" => require::field(identity.email, "email").map(drop),
        "linkedin" => require::field(identity.linkedin_url, "linkedin_url").map(drop),
        "manual" => Ok(()),
        _ => Err(Outcome::fail(format!("verificationType {kind:?} is none of email, linkedin, manual"))),
    }
}

fn event_type(standing: &Standing) -> &'static str {
    if standing.is_complete() { "user.onboarding_info_complete" } else { "user.verification.pending" }
}

impl Standing {
    /// All that a person needs to decide.
    fn is_complete(&self) -> bool {
        self.email_verified && self.has_profile
    }
}

fn is_address(text: &str) -> bool {
    let Some((name, host)) = text.rsplit_once('@') else { return false };
    let clean = |part: &str| !part.is_empty() && !part.contains(|c: char| c.is_whitespace() || c == '@');
    clean(name) && clean(host) && host.contains('.') && !host.starts_with('.') && !host.ends_with('.')
}

fn is_linkedin(text: &str) -> bool {
    let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
    Url::parse(&with_scheme).is_ok_and(|url| {
        matches!(url.scheme(), "http" | "https")
            && url.host_str().is_some_and(|host| host == "linkedin.com" || host.ends_with(".linkedin.com"))
    })
}
