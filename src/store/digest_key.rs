//! How sidecars that share a store agree on a digest key.

use std::time::Duration;

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

/// What this process sees of a note, beside its content.
#[derive(Debug, Clone, Copy)]
pub(super) struct NoteSighting {
    /// It has seen a note in this store before.
    pub(super) was_noted: bool,
    /// The note was written less than [`SETTLING`] ago.
    pub(super) is_young: bool,
    /// The note was written again since this process last saw it.
    pub(super) is_rewritten: bool,
}

/// What this process does about a note that it can work with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct AgreedKey {
    pub(super) key: DigestKey,
    /// The note is about another key, and is replaced first.
    pub(super) replaces: bool,
    pub(super) settling: Settling,
    /// The store has lost its data.
    pub(super) is_loss: bool,
}

/// Whether claims wait for [`SETTLING`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Settling {
    /// Nobody claims under another key.
    Done,
    /// This process writes the note. Others may claim under another key, if there are any. If there are none, it makes the
    /// note look old, so that those who come later need not wait either.
    UnlessAlone,
    /// Another process has just written the note, and may not be the only one.
    Needed,
}

/// Why this process cannot work with a note.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoteRefusal {
    /// It is about a configured key, which this process does not have.
    Withheld,
    /// Another process has replaced the key that this one works with.
    Replaced,
}

/// The time without claims after this process meets a new digest key. After it, every other sidecar has seen that key, or has
/// had no confirmation for so long that it does not claim either.
pub(super) const SETTLING: Duration = Duration::from_secs(3);

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

impl Agreement {
    /// What follows for a process that claims.
    pub(super) fn settle(self, seen: NoteSighting) -> Result<AgreedKey, NoteRefusal> {
        let NoteSighting { was_noted, is_young, is_rewritten } = seen;
        let needed = |is_needed| if is_needed { Settling::Needed } else { Settling::Done };
        let (key, replaces, settling, is_loss) = match self {
            // Whoever wrote it waits. So does whoever finds it just written: others may not have seen it yet.
            Self::Agreed(key) => (key, false, needed(is_young && (!was_noted || is_rewritten)), false),
            // Another sidecar has made a new one, because the store has lost that of this process.
            Self::Adopted(key) => (key, false, needed(is_young || was_noted), was_noted),
            Self::Founded(key) => (key, false, Settling::UnlessAlone, was_noted),
            Self::Forgotten(_) if was_noted => return Err(NoteRefusal::Replaced),
            Self::Forgotten(key) => (key, true, Settling::UnlessAlone, false),
            Self::Withheld => return Err(NoteRefusal::Withheld),
        };
        Ok(AgreedKey { key, replaces, settling, is_loss })
    }

    /// What follows for a process that only reads.
    pub(super) fn read(self) -> Result<DigestKey, NoteRefusal> {
        match self {
            Self::Founded(key) | Self::Agreed(key) | Self::Adopted(key) | Self::Forgotten(key) => Ok(key),
            Self::Withheld => Err(NoteRefusal::Withheld),
        }
    }
}

/// Says that the configured key is not that of the store.
pub(super) fn report_unused() {
    tracing::warn!("store.digest_key is not the key that this store is used with: no record of it is found");
}

/// Says that the configured key takes the place of another one.
pub(super) fn report_replaced(name: &str) {
    tracing::warn!(
        name,
        "store.digest_key is not the key that this store was used with, and takes its place: the records kept \
         under that are forgotten, and sidecars that use it stop claiming"
    );
}

/// Says that a store has lost its data.
pub(super) fn report_loss(product: &str) {
    tracing::error!(
        "{product} lost its data: earlier records are gone, and their operations run again when they are repeated"
    );
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
    fn claims_wait_while_others_may_use_another_key() {
        let [ours, theirs] = ["ours", "theirs"].map(DigestKey::from_secret);
        let seen = |was_noted, is_young, is_rewritten| NoteSighting { was_noted, is_young, is_rewritten };
        let all =
            [false, true].map(|noted| [false, true].map(|young| [false, true].map(|new| seen(noted, young, new))));
        for seen in all.into_iter().flatten().flatten() {
            let NoteSighting { was_noted, is_young, is_rewritten } = seen;
            let uses = |agreement: Agreement| agreement.settle(seen).expect("a key");
            let needed = |is_needed| if is_needed { Settling::Needed } else { Settling::Done };

            let agreed = uses(Agreement::Agreed(ours));
            assert_eq!(agreed.settling, needed(is_young && (is_rewritten || !was_noted)), "{seen:?}");
            assert_eq!((agreed.key, agreed.replaces, agreed.is_loss), (ours, false, false));
            let adopted = uses(Agreement::Adopted(theirs));
            assert_eq!(adopted.settling, needed(is_young || was_noted), "{seen:?}");
            assert_eq!((adopted.key, adopted.replaces, adopted.is_loss), (theirs, false, was_noted));
            let founded = uses(Agreement::Founded(ours));
            assert_eq!(
                (founded.settling, founded.replaces, founded.is_loss),
                (Settling::UnlessAlone, false, was_noted)
            );

            let forgotten = Agreement::Forgotten(ours).settle(seen);
            let replaced = AgreedKey { key: ours, replaces: true, settling: Settling::UnlessAlone, is_loss: false };
            assert_eq!(forgotten, if was_noted { Err(NoteRefusal::Replaced) } else { Ok(replaced) });
            assert_eq!(Agreement::Withheld.settle(seen), Err(NoteRefusal::Withheld));
        }
        assert_eq!(Agreement::Forgotten(ours).read(), Ok(ours));
        assert_eq!(Agreement::Withheld.read(), Err(NoteRefusal::Withheld));
    }

    #[test]
    fn what_is_no_note_is_not_read() {
        for bytes in [&b""[..], b"\x01short", b"\x02short", b"\x03"] {
            assert_eq!(DigestKeyNote::decode(bytes), None);
        }
    }
}
