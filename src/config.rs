//! The environment, read once into one typed [`Config`], with every mistake reported together.

use std::collections::HashMap;
use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use url::Url;

/// Every variable that is read, in the order of `.env.example`.
pub const VARIABLES: &[&str] = &[
    "DATABASE_URL",
    "DATABASE_CA_CERT",
    "LISTEN_DATABASE_URL",
    "DATABASE_POOL_SIZE",
    "SUPABASE_URL",
    "SUPABASE_SERVICE_KEY",
    "SUPABASE_DB_PASSWORD",
    "SUPABASE_REGION",
    "PORT",
    "POLLING_INTERVAL_MS",
    "MAX_TASKS_PER_POLL",
    "POLL_STRICT",
    "POLL_MODE",
    "MAX_RETRIES",
    "CONCURRENCY",
    "TASK_TIMEOUT_SECONDS",
    "LEASE_SECONDS",
    "RETRY_BASE_SECONDS",
    "SHUTDOWN_GRACE_SECONDS",
    "MIGRATE_ON_START",
    "ADOPT_WINDOW_HOURS",
    "API_KEYS",
    "JWT_SECRET",
    "AUTH_MODE",
    "OIDC_AUDIENCES",
    "OIDC_EMAILS",
    "METRICS_OPEN",
    "LLM_PROVIDER",
    "LLM_BASE_URL",
    "LLM_API_KEY",
    "LLM_MODEL",
    "LLM_INPUT_USD_PER_MILLION",
    "LLM_OUTPUT_USD_PER_MILLION",
    "SMTP_URL",
    "MAIL_FROM",
    "INTRO_EMAIL_DOMAIN",
    "RETENTION_DAYS",
    "LOG_RETENTION_DAYS",
    "LOG_FORMAT",
    "RUST_LOG",
    "GOOGLE_CLOUD_PROJECT",
];

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

/// The variables as they come: envy's part. All text, so that no value is ever echoed by a parser.
#[derive(Deserialize)]
struct Raw {
    database_url: Option<SecretString>,
    database_ca_cert: Option<String>,
    listen_database_url: Option<SecretString>,
    database_pool_size: Option<String>,
    supabase_url: Option<String>,
    supabase_service_key: Option<SecretString>,
    supabase_db_password: Option<SecretString>,
    supabase_region: Option<String>,
    port: Option<String>,
    polling_interval_ms: Option<String>,
    max_tasks_per_poll: Option<String>,
    poll_strict: Option<String>,
    poll_mode: Option<String>,
    max_retries: Option<String>,
    concurrency: Option<String>,
    task_timeout_seconds: Option<String>,
    lease_seconds: Option<String>,
    retry_base_seconds: Option<String>,
    shutdown_grace_seconds: Option<String>,
    migrate_on_start: Option<String>,
    adopt_window_hours: Option<String>,
    api_keys: Option<SecretString>,
    jwt_secret: Option<SecretString>,
    auth_mode: Option<String>,
    oidc_audiences: Option<String>,
    oidc_emails: Option<String>,
    metrics_open: Option<String>,
    llm_provider: Option<String>,
    llm_base_url: Option<String>,
    llm_api_key: Option<SecretString>,
    llm_model: Option<String>,
    llm_input_usd_per_million: Option<String>,
    llm_output_usd_per_million: Option<String>,
    smtp_url: Option<SecretString>,
    mail_from: Option<String>,
    intro_email_domain: Option<String>,
    retention_days: Option<String>,
    log_retention_days: Option<String>,
    log_format: Option<String>,
    rust_log: Option<String>,
    google_cloud_project: Option<String>,
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

#[derive(Default)]
struct Check {
    problems: Vec<Problem>,
}

impl Check {
    fn config(&mut self, raw: &Raw) -> Config {
        Config {
            database: self.database(raw),
            worker: self.worker(raw),
            http: self.http(raw),
            model: self.model(raw),
            mail: self.mail(raw),
            retention: Retention {
                tasks: self.days("RETENTION_DAYS", raw.retention_days.as_deref()),
                log: self.days("LOG_RETENTION_DAYS", raw.log_retention_days.as_deref()),
            },
            migrate_on_start: self.flag("MIGRATE_ON_START", raw.migrate_on_start.as_deref()),
            log: LogConfig {
                format: self.choice(
                    "LOG_FORMAT",
                    raw.log_format.as_deref(),
                    &[("auto", LogFormat::Auto), ("json", LogFormat::Json), ("pretty", LogFormat::Pretty)],
                ),
                filter: raw.rust_log.clone().unwrap_or_else(|| "info,tokio_postgres=info".to_owned()),
                project: raw.google_cloud_project.clone(),
                service: platform("K_SERVICE").unwrap_or_else(|| env!("CARGO_PKG_NAME").to_owned()),
                version: cloud_run_revision().unwrap_or_else(|| env!("CARGO_PKG_VERSION").to_owned()),
            },
        }
    }

    fn database(&mut self, raw: &Raw) -> DatabaseConfig {
        let (url, listen_url) = match (&raw.database_url, supabase_urls(raw)) {
            (Some(url), _) => (url.clone(), raw.listen_database_url.clone()),
            (None, Some((url, listen_url))) => (url, raw.listen_database_url.clone().or(Some(listen_url))),
            (None, None) => {
                self.problem(
                    "DATABASE_URL",
                    "missing: a service key cannot open a Postgres connection. On Supabase copy it from Connect \u{2192} \
                     Session pooler, or set SUPABASE_URL, SUPABASE_DB_PASSWORD and SUPABASE_REGION",
                    "postgres://postgres.<ref>:<password>@aws-0-<region>.pooler.supabase.com:5432/postgres",
                );
                (SecretString::default(), None)
            }
        };
        for (variable, url) in [("DATABASE_URL", Some(&url)), ("LISTEN_DATABASE_URL", listen_url.as_ref())] {
            if let Some(url) = url.filter(|url| !url.expose_secret().is_empty()) {
                self.postgres_url(variable, url);
            }
        }
        DatabaseConfig {
            url,
            listen_url,
            ca_cert: raw.database_ca_cert.clone(),
            pool_size: self.number("DATABASE_POOL_SIZE", raw.database_pool_size.as_deref(), 4, 3..=100, "4"),
        }
    }

    fn worker(&mut self, raw: &Raw) -> WorkerConfig {
        let seconds = Duration::from_secs;
        let day = 86_400;
        WorkerConfig {
            polling_interval: Duration::from_millis(self.number(
                "POLLING_INTERVAL_MS",
                raw.polling_interval_ms.as_deref(),
                30_000,
                100..=day * 1000,
                "30000",
            )),
            max_tasks_per_poll: raw
                .max_tasks_per_poll
                .as_deref()
                .map(|text| self.number("MAX_TASKS_PER_POLL", Some(text), 10, 1..=1000, "10")),
            poll_strict: self.flag("POLL_STRICT", raw.poll_strict.as_deref()),
            poll_mode: self.choice(
                "POLL_MODE",
                raw.poll_mode.as_deref(),
                &[("background", PollMode::Background), ("request", PollMode::Request)],
            ),
            max_retries: self.number("MAX_RETRIES", raw.max_retries.as_deref(), 3, 0..=30, "3"),
            concurrency: self.number("CONCURRENCY", raw.concurrency.as_deref(), 10, 1..=10_000, "10"),
            task_timeout: seconds(self.number(
                "TASK_TIMEOUT_SECONDS",
                raw.task_timeout_seconds.as_deref(),
                300,
                1..=7 * day,
                "300",
            )),
            lease: seconds(self.number("LEASE_SECONDS", raw.lease_seconds.as_deref(), 30, 2..=3600, "30")),
            retry_base: seconds(self.number(
                "RETRY_BASE_SECONDS",
                raw.retry_base_seconds.as_deref(),
                60,
                1..=day,
                "60",
            )),
            shutdown_grace: seconds(self.number(
                "SHUTDOWN_GRACE_SECONDS",
                raw.shutdown_grace_seconds.as_deref(),
                7,
                0..=3600,
                "7",
            )),
            adopt_window: seconds(
                3600 * self.number("ADOPT_WINDOW_HOURS", raw.adopt_window_hours.as_deref(), 1, 0..=8760, "1"),
            ),
        }
    }

    fn http(&mut self, raw: &Raw) -> HttpConfig {
        let listed = list(raw.api_keys.as_ref().map(ExposeSecret::expose_secret));
        if listed.iter().any(|key| key.len() < 16) {
            self.problem(
                "API_KEYS",
                "has a key of fewer than 16 characters",
                "$(openssl rand -hex 32),$(openssl rand -hex 32)",
            );
        }
        let mut keys: Vec<SecretString> = listed.into_iter().map(SecretString::from).collect();
        keys.extend(raw.supabase_service_key.clone());
        HttpConfig {
            host: std::net::IpAddr::from([0, 0, 0, 0]),
            port: self.number("PORT", raw.port.as_deref(), 8080, 0..=65_535, "8080"),
            keys,
            tokens: self.tokens(raw),
            metrics_open: self.flag("METRICS_OPEN", raw.metrics_open.as_deref()),
            open: false,
        }
    }

    fn model(&mut self, raw: &Raw) -> Option<ModelConfig> {
        let (input_price, output_price) = (
            self.price("LLM_INPUT_USD_PER_MILLION", raw.llm_input_usd_per_million.as_deref()),
            self.price("LLM_OUTPUT_USD_PER_MILLION", raw.llm_output_usd_per_million.as_deref()),
        );
        let Some(provider) = raw.llm_provider.as_deref() else {
            if raw.llm_model.is_some() || raw.llm_api_key.is_some() || raw.llm_base_url.is_some() {
                self.problem("LLM_PROVIDER", "missing: the other LLM_ variables need it", "anthropic");
            }
            return None;
        };
        let provider = self.choice(
            "LLM_PROVIDER",
            Some(provider),
            &[
                ("anthropic", ModelProvider::Anthropic),
                ("openai-compatible", ModelProvider::OpenAiCompatible),
            ],
        );
        if raw.llm_model.is_none() {
            self.problem("LLM_MODEL", "missing: LLM_PROVIDER needs it", "claude-sonnet-4-5");
        }
        if raw.llm_api_key.is_none() && provider == ModelProvider::Anthropic {
            self.problem("LLM_API_KEY", "missing: LLM_PROVIDER=anthropic needs it", "sk-ant-...");
        }
        let base_url = self.model_url(provider, raw)?;
        Some(ModelConfig {
            provider,
            base_url,
            api_key: raw.llm_api_key.clone(),
            model: raw.llm_model.clone()?,
            input_price,
            output_price,
        })
    }

    fn model_url(&mut self, provider: ModelProvider, raw: &Raw) -> Option<Url> {
        let example = match provider {
            ModelProvider::Anthropic => "https://api.anthropic.com",
            ModelProvider::OpenAiCompatible => "https://api.openai.com/v1",
        };
        let text = raw.llm_base_url.as_deref().unwrap_or(example);
        let url = Url::parse(text).ok().filter(|url| {
            matches!(url.scheme(), "http" | "https")
                && url.has_host()
                && url.username().is_empty()
                && url.query().is_none()
        });
        let Some(url) = url else {
            self.problem("LLM_BASE_URL", "is no http(s) URL without user and query", example);
            return None;
        };
        if url.scheme() == "http" && raw.llm_api_key.is_some() && !is_loopback(&url) {
            self.problem("LLM_BASE_URL", "would send LLM_API_KEY in plain text", example);
        }
        Some(url)
    }

    fn mail(&mut self, raw: &Raw) -> MailConfig {
        const DOMAIN: &str = "intro.yachtparty.xyz";
        let domain = raw.intro_email_domain.as_deref().unwrap_or(DOMAIN);
        let is_domain = domain.contains('.')
            && domain.split('.').all(|label| {
                !label.is_empty() && label.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
            });
        if !is_domain {
            self.problem("INTRO_EMAIL_DOMAIN", format!("{domain:?} is no domain"), DOMAIN);
        }
        MailConfig { smtp: self.smtp(raw), intro_domain: domain.to_owned() }
    }

    fn smtp(&mut self, raw: &Raw) -> Option<SmtpConfig> {
        const URL: &str = "smtps://user:password@smtp.example.com:465";
        let from = raw.mail_from.clone();
        let Some(secret) = &raw.smtp_url else {
            if from.is_some() {
                self.problem("SMTP_URL", "missing: MAIL_FROM is of no use without it", URL);
            }
            return None;
        };
        if from.as_deref().is_none_or(|from| from.parse::<lettre::message::Mailbox>().is_err()) {
            self.problem(
                "MAIL_FROM",
                "must be an address, since SMTP_URL is set",
                "Yachtparty <hello@example.com>",
            );
        }
        match Url::parse(secret.expose_secret()) {
            Ok(url) if matches!(url.scheme(), "smtp" | "smtps") && url.has_host() => {
                let encrypts = url.scheme() == "smtps" || url.query() == Some("tls=required");
                if !encrypts && !is_loopback(&url) {
                    self.problem(
                        "SMTP_URL",
                        "would send mail in plain text: use smtps://, or smtp:// with ?tls=required",
                        URL,
                    );
                }
            }
            _ => self.problem("SMTP_URL", "does not begin with smtp:// or smtps:// and name a host", URL),
        }
        Some(SmtpConfig { url: secret.clone(), from: from? })
    }

    fn price(&mut self, variable: &'static str, text: Option<&str>) -> Option<f64> {
        let text = text?;
        let price =
            text.parse().ok().filter(|price: &f64| price.is_finite() && (0.0..=100_000.0).contains(price));
        if price.is_none() {
            self.problem(variable, format!("{text:?} is not an amount of US dollars"), "3.00");
        }
        price
    }

    fn tokens(&mut self, raw: &Raw) -> TokenConfig {
        if raw.jwt_secret.as_ref().is_some_and(|secret| secret.expose_secret().len() < 32) {
            self.problem("JWT_SECRET", "has fewer than 32 characters", "$(openssl rand -hex 32)");
        }
        let mode = self.choice(
            "AUTH_MODE",
            raw.auth_mode.as_deref(),
            &[("verify", AuthMode::Verify), ("cloud_run_iam", AuthMode::CloudRunIam)],
        );
        let oidc_audiences = list(raw.oidc_audiences.as_deref());
        let oidc_emails = list(raw.oidc_emails.as_deref());
        if mode == AuthMode::Verify && oidc_audiences.is_empty() != oidc_emails.is_empty() {
            let (missing, example) = match oidc_emails.is_empty() {
                true => ("OIDC_EMAILS", "scheduler@my-project.iam.gserviceaccount.com"),
                false => ("OIDC_AUDIENCES", "https://task-processor-abc.a.run.app"),
            };
            self.problem(
                missing,
                "missing: Google's tokens are accepted by audience and e-mail address",
                example,
            );
        }
        TokenConfig {
            jwt_secret: raw.jwt_secret.clone(),
            supabase_issuer: raw.supabase_url.as_deref().and_then(|url| self.supabase_issuer(url)),
            mode,
            on_cloud_run: platform("K_SERVICE").is_some(),
            oidc_audiences,
            oidc_emails,
            google_keys_url: "https://www.googleapis.com/oauth2/v3/certs".to_owned(),
        }
    }

    /// Keys come from there, so that a stranger on the way must not be able to put in others.
    fn supabase_issuer(&mut self, url: &str) -> Option<String> {
        let parsed = Url::parse(url).ok();
        let host = parsed.as_ref().and_then(Url::host_str);
        let what = match (parsed.as_ref().map(Url::scheme), host) {
            (Some("https"), Some(_)) | (Some("http"), Some("localhost" | "127.0.0.1" | "[::1]")) => {
                return Some(format!("{}/auth/v1", url.trim_end_matches('/')));
            }
            (Some("http"), Some(_)) => format!("{url:?} is not https"),
            _ => format!("{url:?} is not a URL"),
        };
        self.problem("SUPABASE_URL", what, "https://abcdefghijklmnopqrst.supabase.co");
        None
    }

    fn postgres_url(&mut self, variable: &'static str, url: &SecretString) {
        let scheme = url.expose_secret().split("://").next().unwrap_or_default();
        if !matches!(scheme, "postgres" | "postgresql") {
            self.problem(
                variable,
                "does not begin with postgres://",
                "postgres://user:password@host:5432/database",
            );
        }
    }

    fn days(&mut self, variable: &'static str, text: Option<&str>) -> Option<Duration> {
        text.map(|text| Duration::from_secs(86_400 * self.number(variable, Some(text), 0, 1..=36_500, "90")))
    }

    fn flag(&mut self, variable: &'static str, text: Option<&str>) -> bool {
        match text.map(str::to_ascii_lowercase).as_deref() {
            None | Some("false" | "0" | "no" | "off") => false,
            Some("true" | "1" | "yes" | "on") => true,
            Some(other) => {
                self.problem(variable, format!("{other:?} is neither true nor false"), "true");
                false
            }
        }
    }

    /// The first of `choices` is the default.
    fn choice<T: Copy>(
        &mut self,
        variable: &'static str,
        text: Option<&str>,
        choices: &[(&'static str, T)],
    ) -> T {
        let Some(text) = text else { return choices[0].1 };
        if let Some((_, choice)) = choices.iter().find(|(name, _)| text.eq_ignore_ascii_case(name)) {
            return *choice;
        }
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        self.problem(variable, format!("{text:?} is none of {}", names.join(", ")), choices[0].0);
        choices[0].1
    }

    #[expect(
        clippy::too_many_arguments,
        reason = "one call a variable, and each says all there is to say of it"
    )]
    fn number<T>(
        &mut self,
        variable: &'static str,
        text: Option<&str>,
        default: T,
        range: RangeInclusive<T>,
        example: &'static str,
    ) -> T
    where
        T: FromStr + PartialOrd + fmt::Display + Copy,
    {
        let Some(text) = text else { return default };
        match text.parse::<T>() {
            Ok(value) if range.contains(&value) => value,
            _ => {
                let (low, high) = (range.start(), range.end());
                self.problem(
                    variable,
                    format!("{text:?} is not a whole number from {low} to {high}"),
                    example,
                );
                default
            }
        }
    }

    fn problem(&mut self, variable: &'static str, what: impl Into<String>, example: &'static str) {
        self.problems.push(Problem { variable, what: what.into(), example });
    }
}

/// Whether what is sent there stays on this machine.
fn is_loopback(url: &Url) -> bool {
    // For schemes that it does not know, the parser takes an address for a name.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// What stands between commas.
fn list(text: Option<&str>) -> Vec<String> {
    let entries = text.unwrap_or_default().split(',').map(str::trim);
    entries.filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}

/// The pooler's two URLs: transaction mode for queries, session mode for LISTEN.
fn supabase_urls(raw: &Raw) -> Option<(SecretString, SecretString)> {
    let project = Url::parse(raw.supabase_url.as_deref()?).ok()?;
    let reference = project.host_str()?.split('.').next()?.to_owned();
    let region = raw.supabase_region.as_deref()?;
    let password = raw.supabase_db_password.as_ref()?;
    let url = |port| {
        let mut url =
            Url::parse(&format!("postgres://aws-0-{region}.pooler.supabase.com:{port}/postgres")).ok()?;
        url.set_username(&format!("postgres.{reference}")).ok()?;
        url.set_password(Some(password.expose_secret())).ok()?;
        Some(SecretString::from(url.to_string()))
    };
    Some((url(6543)?, url(5432)?))
}
