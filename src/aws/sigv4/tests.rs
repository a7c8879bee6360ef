//! Published vectors, and what must not pass.
