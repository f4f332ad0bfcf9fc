use std::fmt;

use super::name::KeyParts;
use super::select::KeyPart;
use super::{DigestKey, DigestKind};
use crate::record::Hex;
use crate::rule::LogKeys;

/// An idempotency key as log lines may show it (`log.keys`).
#[derive(Clone, PartialEq, Eq)]
pub enum KeyText {
    /// Eight hex digits of a keyed digest.
    Hashed(Hex<4>),
    /// The key itself, its parts joined by plus signs.
    Plain(String),
}

impl KeyText {
    pub(super) fn of(keys: LogKeys, digest_key: &DigestKey, parts: KeyParts<'_>) -> Self {
        match keys {
            LogKeys::Hashed => {
                let mut digest = digest_key.digest(DigestKind::KeyInLogs);
                parts.add_to(&mut digest);
                Self::Hashed(digest.short())
            }
            LogKeys::Plain => Self::Plain(parts.1.iter().map(KeyPart::text).collect::<Vec<_>>().join(" + ")),
        }
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Hashed(digits) => digits.as_str(),
            Self::Plain(text) => text,
        }
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Hashed(digits) => write!(f, "KeyText({digits})"),
            Self::Plain(_) => f.write_str("KeyText(…)"),
        }
    }
}
