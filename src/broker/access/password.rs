//! Password hashes: RabbitMQ's, which are taken over, and argon2id, which replaces them.
//!
//! RabbitMQ's are four bytes of salt, then the digest of salt and password; their text form is base64.
//! Somebody who steals them tries billions of passwords a second. An argon2id hash is the text that
//! every tool knows, `$argon2id$v=19$m=19456,t=2,p=1$salt$digest`, with its own cost inside. An empty
//! hash is a user without a password, who cannot log in by one.

use std::fmt;

use argon2::{Algorithm, Argon2, Params, Version};
use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use md5::Md5;
use sha2::{Digest, Sha256, Sha512};
use subtle::ConstantTimeEq;

/// How a password is digested.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HashAlgorithm {
    /// What a hash is when nothing says otherwise.
    #[default]
    Sha256,
    /// Longer.
    Sha512,
    /// Broken; only to take over old users.
    Md5,
    /// Slow and large on purpose, so that guessing is. RabbitMQ does not know it.
    Argon2id,
}

impl HashAlgorithm {
    /// The name in definitions.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sha256 => "rabbit_password_hashing_sha256",
            Self::Sha512 => "rabbit_password_hashing_sha512",
            Self::Md5 => "rabbit_password_hashing_md5",
            Self::Argon2id => "argon2id",
        }
    }

    /// The algorithm of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        let all = [Self::Sha256, Self::Sha512, Self::Md5, Self::Argon2id];
        all.into_iter().find(|algorithm| algorithm.as_str() == name)
    }

    /// Whether a digest takes so long that nobody should wait for it.
    pub fn is_slow(self) -> bool {
        self == Self::Argon2id
    }
}

/// Digests as RabbitMQ does. `None` for what it does not know.
fn digest(algorithm: HashAlgorithm, salt: &[u8], password: &[u8]) -> Option<Vec<u8>> {
    fn salted<D: Digest>(salt: &[u8], password: &[u8]) -> Option<Vec<u8>> {
        Some(D::new().chain_update(salt).chain_update(password).finalize().to_vec())
    }
    match algorithm {
        HashAlgorithm::Sha256 => salted::<Sha256>(salt, password),
        HashAlgorithm::Sha512 => salted::<Sha512>(salt, password),
        HashAlgorithm::Md5 => salted::<Md5>(salt, password),
        HashAlgorithm::Argon2id => None,
    }
}

/// A stored hash. Its debug form does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct PasswordHash {
    algorithm: HashAlgorithm,
    /// Salt and digest, or the text of an argon2id hash; empty without a password.
    bytes: Vec<u8>,
}

impl PasswordHash {
    /// Hashes a password with a random salt.
    pub fn random(algorithm: HashAlgorithm, password: &[u8]) -> Self {
        let mut salt = [0; ARGON2_SALT_BYTES];
        getrandom::fill(&mut salt).expect("the system has a source of randomness");
        let bytes = match digest(algorithm, &salt[..SALT_BYTES], password) {
            Some(digest) => [&salt[..SALT_BYTES], &digest].concat(),
            None => Argon2id::with_salt(&salt).hashed(password).to_string().into_bytes(),
        };
        Self { algorithm, bytes }
    }

    /// The hash of a user without a password.
    pub fn none() -> Self {
        Self { algorithm: HashAlgorithm::default(), bytes: Vec::new() }
    }

    /// Takes over a stored hash. One of RabbitMQ's of a wrong length is kept, and matches no password.
    pub fn from_text(algorithm: HashAlgorithm, text: &str) -> Result<Self, PasswordHashInvalid> {
        let invalid = || PasswordHashInvalid { algorithm, text: text.to_owned() };
        let bytes = if algorithm != HashAlgorithm::Argon2id {
            STANDARD.decode(text).map_err(|_| invalid())?
        } else if text.is_empty() || Argon2id::parse(text).is_some() {
            text.as_bytes().to_vec()
        } else {
            return Err(invalid());
        };
        Ok(Self { algorithm, bytes })
    }

    /// Takes over the octets of a stored hash, as [`Self::as_bytes`] gave them.
    pub fn from_bytes(algorithm: HashAlgorithm, bytes: Vec<u8>) -> Self {
        Self { algorithm, bytes }
    }

    /// What is stored.
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The text form.
    pub fn to_text(&self) -> String {
        match self.algorithm {
            HashAlgorithm::Argon2id => String::from_utf8_lossy(&self.bytes).into_owned(),
            _ => STANDARD.encode(&self.bytes),
        }
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
        let (salt, stored) = self.bytes.split_at(SALT_BYTES.min(self.bytes.len()));
        // Digested also when there is nothing to compare with, so that time does not tell.
        if let Some(given) = digest(self.algorithm, salt, password) {
            return !self.is_none() && bool::from(given.ct_eq(stored));
        }
        match std::str::from_utf8(&self.bytes).ok().and_then(Argon2id::parse) {
            Some(stored) => bool::from(stored.hashed(password).digest.ct_eq(&stored.digest)),
            None => {
                Self::digest_in_vain(HashAlgorithm::Argon2id, password);
                false
            }
        }
    }

    /// Takes as long as [`PasswordHash::verify`], where there is nothing to verify with.
    pub fn digest_in_vain(algorithm: HashAlgorithm, password: &[u8]) {
        let digest = digest(algorithm, &[0; SALT_BYTES], password);
        std::hint::black_box(
            digest.unwrap_or_else(|| Argon2id::with_salt(&[0; ARGON2_SALT_BYTES]).hashed(password).digest),
        );
    }
}

/// An argon2id hash in its parts.
struct Argon2id {
    cost: Params,
    salt: Vec<u8>,
    digest: Vec<u8>,
}

impl Argon2id {
    /// Without a digest yet, of as many bytes as ours have.
    fn with_salt(salt: &[u8]) -> Self {
        let cost = Params::new(MEMORY_KIB, PASSES, 1, Some(DIGEST_BYTES)).expect("the constants are in bounds");
        Self { cost, salt: salt.to_vec(), digest: Vec::new() }
    }

    /// Reads the text form; `None` if it is none, or costs more than a login may.
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix("$argon2id$v=19$")?.split('$');
        let mut costs = parts.next()?.split(',');
        let mut cost = |name: &str, max: u32| {
            let number: u32 = costs.next()?.strip_prefix(name)?.strip_prefix('=')?.parse().ok()?;
            (number <= max).then_some(number)
        };
        let (memory_kib, passes, lanes) = (cost("m", MEMORY_KIB_MAX)?, cost("t", PASSES_MAX)?, cost("p", LANES_MAX)?);
        let mut bytes = || STANDARD_NO_PAD.decode(parts.next()?).ok();
        let (salt, digest) = (bytes()?, bytes()?);
        if parts.next().is_some() || costs.next().is_some() || salt.len() < 8 || digest.len() > 64 {
            return None;
        }
        let cost = Params::new(memory_kib, passes, lanes, Some(digest.len())).ok()?;
        Some(Self { cost, salt, digest })
    }

    /// The same salt and cost with the digest of `password`.
    fn hashed(&self, password: &[u8]) -> Self {
        let mut digest = vec![0; self.cost.output_len().unwrap_or(DIGEST_BYTES)];
        let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, self.cost.clone());
        // A password of 4 GiB and more is the one thing that can still be refused; the digest of zeros
        // that is left then is no hash that anybody has.
        if hasher.hash_password_into(password, &self.salt, &mut digest).is_err() {
            digest.clear();
        }
        Self { cost: self.cost.clone(), salt: self.salt.clone(), digest }
    }
}

impl fmt::Display for Argon2id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (memory_kib, passes, lanes) = (self.cost.m_cost(), self.cost.t_cost(), self.cost.p_cost());
        let (salt, digest) = (STANDARD_NO_PAD.encode(&self.salt), STANDARD_NO_PAD.encode(&self.digest));
        write!(f, "$argon2id$v=19$m={memory_kib},t={passes},p={lanes}${salt}${digest}")
    }
}

impl fmt::Debug for PasswordHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PasswordHash({})", self.algorithm.as_str())
    }
}

/// A stored hash that is not written as its algorithm wants it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the password hash is not {}", if .algorithm.is_slow() { "of argon2id" } else { "base64" })]
pub struct PasswordHashInvalid {
    /// What it was to be.
    pub algorithm: HashAlgorithm,
    /// The text that was given.
    pub text: String,
}

/// RabbitMQ's.
const SALT_BYTES: usize = 4;
const ARGON2_SALT_BYTES: usize = 16;
const DIGEST_BYTES: usize = 32;
/// OWASP's least: 19 MiB and two passes, some 20 ms. Tests log in often and guard nothing.
const MEMORY_KIB: u32 = if cfg!(test) { 64 } else { 19 * 1024 };
const PASSES: u32 = 2;
/// Costs of a hash from elsewhere; one that costs more is refused, or a login could stop the broker.
const MEMORY_KIB_MAX: u32 = 256 << 10;
const PASSES_MAX: u32 = 16;
const LANES_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    /// Written by RabbitMQ 3.10.8 for guest/guest.
    const GUEST: &str = "/lZf4+v7BVBNN1cu95cPSuGiVrTtZG20mx2hkCqwjraRkjWN";

    #[test]
    fn a_hash_of_rabbitmq_fits_its_password_only() {
        let hash = PasswordHash::from_text(HashAlgorithm::Sha256, GUEST).unwrap();
        assert!(hash.verify(b"guest"));
        assert!(!hash.verify(b"Guest"));
        assert!(!hash.verify(b""));
        assert_eq!(hash.to_text(), GUEST);
    }

    #[test]
    fn the_published_example_is_reproduced() {
        // From RabbitMQ's guide to passwords: salt 908DC60A, password test12.
        let text = "kI3GCqW5JLMJa4iX1lo7X4D6XbYqlLgxIs30+P6tENUV2POR";
        let hash = PasswordHash::from_text(HashAlgorithm::Sha256, text).unwrap();
        assert!(hash.verify(b"test12"));
        assert_eq!(hash.as_bytes()[..4], [0x90, 0x8d, 0xc6, 0x0a]);
    }

    #[test]
    fn every_algorithm_fits_its_own_passwords() {
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Sha512, HashAlgorithm::Md5, HashAlgorithm::Argon2id] {
            let hash = PasswordHash::random(algorithm, "pässword".as_bytes());
            let stored = PasswordHash::from_text(algorithm, &hash.to_text()).unwrap();
            assert!(stored.verify("pässword".as_bytes()));
            assert!(!stored.verify(b"password"));
            assert_eq!(HashAlgorithm::from_name(algorithm.as_str()), Some(algorithm));
        }
        assert_eq!(HashAlgorithm::from_name("foo"), None);
    }

    #[test]
    fn no_password_fits_an_empty_or_short_hash() {
        for text in ["", "AAAA", "AAAAAA=="] {
            let hash = PasswordHash::from_text(HashAlgorithm::Sha256, text).unwrap();
            assert!(!hash.verify(b""), "{text}");
            assert!(!hash.verify(b"guest"), "{text}");
        }
        assert!(PasswordHash::none().is_none());
        assert!(PasswordHash::from_text(HashAlgorithm::Sha256, "!!").is_err());
    }

    #[test]
    fn salts_differ() {
        for algorithm in [HashAlgorithm::Sha256, HashAlgorithm::Argon2id] {
            let hash = || PasswordHash::random(algorithm, b"x").to_text();
            assert_ne!(hash(), hash());
        }
    }

    /// Written by the reference implementation of Argon2, from its own test: password, somesalt.
    const ARGON2: &str = "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc";

    #[test]
    fn an_argon2id_hash_of_others_fits_its_password_only() {
        let hash = PasswordHash::from_text(HashAlgorithm::Argon2id, ARGON2).unwrap();
        assert!(hash.verify(b"password"));
        assert!(!hash.verify(b"Password"));
        assert_eq!(hash.to_text(), ARGON2);
        assert_eq!(PasswordHash::from_bytes(HashAlgorithm::Argon2id, hash.as_bytes().to_vec()), hash);
    }

    #[test]
    fn an_argon2id_hash_that_is_none_or_costs_too_much_is_refused() {
        let hash = |text: &str| PasswordHash::from_text(HashAlgorithm::Argon2id, text);
        assert!(hash("").unwrap().is_none() && !hash("").unwrap().verify(b""));
        for (from, to) in [
            ("argon2id", "argon2i"),
            ("v=19", "v=16"),
            ("m=65536", "m=4194304"),
            ("m=65536", "m=0"),
            ("t=2", "t=1000"),
            ("t=2,", ""),
            ("p=1", "p=1,x=2"),
            ("$c29tZXNhbHQ", "$YQ"),
            ("$CTF", "$!TF"),
            ("PPc", "PPc$YQ"),
        ] {
            assert!(hash(&ARGON2.replace(from, to)).is_err(), "{from} -> {to}");
        }
        let spoilt = PasswordHash::from_bytes(HashAlgorithm::Argon2id, vec![0xff; 9]);
        assert!(!spoilt.verify(b"password"));
    }

    #[test]
    fn a_debug_print_shows_no_hash() {
        let hash = PasswordHash::from_text(HashAlgorithm::Sha256, GUEST).unwrap();
        assert_eq!(format!("{hash:?}"), "PasswordHash(rabbit_password_hashing_sha256)");
    }
}
