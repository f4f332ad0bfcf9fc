//! Names of header fields: those of one connection, and other spellings of a name.
//!
//! HTTP treats `Idempotency-Key` and `Idempotency_Key` as two fields. Backends that pass fields as variables do not: CGI
//! (RFC 3875, 4.1.18), PHP, WSGI and Rack turn both into `HTTP_IDEMPOTENCY_KEY`. Some do the same with every character
//! that is not a letter or digit. A proxy cannot know which of two such fields the backend takes.

use http::HeaderName;

/// Whether a backend may take two names for the same field.
pub fn is_same_field(one: &HeaderName, other: &HeaderName) -> bool {
    let (one, other) = (one.as_str(), other.as_str());
    one.len() == other.len() && one.bytes().map(folded).eq(other.bytes().map(folded))
}

/// Whether a backend may take the name for one with this prefix. `prefix` is folded.
pub fn may_begin_with(name: &HeaderName, prefix: &str) -> bool {
    name.as_str().get(..prefix.len()).is_some_and(|start| start.bytes().map(folded).eq(prefix.bytes()))
}

/// Whether the name has characters that are folded.
pub fn is_foldable(name: &HeaderName) -> bool {
    // No early return: the loop is vectorised, and most names have no such character.
    let stands = |byte: u8| byte.is_ascii_lowercase() | byte.is_ascii_digit() | (byte == b'-');
    name.as_str().bytes().fold(false, |found, byte| found | !stands(byte))
}

/// Names are in lower case (`http::HeaderName`).
fn folded(byte: u8) -> u8 {
    if byte.is_ascii_alphanumeric() { byte } else { b'-' }
}

/// Fields of one connection (RFC 9110, 7.6.1) or of the message's framing. They do not identify a caller or a request, and
/// intermediaries may change them.
const PER_HOP: [&str; 10] = [
    "connection",
    "content-length",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Whether a field cannot identify a caller or a request, because it belongs to one connection or message.
pub fn is_per_hop(name: &HeaderName) -> bool {
    PER_HOP.contains(&name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HeaderName {
        HeaderName::from_bytes(text.as_bytes()).expect("a name")
    }

    #[test]
    fn names_that_become_one_variable_are_the_same() {
        for (one, other, same) in [
            ("Idempotency-Key", "idempotency_key", true),
            ("Idempotency-Key", "Idempotency.Key", true),
            ("Idempotency-Key", "Idempotency~Key", true),
            ("a_b", "a.b", true),
            ("Idempotency-Key", "Idempotency-Keys", false),
            ("Idempotency-Key", "IdempotencyKey", false),
            ("a-b", "a--b", false),
        ] {
            assert_eq!(is_same_field(&name(one), &name(other)), same, "{one} {other}");
        }
    }

    #[test]
    fn prefixes_are_found_in_any_spelling() {
        for (text, begins, foldable) in [
            ("Onlyonce-Attempt", true, false),
            ("Onlyonce_Attempt", true, true),
            ("onlyonce.attempt", true, true),
            ("only-once-attempt", false, false),
            ("onlyonce", false, false),
            ("onlyonceattempt", false, false),
        ] {
            assert_eq!(
                (may_begin_with(&name(text), "onlyonce-"), is_foldable(&name(text))),
                (begins, foldable),
                "{text}"
            );
        }
    }
}
