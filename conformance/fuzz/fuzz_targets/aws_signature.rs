//! The fuzz target `aws_signature`, for cargo-fuzz.
#![no_main]

#[path = "../targets.rs"]
#[allow(dead_code)]
mod targets;

libfuzzer_sys::fuzz_target!(|input: &[u8]| targets::aws_signature(input));
