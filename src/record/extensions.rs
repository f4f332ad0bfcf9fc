use bytes::Bytes;

use super::codec::Unreadable;
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
    /// How to ask the backend about an unknown outcome. Reserved.
    pub const PROBE: u8 = 0x02;
    /// What follows the extensions is compressed. Reserved.
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
        let mut encryption = None;
        while at < bytes.len() {
            let Some(&[code, low, high]) = bytes[at..].first_chunk::<HEADER>() else { return Err(CUT_SHORT) };
            if code <= last {
                return Err(Unreadable::Damaged("its extensions are not in order"));
            }
            let (value, end) = (at + HEADER, at + HEADER + usize::from(u16::from_le_bytes([low, high])));
            let value = bytes.get(value..end).ok_or(CUT_SHORT)?;
            match code {
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
        Ok(ReadExtensions { kept: Self(if kept.is_empty() { None } else { Some(Box::new(kept)) }), encryption })
    }

    /// The bytes as they are in a record.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |bytes| &bytes[..])
    }
}

/// The extensions of a record.
pub(super) struct ReadExtensions {
    /// Those that are kept when it is written anew.
    pub(super) kept: Extensions,
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
