//! A connection string, understood: what Postgres needs, how TLS is to be done, which pooler stands in between.

use std::str::FromStr;
use std::time::Duration;

use secrecy::{ExposeSecret, SecretString};
use url::Url;

/// How much of TLS is asked for; libpq's `sslmode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum SslMode {
    /// Plain text.
    Disable,
    /// Encrypt; verify only if a CA certificate was given.
    Require,
    /// Encrypt and verify the certificate, not the host's name.
    VerifyCa,
    /// Encrypt, verify the certificate and the name. The default for remote hosts.
    VerifyFull,
}

/// Where and how to connect.
#[derive(Clone)]
pub struct Target {
    pub(super) postgres: tokio_postgres::Config,
    pub(super) ssl: SslMode,
    /// A pooler in transaction mode stands in between: no session, so no LISTEN.
    pub transaction_pooler: bool,
}

/// A connection string that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct TargetError(pub String);

/// Parameters that other clients understand and that mean nothing to us.
const IGNORED: &[&str] =
    &["pgbouncer", "supa", "connection_limit", "pool_timeout", "schema", "sslnegotiation"];

/// Parameters that `tokio-postgres` understands, but for those that are set here.
const KNOWN: &[&str] = &[
    "user",
    "password",
    "dbname",
    "options",
    "application_name",
    "host",
    "hostaddr",
    "port",
    "connect_timeout",
    "tcp_user_timeout",
    "keepalives",
    "keepalives_idle",
    "keepalives_interval",
    "keepalives_retries",
    "target_session_attrs",
    "channel_binding",
    "load_balance_hosts",
];

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let mut url = Url::parse(text).map_err(|error| TargetError(format!("is not a URL ({error})")))?;
        // What is taken for a path or a parameter may be the rest of a password, so it is not quoted.
        if [Some(url.path()), url.fragment()].into_iter().flatten().any(|part| part.contains('@')) {
            return Err(TargetError(
                "has an @ behind the host: in a password write %2F for /, %3F for ? and %23 for #".into(),
            ));
        }
        let parameters: Vec<(String, String)> = url.query_pairs().into_owned().collect();
        let mut mode = None;
        let mut transaction_pooler = url.port() == Some(6543);
        url.set_query(None);
        for (name, value) in &parameters {
            match name.as_str() {
                "sslmode" => mode = Some(parse_ssl_mode(value)?),
                "sslrootcert" => {
                    return Err(TargetError("has sslrootcert: set DATABASE_CA_CERT instead".into()));
                }
                "pgbouncer" => transaction_pooler |= value == "true",
                ignored if IGNORED.contains(&ignored) => {}
                known if KNOWN.contains(&known) => {
                    url.query_pairs_mut().append_pair(name, value);
                }
                _ => {
                    let known = KNOWN.join(", ");
                    return Err(TargetError(format!(
                        "has a parameter that is not known (known are sslmode, {known}); in a password write %3F for ? and %26 for &"
                    )));
                }
            }
        }
        let mut postgres: tokio_postgres::Config =
            url.as_str().parse().map_err(|error| TargetError(crate::telemetry::chain(&error)))?;
        let ssl = match mode {
            Some(mode) => mode,
            None if is_local(&postgres) => SslMode::Disable,
            None => SslMode::VerifyFull,
        };
        postgres
            .ssl_mode(match ssl {
                SslMode::Disable => tokio_postgres::config::SslMode::Disable,
                _ => tokio_postgres::config::SslMode::Require,
            })
            .connect_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(30))
            .keepalives_interval(Duration::from_secs(10))
            .keepalives_retries(3)
            .tcp_user_timeout(Duration::from_secs(20));
        if postgres.get_application_name().is_none() {
            postgres.application_name("task-processor");
        }
        Ok(Self { postgres, ssl, transaction_pooler })
    }
}

impl Target {
    /// The connection string in a variable, which an error names.
    pub fn named(variable: &str, url: &SecretString) -> Result<Self, TargetError> {
        let target = url.expose_secret().parse();
        target.map_err(|TargetError(what)| TargetError(format!("{variable} {what}")))
    }

    /// Whether LISTEN can work on this connection.
    #[must_use]
    pub fn can_listen(&self) -> bool {
        !self.transaction_pooler
    }

    /// Database, host, port and TLS, for people. No password.
    #[must_use]
    pub fn describe(&self) -> String {
        use tokio_postgres::config::Host;
        let ports = self.postgres.get_ports();
        let hosts = self.postgres.get_hosts().iter().enumerate().map(|(index, host)| match host {
            Host::Tcp(name) => {
                format!("{name}:{}", ports.get(index).or(ports.first()).copied().unwrap_or(5432))
            }
            Host::Unix(path) => path.display().to_string(),
        });
        let tls = match self.ssl {
            SslMode::Disable => "no TLS",
            SslMode::Require => "TLS, unverified without DATABASE_CA_CERT",
            SslMode::VerifyCa => "TLS, certificate verified",
            SslMode::VerifyFull => "TLS, certificate and name verified",
        };
        let database = self.postgres.get_dbname().unwrap_or("the user's database");
        format!("{database} at {} ({tls})", hosts.collect::<Vec<_>>().join(", "))
    }
}

fn parse_ssl_mode(value: &str) -> Result<SslMode, TargetError> {
    match value {
        "disable" => Ok(SslMode::Disable),
        "require" => Ok(SslMode::Require),
        "verify-ca" => Ok(SslMode::VerifyCa),
        "verify-full" => Ok(SslMode::VerifyFull),
        "allow" | "prefer" => Err(TargetError(format!(
            "has sslmode={value}, which may end in plain text: write require, verify-full or disable"
        ))),
        other => Err(TargetError(format!("has the unknown sslmode {other:?}"))),
    }
}

/// Nobody can listen in on a Unix socket or the loopback interface.
fn is_local(config: &tokio_postgres::Config) -> bool {
    use tokio_postgres::config::Host;
    // With a `hostaddr` the host's name is only for the certificate.
    let addresses_are_local = config.get_hostaddrs().iter().all(std::net::IpAddr::is_loopback);
    addresses_are_local
        && config.get_hosts().iter().all(|host| match host {
            Host::Unix(_) => true,
            Host::Tcp(name) => {
                name == "localhost"
                    || name.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
            }
        })
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::prelude::*;
    use proptest::sample::select;

    use super::*;

    fn target(url: &str) -> Target {
        url.parse().unwrap_or_else(|error| panic!("{url}: {error}"))
    }

    #[test]
    fn a_remote_host_is_verified_in_full_unless_the_url_says_otherwise() {
        assert_eq!(target("postgres://u:p@db.example.com/x").ssl, SslMode::VerifyFull);
        assert_eq!(target("postgres://u:p@db.example.com/x?sslmode=require").ssl, SslMode::Require);
        assert_eq!(target("postgres://u:p@db.example.com/x?sslmode=verify-ca").ssl, SslMode::VerifyCa);
        assert_eq!(target("postgres://u:p@db.example.com/x?sslmode=disable").ssl, SslMode::Disable);
        assert_eq!(target("postgres://u@127.0.0.1/x").ssl, SslMode::Disable);
        assert_eq!(target("postgres:///x?host=/tmp&user=u").ssl, SslMode::Disable);
        assert_eq!(target("postgres://u@localhost/x?hostaddr=192.0.2.1").ssl, SslMode::VerifyFull);
        assert_eq!(target("postgres://u@localhost/x?hostaddr=127.0.0.1").ssl, SslMode::Disable);
    }

    #[test]
    fn a_mode_that_may_end_in_plain_text_is_refused() {
        for mode in ["prefer", "allow", "rubbish"] {
            assert!(format!("postgres://u@h/x?sslmode={mode}").parse::<Target>().is_err());
        }
    }

    #[test]
    fn parameters_of_other_clients_are_dropped_and_transaction_poolers_are_recognised() {
        assert!(target("postgres://u:p@h/x?pgbouncer=true&connection_limit=1").transaction_pooler);
        assert!(target("postgres://u:p@aws-0-eu.pooler.supabase.com:6543/postgres").transaction_pooler);
        assert!(target("postgres://u:p@aws-0-eu.pooler.supabase.com:5432/postgres").can_listen());
    }

    #[test]
    fn a_password_with_an_at_sign_reaches_the_host_that_was_meant() {
        let target = target("postgres://user:p@w@db.example.com/x");
        assert_eq!(target.postgres.get_password(), Some(&b"p@w"[..]));
        assert!(target.describe().contains("db.example.com"));
    }

    /// Connection strings, right, nearly right and wrong, with the password in them wherever a slip may put it.
    fn odd_url() -> impl Strategy<Value = String> {
        let piece = prop_oneof![
            6 => select(vec![
                "postgres://", "postgresql://", "://", ":", "//", "/", "?", "&", "=", "@", "#", "%", "%20", "%zz", "[", "]", ",",
                "user", "host", "h1,h2", "[::1]", "127.0.0.1", "5432", "6543", "99999", "db", "sslmode=", "require", "prefer",
                "sslrootcert=", "pgbouncer=true", "host=/tmp", "hostaddr=", "options=-c%20a=b", "port=1,2", "target_session_attrs=",
                "connect_timeout=",
            ]).prop_map(str::to_owned),
            1 => "\\PC{0,6}",
        ];
        let free = vec(piece, 0..12).prop_map(|pieces| pieces.concat());
        let slip = ("[0-9/?#@:&=%]{0,3}", "[/?#@:&=%a-z]{0,3}")
            .prop_map(|(before, after)| format!("postgres://user:{before}hunter2{after}@host:5432/db"));
        let parameter = ("[a-z&=?]{0,3}", "[&=?@a-z]{0,3}").prop_map(|(before, after)| {
            format!("postgres://host/db?user=a@b&password={before}hunter2{after}")
        });
        prop_oneof![free, slip, parameter]
    }

    proptest! {
        #[test]
        fn no_connection_string_makes_it_panic_or_tell_the_password(url in odd_url()) {
            let told = match url.parse::<Target>() {
                Ok(target) => target.describe(),
                Err(error) => error.to_string(),
            };
            prop_assert!(!told.contains("hunter2"), "{url} is told as {told}");
        }
    }
}
