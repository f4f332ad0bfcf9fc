#![no_main]

#[path = "../../tests/fuzz/record.rs"]
#[allow(dead_code, unreachable_pub)]
mod record;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| record::check(bytes));
