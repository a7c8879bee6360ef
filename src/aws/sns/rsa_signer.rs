//! A key of our own with its certificate, and the signatures that subscribers check with it.
//!
//! Knows no file and no clock: whoever keeps the key hands it over as PEM. The certificate is signed with the key
//! itself; subscribers fetch it from the address that each message names.

use std::{str::FromStr, time::Duration};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::{
    rand::SystemRandom,
    signature::{RSA_PKCS1_SHA256, RsaKeyPair},
};
use rsa::{
    RsaPrivateKey,
    pkcs1v15::{Signature, SigningKey},
    pkcs8::{DecodePrivateKey, EncodePrivateKey, EncodePublicKey, LineEnding},
    rand_core::{OsRng, RngCore},
    sha2::{Digest, Sha256},
    signature::{RandomizedSigner, SignatureEncoding},
    traits::PublicKeyParts,
};
use sha1::Sha1;
use x509_cert::{
    Certificate,
    builder::{Builder, CertificateBuilder, Profile},
    der::{DateTime, DecodePem, Encode, EncodePem, asn1::GeneralizedTime, asn1::UtcTime},
    name::Name,
    serial_number::SerialNumber,
    spki::SubjectPublicKeyInfoOwned,
    time::{Time as CertificateTime, Validity},
};

use super::signing::Version;
use crate::broker::time::Time;

/// Bits of a key, as long as those that messages were signed with so far.
const KEY_BITS: usize = 2048;
/// How long a certificate holds. Subscribers that pin it would stop at its end, and nothing renews it by itself.
const DAYS_VALID: u64 = 20 * 365;
/// How long before its making it holds: clocks differ.
const DAYS_BEFORE: u64 = 1;
const SECONDS_A_DAY: u64 = 86_400;
/// Years from here on need another form of time.
const YEAR_2050_SECS: u64 = 2_524_608_000;
const SUBJECT: &str = "CN=tern notification signing,O=Tern";

/// Why there is no signer.
#[derive(Debug, thiserror::Error)]
pub enum SignerError {
    /// A key could not be made.
    #[error("cannot make a key: {0}")]
    Key(#[from] rsa::Error),
    /// A key could not be read or written.
    #[error("the key is none in PKCS #8: {0}")]
    KeyText(#[from] rsa::pkcs8::Error),
    /// A public key could not be written.
    #[error("the public key cannot be written: {0}")]
    PublicKey(#[from] x509_cert::spki::Error),
    /// A certificate could not be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] x509_cert::builder::Error),
    /// A certificate could not be read or written.
    #[error("the certificate is none in PEM: {0}")]
    CertificateText(#[from] x509_cert::der::Error),
    /// A key cannot be signed with.
    #[error("the key cannot be signed with: {0}")]
    Unfit(ring::error::KeyRejected),
    /// The certificate is another key's.
    #[error("the certificate does not belong to the key")]
    Mismatch,
}

/// Signs with one key.
pub struct RsaSigner {
    one: SigningKey<Sha1>,
    /// Five times as fast as the other, and knows no SHA-1.
    two: RsaKeyPair,
    key: RsaPrivateKey,
    certificate: String,
    /// Part of the certificate's file name, so that another certificate has another address.
    fingerprint: String,
}

impl RsaSigner {
    /// Makes a key and its certificate. Takes a second or so.
    pub fn generate(now: Time) -> Result<Self, SignerError> {
        let key = RsaPrivateKey::new(&mut OsRng, KEY_BITS)?;
        let public = key.to_public_key().to_public_key_der()?;
        let mut serial = [0; 16];
        OsRng.fill_bytes(&mut serial);
        // A serial number is positive and has no leading zero.
        serial[0] = serial[0] & 0x7F | 0x40;
        let now_secs = now.0 / 1000;
        let validity = Validity {
            not_before: certificate_time(now_secs.saturating_sub(DAYS_BEFORE * SECONDS_A_DAY))?,
            not_after: certificate_time(now_secs + DAYS_VALID * SECONDS_A_DAY)?,
        };
        let signer = SigningKey::<Sha256>::new(key.clone());
        let builder = CertificateBuilder::new(
            Profile::Root,
            SerialNumber::new(&serial)?,
            validity,
            Name::from_str(SUBJECT)?,
            SubjectPublicKeyInfoOwned::try_from(public.as_bytes())?,
            &signer,
        )?;
        let certificate = builder.build::<Signature>()?;
        Self::new(key, &certificate)
    }

    /// A signer of before, from its key in PKCS #8 and its certificate.
    pub fn from_pem(key: &str, certificate: &str) -> Result<Self, SignerError> {
        let key = RsaPrivateKey::from_pkcs8_pem(key)?;
        Self::new(key, &Certificate::from_pem(certificate)?)
    }

    fn new(key: RsaPrivateKey, certificate: &Certificate) -> Result<Self, SignerError> {
        let public = key.to_public_key().to_public_key_der()?;
        if certificate.tbs_certificate.subject_public_key_info.to_der()? != public.as_bytes() {
            return Err(SignerError::Mismatch);
        }
        let digest = Sha256::digest(certificate.to_der()?);
        let two = RsaKeyPair::from_pkcs8(key.to_pkcs8_der()?.as_bytes()).map_err(SignerError::Unfit)?;
        Ok(Self {
            one: SigningKey::new(key.clone()),
            two,
            key,
            certificate: certificate.to_pem(LineEnding::LF)?,
            fingerprint: digest[..16].iter().map(|octet| format!("{octet:02x}")).collect(),
        })
    }

    /// The key in PKCS #8, for keeping.
    pub fn key_pem(&self) -> Result<impl AsRef<str> + use<>, SignerError> {
        Ok(self.key.to_pkcs8_pem(LineEnding::LF).map(Pem)?)
    }

    /// The certificate.
    pub fn certificate_pem(&self) -> &str {
        &self.certificate
    }

    /// The name of the certificate's file in its address.
    pub fn certificate_name(&self) -> String {
        format!("SimpleNotificationService-{}.pem", self.fingerprint)
    }

    /// The signature of a text, in base64.
    pub fn sign(&self, version: Version, text: &[u8]) -> String {
        // With a random number, so that the time it takes says nothing of the key. The key was made or checked
        // with this size: signing does not fail.
        let signature = match version {
            Version::One => self.one.try_sign_with_rng(&mut OsRng, text).map(|signature| signature.to_vec()).ok(),
            Version::Two => {
                let mut signature = vec![0; self.two.public().modulus_len()];
                let signed = self.two.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), text, &mut signature);
                signed.is_ok().then_some(signature)
            }
        };
        STANDARD.encode(signature.unwrap_or_default())
    }

    /// Bits of the key.
    pub fn key_bits(&self) -> usize {
        self.key.size() * 8
    }
}

impl std::fmt::Debug for RsaSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RsaSigner").field("fingerprint", &self.fingerprint).finish_non_exhaustive()
    }
}

/// A text that is wiped when it is dropped.
struct Pem<T>(T);

impl<T: std::ops::Deref<Target = String>> AsRef<str> for Pem<T> {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

fn certificate_time(secs: u64) -> Result<CertificateTime, x509_cert::der::Error> {
    let time = DateTime::from_unix_duration(Duration::from_secs(secs))?;
    Ok(if secs < YEAR_2050_SECS {
        CertificateTime::UtcTime(UtcTime::from_date_time(time)?)
    } else {
        CertificateTime::GeneralTime(GeneralizedTime::from_date_time(time))
    })
}

#[cfg(test)]
mod tests {
    use rsa::signature::Verifier;

    use super::*;

    const NOW: Time = Time(1_795_000_000_000);

    fn verifies(signer: &RsaSigner, version: Version, text: &[u8], signature: &str) -> bool {
        let bytes = STANDARD.decode(signature).unwrap();
        let signature = Signature::try_from(&bytes[..]).unwrap();
        let key = signer.key.to_public_key();
        match version {
            Version::One => rsa::pkcs1v15::VerifyingKey::<Sha1>::new(key).verify(text, &signature).is_ok(),
            Version::Two => rsa::pkcs1v15::VerifyingKey::<Sha256>::new(key).verify(text, &signature).is_ok(),
        }
    }

    #[test]
    fn a_kept_key_signs_as_before_under_the_same_certificate() {
        let signer = RsaSigner::generate(NOW).unwrap();
        assert_eq!(signer.key_bits(), KEY_BITS);
        let again = RsaSigner::from_pem(signer.key_pem().unwrap().as_ref(), signer.certificate_pem()).unwrap();
        assert_eq!(again.certificate_pem(), signer.certificate_pem());
        assert_eq!(again.certificate_name(), signer.certificate_name());
        for version in [Version::One, Version::Two] {
            let signature = again.sign(version, b"Message\nhello\n");
            assert!(verifies(&signer, version, b"Message\nhello\n", &signature), "{version:?}");
            assert!(!verifies(&signer, version, b"Message\nhullo\n", &signature), "{version:?}");
        }
        let other = RsaSigner::generate(Time(NOW.0 + 1)).unwrap();
        assert_ne!(other.certificate_name(), signer.certificate_name());
        let mixed = RsaSigner::from_pem(other.key_pem().unwrap().as_ref(), signer.certificate_pem());
        assert!(matches!(mixed, Err(SignerError::Mismatch)));
        assert!(!format!("{signer:?}").contains("PRIVATE"));
    }
}
