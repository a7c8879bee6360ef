//! What batches of all operations have in common: their ids, their bounds, and how they are answered.

use serde::Serialize;

use crate::aws::error::Error;

/// Entries of a batch at most.
pub(super) const ENTRIES_COUNT_MAX: usize = 10;
const ID_BYTES_MAX: usize = 80;

/// An entry that was refused.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Failed {
    id: String,
    sender_fault: bool,
    code: String,
    message: String,
}

impl Failed {
    pub(super) fn new(id: &str, error: Error) -> Self {
        let sender_fault = error.is_senders_fault();
        Self { id: id.to_owned(), sender_fault, code: error.query_code.into_owned(), message: error.message }
    }
}

/// An entry that needs no more said than that it is done.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Done {
    pub(super) id: String,
}

/// The answer to a batch. What is empty is left out.
#[derive(Debug, Serialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Outcome<T> {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) successful: Vec<T>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(super) failed: Vec<Failed>,
}

/// Refuses a batch whose entries are none, too many, or not named as they must be. `entry` is the name of an entry.
pub(super) fn check<'a>(ids: impl ExactSizeIterator<Item = &'a str> + Clone, entry: &str) -> Result<(), Error> {
    let count = ids.len();
    if count == 0 {
        let message = format!("There should be at least one {entry} in the request.");
        return Err(Error::sqs("EmptyBatchRequest", message));
    }
    if count > ENTRIES_COUNT_MAX {
        let message = format!("Maximum number of entries per request are {ENTRIES_COUNT_MAX}. You have sent {count}.");
        return Err(Error::sqs("TooManyEntriesInBatchRequest", message));
    }
    if !ids.clone().all(is_id) {
        let message = "A batch entry id can only contain alphanumeric characters, hyphens and underscores. \
                       It can be at most 80 letters long.";
        return Err(Error::sqs("InvalidBatchEntryId", message));
    }
    let mut seen: Vec<&str> = Vec::with_capacity(count);
    for id in ids {
        if seen.contains(&id) {
            return Err(Error::sqs("BatchEntryIdsNotDistinct", format!("Id {id} repeated.")));
        }
        seen.push(id);
    }
    Ok(())
}

fn is_id(id: &str) -> bool {
    let is_legal = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_legal)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal(ids: &[&str]) -> Option<String> {
        check(ids.iter().copied(), "DeleteMessageBatchRequestEntry").err().map(|error| error.code.into_owned())
    }

    #[test]
    fn ids_of_a_batch_are_ten_different_words_at_most() {
        assert_eq!(refusal(&["a", "b-_9", &"x".repeat(80)]), None);
        assert_eq!(refusal(&[]).as_deref(), Some("EmptyBatchRequest"));
        assert_eq!(refusal(&["a"; 11]).as_deref(), Some("TooManyEntriesInBatchRequest"));
        assert_eq!(refusal(&["a", "a"]).as_deref(), Some("BatchEntryIdsNotDistinct"));
        for id in ["", "a:b", "a b", &"x".repeat(81)] {
            assert_eq!(refusal(&[id]).as_deref(), Some("InvalidBatchEntryId"), "{id}");
        }
    }
}
