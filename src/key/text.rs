use std::fmt;

use super::DigestKey;
use super::name::Parts;
use super::select::Part;
use crate::config::LogKeys;

/// An idempotency key as log lines may show it.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyText {
    hashed: String,
    plain: String,
}

impl KeyText {
    pub(super) fn of(digest_key: &DigestKey, parts: Parts<'_>) -> Self {
        let mut digest = digest_key.digest("key in logs");
        parts.add_to(&mut digest);
        let plain = parts.1.iter().map(Part::text).collect::<Vec<_>>().join(" + ");
        Self { hashed: digest.short(), plain }
    }

    /// The text, as `log.keys` wants it: eight hex digits of a keyed digest, or the key itself, its parts joined by
    /// plus signs.
    pub fn shown(&self, keys: LogKeys) -> &str {
        match keys {
            LogKeys::Hashed => &self.hashed,
            LogKeys::Plain => &self.plain,
        }
    }
}

impl fmt::Debug for KeyText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyText({})", self.hashed)
    }
}
