//! The language model: both shapes of API, and whatever else may come back.

use std::time::Duration;

use serde_json::json;
use task_processor::clients::{Clients, ModelError, Question, Reply};
use task_processor::config::Config;

use crate::support::{FakeModel, MODEL_KEY, Says};

const PROVIDERS: [&str; 2] = ["anthropic", "openai-compatible"];
const QUESTION: Question<'_> =
    Question { instructions: "Be brief.", material: "Who are you?", max_tokens: 50 };

fn clients(vars: &[(&str, &str)]) -> Clients {
    let database = ("DATABASE_URL", "postgres://user@localhost/db");
    let config = Config::from_vars(vars.iter().copied().chain([database]));
    Clients::new(&config.unwrap_or_else(|error| panic!("{error}"))).expect("usable clients")
}

async fn ask(server: &FakeModel, provider: &str) -> Result<Reply, ModelError> {
    let clients = clients(&server.vars(provider));
    clients.model().expect("a model").ask(QUESTION).await
}

#[tokio::test]
async fn an_answer_comes_with_the_model_the_tokens_and_the_cost() {
    for provider in PROVIDERS {
        let server = FakeModel::start([Says::Text(" I am a test.\n")]).await;
        let reply = ask(&server, provider).await.expect("an answer");
        let cost = reply.cost_usd.expect("a cost");
        assert!((cost - (1000.0 * 3.0 + 100.0 * 15.0) / 1e6).abs() < 1e-12, "{cost}");
        let expected = Reply {
            text: "I am a test.".to_owned(),
            model: "test-model-20260101".to_owned(),
            input_tokens: 1000,
            output_tokens: 100,
            cost_usd: reply.cost_usd,
        };
        assert_eq!(reply, expected, "{provider}");
    }
}

#[tokio::test]
async fn each_provider_is_asked_in_its_own_way() {
    let server = FakeModel::start([]).await;
    ask(&server, "anthropic").await.expect("an answer");
    ask(&server, "openai-compatible").await.expect("an answer");
    let asked = server.asked();
    assert_eq!(asked[0].path, "/v1/messages");
    assert_eq!(asked[0].headers["x-api-key"], MODEL_KEY);
    assert_eq!(asked[0].headers["anthropic-version"], "2023-06-01");
    assert_eq!(
        asked[0].body,
        json!({
            "model": "test-model", "max_tokens": 50, "system": "Be brief.",
            "messages": [{ "role": "user", "content": "Who are you?" }],
        })
    );
    assert_eq!(asked[1].path, "/chat/completions");
    assert_eq!(asked[1].headers["authorization"], format!("Bearer {MODEL_KEY}"));
    assert_eq!(
        asked[1].body,
        json!({
            "model": "test-model", "max_tokens": 50,
            "messages": [
                { "role": "system", "content": "Be brief." }, { "role": "user", "content": "Who are you?" },
            ],
        })
    );
}

#[tokio::test]
async fn without_both_prices_there_is_no_cost() {
    let server = FakeModel::start([]).await;
    let vars: Vec<_> = server
        .vars("anthropic")
        .into_iter()
        .filter(|(name, _)| *name != "LLM_OUTPUT_USD_PER_MILLION")
        .collect();
    let reply = clients(&vars).model().expect("a model").ask(QUESTION).await.expect("an answer");
    assert_eq!(reply.cost_usd, None);
}

#[tokio::test]
async fn a_busy_server_says_when_to_come_back_and_other_refusals_are_told_apart() {
    let busy = |status, seconds: Option<u64>| ModelError::Busy {
        status,
        retry_after: seconds.map(Duration::from_secs),
    };
    for provider in PROVIDERS {
        for (says, expected) in [
            (Says::Later(429, "7"), busy(429, Some(7))),
            (Says::Later(429, "soon"), busy(429, None)),
            (Says::Status(500), busy(500, None)),
            (Says::Later(529, "3600"), busy(529, Some(3600))),
            (Says::Status(401), ModelError::Denied(401)),
            (Says::Status(402), ModelError::Denied(402)),
            (Says::Status(403), ModelError::Denied(403)),
            (Says::Status(400), ModelError::Refused(400)),
            (Says::Status(404), ModelError::Refused(404)),
            (Says::Redirect, ModelError::Refused(307)),
        ] {
            let server = FakeModel::start([says]).await;
            assert_eq!(ask(&server, provider).await, Err(expected));
            assert_eq!(server.asked().len(), 1, "no redirect is followed, nothing is asked twice");
        }
    }
}

#[tokio::test]
async fn rubbish_is_no_answer() {
    for provider in PROVIDERS {
        for (says, message) in [
            (Says::Raw(""), "answered with no JSON"),
            (Says::Raw("<html>Bad gateway</html>"), "answered with no JSON"),
            (Says::Raw("{}"), "answered with no content"),
            (Says::Raw("[1]"), "answered with no content"),
            (Says::Raw(r#"{"content": "text", "choices": "text"}"#), "answered with no content"),
            (Says::Text("  "), "answered with no text"),
            (Says::Bytes(3_000_000), "answered with more than 2097152 bytes"),
        ] {
            let server = FakeModel::start([says]).await;
            let error = ask(&server, provider).await.expect_err("rubbish");
            assert_eq!(error.to_string(), format!("the language model {message}"), "{provider}");
        }
    }
}

#[tokio::test]
async fn a_metadata_server_is_not_asked_however_its_address_is_written() {
    for host in ["169.254.169.254", "0xA9FEA9FE", "[::ffff:169.254.169.254]", "[fd00:ec2::254]"] {
        let url = format!("http://{host}/latest");
        let vars = [("LLM_PROVIDER", "openai-compatible"), ("LLM_BASE_URL", &url), ("LLM_MODEL", "m")];
        let error = clients(&vars).model().expect("a model").ask(QUESTION).await.expect_err("refused");
        assert!(error.to_string().ends_with("it is never asked"), "{error}");
    }
}

#[tokio::test]
async fn an_answer_without_counts_cost_nothing_that_is_known() {
    let says = r#"{"content": [{"type": "text", "text": "ok"}], "usage": {"input_tokens": -5, "output_tokens": 1e99}}"#;
    let server = FakeModel::start([Says::Raw(says)]).await;
    let reply = ask(&server, "anthropic").await.expect("an answer");
    assert_eq!((reply.input_tokens, reply.output_tokens), (0, 0));
    assert_eq!(reply.model, "test-model", "the one that was asked for");
}

#[tokio::test]
async fn no_error_shows_the_key_even_if_the_server_does() {
    let server = FakeModel::start([Says::Status(401), Says::Status(400), Says::Status(500)]).await;
    for _ in 0..3 {
        let error = ask(&server, "openai-compatible").await.expect_err("refused");
        assert!(!format!("{error} {error:?}").contains(MODEL_KEY), "{error:?}");
    }
    let nobody = [
        ("LLM_PROVIDER", "anthropic"),
        ("LLM_BASE_URL", "http://127.0.0.1:1"),
        ("LLM_API_KEY", MODEL_KEY),
        ("LLM_MODEL", "m"),
    ];
    let error = clients(&nobody).model().expect("a model").ask(QUESTION).await.expect_err("nobody there");
    assert!(error.to_string().starts_with("the language model cannot be reached"), "{error}");
    assert!(!format!("{error:?}").contains(MODEL_KEY), "{error:?}");
    let config = Config::from_vars(nobody.into_iter().chain([("DATABASE_URL", "postgres://u@localhost/d")]));
    assert!(!format!("{config:?}").contains(MODEL_KEY));
}
