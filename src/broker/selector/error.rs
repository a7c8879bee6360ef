//! Why a selector was refused.

use thiserror::Error;

use super::{DEPTH_MAX, TEXT_BYTES_MAX};

/// Why a selector was refused. Positions are octets from the start of the text.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum SelectorError {
    /// Longer than [`TEXT_BYTES_MAX`].
    #[error("the selector has {bytes} bytes, more than {TEXT_BYTES_MAX}")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
    /// Nested deeper than [`DEPTH_MAX`].
    #[error("the selector nests deeper than {DEPTH_MAX} at position {at}")]
    TooDeep {
        /// Where the bound was passed.
        at: usize,
    },
    /// Something else should stand here.
    #[error("expected {expected} at position {at}, found {found}")]
    Syntax {
        /// Where it stands.
        at: usize,
        /// What should stand there.
        expected: &'static str,
        /// What does.
        found: String,
    },
    /// Grammar allows it, sense does not.
    #[error("{reason} at position {at}")]
    Invalid {
        /// Where the expression begins.
        at: usize,
        /// What is wrong with it.
        reason: &'static str,
    },
}
