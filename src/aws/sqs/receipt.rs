//! What a receiver is given to settle a message with.
//!
//! ```text
//! receipt = base64 of: 1, 1, 1, queue (8), seq (8), nonce (8), the first 8 octets of a digest of these and a key
//! ```
//!
//! The key is made of the cluster's identity, which is durable: receipts outlive a restart, and nobody can make one
//! for a message that he was not given.

use std::sync::OnceLock;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use sha2::{Digest as _, Sha256};

use crate::broker::{Broker, record::QueueId};

/// A lease as a receiver names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Receipt {
    pub(super) queue: QueueId,
    pub(super) seq: u64,
    pub(super) nonce: u64,
}

/// What receipts are made with.
#[derive(Default)]
pub(super) struct Key(OnceLock<[u8; 32]>);

const PREFIX: [u8; 3] = [1, 1, 1];
const SIGNED_BYTES: usize = PREFIX.len() + 24;
const MAC_BYTES: usize = 8;

impl Key {
    fn get(&self, broker: &Broker) -> &[u8; 32] {
        self.0.get_or_init(|| {
            let identity = broker.parameters.get_global("internal_cluster_id");
            let identity = identity.as_ref().and_then(|identity| identity.as_str()).unwrap_or_default();
            Sha256::digest([b"receipts of ", identity.as_bytes()].concat()).into()
        })
    }

    /// The receipt as text.
    pub(super) fn write(&self, receipt: Receipt, broker: &Broker) -> String {
        let mut bytes = [0; SIGNED_BYTES + MAC_BYTES];
        bytes[..3].copy_from_slice(&PREFIX);
        bytes[3..11].copy_from_slice(&receipt.queue.0.to_be_bytes());
        bytes[11..19].copy_from_slice(&receipt.seq.to_be_bytes());
        bytes[19..27].copy_from_slice(&receipt.nonce.to_be_bytes());
        let mac = mac(self.get(broker), &bytes[..SIGNED_BYTES]);
        bytes[SIGNED_BYTES..].copy_from_slice(&mac);
        STANDARD.encode(bytes)
    }

    /// The receipt that a text is, if it is one of ours.
    pub(super) fn read(&self, text: &str, broker: &Broker) -> Option<Receipt> {
        let mut bytes = [0; SIGNED_BYTES + MAC_BYTES + 1];
        let len = STANDARD.decode_slice(text, &mut bytes).ok()?;
        let (signed, said) = bytes.get(..len)?.split_at_checked(SIGNED_BYTES)?;
        let expected = mac(self.get(broker), signed);
        let is_ours = signed.starts_with(&PREFIX) && bool::from(subtle::ConstantTimeEq::ct_eq(said, &expected[..]));
        let number = |at: usize| Some(u64::from_be_bytes(signed.get(at..at + 8)?.try_into().ok()?));
        is_ours.then(|| Some(Receipt { queue: QueueId(number(3)?), seq: number(11)?, nonce: number(19)? }))?
    }
}

/// Key and message have fixed lengths, so nothing can be appended to what was digested.
fn mac(key: &[u8; 32], signed: &[u8]) -> [u8; MAC_BYTES] {
    let digest = Sha256::new().chain_update(key).chain_update(signed).finalize();
    let mut mac = [0; MAC_BYTES];
    mac.copy_from_slice(&digest[..MAC_BYTES]);
    mac
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::{options::Options, time::Time};

    #[test]
    fn a_receipt_reads_back_and_nothing_else_does() {
        let broker = Broker::new(Options::default(), Time::default()).unwrap();
        let key = Key::default();
        let receipt = Receipt { queue: QueueId(7), seq: 1 << 40, nonce: u64::MAX };
        let text = key.write(receipt, &broker);
        assert_eq!(key.read(&text, &broker), Some(receipt));
        let mut forged = STANDARD.decode(&text).unwrap();
        forged[18] ^= 1;
        let longer = [&forged[..], &[0]].concat();
        for wrong in ["", "garbage", &STANDARD.encode(&forged), &STANDARD.encode(longer), &text[4..]] {
            assert_eq!(key.read(wrong, &broker), None, "{wrong}");
        }
    }
}
