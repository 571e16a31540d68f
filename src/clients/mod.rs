//! The outside world beside Postgres, as handlers reach it: a language model and a mail server.

mod fetch;
mod guard;
mod mail;
mod model;

use std::sync::Arc;

use crate::config::{Config, MailConfig};
pub(crate) use fetch::read_body;
pub(crate) use guard::{Guard, check_url, guarded};
pub use mail::{Mail, MailError, Mailer};
pub use model::{Model, ModelError, Question, Reply};

/// What is configured. Cheap to clone; nothing is connected before it is used.
#[derive(Clone, Default)]
pub struct Clients {
    model: Option<Arc<Model>>,
    mailer: Option<Arc<Mailer>>,
    intro_domain: Arc<str>,
}

/// A client that cannot be made of its configuration.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The HTTP client: the platform's certificates cannot be read, for one.
    #[error("the HTTP client for LLM_BASE_URL cannot be made: {0}")]
    Http(String),
    /// The mail client.
    #[error("SMTP_URL or MAIL_FROM cannot be used: {0}")]
    Mail(String),
}

impl Clients {
    /// As configured.
    pub fn new(config: &Config) -> Result<Self, ClientError> {
        let MailConfig { smtp, intro_domain } = &config.mail;
        Ok(Self {
            model: config.model.as_ref().map(Model::new).transpose()?.map(Arc::new),
            mailer: smtp.as_ref().map(Mailer::new).transpose()?.map(Arc::new),
            intro_domain: intro_domain.as_str().into(),
        })
    }

    /// The language model, where one is configured.
    #[must_use]
    pub fn model(&self) -> Option<&Model> {
        self.model.as_deref()
    }

    /// The mail server, where one is configured.
    #[must_use]
    pub fn mailer(&self) -> Option<&Mailer> {
        self.mailer.as_deref()
    }

    /// The domain of the addresses that introductions get.
    #[must_use]
    pub fn intro_domain(&self) -> &str {
        &self.intro_domain
    }
}
