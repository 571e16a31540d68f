//! A mail server that keeps what it is sent, or says why not.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};

/// A server on the loopback address, without encryption.
pub(crate) struct FakeSmtp {
    url: String,
    mails: Arc<Mutex<Vec<String>>>,
    credentials: Arc<Mutex<Vec<String>>>,
}

impl FakeSmtp {
    /// Answers each recipient with the given line: `250 ok`, `550 no such user` and so on. Knows nobody who comes with
    /// credentials.
    pub(crate) async fn start(to_recipients: &'static str) -> Self {
        Self::with_manners(to_recipients, true).await
    }

    /// Takes every mail, and never answers a goodbye.
    pub(crate) async fn without_goodbye() -> Self {
        Self::with_manners("250 ok", false).await
    }

    async fn with_manners(to_recipients: &'static str, says_goodbye: bool) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let url = format!("smtp://{}", listener.local_addr().expect("an address"));
        let mails = Arc::new(Mutex::new(Vec::new()));
        let credentials = Arc::new(Mutex::new(Vec::new()));
        let (kept, shown) = (mails.clone(), credentials.clone());
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(talk(stream, to_recipients, says_goodbye, kept.clone(), shown.clone()));
            }
        });
        Self { url, mails, credentials }
    }

    pub(crate) fn vars(&self) -> [(&str, &str); 2] {
        [("SMTP_URL", &self.url), ("MAIL_FROM", "Yachtparty <hello@example.com>")]
    }

    /// Head and body of each mail that was taken.
    pub(crate) fn mails(&self) -> Vec<String> {
        self.mails.lock().unwrap().clone()
    }

    /// What was said with each `AUTH`.
    pub(crate) fn credentials(&self) -> Vec<String> {
        self.credentials.lock().unwrap().clone()
    }
}

async fn talk(
    stream: TcpStream,
    to_recipients: &'static str,
    says_goodbye: bool,
    mails: Arc<Mutex<Vec<String>>>,
    credentials: Arc<Mutex<Vec<String>>>,
) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    stream.write_all(b"220 test ready\r\n").await?;
    let mut line = String::new();
    while {
        line.clear();
        stream.read_line(&mut line).await? > 0
    } {
        let verb = line.split([' ', '\r']).next().unwrap_or_default().to_ascii_uppercase();
        let answer = match verb.as_str() {
            "EHLO" => "250-ok\r\n250 AUTH PLAIN",
            "AUTH" => {
                credentials.lock().unwrap().push(line.trim_end().to_owned());
                "535 who are you"
            }
            "RCPT" => to_recipients,
            "DATA" => {
                stream.write_all(b"354 go on\r\n").await?;
                let mut mail = String::new();
                while {
                    line.clear();
                    stream.read_line(&mut line).await? > 0
                } && line != ".\r\n"
                {
                    mail.push_str(&line);
                }
                mails.lock().unwrap().push(mail);
                "250 taken"
            }
            "QUIT" if !says_goodbye => continue,
            "QUIT" => "221 bye",
            _ => "250 ok",
        };
        stream.write_all(format!("{answer}\r\n").as_bytes()).await?;
    }
    Ok(())
}
