//! TLS to Postgres: what each `sslmode` accepts and refuses.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use task_processor::commands::dev::postgres::{EmbeddedPostgres, Options};
use task_processor::config::Config;
use task_processor::db::{Database, Lane};
use tokio_postgres::NoTls;

use crate::support::eventually;

/// The address in the certificate, and one that is not. Not 127.0.0.1: a server of the machine may listen there.
const NAMED: &str = "127.83.84.1";
const UNNAMED: &str = "127.83.84.2";

/// A certificate authority's PEM, and a certificate for `NAMED` with its key.
fn certificates() -> (String, String, String) {
    let mut authority = CertificateParams::new(Vec::new()).expect("no names");
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().expect("a key");
    let authority_pem = authority.self_signed(&authority_key).expect("a certificate").pem();
    let issuer = Issuer::new(authority, authority_key);
    let key = KeyPair::generate().expect("a key");
    let server = CertificateParams::new(vec![NAMED.to_owned()]).expect("a name");
    let server_pem = server.signed_by(&key, &issuer).expect("a certificate").pem();
    (authority_pem, server_pem, key.serialize_pem())
}

/// A server that listens on both addresses and speaks TLS.
async fn server(certificate: &str, key: &str) -> EmbeddedPostgres {
    let mut options = Options::throw_away();
    options.settings.push(("listen_addresses".to_owned(), format!("{NAMED},{UNNAMED}")));
    let server = EmbeddedPostgres::start(options).await.unwrap_or_else(|error| panic!("{error}"));
    for (name, text) in [("server.crt", certificate), ("server.key", key)] {
        let path = server.socket_dir().join(name);
        fs::write(&path, text).expect("written");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).expect("private");
        if let Some(user) = server.user() {
            chown(&path, Some(user.uid), Some(user.gid)).expect("given away");
        }
    }
    let (client, connection) =
        tokio_postgres::connect(&server.url("postgres"), NoTls).await.expect("a connection");
    tokio::spawn(connection);
    let path = |name: &str| Path::new(server.socket_dir()).join(name).display().to_string();
    for setting in [
        format!("alter system set ssl_cert_file = '{}'", path("server.crt")),
        format!("alter system set ssl_key_file = '{}'", path("server.key")),
        "alter system set ssl = on".to_owned(),
        "select pg_reload_conf()".to_owned(),
    ] {
        client.batch_execute(&setting).await.expect("set");
    }
    server
}

/// Whether the connection that is made is encrypted, or why none is made.
async fn encrypted(host: &str, mode: &str, authority: &str) -> Result<bool, String> {
    let url = format!("postgres://postgres@{host}:5432/postgres?sslmode={mode}");
    let mut config = Config::from_vars([("DATABASE_URL", url.as_str())]).expect("valid");
    config.database.ca_cert = (!authority.is_empty()).then(|| authority.to_owned());
    let database = Database::new(&config.database).map_err(|error| error.to_string())?;
    let sql = "select ssl from pg_stat_ssl where pid = pg_backend_pid()";
    let rows = database.query(Lane::Shared, std::time::Duration::from_secs(5), sql, &[]).await;
    rows.map(|rows| rows[0].get(0)).map_err(|error| error.to_string())
}

#[tokio::test]
async fn every_sslmode_encrypts_and_verifies_what_it_says() {
    let (authority, certificate, key) = certificates();
    let _server = server(&certificate, &key).await;
    eventually("TLS is on", async || encrypted(NAMED, "require", "").await == Ok(true)).await;
    let (strangers_authority, ..) = certificates();

    assert_eq!(encrypted(NAMED, "verify-full", &authority).await, Ok(true));
    assert_eq!(encrypted(UNNAMED, "verify-ca", &authority).await, Ok(true), "the name does not matter");
    assert_eq!(encrypted(UNNAMED, "require", &authority).await, Ok(true));
    assert_eq!(encrypted(NAMED, "disable", "").await, Ok(false));

    let wrong_name = encrypted(UNNAMED, "verify-full", &authority).await.expect_err("the name is wrong");
    assert!(wrong_name.contains("not valid for name"), "{wrong_name}");
    for mode in ["verify-full", "verify-ca"] {
        let unknown = encrypted(NAMED, mode, "").await.expect_err("nobody vouches for it");
        assert!(unknown.contains("set DATABASE_CA_CERT"), "{mode}: {unknown}");
    }
    for mode in ["verify-full", "verify-ca", "require"] {
        assert!(
            encrypted(NAMED, mode, &strangers_authority).await.is_err(),
            "{mode} with another's authority"
        );
    }
    let rubbish = encrypted(NAMED, "verify-full", "-----BEGIN nonsense").await.expect_err("no certificate");
    assert!(rubbish.contains("DATABASE_CA_CERT"), "{rubbish}");
}
