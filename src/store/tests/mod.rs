//! The whole store on a disk that fails.
