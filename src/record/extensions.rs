use bytes::Bytes;

use super::codec::Unreadable;

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
    /// What follows the extensions is encrypted. Reserved.
    pub const ENCRYPTION: u8 = 0x82;
}

/// Code and length of one extension.
const HEADER: usize = 3;

impl Extensions {
    /// Reads extensions. Codes must be in ascending order, each once, and none critical: no such code exists yet.
    pub(super) fn read(bytes: Bytes) -> Result<Self, Unreadable> {
        let (mut rest, mut last) = (&bytes[..], 0);
        while !rest.is_empty() {
            let Some((&[code, low, high], behind)) = rest.split_first_chunk::<HEADER>() else { return Err(CUT_SHORT) };
            if code <= last {
                return Err(Unreadable::Damaged("its extensions are not in order"));
            }
            if code & CRITICAL != 0 {
                return Err(Unreadable::Extension(code));
            }
            last = code;
            rest = behind.get(usize::from(u16::from_le_bytes([low, high]))..).ok_or(CUT_SHORT)?;
        }
        Ok(Self(if bytes.is_empty() { None } else { Some(Box::new(bytes)) }))
    }

    /// The bytes as they are in a record.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.0.as_deref().map_or(&[], |bytes| &bytes[..])
    }
}

const CUT_SHORT: Unreadable = Unreadable::Damaged("its extensions are cut short");

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &'static [u8]) -> Result<Extensions, Unreadable> {
        Extensions::read(Bytes::from_static(bytes))
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
