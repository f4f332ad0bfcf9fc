//! The digests that name operations.

use std::borrow::Cow;

use super::select::KeyPart;
use super::{Digest, DigestKey, DigestKind, Request};
use crate::record::Fingerprint;
use crate::rule::Selector;
use crate::uri::normalise_value;

/// All parts of a scope or key, each with its selector.
#[derive(Clone, Copy)]
pub(super) struct KeyParts<'p>(pub(super) &'p [Selector], pub(super) &'p [KeyPart<'p>]);

/// The path parameters and the query, where they are part of the name.
pub(super) struct TargetInName<'p> {
    /// The values of the path's parameters.
    params: Vec<Cow<'p, str>>,
    query: Option<&'p str>,
}

impl<'p> TargetInName<'p> {
    /// `None` where there are neither parameters nor a query, so that such records keep their names.
    pub(super) fn of(request: &Request<'p>) -> Option<Self> {
        let params: Vec<_> = request.params.values().map(normalise_value).collect();
        (!params.is_empty() || request.query.is_some()).then_some(Self { params, query: request.query })
    }
}

/// The selectors are part of the digest, so that a changed rule never takes one caller's record for another's.
pub(super) fn by_key(
    digest_key: &DigestKey,
    scope: KeyParts<'_>,
    key: KeyParts<'_>,
    target: Option<TargetInName<'_>>,
) -> [u8; 16] {
    let mut digest = digest_key.digest(DigestKind::ByKey);
    scope.add_to(&mut digest);
    key.add_to(&mut digest);
    if let Some(TargetInName { params, query }) = target {
        digest.count(params.len());
        params.iter().for_each(|param| digest.part(param.as_bytes()));
        digest.tag(query.is_some().into());
        digest.bytes(query.unwrap_or_default().as_bytes());
    }
    digest.finish()
}

/// Without a key, everything that distinguishes two requests is part of the name, and the present parts of an incomplete
/// key too.
pub(super) fn by_payload(
    digest_key: &DigestKey,
    scope: KeyParts<'_>,
    key: KeyParts<'_>,
    host: Option<&str>,
    fingerprint: &Fingerprint,
    payload: &[u8; 16],
) -> [u8; 16] {
    let mut digest = digest_key.digest(DigestKind::ByPayload);
    scope.add_to(&mut digest);
    digest.tag(host.is_some().into());
    digest.part(host.unwrap_or_default().as_bytes());
    digest.bytes(&fingerprint.target);
    digest.bytes(&fingerprint.recipe.to_le_bytes());
    digest.bytes(payload);
    if !key.1.iter().all(KeyPart::is_absent) {
        key.add_to(&mut digest);
    }
    digest.finish()
}

impl KeyParts<'_> {
    pub(super) fn add_to(self, digest: &mut Digest) {
        let Self(selectors, parts) = self;
        digest.count(parts.len());
        selectors.iter().zip(parts).for_each(|(selector, part)| part.add_to(digest, selector));
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderName;
    use proptest::collection::vec;
    use proptest::prelude::*;

    use super::super::json::JsonValue;
    use super::*;
    use crate::rule::{JsonPointer, Period};

    /// Small alphabets, so that lists that nearly meet are common.
    fn selector() -> impl Strategy<Value = Selector> {
        prop_oneof![
            "[ab]{1,2}".prop_map(|name| Selector::Header(HeaderName::from_bytes(name.as_bytes()).expect("a name"))),
            "[ab]{1,2}".prop_map(Selector::Cookie),
            "[ab]{1,2}".prop_map(Selector::Form),
            "(/[ab]{0,1}){1,2}".prop_map(|text| Selector::Json(JsonPointer::parse(&text).expect("a pointer"))),
            "[ab]{1,2}".prop_map(Selector::Query),
            "[ab]{1,2}".prop_map(Selector::Path),
            Just(Selector::Host),
            "(/[ab]{0,1}){1,2}".prop_map(|text| Selector::Jwt(JsonPointer::parse(&text).expect("a pointer"))),
            Just(Selector::Ip),
            prop_oneof![Just(Period::Day), Just(Period::Month), Just(Period::Year)].prop_map(Selector::Date),
        ]
    }

    fn part() -> impl Strategy<Value = KeyPart<'static>> {
        let bytes =
            || prop_oneof![Just(&b""[..]), Just(&b"1"[..]), Just(&b"true"[..]), Just(&b"\x01\0\0\0\0\0\0\0"[..])];
        prop_oneof![
            Just(KeyPart::Absent),
            bytes().prop_map(|text| KeyPart::Text(Cow::Borrowed(text))),
            prop_oneof![Just("0"), Just("1"), Just("10")].prop_map(|text| KeyPart::Number(Cow::Borrowed(text))),
            any::<bool>().prop_map(KeyPart::Bool),
            vec(bytes().prop_map(Cow::Borrowed), 1..3).prop_map(KeyPart::Lines),
            vec(bytes().prop_map(Cow::Borrowed), 1..3).prop_map(KeyPart::Unverified),
            vec(prop_oneof![Just(JsonValue::Null), any::<bool>().prop_map(JsonValue::Bool)], 0..3)
                .prop_map(|values| KeyPart::Composite(JsonValue::Array(values))),
        ]
    }

    type List = Vec<(Selector, KeyPart<'static>)>;

    fn list() -> impl Strategy<Value = List> {
        vec((selector(), part()), 0..3)
    }

    fn name(scope: List, key: List) -> [u8; 16] {
        let (scope, key): ((Vec<_>, Vec<_>), (Vec<_>, Vec<_>)) = (scope.into_iter().unzip(), key.into_iter().unzip());
        by_key(&DigestKey::from_bytes([7; 32]), KeyParts(&scope.0, &scope.1), KeyParts(&key.0, &key.1), None)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn different_parts_never_meet(one in (list(), list()), other in (list(), list())) {
            let same = one == other;
            prop_assert_eq!(name(one.0, one.1) == name(other.0, other.1), same);
        }

        #[test]
        fn a_part_on_the_other_side_is_another_operation(scope in list(), key in list(), moved in (selector(), part())) {
            let wider_scope = [&scope[..], std::slice::from_ref(&moved)].concat();
            let wider_key = [std::slice::from_ref(&moved), &key[..]].concat();
            prop_assert_ne!(name(wider_scope, key), name(scope, wider_key));
        }
    }
}
