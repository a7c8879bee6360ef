//! Settings of both services.
//!
//! `config::table` has one row for each field, with its key, bounds and reason.

use std::path::PathBuf;

pub use super::declared::Declared;
pub use crate::broker::access::keys::AccessKey;

/// Settings of SQS and SNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Account of the default vhost. Default 000000000000, as emulators have it.
    pub account: String,
    /// Vhost of that account. Default `/`.
    pub vhost: String,
    /// Other accounts and their vhosts. Default none.
    pub accounts: Vec<(String, String)>,
    /// Region where a request says none. Default us-east-1.
    pub region: String,
    /// Whether calls from this machine are taken with any credentials, as the default user. Default: while nothing
    /// but loopback addresses are listened on.
    pub development: Option<bool>,
    /// Keys that sign, and whose they are, beside those that administration makes. Default none.
    pub access_keys: Vec<AccessKey>,
    /// Origins of pages that may call; `*` is any. Default none listed: over loopback pages of this machine, over the
    /// network any. What is no page says no origin and may always.
    pub origins: Vec<String>,
    /// Queues that are there after each start. Default none.
    pub queues: Vec<Declared>,
    /// Topics that are there after each start. Default none.
    pub topics: Vec<Declared>,
    /// Subscriptions that are there after each start. Default none.
    pub subscriptions: Vec<Declared>,
    /// Open connections. Default 16,384. Full: a further one is closed at once.
    pub connections_count_max: usize,
    /// Milliseconds that a connection may be open without a request, and that the head of one may take. Default
    /// 75,000: longer than clients keep theirs.
    pub idle_timeout_ms: u64,
    /// Bytes of a request's body. Default 4 MiB: a batch of 1 MiB whose octets are all escaped in a form is
    /// three times as long.
    pub body_bytes_max: usize,
    /// Seconds that a signature's time may differ from ours. Default 900, as AWS.
    pub clock_skew_secs: u64,
    /// What the addresses of the certificate begin with that notifications are checked with, for subscribers that
    /// accept certain hosts only. Default empty: how clients reach this broker.
    pub signing_cert_url: String,
    /// Where what is for sms, email, lambda, firehose and mobile push is posted as JSON. Default empty: it waits in the
    /// outbox.
    pub delivery_webhook: String,
    /// The relay that takes mails for email and email-json. Default empty: the webhook, or the outbox.
    pub smtp_relay: String,
    /// Whom mails are from. Default tern@localhost.
    pub smtp_from: String,
    /// Milliseconds until what the webhook or the relay did not take is tried again for the first time; later it is up
    /// to sixty times as long. Default 10,000: as the service does with mail and text messages.
    pub delivery_retry_min_ms: u64,
    /// Certificates in PEM by which endpoints over HTTPS are trusted beside those that the machine trusts. Read at the
    /// start. Default none.
    pub trusted_ca_file: Option<PathBuf>,
    /// Whether a name may not be used again for a minute after its queue was deleted, as with AWS. Default off.
    pub queue_deleted_recently: bool,
    /// Whether `POST /_tern/reset` deletes everything, for test suites. Default off.
    pub reset: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            account: "000000000000".into(),
            vhost: "/".into(),
            accounts: Vec::new(),
            region: "us-east-1".into(),
            development: None,
            access_keys: Vec::new(),
            origins: Vec::new(),
            queues: Vec::new(),
            topics: Vec::new(),
            subscriptions: Vec::new(),
            connections_count_max: 16_384,
            idle_timeout_ms: 75_000,
            body_bytes_max: 4 << 20,
            clock_skew_secs: 900,
            signing_cert_url: String::new(),
            delivery_webhook: String::new(),
            smtp_relay: String::new(),
            smtp_from: "tern@localhost".into(),
            delivery_retry_min_ms: 10_000,
            trusted_ca_file: None,
            queue_deleted_recently: false,
            reset: false,
        }
    }
}

impl Options {
    /// The vhost of an account.
    pub fn vhost_of(&self, account: &str) -> Option<&str> {
        if account == self.account {
            return Some(&self.vhost);
        }
        self.accounts.iter().find(|(known, _)| known == account).map(|(_, vhost)| vhost.as_str())
    }

    /// The account of a vhost.
    pub fn account_of(&self, vhost: &str) -> Option<&str> {
        if vhost == self.vhost {
            return Some(&self.account);
        }
        self.accounts.iter().find(|(_, known)| known == vhost).map(|(account, _)| account.as_str())
    }
}
