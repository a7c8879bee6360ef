//! Password hashes as RabbitMQ stores them: four bytes of salt, then the digest of salt and password.
//!
//! The text form is base64. An empty hash is a user without a password, who cannot log in by one.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use md5::Md5;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

/// How a password is digested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// The default.
    #[default]
    Sha256,
    /// Longer.
    Sha512,
    /// Broken; only to take over old users.
    Md5,
}

impl HashAlgorithm {
    /// The name in definitions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "rabbit_password_hashing_sha256",
            Self::Sha512 => "rabbit_password_hashing_sha512",
            Self::Md5 => "rabbit_password_hashing_md5",
        }
    }

    /// The algorithm of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Sha256, Self::Sha512, Self::Md5].into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    fn digest(self, salt: &[u8], password: &[u8]) -> Vec<u8> {
        fn salted<D: Digest>(salt: &[u8], password: &[u8]) -> Vec<u8> {
            D::new().chain_update(salt).chain_update(password).finalize().to_vec()
        }
        match self {
            Self::Sha256 => salted::<Sha256>(salt, password),
            Self::Sha512 => salted::<Sha512>(salt, password),
            Self::Md5 => salted::<Md5>(salt, password),
        }
    }
}

/// A stored hash. Its debug form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    algorithm: HashAlgorithm,
    /// Salt and digest; empty without a password.
    bytes: Vec<u8>,
}

impl PasswordHash {
    /// Hashes a password with the given salt.
    pub fn new(algorithm: HashAlgorithm, salt: [u8; SALT_BYTES], password: &[u8]) -> Self {
        let mut bytes = salt.to_vec();
        bytes.extend(algorithm.digest(&salt, password));
        Self { algorithm, bytes }
    }

    /// Hashes a password with a random salt.
    pub fn random(algorithm: HashAlgorithm, password: &[u8]) -> Self {
        let mut salt = [0; SALT_BYTES];
        getrandom::fill(&mut salt).expect("the system has a source of randomness");
        Self::new(algorithm, salt, password)
    }

    /// The hash of a user without a password.
    pub fn none() -> Self {
        Self { algorithm: HashAlgorithm::default(), bytes: Vec::new() }
    }

    /// Takes over a stored hash. One of a wrong length is kept, and matches no password.
    pub fn from_base64(algorithm: HashAlgorithm, text: &str) -> Result<Self, PasswordHashInvalid> {
        let bytes = STANDARD.decode(text).map_err(|_| PasswordHashInvalid { text: text.to_owned() })?;
        Ok(Self { algorithm, bytes })
    }

    /// Takes over the octets of a stored hash, as [`Self::as_bytes`] gave them.
    pub fn from_bytes(algorithm: HashAlgorithm, bytes: Vec<u8>) -> Self {
        Self { algorithm, bytes }
    }

    /// Salt and digest.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The text form.
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.bytes)
    }

    /// How the password was digested.
    pub fn algorithm(&self) -> HashAlgorithm {
        self.algorithm
    }

    /// Whether there is no password.
    pub fn is_none(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether this is the password. Takes as long for a wrong one as for the right one.
    pub fn verify(&self, password: &[u8]) -> bool {
        let (salt, digest) = self.bytes.split_at(SALT_BYTES.min(self.bytes.len()));
        // Digested also when there is nothing to compare with, so that time does not tell.
        let given = self.algorithm.digest(salt, password);
        !self.is_none() && bool::from(given.ct_eq(digest))
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({})", self.algorithm.as_str())
    }
}

/// A stored hash that is not base64.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the password hash is not base64")]
pub struct PasswordHashInvalid {
    /// The text that was given.
    pub text: String,
}

const SALT_BYTES: usize = 4;

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by RabbitMQ 3.10.8 for guest/guest.
    const GUEST: &str = "/lZf4+v7BVBNN1cu95cPSuGiVrTtZG20mx2hkCqwjraRkjWN";

    #[test]
    fn a_hash_of_rabbitmq_fits_its_password_only() {
        let hash = PasswordHash::from_base64(HashAlgorithm::Sha256, GUEST).unwrap();
        assert!(hash.verify(b"guest"));
        assert!(!hash.verify(b"Guest"));
        assert!(!hash.verify(b""));
        assert_eq!(hash.to_base64(), GUEST);
    }

    #[test]
    fn the_published_example_is_reproduced() {
        // From RabbitMQ's guide to passwords: salt 908DC60A, password test12.
        let hash = PasswordHash::new(HashAlgorithm::Sha256, [0x90, 0x8d, 0xc6, 0x0a], b"test12");
        assert_eq!(hash.to_base64(), "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR");
    }

    #[test]
    fn every_algorithm_fits_its_own_passwords() {
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sha512, HashAlgorithm::Md5] {
            let hash = PasswordHash::random(algorithm, "pässword".as_bytes());
            let stored = PasswordHash::from_base64(algorithm, &hash.to_base64()).unwrap();
            assert!(stored.verify("pässword".as_bytes()));
            assert!(!stored.verify(b"password"));
            assert_eq!(HashAlgorithm::from_name(algorithm.as_str()), Some(algorithm));
        }
        assert_eq!(HashAlgorithm::from_name("foo"), None);
    }

    #[test]
    fn no_password_fits_an_empty_or_short_hash() {
        for text in ["", "AAAA", "AAAAAA=="] {
            let hash = PasswordHash::from_base64(HashAlgorithm::Sha256, text).unwrap();
            assert!(!hash.verify(b""), "{text}");
            assert!(!hash.verify(b"guest"), "{text}");
        }
        assert!(PasswordHash::none().is_none());
        assert!(PasswordHash::from_base64(HashAlgorithm::Sha256, "!!").is_err());
    }

    #[test]
    fn salts_differ() {
        let hash = || PasswordHash::random(HashAlgorithm::Sha256, b"x").to_base64();
        assert_ne!(hash(), hash());
    }

    #[test]
    fn a_debug_print_shows_no_hash() {
        let hash = PasswordHash::from_base64(HashAlgorithm::Sha256, GUEST).unwrap();
        assert_eq!(format!("{hash:?}"), "PasswordHash(rabbit_password_hashing_sha256)");
    }
}
