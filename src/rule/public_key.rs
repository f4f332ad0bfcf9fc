//! Public keys that tokens may be signed with, and which of them can be used.

use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind};

/// Why no token can be verified with a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unusable {
    /// An RSA modulus of an unsupported number of bits.
    RsaBits(usize),
    /// A point on another curve than P-256 and P-384, or one that is compressed.
    Point,
    /// Malformed.
    Garbled,
}

/// The supported sizes of RSA keys (RFC 7518, 3.3, for the minimum).
pub const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Checked here because tokens of an unusable key would never verify, without any message.
pub fn unusable(key: &DecodingKey) -> Option<Unusable> {
    match (key.family(), key.kind()) {
        (AlgorithmFamily::Hmac, _) => None,
        (AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, .. }) => of_size(bits(n)),
        (AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(der)) => {
            modulus(der).map_or(Some(Unusable::Garbled), |n| of_size(bits(n)))
        }
        // Uncompressed: 4, x, y.
        (AlgorithmFamily::Ec, DecodingKeyKind::SecretOrDer(point)) => {
            (!matches!((point.first(), point.len()), (Some(4), 65 | 97))).then_some(Unusable::Point)
        }
        (AlgorithmFamily::Ed, DecodingKeyKind::SecretOrDer(point)) => (point.len() != 32).then_some(Unusable::Garbled),
        (AlgorithmFamily::Ec | AlgorithmFamily::Ed, DecodingKeyKind::RsaModulusExponent { .. }) => {
            Some(Unusable::Garbled)
        }
    }
}

fn of_size(bits: usize) -> Option<Unusable> {
    (!RSA_BITS.contains(&bits)).then_some(Unusable::RsaBits(bits))
}

fn bits(number: &[u8]) -> usize {
    let first = number.iter().position(|byte| *byte != 0).unwrap_or(number.len());
    let number = &number[first..];
    number.first().map_or(0, |first| number.len() * 8 - first.leading_zeros() as usize)
}

/// `RSAPublicKey ::= SEQUENCE { modulus INTEGER, publicExponent INTEGER }` (RFC 8017, A.1.1), in DER.
fn modulus(der: &[u8]) -> Option<&[u8]> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    let (fields, _) = value(SEQUENCE, der)?;
    Some(value(INTEGER, fields)?.0)
}

/// The content of a value with this tag, and what follows it.
fn value(tag: u8, der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&[found, length], rest) = der.split_first_chunk::<2>()?;
    if found != tag {
        return None;
    }
    // The long form says how many bytes hold the length (X.690, 8.1.3.5).
    let (length, rest) = match length {
        0..=0x7F => (usize::from(length), rest),
        0x81..=0x84 => {
            let (length, rest) = rest.split_at_checked(usize::from(length & 0x7F))?;
            (length.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_rsa_key_says_how_long_it_is() {
        let der = |modulus: &[u8]| {
            let length = |length: usize| {
                let length = u16::try_from(length).expect("short").to_be_bytes();
                [&[0x82][..], &length].concat()
            };
            let integer = [&[0x02][..], &length(modulus.len()), modulus].concat();
            let fields = [integer, vec![0x02, 0x03, 1, 0, 1]].concat();
            [&[0x30][..], &length(fields.len()), &fields].concat()
        };
        for (modulus, unusable_as) in [
            ([&[0, 0x80][..], &[1; 255]].concat(), None),
            ([&[0x40][..], &[1; 255]].concat(), Some(Unusable::RsaBits(2047))),
            ([&[0, 0x80][..], &[1; 127]].concat(), Some(Unusable::RsaBits(1024))),
            ([&[0, 0x80][..], &[1; 1024]].concat(), Some(Unusable::RsaBits(8200))),
            (vec![0], Some(Unusable::RsaBits(0))),
        ] {
            assert_eq!(unusable(&DecodingKey::from_rsa_der(&der(&modulus))), unusable_as);
            assert_eq!(unusable(&DecodingKey::from_rsa_raw_components(&modulus, &[1, 0, 1])), unusable_as);
        }
        for garbled in
            [&[][..], &[0x30], &[0x30, 0x05, 0x02], &[0x30, 0x89, 1], &[0x31, 0x00], &[0x30, 0x84, 255, 255, 255, 255]]
        {
            assert_eq!(unusable(&DecodingKey::from_rsa_der(garbled)), Some(Unusable::Garbled), "{garbled:?}");
        }
    }

    #[test]
    fn points_are_whole_and_on_curves_that_tokens_are_signed_on() {
        let point = |first: u8, length: usize| DecodingKey::from_ec_der(&[vec![first], vec![1; length]].concat());
        for (key, unusable_as) in [
            (point(4, 64), None),
            (point(4, 96), None),
            (point(4, 132), Some(Unusable::Point)),
            (point(2, 32), Some(Unusable::Point)),
            (DecodingKey::from_ed_der(&[1; 32]), None),
            (DecodingKey::from_ed_der(&[1; 57]), Some(Unusable::Garbled)),
        ] {
            assert_eq!(unusable(&key), unusable_as);
        }
    }
}
