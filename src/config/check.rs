//! Checks each variable, and notes what is wrong with it.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

use super::raw::Raw;
use super::{
    Config, DatabaseConfig, HttpConfig, LogConfig, LogFormat, PollMode, Problem, Retention, WorkerConfig,
    cloud_run_revision, platform,
};

/// Connections at a time: for a further one the one is closed that has asked for nothing for the longest time.
const MAX_CONNECTIONS: usize = 2_048;

/// What has been found wrong so far.
#[derive(Default)]
pub(super) struct Check {
    pub(super) problems: Vec<Problem>,
}

impl Check {
    pub(super) fn config(&mut self, raw: &Raw) -> Config {
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
        let built = if raw.database_url.is_none() { self.supabase_urls(raw) } else { None };
        let (url, listen_url) = match (&raw.database_url, built) {
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

    /// The pooler's two URLs: transaction mode for queries, session mode for LISTEN.
    fn supabase_urls(&mut self, raw: &Raw) -> Option<(SecretString, SecretString)> {
        let project = Url::parse(raw.supabase_url.as_deref()?).ok()?;
        let reference = project.host_str()?.split('.').next()?.to_owned();
        let region = raw.supabase_region.as_deref()?;
        // The password is meant as it is, and `set_password` leaves alone what looks encoded already.
        let password = raw.supabase_db_password.as_ref()?.expose_secret().replace('%', "%25");
        if !region.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'-')) {
            self.problem("SUPABASE_REGION", format!("{region:?} is no region"), "eu-central-1");
            return Some(Default::default());
        }
        let url = |port| {
            let mut url =
                Url::parse(&format!("postgres://aws-0-{region}.pooler.supabase.com:{port}/postgres")).ok()?;
            url.set_username(&format!("postgres.{reference}")).ok()?;
            url.set_password(Some(&password)).ok()?;
            Some(SecretString::from(url.to_string()))
        };
        Some((url(6543)?, url(5432)?))
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
            max_connections: MAX_CONNECTIONS,
        }
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

    pub(super) fn flag(&mut self, variable: &'static str, text: Option<&str>) -> bool {
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
    pub(super) fn choice<T: Copy>(
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
    pub(super) fn number<T>(
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

    pub(super) fn problem(&mut self, variable: &'static str, what: impl Into<String>, example: &'static str) {
        self.problems.push(Problem { variable, what: what.into(), example });
    }
}

/// What stands between commas.
pub(super) fn list(text: Option<&str>) -> Vec<String> {
    let entries = text.unwrap_or_default().split(',').map(str::trim);
    entries.filter(|entry| !entry.is_empty()).map(str::to_owned).collect()
}
