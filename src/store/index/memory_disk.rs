//! A disk in memory that can crash.
