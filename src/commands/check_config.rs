//! `check-config`: what the environment means, before anything is started.

use serde_json::json;

use super::budget::{Budget, OVERLAP};
use super::output::Output;
use crate::clients::Clients;
use crate::config::{Config, HttpConfig, PollMode};
use crate::db::Database;

pub(super) fn run(output: &Output) -> anyhow::Result<i32> {
    let config = Config::from_env()?;
    let database = Database::new(&config.database)?;
    Clients::new(&config)?;
    let Budget { connections, listen, listens } = Budget::of(&config, &database)?;
    let worker = &config.worker;
    let value = json!({
        "database": database.target().describe(),
        "transactionPooler": database.target().transaction_pooler,
        "listen": listens.then(|| listen.describe()),
        "connectionsPerInstance": connections,
        "connectionsForThreeInstances": connections * 3 * OVERLAP,
        "concurrency": worker.concurrency,
        "leaseSeconds": worker.lease.as_secs(),
        "keys": config.http.keys.len(),
        "languageModel": config.model.as_ref().map(|model| &model.model),
        "mail": config.mail.smtp.is_some(),
        "credentials": credentials(&config.http),
    });
    let wake_up = match (worker.poll_mode, listens) {
        (PollMode::Request, _) => "only inside requests (POLL_MODE=request)".to_owned(),
        (_, true) => format!("at once, by LISTEN on {}", listen.describe()),
        (_, false) => {
            format!("by polling every {} ms: set LISTEN_DATABASE_URL", worker.polling_interval.as_millis())
        }
    };
    let doors = match credentials(&config.http) {
        none if none.is_empty() => "closed: set API_KEYS, or another credential".to_owned(),
        some => format!("open to {}", some.join(", ")),
    };
    let model = config.model.as_ref().map_or("none: set LLM_PROVIDER", |model| model.model.as_str());
    let mail = if config.mail.smtp.is_some() { "by SMTP" } else { "left to others, as events: set SMTP_URL" };
    let text = format!(
        "configuration is valid\n\
         database     {}\n\
         new tasks    {wake_up}\n\
         connections  {connections} per instance; budget = {connections} x instances x {OVERLAP} (revisions overlap), \
         so {} for 3 instances\n\
         concurrency  {} tasks per instance\n\
         API          {doors}\n\
         model        {model}\n\
         mail         {mail}",
        database.target().describe(),
        connections * 3 * OVERLAP,
        worker.concurrency,
    );
    output.answer(&value, text);
    Ok(0)
}

/// What opens the doors, in words.
fn credentials(http: &HttpConfig) -> Vec<String> {
    let tokens = &http.tokens;
    let google = !tokens.oidc_audiences.is_empty() && !tokens.oidc_emails.is_empty();
    let keys = match http.keys.len() {
        0 => None,
        1 => Some("1 key".to_owned()),
        keys => Some(format!("{keys} keys")),
    };
    let kinds = [
        (tokens.jwt_secret.is_some(), "tokens signed with JWT_SECRET"),
        (tokens.supabase_issuer.is_some(), "tokens of the Supabase project's services"),
        (google, "Google's tokens for OIDC_EMAILS"),
        (tokens.is_behind_iam(), "whom Cloud Run lets through"),
    ];
    let words = kinds.iter().filter(|(is_set, _)| *is_set).map(|(_, words)| (*words).to_owned());
    keys.into_iter().chain(words).collect()
}
