//! Settings of both services.
//!
//! `config::table` has one row for each field, with its key, bounds and reason.

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
    /// Bytes of a request's body. Default 4 MiB: a batch of 1 MiB whose octets are all escaped in a form is
    /// three times as long.
    pub body_bytes_max: usize,
    /// Seconds that a signature's time may differ from ours. Default 900, as AWS.
    pub clock_skew_secs: u64,
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
            body_bytes_max: 4 << 20,
            clock_skew_secs: 900,
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
