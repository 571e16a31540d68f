//! Checks what the language model and the mail server need.

use secrecy::ExposeSecret;
use url::Url;

use super::check::Check;
use super::raw::Raw;
use super::{MailConfig, ModelConfig, ModelProvider, SmtpConfig};

impl Check {
    pub(super) fn model(&mut self, raw: &Raw) -> Option<ModelConfig> {
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

    pub(super) fn mail(&mut self, raw: &Raw) -> MailConfig {
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
}

/// Whether what is sent there stays on this machine.
pub(crate) fn is_loopback(url: &Url) -> bool {
    // For schemes that it does not know, the parser takes an address for a name.
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}
