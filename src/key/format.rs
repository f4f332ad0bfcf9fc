//! The format of keys (`key_format`).

use super::{KeyFault, age};
use crate::rule::KeyFormat;

/// Whether the text of a key has the format. Quotes are checked when the header line is read.
pub(super) fn check(key: &[u8], format: KeyFormat) -> Result<(), KeyFault> {
    match format {
        KeyFormat::Any | KeyFormat::Quoted => Ok(()),
        KeyFormat::Uuid if is_uuid(key) => Ok(()),
        KeyFormat::Uuid => Err(KeyFault::NotUuid),
        KeyFormat::Ulid if age::ulid(key).is_some() => Ok(()),
        KeyFormat::Ulid => Err(KeyFault::NotUlid),
    }
}

/// `8e03978e-40d5-43dd-bc93-6894a57f9324`, of any version (RFC 9562, 4).
pub fn is_uuid(key: &[u8]) -> bool {
    let is_right = |(at, byte): (usize, &u8)| match at {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    };
    key.len() == 36 && key.iter().enumerate().all(is_right)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_the_format_or_not() {
        const ULID: &str = "01ARZ3NDEKTSV4RRFFQ69G5FAV";
        const UUID: &str = "8e03978e-40d5-43dd-bc93-6894a57f9324";
        for (key, is_uuid, is_ulid) in [
            (UUID, true, false),
            ("8E03978E-40D5-43DD-BC93-6894A57F9324", true, false),
            ("00000000-0000-0000-0000-000000000000", true, false),
            ("017f22e2-79b0-7cc3-98c4-dc0c0c07398f", true, false),
            ("8e03978e40d543ddbc936894a57f9324", false, false),
            ("{8e03978e-40d5-43dd-bc93-6894a57f9324}", false, false),
            ("8e03978e-40d5-43dd-bc93-6894a57f932", false, false),
            ("8e03978e-40d5-43dd-bc93-6894a57f932g", false, false),
            ("8e03978e-40d5-43dd-bc93-6894a57f9324 ", false, false),
            ("8e03978e_40d5_43dd_bc93_6894a57f9324", false, false),
            (ULID, false, true),
            ("01arz3ndektsv4rrffq69g5fav", false, true),
            ("81ARZ3NDEKTSV4RRFFQ69G5FAV", false, false),
            ("01ARZ3NDEKTSV4RRFFQ69G5FAU", false, false),
            ("01ARZ3NDEKTSV4RRFFQ69G5FA", false, false),
            ("", false, false),
        ] {
            assert_eq!(check(key.as_bytes(), KeyFormat::Uuid).is_ok(), is_uuid, "{key}");
            assert_eq!(check(key.as_bytes(), KeyFormat::Ulid).is_ok(), is_ulid, "{key}");
            assert_eq!(check(key.as_bytes(), KeyFormat::Any), Ok(()));
        }
    }
}
