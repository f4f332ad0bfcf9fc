#![no_main]

#[path = "../../tests/fuzz/key.rs"]
#[allow(dead_code, unreachable_pub)]
mod key;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| key::check(bytes));
