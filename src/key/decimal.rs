//! Numbers by their exact decimal value, not as floats: `1`, `1.0` and `10e-1` are one number, and
//! `9007199254740993` is not `9007199254740992`.

use super::Digest;

/// A JSON number (RFC 8259, 6): the integer that `digits` spell, times ten to the `exponent`. Canonical: the digits
/// neither start nor end with a zero, and zero has none, no sign and no exponent.
#[derive(Debug)]
pub(super) struct Decimal<'a> {
    negative: bool,
    digits: [&'a str; 2],
    exponent: Exponent,
}

/// `Small` if and only if it fits.
#[derive(Debug, PartialEq, Eq)]
enum Exponent {
    Small(i128),
    Big(String),
}

impl<'a> Decimal<'a> {
    /// Reads a number as the grammar of JSON has it.
    pub(super) fn parse(number: &'a str) -> Self {
        let (negative, number) = number.strip_prefix('-').map_or((false, number), |number| (true, number));
        // Bytes are several times cheaper than characters.
        let split = |text: &'a str, at: &dyn Fn(u8) -> bool| {
            let at = text.bytes().position(at);
            at.map_or((text, None), |at| (&text[..at], Some(&text[at + 1..])))
        };
        let (mantissa, exponent) = split(number, &|byte| matches!(byte, b'e' | b'E'));
        let (whole, fraction) = split(mantissa, &|byte| byte == b'.');

        let fraction = without_end(fraction.unwrap_or_default());
        let shortened = if fraction.is_empty() { without_end(whole) } else { whole };
        let shift = (whole.len() - shortened.len()) as i128 - fraction.len() as i128;
        let whole = without_start(shortened);
        let fraction = if whole.is_empty() { without_start(fraction) } else { fraction };

        if whole.is_empty() && fraction.is_empty() {
            return Self { negative: false, digits: ["", ""], exponent: Exponent::Small(0) };
        }
        let exponent = exponent.map_or(Exponent::Small(shift), |exponent| Exponent::sum(exponent, shift));
        Self { negative, digits: [whole, fraction], exponent }
    }

    /// A form (bit 0: negative; above it: no exponent, one that fits, or one that does not), the digits, the exponent.
    pub(super) fn add_to(&self, digest: &mut Digest) {
        let form = match &self.exponent {
            Exponent::Small(0) => 0,
            Exponent::Small(_) => 2,
            Exponent::Big(_) => 4,
        };
        digest.tag(form | u8::from(self.negative));
        let [whole, fraction] = self.digits;
        digest.count(whole.len() + fraction.len());
        digest.bytes(whole.as_bytes());
        digest.bytes(fraction.as_bytes());
        match &self.exponent {
            Exponent::Small(0) => {}
            Exponent::Small(exponent) => digest.bytes(&exponent.to_le_bytes()),
            Exponent::Big(exponent) => digest.part(exponent.as_bytes()),
        }
    }
}

fn without_start(digits: &str) -> &str {
    &digits[digits.bytes().take_while(|digit| *digit == b'0').count()..]
}

fn without_end(digits: &str) -> &str {
    &digits[..digits.len() - digits.bytes().rev().take_while(|digit| *digit == b'0').count()]
}

impl Exponent {
    fn sum(written: &str, shift: i128) -> Self {
        if let Some(sum) = written.parse::<i128>().ok().and_then(|written| written.checked_add(shift)) {
            return Self::Small(sum);
        }
        let sum = long_sum(written, shift);
        sum.parse().map_or(Self::Big(sum), Self::Small)
    }
}

/// Digit by digit. The sum has the sign of `long`, which is far beyond any shift: a shift is at most the length of
/// a number's text.
fn long_sum(long: &str, shift: i128) -> String {
    let (sign, digits, mut carry) = match long.strip_prefix('-') {
        Some(digits) => ("-", digits, -shift),
        None => ("", long.strip_prefix('+').unwrap_or(long), shift),
    };
    let mut sum: Vec<u8> = Vec::with_capacity(digits.len() + 1);
    for digit in digits.bytes().rev() {
        carry += i128::from(digit - b'0');
        sum.push(b'0' + u8::try_from(carry.rem_euclid(10)).expect("a remainder of ten is a digit"));
        carry = carry.div_euclid(10);
    }
    if carry > 0 {
        sum.push(b'0' + u8::try_from(carry).expect("a shift is shorter than the number it is added to"));
    }
    let text: String = sum.iter().rev().copied().map(char::from).collect();
    format!("{sign}{}", text.trim_start_matches('0'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn canonical(number: &str) -> String {
        let Decimal { negative, digits, exponent } = Decimal::parse(number);
        let exponent = match exponent {
            Exponent::Small(exponent) => exponent.to_string(),
            Exponent::Big(exponent) => exponent,
        };
        format!("{}{}e{exponent}", if negative { "-" } else { "" }, digits.concat())
    }

    #[test]
    fn equal_numbers_have_one_form() {
        for (number, form) in [
            ("1", "1e0"),
            ("1.0", "1e0"),
            ("10e-1", "1e0"),
            ("0.1E+1", "1e0"),
            ("0.0010e3", "1e0"),
            ("100", "1e2"),
            ("1e2", "1e2"),
            ("1.20", "12e-1"),
            ("-0.05", "-5e-2"),
            ("10.01", "1001e-2"),
            ("9007199254740993", "9007199254740993e0"),
            ("9007199254740992", "9007199254740992e0"),
            ("0", "e0"),
            ("-0", "e0"),
            ("0.000e99999999999999999999999999999999999999999999", "e0"),
            ("1e00000000000000000000000000000000000000000000000000005", "1e5"),
        ] {
            assert_eq!(canonical(number), form, "{number}");
        }
    }

    #[test]
    fn exponents_of_any_length_are_exact() {
        let largest = i128::MAX.to_string();
        let beyond = "170141183460469231731687303715884105728";
        for (one, other) in [
            (format!("1e{beyond}"), format!("10e{largest}")),
            (format!("0.1e{beyond}"), format!("1e{largest}")),
            (format!("1e-{beyond}0"), format!("0.1e-{}9", "170141183460469231731687303715884105727")),
            (format!("1e1{}", "0".repeat(60)), format!("10e{}", "9".repeat(60))),
            (format!("1e-1{}", "0".repeat(60)), format!("0.1e-{}", "9".repeat(60))),
            (format!("1e+{beyond}"), format!("1E000{beyond}")),
        ] {
            assert_eq!(canonical(&one), canonical(&other));
        }
        assert_ne!(canonical(&format!("1e{beyond}")), canonical(&format!("1e{largest}")));
        assert_ne!(canonical(&format!("1e{beyond}")), canonical(&format!("1e-{beyond}")));
    }

    proptest! {
        /// Against integer arithmetic: both scaled to the same power of ten.
        #[test]
        fn equality_is_that_of_the_values(a in (-999i64..999, 0u32..4, -4i32..4), b in (-999i64..999, 0u32..4, -4i32..4)) {
            let written = |(mantissa, zeros, exponent): (i64, u32, i32)| {
                let places = usize::try_from(zeros).expect("small");
                let digits = format!("{:0>width$}", mantissa.unsigned_abs(), width = places + 1);
                let (whole, fraction) = digits.split_at(digits.len() - places);
                let point = if fraction.is_empty() { "" } else { "." };
                format!("{}{whole}{point}{fraction}e{exponent}", if mantissa < 0 { "-" } else { "" })
            };
            let scaled = |(mantissa, zeros, exponent): (i64, u32, i32)| {
                i128::from(mantissa) * 10_i128.pow(u32::try_from(exponent + 8).expect("positive") - zeros)
            };
            prop_assert_eq!(canonical(&written(a)) == canonical(&written(b)), scaled(a) == scaled(b));
        }

        #[test]
        fn a_canonical_number_is_its_own_form(number in "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,30})?([eE][+-]?[0-9]{1,50})?") {
            let form = canonical(&number);
            prop_assert!(form.starts_with('e') || canonical(&form) == form, "{number} {form}");
        }

        #[test]
        fn long_sums_agree_with_integers(long in any::<i128>(), shift in -1_000_000_i128..1_000_000) {
            prop_assume!(long.unsigned_abs() > 10_000_000 && long.checked_add(shift).is_some());
            prop_assert_eq!(long_sum(&long.to_string(), shift), (long + shift).to_string());
        }
    }
}
