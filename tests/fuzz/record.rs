//! Reading a record never panics, and what is read encodes back to the same bytes.

use bytes::Bytes;
use onlyonce::record::RecordName;
use onlyonce::record::codec::{Placement, decode, decode_under, encode};
use onlyonce::record::encryption::EncryptionKey;
use xxhash_rust::xxh3::xxh3_64;

/// Bytes of it, at a record's end.
pub const CHECKSUM: usize = 8;

pub fn check(bytes: &[u8]) {
    reads_back(&Bytes::copy_from_slice(bytes));
    // Few random inputs have a valid checksum.
    reads_back(&sealed(bytes));
}

/// `bytes`, with the layout's number at the front and their checksum at the end.
fn sealed(bytes: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(version) = bytes.first_mut() {
        *version = 2;
    }
    bytes.extend(xxh3_64(&bytes).to_le_bytes());
    bytes.into()
}

fn reads_back(bytes: &Bytes) {
    let name = RecordName { route: "orders".into(), digest: [1; 16] };
    // What is encrypted with no such key is not read, whatever it says.
    let under = decode_under(bytes, &name, &[EncryptionKey::new(&[1; 32]).into()]);
    assert_eq!(under.ok(), decode(bytes).ok());
    match decode(bytes) {
        Err(_) => {}
        Ok(record) => assert_eq!(encode(&record, Placement::Within), bytes[..]),
    }
}
