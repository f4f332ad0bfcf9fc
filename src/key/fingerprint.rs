use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::body::{AnyForm, Body, Media};
use super::{Digest, DigestKey, DigestKind, Request};
use crate::record::Fingerprint;
use crate::rule::{FingerprintMode, JsonPointer};

/// Incremented when the digest of the same body changes in any mode. Fingerprints of older versions are then not
/// comparable.
const LAYOUT: u8 = 2;

/// The part of a body that is in the fingerprint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FingerprintedBody {
    /// Nothing.
    NotAtAll,
    /// Its bytes, by the rule or its `Content-Type`.
    Bytes,
    /// Its bytes, because it does not parse as its type.
    Unreadable,
    /// Its value.
    Json,
    /// Its fields.
    Form,
}

/// What a request uses its key for.
///
/// An additional digest of the raw bytes would save nothing: the claim must carry the fingerprint before it is known whether
/// there is a record.
pub(super) fn fingerprint(
    mode: &FingerprintMode,
    key: &DigestKey,
    request: &Request<'_>,
    body: &Body<'_>,
) -> Fingerprint {
    Fingerprint { target: target(key, request), recipe: recipe(mode), body: payload(mode, key, body) }
}

/// The digest of the body's bytes, as with `fingerprint = "raw"`.
pub(super) fn by_bytes(key: &DigestKey, body: &Body<'_>) -> [u8; 16] {
    payload(&FingerprintMode::Raw, key, body)
}

/// An absent query and an empty one differ.
fn target(key: &DigestKey, request: &Request<'_>) -> [u8; 16] {
    let mut digest = key.digest(DigestKind::Target);
    digest.part(request.method.as_str().as_bytes());
    digest.part(request.path.as_bytes());
    digest.tag(request.query.is_some().into());
    digest.bytes(request.query.unwrap_or_default().as_bytes());
    digest.finish()
}

/// Identifies the way of digesting a body. It depends on no request, so that it needs no key.
fn recipe(mode: &FingerprintMode) -> u64 {
    let (tag, ignore): (u8, &[JsonPointer]) = match mode {
        FingerprintMode::Raw => (1, &[]),
        FingerprintMode::Json { ignore } => (2, ignore),
        FingerprintMode::None => (3, &[]),
        FingerprintMode::Form => (4, &[]),
        FingerprintMode::Auto { ignore } => (5, ignore),
    };
    let recipe = u64::from_be_bytes([0, 0, 0, 0, 0, 0, LAYOUT, tag]);
    if ignore.is_empty() {
        return recipe;
    }
    let mut text = Vec::with_capacity(64);
    for pointer in ignore {
        text.extend_from_slice(&(pointer.tokens().len() as u64).to_le_bytes());
        for token in pointer.tokens() {
            text.extend_from_slice(&(token.len() as u64).to_le_bytes());
            text.extend_from_slice(token.as_bytes());
        }
    }
    xxh3_64_with_seed(&text, recipe)
}

fn payload(mode: &FingerprintMode, key: &DigestKey, body: &Body<'_>) -> [u8; 16] {
    let mut digest = key.digest(DigestKind::Body);
    add(&mut digest, mode, body);
    digest.finish()
}

/// A body that does not parse is compared by its bytes. The way of reading is part of the digest.
pub(super) fn add(digest: &mut Digest, mode: &FingerprintMode, body: &Body<'_>) -> FingerprintedBody {
    let counted = match mode {
        FingerprintMode::None => return FingerprintedBody::NotAtAll,
        FingerprintMode::Raw => FingerprintedBody::Bytes,
        FingerprintMode::Json { ignore } => add_json(digest, body, ignore),
        FingerprintMode::Form => add_form(digest, body, &[]),
        FingerprintMode::Auto { ignore } => match body.media() {
            Media::Json => add_json(digest, body, ignore),
            Media::Form | Media::Multipart => add_form(digest, body, ignore),
            Media::Stream | Media::Other => FingerprintedBody::Bytes,
        },
    };
    if matches!(counted, FingerprintedBody::Bytes | FingerprintedBody::Unreadable) {
        digest.tag(0);
        digest.bytes(body.bytes);
    }
    counted
}

/// Parsers differ in which of two members of one name they take, so that a document with duplicates has no value.
fn add_json(digest: &mut Digest, body: &Body<'_>, ignore: &[JsonPointer]) -> FingerprintedBody {
    let Some(json) = body.json().filter(|json| !json.has_duplicates()) else { return FingerprintedBody::Unreadable };
    digest.tag(1);
    json.add_to(digest, ignore);
    FingerprintedBody::Json
}

/// The fields, decoded, in their order, which a backend may depend on. A pointer to a member of the whole names a field.
fn add_form(digest: &mut Digest, body: &Body<'_>, ignore: &[JsonPointer]) -> FingerprintedBody {
    let counts = |name: &[u8]| {
        let is_ignored = |pointer: &JsonPointer| matches!(pointer.tokens(), [field] if field.as_bytes() == name);
        !ignore.iter().any(is_ignored)
    };
    match body.form() {
        None => return FingerprintedBody::Unreadable,
        Some(AnyForm::Urlencoded(form)) => {
            digest.tag(2);
            for (name, value) in form.pairs().filter(|(name, _)| counts(name)) {
                digest.part(name);
                digest.part(value);
            }
        }
        Some(AnyForm::Multipart(form)) => {
            digest.tag(3);
            form.add_to(digest, counts);
        }
    }
    FingerprintedBody::Form
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, Method};

    use super::super::body::Declared;
    use super::*;
    use crate::record::Comparison;
    use crate::rule::PathParams;

    fn auto() -> FingerprintMode {
        FingerprintMode::Auto { ignore: Vec::new() }
    }

    fn json() -> FingerprintMode {
        FingerprintMode::Json { ignore: Vec::new() }
    }

    fn of(mode: &FingerprintMode, media: Media, bytes: &str) -> Fingerprint {
        of_encoded(mode, media, bytes, false)
    }

    fn of_encoded(mode: &FingerprintMode, media: Media, bytes: &str, encoded: bool) -> Fingerprint {
        let content_type = Some("multipart/form-data; boundary=x");
        let body = Body::new(Declared { media, content_type, several_types: false, encoded }, bytes.as_bytes());
        let (headers, params) = (HeaderMap::new(), PathParams::default());
        let request = Request::plain(&Method::POST, &headers, &params);
        fingerprint(mode, &DigestKey::from_bytes([7; 32]), &request, &body)
    }

    #[test]
    fn bodies_compare_as_their_mode_and_media_type_say() {
        use Comparison::{OtherBody, Same};
        let spaced = ("{\"a\":1,\"b\":2}", "{ \"b\": 2.0, \"a\": 1 }");
        let broken = ("{\"a\":1,", "{ \"a\":1,");
        let parts = (
            "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n1\r\n--x--",
            "--x\r\ncontent-disposition:form-data; name=\"a\"\r\n\r\n1\r\n--x--\r\n",
        );
        let other_parts = parts.1.replace("\r\n1\r\n", "\r\n2\r\n");
        let doubled = ("{\"a\":1,\"a\":2}", "{\"a\":1, \"a\":2}");
        for (mode, media, (one, other), expected) in [
            (auto(), Media::Json, spaced, Same),
            (auto(), Media::Other, spaced, OtherBody),
            (auto(), Media::Form, spaced, OtherBody),
            (json(), Media::Other, spaced, Same),
            (FingerprintMode::Raw, Media::Json, spaced, OtherBody),
            (FingerprintMode::None, Media::Json, spaced, Same),
            (FingerprintMode::None, Media::Json, ("1", "2"), Same),
            (auto(), Media::Json, ("1", "2"), OtherBody),
            (auto(), Media::Json, broken, OtherBody),
            (auto(), Media::Json, (broken.0, broken.0), Same),
            (auto(), Media::Json, doubled, OtherBody),
            (auto(), Media::Form, ("a=x+y&b=1", "a=x%20y&&%62=1"), Same),
            (auto(), Media::Form, ("a=1&b=1", "b=1&a=1"), OtherBody),
            (auto(), Media::Form, ("a=1&b=1", "a=1%26b=1"), OtherBody),
            (auto(), Media::Form, ("a=%", "a=%25"), OtherBody),
            (auto(), Media::Form, ("a=%ff", "a=%fe"), OtherBody),
            (json(), Media::Form, ("a=x+y", "a=x%20y"), OtherBody),
            (auto(), Media::Multipart, parts, Same),
            (auto(), Media::Multipart, (parts.0, &other_parts), OtherBody),
            (auto(), Media::Multipart, ("--x", "--x\r\n"), OtherBody),
            (auto(), Media::Other, parts, OtherBody),
            (FingerprintMode::Form, Media::Multipart, parts, Same),
            (FingerprintMode::Form, Media::Other, ("a=x+y", "a=x%20y"), Same),
            (FingerprintMode::Form, Media::Json, ("a=%", "a=%25"), OtherBody),
            (FingerprintMode::Raw, Media::Multipart, parts, OtherBody),
            (auto(), Media::Other, ("", ""), Same),
            (auto(), Media::Json, ("", " "), OtherBody),
        ] {
            assert_eq!(
                of(&mode, media, one).compare(&of(&mode, media, other)),
                expected,
                "{mode:?} {media:?} {one} {other}"
            );
        }
    }

    #[test]
    fn an_encoded_body_counts_by_its_bytes() {
        let one = of_encoded(&auto(), Media::Json, "{\"a\":1}", true);
        assert_eq!(one.compare(&of_encoded(&auto(), Media::Json, "{\"a\": 1}", true)), Comparison::OtherBody);
        assert_eq!(one.body, of(&auto(), Media::Other, "{\"a\":1}").body);
    }

    #[test]
    fn how_a_body_was_read_counts() {
        let read = [Media::Json, Media::Form, Media::Other].map(|media| of(&auto(), media, "1").body);
        assert!(read[0] != read[1] && read[1] != read[2] && read[0] != read[2]);
    }

    #[test]
    fn another_recipe_cannot_be_compared() {
        let ignoring = |pointers: &[&str]| {
            let ignore = pointers.iter().filter_map(|text| JsonPointer::parse(text)).collect();
            FingerprintMode::Auto { ignore }
        };
        let modes = [
            auto(),
            json(),
            FingerprintMode::Raw,
            FingerprintMode::Form,
            FingerprintMode::None,
            ignoring(&["/a"]),
            ignoring(&["/a", "/b"]),
            ignoring(&["/a/b"]),
        ];
        for (i, one) in modes.iter().enumerate() {
            for (j, other) in modes.iter().enumerate() {
                let comparison = of(one, Media::Other, "1").compare(&of(other, Media::Other, "2"));
                assert_eq!(comparison == Comparison::Incomparable, i != j, "{one:?} {other:?}");
            }
        }
        assert_eq!(of(&ignoring(&["/a"]), Media::Json, "{\"a\":1}").body, of(&auto(), Media::Json, "{}").body);
    }

    #[test]
    fn method_path_and_query_are_the_target() {
        let (headers, params) = (HeaderMap::new(), PathParams::default());
        let targets = [
            (Method::POST, "/a", None),
            (Method::PUT, "/a", None),
            (Method::POST, "/b", None),
            (Method::POST, "/a", Some("")),
            (Method::POST, "/a", Some("b")),
            (Method::POST, "/a", Some("%62")),
            (Method::POST, "/ab", Some("")),
        ]
        .map(|(method, path, query)| {
            let request = Request { path, query, ..Request::plain(&method, &headers, &params) };
            target(&DigestKey::from_bytes([7; 32]), &request)
        });
        for (i, one) in targets.iter().enumerate() {
            assert!(!targets[i + 1..].contains(one), "{i}");
        }
    }
}
