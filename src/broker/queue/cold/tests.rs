//! Tests of cold messages.
