//! The key that notifications are signed with: made when the first is signed, kept in the data directory.
//!
//! A key that is there and cannot be read is never replaced: somebody may need it. Then this process signs with a key of
//! its own that nobody keeps, and says so.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    thread,
};

use crate::{
    aws::sns::{
        rsa_signer::{RsaSigner, SignerError},
        signing::{Signer, Version},
    },
    server::clock,
};

/// Where key and certificate are, in the data directory.
const KEY_FILE: &str = "sns-signing.key";
const CERTIFICATE_FILE: &str = "sns-signing.pem";
/// Only its owner reads the key; anybody may read the certificate.
const KEY_MODE: u32 = 0o600;
const CERTIFICATE_MODE: u32 = 0o644;

/// Signs with the key of a data directory.
pub struct KeptSigner {
    dir: PathBuf,
    /// What the certificate's address begins with, if that is not how clients reach this broker.
    certificate_base: Option<String>,
    signer: OnceLock<Option<RsaSigner>>,
    /// A thread makes the signer.
    is_prepared: AtomicBool,
}

/// Why a key cannot be used.
#[derive(Debug, thiserror::Error)]
enum KeyError {
    /// A file.
    #[error("{0}: {1}")]
    File(PathBuf, io::Error),
    /// What is in it.
    #[error(transparent)]
    Signer(#[from] SignerError),
}

impl KeptSigner {
    /// Nothing is read or made before the first signature.
    pub fn new(dir: &Path, certificate_base: &str) -> Self {
        let certificate_base = Some(certificate_base.to_owned()).filter(|base| !base.is_empty());
        Self { dir: dir.to_owned(), certificate_base, signer: OnceLock::new(), is_prepared: AtomicBool::new(false) }
    }

    fn signer(&self) -> Option<&RsaSigner> {
        match self.signer.get() {
            Some(made) => made.as_ref(),
            // Files are read, or a key is made, which takes a second: whatever else this thread serves goes on.
            None => aside(|| self.make().as_ref()),
        }
    }

    fn make(&self) -> &Option<RsaSigner> {
        self.signer.get_or_init(|| match load_or_make(&self.dir) {
            Ok(signer) => Some(signer),
            Err(error) => {
                tracing::error!(%error, "the key for signing notifications cannot be used; signing with one that is not kept");
                RsaSigner::generate(clock::now()).inspect_err(|error| tracing::error!(%error, "cannot sign")).ok()
            }
        })
    }
}

/// Runs what blocks. Other tasks of this thread, where it is one of several that run tasks, are left to others.
fn aside<T>(blocking: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|handle| handle.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(blocking),
        _ => blocking(),
    }
}

impl Signer for KeptSigner {
    fn prepare(self: Arc<Self>) {
        // One thread: it is started once, and ends with the key.
        if self.signer.get().is_none() && !self.is_prepared.swap(true, Ordering::AcqRel) {
            let started = thread::Builder::new().name("tern-key".to_owned()).spawn(move || _ = self.make());
            if let Err(error) = started {
                tracing::warn!(%error, "the key for signing is made with the first signature");
            }
        }
    }

    fn sign(&self, version: Version, text: &[u8]) -> String {
        self.signer().map(|signer| signer.sign(version, text)).unwrap_or_default()
    }

    fn certificate_url(&self, base_url: &str) -> String {
        let name = self.signer().map(RsaSigner::certificate_name).unwrap_or_default();
        match &self.certificate_base {
            Some(base) => format!("{}/{name}", base.trim_end_matches('/')),
            None => format!("{base_url}/_tern/sns/{name}"),
        }
    }

    fn certificate(&self, name: &str) -> Option<String> {
        let signer = self.signer()?;
        (signer.certificate_name() == name).then(|| signer.certificate_pem().to_owned())
    }
}

fn load_or_make(dir: &Path) -> Result<RsaSigner, KeyError> {
    let (key_path, certificate_path) = (dir.join(KEY_FILE), dir.join(CERTIFICATE_FILE));
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |error| KeyError::File(path, error)
    };
    match fs::read_to_string(&key_path) {
        Ok(key) => {
            let certificate = fs::read_to_string(&certificate_path).map_err(failed(&certificate_path))?;
            return Ok(RsaSigner::from_pem(&key, &certificate)?);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(KeyError::File(key_path, error)),
    }
    let signer = RsaSigner::generate(clock::now())?;
    // The key last: with it the pair is whole.
    write(&certificate_path, signer.certificate_pem(), CERTIFICATE_MODE).map_err(failed(&certificate_path))?;
    write(&key_path, signer.key_pem()?.as_ref(), KEY_MODE).map_err(failed(&key_path))?;
    File::open(dir).and_then(|dir| dir.sync_all()).map_err(failed(dir))?;
    tracing::info!(path = %key_path.display(), "made a key for signing notifications");
    Ok(signer)
}

/// Writes a file whole, or not at all.
fn write(path: &Path, text: &str, mode: u32) -> io::Result<()> {
    let new = path.with_extension("new");
    // One that was left half written has the mode of then.
    match fs::remove_file(&new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(&new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_only_its_owner_reads_it() {
        let dir = tempfile::tempdir().unwrap();
        let first = KeptSigner::new(dir.path(), "");
        assert!(!dir.path().join(KEY_FILE).exists(), "nobody has signed yet");
        let url = first.certificate_url("http://host:1");
        let name = url.strip_prefix("http://host:1/_tern/sns/").unwrap();
        let mode = |file: &str| fs::metadata(dir.path().join(file)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode(KEY_FILE), mode(CERTIFICATE_FILE)), (0o600, 0o644));
        let again = KeptSigner::new(dir.path(), "https://sns.example/");
        assert_eq!(again.certificate_url("http://host:1"), format!("https://sns.example/{name}"));
        assert_eq!(again.certificate(name), first.certificate(name));
        assert!(again.certificate(name).is_some_and(|pem| pem.starts_with("-----BEGIN CERTIFICATE-----")));
        assert_eq!(again.certificate("SimpleNotificationService-0.pem"), None);
        // PKCS #1 v1.5 has one signature for a text.
        assert_eq!(first.sign(Version::One, b"text"), again.sign(Version::One, b"text"));
        assert_eq!(first.sign(Version::Two, b"text"), again.sign(Version::Two, b"text"));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn other_tasks_go_on_while_a_key_is_made() {
        let dir = tempfile::tempdir().unwrap();
        let signer = Arc::new(KeptSigner::new(dir.path(), ""));
        let (said, heard) = tokio::sync::oneshot::channel();
        let signing = tokio::spawn({
            let signer = signer.clone();
            async move {
                // It runs on the one thread, which the next line keeps: it is told of at once all the same.
                let told = tokio::spawn(async move { said.send(()) });
                let signature = signer.sign(Version::Two, b"text");
                drop(told.await);
                signature
            }
        });
        heard.await.unwrap();
        assert!(!signing.await.unwrap().is_empty());
    }

    #[test]
    fn a_signer_that_is_prepared_has_its_key_when_it_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let signer = Arc::new(KeptSigner::new(dir.path(), ""));
        signer.clone().prepare();
        signer.clone().prepare();
        assert!(!signer.sign(Version::One, b"text").is_empty());
        assert!(dir.path().join(KEY_FILE).exists());
    }

    #[test]
    fn a_key_that_cannot_be_read_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(KEY_FILE), "not a key").unwrap();
        fs::write(dir.path().join(CERTIFICATE_FILE), "not a certificate").unwrap();
        let signer = KeptSigner::new(dir.path(), "");
        assert!(!signer.sign(Version::One, b"text").is_empty());
        assert_eq!(fs::read_to_string(dir.path().join(KEY_FILE)).unwrap(), "not a key");
    }
}
