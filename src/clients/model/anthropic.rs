//! Anthropic's Messages API: `POST /v1/messages`.

use reqwest::header::HeaderValue;
use reqwest::{Client, RequestBuilder};
use secrecy::{ExposeSecret, SecretString};
use serde_json::{Value, json};

use super::{Parsed, Question, endpoint, tokens};
use crate::config::ModelConfig;

const VERSION: &str = "2023-06-01";

pub(super) fn request(http: &Client, config: &ModelConfig, question: Question<'_>) -> RequestBuilder {
    let request =
        http.post(endpoint(config, "v1/messages")).header("anthropic-version", VERSION).json(&json!({
            "model": config.model,
            "max_tokens": question.max_tokens,
            "system": question.instructions,
            "messages": [{ "role": "user", "content": question.material }],
        }));
    match &config.api_key {
        Some(key) => request.header("x-api-key", secret_header(key)),
        None => request,
    }
}

/// Sensitive: whatever logs headers leaves it out. A key that fits no header is sent as none, and so refused.
fn secret_header(key: &SecretString) -> HeaderValue {
    let mut value = HeaderValue::from_str(key.expose_secret()).unwrap_or(HeaderValue::from_static(""));
    value.set_sensitive(true);
    value
}

pub(super) fn parse(body: &Value) -> Result<Parsed, &'static str> {
    let blocks = body["content"].as_array().ok_or("no content")?;
    let texts =
        blocks.iter().filter(|block| block["type"] == "text").filter_map(|block| block["text"].as_str());
    Ok(Parsed {
        text: texts.collect(),
        model: body["model"].as_str().map(str::to_owned),
        input_tokens: tokens(&body["usage"]["input_tokens"]),
        output_tokens: tokens(&body["usage"]["output_tokens"]),
    })
}
