#![no_main]

#[path = "../../tests/fuzz/config.rs"]
#[allow(dead_code, unreachable_pub)]
mod config;

libfuzzer_sys::fuzz_target!(|text: &str| config::check(text));
