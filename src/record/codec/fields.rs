//! Header fields and trailers.

use http::{HeaderName, HeaderValue};

type FieldLine<'a> = (&'a HeaderName, &'a HeaderValue);

/// The number of bytes that [`put_fields`] writes.
pub(super) fn fields_len<'a>(lines: impl Iterator<Item = FieldLine<'a>>) -> usize {
    let (mut count, mut length) = (0, 0);
    for (name, value) in lines {
        let (name, value) = (name.as_str().len(), value.len());
        length += varint_len(name) + name + varint_len(value) + value;
        count += 1;
    }
    varint_len(count) + length
}

/// Writes these fields.
pub(super) fn put_fields<'a>(out: &mut Vec<u8>, count: usize, lines: impl Iterator<Item = FieldLine<'a>>) {
    put_varint(out, count);
    for (name, value) in lines {
        put_varint(out, name.as_str().len());
        out.extend_from_slice(name.as_str().as_bytes());
        put_varint(out, value.len());
        out.extend_from_slice(value.as_bytes());
    }
}

fn put_varint(out: &mut Vec<u8>, mut number: usize) {
    while number > 0x7f {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

fn varint_len(number: usize) -> usize {
    let bits = (usize::BITS - number.leading_zeros()).max(1);
    bits.div_ceil(7) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_varint_has_no_more_bytes_than_it_needs() {
        for (number, bytes) in [
            (0, &[0][..]),
            (1, &[1]),
            (0x7f, &[0x7f]),
            (0x80, &[0x80, 1]),
            (0x3fff, &[0xff, 0x7f]),
            (0x4000, &[0x80, 0x80, 1]),
            (u32::MAX as usize, &[0xff, 0xff, 0xff, 0xff, 0x0f]),
        ] {
            let mut out = Vec::new();
            put_varint(&mut out, number);
            assert_eq!((&out[..], varint_len(number)), (bytes, bytes.len()), "{number}");
        }
    }
}
