//! A language model behind an HTTP chat endpoint: one question, one answer, and what it cost.

mod anthropic;
mod openai;

use std::time::Duration;

use reqwest::Client;
use serde_json::Value;

use super::ClientError;
use super::fetch::{self, FetchError, Fetched};
use crate::config::{ModelConfig, ModelProvider};

/// A question may take this long, the whole answer included.
const ANSWER_WITHIN: Duration = Duration::from_mins(2);

/// A language model.
pub struct Model {
    config: ModelConfig,
    http: Client,
}

/// What to ask.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// What the model is to do.
    pub instructions: &'a str,
    /// What it is to do it with.
    pub material: &'a str,
    /// The longest answer, in tokens.
    pub max_tokens: u32,
}

/// A model's answer.
#[derive(Clone, Debug, PartialEq)]
pub struct Reply {
    /// Never blank.
    pub text: String,
    /// The model that answered.
    pub model: String,
    /// Tokens read.
    pub input_tokens: i32,
    /// Tokens written.
    pub output_tokens: i32,
    /// US dollars, where both prices are configured.
    pub cost_usd: Option<f64>,
}

/// No answer. What it displays holds neither the key nor a word of the question or the answer.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum ModelError {
    /// 429, or the server's own trouble: try again, not before that time if it named one.
    #[error("the language model is busy (HTTP {status})")]
    Busy {
        /// 408, 429 or 500 to 599.
        status: u16,
        /// What the server asked for.
        retry_after: Option<Duration>,
    },
    /// The key is not accepted, or its account has no credit. An operator can mend that.
    #[error("the language model refused LLM_API_KEY or its account (HTTP {0})")]
    Denied(u16),
    /// It will not answer this, ever.
    #[error("the language model refused the request (HTTP {0})")]
    Refused(u16),
    /// Not reached, too slow, or what came back is no answer.
    #[error("the language model {0}")]
    Failed(String),
}

/// What an API's answer says, in any shape.
struct Parsed {
    text: String,
    model: Option<String>,
    input_tokens: i32,
    output_tokens: i32,
}

impl Model {
    /// As configured; nothing is asked yet.
    pub fn new(config: &ModelConfig) -> Result<Self, ClientError> {
        Ok(Self { config: config.clone(), http: fetch::client()? })
    }

    /// Asks one question.
    pub async fn ask(&self, question: Question<'_>) -> Result<Reply, ModelError> {
        let request = match self.config.provider {
            ModelProvider::Anthropic => anthropic::request(&self.http, &self.config, question),
            ModelProvider::OpenAiCompatible => openai::request(&self.http, &self.config, question),
        };
        let fetched = fetch::fetch(request, ANSWER_WITHIN).await?;
        check_status(&fetched)?;
        let body: Value = serde_json::from_slice(&fetched.body).map_err(|_| no_answer("no JSON"))?;
        let parsed = match self.config.provider {
            ModelProvider::Anthropic => anthropic::parse(&body),
            ModelProvider::OpenAiCompatible => openai::parse(&body),
        };
        self.reply(parsed.map_err(no_answer)?)
    }

    fn reply(&self, parsed: Parsed) -> Result<Reply, ModelError> {
        let text = parsed.text.trim();
        if text.is_empty() {
            return Err(no_answer("no text"));
        }
        let price = |per_million: Option<f64>, tokens: i32| {
            per_million.map(|per_million| per_million * f64::from(tokens) / 1_000_000.0)
        };
        let input = price(self.config.input_price, parsed.input_tokens);
        let output = price(self.config.output_price, parsed.output_tokens);
        Ok(Reply {
            text: text.to_owned(),
            model: parsed.model.unwrap_or_else(|| self.config.model.clone()),
            input_tokens: parsed.input_tokens,
            output_tokens: parsed.output_tokens,
            cost_usd: input.zip(output).map(|(input, output)| input + output),
        })
    }
}

/// The endpoint below the base URL, whether that ends in a slash or not.
fn endpoint(config: &ModelConfig, path: &str) -> String {
    format!("{}/{path}", config.base_url.as_str().trim_end_matches('/'))
}

fn check_status(fetched: &Fetched) -> Result<(), ModelError> {
    match fetched.status {
        200..=299 => Ok(()),
        status @ (408 | 429 | 500..) => Err(ModelError::Busy { status, retry_after: fetched.retry_after }),
        status @ (401..=403) => Err(ModelError::Denied(status)),
        status => Err(ModelError::Refused(status)),
    }
}

fn no_answer(what: &str) -> ModelError {
    ModelError::Failed(format!("answered with {what}"))
}

/// A count of tokens; one that is missing or absurd is none.
fn tokens(count: &Value) -> i32 {
    count.as_i64().and_then(|count| i32::try_from(count).ok()).filter(|count| *count >= 0).unwrap_or_default()
}

impl From<FetchError> for ModelError {
    fn from(error: FetchError) -> Self {
        Self::Failed(error.to_string())
    }
}
