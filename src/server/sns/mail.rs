//! Mails, by a relay: one connection a mail, as there are few.

use std::time::Duration;

use lettre::{
    Address, AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor,
    message::{Mailbox, header::ContentType},
};

use crate::aws::sns::{deliveries::Verdict, handover::Mail};

/// How long each answer of the relay may take.
const ANSWER_TIME: Duration = Duration::from_secs(15);

/// Hands mails to a relay.
pub(super) struct Mailer {
    relay: AsyncSmtpTransport<Tokio1Executor>,
    from: Address,
}

impl Mailer {
    /// `None`: there is no relay.
    pub(super) fn new(relay: &str, from: &str) -> Option<Self> {
        if relay.is_empty() {
            return None;
        }
        // Both were looked at when the settings were read.
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(relay).ok()?;
        Some(Self { relay: builder.timeout(Some(ANSWER_TIME)).build(), from: from.parse().ok()? })
    }

    /// Sends a mail once. Says what came of it, and what was answered. May be dropped: whether the relay has the mail
    /// is not known then.
    pub(super) async fn send(&self, mail: &Mail) -> (Verdict, String) {
        let message = match self.message(mail) {
            Ok(message) => message,
            Err(reason) => return (Verdict::Refused, reason),
        };
        match self.relay.send(message).await {
            Ok(response) => (Verdict::Delivered, format!("{}", response.code())),
            // The relay refuses it for good; everything else may be better another time.
            Err(error) if error.is_permanent() => (Verdict::Refused, said(&error)),
            Err(error) => (Verdict::Again, said(&error)),
        }
    }

    fn message(&self, mail: &Mail) -> Result<Message, String> {
        let to: Address = mail.to.parse().map_err(|error| format!("no mail address: {error}"))?;
        let builder = Message::builder()
            .from(Mailbox::new(mail.from_name.clone(), self.from.clone()))
            .to(Mailbox::new(None, to))
            .subject(mail.subject.as_str())
            .header(ContentType::TEXT_PLAIN);
        builder.body(mail.text.clone()).map_err(|error| error.to_string())
    }
}

fn said(error: &lettre::transport::smtp::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

/// Whether a text is the address of a mail relay.
pub fn is_mail_relay(text: &str) -> bool {
    AsyncSmtpTransport::<Tokio1Executor>::from_url(text).is_ok()
}

/// Whether a text is a mail address.
pub fn is_mail_address(text: &str) -> bool {
    text.parse::<Address>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn relays_have_addresses_with_users_and_ways_to_be_secret() {
        for relay in ["smtp://127.0.0.1:2525", "smtp://me:secret@relay.example:587?tls=required", "smtps://relay"] {
            assert!(is_mail_relay(relay), "{relay}");
        }
        for relay in ["", "relay:25", "http://relay", "smtp://relay?tls=maybe"] {
            assert!(!is_mail_relay(relay), "{relay}");
        }
        assert!(is_mail_address("sns@example.com") && !is_mail_address("sns"));
    }

    #[test]
    fn a_mail_has_its_text_and_no_line_of_its_subject_becomes_a_header() {
        let mailer = Mailer::new("smtp://127.0.0.1:1", "sns@example.com").unwrap();
        let mail = Mail {
            to: "somebody@example.com".into(),
            from_name: Some("Topic".into()),
            subject: "s\r\nBcc: all@example.com".into(),
            text: "t\u{e4}xt".into(),
        };
        let formatted = String::from_utf8(mailer.message(&mail).unwrap().formatted()).unwrap();
        assert!(formatted.contains("From: Topic <sns@example.com>"), "{formatted}");
        assert!(!formatted.contains("\nBcc"), "{formatted}");
        assert!(mailer.message(&Mail { to: "nobody".into(), ..mail }).is_err());
    }
}
