use std::time::{Duration, SystemTime};

use super::format::is_uuid;

/// The creation time of a key that contains one: a UUID of version 7 (RFC 9562, 5.7) or a ULID. Both begin with the
/// milliseconds since the Unix epoch. `None` for any other key.
pub(super) fn made_at(key: &[u8]) -> Option<SystemTime> {
    let milliseconds = uuid(key).or_else(|| ulid(key))?;
    SystemTime::UNIX_EPOCH.checked_add(Duration::from_millis(milliseconds))
}

/// `0192f3a4-5b6c-7d8e-9fa0-b1c2d3e4f506`: version 7, the variant of RFC 9562.
fn uuid(key: &[u8]) -> Option<u64> {
    let is_right = is_uuid(key) && key[14] == b'7' && matches!(key[19], b'8' | b'9' | b'a' | b'b' | b'A' | b'B');
    if !is_right {
        return None;
    }
    let time = [&key[..8], &key[9..13]].concat();
    u64::from_str_radix(str::from_utf8(&time).ok()?, 16).ok()
}

/// `01ARZ3NDEKTSV4RRFFQ69G5FAV`: 26 digits of Crockford's base 32 that hold 128 bits, the first ten 48 of them.
pub(super) fn ulid(key: &[u8]) -> Option<u64> {
    const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
    if key.len() != 26 || !matches!(key[0], b'0'..=b'7') {
        return None;
    }
    let mut time = 0;
    for (at, byte) in key.iter().enumerate() {
        let digit = DIGITS.iter().position(|digit| *digit == byte.to_ascii_uppercase())?;
        if at < 10 {
            time = time * 32 + digit as u64;
        }
    }
    Some(time)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn made(key: &str) -> Option<u128> {
        let since = made_at(key.as_bytes())?.duration_since(SystemTime::UNIX_EPOCH);
        Some(since.expect("after the epoch").as_millis())
    }

    #[test]
    fn keys_that_begin_with_a_time_tell_it() {
        for (key, expected) in [
            // The example of RFC 9562, A.6.
            ("017F22E2-79B0-7CC3-98C4-DC0C0C07398F", Some(0x017F_22E2_79B0)),
            ("017f22e2-79b0-7cc3-98c4-dc0c0c07398f", Some(0x017F_22E2_79B0)),
            // The example of the ULID's specification.
            ("01ARZ3NDEKTSV4RRFFQ69G5FAV", Some(1_469_922_850_259)),
            ("01arz3ndektsv4rrffq69g5fav", Some(1_469_922_850_259)),
            ("7ZZZZZZZZZZZZZZZZZZZZZZZZZ", Some((1 << 48) - 1)),
            // Version 4, another variant, other lengths, other letters.
            ("017f22e2-79b0-4cc3-98c4-dc0c0c07398f", None),
            ("017f22e2-79b0-7cc3-c8c4-dc0c0c07398f", None),
            ("017f22e279b07cc398c4dc0c0c07398f", None),
            ("017f22e2-79b0-7cc3-98c4-dc0c0c07398g", None),
            ("81ARZ3NDEKTSV4RRFFQ69G5FAV", None),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAU", None),
            ("01ARZ3NDEKTSV4RRFFQ69G5FA", None),
            ("order-0000000000000000004711", None),
            ("", None),
        ] {
            assert_eq!(made(key), expected, "{key}");
        }
    }

    proptest! {
        #[test]
        fn any_key_has_an_age_or_none(key in proptest::collection::vec(any::<u8>(), 0..40)) {
            made_at(&key);
        }

        #[test]
        fn what_is_written_is_read(time in 0_u64..1 << 48, rest in any::<u64>()) {
            let (high, low) = (time >> 16, time & 0xFFFF);
            let key = format!("{high:08x}-{low:04x}-7abc-8def-{:012x}", rest & 0xFFFF_FFFF_FFFF);
            prop_assert_eq!(made(&key), Some(u128::from(time)));
        }
    }
}
