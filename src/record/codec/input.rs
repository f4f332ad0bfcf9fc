//! Reads the bytes of a record.

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::Unreadable;

const CUT_SHORT: Unreadable = Unreadable::Damaged("it is cut short");

/// What is left to read. Only values that are kept share the bytes, because each share is counted.
pub(super) struct RecordInput<'a> {
    bytes: &'a Bytes,
    at: usize,
    end: usize,
}

impl<'a> RecordInput<'a> {
    /// `bytes` up to `end`, which is not beyond them.
    pub(super) fn new(bytes: &'a Bytes, end: usize) -> Self {
        Self { bytes, at: 0, end }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.at == self.end
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], Unreadable> {
        let taken = self.bytes[self.at..self.end].get(..length).ok_or(CUT_SHORT)?;
        self.at += length;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Unreadable> {
        let taken = self.bytes[self.at..self.end].first_chunk::<N>().ok_or(CUT_SHORT)?;
        self.at += N;
        Ok(*taken)
    }

    pub(super) fn share(&mut self, length: usize) -> Result<Bytes, Unreadable> {
        let start = self.at;
        self.take(length)?;
        Ok(self.bytes.slice(start..self.at))
    }

    pub(super) fn rest(&mut self) -> Bytes {
        let rest = self.bytes.slice(self.at..self.end);
        self.at = self.end;
        rest
    }

    /// Lengths in a record are far below 2^35.
    fn varint(&mut self) -> Result<usize, Unreadable> {
        let mut number = 0_u64;
        for shift in (0..35).step_by(7) {
            let [byte] = self.array()?;
            number |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                let is_shortest = byte != 0 || shift == 0;
                return usize::try_from(number)
                    .ok()
                    .filter(|_| is_shortest)
                    .ok_or(Unreadable::Damaged("a length in it has more bytes than it needs"));
            }
        }
        Err(Unreadable::Damaged("a length in it is longer than any record"))
    }

    pub(super) fn fields(&mut self) -> Result<HeaderMap, Unreadable> {
        let count = self.varint()?;
        let mut fields = HeaderMap::with_capacity(count.min(256));
        let mut last = None;
        for _ in 0..count {
            let length = self.varint()?;
            let name = HeaderName::from_lowercase(self.take(length)?)
                .map_err(|_| Unreadable::Damaged("a field name is none"))?;
            let length = self.varint()?;
            let value = HeaderValue::from_maybe_shared(self.share(length)?)
                .map_err(|_| Unreadable::Damaged("a field value is none"))?;
            // `HeaderMap` panics if it is asked for more than it can hold.
            let known = fields.try_append(&name, value).map_err(|_| Unreadable::Damaged("it has too many fields"))?;
            if known && last.as_ref() != Some(&name) {
                return Err(Unreadable::Damaged("the lines of a field stand apart"));
            }
            last = Some(name);
        }
        Ok(fields)
    }
}
