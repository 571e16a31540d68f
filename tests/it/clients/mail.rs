//! The mail server: what is sent, and what its refusals mean.

use base64::Engine;
use task_processor::clients::{Clients, Mail, MailError};
use task_processor::config::Config;
use uuid::Uuid;

use crate::support::FakeSmtp;

fn clients(vars: &[(&str, &str)]) -> Clients {
    let database = ("DATABASE_URL", "postgres://user@localhost/db");
    let config = Config::from_vars(vars.iter().copied().chain([database]));
    Clients::new(&config.unwrap_or_else(|error| panic!("{error}"))).expect("usable clients")
}

fn mail(to: &str) -> Mail<'_> {
    Mail {
        id: Uuid::from_u128(7),
        to,
        reply_to: "intro-1@example.com",
        subject: "Über\r\nBcc: everybody@example.com",
        text: "Grüße\n.\nafter a dot",
    }
}

#[tokio::test]
async fn a_mail_is_sent_with_its_key_as_message_id_and_a_subject_adds_no_header() {
    let server = FakeSmtp::start("250 ok").await;
    let clients = clients(&server.vars());
    clients.mailer().expect("a mailer").send(mail("ada@example.com")).await.expect("sent");
    let mails = server.mails();
    let (head, _) = mails[0].split_once("\r\n\r\n").expect("a head");
    let lines: Vec<&str> = head.lines().collect();
    assert!(lines.contains(&"Message-ID: <00000000-0000-0000-0000-000000000007@example.com>"), "{head}");
    assert!(lines.contains(&"To: ada@example.com"), "{head}");
    assert!(lines.contains(&"Reply-To: intro-1@example.com"), "{head}");
    assert!(!lines.iter().any(|line| line.to_ascii_lowercase().starts_with("bcc:")), "{head}");
}

#[tokio::test]
async fn a_lasting_refusal_is_told_from_one_that_may_pass() {
    for (answer, lasting) in [("451 busy", false), ("530 log in first", false), ("550 no such user", true)] {
        let server = FakeSmtp::start(answer).await;
        let clients = clients(&server.vars());
        let error =
            clients.mailer().expect("a mailer").send(mail("ada@example.com")).await.expect_err("refused");
        assert_eq!(matches!(error, MailError::Refused(_)), lasting, "{answer}: {error}");
        assert!(server.mails().is_empty());
    }
}

#[tokio::test]
async fn a_mail_that_was_taken_is_sent_even_if_the_server_never_answers_the_goodbye() {
    let server = FakeSmtp::without_goodbye().await;
    let clients = clients(&server.vars());
    clients.mailer().expect("a mailer").send(mail("ada@example.com")).await.expect("sent");
    assert_eq!(server.mails().len(), 1);
}

#[tokio::test]
async fn user_and_password_are_sent_as_they_were_before_the_url_quoted_them() {
    let server = FakeSmtp::start("250 ok").await;
    let url = server.vars()[0].1.replace("smtp://", "smtp://ad%40a:a+b&c=d%25%2F%C3%BC@");
    let clients = clients(&[("SMTP_URL", &url), ("MAIL_FROM", "a@example.com")]);
    let error = clients.mailer().expect("a mailer").send(mail("ada@example.com")).await.expect_err("unknown");
    assert!(matches!(error, MailError::Failed(_)), "{error}");
    let plain = base64::engine::general_purpose::STANDARD.encode("\0ad@a\0a+b&c=d%/ü");
    assert_eq!(server.credentials(), [format!("AUTH PLAIN {plain}")]);
}

#[tokio::test]
async fn a_server_that_does_not_encrypt_is_told_nothing_where_that_was_asked_for() {
    let server = FakeSmtp::start("250 ok").await;
    let plain = server.vars()[0].1.to_owned();
    for url in [plain.replace("smtp://", "smtps://me:hunter2@"), format!("{plain}?tls=required")] {
        let clients = clients(&[("SMTP_URL", &url), ("MAIL_FROM", "a@example.com")]);
        let error =
            clients.mailer().expect("a mailer").send(mail("ada@example.com")).await.expect_err("no TLS");
        assert!(matches!(error, MailError::Failed(_)), "{error}");
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
    assert!(server.mails().is_empty());
}

#[tokio::test]
async fn what_is_no_address_is_refused_before_anybody_is_asked() {
    let clients = clients(&[("SMTP_URL", "smtp://me:hunter2@127.0.0.1:1"), ("MAIL_FROM", "a@example.com")]);
    let mailer = clients.mailer().expect("a mailer");
    let error = mailer.send(mail("nonsense")).await.expect_err("no address");
    assert_eq!(error.to_string(), "to is not an e-mail address");
    let error = mailer.send(mail("ada@example.com")).await.expect_err("nobody there");
    assert!(matches!(error, MailError::Failed(_)) && !format!("{error:?}").contains("hunter2"), "{error:?}");
}
