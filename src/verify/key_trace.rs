//! What an answer holds that is made of its request's key. It is the same for every request with that key, whatever each
//! of them did, and so it names no effect.

use std::ops::Range;

use bytes::Bytes;
use http::HeaderValue;
use http::header::LOCATION;
use ring::digest::{self, SHA1_FOR_LEGACY_USE_ONLY, SHA256, SHA512};

use super::answer::{ApiAnswer, ClientOutcome};
use super::key_position::KeyValue;

/// The characters of a UUID.
const UUID: usize = 36;
/// So many hex digits are no digest by chance.
const DIGEST: usize = 8;

/// A text that is made of a key, and how much of its beginning is enough to know it by.
struct KeyTrace {
    text: Vec<u8>,
    least: usize,
}

impl ClientOutcome {
    /// The same, with zeros in place of what is made of the key.
    pub(super) fn without_key(self, key: &KeyValue) -> Self {
        let traces = traces(key);
        match self {
            Self::Answered(answer) => Self::Answered(without(answer, &traces)),
            Self::GaveUp(answer) => Self::GaveUp(answer.map(|answer| without(answer, &traces))),
            Self::Failed(why) => Self::Failed(why),
        }
    }
}

fn traces(key: &KeyValue) -> Vec<KeyTrace> {
    let keys: Vec<&str> = match key {
        KeyValue::Absent => vec![],
        KeyValue::One(key) => vec![key],
        KeyValue::Two(one, other) => vec![one, other],
    };
    let mut traces = Vec::new();
    for sent in keys {
        let bare = sent.trim_matches('"');
        // A long key may be cut.
        traces.push(KeyTrace { text: bare.into(), least: bare.len().min(UUID) });
        let plain = bare.replace('-', "");
        traces.push(KeyTrace { least: plain.len().min(UUID - 4), text: plain.into() });
        for text in [bare, sent] {
            for algorithm in [&SHA1_FOR_LEGACY_USE_ONLY, &SHA256, &SHA512] {
                let bytes = digest::digest(algorithm, text.as_bytes());
                let hex: String = bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
                traces.push(KeyTrace { text: hex.into(), least: DIGEST });
            }
        }
    }
    // An empty key is in every text.
    traces.retain(|trace| trace.least >= DIGEST);
    traces
}

fn without(mut answer: ApiAnswer, traces: &[KeyTrace]) -> ApiAnswer {
    if let Some(body) = masked(&answer.body, traces) {
        answer.body = Bytes::from(body);
    }
    let location = answer.headers.get(LOCATION).and_then(|value| masked(value.as_bytes(), traces));
    if let Some(location) = location.and_then(|location| HeaderValue::from_bytes(&location).ok()) {
        answer.headers.insert(LOCATION, location);
    }
    answer
}

/// `None` if nothing of it is made of the key.
fn masked(text: &[u8], traces: &[KeyTrace]) -> Option<Vec<u8>> {
    let mut masked = text.to_vec();
    let mut mask = |range: Range<usize>| masked[range].iter_mut().filter(|byte| **byte != b'-').for_each(|b| *b = b'0');
    let mut at = 0;
    while at < text.len() {
        let rest = &text[at..];
        let found = traces.iter().map(|trace| trace.found(rest)).max().unwrap_or_default();
        let length = if found == 0 && is_name_based(rest) { UUID } else { found };
        mask(at..at + length);
        at += length.max(1);
    }
    (masked != text).then_some(masked)
}

impl KeyTrace {
    /// How much of it this text begins with; 0 if too little to know it by.
    fn found(&self, text: &[u8]) -> usize {
        let alike = self.text.iter().zip(text).take_while(|(one, other)| one.eq_ignore_ascii_case(other)).count();
        if alike >= self.least { alike } else { 0 }
    }
}

/// Whether a UUID is there that is made of a name, the key mostly (RFC 9562, 5.3 and 5.5).
fn is_name_based(text: &[u8]) -> bool {
    let is_uuid = |text: &[u8]| {
        text.iter().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => *byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
    };
    let in_place = |at: usize, those: &[u8]| text.get(at).is_some_and(|byte| those.contains(byte));
    in_place(14, b"35") && in_place(19, b"89abAB") && text.get(..UUID).is_some_and(is_uuid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "3f1c4a52-9d0e-4b7a-8c11-d2e5f60718aa";

    fn shown(text: &str, key: &str) -> String {
        let masked = masked(text.as_bytes(), &traces(&KeyValue::One(key.to_owned())));
        masked.map_or(text.to_owned(), |masked| String::from_utf8(masked).expect("UTF-8"))
    }

    #[test]
    fn a_key_is_seen_in_whatever_spelling_and_as_a_digest() {
        let zeros = "00000000-0000-0000-0000-000000000000";
        assert_eq!(shown(&format!("/orders/{KEY}?a=1"), KEY), format!("/orders/{zeros}?a=1"));
        assert_eq!(shown(&format!("ord_{}!", KEY.to_uppercase()), KEY), format!("ord_{zeros}!"));
        assert_eq!(shown(&KEY.replace('-', ""), &format!("\"{KEY}\"")), "0".repeat(32));
        let long = format!("{KEY}{}a", "x".repeat(900));
        assert_eq!(shown(&long[..255], &long), format!("{zeros}{}", "0".repeat(255 - UUID)));
        let hex = |digits: usize| -> String {
            let bytes = digest::digest(&SHA256, KEY.as_bytes());
            bytes.as_ref().iter().map(|byte| format!("{byte:02x}")).collect::<String>()[..digits].to_owned()
        };
        for digits in [8, 12, 64] {
            assert_eq!(
                shown(&format!("{{\"id\":\"{}\"}}", hex(digits)), KEY),
                format!("{{\"id\":\"{}\"}}", "0".repeat(digits))
            );
        }
        assert_eq!(shown(&hex(7), KEY), hex(7));
        // Made of a name (version 5), and not (4, 7).
        assert_eq!(shown("21f7f8de-8051-5b89-8680-0195ef798b6a", KEY), zeros);
        for random in ["21f7f8de-8051-4b89-8680-0195ef798b6a", "21f7f8de-8051-7b89-8680-0195ef798b6a", "id 17", ""] {
            assert_eq!(shown(random, KEY), random);
        }
        assert_eq!(shown("any text", ""), "any text");
    }
}
