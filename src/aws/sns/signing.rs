//! Who signs messages.

use std::sync::Arc;

/// How a message is signed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Version {
    /// RSA with SHA-1.
    #[default]
    One,
    /// RSA with SHA-256.
    Two,
}

impl Version {
    /// What messages call it.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "1",
            Self::Two => "2",
        }
    }
}

/// Signs messages.
pub trait Signer: Send + Sync {
    /// The signature of a text, in base64.
    fn sign(&self, version: Version, text: &[u8]) -> String;

    /// There is going to be something to sign: what takes long is to be done aside, and does not hold up whoever says
    /// so.
    fn prepare(self: Arc<Self>) {}

    /// Where the certificate is that the signature is checked with. `base_url` is how a client reaches this broker.
    fn certificate_url(&self, base_url: &str) -> String;

    /// The certificate whose address ends with that name, in PEM.
    fn certificate(&self, name: &str) -> Option<String>;
}

/// Signs nothing: where nobody was told to sign.
pub struct Unsigned;

impl Signer for Unsigned {
    fn sign(&self, _: Version, _: &[u8]) -> String {
        String::new()
    }

    fn certificate_url(&self, base_url: &str) -> String {
        format!("{base_url}/_tern/sns/certificate.pem")
    }

    fn certificate(&self, _: &str) -> Option<String> {
        None
    }
}
