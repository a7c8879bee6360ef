//! Passwords that were right a moment ago, so that the next login with one costs microseconds.
//!
//! Holds no password: a digest of the password and of the stored hash under a key that this process
//! alone has, and has from its start. The stored hash is in it, with its random salt, so that a changed
//! password is forgotten by itself.

use std::collections::HashMap;
use std::fmt;

use parking_lot::RwLock;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq;

use super::password::PasswordHash;

/// Users remembered. Full: all are forgotten, and each next login is slow once.
const USERS_COUNT_MAX: usize = 100_000;

pub(super) struct Verified {
    key: [u8; 32],
    // Taken alone; nothing is digested under it.
    by_user: RwLock<HashMap<String, [u8; 32]>>,
}

impl Default for Verified {
    fn default() -> Self {
        let mut key = [0; 32];
        getrandom::fill(&mut key).expect("the system has a source of randomness");
        Self { key, by_user: RwLock::default() }
    }
}

impl Verified {
    /// Whether this was the user's password, and the stored one is still the same.
    pub(super) fn knows(&self, user: &str, stored: &PasswordHash, password: &[u8]) -> bool {
        let Some(known) = self.by_user.read().get(user).copied() else { return false };
        bool::from(known.ct_eq(&self.digest(stored, password)))
    }

    pub(super) fn remember(&self, user: &str, stored: &PasswordHash, password: &[u8]) {
        let digest = self.digest(stored, password);
        let mut by_user = self.by_user.write();
        if by_user.len() >= USERS_COUNT_MAX {
            by_user.clear();
        }
        by_user.insert(user.to_owned(), digest);
    }

    pub(super) fn forget(&self, user: &str) {
        self.by_user.write().remove(user);
    }

    fn digest(&self, stored: &PasswordHash, password: &[u8]) -> [u8; 32] {
        let stored = stored.as_bytes();
        let length = (stored.len() as u64).to_le_bytes();
        let digest = Sha256::new().chain_update(self.key).chain_update(length).chain_update(stored);
        digest.chain_update(password).finalize().into()
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Verified")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::access::HashAlgorithm;

    #[test]
    fn a_password_is_known_for_its_user_and_its_stored_hash_only() {
        let verified = Verified::default();
        let hash = |password: &[u8]| PasswordHash::random(HashAlgorithm::Sha256, password);
        let stored = hash(b"secret");
        assert!(!verified.knows("u", &stored, b"secret"));
        verified.remember("u", &stored, b"secret");
        assert!(verified.knows("u", &stored, b"secret"));
        assert!(!verified.knows("u", &stored, b"Secret"));
        assert!(!verified.knows("v", &stored, b"secret"));
        assert!(!verified.knows("u", &hash(b"secret"), b"secret"), "the same password, set again");
        verified.forget("u");
        assert!(!verified.knows("u", &stored, b"secret"));
    }

    #[test]
    fn another_process_has_another_key() {
        let stored = PasswordHash::random(HashAlgorithm::Sha256, b"secret");
        assert_ne!(Verified::default().digest(&stored, b"secret"), Verified::default().digest(&stored, b"secret"));
    }
}
