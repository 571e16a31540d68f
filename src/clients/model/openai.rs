//! The chat completions API that `OpenAI` made and many others speak: `POST /chat/completions`.

use reqwest::{Client, RequestBuilder};
use secrecy::ExposeSecret;
use serde_json::{Value, json};

use super::{Parsed, Question, endpoint, tokens};
use crate::config::ModelConfig;

/// What a model may think before it answers, in tokens.
const THOUGHTS: u32 = 4_096;

pub(super) fn request(http: &Client, config: &ModelConfig, question: Question<'_>) -> RequestBuilder {
    let request = http.post(endpoint(config, "chat/completions")).json(&body(config, question));
    match &config.api_key {
        Some(key) => request.bearer_auth(key.expose_secret()),
        None => request,
    }
}

fn body(config: &ModelConfig, question: Question<'_>) -> Value {
    let mut body = json!({
        "model": config.model,
        "messages": [
            { "role": "system", "content": question.instructions },
            { "role": "user", "content": question.material },
        ],
    });
    // `OpenAI` itself has renamed the limit, its newer models refuse the old name, and what they think counts, too.
    let (limit, tokens) = match config.base_url.host_str() {
        Some("api.openai.com") => ("max_completion_tokens", question.max_tokens + THOUGHTS),
        _ => ("max_tokens", question.max_tokens),
    };
    body[limit] = tokens.into();
    body
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

#[cfg(test)]
mod tests {
    use crate::config::ModelProvider;

    use super::*;

    #[test]
    fn the_limit_is_called_as_the_server_knows_it() {
        let limits = |base_url: &str| {
            let config = ModelConfig {
                provider: ModelProvider::OpenAiCompatible,
                base_url: base_url.parse().unwrap(),
                api_key: None,
                model: "m".to_owned(),
                input_price: None,
                output_price: None,
            };
            let body = body(&config, Question { instructions: "", material: "", max_tokens: 300 });
            (body["max_tokens"].as_u64(), body["max_completion_tokens"].as_u64())
        };
        assert_eq!(limits("https://api.openai.com/v1"), (None, Some(4396)));
        assert_eq!(limits("http://localhost:11434/v1"), (Some(300), None));
    }
}
