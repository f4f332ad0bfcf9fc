//! How sidecars that share a store agree on a digest key.

use crate::config;
use crate::key::DigestKey;

/// The note about the digest key in a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum DigestKeyNote {
    /// The key itself, if it was generated.
    Made(DigestKey),
    /// A digest of a configured key: enough to recognise it.
    Configured([u8; 16]),
}

/// The digest key that a process would use.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wanted {
    key: DigestKey,
    configured: bool,
}

/// What the note in a store means for this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Agreement {
    /// There was none: the store is new, or lost its data. The note is written now.
    Founded(DigestKey),
    /// It matches.
    Agreed(DigestKey),
    /// It has a key that another process generated.
    Adopted(DigestKey),
    /// It is about another key than the configured one: records of that key are not found any more.
    Forgotten(DigestKey),
    /// It is about a configured key, which this process does not have.
    Withheld,
}

/// The configured key.
pub(super) fn configured(config: &config::StoreConfig) -> Option<DigestKey> {
    config.digest_key.as_ref().map(|secret| DigestKey::from_secret(secret.expose()))
}

impl Wanted {
    /// The configured key, else the one in use, else a new one.
    pub(super) fn new(configured: Option<DigestKey>, used: Option<DigestKey>) -> Result<Self, getrandom::Error> {
        let key = match configured.or(used) {
            Some(key) => key,
            None => {
                let mut bytes = [0; 32];
                getrandom::fill(&mut bytes)?;
                DigestKey::from_bytes(bytes)
            }
        };
        Ok(Self { key, configured: configured.is_some() })
    }

    pub(super) fn key(&self) -> DigestKey {
        self.key
    }

    /// The note for a store without one.
    pub(super) fn note(&self) -> DigestKeyNote {
        if self.configured { DigestKeyNote::Configured(self.key.check()) } else { DigestKeyNote::Made(self.key) }
    }

    /// Reads the note.
    pub(super) fn compare(&self, found: Option<DigestKeyNote>) -> Agreement {
        match found {
            None => Agreement::Founded(self.key),
            Some(found) if found == self.note() => Agreement::Agreed(self.key),
            Some(_) if self.configured => Agreement::Forgotten(self.key),
            Some(DigestKeyNote::Made(key)) => Agreement::Adopted(key),
            Some(DigestKeyNote::Configured(_)) => Agreement::Withheld,
        }
    }
}

const MADE: u8 = 1;
const CONFIGURED: u8 = 2;

impl DigestKeyNote {
    pub(super) fn encode(self) -> Vec<u8> {
        match self {
            Self::Made(key) => [&[MADE], key.as_bytes().as_slice()].concat(),
            Self::Configured(check) => [&[CONFIGURED], check.as_slice()].concat(),
        }
    }

    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes.split_first()? {
            (&MADE, key) => Some(Self::Made(DigestKey::from_bytes(key.try_into().ok()?))),
            (&CONFIGURED, check) => Some(Self::Configured(check.try_into().ok()?)),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(configured: Option<DigestKey>, used: Option<DigestKey>) -> Wanted {
        Wanted::new(configured, used).expect("random bytes")
    }

    #[test]
    fn the_first_key_is_everybodys() {
        let (first, second) = (wanted(None, None), wanted(None, None));
        assert_ne!(first.key, second.key);
        let kept = DigestKeyNote::decode(&first.note().encode());
        assert_eq!(first.compare(None), Agreement::Founded(first.key));
        assert_eq!(second.compare(kept), Agreement::Adopted(first.key));
        assert_eq!(wanted(None, Some(first.key)).compare(kept), Agreement::Agreed(first.key));
    }

    #[test]
    fn a_configured_key_is_recognised_and_not_kept() {
        let (key, other) = (DigestKey::from_secret("first"), DigestKey::from_secret("second"));
        let bytes = wanted(Some(key), None).note().encode();
        assert!(!bytes.windows(32).any(|window| window == key.as_bytes()));

        let kept = DigestKeyNote::decode(&bytes);
        assert_eq!(wanted(Some(key), None).compare(None), Agreement::Founded(key));
        assert_eq!(wanted(Some(key), None).compare(kept), Agreement::Agreed(key));
        assert_eq!(wanted(Some(other), None).compare(kept), Agreement::Forgotten(other));
        assert_eq!(wanted(None, None).compare(kept), Agreement::Withheld);
    }

    #[test]
    fn what_is_no_note_is_not_read() {
        for bytes in [&b""[..], b"\x01short", b"\x02short", b"\x03"] {
            assert_eq!(DigestKeyNote::decode(bytes), None);
        }
    }
}
