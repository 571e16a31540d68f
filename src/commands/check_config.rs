//! `check-config`: what the environment means, before anything is started.

use serde_json::json;

use super::output::Output;
use crate::config::{AuthMode, Config, HttpConfig, PollMode};
use crate::db::{Database, Target};

/// Revisions overlap during every rollout: for a moment there are twice as many instances.
const OVERLAP: usize = 2;

pub(super) fn run(output: &Output) -> anyhow::Result<i32> {
    use secrecy::ExposeSecret;
    let config = Config::from_env()?;
    let database = Database::new(&config.database)?;
    let listen: Target = match &config.database.listen_url {
        Some(url) => url.expose_secret().parse()?,
        None => database.target().clone(),
    };
    let listens = listen.can_listen() && config.worker.poll_mode == PollMode::Background;
    let connections = config.database.pool_size + usize::from(listens);
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
    let text = format!(
        "configuration is valid\n\
         database     {}\n\
         new tasks    {wake_up}\n\
         connections  {connections} per instance; budget = {connections} x instances x {OVERLAP} (revisions overlap), \
         so {} for 3 instances\n\
         concurrency  {} tasks per instance\n\
         API          {doors}",
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
    let iam = tokens.mode == AuthMode::CloudRunIam;
    let keys = match http.keys.len() {
        0 => None,
        1 => Some("1 key".to_owned()),
        keys => Some(format!("{keys} keys")),
    };
    let kinds = [
        (tokens.jwt_secret.is_some(), "tokens signed with JWT_SECRET"),
        (tokens.supabase_issuer.is_some(), "tokens of the Supabase project's services"),
        (google, "Google's tokens for OIDC_EMAILS"),
        (iam, "whom Cloud Run lets through"),
    ];
    let words = kinds.iter().filter(|(is_set, _)| *is_set).map(|(_, words)| (*words).to_owned());
    keys.into_iter().chain(words).collect()
}
