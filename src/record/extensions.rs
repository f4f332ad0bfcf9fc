use bytes::Bytes;

use super::codec::Unreadable;
use super::compression;
use super::encryption::EncryptionHeader;

/// A list of extensions, each with a code, for later versions of the layout.
///
/// A *critical* extension changes how the record is read: a reader that does not know its code refuses the record. Any
/// other may be ignored, and is kept when the record is written anew. No extension changes the meaning of the [first
/// bytes](super::codec::HEAD) of a record.
///
/// Claims are moved on the path of every request and hardly ever have extensions, so these take the room of one
/// pointer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Extensions(Option<Box<Bytes>>);

/// This bit marks the codes of critical extensions.
const CRITICAL: u8 = 0x80;

/// The codes that are in use or reserved.
pub mod code {
    /// Who changed the record by hand, when and why. Reserved.
    pub const AUDIT: u8 = 0x01;
    /// What is needed to ask the backend about an unknown outcome (`record::probe`).
    pub const PROBE: u8 = 0x02;
    /// The span of the request that made the record (`trace`).
    pub const TRACE: u8 = 0x03;
    /// Who has settled the record, where that is not its owner: one byte (`record::settled`).
    pub const SETTLED_BY: u8 = 0x04;
    /// The body is compressed.
    pub const COMPRESSION: u8 = 0x81;
    /// What follows the extensions is encrypted.
    pub const ENCRYPTION: u8 = 0x82;
}

/// Code and length of one extension.
const HEADER: usize = 3;
/// Bytes of what is kept. It leaves room for critical extensions in a length of 16 bits.
const MOST: usize = 32 * 1024;

impl Extensions {
    /// Reads extensions. Codes must be in ascending order, each once. Those that say how the record is read are not
    /// kept with it: it may be written anew in another way.
    pub(super) fn read(bytes: &Bytes) -> Result<ReadExtensions, Unreadable> {
        let (mut at, mut last, mut kept) = (0, 0, 0);
        let (mut encryption, mut expands_to) = (None, None);
        while at < bytes.len() {
            let Some(&[code, low, high]) = bytes[at..].first_chunk::<HEADER>() else { return Err(CUT_SHORT) };
            if code <= last {
                return Err(Unreadable::Damaged("its extensions are not in order"));
            }
            let (value, end) = (at + HEADER, at + HEADER + usize::from(u16::from_le_bytes([low, high])));
            let value = bytes.get(value..end).ok_or(CUT_SHORT)?;
            match code {
                self::code::COMPRESSION => expands_to = Some(compression::read(value)?),
                self::code::ENCRYPTION => encryption = Some(EncryptionHeader::read(value)?),
                code if code & CRITICAL != 0 => return Err(Unreadable::Extension(code)),
                _ => kept = end,
            }
            (at, last) = (end, code);
        }
        if kept > MOST {
            return Err(Unreadable::Damaged("it has more extensions than any version writes"));
        }
        let kept = bytes.slice(..kept);
        let kept = Self(if kept.is_empty() { None } else { Some(Box::new(kept)) });
        Ok(ReadExtensions { kept, expands_to, encryption })
    }

    /// Of the first bytes of some extensions, the one that says who has settled the record, if all of it is there.
    pub(super) fn settled_by(bytes: &[u8]) -> Self {
        let settled_by = each(bytes).find(|(known, _)| *known == code::SETTLED_BY);
        settled_by.map(|(code, extension)| Self::of(code, &extension[HEADER..])).unwrap_or_default()
    }

    /// One extension that may be skipped, of less than 64 KiB.
    pub fn of(code: u8, value: &[u8]) -> Self {
        let mut bytes = vec![code];
        bytes.extend_from_slice(&(value.len() as u16).to_le_bytes());
        bytes.extend_from_slice(value);
        Self(Some(Box::new(bytes.into())))
    }

    /// Adds an extension that may be skipped, or replaces the one of this code. Not if it would be too long.
    pub fn insert(&mut self, code: u8, value: &[u8]) {
        if self.as_bytes().len() + HEADER + value.len() > MOST {
            return;
        }
        let added = Self::of(code, value);
        let before = self.iter().filter(|(known, _)| *known < code);
        let behind = self.iter().filter(|(known, _)| *known > code);
        let all = before.chain(added.iter()).chain(behind);
        self.0 = joined(all);
    }

    /// Removes the extension with this code.
    pub fn remove(&mut self, code: u8) {
        if self.get(code).is_some() {
            self.0 = joined(self.iter().filter(|(known, _)| *known != code));
        }
    }

    /// The extension with this code.
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.iter().find(|(known, _)| *known == code).map(|(_, extension)| &extension[HEADER..])
    }

    /// Each with its code; its bytes begin with code and length.
    fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        each(self.as_bytes())
    }

    /// The bytes as they are in a record.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |bytes| &bytes[..])
    }
}

/// Each that is there as a whole, with its code.
fn each(mut rest: &[u8]) -> impl Iterator<Item = (u8, &[u8])> {
    std::iter::from_fn(move || {
        let &[code, low, high] = rest.first_chunk::<HEADER>()?;
        let length = HEADER + usize::from(u16::from_le_bytes([low, high]));
        let (extension, others) = rest.split_at_checked(length)?;
        rest = others;
        Some((code, extension))
    })
}

fn joined<'a>(extensions: impl Iterator<Item = (u8, &'a [u8])>) -> Option<Box<Bytes>> {
    let bytes = extensions.map(|(_, extension)| extension).collect::<Vec<_>>().concat();
    (!bytes.is_empty()).then(|| Box::new(bytes.into()))
}

/// The extensions of a record.
pub(super) struct ReadExtensions {
    /// Those that are kept when it is written anew.
    pub(super) kept: Extensions,
    /// The length of the body, if it is compressed.
    pub(super) expands_to: Option<u64>,
    /// How what follows them is encrypted, if it is.
    pub(super) encryption: Option<EncryptionHeader>,
}

const CUT_SHORT: Unreadable = Unreadable::Damaged("its extensions are cut short");

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &'static [u8]) -> Result<Extensions, Unreadable> {
        Extensions::read(&Bytes::from_static(bytes)).map(|read| read.kept)
    }

    #[test]
    fn each_is_found_by_its_code() {
        let extensions = read(b"\x01\x02\0ab\x03\x01\0t\x7f\0\0");
        let extensions = extensions.expect("readable");
        assert_eq!(extensions.get(code::TRACE), Some(&b"t"[..]));
        assert_eq!(extensions.get(code::AUDIT), Some(&b"ab"[..]));
        assert_eq!(extensions.get(0x7f), Some(&b""[..]));
        assert_eq!(extensions.get(code::PROBE), None);
        assert_eq!(Extensions::default().get(code::TRACE), None);
        assert_eq!(Extensions::of(code::TRACE, b"t").as_bytes(), b"\x03\x01\0t");
    }

    #[test]
    fn who_has_settled_a_record_stands_near_its_beginning() {
        let trace = Extensions::of(code::TRACE, &[7; 25]);
        let mut extensions = trace.clone();
        extensions.insert(code::SETTLED_BY, &[1]);
        let bytes = extensions.as_bytes();
        assert_eq!(bytes.len(), super::super::codec::LISTED - super::super::codec::HEAD);
        assert_eq!(Extensions::settled_by(bytes), Extensions::of(code::SETTLED_BY, &[1]));
        for others in [&bytes[..bytes.len() - 1], trace.as_bytes(), b""] {
            assert_eq!(Extensions::settled_by(others), Extensions::default());
        }
    }

    #[test]
    fn one_is_added_replaced_and_removed_and_the_others_stay() {
        let mut extensions = Extensions::default();
        extensions.insert(code::TRACE, b"t");
        extensions.insert(code::AUDIT, b"ab");
        assert_eq!(extensions.as_bytes(), b"\x01\x02\0ab\x03\x01\0t");
        extensions.insert(code::PROBE, b"p");
        assert_eq!(extensions.as_bytes(), b"\x01\x02\0ab\x02\x01\0p\x03\x01\0t");
        extensions.insert(code::PROBE, b"");
        assert_eq!(extensions.as_bytes(), b"\x01\x02\0ab\x02\0\0\x03\x01\0t");
        extensions.insert(code::PROBE, &[0; MOST]);
        assert_eq!(extensions.get(code::PROBE), Some(&b""[..]), "too long");
        extensions.remove(code::PROBE);
        extensions.remove(0x7f);
        assert_eq!(extensions.as_bytes(), b"\x01\x02\0ab\x03\x01\0t");
        extensions.remove(code::AUDIT);
        extensions.remove(code::TRACE);
        assert_eq!(extensions, Extensions::default());
    }

    #[test]
    fn what_may_be_skipped_is_kept_and_what_may_not_is_named() {
        for kept in [&b""[..], b"\x01\0\0", b"\x01\x02\0ab\x02\0\0", b"\x7f\x01\0x"] {
            assert_eq!(read(kept).expect("readable").as_bytes(), kept);
        }
        for (bytes, code) in
            [(&b"\x81\0\0"[..], code::COMPRESSION), (b"\x01\0\0\x82\x01\0x", code::ENCRYPTION), (b"\xff\0\0", 0xff)]
        {
            assert_eq!(read(bytes), Err(Unreadable::Extension(code)));
        }
        for damaged in [&b"\x01"[..], b"\x01\0", b"\x01\x01\0", b"\x01\0\0\x01\0\0", b"\x02\0\0\x01\0\0", b"\0\0\0"] {
            assert!(matches!(read(damaged), Err(Unreadable::Damaged(_))), "{damaged:?}");
        }
    }
}
