//! The environment, read once into one typed [`Config`], with every mistake reported together.

mod check;
mod clients;
mod raw;
mod tokens;

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use secrecy::SecretString;
use url::Url;

use check::Check;
use raw::Raw;

pub(crate) use clients::is_loopback;
pub use raw::VARIABLES;

/// What the process needs to know, checked. Build one with [`Config::from_env`] or, in tests and tools, [`Config::from_vars`].
#[derive(Clone, Debug)]
pub struct Config {
    /// How to reach Postgres.
    pub database: DatabaseConfig,
    /// How tasks are claimed, run and retried.
    pub worker: WorkerConfig,
    /// Who may call, and where we listen.
    pub http: HttpConfig,
    /// The language model that handlers may ask. Absent: none is configured.
    pub model: Option<ModelConfig>,
    /// How handlers send mail.
    pub mail: MailConfig,
    /// What is deleted, and when; nothing by default.
    pub retention: Retention,
    /// `MIGRATE_ON_START`: bring an existing database up to date when the process starts.
    pub migrate_on_start: bool,
    /// How log lines look.
    pub log: LogConfig,
}

/// How to reach Postgres.
#[derive(Clone, Debug)]
pub struct DatabaseConfig {
    /// `DATABASE_URL`, or the one built from the Supabase variables. Any pooling mode will do.
    pub url: SecretString,
    /// `LISTEN_DATABASE_URL`: a connection that keeps its session, for LISTEN. Absent: `url`, where that can listen.
    pub listen_url: Option<SecretString>,
    /// `DATABASE_CA_CERT`: a PEM text, or the path of a PEM file, trusted beside the platform's roots.
    pub ca_cert: Option<String>,
    /// `DATABASE_POOL_SIZE`: connections this process may open, the one for LISTEN not counted.
    pub pool_size: usize,
}

/// How tasks are claimed, run and retried.
#[derive(Clone, Debug)]
pub struct WorkerConfig {
    /// `POLLING_INTERVAL_MS`: how often an idle worker looks without having been woken.
    pub polling_interval: Duration,
    /// `MAX_TASKS_PER_POLL`: the size of one claim. Absent: adapts to how quickly tasks end.
    pub max_tasks_per_poll: Option<usize>,
    /// `POLL_STRICT`: one claim per interval and no more, the seed's literal rate.
    pub poll_strict: bool,
    /// `POLL_MODE`.
    pub poll_mode: PollMode,
    /// `MAX_RETRIES` of a task whose row and type name none. 3 means at most four attempts.
    pub max_retries: u32,
    /// `CONCURRENCY`: handlers that run at the same time in this process.
    pub concurrency: usize,
    /// `TASK_TIMEOUT_SECONDS` of an attempt whose task and type name none.
    pub task_timeout: Duration,
    /// `LEASE_SECONDS`: how long an attempt may go without renewal before another process takes the task over.
    pub lease: Duration,
    /// `RETRY_BASE_SECONDS`: the wait before the first retry; it doubles with each.
    pub retry_base: Duration,
    /// `SHUTDOWN_GRACE_SECONDS`: how long running tasks may go on after SIGTERM.
    pub shutdown_grace: Duration,
    /// `ADOPT_WINDOW_HOURS`: running rows that an older processor left are taken over if they are no older than this.
    pub adopt_window: Duration,
}

/// When work is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PollMode {
    /// By a loop that runs as long as the process does.
    Background,
    /// Inside a request to `/trigger-poll` or `/process-task`, for a service that scales to zero.
    Request,
}

/// Who may call, and where we listen.
#[derive(Clone, Debug)]
pub struct HttpConfig {
    /// The address to listen on.
    pub host: std::net::IpAddr,
    /// `PORT`; 0 lets the system choose.
    pub port: u16,
    /// Bearer tokens that are accepted: `API_KEYS` and `SUPABASE_SERVICE_KEY`. Empty means closed.
    pub keys: Vec<SecretString>,
    /// Whose signed tokens are accepted beside them.
    pub tokens: TokenConfig,
    /// `METRICS_OPEN`: serve `/metrics` without a credential.
    pub metrics_open: bool,
    /// Let everyone in. Only `dev` sets it, and only on the loopback address.
    pub open: bool,
    /// Connections at a time: 2,048, save in tests, and never more than half of the files that may be open.
    pub max_connections: usize,
}

/// A language model behind an HTTP chat endpoint.
#[derive(Clone, Debug)]
pub struct ModelConfig {
    /// `LLM_PROVIDER`.
    pub provider: ModelProvider,
    /// `LLM_BASE_URL`: what comes before `/v1/messages` or `/chat/completions`. Plain HTTP only without a key or on loopback.
    pub base_url: Url,
    /// `LLM_API_KEY`; a server of one's own may do without.
    pub api_key: Option<SecretString>,
    /// `LLM_MODEL`: the model's name.
    pub model: String,
    /// `LLM_INPUT_USD_PER_MILLION`: US dollars for a million tokens read. Absent: costs are not known.
    pub input_price: Option<f64>,
    /// `LLM_OUTPUT_USD_PER_MILLION`: the same for tokens written.
    pub output_price: Option<f64>,
}

/// Which shape of API a language model has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ModelProvider {
    /// Anthropic's Messages API.
    Anthropic,
    /// The chat completions API of `OpenAI`, and of many others.
    OpenAiCompatible,
}

/// How mail is sent.
#[derive(Clone, Debug)]
pub struct MailConfig {
    /// `SMTP_URL` and `MAIL_FROM`. Absent: mail is left to others, as events.
    pub smtp: Option<SmtpConfig>,
    /// `INTRO_EMAIL_DOMAIN`: where the addresses of introductions are.
    pub intro_domain: String,
}

/// A mail server.
#[derive(Clone, Debug)]
pub struct SmtpConfig {
    /// `SMTP_URL`: `smtps://` or `smtp://` with user, password, host and port. Plain text only on loopback.
    pub url: SecretString,
    /// `MAIL_FROM`: the sender, `Name <address>` or just the address.
    pub from: String,
}

/// Whose signed tokens are accepted.
#[derive(Clone, Debug)]
pub struct TokenConfig {
    /// `JWT_SECRET`: tokens that are signed with it (HS256).
    pub jwt_secret: Option<SecretString>,
    /// `SUPABASE_URL/auth/v1`: tokens of this issuer. Its keys are at `/.well-known/jwks.json` below.
    pub supabase_issuer: Option<String>,
    /// `AUTH_MODE`.
    pub mode: AuthMode,
    /// Whether this is a Cloud Run service: elsewhere nobody checks tokens before us.
    pub on_cloud_run: bool,
    /// `OIDC_AUDIENCES`: for whom Google's tokens must be.
    pub oidc_audiences: Vec<String>,
    /// `OIDC_EMAILS`: whose Google's tokens must be. Without both lists none is accepted, but by `AuthMode::CloudRunIam`.
    pub oidc_emails: Vec<String>,
    /// Where Google publishes the keys of its tokens. Only tests have them elsewhere.
    pub google_keys_url: String,
}

/// Who checks the signatures of Google's tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthMode {
    /// We do.
    Verify,
    /// Cloud Run did, and has removed them: the service is behind IAM.
    CloudRunIam,
}

/// What is deleted, and when.
#[derive(Clone, Copy, Debug, Default)]
pub struct Retention {
    /// `RETENTION_DAYS`: ended tasks older than this are deleted.
    pub tasks: Option<Duration>,
    /// `LOG_RETENTION_DAYS`: log rows of tasks older than this are deleted.
    pub log: Option<Duration>,
}

/// How log lines look.
#[derive(Clone, Debug)]
pub struct LogConfig {
    /// `LOG_FORMAT`.
    pub format: LogFormat,
    /// `RUST_LOG`, as tracing-subscriber's `EnvFilter` reads it.
    pub filter: String,
    /// `GOOGLE_CLOUD_PROJECT`: the project whose traces the lines belong to.
    pub project: Option<String>,
    /// Whose errors these are, for Error Reporting: the Cloud Run service.
    pub service: String,
    /// And of which version: the Cloud Run revision, else our own version.
    pub version: String,
}

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// JSON on Cloud Run or where standard error is no terminal, else pretty.
    Auto,
    /// One JSON object a line, as Google Cloud Logging reads it.
    Json,
    /// For people.
    Pretty,
}

/// One wrong variable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// The variable's name.
    pub variable: &'static str,
    /// What is wrong with it, with its value unless it is secret.
    pub what: String,
    /// A value that would do.
    pub example: &'static str,
}

/// All that is wrong with the environment.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct ConfigError(
    /// In the order of [`VARIABLES`].
    pub Vec<Problem>,
);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = self.0.len();
        write!(f, "configuration error ({count} problem{})", if count == 1 { "" } else { "s" })?;
        for Problem { variable, what, example } in &self.0 {
            write!(f, "\n  {variable}: {what}; example: {variable}={example}")?;
        }
        Ok(())
    }
}

impl Config {
    /// Reads the process's environment. Variables that are empty or not UTF-8 count as absent.
    pub fn from_env() -> Result<Self, ConfigError> {
        Self::from_vars(env_vars())
    }

    /// Reads the given variables as [`Config::from_env`] would.
    pub fn from_vars<K, V>(vars: impl IntoIterator<Item = (K, V)>) -> Result<Self, ConfigError>
    where
        K: Into<String>,
        V: Into<String>,
    {
        let known: HashMap<String, String> = vars
            .into_iter()
            .map(|(name, value)| (name.into(), value.into().trim().to_owned()))
            .filter(|(name, value)| VARIABLES.contains(&name.as_str()) && !value.is_empty())
            .collect();
        let raw: Raw = envy::from_iter(known).expect("every field of Raw is an optional text");
        let mut check = Check::default();
        let config = check.config(&raw);
        check.problems.sort_by_key(|problem| VARIABLES.iter().position(|name| *name == problem.variable));
        if check.problems.is_empty() { Ok(config) } else { Err(ConfigError(check.problems)) }
    }
}

/// The variables of the process that are text.
#[must_use]
pub fn env_vars() -> HashMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect()
}

/// The revision this process belongs to, on Cloud Run.
#[must_use]
pub fn cloud_run_revision() -> Option<String> {
    platform("K_REVISION")
}

/// A variable that Cloud Run sets, and nobody else should.
fn platform(name: &str) -> Option<String> {
    env_vars().remove(name).filter(|value| !value.is_empty())
}

/// A name for this start of this process, for people and for the column `claimed_by`: never used twice.
#[must_use]
pub fn instance_name() -> String {
    let place =
        cloud_run_revision().or_else(|| env_vars().remove("HOSTNAME")).unwrap_or_else(|| "local".to_owned());
    let start = uuid::Uuid::new_v4().simple().to_string();
    format!("{place}/{}", &start[..12])
}
