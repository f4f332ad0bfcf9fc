//! Reading a record never panics, and what is read encodes back to the same bytes.

use bytes::Bytes;
use onlyonce::record::codec::{Decoded, Placement, decode, encode};

/// Bytes of it, at a record's end.
pub const CHECKSUM: usize = 8;
/// Length and digest of a body that lies apart, before the checksum: a record without its body cannot give them back.
const BODY: usize = 8 + 16;

pub fn check(bytes: &[u8]) {
    reads_back(&Bytes::copy_from_slice(bytes));
    // Few bytes have a checksum that fits.
    reads_back(&sealed(bytes));
}

/// `bytes`, with the first version's number at the front and their checksum at the end.
fn sealed(bytes: &[u8]) -> Bytes {
    let mut bytes = bytes.to_vec();
    if let Some(version) = bytes.first_mut() {
        *version = 1;
    }
    let checksum = blake3::hash(&bytes);
    bytes.extend(&checksum.as_bytes()[..CHECKSUM]);
    bytes.into()
}

fn reads_back(bytes: &Bytes) {
    match decode(bytes) {
        Err(_) => {}
        Ok(Decoded::Whole(record)) => assert_eq!(encode(&record, Placement::Within), bytes[..]),
        Ok(Decoded::Bodiless(bodiless)) => {
            let again = encode(bodiless.record(), Placement::Apart);
            let end = bytes.len() - BODY - CHECKSUM;
            assert_eq!(again.len(), bytes.len());
            assert_eq!(again[..end], bytes[..end]);
        }
    }
}
