//! Mail by SMTP.

use std::time::Duration;

use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp;
use lettre::{AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor};
use secrecy::ExposeSecret;
use uuid::Uuid;

use super::ClientError;
use crate::config::SmtpConfig;

/// For each step of the conversation with the server.
const STEP_WITHIN: Duration = Duration::from_secs(20);
/// For all of it.
const SENT_WITHIN: Duration = Duration::from_mins(1);

/// A mail server.
pub struct Mailer {
    from: Mailbox,
    transport: AsyncSmtpTransport<Tokio1Executor>,
}

/// A mail in plain text.
#[derive(Clone, Copy, Debug)]
pub struct Mail<'a> {
    /// An effect's key. It becomes the `Message-ID`, by which a mail that came twice is known to be the same.
    pub id: Uuid,
    /// The recipient's address.
    pub to: &'a str,
    /// Where answers go.
    pub reply_to: &'a str,
    /// One line.
    pub subject: &'a str,
    /// Plain text.
    pub text: &'a str,
}

/// A mail that was not sent. What it displays holds no password.
#[derive(Debug, thiserror::Error)]
pub enum MailError {
    /// It is no mail: an address is malformed. The field is named.
    #[error("{0} is not an e-mail address")]
    Address(&'static str),
    /// The server will not take it, ever.
    #[error("the mail server refused the mail: {0}")]
    Refused(String),
    /// The server is away, slow or busy, or refused us rather than the mail.
    #[error("the mail server failed: {0}")]
    Failed(String),
}

impl Mailer {
    /// As configured; nothing is connected yet.
    pub fn new(config: &SmtpConfig) -> Result<Self, ClientError> {
        let from =
            config.from.parse().map_err(|_| ClientError::Mail("MAIL_FROM is no address".to_owned()))?;
        // The parser's own message might quote the URL, which holds a password.
        let transport = AsyncSmtpTransport::<Tokio1Executor>::from_url(config.url.expose_secret())
            .map_err(|_| ClientError::Mail("SMTP_URL is not understood".to_owned()))?
            .timeout(Some(STEP_WITHIN))
            .build();
        Ok(Self { from, transport })
    }

    /// Sends one mail. The server may have taken it even where this fails.
    pub async fn send(&self, mail: Mail<'_>) -> Result<(), MailError> {
        let message = self.message(mail)?;
        match tokio::time::timeout(SENT_WITHIN, self.transport.send(message)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(sort(&error)),
            Err(_) => Err(MailError::Failed(format!("no end within {} s", SENT_WITHIN.as_secs()))),
        }
    }

    fn message(&self, mail: Mail<'_>) -> Result<Message, MailError> {
        let address = |text: &str, field| text.parse::<Mailbox>().map_err(|_| MailError::Address(field));
        Message::builder()
            .from(self.from.clone())
            .to(address(mail.to, "to")?)
            .reply_to(address(mail.reply_to, "reply_to")?)
            .subject(mail.subject)
            .message_id(Some(format!("<{}@{}>", mail.id, self.from.email.domain())))
            .header(ContentType::TEXT_PLAIN)
            .body(mail.text.to_owned())
            .map_err(|error| MailError::Refused(error.to_string()))
    }
}

/// A lasting refusal that is about us (530 to 538: authentication) may be over once an operator has mended it.
fn sort(error: &smtp::Error) -> MailError {
    let text = crate::telemetry::chain(error);
    let code =
        error.status().map(|code| u16::from(code.severity as u8) * 100 + u16::from(code.category as u8) * 10);
    match code {
        Some(530) | None => MailError::Failed(text),
        Some(500..) if error.is_permanent() => MailError::Refused(text),
        Some(_) => MailError::Failed(text),
    }
}
