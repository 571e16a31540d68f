//! The environment: every mistake is named, and the documents list exactly what is read.

use std::collections::HashMap;
use std::fs;
use std::path::Path;

use proptest::prelude::*;
use task_processor::config::{AuthMode, Config, PollMode, VARIABLES};

const URL: (&str, &str) = ("DATABASE_URL", "postgres://user:password@localhost:5432/db");

fn problems(vars: &[(&str, &str)]) -> String {
    Config::from_vars(vars.iter().copied()).expect_err("wrong").to_string()
}

#[test]
fn every_wrong_variable_is_reported_in_one_run_by_name_with_an_example_and_no_secret() {
    let text = problems(&[
        ("DATABASE_URL", "mysql://user:hunter2@host/db"),
        ("PORT", "http"),
        ("CONCURRENCY", "0"),
        ("POLL_MODE", "sometimes"),
        ("POLL_STRICT", "perhaps"),
        ("API_KEYS", "short"),
        ("JWT_SECRET", "also-short"),
        ("AUTH_MODE", "none"),
        ("OIDC_EMAILS", "scheduler@my-project.iam.gserviceaccount.com"),
        ("SUPABASE_URL", "http://abc.supabase.co"),
        ("RETENTION_DAYS", "-1"),
    ]);
    for variable in [
        "DATABASE_URL",
        "PORT",
        "CONCURRENCY",
        "POLL_MODE",
        "POLL_STRICT",
        "API_KEYS",
        "JWT_SECRET",
        "AUTH_MODE",
        "OIDC_AUDIENCES",
        "SUPABASE_URL",
        "RETENTION_DAYS",
    ] {
        assert!(text.contains(&format!("\n  {variable}: ")), "{variable} is missing in {text}");
        assert!(text.contains(&format!("example: {variable}=")), "no example for {variable} in {text}");
    }
    assert!(!text.contains("hunter2") && !text.contains("short"), "{text}");
}

#[test]
fn a_missing_database_url_says_where_to_find_it() {
    let text = problems(&[
        ("SUPABASE_URL", "https://abc.supabase.co"),
        ("SUPABASE_SERVICE_KEY", "a-service-key-of-length"),
    ]);
    assert!(text.contains("a service key cannot open a Postgres connection"), "{text}");
    assert!(text.contains("Session pooler"), "{text}");
}

#[test]
fn supabase_variables_make_both_urls() {
    use secrecy::ExposeSecret;
    let config = Config::from_vars([
        ("SUPABASE_URL", "https://abcdef.supabase.co"),
        ("SUPABASE_DB_PASSWORD", "p@ss/w%41rd"),
        ("SUPABASE_REGION", "eu-central-1"),
    ])
    .expect("valid");
    let host = "postgres.abcdef:p%40ss%2Fw%2541rd@aws-0-eu-central-1.pooler.supabase.com";
    assert_eq!(config.database.url.expose_secret(), format!("postgres://{host}:6543/postgres"));
    assert_eq!(
        config.database.listen_url.expect("a URL").expose_secret(),
        format!("postgres://{host}:5432/postgres")
    );
}

#[test]
fn a_region_that_is_none_is_named_and_not_taken_for_a_missing_url() {
    for region in ["eu-central-1/", "eu-central-1.example.com", "EU (Frankfurt)", "a@b", "a:1", "a#", "a%2e"]
    {
        let text = problems(&[
            ("SUPABASE_URL", "https://abcdef.supabase.co"),
            ("SUPABASE_DB_PASSWORD", "hunter2"),
            ("SUPABASE_REGION", region),
        ]);
        assert!(text.contains("(1 problem)") && text.contains("\n  SUPABASE_REGION: "), "{region}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn empty_variables_count_as_absent_and_white_space_is_trimmed() {
    let config = Config::from_vars([URL, ("PORT", ""), ("CONCURRENCY", " 7\n"), ("POLL_MODE", "REQUEST")])
        .expect("valid");
    assert_eq!((config.http.port, config.worker.concurrency), (8080, 7));
    assert_eq!(config.worker.poll_mode, PollMode::Request);
}

#[test]
fn nothing_is_deleted_and_nobody_is_let_in_by_default() {
    let config = Config::from_vars([URL]).expect("valid");
    assert!(config.retention.tasks.is_none() && config.retention.log.is_none());
    assert!(config.http.keys.is_empty() && !config.http.open && !config.http.metrics_open);
    let tokens = config.http.tokens;
    assert!(tokens.jwt_secret.is_none() && tokens.supabase_issuer.is_none() && tokens.oidc_emails.is_empty());
    assert_eq!(tokens.mode, AuthMode::Verify);
}

#[test]
fn a_model_or_a_mail_server_that_is_configured_by_halves_is_refused_and_no_secret_goes_in_plain_text() {
    let model = [("LLM_PROVIDER", "anthropic"), ("LLM_MODEL", "m"), ("LLM_API_KEY", "hunter2")];
    let of = |vars: &[(&'static str, &'static str)]| [&[URL], vars].concat();
    for (vars, variable) in [
        (vec![("LLM_MODEL", "m")], "LLM_PROVIDER"),
        ([&model[1..], &[("LLM_PROVIDER", "someone")]].concat(), "LLM_PROVIDER"),
        (vec![("LLM_PROVIDER", "anthropic"), ("LLM_MODEL", "m")], "LLM_API_KEY"),
        (vec![("LLM_PROVIDER", "openai-compatible")], "LLM_MODEL"),
        ([&model[..], &[("LLM_BASE_URL", "http://models.example")]].concat(), "LLM_BASE_URL"),
        ([&model[..], &[("LLM_BASE_URL", "ftp://models.example")]].concat(), "LLM_BASE_URL"),
        ([&model[..], &[("LLM_BASE_URL", "https://models.example/?v=1")]].concat(), "LLM_BASE_URL"),
        ([&model[..], &[("LLM_INPUT_USD_PER_MILLION", "-1")]].concat(), "LLM_INPUT_USD_PER_MILLION"),
        ([&model[..], &[("LLM_OUTPUT_USD_PER_MILLION", "NaN")]].concat(), "LLM_OUTPUT_USD_PER_MILLION"),
        (vec![("MAIL_FROM", "a@example.com")], "SMTP_URL"),
        (vec![("SMTP_URL", "smtps://me:hunter2@mail.example")], "MAIL_FROM"),
        (
            vec![("SMTP_URL", "smtps://me:hunter2@mail.example"), ("MAIL_FROM", "A a@example.com")],
            "MAIL_FROM",
        ),
        (vec![("SMTP_URL", "smtp://me:hunter2@mail.example"), ("MAIL_FROM", "a@example.com")], "SMTP_URL"),
        (vec![("SMTP_URL", "http://mail.example"), ("MAIL_FROM", "a@example.com")], "SMTP_URL"),
        (vec![("INTRO_EMAIL_DOMAIN", "a b.example")], "INTRO_EMAIL_DOMAIN"),
    ] {
        let text = problems(&of(&vars));
        assert!(text.contains(&format!("\n  {variable}: ")), "{vars:?}: {text}");
        assert!(text.contains("(1 problem)"), "{vars:?}: {text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
    for vars in [
        model.to_vec(),
        [&model[..], &[("LLM_BASE_URL", "http://[::1]:11434")]].concat(),
        vec![
            ("LLM_PROVIDER", "openai-compatible"),
            ("LLM_MODEL", "m"),
            ("LLM_BASE_URL", "http://models.internal/v1"),
        ],
        vec![("SMTP_URL", "smtp://me@mail.example?tls=required"), ("MAIL_FROM", "A <a@example.com>")],
    ] {
        let config = Config::from_vars(of(&vars));
        assert!(config.is_ok(), "{vars:?}: {config:?}");
    }
}

#[test]
fn the_example_file_and_the_readme_list_exactly_the_variables_that_are_read() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = fs::read_to_string(root.join(".env.example")).expect("the example file");
    let listed: Vec<&str> = example
        .lines()
        .map(|line| line.trim_start_matches("# "))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name)
        .filter(|name| name.chars().all(|c| c.is_ascii_uppercase() || c == '_'))
        .collect();
    assert_eq!(listed, VARIABLES);
    let readme = fs::read_to_string(root.join("README.md")).expect("the README");
    let missing: Vec<_> = VARIABLES.iter().filter(|name| !readme.contains(&format!("`{name}`"))).collect();
    assert!(missing.is_empty(), "the README says nothing of {missing:?}");
}

/// What somebody might have written for a variable, odd or nearly right.
fn odd_value() -> impl Strategy<Value = String> {
    let written = proptest::sample::select(vec![
        "",
        " ",
        "0",
        "-1",
        "1e9",
        "NaN",
        "inf",
        "18446744073709551616",
        "3.5",
        "true",
        "TRUE",
        "perhaps",
        ",",
        "a,,b",
        "json",
        "postgres://",
        "postgres://@/",
        "postgres://h:99999/d",
        "postgresql://u:p@[::1]:1/d?sslmode=allow",
        "http://",
        "https://h",
        "http://[::1",
        "smtps://",
        "smtp://h?tls=",
        "anthropic",
        "openai-compatible",
        "A <a@b>",
        "a@b@c",
        "..",
        "background",
        "cloud_run_iam",
        "\u{0}",
        "\u{feff}",
        "\u{1f4a9}",
        "$(rm -rf /)",
        "-----BEGIN CERTIFICATE-----",
    ]);
    prop_oneof![3 => written.prop_map(str::to_owned), 1 => "\\PC*", 1 => "[a-z]{1,8}://[\\PC]{0,20}"]
}

/// An environment in which each secret holds [`SECRET`], right or wrong.
fn odd_environment() -> impl Strategy<Value = HashMap<&'static str, String>> {
    let variable =
        (proptest::sample::select(VARIABLES), odd_value(), odd_value()).prop_map(|(name, head, tail)| {
            let value = if SECRETS.contains(&name) { format!("{head}{SECRET}{tail}") } else { head };
            (name, value)
        });
    proptest::collection::vec(variable, 0..12).prop_map(|variables| variables.into_iter().collect())
}

const SECRET: &str = "hunter2";
const SECRETS: [&str; 8] = [
    "DATABASE_URL",
    "LISTEN_DATABASE_URL",
    "SUPABASE_SERVICE_KEY",
    "SUPABASE_DB_PASSWORD",
    "API_KEYS",
    "JWT_SECRET",
    "LLM_API_KEY",
    "SMTP_URL",
];

proptest! {
    #[test]
    fn no_environment_makes_it_panic_or_tell_a_secret_and_every_problem_names_its_variable(vars in odd_environment()) {
        let told = match Config::from_vars(vars.clone()) {
            Ok(config) => format!("{config:?}"),
            Err(error) => {
                for problem in &error.0 {
                    prop_assert!(VARIABLES.contains(&problem.variable), "{}", problem.variable);
                    let line = format!("\n  {}: ", problem.variable);
                    prop_assert!(error.to_string().contains(&line), "{error}");
                }
                prop_assert!(!error.0.is_empty());
                let order = |name: &str| VARIABLES.iter().position(|variable| *variable == name);
                prop_assert!(error.0.is_sorted_by_key(|problem| order(problem.variable)), "{error}");
                error.to_string()
            }
        };
        prop_assert!(!told.contains(SECRET), "{told}");
    }
}
