//! Mail by SMTP.

use std::time::Duration;

use lettre::Message;
use lettre::message::Mailbox;
use lettre::message::header::ContentType;
use lettre::transport::smtp::authentication::{Credentials, DEFAULT_MECHANISMS};
use lettre::transport::smtp::client::{AsyncSmtpConnection, Tls, TlsParameters};
use lettre::transport::smtp::extension::ClientId;
use lettre::transport::smtp::{self, SMTP_PORT, SUBMISSION_PORT, SUBMISSIONS_PORT};
use secrecy::ExposeSecret;
use tokio::time::timeout;
use url::{Url, form_urlencoded};
use uuid::Uuid;

use super::ClientError;
use crate::config::SmtpConfig;

/// For the connection.
const CONNECTED_WITHIN: Duration = Duration::from_secs(20);
/// For all of the conversation with the server, until it has taken the mail.
const SENT_WITHIN: Duration = Duration::from_mins(1);
/// For the goodbye afterwards.
const LEFT_WITHIN: Duration = Duration::from_secs(5);

/// A mail server.
pub struct Mailer {
    from: Mailbox,
    server: Server,
}

/// Where mails go, and how.
struct Server {
    host: String,
    port: u16,
    tls: Tls,
    hello: ClientId,
    credentials: Option<Credentials>,
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
        let server = Server::at(config.url.expose_secret())
            .ok_or_else(|| ClientError::Mail("SMTP_URL is not understood".to_owned()))?;
        Ok(Self { from, server })
    }

    /// Sends one mail. The server may have taken it even where this fails.
    pub async fn send(&self, mail: Mail<'_>) -> Result<(), MailError> {
        let message = self.message(mail)?;
        match timeout(SENT_WITHIN, self.server.take(&message)).await {
            Ok(Ok(connection)) => {
                leave(connection);
                Ok(())
            }
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

impl Server {
    /// `smtp` or `smtps`, user and password, host and port, the name we go by as path, `tls=required` or `opportunistic`.
    fn at(url: &str) -> Option<Self> {
        let url = Url::parse(url).ok()?;
        let host = url.host_str()?.to_owned();
        let wanted = url.query_pairs().find(|(name, _)| name == "tls").map(|(_, value)| value.into_owned());
        let tls = || TlsParameters::new(host.clone()).ok();
        let (port, tls) = match (url.scheme(), wanted.as_deref()) {
            ("smtps", _) => (SUBMISSIONS_PORT, Tls::Wrapper(tls()?)),
            ("smtp", Some("required")) => (SUBMISSION_PORT, Tls::Required(tls()?)),
            ("smtp", Some("opportunistic")) => (SUBMISSION_PORT, Tls::Opportunistic(tls()?)),
            ("smtp", None) => (SMTP_PORT, Tls::None),
            _ => return None,
        };
        let hello = match url.path().trim_matches('/') {
            "" => ClientId::default(),
            name => ClientId::Domain(name.to_owned()),
        };
        let credentials =
            url.password().map(|password| Credentials::new(unquoted(url.username()), unquoted(password)));
        Some(Self { port: url.port().unwrap_or(port), host, tls, hello, credentials })
    }

    /// The connection on which the mail was taken.
    async fn take(&self, message: &Message) -> Result<AsyncSmtpConnection, smtp::Error> {
        let mut connection = self.connect().await?;
        connection.send(message.envelope(), &message.formatted()).await?;
        Ok(connection)
    }

    async fn connect(&self) -> Result<AsyncSmtpConnection, smtp::Error> {
        let (address, limit) = ((self.host.as_str(), self.port), Some(CONNECTED_WITHIN));
        let wrapper = match &self.tls {
            Tls::Wrapper(tls) => Some(tls.clone()),
            _ => None,
        };
        let mut connection =
            AsyncSmtpConnection::connect_tokio1(address, limit, &self.hello, wrapper, None).await?;
        match &self.tls {
            Tls::Required(tls) => connection.starttls(tls.clone(), &self.hello).await?,
            Tls::Opportunistic(tls) if connection.can_starttls() => {
                connection.starttls(tls.clone(), &self.hello).await?;
            }
            _ => {}
        }
        if let Some(credentials) = &self.credentials {
            connection.auth(DEFAULT_MECHANISMS, credentials).await?;
        }
        Ok(connection)
    }
}

/// Says goodbye without anybody waiting for it. The server has taken the mail: were its answer to this the end of sending,
/// one that gives none would be sent the mail again.
fn leave(mut connection: AsyncSmtpConnection) {
    tokio::spawn(async move { timeout(LEFT_WITHIN, connection.quit()).await });
}

/// A part of a URL as it was before it was quoted. Unlike a URL, a form has a use for `+`, `&` and `=`.
fn unquoted(part: &str) -> String {
    let part = part.replace('+', "%2B").replace('&', "%26").replace('=', "%3D");
    form_urlencoded::parse(part.as_bytes()).map(|(text, _)| text).collect()
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
