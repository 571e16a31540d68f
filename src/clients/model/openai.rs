//! The chat completions API that `OpenAI` made and many others speak: `POST /chat/completions`.

use reqwest::{Client, RequestBuilder};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{Parsed, Question, endpoint, tokens};
use crate::config::ModelConfig;

pub(super) fn request(http: &Client, config: &ModelConfig, question: Question<'_>) -> RequestBuilder {
    let request = http.post(endpoint(config, "chat/completions")).json(&json!({
        "model": config.model,
        "max_tokens": question.max_tokens,
        "messages": [
            { "role": "system", "content": question.instructions },
            { "role": "user", "content": question.material },
        ],
    }));
    match &config.api_key {
        Some(key) => request.bearer_auth(key.expose_secret()),
        None => request,
    }
}

pub(super) fn parse(body: &Value) -> Result<Parsed, &'static str> {
    let text = body["choices"][0]["message"]["content"].as_str().ok_or("no content")?;
    Ok(Parsed {
        text: text.to_owned(),
        model: body["model"].as_str().map(str::to_owned),
        input_tokens: tokens(&body["usage"]["prompt_tokens"]),
        output_tokens: tokens(&body["usage"]["completion_tokens"]),
    })
}
