//! Where deliveries go: to the subscribed endpoint, to the webhook of the settings, or to the mail relay.

use rustls::pki_types::CertificateDer;

use super::{
    mail::Mailer,
    post::{PostError, Poster},
};
use crate::{
    aws::{
        Options,
        sns::{
            deliveries::{Plan, Post, Verdict, is_farewell},
            handover,
            subscription::Subscription,
        },
    },
    broker::{message::Message, vhost::Vhost},
};

/// Everything that can be delivered with.
pub(super) struct Outlets {
    poster: Poster,
    webhook: Option<String>,
    mailer: Option<Mailer>,
    retry_min_ms: u64,
}

/// What came of an attempt.
pub(super) struct Sent {
    pub(super) verdict: Verdict,
    pub(super) said: String,
    /// The subscription is over with it.
    pub(super) is_farewell: bool,
}

/// Which way a protocol goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Endpoint,
    Webhook,
    Mail,
}

/// Which way a protocol goes with these settings; `None`: its messages wait in the outbox.
fn way(options: &Options, protocol: &str) -> Option<Way> {
    match protocol {
        "sqs" => None,
        "http" | "https" => Some(Way::Endpoint),
        "email" | "email-json" if !options.smtp_relay.is_empty() => Some(Way::Mail),
        _ => (!options.delivery_webhook.is_empty()).then_some(Way::Webhook),
    }
}

/// Whether a protocol is delivered from here with these settings.
pub(super) fn delivers(options: &Options, protocol: &str) -> bool {
    way(options, protocol).is_some()
}

impl Outlets {
    /// Reads which certificates the machine trusts, and so blocks.
    pub(super) fn new(options: &Options, trusted: Vec<CertificateDer<'static>>) -> Self {
        Self {
            poster: Poster::new(trusted),
            webhook: Some(options.delivery_webhook.clone()).filter(|url| !url.is_empty()),
            mailer: Mailer::new(&options.smtp_relay, &options.smtp_from),
            retry_min_ms: options.delivery_retry_min_ms,
        }
    }

    /// How messages of a subscription are delivered.
    pub(super) fn plan(&self, vhost: &Vhost, of: &Subscription) -> Plan {
        match &*of.protocol {
            "http" | "https" => Plan::new(vhost, of),
            _ => Plan::handed_over(self.retry_min_ms),
        }
    }

    /// Makes an attempt with a message. May be dropped: whether it arrived is not known then.
    pub(super) async fn send(
        &self,
        (of, vhost, plan): (&Subscription, &Vhost, &Plan),
        message: &Message,
        attempt: u32,
    ) -> Sent {
        let mail = matches!(&*of.protocol, "email" | "email-json").then_some(self.mailer.as_ref()).flatten();
        if let Some(mailer) = mail {
            let (verdict, said) = mailer.send(&handover::for_mail(of, vhost, message)).await;
            return Sent { verdict, said, is_farewell: is_farewell(message) };
        }
        let post = match (&*of.protocol, &self.webhook) {
            ("http" | "https", _) => Post::new(of, plan, message),
            (_, Some(url)) => Post::to_webhook(url, of, message, attempt),
            (_, None) => {
                let said = "nobody delivers this".to_owned();
                return Sent { verdict: Verdict::Again, said, is_farewell: false };
            }
        };
        let (verdict, said) = match self.poster.post(&post).await {
            Ok(status) => (Verdict::of_status(status), format!("status {status}")),
            Err(error @ PostError::Network(_)) => (Verdict::Again, error.to_string()),
            Err(error @ PostError::Address(_)) => (Verdict::Refused, error.to_string()),
        };
        Sent { verdict, said, is_farewell: post.is_farewell }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_say_which_way_a_protocol_goes() {
        let none = Options::default();
        let webhook = Options { delivery_webhook: "http://here".into(), ..Options::default() };
        let both = Options { smtp_relay: "smtp://relay".into(), ..webhook.clone() };
        for (protocol, ways) in [
            ("sqs", [None; 3]),
            ("https", [Some(Way::Endpoint); 3]),
            ("sms", [None, Some(Way::Webhook), Some(Way::Webhook)]),
            ("lambda", [None, Some(Way::Webhook), Some(Way::Webhook)]),
            ("email", [None, Some(Way::Webhook), Some(Way::Mail)]),
            ("email-json", [None, Some(Way::Webhook), Some(Way::Mail)]),
        ] {
            assert_eq!([&none, &webhook, &both].map(|options| way(options, protocol)), ways, "{protocol}");
        }
    }
}
